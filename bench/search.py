"""How many trials does a search make in the time of one plain fine-tune, and what does a trial cost besides training?

    python bench/search.py cats-dogs/ --trials 100

1. Plain PyTorch, in a process of its own: the same backbone at 224 pixels, float32, a few steps of
   which are timed; 3 epochs over the same training examples are extrapolated from their median.
2. The search from an empty cache: decoding is not counted on either side, activations and trials are.
3. The same trials by one process of one thread and by two (`--workers`), from warm activations.

Prints JSON.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

PLAIN = """
import json, statistics, sys, time
import torch
from torchvision import datasets, transforms
from outdo.backbones import vision

torch.manual_seed(0)
varied = transforms.Compose([transforms.RandomResizedCrop(224), transforms.RandomHorizontalFlip(),
                             transforms.ToTensor(), transforms.Normalize([0.5] * 3, [0.5] * 3)])
data = datasets.ImageFolder(sys.argv[1], varied)
network, _, _ = vision.embedded()
network.classifier = torch.nn.Linear(network.classifier.in_features, len(data.classes))
optimiser = torch.optim.SGD(network.parameters(), lr=0.001, momentum=0.9)
network.train()
seconds = []
for i, (x, y) in enumerate(torch.utils.data.DataLoader(data, 32, shuffle=True)):
    start = time.perf_counter()
    optimiser.zero_grad()
    torch.nn.functional.cross_entropy(network(x), y).backward()
    optimiser.step()
    seconds.append(time.perf_counter() - start)
    if i == int(sys.argv[2]):
        break
print(json.dumps({"step_seconds": statistics.median(seconds[1:]), "steps": len(seconds) - 1}))
"""


def plain(source: Path, steps: int, examples: int, epochs: int = 3) -> dict[str, float]:
    """Loading data is left out, to plain's favour."""
    command = [sys.executable, "-c", PLAIN, str(source / "train"), str(steps)]
    found = json.loads(subprocess.run(command, capture_output=True, check=True, text=True).stdout)
    return {**found, "images_per_second": 32 / found["step_seconds"],
            "fine_tune_seconds": found["step_seconds"] * epochs * examples / 32}


class Scene:
    """The data prepared as `outdo improve` does, with a workbench for trials."""

    def __init__(self, source: Path, sampler: str, seed: int, folder: Path) -> None:
        from outdo import runtime

        runtime.prepare()
        import outdo
        from outdo.recipe import Recipe
        from outdo.runs import Run
        from outdo.search.space import read, suited
        from outdo.search.workbench import Workbench

        flow = importlib.import_module("outdo.improve")
        data = outdo.read(source)
        self.task = flow.find_task(data, None)
        with Run.going(folder / "run", {}, False) as run:
            self.study, _, _ = flow.prepared(run, flow.Log(run, None), data, self.task, Recipe(), None, seed)
            run.state["state"] = "kept"
        self.space = suited(read({}), self.task.kind, self.study.backbone.depth, False)
        self.bench = Workbench(self.study, self.space, seed)
        self.sampler, self.seed = sampler, seed

    def trials(self, path: Path, count: int, workers: int = 1, queue: list[dict[str, Any]] | None = None
               ) -> dict[str, Any]:
        from outdo.search import find, study
        from outdo.search import workers as processes

        aim = study.Aim(self.sampler, self.space, self.seed, count)
        clock = study.Clock(lambda: 1e9, 1e9)
        ledger = study.open_study(path, aim)
        for params in queue or [find.usual(self.bench, self.space)]:
            ledger.enqueue_trial(params)
        start = time.perf_counter()
        if workers == 1:
            study.work(ledger, path, self.bench, aim, clock)
        else:
            processes.work(path, self.bench, aim, clock, workers, lambda trial: None)
        wall = time.perf_counter() - start
        trials = ledger.get_trials(deepcopy=False)
        told = [study.about(t) for t in trials]
        fit = sum(one.get("fit_seconds", 0.0) for one in told)
        best = min((one["loss"], one["accuracy"]) for t, one in zip(trials, told, strict=True)
                   if t.state.name == "COMPLETE")
        return {"trials": len(trials), "seconds": wall, "per_minute": 60 * len(trials) / wall,
                "complete": sum(t.state.name == "COMPLETE" for t in trials), "fit_seconds": fit,
                "overhead_ms": 1000 * (wall - fit) / len(trials) if workers == 1 else None,
                "default_loss": told[0].get("loss"), "best_loss": best[0], "best_accuracy": best[1]}


def drawn(scene: Scene, count: int) -> list[dict[str, Any]]:
    """Random points of the space, to be tried by one process and by two."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
    return [scene.space.suggest(study.ask()) for _ in range(count)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path)
    parser.add_argument("--trials", type=int, default=100)
    parser.add_argument("--sampler", default="ant_colony")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=6, help="of plain PyTorch that are timed")
    parser.add_argument("--pairs", type=int, default=24, help="trials for one worker against two")
    said = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["OUTDO_CACHE"] = str(folder / "cache")
        scene = Scene(said.source, said.sampler, said.seed, folder)
        beside = plain(said.source, said.steps, len(scene.study.train))
        print(json.dumps({"plain": beside}, indent=1), flush=True)
        start = time.perf_counter()
        scene.bench.ready(augmented=True)
        ready = time.perf_counter() - start
        whole = scene.trials(folder / "whole" / "study.log", said.trials)
        total = ready + whole["seconds"]
        print(json.dumps({"activations_seconds": ready, "search": whole, "search_seconds": total,
                          "of_one_fine_tune": total / beside["fine_tune_seconds"]}, indent=1), flush=True)
        if said.pairs:
            import torch

            torch.set_num_threads(1)
            queue = drawn(scene, said.pairs)
            rates = [scene.trials(folder / f"workers-{k}" / "study.log", said.pairs, k, queue)["per_minute"]
                     for k in (1, 2)]
            print(json.dumps({"one_process_per_minute": rates[0], "two_processes_per_minute": rates[1],
                              "times": rates[1] / rates[0]}, indent=1))


if __name__ == "__main__":
    main()
