"""outdo's figures and tests against those of netcal, scikit-learn, statsmodels and scipy: the largest difference found.

    python bench/figures.py        # needs netcal, scikit-learn and statsmodels beside outdo

Answers are drawn at random: 20 to 800 examples of 2 to 77 classes, from those of a coin to those of a good model, some
with classes that never occur or with the truth given a probability of 0. The bootstrap is that of scipy with the same
seed: both then draw the same resamples. Claim: nothing differs by more than 1e-6. Prints JSON.
"""

from __future__ import annotations

import json
import warnings
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import netcal.metrics
import numpy as np
import scipy.stats
import sklearn.metrics
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests

from outdo import plugins
from outdo.contracts import Contestant, Measurement, Predictions, TestSet
from outdo.data.inputs import texts
from outdo.evaluation.comparison import Bootstrap, holm
from outdo.evaluation.comparison import mcnemar as ours

RESAMPLES = 10_000  # what outdo takes for as few examples as these, in one piece


def drawn(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(codes, probabilities before, probabilities after)."""
    n, classes = int(rng.choice([20, 153, 800])), int(rng.choice([2, 3, 10, 77]))
    codes = rng.integers(0, classes, n)

    def answers() -> np.ndarray:
        scores = rng.normal(0, rng.uniform(0.2, 3), (n, classes))
        scores[np.arange(n), codes] += rng.uniform(0, 5)
        odds = np.exp(scores) * (rng.random((n, classes)) > 0.01) + 1e-300
        return odds / odds.sum(1, keepdims=True)

    return codes, answers(), answers()


def measured(axis: str, codes: np.ndarray, p: np.ndarray) -> Measurement:
    names = tuple(map(str, range(p.shape[1])))
    test = TestSet(tuple(map(str, range(len(codes)))), texts([""] * len(codes)), codes, names)
    found: Measurement = plugins.load("axes", axis).measure([Contestant("a", "after", Predictions(p))], test)["a"]
    return found


def pairs(rng: np.random.Generator) -> Iterator[tuple[str, Any, Any]]:
    """(what, outdo's, the other's) for one draw."""
    codes, was, now = drawn(rng)
    known, labels = list(range(now.shape[1])), now.argmax(1)
    # of two classes netcal takes the second one's probability; the top class's is what Guo et al. and outdo look at
    given = (now, codes) if now.shape[1] > 2 else (now.max(1), (labels == codes).astype(int))
    yield "ECE (netcal)", measured("calibration_error", codes, now).value, netcal.metrics.ECE(bins=15).measure(*given)
    yield ("log loss (scikit-learn)", measured("nll", codes, now).value,
           sklearn.metrics.log_loss(codes, now, labels=known))
    yield ("Brier score (scikit-learn)", measured("brier", codes, now).value,
           sklearn.metrics.brier_score_loss(codes, now, labels=known, scale_by_half=False))
    yield ("macro-F1 (scikit-learn)", measured("macro_f1", codes, now).value,
           sklearn.metrics.f1_score(codes, labels, labels=np.unique(codes), average="macro"))
    right, before = labels == codes, was.argmax(1) == codes
    gained, lost = int((right & ~before).sum()), int((~right & before).sum())
    yield ("exact McNemar (statsmodels)", ours(gained, lost), mcnemar([[0, gained], [lost, 0]], exact=True).pvalue
           if gained + lost else 1.0)
    p = rng.random(12) ** 4
    yield "Holm (statsmodels)", holm(list(p)), multipletests(p, method="holm")[1]


def resampled(rng: np.random.Generator) -> tuple[str, float, float]:
    """The standard error of a paired difference in log loss, as scipy has it from the same resamples."""
    codes, was, now = drawn(rng)
    one, other = (measured("nll", codes, p) for p in (now, was))
    found = Bootstrap(one, other, seed=1)
    n, losses = len(codes), [-np.log(np.clip(p[np.arange(len(codes)), codes], 2.220446e-16, 1)) for p in (now, was)]
    theirs = scipy.stats.bootstrap(losses, lambda a, b, axis: (a - b).mean(axis), paired=True, vectorized=True,
                                   n_resamples=RESAMPLES, method="basic", random_state=np.random.default_rng(1))
    return ("bootstrap's standard error (scipy)", found.error / np.sqrt(n / (n - 1)),
            theirs.standard_error * np.sqrt((RESAMPLES - 1) / RESAMPLES))


def main() -> None:
    warnings.simplefilter("ignore")
    rng = np.random.default_rng(0)
    worst: dict[str, float] = defaultdict(float)
    count: dict[str, int] = defaultdict(int)
    for turn in range(300):
        for what, mine, theirs in [*pairs(rng), *([resampled(rng)] if turn % 10 == 0 else [])]:
            worst[what] = max(worst[what], float(np.abs(np.asarray(mine) - np.asarray(theirs)).max()))
            count[what] += 1
    print(json.dumps({what: {"draws": count[what], "largest difference": worst[what]} for what in worst}, indent=1))


if __name__ == "__main__":
    main()
