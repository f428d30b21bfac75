"""What every single-label classification shares, whatever goes in."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from outdo.contracts import Dataset, Kind, Targets
from outdo.data.checks import bare
from outdo.errors import DataError

if TYPE_CHECKING:
    import torch


class Classification:
    """One label out of C for each input. Subclasses say what goes in."""

    name: str
    summary: str
    kind: Kind
    metric = "accuracy"

    def suits(self, data: Dataset) -> str | None:
        """Why this task fits the data, in words; None when it does not."""
        if data.kind != self.kind:
            return None
        return f"every {self.kind} has one label, {len(np.unique(data.labels))} different ones"

    def targets(self, data: Dataset) -> Targets:
        """Classes in alphabetical order. Raises DataError on one class, empty labels, labels alike but for case."""
        labels = np.array([str(label).strip() for label in data.labels], dtype=str)
        _refuse_empty(labels, data.ids)
        classes, codes = np.unique(labels, return_inverse=True)
        _refuse_lookalikes(classes)
        if len(classes) < 2:
            found = f"only '{classes[0]}'" if len(classes) else "none"
            raise DataError(
                "there is nothing to tell apart",
                expected="at least two different labels",
                found=found,
                fix="add examples of another class, or check the label column or the folder names",
            )
        return Targets(tuple(map(str, classes)), codes.astype(np.int64))

    def head(self, width: int, classes: int) -> torch.nn.Module:
        from torch import nn

        return nn.Linear(width, classes)

    def loss(
        self,
        outputs: torch.Tensor,
        targets: torch.Tensor,
        class_weights: torch.Tensor | None,
        label_smoothing: float,
    ) -> torch.Tensor:
        """Cross-entropy, averaged over the batch; `targets` are codes (N,) or distributions (N, C)."""
        import torch.nn.functional as F

        return F.cross_entropy(outputs.float(), targets, weight=class_weights, label_smoothing=label_smoothing)

    def decode(self, outputs: np.ndarray, temperature: float = 1.0) -> np.ndarray:
        """Softmax of outputs / temperature: (N, C) float64, rows summing to 1."""
        scaled = np.asarray(outputs, np.float64) / temperature
        scaled -= scaled.max(1, keepdims=True)
        raised = np.exp(scaled)
        return raised / raised.sum(1, keepdims=True)

    def answer(self, probabilities: np.ndarray, classes: Sequence[str]) -> list[dict[str, Any]]:
        """For each example the most probable label, its probability, and all probabilities by class."""
        return [
            {
                "label": classes[int(row.argmax())],
                "probability": float(row.max()),
                "probabilities": {name: float(p) for name, p in zip(classes, row, strict=True)},
            }
            for row in probabilities
        ]


def _refuse_empty(labels: np.ndarray, ids: Sequence[str]) -> None:
    empty = np.flatnonzero(labels == "")
    if len(empty):
        raise DataError(
            f"{len(empty)} of {len(labels)} labels are empty",
            expected="a label for every example",
            found=", ".join(ids[i] for i in empty[:5]),
            fix="fill them in or remove those examples",
        )


def _refuse_lookalikes(classes: np.ndarray) -> None:
    alike: dict[str, list[str]] = defaultdict(list)
    for name in classes:
        alike[bare(name)].append(str(name))
    pairs = [group for group in alike.values() if len(group) > 1]
    if pairs:
        shown = "; ".join(" / ".join(map(repr, group)) for group in pairs[:5])
        raise DataError(
            "some labels differ only by case, blanks or Unicode form, so they are probably one class",
            found=shown,
            fix="make them one spelling, or tell them apart by more than case",
        )
