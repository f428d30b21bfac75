"""What every task promises. A new file in outdo/tasks is found and tested by itself."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from contestants import Texts
from outdo import plugins
from outdo.contracts import Dataset
from outdo.errors import DataError

TASKS = plugins.load_all("tasks")
C = 3


@pytest.fixture(params=TASKS)
def task(request):
    return TASKS[request.param]


def data(kind, labels):
    inputs = Texts(f"text {i}" for i in range(len(labels)))
    inputs.kind = kind
    return Dataset("here", inputs, tuple(f"row {i}" for i in range(len(labels))), np.array(labels, dtype=str),
                   np.full(len(labels), "", dtype="<U10"))


def test_there_are_tasks():
    assert {"image_classification", "text_classification"} <= set(TASKS)


def test_it_says_what_it_is(task):
    assert TASKS[task.name] is task
    assert task.kind in ("image", "text")
    assert task.metric in plugins.names("axes")
    assert 10 < len(task.summary) < 140


def test_it_suits_its_own_kind_and_says_why(task):
    assert task.suits(data(task.kind, ["b", "a", "b"]))
    assert task.suits(data({"image": "text", "text": "image"}[task.kind], ["b", "a", "b"])) is None


def test_codes_point_into_sorted_classes(task):
    found = task.targets(data(task.kind, ["cat", "ant", "cat", " bee"]))
    assert found.classes == ("ant", "bee", "cat")
    assert found.codes.tolist() == [2, 0, 2, 1]
    assert found.codes.dtype == np.int64


@pytest.mark.parametrize(("labels", "message"), [
    (["a", "a"], "nothing to tell apart"), (["a", "b", "  "], "empty"), (["cat", "Cat ", "dog"], "only by case"),
    ([], "nothing to tell apart"),
])
def test_labels_that_cannot_be_learned_are_the_users_mistake(task, labels, message):
    with pytest.raises(DataError, match=message):
        task.targets(data(task.kind, labels))


def test_the_head_and_its_loss(task):
    head = task.head(8, C)
    outputs = head(torch.randn(5, 8, generator=torch.Generator().manual_seed(0)))
    assert outputs.shape == (5, C)
    loss = task.loss(outputs, torch.tensor([0, 1, 2, 0, 1]), None, 0.1)
    assert loss.ndim == 0
    loss.backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in head.parameters())


def test_codes_and_certain_distributions_cost_the_same(task):
    outputs, codes = torch.randn(6, C, generator=torch.Generator().manual_seed(1)), torch.tensor([0, 1, 2, 0, 0, 1])
    certain = torch.nn.functional.one_hot(codes, C).float()
    for smoothing in (0.0, 0.2):
        one, other = (task.loss(outputs, targets, None, smoothing) for targets in (codes, certain))
        torch.testing.assert_close(one, other)


def test_the_right_answer_costs_less_and_weights_count(task):
    outputs = torch.eye(C) * 5
    right, wrong = torch.arange(C), (torch.arange(C) + 1) % C
    assert task.loss(outputs, right, None, 0.0) < task.loss(outputs, wrong, None, 0.0)
    mixed, heavy = torch.tensor([0, 1, 0]), torch.tensor([1.0, 1.0, 1.0])
    assert task.loss(outputs, mixed, heavy * torch.tensor([9.0, 1.0, 1.0]), 0.0) > task.loss(outputs, mixed, heavy, 0.0)


@pytest.mark.parametrize("name", TASKS)
@given(outputs=arrays.arrays(np.float32, (4, C), elements=st.floats(-1e4, 1e4, width=32)),
       temperature=st.floats(0.05, 20))
def test_probabilities_whatever_the_outputs(name, outputs, temperature):
    probabilities = TASKS[name].decode(outputs, temperature)
    assert probabilities.shape == (4, C)
    assert (probabilities >= 0).all()
    np.testing.assert_allclose(probabilities.sum(1), 1, rtol=1e-9)
    top = probabilities.max(1) - 1e-12
    assert (probabilities[np.arange(4), outputs.argmax(1)] >= top).all(), "a temperature never changes the answer"


def test_answers_are_json(task):
    answers = task.answer(np.array([[0.2, 0.5, 0.3], [0.6, 0.3, 0.1]]), ("ant", "bee", "cat"))
    assert json.loads(json.dumps(answers)) == answers
    assert [a["label"] for a in answers] == ["bee", "ant"]
    assert [a["probability"] for a in answers] == [0.5, 0.6]
    assert answers[0]["probabilities"] == {"ant": 0.2, "bee": 0.5, "cat": 0.3}
