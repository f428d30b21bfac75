"""Every message says what was expected, what was found and what to do."""

import inspect
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outdo import errors
from outdo.errors import DataError, Interrupted, MissingExtra, OutdoError, UserError, nearest


def test_a_message_reads_as_one_sentence_per_part():
    error = DataError("no label column", expected="a column named label", found="id, text", fix="say --label-column")
    assert str(error) == "no label column. Expected a column named label. Found id, text. Say --label-column."


def test_full_stops_are_not_doubled():
    assert str(UserError("no images.", fix="look again.")) == "no images. Look again."
    assert str(UserError("no run there", fix="did it finish?")) == "no run there. Did it finish?"


def test_the_tree_in_the_docstring_is_the_tree():
    classes = {name: c for name, c in vars(errors).items() if inspect.isclass(c) and issubclass(c, OutdoError)}
    drawn = re.findall(r"[├└]── (\w+)|^    (OutdoError)$", inspect.getdoc(errors) and errors.__doc__, re.MULTILINE)
    assert {a or b for a, b in drawn} == set(classes)
    for name, c in classes.items():
        line = next(line for line in errors.__doc__.splitlines() if re.search(rf"\b{name}\b", line))
        depth = 0 if name == "OutdoError" else 2 if "│   " in line else 1
        assert len(c.__mro__) - len(OutdoError.__mro__) >= depth
        assert issubclass(c, UserError) == (depth == 2 or name == "UserError")


def test_a_mistake_is_a_value_error_and_an_interruption_is_not():
    assert issubclass(UserError, ValueError)
    assert not issubclass(Interrupted, ValueError)


def test_a_missing_library_says_what_brings_it():
    assert str(MissingExtra("text", "transformers", "text")) == (
        "text needs the library transformers, which is not installed. Run pip install 'outdo[text]'.")


@pytest.mark.parametrize(("name", "names", "said"), [
    ("Resnet50", ["resnet50", "vgg"], "did you mean 'resnet50'? valid: resnet50, vgg"),
    ("xyzzy", ["resnet50", "vgg"], "valid: resnet50, vgg"),
    ("a", [], "there are none"),
    ("q", [f"m{i:02}" for i in range(20)], "valid: " + ", ".join(f"m{i:02}" for i in range(12)) + " and 8 more"),
])
def test_nearest(name, names, said):
    assert nearest(name, names) == said


@given(st.lists(st.text(min_size=1), min_size=1, unique_by=str.lower).flatmap(
    lambda names: st.tuples(st.just(names), st.sampled_from(names))))
def test_nearest_finds_a_name_whatever_its_case(case):
    names, wanted = case
    assert nearest(wanted, names).startswith(f"did you mean '{wanted}'?")
