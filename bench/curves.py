"""Accuracy over CPU seconds as a picture, from the JSON lines of peers.py.

    python bench/curves.py peers.jsonl > peers.svg

One panel for each dataset, CPU seconds on a logarithmic axis; a peer's seeds share a colour, and a model of which only
the end is known is a dot.
"""

from __future__ import annotations

import json
import math
import sys
from html import escape
from pathlib import Path
from typing import Any

WIDE, HIGH, MARGIN, LEGEND = 420, 260, 46, 150
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#999999")  # Okabe and Ito 2008


def panel(name: str, runs: list[dict[str, Any]], colours: dict[str, str], top: int) -> list[str]:
    points = [p for run in runs for p in run["points"]]
    left, right = (f(math.log10(s) for s, _ in points) for f in (min, max))
    left, right = math.floor(left), max(math.ceil(right), math.floor(left) + 1)
    low = max(0.0, math.floor(10 * min(a for _, a in points)) / 10)

    def place(point: list[float]) -> str:
        x = MARGIN + (math.log10(point[0]) - left) / (right - left) * (WIDE - 2 * MARGIN)
        return f"{x:.1f},{top + MARGIN + (1 - point[1]) / (1 - low or 1) * (HIGH - 2 * MARGIN):.1f}"

    out = [f'<text x="{MARGIN}" y="{top + 24}" font-weight="bold">{escape(name)} (n = {runs[0]["n"]})</text>']
    for power in range(left, right + 1):
        x, y = place([10.0**power, low]).split(",")
        out.append(f'<path d="M{x} {y}V{top + MARGIN}" stroke="#ddd"/><text x="{x}" y="{float(y) + 16}" '
                   f'text-anchor="middle">{10**power:g} s</text>')
    for share in (low, (1 + low) / 2, 1.0):
        x, y = place([10.0**left, share]).split(",")
        out.append(f'<path d="M{x} {y}H{WIDE - MARGIN}" stroke="#ddd"/><text x="{float(x) - 5}" y="{float(y) + 4}" '
                   f'text-anchor="end">{share:.0%}</text>')
    for run in runs:
        places, colour = [place(p) for p in run["points"]], colours[run["peer"]]
        out.append(f'<polyline points="{" ".join(places)}" fill="none" stroke="{colour}" stroke-width="1.5"/>')
        x, y = places[-1].split(",")
        out.append(f'<circle cx="{x}" cy="{y}" r="3.5" fill="{colour}"><title>{escape(run["peer"])}: '
                   f'{run["accuracy"]:.1%} after {run["cpu_seconds"]:.0f} CPU seconds</title></circle>')
    return out


def picture(runs: list[dict[str, Any]]) -> str:
    peers, sets = sorted({run["peer"] for run in runs}), sorted({run["data"] for run in runs})
    colours = {peer: COLOURS[i % len(COLOURS)] for i, peer in enumerate(peers)}
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDE + LEGEND}" height="{HIGH * len(sets)}" '
           'font-family="sans-serif" font-size="11">', '<rect width="100%" height="100%" fill="#fff"/>']
    for i, name in enumerate(sets):
        out += panel(name, [run for run in runs if run["data"] == name], colours, i * HIGH)
    for i, peer in enumerate(peers):
        y = MARGIN + 18 * i
        out.append(f'<circle cx="{WIDE}" cy="{y - 4}" r="4" fill="{colours[peer]}"/>'
                   f'<text x="{WIDE + 10}" y="{y}">{escape(peer)}</text>')
    return "\n".join([*out, "</svg>"]) + "\n"


def main() -> None:
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    lines = Path(sys.argv[1]).read_text(encoding="utf-8").splitlines()
    sys.stdout.write(picture([json.loads(line) for line in lines if line.startswith("{")]))


if __name__ == "__main__":
    main()
