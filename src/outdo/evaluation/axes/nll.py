"""Negative log-likelihood: the mean surprise at the truth, in nats. Punishes confident mistakes hardest."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from outdo.contracts import Contestant, Measurement, TestSet
from outdo.evaluation.axes._helpers import mean_of, measured

SMALLEST = np.finfo(np.float64).eps  # as in scikit-learn's log_loss: a probability of 0 costs 36 nats, not infinity


class NLL:
    title = "log loss"
    summary = "mean negative log-probability given to the truth, in nats"
    unit = "nats"
    better = "lower"
    tolerance = 0.0

    def measure(self, contestants: Sequence[Contestant], test: TestSet) -> dict[str, Measurement]:
        return {c.name: measured(mean_of(losses(c.predictions.probabilities, test.codes)), len(test))
                for c in contestants}


def losses(probabilities: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """(N,) nats."""
    truth = probabilities[np.arange(len(codes)), codes].astype(np.float64)
    return -np.log(np.clip(truth, SMALLEST, 1.0))


PLUGIN = NLL()
