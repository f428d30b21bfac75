"""Fine-tuning: `fit` -> `run_epoch` -> `step`, resumable at any step with the same bits.

Nothing here draws from a global random number generator: every draw is seeded by (seed, what, epoch, step), so a
checkpoint is the weights, the optimiser's and the average's state, and two numbers.
"""

from __future__ import annotations

import contextlib
import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from outdo import runtime
from outdo.contracts import Backbone, Progress, Rows, State, Task, batches
from outdo.recipe import Recipe
from outdo.storage import read_tensors, write_tensors
from outdo.training import objectives
from outdo.training.features import BATCH, Activations

CHECKPOINT_SECONDS = 30.0  # what a kill can cost
WARM_UP = 0.1  # share of all steps in which the learning rate rises
CLIP = 1.0  # gradient norm
BASE_RATES = {"sgd": 0.01, "adam": 5e-4, "adamw": 5e-4}  # for "auto", images; texts take a fifth
ORDER, VARY, MIX, ATTACK = 1, 2, 3, 4  # what a generator is for


@dataclass(frozen=True)
class Plan:
    """What the ladder decided, with every "auto" resolved. JSON by `asdict`."""

    first: int  # the first block that is trained
    size: int | None  # image side in training
    epochs: int
    learning_rate: float
    cached: bool  # train from cached activations before block `first`
    balanced: bool  # weigh classes by inverse frequency
    words: str  # the decision, said aloud
    share: float = 1.0  # of the training examples, where there is no time for all of them even once


def base_rate(recipe: Recipe, kind: str) -> float:
    if recipe.learning_rate != "auto":
        return float(recipe.learning_rate)
    return BASE_RATES[recipe.optimiser] * (0.2 if kind == "text" else 1.0) * math.sqrt(recipe.batch_size / 32)


@dataclass
class Examples:
    """What one side of a split trains or validates on: rows from the start, or activations (views of them) at a cut."""

    codes: np.ndarray  # (n,) int64
    rows: Rows | None
    views: Sequence[Activations] = ()

    def __len__(self) -> int:
        return len(self.codes)


class Trainer:
    """Fine-tunes the blocks from `plan.first` on, and a head, in place.

    `log` takes one JSON-able dict for every epoch and every tenth step; `over` says that the budget is used up.
    """

    def __init__(self, backbone: Backbone, head: torch.nn.Module, task: Task, plan: Plan, recipe: Recipe, *,
                 classes: int, seed: int, train: Examples, validation: Examples, checkpoint: Path | None = None,
                 log: Callable[[dict[str, Any]], None] = lambda event: None, over: Callable[[], bool] = lambda: False,
                 progress: Progress | None = None) -> None:
        self.backbone, self.head, self.task = backbone, head, task
        self.plan, self.recipe, self.classes, self.seed = plan, recipe, classes, seed
        self.train, self.validation, self.checkpoint = train, validation, checkpoint
        self.log, self.over, self.progress = log, over, progress
        self.device = next(backbone.torch_module.parameters()).device
        self.parameters = self._trained()
        self.optimiser = self._optimiser()
        self.peaks = [group["lr"] for group in self.optimiser.param_groups]
        self.average = [p.detach().clone() for p in self.parameters] if recipe.averaging == "ema" else None
        self.steps_per_epoch = max(1, math.ceil(len(train) / recipe.batch_size))
        self.total = self.steps_per_epoch * plan.epochs
        self.class_weights = self._class_weights()
        self.epoch = self.done = 0  # the epoch under way, steps taken in all
        self.history: list[dict[str, Any]] = []
        self.best: list[torch.Tensor] | None = None
        self.best_loss, self.worse = math.inf, 0
        self._loss, self._seen = 0.0, 0
        self._saved = time.monotonic()

    # ── the loops ────────────────────────────────────────────────────────────────────────────────────────────────────

    def fit(self) -> list[dict[str, Any]]:
        """Train; the best weights seen on validation are in place afterwards. Returns a dict for each epoch."""
        if self.checkpoint and self.checkpoint.exists():
            self._restore()
        while self.epoch < self.plan.epochs and not self._patience_is_over():
            self.run_epoch()
            if self.over():
                break
        if self.checkpoint:
            self.save()  # what follows may be interrupted too
        if self.best is not None:
            self._put(self.best)
        return self.history

    def run_epoch(self) -> None:
        start = time.perf_counter()
        order = torch.randperm(len(self.train), generator=runtime.generator(self.seed, ORDER, self.epoch)).numpy()
        for part in list(batches(len(order), self.recipe.batch_size))[self.done - self.epoch * self.steps_per_epoch :]:
            self.step(order[part])
            self._save_now_and_then()
            if self.over():
                break
        self._end_of_epoch(time.perf_counter() - start)

    def step(self, positions: np.ndarray) -> None:
        self._set_rate()
        state, targets = self.batch(positions)
        loss = self.objective(state, targets)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.parameters, CLIP, foreach=True)
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        self._follow()
        self.done += 1
        self._loss, self._seen = self._loss + float(loss.detach()) * len(positions), self._seen + len(positions)
        if self.done % 10 == 0:
            self.log({"event": "step", "epoch": self.epoch, "step": self.done, "loss": self._loss / self._seen})
        if self.progress:
            self.progress("fine-tuning", self.done, self.total)

    def objective(self, state: State, targets: torch.Tensor) -> torch.Tensor:
        """Token ids have no neighbours to be moved to: under attack, texts are embedded first."""
        first, pixels = self.plan.first, self.backbone.preprocessing() if self.backbone.kind == "image" else None
        if self.recipe.objective != "standard" and not state["x"].is_floating_point():
            state, first = self.backbone.run(state, first, first + 1), first + 1
        return objectives.loss(
            self.recipe, state, lambda s: self.forward(s, first),
            lambda outputs: self.task.loss(outputs, targets, self.class_weights, self.recipe.label_smoothing),
            pixels if first == 0 else None, self.draw(ATTACK))

    def forward(self, state: State, first: int) -> torch.Tensor:
        """Activations that were kept behind the last block are pooled outputs already."""
        if self.plan.cached and first == self.backbone.depth:
            return self.head(state["x"].float())
        return self.head(self.backbone.pool(self.backbone.run(state, first, self.backbone.depth)))

    def batch(self, positions: np.ndarray) -> tuple[State, torch.Tensor]:
        """The State before the first trained block, and the targets: codes (B,), or (B, C) under mixup."""
        targets = torch.from_numpy(self.train.codes[positions]).to(self.device)
        if self.train.rows is not None:
            rows = torch.from_numpy(self.train.rows[positions])
            rows = self.backbone.augment(rows, self.recipe.augmentation, self.draw(VARY))
            state = self.backbone.prepare(rows, self.plan.size)
        else:
            view = int(torch.randint(len(self.train.views), (1,), generator=self.draw(VARY)))
            state = self.train.views[view].state(positions, self.device)
        return self._mixed(state, targets) if self.recipe.mixup > 0 else (state, targets)

    def draw(self, purpose: int) -> torch.Generator:
        return runtime.generator(self.seed, purpose, self.epoch, self.done)

    # ── validation ───────────────────────────────────────────────────────────────────────────────────────────────────

    def outputs(self, examples: Examples, size: int | None = None) -> np.ndarray:
        """(n, C) outputs with the weights as they are."""
        found, batch = [], BATCH[self.backbone.kind]
        with torch.no_grad():
            for part in batches(len(examples), batch):
                at = np.arange(part.start, part.stop)
                if examples.rows is not None:
                    state = self.backbone.prepare(examples.rows[at], size or self.plan.size)
                    start = 0
                else:
                    state, start = examples.views[0].state(at, self.device), self.plan.first
                found.append(self.forward(state, start).float().cpu().numpy())
        return np.concatenate(found)

    @contextlib.contextmanager
    def averaged(self) -> Iterator[None]:
        """The averaged weights in place of the last ones."""
        kept = [p.detach().clone() for p in self.parameters]
        self._put(self.average if self.average is not None else kept)
        try:
            yield
        finally:
            self._put(kept)

    def _end_of_epoch(self, seconds: float) -> None:
        with self.averaged():
            logits = torch.from_numpy(self.outputs(self.validation))
            loss = float(self.task.loss(logits, torch.from_numpy(self.validation.codes), None, 0.0))
            accuracy = float((logits.argmax(1).numpy() == self.validation.codes).mean())
            if loss < self.best_loss or self.recipe.objective != "standard":  # which a plain loss cannot judge
                self.best, self.best_loss, self.worse = [p.detach().clone() for p in self.parameters], loss, 0
            else:
                self.worse += 1
        row = {"epoch": self.epoch + 1, "train_loss": self._loss / max(1, self._seen), "validation_loss": loss,
               "validation_accuracy": accuracy, "seconds": seconds}
        self.history.append(row)
        self.log({"event": "epoch", **row})
        self.epoch, self._loss, self._seen = self.epoch + 1, 0.0, 0
        self.done = self.epoch * self.steps_per_epoch  # also where the time cut it short: the next one begins whole

    def _patience_is_over(self) -> bool:
        return 0 < self.recipe.early_stopping <= self.worse

    # ── parts of a step ──────────────────────────────────────────────────────────────────────────────────────────────

    def _trained(self) -> list[torch.nn.Parameter]:
        self.backbone.torch_module.requires_grad_(False)
        blocks = range(self.plan.first, self.backbone.depth)
        found = [p for block in blocks for p in self.backbone.block_parameters(block)] + list(self.head.parameters())
        for parameter in found:
            parameter.requires_grad_(True)
        return found

    def _optimiser(self) -> torch.optim.Optimizer:
        """A group for each block and for each of decayed and not decayed; the rate falls towards the input."""
        groups, rate = [], self.plan.learning_rate
        layers = [list(self.head.parameters())]
        layers += [self.backbone.block_parameters(b) for b in range(self.backbone.depth - 1, self.plan.first - 1, -1)]
        for depth, layer in enumerate(layers):
            for decays in (True, False):
                chosen = [p for p in layer if (p.ndim > 1) is decays]
                if chosen:
                    groups.append({"params": chosen, "lr": rate * self.recipe.layer_decay ** max(0, depth - 1),
                                   "weight_decay": self.recipe.weight_decay if decays else 0.0})
        fused = runtime.uses("fused_optimiser")
        if self.recipe.optimiser == "sgd":
            return torch.optim.SGD(groups, lr=rate, momentum=0.9, nesterov=True, fused=fused)
        kind = torch.optim.AdamW if self.recipe.optimiser == "adamw" else torch.optim.Adam
        return kind(groups, lr=rate, fused=fused)

    def _class_weights(self) -> torch.Tensor | None:
        if not self.plan.balanced:
            return None
        return torch.from_numpy(balanced(self.train.codes, self.classes)).to(self.device)

    def _set_rate(self) -> None:
        share = rate_share(self.recipe.schedule, self.done, self.total)
        for group, peak in zip(self.optimiser.param_groups, self.peaks, strict=True):
            group["lr"] = peak * share

    def _follow(self) -> None:
        """Move the average: over about the last tenth of training, faster at the start."""
        if self.average is None:
            return
        decay = min(1 - 10 / max(self.total, 20), (1 + self.done) / (10 + self.done))
        with torch.no_grad():
            torch._foreach_lerp_(self.average, [p.detach() for p in self.parameters], 1 - decay)

    def _mixed(self, state: State, targets: torch.Tensor) -> tuple[State, torch.Tensor]:
        """Mixup (Zhang et al. 2018) of the State before the first trained block."""
        draw = self.draw(MIX)
        share = float(np.random.default_rng(draw.initial_seed()).beta(self.recipe.mixup, self.recipe.mixup))
        other = torch.randperm(len(targets), generator=draw).to(self.device)
        soft = torch.nn.functional.one_hot(targets, self.classes).float()
        mixed = {**state, "x": share * state["x"] + (1 - share) * state["x"][other]}
        if "mask" in state:
            mixed["mask"] = state["mask"] | state["mask"][other]
        return mixed, share * soft + (1 - share) * soft[other]

    def _put(self, values: Sequence[torch.Tensor]) -> None:
        with torch.no_grad():
            for parameter, value in zip(self.parameters, values, strict=True):
                parameter.copy_(value)

    # ── checkpoints ──────────────────────────────────────────────────────────────────────────────────────────────────

    def _save_now_and_then(self) -> None:
        if self.checkpoint and time.monotonic() - self._saved >= CHECKPOINT_SECONDS:
            self.save()

    def save(self) -> None:
        assert self.checkpoint
        tensors: dict[str, torch.Tensor] = {f"now.{i}": p for i, p in enumerate(self.parameters)}
        for kind, values in (("average", self.average), ("best", self.best)):
            tensors |= {f"{kind}.{i}": v for i, v in enumerate(values or [])}
        for i, p in enumerate(self.parameters):
            tensors |= {f"optimiser.{i}.{k}": v for k, v in self.optimiser.state.get(p, {}).items() if v is not None}
        note = {"epoch": self.epoch, "done": self.done, "history": self.history, "best_loss": self.best_loss,
                "worse": self.worse, "loss": self._loss, "seen": self._seen, "plan": asdict(self.plan)}
        write_tensors(self.checkpoint, tensors, {"state": json.dumps(note)})  # as text: infinity survives
        self._saved = time.monotonic()

    def _restore(self) -> None:
        assert self.checkpoint
        tensors, note = read_tensors(self.checkpoint)
        said = json.loads(note["state"])
        if said["plan"] != asdict(self.plan):
            return  # an older fine-tune of this run; its place is taken when the next checkpoint is written
        count = len(self.parameters)
        self._put([tensors[f"now.{i}"] for i in range(count)])
        if self.average is not None:
            self.average = [_laid_as(p, tensors[f"average.{i}"]) for i, p in enumerate(self.parameters)]
        if "best.0" in tensors:
            self.best = [_laid_as(p, tensors[f"best.{i}"]) for i, p in enumerate(self.parameters)]
        for name, value in tensors.items():
            if name.startswith("optimiser."):
                _, i, key = name.split(".", 2)
                parameter = self.parameters[int(i)]
                at = parameter.device if runtime.uses("fused_optimiser") else "cpu"  # where the optimiser counts
                self.optimiser.state[parameter][key] = value.to(at) if key == "step" else _laid_as(parameter, value)
        self.epoch, self.done, self.history = said["epoch"], said["done"], said["history"]
        self.best_loss, self.worse = said["best_loss"], said["worse"]
        self._loss, self._seen = said["loss"], said["seen"]


def _laid_as(parameter: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """`value` in the memory layout of `parameter`: a fused optimiser walks through both as they lie."""
    return torch.empty_like(parameter, requires_grad=False).copy_(value)


def balanced(codes: np.ndarray, classes: int) -> np.ndarray:
    """(classes,) float32 weights, inverse to class frequency, mean 1 over the examples if they have all classes."""
    counts = np.maximum(np.bincount(codes, minlength=classes), 1)
    return (len(codes) / (len(counts) * counts)).astype(np.float32)


def rate_share(schedule: str, step: int, total: int) -> float:
    """Share of the peak learning rate at a step: a linear warm-up, then the schedule down to nearly nothing."""
    warm = max(1, round(WARM_UP * total))
    if step < warm:
        return (step + 1) / warm
    left = (step - warm) / max(1, total - warm)
    return {"cosine": 0.5 * (1 + math.cos(math.pi * left)), "linear": 1 - left, "constant": 1.0}[schedule]


def seconds_per_step(trainer: Trainer, positions: np.ndarray) -> float:
    """The fastest of a few steps, on a trainer that is thrown away afterwards: the first ones set up kernels."""
    times = []
    for _ in range(4):
        start = time.perf_counter()
        trainer.step(positions)
        times.append(time.perf_counter() - start)
    return min(times)
