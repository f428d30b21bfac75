"""The examples that a run chose by, read again from where they lie."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from outdo.contracts import Dataset, Inputs
from outdo.data.read import read
from outdo.deploy.quantize import CALIBRATION
from outdo.errors import DataError
from outdo.storage import read_json
from outdo.training.model import Model

MOST = 1000  # validation examples to compare answers on


@dataclass(frozen=True)
class Examples:
    """Some of validation with its labels as `codes` (N,), some of training, and the labels of all of validation."""

    validation: Inputs
    codes: np.ndarray
    training: Inputs
    truth: np.ndarray


def read_examples(folder: Path, source: str | Path, model: Model, columns: Mapping[str, str]) -> Examples:
    """Of the run in `folder`, from its `source`, read with the `columns` that were said.

    Raises DataError: gone, moved or no longer what they were.
    """
    split = read_json(folder / "stages" / "splits.json")
    try:
        data = read(source, **columns)
    except DataError as error:
        raise DataError("a bundle is proved on the run's own data, which cannot be read", found=str(error),
                        fix="say where they are now: --source") from None
    where = {name: i for i, name in enumerate(data.ids)}
    everything = _found(split["validation"], where, source)
    truth = _codes(data, everything, model.classes, source)
    some = spread(len(everything), MOST)
    training = _found([split["train"][i] for i in spread(len(split["train"]), CALIBRATION)], where, source)
    return Examples(data.inputs.take(everything[some]), truth[some], data.inputs.take(training), truth)


def spread(count: int, most: int) -> np.ndarray:
    """At most so many of so many, evenly: folders list one class after the other."""
    return np.unique(np.linspace(0, max(0, count - 1), min(count, most)).astype(np.int64))


def _found(names: Sequence[str], where: Mapping[str, int], source: str | Path) -> np.ndarray:
    lost = [name for name in names if name not in where]
    if lost:
        raise DataError(f"{source} no longer holds the examples of the run", found=f"{len(lost)} of {len(names)} are "
                        f"missing, such as {lost[0]}", fix="restore the data, or say where they are now: --source")
    return np.array([where[name] for name in names], np.int64)


def _codes(data: Dataset, indices: np.ndarray, classes: Sequence[str], source: str | Path) -> np.ndarray:
    code = {name: i for i, name in enumerate(classes)}
    labels = [str(data.labels[i]).strip() for i in indices]
    strange = next((label for label in labels if label not in code), None)
    if strange is not None:
        raise DataError(f"{source} has other labels than the run", found=f"'{strange}'",
                        fix="restore the data, or say where they are now: --source")
    return np.array([code[label] for label in labels], np.int64)
