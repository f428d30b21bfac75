"""bench/statistics.py in small: enough repetitions to notice a broken method, not to measure a good one."""

import subprocess
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).parents[2] / "bench"


@pytest.fixture(scope="module")
def simulation():
    sys.path.append(str(BENCH))  # at the end: bench/statistics.py has the name of a standard module
    import simulation

    yield simulation
    sys.path.remove(str(BENCH))


def test_equal_models_are_seldom_told_apart(simulation):
    tallies, any_verdict = simulation.judge(simulation.World(), 100, 150, seed=1)
    assert any_verdict <= 0.09  # 0.05 and three standard errors would be 0.10
    for axis, tally in tallies.items():
        assert tally.better <= 0.07, axis
        assert tally.covered >= 0.89, axis


def test_a_better_model_is_found_as_often_as_theory_says(simulation):
    for what, simulated, theory in simulation.powers(153, 150, seed=1):
        assert simulated == pytest.approx(theory, abs=0.12), what
        assert theory > 0.3, what


@pytest.mark.parametrize("ratio", [1.0, 1.1])
def test_times(simulation, ratio):
    tally = simulation.clocks(20, 200, 1, ratio)
    assert tally.covered >= 0.9
    assert tally.better <= 0.06
    assert tally.worse <= 0.06 if ratio == 1.0 else tally.worse >= 0.8


def test_the_standard_library_keeps_its_statistics():
    code = "import statistics; print(statistics.median([1, 5, 2]))"
    done = subprocess.run([sys.executable, "-c", code], cwd=BENCH, capture_output=True, text=True, check=True,
                          env={"PYTHONPATH": str(BENCH)})
    assert done.stdout == "2\n"
