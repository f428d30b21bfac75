"""Several training seeds: their mean, and the variance between them in the interval."""

from functools import partial

import numpy as np
import pytest

from contestants import contestant, guesses, opened
from outdo import plugins
from outdo.evaluation import comparison, report, seeds
from outdo.evaluation.comparison import compare_axis

ACCURACY = plugins.load("axes", "accuracy")


def measured(codes, *probabilities, axes=("accuracy", "nll")):
    names = ["before", "after", *(f"after, seed {i}" for i in range(1, len(probabilities) - 1))]
    roles = ["before", "after", *["seed"] * (len(probabilities) - 2)]
    made = [contestant(n, p, r) for n, p, r in zip(names, probabilities, roles, strict=True)]
    return made, report.measure_all(made, opened(codes), axes), names[2:]


def test_the_figure_is_the_mean_and_the_seeds_leave():
    codes, rng = np.arange(60) % 3, np.random.default_rng(0)
    sides = [guesses(rng, codes, skill=s) for s in (1.0, 2.0, 2.1, 1.9)]
    _, found, again = measured(codes, *sides)
    merged = seeds.pooled(found, "after", again)
    single = [found["accuracy"][name].value for name in ("after", *again)]
    assert merged["accuracy"]["after"].value == pytest.approx(np.mean(single))
    assert merged["accuracy"]["after"].detail["seeds"] == single
    assert set(merged["accuracy"]) == {"before", "after"}
    assert merged["accuracy"]["before"] is found["accuracy"]["before"]


def test_without_other_seeds_nothing_changes():
    codes, rng = np.arange(30) % 3, np.random.default_rng(0)
    _, found, _ = measured(codes, guesses(rng, codes), guesses(rng, codes))
    assert seeds.pooled(found, "after", [])["accuracy"]["after"] is found["accuracy"]["after"]


def test_seeds_that_differ_widen_the_interval():
    codes, rng = np.arange(300) % 3, np.random.default_rng(0)
    before = guesses(rng, codes, skill=1.0)
    alike = guesses(rng, codes, skill=2.0)
    apart = [guesses(rng, codes, skill=s) for s in (0.5, 2.0, 3.5)]

    def width(*after):
        _, found, again = measured(codes, before, *after)
        merged = seeds.pooled(found, "after", again)["accuracy"]
        compared = compare_axis(ACCURACY, merged["after"], merged["before"])
        assert "3 training seeds" in compared.method
        return compared.high - compared.low

    assert width(*apart) > 3 * width(alike, alike, alike)


def test_intervals_cover_the_recipe_s_own_figure(monkeypatch):
    """Simulated: a recipe whose seeds vary by 3 points of accuracy, three trained; without the seeds' part the interval
    misses the recipe's mean far more often than 5 %."""
    monkeypatch.setattr(comparison, "resamples", partial(comparison.resamples, count=1000))
    rng, n, truth, between = np.random.default_rng(0), 400, 0.8, 0.03
    codes, hit, blind = np.zeros(n, np.int64), 0, 0
    before = contestant("before", np.tile([0.0, 1.0, 0.0], (n, 1)))
    base = ACCURACY.measure([before], opened(codes))["before"]
    repetitions = 150
    for _ in range(repetitions):
        hard = rng.random(n)  # examples are shared by the seeds
        sides = []
        for i in range(3):
            right = hard < np.clip(truth + rng.normal(0, between), 0, 1)
            sides.append(contestant("after" if not i else f"s{i}", np.where(right[:, None], [1, 0, 0], [0, 1, 0])))
        found = {"accuracy": ACCURACY.measure(sides, opened(codes))}
        merged = seeds.pooled(found, "after", ["s1", "s2"])["accuracy"]["after"]
        compared = compare_axis(ACCURACY, merged, base)
        hit += compared.low <= truth <= compared.high
        alone = compare_axis(ACCURACY, found["accuracy"]["after"], base)
        blind += alone.low <= truth <= alone.high
    assert hit / repetitions >= 0.93
    assert blind / repetitions < 0.9
