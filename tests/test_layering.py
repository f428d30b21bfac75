"""Imports point one way. The order is that of docs/architecture.md; imports inside functions count too."""

import ast
from collections.abc import Iterator
from pathlib import Path

import outdo
from outdo.plugins import FOLDERS

ROOT = Path(outdo.__file__).parent
# a unit may import units before its group, and those before it in its own group
GROUPS = [
    ["errors"], ["progress", "contracts", "recipe", "plugins", "runtime"], ["storage", "runs", "data"], ["training"],
    ["backbones", "tasks", "search", "evaluation", "deploy", "evaluation.rivals"], ["serving", "scale"],
    ["climb"], ["improve"], ["loading", "proof", "reproduce"], ["applications"],
    ["__init__", "demo", "terminal", "cli", "__main__"],
]
ORDER = [unit for group in GROUPS for unit in group]
VERSION = "outdo.__version__"  # anybody may say which outdo wrote a file
FILES = {path: ".".join(path.relative_to(ROOT).with_suffix("").parts) for path in sorted(ROOT.rglob("*.py"))}


def imports(source: str) -> Iterator[str]:
    """Every `outdo...` that a module's source imports, wherever it does, as a dotted name."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.partition(".")[0] == "outdo")
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "absolute imports only, so that this test can read them"
            if (node.module or "").partition(".")[0] == "outdo":
                yield from (f"{node.module}.{alias.name}" for alias in node.names)


def unit(dotted: str) -> str:
    """`outdo.data.splits.carve` and `data.splits` are of the unit `data`; `outdo` itself is `__init__`."""
    name = dotted.removeprefix("outdo").lstrip(".")
    return max((u for u in ORDER if name == u or name.startswith(f"{u}.")), key=len, default="__init__")


def is_downward(importer: str, imported: str) -> bool:
    return ORDER.index(unit(imported)) > ORDER.index(unit(importer))


def sibling_plugin(importer: str, imported: str) -> bool:
    """Whether both are plug-ins of one kind; helpers that begin with an underscore are for all of a kind."""
    for _, package in FOLDERS.values():
        inside = f"{package}."
        if importer.startswith(inside) and imported.startswith(f"outdo.{inside}"):
            mine = importer.removeprefix(inside)
            theirs = imported.removeprefix(f"outdo.{inside}").partition(".")[0]
            return mine != theirs and not theirs.startswith("_") and not mine.startswith("__")
    return False


def test_every_file_is_looked_at():
    assert len(FILES) > 20
    assert {"errors", "cli", "evaluation.axes.accuracy", "__init__"} <= set(FILES.values())


def test_every_file_is_of_a_known_unit():
    unknown = [name for name in FILES.values() if name.partition(".")[0] not in ORDER]
    assert not unknown, f"say in docs/architecture.md and here where {unknown} stand"


def test_imports_point_upward():
    wrong = [f"{importer} imports {imported}" for path, importer in FILES.items()
             for imported in imports(path.read_text(encoding="utf-8"))
             if imported != VERSION and is_downward(importer, imported)]
    assert not wrong


def test_plugins_do_not_import_their_siblings():
    wrong = [f"{importer} imports {imported}" for path, importer in FILES.items()
             for imported in imports(path.read_text(encoding="utf-8")) if sibling_plugin(importer, imported)]
    assert not wrong


def test_a_wrong_import_would_be_seen():
    source = "import json, outdo.improve as flow\ndef f():\n    from outdo.evaluation import report\nimport numpy as np"
    assert set(imports(source)) == {"outdo.improve", "outdo.evaluation.report"}
    assert is_downward("data.splits", "outdo.training.loop")
    assert is_downward("evaluation.report", "outdo.improve")
    assert is_downward("tasks.image_classification", "outdo.evaluation.report.Report")
    assert not is_downward("training.loop", "outdo.data.splits.carve")
    assert not is_downward("data.splits", "outdo.data.dataset.Table")
    assert sibling_plugin("evaluation.axes.nll", "outdo.evaluation.axes.brier.PLUGIN")
    assert not sibling_plugin("evaluation.axes.nll", "outdo.evaluation.axes._helpers.weighted")
    assert not sibling_plugin("evaluation.axes.nll", "outdo.tasks.image_classification.PLUGIN")
