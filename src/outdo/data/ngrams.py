"""Token n-grams hashed into buckets: what a lexical model sees of a text. Needs numpy alone, so bundles use it too."""

from __future__ import annotations

import numpy as np

BUCKETS = 2**16


def hashed(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(row, bucket) of every single token and every pair of neighbours in (N, L) token ids, padded with -1.

    Feature hashing, Weinberger et al. 2009.
    """
    ids, here = np.asarray(rows).astype(np.uint64), np.asarray(rows) >= 0
    pairs = here[:, 1:] & here[:, :-1]
    pair_ids = (ids[:, :-1][pairs] + np.uint64(1)) << np.uint64(32) | ids[:, 1:][pairs]
    owners = np.concatenate([np.nonzero(here)[0], np.nonzero(pairs)[0]])
    return owners, np.concatenate([bucket(ids[here]), bucket(pair_ids)])


def counted(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """((N, K) int64 the buckets of each row once, (N, K) float32 how often), padded with -1 and 0."""
    owners, buckets = hashed(rows)
    keys, times = np.unique(owners * BUCKETS + buckets, return_counts=True)
    owners, buckets = np.divmod(keys, BUCKETS)
    place = np.arange(len(keys)) - np.searchsorted(owners, owners)  # within its row
    shape = len(rows), int(place.max(initial=0)) + 1
    which, often = np.full(shape, -1, np.int64), np.zeros(shape, np.float32)
    which[owners, place], often[owners, place] = buckets, times
    return which, often


def bucket(keys: np.ndarray) -> np.ndarray:
    """uint64 keys to their bucket: the high bits of a multiplication by 2**64 / golden ratio (Knuth)."""
    return ((keys * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(48)).astype(np.int64)
