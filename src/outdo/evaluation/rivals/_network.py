"""Somebody else's network, in a file or behind a URL: tensors in, numbers out, and everything between them and us."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from outdo.contracts import Ground, Inputs, Rival, TestSet, batches
from outdo.evaluation.rivals import _outputs, _pixels
from outdo.evaluation.rivals._match import aligned, best_order, matched, some_of

Run = Callable[[np.ndarray], np.ndarray]  # a batch to raw outputs, a row for each example


def of_images(run: Run, shape: Sequence[Any], dtype: str, options: Mapping[str, str], ground: Ground, *, batch: int,
              where: Path = Path()) -> Rival:
    """A network that eats pixels in a tensor of `shape` (whatever is not fixed is no int), prepared as `options` say
    and validation likes best. Raises DataError for whatever does not fit."""
    way, left, remarks = _pixels.way(shape, dtype, options)
    trial = some_of(ground.trial, _pixels.TRIED)
    peek = ground.inputs.take(np.arange(min(2, len(ground.inputs))))
    look = _raw(run, way.tensor(way.pixels(peek, ground.ids)), batch)
    classes, more = _outputs.classes_for(_pixels.known_classes(options, where), look.shape[1], ground.classes)
    columns, _ = matched("rival", classes, ground.classes)
    kind, named = "", not more

    def score(x: np.ndarray, trial: TestSet) -> tuple[float, ...]:
        nonlocal kind
        raw = _raw(run, x, batch)
        kind = kind or _outputs.kind_of(raw)
        given = aligned("rival", _outputs.probabilities(raw, kind), columns, len(ground.classes), trial.ids)
        right, loss = accuracy_and_loss(given, trial.codes)
        if named:
            return right, loss
        # the order of its classes was supposed: a way can be right while that is wrong, so the best order counts
        order = best_order(given.argmax(1), trial.codes, len(ground.classes))
        reordered, loss = accuracy_and_loss(given[:, order], trial.codes)
        return reordered, round(loss, 3), right

    way, found = _pixels.settled(way, left, trial, score)
    kind = kind or _outputs.kind_of(look)

    def answer(ids: Sequence[str], inputs: Inputs) -> np.ndarray:
        raw = [_raw(run, way.tensor(way.pixels(inputs.take(np.arange(part.start, part.stop)), ids[part])), batch)
               for part in batches(len(inputs), 4 * batch)]
        return _outputs.probabilities(np.concatenate(raw), kind) if raw else np.zeros((0, len(classes)))

    return Rival(classes, answer, (*remarks, *found, *more, f"its outputs are {kind}"), named=named)


def accuracy_and_loss(given: np.ndarray, codes: np.ndarray) -> tuple[float, float]:
    """(accuracy, minus log loss) of probabilities in the classes of `codes`."""
    sure = np.maximum(given[np.arange(len(codes)), codes], 1e-12)
    return float((given.argmax(1) == codes).mean()), float(np.log(sure).mean())


def of_items(run: Run, read: Callable[[Inputs, int], Any], options: Mapping[str, str], ground: Ground, *, batch: int,
             where: Path = Path()) -> Rival:
    """A network that eats whole texts or encoded files: whatever `read` makes of one input."""
    def raw(inputs: Inputs) -> np.ndarray:
        items = np.array([read(inputs, i) for i in range(len(inputs))], object)
        return _raw(run, items, batch)

    look = raw(ground.inputs.take(np.arange(min(8, len(ground.inputs)))))
    classes, more = _outputs.classes_for(_pixels.known_classes(options, where), look.shape[1], ground.classes)
    kind = _outputs.kind_of(look)

    def answer(ids: Sequence[str], inputs: Inputs) -> np.ndarray:
        return _outputs.probabilities(raw(inputs), kind) if len(inputs) else np.zeros((0, len(classes)))

    return Rival(classes, answer, (*more, f"its outputs are {kind}"), named=not more)


def _raw(run: Run, x: np.ndarray, batch: int) -> np.ndarray:
    return np.concatenate([_outputs.checked(run(x[part]), len(x[part])) for part in batches(len(x), batch)])
