"""The engine on a tiny backbone: trials, pruning, failures, kills, workers, confirmation, two aims."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from optuna.trial import TrialState
from scenes import study as make

from outdo.errors import RunError
from outdo.recipe import Recipe
from outdo.search import confirm, find, memory, summary, workers
from outdo.search import study as engine
from outdo.search.space import read, suited
from outdo.search.wish import wish
from outdo.search.workbench import Workbench

FIXED = {"optimiser": "sgd,adamw", "learning_rate": 0.01, "schedule": "cosine", "weight_decay": 0.01, "batch_size": 16,
         "depth": 0, "augmentation": 0, "mixup": 0, "label_smoothing": 0, "averaging": "none"}
FOREVER = engine.Clock(lambda: 1e9, 1e9)


def bench_and_aim(trials=6, sampler="random", said=None, seed=0, **choices):
    study = make(n=72, **choices)
    space = suited(read({"epochs": 3, **(said or {})}), "image", study.backbone.depth, imbalanced=False)
    study.recipe = space.recipe
    bench = Workbench(study, space, seed)
    bench.ready(Recipe(augmentation=1.0))
    return bench, engine.Aim(sampler, space, seed, trials)


def searched(path, bench, aim, clock=FOREVER):
    ledger = engine.open_study(path, aim)
    engine.abandon(ledger, engine.INTERRUPTED)
    engine.work(ledger, path, bench, aim, clock)
    return ledger


def timed(**choices):
    study = make(n=72, **choices)
    study.left = lambda: 1e6
    return study


def once():
    known = {}

    def make_once(name, make):
        if name not in known:
            known[name] = json.loads(json.dumps(make()))
        return known[name]

    return make_once


# ── trials ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_trial_is_the_same_wherever_it_runs(tmp_path):
    """On a used bench and on a new one: the copy of the backbone is put back, and nothing draws from globals."""
    bench, _ = bench_and_aim()
    recipes = [bench.study.recipe.but(depth=2, learning_rate=0.1), bench.study.recipe.but(depth=1, mixup=0.3),
               bench.study.recipe.but(depth=0, averaging="none")]
    first = [bench.run(r, bench.first, 7).loss for r in recipes]
    again = [bench.run(r, bench.first, 7).loss for r in recipes]
    new, _ = bench_and_aim()
    assert first == again == [new.run(r, new.first, 7).loss for r in recipes]
    assert len(set(first)) == 3


def test_a_trial_is_what_a_fine_tune_from_activations_is():
    """Its model, run from the pixels, gives the outputs that it was scored by."""
    bench, _ = bench_and_aim()
    for depth in (0, 2):
        trained = bench.model(bench.study.recipe.but(depth=depth, learning_rate=3e-3), 1, "one")
        outputs = trained.model.outputs(bench.study.encoded, bench.study.validation, bench.study.features)
        assert np.allclose(outputs, trained.outputs, atol=1e-3)
    assert all(torch.equal(a, b) for a, b in zip(bench._pristine, bench.study.backbone.torch_module.parameters(),
                                                 strict=True))


@pytest.mark.parametrize("sampler", ["random", "tpe", "genetic", "ant_colony"])
def test_every_sampler_searches(tmp_path, sampler):
    bench, aim = bench_and_aim(14, sampler)
    ledger = searched(tmp_path / "s" / "study.log", bench, aim)
    trials = ledger.get_trials()
    assert len(trials) == 14
    assert {t.state.name for t in trials} == {"COMPLETE", "PRUNED"}
    assert len({engine.about(t)["seed"] for t in trials}) == 14
    stopped = [engine.about(t)["epochs"] for t in trials if t.state.name == "PRUNED"]
    assert stopped
    assert max(stopped) < 3
    found = summary.importance(trials)
    assert set(found) <= {d.name for d in aim.space.dimensions}
    assert sum(found.values()) == pytest.approx(1)


def test_two_epochs_of_augmentation_see_other_views():
    bench, _ = bench_and_aim()
    views = [bench._views(strength) for strength in (0.0, 0.5, 1.0)]
    assert views == [[0], [0, 1, 2], [0, 1, 2, 3]]
    rows = bench._at(bench.sizes[0], 2, bench.first.train)[bench.study.backbone.depth].arrays["x"][np.arange(4)]
    plain = bench._at(bench.sizes[0], 0, bench.first.train)[bench.study.backbone.depth].arrays["x"][np.arange(4)]
    assert not np.allclose(rows, plain)


# ── what goes wrong ──────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("error", "words"), [
    (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 99 bytes"), "out of memory"),
    (MemoryError(), "out of memory"),
    (FloatingPointError("the loss is not a number"), "not a number"),
    (ZeroDivisionError("one\ntwo"), "one"),
])
def test_a_failing_trial_is_written_down_and_the_next_one_runs(tmp_path, monkeypatch, error, words):
    bench, aim = bench_and_aim(4)
    run, calls = bench.run, []

    def failing(*args, **kwargs):
        calls.append(1)
        if len(calls) == 2:
            raise error
        return run(*args, **kwargs)

    monkeypatch.setattr(bench, "run", failing)
    trials = searched(tmp_path / "study.log", bench, aim).get_trials()
    assert [t.state.name == "FAIL" for t in trials] == [False, True, False, False]
    assert words in engine.about(trials[1])["failure"]
    assert summary.row(trials[1])["state"] == "failed"


def test_a_loss_that_is_no_number_fails_the_trial(tmp_path):
    bench, aim = bench_and_aim(1, said={"learning_rate": 1.0, "optimiser": "sgd"})
    trainer = bench.trainer

    def poisoned(*args, **kwargs):
        made = trainer(*args, **kwargs)
        with torch.no_grad():
            made.parameters[-1].fill_(float("nan"))
        return made

    bench.trainer = poisoned
    (trial,) = searched(tmp_path / "study.log", bench, aim).get_trials()
    assert trial.state.name == "FAIL"
    assert "not a number" in engine.about(trial)["failure"]


def test_a_slow_trial_is_stopped_and_the_end_of_the_time_costs_one(tmp_path):
    bench, aim = bench_and_aim(2)
    trials = searched(tmp_path / "a.log", bench, aim, engine.Clock(lambda: 1e9, 0.0)).get_trials()
    assert ["longer than" in engine.about(t)["failure"] for t in trials] == [True, True]
    left = iter([1.0, 1.0, 0.0, 0.0])
    ledger = searched(tmp_path / "b.log", bench, aim, engine.Clock(lambda: next(left), 1e9))
    assert engine.about(ledger.get_trials()[0])["failure"] == engine.INTERRUPTED
    assert engine.counted(ledger) == []


@pytest.mark.skipif(sys.platform != "linux", reason="the limit is Linux's")
def test_a_trial_that_wants_too_much_memory_fails_and_the_next_one_runs(tmp_path, monkeypatch):
    bench, aim = bench_and_aim(3)
    run, calls = bench.run, []

    def greedy(*args, **kwargs):
        calls.append(1)
        if len(calls) == 2:
            torch.ones(1 << 28)
        return run(*args, **kwargs)

    monkeypatch.setattr(bench, "run", greedy)
    trials = searched(tmp_path / "study.log", bench, aim, engine.Clock(lambda: 1e9, 1e9, 1 << 29)).get_trials()
    assert [engine.about(t).get("failure") for t in trials] == [None, "out of memory", None]
    assert torch.ones(1 << 28).sum() > 0  # and the limit ends with the search


def test_memory_is_shared_among_workers():
    found = memory.available()
    assert found is None or 0 < found < 1 << 50
    clocks = [find.timed(timed(), once(), workers) for workers in (1, 2)]
    assert found is None or clocks[1].memory == pytest.approx(clocks[0].memory / 2, rel=0.2)


def test_ctrl_c_goes_through(tmp_path, monkeypatch):
    bench, aim = bench_and_aim(3)
    monkeypatch.setattr(bench, "run", lambda *a, **k: (_ for _ in ()).throw(KeyboardInterrupt))
    ledger = engine.open_study(tmp_path / "study.log", aim)
    with pytest.raises(KeyboardInterrupt):
        engine.work(ledger, tmp_path / "study.log", bench, aim, FOREVER)
    assert engine.counted(ledger) == []


def test_every_trial_failing_is_one_message(tmp_path, monkeypatch):
    monkeypatch.setattr(Workbench, "run", lambda *a, **k: (_ for _ in ()).throw(RuntimeError("nothing works")))
    with pytest.raises(RunError, match=r"all 3 trials failed.*nothing works"):
        find.find(timed(), wish("random", {}, 3), tmp_path, once())


def test_no_time_for_a_single_trial_is_one_message(tmp_path):
    study = make(n=72)
    study.left = lambda: 0.0
    with pytest.raises(RunError, match="too short for one trial"):
        find.find(study, wish("random", {}, 3), tmp_path, once())


def test_features_that_there_is_no_time_for_are_not_begun(tmp_path):
    study = make(n=400)
    space = suited(read({"epochs": 1}), "image", study.backbone.depth, imbalanced=False)
    bench = Workbench(study, space, 0)
    passes, run = [], study.backbone.run
    study.backbone.run = lambda state, *cuts: passes.append(len(state["x"])) or run(state, *cuts)
    with pytest.raises(TimeoutError, match=r"its features would take .* more"):
        bench.ready(Recipe(), lambda: 0.0)
    assert sum(passes) < 400
    left = iter([1.0])
    ledger = searched(tmp_path / "s.log", bench, engine.Aim("random", space, 0, 1),
                      engine.Clock(lambda: next(left, 0.0), 1e9))
    assert "its features would take" in engine.about(ledger.get_trials()[0])["failure"]


# ── several backbones, several sizes ─────────────────────────────────────────────────────────────────────────────────


def with_another(**choices):
    """A study on the tiny backbone, with another one beside it whose first block says nothing."""
    study, worse = make(n=72, **choices), make(n=72, **choices)
    with torch.no_grad():
        next(worse.backbone.torch_module.parameters()).mul_(1e-3)
    worse.backbone.origin = replace(worse.backbone.origin, sha256="another")
    return study, worse


def test_a_search_chooses_among_backbones(tmp_path):
    better, worse = with_another(epochs=2)
    worse.left, worse.others = lambda: 1e6, {"good": better}
    found = find.find(worse, wish("random", {"epochs": 2}, 12, start_from="poor,good"), tmp_path, once())
    history = found.account["history"]
    assert history[0]["params"]["start_from"] == "poor"
    assert {row["params"]["start_from"] for row in history} == {"poor", "good"}
    assert found.study is better
    assert found.trained.features is better.features
    outputs = found.trained.model.outputs(better.encoded, better.validation, better.features)
    assert np.allclose(outputs, found.trained.outputs, atol=1e-3)


def test_a_probe_that_says_too_little_is_where_a_trial_ends(tmp_path):
    better, worse = with_another(epochs=2)
    better.others = {"poor": worse}
    space = suited(read({"epochs": 2}, backbones=("good", "poor")), "image", better.backbone.depth, imbalanced=False)
    bench, path = Workbench(better, space, 0), tmp_path / "study.log"
    aim = engine.Aim("random", space, 0, 16)
    engine.open_study(path, aim).enqueue_trial({"start_from": "good"})
    ended = {"good": [], "poor": []}
    for trial in searched(path, bench, aim).get_trials():
        ended[trial.params["start_from"]].append(engine.about(trial)["epochs"])
    assert max(ended["good"]) == 2
    assert set(ended["poor"]) == {0}
    assert all(view == 0 for _, view, *_ in bench.of({"start_from": "poor"})._states)


def test_examples_that_a_search_is_given_may_lack_the_last_class():
    study = make(n=72)
    study.train = study.train[study.codes[study.train] < 2]
    study.validation = study.validation[study.codes[study.validation] < 2]
    space = suited(read({"epochs": 1}), "image", study.backbone.depth, imbalanced=False)
    bench = Workbench(study, space, 0)
    bench.ready(Recipe())
    assert bench.run(Recipe(epochs=1, augmentation=0.0, depth=0), bench.first, 0).loss > 0


def test_sizes_are_paid_for_when_they_are_first_tried(tmp_path):
    study = make(n=72)
    space = suited(read({"epochs": 1, "input_size": "32..96"}), "image", study.backbone.depth, imbalanced=False)
    bench = Workbench(study, space, 0)
    assert bench.sizes == [32, 64, 96]
    bench.ready(Recipe(input_size=64, augmentation=0))
    assert {size for size, *_ in bench._states} == {64}
    trials = searched(tmp_path / "study.log", bench, engine.Aim("random", space, 0, 8)).get_trials()
    assert {size for size, *_ in bench._states} == {64, *(t.params["input_size"] for t in trials)}


# ── the file ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_search_goes_on_where_it_stopped(tmp_path):
    bench, aim = bench_and_aim(9, "genetic")
    whole = searched(tmp_path / "whole.log", bench, aim)
    path = tmp_path / "parts.log"
    searched(path, bench, engine.Aim("genetic", aim.space, 0, 4))
    ledger = engine.open_study(path, aim)
    ledger.ask()  # a trial that a kill left running
    with open(path, "ab") as file:
        file.write(b'{"op_code": 5, "half a li')
    parts = searched(path, bench, aim)
    losses = [[engine.about(t)["loss"] for t in engine.counted(study)] for study in (whole, parts)]
    assert len(losses[0]) == len(losses[1]) == 9
    assert losses[0][:4] == losses[1][:4]
    assert [t.state.name for t in parts.get_trials()].count("RUNNING") == 0


def test_random_draws_are_not_repeated_when_resumed(tmp_path):
    bench, aim = bench_and_aim(6)
    path = tmp_path / "study.log"
    searched(path, bench, engine.Aim("random", aim.space, 0, 3))
    rates = [t.params["learning_rate"] for t in searched(path, bench, aim).get_trials()]
    assert len(set(rates)) == 6


@pytest.mark.parametrize("damage", [b"nonsense\n", b'{"op_code": 99}\n', b"[]\n"])
def test_a_damaged_file_is_said(tmp_path, damage):
    _, aim = bench_and_aim()
    path = tmp_path / "study.log"
    path.write_bytes(damage * 2)
    with pytest.raises(RunError, match="damaged"):
        engine.open_study(path, aim)


def test_a_file_of_another_version_or_space_is_said(tmp_path, monkeypatch):
    bench, aim = bench_and_aim(1)
    path = tmp_path / "study.log"
    searched(path, bench, aim)
    other = engine.Aim("random", suited(read({"depth": 1}), "image", 5, imbalanced=False), 0, 1)
    with pytest.raises(RunError, match="another version or space"):
        engine.open_study(path, other)
    monkeypatch.setattr(engine, "SCHEMA", engine.SCHEMA + 1)
    with pytest.raises(RunError, match="another version or space"):
        engine.open_study(path, aim)


KILLED = """
import sys
sys.path[:0] = [{here!r}, {scenes!r}]
from pathlib import Path
from test_study import bench_and_aim, searched
import test_study
bench, aim = bench_and_aim(1000, "tpe", said={{"depth": 1}})
print("ready", flush=True)
searched(Path({path!r}), bench, aim)
"""


def test_kill_9_costs_the_running_trial_and_nothing_else(tmp_path):
    here = Path(__file__).parent
    path = tmp_path / "study.log"
    code = KILLED.format(here=str(here), scenes=str(here.parent / "training"), path=str(path))
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    child.stdout.readline()
    while not path.exists() or path.read_bytes().count(b'"loss"') < 3:
        time.sleep(0.02)
    child.send_signal(signal.SIGKILL)
    child.wait()
    bench, aim = bench_and_aim(1000, "tpe", said={"depth": 1})
    ledger = engine.open_study(path, aim)
    states = [t.state.name for t in ledger.get_trials()]
    assert states.count("RUNNING") <= 1
    finished = len(states) - states.count("RUNNING")
    assert finished >= 3
    after = searched(path, bench, engine.Aim("tpe", aim.space, 0, finished + 2))
    assert len(engine.counted(after)) == finished + 2


# ── workers ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.skipif(sys.platform != "linux", reason="workers are forked")
def test_workers_share_a_study_and_survive_a_crash(tmp_path, monkeypatch):
    bench, aim = bench_and_aim(8, "random")
    run, mark = bench.run, tmp_path / "crashed"

    def crashing(*args, **kwargs):
        with contextlib.suppress(FileExistsError):  # one worker's, whichever is first
            mark.mkdir()
            os.kill(os.getpid(), signal.SIGKILL)
        return run(*args, **kwargs)

    monkeypatch.setattr(bench, "run", crashing)
    told = []
    with torch.random.fork_rng(devices=[]):
        workers.work(tmp_path / "study.log", bench, aim, FOREVER, 2, told.append)
    trials = engine.open_study(tmp_path / "study.log", aim).get_trials()
    assert len(trials) == 8
    failures = [engine.about(t)["failure"] for t in trials if t.state.name == "FAIL"]
    assert failures == ["its process ended: signal 9, out of memory perhaps"]
    assert len(told) == 8
    assert len({t.params["learning_rate"] for t in trials}) == 8
    assert {engine.about(t)["worker"] for t in trials} >= {2}


# ── confirmation, and the whole ──────────────────────────────────────────────────────────────────────────────────────


def test_the_second_fold_is_none_that_chose(tmp_path):
    bench, _ = bench_and_aim()
    second = bench.second
    assert set(second.validation) <= set(bench.first.train)
    assert set(bench.first.validation) <= set(second.train)
    assert not set(second.train) & set(second.validation)
    assert len(second.validation) == pytest.approx(len(bench.first.validation), abs=3)
    assert set(bench.study.codes[second.validation]) == {0, 1, 2}


@pytest.mark.parametrize("which", ["train", "validation"])
def test_what_is_kept_of_a_fold_is_that_folds(which):
    """As many examples that begin with the same one may still be others."""
    bench, _ = bench_and_aim()
    depth, size = bench.study.backbone.depth, bench.sizes[0]
    indices = getattr(bench.first, which)
    others = np.append(indices[:1], np.setdiff1d(np.arange(len(bench.study.codes)), indices)[: len(indices) - 1])
    kept = []
    for part in (indices[: len(others)], others):
        kept.append(bench._at(size, 0, part)[depth].arrays["x"][np.arange(len(part))])
        expected = bench.features[size].activations([depth], part)[depth].arrays["x"][np.arange(len(part))]
        assert np.array_equal(kept[-1], expected)
    assert not np.array_equal(*kept)


def row(number, first, second):
    return {"trial": number, "first": {"loss": first, "accuracy": 1.0}, "second": {"loss": second, "accuracy": 1.0}}


def confirmed(tmp_path, bench, aim, change=None, clock=FOREVER):
    ledger = searched(tmp_path / "study.log", bench, aim)
    trials = [change(t) if change else t for t in ledger.get_trials()]
    default = find.usual(bench, aim.space)
    return confirm.confirm(SimpleNamespace(get_trials=lambda **_: trials), bench, aim, default, clock)


def with_time(**choices):
    bench, aim = bench_and_aim(**choices)
    bench.study.left = lambda: 1e6
    return bench, aim


def test_the_default_recipe_is_confirmed_even_if_its_trial_was_killed(tmp_path):
    """What is left of it then is half of its values and no seed."""
    def killed(trial):
        if trial.number:
            return trial
        trial.state, trial.params = TrialState.FAIL, dict(list(trial.params.items())[:1])
        trial.user_attrs = {engine.ABOUT: {"failure": engine.INTERRUPTED}}
        return trial

    bench, aim = with_time()
    found = confirmed(tmp_path, bench, aim, killed)
    default = next(row for row in found["rows"] if row["trial"] == 0)
    recipe = aim.space.recipe_of(find.usual(bench, aim.space))
    assert default["first"]["loss"] == bench.run(recipe, bench.first, engine.seed_of(aim, 0)).loss


def test_what_a_limit_had_stopped_is_not_tried_again_without_one(tmp_path):
    def stopped(trial):
        if not trial.number:
            trial.state, trial.user_attrs = TrialState.FAIL, {engine.ABOUT: {"failure": "out of memory"}}
        return trial

    found = confirmed(tmp_path, *with_time(), stopped)
    assert found["rows"]
    assert 0 not in {row["trial"] for row in found["rows"]}


def test_where_nothing_can_be_confirmed_the_default_stays(tmp_path):
    bench, aim = with_time()
    found = confirmed(tmp_path, bench, aim, clock=engine.Clock(lambda: 1e9, -1.0))
    assert (found["rows"], found["chosen"], found["claimed"]) == ([], 0, None)
    study = timed(epochs=1)
    study.left = lambda: 1e6

    def decided(name, make):
        return {"n": [1, 1], "rows": [], **confirm.judged([])} if name == "confirmed" else make()

    found = find.find(study, wish("random", {"epochs": 1}, 2), tmp_path, decided)
    assert found.trained is None
    assert "which stays" in found.words


def test_finalists_are_different_recipes(tmp_path):
    found = confirmed(tmp_path, *with_time(said=FIXED, trials=30))
    assert len(found["rows"]) <= 2


def test_a_space_of_two_points_is_soon_exhausted(tmp_path):
    bench, aim = bench_and_aim(said=FIXED, trials=None)
    assert aim.space.points() == 2
    params = [tuple(t.params.items()) for t in searched(tmp_path / "study.log", bench, aim).get_trials()]
    assert len(set(params)) == 2
    assert len(params) < 60


def test_the_first_trial_is_the_default_recipe_on_uneven_classes_too():
    study = make(n=72)
    study.train = study.train[(study.codes[study.train] == 0) | (np.arange(len(study.train)) % 5 == 0)]
    space = find.space_of(study, wish("random", {}))
    assert "class_weighting" in {d.name for d in space.dimensions}
    assert find.usual(Workbench(study, space, 0), space)["class_weighting"] == "balanced"


def test_features_are_not_given_up_where_there_is_time(tmp_path, monkeypatch):
    """The seconds of one view are those of that view's images, and not of all that went before."""
    study = make(n=400, noise=41)
    study.left = lambda: 1e6
    bench = Workbench(study, suited(read({"epochs": 1}), "image", study.backbone.depth, imbalanced=False), 0)
    prepare = type(study.backbone).prepare

    def slow(*args, **kwargs):
        time.sleep(0.1)
        return prepare(*args, **kwargs)

    monkeypatch.setattr(type(study.backbone), "prepare", slow)
    start = time.monotonic()
    bench.ready(Recipe(augmentation=1.0), lambda: 12.0 - (time.monotonic() - start))  # some 2.5 s are needed


def test_the_words_are_about_the_trial_that_was_chosen():
    rows = [row(0, 0.5, 0.5), row(7, 0.2, 0.6), row(9, 0.3, 0.3)]
    account = {"states": {"complete": 3}, "trials": 3, "sampler": "tpe", "seconds": 1.0,
               "confirmed": {"rows": rows, **confirm.judged(rows)}}
    assert "trial 9 chosen; gain over the default recipe 0.200 nats on the first fold, 0.200" in summary.words(
        account, stays=False)
    assert "over the first trial" in summary.words(account, stays=False, whole=False)


def test_what_luck_had_added_is_taken_off():
    found = confirm.judged([row(0, 0.5, 0.5), row(7, 0.2, 0.6), row(9, 0.3, 0.3)])
    assert (found["best"], found["chosen"]) == (7, 9)
    assert found["claimed"] == pytest.approx(0.3)
    assert found["confirmed"] == pytest.approx(-0.1)
    assert found["optimism"] == pytest.approx(0.4)
    assert confirm.judged([row(3, 0.2, 0.2)])["claimed"] is None


def test_the_winner_carries_its_own_luck_into_the_comparison():
    rows = [row(0, 0.5, 0.5), row(7, 0.2, 0.6), row(9, 0.3, 0.35)]
    assert confirm.handicap({"rows": rows, "chosen": 9}) == pytest.approx(0.05)
    assert confirm.handicap({"rows": rows, "chosen": 0}) == 0
    assert confirm.handicap({"rows": [row(0, 0.5, 0.5), row(9, 0.4, 0.3)], "chosen": 9}) == 0
    assert confirm.handicap({"rows": [row(9, 0.4, 0.5)], "chosen": 9}) == 0


def test_a_whole_search(tmp_path):
    keep = once()
    study, said = timed(epochs=2), {"epochs": 2, "learning_rate": "1e-3..1e-1"}
    found = find.find(study, wish("ant_colony", said, 12), tmp_path, keep)
    account = found.account
    assert account["trials"] == 12
    assert account["history"][0]["params"]["weight_decay"] == pytest.approx(0.01)
    assert account["confirmed"]["rows"][0]["trial"] == 0
    assert found.trained.outputs.shape == (len(study.validation), 3)
    assert found.recipe.depth in (0, 1, 2, 3)
    assert "12 trials by ant_colony" in found.words
    again = find.find(study, wish("ant_colony", said, 12), tmp_path, keep)
    assert np.array_equal(again.trained.outputs, found.trained.outputs)
    assert again.account["history"] == account["history"]


def test_where_the_default_recipe_wins_it_stays(tmp_path, monkeypatch):
    monkeypatch.setattr(confirm, "judged", lambda rows: {"best": 0, "chosen": 0, "claimed": 0.0, "confirmed": 0.0,
                                                         "optimism": 0.0})
    said = {"epochs": 1, "depth": "0..2"}
    found = find.find(timed(epochs=1), wish("random", said, 3), tmp_path / "a", once())
    assert found.trained is None
    assert found.account["history"][0]["params"]["learning_rate"] == pytest.approx(5e-4)
    assert "default recipe, which stays" in found.words
    narrow = {**said, "learning_rate": "1e-5..1e-4"}  # in which the default is not: the first trial is another recipe
    assert find.find(timed(epochs=1), wish("random", narrow, 3), tmp_path / "b", once()).trained is not None


def test_with_latency_the_front_is_shown(tmp_path):
    found = find.find(timed(epochs=2), wish("random", {"epochs": 2, "input_size": "32..96"}, 8, also="latency"),
                      tmp_path, once())
    front = found.account["front"]
    assert found.account["aims"] == ["validation loss", "latency"]
    assert front
    assert [row["latency"] for row in front] == sorted(row["latency"] for row in front)
    assert [row["loss"] for row in front] == sorted((row["loss"] for row in front), reverse=True)
    assert all("--input-size" in row["flags"] for row in front)
