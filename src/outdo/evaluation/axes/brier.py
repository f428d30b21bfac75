"""Brier score: the mean squared distance between the stated probabilities and the truth, 0 to 2.

Brier 1950, summed over all classes; with two classes it is twice what is often called the Brier score.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from outdo.contracts import Contestant, Measurement, TestSet
from outdo.evaluation.axes._helpers import mean_of, measured


class Brier:
    title = "Brier score"
    summary = "mean squared distance between the stated probabilities and the truth, 0 to 2"
    unit = "score"
    better = "lower"
    tolerance = 0.0

    def measure(self, contestants: Sequence[Contestant], test: TestSet) -> dict[str, Measurement]:
        return {c.name: measured(mean_of(distances(c.predictions.probabilities, test.codes)), len(test))
                for c in contestants}


def distances(probabilities: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """(N,) squared distances: sum of p^2, with the truth's p^2 replaced by (1 - p)^2."""
    p = probabilities.astype(np.float64)
    return (p**2).sum(1) + 1 - 2 * p[np.arange(len(codes)), codes]


PLUGIN = Brier()
