"""What axes share: statistics over weighted examples, and clocks that take turns."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from outdo.contracts import Contestant, Inputs, Measurement, Runnable, Statistic, TakesPixels

Call = Callable[[int], object]  # one prediction; the round is given so that every contestant gets the same input in it


def measured(
    statistic: Statistic, n: int, correct: np.ndarray | None = None, detail: Mapping[str, Any] | None = None
) -> Measurement:
    """A figure over n examples; not defined (None) when there are none."""
    if n == 0:
        return Measurement(None, 0, detail=detail or {})
    return Measurement(float(statistic(np.ones((1, n)))[0]), n, statistic, correct, detail=detail or {})


def mean_of(values: np.ndarray) -> Statistic:
    """The weighted mean of one figure per example."""
    values = np.asarray(values, np.float64)
    return lambda weights: weights @ values / weights.sum(1)


def sums(weights: np.ndarray, groups: np.ndarray, count: int, values: np.ndarray | None = None) -> np.ndarray:
    """Weighted sums per group: (B, N) weights, (N,) group codes -> (B, count). Costs B x N whatever the count."""
    from scipy.sparse import csr_array

    n = len(groups)
    indicator = csr_array((np.ones(n) if values is None else values, (groups, np.arange(n))), shape=(count, n))
    return (indicator @ np.ascontiguousarray(weights.T, np.float64)).T


def per_class(codes: np.ndarray, labels: np.ndarray, classes: Sequence[str]) -> list[dict[str, Any]]:
    """How many of each class there are and how many were recognised: [{"class", "n", "correct"}]."""
    n = np.bincount(codes, minlength=len(classes))
    correct = np.bincount(codes[labels == codes], minlength=len(classes))
    return [{"class": c, "n": int(a), "correct": int(b)} for c, a, b in zip(classes, n, correct, strict=True)]


def confusion(codes: np.ndarray, labels: np.ndarray, classes: int) -> np.ndarray:
    """(C, C) counts: row the truth, column the answer."""
    return np.bincount(codes * classes + labels, minlength=classes**2).reshape(classes, classes)


# ── asking a model about changed inputs ──────────────────────────────────────────────────────────────────────────────

SIDE, SMALLEST_SIDE = 256, 32  # pixels: of which a network that crops 7/8 sees 224


def square(data: bytes) -> np.ndarray:
    """The largest centred square of an encoded image, (S, S, 3) uint8: S is a power of two from 32 to 256, the next one
    above the image's shorter side. So images of about one size make batches, and small ones stay small."""
    from PIL import Image, ImageOps

    from outdo.data import images

    with images.refusing():
        image = images.upright(data, (SIDE, SIDE))
    side = min(SIDE, max(SMALLEST_SIDE, 1 << (min(image.size) - 1).bit_length()))
    return np.asarray(ImageOps.fit(image, (side, side), Image.Resampling.BICUBIC))


def answers(model: Runnable, values: np.ndarray | Sequence[str], shared: dict[Any, Any]) -> np.ndarray:
    """(N, C) probabilities for decoded images (N, H, W, 3) uint8, or texts. `shared` goes from one model to the next
    as long as the values are the same."""
    from outdo.data import inputs

    if not isinstance(values, np.ndarray):
        return model.predict(inputs.texts(values))
    if isinstance(model, TakesPixels):
        return model.predict_pixels(values, shared)
    return model.predict(inputs.pictures(values))


# ── clocks ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def runnable(contestants: Sequence[Contestant]) -> dict[str, Runnable]:
    """The contestants worth running again: baselines are compared on their answers only, and time is dear."""
    return {c.name: c.model for c in contestants if c.model is not None and c.role != "baseline"}


def calling(model: Runnable, inputs: Inputs, batch: int = 1) -> Call:
    """Answer `batch` inputs per round, other ones in every round, the same ones for every model."""
    return lambda r: model.predict(some(inputs, r * batch, batch))


def some(inputs: Inputs, start: int, count: int) -> Inputs:
    """`count` inputs from `start` on, going round when the end is reached."""
    return inputs.take(np.arange(start, start + count) % len(inputs))


def alternate(calls: Mapping[str, Call], seconds: float, rounds: int, fewest: int = 3) -> dict[str, np.ndarray]:
    """Time the calls side by side: name -> (R,) seconds, paired by position.

    Every round runs each call once, every other round in reverse order, so that a machine that slows down or a
    neighbour that wakes up meets all contestants alike. Ends after `rounds`, or when `seconds` per call are used up
    and `fewest` rounds are done.
    """
    names = list(calls)
    taken: dict[str, list[float]] = {name: [] for name in names}
    end = time.perf_counter() + seconds * len(names)
    for r in range(rounds):
        if r >= fewest and time.perf_counter() > end:
            break
        for name in names[:: 1 if r % 2 == 0 else -1]:
            started = time.perf_counter()
            calls[name](r)
            taken[name].append(time.perf_counter() - started)
    return {name: np.array(values) for name, values in taken.items()}
