"""The folder is the registry."""

import subprocess
import sys
from pathlib import Path

import pytest

from outdo import plugins
from outdo.errors import PluginError


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A package with two plug-ins and a helper, standing in for a folder of outdo's."""
    (tmp_path / "shapes").mkdir()
    for name, text in {"__init__": "", "_shared": "raise AssertionError('a helper is no plug-in')",
                       "circle": "PLUGIN = 'round'", "broken": "import a_library_that_is_not_there"}.items():
        (tmp_path / "shapes" / f"{name}.py").write_text(text)
    monkeypatch.setattr(plugins, "FOLDERS", {"shapes": ("shape", "shapes")})
    monkeypatch.setattr(plugins, "__file__", str(tmp_path / "plugins.py"))
    import outdo

    monkeypatch.setattr(outdo, "__path__", [*outdo.__path__, str(tmp_path)])
    yield tmp_path / "shapes"
    for module in [m for m in sys.modules if m.startswith("outdo.shapes")]:
        del sys.modules[module]


def test_a_new_file_is_a_new_plug_in(folder):
    assert plugins.names("shapes") == ["broken", "circle"]
    (folder / "square.py").write_text("PLUGIN = 'four corners'")
    assert plugins.names("shapes") == ["broken", "circle", "square"]
    assert plugins.load("shapes", "square") == "four corners"


def test_a_typing_error_imports_nothing_and_names_the_nearest(folder):
    with pytest.raises(PluginError, match=r"unknown shape 'cirle'. Did you mean 'circle'\? valid: broken, circle"):
        plugins.load("shapes", "cirle")
    assert not [m for m in sys.modules if m.startswith("outdo.shapes")]


@pytest.mark.parametrize("name", ["_shared", "__init__", "../plugins", "circle.py", ""])
def test_what_is_no_plug_in_cannot_be_loaded(folder, name):
    with pytest.raises(PluginError, match="unknown shape"):
        plugins.load("shapes", name)


def test_an_import_error_is_never_an_absent_plug_in(folder):
    with pytest.raises(ModuleNotFoundError, match="a_library_that_is_not_there"):
        plugins.load_all("shapes")


def test_load_all(folder):
    (folder / "broken.py").unlink()
    assert plugins.load_all("shapes") == {"circle": "round"}


def test_unknown_kind():
    with pytest.raises(PluginError, match=r"unknown kind of plug-in 'axis'. Did you mean 'axes'\?"):
        plugins.names("axis")


@pytest.mark.parametrize("kind", plugins.FOLDERS)
def test_every_kind_has_its_folder(kind):
    package = Path(plugins.__file__).parent.joinpath(*plugins.FOLDERS[kind][1].split("."))
    assert (package / "__init__.py").is_file()


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind in plugins.FOLDERS for name in plugins.names(kind)])
def test_every_plug_in_says_what_it_is(kind, name):
    summary = plugins.load(kind, name).summary
    assert summary
    assert "\n" not in summary
    assert not summary.endswith(".")


def test_names_are_listed_without_importing_any():
    code = "import sys; from outdo import plugins; [plugins.names(k) for k in plugins.FOLDERS]; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert {m for m in loaded if m.startswith("outdo.")} == {"outdo.plugins", "outdo.errors"}
