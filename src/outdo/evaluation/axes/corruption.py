"""Under corruption: accuracy on the test's examples after they were spoilt, the same way for everybody.

Images: the 19 corruptions of ImageNet-C at 5 severities (`_corrupt_images`). Texts: typing errors, keyboard, scanner,
capitals, lost words (`_corrupt_texts`). All of them on all examples would be 95 tests. Instead about MOST spoilt
examples are dealt out so that every kind and severity gets its share, and each example at least one; the mean has the
same expectation, it is paired example by example, and it costs about as much as one pass over the test.

The mean corruption error (mCE) is that of the paper with *before* in the place of AlexNet: for each corruption the
errors over those of before, averaged; below 1 is better than before. Extra corruptions do not count in it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import ModuleType
from typing import Any

import numpy as np

from outdo.contracts import Contestant, Inputs, Measurement, TestSet, batches
from outdo.evaluation.axes import _corrupt_images, _corrupt_texts
from outdo.evaluation.axes._helpers import answers, mean_of, measured, runnable, square

MOST = 570  # spoilt examples in all, or one of each of so many examples; 6 for each of the 95 combinations
TOGETHER = 64  # spoilt, and then answered by everybody

Spoilt = tuple[int, str, int]  # (example, corruption, severity)


class Corruption:
    title = "under corruption"
    summary = "accuracy on test examples spoilt by noise, blur, weather, compression (images) or typing errors (texts)"
    unit = "fraction"
    better = "higher"
    tolerance = 0.0

    def measure(self, contestants: Sequence[Contestant], test: TestSet) -> dict[str, Measurement]:
        models = runnable(contestants)
        if not models or not len(test):
            return {}
        kinds: ModuleType = _corrupt_images if test.inputs.kind == "image" else _corrupt_texts
        dealt = deal(test.ids, kinds.CORRUPTIONS, kinds.SEVERITIES)
        right: dict[str, list[np.ndarray]] = {name: [] for name in models}
        for indices, inputs in spoilt_batches(test.inputs, dealt, kinds):
            shared: dict[Any, Any] = {}  # of this batch: contestants on one backbone have its features in common
            for name, model in models.items():
                right[name].append(answers(model, inputs, shared).argmax(1) == test.codes[indices])
        found = {name: np.concatenate(parts) for name, parts in right.items()}
        base = next((found[c.name] for c in contestants if c.role == "before" and c.name in found), None)
        return {name: figures(values, base, dealt, test, kinds) for name, values in found.items()}


def deal(ids: Sequence[str], corruptions: Mapping[str, Any], severities: Sequence[int]) -> list[Spoilt]:
    """Who is spoilt how, in the order of the examples. It hangs on the ids, not on their order: examples in the order
    of a hash take turns at all combinations, in a fixed random order."""
    combinations = [(name, severity) for name in corruptions for severity in severities]
    combinations = [combinations[i] for i in np.random.default_rng(0).permutation(len(combinations))]
    order = sorted(range(len(ids)), key=lambda i: hashlib.blake2b(ids[i].encode("utf-8", "surrogatepass")).digest())
    chosen = order[:MOST]
    each = min(len(combinations), max(1, MOST // len(chosen)))
    turns = ((i, combinations[(place * each + turn) % len(combinations)])
             for place, i in enumerate(chosen) for turn in range(each))
    return sorted((i, *combination) for i, combination in turns)


def spoilt_batches(inputs: Inputs, dealt: Sequence[Spoilt], kinds: ModuleType) -> Iterator[tuple[np.ndarray, Any]]:
    """(examples, their spoilt images (n, S, S, 3) or texts), some at a time. Images of another size are a batch of
    their own, but the order stays that of `dealt`."""
    def one(spoilt: Spoilt) -> Any:
        i, name, severity = spoilt
        value = inputs.read(i)
        return kinds.corrupt(value if isinstance(value, str) else square(value), name, severity)

    with ThreadPoolExecutor() as pool:
        for part in batches(len(dealt), TOGETHER):
            values = list(pool.map(one, dealt[part]))
            indices = np.array([i for i, _, _ in dealt[part]])
            for run in alike(values):
                yield indices[run], values[run] if isinstance(values[0], str) else np.stack(values[run])


def alike(values: Sequence[Any]) -> Iterator[slice]:
    """Runs of values of one shape."""
    start = 0
    for i in range(1, len(values) + 1):
        if i == len(values) or np.shape(values[i]) != np.shape(values[start]):
            yield slice(start, i)
            start = i


def figures(right: np.ndarray, base: np.ndarray | None, dealt: Sequence[Spoilt], test: TestSet, kinds: ModuleType
            ) -> Measurement:
    examples, owner = np.unique([i for i, _, _ in dealt], return_inverse=True)
    each = np.bincount(owner)
    share = np.bincount(owner, right) / each
    detail = {"of": len(test), "spoilt": len(dealt), "per_corruption": by([c for _, c, _ in dealt], right),
              "per_severity": by([s for _, _, s in dealt], right),
              "mce": mce(right, base, [c for _, c, _ in dealt], kinds.STANDARD)}
    return measured(mean_of(share), len(examples), share > 0.5 if (each == 1).all() else None, detail)


def by(groups: Sequence[Any], right: np.ndarray) -> list[dict[str, Any]]:
    """[{"which", "n", "accuracy"}] for each value of `groups`, in order."""
    known = sorted(set(groups))
    chosen = [np.array([g == value for g in groups]) for value in known]
    return [{"which": value, "n": int(c.sum()), "accuracy": float(right[c].mean())}
            for value, c in zip(known, chosen, strict=True)]


def mce(right: np.ndarray, base: np.ndarray | None, names: Sequence[str], standard: Mapping[str, Any]) -> float | None:
    """Mean over the corruptions of the ratio of errors; None where before made none, or there is no before. Those under
    which before made no error are left out: they have no ratio."""
    if base is None:
        return None
    ratios = []
    for name in standard:
        chosen = np.array([n == name for n in names])
        if (wrong := (~base[chosen]).sum()) > 0:
            ratios.append((~right[chosen]).sum() / wrong)
    return float(np.mean(ratios)) if ratios else None


PLUGIN = Corruption()
