"""Throughput: examples per second at the best batch size, from encoded files to answers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from outdo.contracts import Contestant, Inputs, Measurement, Runnable, TestSet
from outdo.evaluation.axes._helpers import alternate, calling, runnable
from outdo.runtime import cpu_model

SECONDS = 1.5  # per contestant; looking for its best batch size costs at most about as much again
ROUNDS = 20
LARGEST = 128


class Throughput:
    title = "throughput"
    summary = "examples per second at each contestant's best batch size, timed in turns"
    unit = "per second"
    better = "higher"
    tolerance = 0.05

    def measure(self, contestants: Sequence[Contestant], test: TestSet) -> dict[str, Measurement]:
        models = runnable(contestants)
        if not models or not len(test):
            return {}
        rates = {name: rate_by_batch(model, test.inputs) for name, model in models.items()}
        best = {name: max(rate, key=lambda batch: rate[batch]) for name, rate in rates.items()}
        calls = {name: calling(model, test.inputs, best[name]) for name, model in models.items()}
        taken = alternate(calls, SECONDS, ROUNDS)
        return {name: self._one(best[name] / taken[name], best[name], rates[name]) for name in models}

    def _one(self, rate: np.ndarray, batch: int, rates: dict[int, float]) -> Measurement:
        detail = {
            "batch": batch,
            "rounds": len(rate),
            "batches": [{"batch": b, "per_second": r} for b, r in rates.items()],
            "machine": cpu_model(),
        }
        return Measurement(float(np.median(rate)), len(rate), samples=rate, detail=detail)


def rate_by_batch(model: Runnable, inputs: Inputs) -> dict[int, float]:
    """Examples per second at 1, 2, 4, ... per call, as long as half the rounds of the next size still fit the time."""
    rates, batch = {}, 1
    while batch <= LARGEST:
        taken = alternate({"": calling(model, inputs, batch)}, 0.0, 2, fewest=2)[""].min()
        rates[batch] = batch / float(taken)
        if 2 * taken * ROUNDS / 2 > SECONDS:
            break
        batch *= 2
    return rates


PLUGIN = Throughput()
