"""The genetic algorithm as an Optuna sampler: tournaments, crossover and mutation among the best trials."""

from __future__ import annotations

import numpy as np

from outdo.search.samplers._shared import Constraints, Floats, HistorySampler, Past, at_least, reflect


class GeneticSampler(HistorySampler):
    """A real-coded genetic algorithm for numbers and choices, for single-objective studies of some 50 to 200 trials.

    There are no generations: the population is the best trials so far (which is elitism), and each new trial is a
    child of two of them, so that workers never wait for each other. Both parents win a tournament. Numbers are crossed
    by SBX, choices come from either parent, and a few genes mutate: numbers by a polynomial step, choices to any. Of
    several children the one that the past predicts to be best becomes the trial.

    Sources: simulated binary crossover, Deb and Agrawal, Complex Systems 9, 1995; polynomial mutation, Deb and Goyal,
    1996; steady state, Whitley, "The GENITOR algorithm", 1989.

    Args:
        seed: the same seed gives the same trials; None draws one.
        n_startup_trials: so many trials are spread over the space (Latin hypercube) before the first child.
        population_size: the best trials, from which parents come.
        tournament_size: each parent is the best of so many drawn at random.
        crossover_eta: how like their parents children are; larger is closer.
        mutation_eta: how small the mutations of numbers are; larger is smaller.
        mutations: how many genes of a child mutate, on average.
        n_children: children per trial, of which one becomes the trial; 1 breeds without prediction.
        constraints_func: as in Optuna's own samplers; feasible trials rank before infeasible ones.
    """

    summary = "genetic: tournaments, crossover (SBX) and mutation among the best trials"

    def __init__(
        self,
        *,
        seed: int | None = None,
        n_startup_trials: int = 10,
        population_size: int = 20,
        tournament_size: int = 2,
        crossover_eta: float = 2.0,
        mutation_eta: float = 5.0,
        mutations: float = 2.0,
        n_children: int = 8,
        constraints_func: Constraints | None = None,
    ) -> None:
        at_least(2, population_size=population_size)
        at_least(1, tournament_size=tournament_size, n_children=n_children)
        super().__init__(
            seed=seed, n_startup_trials=n_startup_trials, candidates=n_children, constraints_func=constraints_func
        )
        self._population_size = population_size
        self._tournament_size = tournament_size
        self._crossover_eta = crossover_eta
        self._mutation_eta = mutation_eta
        self._mutations = mutations

    def breed(self, past: Past, count: int, rng: np.random.Generator) -> Floats:
        population = past.completed(self._population_size, rng)
        mothers, fathers = (self._winners(population, count, rng) for _ in range(2))
        numbers = past.choices == 0
        swapped = rng.random(mothers.shape) < 0.5
        near, far = np.where(swapped, fathers, mothers), np.where(swapped, mothers, fathers)
        spread = sbx(rng.random(near.shape), self._crossover_eta)
        children = np.where(numbers, (near + far) / 2 + spread * (near - far) / 2, near)
        moved = children + polynomial(rng.random(children.shape), self._mutation_eta)
        mutants = np.where(numbers, moved, past.strangers(count, rng))
        mutate = rng.random(children.shape) < self._mutations / children.shape[1]
        children = np.where(mutate, mutants, children)
        return np.where(numbers, reflect(children), children)

    def _winners(self, population: Floats, count: int, rng: np.random.Generator) -> Floats:
        """The best of a few drawn at random, `count` times; the population is sorted, so the lowest index wins."""
        return population[rng.integers(len(population), size=(count, self._tournament_size)).min(axis=1)]


def sbx(chance: Floats, eta: float) -> Floats:
    """Children are this many times as far apart as their parents; inverts the distribution function of SBX."""
    return np.where(chance < 0.5, 2 * chance, 0.5 / (1 - chance)) ** (1 / (eta + 1))


def polynomial(chance: Floats, eta: float) -> Floats:
    """Steps in [-1, 1], most of them small; inverts the distribution function of polynomial mutation."""
    return np.where(chance < 0.5, (2 * chance) ** (1 / (eta + 1)) - 1, 1 - (2 - 2 * chance) ** (1 / (eta + 1)))


PLUGIN = GeneticSampler
