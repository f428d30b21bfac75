"""Tables into a dataset: which column is what, labels as text, image paths that stay inside the table's folder."""

from __future__ import annotations

import errno
import posixpath
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from outdo.contracts import SPLITS, Dataset, Finding, Kind
from outdo.data.inputs import Cell, Item, Items, Text
from outdo.data.readers._formats import Columns, column_array, header, load
from outdo.data.readers._tree import IMAGE_SUFFIXES, SPLIT_NAMES, TABLE_SUFFIXES, Tree, skipped, suffix
from outdo.errors import DataError, nearest

LABELS = ("label", "labels", "class", "class_name", "label_name", "category", "target", "intent", "y", "species",
          "diagnosis", "sentiment", "topic", "answer_class")
INPUTS = ("image", "img", "images", "image_path", "img_path", "image_file", "filename", "file_name", "file", "filepath",
          "file_path", "path", "photo", "text", "sentence", "question", "query", "utterance", "content", "review",
          "message", "comment", "document", "tweet", "title", "x", "input")
_SHARD = re.compile(r"^(?:.*[-_. ])?(train|training|val|valid|validation|dev|test|testing)"
                    r"(?:[-_. ]?(?:set|data))?(?:[-_. ]?\d+(?:-of-\d+)?)?$")


@dataclass
class Part:
    """What one table file gives."""

    kind: Kind
    items: list[Item]
    names: list[str]  # paths of images, "" where there is none
    places: list[str]  # "train.csv:17"
    labels: list[str]
    split: list[str]
    groups: list[str] | None
    columns: Mapping[str, np.ndarray]
    findings: list[Finding]


def table_names(tree: Tree) -> list[str]:
    """The table files that make up the dataset: the ones named after splits, else the one with a known header.

    Empty when the first level holds no table, or only one that says nothing beside class folders. Cheap.
    """
    files, folders = tree.top()
    tables = [name for name in files if suffix(name) in TABLE_SUFFIXES]
    usable = [name for name in tables if _usable(header(tree, name))]
    named = [name for name in tables if split_of(name)]
    if named and (usable or not folders):
        return named
    return usable or ([] if folders else tables)


def split_of(name: str) -> str:
    """The split that a table's name says: train.csv, cifar10-test.parquet, train-00000-of-00002.parquet; else ""."""
    found = _SHARD.match(PurePosixPath(name).stem.lower())
    return SPLIT_NAMES[found[1]] if found else ""


def read_tables(tree: Tree, names: Sequence[str], input_column: str | None, label_column: str | None,
                group_column: str | None, source: str | None = None) -> Dataset:
    """Raises DataError, naming the table and where possible the line."""
    if len(names) > 1 and not all(split_of(name) for name in names):
        raise DataError(f"{tree.source} has several tables", found=", ".join(names),
                        fix="point outdo at one of them, or name them train.csv and test.csv")
    several = len(names) > 1
    parts = [_part(tree, load(tree, name), split_of(name) if several else "", input_column, label_column, group_column)
             for name in names]
    if len({part.kind for part in parts}) > 1:
        raise DataError(f"{tree.source} has images in one table and texts in another", found=", ".join(names))
    return _joined(source or tree.source, parts)


def no_columns(source: Path, *said: str | None) -> None:
    """Raises DataError when a column was named for a source that has none."""
    for name in said:
        if name is not None:
            raise DataError(f"{source} was read as class folders, which have no column '{name}'",
                            fix="point outdo at a table (CSV, TSV, JSON Lines, Parquet) to name its columns")


def _usable(names: list[str] | None) -> bool:
    if names is None:
        return True
    known = {name.lower() for name in names}
    return bool(known & set(LABELS)) and bool(known & set(INPUTS))


def _part(tree: Tree, table: Columns, split: str, input_column: str | None, label_column: str | None,
          group_column: str | None) -> Part:
    label = _column(table, label_column, LABELS, "label", "--label-column")
    field = _column(table, input_column, INPUTS, "input", "--input-column", taken=label)
    group = None if group_column is None else _column(table, group_column, (), "group", "--group-column")
    kind, items, names = _inputs(tree, table, field)
    filled = np.array([i for i, item in enumerate(items) if item is not None], dtype=np.int64)
    places = [f"{table.name}:{line}" for line in table.lines]
    empty = [place for place, item in zip(places, items, strict=True) if item is None]
    what = "image file does not exist" if kind == "image" else "text is empty"
    if not len(filled):
        raise DataError(f"{table.name}: in all {len(items)} rows the {what}", found=f"column '{field}', first value "
                        f"'{names[0]}'", fix="image paths are relative to the table's folder")
    rest = {n: values for n, values in table.values.items() if n not in (label, field, group, "split")}
    return Part(
        kind, [items[i] for i in filled], [names[i] for i in filled], [places[i] for i in filled],
        [_label(table, i, label) for i in filled],
        [_split(table, i) or split for i in filled],
        None if group is None else [_group(table, i, group) or places[i] for i in filled],  # none: one of its own
        {n: column_array([values[i] for i in filled]) for n, values in rest.items()},
        [*skipped("missing input", empty, f"rows of {table.name} whose {what} were left out"),
         *skipped("columns left out", list(table.left_out), f"columns of {table.name} that are no text, number or "
                  "image were left out", "note")],
    )


def _column(table: Columns, said: str | None, known: Sequence[str], role: str, flag: str, taken: str = "") -> str:
    """The column said, else the first known name, else (for the input) the only one left."""
    names = [name for name in table.names if name != taken]
    if said is not None:
        if said not in names:
            raise DataError(f"{table.name} has no column '{said}'" + (", it is the label" if said == taken else ""),
                            fix=nearest(said, names))
        return said
    lowered = {name.lower(): name for name in reversed(names)}
    for name in known:
        if name in lowered:
            return lowered[name]
    if role == "input" and (only := list(table.images) or [n for n in names if n != "split"]) and len(only) == 1:
        return only[0]
    raise DataError(f"{table.name} has no {role} column that outdo recognises", found=", ".join(names),
                    expected=f"a column named {', '.join(known[:6])} or the like", fix=f"say which with {flag} NAME")


def _inputs(tree: Tree, table: Columns, field: str) -> tuple[Kind, list[Item | None], list[str]]:
    """(kind, an item for each row or None where it has none, names). Values tell what a column of strings holds."""
    values = table.values.get(field)
    if field in table.images:
        cursor = table.images[field]
        if values is None or not _bytes_missing(cursor):
            cells: list[Item | None] = [Cell(cursor, i) for i in range(len(table.lines))]
            return "image", cells, [str(v or "") for v in values or [""] * len(cells)]
    assert values is not None
    for line, value in zip(table.lines, values, strict=True):
        if not isinstance(value, str | None):
            raise DataError(f"{table.name}, line {line}: column '{field}' holds {value!r}",
                            expected="texts or image paths, all of one type", fix="use --input-column to say another")
    given = [(value or "").strip() for value in values]
    if not _are_paths(given):
        whole = [value.encode("utf-8", "replace").decode() for value in given]  # JSON can hold half of a character
        return "text", [Text(value) if value else None for value in whole], [""] * len(given)
    base = posixpath.dirname(table.name)
    names = [_inside(tree, table, line, base, v) if v else "" for line, v in zip(table.lines, given, strict=True)]
    return "image", [tree.item(name) if name and tree.exists(name) else None for name in names], names


def _bytes_missing(cursor: Any) -> bool:
    """Whether the first cell holds no bytes: then the paths beside them are meant."""
    try:
        cursor.read(0)
    except OSError as error:
        return error.errno == errno.ENODATA
    return False


def _are_paths(values: Sequence[str]) -> bool:
    some = [value for value in values if value][:200]
    return bool(some) and sum(suffix(value) in IMAGE_SUFFIXES for value in some) > len(some) / 2


def _inside(tree: Tree, table: Columns, line: int, base: str, value: str) -> str:
    """The image's name in the tree. Raises DataError for a path that leaves the table's folder."""
    path = value.replace("\\", "/")
    root = getattr(tree, "root", None)
    if root and path.startswith(root.rstrip("/") + "/"):
        path = path[len(root.rstrip("/")) + 1 :]
    name = posixpath.normpath(posixpath.join(base, path))
    if path.startswith("/") or name.startswith("..") or path[1:2] == ":" or (base and not name.startswith(base + "/")):
        raise DataError(f"{table.name}, line {line}: '{value}' is outside the table's folder",
                        expected="image paths below the table's folder", fix="move the images or the table")
    return name


def _label(table: Columns, row: int, column: str) -> str:
    value = table.values[column][row]
    if isinstance(value, list | dict):
        raise DataError(f"{table.name}, line {table.lines[row]}: column '{column}' holds {str(value)[:40]}",
                        expected="one label for each example", fix="use --label-column to say another")
    return "" if value is None else str(value).strip()


def _group(table: Columns, row: int, column: str) -> str:
    value = table.values[column][row]
    return "" if value is None else str(value).strip()


def _split(table: Columns, row: int) -> str:
    value = str(table.values["split"][row] or "").strip().lower() if "split" in table.values else ""
    if value and value not in SPLIT_NAMES:
        raise DataError(f"{table.name}, line {table.lines[row]}: split '{value}'",
                        expected=f"{', '.join(SPLITS)} or nothing")
    return SPLIT_NAMES.get(value, "")


def _joined(source: str, parts: list[Part]) -> Dataset:
    names = [name for part in parts for name in part.names]
    places = [place for part in parts for place in part.places]
    recognisable = all(names) and len(set(names)) == len(names)
    shared = set.intersection(*(set(part.columns) for part in parts))
    groups = [part.groups for part in parts if part.groups is not None]
    return Dataset(
        source=source,
        inputs=Items(parts[0].kind, [item for part in parts for item in part.items]),
        ids=tuple(names if recognisable else places),
        labels=np.array([label for part in parts for label in part.labels]),
        split=np.array([split for part in parts for split in part.split]),
        groups=np.concatenate([np.array(g) for g in groups]) if groups else None,
        columns={n: np.concatenate([p.columns[n] for p in parts]) for n in parts[0].columns if n in shared},
        findings=tuple(finding for part in parts for finding in part.findings),
    )
