"""The substituted depthwise convolution against torch's own in float32."""

import pytest
import torch
from timm.layers import Conv2dSame
from torch import nn

from outdo.backbones import _depthwise, _fold


def by(conv, x, substituted):
    """(output, gradients of input, weight and bias) of a loss that weighs every place differently."""
    x = x.clone().requires_grad_()
    conv.zero_grad()
    if substituted:
        with _depthwise.Substitute():
            output = conv(x)
    else:
        output = conv(x)
    places = torch.linspace(0, 3, output.numel()).sin().reshape(output.shape)
    (output.float() * places).sum().backward()
    return [output.float(), x.grad, *(p.grad for p in conv.parameters())]


@pytest.mark.parametrize("size", [3, 4, 5, 7])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("padding", [0, 1, 3, (1, 2)])
@pytest.mark.parametrize("bias", [True, False])
def test_outputs_and_gradients_are_those_of_torch(size, stride, padding, bias):
    torch.manual_seed(0)
    conv = nn.Conv2d(8, 8, size, stride, padding, groups=8, bias=bias)
    assert _depthwise.suits(conv)
    x = torch.randn(2, 8, 14, 11).contiguous(memory_format=torch.channels_last)
    for found, expected in zip(by(conv, x, True), by(conv, x, False), strict=True):
        assert found.dtype == torch.float32
        assert found.shape == expected.shape
        assert torch.cosine_similarity(found.flatten(), expected.flatten(), dim=0) > 0.9995
        torch.testing.assert_close(found, expected, rtol=0.05, atol=0.02 * float(expected.detach().abs().max()))


def test_padding_inside_a_layers_own_forward_is_kept():
    torch.manual_seed(0)
    conv = Conv2dSame(8, 8, 5, stride=2, groups=8)
    x = torch.randn(2, 8, 14, 14)
    for found, expected in zip(by(conv, x, True), by(conv, x, False), strict=True):
        assert torch.cosine_similarity(found.flatten(), expected.flatten(), dim=0) > 0.9995


def test_nothing_is_computed_for_what_needs_no_gradient(monkeypatch):
    monkeypatch.setattr(_depthwise, "kernel_gradient", lambda *_: pytest.fail("a frozen kernel's gradient"))
    conv = nn.Conv2d(8, 8, 3, groups=8).requires_grad_(False)
    x = torch.randn(1, 8, 6, 6, requires_grad=True)
    with _depthwise.Substitute():
        conv(x).float().sum().backward()
    assert x.grad is not None


@pytest.mark.parametrize(("conv", "expected"), [
    (nn.Conv2d(8, 8, 3, groups=8), True),
    (nn.Conv2d(8, 16, 3, groups=8), False),
    (nn.Conv2d(8, 8, 3, groups=4), False),
    (nn.Conv2d(8, 8, 3), False),
    (nn.Conv2d(8, 8, 1, groups=8), False),
    (nn.Conv2d(8, 8, (3, 5), groups=8), False),
    (nn.Conv2d(8, 8, 3, (1, 2), groups=8), False),
    (nn.Conv2d(8, 8, 3, dilation=2, groups=8), False),
])
def test_what_it_stands_in_for(conv, expected):
    assert _depthwise.suits(conv) == expected


@pytest.mark.parametrize("groups", [4, 8])
def test_grouped_convolutions_under_low_precision(groups):
    """Depthwise ones in bfloat16 by the substitute, others in float32 outside of autocast."""
    net = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, groups=groups))
    x = torch.randn(1, 3, 8, 8)
    with _fold.training(net, [], "bfloat16"):
        found = net(x)
    assert found.dtype == (torch.bfloat16 if groups == 8 else torch.float32)
    torch.testing.assert_close(found.float(), net(x), rtol=0.05, atol=0.05)


def test_activations_work_out_of_place_only_meanwhile():
    net = nn.Sequential(nn.ReLU6(inplace=True), nn.ReLU(inplace=True), nn.ReLU6())
    with _fold.training(net.append(nn.Linear(1, 1)), [], "float32"):
        assert [m.inplace for m in net[:3]] == [False, True, False]
    assert [m.inplace for m in net[:3]] == [True, True, False]
