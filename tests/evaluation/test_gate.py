"""The gate's grammar and its decisions."""

import pytest

from outdo.errors import RecipeError
from outdo.evaluation import gate


def report(axis="accuracy", unit="fraction", better="higher", value=0.9, **found):
    compared = {"of": "b", "against": "a", "difference": 0.0, "low": None, "high": None, "p": 0.5, "n": 100,
                "verdict": "no difference shown", **found}
    return {"contestants": [{"name": "a", "role": "before"}, {"name": "b", "role": "after"}],
            "axes": [{"axis": axis, "unit": unit, "better": better, "values": {"a": value}, "comparisons": [compared]}]}


def decided(text, content):
    return gate.judge(content, gate.parse([text]))["promote"]


@pytest.mark.parametrize(("text", "axis", "wants", "within"), [
    ("accuracy: better", "accuracy", "better", None), ("Worst Class : not  worse", "worst_class", "not worse", None),
    ("macro-F1: not worse than 2 points", "macro_f1", "not worse", 0.02),
    ("latency: not worse than 5 %", "latency", "not worse", 0.05),
    ("log loss: not worse than 0.1", "nll", "not worse", 0.1),
    ("calibration_error: not worse than .5%", "calibration_error", "not worse", 0.005),
])
def test_what_can_be_required(text, axis, wants, within):
    (one,) = gate.parse(text)
    assert (one.axis, one.wants) == (axis, wants)
    assert one.within == (within if within is None else pytest.approx(within))


@pytest.mark.parametrize(("text", "words"), [
    ("acuracy: better", "[Dd]id you mean 'accuracy'"), ("accuracy better", "is no requirement"),
    ("accuracy: good", "nothing that can be required"), ("accuracy: not worse than 5", r"[Dd]id you mean 5 %\?"),
    ("accuracy: not worse than -5 %", "nothing that can be required"), ("", "is no requirement"),
])
def test_what_cannot(text, words):
    with pytest.raises(RecipeError, match=words):
        gate.parse([text])


@pytest.mark.parametrize(("verdict", "better", "not_worse"), [
    ("better", True, True), ("worse", False, False), ("no difference shown", False, True), ("equivalent", False, True)])
def test_verdicts(verdict, better, not_worse):
    assert decided("accuracy: better", report(verdict=verdict)) is better
    assert decided("accuracy: not worse", report(verdict=verdict)) is not_worse


@pytest.mark.parametrize(("low", "high", "met"), [(-0.019, 0.1, True), (-0.021, 0.1, False), (0.01, 0.02, True),
                                                  (None, None, False)])
def test_not_worse_by_more_than_points(low, high, met):
    assert decided("accuracy: not worse than 2 %", report(low=low, high=high)) is met


@pytest.mark.parametrize(("high", "met"), [(0.0009, True), (0.0011, False), (-0.001, True)])
def test_not_slower_by_more_than_a_share_of_the_champion(high, met):
    content = report("latency", "seconds", "lower", value=0.02, low=-0.01, high=high)
    assert decided("latency: not worse than 5 %", content) is met


@pytest.mark.parametrize(("difference", "met"), [(4.0, True), (6.0, False)])
def test_exact_figures_need_no_interval(difference, met):
    content = report("size", "bytes", "lower", value=100.0, difference=difference, p=None)
    assert decided("size: not worse than 5 %", content) is met


def test_operations_are_counted_in_shares():
    content = report("multiply_adds", "operations", "lower", value=384_000_000.0, difference=384.0, p=None)
    assert decided("multiply-adds: not worse than 5 %", content)


def test_rates_are_worse_when_lower():
    content = report("throughput", "per second", "higher", value=100.0, low=-6.0, high=1.0)
    assert not decided("throughput: not worse than 5 %", content)
    assert decided("throughput: not worse than 7 %", content)


def test_what_was_not_measured_does_not_pass_and_all_have_to_be_met():
    found = gate.judge(report(verdict="better"), gate.parse(["accuracy: better", "latency: not worse than 5 %"]))
    assert [one["met"] for one in found["requirements"]] == [True, False]
    assert found["promote"] is False
    assert found["requirements"][1]["reason"] == "not measured on both sides"
    assert gate.words(found).splitlines()[-1] == "gate: do not promote"
