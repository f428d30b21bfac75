"""Where a model looked: on a network that can only have looked in one place, and on words that decide."""

import io

import numpy as np
import pytest
import torch
from PIL import Image
from torch._subclasses.fake_tensor import FakeTensorMode

from contestants import certain, contestant
from outdo import backbones, plugins
from outdo.contracts import TestSet
from outdo.data.inputs import pictures, texts
from outdo.evaluation import looks
from outdo.training import saliency
from outdo.training.model import Constant, Model, Network
from outdo.training.probe import Linear


def network(classes=2):
    """A tiny network whose head takes any activation for the first class."""
    backbone = backbones.load("tiny-image", "image")
    head = torch.nn.Linear(backbone.width, classes)
    torch.nn.init.constant_(head.weight, -1.0)
    torch.nn.init.constant_(head.weight[0], 1.0)
    task = plugins.load("tasks", "image_classification")
    part = Network(backbone, head, backbone.depth)
    return Model("n", task, tuple("ab"[:classes]), backbone, [(1.0, part)], about={})


def test_maps_follow_what_is_in_the_picture():
    model = network()
    images = np.full((2, 32, 32, 3), 128, np.uint8)
    images[0, 4:12, 4:12] = np.random.default_rng(0).integers(0, 255, (8, 8, 3))
    images[1, 20:28, 20:28] = images[0, 4:12, 4:12]
    heat = saliency.maps(model, images, np.array([0, 0]))
    assert heat.shape[0] == 2
    assert (heat.min() >= 0, heat.max() <= 1) == (True, True)
    if heat.shape[1] > 1:
        assert not np.allclose(heat[0], heat[1])


def test_a_model_without_a_network_has_no_map():
    model = network()
    constant = Model("c", model.task, model.classes, model.backbone, [(1.0, Constant(np.zeros(2, np.float32)))])
    assert saliency.maps(constant, np.zeros((1, 32, 32, 3), np.uint8), np.array([0])) is None


def test_gradients_reach_the_pixels_and_the_outputs_are_those_of_predict():
    model = network()
    images = np.random.default_rng(0).integers(0, 255, (3, 32, 32, 3), dtype=np.uint8)
    x = (torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255).requires_grad_(True)
    outputs = model.differentiable()(x)
    assert outputs.softmax(1).detach().numpy() == pytest.approx(model.predict_pixels(images), abs=0.02)
    outputs[:, 0].sum().backward()
    assert (x.grad.flatten(1).abs().amax(1) > 0).all()


class Away:
    """A backbone on a GPU, as far as tensors without content tell."""

    kind, precision, depth = "image", "float32", 1

    def preprocessing(self):
        return {"size": 8, "fit": "squash"}

    def prepare(self, rows, size=None):
        return {"x": rows.to("cuda").flatten(1)[:, :4]}

    def run(self, state, start, stop):
        return state

    def pool(self, state):
        return state["x"]

    def features(self, rows, size=None):
        return {"last": self.prepare(rows)["x"]}


def test_outputs_come_back_to_where_the_pixels_are():
    with FakeTensorMode(allow_non_fake_inputs=True):
        parts = [Constant(np.zeros(2, np.float32)), Network(Away(), torch.nn.Linear(4, 2, device="cuda"), 0),
                 Linear(("last",), np.zeros((4, 2), np.float32), np.zeros(2, np.float32))]
        model = Model("n", None, ("a", "b"), Away(), [(0.5, part) for part in parts])
        x = torch.zeros(3, 3, 8, 8, requires_grad=True)
        outputs = model.differentiable()(x)
        assert outputs.device == x.device
        assert outputs.requires_grad


class Card:
    """Sure of 1 exactly when `card` is there."""

    def predict(self, inputs):
        there = np.array(["card" in inputs.read(i).split() for i in range(len(inputs))])
        return np.stack([0.9 - 0.8 * there, 0.1 + 0.8 * there], 1)


def test_the_word_that_decides_has_all_the_weight():
    (words,) = saliency.word_weights(Card(), ["my new card is lost"], [1])
    assert [word.strip() for word, _ in words] == ["my", "new", "card", "is", "lost"]
    assert {word.strip(): pytest.approx(weight) for word, weight in words if weight} == {"card": pytest.approx(0.8)}


def test_of_long_texts_the_rest_stays(monkeypatch):
    monkeypatch.setattr(saliency, "WORDS", 2)
    (words,) = saliency.word_weights(Card(), ["  one two card"], [1])
    assert [word for word, _ in words] == ["one ", "two "]
    assert [weight for _, weight in words] == [0, 0]


def test_looks_of_texts_and_who_cannot_be_looked_into():
    test = TestSet(("a", "b"), texts(["card", "loan"]), np.array([1, 0]), ("x", "y"))
    flips = {"gained": [{"id": "a"}], "lost": []}
    sides = [contestant("one", certain([1, 0], 2), "before"), contestant("two", certain([1, 0], 2), "after", Card())]
    assert looks.looks(flips, test, sides) == {"a": {"after": [("card", pytest.approx(0.8))]}}


def test_looks_of_pictures_are_small_pictures():
    images = np.random.default_rng(0).integers(0, 255, (2, 40, 40, 3), dtype=np.uint8)
    test = TestSet(("a", "b"), pictures(images), np.array([1, 0]), ("x", "y"))
    side = contestant("one", certain([1, 0], 2), "after", network())
    found = looks.looks({"gained": [{"id": "b"}], "lost": []}, test, [side])
    assert Image.open(io.BytesIO(found["b"]["after"])).size == (looks.SIDE, looks.SIDE)
    bright = np.asarray(Image.open(io.BytesIO(looks.lit(np.full((40, 40, 3), 200, np.uint8), np.eye(2)))))
    assert bright[10, 10].mean() > 180 > 120 > bright[10, 150].mean()
