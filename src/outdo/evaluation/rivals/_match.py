"""A rival's classes and ours, matched by name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from outdo.contracts import TestSet
from outdo.errors import DataError
from outdo.evaluation.axes._helpers import confusion


def matched(name: str, theirs: Sequence[str], ours: Sequence[str]) -> tuple[np.ndarray, list[str]]:
    """((K,) our class for each of their columns, -1 for none; what has to be said about it).

    The same name first, then the same but for case, blanks, `-` and `_`. Raises DataError when no class is shared.
    """
    exact = {label: i for i, label in enumerate(ours)}
    loose = {bare(label): i for i, label in enumerate(ours)}
    columns = np.array([exact.get(label, loose.get(bare(label), -1)) for label in theirs], np.int64)
    if not (columns >= 0).any():
        raise DataError(f"the rival '{name}' knows none of the classes", expected=listed(ours), found=listed(theirs),
                        fix="it answers another question, or its classes have other names: say classes=A,B,... in its "
                            "order")
    remarks = []
    if missing := [label for i, label in enumerate(ours) if i not in columns]:
        remarks.append(f"does not know {listed(missing)}: it cannot answer those right")
    if more := [label for label, column in zip(theirs, columns, strict=True) if column < 0]:
        remarks.append(f"also knows {listed(more)}: what it gives to them is shared out among the others")
    return columns, remarks


def bare(label: str) -> str:
    return "".join(c for c in label.casefold() if not c.isspace() and c not in "-_")


def aligned(name: str, given: np.ndarray, columns: np.ndarray, classes: int, ids: Sequence[str]) -> np.ndarray:
    """(N, C) probabilities in our classes from (N, K) in theirs. Raises DataError: another shape, not finite, below 0.

    A row that gives nothing to any of our classes becomes uniform.
    """
    given = np.asarray(given, float)
    if given.shape != (len(ids), len(columns)):
        raise DataError(f"the rival '{name}' answers in the wrong shape", expected=f"{(len(ids), len(columns))}",
                        found=f"{given.shape}")
    wrong = np.flatnonzero(~np.isfinite(given).all(1) | (given < 0).any(1))
    if len(wrong):
        row = given[wrong[0]]
        what = "not a number" if not np.isfinite(row).all() else "a probability below 0"
        raise DataError(f"the rival '{name}' answers {what} for {len(wrong)} of {len(ids)} examples",
                        found=f"{ids[wrong[0]]}: {np.array2string(row[:5], precision=3)}", fix="mend the rival")
    out = np.zeros((len(ids), classes))
    for column, ours in enumerate(columns):
        if ours >= 0:
            out[:, ours] += given[:, column]
    total = out.sum(1, keepdims=True)
    return np.where(total > 0, out / np.where(total > 0, total, 1), 1 / classes)


def best_order(answers: np.ndarray, codes: np.ndarray, classes: int) -> np.ndarray:
    """(C,) the class whose column should be read for each of ours, so that most `answers` (N,) are right."""
    from scipy.optimize import linear_sum_assignment

    _, column = linear_sum_assignment(-confusion(codes, answers, classes))  # rows the truth, columns the answer
    return column


def some_of(trial: TestSet, most: int) -> TestSet:
    """At most so many examples, evenly spread, so that all classes are there."""
    pick = np.unique(np.linspace(0, max(0, len(trial) - 1), min(most, len(trial))).astype(np.int64))
    return replace(trial, ids=tuple(trial.ids[i] for i in pick), inputs=trial.inputs.take(pick),
                   codes=trial.codes[pick], columns={})


def listed(names: Sequence[str], most: int = 6) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(map(str, names[:most])) + more
