"""The ant colony as an Optuna sampler: Gaussian trails around the best trials, pheromone for choices."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from outdo.search.samplers._shared import Constraints, Floats, HistorySampler, Past, at_least, reflect


class AntColonySampler(HistorySampler):
    """Ant colony optimisation for numbers and choices, for single-objective studies of some 50 to 200 trials.

    The best trials are the archive, which is the colony's memory. An ant follows one of them, the better the likelier,
    and strays from it in each number by a Gaussian as wide as the archive is spread around it. Its choices follow the
    pheromone that the archive has laid. Of several ants the one that the past predicts to be best becomes the trial.

    Sources: ACO_R, Socha and Dorigo, "Ant colony optimization for continuous domains", European Journal of Operational
    Research 185, 2008; choices as in ACO_MV, Liao and others, "Ant colony optimization for mixed-variable optimization
    problems", IEEE Transactions on Evolutionary Computation 18, 2014. Theirs is an archive of 50 to 90 for thousands of
    evaluations; the small archive, the uniform strays and the screening of ants are for small budgets.

    Args:
        seed: the same seed gives the same trials; None draws one.
        n_startup_trials: so many trials are spread over the space (Latin hypercube) before the first ant walks.
        archive_size: the best trials that ants follow (k).
        locality: smaller follows the very best ones more (q).
        spread: the width of a trail, in mean distances to the archive; larger converges more slowly (xi).
        stray: how many parameters of an ant are drawn at random instead, on average.
        n_ants: ants per trial, of which one becomes the trial; 1 walks without prediction.
        constraints_func: as in Optuna's own samplers; feasible trials rank before infeasible ones.
    """

    summary = "ant colony: trails around the best trials (ACO_R), pheromone for choices (ACO_MV)"

    def __init__(
        self,
        *,
        seed: int | None = None,
        n_startup_trials: int = 10,
        archive_size: int = 15,
        locality: float = 0.1,
        spread: float = 0.85,
        stray: float = 0.5,
        n_ants: int = 8,
        constraints_func: Constraints | None = None,
    ) -> None:
        at_least(2, archive_size=archive_size)
        at_least(1, n_ants=n_ants)
        super().__init__(
            seed=seed, n_startup_trials=n_startup_trials, candidates=n_ants, constraints_func=constraints_func
        )
        self._archive_size = archive_size
        self._locality = locality
        self._spread = spread
        self._stray = stray

    def breed(self, past: Past, count: int, rng: np.random.Generator) -> Floats:
        archive = past.completed(self._archive_size, rng)
        k, columns = archive.shape
        pheromone = np.exp(-0.5 * (np.arange(k) / (self._locality * k)) ** 2)
        followed = archive[rng.choice(k, size=count, p=pheromone / pheromone.sum())]
        apart = np.abs(archive - followed[:, None]).sum(axis=1) / (k - 1)
        # Where the archive agrees on a whole number, the next ones stay within reach.
        width = np.hypot(self._spread * apart, 0.6 * past.steps)
        ants = reflect(followed + width * rng.standard_normal(followed.shape))
        for column in np.flatnonzero(past.choices):
            odds = self._odds(archive[:, column].astype(int), pheromone, past.choices[column])
            ants[:, column] = rng.choice(len(odds), size=count, p=odds / odds.sum())
        strays = rng.random(ants.shape) < self._stray / columns
        return np.where(strays, past.strangers(count, rng), ants)

    def _odds(self, chosen: NDArray[np.int64], pheromone: Floats, choices: int) -> Floats:
        """A choice weighs as its best trial, less the more often it was made; the unused ones share `locality`."""
        used = np.bincount(chosen, minlength=choices)
        best = np.zeros(choices)
        np.maximum.at(best, chosen, pheromone)
        return np.where(used > 0, best / np.maximum(used, 1), self._locality / max((used == 0).sum(), 1))


PLUGIN = AntColonySampler
