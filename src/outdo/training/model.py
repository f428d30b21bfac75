"""A trained model: a backbone, and parts that turn what it says into outputs.

Every contestant of ours is one of these: a linear probe, a probe with a lexical part, k nearest neighbours, the
majority class, a fine-tuned network. So all are predicted, timed, measured, saved and loaded by the same code.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from outdo.contracts import Backbone, Encoded, Inputs, Rows, Task, batches
from outdo.data.encode import ArrayRows
from outdo.data.images import CENTRE
from outdo.errors import DataError, RunError
from outdo.storage import read_json, read_tensors, write_json, write_tensors
from outdo.training.features import BATCH, Features
from outdo.training.probe import Lexical, Linear


@dataclass(frozen=True)
class Constant:
    """The same outputs whatever comes in: log of the class shares."""

    bias: np.ndarray  # (C,) float32


@dataclass(frozen=True)
class Neighbours:
    """Votes of the k most alike training examples, by cosine of "last" features, weighed by exp(cosine / warmth)."""

    bank: np.ndarray  # (N, D) float32, rows of length 1
    codes: np.ndarray  # (N,) int64
    k: int
    classes: int
    warmth: float = 0.07

    def __call__(self, features: Mapping[str, np.ndarray]) -> np.ndarray:
        x = unit(features["last"])
        out = np.empty((len(x), self.classes), np.float32)
        for part in batches(len(x), 1024):
            alike = torch.from_numpy(x[part] @ self.bank.T)
            near, which = alike.topk(self.k, 1)
            votes = torch.zeros(len(alike), self.classes)
            votes.scatter_add_(1, torch.from_numpy(self.codes)[which], ((near - 1) / self.warmth).exp())
            out[part] = (votes / votes.sum(1, keepdim=True)).clamp_min(1e-4).log().numpy()
        return out


@dataclass
class Network:
    """A tuned copy of the backbone's last blocks and a head on its pooled output."""

    backbone: Backbone  # with the tuned weights in place
    head: torch.nn.Module
    first: int  # the first block that differs from the pretrained weights
    size: int | None = None

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            state = self.backbone.run(self.backbone.prepare(rows, self.size), 0, self.backbone.depth)
            return self.head(self.backbone.pool(state)).float().cpu().numpy()

    def tensors(self) -> dict[str, torch.Tensor]:
        """Only what was trained; the rest is the backbone's own."""
        own = {id(p) for block in range(self.first, self.backbone.depth) for p in self.backbone.block_parameters(block)}
        tuned = {f"backbone.{k}": v for k, v in self.backbone.torch_module.named_parameters() if id(v) in own}
        return tuned | {f"head.{k}": v for k, v in self.head.state_dict().items()}


def unit(x: np.ndarray) -> np.ndarray:
    return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)


@dataclass
class Model:
    """Satisfies `contracts.Runnable`. Outputs are the parts' outputs, each times its share, summed."""

    name: str
    task: Task
    classes: tuple[str, ...]
    backbone: Backbone
    parts: list[tuple[float, Any]]  # (share, part)
    temperature: float = 1.0
    size: int | None = None  # of the images that frozen features are taken from
    about: dict[str, Any] = field(default_factory=dict)

    def outputs(self, encoded: Encoded, indices: np.ndarray, features: Features) -> np.ndarray:
        """(n, C) raw outputs; pooled features come from the cache that `features` keeps."""
        need = any(isinstance(part, Linear | Neighbours) for _, part in self.parts)
        pooled = features.pooled(indices) if need else {}
        return self._sum(encoded.rows, indices, pooled)

    def probabilities(self, outputs: np.ndarray) -> np.ndarray:
        return self.task.decode(outputs, self.temperature)

    def predict(self, inputs: Inputs) -> np.ndarray:
        """(N, C) probabilities from files or texts; nothing is cached. Raises DataError for inputs that are refused."""
        probabilities, problems = self.answers(inputs)
        if problems:
            index, reason = next(iter(problems.items()))
            raise DataError(f"{len(problems)} of {len(inputs)} inputs cannot be read",
                            found=f"input {index + 1}: {reason}")
        return probabilities

    def answers(self, inputs: Inputs) -> tuple[np.ndarray, Mapping[int, str]]:
        """As `predict`, and which inputs were refused and why; their rows mean nothing."""
        encoded = self.backbone.encode(inputs, None)
        return self.probabilities(self._outputs(encoded.rows)), encoded.problems

    def predict_pixels(self, images: np.ndarray, shared: dict[Any, Any] | None = None) -> np.ndarray:
        """(N, C) probabilities from decoded images (N, H, W, 3) uint8. What of them is looked at is as with files, the
        resizing to the network's size is the network's own. `shared` keeps the frozen features of these images."""
        rows = seen(images, self.backbone.preprocessing())
        return self.probabilities(self._outputs(ArrayRows(rows), shared))

    def differentiable(self) -> Callable[[torch.Tensor], torch.Tensor] | None:
        """See `contracts.Differentiable`. None for texts, and for parts that count neighbours."""
        if self.backbone.kind != "image" or not all(isinstance(p, Constant | Linear | Network) for _, p in self.parts):
            return None

        def outputs(x: torch.Tensor) -> torch.Tensor:
            rows = seen(255 * x.permute(0, 2, 3, 1), self.backbone.preprocessing())
            total = x.new_zeros(len(x), len(self.classes))
            for share, part in self.parts:
                total = total + share * followed(part, rows, self).to(x.device)  # the backbone may be elsewhere
            return total

        return outputs

    def _outputs(self, rows: Rows, shared: dict[Any, Any] | None = None) -> np.ndarray:
        """(N, C); `shared` keeps pooled features, or nothing is cached."""
        need = any(isinstance(part, Linear | Neighbours) for _, part in self.parts)
        known = {} if shared is None else shared
        out = [np.zeros((0, len(self.classes)), np.float32)]
        for part in batches(len(rows), BATCH[self.backbone.kind]):
            indices, key = np.arange(part.start, part.stop), (id(self.backbone), self.size, part.start)
            if need and key not in known:
                known[key] = self._features(rows[indices])
            out.append(self._sum(rows, indices, known.get(key, {})))
        return np.concatenate(out)

    def _features(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        return {k: v.cpu().numpy() for k, v in self.backbone.features(rows, self.size).items()}

    def _sum(self, rows: Rows, indices: np.ndarray, pooled: Mapping[str, np.ndarray]) -> np.ndarray:
        total = np.zeros((len(indices), len(self.classes)), np.float32)
        for share, part in self.parts:
            total += share * run_part(part, rows, indices, pooled, self.backbone)
        return total

    # ── what it weighs ───────────────────────────────────────────────────────────────────────────────────────────────

    def parameters(self) -> int:
        own = sum(math.prod(v.shape) for v in self._tensors().values())
        return own + (self._frozen(lambda p: p.numel()) if self._uses_backbone() else 0)

    def size_bytes(self) -> int:
        """Bytes of every weight that predicting needs."""
        own = sum(v.nbytes for v in self._tensors().values())
        return own + (self._frozen(lambda p: p.numel() * p.element_size()) if self._uses_backbone() else 0)

    def _uses_backbone(self) -> bool:
        return any(isinstance(part, Linear | Neighbours | Network) for _, part in self.parts)

    def _frozen(self, weigh: Callable[[torch.Tensor], int]) -> int:
        network = next((part for _, part in self.parts if isinstance(part, Network)), None)
        tuned = {k.removeprefix("backbone.") for k in network.tensors()} if network else set()
        return sum(weigh(v) for k, v in self.backbone.torch_module.state_dict().items() if k not in tuned)

    def _tensors(self) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for i, (_, part) in enumerate(self.parts):
            values = part.tensors() if isinstance(part, Network) else arrays(part)
            found |= {f"{i}.{k}": v for k, v in values.items()}
        return found

    # ── on disk ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def save(self, folder: Path) -> None:
        """`model.json` and `model.safetensors`: only what differs from the pretrained backbone, which is named and
        hashed. The JSON is written last and names the tensors' file, so a folder is either the old model or the new."""
        tensors = {k: v if isinstance(v, torch.Tensor) else torch.from_numpy(np.ascontiguousarray(v))
                   for k, v in self._tensors().items()}
        version = digest(tensors)[:12]
        file = f"model-{version}.safetensors"
        write_tensors(folder / file, tensors)
        write_json(folder / "model.json", {
            "schema": 1, "name": self.name, "task": self.task.name, "classes": self.classes, "tensors": file,
            "backbone": {"name": self.backbone.name, "sha256": self.about["backbone_sha256"],
                         "licence": self.backbone.origin.licence, "precision": self.backbone.precision,
                         "preprocessing": self.backbone.preprocessing(), "weights": self.backbone.origin.weights},
            "parts": [{"share": share, **described(part)} for share, part in self.parts],
            "temperature": self.temperature, "size": self.size, "about": self.about})
        for old in folder.glob("model-*.safetensors"):
            if old.name != file:
                old.unlink(missing_ok=True)

    @classmethod
    def load(cls, folder: Path, *, find_task: Callable[[str], Task], find_backbone: Callable[..., Backbone]) -> Model:
        """Raises RunError (no model, damaged) and BackboneError (the pretrained weights are not there or not the
        same)."""
        said = read_json(folder / "model.json")
        if said.get("schema") != 1:
            raise RunError(f"{folder / 'model.json'} was written by another version", expected="schema 1",
                           found=f"schema {said.get('schema')}", fix="train again with this version")
        tensors, _ = read_tensors(folder / Path(said["tensors"]).name)
        kept = said["backbone"]
        backbone = find_backbone(kept["name"], preprocessing=kept["preprocessing"])
        if backbone.origin.sha256 != kept["sha256"]:
            raise RunError(f"the weights of '{kept['name']}' are not the ones that this model was made from",
                           expected=kept["sha256"][:16], found=backbone.origin.sha256[:16],
                           fix="install the version named in the run's report")
        backbone.precision = kept["precision"]
        task = find_task(said["task"])
        parts = [(p["share"], _part(p, {k.split(".", 1)[1]: v for k, v in tensors.items() if k.startswith(f"{i}.")},
                                    backbone, task, len(said["classes"]))) for i, p in enumerate(said["parts"])]
        return cls(said["name"], task, tuple(said["classes"]), backbone, parts, said["temperature"], said["size"],
                   said["about"])


def followed(part: Any, rows: torch.Tensor, model: Model) -> torch.Tensor:
    """(n, C) outputs of one part for float rows (n, H, W, 3), in float32 and as a function that autograd can follow."""
    if isinstance(part, Constant):
        return torch.from_numpy(part.bias).expand(len(rows), -1)
    backbone = part.backbone if isinstance(part, Network) else model.backbone
    usual, backbone.precision = backbone.precision, "float32"
    try:
        if isinstance(part, Network):
            state = backbone.run(backbone.prepare(rows, part.size), 0, backbone.depth)
            return part.head(backbone.pool(state))
        sets = backbone.features(rows, model.size)
        features = torch.cat([sets[name] for name in part.sets], 1)
        weight, bias = (torch.from_numpy(value).to(features.device) for value in (part.weight, part.bias))
        return features @ weight + bias
    finally:
        backbone.precision = usual


def seen(images: Any, preprocessing: Mapping[str, Any]) -> Any:
    """The part of decoded images (N, H, W, 3) that becomes rows: all, or 7/8 of the largest square in the centre."""
    side = preprocessing["size"]
    whole = preprocessing["fit"] == "squash" or tuple(preprocessing.get("store") or (side, side)) != (side, side)
    if whole:
        return images
    high, wide = images.shape[1:3]
    kept = max(1, round(CENTRE * min(high, wide)))
    top, left = (high - kept) // 2, (wide - kept) // 2
    return images[:, top : top + kept, left : left + kept]


def run_part(part: Any, rows: Rows, indices: np.ndarray, pooled: Mapping[str, np.ndarray], backbone: Backbone
             ) -> np.ndarray:
    """(n, C) outputs of one part for the rows at `indices`, whose pooled features are `pooled`."""
    if isinstance(part, Constant):
        return np.repeat(part.bias[None], len(indices), 0)
    if isinstance(part, Lexical):
        return np.asarray(part(backbone.lexical(rows[indices])))
    if isinstance(part, Network):
        size = BATCH[backbone.kind]
        return np.concatenate([_padded(part, rows[indices[b]], size) for b in batches(len(indices), size)])
    return part(pooled)


def _padded(network: Network, rows: np.ndarray, size: int) -> np.ndarray:
    """Filled up to the next power of two: kernels are set up for few shapes, and a small batch costs little."""
    size = min(size, 1 << (len(rows) - 1).bit_length())
    return network(np.concatenate([rows, np.repeat(rows[-1:], size - len(rows), 0)]))[: len(rows)]


def arrays(part: Any) -> dict[str, np.ndarray]:
    return {k: v for k, v in vars(part).items() if isinstance(v, np.ndarray)}


def described(part: Any) -> dict[str, Any]:
    """What of a part is not an array, as JSON; with its arrays `restored` makes it again."""
    plain = int, float, str, tuple, type(None)
    return {"kind": type(part).__name__, **{k: v for k, v in vars(part).items() if isinstance(v, plain)}}


def restored(said: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> Any:
    """A part, other than a network, from `described` and its arrays."""
    kinds = {"Constant": Constant, "Linear": Linear, "Lexical": Lexical, "Neighbours": Neighbours}
    more = {k: tuple(v) if isinstance(v, list) else v for k, v in said.items() if k not in ("kind", "share")}
    return kinds[said["kind"]](**arrays, **more)


def digest(tensors: Mapping[str, torch.Tensor]) -> str:
    """sha256 over names, shapes and bytes: two models with the same weights have the same one."""
    import hashlib

    whole = hashlib.sha256()
    for name in sorted(tensors):
        value = tensors[name].detach().cpu().contiguous()
        whole.update(f"{name}{tuple(value.shape)}{value.dtype}".encode())
        whole.update(value.reshape(-1).view(torch.uint8).numpy().tobytes())
    return whole.hexdigest()


def _part(said: Mapping[str, Any], tensors: Mapping[str, torch.Tensor], backbone: Backbone, task: Task, classes: int
          ) -> Any:
    if said["kind"] == "Network":
        return _network(said, tensors, backbone, task, classes)
    return restored(said, {k: v.numpy() for k, v in tensors.items()})


def _network(said: Mapping[str, Any], tensors: Mapping[str, torch.Tensor], backbone: Backbone, task: Task, classes: int
             ) -> Network:
    head = task.head(backbone.width, classes).to(next(backbone.torch_module.parameters()).device)
    head.load_state_dict({k.removeprefix("head."): v for k, v in tensors.items() if k.startswith("head.")})
    tuned = {k.removeprefix("backbone."): v for k, v in tensors.items() if k.startswith("backbone.")}
    backbone.torch_module.load_state_dict(tuned, strict=False)
    return Network(backbone, head.eval(), said["first"], said["size"])
