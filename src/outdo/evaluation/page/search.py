"""What a search did: how the trials went, which choices mattered, what was left of the winner's gain, and the front."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from outdo.evaluation.page import charts
from outdo.evaluation.page.markup import Markup, h, join
from outdo.evaluation.page.units import ABSENT, MINUS, duration, percent, scale, ticks
from outdo.evaluation.page.view import View, figure, fold, section, table
from outdo.evaluation.page.words import say, term

MOST_SHOWN = 200  # trials in the table; report.json has all of them
MOST_CHOICES = 10
HIGHEST = 0.9  # share of the trials that the chart makes room for: the worst would flatten all others

Found = Mapping[str, Any]


def search(view: View) -> Markup:
    found = view.get("search")
    if not found:
        return Markup()
    return section("search", h("p", _summary(found)), _confirmed(found["confirmed"]), _history(found["history"]),
                   _importance(found["importance"]), _front(found["front"]), _trials(found["history"]),
                   note=say("search.note"))


def _summary(found: Found) -> Markup:
    states = join((join([f"{count:,} ", term("ended", state)]) for state, count in found["states"].items()), ", ")
    return say("search.summary", trials=f"{found['trials']:,}", sampler=found["sampler"], states=states,
               seconds=duration(found["seconds"]))


def _confirmed(found: Found) -> Markup:
    rows = [[_named(row["trial"], found), *(_nats(row[fold]["loss"]) for fold in ("first", "second")),
             *(percent(row[fold]["accuracy"]) for fold in ("first", "second"))] for row in found["rows"]]
    head = [say("trial"), say("loss.first"), say("loss.second"), say("accuracy.first"), say("accuracy.second")]
    words = None
    if found["claimed"] is not None:
        words = h("p", say("search.optimism", claimed=_signed(found["claimed"]), confirmed=_signed(found["confirmed"]),
                           optimism=_signed(found["optimism"])))
    return join([words, table(head, rows, figures=range(1, 5))])


def _named(number: int, found: Found) -> Markup:
    words = say("trial.default") if number == 0 else Markup(f"{number}")
    return join([words, h("span", say("trial.chosen"), class_="small")]) if number == found["chosen"] else words


def _importance(shares: Mapping[str, float]) -> Markup:
    largest = list(shares.items())[:MOST_CHOICES]
    if not largest or not largest[0][1]:
        return Markup()
    lines = [charts.Row(name.replace("_", " "), percent(share, 0), 0.0, share, share, "after")
             for name, share in largest]
    drawing = charts.rows(lines, 0.0, largest[0][1], "importance-caption", lambda t: percent(t, 0))
    return figure("importance", say("importance"), drawing)


def _front(rows: Sequence[Found]) -> Markup:
    if not rows:
        return Markup()
    shown = scale("seconds", [row["latency"] for row in rows])
    cells = [[f"{row['trial']}", shown.show(row["latency"]), _nats(row["loss"]), percent(row["accuracy"]),
              h("code", row["flags"])] for row in rows]
    head = [say("trial"), say("latency"), say("loss"), say("validation_accuracy"), say("flags")]
    return table(head, cells, figures=range(1, 4), caption=say("front"))


def _trials(rows: Sequence[Found]) -> Markup:
    cells = [[f"{row['trial']}", term("ended", row["state"]), _nats(row["loss"]), percent(row["accuracy"]),
              duration(row["seconds"]), _params(row)] for row in rows[:MOST_SHOWN]]
    head = [say("trial"), "", say("loss"), say("validation_accuracy"), say("seconds"), say("recipe")]
    summary = say("all trials", n=f"{len(rows):,}") if len(rows) <= MOST_SHOWN else \
        say("first of", shown=f"{MOST_SHOWN}", n=f"{len(rows):,}")
    return fold(summary, table(head, cells, figures=(2, 3, 4)))


def _params(row: Found) -> str:
    said = ", ".join(f"{name.replace('_', ' ')} {value:.3g}" if isinstance(value, float)
                     else f"{name.replace('_', ' ')} {value}" for name, value in row["params"].items())
    return f"{row['failure']}; {said}" if row.get("failure") else said


# ── the chart of trials ──────────────────────────────────────────────────────────────────────────────────────────────


def _history(rows: Sequence[Found]) -> Markup:
    known = [row for row in rows if row["loss"] is not None]
    if len(known) < 2:
        return Markup()
    return figure("trials", say("trials"), _drawn(known, rows[-1]["trial"]))


def _drawn(known: Sequence[Found], last: int) -> Markup:
    """Loss by trial: filled where it went to the end, hollow where it was stopped; a line for the best so far."""
    losses = sorted(row["loss"] for row in known)
    low, high = losses[0], losses[int(HIGHEST * (len(losses) - 1))]
    margin = (high - low or abs(high) or 1) * 0.08
    low, high = low - margin, high + margin

    def x(trial: float) -> float:
        return 46 + 620 * trial / max(1, last)

    def y(loss: float) -> float:
        return 186 - 174 * (min(loss, high) - low) / (high - low)

    grid = []
    for t in ticks(low, high, 4):
        grid += [h("line", x1=46, x2=666, y1=f"{y(t):.1f}", y2=f"{y(t):.1f}", class_="grid"),
                 h("text", f"{t:g}", x=40, y=f"{y(t) + 4:.1f}", text_anchor="end", class_="faint")]
    grid += [h("text", f"{t:g}", x=f"{x(t):.1f}", y=206, text_anchor="middle", class_="faint")
             for t in ticks(0, max(1, last), 6) if t == int(t)]
    points = [charts.mark("after" if row["state"] == "complete" else "none", f"{x(row['trial']):.1f}",
                          f"{y(row['loss']):.1f}", 3) for row in known]
    line = h("polyline", points=" ".join(f"{x(t):.1f},{y(v):.1f}" for t, v in _best(known, last)),
             class_="curve s-after")
    axis = h("text", say("trial", "tspan"), x=666, y=224, text_anchor="end", class_="faint")
    return h("svg", *grid, line, *points, axis, class_="chart", viewBox="0 0 680 230", role="img",
             aria_labelledby="trials-caption")


def _best(known: Sequence[Found], last: int) -> list[tuple[float, float]]:
    """Steps (trial, least loss so far of those that went to the end)."""
    steps: list[tuple[float, float]] = []
    for row in known:
        if row["state"] == "complete":
            lowest = min([row["loss"], *(loss for _, loss in steps[-1:])])
            steps += [(row["trial"], loss) for _, loss in steps[-1:]] + [(row["trial"], lowest)]
    return steps + [(last, loss) for _, loss in steps[-1:]]


def _nats(value: float | None) -> str:
    return ABSENT if value is None else f"{value:.3f}"


def _signed(value: float | None) -> str:
    return ABSENT if value is None else f"{value:+.3f}".replace("-", MINUS)
