"""Drawings as inline SVG. Along x most are in percent, so that they stretch with the page and their words do not.

Every drawing is an image to a screen reader, named by the caption whose id it is given; its figures stand in a table
beside it. Shapes tell sides and verdicts apart, colour only repeats them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from outdo.evaluation.page.markup import Markup, h, join
from outdo.evaluation.page.units import percent, ticks
from outdo.evaluation.page.words import say

MARKS = {"better": "better", "worse": "worse", "before": "before", "after": "after"}  # everything else is drawn hollow


@dataclass(frozen=True)
class Row:
    """A line of a chart: words on the left, figures on the right, and below them what is drawn."""

    label: Any
    figures: Any
    start: float  # the interval's low end, or the value before
    middle: float | None  # the difference; None where the two ends are the marks themselves
    stop: float
    mark: str = "none"  # a verdict


def mark(kind: str, x: Any = "50%", y: Any = "50%", size: float = 5) -> Markup:
    """A triangle for better, an upturned one for worse, a filled disc for after, a hollow one for anything else."""
    style = f"mark-shape f-{MARKS.get(kind, 'none')} s-{MARKS.get(kind, 'none')}"
    corners = {"better": ((0, -1.15), (1, 0.8), (-1, 0.8)), "worse": ((0, 1.15), (1, -0.8), (-1, -0.8))}
    if kind in corners:
        points = " ".join(f"{a * size:g},{b * size:g}" for a, b in corners[kind])
        shape = h("polygon", points=points, class_=style)
    elif kind == "equivalent":
        shape = h("rect", x=-size * 0.85, y=-size * 0.85, width=size * 1.7, height=size * 1.7, class_=style)
    else:
        shape = h("circle", r=size - 0.5, class_=style)
    return h("svg", shape, x=x, y=y, overflow="visible")


def icon(kind: str) -> Markup:
    """The same mark among words."""
    return h("svg", mark(kind, 6, 6), viewBox="0 0 12 12", aria_hidden="true")


# ── rows along one axis: differences with intervals, and shares before and after ─────────────────────────────────────


def rows(lines: Sequence[Row], low: float, high: float, labelled_by: str, tick: Callable[[float], str],
         zero: bool = False, ends: tuple[Any, Any] | None = None) -> Markup:
    """Lines over a common axis from `low` to `high`; `zero` draws the line of no difference and `ends` names its
    sides."""
    step, top = 46, 30 if ends else 8
    height = top + step * len(lines) + 26

    def at(value: float) -> str:
        return f"{2 + 96 * (value - low) / (high - low):.2f}%"

    scaffold = [_tick(at(t), top, height - 24, tick(t), zero and t == 0) for t in ticks(low, high)]
    if ends:
        scaffold += [h("text", "← ", ends[0], x=0, y=12, class_="faint"),
                     h("text", ends[1], " →", x="100%", y=12, text_anchor="end", class_="faint")]
    drawn = [_row(line, top + i * step, at) for i, line in enumerate(lines)]
    return h("svg", *scaffold, *drawn, class_="chart", height=height, width="100%", role="img",
             aria_labelledby=labelled_by)


def _tick(x: str, top: float, bottom: float, words: str, strong: bool) -> Markup:
    return join([h("line", x1=x, x2=x, y1=top, y2=bottom, class_="zero" if strong else "grid"),
                 h("text", words, x=x, y=bottom + 18, text_anchor="middle", class_="faint")])


def _row(line: Row, y: float, at: Callable[[float], str]) -> Markup:
    style, centre = f"range s-{MARKS.get(line.mark, 'none')}", y + 31
    words = [h("text", line.label, x=0, y=y + 15), h("text", line.figures, x="100%", y=y + 15, text_anchor="end")]
    bar = h("line", x1=at(line.start), x2=at(line.stop), y1=centre, y2=centre, class_=style)
    if line.middle is None:
        marks = [mark("before", at(line.start), centre), mark("after", at(line.stop), centre)]
    else:
        marks = [mark(line.mark, at(line.middle), centre)]
    return h("g", *words, bar, *marks)


# ── calibration ──────────────────────────────────────────────────────────────────────────────────────────────────────


def lowest_tick(bins: Iterable[Mapping[str, Any]]) -> float:
    """A round share below all marks of a reliability diagram, for both of its axes to begin at."""
    lowest = min((min(b["confidence"], b["accuracy"]) for b in bins if b["n"]), default=0.0)
    return max(0.0, math.floor(lowest * 5 - 0.25) / 5)


def reliability(bins: Sequence[Mapping[str, Any]], start: float, side: str, labelled_by: str) -> Markup:
    """How often right (y) against how sure (x), with how many examples stood where below; both axes run from `start`
    to 1. `side` is before or after."""
    filled = [b for b in bins if b["n"]]
    most = max((b["n"] for b in filled), default=1)

    def x(share: float) -> float:
        return 44 + 308 * (share - start) / (1 - start)

    def y(share: float) -> float:
        return 336 - 308 * (share - start) / (1 - start)

    grid = [h("rect", x=x(start), y=y(1), width=308, height=308, class_="frame"),
            h("line", x1=x(start), y1=y(start), x2=x(1), y2=y(1), class_="zero dashed")]
    for t in ticks(start, 1, 4):
        grid += [h("text", percent(t, 0), x=38, y=y(t) + 4, text_anchor="end", class_="faint"),
                 h("text", percent(t, 0), x=x(t), y=408, text_anchor="middle", class_="faint")]
    bars = [_bar(x(max(b["low"], start)), x(b["high"]), 46 * b["n"] / most) for b in filled if b["high"] > start]
    gaps = [h("line", x1=f"{x(b['confidence']):.1f}", x2=f"{x(b['confidence']):.1f}", y1=f"{y(b['confidence']):.1f}",
              y2=f"{y(b['accuracy']):.1f}", class_=f"range s-{side}") for b in filled]
    dots = [mark(side, f"{x(b['confidence']):.1f}", f"{y(b['accuracy']):.1f}", round(3 + 6 * (b["n"] / most) ** 0.5, 1))
            for b in filled]
    names = [h("text", say("accuracy", "tspan"), x=0, y=12, class_="faint"),
             h("text", say("confidence", "tspan"), x=352, y=430, text_anchor="end", class_="faint")]
    return h("svg", *grid, *bars, *gaps, *dots, *names, class_="chart", viewBox="0 0 372 436", role="img",
             aria_labelledby=labelled_by)


def _bar(left: float, right: float, height: float) -> Markup:
    """Standing on y = 392, a pixel from its neighbours."""
    return h("rect", x=f"{left + 0.5:.1f}", width=f"{right - left - 1:.1f}", y=f"{392 - height:.1f}",
             height=f"{height:.1f}", class_="count")


# ── training ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def curve(epochs: Sequence[float], series: Mapping[str, Sequence[float | None]], labelled_by: str,
          tick: Callable[[float], str]) -> Markup:
    """Lines over epochs, each named at its end; the first is solid, a second dashed."""
    seen = [v for values in series.values() for v in values if v is not None]
    low, high = min(seen), max(seen)
    margin = (high - low or abs(high) or 1) * 0.08
    low, high = low - margin, high + margin
    first, span = epochs[0], (epochs[-1] - epochs[0]) or 1

    def x(epoch: float) -> float:
        return 46 + 240 * (epoch - first) / span

    def y(value: float) -> float:
        return 186 - 174 * (value - low) / (high - low)

    grid = []
    for t in ticks(low, high, 4):
        grid += [h("line", x1=46, x2=286, y1=f"{y(t):.1f}", y2=f"{y(t):.1f}", class_="grid"),
                 h("text", tick(t), x=40, y=f"{y(t) + 4:.1f}", text_anchor="end", class_="faint")]
    grid += [h("text", f"{e:g}", x=x(e), y=206, text_anchor="middle", class_="faint") for e in _some(epochs)]
    lines, ends = [], _apart([(key, y(next(v for v in reversed(values) if v is not None)))
                              for key, values in series.items()])
    for i, (key, values) in enumerate(series.items()):
        known = [(x(e), y(v)) for e, v in zip(epochs, values, strict=True) if v is not None]
        lines += [h("polyline", points=" ".join(f"{a:.1f},{b:.1f}" for a, b in known),
                    class_=f"curve s-after{' dashed' if i else ''}"),
                  mark("before" if i else "after", f"{known[-1][0]:.1f}", f"{known[-1][1]:.1f}", 3.5)]
        if len(series) > 1:
            lines.append(h("text", say(key, "tspan"), x=294, y=ends[key] + 4))
    return h("svg", *grid, *lines, h("text", say("epoch", "tspan"), x=286, y=224, text_anchor="end", class_="faint"),
             class_="chart", viewBox="0 0 372 230", role="img", aria_labelledby=labelled_by)


def _some(epochs: Sequence[float]) -> list[float]:
    """The first, the last and a middle epoch."""
    return sorted({epochs[0], epochs[len(epochs) // 2], epochs[-1]}) if len(epochs) > 2 else list(dict.fromkeys(epochs))


def _apart(ends: Sequence[tuple[str, float]], least: float = 16) -> dict[str, float]:
    """Labels pushed down where they would cover one another."""
    placed: dict[str, float] = {}
    for key, y in sorted(ends, key=lambda end: end[1]):
        placed[key] = max(y, max(placed.values(), default=-least) + least)
    return placed


# ── confusion among many classes ─────────────────────────────────────────────────────────────────────────────────────


def heat(confusion: Sequence[Sequence[int]], labelled_by: str) -> Markup:
    """A square of C x C cells, rows the truth; only cells that hold anything are drawn, opacity by share of the row."""
    size, cells = len(confusion), []
    for i, row in enumerate(confusion):
        for j, count in enumerate(row):
            if count:
                share = count / sum(row)
                strength = share if i == j else min(1, 0.25 + 2.5 * share)
                cells.append(h("rect", x=j, y=i, width=1, height=1, fill_opacity=f"{strength:.2f}",
                               class_=f"cells{' hit' if i == j else ''}"))
    return h("svg", h("rect", width=size, height=size, class_="frame"), *cells, class_="chart",
             viewBox=f"0 0 {size} {size}", role="img", aria_labelledby=labelled_by, shape_rendering="crispEdges")
