"""A backbone for images over any network that has timm's `forward_features`, `forward_head`, `get_classifier`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from outdo import runtime
from outdo.backbones import _augment, _chain
from outdo.contracts import Encoded, Inputs, Kind, Origin, Progress, State
from outdo.errors import BackboneError

STAGES = 3  # how many of the last stages "pools" looks at


class ImageBackbone:
    """Satisfies `contracts.Backbone`. Rows are (N, H, W, 3) uint8; State is {"x": (B, C, H, W) or tokens}.

    The module stays in eval mode: batch norm keeps its pretrained statistics while it is fine-tuned.
    """

    kind: Kind = "image"

    def __init__(self, name: str, module: nn.Module, origin: Origin, preprocessing: Mapping[str, Any]) -> None:
        self.name, self.origin = name, origin
        self._preprocessing = dict(preprocessing)
        self.size = int(preprocessing["size"])
        self.torch_module = module.eval().to(device=runtime.device(), memory_format=torch.channels_last)
        example = torch.zeros(1, 3, self.size, self.size, device=self.device).normal_(generator=self._noise())
        self.chain = _chain.cut(module, module.forward_features, example)  # type: ignore[arg-type]
        self.depth = len(self.chain.blocks)
        self._stages = stage_ends([b.shape for b in self.chain.blocks])
        self._measure(example)

    @property
    def device(self) -> torch.device:
        return next(self.torch_module.parameters()).device

    def _noise(self) -> torch.Generator:
        return torch.Generator(self.device).manual_seed(0)

    def _measure(self, example: torch.Tensor) -> None:
        """Widths of the feature sets, and which block each parameter belongs to."""
        with torch.no_grad():
            state, kept = self._walk({"x": example})
        with torch.enable_grad():
            pooled = self.pool(state)
            head = pooling_parameters(pooled, self.torch_module)
            with torch.no_grad():
                sets = self._feature_sets(pooled, kept)
        self.feature_sets = {key: value.shape[1] for key, value in sets.items()}
        self.width = self.feature_sets["last"]
        self._parameters = self._assign(head)

    def _assign(self, head: list[nn.Parameter]) -> list[list[nn.Parameter]]:
        """Each parameter goes to the first block that uses it; pooling's own to the last block."""
        blocks: list[list[nn.Parameter]] = []
        seen: set[int] = set()

        def claim(parameters: Any) -> list[nn.Parameter]:
            mine = [p for p in parameters if id(p) not in seen]
            seen.update(map(id, mine))
            return mine

        for index in range(self.depth):
            blocks.append(claim(p for m in self.chain.block_modules(index) for p in m.parameters()))
        blocks[-1] += claim(head)
        classifier = classifier_of(self.torch_module)
        claim(classifier.parameters() if classifier is not None else [])
        if self.chain.blocks[0].until is not None or not self.chain.blocks[0].modules:
            blocks[0] += claim(self.torch_module.parameters())
        return blocks

    # ── encoding ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def preprocessing(self) -> dict[str, Any]:
        return dict(self._preprocessing)

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
        x = torch.as_tensor(rows).to(self.device).permute(0, 3, 1, 2)  # as channels last: nothing is copied
        if x.shape[2:] != (size, size):
            x = resize(x, size, self._preprocessing["interpolation"])
        scale = 255 * torch.tensor(self._preprocessing["std"], device=x.device).view(1, 3, 1, 1)
        shift = torch.tensor(self._preprocessing["mean"], device=x.device).view(1, 3, 1, 1) * 255
        return {"x": x.float().sub_(shift).div_(scale)}

    def augment(self, rows: torch.Tensor, strength: float, generator: torch.Generator) -> torch.Tensor:
        return _augment.images(rows, strength, generator)

    def lexical(self, rows: np.ndarray) -> None:
        return None

    # ── running ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def run(self, state: State, start: int, stop: int) -> State:
        return {**state, "x": self._checked(state["x"], start, stop)}

    def _checked(self, x: torch.Tensor, start: int, stop: int) -> torch.Tensor:
        try:
            return self.chain.run(x, start, stop)
        except (AssertionError, RuntimeError) as error:
            if start == 0 and x.shape[-1] != self.size:
                raise BackboneError(f"'{self.name}' cannot take images of {x.shape[-1]} pixels ({error})",
                                    fix=f"--input-size {self.size}") from error
            raise

    def pool(self, state: State) -> torch.Tensor:
        return self.torch_module.forward_head(state["x"], pre_logits=True)  # type: ignore[operator, no-any-return]

    def features(self, rows: np.ndarray | torch.Tensor, size: int | None = None) -> dict[str, torch.Tensor]:
        with torch.inference_mode():
            state, kept = self._walk(self.prepare(rows, size))
            return self._feature_sets(self.pool(state), kept)

    def _walk(self, state: State) -> tuple[State, list[torch.Tensor]]:
        """The whole body, and what it gave at the end of the last stages."""
        kept = []
        for block in range(self.depth):
            state = self.run(state, block, block + 1)
            if block in self._stages:
                kept.append(state["x"])
        return state, kept

    def _feature_sets(self, pooled: torch.Tensor, kept: list[torch.Tensor]) -> dict[str, torch.Tensor]:
        sets = {"last": pooled, "pools": torch.cat([spatial_mean(x) for x in kept], 1)}
        classifier = classifier_of(self.torch_module)
        if classifier is not None:
            sets["classes"] = F.softmax(classifier(pooled).float(), 1).sqrt()
        return {key: value.float() for key, value in sets.items()}

    def block_parameters(self, block: int) -> list[nn.Parameter]:
        return self._parameters[block]


def resize(x: torch.Tensor, size: int, interpolation: str) -> torch.Tensor:
    """(B, 3, H, W) uint8 to (B, 3, size, size) uint8."""
    mode = "bilinear" if interpolation == "bilinear" else "bicubic"
    return F.interpolate(x, (size, size), mode=mode, antialias=True, align_corners=False)


def classifier_of(module: nn.Module) -> nn.Module | None:
    """The pretrained classifier; None when the network has none (its place is held by an identity)."""
    found = module.get_classifier()  # type: ignore[operator]
    return found if isinstance(found, nn.Module) and any(True for _ in found.parameters()) else None


def pooling_parameters(pooled: torch.Tensor, module: nn.Module) -> list[nn.Parameter]:
    """The parameters that pooling itself uses, found by asking autograd."""
    if not pooled.requires_grad:
        return []
    parameters = [p for p in module.parameters() if p.requires_grad]
    used = torch.autograd.grad(pooled.sum(), parameters, allow_unused=True)
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
