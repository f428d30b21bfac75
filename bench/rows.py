"""One row of RESULTS.md: outdo on one dataset, from an empty cache, in a process of its own.

    python bench/rows.py SOURCE --minutes 2 [--again]

Prints JSON: test accuracy of before and after, seconds of each stage, wall and CPU seconds of the whole process
(imports included), and its peak memory. `--again` runs a second time on the warm cache.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any


def measure(command: list[str], env: dict[str, str]) -> dict[str, float]:
    """Wall and CPU seconds (user + system, children included) and peak memory of one process."""
    start, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, env=env, check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return {"wall_seconds": time.perf_counter() - start,
            "cpu_seconds": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
            "peak_memory_mb": after.ru_maxrss / 1024}


def row(report: dict[str, Any]) -> dict[str, Any]:
    names = {c["role"]: c["name"] for c in report["contestants"] if c["role"] in ("before", "after")}
    values = next(a["values"] for a in report["axes"] if a["axis"] == "accuracy")
    return {"before": values[names["before"]], "after": values[names["after"]], "which": names["after"],
            "validation": report["ladder"][-1]["validation"], "n": report["data"]["n"], "seconds": report["seconds"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source")
    parser.add_argument("--minutes", default="2")
    parser.add_argument("--seed", default="0")
    parser.add_argument("--again", action="store_true")
    said, more = parser.parse_known_args()
    with tempfile.TemporaryDirectory() as folder:
        env = {**os.environ, "OUTDO_CACHE": str(Path(folder) / "cache")}
        for name in ["cold", "warm"] if said.again else ["cold"]:
            out = Path(folder) / name
            command = [sys.executable, "-m", "outdo", "improve", said.source, "--minutes", said.minutes, "--seed",
                       said.seed, "--out", str(out), "--json", *more]
            cost = measure(command, env)
            print(json.dumps({"cache": name, **row(json.loads((out / "report.json").read_text())), **cost}, indent=1))


if __name__ == "__main__":
    main()
