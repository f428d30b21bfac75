"""From a run to a bundle, with the proof that both answer alike; nothing is written where they do not.

Top to bottom: the run's model and its validation examples, the graph, its answers against the run's, the graph in 8
bits where that is faster and as good, when to say "not sure", one file.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from outdo import __version__, backbones, plugins, runtime
from outdo.contracts import Progress
from outdo.deploy import bundle, engines
from outdo.deploy.bundle import Bundle
from outdo.deploy.examples import Examples, read_examples, spread
from outdo.deploy.predictor import BundlePredictor, reader_of
from outdo.errors import BundleError, MissingExtra, UserError
from outdo.evaluation.predictions import held_out
from outdo.evaluation.thresholds import thresholds
from outdo.runs import Run
from outdo.storage import as_json, read_json
from outdo.training.model import Model

AGREE = 0.999  # of validation labels, torch against ONNX in float32
KEEPS = 0.99  # of the float model's accuracy that int8 must keep (MLPerf's rule)
LEVEL = 0.99  # the precision that a bundle says "not sure" by
CLOSE = 1.1  # times the fastest way's time: among those the one that answers most alike
INT8 = ("auto", "never", "only")
ROUNDS = 7
SERVED = 64  # validation examples that are also asked over HTTP

OverHttp = Callable[[BundlePredictor, Sequence[bytes | str]], np.ndarray]  # (N, C), NaN for what is refused


@dataclass(frozen=True)
class Shipped:
    """What was written and what it rests on: `about` is the manifest, `said` are its figures in words."""

    path: Path
    about: Mapping[str, Any]
    said: list[str] = field(default_factory=list)


def export(run: str | Path, path: str | Path, *, int8: str = "auto", sign: str | Path | None = None,
           name: str | None = None, source: str | Path | None = None, over_http: OverHttp | None = None,
           progress: Progress | None = None) -> Shipped:
    """Write the better model of a finished run as a bundle.

    `int8`: "auto" adds a model in 8 bits where it is faster and as good, "only" ships nothing else. `sign` is a file
    with an Ed25519 private key. `name` is what a server calls it (default: the data's name). `source` is where the
    run's data are now. `over_http` asks a server of ours, for the proof: `outdo.serving.proof.answers`. Raises
    RunError, DataError (the data are gone or changed), BundleError (the graph or the server do not answer as the run
    does, a key is no good), MissingExtra.
    """
    folder, path = Path(run), Path(path)
    check_said(path, int8, name, sign)
    settings = Run.finished(folder).state["settings"]
    tell = progress or (lambda what, done, total: None)
    model = Model.load(folder, find_task=lambda n: plugins.load("tasks", n), find_backbone=backbones.load)
    examples = read_examples(folder, source or settings["source"], model, settings.get("read_with", {}))
    draft = Draft(model, examples, facts(folder, model, name or named_after(settings["source"])), tell)
    draft.members["report.json"] = report_of(folder)
    draft.add_float()
    if int8 != "never":
        draft.add_int8(required=int8 == "only")
    draft.add_threshold(folder)
    if over_http is not None:
        draft.add_served(over_http)
    bundle.write(path, draft.about, draft.members, None if sign is None else Path(sign))
    return Shipped(path, Bundle.open(path).about, draft.said)


class Draft:
    """A bundle in the making: `about` and `members` grow, and `said` tells what was found."""

    def __init__(self, model: Model, examples: Examples, about: dict[str, Any], tell: Progress) -> None:
        self.model, self.examples, self.about, self.tell = model, examples, about, tell
        self.members: dict[str, bytes] = {}
        self.said: list[str] = []
        if tokenizer := getattr(model.backbone, "tokenizer_json", None):
            self.members["tokenizer.json"] = tokenizer
        self.reader = reader_of(self.as_bundle())
        self.feeds = self._feeds()

    def as_bundle(self) -> Bundle:
        return bundle.in_memory(self.about, self.members)

    def _feeds(self) -> list[engines.Feed]:
        """Validation as a bundle reads it: from the files, decoded anew."""
        feeds, inputs = [], self.examples.validation
        for start in range(0, len(inputs), engines.LARGER):
            part = range(start, min(start + engines.LARGER, len(inputs)))
            feeds.append(self.reader.feed([self.reader.decode(inputs.read(i)) for i in part]))
            self.tell("reading validation", part.stop, len(inputs))
        return feeds

    # ── float32 ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def add_float(self) -> None:
        """The graph, and its answers against the run's. Raises BundleError where they differ."""
        from outdo.deploy.onnx import export as to_onnx

        self.tell("the graph", 0, 1)
        rows = None if self.model.backbone.kind == "text" else self.reader.size  # type: ignore[union-attr]
        as_judged = self.model.backbone.precision
        judged = self.model.predict(self.examples.validation)
        self.model.backbone.precision = "float32"
        torch_says = judged if as_judged == "float32" else self.model.predict(self.examples.validation)
        graph = to_onnx(self.model, rows)
        self.tell("the graph", 1, 1)
        self.answers = {engine: self.run(engine, graph) for engine in engines.available()}
        parity = proved({engine: alike(torch_says, given) for engine, given in self.answers.items()}, AGREE)
        worst = min(parity.values(), key=lambda one: one["labels_agree"])
        if worst["labels_agree"] < AGREE:
            raise BundleError("the exported graph does not answer as the run does", expected=f"{AGREE:.1%} of labels",
                              found=f"{worst['labels_agree']:.2%} of {len(judged)}", fix="please report this")
        accuracy = self.accuracy(self.answers["onnxruntime"])
        self.about |= {"parity": {
            "n": len(judged), "accuracy": {"torch": self.accuracy(torch_says), "float32": accuracy},
            "float32": parity, "as_judged": {"precision": as_judged, **alike(judged, self.answers["onnxruntime"])}}}
        self.keep("float32", "model.onnx", graph)
        self.said.append(f"float32: {worst['labels_agree']:.2%} of {len(judged)} validation labels as in the run, "
                         f"probabilities within {worst['largest_difference']:.1e}")
        if as_judged != "float32":
            then = self.about["parity"]["as_judged"]["labels_agree"]
            self.said.append(f"the run itself answers in {as_judged}: {then:.2%} of labels are the same as then")

    # ── int8 ─────────────────────────────────────────────────────────────────────────────────────────────────────────

    def add_int8(self, required: bool) -> None:
        """The graph in 8 bits, where that is faster and as good; `required`: alone, or nothing."""
        tried, chosen = self.tried()
        words = self.verdict(tried, chosen)
        self.about["int8"] = {"tried": [{k: v for k, v in one.items() if k != "graph"} for one in tried],
                              "kept": chosen and chosen["way"], "why": words}
        self.said.append(f"int8: {words}")
        if chosen is None and required:
            raise BundleError(f"there is no int8 model to ship: {words}", fix="leave --int8 at auto")
        if chosen is None:
            return
        if required:
            del self.members["model.onnx"], self.about["models"]["float32"], self.about["expected"]["float32"]
        self.about["parity"]["int8"] = chosen["parity"]
        self.about["parity"]["accuracy"]["int8"] = chosen["accuracy"]
        self.keep("int8", "model-int8.onnx", chosen["graph"])

    def tried(self) -> tuple[list[dict[str, Any]], dict[str, Any] | None]:
        """(every way of rounding with its accuracy and time, the one to keep)."""
        from outdo.deploy.quantize import WAYS, quantized

        kind, graph = self.model.backbone.kind, self.members["model.onnx"]
        calibration = [self.reader.feed([self.reader.decode(self.examples.training.read(i))])
                       for i in range(len(self.examples.training))] if kind == "image" else []
        found: list[dict[str, Any]] = []
        for way, rounded in quantized(graph, kind, calibration):
            given = {engine: self.run(engine, rounded) for engine in engines.available()}
            parity = proved({e: alike(self.answers["onnxruntime"], one) for e, one in given.items()}, KEEPS)
            found.append({"way": way, "graph": rounded, "bytes": len(rounded), "parity": parity,
                          "accuracy": min(self.accuracy(given[e]) for e in parity)})
            self.tell("int8", len(found), len(WAYS[kind]))
        seconds = times({"float32": (graph, self.about["parity"]["float32"])}
                        | {one["way"]: (one["graph"], one["parity"]) for one in found}, self.feeds)
        for one in found:
            one["seconds"], one["float_seconds"] = seconds[one["way"]], seconds["float32"]
        return found, self.best(found)

    def best(self, found: list[dict[str, Any]]) -> dict[str, Any] | None:
        enough = KEEPS * self.about["parity"]["accuracy"]["float32"]
        good = [one for one in found if one["accuracy"] >= enough and one["seconds"] < one["float_seconds"]
                and all(p["labels_agree"] >= KEEPS for p in one["parity"].values())]
        fastest = min((one["seconds"] for one in good), default=0.0)
        return min((one for one in good if one["seconds"] <= CLOSE * fastest), default=None,
                   key=lambda one: max(p["mean_difference"] for p in one["parity"].values()))

    def verdict(self, found: list[dict[str, Any]], chosen: dict[str, Any] | None) -> str:
        accuracy = self.about["parity"]["accuracy"]["float32"]
        if chosen is not None:
            return (f"kept, {chosen['way']}: {chosen['float_seconds'] / chosen['seconds']:.1f} times as fast, accuracy "
                    f"{chosen['accuracy']:.1%} for {accuracy:.1%} on validation")
        alike = {one["way"]: min(p["labels_agree"] for p in one["parity"].values()) for one in found}
        fit = [one for one in found if one["accuracy"] >= KEEPS * accuracy and alike[one["way"]] >= KEEPS]
        if not fit:
            return (f"dropped: accuracy {max(one['accuracy'] for one in found):.1%} at best for {accuracy:.1%}, and "
                    f"{max(alike.values()):.1%} of labels as in float32, on validation; {KEEPS:.0%} of both are asked")
        fastest = min(fit, key=lambda one: one["seconds"])
        return f"dropped: it takes {fastest['seconds'] / fastest['float_seconds']:.2f} times as long as float32 here"

    # ── the rest ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def add_threshold(self, folder: Path) -> None:
        """Below which confidence the answer is "not sure", from validation answers of fits that had not seen it."""
        seen = held_out(folder, self.model)
        self.about |= {"threshold": None, "thresholds": []}
        if seen is None:
            self.said.append('"not sure": never said, because the run kept no held-out answers; improve again')
            return
        levels = thresholds(seen, self.examples.truth)
        chosen = next(one for one in levels if one["precision"] == LEVEL)
        self.about |= {"threshold": chosen["threshold"], "thresholds": levels}
        self.said.append(f'"not sure" below {chosen["threshold"]:.3f}: {chosen["right"]} of {chosen["n"]} validation '
                         f"answers above it are right, and {chosen['coverage']:.0%} of all answers are above it")

    def add_served(self, over_http: OverHttp) -> None:
        """What a client is answered, against the engine itself. Raises BundleError where they differ."""
        predictor = BundlePredictor(self.as_bundle(), engine="onnxruntime")
        given = [self.examples.validation.read(i) for i in spread(len(self.examples.validation), SERVED)]
        served = over_http(predictor, given)
        answered = ~np.isnan(served).any(1)
        if not answered.any():
            self.said.append("over HTTP: not compared, for the server would refuse all examples as too large")
            return
        expected = predictor.probabilities([predictor.decode(one) for one in given])[answered]
        same: dict[str, Any] = alike(expected, served[answered])
        same |= {"n": len(expected), "model": predictor.choice.model}
        if same["labels_agree"] < AGREE:
            raise BundleError("the server does not answer as its engine does", expected=f"{AGREE:.1%} of labels",
                              found=f"{same['labels_agree']:.2%} of {len(expected)}", fix="please report this")
        self.about["parity"]["http"] = same
        self.said.append(f"over HTTP: {same['labels_agree']:.2%} of {len(expected)} labels as by the engine")

    def keep(self, model: str, member: str, graph: bytes) -> None:
        """Also what it answers to made-up examples, by which another machine tells whether it answers right."""
        self.members[member] = graph
        self.about.setdefault("models", {})[model] = member
        made = engines.ENGINES["onnxruntime"](graph, engines.cores()).run(self.reader.example(engines.LARGER))
        self.about.setdefault("expected", {})[model] = np.round(made.astype(float), 6).tolist()

    def run(self, engine: str, graph: bytes) -> np.ndarray:
        """(n, C) answers on validation."""
        started = engines.ENGINES[engine](graph, engines.cores())
        return np.concatenate([started.run(feed) for feed in self.feeds])

    def accuracy(self, probabilities: np.ndarray) -> float:
        return float((probabilities.argmax(1) == self.examples.codes).mean())


def alike(one: np.ndarray, other: np.ndarray) -> dict[str, float]:
    return {"labels_agree": float((one.argmax(1) == other.argmax(1)).mean()),
            "mean_difference": float(np.abs(one - other).mean()),
            "largest_difference": float(np.abs(one - other).max())}


def proved(parity: dict[str, dict[str, float]], least: float) -> dict[str, dict[str, float]]:
    """Without the engines that round more than the model itself does and lose labels by it."""
    return {engine: one for engine, one in parity.items()
            if engine not in engines.ROUNDING or one["labels_agree"] >= least}


def times(graphs: Mapping[str, tuple[bytes, Iterable[str]]], feeds: list[engines.Feed]) -> dict[str, float]:
    """Seconds for one input, median of rounds in turns, by whichever of its engines is the fastest."""
    started = {(name, engine): engines.ENGINES[engine](graph, engines.cores())
               for name, (graph, by) in graphs.items() for engine in by}
    taken: dict[Any, list[float]] = {key: [] for key in started}
    one = {key: value[:1] for key, value in feeds[0].items()}
    for _ in range(ROUNDS + 1):
        for key, engine in started.items():
            taken[key].append(engines.seconds(engine, one))
    medians = {key: float(np.median(found[1:])) for key, found in taken.items()}
    return {name: min(medians[name, engine] for engine in by) for name, (_, by) in graphs.items()}


def check_said(path: Path, int8: str, name: str | None, sign: str | Path | None) -> None:
    """What can be refused before anything is computed."""
    if int8 not in INT8:
        raise UserError(f"int8 cannot be '{int8}'", expected=", ".join(INT8))
    if path.is_dir():
        raise BundleError(f"{path} is a folder", expected="the file to write, such as photos.outdo")
    if name is not None and not bundle.NAME.fullmatch(name):
        raise UserError(f"a bundle cannot be named '{name}'", expected="letters, digits, dots and dashes")
    if sign is not None:
        bundle.signed(b"", Path(sign))
    for library in ("onnx", "onnxscript", "onnxruntime"):
        if not engines.installed(library):
            raise MissingExtra("outdo export", library, "export")


def named_after(source: str) -> str:
    return re.sub(r"[^A-Za-z0-9.-]+", "-", Path(source).name.split(".")[0]).strip("-.") or "model"


def facts(folder: Path, model: Model, name: str) -> dict[str, Any]:
    """What the manifest says before anything is measured; also the report, without where its data lay."""
    origin, said = model.backbone.origin, model.backbone.preprocessing()
    if model.backbone.kind == "image":
        rows = said.get("store") or (said["size"], said["size"])
        native = tuple(rows) != (said["size"], said["size"])  # small images are taken whole: see data.encode
        takes = {"height": rows[0], "width": rows[1], "fit": "squash" if native else said["fit"]}
    else:
        takes = {"max_length": said["max_length"], "words": any(hasattr(p, "idf") for _, p in model.parts)}
    return {"name": name, "task": model.task.name, "kind": model.backbone.kind, "classes": list(model.classes),
            "temperature": model.temperature, "input": takes, "contestant": model.name,
            "backbone": {"name": model.backbone.name, "licence": origin.licence, "weights": origin.weights,
                         "sha256": origin.sha256, "trained_on": origin.trained_on},
            "created": datetime.now(UTC).isoformat(timespec="seconds"), "outdo": __version__,
            "made_with": {library: runtime.version(library) for library in ("torch", "onnx", *engines.LIBRARIES)}}


def report_of(folder: Path) -> bytes:
    """The run's report without the path of its data, which is nobody's business."""
    report = read_json(folder / "report.json")
    report["data"]["source"] = Path(report["data"]["source"]).name
    return (as_json(report, indent=1) + "\n").encode()
