"""Where a model looked: maps over images from its last block, weights of the words of a text."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from outdo.contracts import batches
from outdo.data import inputs
from outdo.training.features import BATCH
from outdo.training.model import Model, Network

WORDS = 60  # of a text; the rest is not tried


def maps(model: Model, images: np.ndarray, codes: np.ndarray) -> np.ndarray | None:
    """(n, h, w) in 0..1 for images (n, H, W, 3) uint8: what spoke for the class `codes` (n,) at each place of the part
    that the model sees, as coarse as the output of its last block. None where there is no such block.

    Grad-CAM (Selvaraju et al. 2017): the block's channels, weighed by the mean gradient of the class's output.
    """
    outputs, last = model.differentiable(), _last_module(model)
    if outputs is None or last is None:
        return None
    kept: list[torch.Tensor] = []
    handle = last.register_forward_hook(lambda module, args, output: kept.append(output))
    found: list[np.ndarray] = []
    try:
        for rows in batches(len(images), BATCH["image"]):
            part, wanted = torch.from_numpy(images[rows]), torch.from_numpy(codes[rows])
            x = (part.permute(0, 3, 1, 2).float() / 255).requires_grad_(True)
            with torch.enable_grad():
                score = outputs(x).gather(1, wanted[:, None]).sum()
                if not kept or not score.requires_grad:
                    return None
                block = kept[-1]
                (slope,) = torch.autograd.grad(score, block, allow_unused=True)
            if slope is None or (place := _places(block)) is None or (weight := _places(slope)) is None:
                return None
            heat = torch.relu((place * weight.mean((2, 3), keepdim=True)).sum(1)).detach()
            found.append((heat / heat.flatten(1).amax(1).clamp_min(1e-12)[:, None, None]).float().cpu().numpy())
            kept.clear()
    finally:
        handle.remove()
    return np.concatenate(found) if found else None


def _last_module(model: Model) -> Any:
    backbone: Any = next((part.backbone for _, part in model.parts if isinstance(part, Network)), model.backbone)
    modules = backbone.chain.block_modules(backbone.depth - 1) if hasattr(backbone, "chain") else []
    return modules[-1] if modules else None


def _places(x: torch.Tensor) -> torch.Tensor | None:
    """(B, C, h, w) from that, from (B, h, w, C), and from tokens (B, N, C), the last of which are the image's."""
    if x.ndim == 4:
        return x.permute(0, 3, 1, 2) if x.shape[1] == x.shape[2] != x.shape[3] else x
    if x.ndim != 3:
        return None
    side = int(x.shape[1] ** 0.5)
    return x[:, x.shape[1] - side**2 :].transpose(1, 2).reshape(len(x), -1, side, side)


def word_weights(model: Any, texts: Sequence[str], codes: Sequence[int]) -> list[list[tuple[str, float]]]:
    """For each text its words, and by how much the probability of the class falls when one is left out: [(word,
    weight)], negative where it rises. Blanks belong to the word before them."""
    words = [re.findall(r"\S+\s*", text)[:WORDS] for text in texts]
    rests = [text.lstrip()[len("".join(w)) :] for w, text in zip(words, texts, strict=True)]
    tried = list(texts)
    for w, rest in zip(words, rests, strict=True):
        tried += ["".join([*w[:i], *w[i + 1 :], rest]) for i in range(len(w))]
    p = model.predict(inputs.texts(tried))
    found, at = [], len(texts)
    for i, w in enumerate(words):
        without = p[at : at + len(w), codes[i]]
        found.append([(word, float(p[i, codes[i]] - q)) for word, q in zip(w, without, strict=True)])
        at += len(w)
    return found
