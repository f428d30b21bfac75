import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from outdo.evaluation.calibration import COLDEST, DOUBT, HOTTEST, apply, fit_temperature


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
def test_no_other_temperature_is_likelier(temperature, seed):
    logits, codes = sampled(60, temperature, seed)
    fitted = fit_temperature(logits, codes)

    def surprise(t):
        nll = -np.log(apply(logits, t)[np.arange(60), codes] + 1e-300).sum()
        return nll + (np.log(t) / DOUBT) ** 2 / 2

    assert all(surprise(fitted) <= surprise(t) + 1e-6 for t in np.geomspace(COLDEST, HOTTEST, 50))


def test_a_handful_of_right_answers_does_not_make_certain():
    logits = np.log([[0.9, 0.05, 0.05]] * 20)
    assert 0.3 < fit_temperature(logits, np.zeros(20, int)) < 1.0


@pytest.mark.parametrize("right", [True, False])
def test_stays_in_range_whatever_the_logits(right):
    logits = 1e4 * np.eye(3)[np.arange(300) % 3]
    fitted = fit_temperature(logits, (np.arange(300) + (not right)) % 3)
    assert COLDEST <= fitted <= HOTTEST
    assert fitted == pytest.approx(1.0 if right else HOTTEST, rel=0.01)


def test_without_examples_nothing_changes():
    assert fit_temperature(np.zeros((0, 3)), np.array([], int)) == 1.0


@pytest.mark.parametrize("temperature", [COLDEST, 1.0, HOTTEST])
def test_probabilities_of_extreme_logits(temperature):
    p = apply(np.array([[1e4, -1e4, 0.0], [0.0, 0.0, 0.0]], np.float32), temperature)
    assert np.isfinite(p).all()
    assert p.sum(1) == pytest.approx([1, 1])
    assert p[1] == pytest.approx([1 / 3] * 3)
