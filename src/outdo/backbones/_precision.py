"""Which number format to compute in: measured once per machine and backbone, and then remembered."""

from __future__ import annotations

import contextlib
import hashlib
import json
import time
from typing import Any, cast

import numpy as np

from outdo import runtime, storage
from outdo.contracts import Backbone, Precision, Rows
from outdo.errors import OutdoError

BATCH = {"image": 8, "text": 32}
ALIKE, LEAST_ALIKE = 0.998, 0.99  # mean and least cosine between features in bfloat16 and in float32
FASTER = 1.1  # how much faster bfloat16 has to be
REPEATS = 2


def choose_precision(backbone: Backbone, rows: Rows | np.ndarray, said: str = "auto") -> tuple[Precision, str]:
    """("float32" or "bfloat16", why, in words for the log). Leaves `backbone.precision` as it was.

    With "auto", a small batch of `rows` goes through both: bfloat16 is chosen where its features are finite, point the
    same way, and come at least 1.1 times as fast. That takes about a second, and is remembered in the cache folder.
    """
    if said != "auto":
        return cast(Precision, said), f"{said}, as asked for"
    if not runtime.uses("bfloat16"):
        return "float32", f"float32: {runtime.SWITCH} says so"
    memory = storage.cache_folder() / "machine.json"
    known = recall(memory)
    key = identity(backbone)
    if key in known:
        return known[key]["precision"], f"{known[key]['why']} (measured earlier)"
    precision, why = measure(backbone, rows[np.arange(min(len(rows), BATCH[backbone.kind]))])
    with contextlib.suppress(OSError):  # a cache that cannot be written costs a second at the next run
        storage.write_json(memory, {**recall(memory), key: {"precision": precision, "why": why}})
    return precision, why


def recall(memory: Any) -> dict[str, Any]:
    try:
        found = storage.read_json(memory)
    except (OutdoError, OSError):
        return {}
    return found if isinstance(found, dict) else {}


def identity(backbone: Backbone) -> str:
    """What the choice depends on."""
    facts = {k: v for k, v in runtime.machine().items() if k in ("cpu", "threads", "device", "torch", "platform",
                                                               "without")}
    return hashlib.sha256(json.dumps([facts, backbone.origin.sha256], sort_keys=True).encode()).hexdigest()[:32]


def measure(backbone: Backbone, rows: np.ndarray) -> tuple[Precision, str]:
    before = backbone.precision
    try:
        with runtime.one_thread():  # what the formats cost, whoever else is busy on this machine now
            plain, plain_seconds = timed(backbone, rows, "float32")
            low, low_seconds = timed(backbone, rows, "bfloat16")
    except RuntimeError as error:  # an operation that does not exist in bfloat16
        return "float32", f"float32: bfloat16 does not run here ({str(error).splitlines()[0]})"
    finally:
        backbone.precision = before
    return judge(alike(plain, low), plain_seconds / low_seconds)


def judge(likeness: tuple[float, float], speed_up: float) -> tuple[Precision, str]:
    """The rule; `likeness` is the mean and the least cosine, NaN where features are not finite."""
    mean, least = likeness
    if not (mean >= ALIKE and least >= LEAST_ALIKE):
        return "float32", f"float32: features in bfloat16 differ (cosine {mean:.4f})"
    if speed_up < FASTER:
        return "float32", f"float32: bfloat16 is not faster here ({speed_up:.1f} times)"
    return "bfloat16", f"bfloat16: {speed_up:.1f} times as fast here, features alike (cosine {mean:.5f})"


def timed(backbone: Backbone, rows: np.ndarray, precision: Precision) -> tuple[np.ndarray, float]:
    """(features (N, D), seconds of the fastest of a few repeats)."""
    backbone.precision = precision
    found, seconds = backbone.features(rows)["last"].cpu().numpy(), float("inf")
    # on a CPU the time of our own threads, which a busy neighbour does not change
    clock = runtime.cpu_seconds if runtime.device().type == "cpu" else time.perf_counter
    for _ in range(REPEATS):
        start = clock()
        backbone.features(rows)["last"].cpu()  # waits for the device
        seconds = min(seconds, clock() - start)
    return found, seconds


def alike(a: np.ndarray, b: np.ndarray) -> tuple[float, float]:
    """(mean, least) cosine between the rows of two (N, D)."""
    cosines = (a * b).sum(1) / np.maximum(np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1), 1e-12)
    return float(cosines.mean()), float(cosines.min())
