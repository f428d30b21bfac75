"""The simulations behind `python bench/statistics.py`; a short version of each runs as a test."""

from __future__ import annotations

import argparse
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from unittest.mock import patch

import numpy as np
from scipy.stats import multinomial, norm, t

from outdo import plugins
from outdo.contracts import Contestant, Measurement, Predictions, TestSet
from outdo.evaluation import comparison
from outdo.runtime import cpu_model

AXES = ("accuracy", "macro_f1", "worst_class", "calibration_error", "nll", "brier")
RESAMPLES = 1_000  # of the bootstrap: the product takes 10,000, which only makes the standard error less noisy


@dataclass(frozen=True)
class World:
    """Two classifiers and the examples they meet.

    Scores of the classes are noise, part of it common to both classifiers, plus `skill` on the true class; `sharpness`
    scales them, so that it changes the confidence and never the answer.
    """

    classes: int = 4
    skill: tuple[float, float] = (2.5, 2.5)  # of, against
    sharpness: tuple[float, float] = (1.5, 1.5)
    common: float = 0.7

    @property
    def alike(self) -> bool:
        return self.skill[0] == self.skill[1] and self.sharpness[0] == self.sharpness[1]

    def draw(self, n: int, rng: np.random.Generator) -> tuple[np.ndarray, list[np.ndarray]]:
        """codes (n,) and the probabilities (n, C) of both."""
        codes = rng.integers(0, self.classes, n)
        shared = rng.normal(size=(n, self.classes))
        both = []
        for skill, sharpness in zip(self.skill, self.sharpness, strict=True):
            scores = self.common**0.5 * shared + (1 - self.common) ** 0.5 * rng.normal(size=shared.shape)
            scores[np.arange(n), codes] += skill
            weights = np.exp(sharpness * (scores - scores.max(1, keepdims=True)))
            both.append(weights / weights.sum(1, keepdims=True))
        return codes, both

    def measure(self, n: int, rng: np.random.Generator) -> dict[str, dict[str, Measurement]]:
        codes, (of, against) = self.draw(n, rng)
        test = TestSet(tuple(map(str, range(n))), None, codes, tuple(map(str, range(self.classes))))  # type: ignore
        pair = [Contestant("of", "after", Predictions(of)), Contestant("against", "before", Predictions(against))]
        return {axis: plugins.load("axes", axis).measure(pair, test) for axis in AXES}

    @cache  # noqa: B019 (a world is frozen and there are a handful)
    def truth(self) -> dict[str, float]:
        """The true differences, from a million examples."""
        if self.alike:
            return dict.fromkeys(AXES, 0.0)
        found = self.measure(1_000_000, np.random.default_rng(987))
        return {axis: float(found[axis]["of"].value or 0) - float(found[axis]["against"].value or 0) for axis in AXES}


WORLDS = {"equal models": World(), "a better one": World(skill=(3.0, 2.5)), "one too sure": World(sharpness=(4.0, 2.0)),
          "nearly the same model": World(common=0.99)}


@dataclass
class Tally:
    """Shares of the repetitions, per axis."""

    better: float  # raw p < 0.05 and in favour
    worse: float
    covered: float  # the true difference lies in the 95 % interval, of those that have one
    covered_mean: float  # the same for the mean of all estimates: the truth at this n, where the statistic is biased
    estimate: float


def judge(world: World, n: int, repetitions: int, seed: int) -> tuple[dict[str, Tally], float]:
    """A tally per axis, and the share of repetitions with any "better" or "worse" after Holm's correction."""
    rng = np.random.default_rng(seed)
    axes = {axis: plugins.load("axes", axis) for axis in AXES}
    drawn = list(comparison.resamples(n, seed, RESAMPLES))
    with patch.object(comparison, "resamples", lambda n, seed: drawn):
        runs = [comparison.compare(axes, world.measure(n, rng), [("of", "against")]) for _ in range(repetitions)]
    tallies = {axis: _tally([run[i] for run in runs], axes[axis].better, world.truth()[axis])
               for i, axis in enumerate(AXES)}
    verdicts = sum(any(c.verdict in ("better", "worse") for c in run) for run in runs)
    return tallies, verdicts / repetitions


def _tally(found: list[comparison.Comparison], better: str, truth: float) -> Tally:
    sign = 1 if better == "higher" else -1
    estimates = np.array([c.difference for c in found])
    shown = np.array([c.p_raw for c in found], float) < comparison.ALPHA
    ends = np.array([(c.low, c.high) for c in found if c.low is not None])

    def cover(value: float) -> float:
        return float(((ends[:, 0] <= value + 1e-12) & (ends[:, 1] >= value - 1e-12)).mean())

    return Tally(float((shown & (sign * estimates > 0)).mean()), float((shown & (sign * estimates < 0)).mean()),
                 cover(truth), cover(float(estimates.mean())), float(estimates.mean()))


def power_of_mcnemar(n: int, gain: float, loss: float) -> float:
    """Exactly: the chance that the test says better, when each example is gained or lost with these chances."""
    b, c = (grid.ravel() for grid in np.meshgrid(np.arange(n + 1), np.arange(n + 1), indexing="ij"))
    chance = multinomial.pmf(np.stack([b, c, n - b - c], 1), n, [gain, loss, 1 - gain - loss])
    likely = (b + c <= n) & (b > c) & (chance > 1e-12)
    return float(sum(q for q, x, y in zip(chance[likely], b[likely], c[likely], strict=True)
                     if comparison.mcnemar(int(x), int(y)) < comparison.ALPHA))


def powers(n: int, repetitions: int, seed: int) -> list[tuple[str, float, float]]:
    """(what, simulated, theoretical) chance of an uncorrected "better" when there is a difference."""
    world = World(skill=(3.0, 2.5))
    tallies, _ = judge(world, n, repetitions, seed)
    codes, (of, against) = world.draw(1_000_000, np.random.default_rng(988))
    right = [p.argmax(1) == codes for p in (of, against)]
    exact = power_of_mcnemar(n, float((right[0] & ~right[1]).mean()), float((~right[0] & right[1]).mean()))
    rows = np.arange(len(codes))
    losses = np.log(against[rows, codes]) - np.log(of[rows, codes])
    shift = float(losses.mean() / losses.std()) * n**0.5
    normal = float(norm.cdf(-shift - norm.ppf(0.975)))
    return [("accuracy, McNemar", tallies["accuracy"].better, exact), ("log loss, t", tallies["nll"].better, normal)]


def clocks(rounds: int, repetitions: int, seed: int, ratio: float = 1.0) -> Tally:
    """Times with drift, a common wave and rare spikes; the true ratio of the contestants' times is `ratio`."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(repetitions):
        common = 0.01 * (1 + rng.uniform(-0.3, 0.3) * np.linspace(0, 1, rounds)) * rng.lognormal(0, 0.1, rounds)
        of, against = (common * rng.lognormal(0, 0.05, rounds) * np.where(rng.random(rounds) < 0.05, 3.0, 1.0)
                       for _ in range(2))
        sides = (Measurement(float(np.median(x)), rounds, samples=x) for x in (of * ratio, against))
        axis = plugins.load("axes", "latency")
        c = comparison.compare_axis(axis, *sides)
        typical = float(np.median(against))
        found.append(comparison.replace(c, **{k: getattr(c, k) / typical for k in ("difference", "low", "high")}))
    return _tally(found, "lower", ratio - 1)


def alternatives(world: World, n: int, repetitions: int, seed: int) -> dict[str, dict[str, float]]:
    """axis -> method -> how often its 95 % interval covers the mean estimate: what the choice of method rests on."""
    rng = np.random.default_rng(seed)
    weights = next(comparison.resamples(n, seed, RESAMPLES))
    everyone, without_one = np.ones((1, n)), np.ones((n, n)) - np.eye(n)
    found: dict[str, list[tuple[float, dict[str, np.ndarray]]]] = {axis: [] for axis in AXES[1:]}
    for _ in range(repetitions):
        measured = world.measure(n, rng)
        for axis, runs in found.items():
            one, other = (measured[axis][side].statistic for side in ("of", "against"))
            assert one is not None
            assert other is not None
            estimate, draws, jackknife = (one(w) - other(w) for w in (everyone, weights, without_one))
            runs.append((float(estimate[0]), _intervals(float(estimate[0]), draws, jackknife, n)))
    covers = {}
    for axis, runs in found.items():
        truth = np.mean([estimate for estimate, _ in runs])
        covers[axis] = {method: float(np.mean([i[method][0] <= truth + 1e-12 and i[method][1] >= truth - 1e-12
                                               for _, i in runs])) for method in runs[0][1]}
    return covers


def _intervals(estimate: float, draws: np.ndarray, jackknife: np.ndarray, n: int) -> dict[str, np.ndarray]:
    """Efron and Tibshirani 1993, chapters 13 and 14; Student's t as in the product."""
    z, pull = norm.ppf([0.025, 0.975]), jackknife.mean() - jackknife
    bias = norm.ppf(np.clip((draws < estimate).mean() + (draws == estimate).mean() / 2, 1e-3, 1 - 1e-3))
    skew = (pull**3).sum() / (6 * (pull**2).sum() ** 1.5) if pull.any() else 0.0
    half = t.ppf(0.975, n - 1) * draws.std() * (n / (n - 1)) ** 0.5
    return {"percentile": np.quantile(draws, norm.cdf(z)),
            "BCa": np.quantile(draws, norm.cdf(bias + (bias + z) / (1 - skew * (bias + z)))),
            "Student's t": np.array([estimate - half, estimate + half])}


# ── output ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def show(title: str, n: int, tallies: dict[str, Tally]) -> None:
    print(f"\n{title}, n = {n}\n")
    print("| axis | better | worse | interval covers | covers the mean estimate |\n| --- | --- | --- | --- | --- |")
    for axis, row in tallies.items():
        print(f"| {axis} | {row.better:.1%} | {row.worse:.1%} | {row.covered:.1%} | {row.covered_mean:.1%} |")


def main() -> None:
    parser = argparse.ArgumentParser(description="Simulations of outdo's comparisons.")
    parser.add_argument("--repetitions", type=int, default=2_000)
    parser.add_argument("--sizes", type=int, nargs="+", default=[20, 50, 153, 800])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--alternatives", action="store_true", help="other bootstrap intervals, and nothing else")
    said = parser.parse_args()
    print(f"{said.repetitions} repetitions, seed {said.seed}, {cpu_model()}, Python {platform.python_version()}")
    (show_alternatives if said.alternatives else show_all)(said.sizes, said.repetitions, said.seed)


def show_all(sizes: Sequence[int], repetitions: int, seed: int) -> None:
    for title, world in WORLDS.items():
        for n in sizes:
            tallies, any_verdict = judge(world, n, repetitions, seed)
            show(title, n, tallies)
            print(f"\nany verdict on these axes after Holm's correction: {any_verdict:.1%}", flush=True)
    print("\n| power, n = 153 | simulated | theory |\n| --- | --- | --- |")
    for what, simulated, theory in powers(153, repetitions, seed):
        print(f"| {what} | {simulated:.1%} | {theory:.1%} |")
    for ratio in (1.0, 1.1):
        show(f"times, true ratio {ratio}", 20, {"latency": clocks(20, repetitions, seed, ratio)})


def show_alternatives(sizes: Sequence[int], repetitions: int, seed: int) -> None:
    for title, world in WORLDS.items():
        for n in sizes:
            print(f"\n{title}, n = {n}\n\n| interval covers | percentile | BCa | Student's t |")
            print("| --- | --- | --- | --- |")
            for axis, covers in alternatives(world, n, repetitions, seed).items():
                print(f"| {axis} | {' | '.join(f'{share:.1%}' for share in covers.values())} |", flush=True)
