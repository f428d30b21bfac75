"""What each axis costs beside the fit, and the corruption axis beside a plain loop.

    python bench/axes.py SOURCE --minutes 2 [--axes default]

Claim: judging 800 images on all default axes takes at most half as long as a fit of 2 minutes on 2 cores, and the
corruption axis at least 5 times less than a loop that spoils and answers one image at a time from files. Prints JSON.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

import outdo
from outdo.contracts import TestSet
from outdo.data.inputs import pictures
from outdo.evaluation.axes import _corrupt_images, corruption
from outdo.evaluation.axes._helpers import square

LOOPED = 76  # spoilt images of the plain loop, which is timed on these and scaled up


class Stopwatch:
    """A progress callback that notes when each axis began."""

    def __init__(self) -> None:
        self.began: list[tuple[str, float]] = []

    def __call__(self, what: str, done: int, total: int) -> None:
        if what.startswith("measuring"):
            self.began.append((what.removeprefix("measuring, "), time.perf_counter()))

    def seconds(self) -> dict[str, float]:
        return {name: round(end - start, 2)
                for (name, start), (_, end) in zip(self.began, self.began[1:], strict=False)}


def plain_loop(model: Any, data: Any, ids: list[str]) -> float:
    """Seconds for one spoilt image: decode, spoil, write as a file, read, answer."""
    where = {name: i for i, name in enumerate(data.ids)}
    test = TestSet(tuple(ids), data.inputs.take(np.array([where[i] for i in ids])), np.zeros(len(ids), int), ("",))
    dealt = corruption.deal(test.ids, _corrupt_images.CORRUPTIONS, _corrupt_images.SEVERITIES)
    some = [dealt[i] for i in np.random.default_rng(0).permutation(len(dealt))[:LOOPED]]
    start = time.perf_counter()
    for i, name, severity in some:
        spoilt = _corrupt_images.corrupt(square(test.inputs.read(i)), name, severity)
        model.predict(pictures(spoilt[None]))
    return (time.perf_counter() - start) / len(some)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source")
    parser.add_argument("--minutes", type=float, default=2.0)
    parser.add_argument("--axes", default="default")
    said = parser.parse_args()
    watch, data = Stopwatch(), outdo.read(said.source)
    with tempfile.TemporaryDirectory() as folder:
        result = outdo.improve(data, minutes=said.minutes, axes=said.axes, out=Path(folder) / "run", progress=watch)
        report = result.report.as_json()
        splits = json.loads((Path(folder) / "run" / "stages" / "splits.json").read_text())
    costs, seconds = watch.seconds(), report["seconds"]
    fit = sum(seconds.get(stage, 0.0) for stage in ("features", "probe", "fit"))
    spoilt = next((a["detail"][result.model.name]["spoilt"] for a in report["axes"] if a["axis"] == "corruption"
                   and result.model.name in a["detail"]), None)
    found = {"n": report["data"]["n"], "after": result.model.name, "fit": fit, "judge": seconds["judge"],
             "share": seconds["judge"] / fit, "axes": costs}
    if spoilt:
        each, two = plain_loop(result.model, data, splits["test"]), 2  # the axis answers for before and after
        found["corruption"] = {"spoilt": spoilt, "axis": costs["under corruption"], "loop": each * spoilt * two,
                               "ratio": each * spoilt * two / costs["under corruption"]}
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
