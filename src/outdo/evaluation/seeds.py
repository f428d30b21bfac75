"""Several training seeds: the claim is then about the recipe, not about one lucky training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from outdo.contracts import Measurement, Statistic


def pooled(measured: Mapping[str, Mapping[str, Measurement]], after: str, again: Sequence[str]
           ) -> dict[str, dict[str, Measurement]]:
    """The figures of `after` become means over itself and the seeds `again`, which leave.

    What is no statistic over the examples (times, bytes) stays the figure of `after` itself.
    """
    out = {}
    for axis, found in measured.items():
        out[axis] = {name: m for name, m in found.items() if name not in again}
        alike = [m for name in (after, *again) if (m := found.get(name)) and m.statistic and m.value is not None]
        if again and len(alike) == 1 + len(again):
            out[axis][after] = _mean(alike)
    return out


def _mean(alike: Sequence[Measurement]) -> Measurement:
    values = np.array([m.value for m in alike], np.float64)
    detail = {**alike[0].detail, "seeds": values.tolist()}
    average = _average([m.statistic for m in alike if m.statistic])
    return replace(alike[0], value=float(values.mean()), statistic=average, correct=None, detail=detail, seeds=values)


def _average(statistics: Sequence[Statistic]) -> Statistic:
    return lambda weights: np.mean([one(weights) for one in statistics], axis=0)
