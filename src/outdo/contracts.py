"""The shapes everyone agrees on. Read this first.

    files ── reader ──> Dataset ── backbone.encode ──> Encoded rows ── checks, splits ──> indices
    Encoded rows ── backbone (blocks) ──> State ── pool ──> features (N, D) ── head ──> outputs (N, C)
    outputs ── task.decode ──> Predictions ── axis.measure ──> Measurement ── comparison ──> Verdict ── report

Shapes are written (N, ...) with N examples, C classes, D features. Arrays that people see are numpy; inside a
network they are torch. This module imports neither, nor anything that does.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

if TYPE_CHECKING:  # the recipe's flags are read from here, and `outdo improve --help` must not wait for numpy
    import numpy as np
    import scipy.sparse
    import torch

Kind = Literal["image", "text"]
Precision = Literal["float32", "bfloat16"]
SPLITS = ("train", "validation", "test")
Progress = Callable[[str, int, int], None]  # (what is being done, how many are done, of how many)


# ── data ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Finding:
    """What a check found: how often, and examples by id. `severity` is "note", "warning" or "removed"."""

    check: str
    count: int
    message: str
    examples: tuple[str, ...] = ()
    severity: Literal["note", "warning", "removed"] = "warning"

    def as_json(self) -> dict[str, Any]:
        return {
            "check": self.check,
            "count": self.count,
            "message": self.message,
            "examples": list(self.examples),
            "severity": self.severity,
        }


class Inputs(Protocol):
    """What goes into a model, read lazily and one at a time."""

    kind: Kind

    def __len__(self) -> int: ...

    def read(self, index: int) -> bytes | str:
        """The encoded image file, or the text. Raises OSError when it cannot be read now."""
        ...

    def signature(self, index: int) -> str:
        """A cheap identity that changes when the content does: path, size and mtime; a zip member's CRC; the text."""
        ...

    def take(self, indices: np.ndarray) -> Inputs: ...


@dataclass(frozen=True)
class Dataset:
    """Immutable labelled examples: a table, whatever it was read from."""

    source: str
    inputs: Inputs
    ids: tuple[str, ...]  # unique and meant for people: a path inside the source, or "train.csv:17"
    labels: np.ndarray  # (N,) str, as written in the source (blanks trimmed)
    split: np.ndarray  # (N,) str: what the source declares; "" where it declares nothing, else one of SPLITS
    groups: np.ndarray | None = None  # (N,) str: examples of one group never stand on both sides of a split
    columns: Mapping[str, np.ndarray] = field(default_factory=dict)  # every other column, for slices
    findings: tuple[Finding, ...] = ()  # what reading skipped or had to decide
    read_with: Mapping[str, str] = field(default_factory=dict)  # columns that were said, to read it the same way again

    @property
    def kind(self) -> Kind:
        return self.inputs.kind

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, indices: np.ndarray) -> Dataset:
        """The examples at `indices`, in that order; the findings stay."""
        return replace(
            self,
            inputs=self.inputs.take(indices),
            ids=tuple(self.ids[i] for i in indices),
            labels=self.labels[indices],
            split=self.split[indices],
            groups=None if self.groups is None else self.groups[indices],
            columns={name: column[indices] for name, column in self.columns.items()},
        )


class Reader(Protocol):
    """Plug-in: turns one sort of source into a Dataset."""

    summary: str

    def accepts(self, source: Path) -> bool:
        """Cheap: looks at names and at most a few bytes."""
        ...

    def read(self, source: Path, *, input_column: str | None, label_column: str | None, group_column: str | None
             ) -> Dataset:
        """Raises DataError when the source is of this sort but cannot be used, or lacks a column that is named."""
        ...

    def example(self, folder: Path, seed: int = 0) -> Path:
        """Write a tiny source of this sort into `folder` and return it: two classes, three or more examples of each.
        Another seed gives the same names with other contents. The conformance suite reads it."""
        ...


@runtime_checkable
class Rows(Protocol):
    """Fixed-size rows on disk or in memory; only the rows asked for are ever in memory."""

    shape: tuple[int, ...]  # (N, ...)
    dtype: np.dtype

    def __len__(self) -> int: ...
    def __getitem__(self, indices: np.ndarray) -> np.ndarray: ...


@dataclass(frozen=True)
class Encoded:
    """A dataset's inputs as a backbone eats them, and what was learned on the way.

    Images: rows (N, H, W, 3) uint8, orientation applied. Texts: rows (N, L) int32 token ids, padded with -1.
    """

    rows: Rows
    digests: tuple[str, ...]  # (N,) sha256 of the content, "" where unreadable
    problems: Mapping[int, str]  # index -> why the input was refused; its row is zeros
    hashes: np.ndarray  # (N,) uint64: perceptual hash of an image, hash of a text without case, blanks, punctuation
    thumbs: np.ndarray | None = None  # (N, 8, 8) uint8 grey, to confirm near duplicates; None for texts

    def __len__(self) -> int:
        return len(self.digests)


def fingerprint(ids: Sequence[str], digests: Sequence[str], labels: Sequence[str]) -> str:
    """sha256 over the examples' ids, contents and labels in order: the same data has the same one anywhere."""
    whole = hashlib.sha256()
    for parts in zip(ids, digests, labels, strict=True):
        whole.update("\x1f".join(map(str, parts)).encode() + b"\x1e")
    return whole.hexdigest()


# ── models ───────────────────────────────────────────────────────────────────────────────────────────────────────────

State = dict[str, "torch.Tensor"]  # what flows from block to block; "x" is always there, texts add "mask"


@dataclass(frozen=True)
class Origin:
    """Where pretrained weights come from; travels with every model made from them."""

    weights: str  # where they were found: a package, a hub name, a path
    sha256: str  # of the tensors: names, shapes and bytes
    licence: str | None
    trained_on: str | None = None


class Backbone(Protocol):
    """Pretrained weights, cut into `depth` ordered blocks. `torch_module` is what to move, freeze and save.

    Block i turns the State before it into the State after it: `run(state, 0, depth)` is the whole body, and
    `run(run(state, 0, cut), cut, depth)` is the same for every cut.

    The module stays in eval mode. With gradients enabled, `run` and `pool` are the fast differentiable forward of the
    module. Without (`torch.no_grad`), they and `features` go through a still faster frozen copy of its weights as they
    are at that moment. `precision` may be set at any time and decides the number format of both.
    """

    name: str
    kind: Kind
    origin: Origin
    precision: Precision  # of forward and backward; parameters, features and pooled outputs are always float32
    depth: int
    width: int  # D of `pool`
    feature_sets: Mapping[str, int]  # name -> width; "last" is the pooled output of the last block
    torch_module: torch.nn.Module

    def preprocessing(self) -> dict[str, Any]:
        """JSON, enough to encode the same way later: size, fit, store, mean, std; or tokenizer hash, max_length."""
        ...

    @property
    def depends_on(self) -> Sequence[Any]:
        """JSON, what features depend on besides weights, preprocessing, size and precision, as it is now and not as a
        run recorded it: what the weights were put into, how states are pooled, which decoder gives the pixels."""
        ...

    def encode(self, inputs: Inputs, cache: Path | None, progress: Progress | None = None) -> Encoded: ...

    def prepare(self, rows: np.ndarray | torch.Tensor, size: int | None = None) -> State:
        """Raw rows (a batch) to the State that block 0 takes, on the module's device."""
        ...

    def augment(self, rows: torch.Tensor, strength: float, generator: torch.Generator) -> torch.Tensor:
        """A random variant of each row, same shape and dtype; strength 0 to 1, 0 is the identity."""
        ...

    def run(self, state: State, start: int, stop: int) -> State: ...

    def pool(self, state: State) -> torch.Tensor:
        """(N, width) from the State after the last block."""
        ...

    def features(self, rows: np.ndarray | torch.Tensor, size: int | None = None) -> dict[str, torch.Tensor]:
        """Every feature set of a batch from one forward: name -> (N, width) float32."""
        ...

    def exportable(self, rows: tuple[int, int] | None, size: int | None = None) -> torch.nn.Module:
        """For an export to ONNX: a module from raw rows to `features`, in float32, by operations that ONNX has. `rows`
        is the (H, W) of images, None for texts."""
        ...

    def lexical(self, rows: np.ndarray) -> scipy.sparse.csr_matrix | None:
        """Counts of hashed token n-grams (N, V) for texts, read off the rows without the network; None for images."""
        ...

    def block_parameters(self, block: int) -> list[torch.nn.Parameter]: ...


class BackboneFamily(Protocol):
    """Plug-in: every backbone of one library."""

    kind: Kind
    summary: str
    default: str  # the name that `improve` starts from when none is given

    def names(self) -> list[str]:
        """Names to list and to suggest from. May import the library."""
        ...

    def offers(self, name: str) -> bool:
        """Whether `load(name)` is this family's to answer."""
        ...

    def load(self, name: str, *, preprocessing: Mapping[str, Any] | None = None) -> Backbone:
        """Raises BackboneError: unknown name (with the nearest), weights unreachable, hash not as pinned.
        `preprocessing` restores what a run recorded."""
        ...


@dataclass(frozen=True)
class Targets:
    """Labels as the task understands them."""

    classes: tuple[str, ...]
    codes: np.ndarray  # (N,) int64 into classes


class Task(Protocol):
    """Plug-in: the adapter from labels to head, objective, decoding and metrics."""

    name: str
    summary: str
    kind: Kind
    metric: str  # the axis that is the headline, as in evaluation/axes

    def suits(self, data: Dataset) -> str | None:
        """Why this task fits the data, in words to be said aloud; None when it does not."""
        ...

    def targets(self, data: Dataset) -> Targets:
        """Raises DataError: one class, a label that differs from another only by case or blanks, empty labels."""
        ...

    def head(self, width: int, classes: int) -> torch.nn.Module: ...

    def loss(self, outputs: torch.Tensor, targets: torch.Tensor, class_weights: torch.Tensor | None,
             label_smoothing: float) -> torch.Tensor:
        """Mean loss of a batch. `targets` are codes (N,) or, under mixup, distributions (N, C)."""
        ...

    def decode(self, outputs: np.ndarray, temperature: float = 1.0) -> np.ndarray:
        """Raw outputs (N, C) to probabilities (N, C), rows summing to 1."""
        ...

    def answer(self, probabilities: np.ndarray, classes: Sequence[str]) -> list[dict[str, Any]]:
        """What `predict` gives for each example, JSON: {"label", "probability", "probabilities"}."""
        ...


# ── proof ────────────────────────────────────────────────────────────────────────────────────────────────────────────

Role = Literal["before", "after", "baseline", "rival", "seed"]  # seed: after once more, trained with another seed


@dataclass(frozen=True)
class Predictions:
    """A contestant's answers on the sealed test, in the test's order."""

    probabilities: np.ndarray  # (N, C) float, rows sum to 1

    @property
    def labels(self) -> np.ndarray:
        """(N,) int64: the most probable class; ties go to the first."""
        return self.probabilities.argmax(1)

    @property
    def confidence(self) -> np.ndarray:
        return self.probabilities.max(1)


@dataclass(frozen=True)
class Answers:
    """Answers on examples outside of the test, and their truth."""

    predictions: Predictions
    codes: np.ndarray  # (N,) int64

    def __len__(self) -> int:
        return len(self.codes)


@dataclass(frozen=True)
class Audit:
    """What an attacker may have who wants to know on which examples a model was trained: frozen features of training
    examples, those that `Contestant.trained_on` answers, and of the test."""

    members: np.ndarray  # (M, D) float32
    strangers: np.ndarray  # (N, D) float32, in the test's order


@dataclass(frozen=True)
class TestSet:
    """The sealed test once opened: what the axes may see."""

    __test__ = False  # not a test class, whatever pytest thinks of the name

    ids: tuple[str, ...]
    inputs: Inputs
    codes: np.ndarray  # (N,) int64
    classes: tuple[str, ...]
    columns: Mapping[str, np.ndarray] = field(default_factory=dict)
    audit: Audit | None = None

    def __len__(self) -> int:
        return len(self.ids)


class Runnable(Protocol):
    """A model that can be run again, for axes that time it or perturb its inputs."""

    def predict(self, inputs: Inputs) -> np.ndarray:
        """(N, C) probabilities straight from files or texts: decoding and preprocessing included, nothing cached."""
        ...

    def size_bytes(self) -> int | None:
        """Weights as they lie on disk, backbone included; None where they are not here, as behind an endpoint."""
        ...

    def parameters(self) -> int | None: ...


@runtime_checkable
class TakesPixels(Protocol):
    """A Runnable that answers decoded images too. Axes that spoil images ask it directly, others by way of files."""

    def predict_pixels(self, images: np.ndarray, shared: dict[Any, Any] | None = None) -> np.ndarray:
        """(N, C) probabilities from (N, H, W, 3) uint8, upright and whole, as they would be decoded from files.
        `shared` is for models that are asked about the same images: what they have in common is computed once."""
        ...


@runtime_checkable
class Differentiable(Protocol):
    """A Runnable whose outputs can be followed back to the pixels."""

    def differentiable(self) -> Callable[[torch.Tensor], torch.Tensor] | None:
        """(N, 3, H, W) float32 images in 0..1, upright and whole, to raw outputs (N, C), in float32 and with gradients;
        None where this model has none."""
        ...


@dataclass(frozen=True)
class Contestant:
    """One side of a comparison."""

    name: str
    role: Role
    predictions: Predictions
    model: Runnable | None = None  # None when only predictions are known
    about: dict[str, Any] = field(default_factory=dict)  # "remarks" grow while it is measured
    held_out: Answers | None = None  # on validation, from a fit that had not seen it: thresholds are chosen on these
    trained_on: Answers | None = None  # on some of the examples that it was trained on


# (B, N) non-negative weights over the examples -> (B,) values of a metric, so that a bootstrap is one call
Statistic = Callable[["np.ndarray"], "np.ndarray"]


@dataclass(frozen=True)
class Measurement:
    """What an axis found for one contestant. Exactly one of the last three says how to compare it:

    `statistic` over the shared test examples (paired bootstrap; exact McNemar when `correct` is given too),
    `samples` repeated in step with the other contestants (paired by position), or neither: an exact figure.
    """

    value: float | None  # None where it is not defined
    n: int
    statistic: Statistic | None = None
    correct: np.ndarray | None = None  # (N,) bool
    samples: np.ndarray | None = None  # (R,)
    detail: Mapping[str, Any] = field(default_factory=dict)  # JSON: per class, curves, the machine
    seeds: np.ndarray | None = None  # (S,) the figure of each training seed; `value` and `statistic` are their means


class Axis(Protocol):
    """Plug-in: one way to be better. Measures only; judging is comparison's and showing the report's.

    One that takes minutes says `costly = True`, and is only measured when it is asked for.
    """

    title: str  # as in the table: "worst class"
    summary: str
    unit: Literal["fraction", "seconds", "bytes", "nats", "per second", "score", "operations"]
    better: Literal["higher", "lower"]
    tolerance: float  # relative difference of exact or timed figures that still counts as none

    def measure(self, contestants: Sequence[Contestant], test: TestSet) -> dict[str, Measurement]:
        """name -> Measurement; contestants that this axis cannot measure are left out."""
        ...


@dataclass(frozen=True)
class Ground:
    """What is known to a rival before it answers: examples to try it on, and the test without its labels."""

    kind: Kind
    classes: tuple[str, ...]
    trial: TestSet  # of validation, never of the test; may be empty
    ids: tuple[str, ...]  # of the test
    inputs: Inputs  # of the test


@dataclass(frozen=True)
class Rival:
    """Somebody else's model. Its answers are in its own classes; `evaluation.rivals` brings them to ours by name."""

    classes: tuple[str, ...]  # of its columns
    answer: Callable[[Sequence[str], Inputs], np.ndarray]  # (ids, inputs) -> (N, K) probabilities or scores >= 0
    remarks: tuple[str, ...] = ()  # what was found out or had to be supposed, in words
    runs: bool = True  # False when it only knows answers by id, so that nothing can be timed or perturbed
    named: bool = True  # False when the order of its classes was supposed
    size_bytes: int | None = None
    parameters: int | None = None
    model: Runnable | None = None  # itself, where it is one of ours: it can be attacked, looked into and taken apart


class RivalSort(Protocol):
    """Plug-in: one sort of rival."""

    summary: str

    def accepts(self, said: Any) -> bool:
        """Cheap: looks at the type, the name, at most whether files are there."""
        ...

    def meet(self, said: Any, ground: Ground) -> Rival:
        """Raises UserError when it is of this sort but cannot be asked. Never unpickles anything."""
        ...

    def example(self, folder: Path, ground: Ground) -> Any:
        """Make a tiny rival of this sort that knows the classes of `ground` and can answer its test, and return what
        `accepts` takes. The conformance suite meets it."""
        ...


@dataclass(frozen=True)
class Choice:
    """One choice of a recipe. Flags, file keys and the search space are all read from it."""

    name: str
    default: Any
    help: str
    kind: Literal["float", "int", "category"]
    low: float | None = None
    high: float | None = None
    log: bool = False
    options: tuple[str, ...] = ()
    auto: bool = False  # "auto" is allowed: outdo decides from the data and the budget, and says what
    search: tuple[Any, ...] = ()  # (low, high) or the options that a search tries unless told otherwise; (): none
    step: float | None = None  # a search goes in such steps
    needs: tuple[str, float] | None = None  # (another choice, the least of it from which on this one has an effect)


def batches(n: int, size: int) -> Iterator[slice]:
    """Consecutive slices of at most `size` that cover range(n)."""
    for start in range(0, n, size):
        yield slice(start, min(start + size, n))
