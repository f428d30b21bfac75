"""Copies: which examples have the same content, and which images nearly have. Never compares all with all."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from outdo.contracts import Encoded, batches

DISTANCE = 6  # of 64 bits; recompressed, resized and brightened copies differ by at most this in 99 of 100 cases
CROWD = 512  # a bucket with more members than this is split again, or compared only with neighbours
NEIGHBOURS = 32
FLAT = 4.0  # standard deviation of a thumb, in grey levels, below which it says too little to call two images copies
CORRELATION, CONTRAST, LIGHT = 0.98, 1.5, 25.0  # of two thumbs: least correlation, most ratio and shift of grey levels
_ALL = np.uint64(0xFFFFFFFFFFFFFFFF)


@dataclass(frozen=True)
class Copies:
    """Examples with one content share a node; `pairs` are nodes that nearly have one."""

    node: np.ndarray  # (N,) int64, -1 for an example that was refused
    pairs: np.ndarray  # (P, 2) int64 nodes, each pair once


def find_copies(encoded: Encoded) -> Copies:
    """Images: the same bytes, and nearly the same picture. Texts: the same but for case, blanks and punctuation."""
    usable = np.array([i not in encoded.problems for i in range(len(encoded))], dtype=bool)
    content = np.array(encoded.digests) if encoded.thumbs is not None else encoded.hashes
    node = np.full(len(encoded), -1, dtype=np.int64)
    _, first, node[usable] = np.unique(content[usable], return_index=True, return_inverse=True)
    if encoded.thumbs is None or not len(first):
        return Copies(node, np.zeros((0, 2), dtype=np.int64))
    first = np.flatnonzero(usable)[first]
    return Copies(node, near_pairs(encoded.hashes[first], encoded.thumbs[first]))


def near_pairs(hashes: np.ndarray, thumbs: np.ndarray, distance: int = DISTANCE) -> np.ndarray:
    """(P, 2) indices, i < j, of images whose hashes (M,) differ by at most `distance` bits and whose thumbs (M, 8, 8)
    show the same picture, perhaps lighter or with more contrast.

    By locality-sensitive hashing: of `distance` + 2 bands of the bits, two are the same in both. Every such pair is
    found, unless more than CROWD images share a hash, or most of one: there each is compared with the NEIGHBOURS
    nearest to it in hash and brightness. Nearly flat images are left out: a thumb says nothing about them.
    """
    looks = _Looks(thumbs)
    lively = np.flatnonzero(looks.contrast >= FLAT)
    order = lively[np.lexsort((looks.light[lively], hashes[lively]))]  # so that neighbours are alike
    codes = hashes[order].astype(np.uint64)
    found = [np.zeros((0, 2), dtype=np.int64)]
    found += [looks.agreeing(order[i], order[j]) for i, j in _pairs_within(_runs(codes), np.arange(len(codes)))]
    found += [looks.agreeing(order[i], order[j]) for i, j in _banded(codes, np.arange(len(codes)), _ALL, distance)]
    return np.unique(np.sort(np.concatenate(found), axis=1), axis=0)


class _Looks:
    """Thumbs apart into light, contrast and picture, so that comparing two pictures is one scalar product."""

    def __init__(self, thumbs: np.ndarray) -> None:
        flat = thumbs.reshape(len(thumbs), 64).astype(np.float32)
        self.light, self.contrast = flat.mean(1), flat.std(1)
        self.picture = (flat - self.light[:, None]) / np.maximum(self.contrast, 1e-3)[:, None]

    def agreeing(self, i: np.ndarray, j: np.ndarray) -> np.ndarray:
        """(K, 2) those of the pairs that show the same picture."""
        ratio = self.contrast[i] / self.contrast[j]
        alike = (np.abs(self.light[i] - self.light[j]) <= LIGHT) & (ratio <= CONTRAST) & (ratio >= 1 / CONTRAST)
        i, j = i[alike], j[alike]
        same = [np.einsum("nk,nk->n", self.picture[i[part]], self.picture[j[part]]) >= CORRELATION * 64
                for part in batches(len(i), 1 << 16)]
        agree = np.concatenate(same) if same else np.zeros(0, dtype=bool)
        return np.stack([i[agree], j[agree]], axis=1)


def components(count: int, pairs: np.ndarray) -> np.ndarray:
    """(count,) int64: the smallest node that each node is linked with, directly or by way of others."""
    label = np.arange(count)
    while len(pairs):
        least = np.minimum(label[pairs[:, 0]], label[pairs[:, 1]])
        before = label.copy()
        np.minimum.at(label, label[pairs.ravel()], np.repeat(least, 2))
        label = label[label]
        if (label == before).all():
            break
    return label


def _banded(codes: np.ndarray, members: np.ndarray, bits: np.uint64, distance: int, done: tuple[np.uint64, ...] = ()
            ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Positions that agree in two bands of `bits`, each pair in the first such two. A crowd is banded once more."""
    for band in _two_bands(bits, distance + 2):
        inside = members[np.argsort(codes[members] & band, kind="stable")]
        runs = _runs(codes[inside] & band)
        crowded = (runs[:, 1] - runs[:, 0] > CROWD) & (bits == _ALL)
        for i, j in _pairs_within(runs[~crowded], inside):
            apart = codes[i] ^ codes[j]
            near = (np.bitwise_count(apart) <= distance) & (apart != 0)
            for earlier in done:
                near &= (apart & earlier) != 0
            yield i[near], j[near]
        for start, stop in runs[crowded]:
            yield from _banded(codes, inside[start:stop], bits & ~band, distance, done)
        done = (*done, band)


def _two_bands(bits: np.uint64, count: int) -> list[np.uint64]:
    """The set bits dealt out into `count` bands, and each two of them as one mask: 65,536 buckets for 64 bits in 8."""
    places = [np.uint64(1 << p) for p in range(64) if int(bits) >> p & 1]
    bands = [np.bitwise_or.reduce(places[i::count]) for i in range(count)]
    return [one | other for one, other in itertools.combinations(bands, 2)]


def _runs(keys: np.ndarray) -> np.ndarray:
    """(R, 2) start and stop of the runs of two or more equal neighbours."""
    edges = np.concatenate([[0], np.flatnonzero(keys[1:] != keys[:-1]) + 1, [len(keys)]])
    runs = np.stack([edges[:-1], edges[1:]], axis=1)
    return runs[runs[:, 1] - runs[:, 0] > 1]


def _pairs_within(runs: np.ndarray, members: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """All pairs inside each run, by their distance in it; in a crowd only up to NEIGHBOURS apart."""
    size = runs[:, 1] - runs[:, 0]
    reach = np.where(size > CROWD, np.minimum(NEIGHBOURS, size - 1), size - 1)
    for step in range(1, int(reach.max(initial=0)) + 1):
        going = reach >= step
        starts, counts = runs[going, 0], size[going] - step
        i = np.repeat(starts - np.concatenate([[0], np.cumsum(counts)[:-1]]), counts) + np.arange(counts.sum())
        yield members[i], members[i + step]
