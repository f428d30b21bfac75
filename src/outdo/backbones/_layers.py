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

    A model in which no list of layers forms a chain is one block. Not for several threads at once.
    """

    def __init__(self, model: nn.Module, vocabulary: int) -> None:
        self.model = model
        ids = torch.arange(8, device=next(model.parameters()).device).reshape(2, 4) % vocabulary
        mask = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]], device=ids.device)
        self.layers = layers_of(model, lambda: self._forward(ids, mask))
        self.depth = 1 + len(self.layers) if self.layers else 1

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
    as_tuple = layer.gives_tuple

    def forward(*args: Any, **kwargs: Any) -> Any:
        x = hidden(args, kwargs)
        return (x,) if as_tuple else x

    layer.forward = forward
    return lambda: layer.__dict__.pop("forward")


def layers_of(model: nn.Module, forward: Callable[[], Any]) -> list[nn.Module]:
    """The longest ModuleList whose members are called once each, in order, each with what the one before gave."""
    lists = sorted((m for m in model.modules() if isinstance(m, nn.ModuleList)), key=len, reverse=True)
    for candidate in lists:
        layers = list(candidate)
        if len(layers) > 1 and in_a_row(layers, forward):
            return layers
    return []


def in_a_row(layers: list[nn.Module], forward: Callable[[], Any]) -> bool:
    """Whether they are; notes on each layer whether it gives a tuple."""
    calls: list[tuple[nn.Module, Any, Any]] = []
    handles = [layer.register_forward_hook(lambda m, a, k, out: calls.append((m, hidden(a, k) if a or k else None, out)),
                                           with_kwargs=True) for layer in layers]
    try:
        with torch.no_grad():
            forward()
    except KeyError:  # a list of something else, called without hidden states
        return False
    finally:
        for handle in handles:
            handle.remove()
    outputs = [out[0] if isinstance(out, tuple) else out for _, __, out in calls]
    for layer, _, output in calls:
        layer.gives_tuple = isinstance(output, tuple)  # type: ignore[assignment]
    return [m for m, _, __ in calls] == layers and all(
        given is taken for given, (_, taken, __) in zip(outputs, calls[1:], strict=False)
    )
