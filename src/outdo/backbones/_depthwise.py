"""Depthwise convolutions in bfloat16 on a CPU, with a backward that is not slow.

oneDNN (3.x, as torch 2.14 brings it) has fast bfloat16 kernels for every depthwise forward, for the gradient of the
input at stride 1 and for that of a 3 x 3 kernel; those of the input at stride 2 and of larger kernels run 10 to 100
times longer. So the first of these two is computed in float32, and a larger kernel's gradient from 3 x 3 windows of it.
EfficientNet-Lite0 spends two thirds less time in its depthwise layers than in float32.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

WINDOW = 3


def suits(conv: nn.Conv2d) -> bool:
    """Whether `Substitute` may stand in for this layer's convolution."""
    return (conv.groups == conv.in_channels == conv.out_channels and len(set(conv.stride)) == 1
            and conv.kernel_size[0] == conv.kernel_size[1] >= WINDOW and set(conv.dilation) == {1})


class Substitute(TorchFunctionMode):
    """Within it `conv2d` is ours, so that a layer's own forward (padding as TensorFlow has it, say) still runs."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.conv2d:
            x, weight, bias, stride, padding = args[:5]
            if not isinstance(padding, str):
                return Depthwise.apply(x.bfloat16(), weight, bias, stride[0], padding)
        return func(*args, **(kwargs or {}))


class Depthwise(torch.autograd.Function):
    """x (B, C, H, W) bfloat16 in channels-last order, weight (C, 1, K, K) float32 -> bfloat16."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, stride: int,
                padding: tuple[int, int]) -> torch.Tensor:
        ctx.save_for_backward(x, weight)
        ctx.stride, ctx.padding = stride, padding
        bias = None if bias is None else bias.bfloat16()
        return torch.conv2d(x, weight.bfloat16(), bias, stride, padding, groups=x.shape[1])

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        (gradient,), (x, weight) = gradients, ctx.saved_tensors
        gradient = gradient.contiguous(memory_format=torch.channels_last)
        wanted = ctx.needs_input_grad
        return (input_gradient(gradient, x, weight, ctx.stride, ctx.padding) if wanted[0] else None,
                kernel_gradient(gradient, x, weight, ctx.stride, ctx.padding) if wanted[1] else None,
                gradient.sum((0, 2, 3), dtype=torch.float32) if wanted[2] else None, None, None)


def input_gradient(gradient: torch.Tensor, x: torch.Tensor, weight: torch.Tensor, stride: int,
                   padding: tuple[int, int]) -> torch.Tensor:
    if stride == 1:
        return backward(gradient, x, weight.to(x.dtype), stride, padding, [True, False, False])[0]
    unread = torch.empty(x.shape, memory_format=torch.channels_last)  # only its shape counts
    return backward(gradient.float(), unread, weight, stride, padding, [True, False, False])[0].to(x.dtype)


def kernel_gradient(gradient: torch.Tensor, x: torch.Tensor, weight: torch.Tensor, stride: int,
                    padding: tuple[int, int]) -> torch.Tensor:
    """(C, 1, K, K) float32: each 3 x 3 window of the kernel sees the input shifted by the window's place."""
    size = weight.shape[-1]
    small = weight[:, :, :WINDOW, :WINDOW].to(x.dtype).contiguous()
    if size == WINDOW:
        return backward(gradient, x, small, stride, padding, [False, True, False])[1].to(weight.dtype)
    padded = nn.functional.pad(x, (padding[1], padding[1], padding[0], padding[0]))
    high, wide = ((n - 1) * stride + WINDOW for n in gradient.shape[2:])
    found = torch.empty_like(weight)
    places = sorted({*range(0, size - WINDOW, WINDOW), size - WINDOW})
    for top in places:
        for left in places:
            seen = padded[:, :, top : top + high, left : left + wide].contiguous(memory_format=torch.channels_last)
            window = backward(gradient, seen, small, stride, (0, 0), [False, True, False])[1]
            found[:, :, top : top + WINDOW, left : left + WINDOW] = window
    return found


def backward(gradient: torch.Tensor, x: torch.Tensor, weight: torch.Tensor, stride: int, padding: tuple[int, int],
             wanted: list[bool]) -> tuple[torch.Tensor, ...]:
    """torch's own, of (input, weight, bias) those that are wanted."""
    return torch.ops.aten.convolution_backward(  # type: ignore[no-any-return]
        gradient, x, weight, None, [stride] * 2, padding, [1, 1], False, [0, 0], x.shape[1], wanted)
