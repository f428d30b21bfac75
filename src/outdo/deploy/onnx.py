"""A trained model as one ONNX graph: pixels or token ids in, probabilities out.

    images   pixels (B, H, W, 3) uint8, of the one size that the run's rows have
    texts    tokens (B, L) int64, padded with -1; and where words count by themselves, buckets (B, K) int64, padded
             with -1, and counts (B, K) float32, from `data.ngrams.counted`
    both     probabilities (B, C) float32

Every part of the model is in it, with its share, and the temperature. Decoding is not: see docs/shipping.md.
"""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from outdo.data.ngrams import BUCKETS
from outdo.training.model import Constant, Model, Neighbours, Network
from outdo.training.probe import Lexical, Linear

OPSET = 20


def export(model: Model, rows: tuple[int, int] | None = None) -> bytes:
    """The model's ONNX file. `rows` is the (H, W) of its images."""
    graph = Graph(model, rows).eval()
    examples = graph.example()
    batch = torch.export.Dim("batch")
    others = {"tokens": "length", "buckets": "words", "counts": "words"}
    dims = {name: torch.export.Dim(name, min=2) for name in others.values()}
    shapes = {name: {0: batch} | ({1: dims[others[name]]} if name in others else {}) for name in examples}
    with quiet(), torch.no_grad():
        program = torch.onnx.export(graph, (), kwargs=examples, input_names=list(examples),
                                    output_names=["probabilities"], dynamic_shapes=shapes, opset_version=OPSET,
                                    dynamo=True, verbose=False)
    assert program is not None
    return bare(program.model_proto).SerializeToString()  # type: ignore[no-any-return]


def bare(model: Any) -> Any:
    """Without the exporter's notes, which hold lines and paths of the source."""
    del model.metadata_props[:]
    for holder in (model.graph, *model.functions):
        for part in (holder, *holder.node, *holder.value_info):
            part.doc_string = ""
            del part.metadata_props[:]
    for tensor in (*model.graph.input, *model.graph.output, *model.graph.initializer):
        del tensor.metadata_props[:]
    return model


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without the exporter's remarks to itself."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


# ── the graph ────────────────────────────────────────────────────────────────────────────────────────────────────────


class Graph(nn.Module):
    """Parts of a `training.model.Model` in the operations that ONNX has."""

    def __init__(self, model: Model, rows: tuple[int, int] | None) -> None:
        super().__init__()
        self.kind, self.rows, self.temperature = model.backbone.kind, rows, model.temperature
        self.words = any(isinstance(part, Lexical) for _, part in model.parts)
        self.shares = [share for share, _ in model.parts]
        self.parts = nn.ModuleList(PARTS[type(part)](part) for _, part in model.parts)
        self.looks = [self._look(model, part) for _, part in model.parts]
        self.eyes = nn.ModuleDict({str(look): model.backbone.exportable(rows, look)
                                   for look in self.looks if look is not None})

    def _look(self, model: Model, part: Any) -> int | None:
        """The side at which a part looks at images (0 for texts); None where it does not need the backbone."""
        if isinstance(part, Lexical | Constant):
            return None
        if self.kind == "text":
            return 0
        size = part.size if isinstance(part, Network) else model.size
        return int(size or model.backbone.preprocessing()["size"])

    def forward(self, pixels: torch.Tensor | None = None, tokens: torch.Tensor | None = None,
                buckets: torch.Tensor | None = None, counts: torch.Tensor | None = None) -> torch.Tensor:
        rows = pixels if tokens is None else tokens
        assert rows is not None
        seen = {look: eye(rows) for look, eye in self.eyes.items()}
        total = rows.new_zeros((rows.shape[0], 1), dtype=torch.float32)
        for share, part, look in zip(self.shares, self.parts, self.looks, strict=True):
            given = (buckets, counts) if isinstance(part, LexicalPart) else (seen.get(str(look)),)
            total = total + share * part(*given)
        return torch.softmax(total / self.temperature, 1)

    def example(self) -> dict[str, torch.Tensor]:
        """Inputs to trace with; no length is 0 or 1, which a tracer would take for fixed."""
        if self.kind == "image":
            assert self.rows is not None
            return {"pixels": torch.arange(2 * 3 * self.rows[0] * self.rows[1]).remainder(251).to(torch.uint8).view(
                2, *self.rows, 3)}
        found = {"tokens": torch.tensor([[5, 6, 7, 8, 9], [9, 10, 11, -1, -1], [5, 6, 7, -1, -1]])}
        if self.words:
            found |= {"buckets": torch.tensor([[1, 2, 3, 9], [4, 5, -1, -1], [7, -1, -1, -1]]),
                      "counts": torch.tensor([[1.0, 1, 2, 1], [1, 1, 0, 0], [1, 0, 0, 0]])}
        return found


class LinearPart(nn.Module):
    def __init__(self, part: Linear) -> None:
        super().__init__()
        self.sets = part.sets
        self.register_buffer("weight", torch.from_numpy(part.weight))
        self.register_buffer("bias", torch.from_numpy(part.bias))

    def forward(self, seen: dict[str, torch.Tensor]) -> torch.Tensor:
        x = torch.cat([seen[name] for name in self.sets], 1) if len(self.sets) > 1 else seen[self.sets[0]]
        return x @ self.weight + self.bias  # type: ignore[operator, no-any-return]


class NetworkPart(nn.Module):
    def __init__(self, part: Network) -> None:
        super().__init__()
        self.head = part.head.float().cpu()

    def forward(self, seen: dict[str, torch.Tensor]) -> torch.Tensor:
        return self.head(seen["last"])  # type: ignore[no-any-return]


class ConstantPart(nn.Module):
    def __init__(self, part: Constant) -> None:
        super().__init__()
        self.register_buffer("bias", torch.from_numpy(part.bias)[None])

    def forward(self, seen: None) -> torch.Tensor:
        return self.bias  # type: ignore[return-value]  # the sum has the batch's size


class NeighboursPart(nn.Module):
    def __init__(self, part: Neighbours) -> None:
        super().__init__()
        self.k, self.warmth = part.k, part.warmth
        self.register_buffer("bank", torch.from_numpy(part.bank).T.contiguous())
        self.register_buffer("codes", torch.from_numpy(part.codes))
        self.register_buffer("one_hot", torch.eye(part.classes))

    def forward(self, seen: dict[str, torch.Tensor]) -> torch.Tensor:
        x = seen["last"]
        alike = (x / x.square().sum(1, keepdim=True).sqrt().clamp_min(1e-12)) @ self.bank  # type: ignore[operator]
        near, which = alike.topk(self.k, 1)
        weights = ((near - 1) / self.warmth).exp()
        votes = (weights[:, None] @ self.one_hot[self.codes[which]])[:, 0]  # type: ignore[index]
        return (votes / votes.sum(1, keepdim=True)).clamp_min(1e-4).log()


class LexicalPart(nn.Module):
    """TF-IDF of buckets: those that training never saw, and padding, share a last row of zeros."""

    def __init__(self, part: Lexical) -> None:
        super().__init__()
        known, classes = part.weight.shape
        where = torch.full((BUCKETS + 1,), known)
        where[torch.from_numpy(part.columns)] = torch.arange(known)
        self.register_buffer("where", where)
        self.register_buffer("idf", torch.cat([torch.from_numpy(part.idf), torch.zeros(1)]))
        self.register_buffer("weight", torch.cat([torch.from_numpy(part.weight), torch.zeros(1, classes)]))
        self.register_buffer("bias", torch.from_numpy(part.bias))

    def forward(self, buckets: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
        at = self.where[torch.where(buckets < 0, BUCKETS, buckets)]  # type: ignore[index]
        weighted = (1 + counts.clamp_min(1).log()) * self.idf[at]  # type: ignore[index]
        weighted = weighted / weighted.square().sum(1, keepdim=True).sqrt().clamp_min(1e-12)
        return (weighted[:, None] @ self.weight[at])[:, 0] + self.bias  # type: ignore[index, operator, no-any-return]


PARTS: dict[type, Any] = {Linear: LinearPart, Network: NetworkPart, Constant: ConstantPart, Neighbours: NeighboursPart,
                          Lexical: LexicalPart}
