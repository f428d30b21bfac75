"""When a bundle says "not sure": see `evaluation.thresholds`.

The answers on validation are those of fits that had not seen it; those of the final model, which has, would be right
too often.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from outdo.evaluation.calibration import apply
from outdo.evaluation.thresholds import LEVELS, thresholds
from outdo.runs import HELD_OUT
from outdo.storage import read_tensors
from outdo.training.model import Model

__all__ = ["LEVEL", "LEVELS", "held_out", "thresholds"]

LEVEL = 0.99  # the one that a bundle says "not sure" by


def held_out(folder: Path, model: Model) -> np.ndarray | None:
    """(n, C) probabilities of validation, from fits that had not seen it; None where a run kept none."""
    if not (folder / HELD_OUT).exists():
        return None
    tensors, note = read_tensors(folder / HELD_OUT)
    return apply(tensors["outputs"].numpy(), model.temperature) if note["model"] == model.name else None
