"""Linear probes on frozen features: softmax regression whose strength and feature sets are chosen on held-out examples.

The solver fits several weightings of the same examples at once (the folds of a cross-validation are one matrix
product), works on principal axes (exact; no more of them than examples, which is why 250 photos take milliseconds, and
each scaled by the bound on its curvature, which is why few iterations do), and walks from strong to weak
regularisation with warm starts.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch

if TYPE_CHECKING:
    import scipy.sparse

Scaling = Literal["columns", "blocks"]
Candidate = tuple[tuple[str, ...], Scaling]
STRENGTHS = tuple(10.0 ** -(k / 2) for k in range(13))  # penalty on the mean loss: 1 down to 1e-6
FOLDS = 5
AT_FIRST, ONWARDS = 80, 25  # iterations of a fit from nothing, and of one that starts near its optimum
REFERENCE = 1000
LARGE = 100_000_000  # values in a matrix of features above which wider candidates cost more than they bring
CHOOSE_ON = 5000  # examples on which candidates, and for large sets strengths, are compared
CROSS_VALIDATE_BELOW = 2500  # examples; above, one held-out split is precise enough


@dataclass(frozen=True)
class Linear:
    """logits = x @ weight + bias, x being the feature sets side by side; standardisation is folded in."""

    sets: tuple[str, ...]
    weight: np.ndarray  # (D, C) float32
    bias: np.ndarray  # (C,) float32

    def __call__(self, features: Mapping[str, np.ndarray]) -> np.ndarray:
        return side_by_side(features, self.sets) @ self.weight + self.bias


@dataclass(frozen=True)
class Lexical:
    """logits = tfidf(counts) @ weight + bias over hashed token n-grams; only the columns seen in training are kept."""

    columns: np.ndarray  # (V,) int64, ascending: which hash buckets
    idf: np.ndarray  # (V,) float32
    weight: np.ndarray  # (V, C) float32
    bias: np.ndarray  # (C,) float32

    def __call__(self, counts: scipy.sparse.csr_matrix) -> np.ndarray:
        return tfidf(counts[:, self.columns], self.idf) @ self.weight + self.bias


@dataclass(frozen=True)
class Fitted:
    """A probe and what was seen while choosing it."""

    model: Linear | Lexical
    blind: Linear | None  # as `model`, but fitted without the held-out examples of the first row
    held_out: np.ndarray  # (N, C) float32 logits from fits that had not seen the example; NaN where none exist
    strength: float
    loss: float  # mean held-out negative log-likelihood
    accuracy: float  # held-out


def side_by_side(features: Mapping[str, np.ndarray], sets: Sequence[str]) -> np.ndarray:
    return features[sets[0]] if len(sets) == 1 else np.concatenate([features[name] for name in sets], 1)


def held_out_masks(codes: np.ndarray, validation: np.ndarray, groups: np.ndarray | None, seed: int) -> np.ndarray:
    """(F, N) bool: which examples each fit must not see. Small sets: stratified folds over everything that is not
    test; large sets: one row, the validation split."""
    if len(codes) >= CROSS_VALIDATE_BELOW or np.bincount(codes).min() < 2:
        return validation[None]
    folds = int(min(FOLDS, max(2, np.bincount(codes).min())))
    return dealt(codes, groups, folds, seed) == np.arange(folds)[:, None]


def dealt(codes: np.ndarray, groups: np.ndarray | None, folds: int, seed: int) -> np.ndarray:
    """(N,) fold of each example, stratified: in random order each example, or whole group, goes to the fold that has
    least of its classes."""
    units = np.arange(len(codes)) if groups is None else np.unique(groups, return_inverse=True)[1]
    one_hot = np.eye(int(codes.max()) + 1)[codes]
    counts, out = np.zeros((folds, one_hot.shape[1])), np.zeros(len(codes), np.int64)
    for unit in np.random.default_rng(seed).permutation(int(units.max()) + 1):
        members = units == unit
        own = one_hot[members].sum(0)
        fold = min(range(folds), key=lambda f: (counts[f] @ own, counts[f].sum()))
        counts[fold] += own
        out[members] = fold
    return out


def candidates(widths: Mapping[str, int], examples: int = 0) -> list[Candidate]:
    """What to try, of the feature sets that a backbone has, where so many examples do not make them too wide. "last"
    by column is the field's usual linear probe."""
    usual: list[Candidate] = [(("last",), "columns"), (("last",), "blocks"), (("last", "pools"), "columns"),
                              (("classes",), "blocks"), (("last", "classes"), "blocks"),
                              (("last", "pools", "classes"), "blocks")]
    known: list[Candidate] = [one for one in usual if set(one[0]) <= set(widths)]
    return [one for one in known if examples * sum(widths[name] for name in one[0]) < LARGE] or known[:1]


def fit_linear(features: Mapping[str, np.ndarray], codes: np.ndarray, tried: Sequence[Candidate], held: np.ndarray,
               class_weights: np.ndarray | None = None, refit: bool = True,
               known: dict[Candidate, Fitted] | None = None, classes: int | None = None) -> Fitted:
    """The best of the candidates at its best strength, refitted on every example unless that is not wanted.

    features: name -> (N, D) float32; codes (N,); held: (F, N) bool from `held_out_masks`; class_weights (C,). `known`
    remembers each candidate's fit, for another call with the same examples. `classes` has to be said where these
    examples may lack the last ones.
    """
    strengths, known = STRENGTHS, {} if known is None else known
    if len(codes) > CHOOSE_ON:
        one, strongest = _chosen_on_few(features, codes, tried, class_weights)
        tried, strengths = [one], tuple(s for s in STRENGTHS if s < strongest * 11)
    for one in tried:
        if one not in known:
            known[one] = _fit_one(features, codes, one, held, class_weights, strengths, refit, classes)
    return min((known[one] for one in tried), key=lambda fitted: fitted.loss)


def _fit_one(features: Mapping[str, np.ndarray], codes: np.ndarray, one: Candidate, held: np.ndarray,
             class_weights: np.ndarray | None, strengths: Sequence[float], refit: bool, classes: int | None
             ) -> Fitted:
    names, scaling = one
    widths = [features[name].shape[1] for name in names]
    x, (mean, spread) = standardise(side_by_side(features, names), widths, scaling)
    x, basis = principal_axes(x)
    fitted = _fit_path(Dense(x), codes, held, class_weights, strengths, refit, classes)

    def unfolded(axes: Linear | Lexical | None) -> Linear:
        assert isinstance(axes, Linear)
        w = (basis @ axes.weight) / spread[:, None]
        return Linear(names, w.astype(np.float32), (axes.bias - mean @ w).astype(np.float32))

    return replace(fitted, model=unfolded(fitted.model), blind=unfolded(fitted.blind))


def _chosen_on_few(features: Mapping[str, np.ndarray], codes: np.ndarray, tried: Sequence[Candidate],
                   class_weights: np.ndarray | None) -> tuple[Candidate, float]:
    """The candidate that does best on a part of a large set, and its strength there: which features serve shows
    early, and more examples hardly ever ask for a stronger penalty."""
    few = _few(codes)
    held = (np.arange(len(few)) % 4 == 0)[None]
    part = {name: values[few] for name, values in features.items()}
    found = [fit_linear(part, codes[few], [one], held, class_weights, refit=False) for one in tried]
    best = min(range(len(tried)), key=lambda i: found[i].loss)
    return tried[best], found[best].strength


def fit_lexical(counts: scipy.sparse.csr_matrix, codes: np.ndarray, held: np.ndarray,
                class_weights: np.ndarray | None = None) -> Fitted:
    """A TF-IDF softmax regression on hashed n-gram counts (N, buckets)."""
    columns = np.unique(counts.indices).astype(np.int64)
    counts = counts[:, columns]
    seen = np.asarray((counts > 0).sum(0)).ravel()
    idf = (np.log((1 + counts.shape[0]) / (1 + seen)) + 1).astype(np.float32)
    x = tfidf(counts, idf)
    fitted = _fit_path(Sparse(x), codes, held, class_weights, STRENGTHS[8:])
    return replace(fitted, model=Lexical(columns, idf, fitted.model.weight, fitted.model.bias), blind=None)


def tfidf(counts: scipy.sparse.csr_matrix, idf: np.ndarray) -> scipy.sparse.csr_matrix:
    """Sublinear term frequency times idf, rows of length 1."""
    import scipy.sparse

    weighted = scipy.sparse.csr_matrix(counts, dtype=np.float32, copy=True)
    weighted.data = (1 + np.log(weighted.data)) * idf[weighted.indices]
    norms = np.sqrt(np.asarray(weighted.multiply(weighted).sum(1)).ravel())
    weighted.data /= np.repeat(np.maximum(norms, 1e-12), np.diff(weighted.indptr)).astype(np.float32)
    return weighted


class Dense:
    """The two products that the solver needs, laid out as torch multiplies by thin matrices fastest (45,000 x 1,280
    transposed by 10 columns: 32 ms, not 210). numpy would be as fast, but its threads and torch's fight for cores."""

    def __init__(self, matrix: np.ndarray) -> None:
        self.matrix, self.shape = torch.from_numpy(matrix), matrix.shape
        self.squares = self.matrix.square().mean(0)

    def __matmul__(self, other: torch.Tensor) -> torch.Tensor:
        return self.matrix @ other.T.contiguous().T

    def back(self, other: torch.Tensor) -> torch.Tensor:
        return (other.T @ self.matrix).T


class Sparse:
    """The same for a scipy matrix."""

    def __init__(self, matrix: scipy.sparse.csr_matrix) -> None:
        self.shape = matrix.shape
        self._forward, self._back = _csr(matrix), _csr(matrix.T.tocsr())
        self.squares = torch.from_numpy(np.asarray(matrix.multiply(matrix).mean(0)).ravel().astype(np.float32))

    def __matmul__(self, other: torch.Tensor) -> torch.Tensor:
        return self._forward @ other

    def back(self, other: torch.Tensor) -> torch.Tensor:
        return self._back @ other


def standardise(x: np.ndarray, widths: Sequence[int], scaling: Scaling
                ) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray]]:
    """(x - mean) / spread and (mean, spread), both (D,).

    By "columns" each has its own spread, though columns that hardly vary are not blown up. By "blocks" the columns of
    one feature set share one, which keeps their proportions: better for probabilities, and with few examples.
    """
    x = x.copy()  # the only one: features may be a large part of memory
    mean = x.mean(0, dtype=np.float64).astype(np.float32)
    spread = x.std(0, dtype=np.float64).astype(np.float32)
    for part in np.split(np.arange(x.shape[1]), np.cumsum(widths)[:-1]):
        typical = max(float(np.sqrt((spread[part] ** 2).mean())), 1e-12)
        # a block as a whole weighs as much as REFERENCE standardised columns, however wide it is
        spread[part] = (np.maximum(spread[part], 1e-3 * typical) if scaling == "columns"
                        else typical * np.sqrt(len(part) / REFERENCE))
    x -= mean
    x /= spread
    return x, (mean, spread)


def principal_axes(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The same problem in other coordinates: (N, r) with uncorrelated columns, and the basis (D, r), r <= min(N, D).

    An L2-penalised linear model's solution lies in the span of its examples, so nothing is lost.
    """
    n, d = x.shape
    values, vectors = np.linalg.eigh(x @ x.T if n < d else x.T @ x)
    keep = values > max(values[-1], 1e-30) * 1e-6
    if n >= d:
        return np.ascontiguousarray(x @ vectors[:, keep]), vectors[:, keep]
    root = np.sqrt(values[keep])
    return np.ascontiguousarray(vectors[:, keep] * root), np.ascontiguousarray(x.T @ (vectors[:, keep] / root))


def _fit_path(x: Dense | Sparse, codes: np.ndarray, held: np.ndarray, class_weights: np.ndarray | None,
              strengths: Sequence[float] = STRENGTHS, refit: bool = True, classes: int | None = None) -> Fitted:
    """Walk from strong to weak regularisation while the held-out loss falls; refit the best on everything."""
    classes = classes or int(codes.max()) + 1
    y = torch.from_numpy(codes)
    per_example = torch.ones(len(codes)) if class_weights is None else torch.from_numpy(class_weights)[y].float()
    weights = per_example * torch.from_numpy(~held).float()
    w = torch.zeros(len(held), x.shape[1] + 1, classes)
    best: tuple[float, float, float, np.ndarray, torch.Tensor] | None = None
    few = None if isinstance(x, Sparse) or len(codes) < 3 * CHOOSE_ON else _few(codes)
    seen = x if few is None or isinstance(x, Sparse) else Dense(x.matrix[few].numpy())
    at = np.arange(len(codes)) if few is None else few
    for i, strength in enumerate(strengths):
        w = solve(seen, y[at], weights[:, at], strength, w, ONWARDS if i else AT_FIRST)
        logits = _held_out(seen, w, held[:, at])
        loss, accuracy = _score(logits, codes[at])
        if best is None or loss < best[0] - 1e-5:
            best = loss, accuracy, strength, logits, w
        else:
            break
    assert best is not None
    loss, accuracy, strength, logits, start = best
    if few is not None:  # once more with everything, from where the few led; one prior weighs less among more examples
        strength *= len(few) / len(codes)
        w = solve(x, y, weights, strength, start, ONWARDS)
        logits = _held_out(x, w, held)
        (loss, accuracy), start = _score(logits, codes), w
    final = solve(x, y, per_example[None], strength, start.mean(0, keepdim=True), ONWARDS) if refit else start
    model, blind = (Linear((), w[0, :-1].numpy(), w[0, -1].numpy()) for w in (final, start))
    return Fitted(model, blind, logits, strength, loss, accuracy)


def solve(x: Dense | Sparse, y: torch.Tensor, weights: torch.Tensor, strength: float, start: torch.Tensor,
          iterations: int = AT_FIRST) -> torch.Tensor:
    """L-BFGS on F weighted softmax regressions at once: mean weighted loss + strength / 2 * |w|^2 each.

    x (N, D) with about uncorrelated columns, y (N,), weights (F, N), start (F, D + 1, C) with the biases, which are not
    penalised, last. Coordinates are scaled by the bound of Boehning (1992) on the softmax's curvature.
    """
    fits, wide, classes = start.shape
    share = weights / weights.sum(1, keepdim=True)
    one_hot = torch.nn.functional.one_hot(y, classes).float()
    scale = torch.cat([(x.squares / (2 * classes) + strength).rsqrt(), torch.ones(1)])[:, None]
    v = (start / scale).requires_grad_(True)

    def closure() -> torch.Tensor:
        with torch.no_grad():
            w = v * scale
            flat = w[:, :-1].permute(1, 0, 2).reshape(wide - 1, fits * classes)
            logits = (x @ flat).view(-1, fits, classes) + w[:, -1]
            log_p = logits.log_softmax(2)
            loss = -(share.T * log_p.gather(2, y[:, None, None].expand(-1, fits, 1))[..., 0]).sum()
            slope = log_p.exp().sub_(one_hot[:, None]).mul_(share.T[..., None])
            columns = slope.view(len(y), fits * classes)
            gradient = torch.empty_like(w)
            gradient[:, :-1] = x.back(columns).reshape(wide - 1, fits, classes).permute(1, 0, 2) + strength * w[:, :-1]
            gradient[:, -1] = slope.sum(0)
            v.grad = gradient * scale
            return loss + strength / 2 * w[:, :-1].square().sum()

    torch.optim.LBFGS([v], max_iter=iterations, history_size=10, tolerance_grad=1e-4, tolerance_change=1e-6,
                      line_search_fn="strong_wolfe").step(closure)
    return v.detach() * scale


def _few(codes: np.ndarray) -> np.ndarray:
    return np.sort(np.random.default_rng(0).permutation(len(codes))[:CHOOSE_ON])


def _held_out(x: Dense | Sparse, w: torch.Tensor, held: np.ndarray) -> np.ndarray:
    out = np.full((held.shape[1], w.shape[2]), np.nan, np.float32)
    for mask, one in zip(held, w, strict=True):
        logits = (x @ one[:-1] + one[-1]).numpy()
        out[mask] = logits[mask]
    return out


def _score(logits: np.ndarray, codes: np.ndarray) -> tuple[float, float]:
    """(mean negative log-likelihood, accuracy) over the rows that have held-out logits."""
    known = ~np.isnan(logits[:, 0])
    log_p = torch.from_numpy(logits[known]).log_softmax(1).numpy()
    truth = codes[known]
    return float(-log_p[np.arange(len(truth)), truth].mean()), float((log_p.argmax(1) == truth).mean())


def _csr(matrix: scipy.sparse.csr_matrix) -> torch.Tensor:
    rows, columns = (torch.from_numpy(part.astype(np.int64)) for part in (matrix.indptr, matrix.indices))
    with warnings.catch_warnings():  # torch calls its csr support a beta; two products are all that is needed
        warnings.simplefilter("ignore", UserWarning)
        return torch.sparse_csr_tensor(rows, columns, torch.from_numpy(matrix.data.astype(np.float32)), matrix.shape)
