"""The documentation is run: Python blocks with tiny stand-ins, shell lines against the command line's own parser."""

import ast
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import outdo
from outdo import cli, plugins
from outdo.recipe import CHOICES, span
from outdo.runtime import OPTIMISATIONS

ROOT = Path(__file__).parent.parent
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]
GUIDE = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def named(path: Path) -> str:
    return str(path.relative_to(ROOT))


# ── Python ───────────────────────────────────────────────────────────────────────────────────────────────────────────

PROGRAMS = [(page, code) for page in PAGES if page.name != "CONTRIBUTING.md" for code in blocks(page, "python")]


@pytest.fixture
def photos(tmp_path, monkeypatch):
    """A folder in which `photos/` and `cat.jpg` exist, and an `improve` that takes a second."""
    rng = np.random.default_rng(0)
    for label, brightness in (("cat", 60), ("dog", 190)):
        for i in range(20):
            path = tmp_path / "photos" / label / f"{i}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.normal(brightness, 30, (24, 24, 3)).clip(0, 255).astype(np.uint8)).save(path)
    shutil.copy(tmp_path / "photos" / "cat" / "0.jpg", tmp_path / "cat.jpg")
    improve = outdo.improve
    monkeypatch.setattr(outdo, "improve", lambda data, **said: improve(
        data, **{**said, "minutes": 0.2 if "search" in said else 0.02, "start_from": "tiny-image"}))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(("page", "code"), PROGRAMS, ids=[f"{named(page)}-{i}" for i, (page, _) in enumerate(PROGRAMS)])
def test_python_runs(page, code, photos):
    exec(compile(code, named(page), "exec"), {"__name__": "__main__"})


def test_there_is_python_to_run():
    assert {named(page) for page, _ in PROGRAMS} >= {"README.md", "docs/recipe.md"}


# ── shell ────────────────────────────────────────────────────────────────────────────────────────────────────────────

def commands(page: Path) -> list[str]:
    """Lines of shell blocks, `$ outdo` lines of indented examples, and `outdo ...` in running text."""
    text = page.read_text(encoding="utf-8")
    lines = [line for block in blocks(page, "sh") for line in block.splitlines()]
    lines += re.findall(r"^    \$ (outdo .*)$", text, re.MULTILINE)
    lines += re.findall(r"`(outdo [^`\n]+)`", text)
    return [line.split(" > ")[0] for line in lines if line.startswith("outdo ")]


LINES = [(page, line) for page in PAGES for line in commands(page)]


@pytest.mark.parametrize(("page", "line"), LINES, ids=[line for _, line in LINES])
def test_shell_lines_are_understood(page, line):
    words = shlex.split(line, comments=True)[1:]
    if words == ["--help"]:
        assert cli.main(words) == 0
    elif words[-1] == "--help":
        with pytest.raises(SystemExit, match="0"):
            cli.main(words)
    elif len(words) > 1:
        cli.parse(words)
    else:
        assert words[0] in cli.COMMANDS


def test_there_are_shell_lines():
    assert len({line for page, line in LINES if page.name == "README.md"}) > 8


# ── pages that repeat what the code says ─────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("choice", CHOICES, ids=lambda c: c.name)
def test_every_choice_is_documented_as_it_is(choice):
    row = f"| `{choice.name}` | {choice.default} | {span(choice)} | {choice.help} |"
    assert row in (ROOT / "docs" / "recipe.md").read_text(encoding="utf-8")


def test_no_other_choice_is_documented():
    page = (ROOT / "docs" / "recipe.md").read_text(encoding="utf-8")
    choices, switches = page.split("## What makes it fast")
    assert re.findall(r"^\| `(\w+)` \|", choices, re.MULTILINE) == [c.name for c in CHOICES]
    assert set(re.findall(r"^\| `(\w+)` \|", switches, re.MULTILINE)) == set(OPTIMISATIONS)


def test_every_key_of_the_report_is_documented():
    schema = json.loads((ROOT / "src/outdo/evaluation/report.schema.json").read_text(encoding="utf-8"))["properties"]
    whole, of_axis = (ROOT / "docs" / "report.md").read_text(encoding="utf-8").split("An entry of `axes`")
    assert re.findall(r"^\| `(\w+)` \|", whole, re.MULTILINE) == list(schema)
    named_there = set(re.findall(r"`(\w+)`", of_axis))
    assert set(schema["axes"]["items"]["properties"]) <= named_there
    assert {*schema["axes"]["items"]["properties"]["comparisons"]["items"]["properties"]} <= named_there
    assert {*schema["data"]["properties"]} <= set(re.findall(r"`(\w+)`", whole))


def test_the_order_of_imports_is_the_one_that_is_tested():
    from test_layering import GROUPS

    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    drawn = re.search(r"^    errors -> .*?\n\n", page, re.MULTILINE | re.DOTALL)[0]
    groups = [[unit.strip() for unit in group.split(",")] for group in drawn.split("->")]
    assert groups == [[unit for unit in group if unit != "__main__"] for group in GROUPS]


def test_every_file_and_folder_in_the_layout_is_there():
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    layout = re.search(r"^    src/outdo/\n(.*?)\n    tests/", page, re.MULTILINE | re.DOTALL)[1]
    listed = {line.split()[0] for line in layout.splitlines() if line.startswith(" " * 6) and line[6] != " "}
    there = {p.name + "/" * p.is_dir() for p in Path(outdo.__file__).parent.iterdir()}
    assert listed == there - {"__pycache__/", "__main__.py", "py.typed"}


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_links_inside_the_repository_lead_somewhere(page):
    targets = re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text(encoding="utf-8"))
    assert [t for t in targets if not (page.parent / t).exists()] == []


def test_the_changelog_knows_this_version_or_what_comes():
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.search(r"^## \[(Unreleased|\d+\.\d+\.\d+)\]", text, re.MULTILINE)


# ── the examples of CONTRIBUTING.md ──────────────────────────────────────────────────────────────────────────────────

EXAMPLES = dict(re.findall(r"^`src/outdo/([\w/]+\.py)`.*?^```python\n(.*?)^```$", GUIDE, re.MULTILINE | re.DOTALL))


def kind_of(path: str) -> str:
    folder = str(Path(path).parent).replace("/", ".")
    return next(kind for kind, (_, package) in plugins.FOLDERS.items() if package == folder)


def test_there_is_an_example_of_every_kind():
    assert {kind_of(path) for path in EXAMPLES} == set(plugins.FOLDERS)
    assert all(ast.parse(code).body[-1].targets[0].id == "PLUGIN" for code in EXAMPLES.values())


def test_the_examples_are_found_and_pass_the_conformance_suites(tmp_path):
    shutil.copytree(ROOT / "src" / "outdo", tmp_path / "outdo", ignore=shutil.ignore_patterns("__pycache__"))
    for path, code in EXAMPLES.items():
        assert not (tmp_path / "outdo" / path).exists(), f"{path} is a plug-in already: show another one"
        (tmp_path / "outdo" / path).write_text(code)
    names = " or ".join(Path(path).stem for path in EXAMPLES)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "no:xdist", "-rA", "-k", names,
         str(ROOT / "tests" / "conformance"), str(ROOT / "tests" / "test_plugins.py"), f"--rootdir={ROOT}"],
        env={**os.environ, "PYTHONPATH": str(tmp_path)}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    for path in EXAMPLES:
        assert re.search(rf"PASSED .*conformance.*{Path(path).stem}", done.stdout), f"no suite found {path}"
