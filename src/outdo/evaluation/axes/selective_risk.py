"""Selective risk: how often answers are wrong, on average over "answer only the surest", from the surest one to all.

The area under the risk-coverage curve (AURC; El-Yaniv and Wiener 2010, Geifman et al. 2019). 0 is perfect; a model
whose confidence says nothing has its error rate. Equally sure answers are taken to come in random order, so that the
area does not hang on the order of the examples.

The detail holds what to do with it: for each wanted share of right answers the threshold that validation chose, and
what it gives on the test, where nobody chose.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from outdo.contracts import Contestant, Measurement, Statistic, TestSet
from outdo.evaluation.axes._helpers import measured, sums
from outdo.evaluation.thresholds import thresholds, wilson

POINTS = 20  # of the curve


class SelectiveRisk:
    title = "selective risk"
    summary = "share of wrong answers, averaged over answering only the surest 0 to 100 % (area under risk-coverage)"
    unit = "fraction"
    better = "lower"
    tolerance = 0.0

    def measure(self, contestants: Sequence[Contestant], test: TestSet) -> dict[str, Measurement]:
        return {c.name: self._one(c, test) for c in contestants}

    def _one(self, contestant: Contestant, test: TestSet) -> Measurement:
        confidence, wrong = contestant.predictions.confidence, contestant.predictions.labels != test.codes
        detail: dict[str, Any] = {"curve": curve(confidence, wrong)}
        if contestant.held_out is not None and len(contestant.held_out):
            chosen = thresholds(contestant.held_out.predictions.probabilities, contestant.held_out.codes)
            detail["thresholds"] = [{**row, "test": above(row["threshold"], confidence, wrong)} for row in chosen]
        return measured(area(confidence, wrong), len(test), detail=detail)


def area(confidence: np.ndarray, wrong: np.ndarray) -> Statistic:
    """The exact integral of errors over coverage: within a group of equally sure answers errors grow linearly, E(c) =
    a + b c, and the integral of E(c) / c is a log(c) + b c."""
    levels, group = np.unique(-confidence, return_inverse=True)

    def statistic(weights: np.ndarray) -> np.ndarray:
        step = sums(weights, group, len(levels))
        errors = sums(weights, group, len(levels), wrong.astype(float))
        end, total = np.cumsum(step, 1), np.cumsum(errors, 1)
        start = end - step
        slope = errors / np.maximum(step, 1e-300)
        offset = total - errors - slope * start  # 0 in the first group that weighs anything
        grown = np.log(np.where(start > 0, end / np.maximum(start, 1e-300), 1.0))
        return (offset * grown + slope * step).sum(1) / end[:, -1]

    return statistic


def curve(confidence: np.ndarray, wrong: np.ndarray) -> list[dict[str, Any]]:
    """[{"coverage", "threshold", "accuracy"}] of the surest 5, 10, ..., 100 %."""
    order = np.argsort(-confidence, kind="stable")
    counts = sorted({max(1, round(len(order) * k / POINTS)) for k in range(1, POINTS + 1)}) if len(order) else []
    right = np.cumsum(~wrong[order])
    return [{"coverage": n / len(order), "threshold": float(confidence[order[n - 1]]),
             "accuracy": float(right[n - 1] / n)} for n in counts]


def above(threshold: float, confidence: np.ndarray, wrong: np.ndarray) -> dict[str, Any]:
    """What is answered with at least that confidence: {"n", "right", "coverage", "low"}."""
    sure = confidence >= threshold
    n, right = int(sure.sum()), int((sure & ~wrong).sum())
    return {"n": n, "right": right, "coverage": n / max(1, len(sure)), "low": wilson(right, n)}


PLUGIN = SelectiveRisk()
