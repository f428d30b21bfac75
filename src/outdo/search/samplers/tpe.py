"""Optuna's tree-structured Parzen estimator, set for recipes."""

from __future__ import annotations

import warnings

from outdo.search.samplers._shared import Constraints, optuna


class TPESampler(optuna.samplers.TPESampler):
    """Optuna's TPE with what recipes need switched on.

    Choices are drawn together (`multivariate`), branch by branch (`group`), and apart from the trials that other
    workers are running (`constant_liar`). Give each worker its own seed: one seed gives each the same start.

    Source: Bergstra and others, "Algorithms for hyper-parameter optimization", 2011; Watanabe, "Tree-structured Parzen
    estimator", 2023.
    """

    summary = "TPE: densities of good and bad trials (Optuna's, joint, branch by branch)"

    def __init__(
        self, *, seed: int | None = None, n_startup_trials: int = 10, constraints_func: Constraints | None = None
    ) -> None:
        with warnings.catch_warnings():  # `group` is marked experimental
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            super().__init__(
                seed=seed,
                n_startup_trials=n_startup_trials,
                multivariate=True,
                group=True,
                constant_liar=True,
                constraints_func=constraints_func,
            )


PLUGIN = TPESampler
