"""The main flow, top to bottom: labelled examples in, a better model and its proof out.

Training is `climb.py`. Validation chooses; the test's labels are behind `SealedTest.open`, which is called once, after
the last choice was made.
"""

from __future__ import annotations

import contextlib
import inspect
import math
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from outdo import plugins, runtime
from outdo.climb import climbed, reconsider, reseeded
from outdo.contracts import SPLITS, Contestant, Dataset, Ground, Progress, Task, TestSet, fingerprint
from outdo.errors import DataError, Interrupted, RecipeError, nearest
from outdo.evaluation import rivals
from outdo.recipe import NAMES, Recipe
from outdo.runs import Log, Run, next_folder, said_before
from outdo.search.wish import wish
from outdo.storage import cache_folder, evict, write_json

VALIDATION, ENOUGH_VALIDATION = 0.2, 5_000  # the share of training held out to choose by, and how many are enough
MINUTES = 10.0


@dataclass(frozen=True)
class Result:
    """What `improve` gives: the report (print it), the run's folder, and the better model."""

    report: Any
    folder: Path
    model: Any


def improve(data: Dataset | str | Path, *, task: str | None = None, start_from: str | None = None,
            minutes: float | None = None, seed: int = 0, out: Path | str | None = None, resume: bool = False,
            baselines: str = "default", against: Mapping[str, Any] | Sequence[Any] = (), seeds: int = 1,
            margin: float | None = None, search: str | None = None, trials: int | None = None, workers: int = 1,
            also: str | None = None, axes: str = "default", progress: Progress | None = None, **choices: Any
            ) -> Result:
    """Fine-tune a pretrained model on labelled examples and show by how much it beats what you had.

    `minutes` is the time for training (10); judging takes about half a minute more. `choices` are those of the recipe
    (`outdo list recipe`). `against` holds rivals, by name where they are given one: folders, files and URLs (`outdo
    list rivals`), or anything fitted that has `predict(inputs)` giving labels, or `predict_proba(inputs)` and
    `classes_`. `seeds` is how often to train in that time, to judge the mean; differences within `margin` count as
    equivalent. `search` names a sampler that looks for a better recipe (`outdo list samplers`, or auto), in so many
    `trials` or as many as there is time for, by so many `workers`; choices may then be ranges ("1e-4..1e-2",
    "sgd,adamw"), and `also` may be "latency". `axes` says what is measured: `default`, `all`, or names with commas
    between (`outdo list axes`).
    Raises UserError (DataError, RecipeError, BackboneError, RunError) with one clear message, before anything is
    trained where that is possible. Ctrl-C leaves the best so far in the folder, and `resume` goes on, with the minutes,
    backbone and recipe of then where nothing else is said.
    """
    check_names(choices)
    folder = Path(out or next_folder(data.source if isinstance(data, Dataset) else str(data), resume))
    then = said_before(folder) if resume else {}
    minutes = then.get("minutes", MINUTES) if minutes is None else minutes
    start_from, choices = start_from or then.get("start_from"), choices or then.get("said") or then.get("recipe", {})
    before = then.get("search") or {}
    search, also = search or before.get("sampler"), also or before.get("also")
    check_said(minutes, baselines, seeds, margin, search, axes)
    asked = rivals.named(against)
    wished = wish(search, choices, trials, workers, also, start_from)
    recipe = wished.space.recipe if wished else Recipe(**choices)
    runtime.prepare(recipe.allocator)
    dataset = data if isinstance(data, Dataset) else read(data)
    job = find_task(dataset, task)
    settings = {"source": dataset.source, "task": job.name, "start_from": start_from, "seed": seed, "minutes": minutes,
                "baselines": baselines, "recipe": recipe.said, "seeds": seeds, "margin": margin,
                "against": {name: str(said) for name, said in asked.items()}, "read_with": dict(dataset.read_with),
                "search": wished and wished.as_json(), "said": choices, "axes": axes}
    with interruptible(folder), Run.going(folder, settings, resume) as run:
        say = Log(run, progress)
        if minutes > then.get("minutes", minutes):
            reconsider(run)
        first, *more = (start_from or "").split(",")  # several where a search is to choose among them
        study, sealed, facts = prepared(run, say, dataset, job, recipe, first or None, seed)
        study.others = {name: seen_by(run, say, study, name, f" {i}") for i, name in enumerate(more, 2)}
        if wished:
            from outdo.search import find

            find.space_of(study, wished)  # what cannot be is said before anything is trained
        met = meeting(study, asked, facts)
        study.left = runtime.Budget(minutes / seeds, run.spent()).left
        before, after, others, history = climbed(run, say, study, facts, wished, everything=baselines == "all")
        again = [reseeded(run, say, study, facts, seed + i, minutes / seeds) for i in range(1, seeds)]
        test = sealed.open(run.opened)
        contestants = rivals.told_apart(answering(study, before, after, others, again, facts), met)
        report = judged(run, say, study, test, contestants, facts, history, margin, axes)
        run.finish()
    evict(cache_folder())
    return Result(report, folder, after.model)


@contextlib.contextmanager
def interruptible(folder: Path) -> Iterator[None]:
    """Ctrl-C says what was kept and how to go on."""
    try:
        yield
    except KeyboardInterrupt:
        if (folder / "model.json").exists():
            kept = f"the best model so far is in {folder}: `outdo predict {folder} INPUT` uses it"
            raise Interrupted(f"interrupted; {kept}, and the same command with --out {folder} --resume goes on"
                              ) from None
        raise Interrupted("interrupted before there was a model; nothing was kept but the caches") from None


def check_names(choices: Mapping[str, Any]) -> None:
    """Raises RecipeError for what is neither a choice of the recipe nor anything else that `improve` takes."""
    for name in choices:
        if name not in NAMES:
            said = [p.name for p in inspect.signature(improve).parameters.values() if p.kind is p.KEYWORD_ONLY]
            raise RecipeError(f"improve has no choice '{name}'", fix=nearest(name, [*said, *NAMES]))


def check_said(minutes: float, baselines: str, seeds: int, margin: float | None, search: str | None, axes: str
               ) -> None:
    """Raises RecipeError for what no recipe choice covers."""
    from outdo.evaluation import comparison, report

    comparison.check_margin(margin)
    report.chosen(axes)
    if type(seeds) is not int or not 1 <= seeds <= 100:
        raise RecipeError(f"seeds cannot be {seeds}", expected="how often to train, from 1 to 100")
    if search is not None and seeds > 1:
        raise RecipeError("the winner of a search is trained once", fix="--seeds 1, or leave out --search")
    if not (isinstance(minutes, int | float) and 0 < minutes < math.inf):
        raise RecipeError(f"minutes cannot be {minutes}", expected="a number above 0, such as 10 or 0.5")
    if baselines not in ("default", "all"):
        raise RecipeError(f"baselines cannot be '{baselines}'", expected="default or all")


def read(source: str | Path) -> Dataset:
    from outdo.data.read import read as read_source

    return read_source(source)


def find_task(data: Dataset, name: str | None) -> Task:
    """The task of that name, else the first that suits. Raises PluginError or DataError."""
    if name is not None:
        task: Task = plugins.load("tasks", name)
        if task.suits(data) is None:
            raise DataError(f"the data do not suit {name}", expected=f"{task.kind}s with labels",
                            found=f"{data.kind}s with {len(np.unique(data.labels))} different labels",
                            fix="leave out --task, or check the input and label columns")
        return task
    fitting = [task for task in plugins.load_all("tasks").values() if task.suits(data)]
    if not fitting:
        raise DataError(f"no task suits {data.kind}s with these labels", fix="see: outdo list tasks")
    chosen: Task = fitting[0]
    return chosen


# ── data and backbone ────────────────────────────────────────────────────────────────────────────────────────────────


def prepared(run: Run, say: Log, data: Dataset, task: Task, recipe: Recipe, start_from: str | None, seed: int
             ) -> tuple[Any, Any, dict[str, Any]]:
    """(what training may see, the sealed test, facts about the data for the report)."""
    from outdo import backbones
    from outdo.data.checks import clean
    from outdo.data.splits import SealedTest
    from outdo.training.contestants import UNKNOWN, Study

    start = run.spent()
    say("task", f"{task.name}: {task.suits(data)}")
    backbone = backbones.load(start_from, data.kind, preprocessing=wanted(data.kind, recipe))
    encoded = backbone.encode(data.inputs, cache_folder(), say.progress)
    cleaned = clean(data, encoded, task.targets, seed=seed,
                    validation=lambda n: min(VALIDATION, ENOUGH_VALIDATION / max(1, n)))
    data, encoded, splits = cleaned.data, cleaned.encoded, cleaned.splits
    print_now = fingerprint(data.ids, encoded.digests, list(data.labels))
    if run.once("data", lambda: print_now) != print_now:  # ids alone are not enough: a table's are its lines
        raise DataError("the data are not what they were when this run began",
                        expected=f"the same examples with the same labels as then in {data.source}",
                        fix="undo the changes, or begin a run of its own with another --out")
    stored = run.once("splits", lambda: splits.as_json(data.ids))
    splits = type(splits).from_json(stored, data.ids)
    for part in ("validation", "test"):
        if not len(getattr(splits, part)):
            raise DataError(f"nothing can be held out for {part}", expected="a class of five or more examples",
                            found=f"{len(data)} examples in {len(cleaned.targets.classes)} classes",
                            fix="add examples, or declare a split")
    for finding in cleaned.findings:
        say("check", f"{finding.check}: {finding.message} ({finding.count})")
    say.stage("check", start)

    codes = cleaned.targets.codes.copy()
    sealed = SealedTest(data.take(splits.test), codes[splits.test], cleaned.targets.classes)
    codes[splits.test] = UNKNOWN
    features = features_of(run, say, backbone, encoded, splits.train, recipe)
    study = Study(task, backbone, encoded, features, cleaned.targets.classes, codes, splits.train, splits.validation,
                  data.inputs, data.groups, recipe, seed, run.log, progress=say.progress)
    facts = {"source": data.source, "fingerprint": print_now,
             "n": {name: len(getattr(splits, name)) for name in SPLITS}, "findings": list(cleaned.findings),
             "test": splits.test, "ids": data.ids}
    return study, sealed, facts


def features_of(run: Run, say: Log, backbone: Any, encoded: Any, train: np.ndarray, recipe: Recipe, which: str = ""
                ) -> Any:
    """Features of a backbone, at a size and in a precision that are decided once."""
    from outdo import backbones
    from outdo.data.encode import Picked
    from outdo.training.features import Features

    size = run.once(f"size{which}", lambda: feature_size(backbone, encoded, recipe))
    chosen = run.once(f"precision{which}", lambda: backbones.choose_precision(
        backbone, Picked(encoded.rows, train), recipe.precision))
    backbone.precision = chosen[0]
    say("backbone", f"{backbone.name}, {chosen[1]}" + (f", {size} pixels" if size else ""))
    return Features(backbone, encoded, cache_folder(), size=size, progress=say.progress)


def seen_by(run: Run, say: Log, study: Any, name: str, which: str) -> Any:
    """The same study with another backbone."""
    from outdo import backbones

    kind = study.backbone.kind
    backbone = backbones.load(name, kind, preprocessing=wanted(kind, study.recipe))
    encoded = backbone.encode(study.inputs, cache_folder(), say.progress)
    features = features_of(run, say, backbone, encoded, study.train, study.recipe, which)
    return replace(study, backbone=backbone, encoded=encoded, features=features, left=lambda: study.left(),
                   _pooled=None, _fits={})


def wanted(kind: str, recipe: Recipe) -> dict[str, Any]:
    """What the recipe says of preprocessing."""
    said: dict[str, Any] = {"fit": recipe.fit} if kind == "image" else {}
    if kind == "image" and recipe.input_size != "auto":
        said["size"] = recipe.input_size
    return said


def feature_size(backbone: Any, encoded: Any, recipe: Recipe) -> int | None:
    """The side at which frozen features look at images. Small images are enlarged three times at most: more
    pixels would cost and tell nothing new."""
    if backbone.kind != "image" or recipe.input_size != "auto":
        return None
    size, native = backbone.preprocessing()["size"], max(encoded.rows.shape[1:3])
    return min(size, max(96, 3 * native)) if native < size else None


# ── the proof ────────────────────────────────────────────────────────────────────────────────────────────────────────


def meeting(study: Any, asked: Mapping[str, Any], facts: Mapping[str, Any]) -> list[Contestant]:
    """Rivals with their answers on the test's inputs. They are asked before anything is trained, so that one that
    fails costs no training; no label of the test is known yet."""
    validation, test, ids = study.validation, facts["test"], facts["ids"]
    trial = TestSet(tuple(ids[i] for i in validation), study.inputs.take(validation), study.truth, study.classes)
    ground = Ground(study.backbone.kind, study.classes, trial, tuple(ids[i] for i in test), study.inputs.take(test))
    return rivals.meet(asked, ground, study.progress)


def answering(study: Any, before: Any, after: Any, others: Sequence[Any], again: Sequence[Any],
              facts: Mapping[str, Any]) -> list[Contestant]:
    """The answers of ours on the test, in roles."""
    from outdo.evaluation.predictions import stored
    from outdo.training import evidence

    members = evidence.members(study.train, study.seed)

    def own(trained: Any, role: Any) -> Contestant:
        same = trained.model.parts is before.model.parts  # it was not outdone: one model under another name
        model = before.model if same else trained.model
        features = trained.features or study.features
        outputs = trained.model.outputs(features.encoded, facts["test"], features)
        seen = evidence.remembered(study, trained, members) if role in ("before", "after") else None
        return Contestant(trained.model.name, role, stored(trained.model.probabilities(outputs)),
                          None if role == "seed" else model, {"words": trained.words},
                          evidence.held_out(study, trained), seen)

    return [own(before, "before"), own(after, "after"), *(own(one, "baseline") for one in others),
            *(own(one, "seed") for one in again)]


def judged(run: Run, say: Log, study: Any, test: TestSet, contestants: list[Contestant], facts: Mapping[str, Any],
           history: list[dict[str, Any]], margin: float | None, axes: str) -> Any:
    """Measure, compare, write: predictions, then the report, then the page."""
    from outdo.evaluation import page, predictions, report, seeds, wear

    start, spent = run.spent(), runtime.energy(run.cpu_seconds())
    test, near = explained(study, test, contestants, facts)
    predictions.write(run.folder, test, contestants)
    after, again = predictions.of_role(contestants, "after"), [c for c in contestants if c.role == "seed"]
    seen = wear.fingerprint(test)
    models = wear.record(seen, [after.predictions], "improve")
    measured = report.measure_all(contestants, test, report.chosen(axes, study.task.metric), progress=say.progress)
    measured = seeds.pooled(measured, after.name, [c.name for c in again])
    say.stage("judge", start)
    context = {
        "task": study.task.name, "command": shlex.join(["outdo", "reproduce", str(run.folder)]),
        "seed": study.seed, "seconds": say.seconds, "machine": runtime.machine(),
        "recipe": dict(facts.get("recipe", study.recipe)), "search": facts.get("search"), "curve": history,
        "ladder": say.ladder, "notes": notes(study, after, len(again)), "resources": spent, "nearest": near,
        "data": {"source": facts["source"], "fingerprint": facts["fingerprint"], "n": facts["n"],
                 "test_opened": run.state["test_opened"], "test_fingerprint": seen, "test_judged": models,
                 "findings": [f.as_json() for f in facts["findings"]]},
    }
    content = report.build(contestants, test, measured, context, headline=study.task.metric, margin=margin)
    page.write_page(run.folder / "report.html", content, shown(content, test), looks(content, test, contestants))
    write_json(run.folder / report.FILE, content)
    return report.Report(content)


def explained(study: Any, test: TestSet, contestants: Sequence[Contestant], facts: Mapping[str, Any]
              ) -> tuple[TestSet, dict[str, Any]]:
    """(the test with what an audit of privacy needs, the training examples nearest to what before or after got wrong).
    """
    from outdo.training import evidence

    sides = [c.predictions.labels for c in contestants if c.role in ("before", "after")]
    wrong = np.flatnonzero(np.any([labels != test.codes for labels in sides], axis=0))[:evidence.MOST]
    near = evidence.nearest(study, facts["test"][wrong], facts["ids"])
    return replace(test, audit=evidence.audit(study, evidence.members(study.train, study.seed), facts["test"])), near


def notes(study: Any, after: Contestant, again: int) -> list[str]:
    """What a reader of the report has to know about how it was made."""
    used: dict[str, Any] = {one.name: one for one in (study.backbone, getattr(after.model, "backbone", study.backbone))}
    said = [f"pretrained weights: {one.name} from {one.origin.weights}, licence {one.origin.licence or 'not stated'}, "
            f"sha256 {one.origin.sha256[:16]}" for one in used.values()]
    if again:
        said.append(f"figures that rest on answers are means over {1 + again} training seeds ({study.seed} to "
                    f"{study.seed + again}) on the same splits, with the variance between them in the intervals; the "
                    f"model kept, its flips and its times are those of seed {study.seed}")
    if study.left() <= 0:
        said.append("the time was used up before training had ended: the best so far was judged")
    return said


def shown(content: Mapping[str, Any], test: TestSet) -> dict[str, Any]:
    """id -> thumbnail or text of the examples that flipped, and of those whose label may be wrong."""
    from outdo.evaluation import page

    where = {name: i for i, name in enumerate(test.ids)}
    found = {}
    for flip in [*content["flips"]["gained"], *content["flips"]["lost"], *content["doubtful"]]:
        value = test.inputs.read(where[flip["id"]])
        found[flip["id"]] = value if isinstance(value, str) else page.thumbnail(value)
    return found


def looks(content: Mapping[str, Any], test: TestSet, contestants: Sequence[Contestant]) -> dict[str, Any]:
    """id -> role -> where that side looked for its answer, of the flips that the page shows first."""
    from outdo.evaluation.looks import looks as look

    return look(content["flips"], test, [c for c in contestants if c.role in ("before", "after")])
