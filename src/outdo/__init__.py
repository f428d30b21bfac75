"""Fine-tune a pretrained model on your own labelled data, prove by how much it beats what you had, and ship it.

    import outdo
    data = outdo.read("photos/")
    result = outdo.improve(data, minutes=10)
    print(result.report)
    outdo.load("runs/photos-1").predict(["cat.jpg"])
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from outdo.data.read import read as read
    from outdo.improve import improve as improve
    from outdo.loading import load as load
    from outdo.proof import compare as compare

# the whole public API; imported when first asked for, so that `import outdo` loads neither numpy nor torch
_WHERE = {"read": "outdo.data.read", "improve": "outdo.improve", "compare": "outdo.proof", "load": "outdo.loading"}
__all__ = ["compare", "improve", "load", "read"]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'outdo' has no attribute '{name}'")
    return getattr(importlib.import_module(_WHERE[name]), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]


class _Package(ModuleType):
    """`outdo.improve` is the function, always: importing the submodule of that name would bind the module there."""

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in _WHERE and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
