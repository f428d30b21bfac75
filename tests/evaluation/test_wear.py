"""The ledger of models judged on a test, and what they do to a claim."""

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contestants import Texts
from outdo.contracts import Predictions, TestSet
from outdo.evaluation import wear


def answers(seed):
    return Predictions(np.random.default_rng(seed).dirichlet(np.ones(3), 5))


def test_models_are_counted_once_and_tests_apart(tmp_path):
    assert wear.record("t", [answers(0)], "improve", tmp_path) == 1
    assert wear.record("t", [answers(0)], "compare", tmp_path) == 1
    assert wear.record("t", [answers(1), answers(2), answers(1)], "compare", tmp_path) == 3
    assert wear.record("other", [answers(0)], "improve", tmp_path) == 1
    assert len((tmp_path / wear.FILE).read_text().splitlines()) == 4


def test_a_torn_line_costs_itself_only(tmp_path):
    wear.record("t", [answers(0)], "improve", tmp_path)
    with open(tmp_path / wear.FILE, "a") as ledger:
        ledger.write('{"at": "2026", "test": "t", "mod')
    assert wear.record("t", [answers(1)], "improve", tmp_path) == 2
    assert wear.record("t", [answers(2)], "improve", tmp_path) == 3


def test_several_processes_lose_nothing(tmp_path):
    code = ("import sys, numpy as np; from pathlib import Path; from outdo.evaluation import wear; "
            "from outdo.contracts import Predictions\n"
            "for i in range(20): wear.record('t', [Predictions(np.full((2, 2), int(sys.argv[1]) + i))], 'x', "
            "Path(sys.argv[2]))")
    running = [subprocess.Popen([sys.executable, "-c", code, str(100 * k), str(tmp_path)]) for k in range(3)]
    assert [process.wait() for process in running] == [0, 0, 0]
    assert wear.record("t", [answers(0)], "improve", tmp_path) == 61


@given(st.permutations(range(4)))
def test_a_test_is_known_by_contents_and_labels(order):
    texts, codes = ["a", "b", "c", "d"], np.array([0, 1, 0, 1])
    plain = TestSet(("1", "2", "3", "4"), Texts(texts), codes, ("x", "y"))
    moved = TestSet(("5", "6", "7", "8"), Texts([texts[i] for i in order]), codes[list(order)], ("x", "y"))
    assert wear.fingerprint(plain) == wear.fingerprint(moved)
    relabelled = TestSet(plain.ids, plain.inputs, 1 - codes, ("x", "y"))
    assert wear.fingerprint(plain) != wear.fingerprint(relabelled)


@pytest.mark.parametrize(("accuracy", "n", "models"), [(0.9, 150, 10), (0.7, 500, 40), (0.5, 50, 3)])
def test_the_best_of_equal_models_looks_no_better_than_is_said(accuracy, n, models):
    """Simulated: the mean excess of the best lies below the bound, and the bound is not idle."""
    draws = np.random.default_rng(0).binomial(n, accuracy, (4000, models)) / n
    excess = float(draws.max(1).mean() - accuracy)
    assert 0.4 * wear.optimism(accuracy, n, models) < excess < wear.optimism(accuracy, n, models)


def content(judged, p=0.01, verdict="better"):
    found = {"of": "b", "against": "a", "p": p, "n": 100, "verdict": verdict}
    return {"data": {"test_judged": judged}, "axes": [{"axis": "accuracy", "values": {"a": 0.9, "b": 0.95},
                                                      "comparisons": [found]}],
            "contestants": [{"name": "a", "role": "before"}, {"name": "b", "role": "after"}]}


def test_words():
    assert wear.words(content(1)) == ""
    assert "p on accuracy is 0.03: its verdict stands" in wear.words(content(3))
    assert "p on accuracy is 0.06: its verdict would not stand" in wear.words(content(6))
    assert "Corrected" not in wear.words(content(6, p=0.5, verdict="no difference shown"))
    assert "wearing out" not in wear.words(content(9))
    assert "wearing out" in wear.words(content(10))
