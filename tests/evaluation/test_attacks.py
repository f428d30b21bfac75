"""Attacks on linear models, whose robust accuracy is known exactly; and the flags of a defence that only hides."""

import numpy as np
import pytest
import torch

from contestants import Linear, colourful
from outdo.evaluation.axes import _attacks, adversarial


def scene(classes, n=64, seed=0):
    """(logits, x, y, (N,) the eps at which each image falls): a linear model on 6 x 6 images, none black or white."""
    rng = np.random.default_rng(seed)
    weight = torch.from_numpy(rng.normal(size=(classes, 3 * 36)).astype(np.float32))
    x = torch.from_numpy(rng.uniform(0.3, 0.7, (n, 3, 6, 6)).astype(np.float32))

    def logits(images):
        return images.flatten(1) @ weight.T

    outputs = logits(x)
    y = outputs.argmax(1)
    gaps = outputs.gather(1, y[:, None]) - outputs
    reach = (weight[y][:, None] - weight[None]).abs().sum(2)
    falls = torch.where(reach > 0, gaps / reach, torch.inf).amin(1)
    return logits, x, y, falls


@pytest.mark.parametrize("classes", [2, 3, 10])
@pytest.mark.parametrize("attack", [_attacks.pgd, _attacks.apgd])
def test_a_linear_model_falls_exactly_where_it_must(attack, classes):
    logits, x, y, falls = scene(classes)
    eps = float(falls.median())
    spoilt = attack(logits, x, y, eps, 60, torch.Generator().manual_seed(0))
    assert (spoilt - x).abs().max() <= eps + 1e-6
    wrong = logits(spoilt).argmax(1) != y
    assert not wrong[falls > eps * 1.0001].any()  # impossible
    known = falls < eps * 0.97
    assert wrong[known].all() if classes == 2 else wrong[known].float().mean() > 0.9  # one of three may not be nearest


@pytest.mark.parametrize("classes", [2, 3])
def test_square_finds_much_by_answers_alone(classes):
    logits, x, y, falls = scene(classes)
    eps = 2 * float(falls.median())
    spoilt = _attacks.square(logits, x, y, eps, 300, torch.Generator().manual_seed(0))
    wrong = logits(spoilt).argmax(1) != y
    assert (spoilt - x).abs().max() <= eps + 1e-6
    assert not wrong[falls > eps * 1.0001].any()
    assert wrong[falls < eps / 2].float().mean() > 0.7


def test_images_stay_images():
    logits, x, y, _ = scene(3)
    for attack in (_attacks.pgd, _attacks.apgd, _attacks.square):
        spoilt = attack(logits, x, y, 0.9, 5, torch.Generator().manual_seed(0))
        assert (spoilt.min() >= 0, spoilt.max() <= 1) == (True, True)


def test_checkpoints_are_those_of_the_paper():
    assert sorted(_attacks.checkpoints(100)) == [22, 41, 57, 70, 80, 87, 93, 99]
    assert max(_attacks.checkpoints(3)) <= 3


def test_margin_by_hand():
    outputs = torch.tensor([[1.0, 3.0, 2.0], [0.0, 0.5, 2.0]])
    assert _attacks.margin(outputs, torch.tensor([1, 0])).tolist() == [1.0, -2.0]


# ── the axis ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def strong(monkeypatch):
    """At an eps that moves the mean colours of the stand-ins."""
    monkeypatch.setattr(adversarial, "EPS", (0.03, 0.1))


def exact(model, test, eps):
    """Accuracy of the linear model if everybody's mean colours could be moved by eps."""
    from outdo.evaluation.axes._helpers import square

    means = np.stack([square(test.inputs.read(i)).mean((0, 1)) for i in range(len(test))]) / 255
    scores = means @ model.weight.T + model.bias
    rows = np.arange(len(test))
    gaps = scores[rows, test.codes][:, None] - scores
    reach = np.abs(model.weight[test.codes][:, None] - model.weight[None]).sum(2)
    return float(((gaps > eps * reach) | (np.arange(scores.shape[1]) == test.codes[:, None])).all(1).mean())


@pytest.mark.parametrize("classes", [2, 3])
def test_robust_accuracy_of_linear_models_is_exact(strong, classes):
    sides, test = colourful(np.arange(60) % classes, classes)
    found = adversarial.PLUGIN.measure(sides, test)
    for side in sides:
        robust = [row["accuracy"] for row in found[side.name].detail["robust"]]
        assert robust == pytest.approx([exact(side.model, test, eps) for eps in adversarial.EPS], abs=1 / 60 + 1e-9)
        assert robust[0] > robust[1]
        assert found[side.name].value == pytest.approx(np.mean(robust))
        assert found[side.name].detail["flags"] == []


class Hidden(Linear):
    """The same answers, behind steps through which no gradient comes."""

    def differentiable(self):
        plain = super().differentiable()
        return lambda x: plain((x * 16).round() / 16 + 0 * x)


class Wrong(Linear):
    """Gradients that point the other way."""

    def differentiable(self):
        plain = super().differentiable()

        def outputs(x):
            value = plain(x)
            return value.detach() * 2 - value if x.requires_grad else value

        return outputs


class Random(Linear):
    def differentiable(self):
        plain = super().differentiable()
        return lambda x: plain(x + 0.1 * torch.rand(len(x), 1, 1, 1))


class Softmax(Linear):
    def differentiable(self):
        plain = super().differentiable()
        return lambda x: plain(x).softmax(1)


@pytest.mark.parametrize(("kind", "flag"), [(Hidden, "zero gradients"), (Wrong, "masking"), (Random, "random answers"),
                                            (Softmax, "probabilities, not logits")])
def test_a_defence_that_only_hides_is_flagged(strong, kind, flag):
    from dataclasses import replace

    sides, test = colourful(np.arange(60) % 3)
    hiding = replace(sides[1], model=kind(sides[1].model.weight, sides[1].model.bias))
    assert flag in adversarial.PLUGIN.measure([hiding], test)["fine-tuned"].detail["flags"]
