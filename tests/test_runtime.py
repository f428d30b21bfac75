"""Allocator, device, seeds, clocks."""

import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from outdo import runtime
from outdo.errors import RecipeError

GLIBC = sys.platform == "linux" and platform.libc_ver()[0] == "glibc"


def run(code, **environment):
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True,
                          env={**os.environ, **environment})
    return done.stdout.split()


def test_importing_it_is_cheap():
    assert run("import sys, outdo.runtime; print([m for m in ('torch', 'numpy') if m in sys.modules])") == ["[]"]


@pytest.mark.skipif(not GLIBC, reason="glibc only")
def test_kept_memory_is_not_faulted_in_again():
    """The point of it: a large block that is freed and asked for again costs no page faults."""
    code = """
import resource
from outdo import runtime
from outdo.errors import RecipeError
print(runtime.prepare("{said}"))
import numpy as np
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
np.ones(8 << 20)
before = faults()
for _ in range(10):
    np.ones(8 << 20)
print(faults() - before)
"""
    plain = {"MALLOC_TRIM_THRESHOLD_": "131072", "THP_MEM_ALLOC_ENABLE": ""}
    said, faults = run(code.format(said="auto"))
    assert said == "keep"
    assert int(faults) < 200
    said, faults_before = run(code.format(said="system"), **plain)
    assert said == "system"
    assert int(faults_before) > 10 * max(1, int(faults))


@pytest.mark.parametrize(("said", "expected"), [
    ({}, runtime.SPINS), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "active"}, "None"),
    ({runtime.SWITCH: "waiting"}, "None")])
def test_threads_wait_briefly_unless_told_otherwise(said, expected, monkeypatch):
    for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY"):
        monkeypatch.delenv(name, raising=False)
    code = "import os; from outdo import runtime; runtime.prepare(); print(os.environ.get('GOMP_SPINCOUNT'))"
    assert run(code, **said) == [expected]


def test_elsewhere_nothing_is_done(monkeypatch):
    monkeypatch.setattr(runtime, "_allocator", "system")
    monkeypatch.setattr(runtime.sys, "platform", "darwin")
    monkeypatch.setattr(runtime.ctypes, "CDLL", lambda *_: pytest.fail("touched the C library"))
    assert runtime.prepare() == "system"


def test_an_allocator_without_mallopt_is_left_alone(monkeypatch):
    monkeypatch.setattr(runtime, "_allocator", "system")
    monkeypatch.setattr(runtime.ctypes, "CDLL", lambda *_: type("C", (), {"mallopt": staticmethod(lambda *_: 0)}))
    assert runtime.prepare("keep") == "system"


def test_device(monkeypatch):
    monkeypatch.setenv("OUTDO_DEVICE", "meta")
    assert runtime.device() == torch.device("meta")
    monkeypatch.delenv("OUTDO_DEVICE")
    assert runtime.device().type == ("cuda" if torch.cuda.is_available() else "cpu")


def test_generators_depend_on_the_numbers_alone():
    def draw(*numbers):
        return torch.rand(4, generator=runtime.generator(*numbers)).tolist()

    torch.manual_seed(0)
    first = draw(1, 2, 3)
    torch.manual_seed(1)
    assert draw(1, 2, 3) == first
    assert draw(np.int64(1), 2, 3) == first
    assert len({tuple(draw(*n)) for n in ((1, 2, 3), (1, 2), (1, 2, 4), (12, 3), (3, 2, 1), (-1, 2, 3))}) == 6
    assert run("from outdo import runtime; import torch; "
               "print(*torch.rand(4, generator=runtime.generator(1, 2, 3)).tolist())") == list(map(str, first))


def test_seeding_everything():
    import random

    def draw():
        runtime.seed_everything(7)
        return random.random(), np.random.rand(), torch.rand(1).item()

    assert draw() == draw()


def test_budget():
    now = [100.0]
    budget = runtime.Budget(2, already_spent=30, clock=lambda: now[0])
    assert (budget.spent(), budget.left()) == (30, 90)
    now[0] += 60
    assert (budget.spent(), budget.left()) == (90, 30)
    now[0] += 60
    assert (budget.spent(), budget.left()) == (150, 0)
    assert runtime.Budget(0).left() == 0


def test_memory_and_time():
    before = runtime.peak_memory_bytes()
    block = np.ones(30 << 20, np.uint8)
    assert runtime.peak_memory_bytes() >= before > 10 << 20
    assert len(block)
    assert runtime.cpu_seconds() > 0


def test_the_machine_is_json_and_names_nobody():
    found = runtime.machine()
    assert {"platform", "cpu", "cores", "memory_bytes", "device", "torch", "timm", "allocator"} <= set(found)
    text = json.dumps(found)
    assert found["torch"] == torch.__version__.split("+")[0]
    for secret in (platform.node(), os.environ.get("USER", ""), os.path.expanduser("~")):
        assert len(secret) < 5 or secret not in text


def test_one_thread_is_given_back():
    before = torch.get_num_threads()
    with runtime.one_thread():
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == before


def test_switches(monkeypatch):
    monkeypatch.delenv("OUTDO_WITHOUT", raising=False)
    assert all(map(runtime.uses, runtime.OPTIMISATIONS))
    monkeypatch.setenv("OUTDO_WITHOUT", " folding, bfloat16,")
    assert [name for name in runtime.OPTIMISATIONS if not runtime.uses(name)] == ["folding", "bfloat16"]
    assert runtime.machine()["without"] == ["bfloat16", "folding"]
    monkeypatch.setenv("OUTDO_WITHOUT", "folded")
    with pytest.raises(RecipeError, match="Did you mean 'folding'"):
        runtime.prepare()


def test_the_allocator_has_a_switch(monkeypatch):
    monkeypatch.setattr(runtime, "_allocator", "system")
    monkeypatch.setattr(runtime.ctypes, "CDLL", lambda *_: pytest.fail("touched the C library"))
    monkeypatch.setenv("OUTDO_WITHOUT", "allocator")
    assert runtime.prepare() == "system"


def test_every_switch_is_documented():
    page = (Path(__file__).parents[1] / "docs" / "recipe.md").read_text(encoding="utf-8")
    assert [name for name in runtime.OPTIMISATIONS if f"| `{name}` | {runtime.OPTIMISATIONS[name]}" not in page] == []
