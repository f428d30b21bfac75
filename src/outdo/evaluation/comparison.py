"""Who is better: one comparison per axis and pair, on the same examples, with an interval, a p-value and a verdict.

What an axis measured decides the method:

- right or wrong per example: exact McNemar test; Tango's score interval for the difference of paired proportions
- a statistic over the examples: paired bootstrap (the same resamples for both), interval and p-value by Student's t;
  of several training seeds the mean, with the variance between them
- samples taken in turns (times): Wilcoxon signed-rank over the log-ratios of the rounds
- one exact figure (bytes): beyond the axis's tolerance or not; no p-value, since nothing is random

p-values are corrected over everything compared in one call (Holm 1979). A verdict needs a corrected p below 0.05.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol

import numpy as np

from outdo.contracts import Axis, Measurement
from outdo.errors import RecipeError

ALPHA = 0.05
FEWEST = 6  # examples or rounds: with five that all point one way p is 2/32, so nothing can be shown
CELLS = 8_000_000  # weights in memory at a time: 64 MB

Verdict = Literal["better", "worse", "no difference shown", "equivalent"]


@dataclass(frozen=True)
class Comparison:
    """`of` against `against` on one axis. The difference is of − against, in the axis' unit."""

    axis: str
    of: str
    against: str
    difference: float | None  # None where one side is not defined
    low: float | None  # 95 % interval of the difference; None for exact figures
    high: float | None
    p: float | None  # corrected: what the verdict rests on; None for exact figures
    p_raw: float | None  # before the correction
    n: int  # examples, or rounds
    verdict: Verdict
    method: str
    p_equivalent: float | None = None  # corrected, of the two one-sided tests; None without a margin

    def as_json(self) -> dict[str, Any]:
        return dict(self.__dict__)


class Evidence(Protocol):
    """What the data say about the true difference."""

    method: str
    difference: float

    def interval(self, level: float) -> tuple[float | None, float | None]:
        """(None, None) when there are too few data for the level."""
        ...

    def p(self) -> float:
        """Two-sided, against a true difference of 0."""
        ...

    def p_equivalent(self, margin: float) -> float:
        """The larger of two one-sided p-values, against a true difference beyond ± margin."""
        ...


def compare(
    axes: Mapping[str, Axis],
    measurements: Mapping[str, Mapping[str, Measurement]],
    pairs: Sequence[tuple[str, str]],
    margin: float | None = None,
    seed: int = 0,
) -> list[Comparison]:
    """Every pair (of, against) on every axis that measured both, p-values corrected over all of them (Holm).

    `measurements`: axis -> contestant -> Measurement. `margin`: differences within it count as equivalent; in the
    axis' unit, but relative for times, sizes and rates.
    """
    found = [
        replace(compare_axis(axis, measurements[name][of], measurements[name][against], margin=margin, seed=seed),
                axis=name, of=of, against=against)
        for name, axis in axes.items()
        for of, against in pairs
        if of in measurements.get(name, {}) and against in measurements[name]
    ]
    corrected = holm([c.p_raw for c in found])
    equivalent = holm([c.p_equivalent for c in found])
    return [
        c if c.p_raw is None else replace(c, p=p, p_equivalent=e, verdict=judge(
            axes[c.axis], measurements[c.axis][c.against], c.difference, p, e))
        for c, p, e in zip(found, corrected, equivalent, strict=True)
    ]


def check_margin(margin: float | None) -> None:
    """Raises RecipeError for what is no margin."""
    if margin is not None and not (isinstance(margin, int | float) and 0 < margin < 1):
        raise RecipeError(f"a margin cannot be {margin}", expected="a number between 0 and 1, such as 0.02 for 2 "
                          "points of accuracy, or 2 % of a time")


def compare_axis(
    axis: Axis, of: Measurement, against: Measurement, *, margin: float | None = None, seed: int = 0
) -> Comparison:
    """One comparison by itself, nothing to correct for. Both must have been measured on the same examples."""
    n = min(of.n, against.n)
    blank = Comparison("", "", "", None, None, None, None, None, n, "no difference shown", "not defined")
    if of.value is None or against.value is None:
        return blank
    evidence = weigh(of, against, seed)
    if evidence is None:
        return replace(blank, difference=of.value - against.value, verdict=exact(axis, of, against, margin),
                       method="exact figures")
    low, high = evidence.interval(1 - ALPHA)
    if axis.unit == "fraction" and low is not None and high is not None:
        low, high = max(low, -1.0), min(high, 1.0)
    p = evidence.p()
    equivalent = None if margin is None else evidence.p_equivalent(margin)
    return replace(blank, difference=evidence.difference, low=low, high=high, p=p, p_raw=p, p_equivalent=equivalent,
                   method=evidence.method, verdict=judge(axis, against, evidence.difference, p, equivalent))


def weigh(of: Measurement, against: Measurement, seed: int) -> Evidence | None:
    """The evidence that fits what was measured; None for exact figures."""
    if of.correct is not None and against.correct is not None:
        return Proportions(of.correct, against.correct)
    if of.statistic is not None and against.statistic is not None:
        return Bootstrap(of, against, seed)
    if of.samples is not None and against.samples is not None:
        return Rounds(of.samples, against.samples)
    return None


def judge(axis: Axis, against: Measurement, difference: float | None, p: float | None, equivalent: float | None
          ) -> Verdict:
    """Equivalence goes first: whoever states a margin says that differences within it do not matter."""
    if equivalent is not None and equivalent < ALPHA:
        return "equivalent"
    if p is None or p >= ALPHA or not difference:
        return "no difference shown"
    if against.samples is not None and abs(difference) <= axis.tolerance * float(np.median(against.samples)):
        return "no difference shown"  # a clock read often enough finds differences that nobody cares about
    return "better" if (difference > 0) == (axis.better == "higher") else "worse"


def exact(axis: Axis, of: Measurement, against: Measurement, margin: float | None) -> Verdict:
    """For figures in which nothing is random: beyond the tolerance is a difference."""
    assert of.value is not None
    assert against.value is not None
    difference = of.value - against.value
    if margin is not None and abs(difference) <= margin * abs(against.value):
        return "equivalent"
    sure = abs(difference) > axis.tolerance * max(abs(of.value), abs(against.value))
    return judge(axis, against, difference, 0.0 if sure else 1.0, None)


def holm(p: Sequence[float | None]) -> list[float | None]:
    """Holm's step-down correction, controlling the chance of any false verdict; None stays None and does not count."""
    known = sorted((value, i) for i, value in enumerate(p) if value is not None)
    out: list[float | None] = [None] * len(p)
    highest = 0.0
    for rank, (value, i) in enumerate(known):
        highest = max(highest, min(1.0, value * (len(known) - rank)))
        out[i] = highest
    return out


# ── right or wrong ───────────────────────────────────────────────────────────────────────────────────────────────────


class Proportions:
    """Two contestants, each right or wrong on the same n examples.

    Test: exact McNemar, the two-sided binomial test on the examples where exactly one is right. Interval: the score
    interval of Tango 1998, "Equivalence test and confidence interval for the difference in proportions for the
    paired-sample design"; it holds its level at small n and has a width even when no example differs.
    """

    method = "exact McNemar test, Tango score interval"

    def __init__(self, of: np.ndarray, against: np.ndarray) -> None:
        assert len(of) == len(against), "contestants answered different tests"
        self.n = len(of)
        self.gained, self.lost = int((of & ~against).sum()), int((~of & against).sum())
        self.difference = (self.gained - self.lost) / self.n

    def p(self) -> float:
        return mcnemar(self.gained, self.lost)

    def interval(self, level: float) -> tuple[float, float]:
        from scipy.optimize import brentq
        from scipy.stats import norm

        z, d, edge = norm.ppf((1 + level) / 2), self.difference, 1 - 1e-12
        low = brentq(lambda x: self.score(x) - z, -edge, d) if d > -edge else -1.0
        high = brentq(lambda x: self.score(x) + z, d, edge) if d < edge else 1.0
        return float(low), float(high)

    def score(self, delta: float) -> float:
        """Tango's z for a true difference of `delta`: standard normal when it is true, falling in delta."""
        n, b, c = self.n, self.gained, self.lost
        linear = -b - c + (2 * n - b + c) * delta
        root = np.sqrt(max(0.0, linear**2 + 8 * n * c * delta * (1 - delta)))
        q = (root - linear) / (4 * n)
        spread = n * (2 * q + delta * (1 - delta))
        return (b - c - n * delta) / np.sqrt(spread) if spread > 0 else 0.0

    def p_equivalent(self, margin: float) -> float:
        from scipy.stats import norm

        if margin <= 0:
            return 1.0
        margin = min(margin, 1 - 1e-9)
        return float(max(norm.sf(self.score(-margin)), norm.cdf(self.score(margin))))


def mcnemar(gained: int, lost: int) -> float:
    """Exact two-sided p; 1 when no example differs."""
    from scipy.stats import binomtest

    return float(binomtest(gained, gained + lost, 0.5).pvalue) if gained + lost else 1.0


def detectable(n: int, discordant_rate: float | None = None) -> float | None:
    """The smallest difference of accuracies that this test could have shown (p < 0.05), None when no difference could.

    `discordant_rate`: the share of the n examples on which exactly one is right. Without it: the smallest over all
    shares, which is 6/n, since six examples for and none against is the least that gives p < 0.05.
    """
    from scipy.stats import binom

    differ = max(6, 0 if discordant_rate is None else round(discordant_rate * n))
    if differ > n:
        return None
    ahead = 2 * (int(binom.isf(ALPHA / 2, differ, 0.5)) + 1) - differ
    return ahead / n


# ── statistics over examples ─────────────────────────────────────────────────────────────────────────────────────────


class Bootstrap:
    """Paired bootstrap: the same resamples of the examples for both contestants (Efron and Tibshirani 1993).

    The spread of the resampled differences gives the standard error, Student's t the interval and the p-value, so
    that the two agree; for a mean (log loss, Brier score) this is the paired t-test. Percentile and BCa intervals
    cover less at small n, most of all BCa where the statistic is biased, as calibration error is
    (`python bench/statistics.py --alternatives`).
    """

    def __init__(self, of: Measurement, against: Measurement, seed: int) -> None:
        assert of.n == against.n, "contestants answered different tests"
        one, other = of.statistic, against.statistic
        assert one is not None
        assert other is not None
        everyone = np.ones((1, of.n))
        self.n, self.difference = of.n, float((one(everyone) - other(everyone))[0])
        draws = np.concatenate([one(w) - other(w) for w in resamples(of.n, seed)])
        self.error = float(draws.std()) * np.sqrt(of.n / max(1, of.n - 1))  # n - 1, as in the t-test
        if self.error < 1e-12 * max(1.0, abs(self.difference)):
            self.error = 0.0  # rounding
        self.freedom = max(1.0, of.n - 1.0)
        self.method = "paired bootstrap, Student's t"
        trained = [m.seeds for m in (of, against) if m.seeds is not None and len(m.seeds) > 1]
        if trained:
            self._add_seeds(trained)

    def _add_seeds(self, trained: Sequence[np.ndarray]) -> None:
        """Another seed trains another model: S^2 / k joins the variance for k seeds whose figures vary by S^2.

        The examples' part already holds what one seed's answers vary by on them, so the sum is a little too large,
        never too small. Degrees of freedom by Satterthwaite 1946.
        """
        parts = [(self.error**2, self.freedom)]
        parts += [(float(s.var(ddof=1)) / len(s), len(s) - 1.0) for s in trained]
        whole = sum(v for v, _ in parts)
        if whole > 0:
            self.freedom = whole**2 / sum(v**2 / f for v, f in parts)
        self.error = float(np.sqrt(whole))
        seeds = " and ".join(str(len(s)) for s in trained)
        self.method = f"paired bootstrap and the variance between {seeds} training seeds, Student's t"

    def interval(self, level: float) -> tuple[float | None, float | None]:
        """No interval from fewer than 6 examples, nor from examples on which nothing ever differs."""
        from scipy.stats import t

        if self.n < FEWEST or self.error == self.difference == 0:
            return None, None
        half = self.error * float(t.ppf((1 + level) / 2, self.freedom))
        return self.difference - half, self.difference + half

    def p(self) -> float:
        return min(1.0, 2 * min(self._beyond(self.difference), self._beyond(-self.difference)))

    def p_equivalent(self, margin: float) -> float:
        return max(self._beyond(self.difference + margin), self._beyond(margin - self.difference))

    def _beyond(self, distance: float) -> float:
        """One-sided p of an estimate that lies `distance` above the supposed truth.

        Never less than half of 2^(1-n): what n examples that all point one way give under a fair coin.
        """
        from scipy.stats import t

        if distance <= 0:
            return 1.0
        if self.error == 0:
            return 0.5**self.n
        return max(0.5**self.n, float(t.sf(distance / self.error, self.freedom)))


def resamples(n: int, seed: int, count: int | None = None) -> Iterator[np.ndarray]:
    """Chunks (b, n) of how often each example is drawn.

    `count` resamples in all; by default 10,000, for large n fewer, at least 1,000: the standard error then is off by
    2 % at most times.
    """
    rng = np.random.default_rng(seed)
    count = int(np.clip(20_000_000 // n, 1_000, 10_000)) if count is None else count
    step = max(1, CELLS // n)
    for start in range(0, count, step):
        b = min(step, count - start)
        drawn = rng.integers(0, n, (b, n)) + np.arange(b)[:, None] * n
        yield np.bincount(drawn.ravel(), minlength=b * n).reshape(b, n).astype(np.float64)


# ── samples taken in turns ───────────────────────────────────────────────────────────────────────────────────────────


class Rounds:
    """Wilcoxon signed-rank test on the rounds' log-ratios, with its interval (Hodges and Lehmann 1963).

    When two contestants are alike, of/against and against/of are alike too, so the log-ratio is symmetric about 0:
    just what the test supposes. The difference is that of the medians, which are the values shown; on a machine so
    busy that medians and pairs point to different sides, nothing is shown (p = 1).
    """

    method = "paired over rounds, Wilcoxon signed-rank on log-ratios"

    def __init__(self, of: np.ndarray, against: np.ndarray) -> None:
        assert len(of) == len(against), "contestants were not timed in the same rounds"
        ratios = np.log(np.asarray(of, float)) - np.log(np.asarray(against, float))
        i, j = np.triu_indices(len(ratios))
        self.walsh = np.sort((ratios[i] + ratios[j]) / 2)  # means of all pairs: the test counts their signs
        self.null = signed_rank(len(ratios))
        self.scale = float(np.median(against))
        self.difference = float(np.median(of)) - self.scale

    def p(self) -> float:
        if self.difference * float(np.median(self.walsh)) <= 0:
            return 1.0
        return min(1.0, 2 * min(self._below(0.0), self._above(0.0)))

    def interval(self, level: float) -> tuple[float | None, float | None]:
        cut = int(np.searchsorted(self.null, (1 - level) / 2, side="right"))  # W < cut is unlikely enough
        if cut == 0:
            return None, None
        low, high = self._plain(self.walsh[cut - 1]), self._plain(self.walsh[-cut])
        return min(low, self.difference), max(high, self.difference)

    def p_equivalent(self, margin: float) -> float:
        """`margin` is relative here."""
        low = -np.inf if margin >= 1 else np.log1p(-margin)
        return max(self._below(low), self._above(np.log1p(margin)))

    def _plain(self, log_ratio: float) -> float:
        """As a difference from the other contestant's median."""
        return float(self.scale * np.expm1(log_ratio))

    def _below(self, x: float) -> float:
        """One-sided p against a true log-ratio <= x: the chance of so few pairs at or under it."""
        return float(self.null[np.count_nonzero(self.walsh <= x)])

    def _above(self, x: float) -> float:
        return float(self.null[np.count_nonzero(self.walsh >= x)])


def signed_rank(rounds: int) -> np.ndarray:
    """P(W <= w) for w = 0 .. R(R+1)/2, W the sum of the ranks with a plus when signs are fair coins."""
    chance = np.zeros(rounds * (rounds + 1) // 2 + 1)
    chance[0] = 1.0
    for rank in range(1, rounds + 1):
        moved = np.zeros_like(chance)
        moved[rank:] = chance[:-rank]
        chance = (chance + moved) / 2
    return np.minimum(1.0, np.cumsum(chance))
