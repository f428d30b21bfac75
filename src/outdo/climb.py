"""The climb: baselines, better probes, a fine-tune, a search. The best on validation is on disk from the first rung on,
so an interruption leaves a model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from outdo import runtime
from outdo.contracts import Finding
from outdo.recipe import Recipe
from outdo.runs import HELD_OUT, Log, Run
from outdo.search.wish import Wish
from outdo.storage import cache_folder

BEST = "the least loss on validation"
UNSEARCHED = 1 / 3  # the share of the time that the default recipe gets before a search
SMALL_NETWORKS = {"image": "tiny-image", "text": "tiny-text"}  # what is trained from scratch with --baselines all


def climbed(run: Run, say: Log, study: Any, facts: dict[str, Any], wished: Wish | None, everything: bool
            ) -> tuple[Any, Any, list[Any], list[dict[str, Any]]]:
    """(before, after, baselines, training curve): the best on validation, which is on disk from the first rung on."""
    from outdo.evaluation import calibration  # noqa: F401 (here, so that loading scipy is not taken for training)
    from outdo.training import contestants as c

    start = run.spent()
    study.pooled()
    say.stage("features", start)
    start = run.spent()
    before = scored(say, study, "baseline", c.linear_probe(study))
    others = [scored(say, study, "baseline", make(study)) for make in (c.majority, c.neighbours)]
    best = scored(say, study, "probe", c.better_probe(study))
    best = min((before, best), key=lambda t: c.loss_of(t.outputs, study.truth))
    probed = best
    kept(run, best)
    say.stage("probe", start)

    start, history, why = run.spent(), [], BEST
    plan = planned(run, say, study, study.recipe, share=1.0 if wished is None else UNSEARCHED)
    if plan is not None:
        blind = c.blind_probe(study, before)
        tuned = c.fine_tuned(study, plan, study.recipe, start=blind, checkpoint=run.folder / "checkpoint.safetensors")
        history, tuned = tuned.history, c.with_words(study, tuned, best)
        best, why = preferred(study, best, scored(say, study, "fine-tune", tuned))
        kept(run, best)
    say.stage("fit", start)
    if wished is not None:
        others.append(under_name(best, "default recipe"))
        best, history = searched(run, say, study, facts, wished, before, best, probed)
        why = BEST
    if everything:
        others += dearer(say, study, plan)
    facts["findings"] += suspects(study, probed, facts["ids"])
    study.let_go()
    say("choice", f"{best.model.name}: {why}", c.accuracy_of(best.outputs, study.truth))
    return before, named_apart(best, before), others, history


def preferred(study: Any, best: Any, tuned: Any) -> tuple[Any, str]:
    """(the best so far or the fine-tune, why). A fine-tune has to lead on validation by more than luck explains, and
    one that validation led all the way back is a probe without what the better one has learnt from validation. But what
    was trained to withstand attacks is what was asked for, and the plain loss does not see what it is good for."""
    from outdo.training.contestants import loss_of, outdoes

    if study.recipe.objective != "standard":
        return tuned, "what was asked for"
    if tuned.share == 0:
        return best, "validation led the fine-tune all the way back"
    if loss_of(tuned.outputs, study.truth) >= loss_of(best.outputs, study.truth):
        return best, BEST
    if not outdoes(tuned.outputs, best.outputs, study.truth):
        return best, "the fine-tune leads on validation by less than a standard error, which luck explains"
    return tuned, BEST


def scored(say: Log, study: Any, rung: str, trained: Any) -> Any:
    """The same, with its temperature fitted on validation, and said aloud."""
    from outdo.evaluation.calibration import fit_temperature
    from outdo.training.contestants import accuracy_of

    trained.model.temperature = fit_temperature(trained.outputs, study.truth)
    say(rung, f"{trained.model.name}: {trained.words}", accuracy_of(trained.outputs, study.truth))
    return trained


def kept(run: Run, best: Any) -> None:
    """The best so far on disk, with its answers on validation from before it had seen it: from now on an interruption
    leaves a model."""
    import torch

    from outdo.storage import write_tensors

    write_tensors(run.folder / HELD_OUT, {"outputs": torch.from_numpy(best.outputs)}, {"model": best.model.name})
    best.model.save(run.folder)
    run.save()


def searched(run: Run, say: Log, study: Any, facts: dict[str, Any], wished: Wish, before: Any, best: Any, probed: Any
             ) -> tuple[Any, list[dict[str, Any]]]:
    """(the best, its training curve) among `best`, which the default recipe gave, the winner of a search, and the
    winner's recipe in a fine-tune as deep as the time that is left allows."""
    from outdo.search import find
    from outdo.training import contestants as c

    start = run.spent()
    found = find.find(study, wished, run.folder, run.once, run.save, run.knows)
    say("search", found.words)
    facts["search"] = found.account
    if found.trained is None:
        say.stage("search", start)
        return best, best.history
    if found.study is not study:  # its own probes, for what starts from them or stands beside them
        study, before = found.study, c.linear_probe(found.study)
        probed = c.better_probe(study)
    tried = [(scored(say, study, "search", c.with_words(study, found.trained, probed)), found.recipe, found.handicap)]
    recipe = find.promoted(found.recipe, study.recipe)
    plan = planned(run, say, study, recipe, name="plan of the winner")
    if plan is not None:
        tuned = c.fine_tuned(study, plan, recipe, "searched, fine-tuned", start=c.blind_probe(study, before),
                             checkpoint=run.folder / "search" / "checkpoint.safetensors")
        tried.append((scored(say, study, "fine-tune", c.with_words(study, tuned, probed)), recipe, 0.0))
    won, facts["recipe"] = best, study.recipe
    for trained, own, handicap in tried:
        if c.outdoes(trained.outputs, won.outputs, study.truth, handicap):
            won, facts["recipe"] = trained, own
    kept(run, won)
    say.stage("search", start)
    return won, won.history


def planned(run: Run, say: Log | None, study: Any, recipe: Recipe, share: float = 1.0, name: str = "plan") -> Any:
    """The fine-tune that this share of the time allows, decided once for a run and read back when it is resumed."""
    from outdo.training import ladder
    from outdo.training.loop import Plan

    def decide() -> dict[str, Any]:
        plan, words = ladder.decide(study.backbone, study.task, recipe, features=study.features,
                                    train=study.train, codes=study.codes, classes=len(study.classes),
                                    seconds_left=share * study.left())
        return {"plan": plan and asdict(plan), "words": words}

    decided = run.once(name, decide)
    if say:
        say("plan", decided["words"])
    return Plan(**decided["plan"]) if decided["plan"] else None


def reconsider(run: Run) -> None:
    """A run that is given more minutes looks again at fine-tunes for which there was no time."""
    for name in ("plan", "plan of the winner"):
        if run.knows(name) and run.once(name, dict)["plan"] is None:
            run.forget(name)


def dearer(say: Log, study: Any, plan: Any) -> list[Any]:
    """The baselines that are trained: a small network from scratch, and fine-tuning as most people do it."""
    from outdo import backbones
    from outdo.training import contestants as c
    from outdo.training.loop import Plan

    small = backbones.load(SMALL_NETWORKS[study.backbone.kind], study.backbone.kind)
    encoded = small.encode(study.inputs, cache_folder(), say.progress)
    scratch = c.from_scratch(study, small, encoded, epochs=max(10, plan.epochs if plan else 0))
    usual = Recipe(learning_rate=1e-4, layer_decay=1.0, averaging="none", interpolation=1.0, label_smoothing=0.0,
                   epochs=3)
    size = None if study.backbone.kind == "text" else study.backbone.preprocessing().get("train_size")
    base = asdict(plan) if plan else {"balanced": False, "words": ""}
    whole = Plan(**base | {"first": 0, "size": size, "epochs": 3, "learning_rate": 1e-4, "cached": False})
    plain = c.fine_tuned(study, whole, usual, "plain full fine-tune", start=None)
    return [scored(say, study, "baseline", trained) for trained in (scratch, plain)]


def named_apart(best: Any, before: Any) -> Any:
    """The winner under a name of its own, where the probe that one had before was not outdone."""
    if best.model is not before.model:
        return best
    return under_name(best, f"{best.model.name} (not outdone)")


def under_name(trained: Any, name: str) -> Any:
    return replace(trained, model=replace(trained.model, name=name))


def reseeded(run: Run, say: Log, study: Any, facts: Mapping[str, Any], seed: int, minutes: float) -> Any:
    """What the recipe that won gives on the same splits with another training seed, under a name of its own."""
    from outdo.training import contestants as c

    start = run.spent()
    again = replace(study, seed=seed, left=runtime.Budget(minutes).left, _fits={})
    before, best = c.linear_probe(again), c.better_probe(again)
    best = min((before, best), key=lambda t: c.loss_of(t.outputs, again.truth))
    recipe = facts.get("recipe", study.recipe)
    plan = planned(run, None, again, recipe, name="plan" if recipe is study.recipe else "plan of the winner")
    if plan is not None:
        tuned = c.fine_tuned(again, plan, recipe, start=c.blind_probe(again, before))
        best, _ = preferred(again, best, c.with_words(again, tuned, best))
    again.let_go()
    best = scored(say, again, f"seed {seed}", best)
    say.stage("other seeds", start)
    return under_name(best, f"{best.model.name}, seed {seed}")


def suspects(study: Any, best: Any, ids: Sequence[str]) -> list[Finding]:
    """Labels that look wrong, where every training example has a held-out answer."""
    from outdo.data.checks import suspect_labels

    if best.held_out is None:
        known, outputs = study.validation, best.outputs
    else:
        known, outputs = study.known, best.held_out
    probabilities = study.task.decode(outputs, best.model.temperature)
    found = suspect_labels(probabilities, study.codes[known], [ids[i] for i in known], study.classes)
    return [found] if found.count else []
