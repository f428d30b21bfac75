"""A backbone for texts over any encoder that has transformers' `input_ids`, `attention_mask`, `last_hidden_state`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import scipy.sparse
import torch
from torch import nn
from torch.nn import functional as F

from outdo import runtime
from outdo.backbones import _augment
from outdo.backbones._layers import Layers
from outdo.contracts import Encoded, Inputs, Kind, Origin, Progress, State

LAYERS = 3  # how many of the last layers "pools" looks at
BUCKETS = 2**16  # V of `lexical`
Tokenise = Callable[[Sequence[str]], list[list[int]]]


@dataclass(frozen=True)
class Pooling:
    """How token states become one vector."""

    mode: Literal["mean", "first"] = "mean"
    normalise: bool = False

    def __call__(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        if self.mode == "first":
            pooled = x[:, 0]
        else:
            weights = mask.to(x.dtype).unsqueeze(-1)
            pooled = (x * weights).sum(1) / weights.sum(1).clamp(min=1)
        return F.normalize(pooled, dim=1) if self.normalise else pooled


class TextBackbone:
    """Satisfies `contracts.Backbone`. Rows are (N, L) int32 token ids padded with -1; State is
    {"x": ids (B, L) or hidden states (B, L, D), "mask": (B, L) bool}, cut to the longest text of the batch.
    """

    kind: Kind = "text"

    def __init__(self, name: str, module: nn.Module, origin: Origin, preprocessing: Mapping[str, Any], *,
                 tokenise: Tokenise, vocabulary: int, padding: int, pooling: Pooling) -> None:
        self.name, self.origin, self.pooling, self.tokenise, self.padding = name, origin, pooling, tokenise, padding
        self._preprocessing = dict(preprocessing)
        self.torch_module = module.eval().to(runtime.device())
        self.layers = Layers(module, vocabulary)
        self.depth = self.layers.depth
        self._measure()

    @property
    def device(self) -> torch.device:
        return next(self.torch_module.parameters()).device

    def _measure(self) -> None:
        """Widths of the feature sets, and which block each parameter belongs to."""
        self.feature_sets = {key: value.shape[1] for key, value in self.features(np.zeros((1, 4), np.int32)).items()}
        self.width = self.feature_sets["last"]
        owned = [list(layer.parameters()) for layer in self.layers.layers]
        known = {id(p) for layer in owned for p in layer}
        rest = [p for p in self.torch_module.parameters() if id(p) not in known]
        after = self._used_after_layers(rest) if owned else []
        self._parameters = [[p for p in rest if all(p is not q for q in after)], *owned]
        self._parameters[-1] += after

    def _used_after_layers(self, candidates: list[nn.Parameter]) -> list[nn.Parameter]:
        mask = torch.ones(1, 4, dtype=torch.bool, device=self.device)
        width = self._hidden_width()
        with torch.enable_grad():
            output = self.layers.tail(torch.zeros(1, 4, width, device=self.device), mask)
            if not output.requires_grad:
                return []
            used = torch.autograd.grad(output.sum(), candidates, allow_unused=True)
        return [p for p, gradient in zip(candidates, used, strict=True) if gradient is not None]

    def _hidden_width(self) -> int:
        state = self.prepare(np.zeros((1, 4), np.int32))
        with torch.no_grad():
            return self.run(state, 0, 1)["x"].shape[-1]

    # ── encoding ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def preprocessing(self) -> dict[str, Any]:
        return dict(self._preprocessing)

    def encode(self, inputs: Inputs, cache: Path | None, progress: Progress | None = None) -> Encoded:
        from outdo.data.encode import encode_texts

        return encode_texts(inputs, tokenise=self.tokenise, max_length=self._preprocessing["max_length"],
                            progress=progress)

    def prepare(self, rows: np.ndarray | torch.Tensor, size: int | None = None) -> State:
        """(B, L) ids padded with -1 to {"x", "mask"}, at most `size` tokens long."""
        ids = torch.as_tensor(rows).to(self.device)
        longest = max(1, int((ids >= 0).sum(1).max())) if len(ids) else 1
        ids = ids[:, : min(longest, size or longest)].long()
        mask = ids >= 0
        return {"x": torch.where(mask, ids, self.padding), "mask": mask}

    def augment(self, rows: torch.Tensor, strength: float, generator: torch.Generator) -> torch.Tensor:
        return _augment.texts(rows, strength, generator)

    def lexical(self, rows: np.ndarray) -> scipy.sparse.csr_matrix:
        return hashed_counts(rows)

    # ── running ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def run(self, state: State, start: int, stop: int) -> State:
        return {**state, "x": self.layers.run(state["x"], state["mask"], start, stop)}

    def pool(self, state: State) -> torch.Tensor:
        return self.pooling(state["x"], state["mask"])

    def features(self, rows: np.ndarray | torch.Tensor, size: int | None = None) -> dict[str, torch.Tensor]:
        with torch.inference_mode():
            state = self.prepare(rows, size)
            kept: list[torch.Tensor] = []
            x = self.layers.run(state["x"], state["mask"], 0, self.depth, kept)
            pools = [Pooling()(k.float(), state["mask"]) for k in kept[-LAYERS:] or [x]]
            return {"last": self.pooling(x.float(), state["mask"]), "pools": torch.cat(pools, 1)}

    def block_parameters(self, block: int) -> list[nn.Parameter]:
        return self._parameters[block]


def hashed_counts(rows: np.ndarray) -> scipy.sparse.csr_matrix:
    """(N, BUCKETS) float32 counts of single tokens and of pairs of neighbours, hashed (Weinberger et al. 2009)."""
    ids = np.asarray(rows).astype(np.uint64)
    here = np.asarray(rows) >= 0
    pairs = here[:, 1:] & here[:, :-1]
    hashes = [bucket(ids[here]), bucket(ids[:, :-1][pairs] * np.uint64(1_000_003) + ids[:, 1:][pairs] + np.uint64(1 << 32))]
    owners = [np.nonzero(here)[0], np.nonzero(pairs)[0]]
    columns, owner = np.concatenate(hashes), np.concatenate(owners)
    ones = np.ones(len(columns), np.float32)
    return scipy.sparse.csr_matrix((ones, (owner, columns)), shape=(len(ids), BUCKETS))  # doubles are summed


def bucket(keys: np.ndarray) -> np.ndarray:
    """uint64 keys to their bucket: the high bits of a multiplication by 2**64 / golden ratio (Knuth)."""
    return ((keys * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(48)).astype(np.int64)
