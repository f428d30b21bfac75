"""What the frozen part of a backbone says of each example, computed once and kept.

Rows are keyed by the content of the example, under a folder named by everything else that they depend on (weights,
architecture, preprocessing, input size, precision, cut). So a second run, another split, a search trial or ten more
photos in the folder cost only what is new.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from outdo import runtime
from outdo.contracts import Backbone, Encoded, Progress, Rows, State, batches
from outdo.storage import RowStore

# Batches are the same whatever is there already, and the last one is filled up: a row's bits must not depend on what
# was computed with it, or a run that was interrupted half way could not end in the same weights.
BATCH = {"image": 64, "text": 128}
VARIANTS = (0.5, 1.0)  # strengths of augmentation of the views from 2 on
Check = Callable[[], None]


class Features:
    """Pooled features and activations of one encoded dataset.

    `cache` None keeps them in a temporary folder for as long as this object lives.
    """

    def __init__(self, backbone: Backbone, encoded: Encoded, cache: Path | None, *, size: int | None = None,
                 progress: Progress | None = None, check: Check = lambda: None) -> None:
        self.backbone, self.encoded, self.size = backbone, encoded, size
        self.progress, self.check = progress, check
        cache = cache if runtime.uses("feature_cache") else None
        self._temporary = None if cache else tempfile.TemporaryDirectory(prefix="outdo-features-")
        self.folder = Path(cache or self._temporary.name) / "features"  # type: ignore[union-attr]
        self.seconds_per_example: float | None = None  # measured by the last pass that computed anything

    def pooled(self, indices: np.ndarray, sets: Sequence[str] | None = None) -> dict[str, np.ndarray]:
        """Feature sets (all, or those named) of the examples at `indices`: name -> (n, width) float32."""
        widths = dict(self.backbone.feature_sets)

        def compute(rows: np.ndarray) -> list[np.ndarray]:
            found = self.backbone.features(rows, self.size)
            return [np.concatenate([found[name].float().cpu().numpy() for name in widths], 1)]

        (rows,) = self._filled("pooled", [((sum(widths.values()),), "float32")], indices, compute)
        ends = dict(zip(widths, np.cumsum(list(widths.values())), strict=True))
        found = {name: np.empty((len(indices), widths[name]), np.float32) for name in sets or widths}
        for part in batches(len(indices), 1024):
            whole = rows[np.arange(part.start, part.stop)]
            for name, values in found.items():
                values[part] = whole[:, ends[name] - widths[name] : ends[name]]
        return found

    def activations(self, cuts: Sequence[int], indices: np.ndarray, view: int = 0) -> dict[int, Activations]:
        """The States before each of the blocks `cuts` (ascending), and under the backbone's depth the pooled output,
        all from one forward pass. `view` 0 is the example as it is, 1 its mirror image; those from 2 on are random
        variants of images, stronger by the view: see VARIANTS."""
        def states(rows: np.ndarray) -> dict[tuple[int, str], torch.Tensor]:
            found: dict[tuple[int, str], torch.Tensor] = {}
            with torch.no_grad():
                state, at = self.backbone.prepare(self._variant(rows, view), self.size), 0
                for cut in cuts:
                    state, at = self.backbone.run(state, at, cut), cut
                    kept = state if cut < self.backbone.depth else {"x": self.backbone.pool(state)}
                    wide = "mask" in kept
                    found |= {(cut, k): _widened(v, rows.shape[1]) if wide else v for k, v in kept.items()}
            return found

        probe = states(self.encoded.rows[indices[:1]])
        layout = [(tuple(value.shape[1:]), _stored_as(value)) for value in probe.values()]
        stored = self._filled(f"cuts {list(cuts)} view {view}", layout, indices,
                              lambda rows: [_to_disk(value) for value in states(rows).values()])
        rows = dict(zip(probe, stored, strict=True))
        return {cut: Activations({name: r for (at, name), r in rows.items() if at == cut}) for cut in cuts}

    def _variant(self, rows: np.ndarray, view: int) -> torch.Tensor:
        """View 0 as it is, 1 mirrored; the others drawn from the content of each row, so that batches do not matter."""
        batch = torch.from_numpy(rows)
        if view < 2:
            return batch.flip(2) if view else batch
        drawn = [self.backbone.augment(row[None], VARIANTS[view - 2],
                                       runtime.generator(view, zlib.crc32(row.numpy().tobytes()))) for row in batch]
        return torch.cat(drawn)

    def _filled(self, what: str, layout: Sequence[tuple[tuple[int, ...], str]], indices: np.ndarray,
                compute: Callable[[np.ndarray], list[np.ndarray]]) -> list[Rows]:
        """Stores (one for each array of `layout`) that hold the rows of `indices`, computing those that are missing."""
        place = self.folder / self.key(what, layout)
        stores = [RowStore(place / str(i), shape, dtype) for i, (shape, dtype) in enumerate(layout)]
        size, start, computed = BATCH[self.backbone.kind], time.perf_counter(), 0
        ordered = self._by_length(indices)
        for part in batches(len(ordered), size):
            chosen = ordered[part]
            keys = [self.encoded.digests[i] for i in chosen]
            if all((store.find(keys) >= 0).all() for store in stores):
                continue
            self.check()
            padded = np.concatenate([chosen, np.repeat(chosen[-1:], size - len(chosen))])
            for store, values in zip(stores, compute(self.encoded.rows[padded]), strict=True):
                store.append(keys, values[: len(chosen)])
            computed += len(chosen)
            if self.progress:
                self.progress("features" if what == "pooled" else "activations", part.stop, len(ordered))
        if computed >= size:
            self.seconds_per_example = (time.perf_counter() - start) / computed
        return [store.rows([self.encoded.digests[i] for i in indices]) for store in stores]

    def _by_length(self, indices: np.ndarray) -> np.ndarray:
        """Texts of one length together, so that little is padded; images as they come."""
        if self.backbone.kind != "text" or not runtime.uses("sorting"):
            return indices
        parts = [self.encoded.rows[indices[part]] for part in batches(len(indices), 4096)]
        lengths = np.concatenate([(rows >= 0).sum(1) for rows in parts])
        return indices[np.argsort(lengths, kind="stable")]

    def key(self, what: str, layout: Sequence[Any] = ()) -> str:
        """Names all that a row depends on besides its example: weights, preprocessing, size, precision and what else
        the backbone says."""
        backbone = self.backbone
        facts = [what, layout, backbone.origin.sha256, backbone.preprocessing(), backbone.depends_on, self.size,
                 backbone.precision, list(self.encoded.rows.shape[1:]), *runtime.without()]
        return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()[:32]


class Activations:
    """States on disk, a batch at a time."""

    def __init__(self, arrays: Mapping[str, Rows]) -> None:
        self.arrays = arrays

    def __len__(self) -> int:
        return len(next(iter(self.arrays.values())))

    def state(self, positions: np.ndarray, device: torch.device) -> State:
        """The batch at `positions`; texts are cut to the longest among them."""
        state = {name: _from_disk(rows[positions]).to(device) for name, rows in self.arrays.items()}
        if "mask" in state:
            longest = max(1, int(state["mask"].sum(1).max()))
            state = {name: value[:, :longest] for name, value in state.items()}
        return state


def lexical_counts(backbone: Backbone, rows: Rows) -> Any:
    """The hashed n-gram counts of all rows as one csr matrix; None where inputs have no words."""
    import scipy.sparse

    parts = [backbone.lexical(rows[np.arange(part.start, part.stop)]) for part in batches(len(rows), 4096)]
    return None if not parts or parts[0] is None else scipy.sparse.vstack(parts, format="csr")


def _widened(value: torch.Tensor, length: int) -> torch.Tensor:
    """(B, L, ...) filled up with zeros to (B, length, ...)."""
    return torch.cat([value, value.new_zeros(value.shape[0], length - value.shape[1], *value.shape[2:])], 1)


def _stored_as(value: torch.Tensor) -> str:
    """bfloat16 has no numpy type: its bits are kept as uint16. Channels-last images are stored as they lie."""
    return {torch.bfloat16: "uint16", torch.bool: "bool", torch.int64: "int64"}.get(value.dtype, "float32")


def _to_disk(value: torch.Tensor) -> np.ndarray:
    value = value.detach().cpu()
    if value.dtype == torch.bfloat16:
        return value.contiguous().view(torch.uint16).numpy()
    return value.contiguous().numpy()


def _from_disk(rows: np.ndarray) -> torch.Tensor:
    value = torch.from_numpy(rows)
    value = value.view(torch.bfloat16) if rows.dtype == np.uint16 else value
    return value.contiguous(memory_format=runtime.layout()) if value.ndim == 4 else value
