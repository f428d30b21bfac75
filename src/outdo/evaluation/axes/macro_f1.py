"""Macro-F1: the mean of the classes' F1, so that a rare class counts as much as a common one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from outdo.contracts import Contestant, Measurement, Statistic, TestSet
from outdo.evaluation.axes._helpers import measured, sums


class MacroF1:
    """Over the classes that occur in the test (or in the resample): a class without examples has no recall.

    The same as scikit-learn's `f1_score(average="macro", labels=classes that occur)`.
    """

    title = "macro-F1"
    summary = "mean over classes of the harmonic mean of precision and recall"
    unit = "fraction"
    better = "higher"
    tolerance = 0.0

    def measure(self, contestants: Sequence[Contestant], test: TestSet) -> dict[str, Measurement]:
        return {c.name: self._one(c, test) for c in contestants}

    def _one(self, contestant: Contestant, test: TestSet) -> Measurement:
        statistic = f1(test.codes, contestant.predictions.labels, len(test.classes))
        return measured(statistic, len(test))


def f1(codes: np.ndarray, labels: np.ndarray, classes: int) -> Statistic:
    hits = (codes == labels).astype(float)

    def statistic(weights: np.ndarray) -> np.ndarray:
        truth, said = sums(weights, codes, classes), sums(weights, labels, classes)
        both = 2 * sums(weights, codes, classes, hits)
        each = both / np.maximum(truth + said, 1e-300)  # 0/0 only where truth is 0: left out below
        return (each * (truth > 0)).sum(1) / (truth > 0).sum(1)

    return statistic


PLUGIN = MacroF1()
