"""Linear probes: the optimum is scikit-learn's, what is held out stays out, and the choice is by held-out loss."""

import numpy as np
import pytest
import scipy.sparse
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression

from outdo.training import probe


def cloud(n, d, classes, seed=0):
    rng = np.random.default_rng(seed)
    codes = np.arange(n) % classes
    return (rng.normal(size=(n, d)) + 1.5 * rng.normal(size=(classes, d))[codes]).astype(np.float32), codes


@pytest.mark.parametrize(("n", "d", "classes"), [(200, 10, 3), (60, 90, 2)])
def test_the_optimum_is_scikit_learns(n, d, classes):
    x, codes = cloud(n, d, classes)
    x = x - x.mean(0)
    ours = probe.solve(probe.Dense(x), torch.from_numpy(codes), torch.ones(1, n), 0.1,
                       torch.zeros(1, d + 1, classes), iterations=500)[0].numpy()
    # of two classes scikit-learn penalises one weight vector w, the softmax w / 2 and -w / 2: half as much
    penalty = 0.05 if classes == 2 else 0.1
    theirs = LogisticRegression(C=1 / (penalty * n), tol=1e-10, max_iter=10_000).fit(x, codes)
    expected = theirs.predict_log_proba(x)
    got = torch.from_numpy(x @ ours[:-1] + ours[-1]).log_softmax(1).numpy()
    assert np.abs(np.exp(got) - np.exp(expected)).max() < 5e-3


def test_several_fits_at_once_are_the_fits_one_by_one():
    x, codes = cloud(90, 6, 3)
    weights = (torch.rand(4, 90, generator=torch.Generator().manual_seed(0)) > 0.3).float()
    start = torch.zeros(4, 7, 3)
    args = probe.Dense(x), torch.from_numpy(codes)
    together = probe.solve(*args, weights, 0.05, start, iterations=300)
    alone = torch.cat([probe.solve(*args, weights[i : i + 1], 0.05, start[:1], iterations=300) for i in range(4)])
    assert torch.allclose(together, alone, atol=2e-2)


@settings(max_examples=20)
@given(st.integers(3, 40), st.integers(2, 60), st.integers(0, 5))
def test_principal_axes_keep_scalar_products(n, d, seed):
    x = np.random.default_rng(seed).normal(size=(n, d)).astype(np.float32)
    turned, basis = probe.principal_axes(x)
    assert turned.shape[1] <= min(n, d)
    assert np.allclose(turned @ turned.T, x @ x.T, atol=1e-2 * d)
    assert np.allclose(turned @ basis.T, x, atol=1e-2 * d)
    products = turned.T @ turned
    assert np.allclose(products, np.diag(np.diag(products)), atol=1e-2 * n)


def test_labels_of_held_out_examples_do_not_matter():
    x, codes = cloud(120, 8, 3)
    held = (np.arange(120) % 4 == 0)[None]
    other = np.where(held[0], (codes + 1) % 3, codes)
    fits = [probe.fit_linear({"last": x}, c, [(("last",), "columns")], held, refit=False) for c in (codes, other)]
    assert fits[0].accuracy > 0.8 > 0.2 > fits[1].accuracy
    assert (fits[0].model({"last": x}).argmax(1) == fits[1].model({"last": x}).argmax(1)).mean() > 0.9


def test_the_folded_model_gives_what_was_held_out():
    """Standardisation, axes and intercept are folded into one matrix without a slip."""
    x, codes = cloud(150, 12, 3)
    held = (np.arange(150) % 5 == 0)[None]
    fitted = probe.fit_linear({"last": 3 * x + 7}, codes, [(("last",), "columns")], held, refit=False)
    outputs = fitted.model({"last": 3 * x + 7})
    assert np.allclose(outputs[held[0]], fitted.held_out[held[0]], atol=1e-2)


def test_the_better_feature_set_is_chosen():
    x, codes = cloud(150, 8, 3)
    noise = np.random.default_rng(1).normal(size=(150, 8)).astype(np.float32)
    held = probe.held_out_masks(codes, np.arange(150) % 5 == 0, None, 0)
    tried = [(("noise",), "columns"), (("x",), "columns")]
    assert probe.fit_linear({"x": x, "noise": noise}, codes, tried, held).model.sets == ("x",)


def test_folds_hold_every_example_out_once_and_groups_together():
    codes, groups = np.arange(100) % 2, np.repeat(np.arange(25), 4).astype(str)
    masks = probe.held_out_masks(codes, np.zeros(100, bool), groups, 0)
    assert (masks.sum(0) == 1).all()
    assert all(len({tuple(m[groups == g]) for g in [name]}) == 1 for m in masks for name in np.unique(groups)
               if m[groups == name].all() or not m[groups == name].any())
    assert all(m[groups == g].all() or not m[groups == g].any() for m in masks for g in np.unique(groups))


def test_words_tell_classes_apart():
    rng = np.random.default_rng(0)
    codes = np.arange(120) % 3
    counts = rng.poisson(0.2, (120, 30))
    counts[np.arange(120), codes] += 2
    held = (np.arange(120) % 4 == 0)[None]
    fitted = probe.fit_lexical(scipy.sparse.csr_matrix(np.pad(counts, ((0, 0), (100, 0)))), codes, held)
    assert fitted.accuracy > 0.9
    assert fitted.model.columns.min() >= 100
    answers = fitted.model(scipy.sparse.csr_matrix(np.pad(counts, ((0, 0), (100, 0)))))
    assert (answers.argmax(1) == codes).mean() > 0.9


def test_tfidf_rows_have_length_one():
    counts = scipy.sparse.csr_matrix(np.array([[1, 0, 2], [0, 0, 0], [3, 1, 1]]))
    x = probe.tfidf(counts, np.array([1.0, 2.0, 0.5], np.float32)).toarray()
    assert np.linalg.norm(x, axis=1) == pytest.approx([1, 0, 1])


@given(st.integers(0, 99), st.booleans())
def test_folds_deal_every_class_evenly_and_keep_groups_together(seed, grouped):
    rng = np.random.default_rng(seed)
    codes = rng.integers(0, 3, 60)
    groups = rng.integers(0, 30, 60).astype(str) if grouped else None
    fold = probe.dealt(codes, groups, 4, seed)
    if groups is None:
        counts = np.array([np.bincount(codes[fold == f], minlength=3) for f in range(4)])
        assert (counts.max(0) - counts.min(0) <= 1).all()
    else:
        assert all(len(set(fold[groups == g])) == 1 for g in set(groups))
    assert set(fold) == {0, 1, 2, 3}


def test_a_candidate_is_fitted_once():
    x, codes = cloud(150, 8, 3)
    held = probe.held_out_masks(codes, np.arange(150) % 5 == 0, None, 0)
    known = {}
    first = probe.fit_linear({"x": x}, codes, [(("x",), "columns")], held, known=known)
    probe.fit_linear({"x": x}, codes, [(("x",), "columns"), (("x",), "blocks")], held, known=known)
    assert known[(("x",), "columns")] is first
    assert len(known) == 2
