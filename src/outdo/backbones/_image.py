"""A backbone for images over any network that has timm's `forward_features`, `forward_head`, `get_classifier`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from outdo import runtime
from outdo.backbones import _augment, _chain, _fold
from outdo.contracts import Encoded, Inputs, Kind, Origin, Precision, Progress, State
from outdo.errors import BackboneError

STAGES = 3  # how many of the last stages "pools" looks at


class ImageBackbone:
    """Satisfies `contracts.Backbone`. Rows are (N, H, W, 3) uint8; State is {"x": (B, C, H, W) or tokens}.

    The module stays in eval mode: batch norm keeps its pretrained statistics while it is fine-tuned. Without
    gradients `run`, `pool` and `features` go through a fast frozen copy of the weights as they are at that moment.
    """

    kind: Kind = "image"
    precision: Precision = "float32"

    def __init__(self, name: str, module: nn.Module, origin: Origin, preprocessing: Mapping[str, Any],
                 example_size: int | None = None, architecture: str = "") -> None:
        """`example_size`: of the one image that is run to look inside; smaller is quicker, where the network can.
        `architecture`: what the weights were put into, where `name` says more than that."""
        self.name, self.origin, self.architecture = name, origin, architecture or name
        self._preprocessing = dict(preprocessing)
        self.size = int(preprocessing["size"])
        self.torch_module = module.eval().to(runtime.device()).to(memory_format=runtime.layout())
        self._fast = _fold.Follower(module, self._fast_chain)
        with runtime.one_thread():
            self._look_inside(_chain.watch(module, self._example(example_size or self.size)))

    def _look_inside(self, trace: _chain.Trace) -> None:
        self.chain = _chain.cut(trace)
        self.pairs = _fold.find_pairs(trace) if runtime.uses("folding") else []
        self.depth = len(self.chain.blocks)
        self._stages = stage_ends([block.shape for block in self.chain.blocks])
        self._parameters = self._assign(pooling_parameters(trace.module, trace.output))
        self.feature_sets = {key: value.shape[1] for key, value in self._sets(self.chain, trace.example).items()}
        self.width = self.feature_sets["last"]

    @property
    def device(self) -> torch.device:
        return next(self.torch_module.parameters()).device

    def _example(self, size: int) -> torch.Tensor:
        x = torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(0))
        return x.to(self.device).contiguous(memory_format=runtime.layout())

    def _fast_chain(self, precision: str) -> _chain.Chain:
        twin = _fold.fold_for_inference(self.torch_module, self.pairs, precision)
        return _chain.Chain(_fold.fuse(twin, self.pairs) if runtime.uses("fusing") else twin, self.chain.blocks)

    def _assign(self, pooling: list[nn.Parameter]) -> list[list[nn.Parameter]]:
        """Each parameter goes to the first block that uses it; pooling's own to the last block."""
        seen: set[int] = set()

        def claim(parameters: Iterable[nn.Parameter]) -> list[nn.Parameter]:
            mine = [p for p in parameters if id(p) not in seen]
            seen.update(map(id, mine))
            return mine

        blocks = [claim(p for m in self.chain.block_modules(i) for p in m.parameters()) for i in range(self.depth)]
        claim(classifier_parameters(self.torch_module))
        blocks[-1] += claim(pooling)
        if self.chain.blocks[0].opaque:
            blocks[0] += claim(self.torch_module.parameters())
        return blocks

    # ── encoding ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def preprocessing(self) -> dict[str, Any]:
        return dict(self._preprocessing)

    @property
    def depends_on(self) -> list[Any]:
        from outdo.data import encode

        return [self.architecture, encode.version()]

    def encode(self, inputs: Inputs, cache: Path | None, progress: Progress | None = None) -> Encoded:
        from outdo.data.encode import encode_images

        said = self._preprocessing
        store = tuple(said["store"]) if said.get("store") else None
        encoded, stored = encode_images(inputs, size=self.size, fit=said["fit"], cache=cache, store=store,
                                        progress=progress)
        said["store"] = list(stored)
        return encoded

    def prepare(self, rows: np.ndarray | torch.Tensor, size: int | None = None) -> State:
        """(B, H, W, 3) uint8 to {"x": (B, 3, size, size)} normalised, channels last."""
        size = size or self.size
        x = torch.as_tensor(rows).to(self.device).permute(0, 3, 1, 2)
        x = x.contiguous(memory_format=runtime.layout())  # as channels last: nothing is copied
        if x.shape[2:] != (size, size):
            x = resize(x, size, self._preprocessing["interpolation"])
        mean, std = (torch.tensor(self._preprocessing[k], device=x.device).view(1, 3, 1, 1) for k in ("mean", "std"))
        return {"x": torch.addcmul(-mean / std, x, 1 / (255 * std))}

    def augment(self, rows: torch.Tensor, strength: float, generator: torch.Generator) -> torch.Tensor:
        return _augment.images(rows, strength, generator)

    def lexical(self, rows: np.ndarray) -> None:
        return None

    # ── running ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def run(self, state: State, start: int, stop: int) -> State:
        x = state["x"]
        try:
            if not torch.is_grad_enabled():
                return {**state, "x": self._fast(self.precision).run(x.to(_fold.DTYPES[self.precision]), start, stop)}
            with _fold.training(self.torch_module, self.pairs, self.precision):
                return {**state, "x": self.chain.run(x, start, stop)}
        except (AssertionError, RuntimeError) as error:
            if start > 0 or x.shape[-1] == self.size:
                raise
            raise BackboneError(f"'{self.name}' cannot take images of {x.shape[-1]} pixels ({error})",
                                fix=f"--input-size {self.size}") from error

    def pool(self, state: State) -> torch.Tensor:
        if not torch.is_grad_enabled():
            return pooled(self._fast(self.precision).module, state["x"].to(_fold.DTYPES[self.precision])).float()
        with _fold.training(self.torch_module, self.pairs, self.precision):
            return pooled(self.torch_module, state["x"]).float()

    def features(self, rows: np.ndarray | torch.Tensor, size: int | None = None) -> dict[str, torch.Tensor]:
        x = self.prepare(rows, size)["x"]
        if x.requires_grad:
            with _fold.training(self.torch_module, self.pairs, self.precision):
                return self._sets(self.chain, x)
        return self._sets(self._fast(self.precision), x.to(_fold.DTYPES[self.precision]))

    def exportable(self, rows: tuple[int, int] | None, size: int | None = None) -> nn.Module:
        from outdo.backbones._export import ExportableImages

        assert rows is not None
        twin = _fold.fold_for_inference(self.torch_module, self.pairs, "float32")
        ends = [self.chain.blocks[block].modules[-1] for block in self._stages if block + 1 < self.depth]
        return ExportableImages(twin, ends, rows, size or self.size, self._preprocessing)

    def _sets(self, chain: _chain.Chain, x: torch.Tensor) -> dict[str, torch.Tensor]:
        means = []
        with torch.set_grad_enabled(x.requires_grad):
            for block in range(self.depth):
                x = chain.run(x, block, block + 1)
                if block in self._stages:
                    means.append(spatial_mean(x))
            return sets_of(chain.module, x, means)

    def block_parameters(self, block: int) -> list[nn.Parameter]:
        return self._parameters[block]


def sets_of(module: nn.Module, x: torch.Tensor, means: list[torch.Tensor]) -> dict[str, torch.Tensor]:
    """Every feature set, from what the body gave and the means of its last stages."""
    sets = {"last": pooled(module, x), "pools": torch.cat(means, 1)}
    if module.num_classes:
        sets["classes"] = F.softmax(module.forward_head(x).float(), 1).sqrt()  # type: ignore[operator]
    return {key: value.float() for key, value in sets.items()}


def resize(x: torch.Tensor, size: int, interpolation: str) -> torch.Tensor:
    """(B, 3, H, W) to (B, 3, size, size) of the same type. CUDA resizes no bytes: there they go by way of floats."""
    if x.dtype == torch.uint8 and x.device.type != "cpu":
        return resize(x.float(), size, interpolation).round().clamp(0, 255).to(torch.uint8)
    mode = "bilinear" if interpolation == "bilinear" else "bicubic"
    return F.interpolate(x, (size, size), mode=mode, antialias=True, align_corners=False)


def classifier_parameters(module: nn.Module) -> Iterator[nn.Parameter]:
    """Of the pretrained classifier, or classifiers where the network was distilled."""
    found = module.get_classifier()  # type: ignore[operator]
    for classifier in found if isinstance(found, tuple) else (found,):
        yield from classifier.parameters()


def pooled(module: nn.Module, x: torch.Tensor) -> torch.Tensor:
    return module.forward_head(x, pre_logits=True)  # type: ignore[operator, no-any-return]


def pooling_parameters(module: nn.Module, x: torch.Tensor) -> list[nn.Parameter]:
    """The parameters that pooling itself uses, found by asking autograd."""
    with torch.enable_grad():
        output = pooled(module, x)
        if not output.requires_grad:
            return []
        parameters = [p for p in module.parameters() if p.requires_grad]
        used = torch.autograd.grad(output.sum(), parameters, allow_unused=True)
    return [p for p, gradient in zip(parameters, used, strict=True) if gradient is not None]


def stage_ends(shapes: list[tuple[int, ...]]) -> list[int]:
    """The last block of each of the last stages: where the next block's shape differs, or each of the last blocks
    where all have one shape (transformers)."""
    ends = [i for i, shape in enumerate(shapes) if i + 1 == len(shapes) or shapes[i + 1] != shape]
    ends = [i for i in ends if shapes[i]]  # an opaque stem's shape is not known
    return ends[-STAGES:] if len(ends) > 1 else [i for i, shape in enumerate(shapes) if shape][-STAGES:]


def spatial_mean(x: torch.Tensor) -> torch.Tensor:
    """(B, D) mean over places, for (B, D, H, W), (B, H, W, D) with H = W, and tokens (B, N, D)."""
    if x.ndim == 4:
        channels_last = x.shape[1] == x.shape[2] != x.shape[3]
        return x.mean((1, 2) if channels_last else (2, 3))
    return x.mean(1) if x.ndim == 3 else x
