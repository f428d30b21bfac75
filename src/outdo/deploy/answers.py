"""Answers as a table on stdout, written as they come: for people, as CSV, as JSON Lines or as one JSON list."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Literal

Form = Literal["text", "csv", "jsonl", "json"]
Answer = dict[str, Any]  # as from `BundlePredictor.stream`: an answer, or {"input", "error"}


def lines(answers: Iterable[Answer], classes: Sequence[str], form: Form) -> Iterator[str]:
    """The lines of the table. People are not shown what could not be read: that is told apart."""
    if form == "json":
        yield json.dumps(list(answers), indent=1)
    elif form == "jsonl":
        yield from (json.dumps(answer, ensure_ascii=False) for answer in answers)
    elif form == "csv":
        yield _csv(["input", "label", "probability", "sure", "error", *(f"probability of {name}" for name in classes)])
        yield from (_csv(_row(answer, classes)) for answer in answers)
    else:
        yield from (_line(answer) for answer in answers if "error" not in answer)


def _line(answer: Answer) -> str:
    doubt = "" if answer.get("sure", True) else "\tnot sure"
    return f"{answer['label']}\t{answer['probability']:.3f}\t{answer['input']}{doubt}"


def _row(answer: Answer, classes: Sequence[str]) -> list[Any]:
    given = answer.get("probabilities", {})
    start = [answer["input"], *(answer.get(k, "") for k in ("label", "probability", "sure", "error"))]
    return [*start, *(given.get(name, "") for name in classes)]


def _csv(cells: Sequence[Any]) -> str:
    line = io.StringIO()
    csv.writer(line, lineterminator="").writerow([f"{c:.6g}" if isinstance(c, float) else c for c in cells])
    return line.getvalue()
