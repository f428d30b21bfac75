"""A tiny study for tests of training: coloured squares, the tiny backbone, a few examples."""

import numpy as np

from outdo import backbones
from outdo.contracts import Encoded
from outdo.data.encode import ArrayRows
from outdo.data.inputs import texts
from outdo.recipe import Recipe
from outdo.tasks.image_classification import PLUGIN as TASK
from outdo.training.contestants import Study
from outdo.training.features import Features


def rows(n, classes=3, seed=0, noise=40):
    """(n, 16, 16, 3) uint8 whose colour tells the class, and codes (n,)."""
    rng = np.random.default_rng(seed)
    codes = np.arange(n) % classes
    pixels = rng.normal(110, noise, (n, 16, 16, 3))
    pixels[np.arange(n), :, :, codes] += 60
    return np.clip(pixels, 0, 255).astype(np.uint8), codes.astype(np.int64)


def study(n=60, cache=None, noise=40, **choices):
    pixels, codes = rows(n, noise=noise)
    backbone = backbones.load("tiny-image", "image")
    encoded = Encoded(ArrayRows(pixels), tuple(f"{i}-{noise}" for i in range(n)), {}, np.zeros(n, np.uint64))
    is_validation = np.arange(n) % 4 == 3
    return Study(TASK, backbone, encoded, Features(backbone, encoded, cache), ("a", "b", "c"), codes,
                 np.flatnonzero(~is_validation), np.flatnonzero(is_validation), texts([""] * n), None,
                 Recipe(**choices), 0)
