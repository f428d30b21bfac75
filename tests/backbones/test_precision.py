"""bfloat16 where it is measured to be faster and safe; remembered."""

import json
import math

import numpy as np
import pytest
import torch

from outdo import backbones, storage
from outdo.backbones import _precision

ROWS = np.zeros((4, 32, 32, 3), np.uint8)


@pytest.fixture
def backbone():
    return backbones.load("tiny-image")


@pytest.fixture(autouse=True)
def memory(tmp_path, monkeypatch):
    monkeypatch.setenv("OUTDO_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "machine.json"


@pytest.fixture
def measured(monkeypatch):
    """What the stopwatch would say: bfloat16 twice as fast. Counts how often it is asked."""
    asked = []

    def timed(backbone, rows, precision):
        asked.append(precision)
        return np.ones((4, 8)), {"float32": 2.0, "bfloat16": 1.0}[precision]

    monkeypatch.setattr(_precision, "timed", timed)
    return asked


@pytest.mark.parametrize(("mean", "least", "speed_up", "expected", "words"), [
    (0.9999, 0.9995, 2.0, "bfloat16", "2.0 times as fast"),
    (0.9999, 0.9995, 1.05, "float32", "not faster here"),
    (0.9999, 0.9800, 2.0, "float32", "features in bfloat16 differ"),
    (0.9900, 0.9900, 2.0, "float32", "features in bfloat16 differ"),
    (math.nan, math.nan, 9.0, "float32", "features in bfloat16 differ"),
])
def test_the_rule(mean, least, speed_up, expected, words):
    precision, why = _precision.judge((mean, least), speed_up)
    assert precision == expected
    assert words in why


def test_it_is_measured_once_and_remembered(backbone, measured, memory):
    assert backbones.choose_precision(backbone, ROWS) == (
        "bfloat16", "bfloat16: 2.0 times as fast here, features alike (cosine 1.00000)")
    assert measured == ["float32", "bfloat16"]
    again, why = backbones.choose_precision(backbone, ROWS)
    assert (again, len(measured)) == ("bfloat16", 2)
    assert "measured earlier" in why
    assert len(json.loads(memory.read_text())) == 1
    backbones.choose_precision(backbones.load("tiny-text"), np.zeros((4, 8), np.int32))
    assert len(measured) == 4, "another backbone is measured for itself"
    assert len(json.loads(memory.read_text())) == 2


def test_what_the_user_says_is_not_measured(backbone, measured):
    assert backbones.choose_precision(backbone, ROWS, "bfloat16")[0] == "bfloat16"
    assert backbones.choose_precision(backbone, ROWS, "float32")[0] == "float32"
    assert not measured


@pytest.mark.parametrize("damage", ["", "{", "[1]"])
def test_a_damaged_memory_is_measured_again(backbone, measured, memory, damage):
    storage.write_text(memory, damage)
    assert backbones.choose_precision(backbone, ROWS)[0] == "bfloat16"
    assert len(measured) == 2


def test_a_memory_that_cannot_be_written_is_no_error(backbone, measured, memory):
    memory.parent.parent.joinpath("cache").write_text("a file, not a folder")
    assert backbones.choose_precision(backbone, ROWS)[0] == "bfloat16"


def test_the_real_stopwatch_leaves_the_precision_as_it_was(backbone):
    precision, why = backbones.choose_precision(backbone, ROWS)
    assert precision in ("float32", "bfloat16")
    assert why.startswith(precision)
    assert backbone.precision == "float32"


def test_what_does_not_run_in_bfloat16_stays_in_float32(backbone, monkeypatch):
    features = backbone.features

    def refusing(rows):
        if backbone.precision == "bfloat16":
            raise RuntimeError('"some_kernel" not implemented for BFloat16')
        return features(rows)

    monkeypatch.setattr(backbone, "features", refusing)
    precision, why = backbones.choose_precision(backbone, ROWS)
    assert precision == "float32"
    assert "does not run here" in why
    assert backbone.precision == "float32"


def test_likeness_of_features():
    a = np.array([[1.0, 0.0], [1.0, 1.0]])
    assert _precision.alike(a, a) == pytest.approx((1, 1))
    assert _precision.alike(a, np.array([[1.0, 0.0], [1.0, 0.0]])) == pytest.approx(((1 + 2**-0.5) / 2, 2**-0.5))
    assert math.isnan(_precision.alike(a, a * np.nan)[0])


def test_in_bfloat16_states_are_bfloat16_and_results_are_not(backbone):
    backbone.precision = "bfloat16"
    with torch.no_grad():
        state = backbone.run(backbone.prepare(ROWS), 0, 2)
        assert state["x"].dtype == torch.bfloat16
        assert backbone.pool(backbone.run({"x": state["x"].float()}, 2, backbone.depth)).dtype == torch.float32
    trained = backbone.pool(backbone.run({"x": state["x"]}, 2, backbone.depth))
    trained.sum().backward()
    assert trained.dtype == torch.float32
    assert all(p.grad is None or p.grad.dtype == torch.float32 for p in backbone.torch_module.parameters())
