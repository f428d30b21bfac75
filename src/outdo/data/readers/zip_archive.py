"""Class folders, or a table and its images, inside a zip that is read without unpacking it."""

from __future__ import annotations

import zipfile
from pathlib import Path

from outdo.contracts import Dataset
from outdo.data.readers._classes import read_classes
from outdo.data.readers._example import write_class_folders
from outdo.data.readers._tables import no_columns, read_tables, table_names
from outdo.data.readers._tree import ZipTree


class ZipArchive:
    summary = "a zip with class folders, or with a table and its images; read without unpacking"

    def accepts(self, source: Path) -> bool:
        return source.is_file() and (source.suffix.lower() == ".zip" or zipfile.is_zipfile(source))

    def read(self, source: Path, *, input_column: str | None, label_column: str | None, group_column: str | None
             ) -> Dataset:
        tree = ZipTree(source)
        if table_names(tree):
            return read_tables(tree, table_names(tree), input_column, label_column, group_column)
        no_columns(source, input_column, label_column, group_column)
        return read_classes(tree)

    def example(self, folder: Path, seed: int = 0) -> Path:
        root = write_class_folders(folder / "photos", seed)
        with zipfile.ZipFile(folder / "photos.zip", "w") as archive:
            for path in sorted(root.rglob("*.png")):
                archive.write(path, path.relative_to(folder))
        return folder / "photos.zip"


PLUGIN = ZipArchive()
