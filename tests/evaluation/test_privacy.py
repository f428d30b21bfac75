"""Membership inference: what was learnt by heart is flagged, what was never seen is not, and the figures by hand."""

from dataclasses import replace

import numpy as np
import pytest

from contestants import contestant, opened
from outdo.contracts import Answers, Audit, Predictions
from outdo.evaluation.axes import privacy

WIDTH, CLASSES = 150, 3


def softmax(x):
    odds = np.exp(x - x.max(1, keepdims=True))
    return odds / odds.sum(1, keepdims=True)


def world(seed, n=200):
    """(members, strangers) as (features, codes): labels that the features hardly tell, in many dimensions."""
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(2):
        codes = rng.integers(0, CLASSES, n)
        x = rng.normal(size=(n, WIDTH))
        x[np.arange(n), codes] += 1.0
        made.append((x.astype(np.float32), codes))
    return made


def fitted(x, codes, strength):
    """A linear model by least squares, shrunk by `strength`."""
    w = np.linalg.solve(x.T @ x + strength * np.eye(WIDTH), x.T @ np.eye(CLASSES)[codes])
    return lambda features: softmax(6 * features @ w)


def leak(model, members, strangers):
    side = replace(contestant("a", model(strangers[0]), "after"),
                   trained_on=Answers(Predictions(model(members[0])), members[1]))
    test = replace(opened(strangers[1]), audit=Audit(members[0], strangers[0]))
    return privacy.PLUGIN.measure([side], test)["a"]


@pytest.mark.parametrize("seed", range(3))
def test_learnt_by_heart_is_flagged(seed):
    members, strangers = world(seed)
    found = leak(fitted(*members, 1e-3), members, strangers)
    assert found.value > 0.6
    assert found.detail["likelihood_ratio"]["auc"] > 0.6
    assert found.detail["likelihood_ratio"]["found"] > 0.01
    draws = np.random.default_rng(0).multinomial(200, np.ones(200) / 200, 500)
    low, high = np.quantile(found.statistic(draws.astype(float)), [0.025, 0.975])
    assert 0.5 < low < found.value < high


@pytest.mark.parametrize("seed", range(3))
def test_never_seen_sits_at_one_half(seed):
    members, strangers = world(seed)
    others = world(seed + 100)[0]
    found = leak(fitted(*others, 1e-3), members, strangers)
    assert found.value == pytest.approx(0.5, abs=0.08)
    assert found.detail["likelihood_ratio"]["auc"] == pytest.approx(0.5, abs=0.08)
    assert found.detail["likelihood_ratio"]["found"] < 0.06


def test_ratio_finds_what_the_loss_does_not():
    """Easy and hard examples: the loss confuses easy with seen, shadows know how hard each is."""
    members, strangers = world(7)
    for x, codes in (members, strangers):
        easy = np.arange(len(codes)) % 2 == 0
        x[np.flatnonzero(easy), codes[easy]] += 4
    detail = leak(fitted(*members, 1e-3), members, strangers).detail
    assert detail["likelihood_ratio"]["auc"] > detail["loss"]["auc"]


def test_area_by_hand():
    statistic = privacy.ahead(np.array([3.0, 1.0]), np.array([2.0, 1.0]))
    assert statistic(np.ones((1, 2)))[0] == (1 + 1 + 0 + 0.5) / 4
    assert statistic(np.array([[2.0, 0.0]]))[0] == 1.0


def test_area_is_scikit_learns():
    metrics = pytest.importorskip("sklearn.metrics", reason="scikit-learn is not installed")
    rng = np.random.default_rng(0)
    inside, outside = rng.normal(0.3, 1, 150).round(1), rng.normal(0, 1, 150).round(1)
    truth = np.repeat([1, 0], 150)
    expected = metrics.roc_auc_score(truth, np.concatenate([inside, outside]))
    assert privacy.attack(inside, outside)["auc"] == pytest.approx(expected, abs=1e-9)


def test_found_at_one_per_cent_of_false_alarms():
    outside, inside = np.arange(100.0), np.array([200.0] * 30 + [50.0] * 70)
    assert privacy.attack(inside, outside)["found"] == 0.3


def test_without_members_there_is_nothing_to_measure():
    assert privacy.PLUGIN.measure([contestant("a", np.eye(3))], opened([0, 1, 2])) == {}
