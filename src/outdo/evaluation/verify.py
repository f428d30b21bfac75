"""Recompute what a report says from the answers stored beside it, and list what does not agree.

Accuracy and whatever else rests on answers is measured again and compared again, with the same resamples; times and
memory were measured once and cannot be, but their place in the corrected p-values can.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from outdo import plugins
from outdo.contracts import Contestant, TestSet
from outdo.evaluation import predictions, report, seeds
from outdo.evaluation.comparison import ALPHA, holm

TOLERANCE = 1e-6  # relative, of figures that were computed twice
REDONE = ("flips", "class_changes", "confusions", "detectable", "classes")


@dataclass(frozen=True)
class Verified:
    """`checked` figures were recomputed, `wrong` says which of them the report has otherwise, `taken` names the axes
    that only the machine could repeat."""

    checked: int
    wrong: tuple[str, ...]
    taken: tuple[str, ...]

    def __str__(self) -> str:
        lines = [f"{self.checked} figures recomputed from the stored answers, {len(self.wrong)} of them otherwise"]
        lines += [f"  {line}" for line in self.wrong[:20]]
        if self.taken:
            lines.append(f"taken as measured: {', '.join(self.taken)}")
        return "\n".join(lines)


def verify(folder: Path) -> Verified:
    """Raises RunError: no report or no answers there, or written by another version."""
    content = report.Report.read(folder).content
    test, contestants = predictions.read(folder)
    again, taken = _again(content, test, contestants)
    pairs = [*_figures(content, again, taken), *_corrected(content),
             *((key, content.get(key), again[key]) for key in REDONE)]
    wrong = [f"{name}: the report says {_short(said)}, the answers give {_short(found)}"
             for name, said, found in pairs if not _same(said, found)]
    tally = {v: sum(c["verdict"] == v for c in _main(content)) for v in content["verdict"]}
    if tally != content["verdict"]:
        wrong.append(f"verdict: the report counts {content['verdict']}, its axes give {tally}")
    return Verified(len(pairs) + 1, tuple(wrong), tuple(taken))


def _again(content: Mapping[str, Any], test: TestSet, contestants: Sequence[Contestant]
           ) -> tuple[dict[str, Any], list[str]]:
    """(the report built anew from answers alone, titles of the axes that answers do not give)."""
    known = [a["axis"] for a in content["axes"] if a["axis"] in plugins.names("axes")]
    measured = {k: v for k, v in report.measure_all(contestants, test, known).items() if v}
    after = predictions.of_role(contestants, "after").name
    measured = seeds.pooled(measured, after, [c.name for c in contestants if c.role == "seed"])
    context = {k: content[k] for k in ("task", "seed", "data", "machine", "seconds", "recipe")}
    headline = plugins.load("tasks", content["task"]).metric
    built = report.build(contestants, test, measured, context, headline=headline, margin=content["margin"])
    return built, [a["title"] for a in content["axes"] if a["axis"] not in measured]


def _figures(content: Mapping[str, Any], again: Mapping[str, Any], taken: Sequence[str]
             ) -> Iterator[tuple[str, Any, Any]]:
    """(name, as reported, as recomputed): values, and differences, intervals and raw p-values of comparisons."""
    anew = {a["axis"]: a for a in again["axes"]}
    for axis in content["axes"]:
        if axis["title"] in taken:
            continue
        for who, value in axis["values"].items():
            yield f"{axis['title']} of {who}", value, anew[axis["axis"]]["values"].get(who)
        found = {(c["of"], c["against"]): c for c in anew[axis["axis"]]["comparisons"]}
        for c in axis["comparisons"]:
            other = found.get((c["of"], c["against"]), {})
            for key in ("difference", "low", "high", "p_raw", "n"):
                yield f"{axis['title']}, {c['of']} against {c['against']}, {key}", c[key], other.get(key)


def _corrected(content: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    """Holm's correction over the comparisons with before, from the p-values that the report has; and whether no
    verdict is claimed without one."""
    main = _main(content)
    for c, p in zip(main, holm([c["p_raw"] for c in main]), strict=True):
        yield f"{c['axis']}, corrected p", c["p"], p
        if p is not None and p >= ALPHA and c["verdict"] in ("better", "worse"):
            yield f"{c['axis']}, verdict", c["verdict"], "no difference shown"


def _main(content: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    names = {c["role"]: c["name"] for c in content["contestants"] if c["role"] in ("before", "after")}
    return [c for a in content["axes"] for c in a["comparisons"]
            if (c["of"], c["against"]) == (names["after"], names["before"])]


def _same(said: Any, found: Any) -> bool:
    if isinstance(said, Mapping) and isinstance(found, Mapping):
        return said.keys() == found.keys() and all(_same(said[k], found[k]) for k in said)
    if isinstance(said, list) and isinstance(found, list):
        return len(said) == len(found) and all(map(_same, said, found))
    numbers = all(isinstance(v, int | float) and not isinstance(v, bool) for v in (said, found))
    return math.isclose(said, found, rel_tol=TOLERANCE, abs_tol=1e-9) if numbers else said == found


def _short(value: Any) -> str:
    text = f"{value:.6g}" if isinstance(value, float) else str(value)
    return text if len(text) < 60 else f"{text[:57]}..."
