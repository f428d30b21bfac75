"""Random search: the yardstick that every other sampler has to beat."""

from __future__ import annotations

from outdo.search.samplers._shared import optuna


class RandomSampler(optuna.samplers.RandomSampler):
    """Optuna's random sampler, as it is. Give each worker its own seed: one seed gives each the same trials."""

    summary = "random: every trial drawn anew, the yardstick for the others"


PLUGIN = RandomSampler
