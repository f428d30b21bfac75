"""Which examples were gained and lost, and what that means class by class."""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from outdo.evaluation.page import charts
from outdo.evaluation.page.charts import icon
from outdo.evaluation.page.markup import Markup, h, inert, join, name, shorten, text
from outdo.evaluation.page.units import percent
from outdo.evaluation.page.view import View, figure, fold, section, table
from outdo.evaluation.page.words import say

CARDS = {"image": 24, "text": 12}  # shown at once; the others stand in a table
LONGEST_TEXT = 1200
CLASSES_DRAWN = 16
CLASS_COLUMNS = 24  # of a name beside its figures on a phone
CELLS_AS_TABLE = 12  # more classes than this are drawn as a grid, without figures in the cells
CONFUSIONS_LISTED = 10
SIDE_BY_SIDE = 6  # classes: tables of more stand one below the other
WEIGHTY = 0.05  # of probability: the least that a word counts for to be marked

Flip = Mapping[str, Any]


# ── single examples ──────────────────────────────────────────────────────────────────────────────────────────────────


def flips(view: View, key: str) -> Markup:
    """`key` is gained or lost: cards for the worst, a table for all that are recorded."""
    if view.get("flips") is None:
        return Markup()
    recorded = view.items("flips", key)
    n = view.get("flips", f"n_{key}")
    n = len(recorded) if n is None else n
    if not recorded:
        return section(key, h("p", say(f"{key}.none"), class_="note"))
    texts = any(isinstance(view.thumbnails.get(flip["id"]), str) for flip in recorded)
    shown = recorded[: CARDS["text" if texts else "image"]]
    cards = h("ul", *(_card(view, flip) for flip in shown), class_="cards texts" if texts else "cards")
    rest = _flip_table(view, recorded, n) if len(recorded) > len(shown) or n > len(recorded) else None
    legend = h("p", say("looks.texts" if texts else "looks.images")) if view.looks else None
    return section(key, cards, rest, note=join([h("p", say(f"{key}.note", n=n)), legend]))


def _card(view: View, flip: Flip) -> Markup:
    answers = [h("dt", say("truth")), h("dd", name(flip["truth"]))]
    for role in ("before", "after"):
        right = flip[role] == flip["truth"]
        answers += [h("dt", say(role)),
                    h("dd", "✓ " if right else "✗ ", _answer(flip, role), class_="right" if right else "wrong")]
    return h("li", *picture(view, flip["id"]), h("dl", *answers), *_looks(view, flip["id"]), _near(view, flip["id"]),
             class_="card")


def _looks(view: View, example: str) -> list[Markup]:
    """What spoke for each side's answer: two small pictures, or the words that weigh most."""
    found = view.looks.get(example) or {}
    seen = [(role, found[role]) for role in ("before", "after") if role in found]
    if not seen:
        return []
    if isinstance(seen[0][1], bytes):
        return [h("div", *(h("figure", h("img", src=data_url(image), alt=""), h("figcaption", say(f"looked.{role}")))
                           for role, image in seen), class_="looks")]
    return [h("p", say(f"weighed.{role}"), " ", join((_weighed(*pair) for pair in weights), ""), class_="weighed")
            for role, weights in seen]


def _weighed(word: str, weight: float) -> Markup:
    """For the answer where leaving it out costs probability, against it where that gains some."""
    if abs(weight) < WEIGHTY:
        return text(word)
    strong = " strong" if abs(weight) >= 5 * WEIGHTY else ""
    return join([h("mark", word.rstrip(), class_=("for" if weight > 0 else "against") + strong),
                 word[len(word.rstrip()) :]])


def _near(view: View, example: str) -> Markup:
    """The training examples most alike, by their labels."""
    near = (view.get("nearest") or {}).get(example)
    if not near:
        return Markup()
    labels = Counter(one["label"] for one in near)
    said = join((join([name(label), f" {n}"]) for label, n in labels.most_common()), ", ")
    return h("p", say("nearest", labels=said, first=name(near[0]["id"])), class_="file")


def _answer(flip: Flip, role: str) -> Markup:
    return join([name(flip[role]), percent(flip.get(f"{role}_confidence"), 0)], " ")


def picture(view: View, example: str) -> list[Markup]:
    """What the example looks like, and its name."""
    content = view.thumbnails.get(example)
    called = h("p", name(example), class_="file")
    if isinstance(content, str):
        return [h("blockquote", text(shorten(content, LONGEST_TEXT), keep="\n\t"), dir="auto"), called]
    if content is None:
        return [called]
    return [h("img", src=data_url(content), alt=example), called]


def data_url(image: bytes) -> str:
    return f"data:image/jpeg;base64,{base64.b64encode(image).decode()}"


def _flip_table(view: View, recorded: Sequence[Flip], n: int) -> Markup:
    rows = [[name(f["id"]), name(f["truth"]), _answer(f, "before"), _answer(f, "after")] for f in recorded]
    summary = say("first of", shown=len(recorded), n=n) if n > len(recorded) else say("all examples", n=n)
    return fold(summary, table([say("example"), say("truth"), say("before"), say("after")], rows))


# ── class by class ───────────────────────────────────────────────────────────────────────────────────────────────────


def classes(view: View) -> Markup:
    matrices = [_confusion(view, role, who) for role, who in view.sides
                if view.detail("accuracy", who).get("confusion")]
    beside = len(view.items("classes")) <= SIDE_BY_SIDE
    confusion = h("div", h("p", say("confusion.table"), class_="legend"),
                  h("div", *matrices, class_="panels" if beside else "stacked"))
    return section("classes", _class_chart(view), _changed_confusions(view), confusion if matrices else None,
                   note=say("classes.note"))


def _class_chart(view: View) -> Markup:
    counted = [c for c in view.items("class_changes") if c["n"]]
    if not counted:
        return Markup()
    most = sorted(counted, key=lambda c: -abs(c["after"] - c["before"]) / c["n"])[:CLASSES_DRAWN]
    drawn = sorted(most, key=lambda c: (c["before"] - c["after"]) / c["n"])
    low = max(0.0, min(min(c["before"], c["after"]) / c["n"] for c in drawn) - 0.02)
    low = min(low, 0.9)
    lines = [_class_row(c) for c in drawn]
    caption = say("class chart") if len(drawn) == len(counted) else \
        say("class chart.some", shown=len(drawn), n=len(counted))
    legend = h("p", icon("before"), say("before"), icon("after"), say("after"), class_="legend")
    rows = [[name(c["class"]), c["n"], c["before"], c["after"], f"{c['after'] - c['before']:+d}".replace("-", "−")]
            for c in view.items("class_changes")]
    data = table([say("class"), "n", say("correct before"), say("correct after"), say("change")], rows,
                 figures=(1, 2, 3, 4))
    drawing = charts.rows(lines, low, 1.0, "classes-chart-caption", lambda t: percent(t, 0))
    return figure("classes-chart", caption, join([legend, drawing]), fold(say("all classes", n=len(rows)), data))


def _class_row(counts: Mapping[str, Any]) -> charts.Row:
    n, before, after = (counts[key] for key in ("n", "before", "after"))
    mark = "after" if after > before else "worse" if after < before else "none"
    figures = say("of", "tspan", before=f"{before:,}", after=f"{after:,}", n=f"{n:,}")
    return charts.Row(shorten(inert(counts["class"]), CLASS_COLUMNS), figures, before / n, None, after / n, mark)


def _changed_confusions(view: View) -> Markup:
    """Two lists: what is mistaken for what more often than before, and less often."""
    lists = []
    for key in ("vanished", "appeared"):
        pairs = view.items("confusions", key)
        rows = [[_mistaken(pair), pair["before"], pair["after"]] for pair in pairs]
        head = [say("mistake"), say("before"), say("after")]
        if rows:
            shown, rest = rows[:CONFUSIONS_LISTED], rows[CONFUSIONS_LISTED:]
            more = fold(say("more", n=len(rest)), table(head, rest, figures=(1, 2))) if rest else None
            lists.append(h("div", table(head, shown, figures=(1, 2), caption=say(key)), more))
    return h("div", *lists, class_="panels") if lists else Markup()


def _mistaken(pair: Mapping[str, Any]) -> Markup:
    return say("mistaken", truth=name(pair["truth"]), answer=name(pair["predicted"]))


def _confusion(view: View, role: str, who: str) -> Markup:
    counts, names = view.detail("accuracy", who)["confusion"], view.items("classes")
    names = names if len(names) == len(counts) else [str(i) for i in range(len(counts))]
    if len(counts) <= CELLS_AS_TABLE:
        return _confusion_table(counts, names, role)
    wrong = [(counts[i][j], names[i], names[j]) for i in range(len(names)) for j in range(len(names))
             if i != j and counts[i][j]]
    rows = [[say("mistaken", truth=name(t), answer=name(p)), n] for n, t, p in sorted(wrong, key=lambda w: -w[0])]
    key = f"confusion-{role}"
    data = table([say("mistake"), say("count")], rows, figures=(1,))
    return figure(key, say("confusion", side=say(role)), charts.heat(counts, f"{key}-caption"),
                  fold(say("confusion.most", side=say(role)), data))


def _confusion_table(counts: Sequence[Sequence[int]], names: Sequence[str], role: str) -> Markup:
    upright = len(names) > 4
    short = [name(shorten(inert(n), 18), class_="upright" if upright else None) for n in names]
    head = h("tr", h("td"), *(h("th", n, scope="col") for n in short))
    rows = [h("tr", h("th", name(shorten(inert(names[i]), 24)), scope="row"),
              *(h("td", n, class_=_heat_class(n, sum(row), i == j)) for j, n in enumerate(row)))
            for i, row in enumerate(counts)]
    whole = h("table", h("thead", head), h("tbody", *rows), class_="confusion" + " many" * upright,
              aria_labelledby=f"confusion-{role}-caption")
    return figure(f"confusion-{role}", say("confusion", side=say(role)), h("div", whole, class_="scroll"))


def _heat_class(count: int, total: int, diagonal: bool) -> str:
    """Mistakes darker the more of their class they are: up to 5, 10, 20 % and beyond."""
    if diagonal:
        return "hit"
    if not count:
        return "zero-cell"
    share = count / total
    return "m1" if share <= 0.05 else "m2" if share <= 0.1 else "m3" if share <= 0.2 else "m4"
