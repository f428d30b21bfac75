"""The space: what is open and within which ends, and one clear message for whatever cannot be."""

import math
import re
from pathlib import Path

import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st

from outdo.errors import RecipeError, UserError
from outdo.recipe import CHOICES
from outdo.search.space import read, suited
from outdo.search.wish import wish

SEARCHED = [c for c in CHOICES if c.search]
NUMBERS = [c for c in SEARCHED if c.kind != "category"]


def dimensions(space):
    return {d.name: d for d in space.dimensions}


def fixed(**params):
    return optuna.trial.FixedTrial(params)


def middle(space):
    """Values in the middle of every range."""
    return {d.name: d.options[-1] if d.options else d.low for d in space.dimensions}


def test_without_a_word_everything_usual_is_open():
    space = read({})
    assert set(dimensions(space)) == {c.name for c in SEARCHED} - {"input_size", "class_weighting"}
    assert not space.recipe.said


def test_one_value_leaves_the_search_and_a_range_narrows_it():
    space = read({"learning_rate": "1e-4..1e-2", "mixup": "0.1", "optimiser": "sgd,adam", "depth": "1..2"})
    found = dimensions(space)
    assert (found["learning_rate"].low, found["learning_rate"].high) == (1e-4, 1e-2)
    assert found["learning_rate"].log
    assert found["optimiser"].options == ("sgd", "adam")
    assert (found["depth"].low, found["depth"].high) == (1, 2)
    assert "mixup" not in found
    assert space.recipe.mixup == 0.1


@given(st.sampled_from(NUMBERS), st.floats(0, 1), st.floats(0, 1))
def test_trials_stay_within_what_was_said(c, a, b):
    low, high = sorted(c.low + share * (c.high - c.low) for share in (a, b))
    if c.kind == "int":
        low, high = math.floor(low), math.ceil(high)
    if low == high:
        return
    d = dimensions(read({c.name: f"{low!r}..{high!r}"} | ({"depth": 5} if c.needs else {})))[c.name]
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for _ in range(5):
        value = d.suggest(study.ask())
        assert low <= value <= high
        assert d.holds(value)


def test_a_choice_without_effect_is_not_asked_for():
    space = read({})
    shallow = {**middle(space), "depth": 1}
    assert "layer_decay" not in space.suggest(fixed(**shallow))
    assert "layer_decay" in space.suggest(fixed(**shallow | {"depth": 2}))
    assert "layer_decay" not in dimensions(read({"depth": "0..1"}))
    assert "layer_decay" not in dimensions(read({"depth": 1}))
    assert "layer_decay" in dimensions(read({"depth": 2}))


def test_the_default_recipe_is_a_point_of_the_space():
    space = read({})
    values = {c.name: c.default for c in CHOICES if c.default != "auto"} | {"depth": 2, "learning_rate": 5e-4}
    assert space.among(values) == {name: values[name] for name in dimensions(space)}
    assert "learning_rate" not in read({"learning_rate": "1e-5..1e-4"}).among(values)


def test_a_space_is_suited_to_data_and_backbone():
    space = suited(read({}), "text", 3, imbalanced=True)
    found = dimensions(space)
    assert "augmentation" not in found
    assert found["depth"].high == 2
    assert "class_weighting" in found
    assert "depth" not in dimensions(suited(read({}), "image", 1, imbalanced=False))


def test_latency_opens_the_input_size():
    assert "input_size" in dimensions(read({}, latency=True))
    assert "input_size" not in dimensions(read({"input_size": 64}, latency=True))
    d = dimensions(read({"input_size": "64..150"}))["input_size"]
    assert (d.low, d.high, d.step) == (64, 128, 32)


@pytest.mark.parametrize(("said", "words"), [
    ({"learning_rat": "1..2"}, "[Dd]id you mean 'learning_rate'"),
    ({"learning_rate": "1e-2..1e-4"}, "is empty"),
    ({"learning_rate": "1e-3..1e-3"}, "one point.*--learning-rate 1e-3"),
    ({"learning_rate": "1e-9..1"}, "from 1e-06 to 1"),
    ({"learning_rate": "auto..1"}, "is empty"),
    ({"learning_rate": "nan..1"}, "cannot be"),
    ({"depth": "1..2..3"}, "a range such as 0..3"),
    ({"depth": "..2"}, "cannot be ''"),
    ({"depth": "a..b"}, "cannot be 'a'"),
    ({"optimiser": "sgd,adamm"}, "[Dd]id you mean 'adam"),
    ({"optimiser": "sgd,sgd"}, "nothing to search"),
    ({"epochs": "2..5"}, "not searched: trials have as many as pay"),
    ({"fit": "crop,squash"}, "not searched"),
    ({"epochs": 0}, "nothing to search with --epochs 0"),
    ({"depth": 1, "layer_decay": "0.5..0.9"}, "has an effect only where depth is at least 2"),
    ({"depth": "0..1", "layer_decay": "0.5..0.9"}, "has an effect only where depth is at least 2"),
])
def test_what_cannot_be_searched_is_said(said, words):
    with pytest.raises(RecipeError, match=words):
        read(said)


def test_a_space_of_one_point_is_no_search():
    one = {c.name: c.search[0] for c in SEARCHED}
    with pytest.raises(RecipeError, match="every choice has one value"):
        read(one)
    with pytest.raises(RecipeError, match="every choice has one value"):
        suited(read({k: v for k, v in one.items() if k != "augmentation"}), "text", 3, imbalanced=False)


@pytest.mark.parametrize(("said", "kind", "words"), [
    ({"depth": 9}, "image", "at most 4 of the 5 blocks"),
    ({"depth": "0..9"}, "image", "cannot be above 4"),
    ({"augmentation": "0..1"}, "text", "of texts is not searched"),
])
def test_what_data_or_backbone_do_not_allow_is_said(said, kind, words):
    with pytest.raises(RecipeError, match=words):
        suited(read(said), kind, 5, imbalanced=False)


def test_backbones_are_a_choice_like_others():
    space = wish("tpe", {"depth": 1}, start_from="a,b").space
    assert dimensions(space)["start_from"].options == ("a", "b")
    assert space.recipe_of({"start_from": "b", "mixup": 0.2}).said == {"depth": 1, "mixup": 0.2}
    assert "start_from" not in dimensions(wish("tpe", {}, start_from="a").space)


@pytest.mark.parametrize(("asked", "words"), [
    ({"search": "tpe", "start_from": "a,"}, "different backbones"),
    ({"search": "tpe", "start_from": "a,a"}, "different backbones"),
    ({"search": None, "start_from": "a,b"}, "only a search can choose among 2 backbones.*--start-from a"),
    ({"search": "tp"}, "[Dd]id you mean 'tpe'"),
    ({"search": "tpe", "trials": 0}, "trials cannot be 0"),
    ({"search": "tpe", "workers": 0}, "workers cannot be 0"),
    ({"search": "tpe", "also": "latenc"}, "[Dd]id you mean 'latency'"),
    ({"search": "genetic", "also": "latency"}, "one thing at a time"),
    ({"search": None, "trials": 3}, "--trials has no meaning"),
    ({"search": None, "workers": 2}, "--workers has no meaning"),
    ({"search": None, "said": {"depth": "0..2"}}, "without a search"),
])
def test_a_wish_that_cannot_be_is_refused(asked, words):
    with pytest.raises(UserError, match=words):
        wish(**{"said": {}, **asked})


def test_the_page_lists_what_is_searched():
    page = (Path(__file__).parents[2] / "docs" / "search.md").read_text(encoding="utf-8")
    listed = dict(re.findall(r"^\| `(\w+)` \| ([^|]+) \|", page, re.MULTILINE))
    assert set(listed) == {c.name for c in SEARCHED}
    for c in SEARCHED:
        ends = listed[c.name].split(", ") if c.kind == "category" else map(float, listed[c.name].split(".."))
        assert tuple(ends) == tuple(c.search)


def test_auto_names_a_sampler():
    assert wish("auto", {}).sampler == "ant_colony"
    assert wish("auto", {}, also="latency").sampler == "tpe"
    assert wish(None, {"depth": 2}) is None


