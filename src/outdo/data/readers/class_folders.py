"""A folder for each class, with or without train, val and test folders around them."""

from __future__ import annotations

from pathlib import Path

from outdo.contracts import Dataset
from outdo.data.readers._classes import read_classes
from outdo.data.readers._example import write_class_folders
from outdo.data.readers._tables import no_columns, table_names
from outdo.data.readers._tree import FolderTree


class ClassFolders:
    summary = "a folder for each class (photos/cat/1.jpg), perhaps below train, val and test folders"

    def accepts(self, source: Path) -> bool:
        return source.is_dir() and not table_names(FolderTree(source))

    def read(self, source: Path, *, input_column: str | None, label_column: str | None, group_column: str | None
             ) -> Dataset:
        no_columns(source, input_column, label_column, group_column)
        return read_classes(FolderTree(source))

    def example(self, folder: Path, seed: int = 0) -> Path:
        return write_class_folders(folder / "photos", seed)


PLUGIN = ClassFolders()
