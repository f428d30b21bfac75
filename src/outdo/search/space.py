"""What a search looks among: read off the recipe, narrowed by what was said, suited to the data.

    said = {"learning_rate": "1e-4..1e-2", "optimiser": "sgd,adamw", "mixup": 0.1}

A range (`low..high`) or a list of options (`a,b`) narrows a choice; one value takes it out of the search. Nothing here
needs Optuna: `suggest` takes its trials as they are.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from outdo.contracts import Choice
from outdo.errors import RecipeError
from outdo.recipe import AUTO, CHOICES, Recipe, check, choice

BACKBONE = "start_from"  # the dimension that is no choice of the recipe: which pretrained weights
ASKED_FOR = ("input_size", "class_weighting")  # searched only when said, or when something makes them matter


@dataclass(frozen=True)
class Dimension:
    """One choice that is open: a range of numbers, or options."""

    name: str
    kind: str  # float, int or category
    low: float | None = None
    high: float | None = None
    log: bool = False
    step: float | None = None
    options: tuple[str, ...] = ()
    needs: tuple[str, float] | None = None
    said: bool = False  # narrowed by the user

    def suggest(self, trial: Any) -> Any:
        """Ask an Optuna trial for a value."""
        if self.kind == "category":
            return trial.suggest_categorical(self.name, self.options)
        if self.kind == "int":
            return trial.suggest_int(self.name, int(self.low or 0), int(self.high or 0), step=int(self.step or 1),
                                     log=self.log)
        return trial.suggest_float(self.name, self.low, self.high, step=self.step, log=self.log)

    def points(self) -> float:
        if self.kind == "category":
            return len(self.options)
        step = self.step or (1 if self.kind == "int" else 0)
        return 1 + int(((self.high or 0) - (self.low or 0)) / step + 1e-9) if step else math.inf

    def holds(self, value: Any) -> bool:
        if self.kind == "category":
            return value in self.options
        assert self.low is not None
        assert self.high is not None
        on_grid = not self.step or abs((value - self.low) / self.step % 1) < 1e-9
        return bool(self.low <= value <= self.high and on_grid)


@dataclass(frozen=True)
class Space:
    """The open dimensions, in the order of the recipe, and what is fixed."""

    recipe: Recipe
    dimensions: tuple[Dimension, ...]

    def suggest(self, trial: Any) -> dict[str, Any]:
        """A value for each dimension that has an effect, given those before it."""
        chosen: dict[str, Any] = {}
        for dimension in self.dimensions:
            if dimension.needs is None or self._value(dimension.needs[0], chosen) >= dimension.needs[1]:
                chosen[dimension.name] = dimension.suggest(trial)
        return chosen

    def suggested(self, values: Mapping[str, Any]) -> list[str]:
        """The dimensions that have an effect beside those values."""
        return [d.name for d in self.dimensions
                if d.needs is None or self._value(d.needs[0], dict(values)) >= d.needs[1]]

    def points(self) -> float:
        """How many there are at most; infinite where a choice is continuous."""
        return math.prod(d.points() for d in self.dimensions)

    def recipe_of(self, params: Mapping[str, Any]) -> Recipe:
        """The recipe of a trial with those values."""
        return self.recipe.but(**{name: value for name, value in params.items() if name != BACKBONE})

    def _value(self, name: str, chosen: Mapping[str, Any]) -> float:
        value = chosen.get(name, self.recipe[name])
        return float("inf") if value == AUTO else float(value)

    def among(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Of `values` those that this space can try, to begin a search with."""
        return {d.name: values[d.name] for d in self.dimensions if d.name in values and d.holds(values[d.name])}

    def high(self, name: str) -> Any:
        """The largest value that a trial may have."""
        return next((d.high for d in self.dimensions if d.name == name), self.recipe[name])

    def as_json(self) -> list[dict[str, Any]]:
        return [{k: v for k, v in asdict(d).items() if k != "said" and v is not None and v is not False and v != ()}
                for d in self.dimensions]


def read(said: Mapping[str, Any], latency: bool = False, backbones: Sequence[str] = ()) -> Space:
    """The space that is meant by choices with a value, a range or options each, and by two or more backbones. With
    `latency`, which counts then too, the input size is open.

    Raises RecipeError: unknown choice (with the nearest), a value outside its range, an empty range, options or a range
    of one point, a choice that no search can try, choices that contradict each other.
    """
    narrowed = {choice(name).name: value for name, value in said.items() if is_range(value)}
    recipe = Recipe(**{name: value for name, value in said.items() if not is_range(value)})
    open_ = [c for c in CHOICES if c.search and c.name not in recipe.said]
    usual = [c for c in open_ if c.name not in ASKED_FOR or (latency and c.name == "input_size")]
    for name in narrowed:
        _check_searched(choice(name))
    found = [_narrowed(c, narrowed[c.name]) if c.name in narrowed else _dimension(c)
             for c in open_ if c in usual or c.name in narrowed]
    if recipe.epochs == 0:
        raise RecipeError("there is nothing to search with --epochs 0", fix="leave it out, or leave out --search")
    if len(backbones) > 1:
        found.insert(0, Dimension(BACKBONE, "category", options=tuple(backbones), said=True))
    return _without_effectless(Space(recipe, tuple(found)))


def suited(space: Space, kind: str, depth: int, imbalanced: bool) -> Space:
    """The space as far as data and backbones, the least deep of which has `depth` blocks, allow. Raises RecipeError for
    what was said and cannot be."""
    last = depth - 1
    if space.recipe.depth != AUTO and space.recipe.depth > last:
        raise RecipeError(f"a search trains at most {last} of the {depth} blocks of this backbone",
                          found=f"--depth {space.recipe.depth}", fix=f"--depth {last}, or leave it out")
    found = []
    for d in space.dimensions:
        if kind == "text" and d.name in ("augmentation", "input_size"):
            _refuse(d, f"{d.name} of texts is not searched")
        elif d.name == "depth" and (d.high or 0) > last:
            _refuse(d, f"depth cannot be above {last}: this backbone has {depth} blocks, and a search trains the last")
            found.append(replace(d, high=last))
        else:
            found.append(d)
    if imbalanced and not any(d.name == "class_weighting" for d in found) and "class_weighting" not in \
            space.recipe.said:
        found.append(_dimension(choice("class_weighting")))
    return _without_effectless(replace(space, dimensions=tuple(d for d in found if d.low is None or d.low != d.high)))


def is_range(value: Any) -> bool:
    return isinstance(value, str) and (".." in value or "," in value)


def _dimension(c: Choice) -> Dimension:
    if c.kind == "category":
        return Dimension(c.name, c.kind, options=tuple(c.search), needs=c.needs)
    return Dimension(c.name, c.kind, c.search[0], c.search[1], c.log, c.step, needs=c.needs)


def _narrowed(c: Choice, text: str) -> Dimension:
    usual = replace(_dimension(c), said=True)
    if c.kind == "category":
        options = tuple(dict.fromkeys(check(c.name, option.strip()) for option in text.split(",")))
        if len(options) < 2 or AUTO in options:
            raise RecipeError(f"'{text}' leaves {c.name} nothing to search", expected=f"some of {', '.join(c.options)}",
                              fix=f"for one value write {_flag(c.name)} {options[0]}")
        return replace(usual, options=options)
    ends = [end.strip() for end in text.split("..")]
    if len(ends) != 2:
        raise RecipeError(f"{c.name} cannot be '{text}'", expected="a range such as "
                          f"{c.search[0]:g}..{c.search[1]:g}, or one value")
    low, high = (check(c.name, end) for end in ends)
    if AUTO in (low, high) or not low <= high:
        raise RecipeError(f"the range of {c.name}, '{text}', is empty", expected="low..high")
    if low == high:
        raise RecipeError(f"the range of {c.name}, '{text}', has one point", fix=f"write {_flag(c.name)} {ends[0]}")
    step = min(c.step, high - low) if c.step and c.kind == "int" else None
    if step:
        high = low + step * ((high - low) // step)  # the last step inside
    return replace(usual, low=low, high=high, log=c.log and low > 0, step=step)


def _check_searched(c: Choice) -> None:
    if not c.search:
        reason = "trials have as many as pay, and are stopped early" if c.name == "epochs" else "it takes one value"
        raise RecipeError(f"{c.name} is not searched: {reason}", fix=f"one value, or leave out {_flag(c.name)}")


def _without_effectless(space: Space) -> Space:
    """Without the dimensions whose `needs` cannot be met. Raises RecipeError where one was narrowed, and where nothing
    is left."""
    kept = []
    for d in space.dimensions:
        if d.needs is None or space.high(d.needs[0]) == AUTO or space.high(d.needs[0]) >= d.needs[1]:
            kept.append(d)
        else:
            _refuse(d, f"{d.name} has an effect only where {d.needs[0]} is at least {d.needs[1]:g}, and it is "
                    f"at most {space.high(d.needs[0]):g}")
    if not kept:
        raise RecipeError("there is nothing to search: every choice has one value",
                          fix="leave one open, or leave out --search")
    return replace(space, dimensions=tuple(kept))


def _refuse(d: Dimension, why: str) -> None:
    if d.said:
        raise RecipeError(why, fix=f"leave out {_flag(d.name)}")


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")
