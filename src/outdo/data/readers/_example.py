"""Tiny sources for the `example` of readers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

CLASSES = ("ant", "bee")


def write_class_folders(root: Path, seed: int) -> Path:
    """`root/{train,test}/{ant,bee}/{0,1,2}.png` of random pixels."""
    rng = np.random.default_rng(seed)
    for split in ("train", "test"):
        for label in CLASSES:
            (root / split / label).mkdir(parents=True, exist_ok=True)
            for i in range(3):
                pixels = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(root / split / label / f"{i}.png")
    return root
