"""What runs a network: ONNX Runtime or OpenVINO, and which of them at how many threads is fastest here.

Engines differ by machine, so the choice is made by a short measurement where the bundle runs, and remembered in the
cache folder. An engine that does not answer as the bundle says it should is not used, however fast.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import importlib.util
import json
import os
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Protocol

import numpy as np

from outdo.deploy.bundle import Bundle
from outdo.deploy.external import refuse_external_data
from outdo.errors import BundleError, MissingExtra, UserError, nearest
from outdo.storage import cache_folder, read_json, write_json

Feed = Mapping[str, np.ndarray]  # input name -> batch
TOLERANCE = 0.05  # of probabilities on the examples made for trying an engine
ROUNDS, LARGER = 5, 8  # timed calls of each sort; inputs in the larger ones


class Engine(Protocol):
    def run(self, feed: Feed) -> np.ndarray:
        """(B, C) float32 probabilities."""
        ...


@dataclass(frozen=True)
class Choice:
    """How to run a bundle: which of its models, by what, on how many threads."""

    engine: str
    model: str  # "float32" or "int8"
    threads: int


class OnnxRuntime:
    def __init__(self, model: bytes, threads: int) -> None:
        try:
            import onnxruntime
        except ImportError:
            raise MissingExtra("a bundle", "onnxruntime", "serve") from None
        settings = onnxruntime.SessionOptions()
        settings.intra_op_num_threads, settings.inter_op_num_threads = threads, 1
        settings.log_severity_level = 4  # what is wrong comes as an exception
        # Idle threads that wait busily take the cores from whoever decodes the next inputs: a quarter of the throughput
        settings.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self.session = onnxruntime.InferenceSession(model, settings, providers=["CPUExecutionProvider"])

    def run(self, feed: Feed) -> np.ndarray:
        return self.session.run(["probabilities"], dict(feed))[0]  # type: ignore[no-any-return]


class OpenVino:
    def __init__(self, model: bytes, threads: int, precision: str = "f32") -> None:
        try:
            import openvino
        except ImportError:
            raise MissingExtra("this engine", "openvino", "openvino") from None
        core = openvino.Core()
        settings = {"PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": 1, "INFERENCE_NUM_THREADS": threads,
                    "INFERENCE_PRECISION_HINT": precision}  # said, else it rounds to bfloat16 where the machine can
        self.compiled = core.compile_model(core.read_model(model=model), "CPU", settings)
        self.names = [name for given in self.compiled.inputs for name in given.names]
        self.request = self.compiled.create_infer_request()

    def run(self, feed: Feed) -> np.ndarray:
        known = {name: feed[name] for name in self.names}  # it has forgotten inputs that decide nothing
        return np.array(self.request.infer(known, share_inputs=True)["probabilities"])


ENGINES: dict[str, Callable[[bytes, int], Engine]] = {
    "onnxruntime": OnnxRuntime, "openvino": OpenVino, "openvino-bfloat16": partial(OpenVino, precision="bf16")}
LIBRARIES = ("onnxruntime", "openvino")
ROUNDING = ("openvino-bfloat16",)  # used only for models of which export found that their labels stay


def start(bundle: Bundle, choice: Choice, example: Feed) -> Engine:
    """An engine that has answered the example. Raises BundleError: a model that it cannot read or run, that reaches for
    files outside the bundle, or whose answers are no probabilities of the bundle's classes."""
    model = bundle.read(bundle.about["models"][choice.model])
    refuse_external_data(model, str(bundle.path))
    try:
        engine = ENGINES[choice.engine](model, choice.threads)
        found = engine.run(example)
    except UserError:
        raise
    except Exception as error:  # each engine has exceptions of its own
        raise BundleError(f"{bundle.path}: {choice.engine} cannot run its {choice.model} model",
                          found=" ".join(str(error).split())[:160]) from None
    wanted = len(next(iter(example.values()))), len(bundle.about["classes"])
    if np.shape(found) != wanted or not np.allclose(np.sum(found, 1), 1, atol=1e-3):
        raise BundleError(f"{bundle.path}: its {choice.model} model does not answer with probabilities of its classes",
                          expected=f"{wanted} of them", found=f"{np.shape(found)}")
    return engine


def plain_choice(bundle: Bundle, engine: str = "onnxruntime", threads: int | None = None) -> Choice:
    """Without measuring anything: the smaller model if there is one, all cores."""
    if engine not in ENGINES:
        raise UserError(f"unknown engine '{engine}'", fix=nearest(engine, ["auto", *ENGINES]))
    return Choice(engine, "int8" if "int8" in bundle.about["models"] else "float32", threads or cores())


def fastest_choice(bundle: Bundle, make_feed: Callable[[int], Feed], threads: int | None = None) -> Choice:
    """The fastest that answers right, measured once for a bundle, a machine and versions of the engines."""
    place = cache_folder() / "engines" / f"{_key(bundle, threads)}.json"
    if place.exists():
        try:
            return Choice(**read_json(place)["choice"])
        except (UserError, TypeError, KeyError):  # damaged, or of an older version: measure again
            pass
    choice, taken = measured(bundle, make_feed, candidates(bundle, threads))
    give_back()
    with contextlib.suppress(OSError):  # a cache that cannot be written costs time only
        write_json(place, {"choice": asdict(choice), "seconds": taken})
    return choice


def give_back() -> None:
    """Of the engines that were tried and are gone glibc would keep 140 MB for as long as the process lives."""
    with contextlib.suppress(AttributeError, OSError, TypeError):  # another C library
        ctypes.CDLL(None).malloc_trim(0)


def candidates(bundle: Bundle, threads: int | None) -> list[Choice]:
    counts = [threads] if threads else sorted({1, cores()})
    proved = bundle.about.get("parity", {})
    return [Choice(engine, model, count) for engine in available() for model in bundle.about["models"]
            if engine not in ROUNDING or engine in proved.get(model, ()) for count in counts]


def available() -> list[str]:
    """ONNX Runtime, which every bundle needs, and whatever else is installed."""
    return [name for name in ENGINES if name == "onnxruntime" or installed(name.partition("-")[0])]


def measured(bundle: Bundle, make_feed: Callable[[int], Feed], tried: Sequence[Choice]
             ) -> tuple[Choice, dict[str, list[float]]]:
    """(the one whose time for one input times that for a batch is least, the seconds of each).

    Taken in turns, best of a few: the smallest time is the one that the machine disturbed least.
    """
    feeds = [make_feed(1), make_feed(LARGER)]
    engines = {choice: start(bundle, choice, feeds[0]) for choice in tried}
    right = {c: e for c, e in engines.items() if answers_right(bundle, c, e, feeds[1])}
    if not right:
        raise BundleError(f"{bundle.path}: no engine answers on this machine as it did where the bundle was made",
                          fix="install the versions named in its report, or export the run here")
    best = {choice: [float("inf")] * len(feeds) for choice in right}
    for _ in range(ROUNDS):
        for choice, engine in right.items():
            for i, feed in enumerate(feeds):
                best[choice][i] = min(best[choice][i], seconds(engine, feed))
    chosen = min(best, key=lambda choice: float(np.prod(best[choice])))
    return chosen, {"-".join(map(str, asdict(choice).values())): taken for choice, taken in best.items()}


def seconds(engine: Engine, feed: Feed) -> float:
    begun = time.perf_counter()
    engine.run(feed)
    return time.perf_counter() - begun


def answers_right(bundle: Bundle, choice: Choice, engine: Engine, feed: Feed) -> bool:
    """Whether the engine answers the made-up examples as it did at export; true where the bundle does not say."""
    expected = bundle.about.get("expected", {}).get(choice.model)
    found = engine.run(feed)
    if expected is None:
        return bool(np.isfinite(found).all())
    return found.shape == np.shape(expected) and float(np.abs(found - expected).max()) <= TOLERANCE


def cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def installed(library: str) -> bool:
    return importlib.util.find_spec(library) is not None


def _key(bundle: Bundle, threads: int | None) -> str:
    facts = [bundle.about, platform.machine(), _cpu(), cores(), threads, *map(_version, LIBRARIES)]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:32]


def _cpu() -> str:
    """What tells this CPU from another: its flags decide which kernels an engine has."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return "".join(next((line for line in lines if line.startswith(what)), "") for what in ("model name", "flags"))


def _version(library: str) -> str | None:
    try:
        return metadata.version(library)
    except metadata.PackageNotFoundError:
        return None
