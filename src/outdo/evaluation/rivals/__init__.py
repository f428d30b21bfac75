"""Somebody else's models on our test: found by what they are, tried on validation, their classes matched by name.

    find("theirs.onnx")                     the sort of rival that this is, before anything is read
    meet({"theirs": "theirs.onnx"}, ground)  contestants with their answers on the test, whose labels nobody has seen

One plug-in file for each sort. Nothing of a rival is ever unpickled.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from outdo import plugins
from outdo.contracts import Contestant, Ground, Inputs, Progress, Rival, RivalSort, Runnable, TestSet
from outdo.errors import DataError, RivalFailed
from outdo.evaluation.predictions import stored
from outdo.evaluation.rivals._match import aligned, best_order, listed, matched, some_of

TRIED = 100  # validation examples that a rival is tried on
ALPHA = 0.05
GAIN = 0.2  # what another order of the classes must add to the accuracy on validation to be worth a remark


def named(against: Mapping[str, Any] | Sequence[Any] | str | Path) -> dict[str, Any]:
    """Rivals by name; those that come without one are called by what was said. Raises DataError: the same one twice,
    or one that is of no known sort."""
    if isinstance(against, str | Path):
        against = [against]
    by_name = dict(against) if isinstance(against, Mapping) else dict(zip(short(against), against, strict=True))
    if len(by_name) < len(against):
        raise DataError("the same rival was named twice", found=listed(list(map(str, against))), fix="name it once")
    for said in by_name.values():
        find(said)
    return by_name


def short(said: Sequence[Any]) -> list[str]:
    """What to call them: the end of a path or URL, as long as it takes to tell it from the others."""
    parts = [_parts(one) for one in said]

    def tail(own: Sequence[str]) -> str:
        others = [other for other in parts if other != own]
        length = next((k for k in range(1, len(own)) if all(other[-k:] != own[-k:] for other in others)), len(own))
        return "/".join(own[-length:])

    return [tail(own) for own in parts]


def _parts(said: Any) -> list[str]:
    if not isinstance(said, str | Path):
        return [type(said).__name__]
    return [part for part in str(said).partition("?")[0].split("/") if part] or [str(said)]


def find(said: Any) -> RivalSort:
    """The sort of rival that `said` is. Raises DataError with the nearest name beside it."""
    for sort in plugins.load_all("rivals").values():
        if sort.accepts(said):
            return sort  # type: ignore[no-any-return]
    known = "; ".join(sort.summary for sort in plugins.load_all("rivals").values())
    path = Path(str(said).partition("?")[0]) if isinstance(said, str | Path) else None  # what follows ? are options
    if path is not None and not path.exists():
        beside = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
        close = difflib.get_close_matches(path.name, beside, n=1)
        raise DataError(f"the rival {said} does not exist", expected=known,
                        fix=f"did you mean '{path.parent / close[0]}'?" if close else "check the path")
    raise DataError(f"the rival {said} is of no sort that outdo knows", expected=known)


def meet(against: Mapping[str, Any], ground: Ground, progress: Progress | None = None) -> list[Contestant]:
    """Every rival with its answers on the test. Raises UserError, naming the rival, for one that cannot be asked or
    whose answers cannot be used."""
    found = []
    for done, (name, said) in enumerate(against.items()):
        if progress:
            progress("asking rivals", done, len(against))
        met = contestant(name, find(said).meet(said, ground), ground)
        where = {"said": str(said)} if isinstance(said, str | Path) else {}
        found.append(replace(met, about={**met.about, **where}))
    if progress and against:
        progress("asking rivals", len(against), len(against))
    return found


def told_apart(ours: Sequence[Contestant], met: Sequence[Contestant]) -> list[Contestant]:
    """All of them, each under a name of its own: a rival may be a folder called `linear probe`."""
    taken = {one.name for one in ours}
    return [*ours, *(replace(one, name=f"{one.name} (rival)") if one.name in taken else one for one in met)]


def contestant(name: str, rival: Rival, ground: Ground) -> Contestant:
    """The rival in our classes, tried on validation where it runs; what was found out is in `about["remarks"]`."""
    columns, remarks = matched(name, rival.classes, ground.classes)
    model = runnable(name, rival, ground)
    remarks = [*rival.remarks, *remarks]
    if model is not None and len(ground.trial):
        remarks += tried(model, rival, ground.trial)
    answers = aligned(name, rival.answer(ground.ids, ground.inputs), columns, len(ground.classes), ground.ids)
    if np.isin(answers, (0, 1)).all():
        remarks.append("gives no probabilities: every answer counts as 100 % sure, so calibration, log loss, Brier "
                       "score and selective risk say nothing about it")
    return Contestant(name, "rival", stored(answers), model, {"remarks": remarks})


def runnable(name: str, rival: Rival, ground: Ground) -> Runnable | None:
    """The rival in our classes, to be run again: itself, where it is ours and knows the same ones. None where that
    cannot be."""
    if rival.model is not None and rival.classes == ground.classes:
        return rival.model
    columns, _ = matched(name, rival.classes, ground.classes)
    return Aligned(name, rival, columns, len(ground.classes)) if rival.runs else None


class Aligned:
    """A rival whose answers are in our classes; satisfies `contracts.Runnable`."""

    def __init__(self, name: str, rival: Rival, columns: np.ndarray, classes: int) -> None:
        self.name, self.rival, self.columns, self.classes = name, rival, columns, classes

    def predict(self, inputs: Inputs) -> np.ndarray:
        """Raises RivalFailed, whatever it is that somebody else's model raises."""
        ids = [f"input {i + 1}" for i in range(len(inputs))]
        try:
            return aligned(self.name, self.rival.answer(ids, inputs), self.columns, self.classes, ids)
        except Exception as error:
            raise RivalFailed(self, error) from error

    def size_bytes(self) -> int | None:
        return self.rival.size_bytes

    def parameters(self) -> int | None:
        return self.rival.parameters


# ── on validation ────────────────────────────────────────────────────────────────────────────────────────────────────


def tried(model: Runnable, rival: Rival, trial: TestSet) -> list[str]:
    """How well it answers validation, and whether that is what chance would give."""
    trial = some_of(trial, TRIED)
    answers = model.predict(trial.inputs).argmax(1)
    right = float((answers == trial.codes).mean())
    remarks = [f"answers {percent(right)} of {len(trial)} validation examples correctly"]
    most = np.bincount(trial.codes, minlength=len(trial.classes))
    share = float(most.max() / len(trial))
    if at_chance(int((answers == trial.codes).sum()), len(trial), share):
        remarks.append(f"no better than always '{trial.classes[int(most.argmax())]}', which would be right in "
                       f"{percent(share)}: a wrong order of classes, colour order, scale or layout looks like this")
    if not rival.named and (better := _reordered(answers, trial, right)):
        remarks.append(better)
    return remarks


def at_chance(right: int, n: int, share: float) -> bool:
    """Whether so many right answers of n are no evidence (exact binomial test) of more than the largest class's share;
    with one class in the trial there is nothing to tell."""
    from scipy.stats import binomtest

    return share < 1 and float(binomtest(right, n, share, alternative="greater").pvalue) > ALPHA


def _reordered(answers: np.ndarray, trial: TestSet, right: float) -> str:
    """What to say when the supposed order of the classes fits far worse than another one."""
    column = best_order(answers, trial.codes, len(trial.classes))
    best = float((column[trial.codes] == answers).mean())
    if best < right + GAIN:
        return ""
    order = [trial.classes[truth] for truth in np.argsort(column)]
    if len(order) > 20:
        return f"with its classes in another order it would be right in {percent(best)}: say classes=FILE in its order"
    return (f"with its classes in the order {', '.join(order)} it would be right in {percent(best)}: if that is its "
            f"order, say classes={','.join(order)}")


def percent(share: float) -> str:
    return f"{100 * share:.0f} %"
