"""Expected calibration error: how far the stated confidence is from the share that is right.

Guo et al. 2017, "On Calibration of Modern Neural Networks": 15 bins of equal width over the top class's probability,
the gaps between mean confidence and accuracy weighted by the bins' sizes. On few examples it reads too high, because
the bins' accuracies scatter; both sides of a comparison share that, and the interval is for the error read at this n.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from outdo.contracts import Contestant, Measurement, Statistic, TestSet
from outdo.evaluation.axes._helpers import measured, sums

BINS = 15


class CalibrationError:
    title = "calibration error"
    summary = "expected calibration error: stated confidence against the share that is right, 15 bins"
    unit = "fraction"
    better = "lower"
    tolerance = 0.0

    def measure(self, contestants: Sequence[Contestant], test: TestSet) -> dict[str, Measurement]:
        return {c.name: self._one(c, test) for c in contestants}

    def _one(self, contestant: Contestant, test: TestSet) -> Measurement:
        confidence = contestant.predictions.confidence.astype(np.float64)
        correct = contestant.predictions.labels == test.codes
        detail = {"bins": reliability(confidence, correct)}
        return measured(gap(confidence, correct), len(test), detail=detail)


def bin_of(confidence: np.ndarray) -> np.ndarray:
    """(N,) bins 0..14: [0, 1/15), [1/15, 2/15), ..., [14/15, 1]; confidence 1.0 is in the last."""
    return np.searchsorted(np.linspace(0, 1, BINS + 1)[1:-1], confidence, side="right")


def gap(confidence: np.ndarray, correct: np.ndarray) -> Statistic:
    bins, excess = bin_of(confidence), confidence - correct
    return lambda weights: np.abs(sums(weights, bins, BINS, excess)).sum(1) / weights.sum(1)


def reliability(confidence: np.ndarray, correct: np.ndarray) -> list[dict[str, Any]]:
    """One row per bin: low, high, n, and the mean confidence and accuracy in it (None where it is empty)."""
    bins = bin_of(confidence)
    rows = []
    for b in range(BINS):
        inside = bins == b
        n = int(inside.sum())
        rows.append({
            "low": b / BINS,
            "high": (b + 1) / BINS,
            "n": n,
            "confidence": float(confidence[inside].mean()) if n else None,
            "accuracy": float(correct[inside].mean()) if n else None,
        })
    return rows


PLUGIN = CalibrationError()
