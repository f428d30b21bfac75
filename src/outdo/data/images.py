"""The one image decoder: training, prediction and serving all see the same pixels.

Images come from strangers. Only formats on a list are opened, by their first bytes and whatever the file is called;
size is read from the header and capped before a single pixel is decoded; a damaged file is refused, not guessed at.
"""

from __future__ import annotations

import contextlib
import io
import warnings
from typing import Literal

import numpy as np
from PIL import (
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    ImageFile,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

VERSION = 1  # of the pixels that `decode` gives; cached pixels of another version are not used
CENTRE = 7 / 8  # of the shorter side is what "crop" keeps
MAX_PIXELS = 100_000_000
MAX_SIDE = 65_500  # what a JPEG can hold
MAX_BYTES = 256 << 20
MAX_SCANNED = 2_000_000_000  # pixels times scans of a JPEG: each scan passes over all pixels and may be a few bytes

# What Pillow warns of (odd EXIF, a tag too long) is no news to users: an image is read or refused
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")

Fit = Literal["squash", "crop"]

# A format's plug-in is called directly: Image.open would try others, warn, and apply a limit that is a global
_OPENERS: tuple[tuple[bytes, type[ImageFile.ImageFile]], ...] = (
    (b"\xff\xd8\xff", JpegImagePlugin.JpegImageFile),
    (b"\x89PNG\r\n\x1a\n", PngImagePlugin.PngImageFile),
    (b"RIFF", WebPImagePlugin.WebPImageFile),
    (b"GIF87a", GifImagePlugin.GifImageFile),
    (b"GIF89a", GifImagePlugin.GifImageFile),
    (b"BM", BmpImagePlugin.BmpImageFile),
    (b"II*\0", TiffImagePlugin.TiffImageFile),
    (b"MM\0*", TiffImagePlugin.TiffImageFile),
)
_STRANGERS = ((b"%!PS", "EPS"), (b"\xc5\xd0\xd3\xc6", "EPS"), (b"8BPS", "PSD"), (b"%PDF", "PDF"), (b"PK", "a zip"),
              (b"<", "SVG, XML or HTML"), (b"\0\0\0\x0cjP", "JPEG 2000"), (b"\x1f\x8b", "gzip"))
READABLE = "JPEG, PNG, WebP, GIF, BMP and TIFF"

_UPRIGHT = {2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
            5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE,
            8: Image.Transpose.ROTATE_90}  # EXIF orientation -> what undoes it
_ORIENTATION = 0x0112


class RefusedImage(Exception):
    """The bytes are not an image that outdo reads. Its text is the reason, in words for the user."""


def decode(data: bytes, size: tuple[int, int] | None, fit: Fit = "squash") -> np.ndarray:
    """The image as (H, W, 3) uint8, upright, its transparent parts on white.

    `size` is (H, W), None for the image's own. `fit` "squash" brings all of the image to it, "crop" a centred part of
    the right shape: 7/8 of the largest, as ImageNet models are evaluated. Raises RefusedImage.
    """
    with refusing():
        return fitted(upright(data, size), size, fit)


def dimensions(data: bytes) -> tuple[int, int]:
    """(width, height) as the header has them, before any pixel is decoded. Raises RefusedImage."""
    with refusing():
        return _open(data).size


def looks_like_image(head: bytes) -> bool:
    """Whether a file that begins so (12 bytes suffice) is of a format that `decode` tries."""
    return _opener(head) is not None


@contextlib.contextmanager
def refusing():
    """Whatever a decoder raises on hostile bytes becomes RefusedImage."""
    try:
        yield
    except RefusedImage:
        raise
    except MemoryError:
        raise RefusedImage("needs too much memory to decode") from None
    except Exception as error:  # decoders meet hostile bytes with almost any exception (KeyError, struct.error, ...)
        words = " ".join(str(error).split())[:80] or type(error).__name__
        raise RefusedImage(f"damaged or truncated ({words})") from None


def upright(data: bytes, size: tuple[int, int] | None) -> Image.Image:
    """The decoded RGB image, turned upright. With a `size` much smaller than the image a JPEG is decoded at 1/2, 1/4
    or 1/8 of its scale (never below twice `size`): several times faster, and the resize that follows hides it."""
    image: Image.Image = _open(data)
    if size is not None:
        image.draft(None, (2 * max(size), 2 * max(size)))
    image.load()
    image = _reduced(image, size)
    turn = _UPRIGHT.get(_orientation(image))
    rgb = _rgb(image)
    return rgb if turn is None else rgb.transpose(turn)


def fitted(image: Image.Image, size: tuple[int, int] | None, fit: Fit) -> np.ndarray:
    """(H, W, 3) uint8 of exactly `size`, by antialiased bicubic resampling."""
    if size is None or (fit == "squash" and (image.height, image.width) == tuple(size)):
        return np.array(image)
    high, wide = size
    box = (0.0, 0.0, float(image.width), float(image.height))
    if fit == "crop":
        scale = CENTRE * min(image.height / high, image.width / wide)
        left, top = (image.width - wide * scale) / 2, (image.height - high * scale) / 2
        box = (left, top, left + wide * scale, top + high * scale)
    return np.array(image.resize((wide, high), Image.Resampling.BICUBIC, box=box, reducing_gap=3.0))


def grey(image: Image.Image, side: int = 32) -> np.ndarray:
    """(side, side) uint8: the image's luminance, squashed, for perceptual hashes."""
    small = image.resize((side, side), Image.Resampling.BOX, reducing_gap=1.5)
    return np.array(small.convert("L"))


def _reduced(image: Image.Image, size: tuple[int, int] | None) -> Image.Image:
    """An image many times larger than `size` by a whole factor smaller, before colours are converted: each conversion
    is a copy."""
    factor = 1 if size is None else min(image.size) // (3 * max(size))
    plain = image.mode in ("L", "RGB", "LA", "RGBA", "CMYK", "I", "F") and "transparency" not in image.info
    return image.reduce(factor) if factor > 1 and plain else image


def _opener(head: bytes) -> type[ImageFile.ImageFile] | None:
    for magic, opener in _OPENERS:
        if head.startswith(magic) and (magic != b"RIFF" or head[8:12] == b"WEBP"):
            return opener
    return None


def _open(data: bytes) -> ImageFile.ImageFile:
    """The image with its header read and its size within the caps, no pixel decoded."""
    if not data:
        raise RefusedImage("an empty file")
    if len(data) > MAX_BYTES:
        raise RefusedImage(f"{len(data) >> 20} MB, more than the {MAX_BYTES >> 20} MB that one image may have")
    opener = _opener(data[:16])
    if opener is None:
        known = next((f" (it looks like {name})" for magic, name in _STRANGERS if data.lstrip().startswith(magic)), "")
        raise RefusedImage(f"not an image that outdo reads{known}: {READABLE}")
    if opener is WebPImagePlugin.WebPImageFile:
        _check_size(*_webp_size(data))  # older Pillows allocate the canvas on opening
    image = opener(io.BytesIO(data), "")
    _check_size(*image.size)
    if opener is JpegImagePlugin.JpegImageFile and data.count(b"\xff\xda") * image.width * image.height > MAX_SCANNED:
        raise RefusedImage("a JPEG of so many scans that decoding it would take minutes")
    return image


def _check_size(wide: int, high: int) -> None:
    if wide < 1 or high < 1:
        raise RefusedImage(f"an image of {wide} x {high} pixels")
    if wide * high > MAX_PIXELS or max(wide, high) > MAX_SIDE:
        raise RefusedImage(f"{wide} x {high} pixels, more than the {MAX_PIXELS // 1_000_000} megapixels (at most "
                           f"{MAX_SIDE} a side) that one image may have")


def _webp_size(data: bytes) -> tuple[int, int]:
    """(width, height) of the canvas, from the first chunk (RFC 9649)."""
    def little(start: int, count: int) -> int:
        return int.from_bytes(data[start : start + count], "little")

    if data[12:16] == b"VP8X":
        return little(24, 3) + 1, little(27, 3) + 1
    if data[12:16] == b"VP8L":
        return (little(21, 4) & 0x3FFF) + 1, (little(21, 4) >> 14 & 0x3FFF) + 1
    return little(26, 2) & 0x3FFF, little(28, 2) & 0x3FFF


def _orientation(image: Image.Image) -> int:
    """EXIF orientation, 1 (upright) where there is none or the EXIF block is damaged: the pixels are still good."""
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # as with pixels, a hostile block raises anything
        return 1


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode.startswith("I") or image.mode == "F":
        return _deep_grey(image)
    if "transparency" in image.info or image.mode in ("RGBA", "LA", "PA", "RGBa", "La"):
        over = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", over.size, "white"), over).convert("RGB")
    return image.convert("RGB")


def _deep_grey(image: Image.Image) -> Image.Image:
    """More than 8 bits a pixel: 16-bit values keep their scale; wider ones, which have none, are stretched.

    Pillow's own conversion clips at 255 and would turn an X-ray white.
    """
    values = np.asarray(image)
    if image.mode.startswith("I;16") or (image.mode == "I" and values.min() >= 0 and 255 < values.max() <= 65535):
        return Image.fromarray((values >> 8).astype(np.uint8)).convert("RGB")
    finite = values[np.isfinite(values)].astype(np.float32)
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
    scaled = np.nan_to_num((values.astype(np.float32) - low) / max(high - low, 1e-12), nan=0.0, posinf=1.0, neginf=0.0)
    return Image.fromarray(np.rint(scaled * 255).astype(np.uint8)).convert("RGB")
