"""A backbone for texts over any encoder that has transformers' `input_ids`, `attention_mask`, `last_hidden_state`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import scipy.sparse
import torch
from torch import nn
from torch.nn import functional as F

from outdo import runtime
from outdo.backbones import _augment, _fold
from outdo.backbones._layers import Layers, example, find_layers
from outdo.contracts import Encoded, Inputs, Kind, Origin, Precision, Progress, State
from outdo.data.ngrams import BUCKETS, hashed

LAYERS = 3  # how many of the last layers "pools" looks at
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
    precision: Precision = "float32"
    texts_cut = 0  # how many texts of the last `encode` were longer than max_length

    def __init__(self, name: str, module: nn.Module, origin: Origin, preprocessing: Mapping[str, Any], *,
                 tokenise: Tokenise, padding: int, pooling: Pooling, tokenizer_json: bytes | None = None,
                 architecture: str = "") -> None:
        """`tokenizer_json`: the file that says how `tokenise` works, for those who have no other way to run it.
        `architecture`: what the weights were put into, where `name` does not say it."""
        self.tokenizer_json, self.architecture = tokenizer_json, architecture or name
        self.name, self.origin, self.pooling, self.tokenise, self.padding = name, origin, pooling, tokenise, padding
        self._preprocessing = dict(preprocessing)
        self.torch_module = module.eval().to(runtime.device())
        self._fast = _fold.Follower(module, self._fast_layers)
        with runtime.one_thread():
            self._look_inside(module)

    def _look_inside(self, module: nn.Module) -> None:
        self.layers = Layers(module, find_layers(module))
        self.depth = self.layers.depth
        self.feature_sets = {key: value.shape[1] for key, value in self._sets(self.layers, *example(module)).items()}
        self.width = self.feature_sets["last"]
        self._parameters = self._assign()

    @property
    def device(self) -> torch.device:
        return next(self.torch_module.parameters()).device

    def _fast_layers(self, precision: str) -> Layers:
        return Layers(_fold.fold_for_inference(self.torch_module, [], precision), self.layers.names)

    def _assign(self) -> list[list[nn.Parameter]]:
        """A layer's own to its block, what is only used after the layers to the last block, the rest to the first."""
        owned = [list(layer.parameters()) for layer in self.layers.layers]
        known = {id(p) for layer in owned for p in layer}
        rest = [p for p in self.torch_module.parameters() if id(p) not in known]
        after = {id(p) for p in self._used_after_layers(rest)} if owned else set()
        blocks = [[p for p in rest if id(p) not in after], *owned]
        blocks[-1] += [p for p in rest if id(p) in after]
        return blocks

    def _used_after_layers(self, candidates: list[nn.Parameter]) -> list[nn.Parameter]:
        ids, mask = example(self.torch_module)
        with torch.no_grad():
            x = self.layers.run(ids, mask, 0, 1)
        with torch.enable_grad():
            output = self.layers.tail(x, mask)
            if not output.requires_grad:
                return []
            used = torch.autograd.grad(output.sum(), candidates, allow_unused=True)
        return [p for p, gradient in zip(candidates, used, strict=True) if gradient is not None]

    # ── encoding ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def preprocessing(self) -> dict[str, Any]:
        return dict(self._preprocessing)

    @property
    def depends_on(self) -> list[Any]:
        return [self.architecture, self.padding, asdict(self.pooling)]

    def encode(self, inputs: Inputs, cache: Path | None, progress: Progress | None = None) -> Encoded:
        from outdo.data.encode import encode_texts

        encoded, self.texts_cut = encode_texts(inputs, self.tokenise, self._preprocessing["max_length"], progress)
        return encoded

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
        x, mask = state["x"], state["mask"]
        if torch.is_grad_enabled():
            with _fold.training(self.torch_module, [], self.precision):
                return {**state, "x": self.layers.run(x, mask, start, stop)}
        x = x.to(_fold.DTYPES[self.precision]) if start else x
        return {**state, "x": self._fast(self.precision).run(x, mask, start, stop)}

    def pool(self, state: State) -> torch.Tensor:
        return self.pooling(state["x"].float(), state["mask"])

    def features(self, rows: np.ndarray | torch.Tensor, size: int | None = None) -> dict[str, torch.Tensor]:
        state = self.prepare(rows, size)
        return self._sets(self._fast(self.precision), state["x"], state["mask"])

    def exportable(self, rows: tuple[int, int] | None = None, size: int | None = None) -> nn.Module:
        from outdo.backbones._export import ExportableTexts

        return ExportableTexts(self)

    def _sets(self, layers: Layers, ids: torch.Tensor, mask: torch.Tensor) -> dict[str, torch.Tensor]:
        kept: list[torch.Tensor] = []
        with torch.no_grad():
            x = layers.run(ids, mask, 0, self.depth, kept)
            pools = [Pooling()(k.float(), mask) for k in kept[-LAYERS:] or [x]]
            return {"last": self.pooling(x.float(), mask), "pools": torch.cat(pools, 1)}

    def block_parameters(self, block: int) -> list[nn.Parameter]:
        return self._parameters[block]


def hashed_counts(rows: np.ndarray) -> scipy.sparse.csr_matrix:
    """(N, BUCKETS) float32 counts of single tokens and of pairs of neighbours, hashed."""
    owners, buckets = hashed(rows)
    ones = np.ones(len(buckets), np.float32)
    return scipy.sparse.csr_matrix((ones, (owners, buckets)), shape=(len(rows), BUCKETS))  # doubles are summed
