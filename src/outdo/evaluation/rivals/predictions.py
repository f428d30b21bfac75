"""A table of predictions: CSV, TSV, JSON Lines or Parquet, a row for each example.

A column says which example (its id as in the data, or the path or name of its file), and either one column holds the
answer, or there is one for each class with its probability, named after it. Rows about other examples do no harm.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from outdo.contracts import Ground, Inputs, Rival
from outdo.data.readers._formats import Columns, load
from outdo.data.readers._tree import TABLE_SUFFIXES, FolderTree
from outdo.errors import DataError
from outdo.evaluation.rivals._match import bare, listed

EXAMPLES = ("id", "input", "path", "file", "filename", "file_name", "image", "image_path", "img", "name", "example",
            "key")
ANSWERS = ("prediction", "predicted", "predicted_label", "predicted_class", "pred", "answer", "output", "label",
           "class")
PREFIXES = ("", "p_", "p(", "prob_", "probability_", "probabilities.", "score_")


class PredictionsTable:
    summary = "a table of predictions (CSV, TSV, JSON Lines, Parquet): a column of ids and one of answers, or one of "\
              "probabilities for each class"

    def accepts(self, said: Any) -> bool:
        return isinstance(said, str | Path) and Path(said).suffix.lower() in TABLE_SUFFIXES and Path(said).is_file()

    def meet(self, said: Any, ground: Ground) -> Rival:
        path = Path(said)
        _not_ours(path)
        table = load(FolderTree(path.parent), path.name)
        keys = [str(v).strip() for v in table.values[_column(table, EXAMPLES, path, "which example each row is about")]]
        classes, values = _answers(table, ground, path)
        rows = _rows(keys, ground.ids, path)
        more = len(keys) - len(set(rows.values()))
        remarks = [f"answers from {path.name}, which cannot be asked again"]
        if more:
            remarks.append(f"{more} of its rows are about other examples")

        def answer(ids: Sequence[str], inputs: Inputs) -> np.ndarray:
            return values[[rows[name] for name in ids]]

        return Rival(classes, answer, tuple(remarks), runs=False)

    def example(self, folder: Path, ground: Ground) -> Path:
        rng = np.random.default_rng(0)
        lines = [",".join(["id", *ground.classes])]
        for name in ground.ids:
            lines.append(",".join([name, *(f"{p:.4f}" for p in rng.dirichlet(np.ones(len(ground.classes))))]))
        (folder / "predictions.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
        return folder / "predictions.csv"


def _not_ours(path: Path) -> None:
    """The predictions of a run hold the truth too, under a name that could be taken for an answer."""
    if path.suffix.lower() == ".parquet" and (path.parent / "run.json").exists():
        raise DataError(f"{path} belongs to a run", fix=f"name the run: {path.parent}")


def _column(table: Columns, known: Sequence[str], path: Path, what: str) -> str:
    lowered = {name.lower(): name for name in reversed(table.names)}
    found = next((lowered[name] for name in known if name in lowered), None)
    if found is None:
        raise DataError(f"{path} does not say {what}", expected=f"a column named {', '.join(known[:6])} or the like",
                        found=", ".join(table.names[:12]), fix="name the column so")
    return found


# ── answers ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def _answers(table: Columns, ground: Ground, path: Path) -> tuple[tuple[str, ...], np.ndarray]:
    """(classes, (N, K) values): from columns of probabilities, else from a column that holds them, else labels."""
    ours = {bare(label) for label in ground.classes}
    by_class = {name: label for name in table.names if (label := _class_of(name, ours))}
    if len(by_class) > 1:
        found = np.array([[_number(v, path, line) for v in row] for line, row in
                          zip(table.lines, zip(*(table.values[n] for n in by_class), strict=True), strict=True)])
        return tuple(by_class.values()), found
    if "probabilities" in table.names and isinstance(table.values["probabilities"][0], dict):
        return _nested(table.values["probabilities"], table.lines, path)
    column = _column(table, ANSWERS, path, "what was answered")
    said = ["" if v is None else str(v).strip() for v in table.values[column]]
    where = {bare(label): i for i, label in enumerate(ground.classes)}
    for line, label in zip(table.lines, said, strict=True):
        if bare(label) not in where:
            raise DataError(f"{path}, line {line}: '{label}' is none of the classes", expected=listed(ground.classes),
                            fix=f"is '{column}' the column of answers?")
    return ground.classes, np.eye(len(where))[[where[bare(label)] for label in said]]


def _class_of(column: str, ours: set[str]) -> str | None:
    """The class after which a column is named: "ant", "p_ant", "p(ant)"."""
    for prefix in PREFIXES:
        if column.lower().startswith(prefix):
            label = column[len(prefix):].removesuffix(")") if prefix.endswith("(") else column[len(prefix):]
            if bare(label) in ours:
                return label
    return None


def _nested(values: Sequence[Any], lines: Sequence[int], path: Path) -> tuple[tuple[str, ...], np.ndarray]:
    """Objects {class: probability}, as `outdo predict --json` writes them."""
    classes = tuple(dict.fromkeys(str(k) for row in values if isinstance(row, Mapping) for k in row))
    rows = [[_number(row.get(c, 0.0) if isinstance(row, Mapping) else None, path, line) for c in classes]
            for row, line in zip(values, lines, strict=True)]
    return classes, np.array(rows)


def _number(value: Any, path: Path, line: int) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = float("nan")
    if not np.isfinite(number) or number < 0:
        raise DataError(f"{path}, line {line}: {value!r} is no probability", expected="a number from 0 to 1")
    return number


# ── examples ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def _rows(keys: Sequence[str], ids: Sequence[str], path: Path) -> dict[str, int]:
    """id -> row. A key is an example's id, a longer path that ends in it, or the end of it where that is clear.

    Raises DataError, with names: nothing about these examples, some that are missing, some that come twice.
    """
    keys = [key.replace("\\", "/").removeprefix("./") for key in keys]
    ends = _ends(ids)
    about = [key if key in ends[0] else _longest(key, ends) for key in keys]
    found: dict[str, int] = {}
    twice = [name for name, count in Counter(name for name in about if name).items() if count > 1]
    if twice:
        lines = [i + 2 for i, name in enumerate(about) if name == twice[0]]
        raise DataError(f"{path} answers {len(twice)} examples more than once", found=f"{twice[0]} in rows "
                        f"{listed([str(n - 1) for n in lines])}", expected="one row for each example")
    found = {name: i for i, name in enumerate(about) if name}
    missing = [name for name in ids if name not in found]
    if missing and not found:
        raise DataError(f"{path} is about other examples", expected=f"ids such as {listed(ids, 3)}",
                        found=listed(keys, 3), fix="predict the examples of this test")
    if missing:
        raise DataError(f"{path} does not answer {len(missing)} of {len(ids)} test examples", found=f"nothing about "
                        f"{listed(missing, 5)}", fix="predict them too: leaving out the hard ones is no comparison")
    return found


def _ends(ids: Sequence[str]) -> tuple[set[str], dict[str, str]]:
    """(the ids, the ends of ids that belong to one id alone: "ant/1.jpg", "1.jpg")."""
    count: Counter[str] = Counter()
    whose: dict[str, str] = {}
    for name in ids:
        parts = name.split("/")
        for start in range(1, len(parts)):
            end = "/".join(parts[start:])
            count[end] += 1
            whose[end] = name
    return set(ids), {end: name for end, name in whose.items() if count[end] == 1}


def _longest(key: str, ends: tuple[set[str], dict[str, str]]) -> str | None:
    """The id that a path ends in, else the id that ends in the key."""
    whole, partial = ends
    parts = key.split("/")
    for start in range(1, len(parts)):
        if (end := "/".join(parts[start:])) in whole:
            return end
    return partial.get(key)


PLUGIN = PredictionsTable()
