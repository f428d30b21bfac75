"""Behind the axes: which corruption hurts, who falls under attack, what is remembered, when to answer, which slices
lose, and which labels of the test may be wrong."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from outdo.evaluation.page import charts
from outdo.evaluation.page.charts import icon
from outdo.evaluation.page.examples import picture
from outdo.evaluation.page.markup import Markup, h, inert, join, name, shorten, text
from outdo.evaluation.page.units import percent
from outdo.evaluation.page.view import View, figure, fold, section, table
from outdo.evaluation.page.words import say, term

DOUBTFUL_SHOWN = 12
SLICES_DRAWN = 16


def sides(view: View, axis: str, key: str) -> dict[str, Any]:
    """role -> detail[key] of before and after, where there is one."""
    return {role: found for role, who in view.sides if (found := view.detail(axis, who).get(key))}


Share = tuple[Any, int, float | None, float | None]  # (what, n, before, after)
Named = Callable[[Any, str], Markup]  # (what, the tag that it stands in) -> its name


def corruption(view: View) -> Markup:
    """Accuracy per kind of corruption, before and after, the largest loss first; per severity below."""
    kinds, severities = (sides(view, "corruption", key) for key in ("per_corruption", "per_severity"))
    if not kinds:
        return Markup()
    drawing = _chart(_shares(kinds), _kind, "corruption-chart", say("corruption.chart"), say("corruption"))
    mce = sides(view, "corruption", "mce").get("after")
    number = None if mce is None else h("p", say("corruption.mce", mce=f"{mce:.2f}"), class_="note")
    by_severity = _table(_shares(severities), lambda severity, _: Markup(f"{severity}"), say("severity"))
    return section("corruption", drawing, by_severity, number, note=_spoilt_note(view))


def _kind(which: Any, inside: str) -> Markup:
    return term("kind", which, inside)


def _spoilt_note(view: View) -> Markup:
    detail = next((d for _, who in view.sides if (d := view.detail("corruption", who))), {})
    return say("corruption.note", spoilt=f"{detail.get('spoilt', 0):,}", of=f"{detail.get('of', 0):,}")


def _shares(found: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[Share]:
    """One row for each that either side has."""
    by_side = {role: {row["which"]: row for row in rows} for role, rows in found.items()}
    kinds = dict.fromkeys(which for rows in by_side.values() for which in rows)
    return [(which, next(rows[which]["n"] for rows in by_side.values() if which in rows),
             *(by_side.get(role, {}).get(which, {}).get("accuracy") for role in ("before", "after")))
            for which in kinds]


def _chart(shares: Sequence[Share], named: Named, key: str, caption: Markup, head: Markup) -> Markup:
    """Shares before and after, the largest loss first; nothing where one side was not measured."""
    both = [(what, b, a) for what, _, b, a in shares if b is not None and a is not None]
    if not both:
        return _table(shares, named, head)
    low = min(0.9, max(0.0, min(min(b, a) for _, b, a in both) - 0.02))
    lines = [charts.Row(named(what, "tspan"), f"{percent(b, 0)} → {percent(a, 0)}", b, None, a,
                        "after" if a > b else "worse" if a < b else "none")
             for what, b, a in sorted(both, key=lambda share: share[2] - share[1])]
    legend = h("p", icon("before"), say("before"), icon("after"), say("after"), class_="legend")
    drawing = charts.rows(lines, low, 1.0, f"{key}-caption", lambda t: percent(t, 0))
    return figure(key, caption, join([legend, drawing]), fold(say("figures"), _table(shares, named, head)))


def _table(shares: Sequence[Share], named: Named, head: Markup) -> Markup:
    rows = [[named(what, "span"), f"{n:,}", percent(b), percent(a)] for what, n, b, a in shares]
    return table([head, "n", say("before"), say("after")], rows, figures=(1, 2, 3)) if rows else Markup()


def slices(view: View) -> Markup:
    shares = [(f"{row['column']} = {row['value']}", row["n"], row["before"] / row["n"], row["after"] / row["n"])
              for row in view.items("slices") if row["n"]]
    if not shares:
        return Markup()
    caption = say("slices.chart", shown=min(SLICES_DRAWN, len(shares)), n=len(shares))
    drawn = _chart(shares[:SLICES_DRAWN], _slice, "slices-chart", caption, say("slice"))
    more = fold(say("all slices", n=len(shares)), _table(shares, _slice, say("slice"))) \
        if len(shares) > SLICES_DRAWN else None
    return section("slices", drawn, more, note=say("slices.note"))


def _slice(what: Any, inside: str) -> Markup:
    return text(shorten(inert(what), 30)) if inside == "tspan" else name(what)


def attack(view: View) -> Markup:
    """Who still stands at each eps, and whether that can be trusted."""
    robust = sides(view, "adversarial", "robust")
    if not robust:
        return Markup()
    counted = {role: {row["eps"]: row["accuracy"] for row in rows} for role, rows in robust.items()}
    rows = [[f"{eps * 255:g}/255", *(percent(counted.get(role, {}).get(eps)) for role in ("before", "after"))]
            for eps in dict.fromkeys(eps for values in counted.values() for eps in values)]
    warnings = [h("p", say(role), ": ", ", ".join(flags), class_="warn")
                for role, flags in sides(view, "adversarial", "flags").items()]
    head = [say("eps"), say("before"), say("after")]
    return section("attack", table(head, rows, figures=(1, 2)), *warnings,
                   note=join([h("p", say("attack.note")), h("p", say("attack.flags"))]))


def privacy(view: View) -> Markup:
    rows = []
    for kind in ("loss", "likelihood_ratio"):
        found = sides(view, "privacy", kind)
        if found:
            rows.append([say(f"by {kind.replace('_', ' ')}"),
                         *(percent(found.get(role, {}).get(key)) for key in ("auc", "found")
                           for role in ("before", "after"))])
    head = [say("membership"), *(join([say(key), " ", say(role)]) for key in ("told apart", "found surely")
                                 for role in ("before", "after"))]
    return section("privacy", table(head, rows, figures=range(1, 5)), note=say("privacy.note")) if rows else Markup()


def selective(view: View) -> Markup:
    """For a wanted share of right answers: the threshold that validation chose, and what it gives on the test."""
    found = sides(view, "selective_risk", "thresholds")
    rows = []
    for level in dict.fromkeys(row["precision"] for levels in found.values() for row in levels):
        for role, levels in found.items():
            row = next(one for one in levels if one["precision"] == level)
            tested, reached = row["test"], row["n"] > 0
            right = percent(tested["right"] / tested["n"]) if tested["n"] and reached else None
            rows.append([percent(level, 0), say(role), percent(row["threshold"]) if reached else say("unreachable"),
                         percent(tested["coverage"]) if reached else None, right])
    head = [say("wanted"), "", say("threshold"), say("answered"), say("of them right")]
    return section("selective", table(head, rows, figures=(2, 3, 4)), note=say("selective.note")) if rows else Markup()


def doubtful(view: View) -> Markup:
    """Test examples whose label may be wrong."""
    found = view.items("doubtful")
    if not found:
        return Markup()
    cards = [h("li", *picture(view, row["id"]), _doubt(row), class_="card") for row in found[:DOUBTFUL_SHOWN]]
    texts = any(isinstance(view.thumbnails.get(row["id"]), str) for row in found)
    rows = [[name(row["id"]), name(row["truth"]), name(row["answer"]), percent(row["confidence"], 0),
             f"{row['agreeing']}/{row['of']}"] for row in found]
    head = [say("example"), say("truth"), say("both answer"), say("confidence"), say("agreeing")]
    return section("doubtful", h("ul", *cards, class_="cards texts" if texts else "cards"),
                   fold(say("all examples", n=len(rows)), table(head, rows, figures=(3, 4))),
                   note=say("doubtful.note"))


def _doubt(row: Mapping[str, Any]) -> Markup:
    return h("dl", h("dt", say("truth")), h("dd", name(row["truth"])), h("dt", say("both answer")),
             h("dd", name(row["answer"]), " ", percent(row["confidence"], 0)), h("dt", say("agreeing")),
             h("dd", f"{row['agreeing']}/{row['of']}"))
