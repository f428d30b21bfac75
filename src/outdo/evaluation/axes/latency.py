"""Latency: the time from one encoded file (or text) to its answer, decoding and preprocessing included.

The value is the median. p95 and p99 are in the detail: within a few seconds only a handful of samples lie above them,
too few to prove a difference with. So is the cold start, from weights on disk to a first answer.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from outdo import plugins
from outdo.contracts import Contestant, Inputs, Measurement, Runnable, TestSet
from outdo.evaluation.axes._helpers import alternate, calling, runnable, some
from outdo.runtime import cpu_model

SECONDS = 1.5  # per contestant, warm-up apart
ROUNDS = 100
WARM_UP = 3


class Latency:
    title = "latency"
    summary = "median seconds from one encoded file to its answer, contestants timed in turns"
    unit = "seconds"
    better = "lower"
    tolerance = 0.05

    def measure(self, contestants: Sequence[Contestant], test: TestSet) -> dict[str, Measurement]:
        models = runnable(contestants)
        if not models or not len(test):
            return {}
        calls = {name: calling(model, test.inputs) for name, model in models.items()}
        alternate(calls, 0.0, WARM_UP, fewest=1)
        taken = alternate(calls, SECONDS, ROUNDS)
        return {name: self._one(taken[name], cold_start(models[name], test.inputs)) for name in models}

    def _one(self, taken: np.ndarray, cold: float | None) -> Measurement:
        p50, p95, p99 = (float(value) for value in np.percentile(taken, [50, 95, 99]))
        detail = {"p50": p50, "p95": p95, "p99": p99, "rounds": len(taken), "batch": 1, "machine": cpu_model(),
                  "cold_start": cold}
        return Measurement(p50, len(taken), samples=taken, detail=detail)


def cold_start(model: Runnable, inputs: Inputs) -> float | None:
    """Seconds from the files of a model of ours to its first answer, the libraries being there; None for others."""
    from outdo import backbones
    from outdo.training.model import Model

    if not isinstance(model, Model):
        return None
    with tempfile.TemporaryDirectory(prefix="outdo-") as folder:
        model.save(Path(folder))
        start = time.perf_counter()
        Model.load(Path(folder), find_task=lambda name: plugins.load("tasks", name), find_backbone=backbones.load
                   ).predict(some(inputs, 0, 1))
        return time.perf_counter() - start


PLUGIN = Latency()
