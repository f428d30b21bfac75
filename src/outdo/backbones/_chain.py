"""Cutting any network into blocks, by watching which tensor goes where.

One forward pass with hooks on every module records calls: module, tensor in, tensor out. Where the very tensor that
one module returned is the only tensor that the next one takes, the two form a chain, and a chain can be cut anywhere.
No architecture is known by name. In-place operations between two modules (`x += shortcut`) keep the tensor object but
raise its version, so a tensor is identified by both.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

Node = tuple[int, int]  # (id of a tensor, its version): one value at one moment


@dataclass(frozen=True)
class Call:
    """One module that took one tensor and gave one tensor."""

    name: str
    before: Node
    after: Node
    shape: tuple[int, ...]  # of what it gave


@dataclass(frozen=True)
class Block:
    """Modules to run one after the other. An opaque stem runs the network itself up to the module `until`."""

    modules: tuple[str, ...]
    shape: tuple[int, ...]  # of what it gives, batch of one
    until: str | None = None

    @property
    def opaque(self) -> bool:
        """Whether it runs code of the network that is not in any module of its own."""
        return self.until is not None or not self.modules


class Reached(Exception):
    """Thrown by a hook to leave a forward pass early, with the tensor that had come so far."""

    def __init__(self, x: torch.Tensor) -> None:
        super().__init__("left the forward pass early")
        self.x = x


class Chain:
    """`forward_features(image) == run(image, 0, len(blocks))`, and any cut in between gives the same."""

    def __init__(self, module: nn.Module, blocks: list[Block]) -> None:
        self.module, self.blocks = module, blocks

    def run(self, x: torch.Tensor, start: int, stop: int) -> torch.Tensor:
        for block in self.blocks[start:stop]:
            x = self._step(block, x)
        return x

    def _step(self, block: Block, x: torch.Tensor) -> torch.Tensor:
        if block.until is not None:
            x = leave_at(self.module, x, block.until)
        elif not block.modules:
            return forward_features(self.module, x)
        for name in block.modules:
            x = self.module.get_submodule(name)(x)
        return x

    def block_modules(self, index: int) -> list[nn.Module]:
        return [self.module.get_submodule(name) for name in self.blocks[index].modules]


def forward_features(module: nn.Module, x: torch.Tensor) -> torch.Tensor:
    return module.forward_features(x)  # type: ignore[operator, no-any-return]


def leave_at(module: nn.Module, x: torch.Tensor, name: str) -> torch.Tensor:
    """Run the network until the module of that name is called, and return what it was called with."""

    def leave(_: nn.Module, args: tuple[Any, ...]) -> None:
        raise Reached(args[0])

    handle = module.get_submodule(name).register_forward_pre_hook(leave)
    try:
        forward_features(module, x)
    except Reached as reached:
        return reached.x
    finally:
        handle.remove()
    raise AssertionError(f"the forward pass never reached {name}")


@dataclass(frozen=True)
class Trace:
    """What one forward pass of `forward_features` showed."""

    module: nn.Module
    example: torch.Tensor
    output: torch.Tensor
    calls: list[Call]  # in the order in which they ended
    first: Node  # the example
    last: Node  # the output


def watch(module: nn.Module, example: torch.Tensor) -> Trace:
    """Run `module.forward_features(example)` and note every call under it."""
    calls: list[Call] = []
    open_calls: list[Node | None] = []
    alive: list[Any] = [example]  # an id is only unique while its tensor lives

    def enter(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        alive.append((args, kwargs))
        open_calls.append(node(args[0]) if only_tensor(args, kwargs) else None)

    def leave(name: str) -> Callable[..., None]:
        def hook(_: nn.Module, __: tuple[Any, ...], output: Any) -> None:
            alive.append(output)
            before = open_calls.pop()
            if before is not None and isinstance(output, torch.Tensor) and node(output) != before:
                calls.append(Call(name, before, node(output), tuple(output.shape)))

        return hook

    handles = []
    for name, child in module.named_modules():
        if name:
            handles.append(child.register_forward_pre_hook(enter, with_kwargs=True))
            handles.append(child.register_forward_hook(leave(name)))
    first = node(example)
    try:
        with torch.no_grad():
            output = forward_features(module, example)
    finally:
        for handle in handles:
            handle.remove()
    return Trace(module, example, output, calls, first, node(output))


def cut(trace: Trace) -> Chain:
    """The finest honest chain; one block where no chain reproduces the output."""
    sizes = {call.name: kernels(trace.module.get_submodule(call.name)) for call in trace.calls}
    for heavy in (2, 1):  # blocks of at least two kernels; in plain stacks (VGG) every kernel is a block
        path = longest(trace, {name for name, size in sizes.items() if size >= heavy})
        chain = Chain(trace.module, group(path, sizes, trace.first))
        if len(chain.blocks) > 2 and reproduces(chain, trace):
            return chain
    return Chain(trace.module, [Block((), tuple(trace.output.shape))])


def reproduces(chain: Chain, trace: Trace) -> bool:
    with torch.no_grad():
        return torch.allclose(chain.run(trace.example, 0, len(chain.blocks)), trace.output, rtol=1e-3, atol=1e-4)


def node(x: torch.Tensor) -> Node:
    return id(x), x._version


def only_tensor(args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether a call can be repeated from its first argument alone."""
    return bool(args) and isinstance(args[0], torch.Tensor) and all(v is None for v in (*args[1:], *kwargs.values()))


def kernels(module: nn.Module) -> int:
    """How many weight matrices or convolution kernels a module holds."""
    return sum(p.ndim >= 2 for p in module.parameters())


def longest(trace: Trace, heavy: set[str]) -> list[Call]:
    """The path of calls to the output that has the most heavy ones; of those one that starts at the input, of those
    the one with the fewest calls, so that a block is taken whole rather than layer by layer."""
    best: dict[Node, tuple[tuple[int, int, int], list[Call]]] = {}
    for call in trace.calls:  # a call ends after every call that it takes from
        (weight, from_input, length), path = best.get(call.before, ((0, int(call.before == trace.first), 0), []))
        found = (weight + (call.name in heavy), from_input, length - 1)
        if call.after not in best or found > best[call.after][0]:
            best[call.after] = found, [*path, call]
    return best[trace.last][1] if trace.last in best else []


def group(path: list[Call], sizes: dict[str, int], first: Node) -> list[Block]:
    """Blocks from a path: a new block begins where the light modules before a heavy one begin.

    Activations, pools and norms never stand alone; what follows the last heavy module does only if it has a kernel.
    """
    heavy = 2 if sum(sizes[call.name] >= 2 for call in path) > 1 else 1
    groups: list[list[Call]] = [[]]
    for call in path:
        before = max((sizes[c.name] for c in groups[-1]), default=0)
        if before and (sizes[call.name] >= heavy or (before >= heavy and sizes[call.name])):
            groups.append([])
        groups[-1].append(call)
    blocks = [Block(tuple(c.name for c in calls), calls[-1].shape) for calls in groups if calls]
    if path and path[0].before != first:
        blocks.insert(0, Block((), (), until=path[0].name))
    return blocks
