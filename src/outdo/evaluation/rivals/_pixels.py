"""How somebody else's network wants its images: what is said, what its shape tells, and the rest found on validation.

`model.onnx?normalise=imagenet&layout=nhwc&size=224&colour=bgr&fit=squash&classes=ant,bee` says all there is to say;
the same names in the model's own metadata are read the same way.
"""

from __future__ import annotations

import ast
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import numpy as np

from outdo.contracts import Inputs, TestSet
from outdo.data import images
from outdo.errors import DataError, nearest

OPTIONS = ("normalise", "mean", "std", "layout", "size", "colour", "fit", "classes", "output")
NORMALISE: dict[str, tuple[Sequence[float], Sequence[float]]] = {  # mean and std of pixels that were 0 to 1
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "half": ((0.5,) * 3, (0.5,) * 3),  # -1 to 1
    "unit": ((0.0,) * 3, (1.0,) * 3),  # 0 to 1
    "bytes": ((0.0,) * 3, (1 / 255,) * 3),  # 0 to 255
}
USUAL_SIZE = 224
TRIED = 64  # validation examples on which ways to prepare images are compared


@dataclass(frozen=True)
class Way:
    """One way to make a network's input from an image."""

    size: tuple[int, int]  # height, width
    layout: str  # nchw or nhwc
    channels: int
    dtype: str  # numpy's name
    normalise: tuple[tuple[float, ...], tuple[float, ...]]
    colour: str = "rgb"  # or bgr
    fit: images.Fit = "crop"

    def pixels(self, inputs: Inputs, ids: Sequence[str]) -> np.ndarray:
        """(N, H, W, 3) uint8. Raises DataError naming what cannot be read."""
        return np.stack([decoded(inputs, i, ids, self.size, self.fit) for i in range(len(inputs))])

    def tensor(self, pixels: np.ndarray) -> np.ndarray:
        """What the network eats, from (N, H, W, 3) uint8."""
        mean, std = (np.array(part, np.float32) for part in self.normalise)  # of red, green and blue
        x = pixels if self.dtype.startswith("uint") else (pixels.astype(np.float32) / 255 - mean) / std
        x = x if self.colour == "rgb" else x[..., ::-1]
        if self.channels == 1:
            x = x.mean(-1, keepdims=True)
        return np.ascontiguousarray(x if self.layout == "nhwc" else x.transpose(0, 3, 1, 2)).astype(self.dtype)

    def __str__(self) -> str:
        known = {tuple(map(tuple, pair)): name for name, pair in NORMALISE.items()}
        mean, std = self.normalise
        scale = known.get((tuple(mean), tuple(std)), f"mean {mean} and std {std}")
        return f"{self.size[0]} x {self.size[1]} pixels, {self.fit}, {self.colour}, {scale}, {self.layout}"


def decoded(inputs: Inputs, i: int, ids: Sequence[str], size: tuple[int, int], fit: images.Fit) -> np.ndarray:
    data = inputs.read(i)
    assert isinstance(data, bytes)
    try:
        return images.decode(data, size, fit)
    except images.RefusedImage as refused:
        raise DataError(f"{ids[i]} cannot be read", found=str(refused)) from None


# ── what is said ─────────────────────────────────────────────────────────────────────────────────────────────────────


def parted(said: str) -> tuple[str, dict[str, str]]:
    """`model.onnx?size=224` into the path and what was said. Raises DataError for a name that means nothing."""
    path, _, query = (said, "", "") if Path(said).exists() else said.partition("?")
    options = dict(parse_qsl(query, keep_blank_values=True))
    for name in options:
        if name not in OPTIONS:
            raise DataError(f"'{name}' says nothing about a rival ({said})", fix=nearest(name, OPTIONS))
    return path, options


def known_classes(options: Mapping[str, str], where: Path) -> tuple[str, ...] | None:
    """Names after `classes`: A,B,C, JSON, or a text file with one a line beside the model. None when nothing is said.

    Ultralytics writes {0: 'ant', 1: 'bee'} under `names`.
    """
    text = options.get("classes") or options.get("names") or options.get("labels")
    if not text:
        return None
    if text.endswith(".txt"):
        file = Path(text) if Path(text).exists() else where / text
        if not file.is_file():
            raise DataError(f"there is no list of classes in {text}", expected="a text file with one class a line")
        return tuple(line.strip() for line in file.read_text(encoding="utf-8").splitlines() if line.strip())
    try:
        value = ast.literal_eval(text) if text[0] in "[{" else text.split(",")
    except (ValueError, SyntaxError):
        raise DataError("the rival's classes cannot be read", found=text[:60], expected="classes=A,B,C") from None
    return tuple(str(label).strip() for label in (value.values() if isinstance(value, dict) else value))


def way(shape: Sequence[Any], dtype: str, options: Mapping[str, str]
        ) -> tuple[Way, dict[str, Sequence[Any]], list[str]]:
    """(a way that fits the network's input, the ways left to try by name, remarks). Raises DataError: an input that is
    no image, or an option that it contradicts."""
    size, layout, channels = _shape(shape, options)
    remarks = []
    if size is None:
        size = (USUAL_SIZE, USUAL_SIZE)
        remarks.append(f"takes images of any size and was given {USUAL_SIZE} x {USUAL_SIZE}; size=N says another")
    left: dict[str, Sequence[Any]] = {}
    normalise = _normalise(options)
    if normalise is None and dtype.startswith("uint"):
        normalise = NORMALISE["bytes"]
    if normalise is None:
        left["normalise"] = list(NORMALISE.values())
    if "colour" not in options and channels == 3:
        left["colour"] = ["rgb", "bgr"]
    if "fit" not in options:
        left["fit"] = ["crop", "squash"]
    colour, fit = options.get("colour", "rgb"), options.get("fit", "crop")
    _one_of("colour", colour, ("rgb", "bgr"))
    _one_of("fit", fit, ("crop", "squash"))
    mean, std = normalise or NORMALISE["imagenet"]
    return Way(size, layout, channels, dtype, (tuple(mean), tuple(std)), colour, fit), left, remarks  # type: ignore[arg-type]


def _shape(shape: Sequence[Any], options: Mapping[str, str]) -> tuple[tuple[int, int] | None, str, int]:
    """((height, width) or None, layout, channels) of a 4-D input; dimensions that are not fixed are no ints."""
    if len(shape) != 4:
        raise DataError("the rival's input is no batch of images", expected="4 dimensions, such as N x 3 x 224 x 224",
                        found=" x ".join(map(str, shape)) or "a single value")
    fits = {"nchw": shape[1] in (1, 3), "nhwc": shape[3] in (1, 3)}
    layout = options.get("layout") or ("nhwc" if fits["nhwc"] and not fits["nchw"] else "nchw")
    _one_of("layout", layout, tuple(fits))
    channels, high, wide = (shape[1], shape[2], shape[3]) if layout == "nchw" else (shape[3], shape[1], shape[2])
    if isinstance(channels, int) and channels > 0 and channels not in (1, 3):
        raise DataError(f"the rival's input has {channels} channels as {layout}", found=" x ".join(map(str, shape)),
                        expected="1 or 3", fix="say layout=nchw or layout=nhwc")
    fixed = (high, wide) if isinstance(high, int) and isinstance(wide, int) and min(high, wide) > 0 else None
    told = _size(options["size"]) if "size" in options else None
    if told and fixed and told != fixed:
        raise DataError(f"the rival was said to take {told[0]} x {told[1]} pixels", found=f"{fixed[0]} x {fixed[1]} in "
                        "the model", fix="leave size out")
    return fixed or told, layout, 1 if channels == 1 else 3


def _size(text: str) -> tuple[int, int]:
    parts = text.lower().split("x")
    if not (len(parts) <= 2 and all(part.strip().isdecimal() and 0 < int(part) <= 4096 for part in parts)):
        raise DataError(f"size={text} is no size", expected="pixels, such as 224 or 224x320 (height x width)")
    return int(parts[0]), int(parts[-1])


def _normalise(options: Mapping[str, str]) -> tuple[Sequence[float], Sequence[float]] | None:
    if "normalise" in options:
        _one_of("normalise", options["normalise"], tuple(NORMALISE))
        return NORMALISE[options["normalise"]]
    if "mean" not in options and "std" not in options:
        return None
    return _three("mean", options.get("mean", "0")), _three("std", options.get("std", "1"))


def _three(name: str, text: str) -> tuple[float, ...]:
    try:
        values = tuple(float(part) for part in text.strip("[]() ").split(","))
    except ValueError:
        values = ()
    if len(values) not in (1, 3) or not all(map(math.isfinite, values)) or (name == "std" and min(values) <= 0):
        raise DataError(f"{name}={text} is no {name} of pixels",
                        expected="one number or three, such as 0.485,0.456,0.406, of pixels that were 0 to 1")
    return values * (3 // len(values))


def _one_of(name: str, value: str, options: Sequence[str]) -> None:
    if value not in options:
        raise DataError(f"{name}={value} says nothing", fix=nearest(value, options))


# ── what is found on validation ──────────────────────────────────────────────────────────────────────────────────────


def settled(start: Way, left: Mapping[str, Sequence[Any]], trial: TestSet,
            score: Callable[[np.ndarray, TestSet], tuple[float, ...]]) -> tuple[Way, list[str]]:
    """The way on which `score` of a tensor is best on validation, and what to say of it.

    Normalisation and colour order are tried together, then the cut. Ties go to what is usual, which comes first.
    """
    if not len(trial):
        if "normalise" in left:
            raise DataError("there are no validation examples to find out how the rival wants its images",
                            fix=f"say normalise={'|'.join(NORMALISE)}, or mean=... and std=...")
        return start, []
    best, tries = start, 0
    scores: dict[Way, tuple[float, ...]] = {}
    for names in (("normalise", "colour"), ("fit",)):
        free = [name for name in names if name in left]
        ways = [replace(best, **dict(zip(free, values, strict=True)))
                for values in itertools.product(*(left[name] for name in free))] if free else []
        if len(ways) > 1:
            pixels = ways[0].pixels(trial.inputs, trial.ids) if "fit" not in free else None
            for one in ways:
                seen = pixels if pixels is not None else one.pixels(trial.inputs, trial.ids)
                scores[one] = score(one.tensor(seen), trial)
            best = max(ways, key=lambda one: scores[one])
            tries += len(ways)
    if not tries:
        return start, []
    return best, [f"was given {best}: the best of {tries} ways on {len(trial)} validation examples"]
