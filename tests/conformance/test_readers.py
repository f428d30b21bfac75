"""What every reader promises. A new file in outdo/data/readers is found and tested by itself, on its own `example`."""

import numpy as np
import pytest

from outdo import plugins
from outdo.contracts import SPLITS
from outdo.data.encode import encode_images, encode_texts
from outdo.data.read import read as read_any
from outdo.errors import DataError

READERS = plugins.names("readers")
NO_COLUMNS = {"input_column": None, "label_column": None, "group_column": None}


@pytest.fixture(params=READERS)
def reader(request):
    return plugins.load("readers", request.param)


@pytest.fixture
def source(reader, tmp_path):
    if not hasattr(reader, "example"):
        pytest.skip("the reader has no example(folder, seed) to be tested on")
    return reader.example(tmp_path)


@pytest.fixture
def data(reader, source):
    return reader.read(source, **NO_COLUMNS)


def contents(data):
    return [data.inputs.read(i) for i in range(len(data))]


def test_it_says_what_it_reads(reader):
    assert 10 < len(reader.summary) < 140
    assert "\n" not in reader.summary


def test_what_it_wrote_is_its_own_and_nobody_elses(reader, source):
    accepting = [name for name, other in plugins.load_all("readers").items() if other.accepts(source)]
    assert [plugins.load("readers", name) for name in accepting] == [reader]


def test_it_declines_other_things(reader, tmp_path):
    (tmp_path / "notes.docx").write_bytes(b"\xd0\xcf\x11\xe0" + bytes(200))
    (tmp_path / "none.bin").write_bytes(b"")
    assert not reader.accepts(tmp_path / "notes.docx")
    assert not reader.accepts(tmp_path / "none.bin")


def test_the_columns_agree_in_length(data):
    assert len(data) == len(data.ids) == len(data.inputs) == len(data.labels) == len(data.split) >= 6
    assert all(len(column) == len(data) for column in data.columns.values())
    assert data.groups is None or len(data.groups) == len(data)


def test_ids_are_unique_words(data):
    assert len(set(data.ids)) == len(data)
    assert all(isinstance(name, str) and name.strip() == name != "" for name in data.ids)


def test_labels_are_trimmed_text_and_splits_known(data):
    assert data.labels.dtype.kind == data.split.dtype.kind == "U"
    assert all(label.strip() == label for label in data.labels)
    assert np.unique(data.labels, return_counts=True)[1].tolist() >= [3, 3]
    assert set(data.split) <= {"", *SPLITS}


def test_inputs_can_be_read(data):
    assert all(isinstance(content, str if data.kind == "text" else bytes) and content for content in contents(data))
    if data.kind == "image":
        assert not encode_images(data.inputs, size=16, fit="squash", cache=None)[0].problems
    else:
        assert all(encode_texts(data.inputs, None)[0].digests)


def test_taking_some_keeps_everything_in_step(data):
    chosen = np.array([4, 1, 5])
    some = data.take(chosen)
    assert some.ids == tuple(data.ids[i] for i in chosen)
    assert contents(some) == [contents(data)[i] for i in chosen]
    assert [some.inputs.signature(i) for i in range(3)] == [data.inputs.signature(i) for i in chosen]
    assert (some.labels == data.labels[chosen]).all()
    assert (some.split == data.split[chosen]).all()


def test_reading_twice_gives_the_same(reader, source, data):
    again = reader.read(source, **NO_COLUMNS)
    assert again.ids == data.ids
    assert again.labels.tolist() == data.labels.tolist()
    assert again.split.tolist() == data.split.tolist()
    assert contents(again) == contents(data)
    assert all(again.inputs.signature(i) == data.inputs.signature(i) for i in range(len(data)))


def test_other_content_has_another_signature(reader, source, data, tmp_path):
    old, before = contents(data), [data.inputs.signature(i) for i in range(len(data))]
    changed = reader.read(reader.example(tmp_path, seed=1), **NO_COLUMNS)
    assert changed.ids == data.ids
    for i in range(len(changed)):
        assert changed.inputs.read(i) != old[i]
        assert changed.inputs.signature(i) != before[i]


@pytest.mark.parametrize("column", NO_COLUMNS)
def test_a_column_that_does_not_exist_is_an_error(reader, source, column):
    with pytest.raises(DataError, match="no such"):
        reader.read(source, **{**NO_COLUMNS, column: "no such"})


def test_outdo_read_finds_the_reader(source, data):
    assert read_any(str(source)).ids == data.ids
