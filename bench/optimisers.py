"""The samplers and the ant system against others, at equal evaluations.

    python bench/optimisers.py --quick                    a minute: is it running, are we roughly there
    python bench/optimisers.py --seeds 30                 the full measurement (hours; one process)
    python bench/optimisers.py --seeds 30 --only tsp      one part of it: bbob, mixed or tsp

`bbob`: the 24 functions of bbob.py in 2, 5 and 10 dimensions. `mixed`: the same functions seen through a recipe's eyes:
half the coordinates are choices without an order, every fourth is a whole number. Each seed is another instance and
another run. `tsp`: generated cities, uniform and clustered, as TSPLIB files.

A problem is one function in one dimension. Per problem, optimisers are ranked by the median over seeds of the best
value found; Friedman's test is over problems, and ours are held against each rival by Wilcoxon's signed-rank test on
the problems' median log10 values, with Holm's correction. Rivals that are not installed are left out, by name.
Results go to bench/out/optimisers.json and to the terminal.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from scipy import stats

from bbob import NAMES, Problem
from outdo import plugins
from outdo.search import ants_tour

OUT = Path(__file__).parent / "out"
OURS = ("ant_colony", "genetic")
CHECKPOINTS = (25, 50, 100, 200)
NEGLIGIBLE = 1e-8  # values below are equal: BBOB's own target precision
FIRST_INSTANCE = 50_000  # far from the instances that the samplers' defaults were chosen on

Array = np.ndarray
Objective = Callable[[Sequence[float]], float]


# -- problems ---------------------------------------------------------------------------------------------------


class Task:
    """One function as an optimiser sees it. `columns`: 0 is a number in [-5, 5], n > 0 whole, n < 0 choices."""

    def __init__(self, suite: str, function: int, dimension: int, instance: int) -> None:
        self.problem = Problem(function, dimension, instance)
        rng = np.random.default_rng([99, function, dimension, instance])
        self.columns = [0] * dimension
        if suite == "mixed":
            self.columns = [-int(rng.integers(2, 7)) if i % 2 == 0 else 10 * (i % 4 == 3) for i in range(dimension)]
        grids = [np.linspace(-4, 4, abs(n)) for n in self.columns]
        self.grids = [rng.permutation(g) if n < 0 else g for n, g in zip(self.columns, grids, strict=True)]

    def __call__(self, values: Sequence[float]) -> float:
        parts = zip(values, self.columns, self.grids, strict=True)
        return self.problem(np.array([grid[int(v)] if n else v for v, n, grid in parts]))


# -- optimisers: task, budget, seed -> every value in order -------------------------------------------------------


def through_optuna(make: Callable[[int], optuna.samplers.BaseSampler]) -> Callable[[Task, int, int], list[float]]:
    def ask(trial: optuna.Trial, i: int, n: int) -> float:
        if n == 0:
            return trial.suggest_float(f"x{i}", -5, 5)
        if n > 0:
            return trial.suggest_int(f"x{i}", 0, n - 1)
        return trial.suggest_categorical(f"x{i}", list(range(-n)))

    def run(task: Task, budget: int, seed: int) -> list[float]:
        study = optuna.create_study(sampler=make(seed))
        study.optimize(lambda trial: task([ask(trial, i, n) for i, n in enumerate(task.columns)]), n_trials=budget)
        return [trial.value for trial in study.trials]

    return run


def through_mealpy(module: str, name: str) -> Callable[[Task, int, int], list[float]]:
    def run(task: Task, budget: int, seed: int) -> list[float]:
        import mealpy

        values: list[float] = []

        def objective(x: Array) -> float:
            values.append(task(x))
            return values[-1]

        bounds = mealpy.FloatVar(lb=[-5.0] * len(task.columns), ub=[5.0] * len(task.columns))
        optimiser = getattr(getattr(mealpy, module), name)(epoch=budget // 10, pop_size=10)
        optimiser.solve({"obj_func": objective, "bounds": bounds, "minmax": "min", "log_to": None}, seed=seed)
        return values[:budget]  # it finishes its generations: what comes after the budget does not count

    return run


def through_nevergrad(task: Task, budget: int, seed: int) -> list[float]:
    import nevergrad

    values: list[float] = []

    def objective(x: Array) -> float:
        values.append(task(x))
        return values[-1]

    space = nevergrad.p.Array(shape=(len(task.columns),)).set_bounds(-5, 5)
    space.random_state.seed(seed)
    nevergrad.optimizers.NGOpt(parametrization=space, budget=budget).minimize(objective)
    return values[:budget]


def optimisers(suite: str) -> dict[str, Callable[[Task, int, int], list[float]]]:
    """Ours and the rivals that are installed and can do the suite."""
    s = optuna.samplers
    found = {name: through_optuna(lambda seed, name=name: plugins.load("samplers", name)(seed=seed)) for name in OURS}
    found["random"] = through_optuna(lambda seed: s.RandomSampler(seed=seed))
    found["TPE"] = through_optuna(lambda seed: s.TPESampler(seed=seed))
    found["NSGA-II"] = through_optuna(lambda seed: s.NSGAIISampler(seed=seed, population_size=20))
    if suite == "mixed":
        return found
    optional = {
        "CMA-ES": ("cmaes", through_optuna(lambda seed: s.CmaEsSampler(seed=seed, warn_independent_sampling=False))),
        "mealpy ACOR": ("mealpy", through_mealpy("ACOR", "OriginalACOR")),
        "mealpy GA": ("mealpy", through_mealpy("GA", "BaseGA")),
        "nevergrad NGOpt": ("nevergrad", through_nevergrad),
    }
    for name, (library, run) in optional.items():
        if find_spec(library):
            found[name] = run
        else:
            print(f"{name}: left out, {library} is not installed")
    return found


def measure(suite: str, functions: Sequence[int], dimensions: Sequence[int], seeds: int, budget: int) -> dict[str, Any]:
    """Best value so far at the checkpoints: {optimiser: (problems, seeds, checkpoints)}, with names and seconds."""
    problems = list(product(functions, dimensions))
    checkpoints = [c for c in CHECKPOINTS if c <= budget]
    best, seconds = {}, {}
    for name, run in optimisers(suite).items():
        started = time.process_time()
        table = np.empty((len(problems), seeds, len(checkpoints)))
        for (p, (function, dimension)), seed in product(enumerate(problems), range(seeds)):
            values = run(Task(suite, function, dimension, FIRST_INSTANCE + seed), budget, seed)
            so_far = np.minimum.accumulate(values)
            table[p, seed] = [so_far[min(c, len(values)) - 1] for c in checkpoints]
        best[name] = np.maximum(table, NEGLIGIBLE)
        seconds[name] = (time.process_time() - started) / (len(problems) * seeds * budget)
        print(f"{suite}: {name}, {1000 * seconds[name]:.1f} ms of CPU per evaluation", flush=True)
    return {"problems": problems, "checkpoints": checkpoints, "best": best, "seconds_per_evaluation": seconds}


# -- judging ----------------------------------------------------------------------------------------------------


def judge(best: dict[str, Array]) -> dict[str, Any]:
    """Ranks and tests at one checkpoint; `best` is {optimiser: (problems, seeds)}."""
    names = list(best)
    medians = np.array([np.median(np.log10(best[name]), axis=1) for name in names])  # (optimisers, problems)
    ranks = stats.rankdata(medians, axis=0)
    pairs = [(ours, rival) for ours in OURS for rival in names if rival not in OURS]
    differences = {(a, b): medians[names.index(a)] - medians[names.index(b)] for a, b in pairs}
    p_values = [stats.wilcoxon(d).pvalue if d.any() else 1.0 for d in differences.values()]
    return {
        "median_rank": dict(zip(names, np.median(ranks, axis=1).tolist(), strict=True)),
        "mean_rank": dict(zip(names, ranks.mean(axis=1).tolist(), strict=True)),
        "friedman_p": float(stats.friedmanchisquare(*medians).pvalue),
        "against": [
            {"ours": a, "rival": b, "won": int((d < 0).sum()), "lost": int((d > 0).sum()), "p": p}
            for ((a, b), d), p in zip(differences.items(), holm(p_values), strict=True)
        ],
    }


def holm(p_values: Sequence[float]) -> list[float]:
    order = np.argsort(p_values)
    raised = np.asarray(p_values)[order] * (len(p_values) - np.arange(len(p_values)))
    adjusted = np.empty(len(p_values))
    adjusted[order] = np.minimum(1, np.maximum.accumulate(raised))
    return adjusted.tolist()


def against(best: dict[str, Array], ours: str, rival: str) -> Array:
    """Per problem, how many standard errors of the seeds' mean log10 values ours lies below the rival's."""
    gain = np.log10(best[rival]) - np.log10(best[ours])
    error = gain.std(axis=1, ddof=1) / np.sqrt(gain.shape[1])
    return gain.mean(axis=1) / np.maximum(error, 1e-12)


def show(suite: str, found: dict[str, Any]) -> list[dict[str, Any]]:
    return [show_at(suite, found, c) for c in range(len(found["checkpoints"]))]


def show_at(suite: str, found: dict[str, Any], c: int) -> dict[str, Any]:
    best = {name: table[:, :, c] for name, table in found["best"].items()}
    problems, seeds = best["random"].shape
    verdict = {"suite": suite, "evaluations": found["checkpoints"][c], **judge(best)}
    print(f"\n{suite}, {found['checkpoints'][c]} evaluations: {problems} problems x {seeds} seeds")
    print(f"  Friedman p = {verdict['friedman_p']:.1e}; median rank (mean rank), 1 is best:")
    for name in sorted(best, key=lambda n: verdict["mean_rank"][n]):
        print(f"    {name:16} {verdict['median_rank'][name]:4.1f} ({verdict['mean_rank'][name]:.2f})")
    for row in verdict["against"]:
        print(f"  {row['ours']:10} against {row['rival']:16} {row['won']:2} : {row['lost']:2}  p = {row['p']:.1e}")
    for ours in OURS:
        errors = against(best, ours, "random")
        verdict[f"{ours}_over_random"] = errors.tolist()
        print(f"  {ours}: better than random by > 2 standard errors on {(errors > 2).sum()} of {problems}")
        print(f"    not on: {named(found['problems'], errors <= 2)}")
        print(f"    worse by > 2 on: {named(found['problems'], errors < -2)}")
    return verdict


def named(problems: Sequence[tuple[int, int]], which: Array) -> str:
    chosen = [problem for problem, yes in zip(problems, which, strict=True) if yes]
    rows = {f: [d for g, d in chosen if g == f] for f, _ in chosen}
    return "; ".join(f"f{f} {NAMES[f]} in {', '.join(map(str, ds))}" for f, ds in rows.items()) or "none"


# -- travelling salesman ----------------------------------------------------------------------------------------


def cities(kind: str, n: int, seed: int) -> Array:
    rng = np.random.default_rng([n, seed, kind == "clustered"])
    if kind == "uniform":
        return rng.uniform(0, 1000, (n, 2)).round(1)
    return (rng.uniform(0, 1000, (8, 2))[rng.integers(8, size=n)] + rng.normal(0, 40, (n, 2))).round(1)


def tour_lengths(distance: Array, iterations: int, ants: int, seed: int) -> dict[str, float]:
    """Every one may finish `iterations` x `ants` tours; the nearest neighbour tries each city as its start."""
    rng = np.random.default_rng(seed)
    n, tours = len(distance), iterations * ants
    length = lambda tour: ants_tour.tour_length(tour, distance)  # noqa: E731
    return {
        "random": min(length(rng.permutation(n)) for _ in range(tours)),
        "nearest neighbour": min(length(ants_tour.nearest_neighbour_tour(distance, start)) for start in range(n)),
        "2-opt": min(length(ants_tour.two_opt(rng.permutation(n), distance)) for _ in range(tours)),
        "ants": ants_tour.ant_tour(distance, seed=seed, iterations=iterations, ants=ants, local_search=False)[1],
        "ants, 2-opt": ants_tour.ant_tour(distance, seed=seed, iterations=iterations, ants=ants)[1],
    }


def salesman(sizes: Sequence[int], seeds: int, iterations: int, ants: int) -> list[dict[str, Any]]:
    OUT.mkdir(exist_ok=True)
    print(f"\ntsp: excess over the shortest tour found, mean of {seeds} instances, {iterations * ants} tours each")
    return [salesman_row(kind, n, seeds, iterations, ants) for kind, n in product(("uniform", "clustered"), sizes)]


def salesman_row(kind: str, n: int, seeds: int, iterations: int, ants: int) -> dict[str, Any]:
    lengths = []
    for seed in range(seeds):
        path = OUT / f"{kind}{n}-{seed}.tsp"
        ants_tour.write_tsplib(path, cities(kind, n, seed), path.stem)
        lengths.append(tour_lengths(ants_tour.distances(ants_tour.read_tsplib(path)), iterations, ants, seed))
    table = np.array([list(row.values()) for row in lengths])
    excess = dict(zip(lengths[0], (table / table.min(axis=1, keepdims=True) - 1).mean(axis=0), strict=True))
    gain = np.array([row["2-opt"] - row["ants, 2-opt"] for row in lengths])
    p = float(stats.wilcoxon(gain).pvalue) if gain.any() else 1.0
    print(f"  {kind:9} {n:4}: " + "; ".join(f"{name} {100 * e:.1f} %" for name, e in excess.items()), flush=True)
    print(f"    'ants, 2-opt' against '2-opt': shorter {(gain > 0).sum()}, longer {(gain < 0).sum()}, p = {p:.1e}")
    return {"kind": kind, "cities": n, "lengths": lengths, "p_ants_against_2opt": p}


# -- main -------------------------------------------------------------------------------------------------------


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--seeds", type=int, default=30)
    parser.add_argument("--budget", type=int, default=100)
    parser.add_argument("--dimensions", type=int, nargs="+", default=[2, 5, 10])
    parser.add_argument("--only", choices=["bbob", "mixed", "tsp"])
    parser.add_argument("--out", type=Path, default=OUT / "optimisers.json")
    args = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore")
    functions, sizes, iterations = list(NAMES), (50, 100), 30
    if args.quick:
        functions, sizes, iterations = [1, 3, 8, 10, 15, 21], (30,), 10
        args.dimensions, args.seeds, args.budget = (2, 5), 3, 50
    report: dict[str, Any] = {"arguments": {**vars(args), "out": str(args.out)}, "verdicts": []}
    for suite in ("bbob", "mixed"):
        if args.only in (None, suite):
            found = measure(suite, functions, args.dimensions, args.seeds, args.budget)
            report["verdicts"] += show(suite, found)
            report[suite] = {**found, "best": {name: table.tolist() for name, table in found["best"].items()}}
    if args.only in (None, "tsp"):
        report["tsp"] = salesman(sizes, args.seeds, iterations, ants=10)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(report))
    print(f"\n{args.out}")


if __name__ == "__main__":
    main()
