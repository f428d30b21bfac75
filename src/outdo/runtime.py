"""The machine: allocator, device, seeds, clocks, memory. Importing it is cheap; torch is imported when asked for."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import hashlib
import os
import platform
import sys
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from outdo.errors import RecipeError, nearest

if TYPE_CHECKING:
    import torch

# ── switches ─────────────────────────────────────────────────────────────────────────────────────────────────────────

SWITCH = "OUTDO_WITHOUT"
OPTIMISATIONS = {
    "allocator": "freed memory is kept for reuse",
    "waiting": "threads that wait for each other soon leave their core to others",
    "channels_last": "the channels of a pixel lie together",
    "folding": "batch norm is part of the convolution before it, in training too",
    "fusing": "convolutions of frozen copies compute the activation after them",
    "bfloat16": "half as many bits where that is faster and features stay alike",
    "depthwise": "a backward of our own for depthwise convolutions in bfloat16",
    "fused_optimiser": "one kernel updates all weights",
    "sorting": "texts of one length go through the encoder together",
    "feature_cache": "features and activations are kept for the next run",
}


def uses(optimisation: str) -> bool:
    """Whether it is in force: everything is, but for what $OUTDO_WITHOUT names, with commas between. Only bfloat16
    changes more than the last digits of a result, so what each is worth can be measured."""
    assert optimisation in OPTIMISATIONS
    return optimisation not in without()


def without() -> tuple[str, ...]:
    """What is switched off, sorted. Raises RecipeError for a name that is none of OPTIMISATIONS."""
    return _read_switch(os.environ.get(SWITCH, ""))


@functools.cache
def _read_switch(said: str) -> tuple[str, ...]:
    names = sorted({name.strip() for name in said.split(",")} - {""})
    for name in names:
        if name not in OPTIMISATIONS:
            raise RecipeError(f"{SWITCH} cannot switch off '{name}'", fix=nearest(name, OPTIMISATIONS))
    return tuple(names)


# ── the allocator and the threads ────────────────────────────────────────────────────────────────────────────────────

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4  # glibc's malloc.h
KEPT = {M_MMAP_MAX: 0, M_TRIM_THRESHOLD: -1, M_TOP_PAD: 256 << 20}
SPINS = "1000"  # some ten microseconds; libgomp's own 300,000 are milliseconds
_allocator = "system"


def prepare(allocator: str = "auto") -> str:
    """Let glibc keep freed memory for reuse; returns "keep" or "system", whichever is in force now.

    To be called before torch is imported. By default glibc gives every large block back to the kernel, and each
    activation of a network then costs a page fault per 4 KB: keeping it made training on a CPU 2 to 4 times faster.
    The price is resident memory that does not shrink. Other systems' allocators do this by themselves.

    Threads that wait for each other are also told to sleep sooner. On a machine whose cores others use as well, one
    otherwise spins on a core that the other one needs: with both cores busy the same work took 1.5 times as long. On
    a quiet machine it makes no difference. $OMP_WAIT_POLICY and $GOMP_SPINCOUNT overrule it.
    """
    global _allocator
    if uses("waiting") and "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", SPINS)
    glibc = sys.platform == "linux" and platform.libc_ver()[0] == "glibc"
    if allocator == "system" or not uses("allocator") or not glibc:
        return _allocator
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # torch: large blocks on huge pages
    mallopt = ctypes.CDLL(None).mallopt
    if all(mallopt(ctypes.c_int(option), ctypes.c_int(value)) == 1 for option, value in KEPT.items()):
        _allocator = "keep"
    return _allocator


# ── device and seeds ─────────────────────────────────────────────────────────────────────────────────────────────────


def device() -> torch.device:
    """$OUTDO_DEVICE, else cuda where there is one, else cpu."""
    import torch

    return torch.device(os.environ.get("OUTDO_DEVICE") or ("cuda" if torch.cuda.is_available() else "cpu"))


def layout() -> torch.memory_format:
    """In which images and their activations lie."""
    import torch

    return torch.channels_last if uses("channels_last") else torch.contiguous_format


def seed_everything(seed: int) -> None:
    """Python, numpy and torch. outdo itself draws from `generator`; this is for libraries that draw from globals."""
    import random

    import numpy as np
    import torch

    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """For many small operations on a CPU: waiting for each other costs threads more than they gain, and on a busy
    machine a hundred times more."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def generator(*numbers: int) -> torch.Generator:
    """A CPU generator that depends on the numbers alone, say (seed, epoch, step): resuming needs no saved state."""
    import torch

    digest = hashlib.blake2b(repr(tuple(map(int, numbers))).encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "big") >> 1)


# ── clocks and memory ────────────────────────────────────────────────────────────────────────────────────────────────


class Budget:
    """Minutes to spend. `already_spent` are the seconds of an interrupted run that is resumed."""

    def __init__(self, minutes: float, already_spent: float = 0.0,
                 clock: Callable[[], float] = time.monotonic) -> None:
        self.seconds, self._clock = 60.0 * minutes, clock
        self._start = clock() - already_spent

    def spent(self) -> float:
        """Seconds."""
        return self._clock() - self._start

    def left(self) -> float:
        """Seconds; never negative."""
        return max(0.0, self.seconds - self.spent())


def cpu_seconds() -> float:
    """Of all threads of this process, and of its children that have ended."""
    return time.process_time() + sum(os.times()[2:4])  # the latter counts in hundredths of a second


WATTS_PER_CORE = 10.0


def energy(cpu_seconds: float) -> dict[str, Any]:
    """What that work may have taken, and how this was arrived at. JSON."""
    return {"cpu_seconds": cpu_seconds, "energy_joules": cpu_seconds * WATTS_PER_CORE,
            "how": f"an estimate: {WATTS_PER_CORE:g} W while a core is busy, a round figure; memory, cooling, an idle "
            "machine and a GPU are not in it"}


def peak_memory_bytes() -> int | None:
    """The most memory that was ever resident; None on Windows."""
    if sys.platform == "win32":
        return None
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def machine() -> dict[str, Any]:
    """What a measurement depends on; no host or user names. JSON."""
    import torch

    found = device()
    return {
        "platform": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "cpu": cpu_model(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "memory_bytes": memory_bytes(),
        "device": torch.cuda.get_device_name(found) if found.type == "cuda" else found.type,
        "allocator": _allocator,
        "without": list(without()),
        **{library: version(library) for library in ("torch", "timm", "transformers", "numpy")},
    }


def cpu_model() -> str:
    """The vendor's name and what torch makes of it: "AMD EPYC, AVX512"."""
    import torch

    name = platform.processor() or platform.machine()
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            name = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), name)
    except OSError:
        pass
    return f"{name}, {torch.backends.cpu.get_cpu_capability()}"


def memory_bytes() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None


def version(library: str) -> str | None:
    from importlib import metadata

    try:
        return metadata.version(library)
    except metadata.PackageNotFoundError:
        return None
