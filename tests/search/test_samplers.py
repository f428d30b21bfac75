"""What is particular to the ant colony and the genetic sampler, beyond Optuna's own suite (tests/conformance)."""

import subprocess
import sys

import numpy as np
import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState, create_trial

from outdo import plugins
from outdo.errors import RecipeError
from outdo.search.samplers._shared import decode, encode, read, screen
from outdo.search.samplers.ant_colony import AntColonySampler
from outdo.search.samplers.genetic import GeneticSampler, polynomial, sbx

optuna.logging.set_verbosity(optuna.logging.ERROR)

SPACE = {
    "rate": FloatDistribution(1e-5, 1e-1, log=True),
    "depth": IntDistribution(1, 9, step=2),
    "drop": FloatDistribution(0.0, 0.5, step=0.1),
    "width": IntDistribution(8, 512, log=True),
    "head": CategoricalDistribution(["linear", "mlp", "cosine"]),
}


@pytest.fixture(params=[AntColonySampler, GeneticSampler])
def sampler(request):
    return request.param


def run(sampler, objective, n_trials=40, direction="minimize", **settings):
    study = optuna.create_study(sampler=sampler, direction=direction)
    study.optimize(objective, n_trials=n_trials, **settings)
    return study


def params(study):
    return [trial.params for trial in study.trials]


def bowl(trial):
    """Lowest, 0, at rate 1e-3, depth 7, head mlp."""
    rate = trial.suggest_float("rate", 1e-5, 1e-1, log=True)
    depth = trial.suggest_int("depth", 1, 9, step=2)
    head = trial.suggest_categorical("head", ["linear", "mlp", "cosine"])
    return (np.log10(rate) + 3) ** 2 + ((depth - 7) / 4) ** 2 + (head != "mlp")


def branches(trial):
    """A parameter exists in one branch only, and the best branch has two levels."""
    if trial.suggest_categorical("optimiser", ["sgd", "adam", "none"]) == "none":
        return 1.0
    if trial.params["optimiser"] == "sgd":
        momentum = trial.suggest_float("momentum", 0, 1)
        return 0.5 + (momentum - 0.9) ** 2
    if trial.suggest_categorical("amsgrad", [True, False]):
        return 0.4
    return (trial.suggest_float("beta", 0, 1) - 0.3) ** 2


# ── reproducible, and remembering nothing ────────────────────────────────────────────────────────────────────────────


def test_a_study_goes_on_where_it_stopped(sampler):
    whole = run(sampler(seed=1), bowl, 30)
    parts = run(sampler(seed=1), bowl, 17)
    parts.sampler = sampler(seed=1)
    parts.optimize(bowl, n_trials=13)
    assert params(whole) == params(parts)


def test_without_a_seed_studies_differ(sampler):
    assert params(run(sampler(), bowl, 5)) != params(run(sampler(), bowl, 5))


def test_only_the_order_of_values_counts(sampler):
    first = run(sampler(seed=2), bowl, 30)
    assert params(run(sampler(seed=2), lambda trial: 1e6 * bowl(trial) ** 3 - 5, 30)) == params(first)
    assert params(run(sampler(seed=2), lambda trial: -bowl(trial), 30, "maximize")) == params(first)


def test_infinite_values_are_only_very_bad(sampler):
    study = run(sampler(seed=0), lambda trial: np.inf if bowl(trial) > 1 else bowl(trial), 40)
    assert study.best_value < 0.1


# ── the start ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_start_is_a_latin_hypercube(sampler):
    def objective(trial):
        trial.suggest_categorical("head", ["a", "b"])
        trial.suggest_int("depth", 1, 10)
        return trial.suggest_float("x", 0, 1) + trial.suggest_float("rate", 1e-10, 1, log=True)

    study = run(sampler(seed=0), objective, 20)  # the first 10 and, were they all to fail, the second 10
    failed = run(sampler(seed=0), lambda trial: objective(trial) * np.nan, 20)
    for trials in (study.trials[:10], failed.trials[10:]):
        assert sorted(int(10 * t.params["x"]) for t in trials) == list(range(10))
        assert sorted(int(-np.log10(t.params["rate"])) for t in trials) == list(range(10))
        assert sorted(t.params["depth"] for t in trials) == list(range(1, 11))
        assert sorted(t.params["head"] for t in trials) == ["a"] * 5 + ["b"] * 5
    assert [t.params["x"] for t in failed.trials[:10]] != [t.params["x"] for t in failed.trials[10:]]


def test_the_start_is_as_long_as_asked(sampler):
    many, few = (run(sampler(seed=0, n_startup_trials=n), bowl, 15) for n in (15, 5))
    ranks = [sorted(int(15 * (np.log10(t.params["rate"]) + 5) / 4) for t in s.trials) for s in (many, few)]
    assert ranks[0] == list(range(15))
    assert ranks[1] != list(range(15))


# ── it finds what it looks for ───────────────────────────────────────────────────────────────────────────────────────


def test_it_finds_more_than_random_search(sampler):
    def best(make, seed):
        return run(make(seed=seed), bowl, 50).best_value

    ours = [best(sampler, seed) for seed in range(5)]
    random = [best(optuna.samplers.RandomSampler, seed) for seed in range(5)]
    assert max(ours) < np.median(random)


def test_the_predicting_past_helps(sampler):
    alone = {"n_ants" if sampler is AntColonySampler else "n_children": 1}
    with_past = [run(sampler(seed=s), bowl, 40).best_value for s in range(7)]
    without = [run(sampler(seed=s, **alone), bowl, 40).best_value for s in range(7)]
    assert np.median(with_past) < np.median(without)


def test_whole_steps_are_reached_and_kept(sampler):
    study = run(sampler(seed=0), lambda t: (t.suggest_int("x", 0, 400, step=4) - 292) ** 2, 50)
    assert all(t.params["x"] % 4 == 0 for t in study.trials)
    assert abs(study.best_params["x"] - 292) <= 4


def test_a_small_space_of_choices_is_not_tried_twice(sampler):
    def objective(trial):
        return trial.suggest_categorical("a", list(range(5))) - trial.suggest_categorical("b", list(range(6)))

    study = run(sampler(seed=0), objective, 24)
    bred = [tuple(p.values()) for p in params(study)]
    assert len(set(bred[10:]) - set(bred[:10])) == 14  # after the start, nothing is repeated
    study.optimize(objective, n_trials=12)  # and when all is tried, it goes on
    assert study.best_value == -5


def test_parameters_of_branches(sampler):
    study = run(sampler(seed=0), branches, 60)
    assert study.best_value < 0.02
    assert {len(p) for p in params(study)} == {1, 2, 3}


def test_a_parameter_seen_once_is_not_copied_for_ever(sampler):
    study = optuna.create_study(sampler=sampler(seed=0, n_startup_trials=5))
    study.enqueue_trial({"kind": "rare", "x": 0.5})
    study.enqueue_trial({"kind": "common"}), study.enqueue_trial({"kind": "common"})

    def objective(trial):
        rare = trial.suggest_categorical("kind", ["common", "rare"]) == "rare"
        return trial.suggest_float("x", 0, 1) if rare else 1.0

    study.optimize(objective, n_trials=30)
    assert len({t.params["x"] for t in study.trials if "x" in t.params}) > 10
    assert study.best_value < 0.05


def test_a_range_that_moves(sampler):
    study = optuna.create_study(sampler=sampler(seed=0))
    for low in (0, 5, 100):
        study.optimize(lambda t, low=low: t.suggest_float("x", low, low + 10) - low, n_trials=15)
        assert all(low <= t.params["x"] <= low + 10 for t in study.trials[-15:])
    assert study.trials[-1].params["x"] < 103


# ── constraints, and trials that end otherwise ───────────────────────────────────────────────────────────────────────


def constrained(trial):
    """The lower the better, but only above 3."""
    x, y = trial.suggest_float("x", 0, 10), trial.suggest_float("y", 0, 10)
    trial.set_user_attr("violation", 3 - x)
    return x + y


def test_constraints_keep_the_search_feasible(sampler):
    bound = sampler(seed=0, constraints_func=lambda trial: (trial.user_attrs["violation"],))
    study = run(bound, constrained, 60)
    feasible = [t.value for t in study.trials if t.params["x"] >= 3]
    assert min(feasible) < 4
    assert len([t for t in study.trials[30:] if t.params["x"] >= 3]) > 12
    assert np.median([t.params["x"] for t in run(sampler(seed=0), constrained, 60).trials[30:]]) < 1


def test_constraints_set_by_the_trial_are_the_same(sampler):
    def told(trial):
        value = constrained(trial)
        trial.set_constraint("bound", trial.user_attrs["violation"])
        return value

    bound = sampler(seed=0, constraints_func=lambda trial: (trial.user_attrs["violation"],))
    assert params(run(sampler(seed=0), told, 30)) == params(run(bound, constrained, 30))


def test_failed_trials_are_forgotten_and_pruned_ones_rank_last(sampler):
    def objective(trial):
        x = trial.suggest_float("x", 0, 10)
        if trial.number % 5 == 1:
            raise RuntimeError("out of memory")
        if trial.number % 5 == 2:
            return float("nan")
        trial.report(x, 0)
        if x > 5:
            raise optuna.TrialPruned
        return x

    study = run(sampler(seed=0), objective, 60, catch=RuntimeError)
    assert study.best_value < 0.2
    past = read(study, {"x": FloatDistribution(0, 10)})
    states = [t.state for t in study.trials]
    done = states.count(TrialState.COMPLETE)
    assert states.count(TrialState.FAIL) == 24
    assert len(past.points) == 36
    assert (past.points[:done, 0] <= 0.5).all()
    assert (past.points[done:, 0] > 0.5).all()


def test_running_trials_do_no_harm(sampler):
    study = optuna.create_study(sampler=sampler(seed=0))
    for _ in range(30):
        running = study.ask()  # never told
        running.suggest_float("x", 0, 1)
        study.tell(trial := study.ask(), trial.suggest_float("x", 0, 1))
    assert study.best_value < 0.05


def test_the_order_of_trials():
    """Feasible before pruned before infeasible; ties share a score."""
    space = {"x": FloatDistribution(0, 1)}
    study = optuna.create_study()

    def add(x, state=TrialState.COMPLETE, value=None, violation=None, reports=None):
        attrs = {} if violation is None else {"constraints": [violation]}
        study.add_trial(create_trial(state=state, params={"x": x}, distributions=space, value=value,
                                     system_attrs=attrs, intermediate_values=reports or {}))

    add(0.9, value=-9, violation=0.2)
    add(0.8, value=-9, violation=0.1)
    add(0.7, TrialState.PRUNED)
    add(0.6, TrialState.PRUNED, reports={0: -9.0})
    add(0.5, TrialState.PRUNED, reports={0: 0.0, 3: float("nan")})
    add(0.4, TrialState.PRUNED, reports={0: 0.0, 3: 5.0})
    add(0.3, value=2)
    add(0.2, value=1, violation=-1)
    add(0.1, value=1)
    add(0.0, TrialState.FAIL)
    past = read(study, space)
    assert past.points[:, 0].tolist() == [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]
    assert past.scores[0] == past.scores[1] < past.scores[2]
    assert (np.diff(past.scores[1:]) > 0).all()


def test_two_objectives_are_refused(sampler):
    study = optuna.create_study(directions=["minimize", "minimize"], sampler=sampler())
    with pytest.raises(ValueError, match=f"{sampler.__name__} cannot be used"):
        study.ask().suggest_float("x", 0, 1)


@pytest.mark.parametrize(("sampler", "wrong"), [
    (AntColonySampler, "archive_size"), (AntColonySampler, "n_ants"),
    (GeneticSampler, "population_size"), (GeneticSampler, "n_children"), (GeneticSampler, "tournament_size"),
])
def test_settings_that_cannot_work(sampler, wrong):
    with pytest.raises(RecipeError, match=f"{wrong} cannot be 0"):
        sampler(**{wrong: 0})


# ── workers ──────────────────────────────────────────────────────────────────────────────────────────────────────────

WORKER = """
import sys, optuna
sys.path.insert(0, sys.argv[3])
from outdo import plugins
from test_samplers import branches, storage
sampler = plugins.load("samplers", sys.argv[2])(seed=7)
study = optuna.load_study(study_name="s", storage=storage(sys.argv[1]), sampler=sampler)
study.optimize(branches, n_trials=15)
"""


def storage(where):
    if where.endswith(".db"):
        return f"sqlite:///{where}"
    return optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(where))


@pytest.mark.parametrize(("name", "file"), [("ant_colony", "study.log"), ("genetic", "study.db")])
def test_two_processes_with_one_seed_share_a_study(name, file, tmp_path):
    where = str(tmp_path / file)
    optuna.create_study(study_name="s", storage=storage(where))
    here = __file__.rpartition("/")[0]
    workers = [subprocess.Popen([sys.executable, "-c", WORKER, where, name, here]) for _ in range(2)]
    assert [worker.wait(timeout=400) for worker in workers] == [0, 0]
    trials = optuna.load_study(study_name="s", storage=storage(where)).trials
    assert sorted(t.number for t in trials) == list(range(30))
    assert all(t.state == TrialState.COMPLETE for t in trials)
    numbers = [v for t in trials for v in t.params.values() if isinstance(v, float)]
    assert len(set(numbers)) == len(numbers)  # no worker proposed what another had
    starts = [t.params["optimiser"] for t in trials[:10]]
    assert {starts.count(o) for o in ("sgd", "adam", "none")} == {3, 4}  # one hypercube for both


def test_threads_share_a_study(sampler):
    study = run(sampler(seed=0), bowl, 40, n_jobs=4)
    assert [t.state for t in study.trials] == [TrialState.COMPLETE] * 40
    assert len({tuple(t.params.items()) for t in study.trials}) == 40  # one value alone may be inherited as it is


def test_hyperband(sampler):
    def objective(trial):
        x = trial.suggest_float("x", 0, 1)
        for step in range(9):
            trial.report(x + 1 / (step + 1), step)
            if trial.should_prune():
                raise optuna.TrialPruned
        return x

    study = optuna.create_study(sampler=sampler(seed=0), pruner=optuna.pruners.HyperbandPruner(1, 9, 3))
    study.optimize(objective, n_trials=60)
    assert study.best_value < 0.1


# ── the parts ────────────────────────────────────────────────────────────────────────────────────────────────────────

numbers = st.one_of(
    st.tuples(st.integers(-50, 50), st.integers(1, 60), st.integers(1, 7)).map(
        lambda t: IntDistribution(t[0], t[0] + t[1] // t[2] * t[2], step=t[2])),
    st.tuples(st.integers(1, 50), st.integers(1, 5000)).map(lambda t: IntDistribution(t[0], t[0] + t[1], log=True)),
    st.tuples(st.floats(-1e3, 1e3), st.floats(1e-3, 1e3)).map(lambda t: FloatDistribution(t[0], t[0] + t[1])),
    st.tuples(st.floats(1e-8, 1), st.floats(1.1, 1e6)).map(lambda t: FloatDistribution(t[0], t[0] * t[1], log=True)),
    st.tuples(st.integers(-9, 9), st.integers(1, 20)).map(
        lambda t: FloatDistribution(t[0], t[0] + t[1] / 4, step=0.25)),
)


@given(numbers, st.floats(0, 1))
def test_positions_stand_for_values_of_the_range(distribution, position):
    value = decode(distribution, np.array([position]))
    assert distribution._contains(float(value[0]))
    again = decode(distribution, encode(distribution, value))
    assert distribution.to_external_repr(float(again[0])) == pytest.approx(
        distribution.to_external_repr(float(value[0])), rel=1e-9, abs=1e-9)


def test_the_ends_of_a_range_are_as_likely_as_its_middle():
    shares = (np.arange(9000) + 0.5) / 9000
    for d in (IntDistribution(1, 9), IntDistribution(0, 16, step=2), FloatDistribution(0, 2, step=0.25)):
        assert np.unique(decode(d, shares), return_counts=True)[1].tolist() == [1000] * 9


def test_what_left_the_range_is_unknown():
    assert np.isnan(encode(IntDistribution(1, 9, log=True), np.array([0.0, 10.0, -1.0, np.nan]))).all()
    assert encode(FloatDistribution(0, 4), np.array([1.0, 5.0])).tolist()[0] == 0.25


@settings(max_examples=30)
@given(st.dictionaries(st.sampled_from("abcdef"), numbers | st.just(SPACE["head"]), min_size=1), st.integers(0, 99))
@pytest.mark.parametrize("sampler", [AntColonySampler, GeneticSampler])
def test_whatever_is_bred_lies_in_the_space(sampler, space, seed):
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    for i in range(6):
        asked = {name: d for j, (name, d) in enumerate(space.items()) if i < 2 or (i + j) % 3}
        study.tell(trial := study.ask(asked), float(trial.number))
    past = read(study, space)
    points = past.snap(sampler(seed=seed).breed(past, 20, np.random.default_rng(seed)))
    assert points.shape == (20, len(space))
    assert not np.isnan(points).any()
    for point in points:
        for name, value in past.values(point).items():
            assert space[name]._contains(space[name].to_internal_repr(value))


def past_of(objective, n_trials=40):
    study = run(optuna.samplers.RandomSampler(seed=0), objective, n_trials)
    names = sorted({name for trial in study.trials for name in trial.params})
    space = {name: next(t.distributions[name] for t in study.trials if name in t.distributions) for name in names}
    return read(study, space)


def test_the_screen_predicts():
    past = past_of(bowl)
    fresh = past_of(lambda trial: bowl(trial) + 0 * trial.number, 60)
    order = np.random.default_rng(0).permutation(60)[:30]
    predicted = screen(past, fresh.points[order])
    assert np.corrcoef(predicted, fresh.scores[order])[0, 1] > 0.7
    assert np.corrcoef(screen(past, past.points), past.scores)[0, 1] > 0.99


def test_the_screen_knows_branches():
    """What a candidate says of another branch must not change how it is judged."""
    past = past_of(branches, 60)
    column = list(past.space).index("momentum")
    adam = past.points[past.points[:, list(past.space).index("optimiser")] == 1][:5]
    low, high = np.nan_to_num(adam, nan=0.5), np.nan_to_num(adam, nan=0.5)
    low[:, column], high[:, column] = 0, 1
    np.testing.assert_allclose(screen(past, low), screen(past, high))


def test_tried_is_what_a_trial_would_repeat():
    past = past_of(branches, 60)
    names = list(past.space)
    point = np.zeros(len(names))
    point[names.index("optimiser")] = 2  # "none" has no other parameters: whatever they are, it is the same trial
    again = np.nan_to_num(past.points[0])
    other = np.where(np.isnan(past.points[0]), 0, again + 0.01 * (past.choices == 0))
    assert past.tried(np.array([point, again, other])).tolist() == [True, True, False]


def test_crossover_and_mutation_are_those_of_the_papers():
    chance = (np.arange(100_000) + 0.5) / 100_000
    spread, step = sbx(chance, 2), polynomial(chance, 5)
    density = np.histogram(spread, [0.2, 0.3, 0.6, 0.7, 1.9, 2.0])[0] / len(chance) / [0.1, 0.3, 0.1, 1.2, 0.1]
    assert density[0] == pytest.approx(1.5 * 0.25**2, rel=0.02)  # (eta + 1) / 2 x spread^eta for closer children
    assert density[2] == pytest.approx(1.5 * 0.65**2, rel=0.02)
    assert density[4] == pytest.approx(1.5 / 1.95**4, rel=0.02)  # (eta + 1) / 2 / spread^(eta + 2) for wider ones
    assert np.abs(step).max() < 1
    assert np.mean(np.abs(step)) == pytest.approx(1 / 7, rel=0.01)  # 1 / (eta + 2)
    np.testing.assert_allclose(step, -step[::-1], atol=1e-9)


def test_pheromone_for_choices():
    odds = AntColonySampler(locality=0.1)._odds(np.array([2, 2, 0]), np.array([1.0, 0.5, 0.25]), 4)
    assert odds.tolist() == [0.25, 0.05, 0.5, 0.05]  # the best use, shared by the uses; the unused share the locality


def test_without_optuna_the_user_is_told_what_to_install():
    code = "import sys; sys.modules['optuna'] = None; from outdo import plugins; plugins.load('samplers', 'tpe')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "MissingExtra" in done.stderr
    assert "pip install 'outdo[search]'" in done.stderr


def test_every_sampler_takes_a_seed():
    for sampler in plugins.load_all("samplers").values():
        assert isinstance(sampler(seed=3), optuna.samplers.BaseSampler)
