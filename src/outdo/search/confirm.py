"""The winner of many trials is partly lucky: the best are trained again with other examples held out.

The second fold is taken from the training examples, and no trial was scored on it. What the winner gains there over the
default recipe is what to believe; what it gained more on the first fold was optimism.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from outdo.search import study as engine
from outdo.search.workbench import Workbench

FINALISTS = 3
DEFAULT = 0  # the number of the trial with the default recipe


def confirm(ledger: Any, bench: Workbench, aim: engine.Aim) -> dict[str, Any]:
    """{"n", "rows", "best", "chosen", "claimed", "confirmed", "optimism"}; gains are in nats over the default recipe.

    The finalist (or the default) with the least mean loss over both folds is chosen.
    """
    trials = ledger.get_trials(deepcopy=False)
    complete = sorted((t for t in trials if t.state.name == "COMPLETE"), key=lambda t: engine.about(t)["loss"])
    numbers = list(dict.fromkeys([DEFAULT, *(t.number for t in complete[:FINALISTS])]))
    rows = []
    for done, number in enumerate(numbers):
        if bench.study.progress:
            bench.study.progress("confirming on a second fold", done, len(numbers))
        rows.append({"trial": number, "first": scored(trials[number], bench, aim, "first"),
                     "second": scored(trials[number], bench, aim, "second")})
    rows = [row for row in rows if row["first"] and row["second"]]
    return {"n": [len(bench.first.validation), len(bench.second.validation)], "rows": rows, **judged(rows)}


def judged(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Which one is chosen, and how much of what the best had gained is left on the second fold."""
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


def scored(trial: Any, bench: Workbench, aim: engine.Aim, fold: Literal["first", "second"]
           ) -> dict[str, float] | None:
    """{"loss", "accuracy"} of the trial's recipe on a fold; None where it fails."""
    about, own = engine.about(trial), bench.of(trial.params)
    if fold == "first" and trial.state.name == "COMPLETE":
        return {k: about[k] for k in ("loss", "accuracy")}
    try:
        done = own.run(aim.space.recipe_of(trial.params), getattr(own, fold), about["seed"])
    except (RuntimeError, FloatingPointError, MemoryError):
        return None
    return {"loss": done.loss, "accuracy": done.accuracy}
