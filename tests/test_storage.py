"""Files are whole or absent, rows are found again by key, and a torn tail costs one row."""

import json
import os
import shutil
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outdo import storage
from outdo.errors import RunError
from outdo.storage import RowStore, evict, read_json, read_tensors, replacing, write_json, write_tensors


def test_a_file_is_whole_or_absent(tmp_path):
    target = tmp_path / "a.json"
    write_json(target, {"old": 1})

    def half():
        with replacing(target) as draft:
            draft.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        half()
    assert json.loads(target.read_text()) == {"old": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_json_has_no_nan_and_survives_any_file_name(tmp_path):
    name = os.fsdecode(b"caf\xe9.jpg")
    write_json(tmp_path / "a.json", {"x": float("nan"), "y": np.float32(0.5), "z": np.arange(2), "n": name})
    found = read_json(tmp_path / "a.json")
    assert (found["x"], found["y"], found["z"]) == (None, 0.5, [0, 1])
    assert found["n"].startswith("caf")


@pytest.mark.parametrize("content", [b"{", b"\xff\xfe", b""])
def test_damaged_json(tmp_path, content):
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(RunError, match="damaged"):
        read_json(tmp_path / "a.json")


def test_damaged_tensors(tmp_path):
    import torch

    write_tensors(tmp_path / "t.safetensors", {"a": torch.ones(100)}, {"x": 1})
    tensors, note = read_tensors(tmp_path / "t.safetensors")
    assert note == {"x": 1}
    assert tensors["a"].sum() == 100
    whole = (tmp_path / "t.safetensors").read_bytes()
    (tmp_path / "t.safetensors").write_bytes(whole[:-50])
    with pytest.raises(RunError, match="damaged"):
        read_tensors(tmp_path / "t.safetensors")
    with pytest.raises(RunError, match="missing"):
        read_tensors(tmp_path / "none.safetensors")


@settings(max_examples=30)
@given(st.lists(st.lists(st.integers(0, 30), max_size=8), max_size=6), st.randoms())
def test_rows_are_found_again_by_key(tmp_path_factory, pieces, random):
    folder = tmp_path_factory.mktemp("rows")
    store = RowStore(folder, (3,), np.float32)
    seen = {}
    for piece in pieces:
        keys = list(dict.fromkeys(map(str, piece)))
        store.append(keys, np.array([[float(k)] * 3 for k in keys], np.float32).reshape(-1, 3))
        seen |= {k: float(k) for k in keys}
        store = RowStore(folder, (3,), np.float32)
    order = list(seen)
    random.shuffle(order)
    assert len(store) == len(seen)
    assert np.array_equal(store.rows(order)[np.arange(len(order))][:, 0], [seen[k] for k in order])
    assert store.find(["unknown"]) == [-1]


@pytest.mark.parametrize("torn", ["rows.bin", "keys.bin"])
def test_a_torn_tail_costs_the_last_row(tmp_path, torn):
    store = RowStore(tmp_path, (4,), np.float64)
    store.append(list("abc"), np.arange(12.0).reshape(3, 4))
    with open(tmp_path / torn, "r+b") as file:
        file.truncate(os.path.getsize(tmp_path / torn) - 3)
    again = RowStore(tmp_path, (4,), np.float64)
    assert (again.find(list("abc")) >= 0).tolist() == [True, True, False]
    again.append(["c", "d"], np.ones((2, 4)))
    assert np.array_equal(again.rows(list("acd"))[np.arange(3)], [[0, 1, 2, 3], [1] * 4, [1] * 4])


def test_a_key_that_outlived_its_row_never_vouches_for_another(tmp_path, monkeypatch):
    RowStore(tmp_path, (4,), np.float64).append(list("abcd"), np.arange(16.0).reshape(4, 4))
    os.truncate(tmp_path / "rows.bin", 2 * 32)  # a power failure
    store, others = RowStore(tmp_path, (4,), np.float64), RowStore(tmp_path, (4,), np.float64)
    write = storage.write_all

    def killed(handle, data, offset):
        if handle == store._keys:
            raise KeyboardInterrupt
        write(handle, data, offset)

    monkeypatch.setattr(storage, "write_all", killed)
    with pytest.raises(KeyboardInterrupt):
        store.append(["new", "newer"], np.ones((2, 4)))
    for found in (others, RowStore(tmp_path, (4,), np.float64)):
        assert found.find([*"abcd", "new"]).tolist() == [0, 1, -1, -1, -1]
    others.append(["new"], np.full((1, 4), 7.0))
    assert store.rows(["a", "new"])[np.arange(2)].tolist() == [[0, 1, 2, 3], [7] * 4]


def test_the_least_recently_used_cache_goes_first(tmp_path):
    for i, name in enumerate(["old", "new"]):
        RowStore(tmp_path / name, (100,), np.float64).append(["x"], np.ones((1, 100)))
        os.utime(tmp_path / name, (1e9 + i, 1e9 + i))
    evict(tmp_path, keep_bytes=900)
    assert [p.name for p in tmp_path.iterdir()] == ["new"]


def test_a_store_that_holds_another_is_removed_with_it(tmp_path):
    old = time.time() - 7200
    names = ["pixels", "pixels/about", "other"]
    for name in names:
        RowStore(tmp_path / name, (100,), np.float64).append(["x"], np.ones((1, 100)))
    for i, name in enumerate(names):
        os.utime(tmp_path / name, (old + i, old + i))
    evict(tmp_path, keep_bytes=0)
    assert list(tmp_path.iterdir()) == []


def test_a_store_that_another_run_removes_is_passed_over(tmp_path, monkeypatch):
    for i, name in enumerate("abc"):
        RowStore(tmp_path / name, (100,), np.float64).append(["x"], np.ones((1, 100)))
        os.utime(tmp_path / name, (1e9 + i, 1e9 + i))
    remove = shutil.rmtree
    monkeypatch.setattr(shutil, "rmtree", lambda path, **how: [remove(tmp_path / name) for name in "ab"
                                                               if (tmp_path / name).exists()])
    evict(tmp_path, keep_bytes=900)
    assert [p.name for p in tmp_path.iterdir()] == ["c"]


def test_a_store_that_is_being_filled_is_in_use(tmp_path):
    store = RowStore(tmp_path / "a", (4,), np.float64)
    os.utime(tmp_path / "a", (1e9, 1e9))
    store.append(["x"], np.ones((1, 4)))
    evict(tmp_path, keep_bytes=0)
    assert len(RowStore(tmp_path / "a", (4,), np.float64)) == 1
    shutil.rmtree(tmp_path / "a")
    store.append(["y"], np.ones((1, 4)))  # whoever filled it when it was removed goes on
    assert len(store) == 2
