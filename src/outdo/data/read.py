"""A source becomes a dataset: the reader plug-in that accepts it does the work."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import replace
from pathlib import Path
from unicodedata import category

import numpy as np

from outdo import plugins
from outdo.contracts import Dataset, Finding, Reader
from outdo.errors import DataError


def read(source: str | os.PathLike[str], *, input_column: str | None = None, label_column: str | None = None,
         group_column: str | None = None) -> Dataset:
    """Labelled examples from a folder, a zip or a table.

    Names of columns are detected; saying them is only for tables. Raises DataError: nothing there, nothing that a
    reader accepts, a column that does not exist, a path that leaves the table's folder, a damaged file.
    """
    path = Path(source).expanduser()
    try:
        data = _reader(path).read(path, input_column=input_column, label_column=label_column, group_column=group_column)
    except OSError as error:
        raise DataError(f"cannot read {error.filename or path} ({error.strerror or error})") from None
    said = {"input_column": input_column, "label_column": label_column, "group_column": group_column}
    data = replace(data, ids=tuple(map(_printable, data.ids)), labels=np.array([_printable(x) for x in data.labels]),
                   read_with={name: column for name, column in said.items() if column is not None})
    twice = [name for name, count in Counter(data.ids).items() if count > 1]
    assert not twice, f"the reader gave several examples the id {twice[:3]}"
    return _with_test(data)


def _reader(path: Path) -> Reader:
    if not path.exists():
        beside = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
        raise DataError(f"{path} does not exist", fix=_did_you_mean(path.name, beside))
    if path.is_dir() and not any(path.iterdir()):
        raise DataError(f"{path} is an empty folder", expected=_expected())
    if path.is_file() and not path.stat().st_size:
        raise DataError(f"{path} is an empty file", expected=_expected())
    for reader in plugins.load_all("readers").values():
        if reader.accepts(path):
            return reader
    raise DataError(f"no reader for {path}", expected=_expected(), found=f"a file ending in '{path.suffix}'")


def _expected() -> str:
    return "; or ".join(reader.summary for reader in plugins.load_all("readers").values())


def _did_you_mean(name: str, beside: list[str]) -> str:
    import difflib

    close = difflib.get_close_matches(name, beside, n=1)
    return f"did you mean '{close[0]}'?" if close else "check the path"


def _printable(text: str) -> str:
    """Text that a terminal, JSON and a page can show: control characters and bytes that are no UTF-8 as escapes."""
    whole = str(text).encode("utf-8", "backslashreplace").decode()
    return whole if whole.isprintable() else "".join(repr(c)[1:-1] if category(c) == "Cc" else c for c in whole)


def _with_test(data: Dataset) -> Dataset:
    """With train and validation but no test, validation becomes the test: the proof needs examples never chosen on."""
    declared = set(data.split)
    if "validation" not in declared or "test" in declared:
        return data
    count = int((data.split == "validation").sum())
    said = Finding("validation used as test", count, f"there is no test split, so the {count} validation examples "
                   "become the sealed test; validation is carved out of train", severity="note")
    return replace(data, split=np.where(data.split == "validation", "test", data.split),
                   findings=(*data.findings, said))
