"""Risk and coverage against a plain sum over a fine grid, and by hand; thresholds that validation chose."""

from dataclasses import replace

import numpy as np
import pytest

from contestants import certain, contestant, guesses, opened
from outdo import plugins
from outdo.contracts import Answers, Predictions
from outdo.evaluation.axes import selective_risk

AXIS = plugins.load("axes", "selective_risk")


def area(confidence, wrong):
    return selective_risk.area(np.asarray(confidence, float), np.asarray(wrong, bool))(np.ones((1, len(wrong))))[0]


def test_by_hand():
    assert area([0.9, 0.5], [0, 0]) == 0
    assert area([0.9, 0.5], [1, 1]) == pytest.approx(1)
    assert area([0.7, 0.7], [0, 1]) == pytest.approx(0.5)  # equally sure: the error rate everywhere
    # E(c) = 0 up to 1/2, then c - 1/2: the integral of (c - 1/2) / c from 1/2 to 1 is 1/2 - ln(2) / 2
    assert area([0.9, 0.5], [0, 1]) == pytest.approx(0.5 - np.log(2) / 2)
    assert area([0.9, 0.5], [1, 0]) == pytest.approx(0.5 + np.log(2) / 2)


def test_is_the_mean_of_the_risks_in_the_limit():
    rng = np.random.default_rng(0)
    confidence = rng.random(4000)
    wrong = rng.random(4000) > confidence
    risks = np.cumsum(wrong[np.argsort(-confidence)]) / np.arange(1, 4001)
    assert area(confidence, wrong) == pytest.approx(risks.mean(), abs=2e-3)


def test_confidence_that_knows_is_worth_something():
    codes = np.arange(200) % 3
    p = guesses(np.random.default_rng(0), codes, 3, 1.0)
    found = AXIS.measure([contestant("a", p)], opened(codes))["a"]
    assert found.value < 0.7 * (p.argmax(1) != codes).mean()
    assert found.detail["curve"][-1]["coverage"] == 1.0
    assert len(found.detail["curve"]) == 20


def test_thresholds_are_chosen_on_validation_and_counted_on_the_test():
    validation = np.array([[0.9, 0.1], [0.8, 0.2], [0.7, 0.3], [0.6, 0.4]])
    held = Answers(Predictions(validation), np.array([0, 0, 1, 0]))
    test = np.array([[0.85, 0.15], [0.95, 0.05], [0.65, 0.35]])
    side = replace(contestant("a", test), held_out=held)
    rows = AXIS.measure([side], opened([0, 1, 0], 2))["a"].detail["thresholds"]
    assert [row["precision"] for row in rows] == [0.9, 0.95, 0.99]
    assert rows[0]["threshold"] == 0.8
    assert {k: rows[0]["test"][k] for k in ("n", "right")} == {"n": 2, "right": 1}
    assert rows[0]["test"]["coverage"] == pytest.approx(2 / 3)


def test_without_validation_there_are_no_thresholds():
    assert "thresholds" not in AXIS.measure([contestant("a", certain([0, 1]))], opened([0, 1]))["a"].detail
