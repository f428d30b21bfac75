"""The winner of many trials is partly lucky: the best are trained again with other examples held out.

The second fold is taken from the training examples, and no trial was scored on it. What the winner gains there over the
default recipe is what to believe; what it gained more on the first fold was optimism.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np

from outdo.search import memory
from outdo.search import study as engine
from outdo.search.workbench import Workbench

Fold = Literal["first", "second"]
FOLDS: tuple[Fold, ...] = ("first", "second")
FINALISTS = 3
DEFAULT = 0  # the number of the trial with the default recipe


def confirm(ledger: Any, bench: Workbench, aim: engine.Aim, default: Mapping[str, Any], clock: engine.Clock
            ) -> dict[str, Any]:
    """{"n", "rows", "best", "chosen", "claimed", "confirmed", "optimism"}; gains are in nats over the default recipe,
    whose values are `default`. No rows: nothing could be trained once more, and the default stays.

    The finalist (or the default) with the least mean loss over both folds is chosen. All have the limits of a trial.
    """
    trials = ledger.get_trials(deepcopy=False)
    complete = sorted((t for t in trials if t.state.name == "COMPLETE"), key=lambda t: engine.about(t)["loss"])
    unlike: dict[Any, Any] = {}  # the same recipe with another seed is no other finalist
    for trial in [trials[DEFAULT], *complete]:
        unlike.setdefault(frozenset(params_of(trial, default).items()), trial)
    rows, finalists = [], list(unlike.values())[: 1 + FINALISTS]
    for done, trial in enumerate(finalists):
        if bench.study.progress:
            bench.study.progress("confirming on a second fold", done, len(finalists))
        first, second = (scored(trial, bench, aim, fold, default, clock) for fold in FOLDS)
        if first and second:
            rows.append({"trial": trial.number, "first": first, "second": second})
    return {"n": [len(bench.first.validation), len(bench.second.validation)], "rows": rows, **judged(rows)}


def params_of(trial: Any, default: Mapping[str, Any]) -> dict[str, Any]:
    """The trial's values; of the first one, which may have been killed before it had all of them, the default's."""
    return {**trial.params, **default} if trial.number == DEFAULT else dict(trial.params)


def judged(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Which one is chosen, and how much of what the best had gained is left on the second fold."""
    if not rows:
        return {"best": DEFAULT, "chosen": DEFAULT, "claimed": None, "confirmed": None, "optimism": None}
    best = min(rows, key=lambda row: row["first"]["loss"])
    chosen = min(rows, key=lambda row: np.mean([row["first"]["loss"], row["second"]["loss"]]))
    claimed, confirmed = gains(rows, best["trial"]) or (None, None)
    return {"best": best["trial"], "chosen": chosen["trial"], "claimed": claimed, "confirmed": confirmed,
            "optimism": None if claimed is None or confirmed is None else claimed - confirmed}


def gains(rows: list[dict[str, Any]], number: int) -> tuple[float, float] | None:
    """Of that trial over the default recipe, on either fold; None where the default recipe failed."""
    one, usual = (next((row for row in rows if row["trial"] == n), None) for n in (number, DEFAULT))
    if one is None or usual is None:
        return None
    first, second = (usual[fold]["loss"] - one[fold]["loss"] for fold in ("first", "second"))
    return first, second


def handicap(confirmed: dict[str, Any]) -> float:
    """Nats that the chosen trial's loss on the first fold is too good by, next to models that were not chosen there."""
    first, second = gains(confirmed["rows"], confirmed["chosen"]) or (0.0, 0.0)
    return max(0.0, first - second)


def scored(trial: Any, bench: Workbench, aim: engine.Aim, fold: Fold, default: Mapping[str, Any],
           clock: engine.Clock) -> dict[str, float] | None:
    """{"loss", "accuracy"} of the trial's recipe on a fold; None where it fails, or has failed before."""
    about, params = engine.about(trial), params_of(trial, default)
    own = bench.of(params)
    if fold == "first" and trial.state.name == "COMPLETE":
        return {k: about[k] for k in ("loss", "accuracy")}
    if about.get("failure") not in (None, engine.INTERRUPTED):
        return None
    limits = engine.Clock(bench.study.left, clock.limit, clock.memory)
    try:
        with memory.limited(clock.memory):
            done = own.run(aim.space.recipe_of(params), getattr(own, fold), engine.seed_of(aim, trial.number),
                           over=limits.watch())
    except Exception:  # whatever breaks one of them, the others are compared
        return None
    return {"loss": done.loss, "accuracy": done.accuracy}
