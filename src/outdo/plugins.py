"""The folder is the registry: a plug-in is one file, its name is the file's name, and it ends in `PLUGIN = ...`.

Names are checked against the folder before anything is imported, so a typing error costs no import and names the
nearest valid one. Files that begin with an underscore are helpers that plug-ins of one kind share.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

from outdo.errors import PluginError, nearest

# kind (as in `outdo list KIND`) -> (one of them, the package whose files are its plug-ins)
FOLDERS = {
    "tasks": ("task", "tasks"),
    "backbones": ("backbone family", "backbones"),
    "axes": ("axis", "evaluation.axes"),
    "samplers": ("sampler", "search.samplers"),
    "readers": ("reader", "data.readers"),
    "rivals": ("sort of rival", "evaluation.rivals"),
}


def names(kind: str) -> list[str]:
    """The plug-ins of a kind, sorted, without importing any of them."""
    folder = Path(__file__).parent.joinpath(*_folder(kind)[1].split("."))
    return sorted(p.stem for p in folder.glob("*.py") if not p.stem.startswith("_"))


def load(kind: str, name: str) -> Any:
    """Import one plug-in and return its `PLUGIN`. Raises PluginError for a name that the folder does not hold."""
    if name not in names(kind):
        raise PluginError(f"unknown {_folder(kind)[0]} '{name}'", fix=nearest(name, names(kind)))
    return importlib.import_module(f"outdo.{_folder(kind)[1]}.{name}").PLUGIN


def load_all(kind: str) -> dict[str, Any]:
    """Every plug-in of a kind by name; an import error is an error, never an absent plug-in."""
    return {name: load(kind, name) for name in names(kind)}


def _folder(kind: str) -> tuple[str, str]:
    if kind not in FOLDERS:
        raise PluginError(f"unknown kind of plug-in '{kind}'", fix=nearest(kind, FOLDERS))
    return FOLDERS[kind]
