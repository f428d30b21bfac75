"""Trials in several processes that share nothing but the study's file, and survive each other.

Workers are forked: activations and weights that are in memory already are theirs at no cost. A worker that dies, killed
or crashed, costs its trial; the trial is recorded and another worker takes its place.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna

from outdo.errors import RunError
from outdo.search import study as engine
from outdo.search.workbench import Workbench

EVERY_SECONDS = 0.2
MOST_DEATHS = 10
PR_SET_PDEATHSIG = 1  # linux/prctl.h


def work(path: Path, bench: Workbench, aim: engine.Aim, clock: engine.Clock, workers: int,
         told: Callable[[Any], None]) -> None:
    """Like `study.work`, by `workers` processes. Raises RunError when they keep dying."""
    study = engine.open_study(path, aim)
    fork = multiprocessing.get_context("fork")
    seen, deaths = len(ended(study)), 0

    def started(number: int) -> Any:
        process = fork.Process(target=alone, args=(path, bench, aim, clock, number, os.getpid()), daemon=True)
        process.start()
        return process

    running = {number: started(number) for number in range(1, workers + 1)}
    try:
        while running:
            time.sleep(EVERY_SECONDS)
            for number, process in list(running.items()):
                if process.is_alive():
                    continue
                del running[number]
                if process.exitcode == 0:
                    continue
                deaths += 1
                lost(study, number, process.exitcode)
                if deaths > MOST_DEATHS:
                    raise RunError(f"worker processes keep dying ({deaths} so far)", found=cause(process.exitcode),
                                   fix="--workers 1, or a smaller --depth or --batch-size")
                running[workers * deaths + number] = started(workers * deaths + number)
            done = ended(study)
            for trial in done[seen:]:
                told(trial)
            seen = len(done)
    finally:
        for process in running.values():
            process.kill()
            process.join()
        engine.abandon(study, engine.INTERRUPTED)


def alone(path: Path, bench: Workbench, aim: engine.Aim, clock: engine.Clock, number: int, parent: int) -> None:
    """What a worker process does: one thread, no messages, and an end with its parent's end."""
    import torch

    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        return
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to answer
    torch.set_num_threads(1)
    bench.study.progress = None
    study = engine.open_study(path, aim, number)
    engine.work(study, path, bench, aim, clock, worker=number)


def ended(study: optuna.Study) -> list[Any]:
    """Finished trials in the order in which they ended."""
    done = [t for t in study.get_trials(deepcopy=False) if t.state.is_finished()]
    return sorted(done, key=lambda t: (t.datetime_complete, t.number))


def lost(study: optuna.Study, worker: int, exitcode: int) -> None:
    """Write down what became of the trial of a worker that died."""
    for trial in study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.RUNNING,)):
        if engine.about(trial).get("worker") == worker:
            engine.fail(study, trial, f"its process ended: {cause(exitcode)}")


def cause(exitcode: int) -> str:
    return f"signal {-exitcode}, out of memory perhaps" if exitcode == -signal.SIGKILL else f"exit code {exitcode}"
