"""Pictures for tests, made on the spot."""

import io
import struct
import zlib

import numpy as np
from PIL import Image


def picture(seed=0, size=(48, 64)):
    """A smooth random RGB picture (H, W): something that survives JPEG and that no other seed resembles."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 255, (6, 8, 3), dtype=np.uint8))
    return small.resize(size[::-1], Image.Resampling.BICUBIC)


def saved(image, kind="JPEG", **said):
    file = io.BytesIO()
    image.save(file, kind, **said)
    return file.getvalue()


def photo(seed=0, size=(48, 64), **said):
    return saved(picture(seed, size), "JPEG", **{"quality": 92, **said})


def png_chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width, height, pixels=b"", *extra, colour=2, depth=8):
    """A PNG by hand, whatever its header claims."""
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(extra) + png_chunk(b"IDAT", pixels) + png_chunk(b"IEND", b"")


def class_folders(root, **counts):
    """`class_folders(root, train__ant=3, bee=2)` writes root/train/ant/0.jpg and so on; every picture is another."""
    seed = 0
    for place, count in counts.items():
        folder = root.joinpath(*place.split("__"))
        folder.mkdir(parents=True)
        for i in range(count):
            (folder / f"{i}.jpg").write_bytes(photo(seed))
            seed += 1
    return root
