"""The fast paths: batch norm folded into the convolution before it, low precision, and both for training too.

In evaluation mode batch norm is an affine map of each channel, so norm(conv(x)) is one convolution with the weight
w * gamma / sqrt(var + eps). For inference a copy is folded once. For training the fold is part of the graph: it is
computed anew each step and gradients reach w, gamma and beta, while the modules and the names of their weights stay.
Always the convolution's own forward runs, whatever it does besides (padding as TensorFlow has it, say).
"""

from __future__ import annotations

import contextlib
import copy
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from outdo import runtime
from outdo.backbones import _depthwise, _fused
from outdo.backbones._chain import Node, Trace, forward_features

Runner = TypeVar("Runner")
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class Pair:
    """Names of a convolution and of the batch norm that alone takes its output."""

    conv: str
    norm: str

    def of(self, module: nn.Module) -> tuple[nn.Conv2d, _BatchNorm]:
        conv, norm = module.get_submodule(self.conv), module.get_submodule(self.norm)
        assert isinstance(conv, nn.Conv2d)
        assert isinstance(norm, _BatchNorm)
        return conv, norm


def find_pairs(trace: Trace) -> list[Pair]:
    """Every pair that folds, verified together on the trace's example; none where folding does not reproduce it."""
    takers: dict[Node, list[str]] = defaultdict(list)
    for call in trace.calls:
        takers[call.before].append(call.name)
    times = Counter(call.name for call in trace.calls)
    pairs = []
    for call in trace.calls:
        norm = next((name for name in takers[call.after] if has_statistics(trace.module.get_submodule(name))), None)
        if norm is None or not isinstance(trace.module.get_submodule(call.name), nn.Conv2d):
            continue
        alone = all(norm == name or norm.startswith(name + ".") for name in takers[call.after])
        if alone and times[call.name] == times[norm] == 1:
            pairs.append(Pair(call.name, norm))
    return pairs if reproduces(trace, pairs) else []


def has_statistics(module: nn.Module) -> bool:
    return isinstance(module, _BatchNorm) and module.running_mean is not None


def reproduces(trace: Trace, pairs: list[Pair]) -> bool:
    with torch.no_grad(), folding(trace.module, pairs):
        output = forward_features(trace.module, trace.example)
    return torch.allclose(output, trace.output, rtol=1e-2, atol=1e-3 * float(trace.output.abs().max()))


def folded(conv: nn.Conv2d, norm: _BatchNorm) -> tuple[torch.Tensor, torch.Tensor]:
    """(weight, bias) of the one convolution; differentiable."""
    mean, variance = norm.running_mean, norm.running_var
    assert mean is not None
    assert variance is not None
    scale = torch.rsqrt(variance + norm.eps)
    if norm.weight is not None:
        scale = norm.weight * scale
    offset = -mean if conv.bias is None else conv.bias - mean
    bias = offset * scale if norm.bias is None else torch.addcmul(norm.bias, offset, scale)
    return conv.weight * scale.view(-1, 1, 1, 1), bias


def left_of(norm: _BatchNorm) -> list[nn.Module]:
    """What a batch norm does besides: in timm's BatchNormAct2d, dropping and the activation."""
    rest = [getattr(norm, part, None) for part in ("drop", "act")]
    return [part for part in rest if isinstance(part, nn.Module) and not isinstance(part, nn.Identity)]


def after_norm(norm: _BatchNorm) -> Callable[[torch.Tensor], torch.Tensor]:
    """The forward of a batch norm once it is folded."""
    rest = left_of(norm)

    def forward(x: torch.Tensor) -> torch.Tensor:
        for part in rest:
            x = part(x)
        return x

    return forward


@contextlib.contextmanager
def folding(module: nn.Module, pairs: list[Pair], low_on_cpu: bool = False) -> Iterator[None]:
    """Within it, the forward of `module` is the folded one, and differentiable. `low_on_cpu`: see `conv_forward`."""
    with contextlib.ExitStack() as undo:

        def put(child: nn.Module, forward: Callable[..., Any]) -> None:
            child.forward = forward
            undo.callback(child.__dict__.pop, "forward")

        paired = set()
        for pair in pairs:
            conv, norm = pair.of(module)
            paired.add(conv)
            put(conv, conv_forward(conv, norm, low_on_cpu))
            put(norm, after_norm(norm))
        for conv in (m for m in module.modules() if isinstance(m, nn.Conv2d) and m not in paired):
            if is_thin(conv) or (low_on_cpu and conv.groups > 1):
                put(conv, conv_forward(conv, None, low_on_cpu))
        yield


@contextlib.contextmanager
def training(module: nn.Module, pairs: list[Pair], precision: str) -> Iterator[None]:
    """The fast differentiable forward of `module` in that precision."""
    kind = next(module.parameters()).device.type
    low = precision != "float32"
    with contextlib.ExitStack() as stack:
        stack.enter_context(folding(module, pairs, low and kind == "cpu"))
        stack.enter_context(out_of_place(module))
        stack.enter_context(torch.autocast(kind, torch.bfloat16, enabled=low))
        yield


@contextlib.contextmanager
def out_of_place(module: nn.Module) -> Iterator[None]:
    """Activations that keep their input for the backward copy it first when told to work in place. ReLU keeps its
    output."""
    told: list[Any] = [m for m in module.modules() if getattr(m, "inplace", False) and type(m) is not nn.ReLU]
    for activation in told:
        activation.inplace = False
    try:
        yield
    finally:
        for activation in told:
            activation.inplace = True


def conv_forward(conv: nn.Conv2d, norm: _BatchNorm | None, low_on_cpu: bool) -> Callable[..., torch.Tensor]:
    """The convolution's own forward with folded weights.

    `low_on_cpu` is for bfloat16 on a CPU, where the backward of grouped convolutions is many times slower than in
    float32 while that of all others gains: depthwise ones are substituted, others taken out of autocast.
    """
    own: Callable[..., torch.Tensor] = thin_forward if is_thin(conv) else type(conv).forward
    special = low_on_cpu and conv.groups > 1
    own_backward = _depthwise.suits(conv) and runtime.uses("depthwise")

    def forward(x: torch.Tensor) -> torch.Tensor:
        with contextlib.ExitStack() as stack:
            if norm is not None:
                stack.enter_context(lending(conv, *folded(conv, norm)))
            if special and own_backward:
                stack.enter_context(_depthwise.Substitute())
            elif special:
                stack.enter_context(torch.autocast(x.device.type, enabled=False))
                x = x.float()
            return own(conv, x)

    return forward


def is_thin(conv: nn.Conv2d) -> bool:
    """A strided 1 x 1 convolution of the image itself, as RepVGG and FastViT have. In channels-last order the gradient
    of its weight writes beyond its memory (torch 2.14 on a CPU): the process dies, or worse."""
    return conv.in_channels < 4 and conv.kernel_size == (1, 1) and conv.stride != (1, 1) and conv.padding == (0, 0)


def thin_forward(conv: nn.Conv2d, x: torch.Tensor) -> torch.Tensor:
    """The same without a stride: the places that it would skip are left out beforehand."""
    down, right = conv.stride
    return nn.functional.conv2d(x[:, :, ::down, ::right], conv.weight, conv.bias, groups=conv.groups)


@contextlib.contextmanager
def lending(conv: nn.Module, weight: torch.Tensor, bias: torch.Tensor) -> Iterator[None]:
    """Other tensors in the place of a module's parameters for one call; `functional_call` would also run hooks and
    the replaced forward."""
    kept = dict(conv._parameters)
    conv._parameters.update({"weight": weight, "bias": bias})  # type: ignore[dict-item]
    try:
        yield
    finally:
        conv._parameters.update(kept)


def fold_for_inference(module: nn.Module, pairs: list[Pair], precision: str) -> nn.Module:
    """A frozen copy of `module`, folded once; pure bfloat16 where that is the precision."""
    twin = copy.deepcopy(module).eval().requires_grad_(False)
    for pair in pairs:
        conv, norm = pair.of(twin)
        weight, bias = folded(conv, norm)
        conv.weight, conv.bias = nn.Parameter(weight, False), nn.Parameter(bias, False)
        norm.forward = after_norm(norm)  # type: ignore[method-assign, assignment]
    return twin.to(dtype=DTYPES[precision])


def fuse(twin: nn.Module, pairs: list[Pair]) -> nn.Module:
    """The same frozen copy, with the activations that stand in its norms computed by the convolutions before them."""
    for pair in pairs:
        conv, norm = pair.of(twin)
        parts = left_of(norm)
        fits = conv.weight.device.type == "cpu" and len(parts) == 1 and not isinstance(conv.padding, str)
        if fits and _fused.runs(type(parts[0]), conv.weight.dtype):  # type: ignore[arg-type]  # types do hash
            conv.forward = _fused.with_activation(conv, parts[0])  # type: ignore[method-assign]
            norm.forward = nn.Identity().forward  # type: ignore[method-assign]
    return twin


class Follower(Generic[Runner]):
    """A fast frozen copy of a module, made again when it is asked for after the module's weights have changed."""

    def __init__(self, module: nn.Module, make: Callable[[str], Runner]) -> None:
        self.module, self.make = module, make
        self._mark: Any = None
        self._runner: Runner | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_mark": None, "_runner": None}  # a copied backbone makes its own

    def __call__(self, precision: str) -> Runner:
        mark = precision, signature(self.module)
        if self._runner is None or mark != self._mark:
            with torch.inference_mode(False), torch.no_grad():
                self._runner, self._mark = self.make(precision), mark
        return self._runner


def signature(module: nn.Module) -> Any:
    """Changes when a weight does: optimisers raise a tensor's version, `load_state_dict(assign=True)` changes its
    address, and what is written through `.data` does neither but changes a norm."""
    tensors = [t for t in (*module.parameters(), *module.buffers()) if t.is_floating_point()]
    norms = torch.stack([torch.linalg.vector_norm(t.detach(), dtype=torch.float32) for t in tensors])
    return [(t._version, t.data_ptr()) for t in tensors], norms.tolist()
