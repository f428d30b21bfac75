"""Why: which examples, classes and confusions a comparison gained and lost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from outdo.contracts import Predictions, TestSet
from outdo.evaluation.axes._helpers import per_class
from outdo.evaluation.comparison import ALPHA

SLICES = 20  # values of a column that are looked at one by one
MOSTLY = 0.7  # of the nearest training examples
LISTED = 100  # flips and confusions in the report; the counts are always of all


def flips(
    before: Predictions, after: Predictions, codes: np.ndarray, ids: Sequence[str], classes: Sequence[str],
    most: int = LISTED,
) -> dict[str, Any]:
    """Examples that one side gets right and the other wrong, worst first: the surest wrong answers.

    {"gained": [...], "lost": [...], "n_gained", "n_lost"}; each example {"id", "truth", "before", "after",
    "before_confidence", "after_confidence"}, at most `most` of each kind.
    """
    was, now, was_sure, now_sure = before.labels, after.labels, before.confidence, after.confidence
    gained = np.flatnonzero((was != codes) & (now == codes))
    lost = np.flatnonzero((was == codes) & (now != codes))

    def listed(which: np.ndarray, sure: np.ndarray) -> list[dict[str, Any]]:
        worst_first = which[np.argsort(-sure[which], kind="stable")][:most]
        return [{
            "id": ids[i],
            "truth": classes[codes[i]],
            "before": classes[was[i]],
            "after": classes[now[i]],
            "before_confidence": float(was_sure[i]),
            "after_confidence": float(now_sure[i]),
        } for i in worst_first]

    return {"gained": listed(gained, was_sure), "lost": listed(lost, now_sure),
            "n_gained": len(gained), "n_lost": len(lost)}


def class_changes(
    before: Predictions, after: Predictions, codes: np.ndarray, classes: Sequence[str]
) -> list[dict[str, Any]]:
    """[{"class", "n", "before", "after", "difference"}] in numbers of correct answers, largest loss first."""
    rows = [
        {"class": was["class"], "n": was["n"], "before": was["correct"], "after": now["correct"],
         "difference": now["correct"] - was["correct"]}
        for was, now in zip(per_class(codes, before.labels, classes), per_class(codes, after.labels, classes),
                            strict=True)
    ]
    return sorted(rows, key=lambda row: row["difference"])


def confusions(
    before: Predictions, after: Predictions, codes: np.ndarray, classes: Sequence[str], most: int = LISTED
) -> dict[str, Any]:
    """Mistakes that became more frequent ("appeared") or rarer ("vanished"), largest change first.

    Each {"truth", "predicted", "before", "after"}: how often `truth` was taken for `predicted`.
    """
    was, now = (mistakes(p, codes) for p in (before, after))
    change = {pair: now[pair] - was[pair] for pair in was | now}

    def listed(sign: int) -> list[dict[str, Any]]:
        largest_first = sorted((pair for pair in change if sign * change[pair] > 0), key=lambda x: -sign * change[x])
        return [{"truth": classes[t], "predicted": classes[a], "before": was[t, a], "after": now[t, a]}
                for t, a in largest_first[:most]]

    return {"appeared": listed(1), "vanished": listed(-1)}


def mistakes(predictions: Predictions, codes: np.ndarray) -> Counter[tuple[int, int]]:
    """How often each class was taken for which other: (truth, answer) -> count."""
    labels = predictions.labels
    wrong = labels != codes
    return Counter(zip(codes[wrong].tolist(), labels[wrong].tolist(), strict=True))


def slices(before: Predictions, after: Predictions, codes: np.ndarray, columns: Mapping[str, np.ndarray]
           ) -> list[dict[str, Any]]:
    """How many are answered correctly for each value of each column of the data: [{"column", "value", "n", "before",
    "after"}], the largest loss first.

    A column of numbers with many values is cut into quarters; other columns of more than SLICES values say nothing of
    groups and are left out.
    """
    rows = []
    for column, values in columns.items():
        groups = grouped(np.asarray(values))
        for value in dict.fromkeys(groups.tolist()) if groups is not None else ():
            inside = groups == value
            rows.append({"column": column, "value": value, "n": int(inside.sum()),
                         "before": int((before.labels == codes)[inside].sum()),
                         "after": int((after.labels == codes)[inside].sum())})
    return sorted(rows, key=lambda row: (row["after"] - row["before"]) / row["n"])


def grouped(values: np.ndarray) -> np.ndarray | None:
    """(N,) str, the slice of each example; None where the column makes none."""
    known = np.unique(values.astype(str))
    if 2 <= len(known) <= SLICES:
        return values.astype(str)
    try:
        numbers = values.astype(float)
    except (TypeError, ValueError):
        return None
    if len(known) < 2 or not np.isfinite(numbers).all():
        return None
    edges = np.unique(np.quantile(numbers, [0, 0.25, 0.5, 0.75, 1]))
    if len(known) == len(values) and (numbers == np.round(numbers)).all():
        return None  # a number of its own for each example is a name
    at = np.clip(np.searchsorted(edges, numbers, side="right") - 1, 0, len(edges) - 2)
    return np.array([f"{edges[i]:g} to {edges[i + 1]:g}" for i in at])


def doubtful(before: Predictions, after: Predictions, test: TestSet, nearest: Mapping[str, Sequence[Mapping[str, Any]]]
             ) -> list[dict[str, Any]]:
    """Test examples whose label may be wrong: both sides give the same other answer, and so do most of the nearest
    training examples. [{"id", "truth", "answer", "confidence", "agreeing", "of"}], after's surest first."""
    was, now, sure = before.labels, after.labels, after.confidence
    rows = []
    for i in np.flatnonzero((was == now) & (now != test.codes)):
        near, answer = nearest.get(test.ids[i], ()), test.classes[now[i]]
        agreeing = sum(one["label"] == answer for one in near)
        if near and agreeing > MOSTLY * len(near):
            rows.append({"id": test.ids[i], "truth": test.classes[test.codes[i]], "answer": answer,
                         "confidence": float(sure[i]), "agreeing": agreeing, "of": len(near)})
    return sorted(rows, key=lambda row: -row["confidence"])[:LISTED]


# ── in words ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def words(report: Mapping[str, Any]) -> str:
    """A paragraph in plain words that states only what the figures of report.json support."""
    names = {c["role"]: c["name"] for c in report["contestants"] if c["role"] in ("before", "after")}
    before, after = names["before"], names["after"]
    main = {axis["title"]: found for axis in report["axes"] for found in axis["comparisons"]
            if (found["of"], found["against"]) == (after, before)}
    return " ".join(filter(None, [
        _headline(report, before, after),
        _by_verdict(main, "better", "It is better on"),
        _by_verdict(main, "worse", "It is worse on"),
        _by_verdict(main, "equivalent", "Within the stated margin it is equivalent on"),
        _by_verdict(main, "no difference shown", "No difference was shown on"),
        _flipped(report["flips"]),
        _classes(report["class_changes"]),
        _spoilt(report, before, after),
        _attacked(report, before, after),
        _doubted(report.get("doubtful", [])),
        chance(report),
    ]))


def _headline(report: Mapping[str, Any], before: str, after: str) -> str:
    for axis in report["axes"]:
        for found in axis["comparisons"]:
            if (axis["axis"], found["of"], found["against"]) == ("accuracy", after, before) and found["n"]:
                n, now, was = found["n"], axis["values"][after], axis["values"][before]
                known = found["low"] is not None  # with seeds, none where nothing ever differs
                interval = f" (95 % interval {points(found['low'])} to {points(found['high'])})" if known else ""
                return (f"Of {counted(n, 'test example')}, {after} answers {round(now * n):,} correctly and {before} "
                        f"{round(was * n):,}: {100 * now:.1f} % against {100 * was:.1f} %, a difference of "
                        f"{points(found['difference'])} points{interval}.")
    return ""


def _by_verdict(main: Mapping[str, Mapping[str, Any]], verdict: str, lead: str) -> str:
    titles = [title for title, found in main.items() if found["verdict"] == verdict]
    return f"{lead} {listing(titles)}." if titles else ""


def _flipped(flipped: Mapping[str, Any]) -> str:
    gained, lost = flipped["n_gained"], flipped["n_lost"]
    if not gained and not lost:
        return "No example is right in one and wrong in the other."
    return f"{counted(gained, 'example')} became right that had been wrong, {counted(lost, 'example')} the reverse."


def _classes(changes: Sequence[Mapping[str, Any]]) -> str:
    lost = [row for row in changes if row["difference"] < 0]
    if not lost:
        return ""
    worst = lost[0]
    return (f"{counted(len(lost), 'class', 'classes')} lost correct answers, most of all {worst['class']} "
            f"({worst['before']} to {worst['after']} of {worst['n']}); a single class was not tested by itself.")


def _detail(report: Mapping[str, Any], name: str, who: str) -> Mapping[str, Any]:
    axis: Mapping[str, Any] = next((axis for axis in report["axes"] if axis["axis"] == name), {"detail": {}})
    found: Mapping[str, Any] = axis["detail"].get(who) or {}
    return found


def _spoilt(report: Mapping[str, Any], before: str, after: str) -> str:
    """What corruption costs after, and under which it is worst; no claim about a single one."""
    detail = _detail(report, "corruption", after)
    if not detail.get("per_corruption"):
        return ""
    worst = min(detail["per_corruption"], key=lambda row: row["accuracy"])
    ratio = "" if detail["mce"] is None else \
        f", with {detail['mce']:.2f} times the errors of {before} in the mean over kinds"
    return (f"On {counted(detail['spoilt'], 'spoilt example')} {after} does worst under "
            f"{worst['which'].replace('_', ' ')} ({100 * worst['accuracy']:.0f} % of {worst['n']}){ratio}; a single "
            "kind was not tested by itself.")


def _attacked(report: Mapping[str, Any], before: str, after: str) -> str:
    flagged = [f"{who} ({', '.join(flags)})" for who in (before, after)
               if (flags := _detail(report, "adversarial", who).get("flags"))]
    return f"Robustness under attack cannot be trusted for {listing(flagged)}." if flagged else ""


def _doubted(rows: Sequence[Mapping[str, Any]]) -> str:
    if not rows:
        return ""
    return (f"For {counted(len(rows), 'test example')} that both get wrong in the same way, most of the nearest "
            "training examples carry the answer that they gave: the labels may be worth a look, "
            f"{rows[0]['id']} first.")


def despite(axes: Sequence[Mapping[str, Any]], before: str) -> list[str]:
    """Why no difference is shown on some axes although their intervals exclude 0."""
    reasons = {
        "corrected": "no difference is shown though the interval excludes 0: it is that of one axis by itself, and p, "
                     "corrected for all axes, is not below 0.05",
        "tolerated": "no difference is shown though the interval excludes 0: so small a one does not count here"}
    found = unshown(axes, before)
    return [f"{listing(titles)}: {words}." for key, words in reasons.items()
            if (titles := [axis["title"] for axis, why in found if why == key])]


def unshown(axes: Sequence[Mapping[str, Any]], before: str | None) -> list[tuple[Mapping[str, Any], str]]:
    """(axis, "corrected" or "tolerated") where the interval excludes 0 and the verdict sees no difference."""
    return [(axis, "corrected" if found["p"] >= ALPHA else "tolerated")
            for axis in axes for found in axis["comparisons"]
            if found["against"] == before and found["verdict"] == "no difference shown"
            and found["low"] is not None and found["low"] * found["high"] > 0]


def chance(report: Mapping[str, Any]) -> str:
    """What so small a test cannot show."""
    n, least, flipped = report["data"]["n"]["test"], report["detectable"], report["flips"]
    if least is None:
        return f"With {counted(n, 'test example')}, no difference of accuracies could be told from chance."
    differ = flipped["n_gained"] + flipped["n_lost"]
    return (f"With {counted(n, 'test example')}, {differ:,} of which only one side gets right, a difference of "
            f"accuracies under {100 * least:.1f} points cannot be told from chance.")


def points(share: float) -> str:
    return f"{100 * share:+.1f}".replace("-", "−")


def counted(n: int, one: str, many: str | None = None) -> str:
    return f"{n:,} {one if n == 1 else many or one + 's'}"


def listing(names: Sequence[str]) -> str:
    """a; a and b; a, b and c."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
