"""What was asked of a search, checked as far as it can be before data are read or anything heavy is loaded."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from outdo import plugins
from outdo.errors import RecipeError, nearest
from outdo.search.space import Space, is_range, read

AUTO = {False: "ant_colony", True: "tpe"}  # the sampler for one aim, and for two; see bench/RESULTS.md
ONE_AIM = ("ant_colony", "genetic")  # samplers that search for one thing at a time
AIMS = ("latency",)


@dataclass(frozen=True)
class Wish:
    """A search as it was asked for. `trials` None: as many as there is time for; `also` names a second aim."""

    sampler: str
    space: Space
    trials: int | None = None
    workers: int = 1
    also: str | None = None

    def as_json(self) -> dict[str, Any]:
        """What a resumed run has to share with the one that it goes on with."""
        return {"sampler": self.sampler, "also": self.also, "space": self.space.as_json()}


def wish(search: str | None, said: Mapping[str, Any], trials: int | None = None, workers: int = 1,
         also: str | None = None, start_from: str | None = None) -> Wish | None:
    """None where no search is wanted. `said` are the recipe's choices, ranges among them; `start_from` is a backbone,
    or several with commas between.

    Raises RecipeError for anything that cannot be: sampler, choices, ranges, backbones, trials, workers, a second aim.
    """
    backbones = named(start_from)
    if search is None:
        _check_unsearched(said, trials, workers, also, backbones)
        return None
    if also is not None and also not in AIMS:
        raise RecipeError(f"--also cannot be '{also}'", fix=nearest(also, AIMS))
    for name, count in (("trials", trials), ("workers", workers)):
        if count is not None and (type(count) is not int or count < 1):
            raise RecipeError(f"{name} cannot be {count}", expected="a whole number above 0")
    if workers > 1 and not (sys.platform == "linux" and os.environ.get("OUTDO_DEVICE", "cpu") == "cpu"):
        raise RecipeError("several workers need Linux, and a processor to compute on", fix="--workers 1")
    space = read(said, also == "latency", backbones)
    if space.recipe.objective != "standard":
        raise RecipeError("a search looks for the least plain loss", found=f"--objective {space.recipe.objective}",
                          fix="leave out one of --search and --objective")
    return Wish(_sampler(search, also is not None), space, trials, workers, also)


def named(start_from: str | None) -> list[str]:
    """The backbones of "a,b"; none where the default one is meant. Raises RecipeError where one has no name or two."""
    names = start_from.split(",") if start_from else []
    if "" in names or len(set(names)) < len(names):
        raise RecipeError(f"--start-from cannot be '{start_from}'", expected="different backbones, as in a,b")
    return names


def _check_unsearched(said: Mapping[str, Any], trials: int | None, workers: int, also: str | None,
                      backbones: Sequence[str]) -> None:
    if len(backbones) > 1:
        raise RecipeError(f"only a search can choose among {len(backbones)} backbones", fix="add --search auto, or "
                          f"--start-from {backbones[0]}")
    for name, given in (("trials", trials is not None), ("workers", workers != 1), ("also", also is not None)):
        if given:
            raise RecipeError(f"--{name} has no meaning without a search", fix="add --search auto")
    for name, value in said.items():
        if is_range(value):
            raise RecipeError(f"{name} cannot be '{value}' without a search", fix="add --search auto, or say one value")


def _sampler(name: str, two: bool) -> str:
    known = ["auto", *plugins.names("samplers")]
    if name not in known:
        raise RecipeError(f"unknown sampler '{name}'", fix=nearest(name, known))
    if two and name in ONE_AIM:
        raise RecipeError(f"{name} searches for one thing at a time", fix="with --also use --search tpe or random")
    name = AUTO[two] if name == "auto" else name
    plugins.load("samplers", name)  # says now if Optuna is not installed
    return name
