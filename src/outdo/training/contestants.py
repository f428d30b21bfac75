"""Who takes part: the baselines on frozen features, the better probe, and the fine-tuned network.

Each function gives a `Trained`: the model, and its outputs on validation from fits that had not seen validation, by
which it is judged against the others. The labels of the sealed test are not in a `Study` at all.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from outdo.contracts import Backbone, Encoded, Inputs, Progress, Task
from outdo.recipe import Recipe
from outdo.training import averaging, kept, ladder, probe
from outdo.training.features import Features, lexical_counts
from outdo.training.loop import Examples, Plan, Trainer
from outdo.training.model import Constant, Model, Neighbours, Network, unit

NEIGHBOURS = (1, 3, 5, 10, 20, 50)
BANK, QUERIES = 20_000, 2_000  # the most neighbours to look among, and validation examples to choose their number by
SHARES = (0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0)  # of a lexical part beside the dense one
UNKNOWN = -1  # the code of an example whose label training may not see


@dataclass
class Study:
    """What training may see. `codes` (N,) are UNKNOWN for test examples; `train` and `validation` are indices."""

    task: Task
    backbone: Backbone
    encoded: Encoded
    features: Features
    classes: tuple[str, ...]
    codes: np.ndarray
    train: np.ndarray
    validation: np.ndarray
    inputs: Inputs
    groups: np.ndarray | None
    recipe: Recipe
    seed: int
    log: Callable[[dict[str, Any]], None] = lambda event: None
    left: Callable[[], float] = lambda: float("inf")  # seconds of the budget
    progress: Progress | None = None
    others: Mapping[str, Study] = field(default_factory=dict)  # the same examples seen by other backbones, by name
    _pooled: dict[str, np.ndarray] | None = field(default=None, repr=False)
    _fits: dict[probe.Candidate, probe.Fitted] = field(default_factory=dict, repr=False)

    @property
    def known(self) -> np.ndarray:
        """Indices of train and validation together, ascending."""
        return np.sort(np.concatenate([self.train, self.validation]))

    @property
    def truth(self) -> np.ndarray:
        """Codes of validation."""
        return self.codes[self.validation]

    def pooled(self) -> dict[str, np.ndarray]:
        """Feature sets of `known`."""
        if self._pooled is None:
            needed = {name for sets, _ in self.candidates() for name in sets}
            self._pooled = self.features.pooled(self.known, sorted(needed))
        return self._pooled

    def candidates(self) -> list[probe.Candidate]:
        return probe.candidates(self.backbone.feature_sets, len(self.known))

    def let_go(self) -> None:
        """Forget the feature sets, which may be large; they are on disk."""
        self._pooled = None

    def held(self) -> np.ndarray:
        groups = None if self.groups is None else self.groups[self.known]
        return probe.held_out_masks(self.codes[self.known], np.isin(self.known, self.validation), groups, self.seed)

    def class_weights(self) -> np.ndarray | None:
        from outdo.training.loop import balanced

        if not ladder.is_balanced(self.recipe, self.codes[self.train]):
            return None
        return balanced(self.codes[self.known], len(self.classes))

    def remembered(self, what: Sequence[Any], held: np.ndarray, fit: Callable[[], probe.Fitted]) -> probe.Fitted:
        """A fit on `known`, made once for the same examples, labels and held-out masks."""
        known, weights = self.known, self.class_weights()
        facts = [what, self.features.key("pooled"), [self.encoded.digests[i] for i in known], self.codes[known], held,
                 weights if weights is not None else []]
        return kept.remembered(self.features.folder, facts, fit)

    def model(self, name: str, parts: list[tuple[float, Any]], backbone: Backbone | None = None, **about: Any) -> Model:
        about = {"backbone_sha256": self.backbone.origin.sha256, **about}
        return Model(name, self.task, self.classes, backbone or self.backbone, parts, size=self.features.size,
                     about=about)


@dataclass(frozen=True)
class Trained:
    """A model, its outputs on validation (n, C), and what is worth telling of it."""

    model: Model
    outputs: np.ndarray
    words: str
    history: list[dict[str, Any]] = field(default_factory=list)
    held_out: np.ndarray | None = None  # (len(known), C) where every known example has one
    blind: probe.Linear | None = None  # a linear probe fitted without validation, where there was one
    features: Features | None = None  # its own, where they are not the study's
    share: float | None = None  # of the way from the pretrained weights, where it was fine-tuned


def majority(study: Study) -> Trained:
    shares = np.bincount(study.codes[study.known], minlength=len(study.classes)) / len(study.known)
    bias = np.log(np.maximum(shares, 1e-6)).astype(np.float32)
    return Trained(study.model("majority class", [(1.0, Constant(bias))]),
                   np.repeat(bias[None], len(study.validation), 0), f"always '{study.classes[int(bias.argmax())]}'")


def neighbours(study: Study) -> Trained:
    """k nearest neighbours on frozen features; k chosen on validation. Large sets: among BANK random examples."""
    some = np.sort(np.random.default_rng(study.seed).permutation(len(study.known))[:BANK])
    everything, classes = unit(study.pooled()["last"]), len(study.classes)
    queries = {"last": everything[np.isin(study.known, study.validation)]}
    asked = np.random.default_rng(study.seed).permutation(len(study.validation))[:QUERIES]
    few = {"last": queries["last"][asked]}
    bank, codes = everything[some], study.codes[study.known][some]
    seen = np.isin(study.known[some], study.train)
    tried = [Neighbours(bank[seen], codes[seen], k, classes) for k in NEIGHBOURS if k <= seen.sum()]
    best = max(tried, key=lambda one: (accuracy_of(one(few), study.truth[asked]), -one.k))
    model = study.model("nearest neighbours", [(1.0, Neighbours(bank, codes, best.k, classes))])
    return Trained(model, best(queries), f"k = {best.k}")


def linear_probe(study: Study) -> Trained:
    """The field's usual one: standardised output of the last block, strength chosen on held-out examples."""
    return _probe(study, "linear probe", [(("last",), "columns")])


def better_probe(study: Study) -> Trained:
    """The best feature sets at their best scaling; for texts also the words themselves, as far as they help."""
    trained = _probe(study, "better probe", study.candidates())
    counts = lexical_counts(study.backbone, ladder.Picked(study.encoded.rows, study.known))
    if counts is None:
        return trained
    held = study.held()
    lexical = study.remembered(["lexical"], held, lambda: probe.fit_lexical(counts, study.codes[study.known], held,
                                                                            study.class_weights()))
    beside = lexical.held_out[np.isin(study.known, study.validation)]
    share, outputs = _blend(trained.outputs, beside, study.truth)
    parts = [*trained.model.parts, (share, lexical.model)] if share else trained.model.parts
    return replace(trained, model=study.model("better probe", parts), outputs=outputs,
                   words=f"{trained.words}, and words with a share of {share:g}")


def _probe(study: Study, name: str, tried: list[probe.Candidate]) -> Trained:
    held = study.held()
    fitted = study.remembered(["linear", tried], held, lambda: probe.fit_linear(
        study.pooled(), study.codes[study.known], tried, held, study.class_weights(), known=study._fits))
    assert isinstance(fitted.model, probe.Linear)
    whole, single = not np.isnan(fitted.held_out).any(), np.isnan(fitted.held_out[:, 0]).sum() == len(study.train)
    words = f"{' + '.join(fitted.model.sets)} features, strength {fitted.strength:.1g}"
    return Trained(study.model(name, [(1.0, fitted.model)]),
                   fitted.held_out[np.isin(study.known, study.validation)], words,
                   held_out=fitted.held_out if whole else None, blind=fitted.blind if single else None)


def _blend(dense: np.ndarray, beside: np.ndarray, truth: np.ndarray) -> tuple[float, np.ndarray]:
    """The share of `beside` that gives the least loss on validation, and the sum."""
    losses = [loss_of(dense + share * beside, truth) for share in SHARES]
    share = SHARES[int(np.argmin(losses))]
    return share, dense + np.float32(share) * beside


def loss_of(outputs: np.ndarray, truth: np.ndarray) -> float:
    """Mean negative log-likelihood after the temperature that suits best: how good the ranking and the odds are, not
    how loud."""
    return float(losses_of(outputs, truth).mean())


def losses_of(outputs: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """The same of each example, (n,)."""
    logits, target = torch.from_numpy(np.asarray(outputs, np.float32)), torch.from_numpy(truth)
    scaled = (torch.nn.functional.cross_entropy(logits * scale, target, reduction="none")
              for scale in np.geomspace(0.1, 10, 25))
    return min(scaled, key=lambda losses: float(losses.mean())).numpy()  # type: ignore[no-any-return]


def outdoes(challenger: np.ndarray, champion: np.ndarray, truth: np.ndarray, handicap: float = 0.0) -> bool:
    """Whether outputs (n, C) have less loss by more than the standard error of the difference in pairs, `handicap`
    nats being taken off first. The one-standard-error rule (Breiman et al. 1984): what was chosen in many ways on
    these examples leads by luck, and the simpler model stays where that may be all."""
    gain = losses_of(champion, truth) - losses_of(challenger, truth) - handicap
    return bool(gain.mean() > gain.std(ddof=1) / math.sqrt(len(gain))) if len(gain) > 1 else bool(gain.mean() > 0)


def accuracy_of(outputs: np.ndarray, truth: np.ndarray) -> float:
    return float((outputs.argmax(1) == truth).mean()) if len(truth) else float("nan")


# ── fine-tuning ──────────────────────────────────────────────────────────────────────────────────────────────────────


def fine_tuned(study: Study, plan: Plan, recipe: Recipe, name: str = "fine-tuned", *, start: probe.Linear | None,
               checkpoint: Path | None = None) -> Trained:
    """Head first, from the linear probe `start`; then the blocks that `plan` names; then WiSE-FT on validation.

    That order keeps the first steps from tearing up pretrained features (LP-FT, Kumar et al. 2022).
    """
    twin = copy.deepcopy(study.backbone)
    views = ladder.views(twin, recipe)
    some = np.random.default_rng(study.seed).permutation(study.train)[: math.ceil(plan.share * len(study.train))]
    train = ladder.examples(study.features, np.sort(some), study.codes, plan.first, plan.cached, views)
    validation = ladder.examples(study.features, study.validation, study.codes, plan.first, plan.cached, 1)
    trainer = Trainer(twin, new_head(study, start), study.task, plan, recipe, classes=len(study.classes),
                      seed=study.seed, train=train, validation=validation, checkpoint=checkpoint, log=study.log,
                      over=lambda: study.left() <= 0, progress=study.progress)
    sizes = [study.features.size] if plan.cached else [plan.size, usual_size(study)]
    return fitted(study, trainer, twin, name, dict.fromkeys(sizes, validation))


def new_head(study: Study, start: probe.Linear | None) -> torch.nn.Module:
    """The task's own, with the weights of a linear probe where there is one."""
    with torch.random.fork_rng(devices=[]):  # a head without a probe is drawn, and a resumed run must draw the same
        torch.manual_seed(study.seed)
        head: Any = study.task.head(study.backbone.width, len(study.classes))
    if start is not None:
        with torch.no_grad():
            head.weight.copy_(torch.from_numpy(start.weight.T.copy()))
            head.bias.copy_(torch.from_numpy(start.bias))
    return head.to(next(study.backbone.torch_module.parameters()).device)


def usual_size(study: Study) -> int | None:
    """The side at which frozen features look at images: a little larger than the one in training. None for texts."""
    if study.backbone.kind != "image":
        return None
    return study.features.size or int(study.backbone.preprocessing()["size"])


def fitted(study: Study, trainer: Trainer, backbone: Backbone, name: str, seen: Mapping[int | None, Examples]
           ) -> Trained:
    """Train `backbone`, then choose on validation, as `seen` at each size, the size to look at and the share of the
    way from the pretrained weights."""
    recipe, before = trainer.recipe, [p.detach().clone() for p in trainer.parameters]
    history = trainer.fit()

    def outputs(size: int | None) -> np.ndarray:
        return trainer.outputs(seen[size], size)

    size, *others = seen
    if others:
        size = min(seen, key=lambda s: loss_of(outputs(s), study.truth))
    plain = recipe.objective == "standard"  # the plain loss would lead back to where nothing withstands an attack
    shares = averaging.SHARES if plain else (1.0,)
    shares = shares if recipe.interpolation == "auto" else (float(recipe.interpolation),)
    share, _ = averaging.best_share(trainer.parameters, before, lambda: loss_of(outputs(size), study.truth), shares)
    for parameter in trainer.parameters:
        parameter.requires_grad_(False)
    network = Network(backbone, trainer.head.eval(), trainer.plan.first, size)
    name += "" if plain else f", {recipe.objective}"
    words = f"{len(history)} epochs, {share:.0%} of the way from the pretrained weights"
    words += f", at {size} pixels" if size else ""
    return Trained(study.model(name, [(1.0, network)], backbone), outputs(size), words, history,
                   features=study.features, share=share)


def with_words(study: Study, network: Trained, better: Trained) -> Trained:
    """The network with the probe's lexical part beside it, where validation likes it better."""
    lexical = [(share, part) for share, part in better.model.parts if isinstance(part, probe.Lexical)]
    if not lexical:
        return network
    is_train = np.isin(study.known, study.train)
    known = lexical_counts(study.backbone, ladder.Picked(study.encoded.rows, study.known))
    fitted = study.remembered(["lexical"], (~is_train)[None], lambda: probe.fit_lexical(
        known, study.codes[study.known], (~is_train)[None], study.class_weights()))
    share, outputs = _blend(network.outputs, fitted.held_out[~is_train], study.truth)
    if not share:
        return network
    parts = [*network.model.parts, (share, fitted.model)]
    return replace(network, model=study.model(network.model.name, parts, network.model.backbone), outputs=outputs,
                   words=f"{network.words}, and words with a share of {share:g}")


def blind_probe(study: Study, usual: Trained) -> probe.Linear:
    """A linear probe that has not seen validation, so that what starts from it can be judged there: the one from which
    `usual` was refitted, if it was chosen on validation alone, else a fit of its own."""
    if usual.blind is not None:
        return usual.blind
    last, held = {"last": study.pooled()["last"]}, np.isin(study.known, study.validation)[None]
    fitted = study.remembered(["blind"], held, lambda: probe.fit_linear(
        last, study.codes[study.known], [(("last",), "columns")], held, study.class_weights(), refit=False))
    assert fitted.blind is not None
    return fitted.blind


def from_scratch(study: Study, small: Backbone, encoded: Encoded, epochs: int) -> Trained:
    """A small network with random weights, trained whole on the same examples: what pretraining is worth."""
    recipe = Recipe(learning_rate=3e-3, layer_decay=1.0, interpolation=1.0, label_smoothing=0.0)
    features = Features(small, encoded, None)
    own = replace(study, backbone=small, encoded=encoded, features=features, recipe=recipe, _pooled=None, _fits={})
    plan = Plan(0, None, epochs, 3e-3, False, False, "from scratch")
    return fine_tuned(own, plan, recipe, "small network from scratch", start=None)
