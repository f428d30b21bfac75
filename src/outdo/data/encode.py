"""Inputs become rows that a network eats: images decoded once into a cache of pixels, texts into token ids.

In the same pass each input gets a digest of its content and a perceptual hash, from which `checks` finds copies.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from unicodedata import category

import numpy as np
import PIL

from outdo.contracts import Encoded, Inputs, Progress, Rows, batches
from outdo.data import images
from outdo.storage import RowStore

BATCH, BATCH_BYTES = 256, 64 << 20  # images decoded before they are stored: at most so many, and so many bytes
THREADS = min(8, os.cpu_count() or 1)
# What is known of an image beside its pixels. A refusal is a fact about its bytes and is kept; a file that could not
# be read is tried again, because that may pass. `reason` is cut to fit.
ABOUT = np.dtype([("digest", "u1", 32), ("hash", "<u8"), ("thumb", "u1", (8, 8)), ("size", "<u4", 2),
                  ("reason", "S132")])
_NOTHING = "\0no image"  # the key of the one row of zeros that all refused images share


@dataclass(frozen=True)
class Seen:
    """One image after the pass. `pixels` is None where it was refused or could not be read."""

    pixels: np.ndarray | None
    grey: np.ndarray | None
    size: tuple[int, int]
    digest: bytes = b""
    reason: str = ""
    lasting: bool = True  # whether to remember the refusal


def encode_images(inputs: Inputs, *, size: int, fit: images.Fit, cache: Path | None,
                  store: tuple[int, int] | None = None, progress: Progress | None = None
                  ) -> tuple[Encoded, tuple[int, int]]:
    """Every image as a row (H, W, 3) uint8, and the (H, W) of the rows. A second call reads no image at all.

    Rows are (`size`, `size`), unless all images have one size that does not exceed it: then they keep that size (32 x
    32 stays so, and the network enlarges it on the fly). `store` says the (H, W) instead, as a trained model must.
    Without `cache` the rows live in a temporary file that goes when they do. Memory holds one batch.
    """
    with _folder(cache) as folder:
        work = _Images(inputs, size, fit, folder, progress)
        if store is None:
            native = work.native(size)
            store = native if native and work.fill(native, only=native) else (size, size)
        work.fill(store)
        return work.encoded(store), store


def take(encoded: Encoded, indices: np.ndarray) -> Encoded:
    """The examples at `indices`, in that order."""
    where = {int(old): new for new, old in enumerate(indices)}
    return Encoded(
        rows=Picked(encoded.rows, np.asarray(indices, dtype=np.int64)),
        digests=tuple(encoded.digests[i] for i in indices),
        problems={where[i]: reason for i, reason in encoded.problems.items() if i in where},
        hashes=encoded.hashes[indices],
        thumbs=None if encoded.thumbs is None else encoded.thumbs[indices],
    )


class Picked:
    """Some rows of others; satisfies `contracts.Rows`."""

    def __init__(self, rows: Rows, indices: np.ndarray) -> None:
        self.rows, self.indices = rows, indices
        self.shape, self.dtype = (len(indices), *rows.shape[1:]), rows.dtype

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, indices: np.ndarray) -> np.ndarray:
        return self.rows[self.indices[indices]]


@contextmanager
def _folder(cache: Path | None) -> Iterator[Path]:
    """Where the stores lie. A temporary folder is removed at once: the open files live on until the rows are let go."""
    if cache is not None:
        yield Path(cache) / "images"
    else:
        with tempfile.TemporaryDirectory(prefix="outdo-", ignore_cleanup_errors=True) as folder:
            yield Path(folder)


def version() -> str:
    """Pixels of another decoder are not ours."""
    return f"{images.VERSION}-pillow{PIL.__version__}"


class _Images:
    """The stores of one `encode_images`: the sizes of all images seen, and pixels and facts for each size of row."""

    def __init__(self, inputs: Inputs, size: int, fit: images.Fit, folder: Path, progress: Progress | None) -> None:
        self.inputs, self.size, self.fit, self.folder, self.progress = inputs, size, fit, folder, progress
        self.problems: dict[int, str] = {}  # files that cannot be read now
        self.keys = [self._key(i) for i in range(len(inputs))]
        self.sizes = RowStore(folder / f"sizes-{version()}", (2,), np.uint32)

    def native(self, size: int) -> tuple[int, int] | None:
        """The one size of all images as far as it is known, else the first one's as a guess; None if it will not do."""
        found = self.sizes.find(self.keys)
        known = np.unique(self.sizes.read(found[found >= 0]), axis=0)
        own = [(int(high), int(wide)) for high, wide in known if high]  # (0, 0) is a refused image
        if not own and (found < 0).any():
            peeked = (_see(self.inputs, i, None, self.fit) for i in np.flatnonzero(found < 0)[:20])
            own = [next((seen.size for seen in peeked if seen.pixels is not None), (size + 1, size + 1))]
        keeps = len(own) == 1 and max(own[0]) <= size and (self.fit == "squash" or own[0][0] == own[0][1])
        return own[0] if keeps else None

    def fill(self, store: tuple[int, int], only: tuple[int, int] | None = None) -> bool:
        """Decode what is not in the stores yet; False, early, when an image is not of the `only` size."""
        pixels, about = self._stores(store)
        missing = self._missing(pixels, about)
        with ThreadPoolExecutor(THREADS) as pool:
            for part in batches(len(missing), min(BATCH, max(1, BATCH_BYTES // pixels.row_bytes))):
                seen = list(pool.map(partial(_see, self.inputs, size=store, fit=self._fit(store)), missing[part]))
                self.problems |= {int(i): s.reason for i, s in zip(missing[part], seen, strict=True) if not s.lasting}
                self._keep([self.keys[i] for i in missing[part]], seen, pixels, about)
                if only and any(one.pixels is not None and one.size != only for one in seen):
                    return False
                if self.progress:
                    self.progress("reading images", len(self.keys) - len(missing) + part.stop, len(self.keys))
        return True

    def _missing(self, pixels: RowStore, about: RowStore) -> list[int]:
        """Images that are not there whole: a power failure may keep what was written last and lose what came first."""
        lost, seen = pixels.find(self.keys) < 0, about.find(self.keys)
        refused = lost & (seen >= 0)
        refused[refused] = about.read(seen[refused])["reason"] != b""
        whole = (seen >= 0) & (refused | ~lost)
        return [int(i) for i in np.flatnonzero(~whole) if i not in self.problems]

    def encoded(self, store: tuple[int, int]) -> Encoded:
        pixels, about = self._stores(store)
        rows = np.zeros(len(self.keys), ABOUT)
        known = [i for i in range(len(self.keys)) if i not in self.problems]
        rows[known] = about.read(about.find([self.keys[i] for i in known]))
        problems = self.problems | {i: rows["reason"][i].decode("utf-8", "ignore") for i in known if rows["reason"][i]}
        if problems:
            pixels.append([_NOTHING], np.zeros((1, *store, 3), np.uint8))
        return Encoded(
            rows=pixels.rows([_NOTHING if i in problems else key for i, key in enumerate(self.keys)]),
            digests=tuple("" if i in problems else row.tobytes().hex() for i, row in enumerate(rows["digest"])),
            problems=dict(sorted(problems.items())),
            hashes=rows["hash"].astype(np.uint64),
            thumbs=rows["thumb"],
        )

    def _fit(self, store: tuple[int, int]) -> images.Fit:
        """Images that are small by themselves are taken whole: there is nothing to spare."""
        return self.fit if store == (self.size, self.size) else "squash"

    def _key(self, index: int) -> str:
        try:
            return self.inputs.signature(index)
        except OSError as error:
            self.problems[index] = f"cannot be read ({error.strerror or error})"
            return f"\0{index}"

    def _stores(self, store: tuple[int, int]) -> tuple[RowStore, RowStore]:
        """Pixels, and inside their folder what vouches for them: whoever evicts the pixels evicts both."""
        place = self.folder / f"{store[0]}x{store[1]}-{self._fit(store)}-{version()}"
        return RowStore(place, (*store, 3), np.uint8), RowStore(place / "about", (), ABOUT)

    def _keep(self, keys: Sequence[str], seen: Sequence[Seen], pixels: RowStore, about: RowStore) -> None:
        """Pixels first: what is said about an image vouches for them."""
        good = [i for i, one in enumerate(seen) if one.pixels is not None]
        lasting = [i for i, one in enumerate(seen) if one.lasting]
        rows = np.zeros(len(seen), ABOUT)
        for i in lasting:
            rows[i]["digest"] = np.frombuffer(seen[i].digest, np.uint8)
            rows[i]["size"] = seen[i].size
            rows[i]["reason"] = seen[i].reason.encode()
        if good:
            pixels.append([keys[i] for i in good], np.stack([one.pixels for one in seen if one.pixels is not None]))
            greys = np.stack([one.grey for one in seen if one.grey is not None])
            rows["hash"][good], rows["thumb"][good] = perceptual_hash(greys), thumbs(greys)
        about.append([keys[i] for i in lasting], rows[lasting])
        self.sizes.append([keys[i] for i in lasting], rows["size"][lasting])


def _see(inputs: Inputs, index: int, size: tuple[int, int] | None, fit: images.Fit) -> Seen:
    try:
        data = inputs.read(int(index))
    except OSError as error:
        return Seen(None, None, (0, 0), reason=f"cannot be read ({error.strerror or error})", lasting=False)
    assert isinstance(data, bytes)
    digest = hashlib.sha256(data).digest()
    try:
        with images.refusing():
            image = images.upright(data, size)
            own = image.height, image.width
            return Seen(images.fitted(image, size, fit), images.grey(image), own, digest)
    except images.RefusedImage as refused:
        return Seen(None, None, (0, 0), digest, reason=str(refused))


def thumbs(greys: np.ndarray) -> np.ndarray:
    """(N, 32, 32) grey to (N, 8, 8) uint8 means."""
    return np.rint(greys.reshape(-1, 8, 4, 8, 4).mean((2, 4))).astype(np.uint8)


def perceptual_hash(greys: np.ndarray) -> np.ndarray:
    """(N, 32, 32) grey to (N,) uint64: which of the 64 lowest frequencies of the cosine transform exceed their median.

    Survives resizing, recompression and mild changes of light (Zauner 2010, "pHash"). Coefficients are rounded, so
    that the noise of a flat image does not pass for content: all flat images share the hash 0.
    """
    wave = np.cos(np.pi * (np.arange(32) + 0.5)[None] * np.arange(9)[:, None] / 32)  # (9 frequencies, 32)
    low = np.rint(np.einsum("fi,nij,gj->nfg", wave, greys.astype(np.float64), wave, optimize=True) / 64)
    chosen = low.reshape(len(low), 81)[:, 1:65]  # without the mean
    bits = chosen > np.median(chosen, axis=1, keepdims=True)
    return np.packbits(bits, axis=1).view(">u8").ravel().astype(np.uint64)


# ── texts ────────────────────────────────────────────────────────────────────────────────────────────────────────────


class ArrayRows:
    """Rows in memory; satisfies `contracts.Rows`."""

    def __init__(self, values: np.ndarray) -> None:
        self.values, self.shape, self.dtype = values, values.shape, values.dtype

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, indices: np.ndarray) -> np.ndarray:
        return self.values[indices]


def encode_texts(inputs: Inputs, tokenise: Callable[[list[str]], list[list[int]]] | None, max_length: int = 0,
                 progress: Progress | None = None) -> tuple[Encoded, int]:
    """Every text as a row of int32 token ids, padded with -1 to the longest, and how many texts were cut.

    The longest is rounded up to a multiple of 8 and capped at `max_length`; `tokenise` gives ids of any length, the
    special ones included, and a cut keeps the last of them. None gives rows of length 0: digests and hashes alone,
    for checks that need no tokenizer.
    """
    words = [inputs.read(i) for i in range(len(inputs))]
    said = [word for word in words if isinstance(word, str)]
    assert len(said) == len(words), "texts expected"
    tokens: list[np.ndarray] = []
    cut = 0
    for part in batches(len(said), 1024):
        whole = tokenise(said[part]) if tokenise else [[]] * len(said[part])
        cut += sum(len(ids) > max_length for ids in whole)
        tokens += [_cut(ids, max_length) for ids in whole]  # here: the ids of whole books would not fit into memory
        if progress:
            progress("reading texts", len(tokens), len(said))
    longest = min(max_length, -(-max(map(len, tokens), default=0) // 8) * 8)
    rows = np.full((len(said), longest), -1, np.int32)
    for row, ids in zip(rows, tokens, strict=True):
        row[: len(ids)] = ids
    digests = tuple(hashlib.sha256(word.encode("utf-8", "surrogatepass")).hexdigest() for word in said)
    hashes = np.array([text_hash(word) for word in said], dtype=np.uint64)
    return Encoded(ArrayRows(rows), digests, {}, hashes), cut


def _cut(ids: list[int], longest: int) -> np.ndarray:
    return np.array(ids if len(ids) <= longest else [*ids[: longest - 1], ids[-1]], np.int32)


def text_hash(text: str) -> int:
    """64 bits of the text without case, blanks and punctuation; of the text itself where nothing else is left.

    Accents of scripts that write them apart and symbols stay: "5 $" is not "5 £", nor one emoji another.
    """
    bare = text.casefold().translate(_BARE) or text.strip()
    return int.from_bytes(hashlib.blake2b(bare.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")


class _Bare(dict[int, int | None]):
    """For `str.translate`: letters, numbers, marks and symbols stay; learned character by character."""

    def __missing__(self, code: int) -> int | None:
        self[code] = code if category(chr(code))[0] in "LNMS" else None
        return self[code]


_BARE = _Bare()
