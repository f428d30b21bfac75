"""Convolutions that end in an activation: the same answers, and where they cannot be had, the usual ones."""

import copy

import pytest
import timm
import torch
from test_fold import alive
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from outdo.backbones import _chain, _fold, _fused

HERE = pytest.mark.skipif(not _fused.runs(nn.ReLU, torch.float32), reason="this torch does not fuse")


@HERE
@pytest.mark.parametrize("name", ["test_efficientnet", "tf_mobilenetv3_small_minimal_100", "test_byobnet"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_frozen_copy_answers_the_same(name, precision):
    trace = _chain.watch(alive(timm.create_model(name, num_classes=5)), torch.randn(2, 3, 64, 64))
    pairs = _fold.find_pairs(trace)
    plain = _fold.fold_for_inference(trace.module, pairs, precision)
    fused = _fold.fuse(copy.deepcopy(plain), pairs)
    assert any("with_activation" in m.forward.__qualname__ for m in fused.modules()), "something was fused"
    x = trace.example.to(_fold.DTYPES[precision])
    with torch.no_grad():
        expected, found = (_chain.forward_features(net, x).float() for net in (plain, fused))
    near = 1e-5 if precision == "float32" else 3e-2
    torch.testing.assert_close(found, expected, rtol=near, atol=near * float(expected.abs().max()))


@HERE
@pytest.mark.parametrize("activation", _fused.UNARY)
def test_every_known_activation(activation):
    conv, x = nn.Conv2d(8, 8, 3, groups=8).requires_grad_(False), 4 * torch.randn(2, 8, 9, 9)
    assert _fused.runs(activation, torch.float32)
    found = _fused.with_activation(conv, activation())(x)
    torch.testing.assert_close(found, activation()(conv(x)), rtol=1e-4, atol=1e-5)


def test_what_is_not_known_is_left_alone():
    class Other(nn.ReLU):
        def forward(self, x):
            return x + 1

    assert not _fused.runs(nn.GELU, torch.float32)
    assert not _fused.runs(Other, torch.float32)


def test_a_torch_that_cannot_goes_on_as_usual(monkeypatch):
    monkeypatch.setattr(_fused, "with_activation", lambda *_: lambda x: torch.ops.mkldnn.no_such_operation(x))
    assert not _fused.runs.__wrapped__(nn.ReLU, torch.float32)
    monkeypatch.setattr(_fused, "with_activation", lambda conv, _: lambda x: conv(x))
    assert not _fused.runs.__wrapped__(nn.ReLU, torch.float32), "an answer without the activation is noticed"


@HERE
def test_who_watches_operations_sees_the_usual_ones():
    conv, x = nn.Conv2d(16, 4, 3).requires_grad_(False), torch.randn(2, 16, 9, 9)
    counts = []
    for forward in (conv, _fused.with_activation(conv, nn.ReLU())):
        with FlopCounterMode(display=False) as counter:
            forward(x)
        counts.append(counter.get_total_flops())
    assert counts[0] == counts[1] > 0
