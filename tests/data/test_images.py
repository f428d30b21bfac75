"""The one decoder: the same pixels for everyone, and nothing that hostile bytes can do to it."""

import contextlib
import io
import os
import struct
import subprocess
import sys
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms

from outdo.data import images
from outdo.data.images import RefusedImage, decode
from outdo.data.inputs import File
from pictures import photo, picture, png, png_chunk, saved


def pixels(image):
    return np.asarray(image.convert("RGB")).astype(int)


def far(a, b):
    return np.abs(a.astype(int) - b.astype(int)).mean()


# ── what is read ─────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("kind", "said"), [("PNG", {}), ("BMP", {}), ("TIFF", {}), ("WEBP", {"lossless": True}),
                                            ("TIFF", {"compression": "tiff_lzw"})])
def test_lossless_formats_come_back_whole(kind, said):
    image = picture()
    assert (decode(saved(image, kind, **said), None) == pixels(image)).all()


@pytest.mark.parametrize("kind", ["JPEG", "GIF", "WEBP"])
def test_lossy_formats_come_back_alike(kind):
    assert far(decode(saved(picture(), kind), None), pixels(picture())) < 12


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_orientation_is_applied(orientation, kind):
    """The camera's eight ways to hold it: undone by numpy here, by Pillow there."""
    upright = pixels(picture(size=(40, 64)))
    stored = {1: upright, 2: upright[:, ::-1], 3: upright[::-1, ::-1], 4: upright[::-1], 5: upright.transpose(1, 0, 2),
              6: np.rot90(upright), 7: np.rot90(upright, 2).transpose(1, 0, 2), 8: np.rot90(upright, -1)}[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    lossless = {"JPEG": {"quality": 98, "subsampling": 0}, "WEBP": {"lossless": True}}.get(kind, {})
    data = saved(Image.fromarray(np.ascontiguousarray(stored).astype(np.uint8)), kind, exif=exif, **lossless)
    assert far(decode(data, None), upright) < 3


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_damaged_exif_costs_the_orientation_and_not_the_image():
    data = saved(picture(), "JPEG", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff\xff\xff")
    assert decode(data, None).shape == (48, 64, 3)


@pytest.mark.parametrize("mode", ["1", "L", "P", "CMYK", "YCbCr", "LAB", "RGBX"])
def test_modes_become_rgb(mode):
    kind = "TIFF" if mode in ("CMYK", "YCbCr", "LAB", "RGBX") else "PNG"
    profiles = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
    lab = ImageCms.profileToProfile(picture(), *profiles, outputMode="LAB")
    assert decode(saved(lab if mode == "LAB" else picture().convert(mode), kind), None).shape == (48, 64, 3)


def test_cmyk_photograph_keeps_its_colours():
    assert far(decode(saved(picture().convert("CMYK"), "JPEG", quality=95), None), pixels(picture())) < 6


def transparent(mode):
    """Left half black and invisible, right half black and solid."""
    image = Image.new("RGBA", (8, 8), (0, 0, 0, 0))
    image.paste((0, 0, 0, 255), (4, 0, 8, 8))
    return image.convert(mode)


@pytest.mark.parametrize(("mode", "kind"), [("RGBA", "PNG"), ("LA", "PNG"), ("RGBA", "WEBP"), ("RGBA", "GIF"),
                                            ("RGBA", "TIFF")])
def test_what_is_transparent_is_white(mode, kind):
    said = {"lossless": True, "exact": True} if kind == "WEBP" else {}
    got = decode(saved(transparent(mode), kind, **said), None)
    assert (got[:, :4] == 255).all()
    assert (got[:, 4:] == 0).all()


def test_a_palette_with_a_transparent_colour_and_a_colour_key():
    palette = Image.fromarray(np.repeat(np.array([[0, 1]], np.uint8), 4, 0).repeat(4, 1), "P")
    palette.putpalette([10, 20, 30, 40, 50, 60])
    got = decode(saved(palette, "PNG", transparency=0), None)
    assert (got[0, 0] == 255).all()
    assert got[0, 7].tolist() == [40, 50, 60]
    keyed = Image.new("RGB", (4, 4), (1, 2, 3))
    assert (decode(saved(keyed, "PNG", transparency=(1, 2, 3)), None) == 255).all()


@pytest.mark.parametrize(("kind", "mode"), [("PNG", "I;16"), ("TIFF", "I;16"), ("TIFF", "I;16B")])
def test_sixteen_bits_keep_their_scale(kind, mode):
    values = np.linspace(0, 65535, 64, dtype=np.uint16).reshape(8, 8)
    stored = values.astype(">u2" if mode == "I;16B" else "<u2")
    got = decode(saved(Image.frombytes(mode, (8, 8), stored.tobytes()), kind), None)
    assert np.abs(got[..., 0] - values / 257).max() <= 1.01
    dark = Image.frombytes("I;16", (8, 8), (values // 64).astype("<u2").tobytes())
    assert decode(saved(dark, "PNG"), None).max() <= 4, "a dark image is not stretched"


def test_floats_are_stretched_and_survive_not_a_number():
    values = np.linspace(-2, 5, 64, dtype=np.float32).reshape(8, 8)
    values[0, 0] = np.nan
    got = decode(saved(Image.fromarray(values), "TIFF"), None)
    assert got[0, 0].tolist() == [0, 0, 0]
    assert got[-1, -1].tolist() == [255, 255, 255]
    assert got[0, 1, 0] == 0


def test_an_animation_gives_its_first_frame():
    frames = [Image.new("RGB", (8, 8), c) for c in ("red", "blue")]
    for kind, said in (("GIF", {}), ("WEBP", {"lossless": True}), ("PNG", {})):
        data = saved(frames[0], kind, save_all=True, append_images=frames[1:], **said)
        assert decode(data, None)[0, 0].tolist() == [255, 0, 0], kind


def test_a_phone_with_two_pictures_in_one_file():
    data = saved(picture(), "MPO", save_all=True, append_images=[picture(1)])
    assert far(decode(data, None), pixels(picture())) < 12


# ── size and fit ─────────────────────────────────────────────────────────────────────────────────────────────────────


@given(st.integers(1, 70), st.integers(1, 70), st.integers(1, 40), st.integers(1, 40),
       st.sampled_from(["squash", "crop"]), st.sampled_from(["JPEG", "PNG"]))
@settings(max_examples=60)
@example(1, 1, 32, 32, "crop", "PNG")
@example(1, 70, 32, 8, "crop", "JPEG")
def test_any_size_comes_out_as_asked(high, wide, to_high, to_wide, fit, kind):
    got = decode(saved(picture(3, (high, wide)), kind), (to_high, to_wide), fit)
    assert got.shape == (to_high, to_wide, 3)
    assert got.dtype == np.uint8


def test_squash_keeps_all_and_crop_keeps_the_shape():
    image = Image.new("RGB", (90, 30), "red")
    image.paste("blue", (30, 0, 60, 30))
    squashed, cropped = (decode(saved(image, "PNG"), (30, 30), fit) for fit in ("squash", "crop"))
    assert squashed[15, 2].tolist() == [255, 0, 0]
    assert (cropped == [0, 0, 255]).all()


def test_the_size_it_has_already_is_left_alone():
    assert (decode(saved(picture(), "PNG"), (48, 64)) == pixels(picture())).all()


def test_a_large_photograph_is_decoded_small_and_looks_the_same():
    """JPEG scaling and reducing are shortcuts; the plain way is the reference."""
    big = picture(5, (900, 1200))
    reference = pixels(big.resize((64, 64), Image.Resampling.BICUBIC))
    for kind in ("JPEG", "PNG"):
        assert far(decode(saved(big, kind), (64, 64)), reference) < 1.5, kind
    assert images.upright(saved(big, "JPEG"), (64, 64)).width < 400
    assert images.upright(saved(big, "PNG"), (64, 64)).width < 400


def test_a_thin_line_does_not_alias():
    lines = Image.fromarray((np.arange(400)[None] % 2 * 255).astype(np.uint8).repeat(400, 0))
    got = decode(saved(lines, "PNG"), (64, 64))
    assert np.abs(got.astype(int) - 127).max() < 12


def test_threads_agree():
    data = [photo(seed) for seed in range(24)]
    alone = [decode(d, (32, 32)) for d in data]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda d: decode(d, (32, 32)), data * 4))
    assert all((a == b).all() for a, b in zip(alone * 4, together, strict=True))


# ── what is refused ──────────────────────────────────────────────────────────────────────────────────────────────────

NOT_IMAGES = {
    "empty": (b"", "empty"),
    "eps": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "EPS"),
    "psd": (b"8BPS\0\1" + bytes(60), "PSD"),
    "svg": (b'<svg xmlns="http://www.w3.org/2000/svg"/>', "SVG"),
    "svg after blanks": (b'\n  <?xml version="1.0"?><svg/>', "SVG"),
    "html": (b"<!doctype html>404 not found", "HTML"),
    "zip": (b"PK\3\4" + bytes(60), "zip"),
    "pdf": (b"%PDF-1.7", "PDF"),
    "text": (b"hello", "not an image"),
    "wave": (b"RIFF\0\0\0\0WAVEfmt ", "not an image"),
    "ppm": (b"P6 4 4 255\n" + bytes(48), "not an image"),
    "icon": (saved(Image.new("RGB", (16, 16)), "ICO"), "not an image"),
    "tga": (saved(Image.new("RGB", (16, 16)), "TGA"), "not an image"),
}


@pytest.mark.parametrize("name", NOT_IMAGES)
def test_other_formats_are_refused_by_their_bytes(name):
    data, word = NOT_IMAGES[name]
    with pytest.raises(RefusedImage, match=word):
        decode(data, (32, 32))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF"])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.95])
def test_truncated_files_are_refused(kind, share):
    data = saved(picture(1, (200, 200)), kind)
    with pytest.raises(RefusedImage, match=r"truncated|damaged"):
        decode(data[: int(len(data) * share)], (32, 32))


def progressive_with_scans(count):
    """A tiny progressive JPEG that claims 9000 x 9000 pixels and goes over them many times."""
    data = saved(Image.new("L", (16, 16), 128), "JPEG", progressive=True)
    size = data.index(b"\xff\xc2") + 5
    data = data[:size] + struct.pack(">HH", 9000, 9000) + data[size + 4 :]
    scan = data[data.rindex(b"\xff\xda") : -2]
    return data[:-2] + scan * count + b"\xff\xd9"


BOMBS = {
    "png that claims 50,000 x 50,000": png(50_000, 50_000, zlib.compress(bytes(100))),
    "png that claims 2 billion pixels a side": png(2**31 - 1, 2**31 - 1, zlib.compress(bytes(100))),
    "png of no width": png(0, 10, zlib.compress(b"")),
    "png of 20,000 x 20,000 real pixels": png(20_000, 20_000, zlib.compress(bytes(20_000 * 2501)), colour=0, depth=1),
    "png with a text of 400 MB": png(8, 8, zlib.compress(bytes(200)),
                                     *[png_chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(20 << 20)))] * 20),
    "png with a colour profile of 30 MB": png(4, 4, zlib.compress(bytes(52)),
                                              png_chunk(b"iCCP", b"a\0\0" + zlib.compress(bytes(30 << 20)))),
    "jpeg that claims 65,000 x 65,000": saved(Image.new("L", (16, 16)), "JPEG").replace(
        struct.pack(">HH", 16, 16), struct.pack(">HH", 65_000, 65_000)),
    "jpeg of hundreds of scans": progressive_with_scans(300),
    "gif that claims 65,535 x 65,535": b"GIF89a" + struct.pack("<HH", 65_535, 65_535) + saved(
        Image.new("P", (4, 4)), "GIF")[10:],
    "bmp that claims 40,000 x 40,000": saved(Image.new("RGB", (4, 4)), "BMP").replace(
        struct.pack("<ii", 4, 4), struct.pack("<ii", 40_000, 40_000)),
    "webp that claims 16,384 x 16,384": b"RIFF" + struct.pack("<I", 22) + b"WEBPVP8X" + struct.pack("<I", 10)
    + bytes(4) + b"\xff\x3f\0\xff\x3f\0",
    "tiff that claims 60,000 x 60,000": saved(Image.new("L", (300, 300)), "TIFF").replace(
        struct.pack("<HHII", 256, 4, 1, 300), struct.pack("<HHII", 256, 4, 1, 60_000)).replace(
        struct.pack("<HHII", 257, 4, 1, 300), struct.pack("<HHII", 257, 4, 1, 60_000)),
    "a line of 90,000 pixels": png(90_000, 1, zlib.compress(bytes(270_001))),
}


def test_bombs_are_refused_in_seconds_and_without_the_memory(tmp_path):
    """In a process of its own, where memory can be measured, and capped in case this test fails."""
    for i, data in enumerate(BOMBS.values()):
        (tmp_path / f"{i}.jpg").write_bytes(data)
    script = """if True:
        import resource, sys, time, warnings
        from pathlib import Path
        from outdo.data.images import RefusedImage, decode
        warnings.simplefilter("error")
        resource.setrlimit(resource.RLIMIT_AS, (3 << 30, 3 << 30))
        peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        before, start = peak(), time.process_time()
        for i in range(int(sys.argv[2])):
            try:
                decode(Path(sys.argv[1], f"{i}.jpg").read_bytes(), (32, 32))
                print("ACCEPTED", i)
            except RefusedImage:
                pass
        print((peak() - before) >> 10, time.process_time() - start)
    """
    run = subprocess.run([sys.executable, "-c", script, tmp_path, str(len(BOMBS))], capture_output=True, text=True,
                         timeout=60, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=True)
    assert "ACCEPTED" not in run.stdout, (run.stdout, list(BOMBS))
    grown, seconds = run.stdout.split()
    assert int(grown) < 100, f"{grown} MB"
    assert float(seconds) < 5


@pytest.mark.parametrize("said", [{"lossless": True}, {"lossless": False}, {"exif": b"MM\0*\0\0\0\10\0\0"}])
def test_the_size_of_a_webp_is_known_before_its_decoder_sees_it(said, monkeypatch):
    """The decoder allocates its canvas on opening; here it would only find the file damaged."""
    data = saved(picture(size=(48, 64)), "WEBP", **said)
    monkeypatch.setattr(images, "MAX_PIXELS", 100)
    with pytest.raises(RefusedImage, match="64 x 48 pixels, more than"):
        decode(data[:40], None)


def test_the_caps_are_ours_and_not_a_global(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert decode(photo(), None).shape == (48, 64, 3)
    monkeypatch.setattr(images, "MAX_PIXELS", 100)
    with pytest.raises(RefusedImage, match="48 pixels, more than"):
        decode(photo(), None)
    monkeypatch.setattr(images, "MAX_BYTES", 10)
    with pytest.raises(RefusedImage, match="MB"):
        decode(photo(), None)


def test_polyglots_are_what_their_first_bytes_say():
    archive = io.BytesIO()
    assert decode(photo() + b"PK\5\6" + bytes(18) + archive.getvalue(), None).shape == (48, 64, 3)
    with pytest.raises(RefusedImage):
        decode(b"%PDF-1.4\n" + photo(), None)


@pytest.mark.filterwarnings("ignore::UserWarning")
@given(st.binary(max_size=300), st.sampled_from(["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"]), st.integers(0, 400))
@settings(max_examples=150)
def test_bytes_overwritten_anywhere_never_raise_anything_else(noise, kind, where):
    data = bytearray(saved(picture(2, (20, 20)), kind))
    data[where : where + len(noise)] = noise
    with contextlib.suppress(RefusedImage):
        assert decode(bytes(data), (16, 16)).shape == (16, 16, 3)


def test_folders_pipes_and_missing_files_are_os_errors(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    for path in (tmp_path, tmp_path / "pipe.jpg", tmp_path / "none.jpg", "/dev/zero"):
        with pytest.raises(OSError, match=r"."):
            File(str(path)).read()


def test_a_file_that_is_too_large_is_not_read(tmp_path):
    with open(tmp_path / "huge.jpg", "wb") as file:
        file.truncate(images.MAX_BYTES + 1)
    with pytest.raises(OSError, match="MB"):
        File(str(tmp_path / "huge.jpg")).read()
