"""What was done: training, decisions, what the data check found, and how to do it again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from outdo.evaluation.page import charts
from outdo.evaluation.page.examples import picture
from outdo.evaluation.page.markup import Markup, h, inert, join, name
from outdo.evaluation.page.units import duration, percent
from outdo.evaluation.page.view import View, figure, fold, section, stack, table
from outdo.evaluation.page.words import say, term

EXAMPLES_NAMED = 5
SUSPECTS_SHOWN = 24


def training(view: View) -> Markup:
    epochs = view.items("curve")
    if not epochs:
        return Markup()
    panels = [_panel(epochs, "loss", ("train_loss", "validation_loss"), lambda t: f"{t:g}"),
              _panel(epochs, "validation_accuracy", ("validation_accuracy",), lambda t: f"{t * 100:g}\u202f%")]
    rows = [[f"{e['epoch']:g}", *(_loss(e.get(k)) for k in ("train_loss", "validation_loss")),
             percent(e.get("validation_accuracy")), duration(e.get("seconds"))] for e in epochs]
    head = [say("epoch"), say("train_loss"), say("validation_loss"), say("validation_accuracy"), say("seconds")]
    return section("training", h("div", *panels, class_="panels"),
                   fold(say("figures"), table(head, rows, figures=range(1, 5))), note=say("training.note"))


def _panel(epochs: list[Mapping[str, Any]], key: str, columns: tuple[str, ...], tick: Any) -> Markup:
    series = {c: [e.get(c) for e in epochs] for c in columns if any(e.get(c) is not None for e in epochs)}
    if not series:
        return Markup()
    drawing = charts.curve([e["epoch"] for e in epochs], series, f"curve-{key}-caption", tick)
    return figure(f"curve-{key}", say(key), drawing)


def _loss(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def decisions(view: View) -> Markup:
    rows = [_rung(rung) for rung in view.items("ladder")]
    ladder = stack([say("rung"), say("words"), say("validation"), say("seconds")], rows) if rows else None
    notes = view.items("notes")
    return section("decisions", ladder, h("ul", *(h("li", note) for note in notes), class_="plain") if notes else None,
                   note=say("decisions.note") if rows else None)


def _rung(rung: Mapping[str, Any]) -> list[tuple[str, Any]]:
    score = rung.get("validation")
    return [("", term("rung", rung["rung"])), ("words", rung.get("words")),
            ("num d", None if score is None else percent(score)), ("num t", duration(rung.get("seconds")))]


# ── the data ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def findings(view: View) -> Markup:
    data = view.get("data") or {}
    if "findings" not in data:
        return Markup()
    found = [f for f in data["findings"] if not _suspect(f)]
    if not found:
        return section("data", h("p", say("clean"), class_="note"))
    rows = [[join([term("check", f["check"]), h("span", f.get("message"), class_="small"),
                   _named(f.get("examples") or [], f["count"])]),
             f["count"], term("severity", f.get("severity") or "note")] for f in found]
    return section("data", table([say("found"), say("count"), ""], rows, figures=(1,)))


def _named(examples: list[str], count: int) -> Markup:
    """The examples that were recorded, and how many more there are."""
    if not examples:
        return Markup()
    more = h("li", say("more", n=f"{count - len(examples):,}")) if count > len(examples) else None
    items = h("ul", *(h("li", name(e)) for e in examples), more, class_="names file")
    return items if len(examples) <= EXAMPLES_NAMED else fold(say("files"), items)


def _suspect(finding: Mapping[str, Any]) -> bool:
    return finding["check"].replace("_", " ") == "suspect labels"


def suspects(view: View) -> Markup:
    """Labels to look at again, with their pictures where there are any."""
    found = next((f for f in view.items("data", "findings") if _suspect(f)), None)
    if not found or not found["count"]:
        return Markup()
    examples = found.get("examples") or []
    shown = [e for e in examples if e in view.thumbnails][:SUSPECTS_SHOWN]
    texts = any(isinstance(view.thumbnails[e], str) for e in shown)
    cards = h("ul", *(h("li", *picture(view, e), class_="card") for e in shown),
              class_="cards texts" if texts else "cards") if shown else None
    others = _named([e for e in examples if e not in shown], found["count"] - len(shown))
    return section("suspects", h("p", found.get("message")), cards, others, note=say("suspects.note"))


# ── doing it again ───────────────────────────────────────────────────────────────────────────────────────────────────


def reproduce(view: View) -> Markup:
    recipe = view.get("recipe") or {}
    chosen = h("dl", *(h("div", h("dt", k.replace("_", " ")), h("dd", _setting(v))) for k, v in recipe.items()),
               class_="recipe") if recipe else None
    return section("reproduce", _command(view), _facts(view),
                   join([h("h3", say("recipe")), chosen]) if chosen else None, note=say("reproduce.note"))


def _command(view: View) -> Markup:
    command = view.get("command")
    return h("pre", h("code", inert(command))) if command else Markup()


def _facts(view: View) -> Markup:
    machine, seconds, sizes = view.get("machine") or {}, view.get("seconds") or {}, view.get("data", "n") or {}
    facts = {
        "source": view.get("data", "source"),
        "examples": join((join([term("split", k), f" {v:,}"]) for k, v in sizes.items()), ", "),
        "fingerprint": view.get("data", "fingerprint"),
        "times opened": view.get("data", "test_opened"),
        "seed": view.get("seed"),
        "version": view.get("outdo"),
        "machine": join((f"{k.replace('_', ' ')} {_setting(v)}" for k, v in machine.items()), "; "),
        "resources": _resources(view.get("resources")),
        "stages": join((f"{k} {duration(v)}" for k, v in seconds.items()), "; "),
    }
    rows = [part for key, value in facts.items() if value not in (None, "")
            for part in (h("dt", say(key)), h("dd", value if isinstance(value, Markup) else name(value),
                                           class_="file" if key == "fingerprint" else None))]
    return h("dl", *rows, class_="facts") if rows else Markup()


def _resources(spent: Mapping[str, Any] | None) -> Markup | None:
    if not spent:
        return None
    energy = f"{spent['energy_joules'] / 3600:.2g}"
    return say("spent", cpu=duration(spent["cpu_seconds"]), energy=energy, how=spent["how"])


def _setting(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
