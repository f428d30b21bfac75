"""Cutting a transformers encoder at its layers, without knowing the model.

The model's own forward always runs, so that it builds masks, positions and whatever else it hands to its layers; the
layers that are not asked for hand on what they get, and the first that is asked for gets the cached state instead.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn

from outdo.backbones._chain import Reached


class Layers:
    """Block 0 is the embedding, block i the i-th layer; the last block includes what follows it (a final norm).

    Without layers the model is one block. Not for several threads at once.
    """

    def __init__(self, model: nn.Module, names: list[str]) -> None:
        self.model, self.names = model, names
        self.layers = [model.get_submodule(name) for name in names]
        self.depth = 1 + len(names) if names else 1

    def run(self, x: torch.Tensor, mask: torch.Tensor, start: int, stop: int,
            keep: list[torch.Tensor] | None = None) -> torch.Tensor:
        """`x` are token ids (B, L) where start is 0, else hidden states (B, L, D); `mask` is (B, L), 1 for a token.

        `keep` collects what each layer gives.
        """
        if start >= stop:
            return x
        ids = x if start == 0 else torch.zeros_like(mask, dtype=torch.long)
        with self._only(x, start, stop, keep):
            try:
                return self._forward(ids, mask)
            except Reached as reached:
                return reached.x

    def tail(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """What follows the last layer, alone."""
        with self._only(x, self.depth, self.depth, None):
            return self._forward(torch.zeros_like(mask, dtype=torch.long), mask)

    def _forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return self.model(input_ids=ids, attention_mask=mask.long()).last_hidden_state  # type: ignore[no-any-return]

    @contextlib.contextmanager
    def _only(self, x: torch.Tensor, start: int, stop: int, keep: list[torch.Tensor] | None) -> Iterator[None]:
        with contextlib.ExitStack() as undo:
            for index, layer in enumerate(self.layers, 1):
                if index == min(start, len(self.layers)):
                    undo.callback(layer.register_forward_pre_hook(replacing(x), with_kwargs=True).remove)
                if index == stop:
                    undo.callback(layer.register_forward_pre_hook(leaving, with_kwargs=True).remove)
                if index < start:
                    undo.callback(pass_through(layer))
                elif keep is not None:
                    undo.callback(layer.register_forward_hook(keeping(keep)).remove)
            yield


def hidden(args: tuple[Any, ...], kwargs: dict[str, Any]) -> torch.Tensor:
    return args[0] if args else kwargs["hidden_states"]  # type: ignore[no-any-return]


def replacing(x: torch.Tensor) -> Callable[..., Any]:
    def hook(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return ((x, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": x})

    return hook


def leaving(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    raise Reached(hidden(args, kwargs))


def keeping(keep: list[torch.Tensor]) -> Callable[..., None]:
    return lambda _, __, output: keep.append(output[0] if isinstance(output, tuple) else output)


def pass_through(layer: nn.Module) -> Callable[[], None]:
    """Make a layer hand on what it gets, in the form in which it would give it; returns how to undo it."""
    beside: Any = layer.gives_beside

    def forward(*args: Any, **kwargs: Any) -> Any:
        x = hidden(args, kwargs)
        return x if beside is None else (x, *beside)

    layer.forward = forward
    return lambda: layer.__dict__.pop("forward")


def find_layers(model: nn.Module) -> list[str]:
    """Names of the members of the longest ModuleList that are called once each, in order, each with what the one
    before gave; empty where there is none, or where leaving layers out does not give the same as the whole."""
    places = [name for name, module in model.named_modules() if isinstance(module, nn.ModuleList)]
    for place in sorted(places, key=lambda name: -len(model.get_submodule(name))):  # type: ignore[arg-type]
        names = [f"{place}.{i}" for i in range(len(model.get_submodule(place)))]  # type: ignore[arg-type]
        if len(names) > 1 and in_a_row(model, names) and reproduces(Layers(model, names)):
            return names
    return []


def example(model: nn.Module) -> tuple[torch.Tensor, torch.Tensor]:
    """Two texts, the second padded: ids (2, 4), mask (2, 4)."""
    ids = torch.tensor([[5, 6, 7, 8], [9, 10, 0, 0]])
    mask = torch.tensor([[True] * 4, [True, True, False, False]])
    where = next(model.parameters()).device
    return ids.to(where), mask.to(where)


def in_a_row(model: nn.Module, names: list[str]) -> bool:
    """Whether the modules form a chain; notes on each how many things it gives beside the hidden state."""
    calls: list[tuple[str, torch.Tensor | None, Any]] = []

    def note(name: str) -> Callable[..., None]:
        return lambda _, args, kwargs, out: calls.append((name, args[0] if args else kwargs.get("hidden_states"), out))

    handles = [model.get_submodule(n).register_forward_hook(note(n), with_kwargs=True) for n in names]
    try:
        with torch.no_grad():
            Layers(model, []).run(*example(model), 0, 1)
    finally:
        for handle in handles:
            handle.remove()
    given = [out[0] if isinstance(out, tuple) else out for _, __, out in calls]
    for name, _, out in calls:
        beside = [None] * (len(out) - 1) if isinstance(out, tuple) else None
        model.get_submodule(name).gives_beside = beside  # type: ignore[assignment]
    return [name for name, _, __ in calls] == names and all(
        x is taken for x, (_, taken, __) in zip(given, calls[1:], strict=False)
    )


def reproduces(layers: Layers) -> bool:
    ids, mask = example(layers.model)
    with torch.no_grad():
        whole = layers.run(ids, mask, 0, layers.depth)
        middle = layers.run(ids, mask, 0, layers.depth // 2)
        again = layers.run(middle, mask, layers.depth // 2, layers.depth)
    return torch.allclose(whole[mask], again[mask], rtol=1e-3, atol=1e-4)
