"""Where trials are trained: from activations that were computed once, on one copy of the backbone that is put back.

The blocks that no trial trains run once for each image and view of it, in one pass that keeps what stands before each
block that some trial may begin with, and the pooled output. After that a trial costs the training of a few blocks, and
one of the head alone hardly anything. The first trial of a backbone, of an input size or of stronger augmentation pays
for its pass.
"""

from __future__ import annotations

import copy
import functools
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from outdo.contracts import Backbone
from outdo.recipe import AUTO, Recipe
from outdo.search.space import BACKBONE, Space
from outdo.training import ladder, probe
from outdo.training.contestants import Study, Trained, accuracy_of, fitted, loss_of, new_head, usual_size
from outdo.training.features import VARIANTS, Activations, Features
from outdo.training.loop import Examples, Plan, Trainer, base_rate

DEPTH = 2  # blocks that "auto" trains
MOST_TRAIN = 4_000  # examples that trials train on; of a larger set as many at random
EPOCHS = ((1_000, 9), (math.inf, 3))  # (training sets up to so many examples, passes over them)


@dataclass(frozen=True)
class Fold:
    """Indices to train on and to score on, and a linear probe of the former for each input size, to start from."""

    train: np.ndarray
    validation: np.ndarray
    heads: dict[int | None, probe.Linear]


@dataclass(frozen=True)
class Outcome:
    """What a trial came to. `loss` is that of the epoch whose weights are in place, after the best temperature."""

    loss: float
    accuracy: float
    epochs: int
    seconds: float  # of training and scoring


class Watched(Trainer):
    """A trainer that keeps its last outputs on validation, and the figures of each epoch."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.figures: list[tuple[float, float, float]] = []  # (raw loss, loss, accuracy) by epoch
        super().__init__(*args, **kwargs)

    def outputs(self, examples: Examples, size: int | None = None) -> np.ndarray:
        self.seen = super().outputs(examples, size)
        return self.seen

    def epoch_ended(self, raw: float) -> float:
        """The loss that counts, of the epoch that just ended. Raises FloatingPointError where it is no number."""
        loss = loss_of(self.seen, self.validation.codes)
        if not math.isfinite(loss):
            raise FloatingPointError("the loss is not a number: the learning rate is too high")
        self.figures.append((raw, loss, accuracy_of(self.seen, self.validation.codes)))
        return loss


class Workbench:
    """Trains one recipe after another. `ready` does what costs, once; a trial then begins within milliseconds.

    One backbone has one bench; the first one knows the others.
    """

    def __init__(self, study: Study, space: Space, seed: int) -> None:
        self.study, self.seed = study, seed
        self.others = {name: Workbench(other, space, seed) for name, other in study.others.items()}
        depth = DEPTH if space.high("depth") == AUTO else int(space.high("depth"))
        self.deepest = min(depth, study.backbone.depth - 1)
        self.sizes = self._sizes(space)
        self.features = {size: self._features(size) for size in {*self.sizes, usual_size(study)}}
        self.twin = copy.deepcopy(study.backbone)
        self._pristine = [p.detach().clone() for p in study.backbone.torch_module.parameters()]
        self._states: dict[Any, dict[int, Activations]] = {}
        some = np.random.default_rng(seed).permutation(study.train)[:MOST_TRAIN]
        self.first = Fold(np.sort(some), study.validation, {})
        self.epochs = int(study.recipe.epochs) if study.recipe.epochs != AUTO else next(
            epochs for below, epochs in EPOCHS if len(self.first.train) <= below)

    def of(self, params: Mapping[str, Any]) -> Workbench:
        """The bench of that trial's backbone."""
        return self.others.get(params.get(BACKBONE, ""), self)

    def size(self, values: Mapping[str, Any]) -> int | None:
        """The input size of a trial with those values."""
        return self.sizes[0] if len(self.sizes) == 1 else int(values["input_size"])

    # ── what is computed once ────────────────────────────────────────────────────────────────────────────────────────

    def ready(self, recipe: Recipe, left: Callable[[], float] = lambda: math.inf) -> None:
        """Compute what a trial of that recipe needs and is not there yet. Raises TimeoutError as soon as it is clear
        that this would take longer than `left`, in seconds."""
        size, views = self.size(recipe), self._views(float(recipe.augmentation))
        features = self.features[size]
        passes = [*((view, self.first.train) for view in views), (0, self.first.validation)]
        passes = [(view, part) for view, part in passes if (size, view, part.tobytes()) not in self._states]
        usual, start, later = features.progress, 0.0, 0

        def paced(what: str, done: int, total: int) -> None:
            more = (time.perf_counter() - start) * ((total + later) / done - 1)
            if more > left():
                raise TimeoutError(f"its features would take {more:.0f} s more, and it may have {left():.0f} s")
            if usual:
                usual(what, done, total)

        features.progress = paced
        try:
            for i, (view, part) in enumerate(passes):
                start, later = time.perf_counter(), sum(len(other) for _, other in passes[i + 1 :])
                self._at(size, view, part)
        finally:
            features.progress = usual

    @functools.cached_property
    def second(self) -> Fold:
        """Another fold: as many examples held out, of those that the first one trains on."""
        codes = self.study.codes[self.first.train]
        groups = None if self.study.groups is None else self.study.groups[self.first.train]
        folds = max(2, round(len(self.first.train) / max(1, len(self.first.validation))))
        held = probe.dealt(codes, groups, folds, self.seed) == 0
        known = np.concatenate([self.first.train[~held], self.first.validation])
        return Fold(np.sort(known), self.first.train[held], {})

    def _sizes(self, space: Space) -> list[int | None]:
        """Those that trials may have; usually one, the size in training, which is a little smaller than in use."""
        usual, open_ = usual_size(self.study), next((d for d in space.dimensions if d.name == "input_size"), None)
        if usual is None:
            return [None]
        if open_ is None:
            return [min(ladder.train_size(self.study.backbone, self.study.recipe), usual)]
        step = int(open_.step or max(1, (open_.high or 0) - (open_.low or 0)))
        return list(range(int(open_.low or 0), int(open_.high or 0) + 1, step))

    def _features(self, size: int | None) -> Features:
        known = self.study.features
        return Features(known.backbone, known.encoded, known.folder.parent, size=size, progress=self.study.progress)

    def _views(self, augmentation: float) -> list[int]:
        """As it is; with any augmentation mirrored too, and the variants that are no stronger."""
        if self.study.backbone.kind != "image" or augmentation == 0:
            return [0]
        return [0, 1, *(2 + i for i, strength in enumerate(VARIANTS) if strength <= augmentation + 1e-9)]

    def _at(self, size: int | None, view: int, indices: np.ndarray) -> dict[int, Activations]:
        key = size, view, indices.tobytes()
        if key not in self._states:
            depth = self.study.backbone.depth
            self._states[key] = self.features[size].activations(range(depth - self.deepest, depth + 1), indices, view)
        return self._states[key]

    def _head(self, fold: Fold, size: int | None) -> probe.Linear:
        if size not in fold.heads:
            known = np.concatenate([fold.train, fold.validation])
            depth, kept = self.study.backbone.depth, []
            for part in (fold.train, fold.validation):
                kept.append(self._at(size, 0, part)[depth].arrays["x"][np.arange(len(part))])
            held = np.isin(known, fold.validation)[None]
            fitted = probe.fit_linear({"last": np.concatenate(kept)}, self.study.codes[known],
                                      [(("last",), "columns")], held, refit=False,
                                      classes=len(self.study.classes))
            assert fitted.blind is not None
            fold.heads[size] = fitted.blind
        return fold.heads[size]

    # ── a trial ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def resolved(self, recipe: Recipe) -> Recipe:
        """With every "auto" that training needs as a value."""
        return recipe.but(
            depth=DEPTH if recipe.depth == AUTO else recipe.depth,
            learning_rate=base_rate(recipe, self.study.backbone.kind))

    def trainer(self, recipe: Recipe, fold: Fold, seed: int, *, backbone: Backbone | None = None,
                watch: Callable[[int, float], bool] = lambda epoch, loss: False,
                over: Callable[[], bool] = lambda: False) -> Watched:
        """A trainer of that recipe, from the pretrained weights. `watch` is told the loss of each epoch and says
        whether that was enough; `over` is asked at every step."""
        recipe = self.resolved(recipe)
        size, depth = self.size(recipe), self.study.backbone.depth
        cut = depth - min(int(recipe.depth), self.deepest)
        train = Examples(self.study.codes[fold.train], None,
                         [self._at(size, view, fold.train)[cut] for view in self._views(float(recipe.augmentation))])
        validation = Examples(self.study.codes[fold.validation], None, [self._at(size, 0, fold.validation)[cut]])
        plan = Plan(cut, size, self.epochs, float(recipe.learning_rate), True,
                    ladder.is_balanced(recipe, train.codes), "")
        enough = False

        def log(event: dict[str, Any]) -> None:
            nonlocal enough
            if event["event"] == "epoch":
                enough = watch(event["epoch"], made.epoch_ended(event["validation_loss"]))

        made = Watched(backbone or self._put_back(), new_head(self.study, self._head(fold, size)), self.study.task,
                       plan, recipe, classes=len(self.study.classes), seed=seed, train=train, validation=validation,
                       log=log, over=lambda: enough or over())
        return made

    def probed(self, recipe: Recipe) -> Outcome:
        """What every trial of that input size begins with: the linear probe."""
        depth, fold, size = self.study.backbone.depth, self.first, self.size(recipe)
        pooled = self._at(size, 0, fold.validation)[depth].arrays["x"][np.arange(len(fold.validation))]
        outputs, truth = self._head(fold, size)({"last": pooled}), self.study.truth
        return Outcome(loss_of(outputs, truth), accuracy_of(outputs, truth), 0, 0.0)

    def run(self, recipe: Recipe, fold: Fold, seed: int, **watching: Any) -> Outcome:
        start = time.perf_counter()
        trainer = self.trainer(recipe, fold, seed, **watching)
        trainer.fit()
        _, loss, accuracy = min(trainer.figures)
        return Outcome(loss, accuracy, len(trainer.figures), time.perf_counter() - start)

    def _put_back(self) -> Backbone:
        with torch.no_grad():
            for parameter, value in zip(self.twin.torch_module.parameters(), self._pristine, strict=True):
                parameter.copy_(value)
        return self.twin

    # ── a trial's model ──────────────────────────────────────────────────────────────────────────────────────────────

    def model(self, recipe: Recipe, seed: int, name: str) -> Trained:
        """The recipe trained once more on the first fold, its weights kept; then the share of the way from the
        pretrained weights, and for images the size to look at, are chosen on validation."""
        own = copy.deepcopy(self.study.backbone)
        trainer = self.trainer(recipe, self.first, seed, backbone=own)
        seen = {trainer.plan.size: trainer.validation}
        if len(self.sizes) == 1:
            usual = usual_size(self.study)
            views = [self._at(usual, 0, self.first.validation)[trainer.plan.first]]
            seen |= {usual: replace(trainer.validation, views=views)}
        return fitted(self.study, trainer, own, name, seen)
