"""Memory: what a model needs to answer a batch, beyond the libraries: its weights and its working memory.

The weights count as they lie on disk. The working memory is measured: how far the process's resident memory rises
while a batch of 32 is answered, decoding included, whatever engine does the work. Before that, memory that earlier
steps freed is handed back to the system, or else it would be reused and the rise would look like nothing. That needs
Linux and glibc; elsewhere the axis measures nobody. An allocator told to keep memory (recipe choice `allocator`) needs
more for the same work, and the figure says so. Memory on a GPU is not counted.
"""

from __future__ import annotations

import ctypes
import gc
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from outdo.contracts import Contestant, Measurement, Runnable, TestSet
from outdo.evaluation.axes._helpers import runnable, some
from outdo.runtime import cpu_model

BATCH = 32
REPEATS = 3


class Memory:
    title = "memory"
    summary = "weights plus the peak of resident memory while a batch of 32 is answered"
    unit = "bytes"
    better = "lower"
    tolerance = 0.1  # repeated measurements of one model differ by some per cent

    def measure(self, contestants: Sequence[Contestant], test: TestSet) -> dict[str, Measurement]:
        models = {name: model for name, model in runnable(contestants).items() if model.size_bytes() is not None}
        if not models or not len(test) or not measurable():
            return {}
        rises: dict[str, list[int]] = {name: [] for name in models}
        for _ in range(REPEATS):
            for name, model in models.items():
                rises[name].append(working(model, test))
        return {name: self._one(models[name].size_bytes() or 0, rise) for name, rise in rises.items()}

    def _one(self, weights: int, rises: list[int]) -> Measurement:
        detail = {"weights": int(weights), "working": rises, "batch": BATCH, "machine": cpu_model()}
        return Measurement(float(weights + np.median(rises)), len(rises), detail=detail)


def working(model: Runnable, test: TestSet) -> int:
    """Bytes by which a batch raises the resident memory; answered once before, so that loading does not count."""
    model.predict(some(test.inputs, 0, 1))
    batch = some(test.inputs, 0, BATCH)
    return rise(lambda: model.predict(batch))


def measurable() -> bool:
    """Linux with glibc, and the system lets the process reset its peak."""
    if sys.platform != "linux" or not hasattr(ctypes.CDLL(None), "malloc_trim"):
        return False
    try:
        reset_peak()
    except OSError:
        return False
    return True


def reset_peak() -> None:
    """proc(5), clear_refs: the peak (VmHWM) becomes what is resident now."""
    Path("/proc/self/clear_refs").write_text("5")


def rise(work: Callable[[], object]) -> int:
    """Peak of resident bytes during `work`, above what was resident when it began."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    reset_peak()
    before = status("VmRSS")
    work()
    return max(0, status("VmHWM") - before)


def status(field: str) -> int:
    """A figure of /proc/self/status in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    raise AssertionError(field)


PLUGIN = Memory()
