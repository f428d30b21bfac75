"""Backbones as modules that torch can export to ONNX: raw rows in, feature sets out, always float32.

They run the same folded copy that answers without gradients. What ONNX has no exact operation for is said otherwise:
torch resizes pixels in whole numbers, width first, and so do two products with constant matrices here.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from outdo.backbones._chain import forward_features
from outdo.backbones._image import sets_of, spatial_mean


class ExportableImages(nn.Module):
    """(B, H, W, 3) uint8 of one fixed size to {name: (B, width)}.

    The module runs whole, and hooks note what `ends` give, the last modules of its stages: leaving it in the middle, as
    a chain of blocks may have to, is what torch's tracer does not bear.
    """

    def __init__(self, module: nn.Module, ends: Sequence[str], rows: tuple[int, int], size: int,
                 said: Mapping[str, Any]) -> None:
        super().__init__()
        self.module, self.ends = module, ends
        self.resize = Resize(rows, size, said["interpolation"]) if rows != (size, size) else nn.Identity()
        self.normalise = normalising(said["mean"], said["std"])

    def forward(self, pixels: torch.Tensor) -> dict[str, torch.Tensor]:
        means: list[torch.Tensor] = []
        x = self.normalise(self.resize(pixels.permute(0, 3, 1, 2).float()))
        with contextlib.ExitStack() as undo:
            for name in self.ends:
                end = self.module.get_submodule(name)
                undo.callback(end.register_forward_hook(lambda _, __, out: means.append(spatial_mean(out))).remove)
            x = forward_features(self.module, x)
        return sets_of(self.module, x, [*means, spatial_mean(x)])


def normalising(mean: Sequence[float], std: Sequence[float]) -> nn.Module:
    """(x / 255 - mean) / std as a convolution: a product and a sum right after whole numbers are what OpenVINO
    (2026.4) takes for dequantization, and in a model of 8 bits its answers are then wrong."""
    conv = nn.Conv2d(3, 3, 1, groups=3).requires_grad_(False)
    conv.weight.copy_(1 / (255 * torch.tensor(std)).view(3, 1, 1, 1))
    conv.bias.copy_(-torch.tensor(mean) / torch.tensor(std))  # type: ignore[union-attr]
    return conv


class Resize(nn.Module):
    """What `_image.resize` does to whole numbers: (B, 3, H, W) to (B, 3, size, size)."""

    def __init__(self, rows: tuple[int, int], size: int, interpolation: str) -> None:
        super().__init__()
        mode = "bilinear" if interpolation == "bilinear" else "bicubic"
        for name, side in zip(("down", "across"), rows, strict=True):
            unit = torch.eye(side)[None, None]
            matrix = F.interpolate(unit, (size, side), mode=mode, antialias=True, align_corners=False)[0, 0]
            self.register_buffer(name, matrix)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = whole(x @ self.across.T)  # type: ignore[operator]
        return whole(self.down @ x)  # type: ignore[operator]


def whole(x: torch.Tensor) -> torch.Tensor:
    """To 0 ... 255, halves upward as in whole-number arithmetic; ONNX's Round goes to the even one."""
    return torch.floor(x + 0.5).clamp(0, 255)


class ExportableTexts(nn.Module):
    """(B, L) int64 token ids padded with -1 to {name: (B, width)}."""

    def __init__(self, backbone: Any) -> None:
        super().__init__()
        self.sets, self.layers, self.padding = backbone._sets, backbone._fast("float32"), backbone.padding
        self.module = self.layers.model

    def forward(self, tokens: torch.Tensor) -> dict[str, torch.Tensor]:
        mask = tokens >= 0
        found: dict[str, torch.Tensor] = self.sets(self.layers, torch.where(mask, tokens, self.padding), mask)
        return found
