"""Attacks within a maximum change of each pixel value: PGD, Auto-PGD and Square, for any number of classes.

They take `logits`, (N, 3, H, W) float32 in 0..1 to raw outputs (N, C), correct images `x` with classes `y`, and return
images within `eps` of x and within 0..1. Losses are cross-entropy and the margin: the difference of logits ratio of
standard AutoAttack needs a third class, its targeted form a fourth.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch.nn import functional as F

Logits = Callable[[torch.Tensor], torch.Tensor]
CHECKPOINTS = (0.22, 0.03, 0.06)  # of Auto-PGD: the first one, by how much each gap is shorter, and the shortest gap
MOMENTUM, PROGRESS = 0.75, 0.75
SQUARES = ((10, 1.0), (50, 0.5), (200, 0.25), (500, 0.125), (1000, 0.0625), (2000, 1 / 32), (4000, 1 / 64),
           (6000, 1 / 128), (8000, 1 / 256))  # share of the first square's area, until that many of 10,000 queries


def margin(outputs: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """(N,) how far the truth is ahead of the best other class; below 0 the answer is wrong."""
    truth = outputs.gather(1, y[:, None])[:, 0]
    others = outputs.scatter(1, y[:, None], -math.inf).amax(1)
    return truth - others


def clipped(x: torch.Tensor, original: torch.Tensor, eps: float) -> torch.Tensor:
    return torch.maximum(torch.minimum(x, original + eps), original - eps).clamp(0, 1)


def loss_and_gradient(logits: Logits, x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor,
                                                                                torch.Tensor]:
    """((N,) cross-entropy, its gradient in x, (N,) margin)."""
    x = x.detach().requires_grad_(True)
    with torch.enable_grad():
        outputs = logits(x)
        loss = F.cross_entropy(outputs, y, reduction="none")
        (gradient,) = torch.autograd.grad(loss.sum(), x)
    return loss.detach(), gradient, margin(outputs.detach(), y)


def anywhere(x: torch.Tensor, eps: float, generator: torch.Generator) -> torch.Tensor:
    noise = torch.rand(x.shape, generator=generator).to(x.device)
    return clipped(x + eps * (2 * noise - 1), x, eps)


def pgd(logits: Logits, x: torch.Tensor, y: torch.Tensor, eps: float, steps: int, generator: torch.Generator
        ) -> torch.Tensor:
    """Projected gradient descent from a random start (Madry et al. 2018), steps of 2.5 eps / steps."""
    adversarial = anywhere(x, eps, generator)
    for _ in range(steps):
        _, gradient, _ = loss_and_gradient(logits, adversarial, y)
        adversarial = clipped(adversarial + 2.5 * eps / steps * gradient.sign(), x, eps)
    return adversarial


def apgd(logits: Logits, x: torch.Tensor, y: torch.Tensor, eps: float, steps: int, generator: torch.Generator
         ) -> torch.Tensor:
    """Auto-PGD on cross-entropy (Croce and Hein 2020): with momentum, and a step that is halved where the loss does not
    rise. Returns a wrong answer's image where one was met, else that of the highest loss."""
    now = anywhere(x, eps, generator)
    loss, gradient, ahead = loss_and_gradient(logits, now, y)
    before, best, best_loss, best_gradient = now, now.clone(), loss.clone(), gradient.clone()
    found, broken = now.clone(), ahead < 0
    step = torch.full((len(x), 1, 1, 1), 2 * eps, device=x.device)
    rises = torch.zeros(len(x), device=x.device)
    last_step, last_loss, since, stops = step.clone(), best_loss.clone(), 0, checkpoints(steps)
    for turn in range(1, steps + 1):
        ahead_of_it = clipped(now + step * gradient.sign(), x, eps)
        share = MOMENTUM if turn > 1 else 1.0
        after = clipped(now + share * (ahead_of_it - now) + (1 - share) * (now - before), x, eps)
        before, now = now, after
        previous, (loss, gradient, ahead) = loss, loss_and_gradient(logits, now, y)
        rises += loss > previous
        better = loss > best_loss
        put(best, now, better)
        put(best_gradient, gradient, better)
        best_loss = torch.maximum(best_loss, loss)
        put(found, now, (ahead < 0) & ~broken)
        broken |= ahead < 0
        if turn in stops:
            stuck = (rises < PROGRESS * (turn - since)) | ((step == last_step).flatten(1).all(1)
                                                          & (last_loss >= best_loss))
            last_step, last_loss, since = step.clone(), best_loss.clone(), turn
            step = torch.where(stuck.view(-1, 1, 1, 1), step / 2, step)
            put(now, best, stuck)
            put(gradient, best_gradient, stuck)
            rises.zero_()
    return torch.where(broken.view(-1, 1, 1, 1), found, best)


def put(into: torch.Tensor, values: torch.Tensor, where: torch.Tensor) -> None:
    into[where] = values[where]


def checkpoints(steps: int) -> set[int]:
    """After which steps the step size is looked at."""
    first, less, least = (max(1, int(share * steps)) for share in CHECKPOINTS)
    stops, gap, at = set(), first, first
    while at <= steps:
        stops.add(at)
        gap = max(gap - less, least)
        at += gap
    return stops


def square(logits: Logits, x: torch.Tensor, y: torch.Tensor, eps: float, queries: int, generator: torch.Generator
           ) -> torch.Tensor:
    """Square attack (Andriushchenko et al. 2020): random squares of +-eps, kept where the margin falls. Asks for
    answers only, so that gradients that mislead do not help."""
    n, channels, high, wide = x.shape
    with torch.no_grad():
        stripes = torch.rand((n, channels, 1, wide), generator=generator).to(x.device).round() * 2 - 1
        best = clipped(x + eps * stripes, x, eps)
        least = margin(logits(best), y)
        for query in range(1, queries):
            left = torch.nonzero(least >= 0)[:, 0]
            if not len(left):
                break
            tried = best[left].clone()
            side = min(high, wide, max(1, round(math.sqrt(area(query / queries) * high * wide))))
            for i in range(len(left)):
                top, edge = (int(torch.randint(limit - side + 1, (1,), generator=generator)) for limit in (high, wide))
                signs = torch.rand((channels, 1, 1), generator=generator).to(x.device).round() * 2 - 1
                place = (i, slice(None), slice(top, top + side), slice(edge, edge + side))
                tried[place] = x[left][place] + eps * signs
            tried = clipped(tried, x[left], eps)
            now = margin(logits(tried), y[left])
            better = now < least[left]
            best[left[better]], least[left[better]] = tried[better], now[better]
    return best


def area(share_of_queries: float, first: float = 0.8) -> float:
    """Of the square, as a share of the image."""
    return first * next((part for until, part in SQUARES if share_of_queries * 10_000 <= until), 1 / 512)


def in_batches(attack: Callable[[torch.Tensor, torch.Tensor], torch.Tensor], x: torch.Tensor, y: torch.Tensor,
               size: int) -> torch.Tensor:
    parts: Sequence[torch.Tensor] = [attack(a, b) for a, b in zip(x.split(size), y.split(size), strict=True)]
    return torch.cat(list(parts)) if len(x) else x
