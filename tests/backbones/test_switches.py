"""Every optimisation can be switched off, does something while it is on, and does not change what comes out."""

import numpy as np
import pytest
import torch

from outdo import plugins, runtime
from outdo.backbones import _depthwise, _fold, _fused, choose_precision, tiny_image, tiny_text
from outdo.contracts import Encoded
from outdo.data import inputs
from outdo.data.encode import ArrayRows
from outdo.recipe import Recipe
from outdo.training.features import Features
from outdo.training.loop import Examples, Plan, Trainer

ELSEWHERE = ("allocator", "waiting", "bfloat16", "depthwise", "sorting")
SPEED = [name for name in runtime.OPTIMISATIONS if name not in ELSEWHERE]


def photos():
    rows = np.random.default_rng(0).integers(0, 255, (12, 32, 32, 3), dtype=np.uint8)
    return Encoded(ArrayRows(rows), tuple(map(str, range(12))), {}, np.arange(12))


def outcome(cache):
    """(features, cached activations, weights after three steps) of the small backbone, with the switches as they
    stand."""
    backbone, encoded = tiny_image.PLUGIN.load("tiny-image"), photos()
    everything = np.arange(12)
    features = Features(backbone, encoded, cache)
    task = plugins.load("tasks", "image_classification")
    torch.manual_seed(0)
    head = task.head(backbone.width, 2)
    pooled = features.pooled(everything, ["last"])["last"]
    kept = features.activations([2], everything)[2].state(everything, torch.device("cpu"))["x"]
    examples = Examples(everything % 2, encoded.rows)
    one = Trainer(backbone, head, task, Plan(0, None, 3, 1e-3, False, False, ""), Recipe(batch_size=12), classes=2,
                  seed=0, train=examples, validation=examples)
    one.fit()
    return [torch.from_numpy(pooled), kept, torch.cat([p.detach().flatten() for p in one.parameters])]


@pytest.mark.parametrize("name", SPEED)
def test_switching_off_speed_changes_no_result(name, tmp_path, monkeypatch):
    expected = outcome(tmp_path / "on")
    monkeypatch.setenv(runtime.SWITCH, name)
    found = outcome(tmp_path / "off")
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)


def test_switched_off_is_off(tmp_path, monkeypatch):
    """Everything at once: none of the fast ways is taken."""
    monkeypatch.setenv(runtime.SWITCH, ",".join(runtime.OPTIMISATIONS))
    for place, what in ((_fold, "folded"), (_fused, "with_activation"), (_depthwise.Depthwise, "apply")):
        monkeypatch.setattr(place, what, lambda *_: pytest.fail("a fast way was taken"))
    _, kept, _ = outcome(tmp_path)
    assert kept.is_contiguous()
    assert not list(tmp_path.rglob("rows.bin")), "nothing is kept"
    backbone = tiny_image.PLUGIN.load("tiny-image")
    assert backbone.torch_module.state_dict()
    assert choose_precision(backbone, photos().rows)[0] == "float32"
    assert choose_precision(backbone, photos().rows, "bfloat16")[0] == "bfloat16", "what is asked for is done"


@pytest.mark.parametrize("off", ["", "depthwise"])
def test_the_backward_of_depthwise_convolutions(off, monkeypatch):
    monkeypatch.setenv(runtime.SWITCH, off)
    used = []
    apply = _depthwise.Depthwise.apply
    monkeypatch.setattr(_depthwise.Depthwise, "apply", lambda *a: used.append(1) or apply(*a))
    conv, x = torch.nn.Conv2d(8, 8, 3, groups=8), torch.randn(2, 8, 9, 9)
    with torch.autocast("cpu", torch.bfloat16):
        _fold.conv_forward(conv, None, low_on_cpu=True)(x).sum().backward()
    assert bool(used) is not bool(off)


def test_texts_in_any_order_have_the_same_features(tmp_path, monkeypatch):
    backbone = tiny_text.PLUGIN.load("tiny-text")
    encoded = backbone.encode(inputs.texts(["a b c d e f", "a", "b c", "d e f"] * 3), None)
    everything = np.arange(len(encoded.rows))
    expected = Features(backbone, encoded, tmp_path).pooled(everything)["last"]
    monkeypatch.setenv(runtime.SWITCH, "sorting")
    features = Features(backbone, encoded, tmp_path)
    assert list(features._by_length(everything)) == list(everything)
    np.testing.assert_allclose(features.pooled(everything)["last"], expected, rtol=1e-4, atol=1e-5)
