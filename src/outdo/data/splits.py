"""Train, validation and test: stratified, grouped, reproducible; and the seal on the test.

Validation chooses, test proves. Where the source declares a split it is kept; where it does not, one is carved out of
the training examples. Which examples are held out depends on the seed and their ids, never on their order.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from outdo.contracts import SPLITS, Dataset, Finding, TestSet
from outdo.errors import DataError

Share = float | Callable[[int], float]
CARVED_FROM = 3  # a class with fewer examples than this stays in training whole


@dataclass(frozen=True)
class Splits:
    """Indices into one dataset, each sorted; together they cover it once."""

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray

    def names(self) -> np.ndarray:
        """(N,) str: each example's split."""
        names = np.empty(sum(len(getattr(self, split)) for split in SPLITS), dtype="<U10")
        for split in SPLITS:
            names[getattr(self, split)] = split
        return names

    def as_json(self, ids: Sequence[str]) -> dict[str, list[str]]:
        """Ids by split, to be stored in a run."""
        return {split: [ids[i] for i in getattr(self, split)] for split in SPLITS}

    @classmethod
    def from_json(cls, stored: Mapping[str, Sequence[str]], ids: Sequence[str]) -> Splits:
        """The stored splits of the same examples, in whatever order they come now. Raises DataError for others."""
        where = {name: i for i, name in enumerate(ids)}
        told = [name for split in SPLITS for name in stored[split]]
        if set(told) != set(where) or len(told) != len(where):
            strange = sorted(set(told) ^ set(where))[:3]
            raise DataError("the examples are not the ones that were split", expected=f"{len(told)} examples",
                            found=f"{len(where)}; in only one of the two: {', '.join(strange)}",
                            fix="restore the data, or start a new run")
        return cls(*(np.array(sorted(where[name] for name in stored[split]), dtype=np.int64) for split in SPLITS))


def make_splits(codes: np.ndarray, declared: np.ndarray, groups: np.ndarray | None = None, *, seed: int,
                validation: Share = 0.2, test: Share = 0.2, ids: Sequence[str] | None = None,
                classes: Sequence[str] = ()) -> tuple[Splits, list[Finding]]:
    """Splits of examples with classes `codes` (N,) int, and what had to be decided.

    `declared` (N,) str is the source's own split, "" for none; a declared test or validation is kept. `test` is the
    share of all examples, `validation` the share of what is then left to train on; each may be a function of how many
    those are. Of each class the share is held out to the nearest whole example, but at least one where it has three
    or more, and one always stays in training. Examples of one group stay together. Raises DataError: a class of one
    example, or without a training example.
    """
    codes = np.asarray(codes)
    names = list(classes) or [str(c) for c in range(int(codes.max(initial=-1)) + 1)]
    keys = [str(i) for i in range(len(codes))] if ids is None else list(ids)
    _check_counts(codes, names)
    split = np.where(declared == "", "train", declared).astype("<U10")
    for part, share in (("test", test), ("validation", validation)):
        if not (split == part).any():
            left = np.flatnonzero(split == "train")
            held = _carve(codes[left], None if groups is None else groups[left],
                          share(len(left)) if callable(share) else share,
                          [_lot(seed, part, keys[i]) for i in left])
            split[left[held]] = part
    _check_trainable(codes, split, names)
    findings = [*_separated(groups, split), *_absent(codes, split, names)]
    return Splits(*(np.flatnonzero(split == part) for part in SPLITS)), findings


def _lot(seed: int, part: str, key: str) -> bytes:
    """What decides the order in which examples are tried."""
    return hashlib.blake2b(f"{seed}\x1f{part}\x1f{key}".encode("utf-8", "surrogateescape"), digest_size=8).digest()


def _carve(codes: np.ndarray, groups: np.ndarray | None, share: float, lots: Sequence[bytes]) -> np.ndarray:
    """Positions to hold out. Groups are tried by lot; one is taken when that brings the classes nearer to their share.

    Nearer is a smaller squared distance to the wanted counts, and every class must keep something to train on. For
    ungrouped examples this is rounding each class to the nearest whole number. Trying large groups first would fit
    the shares better, but hold out nothing but large groups.
    """
    have = np.bincount(codes)
    wanted = np.where(have >= CARVED_FROM, np.maximum(have * share, 1.0), 0.0) if share > 0 else np.zeros(len(have))
    wanted[(have > 0) & (have < CARVED_FROM)] = 0
    held_counts = np.zeros(len(have))
    held: list[np.ndarray] = []
    for members in _grouped(groups, lots):
        found, counts = np.unique(codes[members], return_counts=True) if len(members) > 1 else (codes[members], 1)
        after = held_counts[found] + counts
        gain = (wanted[found] - held_counts[found]) ** 2 - (wanted[found] - after) ** 2
        if gain.sum() > 0 and (after < have[found]).all():
            held_counts[found] = after
            held.append(members)
    return np.sort(np.concatenate(held)) if held else np.zeros(0, dtype=np.int64)


def _grouped(groups: np.ndarray | None, lots: Sequence[bytes]) -> list[np.ndarray]:
    """Positions of each group, in the order of their lots."""
    if groups is None:
        return [np.array([i]) for i in sorted(range(len(lots)), key=lots.__getitem__)]
    _, inverse = np.unique(groups, return_inverse=True)
    members = np.split(np.argsort(inverse, kind="stable"), np.cumsum(np.bincount(inverse))[:-1])
    return sorted(members, key=lambda group: min(lots[i] for i in group))


def _check_counts(codes: np.ndarray, names: Sequence[str]) -> None:
    alone = [names[int(c)] for c in np.flatnonzero(np.bincount(codes) == 1)]
    if alone:
        raise DataError(f"{_some(alone)} {'has' if len(alone) == 1 else 'have'} only one example",
                        expected="at least two of each class, to train on one and hold one out",
                        fix="add examples, merge the class into another, or remove it")


def _missing(codes: np.ndarray, split: np.ndarray, part: str) -> list[int]:
    """Classes without an example in the part."""
    return [int(c) for c in np.setdiff1d(codes, codes[split == part])]


def _check_trainable(codes: np.ndarray, split: np.ndarray, names: Sequence[str]) -> None:
    missing = _missing(codes, split, "train")
    if missing:
        raise DataError(f"{_some([names[c] for c in missing])} cannot be learned: no example of it is in train",
                        fix="move some examples into train, check the spelling of the class, or remove it")


def _separated(groups: np.ndarray | None, split: np.ndarray) -> list[Finding]:
    """Groups on several sides, which only a declared split can bring about."""
    if groups is None:
        return []
    pairs = np.unique(np.stack([groups.astype(str), split.astype(str)], 1), axis=0)
    found, sides = np.unique(pairs[:, 0], return_counts=True)
    apart = found[sides > 1]
    if not len(apart):
        return []
    return [Finding("group on both sides", len(apart), "groups have examples in more than one of the splits that the "
                    "source declares: the test may look better than the model is", tuple(map(str, apart[:10])))]


def _absent(codes: np.ndarray, split: np.ndarray, names: Sequence[str]) -> list[Finding]:
    findings = []
    for part in ("validation", "test"):
        missing = [names[c] for c in _missing(codes, split, part)]
        if missing:
            findings.append(Finding(f"class missing from {part}", len(missing), f"classes have no example in {part}: "
                                    "nothing can be said about them there", tuple(missing[:10])))
    return findings


def _some(names: Sequence[str]) -> str:
    listed = ", ".join(f"'{name}'" for name in names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
    return f"class {listed}" if len(names) == 1 else f"classes {listed}"


class SealedTest:
    """The test's labels behind one door: `open` is the only way to them, and tells how often it was used."""

    def __init__(self, data: Dataset, codes: np.ndarray, classes: Sequence[str]) -> None:
        self._data, self._codes, self._classes = data, codes, tuple(classes)

    def __len__(self) -> int:
        return len(self._data)

    def open(self, opened: Callable[[], Any]) -> TestSet:
        """The test set. `opened` is called first, so that a run has counted the opening before anything is seen."""
        opened()
        return TestSet(self._data.ids, self._data.inputs, self._codes, self._classes, self._data.columns)
