"""What goes into a model, read lazily: a file, a member of a zip, a cell of a Parquet column, or a text."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import stat
import threading
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import Image

from outdo.contracts import Kind
from outdo.data.images import MAX_BYTES


class Item(Protocol):
    def read(self) -> bytes | str: ...
    def signature(self) -> str: ...


class Items:
    """Inputs of any mixture of items; satisfies `contracts.Inputs`."""

    def __init__(self, kind: Kind, items: Sequence[Item]) -> None:
        self.kind, self.items = kind, items

    def __len__(self) -> int:
        return len(self.items)

    def read(self, index: int) -> bytes | str:
        return self.items[index].read()

    def signature(self, index: int) -> str:
        return self.items[index].signature()

    def take(self, indices: np.ndarray) -> Items:
        return Items(self.kind, [self.items[i] for i in indices])


def files(paths: Sequence[str | Path]) -> Items:
    """Image files as inputs, for prediction."""
    return Items("image", [File(os.path.abspath(path)) for path in paths])


def texts(values: Sequence[str]) -> Items:
    """Texts as inputs, for prediction."""
    return Items("text", [Text(value) for value in values])


def pictures(images: np.ndarray) -> Items:
    """Decoded images (N, H, W, 3) uint8 as inputs, for those who only take files: as BMP, which loses nothing."""
    return Items("image", [Picture(image) for image in images])


@dataclass(frozen=True, slots=True)
class File:
    path: str  # absolute

    def read(self) -> bytes:
        with open(self.path, "rb", opener=_nonblocking) as opened:
            status = os.fstat(opened.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise OSError(errno.EINVAL, "not a regular file", self.path)
            _check_bytes(status.st_size, self.path)
            return opened.read()

    def signature(self) -> str:
        status = os.stat(self.path)
        return f"{self.path}:{status.st_size}:{status.st_mtime_ns}"


@dataclass(frozen=True, slots=True)
class Text:
    text: str

    def read(self) -> str:
        return self.text

    def signature(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    pixels: np.ndarray  # (H, W, 3) uint8

    def read(self) -> bytes:
        encoded = io.BytesIO()
        Image.fromarray(self.pixels).save(encoded, "BMP")
        return encoded.getvalue()

    def signature(self) -> str:
        return f"{self.pixels.shape}:{hashlib.sha256(self.pixels.tobytes()).hexdigest()}"


class Archive:
    """A zip read in place. Nothing is ever unpacked to disk."""

    def __init__(self, path: Path) -> None:
        self.path = os.path.abspath(path)
        self.zip = zipfile.ZipFile(path)

    def read(self, member: zipfile.ZipInfo) -> bytes:
        """Never more bytes than the member's entry says. Raises OSError when damaged."""
        _check_bytes(member.file_size, member.filename)
        try:
            return self.zip.read(member)
        except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
            raise OSError(errno.EIO, f"damaged in the zip ({error})", member.filename) from None


@dataclass(frozen=True, slots=True)
class Member:
    archive: Archive
    member: zipfile.ZipInfo

    def read(self) -> bytes:
        return self.archive.read(self.member)

    def signature(self) -> str:
        return f"{self.archive.path}:{self.member.filename}:{self.member.CRC}:{self.member.file_size}"


class ParquetColumn:
    """Bytes of one column of a Parquet file, a few at a time.

    A cursor walks through a row group in batches of about 16 MB, so that reading in order is one pass over the file
    and memory does not grow with it. The two latest batches stay, for threads that read side by side.
    """

    BATCH_BYTES = 16 << 20

    def __init__(self, path: str | Path, column: str) -> None:
        self.path, self.column = os.path.abspath(path), column
        status = os.stat(path)
        self.stamp = f"{self.path}:{column}:{status.st_size}:{status.st_mtime_ns}"
        self._lock = threading.Lock()
        self._file: Any = None
        self._walk: Any = None
        self._next = self._end = 0  # the cursor's next row, and the first row that its walk does not reach
        self._windows: list[tuple[int, Any]] = []  # (first row, values)

    def read(self, row: int) -> bytes:
        with self._lock:
            value = next((values[row - start] for start, values in self._windows if start <= row < start + len(values)),
                         None)
            found = (value if value is not None else self._seek(row)).as_py()
        if found is None:
            raise OSError(errno.ENODATA, "the cell is empty", f"{self.path}:{row + 1}")
        return found

    def _seek(self, row: int) -> Any:
        try:
            if not self._next <= row < self._end:
                self._restart(row)
            while row >= self._next:
                values = next(self._walk)
                self._windows = [*self._windows[-1:], (self._next, values)]
                self._next += len(values)
        except (ValueError, OSError, StopIteration) as error:  # what pyarrow raises for damage
            self._end = 0
            if isinstance(error, OSError) and error.errno:
                raise
            raise OSError(errno.EIO, f"damaged Parquet ({' '.join(str(error).split())[:80]})", self.path) from None
        start, values = self._windows[-1]
        return values[row - start]

    def _restart(self, row: int) -> None:
        import pyarrow.parquet as pq

        if self._file is None:
            self._file = pq.ParquetFile(self.path, memory_map=False, buffer_size=1 << 20, pre_buffer=False)
        about = self._file.metadata
        start = group = 0
        while row >= start + about.row_group(group).num_rows:
            start, group = start + about.row_group(group).num_rows, group + 1
        rows = about.row_group(group).num_rows
        each = max(1, about.row_group(group).total_byte_size // max(rows, 1))
        batches = self._file.iter_batches(min(4096, max(1, self.BATCH_BYTES // each)), [group], [self.column])
        self._walk = (_flat(batch.column(0)) for batch in batches)
        self._next, self._end = start, start + rows


def _flat(values: Any) -> Any:
    """The bytes of a Hugging Face image struct {bytes, path}; a plain binary column as it is."""
    import pyarrow as pa

    return values.field("bytes") if pa.types.is_struct(values.type) else values


@dataclass(frozen=True, slots=True)
class Cell:
    column: ParquetColumn
    row: int

    def read(self) -> bytes:
        return self.column.read(self.row)

    def signature(self) -> str:
        return f"{self.column.stamp}:{self.row}"


def _check_bytes(size: int, name: str) -> None:
    if size > MAX_BYTES:
        raise OSError(errno.EFBIG, f"{size >> 20} MB, more than the {MAX_BYTES >> 20} MB that one file may have", name)


def _nonblocking(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)  # a named pipe must not hang the reading
