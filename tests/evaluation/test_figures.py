"""The figures against other libraries and by hand; the clocks against models whose times are known."""

import numpy as np
import pytest

from contestants import Model, certain, contestant, guesses, opened
from outdo import plugins
from outdo.evaluation.axes import _helpers, memory
from outdo.evaluation.comparison import compare_axis


def value(axis, codes, probabilities, classes=3):
    return measure(axis, codes, probabilities, classes).value


def measure(axis, codes, probabilities, classes=3):
    side = contestant("a", probabilities)
    return plugins.load("axes", axis).measure([side], opened(codes, classes))["a"]


@pytest.fixture(params=[0, 1, 2])
def guessed(request):
    rng = np.random.default_rng(request.param)
    codes = rng.integers(0, 4, 300)
    return codes, guesses(rng, codes, 4, 1.5)


# ── against other libraries ──────────────────────────────────────────────────────────────────────────────────────────


def test_scores_are_those_of_scikit_learn(guessed):
    metrics = pytest.importorskip("sklearn.metrics", reason="scikit-learn is not installed")
    codes, p = guessed
    labels = p.argmax(1)
    assert value("accuracy", codes, p, 4) == pytest.approx(metrics.accuracy_score(codes, labels), abs=1e-9)
    assert value("macro_f1", codes, p, 4) == pytest.approx(metrics.f1_score(codes, labels, average="macro"), abs=1e-9)
    assert value("worst_class", codes, p, 4) == pytest.approx(metrics.recall_score(codes, labels, average=None).min())
    assert value("nll", codes, p, 4) == pytest.approx(metrics.log_loss(codes, p), abs=1e-6)
    one_hot = np.eye(4)[codes]
    assert value("brier", codes, p, 4) == pytest.approx(((p - one_hot) ** 2).sum(1).mean(), abs=1e-9)


def test_brier_of_two_classes_is_twice_scikit_learns(guessed):
    metrics = pytest.importorskip("sklearn.metrics", reason="scikit-learn is not installed")
    codes, p = guessed[0] % 2, guessed[1][:, :2] / guessed[1][:, :2].sum(1, keepdims=True)
    assert value("brier", codes, p, 2) == pytest.approx(2 * metrics.brier_score_loss(codes, p[:, 1]), abs=1e-6)


def test_impossible_truth_costs_what_it_does_in_scikit_learn():
    metrics = pytest.importorskip("sklearn.metrics", reason="scikit-learn is not installed")
    codes, p = np.array([0, 1, 2]), certain([0, 1, 1])
    assert value("nll", codes, p) == pytest.approx(metrics.log_loss(codes, p, labels=[0, 1, 2]), abs=1e-6)


def test_calibration_error_is_that_of_netcal(guessed):
    metrics = pytest.importorskip("netcal.metrics", reason="netcal is not installed")
    codes, p = guessed
    assert value("calibration_error", codes, p, 4) == pytest.approx(metrics.ECE(bins=15).measure(p, codes), abs=1e-6)


# ── by hand ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_confidence_of_exactly_one_has_a_bin():
    m = measure("calibration_error", [0, 0, 1, 2], certain([0, 0, 1, 1]))
    assert m.value == pytest.approx(0.25)
    *empty, last = m.detail["bins"]
    assert last == {"low": 14 / 15, "high": 1.0, "n": 4, "confidence": 1.0, "accuracy": 0.75}
    assert all(b["n"] == 0 and b["accuracy"] is None for b in empty)


def test_confidence_on_an_edge_belongs_to_the_bin_above():
    bins = measure("calibration_error", [0], [[0.6, 0.2, 0.2]]).detail["bins"]
    assert [b["low"] for b in bins if b["n"]] == [0.6]


def test_accuracy_counts_classes_and_confusions():
    m = measure("accuracy", [0, 0, 1, 1, 1], certain([0, 1, 1, 1, 2]))
    assert m.value == 0.6
    assert m.detail["per_class"] == [{"class": "class 0", "n": 2, "correct": 1},
                                     {"class": "class 1", "n": 3, "correct": 2},
                                     {"class": "class 2", "n": 0, "correct": 0}]
    assert m.detail["confusion"] == [[1, 1, 0], [0, 2, 1], [0, 0, 0]]


def test_confusion_is_left_out_for_baselines_and_for_many_classes():
    axis = plugins.load("axes", "accuracy")
    baseline = contestant("a", certain([0, 1]), "baseline")
    assert "confusion" not in axis.measure([baseline], opened([0, 1]))["a"].detail
    assert "confusion" not in measure("accuracy", [0, 1], certain([0, 1], 101), 101).detail


def test_a_class_without_examples_does_not_count():
    answers = certain([0, 1, 1, 2])
    assert value("worst_class", [0, 0, 1, 1], answers) == 0.5
    assert value("macro_f1", [0, 0, 1, 1], answers) == pytest.approx((2 / 3 + 1 / 2) / 2)


def test_worst_class_is_named():
    m = measure("worst_class", [0, 0, 1, 1], certain([0, 1, 1, 1]))
    assert m.detail == {"class": "class 0", "n": 2, "correct": 1}


def test_size_is_what_the_model_says():
    found = plugins.load("axes", "size").measure([contestant("a", certain([0]), model=Model(size=4000))], opened([0]))
    assert (found["a"].value, found["a"].detail) == (4000.0, {"parameters": 1000})


# ── clocks and memory ────────────────────────────────────────────────────────────────────────────────────────────────


def test_contestants_take_turns_in_changing_order():
    order = []
    calls = {name: (lambda r, name=name: order.append((r, name))) for name in "ab"}
    taken = _helpers.alternate(calls, 10.0, 3)
    assert order == [(0, "a"), (0, "b"), (1, "b"), (1, "a"), (2, "a"), (2, "b")]
    assert {name: len(t) for name, t in taken.items()} == {"a": 3, "b": 3}


def test_rounds_end_when_the_time_is_up(monkeypatch):
    now = iter(range(1000))
    monkeypatch.setattr(_helpers.time, "perf_counter", lambda: next(now))
    taken = _helpers.alternate({"a": lambda r: None}, seconds=20, rounds=100)
    assert 5 <= len(taken["a"]) <= 8  # three readings of the clock per round
    assert (taken["a"] == 1).all()
    two = _helpers.alternate(dict.fromkeys("ab", lambda r: None), seconds=20, rounds=100)
    assert 7 <= len(two["a"]) == len(two["b"]) <= 9  # twice the time, and five readings per round
    assert len(_helpers.alternate({"a": lambda r: None}, 0, 100, fewest=2)["a"]) == 2


def timed(monkeypatch, axis, **models):
    plugin = plugins.load("axes", axis)
    monkeypatch.setattr(f"outdo.evaluation.axes.{axis}.ROUNDS", 12)
    sides = [contestant(name, certain([0, 1, 2]), "after", model) for name, model in models.items()]
    return plugin, plugin.measure(sides, opened([0, 1, 2]))


def test_latency_tells_slow_from_fast(monkeypatch):
    models = {"slow": Model(seconds=0.02), "fast": Model(seconds=0.002)}
    axis, found = timed(monkeypatch, "latency", **models)
    assert compare_axis(axis, found["fast"], found["slow"]).verdict == "better"
    assert 0.002 <= found["fast"].value < found["slow"].value
    assert found["slow"].detail["p95"] >= found["slow"].detail["p50"] == found["slow"].value >= 0.02
    assert models["slow"].calls == models["fast"].calls  # the same file in the same round
    assert {len(call) for call in models["slow"].calls} == {1}


def test_throughput_finds_the_batch_that_pays(monkeypatch):
    monkeypatch.setattr("outdo.evaluation.axes.throughput.LARGEST", 8)
    _, found = timed(monkeypatch, "throughput", overhead=Model(seconds=0.01), steady=Model(per_input=0.01))
    assert found["overhead"].detail["batch"] == 8
    assert found["overhead"].value > 3 * found["steady"].value
    assert found["steady"].value <= 100
    assert [b["batch"] for b in found["steady"].detail["batches"]] == [1, 2, 4, 8]


def test_throughput_does_not_try_batches_that_take_too_long(monkeypatch):
    monkeypatch.setattr("outdo.evaluation.axes.throughput.SECONDS", 0.2)
    _, found = timed(monkeypatch, "throughput", slow=Model(per_input=0.01))
    assert max(b["batch"] for b in found["slow"].detail["batches"]) < 16


def test_baselines_are_not_timed():
    side = contestant("k-NN", certain([0]), "baseline", Model())
    for axis in ("latency", "throughput", "memory"):
        assert plugins.load("axes", axis).measure([side], opened([0])) == {}


@pytest.mark.skipif(not memory.measurable(), reason="needs Linux and glibc")
def test_memory_sees_what_is_allocated_while_predicting():
    used = [np.ones(1 << 16, np.uint8) for _ in range(1600)]
    last = used[-1]
    del used  # freed, but below what is still in use: must not hide what the model needs
    sides = [contestant("light", certain([0]), "before", Model(size=1 << 20)),
             contestant("heavy", certain([0]), "after", Model(size=1 << 20, allocate=60 << 20))]
    found = memory.PLUGIN.measure(sides, opened([0]))
    assert 60 << 20 <= found["heavy"].value < 75 << 20
    assert found["light"].value < 10 << 20
    assert compare_axis(memory.PLUGIN, found["heavy"], found["light"]).verdict == "worse"
    assert last.any()


def test_memory_is_not_measured_where_the_peak_cannot_be_reset(monkeypatch):
    def refuse():
        raise PermissionError

    monkeypatch.setattr(memory, "reset_peak", refuse)
    assert memory.PLUGIN.measure([contestant("a", certain([0]), "after", Model())], opened([0])) == {}
