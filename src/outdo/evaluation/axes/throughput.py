"""Throughput: examples per second from encoded files to answers, at the batch size that suits all contestants best.

One size for all: chosen for each alone, a clock that was read in a bad moment would decide between two that are alike.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from outdo.contracts import Contestant, Inputs, Measurement, Runnable, TestSet
from outdo.evaluation.axes._helpers import alternate, calling, runnable
from outdo.runtime import cpu_model

SECONDS = 1.5  # per contestant; looking for the best batch size costs at most about as much again
ROUNDS = 20
LARGEST = 128


class Throughput:
    title = "throughput"
    summary = "examples per second at the batch size that suits all best, timed in turns"
    unit = "per second"
    better = "higher"
    tolerance = 0.05

    def measure(self, contestants: Sequence[Contestant], test: TestSet) -> dict[str, Measurement]:
        models = runnable(contestants)
        if not models or not len(test):
            return {}
        rates = rates_by_batch(models, test.inputs)
        batch = best_batch(rates)
        calls = {name: calling(model, test.inputs, batch) for name, model in models.items()}
        taken = alternate(calls, SECONDS, ROUNDS)
        return {name: self._one(batch / taken[name], batch, rates[name]) for name in models}

    def _one(self, rate: np.ndarray, batch: int, rates: dict[int, float]) -> Measurement:
        detail = {
            "batch": batch,
            "rounds": len(rate),
            "batches": [{"batch": b, "per_second": r} for b, r in rates.items()],
            "machine": cpu_model(),
        }
        return Measurement(float(np.median(rate)), len(rate), samples=rate, detail=detail)


def rates_by_batch(models: Mapping[str, Runnable], inputs: Inputs) -> dict[str, dict[int, float]]:
    """Examples per second at 1, 2, 4, ... per call, taken in turns, as long as half the rounds of the next size still
    fit everybody's time."""
    rates: dict[str, dict[int, float]] = {name: {} for name in models}
    batch = 1
    while batch <= LARGEST:
        calls = {name: calling(model, inputs, batch) for name, model in models.items()}
        taken = {name: float(seconds.min()) for name, seconds in alternate(calls, 0.0, 2, fewest=2).items()}
        for name, seconds in taken.items():
            rates[name][batch] = batch / seconds
        if 2 * max(taken.values()) * ROUNDS / 2 > SECONDS:
            break
        batch *= 2
    return rates


def best_batch(rates: Mapping[str, Mapping[int, float]]) -> int:
    return max(next(iter(rates.values())), key=lambda batch: math.prod(rate[batch] for rate in rates.values()))


PLUGIN = Throughput()
