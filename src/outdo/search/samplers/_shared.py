"""What the ant colony and the genetic sampler share: reading a study as arrays, and the steps around their own idea.

A sampler here remembers nothing. Each proposal is a function of its seed, the trial's number and the trials that are in
the storage, so the same seed gives the same trials, a study goes on where it stopped, and workers (threads, processes,
machines) need nothing but the storage. Every worker may have the same seed: their trial numbers differ.

One trial, from top to bottom: `HistorySampler._sample`.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from outdo.errors import MissingExtra, RecipeError

try:
    import optuna
except ImportError:
    raise MissingExtra("a hyper-parameter search", "optuna", "search") from None
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers._base import _process_constraints_after_trial
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

Floats = NDArray[np.float64]
Space = dict[str, BaseDistribution]
Constraints = Callable[[FrozenTrial], Sequence[float]]
Numerical = FloatDistribution | IntDistribution

USABLE = (TrialState.COMPLETE, TrialState.PRUNED)
MODELLED = 300  # trials that the surrogate is fitted to, the best ones; fitting costs their third power
FAMILIAR = 5  # trials of a branch from which on its values are taken from them alone
UNSURE = 0.5  # scores by which a candidate a whole range away from every trial may turn out better than predicted
NEAR = 1e-9  # numbers closer than this, as a share of their range, are the same value


class HistorySampler(optuna.samplers.BaseSampler):
    """A sampler that breeds new candidates from the best trials; a subclass says how, in `breed`.

    Args:
        seed: None draws one.
        n_startup_trials: so many trials are the rows of a Latin hypercube before anything is bred.
        candidates: so many are bred for each trial; the past judges which one becomes it (see `screen`). 1: no judging.
        constraints_func: as in Optuna's own samplers; `Trial.set_constraint` needs nothing here.
    """

    def __init__(
        self, *, seed: int | None, n_startup_trials: int, candidates: int, constraints_func: Constraints | None
    ) -> None:
        at_least(0, n_startup_trials=n_startup_trials)
        self._seed = np.random.SeedSequence().entropy if seed is None else seed
        self._n_startup_trials = max(n_startup_trials, 2)  # two points are the least that has a spread
        self._candidates = candidates
        self._constraints_func = constraints_func

    def breed(self, past: Past, count: int, rng: np.random.Generator) -> Floats:
        """`count` new points from the past's best, shape (count, columns), numbers already within [0, 1]."""
        raise NotImplementedError

    # -- Optuna's interface -------------------------------------------------------------------------------------

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> Space:
        """Every parameter that any trial had, as it was last: what this trial will not ask for is left unused."""
        space: Space = {}
        for earlier in study.get_trials(deepcopy=False, states=USABLE):
            space.update(earlier.distributions)
        return {name: space[name] for name in sorted(space) if not space[name].single()}

    def sample_relative(self, study: Study, trial: FrozenTrial, search_space: Space) -> dict[str, Any]:
        self._raise_error_if_multi_objective(study)
        return self._sample(study, trial, search_space) if search_space else {}

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        self._raise_error_if_multi_objective(study)
        return self._sample(study, trial, {param_name: param_distribution})[param_name]

    def after_trial(
        self, study: Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None
    ) -> None:
        if self._constraints_func is not None:
            _process_constraints_after_trial(self._constraints_func, study, trial, state)

    # -- one trial ----------------------------------------------------------------------------------------------

    def _sample(self, study: Study, trial: FrozenTrial, space: Space) -> dict[str, Any]:
        past = read(study, space)
        if len(past.points) < self._n_startup_trials:
            return self._start(trial, past)
        bred = past.snap(self.breed(past, 2 * self._candidates, self._rng(trial.number, *space)))
        new = bred[~past.tried(bred)]
        candidates = (new if len(new) else bred)[: self._candidates]
        return past.values(candidates[np.argmin(screen(past, candidates))])

    def _start(self, trial: FrozenTrial, empty: Past) -> dict[str, Any]:
        """This trial's row of a Latin hypercube (McKay, Beckman and Conover, 1979).

        Such a hypercube is one independent permutation of strata for each parameter, so a column can be drawn from
        the parameter's name alone: parameters of branches and never seen ones have theirs, and workers share them.
        """
        strata = self._n_startup_trials
        cube, row = divmod(trial.number, strata)
        generators = [self._rng(cube, name) for name in empty.space]
        shares = [(rng.permutation(strata)[row] + rng.random(strata)[row]) / strata for rng in generators]
        return empty.values(empty.place(np.array(shares)))

    def _rng(self, number: int, *names: str) -> np.random.Generator:
        return np.random.default_rng([cast(int, self._seed), number, zlib.crc32("\n".join(names).encode())])


# -- a study as arrays ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Past:
    """The usable trials of a study, best first.

    Attributes:
        space: names to distributions, in the order of the columns.
        points: (trials, columns); numbers within [0, 1], choices by index, NaN where a trial had no such parameter.
        scores: (trials,) normal scores of the ranks, rising from the best; equal trials share theirs. Ranks, because
            objectives differ in scale and have outliers.
        choices: (columns,) the number of choices, 0 for a number.
    """

    space: Space
    points: Floats
    scores: Floats
    choices: NDArray[np.int64]

    @property
    def steps(self) -> Floats:
        """(columns,) one step as a share of the range; 0 for choices and for numbers without steps."""
        return np.array([_step(d) for d in self.space.values()])

    def completed(self, count: int, rng: np.random.Generator) -> Floats:
        """The best `count` points, without gaps.

        A parameter that a trial lacks, being of another branch, is lent by a good trial that has it. While few have
        it, strangers lend too: one value alone would be copied for ever.
        """
        best = self.points[:count].copy()
        for column in np.flatnonzero(np.isnan(best).any(axis=0)):
            lenders = self.points[~np.isnan(self.points[:, column]), column][:count]
            strangers = self.strangers(max(FAMILIAR - len(lenders), 0), rng)[:, column]
            gaps = np.isnan(best[:, column])
            best[gaps, column] = rng.choice([*lenders, *strangers], gaps.sum())
        return best

    def strangers(self, count: int, rng: np.random.Generator) -> Floats:
        """Points drawn uniformly from the whole space."""
        return self.place(rng.random((count, len(self.space))))

    def place(self, shares: Floats) -> Floats:
        """Shares in [0, 1) of each parameter's range to points: a choice for every equal part, a number as it is."""
        return np.where(self.choices > 0, np.floor(shares * self.choices), shares)

    def snap(self, points: Floats) -> Floats:
        """Points moved to the values that they stand for: whole steps, whole numbers."""
        columns = zip(self.space.values(), points.T, strict=True)
        return np.array([encode(d, decode(d, column)) for d, column in columns]).T

    def tried(self, points: Floats) -> NDArray[np.bool_]:
        """Which points would repeat a trial: they agree in every parameter that the trial had."""
        same = np.abs(points[:, None] - self.points) < NEAR
        return np.logical_or.reduce(np.logical_and.reduce(same | np.isnan(self.points), axis=2), axis=1)

    def values(self, point: Floats) -> dict[str, Any]:
        return {
            name: d.to_external_repr(float(decode(d, position)))
            for (name, d), position in zip(self.space.items(), point, strict=True)
        }


def read(study: Study, space: Space) -> Past:
    """The study's usable trials that had any of the parameters within the ranges of `space`, best first."""
    trials = study.get_trials(deepcopy=False, states=USABLE)
    ranked = sorted((_merit(trial, study.direction), -trial.number, trial) for trial in trials)
    points = np.full((len(ranked), len(space)), np.nan)
    for row, (_, _, trial) in enumerate(ranked):
        params = trial.params
        points[row] = [d.to_internal_repr(params[name]) if name in params else np.nan for name, d in space.items()]
    points = np.array([encode(d, column) for d, column in zip(space.values(), points.T, strict=True)]).T
    known = ~np.isnan(points).all(axis=1)
    scores = _normal_scores([merit for (merit, _, _), has_any in zip(ranked, known, strict=True) if has_any])
    choices = [len(d.choices) if isinstance(d, CategoricalDistribution) else 0 for d in space.values()]
    return Past(space, points[known], scores, np.array(choices, dtype=np.int64))


def _merit(trial: FrozenTrial, direction: StudyDirection) -> tuple[float, ...]:
    """Sorts better trials first: feasible and finished, then pruned (the longest first), then the least violation."""
    sign = -1 if direction == StudyDirection.MAXIMIZE else 1
    violation = sum(value for value in trial.constraints.values() if value > 0)
    if violation > 0:
        return 2, violation, 0
    if trial.state == TrialState.COMPLETE:
        return 0, sign * cast(float, trial.value), 0
    step, value = max(trial.intermediate_values.items(), default=(-1, math.nan))
    return 1, -step, math.inf if math.isnan(value) else sign * value


def _normal_scores(merits: list[tuple[float, ...]]) -> Floats:
    """Sorted merits to quantiles of the normal distribution; equal merits share the middle of their ranks."""
    from scipy.special import ndtri

    places: dict[tuple[float, ...], list[int]] = {}
    for rank, merit in enumerate(merits):
        places.setdefault(merit, []).append(rank)
    ranks = [sum(places[merit]) / len(places[merit]) for merit in merits]
    return ndtri((np.array(ranks) + 0.5) / max(len(merits), 1))


# -- one parameter ----------------------------------------------------------------------------------------------


def encode(distribution: BaseDistribution, values: Floats) -> Floats:
    """Optuna's internal values to positions: choices stay indices, numbers go to [0, 1]; NaN where out of range."""
    if isinstance(distribution, CategoricalDistribution):
        return values
    low, high, d = _limits(distribution)
    inside = (values >= d.low) & (values <= d.high)
    scaled = np.log(values, where=inside, out=np.full(values.shape, np.nan)) if d.log else values
    return np.where(inside, (scaled - low) / (high - low), np.nan)


def decode(distribution: BaseDistribution, positions: Floats) -> Floats:
    """The inverse of `encode`; a position between two steps goes to the nearest one."""
    if isinstance(distribution, CategoricalDistribution):
        return positions
    low, high, d = _limits(distribution)
    values = low + positions * (high - low)
    values = np.exp(values) if d.log else values
    if d.step is not None:
        values = d.low + np.round((values - d.low) / d.step) * d.step
    return np.clip(values, d.low, d.high)


def _step(distribution: BaseDistribution) -> float:
    if isinstance(distribution, CategoricalDistribution):
        return 0.0
    d = cast(Numerical, distribution)
    return (d.step or 0) / (d.high - d.low + (d.step or 0))


def _limits(distribution: BaseDistribution) -> tuple[float, float, Numerical]:
    """The range on its own scale, half a step wider at both ends: so the outer steps are as likely as the others."""
    d = cast(Numerical, distribution)
    half = (d.step or 0) / 2
    return (math.log(d.low - half), math.log(d.high + half), d) if d.log else (d.low - half, d.high + half, d)


def at_least(minimum: int, **arguments: int) -> None:
    """Raises RecipeError for the first argument below `minimum`."""
    for name, value in arguments.items():
        if value < minimum:
            raise RecipeError(f"{name} cannot be {value}", expected=f"{minimum} or more")


def reflect(points: Floats) -> Floats:
    """Numbers that left [0, 1] are folded back in."""
    folded = np.abs(points) % 2
    return np.where(folded > 1, 2 - folded, folded)


# -- judging candidates by the past -----------------------------------------------------------------------------


def screen(past: Past, candidates: Floats) -> Floats:
    """Scores (lower is better) that candidates may hope for: interpolated from the past, less the doubt far from it.

    Cubic radial basis functions with a linear tail (Gutmann, "A radial basis function method for global optimization",
    2001; Regis and Shoemaker, 2007). Breeding more than is tried, and trying the most promising: Rasheed and Hirsh,
    "Informed operators", 2000; Jin, "Surrogate-assisted evolutionary computation", 2011.
    """
    if len(candidates) == 1:
        return np.zeros(1)
    known, new = _coordinates(past, candidates)
    known, scores = known[:MODELLED], past.scores[:MODELLED]
    n, m = len(known), known.shape[1] + 1
    bumps = _distance(known, known) ** 3
    unit = bumps.mean() or 1.0
    tail = np.hstack([np.ones((n, 1)), known])
    # The two small blocks keep it solvable with fewer trials than columns, and with equal points.
    matrix = np.block([[bumps / unit + 1e-3 * np.eye(n), tail], [tail.T, -1e-6 * np.eye(m)]])
    weights = np.linalg.solve(matrix, np.concatenate([scores, np.zeros(m)]))
    apart = _distance(new, known)
    predicted = apart**3 / unit @ weights[:n] + weights[n] + new @ weights[n + 1 :]
    return predicted - UNSURE * apart.min(axis=1)


def _coordinates(past: Past, candidates: Floats) -> tuple[Floats, Floats]:
    """Past and candidates in a space with distances: choices one-hot, absent parameters in the middle.

    Which parameters a candidate will have is not known before it runs; it is taken to be of the branch of the trial
    that is most like it in the parameters that every trial had.
    """
    candidates = candidates.copy()
    absent = np.isnan(past.points)
    if absent.any():
        shared = ~absent.any(axis=0)
        known, new = (_one_hot(points[:, shared], past.choices[shared]) for points in (past.points, candidates))
        candidates[absent[np.argmin(_distance(new, known), axis=1)]] = np.nan
    return _one_hot(past.points, past.choices), _one_hot(candidates, past.choices)


def _one_hot(points: Floats, choices: NDArray[np.int64]) -> Floats:
    columns = [np.zeros((len(points), 0))]
    for column, count in zip(points.T, choices, strict=True):
        if count:
            columns.append((column[:, None] == np.arange(count)) * math.sqrt(0.5))  # two choices are 1 apart
        else:
            columns.append(np.nan_to_num(column - 0.5)[:, None])
    return np.hstack(columns)


def _distance(a: Floats, b: Floats) -> Floats:
    return np.sqrt(((a[:, None] - b) ** 2).sum(axis=2))
