"""The engine is Optuna: an ask, a trial, a tell, until the time or the trials are used up.

The study is a file, `search/study.log` in the run's folder, to which every step is appended at once. So `kill -9` costs
the trial that was running, worker processes need nothing but the file, and `optuna-dashboard` shows it.
"""

from __future__ import annotations

import fcntl
import json
import math
import os
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from outdo import plugins
from outdo.errors import MissingExtra, OutdoError, RunError
from outdo.recipe import Recipe
from outdo.search import memory
from outdo.search.space import BACKBONE, Space
from outdo.search.workbench import Outcome, Workbench

try:
    import optuna
except ImportError:
    raise MissingExtra("a hyper-parameter search", "optuna", "search") from None
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState

NAME, SCHEMA, ABOUT = "outdo", 2, "outdo"  # the study's name; the format of what is kept in it, under which key
# Of three trials that reach a rung one goes on (ASHA, Li et al. 2020); equal ones go on together. The first rung is the
# probe of the trial's backbone at its input size, the others are 1, 3, 9 ... epochs.
REDUCTION = 3
PROBE = 1  # its step; that of an epoch is REDUCTION times its number
SHARE_OF_FEATURES = 0.5  # of the time left that the first trial of a backbone or size may spend on its features
INTERRUPTED = "interrupted"


@dataclass(frozen=True)
class Aim:
    """What is searched for, and how long."""

    sampler: str
    space: Space
    seed: int
    trials: int | None  # None: as many as there is time for
    latency: dict[str, float] | None = None  # seconds by `ground`; counts as a second aim where it is given

    @property
    def directions(self) -> list[Literal["minimize"]]:
        return ["minimize"] * (2 if self.latency else 1)


def ground(bench: Workbench, params: Mapping[str, Any]) -> str:
    """What a trial's latency and its features depend on: backbone and input size."""
    return f"{params.get(BACKBONE)} at {bench.of(params).size(params)}"


# ── the file ─────────────────────────────────────────────────────────────────────────────────────────────────────────


class Journal(JournalFileBackend):
    """Optuna's journal with a lock that goes with its process, however that ends, and without waiting for the disk at
    every line: what is written survives the process, which is what `kill -9` asks for."""

    def __init__(self, path: Path) -> None:
        super().__init__(str(path))
        self.path = path
        self.append_logs([])

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """A last line that a killed process did not write to its end is cut off first."""
        lines = "".join(json.dumps(log, separators=(",", ":")) + "\n" for log in logs)
        with locked(self.path.with_suffix(".lock")), open(self.path, "r+b", buffering=0) as file:
            end = file.seek(0, os.SEEK_END)
            if end and os.pread(file.fileno(), 1, end - 1) != b"\n":
                file.truncate(self.path.read_bytes().rfind(b"\n") + 1)
                file.seek(0, os.SEEK_END)
            file.write(lines.encode())


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """`path` is the lock itself, an empty file."""
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def open_study(path: Path, aim: Aim, worker: int = 0) -> optuna.Study:
    """The study in that file, made where there is none. Raises RunError: damaged, or of another version or space."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        storage = optuna.storages.JournalStorage(Journal(path))
        study = optuna.create_study(storage=storage, study_name=NAME, directions=aim.directions, load_if_exists=True,
                                    pruner=optuna.pruners.SuccessiveHalvingPruner(1, REDUCTION))
    except (ValueError, LookupError, TypeError, AttributeError, AssertionError) as error:
        raise RunError(f"{path} is damaged ({error})", fix="run again into a new folder") from None
    mark = {"schema": SCHEMA, "space": aim.space.as_json(), "directions": aim.directions}
    mark = json.loads(json.dumps(mark))
    known = study.user_attrs.get(ABOUT)
    if known is None and not study.get_trials(deepcopy=False):
        study.set_user_attr(ABOUT, mark)
    elif known != mark:
        raise RunError(f"{path} holds a search of another version or space", expected=f"schema {SCHEMA}, the same "
                       "choices", found=f"schema {(known or {}).get('schema')}", fix="run again into a new folder")
    study.sampler = sampler(aim, worker, len(study.get_trials(deepcopy=False)))
    return study


def sampler(aim: Aim, worker: int, trials: int) -> Any:
    """Seeded by (seed, worker, trials so far): a sampler that draws from a stream must not repeat it when resumed."""
    made = plugins.load("samplers", aim.sampler)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        if issubclass(made, optuna.samplers.RandomSampler | optuna.samplers.TPESampler):
            return made(seed=(aim.seed * 1_000_003 + worker * 10_007 + trials) % 2**32)
    return made(seed=aim.seed)


# ── the loop ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass
class Clock:
    """Seconds left for the search, the most that one trial may take, and bytes that a process may take for trials."""

    left: Callable[[], float]
    limit: float
    memory: int | None = None

    def watch(self) -> Callable[[], bool]:
        """Asked at every step of a trial; raises TimeoutError when it takes too long."""
        start = time.monotonic()

        def over() -> bool:
            if time.monotonic() - start > self.limit:
                raise TimeoutError(f"longer than {self.limit:.0f} s, which is the most for one trial")
            if self.left() <= 0:
                raise TimeoutError(INTERRUPTED)
            return False

        return over


def work(study: optuna.Study, path: Path, bench: Workbench, aim: Aim, clock: Clock, *, worker: int = 0,
         told: Callable[[FrozenTrial], None] = lambda trial: None) -> None:
    """Trial after trial, until there are enough or the time is over."""
    with memory.limited(clock.memory):
        while clock.left() > 0:
            trial = ask(study, path, aim)
            if trial is None:
                return
            one(study, trial, bench, aim, clock, worker)
            told(study.get_trials(deepcopy=False)[trial.number])


def ask(study: optuna.Study, path: Path, aim: Aim) -> optuna.Trial | None:
    """A new trial, or None when there are as many as were wanted; workers ask one after the other."""
    with locked(path.with_suffix(".ask")):  # not the journal's own lock, which asking takes too
        trials = counted(study)
        if aim.trials is not None and len(trials) >= aim.trials:
            return None
        if math.isfinite(points := aim.space.points()) and len({frozenset(t.params.items()) for t in trials}) >= points:
            return None  # another seed is no other recipe
        return study.ask()


def counted(study: optuna.Study) -> list[FrozenTrial]:
    """The trials that count: not those that were cut off by the end of the time or of a process."""
    return [t for t in study.get_trials(deepcopy=False)
            if t.state != TrialState.WAITING and about(t).get("failure") != INTERRUPTED]


def about(trial: FrozenTrial) -> dict[str, Any]:
    """What is kept of a trial besides Optuna's own: seed, seconds, accuracy, failure."""
    return trial.user_attrs.get(ABOUT, {})


def seed_of(aim: Aim, number: int) -> int:
    return aim.seed * 1_000_003 + number


def one(study: optuna.Study, trial: optuna.Trial, bench: Workbench, aim: Aim, clock: Clock, worker: int) -> None:
    """One trial from its parameters to its end; what goes wrong with it is written down and goes no further."""
    start, seed = time.perf_counter(), seed_of(aim, trial.number)
    kept: dict[str, Any] = {"seed": seed, "worker": worker}
    if worker:  # should this process die, its parent has to know whose trial it was
        trial.set_user_attr(ABOUT, kept)
    params = aim.space.suggest(trial)
    state, values = TrialState.FAIL, None
    pruned = False

    def stopped(step: int, loss: float) -> bool:
        nonlocal pruned
        if aim.latency is None:  # Optuna prunes where there is one aim
            trial.report(loss, step)
            pruned = trial.should_prune() and step < REDUCTION * bench.epochs
        return pruned

    try:
        done = climbed(bench.of(params), aim.space.recipe_of(params), seed, clock, stopped)
        kept |= {"accuracy": done.accuracy, "loss": done.loss, "epochs": done.epochs, "fit_seconds": done.seconds}
        state = TrialState.PRUNED if pruned else TrialState.COMPLETE
        second = [aim.latency[ground(bench, params)]] if aim.latency else []
        values = None if pruned else [done.loss, *second]
    except OutdoError:
        raise
    except Exception as error:  # whatever one recipe breaks, the search goes on with the next
        kept["failure"] = failure(error)
    except BaseException:  # Ctrl-C: this trial is lost, nothing else
        kept["failure"] = INTERRUPTED
        raise
    finally:
        trial.set_user_attr(ABOUT, kept | {"seconds": time.perf_counter() - start})
        study.tell(trial, values, state)


def climbed(bench: Workbench, recipe: Recipe, seed: int, clock: Clock, stopped: Callable[[int, float], bool]
            ) -> Outcome:
    """Rung after rung, as long as it is not `stopped`: the probe, then epochs."""
    def left() -> float:
        return SHARE_OF_FEATURES * clock.left()

    bench.ready(recipe.but(augmentation=0), left)
    probed = bench.probed(recipe)
    if stopped(PROBE, probed.loss):
        return probed
    bench.ready(recipe, left)
    return bench.run(recipe, bench.first, seed, watch=lambda epoch, loss: stopped(REDUCTION * epoch, loss),
                     over=clock.watch())


def failure(error: Exception) -> str:
    """In one line."""
    if isinstance(error, MemoryError) or "alloc" in str(error).lower() or "out of memory" in str(error).lower():
        return "out of memory"
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


def abandon(study: optuna.Study, reason: str) -> None:
    """End the trials that a killed process left running."""
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        fail(study, trial, reason)


def fail(study: optuna.Study, trial: FrozenTrial, reason: str) -> None:
    """End a trial of a process that is no more."""
    optuna.Trial(study, trial._trial_id).set_user_attr(ABOUT, {**about(trial), "failure": reason})
    study.tell(trial.number, state=TrialState.FAIL)
