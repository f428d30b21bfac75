"""Answers as tables, and `outdo predict` on bundles."""

import csv
import io
import json

import pytest
from PIL import Image
from tiny import make_bundle, make_keys

from outdo import cli
from outdo.deploy.answers import lines

ANSWERS = [
    {"input": "a, b", "label": "cat", "probability": 0.9, "probabilities": {"cat": 0.9, "dog": 0.1}, "sure": True},
    {"input": "x", "error": "not an image"},
    {"input": "猫", "label": "dog", "probability": 0.5, "probabilities": {"cat": 0.5, "dog": 0.5}, "sure": False},
]


def test_csv_reads_back():
    rows = list(csv.DictReader(io.StringIO("\n".join(lines(ANSWERS, ["cat", "dog"], "csv")))))
    assert [r["input"] for r in rows] == ["a, b", "x", "猫"]
    assert rows[0]["probability of cat"] == "0.9"
    assert rows[1]["error"] == "not an image"
    assert rows[1]["label"] == ""
    assert [r["sure"] for r in rows] == ["True", "", "False"]


def test_json_reads_back():
    assert [json.loads(line) for line in lines(ANSWERS, ["cat", "dog"], "jsonl")] == ANSWERS
    assert json.loads("".join(lines(ANSWERS, ["cat", "dog"], "json"))) == ANSWERS


def test_people_see_doubt():
    assert list(lines(ANSWERS, ["cat", "dog"], "text")) == ["cat\t0.900\ta, b", "dog\t0.500\t猫\tnot sure"]


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "new").mkdir()
    for name, brightness in (("a", 10), ("b", 250)):
        Image.new("RGB", (20, 20), (brightness,) * 3).save(tmp_path / "new" / f"{name}.png")
    return tmp_path / "new"


def test_a_folder_becomes_a_table(folder, tmp_path, capsys):
    assert cli.main(["predict", str(make_bundle(tmp_path)), str(folder), "--csv"]) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [r["label"] for r in rows] == ["cat", "dog"]


def test_what_cannot_be_read_is_told_after_all_others_were_answered(folder, tmp_path, capsys):
    (folder / "aa.png").write_bytes(b"no image")
    assert cli.main(["predict", str(make_bundle(tmp_path)), str(folder)]) == 2
    told = capsys.readouterr()
    assert [line.split("\t")[0] for line in told.out.splitlines()] == ["cat", "dog"]
    assert "aa.png: not an image" in told.err
    assert "1 input could not be read" in told.err


def test_texts(tmp_path, capsys):
    assert cli.main(["predict", str(make_bundle(tmp_path, "text")), "hello there", "--jsonl"]) == 0
    assert json.loads(capsys.readouterr().out)["input"] == "hello there"


def test_trust(tmp_path, capsys, folder):
    private, public = make_keys(tmp_path)
    path = str(make_bundle(tmp_path, key=private))
    assert cli.main(["predict", path, str(folder), "--trust", str(public)]) == 0
    assert cli.main(["predict", path, str(folder), "--trust", str(make_keys(tmp_path)[1])]) == 2
    assert "not signed by the key" in capsys.readouterr().err
