"""What a search costs and what it is worth.

    python bench/search.py cost cats-dogs/ --trials 100

How many trials in the time of one plain fine-tune, and what a trial costs besides training. Plain PyTorch, in a process
of its own: the same backbone at 224 pixels, float32, a few steps of which are timed; 3 epochs over the same training
examples are extrapolated from their median. The search from an empty cache: decoding is not counted on either side,
activations and trials are. The same trials by one process of one thread and by two, from warm activations.

    python bench/search.py runs hymenoptera/:20:1 banking77/:12:1:depth=0 --out rows.jsonl

Whole runs with each sampler, judged on the sealed test against the default recipe. Features are computed before.

    python bench/search.py retraining hymenoptera/ --seconds 25 --size 96

The same seconds of CPU time for a search, its features included, and for Optuna's TPE around plain PyTorch, on the same
fold.

    python bench/search.py samplers hymenoptera/:depth=0..1:epochs=2 banking77/:depth=0:epochs=1

All samplers on the same trials, none of which is stopped early; a recipe that was tried once is looked up.
"""

from __future__ import annotations

import argparse
import copy
import functools
import importlib
import itertools
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

    def __init__(self, source: Path, sampler: str, seed: int, folder: Path, **choices: Any) -> None:
        from outdo import runtime

        runtime.prepare()
        import outdo
        from outdo.runs import Run
        from outdo.search.space import read, suited
        from outdo.search.workbench import Workbench

        flow = importlib.import_module("outdo.improve")
        data = outdo.read(source)
        self.task = flow.find_task(data, None)
        with Run.going(folder / "run", {}, False) as run:
            space = read(choices)
            self.study, _, _ = flow.prepared(run, flow.Log(run, None), data, self.task, space.recipe, None, seed)
            run.state["state"] = "kept"
        self.space = suited(space, self.task.kind, self.study.backbone.depth, False)
        self.bench = Workbench(self.study, suited(read({}), self.task.kind, self.study.backbone.depth, False), seed)
        self.sampler, self.seed = sampler, seed

    def ready(self) -> None:
        """Compute the features of all trials."""
        from outdo.search import find

        find.prepare(self.bench, self.space)

    def trials(self, path: Path, count: int | None, workers: int = 1, queue: list[dict[str, Any]] | None = None,
               seconds: float = 1e9) -> dict[str, Any]:
        from outdo.search import find, study
        from outdo.search import workers as processes

        aim = study.Aim(self.sampler, self.space, self.seed, count)
        end = time.process_time() + seconds
        clock = study.Clock(lambda: end - time.process_time(), 1e9)
        ledger = study.open_study(path, aim)
        for params in queue or [find.usual(self.bench, self.space)]:
            ledger.enqueue_trial(params)
        start = time.perf_counter()
        if workers == 1:
            study.work(ledger, path, self.bench, aim, clock)
        else:
            processes.work(path, self.bench, aim, clock, workers, lambda trial: None)
        wall = time.perf_counter() - start
        trials = study.counted(ledger)
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
        scene.ready()
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
    """Whole runs with each sampler, seed by seed; a row is written as soon as it is there, and not made again. Minutes
    are of CPU time, so that other work on the machine takes no trials away."""
    from outdo import runtime
    from outdo.search import find

    runtime.Budget = functools.partial(runtime.Budget, clock=time.process_time)  # type: ignore[misc,assignment]
    find.LEAST_SECONDS = 300.0  # the limit of a trial is by the clock on the wall
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
                    scene.ready()
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


# ── against retraining ────────────────────────────────────────────────────────────────────────────────────────────────


def retraining(said: argparse.Namespace) -> None:
    """Trials and the best loss on validation in the same seconds of CPU time on one thread, seed by seed."""
    import torch

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder, rows = Path(name), list[dict[str, Any]]()
        os.environ["OUTDO_CACHE"] = str(folder / "cache")
        for seed in range(said.seeds):
            scene = Scene(said.source, "ant_colony", seed, folder / str(seed), input_size=said.size)
            start = time.process_time()
            scene.ready()
            features = time.process_time() - start
            if rows:  # later seeds find the features of the first one
                features = rows[0]["features_seconds"]
            ours = scene.trials(folder / f"{seed}.log", None, seconds=said.seconds - features)
            rows.append({"seed": seed, "features_seconds": features, "trials": ours["trials"],
                         "loss": ours["best_loss"], "default_loss": ours["default_loss"],
                         **retrained(scene, said.seconds, seed)})
            print(json.dumps(rows[-1]), flush=True)
    print(json.dumps({"times_as_many": sum(r["trials"] for r in rows) / sum(r["retrained"] for r in rows),
                      "better_in": sum(r["loss"] < r["retrained_loss"] for r in rows), "of": len(rows)}))


def retrained(scene: Scene, seconds: float, seed: int) -> dict[str, Any]:
    """Optuna's TPE around a fine-tune of all weights. The trial that the end of the time meets is finished."""
    import optuna

    from outdo.backbones import vision

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    network, _, _ = vision.embedded()
    study, size = scene.study, scene.bench.sizes[0]
    images = {name: study.backbone.prepare(study.encoded.rows[at], size)["x"].contiguous()
              for name, at in (("train", study.train), ("validation", study.validation))}
    start = time.process_time()
    search = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=seed))
    while time.process_time() - start < seconds:
        search.optimize(lambda trial: plain_loss(trial, copy.deepcopy(network), study, **images), n_trials=1)
    return {"retrained": len(search.trials), "retrained_loss": search.best_value,
            "retrained_seconds": time.process_time() - start}


def plain_loss(trial: Any, network: Any, study: Any, train: Any, validation: Any) -> float:
    """Plain PyTorch: eager, float32, channels first; mirrored at random; scored as a trial of ours is."""
    import torch

    from outdo.training.contestants import loss_of

    torch.manual_seed(trial.number)
    network.classifier = torch.nn.Linear(network.classifier.in_features, len(study.classes))
    kind = trial.suggest_categorical("optimiser", ["SGD", "AdamW"])
    optimiser = getattr(torch.optim, kind)(network.parameters(), lr=trial.suggest_float("rate", 1e-5, 1e-1, log=True),
                                           weight_decay=trial.suggest_float("decay", 1e-4, 0.3, log=True))
    smoothing, batch = trial.suggest_float("smoothing", 0, 0.2), trial.suggest_int("batch", 16, 64, log=True)
    truth = torch.from_numpy(study.codes[study.train])
    network.train()
    for _ in range(trial.suggest_int("epochs", 1, 3)):
        for at in torch.randperm(len(truth)).split(batch):
            x = train[at].flip(3) if torch.rand(()) < 0.5 else train[at]
            optimiser.zero_grad()
            torch.nn.functional.cross_entropy(network(x), truth[at], label_smoothing=smoothing).backward()
            optimiser.step()
    network.eval()
    with torch.no_grad():
        return loss_of(torch.cat([network(x) for x in validation.split(64)]).numpy(), study.truth)


# ── samplers on real recipes ──────────────────────────────────────────────────────────────────────────────────────────


def samplers(said: argparse.Namespace) -> None:
    """The best loss so far with each sampler and seed, and who is ahead; a line of JSON for each source."""
    for job in said.jobs:
        name, *choices = job.split(":")
        with tempfile.TemporaryDirectory() as folder:
            scene = Scene(Path(name), "random", 0, Path(folder), **dict(choice.split("=") for choice in choices))
            scene.ready()
            known: dict[str, float] = {}
            best = {sampler: [best_so_far(scene, sampler, seed, said.trials, known) for seed in range(said.seeds)]
                    for sampler in SAMPLERS}
        print(json.dumps({"source": Path(name).name, "evaluated": len(known), **judge(best)}), flush=True)


def best_so_far(scene: Scene, name: str, seed: int, trials: int, known: dict[str, float]) -> list[float]:
    import optuna

    from outdo import plugins

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(sampler=plugins.load("samplers", name)(seed=seed))

    def loss(trial: Any) -> float:
        params = scene.space.suggest(trial)
        key = json.dumps(params, sort_keys=True)
        if key not in known:
            known[key] = scene.bench.run(scene.space.recipe_of(params), scene.bench.first, 0).loss
        return known[key]

    study.optimize(loss, n_trials=trials, catch=(FloatingPointError,))
    values = [trial.value if trial.value is not None else float("inf") for trial in study.trials]
    return [min(values[: i + 1]) for i in range(trials)]


def judge(best: dict[str, list[list[float]]]) -> dict[str, Any]:
    """At some numbers of trials: mean rank over seeds, and of ours against TPE and random the mean difference in log
    loss with its standard error and Wilcoxon's p, seeds in pairs."""
    import numpy as np
    from scipy import stats

    names = list(best)
    table = np.log(np.array([best[name] for name in names]))  # (samplers, seeds, trials)
    found: dict[str, Any] = {"seeds": table.shape[1]}
    for at in sorted({min(count, table.shape[2]) for count in (10, 20, table.shape[2])}):
        values = table[:, :, at - 1]
        ranks = stats.rankdata(values, axis=0).mean(1)
        found[f"after {at}"] = {"mean_rank": dict(zip(names, ranks.round(2).tolist(), strict=True))}
        for ours, rival in itertools.product(("ant_colony", "genetic"), ("tpe", "random")):
            d = values[names.index(ours)] - values[names.index(rival)]
            p = float(stats.wilcoxon(d).pvalue) if d.any() else 1.0
            found[f"after {at}"][f"{ours} - {rival}"] = [float(d.mean()), float(d.std(ddof=1) / len(d) ** 0.5), p]
    return found


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
    one = commands.add_parser("retraining")
    one.add_argument("source", type=Path)
    one.add_argument("--seconds", type=float, default=25)
    one.add_argument("--size", type=int, default=96)
    one.add_argument("--seeds", type=int, default=10)
    one.set_defaults(do=retraining)
    one = commands.add_parser("samplers")
    one.add_argument("jobs", nargs="+", metavar="SOURCE[:CHOICE=VALUE...]")
    one.add_argument("--trials", type=int, default=30)
    one.add_argument("--seeds", type=int, default=10)
    one.set_defaults(do=samplers)
    said = parser.parse_args()
    said.do(said)


if __name__ == "__main__":
    main()
