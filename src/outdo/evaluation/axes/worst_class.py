"""Worst class: the recall of the class that is recognised least."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from outdo.contracts import Contestant, Measurement, Statistic, TestSet
from outdo.evaluation.axes._helpers import measured, per_class, sums


class WorstClass:
    """Over the classes that occur in the test (or in the resample). A minimum scatters more in resamples than in truth:
    its intervals are wider than they need be, and cover more than 95 %."""

    title = "worst class"
    summary = "recall of the class that is recognised least"
    unit = "fraction"
    better = "higher"
    tolerance = 0.0

    def measure(self, contestants: Sequence[Contestant], test: TestSet) -> dict[str, Measurement]:
        return {c.name: self._one(c, test) for c in contestants}

    def _one(self, contestant: Contestant, test: TestSet) -> Measurement:
        labels = contestant.predictions.labels
        present = [row for row in per_class(test.codes, labels, test.classes) if row["n"]]
        worst = min(present, key=lambda row: row["correct"] / row["n"], default=None)
        return measured(lowest_recall(test.codes, labels, len(test.classes)), len(test), detail=worst)


def lowest_recall(codes: np.ndarray, labels: np.ndarray, classes: int) -> Statistic:
    hits = (codes == labels).astype(float)

    def statistic(weights: np.ndarray) -> np.ndarray:
        truth = sums(weights, codes, classes)
        recall = sums(weights, codes, classes, hits) / np.maximum(truth, 1e-300)
        return np.where(truth > 0, recall, np.inf).min(1)

    return statistic


PLUGIN = WorstClass()
