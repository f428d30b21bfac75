"""Fits that were made before: read back as they were, made again when anything differs or the file is damaged."""

import numpy as np
import pytest
import scipy.sparse

from outdo.training import kept, probe


def linear():
    rng = np.random.default_rng(0)
    x, codes = rng.normal(size=(60, 5)).astype(np.float32), np.arange(60) % 3
    return probe.fit_linear({"last": x}, codes, [(("last",), "columns")], (np.arange(60) % 4 == 0)[None])


def lexical():
    counts = scipy.sparse.csr_matrix(np.random.default_rng(0).integers(0, 3, (40, 30)).astype(np.float32))
    return probe.fit_lexical(counts, np.arange(40) % 2, (np.arange(40) % 4 == 0)[None])


def never():
    raise AssertionError("fitted again")


def same(a, b):
    return all(np.array_equal(getattr(a, k), getattr(b, k), equal_nan=k == "held_out") for k in
               ("held_out", "strength", "loss", "accuracy")) and all(
        type(x) is type(y) and (x is None or all(np.array_equal(v, vars(y)[k]) for k, v in vars(x).items()))
        for x, y in ((a.model, b.model), (a.blind, b.blind)))


@pytest.mark.parametrize("fit", [linear, lexical])
def test_a_fit_is_read_back_as_it_was(tmp_path, fit):
    first = kept.remembered(tmp_path, ["a", np.arange(3)], fit)
    assert same(first, kept.remembered(tmp_path, ["a", np.arange(3)], never))


def test_other_facts_are_fitted_anew(tmp_path):
    kept.remembered(tmp_path, ["a", np.arange(3)], linear)
    for facts in (["b", np.arange(3)], ["a", np.arange(4)], ["a"]):
        with pytest.raises(AssertionError, match="again"):
            kept.remembered(tmp_path, facts, never)


def test_a_damaged_fit_is_made_again(tmp_path):
    first = kept.remembered(tmp_path, ["a"], linear)
    (path,) = tmp_path.rglob(kept.FILE)
    path.write_bytes(path.read_bytes()[:-20])
    assert same(first, kept.remembered(tmp_path, ["a"], linear))
    assert same(first, kept.remembered(tmp_path, ["a"], never))
