"""Near duplicates: every planted one is found, look-alikes are not, and crowds cost no quadratic time."""

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw, ImageEnhance

from outdo.contracts import Encoded
from outdo.data import copies, images
from outdo.data.copies import DISTANCE, components, find_copies, near_pairs
from outdo.data.encode import ArrayRows, encode_images, encode_texts, perceptual_hash, thumbs
from outdo.data.inputs import Items, files, texts
from pictures import picture, saved


def random_thumbs(rng, n):
    return rng.integers(0, 256, (n, 8, 8), dtype=np.uint8)


def flipped(rng, code, bits):
    """`code` with that many of its bits turned over."""
    places = rng.choice(64, bits, replace=False)
    return code ^ np.uint64(sum(1 << int(place) for place in places))


def pairs_of(hashes, thumbs):
    return {tuple(pair) for pair in near_pairs(hashes, thumbs).tolist()}


def by_comparing_all(hashes, thumbs):
    """The definition, without any index."""
    i, j = np.triu_indices(len(hashes), 1)
    near = np.bitwise_count(hashes[i] ^ hashes[j]) <= DISTANCE
    flat = thumbs.reshape(len(thumbs), -1).astype(float)
    spread = flat.std(1)
    agree = set()
    for a, b in zip(i[near], j[near], strict=True):
        lively = min(spread[a], spread[b]) >= copies.FLAT
        close = abs(flat[a].mean() - flat[b].mean()) <= copies.LIGHT
        alike = 1 / copies.CONTRAST <= spread[a] / spread[b] <= copies.CONTRAST
        if lively and close and alike and np.corrcoef(flat[a], flat[b])[0, 1] >= copies.CORRELATION:
            agree.add((int(a), int(b)))
    return agree


@given(st.integers(0, 10_000), st.integers(0, DISTANCE), st.integers(2, 60))
@settings(max_examples=60)
def test_every_planted_pair_is_found_and_no_other(seed, bits, n):
    rng = np.random.default_rng(seed)
    hashes, thumbs = rng.integers(0, 2**64, n, dtype=np.uint64), random_thumbs(rng, n)
    twins = flipped(rng, hashes[0], bits), np.clip(thumbs[0].astype(int) + rng.integers(-3, 4, (8, 8)), 0, 255)
    hashes, thumbs = np.append(hashes, twins[0]), np.concatenate([thumbs, twins[1][None].astype(np.uint8)])
    assert pairs_of(hashes, thumbs) == {(0, n)}


@given(st.integers(0, 10_000))
@settings(max_examples=10)
def test_dense_clusters_agree_with_comparing_all(seed):
    """Many hashes within a few bits of each other, in a crowd that is banded twice."""
    rng = np.random.default_rng(seed)
    centre, thumb = rng.integers(0, 2**64, dtype=np.uint64), random_thumbs(rng, 1)
    hashes = np.array([flipped(rng, centre, rng.integers(0, 9)) for _ in range(100)])
    thumbs = np.clip(thumb + rng.integers(-8, 9, (100, 8, 8)), 0, 255).astype(np.uint8)
    assert pairs_of(hashes, thumbs) == by_comparing_all(hashes, thumbs)


def test_a_crowd_is_banded_again_and_loses_nothing(monkeypatch):
    monkeypatch.setattr(copies, "CROWD", 12)
    rng = np.random.default_rng(1)
    common = np.uint64(0x0123456789ABCDEF)
    hashes = common ^ (rng.integers(0, 2**64, 400, dtype=np.uint64) & np.uint64(0x5555555555555555))
    hashes = np.append(hashes, [flipped(rng, code, DISTANCE) for code in hashes[:50]])
    thumbs = random_thumbs(rng, 400)
    thumbs = np.concatenate([thumbs, thumbs[:50]])
    assert {(i, 400 + i) for i in range(50)} <= pairs_of(hashes, thumbs)


@pytest.mark.parametrize("alike", [True, False])
def test_twenty_thousand_with_one_hash_cost_little(alike):
    rng = np.random.default_rng(0)
    n = 20_000
    hashes = np.full(n, 12345, dtype=np.uint64)
    thumbs = random_thumbs(rng, n)
    if alike:
        thumbs = np.clip(thumbs[:1].astype(int) + rng.integers(-2, 3, (n, 8, 8)), 0, 255).astype(np.uint8)
    start = time.process_time()
    pairs = near_pairs(hashes, thumbs)
    assert time.process_time() - start < 15  # all pairs would be 200 million
    assert len(pairs) < n * copies.NEIGHBOURS
    assert (len(np.unique(components(n, pairs))) == 1) == alike


def test_flat_images_are_never_near_copies():
    thumbs = np.stack([np.full((8, 8), level, np.uint8) for level in (0, 0, 3, 255, 255)])
    thumbs[1, 0, 0] = 6
    assert pairs_of(np.zeros(5, np.uint64), thumbs) == set()
    fog = (128 + np.arange(64).reshape(8, 8) % 8 // 2).astype(np.uint8)  # a picture, but hardly any
    assert pairs_of(np.zeros(2, np.uint64), np.stack([fog, fog])) == set()
    assert pairs_of(np.zeros(2, np.uint64), np.stack([fog, fog]) + (fog - 128) * np.uint8(9)) == {(0, 1)}


def test_no_images_and_one():
    for n in (0, 1):
        assert near_pairs(np.zeros(n, np.uint64), np.zeros((n, 8, 8), np.uint8)).shape == (0, 2)


@given(st.integers(1, 40), st.lists(st.tuples(st.integers(0, 39), st.integers(0, 39)), max_size=60))
def test_components_are_those_of_a_walk(n, pairs):
    links = np.array([p for p in pairs if max(p) < n], dtype=np.int64).reshape(-1, 2)
    label = components(n, links)
    reach = np.eye(n, dtype=bool)
    for a, b in links:
        reach[a, b] = reach[b, a] = True
    for k in range(n):
        reach |= reach[:, k : k + 1] & reach[k : k + 1]
    assert (label == reach.argmax(1)).all()


# ── from real files ──────────────────────────────────────────────────────────────────────────────────────────────────


def encoded(tmp_path, pictures):
    for i, data in enumerate(pictures):
        (tmp_path / f"{i}.img").write_bytes(data)
    inputs: Items = files([tmp_path / f"{i}.img" for i in range(len(pictures))])
    return encode_images(inputs, size=64, fit="squash", cache=None)[0]


def test_copies_of_photographs(tmp_path):
    original = picture(0, (240, 320))
    found = find_copies(encoded(tmp_path, [
        saved(original, "PNG"), saved(original, "PNG"), saved(original, "JPEG", quality=40),
        saved(original.resize((150, 110)), "JPEG"), saved(ImageEnhance.Brightness(original).enhance(1.05), "PNG"),
        saved(picture(1, (240, 320)), "PNG"), b"broken", saved(original.transpose(Image.Transpose.ROTATE_90), "PNG")]))
    assert found.node[0] == found.node[1]
    assert found.node[6] == -1
    linked = components(int(found.node.max()) + 1, found.pairs)[found.node]
    assert len({linked[i] for i in (0, 1, 2, 3, 4)}) == 1
    assert len({linked[i] for i in (0, 5, 7)}) == 3


def test_different_dark_photographs_are_no_copies(tmp_path):
    """At night everything is black but for a light or two."""
    def night(seed):
        image = Image.new("L", (200, 150), 4)
        rng = np.random.default_rng(seed)
        for _ in range(3):
            x, y = rng.integers(10, 190), rng.integers(10, 140)
            ImageDraw.Draw(image).ellipse((x - 8, y - 8, x + 8, y + 8), fill=int(rng.integers(60, 200)))
        return saved(image, "PNG")

    assert len(find_copies(encoded(tmp_path, [night(seed) for seed in range(60)])).pairs) == 0


def test_plain_colours_are_no_copies(tmp_path):
    colours = [(250, 0, 0), (0, 128, 0), (40, 40, 255), (75, 75, 75)]
    swatches = [saved(Image.new("RGB", (32, 32), colour), "PNG") for colour in colours]
    assert len(find_copies(encoded(tmp_path, swatches)).pairs) == 0


def test_texts_are_the_same_but_for_case_blanks_and_punctuation():
    one, _ = encode_texts(texts(["Where is it?", "where  is IT", "where was it", "!", "?"]), None)
    node = find_copies(one).node
    assert node[0] == node[1]
    assert len(set(node)) == 4


def test_refused_images_have_no_node():
    nothing = Encoded(ArrayRows(np.zeros((2, 8, 8, 3), np.uint8)), ("", ""), {0: "x", 1: "y"}, np.zeros(2, np.uint64),
                      np.zeros((2, 8, 8), np.uint8))
    assert find_copies(nothing).node.tolist() == [-1, -1]


def test_the_thresholds_separate_copies_from_other_pictures():
    """The claim behind DISTANCE: of random pictures none is that near another."""
    greys = np.stack([images.grey(picture(seed, (60, 80))) for seed in range(150)])
    assert len(near_pairs(perceptual_hash(greys), thumbs(greys))) == 0
