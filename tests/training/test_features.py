"""The cache: computed once, the same bits whatever was there before, and only what is new."""

import numpy as np
import pytest
import torch
from scenes import study as make

from outdo.data import images
from outdo.training import features as module
from outdo.training.features import Features


@pytest.fixture(autouse=True)
def _small_batches(monkeypatch):
    monkeypatch.setattr(module, "BATCH", {"image": 8, "text": 8})


def counted(features, monkeypatch):
    calls = []
    compute = features.backbone.features
    monkeypatch.setattr(features.backbone, "features", lambda rows, size=None: calls.append(len(rows)) or
                        compute(rows, size))
    return calls


def test_a_second_time_costs_nothing(tmp_path, monkeypatch):
    one = make(cache=tmp_path)
    first = one.features.pooled(np.arange(60))
    again = make(cache=tmp_path)
    calls = counted(again.features, monkeypatch)
    second = again.features.pooled(np.arange(60))
    assert calls == []
    assert all(np.array_equal(first[k], second[k]) for k in first)
    assert {k: v.shape[1] for k, v in first.items()} == dict(one.backbone.feature_sets)


def test_an_interrupted_pass_ends_in_the_same_bits(tmp_path):
    whole = make(cache=tmp_path / "a").features.pooled(np.arange(60))
    part = make(cache=tmp_path / "b").features

    def stop():
        stop.left -= 1
        if stop.left < 0:
            raise KeyboardInterrupt

    stop.left, part.check = 3, stop
    with pytest.raises(KeyboardInterrupt):
        part.pooled(np.arange(60))
    resumed = make(cache=tmp_path / "b").features.pooled(np.arange(60))
    assert all(np.array_equal(whole[k], resumed[k]) for k in whole)


def test_features_are_the_backbones(tmp_path):
    one = make(cache=tmp_path)
    order = np.array([5, 3, 40])
    found = one.features.pooled(order)["last"]
    direct = one.backbone.features(one.encoded.rows[order])["last"].numpy()
    assert np.allclose(found, direct, atol=1e-4)


def test_other_weights_other_sizes_and_other_precisions_have_other_folders(tmp_path):
    one = make(cache=tmp_path)
    keys = {one.features.key("pooled", [])}
    keys.add(Features(one.backbone, one.encoded, tmp_path, size=24).key("pooled", []))
    one.backbone.precision = "bfloat16"
    keys.add(one.features.key("pooled", []))
    assert len(keys) == 3


def test_pixels_of_another_decoder_have_other_features(tmp_path, monkeypatch):
    one = make(cache=tmp_path)
    first = one.features.key("pooled")
    monkeypatch.setattr(images, "VERSION", 99)
    assert one.features.key("pooled") != first


def test_activations_continue_where_the_frozen_blocks_ended(tmp_path):
    one = make(cache=tmp_path)
    state = one.features.activations([3], np.arange(20))[3].state(np.array([7, 2]), torch.device("cpu"))
    with torch.no_grad():
        end = one.backbone.pool(one.backbone.run(state, 3, one.backbone.depth)).numpy()
    assert np.allclose(end, one.backbone.features(one.encoded.rows[np.array([7, 2])])["last"].numpy(), atol=1e-4)


def test_the_second_view_is_a_mirror_image(tmp_path):
    one = make(cache=tmp_path)
    mirrored = one.features.activations([0], np.arange(4), 1)[0].state(np.arange(4), torch.device("cpu"))["x"]
    plain = one.features.activations([0], np.arange(4), 0)[0].state(np.arange(4), torch.device("cpu"))["x"]
    assert torch.allclose(mirrored, plain.flip(3))
