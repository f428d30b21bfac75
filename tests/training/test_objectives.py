"""Training under attack: how far an attack may go, that it does harm, and that training against it helps."""

import numpy as np
import pytest
import torch

from outdo.recipe import Recipe
from outdo.training import objectives

PIXELS = {"mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25]}


def draw(seed=0):
    return torch.Generator().manual_seed(seed)


def test_pixels_move_by_eps_and_stay_pixels():
    x = torch.rand(4, 3, 8, 8) * 4 - 2  # all there is from black to white
    reach = objectives.reaching(x, 8 / 255, PIXELS)
    moved = objectives.attack({"x": x}, reach, 3, lambda s: s["x"].sum(), draw())["x"]
    assert float((moved - x).abs().max()) == pytest.approx(8 / 255 / 0.25, abs=1e-5)
    assert float(moved.min()) >= -2 - 1e-5
    assert float(moved.max()) <= 2 + 1e-5


def test_activations_move_in_proportion_to_their_size():
    x = torch.randn(2, 5, 4) * torch.tensor([1.0, 100.0]).view(2, 1, 1)
    reach = objectives.reaching(x, 1 / 255, None)
    moved = objectives.attack({"x": x, "mask": None}, reach, 2, lambda s: s["x"].sum(), draw())["x"]
    most = (moved - x).abs().flatten(1).amax(1)
    assert float(most[1] / most[0]) == pytest.approx(float(x[1].norm() / x[0].norm()), rel=1e-3)


@pytest.mark.parametrize("objective", ["adversarial", "trades"])
def test_the_loss_under_attack_is_higher_and_has_gradients(objective):
    torch.manual_seed(0)
    net, x, y = torch.nn.Linear(3 * 16, 2), torch.randn(8, 3, 4, 4).clamp(-2, 2), torch.arange(8) % 2

    def value(name, eps):
        recipe = Recipe(objective=name, attack_eps=eps, attack_steps=3)
        return objectives.loss(recipe, {"x": x}, lambda s: net(s["x"].flatten(1)),
                               lambda out: torch.nn.functional.cross_entropy(out, y), PIXELS, draw())

    plain, attacked = value("standard", 4), value(objective, 4)
    assert float(attacked.detach()) > float(plain.detach()) * 1.02
    assert float(value(objective, 0).detach()) == pytest.approx(float(plain.detach()), rel=1e-4)
    attacked.backward()
    assert net.weight.grad.abs().sum() > 0


def test_gradients_reach_what_stands_before_the_attack():
    """Texts: the embedding is trained too."""
    embed = torch.nn.Embedding(5, 4)
    x = embed(torch.tensor([[1, 2]]))
    recipe = Recipe(objective="adversarial", attack_steps=1)
    objectives.loss(recipe, {"x": x}, lambda s: s["x"].sum(1), lambda out: out.square().sum(), None, draw()).backward()
    assert embed.weight.grad[1].abs().sum() > 0


@pytest.mark.parametrize("objective", ["adversarial", "trades"])
def test_training_against_attacks_turns_to_what_they_cannot_change(objective):
    """Two cues: a strong pixel, and many faint ones that are surer together but that an attack turns round."""
    rng = np.random.default_rng(0)
    y = np.arange(400) % 2
    sign = (2.0 * y - 1)[:, None]
    x = rng.normal(0, 0.02, (400, 101))
    x[:, :1] += sign * 0.5 * np.where(rng.random((400, 1)) < 0.9, 1, -1)
    x[:, 1:] += sign * 0.02
    x, y = torch.tensor(x, dtype=torch.float32).view(400, 101, 1, 1), torch.from_numpy(y)
    reach = objectives.Reach(torch.tensor(0.04))

    def trained(name):
        torch.manual_seed(0)
        net = torch.nn.Linear(101, 2)
        optimiser = torch.optim.Adam(net.parameters(), 0.05)
        for step in range(150):
            recipe = Recipe(objective=name, attack_steps=3)
            loss = objectives.loss(recipe, {"x": x}, lambda s: net(s["x"].flatten(1)),
                                   lambda out: torch.nn.functional.cross_entropy(out, y), None, draw(step))
            optimiser.zero_grad(), loss.backward(), optimiser.step()
        return net

    def withstands(net):
        gap = (net.weight[1] - net.weight[0]).detach()
        worst = x.flatten(1) - 0.04 * (2.0 * y - 1)[:, None] * gap.sign()
        return float((net(worst).argmax(1) == y).float().mean())

    original = objectives.reaching
    objectives.reaching = lambda *_: reach
    try:
        plain, hardened = trained("standard"), trained(objective)
    finally:
        objectives.reaching = original
    assert withstands(plain) < 0.3
    assert withstands(hardened) > 0.8
