"""Every sampler passes Optuna's own suite, unmodified. A new file in search/samplers is found by itself.

Which parts of the suite apply is asked of the sampler: whether it draws parameters jointly, and whether it takes
several objectives or refuses them.
"""

import functools
import inspect

import optuna
import pytest
from optuna.testing.pytest_samplers import (
    BasicSamplerTestCase,
    MultiObjectiveSamplerTestCase,
    RelativeSamplerTestCase,
    SingleOnlySamplerTestCase,
)

from outdo import plugins

NAMES = plugins.names("samplers")


def eager(name):
    """The sampler without a random start, as Optuna's suite builds its own: else the start is all that is tested."""
    sampler = plugins.load("samplers", name)
    starts = "n_startup_trials" in inspect.signature(sampler).parameters
    return functools.partial(sampler, n_startup_trials=0) if starts else sampler


def draws_jointly(name):
    study = optuna.create_study(sampler=eager(name)())
    study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=2)
    return bool(study.sampler.infer_relative_search_space(study, study.trials[0]))


def refuses_two_objectives(name):
    study = optuna.create_study(directions=["minimize", "minimize"], sampler=eager(name)())
    try:
        study.ask().suggest_float("x", 0, 1)
    except ValueError:
        return True
    return False


def takes_groups_from_before(name):
    """Optuna's TPE by groups finds them in `infer_relative_search_space`, which the joint part of the suite never
    calls: Optuna holds that TPE to the other parts only."""
    return getattr(eager(name)(), "_group", False)


JOINT = [name for name in NAMES if draws_jointly(name) and not takes_groups_from_before(name)]
SINGLE = [name for name in NAMES if refuses_two_objectives(name)]


class TestBasic(BasicSamplerTestCase):
    @pytest.fixture(params=NAMES)
    def sampler(self, request):
        return plugins.load("samplers", request.param)


class TestBasicFromTheFirstTrial(BasicSamplerTestCase):
    @pytest.fixture(params=NAMES)
    def sampler(self, request):
        return eager(request.param)


class TestRelative(RelativeSamplerTestCase):
    @pytest.fixture(params=JOINT)
    def sampler(self, request):
        return eager(request.param)


class TestMultiObjective(MultiObjectiveSamplerTestCase):
    @pytest.fixture(params=[name for name in NAMES if name not in SINGLE])
    def sampler(self, request):
        return plugins.load("samplers", request.param)


class TestSingleObjective(SingleOnlySamplerTestCase):
    @pytest.fixture(params=SINGLE)
    def sampler(self, request):
        return plugins.load("samplers", request.param)


def test_the_suite_looked_at_them():
    assert {"ant_colony", "genetic", "random", "tpe"} <= set(NAMES)
    assert {"ant_colony", "genetic"} <= set(JOINT)
    assert {"ant_colony", "genetic"} <= set(SINGLE)


@pytest.mark.parametrize("name", NAMES)
def test_it_says_what_it_is(name):
    summary = plugins.load("samplers", name).summary
    assert summary
    assert "\n" not in summary


@pytest.mark.parametrize("name", NAMES)
def test_the_same_seed_gives_the_same_trials(name):
    def objective(trial):
        kind = trial.suggest_categorical("kind", ["sgd", "adam", "none"])
        rate = 1.0 if kind == "none" else trial.suggest_float(f"{kind} rate", 1e-4, 1, log=True)
        return rate * trial.suggest_int("layers", 1, 9, step=2)

    def params(seed):
        study = optuna.create_study(sampler=plugins.load("samplers", name)(seed=seed))
        study.optimize(objective, n_trials=25)
        return [trial.params for trial in study.trials]

    assert params(3) == params(3)
    assert params(3) != params(4)
