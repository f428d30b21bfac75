"""What a step of training makes small: the plain loss, or the loss under attack.

    standard      the task's loss
    adversarial   the task's loss at what an attack makes of each example (Madry et al. 2018)
    trades        the task's loss, and how far an attack moves the answers (Zhang et al. 2019)

The attack changes what goes into the first trained block. Trained from pixels, each may change by `attack_eps` / 255.
Trained from cached activations, which is many times cheaper, each may change by as much in proportion: `attack_eps` /
255 over the pixels' standard deviation, times the root mean square of the example's activations (latent adversarial
training, Sankaranarayanan et al. 2018). Texts are changed after their embedding, in the same proportion.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional as F

from outdo.contracts import State
from outdo.recipe import Recipe

TRADE = 6.0  # the weight of the moved answers in TRADES, as in the paper
TYPICAL = 0.225  # standard deviation of pixels in 0..1, where there are none

Outputs = Callable[[State], torch.Tensor]
Loss = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Reach:
    """How far each entry of a State may be moved, and between which limits it stays; broadcast over it."""

    radius: torch.Tensor
    low: torch.Tensor | None = None
    high: torch.Tensor | None = None

    def keep(self, x: torch.Tensor, moved: torch.Tensor) -> torch.Tensor:
        """`moved` brought back to within reach of x."""
        moved = torch.maximum(torch.minimum(moved, x + self.radius), x - self.radius)
        return moved if self.low is None or self.high is None else torch.clamp(moved, self.low, self.high)


def loss(recipe: Recipe, state: State, outputs: Outputs, task_loss: Loss, pixels: Mapping[str, Any] | None,
         generator: torch.Generator) -> torch.Tensor:
    """The objective's value for a batch, for `backward`.

    `state` goes into `outputs`; `pixels` is the preprocessing (mean, std) where the State is made of pixels.
    """
    if recipe.objective == "standard":
        return task_loss(outputs(state))
    x = state["x"]
    reach = reaching(x.detach(), float(recipe.attack_eps) / 255, pixels)
    if recipe.objective == "adversarial":
        moved = attack(state, reach, recipe.attack_steps, lambda s: task_loss(outputs(s)), generator)
        return task_loss(outputs(moved))
    plain = outputs(state)
    answers = plain.detach().float().log_softmax(1)

    def apart(changed: State) -> torch.Tensor:
        return F.kl_div(outputs(changed).float().log_softmax(1), answers, log_target=True, reduction="batchmean")

    moved = attack(state, reach, recipe.attack_steps, apart, generator)
    now = outputs(moved).float().log_softmax(1)
    return task_loss(plain) + TRADE * F.kl_div(now, plain.float().log_softmax(1), log_target=True,
                                               reduction="batchmean")


def reaching(x: torch.Tensor, eps: float, pixels: Mapping[str, Any] | None) -> Reach:
    if pixels is None:
        size = x.float().square().flatten(1).mean(1).sqrt().view(-1, *[1] * (x.ndim - 1))
        return Reach((eps / TYPICAL * size).to(x.dtype))
    mean, std = (torch.tensor(pixels[key], device=x.device).view(1, 3, 1, 1) for key in ("mean", "std"))
    return Reach(eps / std, -mean / std, (1 - mean) / std)


def attack(state: State, reach: Reach, steps: int, harm: Callable[[State], torch.Tensor], generator: torch.Generator
           ) -> State:
    """The State moved within reach so that `harm` grows: from a random start, by the signs of its gradient. What
    gradients the State itself carries go on through the moved one."""
    x = state["x"]
    start = x.detach()
    drawn = torch.rand(x.shape, generator=generator).to(x.device, x.dtype)
    moved = reach.keep(start, start + reach.radius * (2 * drawn - 1))
    pace = reach.radius * min(1.25, 2.5 / steps)
    for _ in range(steps):
        moved = moved.detach().requires_grad_(True)
        (slope,) = torch.autograd.grad(harm({**state, "x": moved}), moved)
        moved = reach.keep(start, moved.detach() + pace * slope.sign())
    return {**state, "x": x + (moved - start).detach()}
