"""The gate: may the challenger replace the champion? Requirements in words, each met or not, with the reason.

    accuracy: better                    the verdict is better
    worst class: not worse              the verdict is not worse; says nothing where little can be shown
    latency: not worse than 5 %         shown to be at most so much worse: the interval's worse end lies within it

A percentage is of the champion's figure for times, rates and bytes, and points for shares (accuracy 96 % and "1 %" is
95 %). The gate opens when all are met. Demanding several at once needs no further correction: a challenger that fails
one of them passes with at most that one's chance of error (Berger 1982, intersection-union tests).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from outdo import plugins
from outdo.errors import RecipeError, nearest

FORMS = "`AXIS: better`, `AXIS: not worse` or `AXIS: not worse than 5 %`"
_WITHIN = re.compile(r"not worse than (\d+(?:\.\d+)?|\.\d+) ?(%|points?)?", re.ASCII)


@dataclass(frozen=True)
class Requirement:
    text: str  # as it was said
    axis: str
    wants: str  # "better" or "not worse"
    within: float | None = None  # of "not worse than": a share; None: only that worse was not shown


def parse(said: Sequence[str] | str) -> list[Requirement]:
    """Raises RecipeError for what is no requirement, or an unknown axis, with the nearest."""
    return [_one(text) for text in ([said] if isinstance(said, str) else said)]


def _one(text: str) -> Requirement:
    name, colon, wish = (part.strip() for part in text.partition(":"))
    wish = " ".join(wish.lower().split())
    if not colon:
        raise RecipeError(f"'{text}' is no requirement", expected=FORMS)
    axis = _axis(name)
    if wish in ("better", "not worse"):
        return Requirement(text, axis, wish)
    found = _WITHIN.fullmatch(wish)
    if not found:
        raise RecipeError(f"'{wish}' is nothing that can be required of {name}", expected=FORMS)
    value, unit = float(found[1]), found[2]
    if unit is None and value >= 1:
        raise RecipeError(f"'{text}' does not say what it counts in", expected=FORMS, fix=f"did you mean {value:g} %?")
    return Requirement(text, axis, "not worse", value / 100 if unit else value)


def _axis(name: str) -> str:
    """By the plug-in's name or its title, whatever the case. Raises RecipeError."""
    titles = {title: plugin for plugin in plugins.names("axes")
              for title in (plugin, plugin.replace("_", " "), plugins.load("axes", plugin).title.lower())}
    if name.lower() not in titles:
        known = {plugins.load("axes", plugin).title for plugin in plugins.names("axes")}
        raise RecipeError(f"unknown axis '{name}'", fix=nearest(name, known))
    return titles[name.lower()]


def judge(report: Mapping[str, Any], requirements: Sequence[Requirement]) -> dict[str, Any]:
    """{"promote", "requirements": [{"require", "met", "reason"}]} for report.json's dict, after against before."""
    decided = []
    for one in requirements:
        met, reason = _met(report, one)
        decided.append({"require": one.text, "met": met, "reason": reason})
    return {"promote": all(d["met"] for d in decided), "requirements": decided}


def _met(report: Mapping[str, Any], wish: Requirement) -> tuple[bool, str]:
    names = {c["role"]: c["name"] for c in report["contestants"] if c["role"] in ("before", "after")}
    axis = next((a for a in report["axes"] if a["axis"] == wish.axis), None)
    found = next((c for c in axis["comparisons"] if (c["of"], c["against"]) == (names["after"], names["before"])),
                 None) if axis else None
    if axis is None or found is None or found["difference"] is None:
        return False, "not measured on both sides"
    if wish.within is None:
        verdict = found["verdict"]
        met = verdict == "better" if wish.wants == "better" else verdict != "worse"
        end = found["high"] if axis["better"] == "lower" else found["low"]
        unsure = met and verdict == "no difference shown" and end is not None and end != found["difference"]
        return met, f"the verdict is: {verdict}" + ("; say `not worse than ...` to bound what that may hide" if unsure
                                                    else "")
    return _within(axis, found, names["before"], wish.within)


def _within(axis: Mapping[str, Any], found: Mapping[str, Any], before: str, within: float) -> tuple[bool, str]:
    """Whether the worse end of the difference's interval (the difference itself, for exact figures) is in bounds."""
    relative = axis["unit"] in ("seconds", "bytes", "per second", "operations")
    whole = abs(axis["values"][before]) if relative else 1.0
    end = found["high"] if axis["better"] == "lower" else found["low"]
    if end is None and found["p"] is not None:
        return False, f"too few measurements (n = {found['n']}) to say how much worse it could be"
    end = found["difference"] if end is None else end
    worse = (end if axis["better"] == "lower" else -end) / whole if whole else float("inf")
    unit = "%" if relative else "points"
    shown = f"{worse:.3g}" if axis["unit"] in ("nats", "score") else f"{100 * worse:.1f} {unit}"
    if found["p"] is None:
        return worse <= within, f"{shown} worse" if worse > 0 else "not worse"
    if worse <= within:
        return True, f"by the 95 % interval {f'at most {shown} worse' if worse > 0 else 'not worse at all'}"
    return False, f"by the 95 % interval it could be {shown} worse"


def words(gate: Mapping[str, Any]) -> str:
    """For a terminal: a line for each requirement and the decision."""
    lines = [f"{'met    ' if d['met'] else 'not met'}  {d['require']}  ({d['reason']})" for d in gate["requirements"]]
    return "\n".join([*lines, "gate: promote" if gate["promote"] else "gate: do not promote"])
