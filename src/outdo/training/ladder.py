"""What to do with the minutes: a probe always, then as deep and as long a fine-tune as they allow.

Every decision is made from measured seconds, once, and is explained in a line; a resumed run reads it back.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from outdo.contracts import Backbone, Task
from outdo.data.encode import Picked
from outdo.errors import RecipeError
from outdo.recipe import Recipe
from outdo.training.features import Features
from outdo.training.loop import Examples, Plan, Trainer, base_rate, seconds_per_step

SHARE = 0.8  # of the time left that training may plan with; the rest is validation and what was estimated wrongly
LEAST_SECONDS = 8.0  # with less than this left after the probe, fine-tuning is not begun
IMBALANCED = 3.0
FLIPS = 2  # views of an image that cached activations are kept of: as it is, and mirrored


@dataclass(frozen=True)
class Rung:
    """One way to fine-tune that could be afforded."""

    first: int
    size: int | None
    cached: bool
    words: str


def epochs_wanted(examples: int) -> tuple[int, float]:
    """(as many as do good, the fewest that are worth it) for a training set of that size; of a very large one half an
    epoch already is."""
    for below, wanted, least in ((1_000, 20, 6), (5_000, 12, 3), (20_000, 8, 2)):
        if examples < below:
            return wanted, least
    return 10, 0.5


def rungs(backbone: Backbone, store: tuple[int, ...], recipe: Recipe) -> list[Rung]:
    """From the dearest to the cheapest: the whole network at full size, its later part from cached activations, the
    whole at smaller sizes. Images that are small by themselves go without the sizes that would only enlarge them."""
    depth = backbone.depth
    later = [cut for cut in (math.ceil(depth * 0.6), depth - max(1, depth // 6)) if 0 < cut < depth]
    if backbone.kind != "image":
        found = [Rung(0, None, False, "all layers")]
        found += [Rung(cut, None, True, f"the last {depth - cut} layers from cached activations") for cut in later]
        return _asked(found, depth, recipe)
    full = train_size(backbone, recipe)
    sizes = [full]
    if recipe.input_size == "auto":
        native = max(store[:2])
        sizes = [s for s in (full, 160, 128, 96) if s <= full and (native > 64 or s <= max(96, 4 * native))] or [full]
    whole = [Rung(0, s, False, f"all blocks at {s} pixels") for s in sizes]
    part = [Rung(cut, None, True, f"the last {depth - cut} of {depth} blocks from cached activations") for cut in later]
    return _asked(whole[:1] + part + whole[1:] if len(sizes) > 1 and sizes[0] == full else whole + part, depth, recipe)


def train_size(backbone: Backbone, recipe: Recipe) -> int:
    """A little smaller than in use: augmentation zooms in, so that objects come out equally large (FixRes, Touvron et
    al. 2019)."""
    if recipe.input_size != "auto":
        return int(recipe.input_size)
    said = backbone.preprocessing()
    return int(said.get("train_size") or said["size"])


def _asked(found: Sequence[Rung], depth: int, recipe: Recipe) -> list[Rung]:
    """Only what the recipe leaves open."""
    if recipe.depth == "auto":
        return list(found)
    if recipe.depth >= depth:
        return [rung for rung in found if rung.first == 0]
    if recipe.depth == 0:
        return [Rung(depth, None, True, "only the head")]
    words = f"the last {recipe.depth} of {depth} blocks from cached activations"
    return [Rung(depth - recipe.depth, None, True, words)]


def decide(backbone: Backbone, task: Task, recipe: Recipe, *, features: Features, train: np.ndarray, codes: np.ndarray,
           classes: int, seconds_left: float) -> tuple[Plan | None, str]:
    """(the fine-tune that fits into `seconds_left`, why), or None where the probe is the end of it.

    `train` are indices, `codes` (N,) all labels as codes. One step of each rung is timed until one fits.
    """
    if recipe.epochs == 0:
        return None, "no fine-tuning: --epochs 0"
    if seconds_left < LEAST_SECONDS and recipe.epochs == "auto":
        return None, f"no fine-tuning: {seconds_left:.0f} s left after the probe"
    balanced = is_balanced(recipe, codes[train])
    wanted, least = epochs_wanted(len(train))
    if recipe.epochs != "auto":
        wanted = least = recipe.epochs
    steps = max(1, math.ceil(len(train) / recipe.batch_size))
    tried = []
    for rung in rungs(backbone, features.encoded.rows.shape[1:], recipe):
        if recipe.mixup > 0 and backbone.kind == "text" and rung.first == 0:
            if recipe.depth != "auto":
                raise RecipeError("mixup of token ids is not defined", fix="--mixup 0, or a smaller --depth")
            tried.append(f"{rung.words}: not with mixup")  # as the winner of a search may have it
            continue
        each = _time_step(backbone, task, recipe, rung, features, train, codes, classes)
        once = (features.seconds_per_example or 0.0) * len(train) * (views(backbone, recipe) if rung.cached else 0)
        affordable = max(0.0, (SHARE * seconds_left - once) / (each * steps))
        tried.append(f"{rung.words}: {affordable:.1f} epochs")
        if affordable >= least or recipe.epochs != "auto":
            epochs = min(wanted, max(int(affordable), 1)) if recipe.epochs == "auto" else wanted
            share = min(1.0, affordable) if recipe.epochs == "auto" else 1.0
            words = (f"{rung.words}, {epochs} epochs" + (f" of {share:.0%} of the examples" if share < 1 else "")
                     + f": {each * 1000:.0f} ms a step, {steps} steps an epoch, {seconds_left:.0f} s left")
            return Plan(rung.first, rung.size, epochs, base_rate(recipe, backbone.kind), rung.cached, balanced, words,
                        share), words
    return None, f"no fine-tuning: in {seconds_left:.0f} s one could do {'; '.join(tried)}, and {least:g} are needed"


def is_balanced(recipe: Recipe, codes: np.ndarray) -> bool:
    counts = np.bincount(codes)
    counts = counts[counts > 0]
    return recipe.class_weighting == "balanced" or (
        recipe.class_weighting == "auto" and bool(counts.max() > IMBALANCED * counts.min()))


def views(backbone: Backbone, recipe: Recipe) -> int:
    return FLIPS if backbone.kind == "image" and recipe.augmentation > 0 else 1


def _time_step(backbone: Backbone, task: Task, recipe: Recipe, rung: Rung, features: Features, train: np.ndarray,
               codes: np.ndarray, classes: int) -> float:
    """Seconds of one step on a copy that is thrown away."""
    few = train[: recipe.batch_size]
    twin = copy.deepcopy(backbone)
    head = task.head(backbone.width, classes).to(next(backbone.torch_module.parameters()).device)
    plan = Plan(rung.first, rung.size, 1, 0.0, rung.cached, False, "")
    part = examples(features, few, codes, rung.first, rung.cached, 1)
    trainer = Trainer(twin, head, task, plan, recipe, classes=classes, seed=0, train=part, validation=part)
    return seconds_per_step(trainer, np.arange(len(few)))


def examples(features: Features, indices: np.ndarray, codes: np.ndarray, first: int, cached: bool, views: int
             ) -> Examples:
    """The examples at `indices` as the loop takes them."""
    if cached:
        return Examples(codes[indices], None,
                        [features.activations([first], indices, view)[first] for view in range(views)])
    return Examples(codes[indices], Picked(features.encoded.rows, indices))
