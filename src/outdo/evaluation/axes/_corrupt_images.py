"""The 15 + 4 corruptions of ImageNet-C at 5 severities, on numpy, Pillow and scipy, for images of any size.

Hendrycks and Dietterich 2019, "Benchmarking Neural Network Robustness to Common Corruptions and Perturbations". The
parameters are the paper's, which are for 224 pixels: lengths go with the shorter side, strengths of what acts on single
pixels with its root, which comes near to what the same authors chose by hand for the 32 pixels of CIFAR-10-C. Two
differences: frost is drawn, not pasted from six photographs, and glass moves pixels all at once, not one by one.
"""

from __future__ import annotations

import io
import math
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image, ImageFilter

SEVERITIES = (1, 2, 3, 4, 5)
NATIVE, SMALLEST = 224, 32  # the side that the parameters are for, and the least that they are scaled down to


@dataclass(frozen=True)
class Scene:
    """An image to be spoilt: (H, W, C) float32 in 0..1, C = 1 where it is grey; its size in units of 224 pixels; and
    its random numbers."""

    x: np.ndarray
    unit: float
    rng: np.random.Generator

    @property
    def root(self) -> float:
        """By how much less single pixels are spoilt in a small image, where fewer of them show the same thing."""
        return math.sqrt(min(1.0, self.unit))

    def normal(self, *shape: int) -> np.ndarray:
        return self.rng.standard_normal(shape or self.x.shape, np.float32)


def corrupt(image: np.ndarray, name: str, severity: int, seed: int = 0) -> np.ndarray:
    """(H, W, 3) uint8 to the same, spoilt by the corruption `name` at a severity from 1 to 5.

    The random numbers depend on `seed`, the corruption and the image's pixels, on nothing else. Grey images stay grey.
    """
    spoil, levels = CORRUPTIONS[name]
    grey = bool((image[..., :1] == image).all())
    x = image[..., :1] if grey else image
    rng = np.random.default_rng([seed, zlib.crc32(name.encode()), severity, zlib.crc32(image.tobytes())])
    unit = max(SMALLEST, min(image.shape[:2])) / NATIVE
    out = spoil(Scene(x.astype(np.float32) / 255, unit, rng), levels[severity - 1])
    return np.broadcast_to(to_bytes(out), image.shape).copy()


def to_bytes(x: np.ndarray) -> np.ndarray:
    return np.rint(np.clip(x, 0, 1) * 255).astype(np.uint8)


# ── noise ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def gaussian_noise(scene: Scene, level: float) -> np.ndarray:
    return scene.x + scene.normal() * level * scene.root


def shot_noise(scene: Scene, level: float) -> np.ndarray:
    photons = level / scene.root**2
    return scene.rng.poisson(scene.x * photons) / photons


def impulse_noise(scene: Scene, level: float) -> np.ndarray:
    drawn = scene.rng.random(scene.x.shape, np.float32)
    share = level * scene.root
    return np.where(drawn < share / 2, 0.0, np.where(drawn > 1 - share / 2, 1.0, scene.x))


def speckle_noise(scene: Scene, level: float) -> np.ndarray:
    return scene.x * (1 + scene.normal() * level * scene.root)


# ── blur ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def gaussian_blur(scene: Scene, level: float) -> np.ndarray:
    return smooth(scene.x, level * scene.unit)


def defocus_blur(scene: Scene, level: tuple[float, float]) -> np.ndarray:
    """A disc: what a point becomes out of focus."""
    radius, soft = level[0] * scene.unit, level[1]
    reach = math.ceil(radius) + 1
    along = np.arange(-reach, reach + 1)
    disc = np.clip(radius + soft - np.hypot(along[:, None], along[None]), 0, max(soft, 0.1))
    return convolve(scene.x, disc / disc.sum())


def glass_blur(scene: Scene, level: tuple[float, float, int]) -> np.ndarray:
    sigma, reach, times = level
    high, wide = scene.x.shape[:2]
    x, (rows, columns) = smooth(scene.x, sigma * scene.unit), np.mgrid[:high, :wide]
    for _ in range(times):
        wander = scene.rng.uniform(-reach, reach, (2, high, wide)) * scene.unit
        wander = np.floor(wander + scene.rng.random(wander.shape)).astype(int)  # on average right below one pixel
        x = x[np.clip(rows + wander[0], 0, high - 1), np.clip(columns + wander[1], 0, wide - 1)]
    return smooth(x, sigma * scene.unit)


def motion_blur(scene: Scene, level: tuple[float, float]) -> np.ndarray:
    return convolve(scene.x, streak(level, scene.unit, scene.rng.uniform(-45, 45)))


def zoom_blur(scene: Scene, level: tuple[float, float]) -> np.ndarray:
    largest, step = level
    high, wide = scene.x.shape[:2]
    picture, total = Image.fromarray(squeezed(to_bytes(scene.x))), np.zeros(squeezed(scene.x).shape, np.float32)
    factors = np.arange(1, largest, step)
    for factor in factors:
        left, top = wide * (1 - 1 / factor) / 2, high * (1 - 1 / factor) / 2
        box = (left, top, wide - left, high - top)
        total += np.asarray(picture.resize((wide, high), Image.Resampling.BILINEAR, box=box))
    return total.reshape(scene.x.shape) / (255 * len(factors))


# ── weather ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def snow(scene: Scene, level: tuple[float, float, float, float, float, float, float]) -> np.ndarray:
    much, spread, flake, least, reach, sigma, keep = level
    x, (high, wide) = scene.x, scene.x.shape[:2]
    size = flake * scene.unit
    coarse = much + spread * scene.normal(max(2, math.ceil(high / size)), max(2, math.ceil(wide / size)))
    layer = enlarged(coarse, high, wide)
    layer = np.where(layer < least, 0, np.clip(layer, 0, 1))
    layer = convolve(layer[..., None], streak((reach, sigma), scene.unit, scene.rng.uniform(-135, -45)))
    pale = np.maximum(x, x.mean(2, keepdims=True) * 1.5 + 0.5)
    return keep * x + (1 - keep) * pale + layer + layer[::-1, ::-1]


def frost(scene: Scene, level: tuple[float, float]) -> np.ndarray:
    """Ridges of noise, thickest where it is: white with a breath of blue."""
    shape = scene.x.shape[:2]
    ridges = 1 - np.abs(2 * clouds(scene.rng, shape, 1.6) - 1)
    crystals = np.clip(1.3 * ridges**3 * (0.4 + clouds(scene.rng, shape, 1.3)), 0, 1)[..., None]
    tint = np.array([0.88, 0.95, 1.0], np.float32) if scene.x.shape[2] == 3 else np.float32(0.94)
    return level[0] * scene.x + level[1] * crystals * tint


def fog(scene: Scene, level: tuple[float, float]) -> np.ndarray:
    much, decay = level
    brightest = float(scene.x.max())
    mist = clouds(scene.rng, scene.x.shape[:2], decay)[..., None]
    return (scene.x + much * mist) * brightest / (brightest + much)


def spatter(scene: Scene, level: tuple[float, float, float, float, float, bool]) -> np.ndarray:
    """Drops of water that shine on one side, or of mud."""
    from scipy.ndimage import gaussian_filter

    mean, spread, sigma, least, much, mud = level
    size = max(0.5, sigma * scene.unit)
    layer = gaussian_filter(scene.normal(*scene.x.shape[:2]), size, mode="wrap")
    layer = mean + spread * layer / (2 * size * math.sqrt(math.pi) * max(float(layer.std()), 1e-6))
    drops = gaussian_filter((layer > least).astype(np.float32), 1.5 * scene.unit if mud else 0.6)[..., None]
    colours = ((63, 42, 20), (0.17,)) if mud else ((175, 238, 238), (0.88,))
    colour = np.array(colours[0], np.float32) / 255 if scene.x.shape[2] == 3 else np.array(colours[1], np.float32)
    if mud:
        splashes = np.where(drops < 0.8, 0, drops)
        return scene.x * (1 - splashes) + colour * splashes
    shine = np.clip(0.5 + 2 * (np.roll(drops, -1, 0) - np.roll(drops, 1, 0)), 0, 1)
    return scene.x + much * drops * (colour * shine - 0.3)


# ── light and colour ─────────────────────────────────────────────────────────────────────────────────────────────────


def brightness(scene: Scene, level: float) -> np.ndarray:
    """More of HSV's value; hue and saturation stay."""
    value = scene.x.max(2, keepdims=True)
    brighter = np.minimum(value + level, 1)
    return np.where(value > 0, scene.x * brighter / np.maximum(value, 1e-6), brighter)


def contrast(scene: Scene, level: float) -> np.ndarray:
    mean = scene.x.mean((0, 1), keepdims=True)
    return (scene.x - mean) * level + mean


def saturate(scene: Scene, level: tuple[float, float]) -> np.ndarray:
    """HSV's saturation times a factor, plus an offset where there is a colour at all; hue and value stay."""
    value = scene.x.max(2, keepdims=True)
    chroma = value - scene.x.min(2, keepdims=True)
    saturation = chroma / np.maximum(value, 1e-6)
    wanted = np.clip(saturation * level[0] + level[1] * (saturation > 0), 0, 1)
    return value - (value - scene.x) * wanted / np.maximum(saturation, 1e-6)


# ── digital ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def jpeg_compression(scene: Scene, level: float) -> np.ndarray:
    quality = round(100 - (100 - level) * math.sqrt(scene.root))
    encoded = io.BytesIO()
    Image.fromarray(squeezed(to_bytes(scene.x))).save(encoded, "JPEG", quality=quality)
    return as_floats(Image.open(encoded))


def pixelate(scene: Scene, level: float) -> np.ndarray:
    share = 1 - (1 - level) * scene.root
    picture = Image.fromarray(squeezed(to_bytes(scene.x)))
    small = picture.resize([max(1, int(side * share)) for side in picture.size], Image.Resampling.BOX)
    return as_floats(small.resize(picture.size, Image.Resampling.NEAREST))


def elastic_transform(scene: Scene, level: tuple[float, float, float]) -> np.ndarray:
    """A random affine map and waves on top: (amplitude, wavelength, reach of the map), in pixels."""
    amplitude, wave, reach = (value * scene.unit for value in level)
    high, wide = scene.x.shape[:2]
    rows, columns = np.mgrid[:high, :wide].astype(np.float32)
    third, middle = min(high, wide) / 3, np.array([high, wide]) // 2
    corners = np.array([middle + third, [middle[0] + third, middle[1] - third], middle - third], np.float32)
    moved = corners + scene.rng.uniform(-reach, reach, corners.shape)
    affine = np.linalg.solve(np.c_[moved, np.ones(3)], corners)  # (3, 2): where each pixel comes from
    places = [affine[0, i] * rows + affine[1, i] * columns + affine[2, i] for i in range(2)]
    if amplitude > 0:
        places = [place + amplitude * waves(scene, wave, high, wide) for place in places]
    return between(scene.x, *places)


# ── what they are made of ────────────────────────────────────────────────────────────────────────────────────────────


def squeezed(x: np.ndarray) -> np.ndarray:
    """As Pillow wants it: (H, W) where it is grey."""
    return x[..., 0] if x.shape[2] == 1 else x


def as_floats(picture: Image.Image) -> np.ndarray:
    values = np.asarray(picture, np.float32) / 255
    return values if values.ndim == 3 else values[..., None]


def smooth(x: np.ndarray, sigma: float) -> np.ndarray:
    picture = Image.fromarray(squeezed(to_bytes(x)))
    return as_floats(picture.filter(ImageFilter.GaussianBlur(sigma)))


def convolve(x: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """(H, W, C) with (K, K), the edges continued by mirroring."""
    from scipy import fft

    reach = kernel.shape[0] // 2
    wide = np.pad(x, ((reach, reach), (reach, reach), (0, 0)), mode="symmetric").astype(np.float32)
    size = [fft.next_fast_len(side, real=True) for side in wide.shape[:2]]
    spectrum = fft.rfft2(wide, size, axes=(0, 1)) * fft.rfft2(kernel.astype(np.float32), size)[..., None]
    whole = fft.irfft2(spectrum, size, axes=(0, 1))
    return whole[2 * reach : 2 * reach + x.shape[0], 2 * reach : 2 * reach + x.shape[1]]


def between(x: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """(H, W, C) read at fractional places (H, W), bilinearly; outside, the nearest edge."""
    rows, columns = np.clip(rows, 0, x.shape[0] - 1), np.clip(columns, 0, x.shape[1] - 1)
    top, left = rows.astype(int), columns.astype(int)
    bottom, right = np.minimum(top + 1, x.shape[0] - 1), np.minimum(left + 1, x.shape[1] - 1)
    down, across = (rows - top)[..., None].astype(np.float32), (columns - left)[..., None].astype(np.float32)
    upper = x[top, left] * (1 - across) + x[top, right] * across
    lower = x[bottom, left] * (1 - across) + x[bottom, right] * across
    return upper * (1 - down) + lower * down


def streak(level: tuple[float, float], unit: float, degrees: float) -> np.ndarray:
    """(K, K) kernel of something that moved: half a Gaussian along a line."""
    reach, sigma = max(1.0, level[0] * unit), max(0.3, level[1] * unit)
    far = math.ceil(reach)
    along = np.linspace(0, reach, 4 * far + 1)
    weights = np.exp(-(along**2) / (2 * sigma**2))
    kernel = np.zeros((2 * far + 1, 2 * far + 1))
    turn = math.radians(degrees)
    places = far + np.rint(along * math.sin(turn)).astype(int), far + np.rint(along * math.cos(turn)).astype(int)
    np.add.at(kernel, places, weights)
    return kernel / kernel.sum()


def enlarged(coarse: np.ndarray, high: int, wide: int) -> np.ndarray:
    picture = Image.fromarray(np.ascontiguousarray(coarse, np.float32))
    return np.asarray(picture.resize((wide, high), Image.Resampling.BICUBIC))


def clouds(rng: np.random.Generator, shape: tuple[int, ...], decay: float) -> np.ndarray:
    """(H, W) fractal noise, 0..1: each octave is twice as fine and weaker by `decay`."""
    total = np.zeros(shape, np.float32)
    for octave in range(1, max(2, math.ceil(math.log2(max(shape)))) + 1):
        coarse = rng.uniform(-1, 1, (2**octave + 1, 2**octave + 1))
        total += enlarged(coarse, *shape) / decay**octave
    return (total - total.min()) / max(1e-6, float(np.ptp(total)))


def waves(scene: Scene, wave: float, high: int, wide: int) -> np.ndarray:
    """(H, W) noise of standard deviation 1 about as coarse as `wave` pixels."""
    size = max(1.0, 1.5 * wave)
    field = enlarged(scene.normal(math.ceil(high / size) + 1, math.ceil(wide / size) + 1), high, wide)
    return field / max(1e-6, float(field.std()))


Spoil = Callable[[Scene, Any], np.ndarray]
STANDARD: dict[str, tuple[Spoil, Sequence[Any]]] = {
    "gaussian_noise": (gaussian_noise, (0.08, 0.12, 0.18, 0.26, 0.38)),
    "shot_noise": (shot_noise, (60, 25, 12, 5, 3)),
    "impulse_noise": (impulse_noise, (0.03, 0.06, 0.09, 0.17, 0.27)),
    "defocus_blur": (defocus_blur, ((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5))),
    "glass_blur": (glass_blur, ((0.7, 1, 2), (0.9, 2, 1), (1, 2, 3), (1.1, 3, 2), (1.5, 4, 2))),
    "motion_blur": (motion_blur, ((10, 3), (15, 5), (15, 8), (15, 12), (20, 15))),
    "zoom_blur": (zoom_blur, ((1.11, 0.01), (1.16, 0.01), (1.21, 0.02), (1.26, 0.02), (1.31, 0.03))),
    "snow": (snow, ((0.1, 0.3, 3, 0.5, 10, 4, 0.8), (0.2, 0.3, 2, 0.5, 12, 4, 0.7), (0.55, 0.3, 4, 0.9, 12, 8, 0.7),
                    (0.55, 0.3, 4.5, 0.85, 12, 8, 0.65), (0.55, 0.3, 2.5, 0.85, 12, 12, 0.55))),
    "frost": (frost, ((1, 0.4), (0.8, 0.6), (0.7, 0.7), (0.65, 0.7), (0.6, 0.75))),
    "fog": (fog, ((1.5, 2), (2, 2), (2.5, 1.7), (2.5, 1.5), (3, 1.4))),
    "brightness": (brightness, (0.1, 0.2, 0.3, 0.4, 0.5)),
    "contrast": (contrast, (0.4, 0.3, 0.2, 0.1, 0.05)),
    "elastic_transform": (elastic_transform, ((0, 1, 24.4), (4.1, 19.5, 48.8), (0.8, 2.4, 4.9), (1.15, 2.4, 4.9),
                                              (1.95, 2.4, 4.9))),
    "pixelate": (pixelate, (0.6, 0.5, 0.4, 0.3, 0.25)),
    "jpeg_compression": (jpeg_compression, (25, 18, 15, 10, 7)),
}
EXTRA: dict[str, tuple[Spoil, Sequence[Any]]] = {
    "speckle_noise": (speckle_noise, (0.15, 0.2, 0.35, 0.45, 0.6)),
    "gaussian_blur": (gaussian_blur, (1, 2, 3, 4, 6)),
    "spatter": (spatter, ((0.65, 0.3, 4, 0.69, 0.6, False), (0.65, 0.3, 3, 0.68, 0.6, False),
                          (0.65, 0.3, 2, 0.68, 0.5, False), (0.65, 0.3, 1, 0.65, 1.5, True),
                          (0.67, 0.4, 1, 0.65, 1.5, True))),
    "saturate": (saturate, ((0.3, 0), (0.1, 0), (2, 0), (5, 0.1), (20, 0.2))),
}
CORRUPTIONS = STANDARD | EXTRA
