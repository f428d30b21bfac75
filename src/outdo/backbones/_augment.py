"""Random variants of whole batches, each drawn from a generator so that a resumed run sees the same ones."""

from __future__ import annotations

import math

import torch
from torch.nn import functional as F

DEGREES, SHEAR, ZOOM, SQUEEZE, BRIGHTNESS, CONTRAST, SATURATION = 15.0, 0.1, 0.4, 0.15, 0.3, 0.4, 0.4  # at strength 1
DROPPED = 0.2  # share of tokens, at strength 1


def images(rows: torch.Tensor, strength: float, generator: torch.Generator) -> torch.Tensor:
    """(B, H, W, 3) uint8 to the same: mirrored left to right (in half of the cases at strength 1, a quarter at 0.5),
    cropped, turned a little, brightness, contrast and saturation changed. One resampling for everything."""
    if strength == 0:
        return rows
    x = rows.permute(0, 3, 1, 2).float()
    grid = F.affine_grid(placements(len(x), strength, generator).to(x.device), list(x.shape), align_corners=False)
    x = F.grid_sample(x, grid, mode="bilinear", padding_mode="reflection", align_corners=False)
    return recolour(x, strength, generator).round_().clamp_(0, 255).to(torch.uint8).permute(0, 2, 3, 1)


def placements(n: int, strength: float, generator: torch.Generator) -> torch.Tensor:
    """(n, 2, 3) affine maps from the place in the variant to the place in the original, both in [-1, 1]."""
    u = torch.rand(7, n, generator=generator)
    side = 1 - ZOOM * strength * u[0]
    squeeze = torch.exp(SQUEEZE * strength * (2 * u[1] - 1))
    width, height = (side * squeeze).clamp(max=1), (side / squeeze).clamp(max=1)
    angle = math.radians(DEGREES) * strength * (2 * u[2] - 1)
    mirror = torch.where(u[3] < 0.5 * strength, -1.0, 1.0)
    shear = SHEAR * strength * (2 * u[4] - 1)
    cos, sin = torch.cos(angle), torch.sin(angle)
    row_x = torch.stack([mirror * width * cos, height * (shear - sin), (1 - width) * (2 * u[5] - 1)], 1)
    row_y = torch.stack([mirror * width * sin, height * cos, (1 - height) * (2 * u[6] - 1)], 1)
    return torch.stack([row_x, row_y], 1)


def recolour(x: torch.Tensor, strength: float, generator: torch.Generator) -> torch.Tensor:
    """(B, 3, H, W) in 0..255, changed in place; values may leave that range."""
    u = (2 * torch.rand(3, len(x), 1, 1, 1, generator=generator) - 1).to(x.device) * strength
    grey = x.mean(1, keepdim=True)
    x = torch.lerp(grey.expand_as(x), x, 1 + SATURATION * u[0])
    middle = grey.mean((2, 3), keepdim=True)
    return x.sub_(middle).mul_(1 + CONTRAST * u[1]).add_(middle * (1 + BRIGHTNESS * u[2]))


def texts(rows: torch.Tensor, strength: float, generator: torch.Generator) -> torch.Tensor:
    """(B, L) token ids padded with -1, to the same: some tokens are left out, never the first nor the last."""
    if strength == 0:
        return rows
    lengths = (rows >= 0).sum(1, keepdim=True)
    place = torch.arange(rows.shape[1], device=rows.device)
    inner = (place > 0) & (place < lengths - 1)
    drawn = torch.rand(rows.shape, generator=generator).to(rows.device) < DROPPED * strength
    gone = (inner & drawn) | (rows < 0)
    order = gone.to(torch.int8).argsort(dim=1, stable=True)  # what stays moves to the front, in its order
    return rows.masked_fill(gone, -1).gather(1, order)
