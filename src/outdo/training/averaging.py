"""Between the pretrained and the tuned weights: WiSE-FT (Wortsman et al. 2022).

A straight line in weight space from the frozen backbone with its linear probe to the fine-tuned network often holds a
point better than both, above all when fine-tuning went too far. Validation says where.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)


def best_share(parameters: Sequence[torch.nn.Parameter], before: Sequence[torch.Tensor], loss: Callable[[], float],
               shares: Sequence[float] = SHARES) -> tuple[float, float]:
    """Leave `parameters` at the best point between `before` and where they are; (its share of the way, its loss)."""
    after = [p.detach().clone() for p in parameters]
    losses = []
    for share in shares:
        _put(parameters, before, after, share)
        losses.append(loss())
    best = min(range(len(shares)), key=lambda i: (losses[i], shares[i]))
    _put(parameters, before, after, shares[best])
    return shares[best], losses[best]


def _put(parameters: Sequence[torch.nn.Parameter], before: Sequence[torch.Tensor], after: Sequence[torch.Tensor],
         share: float) -> None:
    with torch.no_grad():
        for parameter, old, new in zip(parameters, before, after, strict=True):
            parameter.copy_(new if share == 1.0 else torch.lerp(old, new, share))
