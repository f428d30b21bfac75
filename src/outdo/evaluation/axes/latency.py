"""Latency: the time from one encoded file (or text) to its answer, decoding and preprocessing included.

The value is the median. p95 is in the detail: within a few seconds only a handful of samples lie above it, too few
to prove a difference with.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from outdo.contracts import Contestant, Measurement, TestSet
from outdo.evaluation.axes._helpers import alternate, calling, runnable
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
        return {name: self._one(taken) for name, taken in alternate(calls, SECONDS, ROUNDS).items()}

    def _one(self, taken: np.ndarray) -> Measurement:
        p50, p95 = np.percentile(taken, [50, 95])
        detail = {"p50": float(p50), "p95": float(p95), "rounds": len(taken), "batch": 1, "machine": cpu_model()}
        return Measurement(float(p50), len(taken), samples=taken, detail=detail)


PLUGIN = Latency()
