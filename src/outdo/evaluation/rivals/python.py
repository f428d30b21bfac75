"""A Python object, fitted elsewhere: anything like scikit-learn's classifiers, given through the API."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from outdo.contracts import Ground, Inputs, Rival
from outdo.errors import DataError
from outdo.evaluation.rivals._match import bare, listed


class PythonObject:
    summary = "a Python object with predict, or predict_proba and classes_, through the API"

    def accepts(self, said: Any) -> bool:
        return not isinstance(said, str | Path)

    def meet(self, said: Any, ground: Ground) -> Rival:
        if hasattr(said, "predict_proba") and hasattr(said, "classes_"):
            classes = tuple(str(label) for label in said.classes_)
            return Rival(classes, lambda ids, inputs: np.asarray(said.predict_proba(inputs), float))
        if hasattr(said, "predict"):
            return Rival(ground.classes, lambda ids, inputs: labelled(said.predict(inputs), ids, ground.classes))
        raise DataError(f"a {type(said).__name__} cannot be asked", expected="an object with predict(inputs), or "
                        "predict_proba(inputs) and classes_", fix="wrap it, or name a file or folder")

    def example(self, folder: Path, ground: Ground) -> Any:
        return Always(ground.classes)


def labelled(answers: Any, ids: Sequence[str], classes: Sequence[str]) -> np.ndarray:
    """(N, C) certainties from labels. Raises DataError: another number of them, or one that is none of ours."""
    said = [str(label) for label in answers]
    where = {bare(label): i for i, label in enumerate(classes)} | {label: i for i, label in enumerate(classes)}
    codes = [where.get(label, where.get(bare(label), -1)) for label in said]
    strange = [label for label, code in zip(said, codes, strict=True) if code < 0]
    if len(said) != len(ids) or strange:
        raise DataError("the rival does not answer this test", expected=f"{len(ids)} labels of {listed(classes)}",
                        found=f"{len(said)} answers" + (f", such as '{strange[0]}'" if strange else ""))
    return np.eye(len(classes))[codes]


class Always:
    """The first class, for everything: a stand-in for tests."""

    def __init__(self, classes: Sequence[str]) -> None:
        self.classes_ = np.array(classes)

    def predict(self, inputs: Inputs) -> list[str]:
        return [str(self.classes_[0])] * len(inputs)


PLUGIN = PythonObject()
