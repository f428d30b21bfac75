"""CSV, TSV, JSON Lines or Parquet with a label column and an image path, image bytes or text column."""

from __future__ import annotations

from pathlib import Path

from outdo.contracts import Dataset
from outdo.data.readers._example import CLASSES
from outdo.data.readers._tables import read_tables, table_names
from outdo.data.readers._tree import TABLE_SUFFIXES, FolderTree


class Table:
    summary = "a CSV, TSV, JSON Lines or Parquet table with a label and an image or text column, or train and test ones"

    def accepts(self, source: Path) -> bool:
        return source.suffix.lower() in TABLE_SUFFIXES if source.is_file() else bool(table_names(FolderTree(source)))

    def read(self, source: Path, *, input_column: str | None, label_column: str | None, group_column: str | None
             ) -> Dataset:
        if source.is_dir():
            tree, names = FolderTree(source), table_names(FolderTree(source))
        else:
            tree, names = FolderTree(source.parent), [source.name]
        return read_tables(tree, names, input_column, label_column, group_column, source=str(source))

    def example(self, folder: Path, seed: int = 0) -> Path:
        rows = [f"question {seed} about {label} {i},{label}" for i in range(3) for label in CLASSES]
        (folder / "questions.csv").write_text("\n".join(["text,label", *rows]), encoding="utf-8")
        return folder / "questions.csv"


PLUGIN = Table()
