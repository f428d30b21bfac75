"""A source as named files, whether they lie in a folder or in a zip."""

from __future__ import annotations

import os
import stat
import zipfile
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import BinaryIO, Protocol

from outdo.contracts import Finding
from outdo.data import images
from outdo.data.inputs import Archive, File, Item, Member
from outdo.errors import DataError

IMAGE_SUFFIXES = {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".bmp", ".dib", ".tif", ".tiff"}
TABLE_SUFFIXES = {".csv", ".tsv", ".jsonl", ".ndjson", ".parquet"}
BOMB_RATIO, BOMB_BYTES = 200, 64 << 20  # deflate reaches 1000:1; no honest photo that large shrinks 200 times

SPLIT_NAMES = {"train": "train", "training": "train", "val": "validation", "valid": "validation",
               "validation": "validation", "dev": "validation", "test": "test", "testing": "test"}


class Tree(Protocol):
    source: str

    def names(self) -> list[str]:
        """Every file but the hidden ones, sorted; "/" between folders."""
        ...

    def hidden(self) -> list[str]: ...

    def twice(self) -> list[tuple[str, str]]:
        """Folders that are others once more: (where it was not walked again, where it was)."""
        ...

    def top(self) -> tuple[list[str], bool]:
        """(files of the first level, whether it has folders); cheap, whatever lies below."""
        ...

    def exists(self, name: str) -> bool: ...

    def item(self, name: str) -> Item: ...

    def open(self, name: str) -> BinaryIO: ...


class FolderTree:
    """Files below a folder; links are followed, a folder that contains itself is walked once."""

    def __init__(self, root: Path) -> None:
        self.root, self.source = os.path.abspath(root), str(root)
        self._walked: tuple[list[str], list[str]] | None = None
        self._twice: list[tuple[str, str]] = []

    def names(self) -> list[str]:
        return self._walk()[0]

    def hidden(self) -> list[str]:
        return self._walk()[1]

    def twice(self) -> list[tuple[str, str]]:
        self._walk()
        return self._twice

    def top(self) -> tuple[list[str], bool]:
        with os.scandir(self.root) as entries:
            found = [(entry.name, entry.is_dir()) for entry in entries]
        return apart(name for name, folder in found if not folder)[0], any(folder for _, folder in found)

    def exists(self, name: str) -> bool:
        return os.path.isfile(os.path.join(self.root, name))

    def item(self, name: str) -> Item:
        return File(os.path.join(self.root, name))

    def open(self, name: str) -> BinaryIO:
        return open(os.path.join(self.root, name), "rb")

    def _walk(self) -> tuple[list[str], list[str]]:
        if self._walked is None:
            names: list[str] = []
            seen: dict[str, str] = {}
            for folder, subfolders, found in os.walk(self.root, followlinks=True, onerror=_unreadable):
                inside = os.path.relpath(folder, self.root).replace(os.sep, "/")
                if (true := os.path.realpath(folder)) in seen:
                    subfolders.clear()
                    self._twice.append((inside, seen[true]))
                    continue
                seen[true] = inside
                names += [name if inside == "." else f"{inside}/{name}" for name in found]
            self._walked = apart(names)
        return self._walked


class ZipTree:
    """Members of a zip, read in place. Raises DataError for a zip that is broken, locked or dangerous."""

    def __init__(self, path: Path) -> None:
        self.source = str(path)
        try:
            self.archive = Archive(path)
        except (zipfile.BadZipFile, ValueError, NotImplementedError) as error:
            raise DataError(f"{path} is not a readable zip ({error})", fix="download or pack it again") from None
        members = [info for info in self.archive.zip.infolist() if not info.is_dir()]
        entries = [(info.filename.replace("\\", "/"), info) for info in members]
        for name, info in entries:
            _check_member(path, name, info)
        self.members = dict(entries)  # a name that comes twice: the later one, as unzipping would leave it
        self._names, self._hidden = apart(self.members)

    def names(self) -> list[str]:
        return self._names

    def hidden(self) -> list[str]:
        return self._hidden

    def twice(self) -> list[tuple[str, str]]:
        return []

    def top(self) -> tuple[list[str], bool]:
        prefix = wrapper(self._names)
        below = [name[len(prefix):] for name in self._names]
        return [prefix + name for name in below if "/" not in name], any("/" in name for name in below)

    def exists(self, name: str) -> bool:
        return name in self.members

    def item(self, name: str) -> Item:
        return Member(self.archive, self.members[name])

    def open(self, name: str) -> BinaryIO:
        import io

        return io.BytesIO(self.archive.read(self.members[name]))


def _check_member(path: Path, name: str, info: zipfile.ZipInfo) -> None:
    where = f"{path}: member '{name}'"
    if name.startswith("/") or ".." in name.split("/") or name[1:2] == ":":
        raise DataError(f"{where} would land outside the folder it is unpacked to", fix="do not trust this zip")
    if stat.S_ISLNK(info.external_attr >> 16):
        raise DataError(f"{where} is a link", fix="pack the files themselves")
    if suffix(name) not in IMAGE_SUFFIXES | TABLE_SUFFIXES:
        return  # never read
    if info.flag_bits & 1:
        raise DataError(f"{where} is locked with a password", fix="unpack it and point outdo at the folder")
    if info.file_size > images.MAX_BYTES:
        raise DataError(f"{where} has {info.file_size >> 20} MB", expected=f"at most {images.MAX_BYTES >> 20} MB",
                        fix="unpack the zip and point outdo at the folder")
    if info.file_size > BOMB_BYTES and info.file_size > BOMB_RATIO * max(info.compress_size, 1):
        raise DataError(f"{where} grows from {info.compress_size >> 10} KB to {info.file_size >> 20} MB when unpacked, "
                        "as zip bombs do", fix="do not trust this zip")


def apart(names: Iterable[str]) -> tuple[list[str], list[str]]:
    """(files to look at, hidden ones and the litter of operating systems), each sorted."""
    seen: list[str] = []
    hidden: list[str] = []
    for name in names:
        parts = name.split("/")
        litter = any(p.startswith(".") or p == "__MACOSX" for p in parts) or parts[-1] in ("Thumbs.db", "desktop.ini")
        (hidden if litter else seen).append(name)
    return sorted(seen), sorted(hidden)


def suffix(name: str) -> str:
    return PurePosixPath(name).suffix.lower()


def wrapper(names: Iterable[str]) -> str:
    """The folder around everything ("photos-main/"), "" where there is none."""
    firsts = {name.split("/", 1)[0] if "/" in name else "" for name in names}
    return f"{firsts.pop()}/" if len(firsts) == 1 and "" not in firsts else ""


def skipped(check: str, names: list[str], message: str, severity: str = "warning") -> list[Finding]:
    """One finding for files left out; none when there are none."""
    if not names:
        return []
    return [Finding(check, len(names), message, tuple(names[:10]), severity)]  # type: ignore[arg-type]


def _unreadable(error: OSError) -> None:
    raise DataError(f"cannot list {error.filename}: {error.strerror}", fix="check its permissions") from None
