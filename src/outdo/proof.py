"""Afterwards: anybody against anybody on one test, paired, and the gate that decides on it.

    compare("runs/photos-1", "theirs.onnx")                                on the run's own sealed test
    compare("a.onnx", "b.onnx", data="more-photos/")                       on data that none of them was trained on
    compare(champion, challenger, require=["accuracy: better"])            may the challenger replace the champion?
"""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from outdo import runtime
from outdo.contracts import (
    Answers,
    Contestant,
    Dataset,
    Ground,
    Measurement,
    Predictions,
    Progress,
    Role,
    Task,
    TestSet,
    fingerprint,
)
from outdo.errors import DataError, RunError
from outdo.improve import find_task, looks, read, shown
from outdo.runs import Run, untouched
from outdo.storage import cache_folder, full_disk, read_json, write_json

TRIAL = 0.2  # the share of undeclared data that rivals are tried on instead of being judged on it
MOST_TRIED = 200
ROLES: tuple[Role, Role] = ("before", "after")  # of the first two; all others are rivals


@dataclass(frozen=True)
class Field:
    """Where contestants meet: a test, examples to try them on, and what the report says of the data."""

    task: Task
    test: TestSet
    trial: TestSet
    about: Mapping[str, Any]  # "source", "fingerprint", "n", "findings"
    data: Dataset | None  # all of it; None where it is not there any more, so that nobody can be asked anew
    strange: bool = False  # not the data of any of the runs

    @property
    def reread(self) -> bool:
        return self.data is not None


def compare(champion: Any, challenger: Any, *more: Any, data: str | Path | Dataset | None = None,
            margin: float | None = None, require: Sequence[str] = (), out: str | Path | None = None,
            axes: str = "default", progress: Progress | None = None) -> Any:
    """Two or more contestants, paired on the same examples: a Report, the second judged against the first.

    Each is whatever `improve` takes as a rival: a run, a bundle, an ONNX file, an endpoint, a table of predictions, a
    fitted object. The test is that of the first run among them, or `data`: its test split, or all of it (but for a
    fifth to try rivals on) where it declares none. `require` holds requirements as in `evaluation.gate`; whether they
    are met is in the report under "gate". `out` is a folder for the report, its page and all answers.

    Raises UserError: a contestant that cannot be asked, runs judged on different tests, a run that was trained on
    these examples, an unknown axis.
    """
    from outdo.evaluation import gate, page, predictions, report, rivals, wear
    from outdo.evaluation.comparison import check_margin

    check_margin(margin)
    requirements = gate.parse(require)
    report.chosen(axes)
    said = apart([champion, challenger, *more])
    for one in said.values():
        rivals.find(one)
    folder = fresh(out)
    runs = {name: Run.finished(Path(one)) for name, one in said.items() if is_run(one)}
    field = meeting_place(runs, data, said, progress)
    seen = wear.fingerprint(field.test) if field.reread else known_fingerprint(next(iter(runs.values())))
    contestants = [replace(answers(name, one, runs.get(name), field, seen), role=ROLES[i] if i < 2 else "rival")
                   for i, (name, one) in enumerate(said.items())]
    models = recorded(seen, contestants[1:])
    wanted = {*report.chosen(axes, field.task.metric), *(one.axis for one in requirements)}
    measured = report.measure_all(contestants, field.test, sorted(wanted), progress)
    if not field.reread:
        with_sizes(measured, runs, list(said))
    made = context(runs, list(said)[1], field, seen, models)
    content = report.build(contestants, field.test, measured, made, margin=margin, headline=field.task.metric)
    content["command"] = command(said, data, margin, require)
    content |= {"gate": gate.judge(content, requirements)} if requirements else {}
    if folder is not None:
        predictions.write(folder, field.test, contestants)
        pictures = (shown(content, field.test), looks(content, field.test, contestants)) if field.reread else ()
        page.write_page(folder / "report.html", content, *pictures)
        write_json(folder / report.FILE, content)
    return report.Report(content)


def apart(said: Sequence[Any]) -> dict[str, Any]:
    """By name; one that comes again is told from itself."""
    from outdo.evaluation import rivals

    named: dict[str, Any] = {}
    for name, one in zip(rivals.short(said), said, strict=True):
        while name in named:
            name += " (again)"
        named[name] = one
    return named


def is_run(said: Any) -> bool:
    return isinstance(said, str | Path) and (Path(said) / "run.json").is_file()


def fresh(out: str | Path | None) -> Path | None:
    """The folder to write to. Raises RunError when something is there already."""
    if out is None:
        return None
    folder = Path(out)
    if folder.exists() and not untouched(folder):
        raise RunError(f"{folder} exists already", fix="choose another --out")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise full_disk(error, folder) from error
    return folder


def recorded(test: str, contestants: Sequence[Contestant]) -> int:
    from outdo.evaluation import wear

    try:
        return wear.record(test, [c.predictions for c in contestants], "compare")
    except OSError as error:
        raise full_disk(error, cache_folder()) from error


# ── the test ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def meeting_place(runs: Mapping[str, Run], data: Any, said: Mapping[str, Any], progress: Progress | None) -> Field:
    """The test of the first run, with its inputs where they can be read; with `data` that are none of the runs', the
    test in them. Raises RunError and DataError."""
    first = next(iter(runs.values()), None)
    dataset = data if isinstance(data, Dataset) else read(data) if data is not None else _own_data(first)
    if dataset is not None:
        owner = next((run for run in runs.values() if _knows(run, dataset)), None)
        if owner is not None:
            return of_run(owner, dataset)
        if data is not None:
            return of_data(dataset, progress)
    if first is None:
        raise DataError("there is nothing to compare them on", expected="--data SOURCE, or a run among them",
                        fix="say --data SOURCE: labelled examples that none of them was trained on")
    needy = [name for name, one in said.items() if name not in runs and not _by_id(one)]
    if needy:
        raise DataError(f"{needy[0]} cannot be asked: the data of {first.folder} are not there any more",
                        expected=str(first.state["settings"]["source"]), fix="say where they are with --data SOURCE")
    return as_stored(first)


def _by_id(said: Any) -> bool:
    from outdo import plugins
    from outdo.evaluation import rivals

    return rivals.find(said) is plugins.load("rivals", "predictions")


def _own_data(run: Run | None) -> Dataset | None:
    """What the run was made from, if it can still be read."""
    from outdo.data.read import read as read_source

    if run is None:
        return None
    settings = run.state["settings"]
    try:
        return read_source(settings["source"], **settings.get("read_with", {}))
    except DataError:
        return None


def splits_of(run: Run) -> dict[str, list[str]]:
    found: dict[str, list[str]] = read_json(run.folder / "stages" / "splits.json")
    return found


def _knows(run: Run, data: Dataset) -> bool:
    """Whether these are the examples that the run has split, in another order or with changes too. Ids alone do not
    tell: those of a table are its lines, and another table may have the same name."""
    if not {name for names in splits_of(run).values() for name in names} <= set(data.ids):
        return False
    own = _own_data(run)
    if own is None or Path(own.source).resolve() == Path(data.source).resolve():
        return True
    known = {_content(own, i) for i in range(len(own))} - {None}
    return sum(_content(data, i) in known for i in range(len(data))) > len(data) / 2


def _content(data: Dataset, index: int) -> bytes | None:
    """A hash; None of what cannot be read."""
    try:
        value = data.inputs.read(index)
    except OSError:
        return None
    return hashlib.sha256(value if isinstance(value, bytes) else value.encode("utf-8", "surrogatepass")).digest()


def of_run(run: Run, data: Dataset) -> Field:
    """The run's own test, read again. Raises RunError when an example or a label is not what it was."""
    from outdo.evaluation import predictions, report, wear

    content = report.Report.read(run.folder).content
    kept, _ = predictions.read(run.folder)
    splits = splits_of(run)
    test, trial = (picked(data, splits[part], kept.classes) for part in ("test", "validation"))
    was = content["data"].get("test_fingerprint")
    if was != wear.fingerprint(test):
        raise RunError(f"the test of {run.folder} is not what it was", expected="the examples and labels it was judged "
                       f"on ({data.source})", fix="restore the data, or say others with --data SOURCE")
    return Field(find_task(data, content["task"]), test, trial, content["data"], data)


def picked(data: Dataset, ids: Sequence[str], classes: Sequence[str]) -> TestSet:
    where = {name: i for i, name in enumerate(data.ids)}
    code = {label: i for i, label in enumerate(classes)}
    part = data.take(np.array([where[name] for name in ids], np.int64))
    codes = np.array([code.get(str(label), -1) for label in part.labels], np.int64)
    if (codes < 0).any():
        raise RunError(f"{part.ids[int(np.flatnonzero(codes < 0)[0])]} has another label than it had",
                       fix="restore the data, or say others with --data SOURCE")
    return TestSet(part.ids, part.inputs, codes, tuple(classes), part.columns)


def as_stored(run: Run) -> Field:
    """The run's test as its answers were stored: ids and labels, no inputs."""
    from outdo import plugins
    from outdo.evaluation import predictions, report

    content = report.Report.read(run.folder).content
    test, _ = predictions.read(run.folder)
    none = np.zeros(0, np.int64)
    trial = TestSet((), test.inputs.take(none), none, test.classes)
    return Field(plugins.load("tasks", content["task"]), test, trial, content["data"], None)


def of_data(data: Dataset, progress: Progress | None) -> Field:
    """The test in data that no run has split: what they declare as such, else everything that rivals are not tried on.

    What cannot be read is left out and counted.
    """
    from outdo import backbones
    from outdo.data.checks import readable
    from outdo.data.splits import make_splits

    task = find_task(data, None)
    encoded = backbones.load(None, data.kind).encode(data.inputs, cache_folder(), progress)
    keep, findings = readable(data, encoded)
    data, digests = data.take(keep), [encoded.digests[i] for i in keep]
    aims = task.targets(data)
    declared = set(data.split)
    if "test" in declared:
        test = np.flatnonzero(data.split == "test")
        trial = np.flatnonzero(data.split == ("validation" if "validation" in declared else "train"))
    else:
        splits, _ = make_splits(aims.codes, np.full(len(data), ""), data.groups, seed=0, validation=0.0, test=TRIAL,
                                ids=data.ids, classes=aims.classes)
        test, trial = splits.train, splits.test
    trial = np.random.default_rng(0).permutation(trial)[:MOST_TRIED]
    about = {"source": data.source, "fingerprint": fingerprint(data.ids, digests, list(data.labels)),
             "n": {"validation": len(trial), "test": len(test)},
             "findings": [f.as_json() for f in (*data.findings, *findings)]}

    def part(which: np.ndarray) -> TestSet:
        some = data.take(which)
        return TestSet(some.ids, some.inputs, aims.codes[which], aims.classes, some.columns)

    return Field(task, part(test), part(np.sort(trial)), about, data, strange=True)


# ── the answers ──────────────────────────────────────────────────────────────────────────────────────────────────────


def answers(name: str, said: Any, run: Run | None, field: Field, seen: str) -> Contestant:
    """The contestant's answers: those that a run stored, where it was judged on this very test, else asked anew. `seen`
    is the test's fingerprint: ids and labels may be those of other examples.

    Raises RunError for a run that was judged on another test, or trained on examples of this one.
    """
    from outdo.evaluation import predictions, rivals

    test = field.test
    ground = Ground(field.task.kind, test.classes, field.trial, test.ids, test.inputs)
    if run is None:
        return rivals.contestant(name, rivals.find(said).meet(said, ground), ground)
    kept, contestants = predictions.read(run.folder)
    same = kept.ids == test.ids and kept.classes == test.classes and (kept.codes == test.codes).all()
    if same and known_fingerprint(run) == seen:
        known = predictions.of_role(contestants, "after").predictions
        if field.data is None:
            return Contestant(name, "rival", known)
        model = rivals.find(said).meet(said, ground).model
        return Contestant(name, "rival", known, model, held_out=held_out(run, model, field.data),
                          trained_on=remembered(run, model, field.data))
    if not field.strange:
        raise RunError("these runs were not judged on the same test", expected=f"the {len(test)} examples of the first",
                       found=f"{len(kept)} in {name}, {len(set(kept.ids) & set(test.ids))} of them shared",
                       fix="improve both on the same source with the same --seed, or judge them on other examples with "
                           "--data SOURCE")
    return rivals.contestant(name, rivals.find(said).meet(said, ground), ground)


def held_out(run: Run, model: Any, data: Dataset) -> Answers | None:
    """The answers on validation by which the model was chosen, of fits that had not seen it."""
    from outdo.evaluation import predictions

    known = predictions.held_out(run.folder, model)
    truth = picked(data, splits_of(run)["validation"], model.classes).codes
    return None if known is None else Answers(Predictions(known), truth)


def remembered(run: Run, model: Any, data: Dataset) -> Answers:
    """The model's answers on as many of the examples that it was trained on as an audit of privacy is shown."""
    from outdo.training import evidence

    train = splits_of(run)["train"]
    some = evidence.members(np.arange(len(train)), run.state["settings"]["seed"])
    part = picked(data, [train[i] for i in some], model.classes)
    return Answers(Predictions(model.predict(part.inputs)), part.codes)


# ── the report ───────────────────────────────────────────────────────────────────────────────────────────────────────


def context(runs: Mapping[str, Run], challenger: str, field: Field, seen: str, models: int) -> dict[str, Any]:
    from outdo.evaluation import report

    contents = [report.Report.read(run.folder).content for run in runs.values()]
    latest = contents[-1] if contents else {"seed": 0, "machine": {}}
    made = runs.get(challenger)
    recipe = report.Report.read(made.folder).content["recipe"] if made else {}
    remarks = [] if field.reread else ["the data are not there any more: compared on stored answers, nothing was timed"]
    data = {**field.about, "test_opened": None, "test_fingerprint": seen, "test_judged": models}
    return {"task": field.task.name, "seed": latest["seed"], "recipe": recipe, "data": data,
            "machine": runtime.machine() if field.reread else latest["machine"], "seconds": {}, "notes": remarks}


def command(said: Mapping[str, Any], data: Any, margin: float | None, require: Sequence[str]) -> str:
    """What makes this comparison again."""
    source = data.source if isinstance(data, Dataset) else data
    words = ["outdo", "compare", *(str(one) if isinstance(one, str | Path) else name for name, one in said.items())]
    words += ["--data", str(source)] if data is not None else []
    words += ["--margin", f"{margin:g}"] if margin is not None else []
    words += [word for wish in require for word in ("--require", wish)]
    return shlex.join(words)


def known_fingerprint(run: Run) -> str:
    from outdo.evaluation import report

    found: str = report.Report.read(run.folder).content["data"]["test_fingerprint"]
    return found


def with_sizes(measured: dict[str, Any], runs: Mapping[str, Run], names: Sequence[str]) -> None:
    """Add the size of each model, which its own report knows."""
    from outdo.evaluation import report

    sizes = {}
    for name, run in runs.items():
        content = report.Report.read(run.folder)
        after = content.name("after")
        size = next((a["values"].get(after) for a in content.content["axes"] if a["axis"] == "size"), None)
        if size is not None:
            sizes[name] = Measurement(size, 1)
    if set(sizes) >= set(names[:2]):
        measured["size"] = sizes
