"""What every sort of rival promises. A new file in outdo/evaluation/rivals is found and tested by itself."""

import numpy as np
import pytest

from contestants import COLOURS as CLASSES
from contestants import squares
from outdo import plugins
from outdo.contracts import Ground, TestSet
from outdo.evaluation import rivals

SORTS = plugins.names("rivals")


@pytest.fixture(scope="module")
def ground(tmp_path_factory):
    return squares(tmp_path_factory.mktemp("squares"), 24, tried=12, brighter=100)


@pytest.fixture(params=SORTS)
def sort(request):
    return plugins.load("rivals", request.param)


@pytest.fixture
def said(sort, ground, tmp_path):
    return sort.example(tmp_path, ground)


def test_there_are_sorts():
    assert set(SORTS) >= {"bundle", "endpoint", "onnx", "predictions", "python", "run"}


def test_exactly_one_sort_takes_it(sort, said):
    assert [name for name, one in plugins.load_all("rivals").items() if one.accepts(said)] == [
        name for name in SORTS if plugins.load("rivals", name) is sort]
    assert rivals.find(said) is sort


def test_answers_the_test_in_our_classes(said, ground):
    (met,) = rivals.meet({"theirs": said}, ground)
    assert met.role == "rival"
    given = met.predictions.probabilities
    assert given.shape == (len(ground.ids), len(CLASSES))
    assert np.isfinite(given).all()
    assert np.allclose(given.sum(1), 1)
    assert all(isinstance(remark, str) and remark for remark in met.about["remarks"])


def test_says_how_it_did_on_validation_if_it_runs(said, ground):
    (met,) = rivals.meet({"theirs": said}, ground)
    told = [remark for remark in met.about["remarks"] if "12 validation examples" in remark]
    assert bool(told) == (met.model is not None)


def test_a_rival_that_runs_answers_again_as_before(said, ground):
    (met,) = rivals.meet({"theirs": said}, ground)
    if met.model is None:
        pytest.skip("only its answers are known")
    again = met.model.predict(ground.inputs)
    assert np.allclose(again, met.predictions.probabilities, atol=1e-5)
    one = met.model.predict(ground.inputs.take(np.array([5])))
    assert np.allclose(one, again[[5]], atol=1e-3)
    for figure in (met.model.size_bytes(), met.model.parameters()):
        assert figure is None or figure >= 0


def test_answers_do_not_follow_the_order_of_the_test(said, ground):
    """Shuffled examples get the same answers: nothing is matched by position."""
    order = np.random.default_rng(1).permutation(len(ground.ids))
    shuffled = Ground("image", CLASSES, ground.trial, tuple(ground.ids[i] for i in order), ground.inputs.take(order))
    (met,), (again,) = (rivals.meet({"theirs": said}, one) for one in (ground, shuffled))
    assert np.allclose(again.predictions.probabilities, met.predictions.probabilities[order], atol=1e-3)


def test_no_validation_is_no_reason_to_fail_for_those_who_need_none(sort, said, ground):
    none = np.zeros(0, np.int64)
    empty = TestSet((), ground.trial.inputs.take(none), none, CLASSES)
    bare = Ground("image", CLASSES, empty, ground.ids, ground.inputs)
    if sort is plugins.load("rivals", "onnx"):
        said = f"{said}&normalise=unit"
    assert rivals.meet({"theirs": said}, bare)


def test_nothing_else_is_taken(sort, tmp_path):
    for strange in (tmp_path, tmp_path / "model.pkl", "model.pt", str(tmp_path / "notes.txt")):
        assert not sort.accepts(strange)
