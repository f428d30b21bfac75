"""A search from its space to its winner: trials, confirmation on a second fold, a model, and what to tell of it."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from outdo.errors import RunError
from outdo.recipe import AUTO, Recipe
from outdo.search import confirm, memory, summary, workers
from outdo.search import study as engine
from outdo.search.space import BACKBONE, Space, suited
from outdo.search.wish import Wish
from outdo.search.workbench import Workbench
from outdo.training import ladder
from outdo.training.contestants import Study, Trained, usual_size

SHARE = 0.6  # of the time left that trials have; the rest is for confirming the winner and for training it whole
LIMIT = 0.1  # of the trials' time that a single one may take
LEAST_SECONDS = 30.0  # that a trial may always take
SAVE_SECONDS = 5.0
KEPT = "the best so far, without a search, is kept in the run's folder"
MORE = "the same command with --resume and more --minutes goes on from there; a smaller --depth needs less"


@dataclass(frozen=True)
class Found:
    """The winner: its model, its recipe, and the report's account of the search."""

    study: Study  # of the winner's backbone
    trained: Trained | None  # None where the default recipe won: it has its model, and one more would be another draw
    recipe: Recipe  # every choice of the winner; the depth is that of its trial
    words: str
    handicap: float  # nats to add to its loss on validation, where it is compared with what was not chosen there
    account: dict[str, Any]


def space_of(study: Study, wished: Wish) -> Space:
    """What was wished for, as far as data and backbones allow. Raises RecipeError for what they do not."""
    imbalanced = ladder.is_balanced(Recipe(), study.codes[study.train])
    depth = min(one.backbone.depth for one in (study, *study.others.values()))
    return suited(wished.space, study.task.kind, depth, imbalanced)


def find(study: Study, wished: Wish, folder: Path, once: Callable[[str, Callable[[], Any]], Any],
         save: Callable[[], None] = lambda: None, knows: Callable[[str], bool] = lambda name: False) -> Found:
    """Search, confirm, train the winner. `once` makes a decision the first time and reads it back afterwards, `knows`
    says whether it was made; `save` is called now and then.

    Raises RunError: every trial failed, or there is no time for a single one; RecipeError: see `space_of`.
    """
    space = space_of(study, wished)
    memory.allow_files()
    start = time.monotonic()
    bench = Workbench(study, space, study.seed)
    prepare(bench, space)
    latency = once("latency", lambda: timings(bench, space)) if wished.also else None
    aim = engine.Aim(wished.sampler, space, study.seed, wished.trials, latency)
    clock = timed(study, once, wished.workers)
    path = folder / "search" / "study.log"
    ledger = engine.open_study(path, aim)
    engine.abandon(ledger, engine.INTERRUPTED)
    if not ledger.get_trials(deepcopy=False):
        ledger.enqueue_trial(usual(bench, space))
    told = teller(study, aim, clock, len(engine.counted(ledger)), save)
    if knows("confirmed"):  # it is over, and what came now could not win
        pass
    elif wished.workers == 1:
        engine.work(ledger, path, bench, aim, clock, told=told)
    else:
        workers.work(path, bench, aim, clock, wished.workers, told)
    check_any(ledger)
    seconds = time.monotonic() - start
    default = usual(bench, space)
    confirmed = once("confirmed", lambda: confirm.confirm(ledger, bench, aim, default, clock))
    number = confirmed["chosen"]
    params = confirm.params_of(ledger.get_trials(deepcopy=False)[number], default)
    own, recipe = bench.of(params), bench.resolved(space.recipe_of(params))
    stays = not confirmed["rows"] or params.items() <= default.items()
    trained = None if stays else own.model(recipe, engine.seed_of(aim, number), "searched")
    whole = len(default) == len(space.suggested(default))
    account = summary.account(ledger, aim, wished.workers, seconds, confirmed)
    return Found(own.study, trained, recipe, summary.words(account, stays, whole), confirm.handicap(confirmed),
                 account)


def prepare(bench: Workbench, space: Space) -> None:
    """Features of the default recipe, before workers begin. Raises RunError where there is no time even for them."""
    recipe = space.recipe_of(usual(bench, space)).but(augmentation=space.high("augmentation"))
    try:
        bench.ready(recipe, bench.study.left)
    except TimeoutError as error:
        raise RunError(f"the time is too short for one trial; {KEPT}", found=str(error), fix=MORE) from None


def timed(study: Study, once: Callable[[str, Callable[[], Any]], Any], workers: int) -> engine.Clock:
    """The time for trials: a share of what is left when the search begins, decided once, unless a resumed run is given
    more; and their share of memory."""
    left = max(once("search", lambda: {"left": study.left()})["left"], study.left())
    seconds, reserve = SHARE * left, (1 - SHARE) * left
    most = memory.available()
    return engine.Clock(lambda: study.left() - reserve, max(LEAST_SECONDS, LIMIT * seconds), most and most // workers)


def usual(bench: Workbench, space: Space) -> dict[str, Any]:
    """The default recipe's values, for the first trial: what every other one is measured against."""
    values = dict(bench.resolved(space.recipe))
    if values["class_weighting"] == AUTO:
        is_balanced = ladder.is_balanced(space.recipe, bench.study.codes[bench.study.train])
        values["class_weighting"] = "balanced" if is_balanced else "none"
    if len(bench.sizes) > 1:
        usual = usual_size(bench.study) or 0
        values["input_size"] = max([s for s in bench.sizes if s and s <= usual], default=bench.sizes[0])
    if bench.others:
        values[BACKBONE] = next(d.options[0] for d in space.dimensions if d.name == BACKBONE)
    return space.among(values)


def teller(study: Study, aim: engine.Aim, clock: engine.Clock, done: int, save: Callable[[], None]
           ) -> Callable[[Any], None]:
    """Progress: how many, the best so far, and how much is left."""
    best: list[tuple[float, float]] = []
    count, seconds, saved = done, clock.left(), time.monotonic()

    def told(trial: Any) -> None:
        nonlocal count, saved
        count += 1
        if time.monotonic() - saved > SAVE_SECONDS:
            save()
            saved = time.monotonic()
        about = engine.about(trial)
        study.log({"event": "trial", "number": trial.number, "state": trial.state.name.lower(), **about,
                   "params": trial.params})
        if trial.state.name == "COMPLETE":
            best[:] = [min([*best, (about["loss"], about["accuracy"])])]
        if study.progress:
            words = f"search, best {best[0][1]:.1%}" if best else "search"
            ends = (count, aim.trials) if aim.trials else (round(seconds - clock.left()), round(seconds))
            study.progress(words, *ends)

    return told


def check_any(ledger: Any) -> None:
    """Raises RunError where no trial came to an end."""
    trials = ledger.get_trials(deepcopy=False)
    if any(t.state.name == "COMPLETE" for t in trials):
        return
    told = [reason for t in trials if (reason := engine.about(t).get("failure")) not in (None, engine.INTERRUPTED)]
    if told:
        raise RunError(f"all {len(told)} trials failed; {KEPT}", found=f"the first: {told[0]}",
                       fix="narrow the choices that fail, or leave out --search")
    raise RunError(f"the time was too short for one trial; {KEPT}", fix=MORE)


def timings(bench: Workbench, space: Space) -> dict[str, float]:
    """Median seconds of one image through the network, by backbone and input size."""
    backbones = next((d.options for d in space.dimensions if d.name == BACKBONE), (None,))
    looks = [(name, size) for name in backbones for size in bench.of({BACKBONE: name}).sizes]
    found = {}
    for name, size in looks:
        params = {BACKBONE: name, "input_size": size}
        study, seconds = bench.of(params).study, []
        row = study.encoded.rows[study.train[:1]]
        for _ in range(15):
            start = time.perf_counter()
            study.backbone.features(row, size)
            seconds.append(time.perf_counter() - start)
        found[engine.ground(bench, params)] = statistics.median(seconds[3:])
    return found


def promoted(recipe: Recipe, said: Mapping[str, Any]) -> Recipe:
    """The winner's recipe for a fine-tune of the whole network: as deep and as long as there is time for."""
    return recipe.but(depth=said.get("depth", AUTO), epochs=said.get("epochs", AUTO))
