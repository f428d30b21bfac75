"""The report: `report.json` as a dict, built from measurements, and its table for the terminal.

`build` gathers, `Report` shows; every figure of the table, the page and the paragraph is read from the same dict. Its
shape is documented by `report.schema.json` beside this file.
"""

from __future__ import annotations

import math
import re
import textwrap
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from outdo import __version__, plugins
from outdo.contracts import Axis, Contestant, Measurement, Progress, TestSet
from outdo.errors import PluginError, RivalFailed, RunError, nearest
from outdo.evaluation import explain, gate, wear
from outdo.evaluation.comparison import Comparison, compare, detectable
from outdo.storage import plain, read_json

SCHEMA = 1
FILE = "report.json"
WIDTH = 100  # columns of a terminal
UNITS: dict[str, tuple[float, int | None, str]] = {  # factor, decimals (None: as needed), suffix; in the table's order
    "fraction": (100, 1, " %"),
    "nats": (1, 3, ""),
    "score": (1, 3, ""),
    "seconds": (1000, None, " ms"),
    "per second": (1, None, " /s"),
    "bytes": (1e-6, None, " MB"),
    "operations": (1e-6, None, " M"),
}

Measurements = Mapping[str, Mapping[str, Measurement]]  # axis -> contestant -> what was found


def measure_all(
    contestants: Sequence[Contestant], test: TestSet, axes: Sequence[str] | None = None,
    progress: Progress | None = None,
) -> dict[str, dict[str, Measurement]]:
    """axis -> contestant -> Measurement, for the named axes or those that cost little. Contestants with one and the
    same model are measured once: a clock would tell them apart. A rival that fails meanwhile is left out of that axis,
    which its remarks say."""
    loaded = {name: plugins.load("axes", name) for name in (chosen("default") if axes is None else axes)}
    ordered = sorted(loaded, key=lambda name: (list(UNITS).index(loaded[name].unit), name))
    first: dict[int, str] = {}
    twins = {c.name: name for c in contestants
             if c.model is not None and (name := first.setdefault(id(c.model), c.name)) != c.name}
    apart = [c for c in contestants if c.name not in twins]
    found = {}
    for done, name in enumerate(ordered):
        if progress:
            progress(f"measuring, {loaded[name].title}", done, len(ordered))
        measured = _measured(loaded[name], apart, test)
        found[name] = measured | {twin: measured[own] for twin, own in twins.items() if own in measured}
    if progress:
        progress("measuring", len(ordered), len(ordered))
    return found


def _measured(axis: Axis, contestants: Sequence[Contestant], test: TestSet) -> dict[str, Measurement]:
    try:
        return axis.measure(contestants, test)
    except RivalFailed as error:
        (failed,) = (c for c in contestants if c.model is error.rival)
        failed.about.setdefault("remarks", []).append(f"{axis.title} could not be measured: {error}".rstrip("."))
        return _measured(axis, [c for c in contestants if c is not failed], test)


def chosen(said: str, headline: str = "accuracy") -> list[str]:
    """The axes that `said` names, apart by commas: names, `default` for those that cost little, `all`. The headline is
    always among them. Raises PluginError with the nearest name."""
    known = plugins.load_all("axes")
    groups = {"all": set(known), "default": {n for n, axis in known.items() if not getattr(axis, "costly", False)}}
    found = {headline}
    for word in filter(None, (word.strip().replace("-", "_") for word in said.split(","))):
        if word not in groups and word not in known:
            raise PluginError(f"unknown axis '{word}'", fix=nearest(word, [*known, *groups]))
        found |= groups.get(word, {word})
    return sorted(found)


def build(
    contestants: Sequence[Contestant], test: TestSet, measurements: Measurements, context: Mapping[str, Any], *,
    headline: str = "accuracy", margin: float | None = None,
) -> dict[str, Any]:
    """report.json as a dict.

    One contestant has the role before and one the role after; these two are compared on every axis. The others are
    compared with after on the headline axis. `context` gives, as they are: task, seed, data, machine, seconds, recipe
    and, where known, curve, ladder, search and notes.
    """
    before, after = (next(c for c in contestants if c.role == role) for role in ("before", "after"))
    contestants = [c for c in contestants if c.role != "seed"]  # these are in the figures of after
    others = [c.name for c in contestants if c not in (before, after)]
    axes = {name: plugins.load("axes", name) for name in measurements}
    seed = context["seed"]
    main = compare(axes, measurements, [(after.name, before.name)], margin, seed)
    rest = compare({k: v for k, v in axes.items() if k == headline}, measurements,
                   [(after.name, other) for other in others], margin, seed)
    tally = Counter(c.verdict for c in main)
    report = {
        "schema": SCHEMA,
        "outdo": __version__,
        **{key: context[key] for key in ("task", "seed", "data", "machine", "seconds", "recipe")},
        "classes": test.classes,
        "contestants": [{**c.about, "name": c.name, "role": c.role} for c in contestants],
        "axes": [_axis(name, axes[name], found, [c for c in main + rest if c.axis == name])
                 for name, found in measurements.items() if found],  # an axis that measured nobody has nothing to show
        "verdict": {v: tally[v] for v in ("better", "worse", "no difference shown", "equivalent")},
        "margin": margin,
        **_why(before, after, test),
        "slices": explain.slices(before.predictions, after.predictions, test.codes, test.columns),
        "doubtful": explain.doubtful(before.predictions, after.predictions, test, context.get("nearest", {})),
        **{key: context.get(key, []) for key in ("curve", "ladder", "notes")},
        **{key: context[key] for key in ("resources", "nearest") if context.get(key)},
        **({"search": context["search"]} if context.get("search") else {}),
    }
    report = plain(report)
    return report | {"in_words": " ".join(filter(None, [explain.words(report), wear.words(report)]))}


def _axis(name: str, axis: Axis, found: Mapping[str, Measurement], comparisons: Sequence[Comparison]) -> dict[str, Any]:
    return {
        "axis": name,
        "title": axis.title,
        "summary": axis.summary,
        "unit": axis.unit,
        "better": axis.better,
        "values": {contestant: m.value for contestant, m in found.items()},
        "comparisons": [c.as_json() for c in comparisons],
        "detail": {contestant: m.detail for contestant, m in found.items()},
    }


def _why(before: Contestant, after: Contestant, test: TestSet) -> dict[str, Any]:
    was, now, codes = before.predictions, after.predictions, test.codes
    differ = ((was.labels == codes) != (now.labels == codes)).mean() if len(test) else 0.0
    return {
        "flips": explain.flips(was, now, codes, test.ids, test.classes),
        "class_changes": explain.class_changes(was, now, codes, test.classes),
        "confusions": explain.confusions(was, now, codes, test.classes),
        "detectable": detectable(len(test), float(differ)),
    }


# ── the table ────────────────────────────────────────────────────────────────────────────────────────────────────────


class Report:
    """report.json, read and shown."""

    def __init__(self, content: Mapping[str, Any]) -> None:
        if content.get("schema") != SCHEMA:
            raise RunError("this report was written by another version of outdo", expected=f"schema {SCHEMA}",
                           found=f"schema {content.get('schema')}", fix="run again, or use the version that wrote it")
        self.content = dict(content)

    @classmethod
    def read(cls, folder: Path) -> Report:
        """Raises RunError: no report in the folder, or one that is damaged or of another version."""
        content = read_json(Path(folder) / FILE)
        if not isinstance(content, dict):
            raise RunError(f"{Path(folder) / FILE} is damaged", expected="a JSON object")
        return cls(content)

    def as_json(self) -> dict[str, Any]:
        return self.content

    def __str__(self) -> str:
        before, after = self.name("before"), self.name("after")
        names = (clip(clean(name), 40) for name in (before, after))
        parts = ["before: {}   after: {}".format(*names), "", table(self._main_rows(before, after))]
        if others := self._other_rows(before):
            parts += ["", table(others)]
        parts += [textwrap.fill(line, WIDTH, subsequent_indent="  ") for line in self._remarks(before)]
        chance = " ".join(filter(None, [explain.chance(self.content), wear.words(self.content)]))
        parts += ["", textwrap.fill(chance, WIDTH), self.verdict()]
        if gate_said := self.content.get("gate"):
            parts += ["", gate.words(gate_said)]
        return "\n".join(parts)

    def _remarks(self, before: str) -> list[str]:
        """What was found out about rivals, why nothing was fine-tuned, and where interval and verdict seem to differ.
        """
        told = [(c["name"], c["remarks"]) for c in self.content["contestants"] if c.get("remarks")]
        lines = [f"{clip(clean(name), 40)}: {clean('; '.join(remarks))}." for name, remarks in told]
        lines += [clean(row["words"]) for row in self.content.get("ladder", [])
                  if row["rung"] == "plan" and row["words"].startswith("no fine-tuning")]
        lines += explain.despite(self.content["axes"], before)
        return ["", *lines] if lines else []

    def name(self, role: str) -> str:
        return next(c["name"] for c in self.content["contestants"] if c["role"] == role)

    def _main_rows(self, before: str, after: str) -> list[list[str]]:
        rows = [["", "before", "after", "difference [95% CI]", "verdict (p after Holm)"]]
        for axis, found in self._comparisons():
            if found["against"] == before:
                was, now, unit = axis["values"][before], axis["values"][after], axis["unit"]
                rows.append([axis["title"], shown(was, unit), shown(now, unit, was), interval(found, unit, was),
                             judged(found)])
        return rows

    def _other_rows(self, before: str) -> list[list[str]]:
        rows = [["", "", "after against it", "verdict (p after Holm)"]]
        for axis, found in self._comparisons():
            if found["against"] != before:
                rows[0][0] = f"{axis['title']} of"
                value = axis["values"][found["against"]]
                rows.append([clip(clean(found["against"]), 30), shown(value, axis["unit"]),
                             interval(found, axis["unit"], value), judged(found)])
        return rows if len(rows) > 1 else []

    def _comparisons(self) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
        return ((axis, found) for axis in self.content["axes"] for found in axis["comparisons"])

    def verdict(self) -> str:
        """The last line."""
        tally = self.content["verdict"]
        said = [f"better on {explain.counted(tally['better'], 'axis', 'axes')}",
                f"no difference shown on {tally['no difference shown']}", f"worse on {tally['worse']}"]
        if tally["equivalent"]:
            said.insert(1, f"equivalent on {tally['equivalent']}")
        return f"verdict: {', '.join(said)}. {self._looks()}."

    def _looks(self) -> str:
        """How often a run opened its test; of a comparison, how many models have had their look."""
        opened, judged = (self.content["data"].get(key) for key in ("test_opened", "test_judged"))
        if opened is None:
            return f"Models judged on this test set so far: {judged}"
        return f"Test set opened {({1: 'once', 2: 'twice'}.get(opened, f'{opened} times'))}"


def shown(value: float | None, unit: str, like: float | None = None) -> str:
    """`91.5 %`, `12.3 ms`; as many decimals as `like` would have, so that a row's figures can be compared."""
    if value is None:
        return "–"
    factor, decimals, suffix = UNITS[unit]
    return f"{value * factor:,.{places(value if like is None else like, factor, decimals)}f}{suffix}"


def places(value: float, factor: float, decimals: int | None) -> int:
    """Fixed for shares and scores; for times, rates and bytes three significant digits."""
    if decimals is not None:
        return decimals
    return 0 if value == 0 else min(6, max(0, 2 - math.floor(math.log10(abs(value * factor)))))


def interval(found: Mapping[str, Any], unit: str, like: float | None) -> str:
    """`+4.6 [+1.3, +7.8]` in the unit and with the decimals of the value `like`."""
    if found["difference"] is None or like is None:
        return "–"
    factor, decimals, _ = UNITS[unit]
    digits = places(like, factor, decimals)

    def signed(value: float) -> str:
        scaled = round(value * factor, digits)
        return f"{scaled:+,.{digits}f}".replace("-", "−") if scaled else f"{0:.{digits}f}"

    if found["low"] is None:
        return signed(found["difference"])
    return f"{signed(found['difference'])} [{signed(found['low'])}, {signed(found['high'])}]"


def judged(found: Mapping[str, Any]) -> str:
    if found["p"] is None:
        return found["verdict"]
    p = "p<0.001" if found["p"] < 0.001 else f"p={found['p']:.2g}"
    return f"{found['verdict']} ({p}, n={found['n']:,})"


def table(rows: Sequence[Sequence[str]]) -> str:
    """Columns padded to their widest cell; the first and the last to the left, the others to the right."""
    widths = [max(map(width, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(
        cell + gap if i in (0, len(row) - 1) else gap + cell
        for i, cell in enumerate(row) for gap in [" " * (widths[i] - width(cell))]
    ).rstrip() for row in rows)


ESCAPES = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)?")


def clean(text: str) -> str:
    """Text from data, safe to print: no terminal escapes, control or direction characters."""
    return "".join(c for c in ESCAPES.sub("", text) if unicodedata.category(c)[0] != "C")


def clip(text: str, most: int) -> str:
    """At most so many columns of a terminal."""
    if width(text) <= most:
        return text
    while width(text) >= most:
        text = text[:-1]
    return text + "…"


def width(text: str) -> int:
    """Columns in a terminal: Chinese, Japanese and Korean characters take two, combining marks none."""
    return sum(2 if unicodedata.east_asian_width(c) in "WF" else 0 if unicodedata.combining(c) else 1 for c in text)
