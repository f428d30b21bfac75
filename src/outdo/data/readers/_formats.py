"""Table files into columns: CSV, TSV, JSON Lines, Parquet. Nothing is unpickled, and image bytes stay on disk."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from outdo.data.inputs import File, Member, ParquetColumn
from outdo.data.readers._tree import Tree, suffix
from outdo.errors import DataError, MissingExtra

DELIMITERS = ",;\t|"


@dataclass
class Columns:
    """One table file. Values are Python objects, None where empty; a column of image bytes has none, only a cursor."""

    name: str
    values: Mapping[str, Sequence[Any]]
    lines: Sequence[int]  # where each row begins in the file, from 1: what people look for
    images: dict[str, ParquetColumn] = field(default_factory=dict)
    left_out: tuple[str, ...] = ()  # columns of a type that is neither text, number nor image

    @property
    def names(self) -> list[str]:
        return [*self.images, *(name for name in self.values if name not in self.images)]


def load(tree: Tree, name: str) -> Columns:
    """Raises DataError naming the line, where there is one, or MissingExtra when Parquet cannot be read."""
    if suffix(name) == ".parquet":
        return _parquet(tree, name)
    with tree.open(name) as opened:
        text = _utf8(opened.read(), name)
    if suffix(name) in (".csv", ".tsv"):
        return _separated(text, name)
    return _json_lines(text, name)


def header(tree: Tree, name: str) -> list[str] | None:
    """Column names by the first line alone; None for Parquet, whose header needs a library to read."""
    if suffix(name) == ".parquet":
        return None
    with tree.open(name) as opened:
        line = opened.readline(1 << 16).decode("utf-8-sig", "replace")
    if suffix(name) in (".csv", ".tsv"):
        return [cell.strip() for cell in next(csv.reader([line], delimiter=_delimiter(line, name)), [])]
    try:
        return list(json.loads(line))
    except (ValueError, TypeError):
        return []


def _utf8(data: bytes, name: str) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise DataError(f"{name}, line {line}: not UTF-8 text (byte 0x{data[error.start]:02x})",
                        fix="save the file as UTF-8") from None


def _delimiter(line: str, name: str) -> str:
    return "\t" if suffix(name) == ".tsv" else max(DELIMITERS, key=line.count)


def _separated(text: str, name: str) -> Columns:
    first = text.split("\n", 1)[0]
    # TSV is often written without quoting, and one stray quote would then swallow the lines up to the next one
    plain = suffix(name) == ".tsv" and any(line.count('"') % 2 for line in text.split("\n"))
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=_delimiter(first, name), strict=not plain,
                        quoting=csv.QUOTE_NONE if plain else csv.QUOTE_MINIMAL)
    rows, lines, start = [], [], 1
    # A cell may be as long as the text. The limit is one for all threads, so it is raised and never put back.
    csv.field_size_limit(max(csv.field_size_limit(), len(text)))
    try:
        for row in reader:
            if row:
                rows.append(row)
                lines.append(start)
            start = reader.line_num + 1
    except csv.Error as error:
        raise DataError(f"{name}, line {start}: not a readable table ({error})", fix="check its quotes") from None
    if len(rows) < 2:
        raise DataError(f"{name} has no rows", expected="a header line and a line for each example")
    names = _unique([cell.strip() for cell in rows[0]], name)
    for row, line in zip(rows, lines, strict=True):
        if len(row) != len(names):
            raise DataError(f"{name}, line {line}: {len(row)} cells", expected=f"{len(names)}, as in the header",
                            fix="quote cells that hold the separator")
    cells = zip(*rows[1:], strict=True)
    return Columns(name, {n: [c or None for c in column] for n, column in zip(names, cells, strict=True)}, lines[1:])


def _json_lines(text: str, name: str) -> Columns:
    rows, lines = [], []
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise DataError(f"{name}, line {number}: not JSON ({error})") from None
        if not isinstance(row, dict):
            raise DataError(f"{name}, line {number}: a {type(row).__name__}", expected="an object, {\"column\": value}")
        rows.append(row)
        lines.append(number)
    if not rows:
        raise DataError(f"{name} has no rows", expected="one JSON object on each line")
    names = list(dict.fromkeys(key for row in rows for key in row))
    return Columns(name, {key: [row.get(key) for row in rows] for key in names}, lines)


def _parquet(tree: Tree, name: str) -> Columns:
    try:
        import pyarrow.parquet as pq
    except ModuleNotFoundError:
        raise MissingExtra("reading Parquet", "pyarrow", "train") from None
    item = tree.item(name)
    if isinstance(item, Member):
        raise DataError(f"{tree.source} holds the Parquet file {name}", fix="unpack the zip: Parquet needs no zipping")
    assert isinstance(item, File)
    try:
        with pq.ParquetFile(item.path) as opened:
            schema = opened.schema_arrow
            names = _unique(schema.names, name)
            small = [n for n in names if _is_small(schema.field(n).type)]
            images = [n for n in names if _is_image(schema.field(n).type)]
            table = opened.read(columns=small)
            if not opened.metadata.num_rows:
                raise DataError(f"{name} has no rows")
            paths = {n: path for n in images if (path := _paths(opened, schema, n)) is not None}
    except (ValueError, OSError) as error:  # pyarrow's ArrowInvalid is a ValueError, and so is our DataError
        if isinstance(error, DataError):
            raise
        raise DataError(f"{name} is not a readable Parquet file ({str(error).splitlines()[0][:120]})",
                        fix="download or write it again") from None
    classes = _class_labels(schema)
    values = {n: _python(table.column(n), classes.get(n)) for n in small} | paths
    left_out = tuple(n for n in names if n not in small and n not in images)
    return Columns(name, values, range(1, table.num_rows + 1),
                   {n: ParquetColumn(item.path, n) for n in images}, left_out)


def _is_small(kind: Any) -> bool:
    import pyarrow.types as types

    if types.is_dictionary(kind):
        return _is_small(kind.value_type)
    return str(kind) in ("string", "large_string", "string_view") or bool(types.is_primitive(kind))


def _is_image(kind: Any) -> bool:
    import pyarrow.types as types

    if types.is_struct(kind):
        return any(field.name == "bytes" and _is_image(field.type) for field in kind)
    return str(kind) in ("binary", "large_binary", "binary_view")


def _paths(opened: Any, schema: Any, name: str) -> list[Any] | None:
    """The path beside the bytes of a Hugging Face image, for ids that people recognise."""
    import pyarrow.types as types

    kind = schema.field(name).type
    if not types.is_struct(kind) or kind.get_field_index("path") < 0:
        return None
    struct = opened.read(columns=[f"{name}.path"]).column(name).combine_chunks()
    return struct.field("path").to_pylist()


def _class_labels(schema: Any) -> dict[str, list[str]]:
    """Class names that Hugging Face datasets keeps for its ClassLabel columns."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        return {name: about["names"] for name, about in features.items() if about.get("_type") == "ClassLabel"}
    except (KeyError, ValueError, TypeError, AttributeError):
        return {}


def _python(column: Any, classes: list[str] | None) -> list[Any]:
    values = column.to_pylist()
    if classes is None:
        return values
    return [classes[v] if v is not None and 0 <= v < len(classes) else None for v in values]


def _unique(names: list[str], table: str) -> list[str]:
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise DataError(f"{table} has more than one column named '{twice[0]}'", found=", ".join(names),
                        fix="rename or remove one of them")
    return names


def column_array(values: Sequence[Any]) -> np.ndarray:
    """A column kept for slices: numbers as numbers where all are, else text with "" where empty."""
    if all(isinstance(v, int | float) and not isinstance(v, bool) for v in values):
        return np.array(values)
    return np.array(["" if v is None else str(v) for v in values])
