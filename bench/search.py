"""What a search costs and what it is worth.

    python bench/search.py cost cats-dogs/ --trials 100

How many trials in the time of one plain fine-tune, and what a trial costs besides training. Plain PyTorch, in a process
of its own: the same backbone at 224 pixels, float32, a few steps of which are timed; 3 epochs over the same training
examples are extrapolated from their median. The search from an empty cache: decoding is not counted on either side,
activations and trials are. The same trials by one process of one thread and by two, from warm activations.

    python bench/search.py runs hymenoptera/:20:1 banking77/:8:3:depth=0..1:epochs=1 --out rows.jsonl

Whole runs with each sampler, judged on the sealed test against the default recipe. Features are computed before.
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

SAMPLERS = ("random", "tpe", "genetic", "ant_colony")

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


def cost(said: argparse.Namespace) -> None:
    """One plain fine-tune, a search, and one worker against two; JSON."""
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


# ── searched runs to their end ────────────────────────────────────────────────────────────────────────────────────────


def runs(said: argparse.Namespace) -> None:
    """Whole runs with each sampler, seed by seed; a row is written as soon as it is there, and not made again."""
    said.out.touch()
    rows = [json.loads(line) for line in said.out.read_text().splitlines()]
    known = {(row["source"], row["sampler"], row["seed"]) for row in rows}
    for seed in range(said.seeds):
        for job in said.jobs:
            name, trials, minutes, *choices = job.split(":")
            source, said_too = Path(name), dict(choice.split("=") for choice in choices)
            wanted = [s for s in SAMPLERS if (source.name, s, seed) not in known]
            if wanted:
                with tempfile.TemporaryDirectory() as folder:
                    scene = Scene(source, "random", seed, Path(folder))
                    scene.study.pooled()
                    scene.bench.ready(augmented=True)
            for sampler in wanted:
                row = one_run(source, sampler, seed, int(trials), float(minutes), said_too)
                rows.append(row)
                with open(said.out, "a") as file:
                    file.write(json.dumps(row) + "\n")
    print(table(rows))


def one_run(source: Path, sampler: str, seed: int, trials: int, minutes: float, choices: dict[str, Any]
            ) -> dict[str, Any]:
    """What the report says of the search, and of what came of it against the default recipe on the sealed test."""
    import outdo

    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        found = outdo.improve(source, search=sampler, trials=trials, minutes=minutes, seed=seed, axes="accuracy",
                              out=Path(folder) / "run", **choices).report.as_json()
        seconds = time.perf_counter() - start
    search, (accuracy,) = found["search"], [a for a in found["axes"] if a["axis"] == "accuracy"]
    after = next(c["name"] for c in found["contestants"] if c["role"] == "after")
    against = next((c for c in accuracy["comparisons"] if c["against"] == "default recipe"), None)
    return {"source": source.name, "sampler": sampler, "seed": seed, "trials": search["trials"],
            "states": search["states"], "minutes": minutes, "choices": choices, "search_seconds": search["seconds"],
            "seconds": seconds, "after": after,
            "default": accuracy["values"]["default recipe"], "accuracy": accuracy["values"][after],
            "against": against, "n": found["data"]["n"],
            **{k: search["confirmed"][k] for k in ("claimed", "confirmed", "optimism")}}


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown, a line for each run."""
    lines = ["| data (n test) | seed | sampler | trials | default recipe | after | against it | gain in nats, "
             "and confirmed |", "| --- " * 8 + "|"]
    for r in rows:
        a = r["against"]
        verdict = f"{a['verdict']} (p = {a['p']:.2g})" if a and a.get("p") is not None else a and a["verdict"]
        gains = "-" if r["claimed"] is None else f"{r['claimed']:.4f}, {r['confirmed']:.4f}"
        lines.append(f"| {r['source']} ({r['n']['test']}) | {r['seed']} | {r['sampler']} | {r['trials']} | "
                     f"{r['default']:.1%} | {r['accuracy']:.1%} ({r['after']}) | {verdict} | {gains} |")
    return "\n".join(lines)


# ── the command ──────────────────────────────────────────────────────────────────────────────────────────────────────


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    one = commands.add_parser("cost")
    one.add_argument("source", type=Path)
    one.add_argument("--trials", type=int, default=100)
    one.add_argument("--sampler", default="ant_colony")
    one.add_argument("--seed", type=int, default=0)
    one.add_argument("--steps", type=int, default=6, help="of plain PyTorch that are timed")
    one.add_argument("--pairs", type=int, default=24, help="trials for one worker against two")
    one.set_defaults(do=cost)
    one = commands.add_parser("runs")
    one.add_argument("jobs", nargs="+", metavar="SOURCE:TRIALS:MINUTES[:CHOICE=VALUE...]")
    one.add_argument("--seeds", type=int, default=3)
    one.add_argument("--out", type=Path, required=True, help="JSON lines; what is there already is not made again")
    one.set_defaults(do=runs)
    said = parser.parse_args()
    said.do(said)


if __name__ == "__main__":
    main()
