"""The errors a user can meet. Every message says what was expected, what was found and what to do.

    OutdoError
    ├── UserError            the user can mend it: one line, exit code 2, no traceback (also a ValueError)
    │   ├── DataError        the labelled examples cannot be read, or cannot be used as they are
    │   │   └── RivalFailed  a rival that was asked and did not answer; while it is measured, that axis goes without it
    │   ├── RecipeError      an unknown choice, or a value outside its range
    │   ├── PluginError      no task, axis, sampler, backbone, reader or sort of rival of that name
    │   ├── BackboneError    pretrained weights that are missing, unreachable or not the ones expected
    │   ├── RunError         a run folder that is missing, taken, in use, unfinished or damaged
    │   ├── BundleError      a bundle that is missing, damaged, changed since it was made, or not signed by your key
    │   └── MissingExtra     an optional library is not installed: says which `pip install` brings it
    └── Interrupted          Ctrl-C: what was best so far is on disk; exit code 130
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any


class OutdoError(Exception):
    """Root of everything outdo raises on purpose."""


class UserError(OutdoError, ValueError):
    """Something the user can mend.

    `UserError("no label column", expected="a column named label", found="id, text", fix="--label-column NAME")`
    reads as one sentence per part.
    """

    def __init__(
        self, problem: str, *, expected: str | None = None, found: str | None = None, fix: str | None = None
    ) -> None:
        parts = [problem]
        if expected is not None:
            parts.append(f"Expected {expected}")
        if found is not None:
            parts.append(f"Found {found}")
        if fix is not None:
            parts.append(fix[:1].upper() + fix[1:])
        super().__init__(" ".join(part if part.endswith("?") else part.rstrip(".") + "." for part in parts))


class DataError(UserError):
    """The labelled examples cannot be read, or cannot be used as they are."""


class RivalFailed(DataError):
    """A rival, anything with a `name`, was asked and did not answer as it should."""

    def __init__(self, rival: Any, why: Exception) -> None:
        said = f"the rival '{rival.name}' failed: {' '.join(str(why).split())[:200] or type(why).__name__}"
        super().__init__(str(why) if isinstance(why, UserError) else said)
        self.rival = rival


class RecipeError(UserError):
    """An unknown choice, or a value outside its range."""


class PluginError(UserError):
    """No plug-in of that name."""


class BackboneError(UserError):
    """Pretrained weights that are missing, unreachable or not the ones expected."""


class RunError(UserError):
    """A run folder that is missing, taken, in use, unfinished or damaged."""


class BundleError(UserError):
    """A bundle that is missing, damaged, changed since it was made, or not signed by your key."""


class MissingExtra(UserError):
    """An optional library is not installed."""

    def __init__(self, feature: str, library: str, extra: str) -> None:
        super().__init__(
            f"{feature} needs the library {library}, which is not installed", fix=f"run pip install 'outdo[{extra}]'"
        )


class Interrupted(OutdoError):
    """Ctrl-C. Whatever was best so far is on disk."""


def nearest(name: str, names: Iterable[str]) -> str:
    """`did you mean 'x'? ` when a name is close to a valid one, and always the valid names (the first twelve)."""
    known = sorted(names)
    lowered = {k.lower(): k for k in known}
    close = difflib.get_close_matches(str(name).lower(), list(lowered), n=1, cutoff=0.6)
    hint = f"did you mean '{lowered[close[0]]}'? " if close else ""
    listed = ", ".join(known[:12]) + (f" and {len(known) - 12} more" if len(known) > 12 else "")
    return f"{hint}valid: {listed}" if known else f"{hint}there are none"
