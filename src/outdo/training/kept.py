"""Probes that were fitted before, kept beside the features: the same examples with the same labels are fitted once.

Only a second run on unchanged data gains by it, but then nearly all of the time to the same validation score.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from outdo.errors import RunError
from outdo.storage import as_json, read_tensors, write_tensors
from outdo.training.model import arrays, described, restored
from outdo.training.probe import Fitted

VERSION = 3  # raise it when the same examples would be fitted otherwise, or what was kept may be wrong
FILE = "fit.safetensors"


def remembered(folder: Path, facts: list[Any], fit: Callable[[], Fitted]) -> Fitted:
    """`fit()`, or what it gave when it was last called with these facts. `facts` are JSON and arrays: everything that
    the fit depends on."""
    whole = hashlib.sha256()
    for fact in (VERSION, *facts):
        whole.update(fact.tobytes() if isinstance(fact, np.ndarray) else as_json(fact).encode())
        whole.update(b"\x1e")
    path = folder / "probes" / whole.hexdigest()[:32] / FILE
    with contextlib.suppress(RunError, OSError):  # not there, or damaged: it is fitted again
        found = read(path)
        os.utime(path.parent)  # the oldest are evicted first
        return found
    fitted = fit()
    path.parent.mkdir(parents=True, exist_ok=True)
    write(path, fitted)
    return fitted


def write(path: Path, fitted: Fitted) -> None:
    import torch

    parts = {name: part for name in ("model", "blind") if (part := getattr(fitted, name)) is not None}
    values = {f"{name}.{key}": value for name, part in parts.items() for key, value in arrays(part).items()}
    tensors = {key: torch.from_numpy(np.ascontiguousarray(value))
               for key, value in {**values, "held_out": fitted.held_out}.items()}
    write_tensors(path, tensors, {"parts": {name: described(part) for name, part in parts.items()},
                                  "strength": fitted.strength, "loss": fitted.loss, "accuracy": fitted.accuracy})


def read(path: Path) -> Fitted:
    """Raises RunError where there is none."""
    tensors, said = read_tensors(path)
    held_out = tensors.pop("held_out").numpy()

    def part(name: str) -> Any:
        own = {key.partition(".")[2]: value.numpy() for key, value in tensors.items() if key.startswith(f"{name}.")}
        return restored(said["parts"][name], own) if name in said["parts"] else None

    return Fitted(part("model"), part("blind"), held_out, said["strength"], said["loss"], said["accuracy"])
