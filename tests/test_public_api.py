"""The public API is four verbs, and asking for them is what loads them."""

import inspect
import subprocess
import sys
from types import ModuleType

import pytest

import outdo

VERBS = ["compare", "improve", "load", "read"]


def test_exported_members():
    assert sorted(outdo.__all__) == VERBS
    assert dir(outdo) == sorted([*VERBS, "__version__"])


@pytest.mark.parametrize("verb", VERBS)
def test_a_verb_is_a_documented_function(verb):
    function = getattr(outdo, verb)
    assert inspect.isfunction(function)
    assert inspect.getdoc(function)
    assert function.__name__ == verb


def test_improve_is_the_function_even_after_its_submodule_was_imported():
    import importlib

    module = importlib.import_module("outdo.improve")
    assert isinstance(module, ModuleType)
    assert outdo.improve is module.improve
    from outdo import improve

    assert improve is module.improve


def test_unknown_attribute():
    with pytest.raises(AttributeError, match="no attribute 'train'"):
        _ = outdo.train
    assert not hasattr(outdo, "train")


def test_import_outdo_is_light():
    code = "import sys, outdo; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert "outdo" in loaded
    assert not {"numpy", "torch", "timm", "transformers", "argparse"} & loaded


def test_version_is_the_package_s():
    from importlib.metadata import version

    assert outdo.__version__ == version("outdo")
