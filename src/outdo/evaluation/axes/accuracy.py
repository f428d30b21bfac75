"""Accuracy: the share of test examples answered correctly."""

from __future__ import annotations

from collections.abc import Sequence

from outdo.contracts import Contestant, Measurement, TestSet
from outdo.evaluation.axes._helpers import confusion, mean_of, measured, per_class

CONFUSION_UP_TO = 100  # classes: beyond that the table is large and nobody reads it


class Accuracy:
    title = "accuracy"
    summary = "share of test examples answered correctly"
    unit = "fraction"
    better = "higher"
    tolerance = 0.0

    def measure(self, contestants: Sequence[Contestant], test: TestSet) -> dict[str, Measurement]:
        return {c.name: self._one(c, test) for c in contestants}

    def _one(self, contestant: Contestant, test: TestSet) -> Measurement:
        labels = contestant.predictions.labels
        correct = labels == test.codes
        detail = {"per_class": per_class(test.codes, labels, test.classes)}
        if len(test.classes) <= CONFUSION_UP_TO and contestant.role != "baseline":
            detail["confusion"] = confusion(test.codes, labels, len(test.classes)).tolist()
        return measured(mean_of(correct), len(test), correct, detail)


PLUGIN = Accuracy()
