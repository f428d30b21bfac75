"""Corruptions: complete, seeded per example, right for any size and for grey; and how they are dealt out."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contestants import certain, contestant, opened
from outdo import backbones, plugins
from outdo.contracts import TestSet
from outdo.data.inputs import pictures, texts
from outdo.evaluation.axes import _corrupt_images, _corrupt_texts, corruption
from outdo.evaluation.axes._helpers import square
from outdo.training.model import Model
from outdo.training.probe import Linear


def photo(high, wide, seed=0, grey=False):
    """Smooth blobs with an edge, so that every corruption has something to spoil."""
    rng = np.random.default_rng(seed)
    x = np.stack([_corrupt_images.clouds(rng, (high, wide), 2.5) for _ in range(3)], 2)
    x[: high // 2, : wide // 2] *= 0.4
    x = np.repeat(x[..., :1], 3, 2) if grey else x
    return _corrupt_images.to_bytes(0.1 + 0.8 * x)


# ── images ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_there_are_fifteen_and_four_at_five_severities():
    assert (len(_corrupt_images.STANDARD), len(_corrupt_images.EXTRA)) == (15, 4)
    assert all(len(levels) == 5 for _, levels in _corrupt_images.CORRUPTIONS.values())


@pytest.mark.parametrize("name", _corrupt_images.CORRUPTIONS)
@pytest.mark.parametrize("size", [(1, 1), (8, 8), (32, 47), (65, 33), (300, 200)])
def test_any_size(name, size):
    for severity in (1, 5):
        out = _corrupt_images.corrupt(photo(*size), name, severity)
        assert (out.shape, out.dtype) == ((*size, 3), np.uint8)


@pytest.mark.parametrize("name", _corrupt_images.CORRUPTIONS)
def test_spoils_more_the_higher_the_severity(name):
    def harm(severity):
        """Whatever way it moves: mean change, over some images."""
        return np.mean([np.abs(_corrupt_images.corrupt(photo(96, 96, s), name, severity).astype(int)
                               - photo(96, 96, s)).mean() for s in range(4)])

    assert harm(1) > 0.05
    if name not in ("elastic_transform", "saturate", "fog", "frost"):  # these change in kind, not in how much
        assert harm(1) < harm(3) < harm(5)


@pytest.mark.parametrize("name", _corrupt_images.CORRUPTIONS)
def test_grey_stays_grey(name):
    out = _corrupt_images.corrupt(photo(40, 40, grey=True), name, 3)
    assert (out[..., :1] == out).all()
    assert np.ptp(out) > 5


def test_seeded_by_image_and_by_nothing_around_it():
    a, b = photo(40, 40, 1), photo(40, 40, 2)
    noise = [_corrupt_images.corrupt(x, "gaussian_noise", 1).astype(int) - x for x in (a, b, a)]
    assert (noise[0] == noise[2]).all()
    assert np.corrcoef(noise[0].ravel(), noise[1].ravel())[0, 1] < 0.1
    assert (_corrupt_images.corrupt(a, "snow", 1, seed=1) != _corrupt_images.corrupt(a, "snow", 1)).any()


def test_an_image_that_is_not_contiguous():
    turned = photo(40, 56).transpose(1, 0, 2)
    assert (_corrupt_images.corrupt(turned, "fog", 2) == _corrupt_images.corrupt(turned.copy(), "fog", 2)).all()


def test_noise_has_the_strength_of_the_paper():
    flat = np.full((224, 224, 3), 128, np.uint8)
    flat[0, 0] = (127, 128, 129)  # not grey
    assert _corrupt_images.corrupt(flat, "gaussian_noise", 2).std() / 255 == pytest.approx(0.12, rel=0.03)
    assert _corrupt_images.corrupt(flat, "shot_noise", 3).std() / 255 == pytest.approx((0.5 / 12) ** 0.5, rel=0.03)
    changed = (_corrupt_images.corrupt(flat, "impulse_noise", 4) != flat).mean()
    assert changed == pytest.approx(0.17, abs=0.01)
    assert _corrupt_images.corrupt(flat, "brightness", 3).mean() / 255 == pytest.approx(0.502 + 0.3, abs=0.01)


def test_convolution_by_hand():
    x, kernel = np.arange(12, dtype=np.float32).reshape(3, 4, 1), np.zeros((3, 3))
    kernel[1, 2] = 1  # a convolution turns the kernel round: everything moves one to the right
    assert _corrupt_images.convolve(x, kernel)[..., 0] == pytest.approx(x[:, [0, 0, 1, 2], 0], abs=1e-5)


def test_saturation_and_brightness_keep_the_hue():
    x = np.full((1, 2, 3), (200, 100, 50), np.uint8)
    for name in ("brightness", "saturate"):
        r, g, b = _corrupt_images.corrupt(x, name, 1)[0, 0].astype(int)
        assert (r - g) / max(1, r - b) == pytest.approx(100 / 150, abs=0.03)


def test_a_square_keeps_small_images_small():
    assert square(pictures(photo(8, 8)[None]).read(0)).shape == (32, 32, 3)
    assert square(pictures(photo(90, 300)[None]).read(0)).shape == (128, 128, 3)
    assert square(pictures(photo(400, 700)[None]).read(0)).shape == (256, 256, 3)


# ── texts ────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", _corrupt_texts.CORRUPTIONS)
@given(text=st.text(max_size=80), severity=st.integers(1, 5))
@settings(max_examples=60)
def test_any_text(name, text, severity):
    out = _corrupt_texts.corrupt(text, name, severity)
    assert out == _corrupt_texts.corrupt(text, name, severity)
    assert bool(out.strip()) == bool(text.strip())


def test_texts_by_hand():
    rng = np.random.default_rng(0)
    assert _corrupt_texts.keyboard("q", rng) == "w"
    assert _corrupt_texts.keyboard("Q", rng) == "W"
    assert _corrupt_texts.misreading("m", rng) == "rn"
    assert _corrupt_texts.casing("card", rng) == "CARD"
    assert _corrupt_texts.misreading("?", rng) == "?"


@pytest.mark.parametrize(("severity", "words"), [(1, 9), (5, 5)])
def test_words_are_lost_in_proportion(severity, words):
    assert len(_corrupt_texts.corrupt("one two three four five six seven eight nine ten", "dropped_words",
                                      severity).split()) == words


def test_characters_are_words_where_nothing_parts_them():
    assert len(_corrupt_texts.corrupt("我的卡还没有到怎么办", "dropped_words", 5)) == 5


# ── the axis ─────────────────────────────────────────────────────────────────────────────────────────────────────────


class Bright:
    """Says 1 where an image is bright, 0 where it is dark; by its own pixels, or by a file."""

    def __init__(self, pixels=True):
        self.asked = []
        if pixels:
            self.predict_pixels = self._pixels

    def _pixels(self, images, shared=None):
        self.asked.append(images)
        return np.eye(2)[(images.mean((1, 2, 3)) > 127).astype(int)]

    def predict(self, inputs):
        from outdo.data.images import decode

        return self._pixels(np.stack([decode(inputs.read(i), None) for i in range(len(inputs))]))

    def size_bytes(self):
        return 0

    parameters = size_bytes


def shades(n):
    images = np.stack([np.clip(photo(32, 32, i).astype(int) + (40 if i % 2 else -40), 0, 255) for i in range(n)])
    codes = np.arange(n) % 2
    return TestSet(tuple(f"{i}.png" for i in range(n)), pictures(images.astype(np.uint8)), codes, ("dark", "bright"))


def test_everybody_sees_the_same_and_in_step():
    test = shades(4)
    models = {"pixels": Bright(), "files": Bright(pixels=False)}
    found = corruption.PLUGIN.measure(
        [contestant(name, certain(test.codes, 2), role, model)
         for (name, model), role in zip(models.items(), ("before", "after"), strict=True)], test)
    asked = [np.concatenate(model.asked) for model in models.values()]
    assert (asked[0] == asked[1]).all()
    assert len(asked[0]) == 4 * 95
    assert found["pixels"].value == found["files"].value
    assert 0.6 < found["pixels"].value < 1
    assert found["files"].detail["mce"] == 1.0
    assert found["files"].n == 4


def test_what_contestants_have_in_common_is_computed_once(monkeypatch):
    backbone, task = backbones.load("tiny-image", "image"), plugins.load("tasks", "image_classification")
    calls, features = [], backbone.features
    monkeypatch.setattr(backbone, "features", lambda rows, size: calls.append(len(rows)) or features(rows, size))
    test, rng = shades(4), np.random.default_rng(0)

    def model(role):
        weight = rng.normal(size=(backbone.width, 2)).astype(np.float32)
        return Model(role, task, test.classes, backbone, [(1.0, Linear(("last",), weight, np.zeros(2, np.float32)))])

    models = {role: model(role) for role in ("before", "after")}
    corruption.PLUGIN.measure([contestant(role, certain(test.codes, 2), role, one) for role, one in models.items()],
                              test)
    assert sum(calls) == 4 * 95
    images, shared = rng.integers(0, 255, (3, 32, 32, 3), np.uint8), {}
    was, now = (one.predict_pixels(images, shared) for one in models.values())
    assert not np.allclose(was, now)
    assert (now == models["after"].predict_pixels(images)).all()


def test_the_deal_is_even_and_hangs_on_ids_alone():
    ids = [f"photo {i}.jpg" for i in range(190)]
    kinds = _corrupt_images
    dealt = corruption.deal(ids, kinds.CORRUPTIONS, kinds.SEVERITIES)
    assert len(dealt) == 190 * 3
    assert set(Counter((name, severity) for _, name, severity in dealt).values()) == {6}
    assert len(set(dealt)) == len(dealt)
    turned = corruption.deal(ids[::-1], kinds.CORRUPTIONS, kinds.SEVERITIES)
    assert {(ids[i], n, s) for i, n, s in dealt} == {(ids[::-1][i], n, s) for i, n, s in turned}


@pytest.mark.parametrize(("n", "examples", "spoilt"), [(1, 1, 25), (570, 570, 570), (5000, 570, 570)])
def test_never_more_than_the_budget(n, examples, spoilt):
    dealt = corruption.deal([str(i) for i in range(n)], _corrupt_texts.CORRUPTIONS, _corrupt_texts.SEVERITIES)
    assert len(dealt) == spoilt
    assert len({i for i, _, _ in dealt}) == examples


def test_mean_corruption_error_by_hand():
    names = ["a", "a", "b", "b", "c", "x"]
    before = np.array([False, False, False, True, True, False])
    after = np.array([True, False, True, True, False, True])
    standard = dict.fromkeys("abc")
    assert corruption.mce(after, before, names, standard) == pytest.approx((1 / 2 + 0 / 1) / 2)  # c: none to divide by
    assert corruption.mce(before, before, names, standard) == 1
    assert corruption.mce(after, None, names, standard) is None


def test_a_model_that_reads_capitals_only_is_caught():
    words = texts(["please BLOCK the card now"] * 20)
    test = TestSet(tuple(map(str, range(20))), words, np.ones(20, np.int64), ("other", "block"))

    class Capitals:
        def predict(self, inputs):
            return np.eye(2)[[int("BLOCK" in inputs.read(i)) for i in range(len(inputs))]]

    found = corruption.PLUGIN.measure([contestant("a", certain(test.codes, 2), "after", Capitals())], test)["a"]
    per = {row["which"]: row["accuracy"] for row in found.detail["per_corruption"]}
    assert per["casing"] < 1
    assert 0.4 < found.value < 0.95


def test_answers_alone_cannot_be_asked_again():
    assert corruption.PLUGIN.measure([contestant("a", certain([0, 1]))], opened([0, 1])) == {}
