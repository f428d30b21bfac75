"""Where a model looks: how far its answer falls when a part is covered.

Occlusion sensitivity (Zeiler and Fergus, "Visualizing and Understanding Convolutional Networks", ECCV 2014): a grey
square hides one place of the image at a time. It needs answers only, so it explains any engine, quantised or not.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from outdo.data import images
from outdo.errors import DataError

SIDE = 384  # pixels of the longer side while squares are put on it
CELLS = 7  # along the longer side; an image costs at most CELLS ** 2 answers
REACH = 1.5  # a square covers this many cells, so that neighbours overlap and edges are not missed
GREY = 128


def whole(data: bytes) -> np.ndarray:
    """All of an encoded image, upright, as (H, W, 3) uint8 of at most SIDE: a model's own decoding may cut its edges
    off, and whoever looks at the heat map sees all of it. Raises DataError."""
    try:
        with images.refusing():
            image = images.upright(data, (SIDE, SIDE))
            image.thumbnail((SIDE, SIDE))
    except images.RefusedImage as reason:
        raise DataError(f"the image cannot be read: {reason}") from None
    return np.asarray(image)


def grid(image: np.ndarray) -> tuple[int, int]:
    """(rows, columns) of squares for an (H, W, 3) image."""
    high, wide = image.shape[:2]
    longer = max(high, wide)
    return max(1, round(CELLS * high / longer)), max(1, round(CELLS * wide / longer))


def covered(image: np.ndarray) -> Iterator[np.ndarray]:
    """The image with each square in turn made grey, row by row."""
    high, wide = image.shape[:2]
    rows, columns = grid(image)
    for row in range(rows):
        for column in range(columns):
            copy = image.copy()
            copy[_span(row, rows, high), _span(column, columns, wide)] = GREY
            yield copy


def _span(index: int, count: int, length: int) -> slice:
    cell = length / count
    middle = (index + 0.5) * cell
    return slice(max(0, round(middle - REACH * cell / 2)), max(1, round(middle + REACH * cell / 2)))


def heat(before: float, after: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """(rows, columns): how much probability the answer lost under each square; 0 where it lost none."""
    return np.maximum(before - after, 0.0).reshape(shape)
