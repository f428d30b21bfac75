"""Fine-tuning: what is frozen stays, and a run that was cut anywhere ends in the same bits."""

import copy

import numpy as np
import pytest
import torch
from scenes import study as make

from outdo.recipe import Recipe
from outdo.training import averaging, ladder, loop
from outdo.training.loop import Plan, Trainer, rate_share


def trainer(recipe, plan, *, checkpoint=None, over=lambda: False, cut=None, study=None):
    study = study or make()
    twin = copy.deepcopy(study.backbone)
    torch.manual_seed(3)
    head = study.task.head(twin.width, 3)
    parts = [ladder.examples(study.features, i, study.codes, plan.first, plan.cached, v)
             for i, v in ((study.train, 2), (study.validation, 1))]
    return Trainer(twin, head, study.task, plan, recipe, classes=3, seed=5, train=parts[0], validation=parts[1],
                   checkpoint=checkpoint, over=over)


def plan(first=0, epochs=3, cached=False):
    return Plan(first, None, epochs, 3e-3, cached, False, "")


RECIPES = [Recipe(batch_size=8), Recipe(batch_size=8, optimiser="sgd", schedule="linear", averaging="none"),
           Recipe(batch_size=8, optimiser="adam", mixup=0.4, augmentation=1.0)]


@pytest.mark.parametrize("recipe", RECIPES, ids=["adamw", "sgd", "adam-mixup"])
@pytest.mark.parametrize("cut", [1, 7, 12])
@pytest.mark.parametrize(("first", "cached"), [(0, False), (3, True)])
def test_a_killed_run_ends_in_the_same_bits(tmp_path, monkeypatch, recipe, cut, first, cached):
    """Killed after `cut` steps, with a checkpoint at an earlier step, and resumed by a fresh process's worth of
    state."""
    whole = trainer(recipe, plan(first, cached=cached))
    history = whole.fit()

    class Killed(BaseException):
        pass

    one = trainer(recipe, plan(first, cached=cached), checkpoint=tmp_path / "c.safetensors")
    step = one.step

    def dying(positions):
        if one.done == cut:
            raise Killed
        step(positions)
        if one.done == max(1, cut - 2):
            one.save()

    monkeypatch.setattr(one, "step", dying)
    with pytest.raises(Killed):
        one.fit()
    resumed = trainer(recipe, plan(first, cached=cached), checkpoint=tmp_path / "c.safetensors")
    again = resumed.fit()
    assert resumed.done == whole.done
    for a, b in zip(whole.parameters, resumed.parameters, strict=True):
        assert torch.equal(a, b)
    drop = [{k: v for k, v in row.items() if k != "seconds"} for row in history]
    assert drop == [{k: v for k, v in row.items() if k != "seconds"} for row in again]


def test_frozen_blocks_do_not_move_and_trained_ones_do():
    one = trainer(Recipe(batch_size=8), plan(4, cached=True))
    before = {k: v.clone() for k, v in one.backbone.torch_module.named_parameters()}
    one.fit()
    own = {id(p) for b in range(4, one.backbone.depth) for p in one.backbone.block_parameters(b)}
    moved = {k for k, v in one.backbone.torch_module.named_parameters() if not torch.equal(v, before[k])}
    assert moved
    assert all(id(v) in own for k, v in one.backbone.torch_module.named_parameters() if k in moved)


def test_it_learns():
    one = trainer(Recipe(batch_size=8, augmentation=0.0, early_stopping=0), plan(0, epochs=25))
    history = one.fit()
    assert history[-1]["validation_accuracy"] > 0.8
    assert history[-1]["train_loss"] < history[0]["train_loss"]


def test_training_from_activations_is_training_of_the_later_blocks():
    """Without augmentation, cached activations give the same outputs as running the frozen blocks each time."""
    study = make(augmentation=0.0)
    cached = trainer(Recipe(batch_size=8), plan(3, cached=True), study=study)
    plain = trainer(Recipe(batch_size=8), plan(3, cached=False), study=study)
    plain.plan = plan(3, cached=False)
    assert np.allclose(cached.outputs(cached.validation), plain.outputs(plain.validation), atol=1e-4)


def test_patience(monkeypatch):
    one = trainer(Recipe(batch_size=8, early_stopping=2), plan(0, epochs=9))
    losses = iter([1.0, 0.5, 0.6, 0.7, 0.1, 0.1, 0.1, 0.1, 0.1])

    def end(seconds):
        loss = next(losses)
        one.worse = 0 if loss < one.best_loss else one.worse + 1
        one.best_loss = min(loss, one.best_loss)
        one.epoch += 1
        one.history.append({})

    monkeypatch.setattr(one, "_end_of_epoch", end)
    assert len(one.fit()) == 4


def test_the_end_of_the_budget_ends_training_with_a_model():
    seen = iter([False] * 3 + [True] * 100)
    one = trainer(Recipe(batch_size=8), plan(0, epochs=50), over=lambda: next(seen))
    assert len(one.fit()) == 1
    assert one.best is not None


def test_after_an_epoch_that_the_time_cut_short_the_next_one_is_whole(tmp_path):
    seen = iter([False] * 3 + [True] * 100)
    one = trainer(Recipe(batch_size=8), plan(0, epochs=3), checkpoint=tmp_path / "c", over=lambda: next(seen))
    one.fit()
    again = trainer(Recipe(batch_size=8), plan(0, epochs=3), checkpoint=tmp_path / "c")
    steps = []
    step = again.step
    again.step = lambda positions: (steps.append(positions), step(positions))
    again.fit()
    assert len(steps) == 2 * again.steps_per_epoch
    assert again.done == again.total


@pytest.mark.parametrize("schedule", ["cosine", "linear", "constant"])
def test_rates_rise_then_follow_the_schedule(schedule):
    shares = [rate_share(schedule, step, 100) for step in range(100)]
    assert shares[0] == pytest.approx(0.1)
    assert max(shares) == 1.0
    assert np.all(np.diff(shares[:10]) > 0)
    assert np.all(np.diff(shares[10:]) <= 1e-12)
    assert shares[-1] == (1.0 if schedule == "constant" else pytest.approx(0, abs=0.02))


def test_balanced_weights_make_classes_count_alike():
    weights = loop.balanced(np.array([0] * 8 + [1] * 2), 2)
    assert weights[0] * 8 == pytest.approx(weights[1] * 2)


def test_a_part_of_the_examples_may_lack_the_last_class():
    scene = make()
    scene.train = scene.train[scene.codes[scene.train] < 2]
    one = trainer(Recipe(batch_size=8), Plan(0, None, 1, 3e-3, False, True, ""), study=scene)
    assert len(one.class_weights) == 3
    one.fit()


def test_layers_nearer_the_input_learn_slower():
    one = trainer(Recipe(layer_decay=0.5), plan(0))
    rates = [g["lr"] for g in one.optimiser.param_groups]
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] == pytest.approx(3e-3 * 0.5 ** (one.backbone.depth - 1))
    assert all(g["weight_decay"] == 0 for g in one.optimiser.param_groups if g["params"][0].ndim == 1)


def test_interpolation_finds_the_best_point_on_the_line():
    p = torch.nn.Parameter(torch.tensor([4.0]))
    share, loss = averaging.best_share([p], [torch.tensor([0.0])], lambda: abs(float(p.detach()) - 1.1))
    assert share == 0.25
    assert float(p.detach()) == 1.0
    assert loss == pytest.approx(0.1)
