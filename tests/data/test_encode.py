"""Inputs become rows once: what is stored, what is reused, and what is never read again."""

import hashlib
import os
import shutil
import weakref

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageEnhance

from outdo.data import encode, images
from outdo.data.copies import DISTANCE
from outdo.data.encode import encode_images, encode_texts, perceptual_hash, take, text_hash
from outdo.data.inputs import Items, files, texts
from pictures import photo, picture, saved


class Counting(Items):
    """Items that count how often they are read."""

    def __init__(self, items):
        super().__init__("image", items)
        self.reads = 0

    def read(self, index):
        self.reads += 1
        return super().read(index)


def written(folder, *data):
    folder.mkdir(exist_ok=True)
    for i, content in enumerate(data):
        (folder / f"{i}.jpg").write_bytes(content)
    return Counting(files([folder / f"{i}.jpg" for i in range(len(data))]).items)


def everything(encoded):
    return encoded.rows[np.arange(len(encoded))]


@pytest.fixture
def mixed(tmp_path):
    """Three sizes, a broken file, and one that is missing."""
    inputs = written(tmp_path / "in", photo(0, (90, 120)), photo(1, (50, 60)), b"no image", photo(2, (120, 90)), b"")
    os.remove(tmp_path / "in" / "4.jpg")
    return inputs


def test_rows_are_what_the_decoder_gives(mixed, tmp_path):
    encoded, store = encode_images(mixed, size=40, fit="squash", cache=tmp_path / "cache")
    assert store == (40, 40)
    rows = everything(encoded)
    assert rows.shape == encoded.rows.shape == (5, 40, 40, 3)
    for i in (0, 1, 3):
        assert (rows[i] == images.decode(mixed.read(i), (40, 40), "squash")).all()
        assert encoded.digests[i] == hashlib.sha256(mixed.read(i)).hexdigest()
    assert list(encoded.problems) == [2, 4]
    assert "not an image" in encoded.problems[2]
    assert "No such file" in encoded.problems[4]
    assert not rows[[2, 4]].any()
    assert [encoded.digests[i] for i in (2, 4)] == ["", ""]


@pytest.mark.parametrize("native", [True, False])
def test_a_second_time_nothing_is_read(native, tmp_path):
    sizes = [(30, 20)] * 9 if native else [(30, 20), (20, 30), (25, 25)] * 3
    inputs = written(tmp_path / "in", *[photo(i, size) for i, size in enumerate(sizes)], b"broken")
    first, store = encode_images(inputs, size=32, fit="squash", cache=tmp_path / "cache")
    assert store == ((30, 20) if native else (32, 32))
    inputs.reads = 0
    second, again = encode_images(inputs, size=32, fit="squash", cache=tmp_path / "cache")
    assert inputs.reads == 0
    assert again == store
    assert (everything(first) == everything(second)).all()
    assert (first.digests, first.problems) == (second.digests, second.problems)
    assert (first.hashes == second.hashes).all()
    assert (first.thumbs == second.thumbs).all()


def test_a_changed_file_is_read_again_and_only_it(tmp_path):
    inputs = written(tmp_path / "in", *[photo(i) for i in range(5)])
    before, _ = encode_images(inputs, size=32, fit="squash", cache=tmp_path / "cache")
    (tmp_path / "in" / "3.jpg").write_bytes(photo(77))
    inputs.reads = 0
    after, _ = encode_images(inputs, size=32, fit="squash", cache=tmp_path / "cache")
    assert inputs.reads == 1
    assert [a == b for a, b in zip(before.digests, after.digests, strict=True)] == [True, True, True, False, True]


def test_a_file_that_could_not_be_read_is_tried_again(mixed, tmp_path):
    encode_images(mixed, size=40, fit="squash", cache=tmp_path / "cache")
    (tmp_path / "in" / "4.jpg").write_bytes(photo(4))
    encoded, _ = encode_images(mixed, size=40, fit="squash", cache=tmp_path / "cache")
    assert list(encoded.problems) == [2]


def test_a_file_that_is_there_but_cannot_be_read_is_tried_again(tmp_path):
    class Locked(Counting):
        locked = True

        def read(self, index):
            if self.locked and index == 1:
                raise PermissionError(13, "Permission denied")
            return super().read(index)

    inputs = Locked(written(tmp_path / "in", photo(0), photo(1)).items)
    encoded, _ = encode_images(inputs, size=32, fit="squash", cache=tmp_path / "cache")
    assert encoded.problems == {1: "cannot be read (Permission denied)"}
    inputs.locked = False
    encoded, _ = encode_images(inputs, size=32, fit="squash", cache=tmp_path / "cache")
    assert encoded.problems == {}


@pytest.mark.parametrize(("sizes", "size", "fit", "store"), [
    ([(32, 32)] * 3, 224, "squash", (32, 32)),  # small images stay small
    ([(32, 32)] * 3, 32, "squash", (32, 32)),
    ([(33, 33)] * 3, 32, "squash", (32, 32)),  # too large
    ([(20, 30)] * 3, 32, "squash", (20, 30)),
    ([(20, 30)] * 3, 32, "crop", (32, 32)),  # the network cannot crop
    ([(32, 32)] * 300 + [(31, 32)], 64, "squash", (64, 64)),  # a guess that fails late
])
def test_the_size_of_rows(sizes, size, fit, store, tmp_path):
    inputs = written(tmp_path / "in", *[photo(i % 3, s) for i, s in enumerate(sizes)])
    encoded, chosen = encode_images(inputs, size=size, fit=fit, cache=tmp_path / "cache")
    assert chosen == store
    assert encoded.rows.shape == (len(sizes), *store, 3)
    fresh, without = encode_images(inputs, size=size, fit=fit, cache=None)
    assert without == store
    assert (everything(fresh) == everything(encoded)).all()


def test_the_cache_does_not_decide_the_size(tmp_path):
    """Images of one size among others that are known already still keep their own size."""
    alike = written(tmp_path / "a", *[photo(i, (32, 32)) for i in range(3)])
    other = written(tmp_path / "b", photo(9, (40, 50)))
    both = Counting([*alike.items, *other.items])
    assert encode_images(both, size=48, fit="squash", cache=tmp_path / "cache")[1] == (48, 48)
    assert encode_images(alike, size=48, fit="squash", cache=tmp_path / "cache")[1] == (32, 32)


def test_a_trained_model_says_the_size(tmp_path):
    inputs = written(tmp_path / "in", photo(0, (90, 120)))
    encoded, store = encode_images(inputs, size=224, fit="squash", cache=None, store=(32, 32))
    assert store == (32, 32)
    assert (everything(encoded)[0] == images.decode(inputs.read(0), (32, 32))).all()


def test_nothing_that_can_be_read(tmp_path):
    inputs = written(tmp_path / "in", b"a", b"b")
    encoded, store = encode_images(inputs, size=32, fit="squash", cache=tmp_path / "cache")
    assert store == (32, 32)
    assert len(encoded.problems) == 2
    assert everything(encoded).shape == (2, 32, 32, 3)


def test_without_a_cache_nothing_stays_behind(tmp_path, monkeypatch):
    monkeypatch.setattr(encode.tempfile, "tempdir", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    encoded, _ = encode_images(written(tmp_path / "in", photo()), size=32, fit="squash", cache=None)
    assert list((tmp_path / "tmp").iterdir()) == []
    assert everything(encoded).any(), "the rows outlive their folder"


def test_progress_ends_at_the_end(tmp_path):
    told = []
    inputs = written(tmp_path / "in", *[photo(i % 5) for i in range(300)])
    for _ in range(2):
        encode_images(inputs, size=32, fit="squash", cache=tmp_path / "cache", progress=lambda *said: told.append(said))
    assert told == [("reading images", 256, 300), ("reading images", 300, 300)]


def test_an_evicted_cache_is_filled_again(tmp_path):
    inputs = written(tmp_path / "in", photo(0), photo(1), b"broken")
    first, _ = encode_images(inputs, size=32, fit="squash", cache=tmp_path / "cache")
    for store in [path.parent for path in (tmp_path / "cache").rglob("rows.bin")]:
        shutil.rmtree(store, ignore_errors=True)
        again, _ = encode_images(inputs, size=32, fit="squash", cache=tmp_path / "cache")
        assert (everything(again) == everything(first)).all()
        assert (again.digests, again.problems) == (first.digests, first.problems)


def test_other_decoders_do_not_share_pixels(tmp_path, monkeypatch):
    inputs = written(tmp_path / "in", photo())
    encode_images(inputs, size=32, fit="squash", cache=tmp_path / "cache")
    monkeypatch.setattr(images, "VERSION", 99)
    inputs.reads = 0
    encode_images(inputs, size=32, fit="squash", cache=tmp_path / "cache")
    assert inputs.reads > 0


def test_taking_some(mixed, tmp_path):
    encoded, _ = encode_images(mixed, size=40, fit="squash", cache=tmp_path / "cache")
    some = take(encoded, np.array([3, 2, 0]))
    assert (some.rows[np.array([0, 2])] == encoded.rows[np.array([3, 0])]).all()
    assert some.rows.shape == (3, 40, 40, 3)
    assert some.digests == tuple(encoded.digests[i] for i in (3, 2, 0))
    assert list(some.problems) == [1]
    again = take(some, np.array([2]))
    assert (everything(again)[0] == everything(encoded)[0]).all()


# ── perceptual hash ──────────────────────────────────────────────────────────────────────────────────────────────────


def hash_of(image):
    return int(perceptual_hash(images.grey(image)[None])[0])


CHANGES = {
    "recompressed": lambda image: images.upright(saved(image, "JPEG", quality=30), None),
    "half the size": lambda image: image.resize((image.width // 2, image.height // 2), Image.Resampling.BICUBIC),
    "lighter": lambda image: ImageEnhance.Brightness(image).enhance(1.1),
    "more contrast": lambda image: ImageEnhance.Contrast(image).enhance(1.15),
    "without colour": lambda image: image.convert("L").convert("RGB"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_the_hash_survives_what_copies_go_through(change):
    originals = [picture(seed, (240, 320)) for seed in range(30)]
    apart = [(hash_of(CHANGES[change](p)) ^ hash_of(p)).bit_count() for p in originals]
    assert np.mean(np.array(apart) <= DISTANCE) >= 0.9, apart


def test_other_pictures_have_other_hashes():
    hashes = [hash_of(picture(seed, (60, 80))) for seed in range(60)]
    apart = [(a ^ b).bit_count() for i, a in enumerate(hashes) for b in hashes[:i]]
    assert min(apart) > DISTANCE
    assert 25 < np.mean(apart) < 39


def test_flat_images_share_the_hash_zero():
    for level in (0, 3, 128, 255):
        assert hash_of(Image.new("RGB", (50, 50), (level,) * 3)) == 0


# ── texts ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def by_letter(values):
    return [[ord(c) for c in value] for value in values]


def test_texts_are_padded_and_cut():
    encoded, cut = encode_texts(texts(["abc", "", "x" * 11]), by_letter, max_length=8)
    rows = everything(encoded)
    assert rows.dtype == np.int32
    assert rows.shape == (3, 8)
    assert rows[0].tolist() == [97, 98, 99, -1, -1, -1, -1, -1]
    assert (rows[1] == -1).all()
    assert cut == 1
    special, _ = encode_texts(texts(["abcdefghijklZ"]), by_letter, max_length=8)
    assert everything(special)[0].tolist() == [*map(ord, "abcdefgZ")], "the last token of a cut text is kept"


def test_whole_texts_are_not_kept_to_the_end():
    class Ids(list):
        """A list that can be watched."""

    kept, most = [], []

    def watched(values):
        most.append(sum(one() is not None for one in kept))
        made = [Ids(range(50)) for _ in values]
        kept.extend(map(weakref.ref, made))
        return made

    encoded, cut = encode_texts(texts(["x"] * 3000), watched, max_length=8)
    assert most == [0, 1024, 1024]
    assert cut == 3000
    assert everything(encoded)[-1].tolist() == [0, 1, 2, 3, 4, 5, 6, 49]


@given(st.lists(st.text(max_size=40), min_size=1, max_size=20), st.integers(2, 64))
def test_no_token_is_lost_and_rows_are_no_longer_than_needed(values, longest):
    encoded, cut = encode_texts(texts(values), by_letter, max_length=longest)
    rows = everything(encoded)
    assert rows.shape[1] <= longest
    assert rows.shape[1] < max(map(len, values)) + 8
    assert cut == sum(len(v) > longest for v in values)
    for row, value in zip(rows, values, strict=True):
        assert (row >= 0).sum() == min(len(value), longest)


def test_texts_without_a_tokenizer_have_hashes():
    encoded, cut = encode_texts(texts(["Where is my card?", "where is my  CARD", "where is the card"]), None)
    assert encoded.rows.shape == (3, 0)
    assert cut == 0
    assert encoded.hashes[0] == encoded.hashes[1] != encoded.hashes[2]
    assert len(set(encoded.digests)) == 3


def test_texts_of_nothing_but_signs_keep_apart():
    assert text_hash("?!") != text_hash(":-)")
    assert text_hash("great 😀") != text_hash("great 😡")
    assert text_hash("5 $") != text_hash("5 £")
    assert text_hash("कि") != text_hash("की")
    assert text_hash("你好") != text_hash("再见")
