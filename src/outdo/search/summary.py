"""What the report tells of a search. JSON, as `report.json` keeps it under "search"."""

from __future__ import annotations

import warnings
from collections import Counter
from typing import Any

import optuna
from optuna.trial import FrozenTrial

from outdo.search import confirm
from outdo.search import study as engine

ENOUGH = 10  # trials from which on importance is worth telling
STATES = {"COMPLETE": "complete", "PRUNED": "stopped early", "FAIL": "failed"}


def account(ledger: optuna.Study, aim: engine.Aim, workers: int, seconds: float, confirmed: dict[str, Any]
            ) -> dict[str, Any]:
    trials = [t for t in engine.counted(ledger) if t.state.name in STATES]
    return {
        "sampler": aim.sampler, "aims": ["validation loss", *(["latency"] if aim.latency else [])],
        "workers": workers, "seconds": seconds, "trials": len(trials),
        "states": dict(Counter(STATES[t.state.name] for t in trials)),
        "space": aim.space.as_json(), "importance": importance(trials), "confirmed": confirmed,
        "front": front(ledger, aim), "history": [row(t) for t in trials],
    }


def row(trial: FrozenTrial) -> dict[str, Any]:
    about = engine.about(trial)
    return {"trial": trial.number, "state": STATES[trial.state.name], "params": trial.params,
            **{k: about.get(k) for k in ("loss", "accuracy", "epochs", "seconds", "failure")}}


def importance(trials: list[FrozenTrial]) -> dict[str, float]:
    """Choice -> share of the differences among trials that goes back to it, the largest first.

    PED-ANOVA (Watanabe, Bansal and Hutter 2023), of the loss after the first epoch: trials that go on are a selection.
    Empty where there are too few trials, or no differences.
    """
    known = [(t, early_loss(t)) for t in trials if engine.about(t).get("loss") is not None]
    if len(known) < ENOUGH or len({loss for _, loss in known}) < 2:
        return {}
    study = optuna.create_study()
    for t, loss in known:
        study.add_trial(optuna.trial.create_trial(params=t.params, distributions=t.distributions, value=loss))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        evaluator = optuna.importance.PedAnovaImportanceEvaluator()
        found = optuna.importance.get_param_importances(study, evaluator=evaluator)
    return {name: float(share) for name, share in found.items()}


def early_loss(trial: FrozenTrial) -> float:
    """After the first epoch; the probe's where it came no further."""
    reported = trial.intermediate_values
    epochs = [step for step in reported if step > engine.PROBE]
    return float(reported[min(epochs or reported)]) if reported else float(engine.about(trial)["loss"])


def front(ledger: optuna.Study, aim: engine.Aim) -> list[dict[str, Any]]:
    """With two aims: the trials that no other one beats in both, the fastest first, and the flags that ask for each."""
    if not aim.latency:
        return []
    best = sorted(ledger.best_trials, key=lambda t: t.values[1])
    unique = {tuple(t.values): t for t in reversed(best)}
    return [{**row(t), "latency": t.values[1], "flags": flags(t.params)} for t in reversed(unique.values())]


def flags(params: dict[str, Any]) -> str:
    return " ".join(f"--{name.replace('_', '-')} {value:.4g}" if isinstance(value, float)
                    else f"--{name.replace('_', '-')} {value}" for name, value in params.items())


def words(account: dict[str, Any], stays: bool, whole: bool = True) -> str:
    """One line for the ladder. `stays` says that the default recipe won, `whole` that the first trial was just that
    one: what was said may have left no room for it."""
    states, confirmed = account["states"], account["confirmed"]
    counted = ", ".join(f"{count} {state}" for state, count in states.items())
    said = f"{account['trials']} trials by {account['sampler']} ({counted}) in {account['seconds']:.0f} s"
    if stays:
        return f"{said}; none is confirmed to be better than the default recipe, which stays"
    gained = confirm.gains(confirmed["rows"], confirmed["chosen"])
    if gained is None:
        return f"{said}; trial {confirmed['chosen']} chosen"
    return (f"{said}; trial {confirmed['chosen']} chosen; gain over the {'default recipe' if whole else 'first trial'} "
            f"{gained[0]:.3f} nats on the first fold, {gained[1]:.3f} on a second one")
