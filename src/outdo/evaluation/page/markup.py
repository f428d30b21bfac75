"""HTML by construction: whatever is not Markup is made inert and escaped on its way in, so nothing can be forgotten.

    h("p", "5 < 6 ", h("b", name), class_="quiet")  ->  <p class="quiet">5 &lt; 6 <b>…</b></p>
"""

from __future__ import annotations

import html
import re
import unicodedata
from collections.abc import Iterable
from typing import Any

VOID = {"br", "col", "img", "input", "meta"}
JOINERS = "\u200c\u200d"  # spelling in Persian and Hindi, and family emoji: the only format characters that are kept
LONGEST = 160


class Markup(str):
    """Text that is HTML already."""

    __slots__ = ()


def inert(value: Any, keep: str = "") -> str:
    """The value as text in which nothing acts: control, bidirectional and separator characters are shown by code.

    A file called `a<U+202E>gpj.exe` must not read as `aexe.jpg`; lone surrogates (file names that are not UTF-8)
    could not even be written. `keep` names characters to leave alone.
    """
    return "".join(c if c in keep or not _acts(c) else f"⟨U+{ord(c):04X}⟩" for c in str(value))


def _acts(character: str) -> bool:
    return unicodedata.category(character) in ("Cc", "Cf", "Cs", "Zl", "Zp") and character not in JOINERS


def text(value: Any, keep: str = "") -> Markup:
    """Markup as it is, anything else inert and escaped; None is nothing."""
    if isinstance(value, Markup):
        return value
    return Markup("" if value is None else html.escape(inert(value, keep)))


def h(tag: str, *children: Any, **attributes: Any) -> Markup:
    """One element. A trailing underscore of an attribute goes (class_), others become hyphens (aria_label); None and
    False leave it out, True is the bare name."""
    given = "".join(_attribute(name, value) for name, value in attributes.items()
                    if value is not None and value is not False)
    if tag in VOID:
        return Markup(f"<{tag}{given}>")
    return Markup(f"<{tag}{given}>{join(children)}</{tag}>")


def _attribute(name: str, value: Any) -> str:
    name = name.rstrip("_").replace("_", "-")
    return f" {name}" if value is True else f' {name}="{html.escape(inert(value))}"'


def join(parts: Iterable[Any], between: str = "") -> Markup:
    return Markup(between.join(text(part) for part in parts))


def name(value: Any, tag: str = "bdi", **attributes: Any) -> Markup:
    """Somebody else's word, a class or a file: isolated, so that right-to-left letters stay among themselves, and
    broken after `/` and `_` where the line is too short for it."""
    escaped = text(shorten(inert(value), LONGEST))
    return h(tag, Markup(re.sub("([/_])(?=.)", r"\1<wbr>", escaped)), dir="auto", **attributes)


def shorten(value: str, longest: int) -> str:
    """At most `longest` columns, the middle left out; East Asian characters take two."""
    if width(value) <= longest:
        return value
    head = _fitting(value, longest * 3 // 5)
    tail = _fitting(reversed(value), longest - 1 - longest * 3 // 5)
    return f"{head}…{tail[::-1]}"


def _fitting(characters: Iterable[str], columns: int) -> str:
    taken = ""
    for character in characters:
        columns -= width(character)
        if columns < 0:
            break
        taken += character
    return taken


def width(value: str) -> int:
    return sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in value)
