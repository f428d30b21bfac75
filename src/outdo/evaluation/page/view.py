"""What every section needs: the report with its two sides picked out, and the few pieces of layout they share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any

from outdo.evaluation.page.charts import icon
from outdo.evaluation.page.markup import Markup, h
from outdo.evaluation.page.units import Scale, scale
from outdo.evaluation.page.words import say, term


class View:
    """A report to be shown. Any part of it may be absent: what is asked for and not there is empty."""

    def __init__(self, report: Mapping[str, Any], thumbnails: Mapping[str, bytes | str], looks: Mapping[str, Any]
                 ) -> None:
        self.report, self.thumbnails, self.looks = report, thumbnails, looks

    def get(self, *path: str) -> Any:
        """`get("data", "n", "test")`: the value there, or None."""
        value: Any = self.report
        for key in path:
            value = value.get(key) if isinstance(value, Mapping) else None
        return value

    def items(self, *path: str) -> list[Any]:
        return self.get(*path) or []

    @cached_property
    def before(self) -> str | None:
        return self._first("before")

    @cached_property
    def after(self) -> str | None:
        return self._first("after")

    @cached_property
    def sides(self) -> list[tuple[str, str]]:
        """(role, name) of what is set side by side."""
        return [(role, name) for role, name in (("before", self.before), ("after", self.after)) if name is not None]

    def _first(self, role: str) -> str | None:
        return next((c["name"] for c in self.items("contestants") if c.get("role") == role), None)

    @cached_property
    def axes(self) -> list[Mapping[str, Any]]:
        return self.items("axes")

    def axis(self, name: str) -> Mapping[str, Any]:
        return next((a for a in self.axes if a["axis"] == name), {})

    @cached_property
    def headline(self) -> Mapping[str, Any]:
        """The axis that the verdict's first sentence is about."""
        return self.axis("accuracy") or (self.axes[0] if self.axes else {})

    def detail(self, axis: str, contestant: str | None) -> Mapping[str, Any]:
        return (self.axis(axis).get("detail") or {}).get(contestant) or {}

    def against(self, axis: Mapping[str, Any], other: str | None) -> Mapping[str, Any]:
        """The comparison of after against `other` on this axis, or nothing."""
        found = (c for c in axis.get("comparisons") or [] if (c["of"], c["against"]) == (self.after, other))
        return next(found, {})


def row_scale(axis: Mapping[str, Any], *more: float | None) -> Scale:
    return scale(axis["unit"], [*(axis.get("values") or {}).values(), *more])


def axis_title(axis: Mapping[str, Any], inside: str = "span") -> Markup:
    return term("axis", axis["axis"], inside, axis.get("title"))


def section(key: str, *body: Any, note: Any = None, title: Any = None) -> Markup:
    """A heading with its note in the margin, and the matter beside it; nothing when there is no matter."""
    matter = [part for part in body if part]
    if not matter:
        return Markup()
    head = h("header", h("h2", title or say(key), id=key), h("div", note, class_="note") if note else None)
    return h("section", head, h("div", *matter, class_="body"), aria_labelledby=key)


def table(head: Sequence[Any], rows: Iterable[Sequence[Any]], figures: Iterable[int] = (), caption: Any = None,
          class_: str | None = None) -> Markup:
    """Cells by row; columns whose index is in `figures` hold numbers, and the first names its row."""
    numeric = set(figures)

    def cell(tag: str, i: int, value: Any, **more: Any) -> Markup:
        return h(tag, value, class_="num" if i in numeric else None, **more)

    heads = h("thead", h("tr", *(cell("th", i, value, scope="col") for i, value in enumerate(head))))
    lines = [h("tr", *(cell("td" if i else "th", i, value, scope=None if i else "row") for i, value in enumerate(row)))
             for row in rows]
    whole = h("table", h("caption", caption) if caption else None, heads, h("tbody", *lines), class_=class_)
    return h("div", whole, class_="scroll")


def stack(head: Sequence[Any], rows: Sequence[Sequence[tuple[str, Any]]]) -> Markup:
    """A table whose rows become small paragraphs on a phone. A cell is (class, content); the class says where it goes
    then: num, num to, num d(ifference), num p, num n, num t(ime), words, v(erdict)-cell. The first names its row.

    Roles are spelt out because browsers drop a table's own when its rows are laid out otherwise.
    """
    classes = [class_ if "num" in class_ else None for class_, _ in rows[0]]
    heads = h("tr", *(h("th", value, scope="col", role="columnheader", class_=class_ and "num")
                      for class_, value in zip(classes, head, strict=True)), role="row")
    lines = []
    for (_, first), *others in rows:
        cells = (h("td", content, class_=class_, role="cell") for class_, content in others)
        lines.append(h("tr", h("th", first, scope="row", role="rowheader"), *cells, role="row"))
    groups = h("thead", heads, role="rowgroup"), h("tbody", *lines, role="rowgroup")
    return h("div", h("table", *groups, class_="stack", role="table"), class_="scroll")


def fold(summary: Any, *body: Any) -> Markup:
    return h("details", h("summary", summary), *body)


def figure(key: str, caption: Any, drawing: Any, *below: Any) -> Markup:
    """`drawing` is labelled by the id `key`-caption."""
    return h("figure", h("figcaption", caption, id=f"{key}-caption"), drawing, *below)


def verdict(value: str | None) -> Markup:
    """The verdict in words, with the mark that it has in the charts."""
    if value is None:
        return Markup()
    kind = value if value in ("better", "worse", "equivalent") else "none"
    style = kind if kind in ("better", "worse") else "none"
    return h("span", icon(kind), term("verdict", value), class_=f"v v-{style}")
