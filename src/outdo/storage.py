"""Runs and caches on disk: atomic, resumable, hashed; safetensors, JSON and Parquet, never pickle.

A file is whole or absent: it is written beside its place and renamed. A cache is only ever appended to, and a torn
tail is cut off, so `kill -9` costs the row being written and nothing else.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import math
import os
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from outdo.errors import RunError

# ── atomic files ─────────────────────────────────────────────────────────────────────────────────────────────────────


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside `path`; renamed onto it when the block ends well, removed when it does not."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield draft
        with open(draft, "rb") as done:
            os.fsync(done.fileno())
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    with replacing(path) as draft:
        draft.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """JSON with sorted-as-given keys; not-a-number becomes null, because JSON has none."""
    write_text(path, as_json(value, indent=1) + "\n")


def as_json(value: Any, indent: int | None = None) -> str:
    """Readable where it can be; a file name that is not valid UTF-8 is escaped, and read back as it was."""
    text = json.dumps(plain(value), ensure_ascii=False, indent=indent, allow_nan=False)
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return json.dumps(plain(value), indent=indent, allow_nan=False)
    return text


def read_json(path: Path) -> Any:
    """Raises RunError when the file is missing or not JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RunError(f"{path} is missing", fix="is this an outdo run, and did it finish?") from None
    except (ValueError, UnicodeDecodeError) as error:
        raise RunError(f"{path} is damaged ({error})", fix="restore it, or run again into a new folder") from None


def plain(value: Any) -> Any:
    """The value as JSON types: numpy scalars and arrays, tuples and paths converted; NaN and infinity to None."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [plain(item) for item in value]
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return str(value) if isinstance(value, Path) else value


def write_tensors(path: Path, tensors: Mapping[str, Any], note: Mapping[str, Any] | None = None) -> None:
    """Torch tensors as safetensors, with `note` as JSON in the header."""
    from safetensors.torch import save_file

    with replacing(path) as draft:
        save_file({k: v.detach().cpu().contiguous() for k, v in tensors.items()}, str(draft),
                  metadata={"outdo": json.dumps(plain(note or {}))})


def read_tensors(path: Path) -> tuple[dict[str, Any], Any]:
    """(tensors on the CPU, note). Raises RunError when the file is missing or damaged."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), framework="pt") as opened:
            note = json.loads((opened.metadata() or {}).get("outdo", "{}"))
            return {name: opened.get_tensor(name) for name in opened.keys()}, note  # noqa: SIM118 (not a mapping)
    except FileNotFoundError:
        raise RunError(f"{path} is missing", fix="is this an outdo run, and did it finish?") from None
    except (SafetensorError, OSError) as error:
        raise RunError(f"{path} is damaged ({error})", fix="restore it, or run again into a new folder") from None


def full_disk(error: OSError, place: Path) -> RunError:
    """What to say when writing failed; anything that is not the user's to mend is raised again as it was."""
    reasons = {errno.ENOSPC: "the disk is full", errno.EDQUOT: "the disk quota is used up",
               errno.EROFS: "the file system is read-only", errno.EACCES: "it may not be written to",
               errno.EPERM: "it may not be written to", errno.ENOTDIR: "a file stands where a folder is needed",
               errno.EEXIST: "a file stands where a folder is needed"}
    if error.errno not in reasons:
        raise error
    return RunError(f"cannot write {error.filename or place}: {reasons[error.errno]}",
                    fix="free space or choose another folder (--out, OUTDO_CACHE), then run again with --resume")


# ── rows ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


class RowStore:
    """An append-only file of fixed-size rows, found again by key.

    `folder/rows.bin` holds the rows, `folder/keys.bin` a 16-byte key for each. Rows are read with `pread` and never
    mapped, so memory grows with what is asked for and not with the file. Safe with several processes appending.
    """

    KEY = 16

    def __init__(self, folder: Path, shape: Sequence[int], dtype: Any) -> None:
        self.folder, self.row_shape, self.dtype = Path(folder), tuple(shape), np.dtype(dtype)
        self.row_bytes = int(np.prod(self.row_shape, dtype=np.int64)) * self.dtype.itemsize
        self.folder.mkdir(parents=True, exist_ok=True)
        self._rows = os.open(self.folder / "rows.bin", os.O_RDWR | os.O_CREAT, 0o600)
        self._keys = os.open(self.folder / "keys.bin", os.O_RDWR | os.O_CREAT, 0o600)
        self._index: dict[bytes, int] = {}
        self._known = 0
        os.utime(self.folder)  # the oldest caches are evicted first
        self._refresh()

    def __del__(self) -> None:
        for handle in (getattr(self, "_rows", None), getattr(self, "_keys", None)):
            if handle is not None:
                with contextlib.suppress(OSError):
                    os.close(handle)

    def __len__(self) -> int:
        return self._known

    def find(self, keys: Sequence[str]) -> np.ndarray:
        """Position of each key's row, -1 where there is none: (len(keys),) int64."""
        self._refresh()
        return np.array([self._index.get(self._short(key), -1) for key in keys], dtype=np.int64)

    def append(self, keys: Sequence[str], rows: np.ndarray) -> None:
        """Add rows; keys that are there already are skipped. Rows first, then keys: a key vouches for its row.

        A power failure may keep keys and lose their rows. Such keys go before the places of their rows are filled, or a
        kill before the new keys are written would leave old ones to vouch for new rows.
        """
        rows = np.ascontiguousarray(rows, dtype=self.dtype)
        assert rows.shape == (len(keys), *self.row_shape), (rows.shape, len(keys), self.row_shape)
        with self._locked():
            self._refresh()
            new = [i for i, key in enumerate(keys) if self._short(key) not in self._index]
            if not new:
                return
            if os.fstat(self._keys).st_size > self._known * self.KEY:
                os.ftruncate(self._keys, self._known * self.KEY)
                os.fsync(self._keys)
            write_all(self._rows, rows[new].tobytes(), self._known * self.row_bytes)
            write_all(self._keys, b"".join(self._short(keys[i]) for i in new), self._known * self.KEY)
            self._refresh()
        with contextlib.suppress(FileNotFoundError):  # evicted meanwhile: the open files live on
            os.utime(self.folder)  # filling it for hours is no idleness

    def read(self, positions: np.ndarray) -> np.ndarray:
        """The rows at `positions`, in that order; neighbours are fetched in one call."""
        positions = np.asarray(positions, dtype=np.int64)
        out = np.empty((len(positions), *self.row_shape), self.dtype)
        flat = out.reshape(len(positions), -1).view(np.uint8) if len(positions) else out
        breaks = np.flatnonzero(np.diff(positions) != 1) + 1
        for run in np.split(np.arange(len(positions)), breaks) if len(positions) else []:
            part = memoryview(flat[run[0] : run[-1] + 1].data).cast("B")
            read_all(self._rows, part, int(positions[run[0]]) * self.row_bytes)
        return out

    def rows(self, keys: Sequence[str]) -> StoredRows:
        """The rows of `keys` as one array-like. Every key must be there."""
        positions = self.find(keys)
        assert (positions >= 0).all(), "rows asked for that were never appended"
        return StoredRows(self, positions)

    def _short(self, key: str) -> bytes:
        return hashlib.blake2b(key.encode("utf-8", "surrogateescape"), digest_size=self.KEY).digest()

    def _refresh(self) -> None:
        whole = min(os.fstat(self._keys).st_size // self.KEY,
                    os.fstat(self._rows).st_size // self.row_bytes if self.row_bytes else 0)
        if whole > self._known:
            buffer = os.pread(self._keys, (whole - self._known) * self.KEY, self._known * self.KEY)
            for i in range(len(buffer) // self.KEY):
                self._index.setdefault(buffer[i * self.KEY : (i + 1) * self.KEY], self._known + i)
            self._known += len(buffer) // self.KEY  # fewer than `whole` while another process appends

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        fcntl.flock(self._keys, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(self._keys, fcntl.LOCK_UN)


class StoredRows:
    """Rows of a RowStore, in an order of one's own; satisfies `contracts.Rows`."""

    def __init__(self, store: RowStore, positions: np.ndarray) -> None:
        self.store, self.positions = store, positions
        self.shape = (len(positions), *store.row_shape)
        self.dtype = store.dtype

    def __len__(self) -> int:
        return len(self.positions)

    def __getitem__(self, indices: np.ndarray) -> np.ndarray:
        return self.store.read(self.positions[indices])


def write_all(handle: int, data: bytes, offset: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(handle, view, offset)
        view, offset = view[written:], offset + written


def read_all(handle: int, into: memoryview, offset: int) -> None:
    while into:
        got = os.preadv(handle, [into], offset)
        assert got > 0, "a cache file is shorter than its keys say"
        into, offset = into[got:], offset + got


# ── the cache folder ─────────────────────────────────────────────────────────────────────────────────────────────────


def cache_folder() -> Path:
    """$OUTDO_CACHE, else $XDG_CACHE_HOME/outdo, else ~/.cache/outdo."""
    if said := os.environ.get("OUTDO_CACHE"):
        return Path(said)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "outdo"


def evict(cache: Path, keep_bytes: int | None = None) -> None:
    """Remove the least recently used row stores and fits until the cache is within `keep_bytes`.

    The default is $OUTDO_CACHE_GB, else 20 GB, and never more than half of what the disk has free.
    """
    if not cache.is_dir():
        return
    if keep_bytes is None:
        free = shutil.disk_usage(cache).free
        keep_bytes = min(int(float(os.environ.get("OUTDO_CACHE_GB", "20")) * 1e9), free // 2)
    stores = dict(_stores(cache))
    total = sum(size for _, size in stores.values())
    for store in sorted(stores, key=lambda store: stores[store]):
        if total <= keep_bytes:
            return
        with contextlib.suppress(FileNotFoundError):  # another run that ends now removed it
            if time.time() - store.stat().st_mtime < 3600:  # perhaps in use
                return
        shutil.rmtree(store, ignore_errors=True)
        total -= stores[store][1]


def _stores(cache: Path) -> Iterator[tuple[Path, tuple[float, int]]]:
    """Each store and fit with (when it was used, its bytes). What lies inside of a store goes with it."""
    for folder, inside, files in os.walk(cache):
        if {"rows.bin", "fit.safetensors"} & set(files):
            inside.clear()
            with contextlib.suppress(FileNotFoundError):  # another run that ends now removes it
                size = sum(file.stat().st_size for file in Path(folder).rglob("*"))
                yield Path(folder), (os.stat(folder).st_mtime, size)
