"""What comes out of somebody else's network: probabilities, or numbers that have to become some."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from outdo.errors import DataError


def kind_of(outputs: np.ndarray) -> str:
    """"probabilities", "scores" (0 to 1 each, not summing to 1), "one score" for two classes, or "logits"."""
    inside = bool(((outputs >= -1e-4) & (outputs <= 1 + 1e-4)).all())
    if outputs.shape[1] == 1:
        return "one probability" if inside else "one logit"
    if not inside:
        return "logits"
    return "probabilities" if np.allclose(outputs.sum(1), 1, atol=0.01) else "scores"


def probabilities(outputs: np.ndarray, kind: str) -> np.ndarray:
    """(N, K) from raw outputs (N, K), or (N, 1) where one number is the second of two classes."""
    x = outputs.astype(np.float64)
    if kind == "one logit":
        x = 1 / (1 + np.exp(-np.clip(x, -500, 500)))
    if kind.startswith("one"):
        return np.concatenate([1 - x, x], axis=1)
    if kind == "logits":
        x = np.exp(x - x.max(1, keepdims=True))
    return x / np.maximum(x.sum(1, keepdims=True), 1e-300)


def checked(outputs: np.ndarray, n: int) -> np.ndarray:
    """(N, K), K at least 1, all finite. Raises DataError."""
    outputs = np.asarray(outputs)
    if outputs.ndim != 2 or len(outputs) != n or not outputs.shape[1]:
        raise DataError("the rival answers in the wrong shape", expected=f"{n} rows, a column for each class",
                        found=" x ".join(map(str, outputs.shape)) or "a single value")
    wrong = int((~np.isfinite(outputs)).any(1).sum())
    if wrong:
        raise DataError(f"the rival answers {wrong} of {n} examples with something that is not a number",
                        fix="check that it was exported right, and that it wants its inputs as they were given")
    return outputs


def classes_for(said: Sequence[str] | None, columns: int, ours: Sequence[str]) -> tuple[tuple[str, ...], list[str]]:
    """(names of the columns, remarks). Raises DataError when they cannot be known."""
    wide = 2 if columns == 1 else columns
    if said is not None:
        if len(said) != wide:
            raise DataError(f"the rival gives {wide} answers for each example and {len(said)} classes were named",
                            found=", ".join(said[:8]), expected=f"{wide} names, in its order")
        return tuple(said), []
    if wide != len(ours):
        raise DataError(f"the rival gives {wide} answers for each example, and nothing says of which classes",
                        expected=f"{len(ours)}, as many as there are classes here",
                        fix="say classes=A,B,C in its order, or classes=FILE.txt with one a line")
    return tuple(ours), ["does not name its classes: they were taken to be in alphabetical order, as image folders are"]
