"""The recipe: what is valid, what is refused, and that text from a command line means the same as a number."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outdo.errors import RecipeError
from outdo.recipe import AUTO, CHOICES, NAMES, Recipe, check, choice, span

NUMBERS = [c for c in CHOICES if c.kind != "category"]
CATEGORIES = [c for c in CHOICES if c.kind == "category"]


def valid_values(c):
    if c.kind == "category":
        return st.sampled_from(c.options)
    return st.integers(int(c.low), int(c.high)) if c.kind == "int" else st.floats(c.low, c.high)


any_choice_and_value = st.sampled_from(CHOICES).flatmap(lambda c: st.tuples(st.just(c), valid_values(c)))
a_number_and_any_float = st.tuples(st.sampled_from(NUMBERS), st.floats())


@given(any_choice_and_value)
def test_text_from_the_command_line_means_the_same(pair):
    c, value = pair
    assert check(c.name, value) == value
    assert check(c.name, str(value)) == value
    assert check(c.name.replace("_", "-"), value) == value


@given(a_number_and_any_float)
def test_a_number_is_accepted_exactly_when_it_is_in_the_range(pair):
    c, value = pair
    inside = c.low <= value <= c.high and (c.kind == "float" or value == math.floor(value))
    if inside:
        assert check(c.name, value) == value
        assert type(check(c.name, value)) is (int if c.kind == "int" else float)
    else:
        with pytest.raises(RecipeError, match="cannot be"):
            check(c.name, value)


@given(st.sampled_from(CHOICES), st.text() | st.none() | st.booleans() | st.lists(st.integers()))
def test_nonsense_is_a_recipe_error_and_nothing_else(c, value):
    try:
        kept = check(c.name, value)
    except RecipeError:
        return
    assert kept == AUTO or c.kind != "category" or kept in c.options
    assert not isinstance(value, bool)


@pytest.mark.parametrize("c", CHOICES, ids=lambda c: c.name)
def test_a_choice_is_complete(c):
    assert check(c.name, c.default) == c.default
    assert c.help
    assert not c.help.endswith(".")
    assert choice(c.name) is c
    if c.kind == "category":
        assert len(c.options) > 1
        assert all(option in span(c) for option in c.options)
        assert set(c.search) <= set(c.options)
    else:
        assert c.low < c.high
        assert f"from {c.low:g} to {c.high:g}" in span(c)
        assert not c.log or (c.search[0] if c.search else c.low) > 0
        assert all(c.low <= end <= c.high for end in c.search)
    assert c.auto == (AUTO in span(c))


@pytest.mark.parametrize("c", [c for c in CHOICES if not c.auto], ids=lambda c: c.name)
def test_auto_only_where_it_is_offered(c):
    with pytest.raises(RecipeError, match="cannot be 'auto'"):
        check(c.name, AUTO)


def test_names_are_unique_and_defaults_fine_tune():
    assert len(set(NAMES)) == len(NAMES)
    recipe = Recipe()
    assert dict(recipe) == {c.name: c.default for c in CHOICES}
    assert recipe.optimiser == "adamw"
    assert recipe.mixup == 0  # a zero is a value, not an absence


def test_a_recipe_knows_what_was_said():
    recipe = Recipe(epochs="3", optimiser="adamw")
    assert recipe.said == {"epochs": 3, "optimiser": "adamw"}  # said, although it is the default
    assert recipe["epochs"] == recipe.epochs == 3
    assert len(recipe) == len(CHOICES)
    assert repr(recipe) == "Recipe(epochs=3, optimiser='adamw')"


def test_but_changes_a_copy():
    recipe = Recipe(epochs=3)
    assert recipe.but(epochs=4, depth=1).said == {"epochs": 4, "depth": 1}
    assert recipe.said == {"epochs": 3}


@pytest.mark.parametrize(("said", "message"), [
    ({"optimizer": "sgd"}, "unknown recipe choice 'optimizer'. Did you mean 'optimiser'?"),
    ({"optimiser": "sdg"}, "optimiser cannot be 'sdg'. Did you mean 'sgd'?"),
    ({"epochs": 2.5}, "epochs cannot be '2.5'. Expected a whole number from 0 to 1000, or auto."),
    ({"learning_rate": 0}, "learning_rate cannot be 0. Expected a number from 1e-06 to 1, or auto."),
    ({"epochs": True}, "epochs cannot be 'True'"),
])
def test_messages(said, message):
    with pytest.raises(RecipeError) as raised:
        Recipe(**said)
    assert str(raised.value).startswith(message)


def test_no_attribute_is_made_up():
    with pytest.raises(AttributeError):
        _ = Recipe().learningrate
