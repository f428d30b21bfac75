"""What every backbone family promises. A new file in outdo/backbones is found and tested by itself."""

import copy
import io
import json
import math

import numpy as np
import pytest
import torch
from PIL import Image

from outdo import backbones, plugins, runtime
from outdo.errors import BackboneError

FAMILIES = plugins.names("backbones")
TEXTS = ["a cat sat on the mat", "the dog", "one two three four five six seven", "what is this?"]


class Samples:
    """Inputs in memory: four images with content, or four texts of different lengths."""

    def __init__(self, kind):
        self.kind = kind

    def __len__(self):
        return 4

    def read(self, index):
        if self.kind == "text":
            return TEXTS[index]
        y, x = np.mgrid[:96, :80] / 10
        waves = [np.sin(x * (index + 1) + y + channel) for channel in range(3)]
        file = io.BytesIO()
        Image.fromarray((127 + 120 * np.stack(waves, -1)).astype(np.uint8)).save(file, "png")
        return file.getvalue()

    def signature(self, index):
        return f"{self.kind} {index}"

    def take(self, indices):
        raise NotImplementedError


@pytest.fixture(scope="module", params=FAMILIES)
def family(request):
    return plugins.load("backbones", request.param)


@pytest.fixture(scope="module")
def backbone(family):
    return family.load(family.default)


@pytest.fixture(scope="module")
def rows(backbone):
    return backbone.encode(Samples(backbone.kind), None).rows[np.arange(4)]


@pytest.fixture
def fresh(family):
    return family.load(family.default)


def whole(backbone, rows):
    return backbone.pool(backbone.run(backbone.prepare(rows), 0, backbone.depth))


def test_it_offers_what_it_names(family):
    names = family.names()
    assert family.default in names
    assert [name for name in names if not family.offers(name)] == []
    assert not family.offers("no-such-backbone")


def test_it_says_what_it_is(family, backbone):
    assert family.summary
    assert backbone.name == family.default
    assert backbone.kind == family.kind
    assert len(backbone.origin.sha256) == 64
    assert backbone.origin.licence
    assert backbone.depth > 1
    assert not backbone.torch_module.training


def test_weights_are_the_same_each_time(backbone, fresh):
    assert fresh.origin == backbone.origin


@pytest.mark.parametrize("gradients", [True, False])
def test_every_cut_composes(backbone, rows, gradients):
    with torch.set_grad_enabled(gradients):
        middle = backbone.run(backbone.prepare(rows[:2]), 0, 0)
        expected = whole(backbone, rows[:2])
        for cut in range(backbone.depth + 1):
            found = backbone.pool(backbone.run(middle, cut, backbone.depth))
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4, msg=f"cut {cut}")
            middle = backbone.run(middle, cut, min(cut + 1, backbone.depth))


def test_states_are_not_changed_by_running_on(backbone, rows):
    with torch.no_grad():
        state = backbone.prepare(rows)
        for cut in range(backbone.depth):
            kept = {key: value.clone() for key, value in state.items()}
            after = backbone.run(state, cut, cut + 1)
            assert all(torch.equal(kept[key], state[key]) for key in kept), f"block {cut} writes into its input"
            state = after


def test_features_are_as_declared(backbone, rows):
    sets = backbone.features(rows)
    assert {name: values.shape[1] for name, values in sets.items()} == dict(backbone.feature_sets)
    assert backbone.feature_sets["last"] == backbone.width
    for values in sets.values():
        assert values.dtype == torch.float32
        assert len(values) == 4
        assert torch.isfinite(values).all()
        assert not values.requires_grad
        assert len(torch.unique(values, dim=0)) == 4, "different inputs, different features"
    torch.testing.assert_close(sets["last"], whole(backbone, rows), rtol=1e-3, atol=1e-3)


def test_features_do_not_depend_on_the_rest_of_the_batch(backbone, rows):
    together, alone = backbone.features(rows), backbone.features(rows[1:2])
    for name in together:
        torch.testing.assert_close(together[name][1:2], alone[name], rtol=1e-3, atol=1e-4)


def test_gradients_reach_the_trained_blocks_and_no_other(fresh, rows):
    cut = fresh.depth // 2
    with torch.no_grad():
        middle = fresh.run(fresh.prepare(rows), 0, cut)
    fresh.pool(fresh.run(middle, cut, fresh.depth)).sin().sum().backward()
    trained = {id(p) for block in range(cut, fresh.depth) for p in fresh.block_parameters(block)}
    for name, parameter in fresh.torch_module.named_parameters():
        assert (parameter.grad is not None) == (id(parameter) in trained), name


def test_every_parameter_is_of_at_most_one_block(backbone):
    blocks = [backbone.block_parameters(i) for i in range(backbone.depth)]
    every = [id(p) for block in blocks for p in block]
    assert all(blocks)
    assert len(every) == len(set(every))
    assert set(every) <= {id(p) for p in backbone.torch_module.parameters()}


def test_without_gradients_the_weights_of_the_moment_count(fresh, rows):
    """The frozen fast copy follows, however the weights were changed."""
    parameter = max(fresh.block_parameters(fresh.depth - 1), key=lambda p: p.numel())
    before = fresh.features(rows)["last"]
    with torch.no_grad():
        parameter.mul_(1.1)
    changed = fresh.features(rows)["last"]
    assert not torch.allclose(before, changed, rtol=1e-3)
    torch.testing.assert_close(changed, whole(fresh, rows), rtol=1e-3, atol=1e-3)
    parameter.data = parameter.data / 1.1
    torch.testing.assert_close(fresh.features(rows)["last"], before, rtol=1e-3, atol=1e-3)


def test_a_copy_is_a_backbone_of_its_own(fresh, rows):
    before = fresh.features(rows)["last"]
    twin = copy.deepcopy(fresh)
    twin.pool(twin.run(twin.prepare(rows), 0, twin.depth)).sin().sum().backward()
    assert all(p.grad is None for p in fresh.torch_module.parameters())
    assert all(p.grad is not None for p in twin.block_parameters(0))
    torch.optim.SGD(twin.torch_module.parameters(), 0.1).step()
    assert not torch.allclose(twin.features(rows)["last"], before, rtol=1e-3)
    assert torch.equal(fresh.features(rows)["last"], before)


def test_bfloat16_points_the_same_way(fresh, rows):
    exact = fresh.features(rows)["last"]
    fresh.precision = "bfloat16"
    for found in (fresh.features(rows)["last"], whole(fresh, rows)):
        assert found.dtype == torch.float32
        assert torch.cosine_similarity(exact, found).mean() > 0.99


def test_prepare_takes_arrays_and_tensors(backbone, rows):
    from_array, from_tensor = backbone.prepare(rows), backbone.prepare(torch.as_tensor(rows))
    assert set(from_array) == set(from_tensor) >= {"x"}
    assert all(torch.equal(from_array[key], from_tensor[key]) for key in from_array)
    assert all(len(value) == 4 for value in from_array.values())


def test_augmenting_by_nothing_is_the_identity(backbone, rows):
    given = torch.as_tensor(rows)
    assert torch.equal(backbone.augment(given, 0.0, runtime.generator(1)), given)


@pytest.mark.parametrize("strength", [0.5, 1.0])
def test_augmenting_is_decided_by_the_generator(backbone, rows, strength):
    given = torch.as_tensor(rows)
    kept = given.clone()
    many = given.repeat(8, *[1] * (given.ndim - 1))
    one, same, other = (backbone.augment(many, strength, runtime.generator(n)) for n in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert not torch.equal(one, many)
    assert one.shape == many.shape
    assert one.dtype == many.dtype
    assert torch.equal(given, kept), "the rows themselves are left alone"
    assert torch.isfinite(backbone.features(one)["last"]).all()


def test_mild_augmentation_keeps_what_is_seen(backbone, rows):
    given = torch.as_tensor(rows)
    plain = backbone.features(given)["last"]
    changed = torch.stack([backbone.features(backbone.augment(given, 0.3, runtime.generator(n)))["last"]
                           for n in range(8)]).mean(0)
    likeness = torch.cosine_similarity(plain[:, None], changed[None], dim=2)
    assert likeness.diagonal().mean() > likeness.mean()


def test_preprocessing_is_json_and_restores_the_rows(family, backbone, rows):
    said = json.loads(json.dumps(backbone.preprocessing()))
    again = family.load(family.default, preprocessing=said)
    assert again.preprocessing() == said
    assert np.array_equal(again.encode(Samples(backbone.kind), None).rows[np.arange(4)], rows)


def test_what_features_depend_on_is_json_and_not_what_a_run_recorded(family, backbone):
    assert json.loads(json.dumps(backbone.depends_on)) == backbone.depends_on
    older = family.load(family.default, preprocessing={**backbone.preprocessing(), "depends_on": ["older"]})
    assert older.depends_on == backbone.depends_on


def test_preprocessing_can_be_overridden_in_part(family):
    key = "fit" if family.kind == "image" else "max_length"
    value = "crop" if family.kind == "image" else 8
    assert family.load(family.default, preprocessing={key: value}).preprocessing()[key] == value


def test_lexical_counts_are_for_texts(backbone, rows):
    counts = backbone.lexical(rows)
    if backbone.kind == "image":
        assert counts is None
    else:
        lengths = (rows >= 0).sum(1)
        assert counts.shape == (4, 2**16)
        assert counts.sum(1).A1.tolist() == (2 * lengths - 1).tolist(), "every token and every pair is counted once"


def test_a_typing_error_names_the_nearest(family):
    near = family.default[:-1] + "x" + family.default[-1:]
    with pytest.raises(BackboneError, match=f"unknown backbone '{near}'.*[Dd]id you mean '{family.default}'"):
        backbones.load(near)


def test_the_other_kind_is_refused(family):
    other = "text" if family.kind == "image" else "image"
    with pytest.raises(BackboneError, match=f"for {family.kind}s. Expected one for {other}s"):
        backbones.load(family.default, other)


def test_the_state_fits_one_row_per_example(backbone, rows):
    """Cached activations are stored by example, so nothing in a state may be shared between examples."""
    with torch.no_grad():
        state = backbone.prepare(rows)
        for cut in range(backbone.depth + 1):
            state = backbone.run(state, cut, min(cut + 1, backbone.depth))
            assert all(len(value) == 4 and math.prod(value.shape[1:]) for value in state.values())
