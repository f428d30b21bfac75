import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from outdo.evaluation.calibration import COLDEST, HOTTEST, apply, fit_temperature


def sampled(n, temperature, seed=0):
    """Logits (n, 4) and truths drawn from softmax(logits / temperature)."""
    rng = np.random.default_rng(seed)
    logits = 3 * rng.normal(size=(n, 4))
    chances = apply(logits, temperature).cumsum(1)
    return logits, (rng.random((n, 1)) > chances).sum(1).clip(0, 3)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_finds_the_temperature_that_the_truth_was_drawn_with(temperature):
    assert fit_temperature(*sampled(20_000, temperature)) == pytest.approx(temperature, rel=0.05)


@given(st.floats(0.2, 5), st.integers(0, 1000))
def test_no_other_temperature_has_less_loss(temperature, seed):
    logits, codes = sampled(60, temperature, seed)
    fitted = fit_temperature(logits, codes)

    def loss(t):
        return -np.log(apply(logits, t)[np.arange(60), codes] + 1e-300).mean()

    assert all(loss(fitted) <= loss(t) + 1e-6 for t in np.geomspace(COLDEST, HOTTEST, 50))


def test_scaling_the_logits_scales_the_temperature():
    logits, codes = sampled(200, 1.5)
    assert fit_temperature(2 * logits, codes) == pytest.approx(2 * fit_temperature(logits, codes), rel=1e-3)


@pytest.mark.parametrize(("codes", "bounds"), [([0, 1, 2], (COLDEST, 0.2)), ([1, 2, 0], (5, HOTTEST))],
                         ids=["all right", "all wrong"])
def test_stays_in_a_sensible_range(codes, bounds):
    fitted = fit_temperature(4 * np.eye(3), np.array(codes))
    assert bounds[0] <= fitted <= bounds[1]


def test_without_examples_nothing_changes():
    assert fit_temperature(np.zeros((0, 3)), np.array([], int)) == 1.0


@pytest.mark.parametrize("temperature", [COLDEST, 1.0, HOTTEST])
def test_probabilities_of_extreme_logits(temperature):
    p = apply(np.array([[1e4, -1e4, 0.0], [0.0, 0.0, 0.0]], np.float32), temperature)
    assert np.isfinite(p).all()
    assert p.sum(1) == pytest.approx([1, 1])
    assert p[1] == pytest.approx([1 / 3] * 3)
