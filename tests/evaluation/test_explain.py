import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from outdo.contracts import Predictions, TestSet
from outdo.evaluation import explain

CLASSES = ("ant", "bee", "wasp")


def sure(labels, confidence):
    """Predictions of `labels` with the given confidence, the rest shared by the other classes."""
    labels, confidence = np.array(labels), np.array(confidence, float)
    p = np.repeat(((1 - confidence) / 2)[:, None], 3, axis=1)
    p[np.arange(len(labels)), labels] = confidence
    return Predictions(p)


CODES = np.array([0, 0, 1, 1, 2])
BEFORE = sure([0, 1, 1, 1, 1], [0.9, 0.8, 0.7, 0.6, 0.95])
AFTER = sure([1, 0, 2, 1, 2], [0.6, 0.9, 0.99, 0.5, 0.8])
IDS = list("abcde")


def test_flips_worst_first():
    found = explain.flips(BEFORE, AFTER, CODES, IDS, CLASSES)
    assert [row["id"] for row in found["lost"]] == ["c", "a"]  # after is surest of its mistake on c
    assert [row["id"] for row in found["gained"]] == ["e", "b"]  # before was surest of its mistake on e
    assert (found["n_gained"], found["n_lost"]) == (2, 2)
    assert found["lost"][0] == {"id": "c", "truth": "bee", "before": "bee", "after": "wasp",
                                "before_confidence": pytest.approx(0.7), "after_confidence": pytest.approx(0.99)}


def test_the_counts_are_of_all_flips():
    found = explain.flips(BEFORE, AFTER, CODES, IDS, CLASSES, most=1)
    assert [len(found["lost"]), found["n_lost"]] == [1, 2]


def test_class_changes_largest_loss_first():
    assert explain.class_changes(BEFORE, AFTER, CODES, CLASSES) == [
        {"class": "bee", "n": 2, "before": 2, "after": 1, "difference": -1},
        {"class": "ant", "n": 2, "before": 1, "after": 1, "difference": 0},
        {"class": "wasp", "n": 1, "before": 0, "after": 1, "difference": 1},
    ]


def test_confusions_that_appeared_and_vanished():
    found = explain.confusions(BEFORE, AFTER, CODES, CLASSES)
    assert found == {"appeared": [{"truth": "bee", "predicted": "wasp", "before": 0, "after": 1}],
                     "vanished": [{"truth": "wasp", "predicted": "bee", "before": 1, "after": 0}]}


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2), st.integers(0, 2)), max_size=30))
def test_the_sums_agree(rows):
    codes, was, now = np.array(rows, int).reshape(-1, 3).T
    before, after = sure(was, np.full(len(rows), 0.6)), sure(now, np.full(len(rows), 0.6))
    found = explain.flips(before, after, codes, [str(i) for i in range(len(rows))], CLASSES)
    gain = int((now == codes).sum() - (was == codes).sum())
    assert found["n_gained"] - found["n_lost"] == gain
    assert sum(row["difference"] for row in explain.class_changes(before, after, codes, CLASSES)) == gain
    changed = explain.confusions(before, after, codes, CLASSES)
    assert sum(row["after"] - row["before"] for kind in changed.values() for row in kind) == -gain


@pytest.mark.parametrize(("names", "text"), [(["a"], "a"), (["a", "b"], "a and b"), (["a", "b", "c"], "a, b and c")])
def test_listing(names, text):
    assert explain.listing(names) == text


# ── slices and labels that may be wrong ──────────────────────────────────────────────────────────────────────────────


def test_slices_by_value_largest_loss_first():
    columns = {"place": np.array(["wood", "wood", "town", "wood", "town"])}
    assert explain.slices(BEFORE, AFTER, CODES, columns) == [
        {"column": "place", "value": "wood", "n": 3, "before": 2, "after": 2},
        {"column": "place", "value": "town", "n": 2, "before": 1, "after": 1}]
    worse = explain.slices(AFTER, sure([1, 1, 2, 1, 2], [0.6] * 5), CODES, columns)
    assert [(row["value"], row["after"] - row["before"]) for row in worse] == [("wood", -1), ("town", 0)]


@pytest.mark.parametrize(("values", "groups"), [
    (["a", "a"], None), (["x", "y"], ["x", "y"]), ([str(i) for i in range(30)], None),
    ([f"name {i}" for i in range(30)], None),
    ([f"{i / 7:.4f}" for i in range(28)], 4), (["nan"] + [f"{i / 7}" for i in range(28)], None)])
def test_what_makes_slices(values, groups):
    found = explain.grouped(np.array(values))
    if isinstance(groups, int):
        assert len(np.unique(found, return_counts=True)[0]) == groups
        assert np.unique(found, return_counts=True)[1].min() >= len(values) // groups - 1
    else:
        assert (None if found is None else found.tolist()) == groups


def test_a_label_that_nobody_believes_is_doubtful():
    test = TestSet(tuple(IDS), None, CODES, CLASSES)
    both = sure([1, 0, 1, 1, 1], [0.8, 0.9, 0.7, 0.6, 0.95])  # wrong on a and e

    def near(*labels):
        return [{"id": "t", "label": label, "similarity": 0.9} for label in labels]

    nearest = {"a": near("bee", "bee", "bee", "bee", "ant"), "e": near("wasp", "wasp", "bee", "wasp", "wasp")}
    assert explain.doubtful(both, both, test, nearest) == [
        {"id": "a", "truth": "ant", "answer": "bee", "confidence": pytest.approx(0.8), "agreeing": 4, "of": 5}]
    assert explain.doubtful(BEFORE, both, test, {"e": near("bee")})[0]["id"] == "e"
    assert explain.doubtful(both, both, test, {}) == []
