"""Are outdo's verdicts as rare, its intervals as wide and its tests as strong as they claim? By simulation.

    python bench/statistics.py                    # 2,000 repetitions each, about ten minutes on one core
    python bench/statistics.py --repetitions 200

The work is in simulation.py beside this file, since this file has the name of a standard module: a library that asks
for that one, while a script of this folder runs, finds this one first and is handed on.
"""

import importlib.util
import sys
import sysconfig

if __name__ == "statistics":
    standard = importlib.util.spec_from_file_location(__name__, sysconfig.get_path("stdlib") + "/statistics.py")
    assert standard is not None
    assert standard.loader is not None
    sys.modules[__name__] = importlib.util.module_from_spec(standard)
    standard.loader.exec_module(sys.modules[__name__])

if __name__ == "__main__":
    from simulation import main

    main()
