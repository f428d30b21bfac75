"""The demo: its data are scikit-learn's, and its rival answers as scikit-learn's own example does."""

from collections import Counter

import numpy as np
import pytest
from sklearn.datasets import load_digits

import outdo
from outdo.demo import demo, pixels, rival, write_digits


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    return outdo.read(write_digits(tmp_path_factory.mktemp("demo") / "digits"))


def test_the_files_are_scikit_learns_digits_in_its_example_s_split(digits):
    images, labels = load_digits(return_X_y=True)
    number = np.array([int(name[-8:-4]) for name in digits.ids])
    assert np.array_equal(pixels(digits.inputs), images[number])
    assert np.array_equal(digits.labels, labels[number].astype(str))
    assert np.array_equal(digits.split == "train", number < 898)
    assert Counter(digits.split) == {"train": 898, "test": 899}


def test_the_rival_answers_as_scikit_learns_example(digits):
    test = digits.take(np.flatnonzero(digits.split == "test"))
    assert (rival(digits).predict(test.inputs) == test.labels).sum() == 871  # 0.97, as its documentation prints


def test_digits_are_written_once(tmp_path):
    folder = write_digits(tmp_path / "digits")
    before = (folder / "test" / "8" / "1796.png").stat().st_mtime_ns
    assert write_digits(folder) == folder
    assert (folder / "test" / "8" / "1796.png").stat().st_mtime_ns == before
    assert [p.name for p in tmp_path.iterdir()] == ["digits"]


def test_the_demo_ends_in_a_verdict_over_the_rival(tmp_path):
    result = demo(minutes=0.02, out=tmp_path / "run", start_from="tiny-image")
    content = result.report.as_json()
    assert {"name": "scikit-learn SVC", "role": "rival"}.items() <= next(
        c for c in content["contestants"] if c["role"] == "rival").items()
    accuracy = next(axis for axis in content["axes"] if axis["axis"] == "accuracy")
    assert accuracy["values"]["scikit-learn SVC"] == pytest.approx(871 / 899)
    assert [c["against"] for c in accuracy["comparisons"]].count("scikit-learn SVC") == 1
    assert content["recipe"]["augmentation"] == 0
    assert str(result.report).splitlines()[-1].startswith("verdict: ")
    assert (result.folder / "report.html").is_file()
