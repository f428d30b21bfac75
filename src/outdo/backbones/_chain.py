"""Cutting any network into blocks, by watching which tensor goes where.

One forward pass with hooks on every module records calls: module, tensor in, tensor out. Where the very tensor that
one module returned is the only tensor that the next one takes, the two form a chain, and a chain can be cut anywhere.
No architecture is known by name. In-place operations between two modules (`x += shortcut`) keep the tensor object but
raise its version, so a tensor is identified by both.
"""

from __future__ import annotations

from collections import defaultdict
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


class Reached(Exception):
    """Thrown by a hook to leave a forward pass early, with the tensor that had come so far."""

    def __init__(self, x: torch.Tensor) -> None:
        super().__init__("left the forward pass early")
        self.x = x


class Chain:
    """`body(image) == run(image, 0, len(blocks))`, and any cut in between gives the same."""

    def __init__(self, module: nn.Module, body: Callable[[torch.Tensor], torch.Tensor], blocks: list[Block]) -> None:
        self.module, self.body, self.blocks = module, body, blocks

    def run(self, x: torch.Tensor, start: int, stop: int) -> torch.Tensor:
        for block in self.blocks[start:stop]:
            x = self._step(block, x)
        return x

    def _step(self, block: Block, x: torch.Tensor) -> torch.Tensor:
        if block.until is not None:
            x = leave_at(self.body, x, self.module.get_submodule(block.until))
        elif not block.modules:
            return self.body(x)
        for name in block.modules:
            x = self.module.get_submodule(name)(x)
        return x

    def block_modules(self, index: int) -> list[nn.Module]:
        return [self.module.get_submodule(name) for name in self.blocks[index].modules]


def leave_at(body: Callable[[torch.Tensor], Any], x: torch.Tensor, module: nn.Module) -> torch.Tensor:
    """Run `body(x)` until `module` is called, and return what it was called with."""

    def leave(_: nn.Module, args: tuple[Any, ...]) -> None:
        raise Reached(args[0])

    handle = module.register_forward_pre_hook(leave)
    try:
        body(x)
    except Reached as reached:
        return reached.x
    finally:
        handle.remove()
    raise AssertionError("the forward pass never reached the first block")


def cut(module: nn.Module, body: Callable[[torch.Tensor], torch.Tensor], example: torch.Tensor) -> Chain:
    """The finest honest chain of `body` (a method of `module` that takes one tensor and returns one).

    `example` is one input (1, ...). Falls back to one block where no chain reproduces `body` on it.
    """
    whole = Chain(module, body, [Block((), ())])
    with torch.no_grad():
        calls, first, last, expected = watch(module, body, example)
        whole.blocks = [Block((), tuple(expected.shape))]
        for heavy in (2, 1):  # blocks of at least two kernels; in plain stacks (VGG) every kernel is a block
            path = longest(calls, first, last, {c.name for c in calls if kernels(module.get_submodule(c.name)) >= heavy})
            chain = Chain(module, body, group(module, path, first))
            if len(chain.blocks) > 2 and torch.allclose(chain.run(example, 0, len(chain.blocks)), expected, 1e-3, 1e-4):
                return chain
    return whole


def watch(
    module: nn.Module, body: Callable[[torch.Tensor], torch.Tensor], example: torch.Tensor
) -> tuple[list[Call], Node, Node, torch.Tensor]:
    """(calls in the order they ended, node of the input, node of the output, the output)."""
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
        output = body(example)
    finally:
        for handle in handles:
            handle.remove()
    return calls, first, node(output), output


def node(x: torch.Tensor) -> Node:
    return id(x), x._version


def only_tensor(args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether a call can be repeated from its first argument alone."""
    return bool(args) and isinstance(args[0], torch.Tensor) and all(v is None for v in (*args[1:], *kwargs.values()))


def kernels(module: nn.Module) -> int:
    """How many weight matrices or convolution kernels a module holds."""
    return sum(p.ndim >= 2 for p in module.parameters())


def longest(calls: list[Call], first: Node, last: Node, heavy: set[str]) -> list[Call]:
    """The path of calls that ends in `last` and has the most heavy ones; of those one that starts at the image, of
    those the one with the fewest calls (so that a block is taken whole rather than layer by layer)."""
    best: dict[Node, tuple[tuple[int, int, int], list[Call]]] = {}
    into: dict[Node, list[Call]] = defaultdict(list)
    for call in calls:
        into[call.after].append(call)

    def reach(at: Node) -> tuple[tuple[int, int, int], list[Call]]:
        if at not in best:
            best[at] = (0, int(at == first), 0), []
            for call in into[at]:
                (weight, from_image, length), path = reach(call.before)
                found = (weight + (call.name in heavy), from_image, length - 1)
                if found > best[at][0]:
                    best[at] = found, [*path, call]
        return best[at]

    return reach(last)[1]


def group(module: nn.Module, path: list[Call], first: Node) -> list[Block]:
    """Blocks from a path: a new block begins where the light modules before a heavy one begin.

    Activations, pools and norms never stand alone; what follows the last heavy module does only if it has a kernel.
    """
    sizes = [kernels(module.get_submodule(call.name)) for call in path]
    heavy = 2 if sum(size >= 2 for size in sizes) > 1 else 1
    groups: list[list[Call]] = [[]]
    for call, size in zip(path, sizes, strict=True):
        filled = any(kernels(module.get_submodule(c.name)) for c in groups[-1])
        previous_heavy = any(kernels(module.get_submodule(c.name)) >= heavy for c in groups[-1])
        if filled and (size >= heavy or (previous_heavy and size)):
            groups.append([])
        groups[-1].append(call)
    return as_blocks(module, groups, first)


def as_blocks(module: nn.Module, groups: list[list[Call]], first: Node) -> list[Block]:
    blocks = [Block(tuple(c.name for c in calls), calls[-1].shape) for calls in groups if calls]
    if groups[0] and groups[0][0].before != first:
        blocks.insert(0, Block((), (), until=groups[0][0].name))
    return blocks
