"""report.json against its schema, and the table that is read from it."""

import copy
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from contestants import Model, certain, contestant, guesses, opened
from outdo import storage
from outdo.errors import RunError
from outdo.evaluation import page
from outdo.evaluation import report as module
from outdo.evaluation.report import Report, build, clean, measure_all, width

AXES = ["accuracy", "macro_f1", "worst_class", "calibration_error", "nll", "brier", "size"]
CONTEXT = {
    "task": "image_classification",
    "seed": 0,
    "data": {"source": "photos/", "fingerprint": "f" * 64, "n": {"train": 300, "validation": 75, "test": 150},
             "test_opened": 1, "findings": [{"check": "unreadable", "count": 1, "message": "cannot be read",
                                             "examples": ["photos/x.jpg"], "severity": "removed"}]},
    "machine": {"cpu": "abacus", "cores": 2},
    "seconds": {"fit": np.float32(12.5)},
    "recipe": {"epochs": 3},
    "curve": [{"epoch": 1, "train_loss": 0.5, "validation_loss": float("nan"), "validation_accuracy": 0.9,
               "seconds": 3.0}],
    "ladder": [{"rung": "probe", "words": "linear probe", "validation": 0.9, "seconds": 1.0}],
    "notes": ["validation was carved out of train"],
}


def built(skills=(1.0, 3.0), n=150, axes=AXES, names=("linear probe", "fine-tuned"), context=CONTEXT, margin=None):
    rng = np.random.default_rng(0)
    codes = np.arange(n) % 3
    test = opened(codes)
    before, after = (guesses(rng, codes, 3, skill) for skill in skills)
    sides = [contestant(names[0], before, "before", Model(size=13_000_000)),
             contestant(names[1], after, "after", Model(size=13_000_400)),
             contestant("majority class", certain(np.zeros(n)), "baseline"),
             contestant("svm.onnx", guesses(rng, codes, 3, 2.0), "rival")]
    return build(sides, test, measure_all(sides, test, axes), context, margin=margin)


@pytest.fixture(scope="module")
def report():
    return built()


def valid(report):
    jsonschema = pytest.importorskip("jsonschema", reason="jsonschema is not installed")
    schema = json.loads((Path(module.__file__).parent / "report.schema.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.Draft202012Validator(schema).validate(json.loads(json.dumps(report, allow_nan=False)))


@pytest.mark.parametrize("changes", [{}, {"n": 1}, {"skills": (2.0, 2.0)}, {"margin": 0.02}, {"n": 0}],
                         ids=["as usual", "one example", "even", "a margin", "no examples"])
def test_keeps_to_its_schema_whatever_the_numbers(changes):
    found = built(**changes)
    valid(found)
    assert "nan" not in str(Report(found)).lower()


def test_every_key_is_described():
    schema = json.loads((Path(module.__file__).parent / "report.schema.json").read_text())
    for name, key in schema["properties"].items():
        assert key.get("description") or key.get("properties"), name


def test_contestants_say_what_is_known_about_them():
    codes = np.arange(6) % 3
    about = {"name": "not this one", "licence": "Apache-2.0"}
    sides = [contestant("a", certain(codes)), replace(contestant("b", certain(codes), "after"), about=about)]
    found = build(sides, opened(codes), {}, CONTEXT)
    assert found["contestants"][1] == {"name": "b", "role": "after", "licence": "Apache-2.0"}


def test_pairs(report):
    found = {(axis["axis"], c["of"], c["against"]) for axis in report["axes"] for c in axis["comparisons"]}
    assert found == {(name, "fine-tuned", "linear probe") for name in AXES} | {
        ("accuracy", "fine-tuned", "majority class"), ("accuracy", "fine-tuned", "svm.onnx")}


def test_the_verdict_counts_after_against_before(report):
    main = [c["verdict"] for axis in report["axes"] for c in axis["comparisons"] if c["against"] == "linear probe"]
    assert report["verdict"] == {v: main.count(v) for v in ("better", "worse", "no difference shown", "equivalent")}
    assert report["verdict"]["better"] >= 4
    assert report["verdict"]["no difference shown"] >= 1  # the size


def test_a_run_against_itself():
    rng = np.random.default_rng(0)
    codes = np.arange(30) % 3
    same = guesses(rng, codes)
    sides = [contestant("a", same, "before", Model()), contestant("b", same, "after", Model())]
    test = opened(codes)
    found = build(sides, test, measure_all(sides, test, AXES), CONTEXT)
    assert found["verdict"] == {"better": 0, "worse": 0, "no difference shown": len(AXES), "equivalent": 0}
    assert [c["p"] for axis in found["axes"] for c in axis["comparisons"]] == [1.0] * 6 + [None]
    assert found["flips"] == {"gained": [], "lost": [], "n_gained": 0, "n_lost": 0}
    assert "No example is right in one and wrong in the other." in found["in_words"]


def test_the_order_of_the_table_is_answers_then_time_then_bytes():
    rng = np.random.default_rng(0)
    codes = np.arange(6) % 3
    sides = [contestant("a", guesses(rng, codes), "before")]
    steps = []
    found = measure_all(sides, opened(codes), progress=lambda *step: steps.append(step))
    assert next(iter(found)) == "accuracy"
    assert list(found)[-3:] == ["memory", "size", "multiply_adds"]
    assert [done for _, done, _ in steps] == list(range(len(found) + 1))


def test_one_axis_by_name():
    codes = np.arange(6) % 3
    assert list(measure_all([contestant("a", certain(codes))], opened(codes), ["nll"])) == ["nll"]


@pytest.mark.parametrize(("p", "low", "verdict", "words"), [
    (0.2, 0.01, "no difference shown", "it is that of one axis by itself"), (0.2, -0.01, "no difference shown", None),
    (0.01, 0.01, "no difference shown", "so small a one does not count"), (0.01, 0.01, "better", None)])
def test_an_interval_that_seems_to_contradict_its_verdict_is_explained(report, p, low, verdict, words):
    content = copy.deepcopy(report)
    for axis in content["axes"]:
        axis["comparisons"][0] |= {"p": 0.5, "low": -1.0, "high": 1.0, "verdict": "no difference shown"}
    content["axes"][0]["comparisons"][0] |= {"p": p, "low": low, "high": 0.1, "verdict": verdict}
    told = " ".join(str(Report(content)).split())
    assert (f"accuracy: no difference is shown though the interval excludes 0: {words}" in told) == bool(words)
    assert ("the interval excludes 0" in page.render(content, {})) == bool(words)


# ── the table ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_table(report):
    lines = str(Report(report)).splitlines()
    assert lines[0] == "before: linear probe   after: fine-tuned"
    assert lines[2].split() == ["before", "after", "difference", "[95%", "CI]", "verdict", "(p", "after", "Holm)"]
    accuracy = next(line for line in lines if line.startswith("accuracy"))
    axis = report["axes"][0]
    assert f"{100 * axis['values']['linear probe']:.1f} %" in accuracy
    assert f"+{100 * axis['comparisons'][0]['difference']:.1f} [+" in accuracy
    assert accuracy.rstrip().endswith("better (p<0.001, n=150)")
    assert next(line for line in lines if line.startswith("size")).split() == \
        ["size", "13.0", "MB", "13.0", "MB", "0.0", "no", "difference", "shown"]
    assert lines[-1] == "verdict: better on 5 axes, no difference shown on 2, worse on 0. Test set opened once."
    assert max(map(width, lines)) <= 100


@pytest.mark.parametrize(("changes", "line"), [
    ({"verdict": {"better": 1, "worse": 2, "no difference shown": 3, "equivalent": 0}},
     "verdict: better on 1 axis, no difference shown on 3, worse on 2. Test set opened once."),
    ({"verdict": {"better": 0, "worse": 0, "no difference shown": 0, "equivalent": 4}, "data": {"test_opened": 3}},
     "verdict: better on 0 axes, equivalent on 4, no difference shown on 0, worse on 0. Test set opened 3 times."),
])
def test_last_line(report, changes, line):
    assert Report(report | changes).verdict() == line


@pytest.mark.parametrize(("value", "unit", "text"), [
    (0.915, "fraction", "91.5 %"), (None, "fraction", "–"), (0.12345, "nats", "0.123"), (0.5, "score", "0.500"),
    (0.0123456, "seconds", "12.3 ms"), (0.000123, "seconds", "0.123 ms"), (1.5, "seconds", "1,500 ms"),
    (0.0, "seconds", "0 ms"), (13_234_567, "bytes", "13.2 MB"), (1234.4, "per second", "1,234 /s"),
])
def test_values(value, unit, text):
    assert module.shown(value, unit) == text


@pytest.mark.parametrize(("difference", "low", "high", "unit", "like", "text"), [
    (0.046, 0.013, 0.078, "fraction", 0.9, "+4.6 [+1.3, +7.8]"),
    (-0.046, -0.078, 0.0001, "fraction", 0.9, "−4.6 [−7.8, 0.0]"),
    (-0.0091, -0.0093, -0.0089, "seconds", 0.0121, "−9.1 [−9.3, −8.9]"),
    (-1e6, None, None, "bytes", 13e6, "−1.0"),
    (None, None, None, "fraction", None, "–"),
])
def test_intervals(difference, low, high, unit, like, text):
    assert module.interval({"difference": difference, "low": low, "high": high}, unit, like) == text


EVIL = "\x1b[31mred\x1b]0;title\x07\r\nrm \u202e\u200b\ud800ok 猫"


def test_names_from_data_are_harmless():
    assert clean(EVIL) == "redrm ok 猫"
    shown = str(Report(built(names=(EVIL, "b" * 300))))
    assert not set(shown) & set("\x1b\x07\r\u202e\ud800")
    assert max(map(width, shown.splitlines())) <= 100


def test_long_names_are_clipped_to_columns():
    assert [module.clip("abc", 3), module.clip("abcd", 3), module.clip("猫猫猫", 5)] == ["abc", "ab…", "猫猫…"]


def test_width_counts_columns():
    assert [width("abc"), width("猫"), width("e\u0301")] == [3, 2, 1]


def test_in_words_says_what_the_figures_say(report):
    words = report["in_words"]
    values = report["axes"][0]["values"]
    assert f"fine-tuned answers {round(values['fine-tuned'] * 150)} correctly" in words
    assert "It is better on accuracy" in words
    assert "It is worse" not in words
    assert f"under {100 * report['detectable']:.1f} points cannot be told from chance" in words


# ── reading ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_read_again(tmp_path, report):
    storage.write_json(tmp_path / "report.json", report)
    assert Report.read(tmp_path).as_json() == report
    assert str(Report.read(tmp_path)) == str(Report(report))


@pytest.mark.parametrize("content", ["", "[]", '{"schema": 2}', "{}", None],
                         ids=["empty", "list", "newer", "other", "missing"])
def test_what_is_not_a_report_is_refused(tmp_path, content):
    if content is not None:
        (tmp_path / "report.json").write_text(content)
    with pytest.raises(RunError):
        Report.read(tmp_path)
