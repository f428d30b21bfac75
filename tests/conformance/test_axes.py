"""Every axis keeps the contract. A new file in evaluation/axes is found by itself."""

import json
from dataclasses import replace
from typing import get_args, get_type_hints

import numpy as np
import pytest

from contestants import Model, certain, colourful, contestant, guesses, opened
from outdo import plugins
from outdo.contracts import Axis, Measurement, Predictions

NAMES = plugins.names("axes")


@pytest.fixture(scope="module", params=NAMES)
def axis(request):
    return plugins.load("axes", request.param)


@pytest.fixture(scope="module")
def world(axis):
    """codes -> (two contestants, test), texts or images with all that an axis may ask for: the first it can measure."""
    codes = np.arange(6) % 3
    found = next((w for w in (talking, colourful) if axis.measure(*w(codes))), None)
    assert found, "neither stand-in can be measured: give tests/contestants.py one that can"
    return found


@pytest.fixture(scope="module")
def statistical(axis):
    """The axis, if its figures are statistics over stored answers."""
    codes = np.arange(6) % 3
    answers = contestant("answers", pair(codes)[0].predictions.probabilities)
    if not any(m.statistic for m in axis.measure([answers], opened(codes)).values()):
        pytest.skip("not a statistic over stored answers")
    return axis


def pair(codes, classes=3, seed=0):
    rng = np.random.default_rng(seed)
    return [contestant("linear probe", guesses(rng, codes, classes, 1.0), "before", Model(classes)),
            contestant("fine-tuned", guesses(rng, codes, classes, 3.0), "after", Model(classes))]


def talking(codes):
    return pair(codes), opened(codes)


def kinds(found: Measurement) -> list[str]:
    return [kind for kind in ("statistic", "samples") if getattr(found, kind) is not None]


def test_there_are_axes():
    assert {"accuracy", "macro_f1", "calibration_error", "latency", "size"} <= set(NAMES)


def test_says_what_it_is(axis):
    hints = get_type_hints(Axis)
    assert axis.unit in get_args(hints["unit"])
    assert axis.better in get_args(hints["better"])
    assert axis.title == axis.title.strip() != ""
    assert axis.summary == axis.summary.strip() != ""
    assert axis.tolerance >= 0


def test_measures_both_sides(axis, world):
    found = axis.measure(*world(np.arange(30) % 3))
    assert set(found) == {"linear probe", "fine-tuned"}
    for m in found.values():
        assert np.isfinite(m.value)
        assert len(kinds(m)) <= 1
        assert m.n == 30 if m.statistic else m.n >= 1
        if m.correct is not None:
            assert m.statistic is not None
            assert (m.correct.shape, m.correct.dtype) == ((30,), bool)
        if m.samples is not None:
            assert m.samples.shape == (m.n,)
            assert (m.samples > 0).all()
            assert len(m.samples) == len(found["linear probe"].samples)  # paired by position
        json.dumps(m.detail, allow_nan=False)


def test_statistic_of_equal_weights_is_the_value(statistical):
    codes = np.arange(40) % 3
    for m in statistical.measure(pair(codes), opened(codes)).values():
        assert m.statistic(np.ones((1, 40)))[0] == pytest.approx(m.value, abs=1e-12)
        assert m.statistic(np.full((2, 40), 3.0)) == pytest.approx([m.value] * 2, abs=1e-12)


def test_a_weight_of_two_is_the_example_twice(statistical):
    codes = np.arange(20) % 3
    twice = np.repeat(np.arange(20), 1 + np.arange(20) % 2)
    weights = (1.0 + np.arange(20) % 2)[None]
    for side in pair(codes):
        whole = statistical.measure([side], opened(codes))[side.name]
        again = contestant(side.name, side.predictions.probabilities[twice])
        value = statistical.measure([again], opened(codes[twice]))[side.name].value
        assert whole.statistic(weights)[0] == pytest.approx(value, abs=1e-12)


def test_order_of_examples_does_not_matter(statistical):
    codes = np.arange(30) % 3
    order = np.random.default_rng(1).permutation(30)
    for side in pair(codes):
        m = statistical.measure([side], opened(codes))[side.name]
        shuffled = contestant(side.name, side.predictions.probabilities[order])
        value = statistical.measure([shuffled], opened(codes[order]))[side.name].value
        assert value == pytest.approx(m.value, abs=1e-12)


def test_identical_contestants_measure_alike(axis, world):
    (one, _), test = world(np.arange(30) % 3)
    a, b = axis.measure([one, replace(one, name="twin", role="after")], test).values()
    if a.samples is None:
        assert a.value == pytest.approx(b.value, rel=axis.tolerance + 1e-12, abs=1e6 if axis.unit == "bytes" else 0)


@pytest.mark.parametrize("codes", [[0], [2, 2], [0, 0, 0, 1, 1]], ids=["one example", "one class", "a class absent"])
def test_little_to_go_by(axis, world, codes):
    rng = np.random.default_rng(0)
    draws = rng.multinomial(len(codes), np.ones(len(codes)) / len(codes), size=50).astype(float)
    for m in axis.measure(*world(np.array(codes))).values():
        assert np.isfinite(m.value)
        if m.statistic:
            assert np.isfinite(m.statistic(draws[:, : m.n])).all()


@pytest.mark.parametrize("answers", [[0, 1, 2, 0], [1, 2, 0, 1]], ids=["all right", "all wrong"])
def test_without_doubt(axis, world, answers):
    (one, _), test = world(np.array([0, 1, 2, 0]))
    side = replace(one, name="sure", predictions=Predictions(certain(answers)))
    assert np.isfinite(axis.measure([side], test)["sure"].value)


def test_predictions_alone_are_measured_or_left_out(axis):
    codes = np.arange(12) % 3
    rival = contestant("rival", guesses(np.random.default_rng(0), codes), "rival")
    assert set(axis.measure([rival], opened(codes))) <= {"rival"}
    assert axis.measure([], opened(codes)) == {}


def test_no_examples_at_all(axis):
    codes = np.array([], int)
    side = contestant("fine-tuned", np.zeros((0, 3)), "after", Model())
    for m in axis.measure([side], opened(codes)).values():
        assert m.value is None or m.statistic is None
