"""How long a command line waits before anything happens: `import outdo` and `outdo --help`, beside a bare interpreter.

    python bench/startup.py [--times 7]

Prints JSON: medians of wall seconds, the three in turns.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time

COMMANDS = {"python": ["-c", "pass"], "import outdo": ["-c", "import outdo"], "outdo --help": ["-m", "outdo", "--help"],
            "outdo improve --help": ["-m", "outdo", "improve", "--help"]}


def seconds(arguments: list[str]) -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=7)
    times = parser.parse_args().times
    rounds = [{name: seconds(arguments) for name, arguments in COMMANDS.items()} for _ in range(times)]
    print(json.dumps({name: round(statistics.median(r[name] for r in rounds), 3) for name in COMMANDS}, indent=1))


if __name__ == "__main__":
    main()
