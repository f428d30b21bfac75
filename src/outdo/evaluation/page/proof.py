"""The verdict: its sentence, the table of axes with its chart, the baselines, and calibration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from outdo.evaluation.explain import unshown
from outdo.evaluation.page import charts
from outdo.evaluation.page.markup import Markup, h, inert, join, name, shorten
from outdo.evaluation.page.units import Scale, percent, probability
from outdo.evaluation.page.view import View, axis_title, figure, fold, row_scale, section, stack, table, verdict
from outdo.evaluation.page.words import pair, say, term

Axis = Mapping[str, Any]


# ── the head ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def headline(view: View) -> Markup:
    """The verdict in one sentence, its figures below, and what they mean in words."""
    return h("div", h("h1", _sentence(view)), h("p", *_figures(view), class_="deck"), _abstract(view), class_="head")


def _sentence(view: View) -> Markup:
    axis, values = view.headline, view.headline.get("values") or {}
    if view.after is None or values.get(view.after) is None:
        return say("headline.nothing")
    shown = row_scale(axis)
    words = {"after": contestant(view.after), "axis": axis_title(axis), "new": shown.show(values[view.after])}
    found = view.against(axis, view.before).get("verdict")
    if found is None or values.get(view.before) is None:
        return say("headline.alone", **words)
    return say(f"headline.{found}", before=contestant(view.before), old=shown.show(values[view.before]), **words)


def _figures(view: View) -> list[Any]:
    """Difference, interval, p and n; the tally over the axes; how often the test was opened."""
    parts = []
    found = view.against(view.headline, view.before)
    if found.get("difference") is not None:
        interval = _scale(view.headline, found).interval(found.get("low"), found.get("high"))
        parts += [say("figures.all", difference=signed(view.headline, found), interval=h("span", interval, class_="ci"),
                      p=_equals(found.get("p")), n=f"{found['n']:,}"), " "]
    if counts := view.get("verdict"):
        none = counts.get("no difference shown", 0)
        parts += [say("tally", better=counts.get("better", 0), worse=counts.get("worse", 0),
                      equivalent=counts.get("equivalent", 0), none=none, all=sum(counts.values())), " "]
    opened = view.get("data", "test_opened")
    if opened is not None:
        often = opened > 1
        parts.append(h("span", say("opened often" if often else "opened once", **({"times": opened} if often else {})),
                       class_="warn" if often else None))
    if (promote := view.get("gate", "promote")) is not None:
        parts.insert(0, h("strong", say("gate"), ": ", say("promote" if promote else "do not promote"), " "))
    judged = view.get("data", "test_judged") or 1
    if judged > 1:
        parts += [" ", h("span", say("judged", n=judged), class_="warn")]
    return parts


def _equals(p: float | None) -> str:
    shown = probability(p)
    return shown if shown.startswith("<") else f"= {shown}"


def _abstract(view: View) -> Markup:
    flips, words = view.get("flips") or {}, view.get("in_words")
    counted = say("summary", n=view.get("data", "n", "test"), gained=flips["n_gained"], lost=flips["n_lost"]) \
        if "n_gained" in flips and "n_lost" in flips else words
    if not (words or counted):
        return Markup()
    return h("p", pair(words, counted) if words else counted, class_="abstract")


# ── the table of axes ────────────────────────────────────────────────────────────────────────────────────────────────


def results(view: View) -> Markup:
    if not view.axes or not view.sides:
        return Markup()
    head = [say("axis"), *(_side(role, who) for role, who in view.sides), say("difference"), "p", "n", say("verdict")]
    rows = [_axis_row(view, axis) for axis in view.axes]
    return section("results", stack(head, rows),
                   _methods(view), _forest(view, "points"), _forest(view, "relative"), note=_how_to_read(view))


def _how_to_read(view: View) -> Markup:
    n, least, margin = view.get("data", "n", "test"), view.get("detectable"), view.get("margin")
    return join([
        h("p", say("results.note", n=f"{n:,}")) if n is not None else None,
        h("p", say("detectable", points=say("points", signed=Scale(100, 1, "").show(least)))) if least else None,
        h("p", say("margin", margin=f"{margin:g}")) if margin is not None else None,
        *(h("p", say(key, axes=join([axis_title(axis) for axis in axes], ", ")))
          for key in ("despite.corrected", "despite.tolerated")
          if (axes := [axis for axis, why in unshown(view.axes, view.before) if key.endswith(why)])),
    ])


def _methods(view: View) -> Markup:
    rows = []
    for axis in view.axes:
        found = view.against(axis, view.before)
        rows.append([axis_title(axis), axis.get("summary"), found.get("method"), probability(found.get("p_raw"))])
    return fold(say("methods"), table([say("axis"), say("measures"), say("tested"), say("uncorrected")], rows, (3,)))


def _side(role: str, who: str) -> Markup:
    return join([say(role), h("span", contestant(who), class_="small side")])


def _axis_row(view: View, axis: Axis) -> list[tuple[str, Any]]:
    found = view.against(axis, view.before)
    shown, values = _scale(axis, found), axis.get("values") or {}
    lower = h("span", say("lower"), class_="small") if axis.get("better") == "lower" else None
    sides = [("num to" if role == "after" else "num",
              join([shown.show(values.get(who)), _remark(view, axis, who, shown)])) for role, who in view.sides]
    n = found.get("n")
    return [("", join([axis_title(axis), lower])), *sides, ("num d", _difference(axis, found)),
            ("num p", probability(found.get("p"))), ("num n", None if n is None else f"{n:,}"),
            ("v-cell", verdict(found.get("verdict")))]


def _remark(view: View, axis: Axis, who: str, shown: Scale) -> Markup | None:
    """What stands below a figure: the slow end of a time, the class that is the worst."""
    detail = view.detail(axis["axis"], who)
    if "p95" in detail:
        return h("span", "p95\u00a0", shown.show(detail["p95"]), class_="small side")
    return h("span", name(shorten(inert(detail["class"]), 24)), class_="small side") if "class" in detail else None


def _difference(axis: Axis, found: Mapping[str, Any]) -> Markup:
    shown = _scale(axis, found)
    interval = h("span", shown.interval(found.get("low"), found.get("high")), class_="ci")
    return join([shown.signed(found.get("difference")), interval], " ")


def _scale(axis: Axis, found: Mapping[str, Any]) -> Scale:
    return row_scale(axis, found.get("difference")) if axis else Scale(1, 3, "")


def signed(axis: Axis, found: Mapping[str, Any]) -> Markup:
    """A difference with its unit: percentages differ by points."""
    shown = _scale(axis, found).signed(found.get("difference"))
    return say("points", signed=shown) if axis.get("unit") == "fraction" else Markup(shown)


# ── the chart of axes ────────────────────────────────────────────────────────────────────────────────────────────────


def _forest(view: View, kind: str) -> Markup:
    """Fractions share one scale in points; all other units are set against the value before."""
    lines = [line for axis in view.axes if (axis.get("unit") == "fraction") == (kind == "points")
             if (line := _forest_row(view, axis, kind))]
    if not lines:
        return Markup()
    low = min(0.0, *(line.start for line in lines))
    high = max(0.0, *(line.stop for line in lines))
    edge = max(-low, high, 0.01) * 1.08
    low, high = (max(-edge, low - edge * 0.25), min(edge, high + edge * 0.25)) if low or high else (-edge, edge)
    drawing = charts.rows(lines, low, high, f"forest-{kind}-caption",
                          (lambda t: f"{abs(t) * 100:g}") if kind == "points" else (lambda t: percent(abs(t), 0)),
                          zero=True, ends=(say("worse", "tspan"), say("better", "tspan")))
    return figure(f"forest-{kind}", say(f"forest.{kind}"), drawing)


def _forest_row(view: View, axis: Axis, kind: str) -> charts.Row | None:
    found = view.against(axis, view.before)
    unit = 1.0 if kind == "points" else abs((axis.get("values") or {}).get(view.before) or 0)
    if found.get("difference") is None or not unit:
        return None
    turn = (-1 if axis.get("better") == "lower" else 1) / unit
    middle = found["difference"] * turn
    known = found.get("low") is not None and found.get("high") is not None
    ends = sorted((found["low"] * turn, found["high"] * turn)) if known else [middle, middle]
    shown = _scale(axis, found)
    figures = f"{shown.signed(found['difference'])} {shown.interval(found.get('low'), found.get('high'))}".rstrip()
    return charts.Row(axis_title(axis, "tspan"), figures, ends[0], middle, ends[1], found.get("verdict", "none"))


# ── the gate ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def gate(view: View) -> Markup:
    """What was required of the challenger, and whether it was met."""
    rows = [[inert(d["require"]), say("met" if d["met"] else "not met"), inert(d["reason"])]
            for d in view.items("gate", "requirements")]
    if not rows:
        return Markup()
    decided = say("promote" if view.get("gate", "promote") else "do not promote")
    return section("gate", h("p", h("strong", decided)), table([say("required"), say("verdict"), say("why")], rows),
                   note=say("gate.note"))


# ── baselines ────────────────────────────────────────────────────────────────────────────────────────────────────────


def baselines(view: View) -> Markup:
    """Everyone on the headline axis, and after against each; all the other axes folded away below."""
    everyone, axis = view.items("contestants"), view.headline
    if len(everyone) < 2 or not axis:
        return Markup()
    values = axis.get("values") or {}
    rows = [_against_row(view, axis, one) for one in sorted(everyone, key=lambda c: -(values.get(c["name"]) or 0))]
    after = contestant(view.after) if view.after else say("after")
    head = [say("contestant"), axis_title(axis), say("difference"), "p", say("against", after=after)]
    return section("baselines", stack(head, rows), _remarks(everyone), _everything(view, everyone),
                   note=say("baselines.note", after=after))


def _remarks(everyone: Sequence[Mapping[str, Any]]) -> Markup:
    """How each rival was asked, and what was found out about it before it was judged."""
    told = [(one["name"], one["remarks"]) for one in everyone if one.get("remarks")]
    return join(h("div", h("h3", contestant(who)), h("ul", *(h("li", inert(r)) for r in remarks), class_="plain small"))
                for who, remarks in told)


def _against_row(view: View, axis: Axis, one: Mapping[str, Any]) -> list[tuple[str, Any]]:
    found, shown = view.against(axis, one["name"]), row_scale(axis)
    compared = found.get("difference") is not None
    role = h("span", term("role", one.get("role")), class_="small")
    return [("", join([contestant(one["name"]), role])),
            ("num", shown.show((axis.get("values") or {}).get(one["name"]))),
            ("num d", _difference(axis, found) if compared else None),
            ("num p", probability(found.get("p")) if compared else None),
            ("v-cell", verdict(found.get("verdict")))]


def _everything(view: View, everyone: Sequence[Mapping[str, Any]]) -> Markup:
    rows = [[axis_title(axis), *(row_scale(axis).show((axis.get("values") or {}).get(one["name"])) for one in everyone)]
            for axis in view.axes]
    head = [say("axis"), *(contestant(one["name"]) for one in everyone)]
    return fold(say("all axes"), table(head, rows, figures=range(1, len(head))))


def contestant(who: Any) -> Markup:
    return term("name", shorten(inert(who), 48))


# ── calibration ──────────────────────────────────────────────────────────────────────────────────────────────────────


def calibration(view: View) -> Markup:
    found = {role: view.detail("calibration_error", who).get("bins") or [] for role, who in view.sides}
    start = charts.lowest_tick(b for bins in found.values() for b in bins)  # the same on both sides, to compare them
    panels = [_reliability(view, role, who, found[role], start) for role, who in view.sides if found[role]]
    return section("calibration", h("div", *panels, class_="panels") if panels else None, note=say("calibration.note"))


def _reliability(view: View, role: str, who: str, bins: Sequence[Mapping[str, Any]], start: float) -> Markup:
    error = (view.axis("calibration_error").get("values") or {}).get(who)
    side = join([say(role), " (", contestant(who), ")"])
    caption = side if error is None else say("reliability", side=side, error=percent(error))
    rows = [[f"{percent(b['low'])} – {percent(b['high'])}", percent(b["confidence"]), percent(b["accuracy"]), b["n"]]
            for b in bins if b["n"]]
    data = table([say("bin"), say("confidence"), say("accuracy"), "n"], rows, figures=(1, 2, 3))
    return figure(f"reliability-{role}", caption, charts.reliability(bins, start, role, f"reliability-{role}-caption"),
                  fold(say("figures"), data))
