"""Everybody's answers on a test, as a Parquet file: enough to recompute every figure that rests on answers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from outdo.contracts import Contestant, Predictions, TestSet
from outdo.data.inputs import texts
from outdo.errors import RunError
from outdo.runs import HELD_OUT
from outdo.storage import read_tensors, replacing

FILE = "predictions.parquet"


def stored(probabilities: np.ndarray) -> Predictions:
    """The answers as the file will hold them (float32), so that what is recomputed from it agrees to the last bit."""
    return Predictions(np.asarray(probabilities, np.float32).astype(np.float64))


def write(folder: Path, test: TestSet, contestants: Sequence[Contestant]) -> None:
    """id, label, and for each contestant the probabilities in the order of the classes."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    names = [name.encode("utf-8", "backslashreplace").decode() for name in test.ids]  # Parquet takes no other text
    columns = {"id": pa.array(names), "label": pa.array([test.classes[c] for c in test.codes])}
    for i, one in enumerate(contestants):  # a contestant may have any name, "id" too
        flat = pa.array(one.predictions.probabilities.astype(np.float32).ravel())
        columns[f"contestant {i}"] = pa.FixedSizeListArray.from_arrays(flat, len(test.classes))
    about = {"schema": 2, "classes": list(test.classes), "contestants": [{"name": c.name, "role": c.role}
                                                                         for c in contestants]}
    table = pa.table(columns).replace_schema_metadata({"outdo": json.dumps(about)})
    with replacing(folder / FILE) as draft:
        pq.write_table(table, draft)


def read(folder: Path) -> tuple[TestSet, list[Contestant]]:
    """The test as far as it was stored (no inputs), and all contestants without their models. Raises RunError."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = Path(folder) / FILE
    try:
        table = pq.read_table(path)
        about = json.loads(table.schema.metadata[b"outdo"])
        if about.get("schema") != 2:
            raise RunError(f"{path} was written by another version of outdo", fix="run again with this one")
        contestants = [Contestant(c["name"], c["role"], Predictions(
            np.stack(table[f"contestant {i}"].to_numpy()).astype(np.float64)))
            for i, c in enumerate(about["contestants"])]
        where = {name: i for i, name in enumerate(about["classes"])}
        codes = np.array([where[label] for label in table["label"].to_pylist()], np.int64)
    except RunError:
        raise
    except (OSError, pa.ArrowInvalid, KeyError, ValueError, TypeError) as error:
        raise RunError(f"{path} is missing or damaged", found=" ".join(str(error).split())[:120],
                       fix="run again") from None
    ids = tuple(table["id"].to_pylist())
    return TestSet(ids, texts([""] * len(ids)), codes, tuple(about["classes"])), contestants


def of_role(contestants: Sequence[Contestant], role: str) -> Contestant:
    return next(c for c in contestants if c.role == role)


def held_out(folder: Path, model: Any) -> np.ndarray | None:
    """(n, C) a run's probabilities of validation, from fits that had not seen it; None where none of `model` (Model)
    were kept."""
    from outdo.evaluation.calibration import apply

    if not (folder / HELD_OUT).exists():
        return None
    tensors, note = read_tensors(folder / HELD_OUT)
    return apply(tensors["outputs"].numpy(), model.temperature) if note["model"] == model.name else None
