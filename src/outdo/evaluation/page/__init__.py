"""report.html: one file that shows report.json to people, without a network, a script or anything from outside.

    write_page(run / "report.html", report, {"bees/1.jpg": thumbnail(data), "train.csv:17": "a text"})

`proof`, `examples` and `record` make the sections, `charts` the drawings; `markup` escapes all that passes through it.
"""

from __future__ import annotations

import base64
import hashlib
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from outdo.evaluation.page import depth, examples, proof, record, search
from outdo.evaluation.page.markup import Markup, h, inert, join
from outdo.evaluation.page.view import View
from outdo.evaluation.page.words import LANGUAGES, say, term
from outdo.storage import write_text

THUMBNAIL = 160  # pixels along the longer side


def write_page(path: Path, report: Mapping[str, Any], thumbnails: Mapping[str, bytes | str],
               looks: Mapping[str, Any] | None = None) -> None:
    """Write the page of `report` (report.json's dict), whole or not at all. `thumbnails` maps an example's id to its
    `thumbnail` or, for texts, to the text; ids that are missing are shown by name only. `looks`: see
    `outdo.evaluation.looks`."""
    write_text(path, render(report, thumbnails, looks))


def render(report: Mapping[str, Any], thumbnails: Mapping[str, bytes | str], looks: Mapping[str, Any] | None = None
           ) -> str:
    view = View(report, thumbnails, looks or {})
    sections = {
        "results": proof.results(view),
        "gate": proof.gate(view),
        "gained": examples.flips(view, "gained"),
        "lost": examples.flips(view, "lost"),
        "classes": examples.classes(view),
        "slices": depth.slices(view),
        "corruption": depth.corruption(view),
        "attack": depth.attack(view),
        "calibration": proof.calibration(view),
        "selective": depth.selective(view),
        "privacy": depth.privacy(view),
        "training": record.training(view),
        "decisions": record.decisions(view),
        "search": search.search(view),
        "baselines": proof.baselines(view),
        "data": record.findings(view),
        "suspects": record.suspects(view),
        "doubtful": depth.doubtful(view),
        "reproduce": record.reproduce(view),
    }
    there = {key: section for key, section in sections.items() if section}
    body = h("body", *_switch(), _bar(view), h("main", proof.headline(view), _contents(list(there)), *there.values()),
             h("footer", "outdo ", view.get("outdo")))
    return f"<!doctype html>\n{h('html', _head(view), body, lang='en')}\n"


def thumbnail(data: bytes) -> bytes:
    """An encoded image as a small JPEG: upright, and without the EXIF, GPS and colour profile that came with it.

    Images smaller than half of it are enlarged by whole pixels, so that an 8 x 8 digit can be seen. Raises what
    `outdo.data.images.decode` raises for an image that is refused.
    """
    from PIL import Image

    from outdo.data.images import decode

    image = Image.fromarray(decode(data, None, "squash"))
    if (times := THUMBNAIL // max(image.size)) > 1:
        image = image.resize((image.width * times, image.height * times), Image.Resampling.NEAREST)
    image.thumbnail((THUMBNAIL, THUMBNAIL))
    small = io.BytesIO()
    image.save(small, "JPEG", quality=82, optimize=True)
    return small.getvalue()


def _head(view: View) -> Markup:
    style = Path(__file__).with_name("style.css").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = f"default-src 'none'; img-src data:; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    source = view.get("data", "source")
    return h(
        "head",
        h("meta", charset="utf-8"),
        h("meta", http_equiv="Content-Security-Policy", content=policy),
        h("meta", name="viewport", content="width=device-width, initial-scale=1"),
        h("meta", name="referrer", content="no-referrer"),
        h("title", f"{source}: outdo report" if source is not None else "outdo report"),
        h("style", Markup(style)),
    )


def _switch() -> list[Markup]:
    """The radio buttons behind the language switch: first in the body, so that the style sheet can see them from
    everywhere, and without a script."""
    return [h("input", type="radio", name="language", id=code, class_="choice", checked=code == LANGUAGES[0][0],
              aria_label=own) for code, _, own in LANGUAGES]


def _bar(view: View) -> Markup:
    told = [inert(view.get("data", "source") or ""), term("task", view.get("task")) if view.get("task") else ""]
    labels = [h("label", own, for_=code, lang=tag) for code, tag, own in LANGUAGES]
    return h("div", h("span", join([part for part in told if part], " · ")), h("nav", *labels), class_="bar")


def _contents(keys: list[str]) -> Markup:
    return h("nav", *(h("a", say(key), href=f"#{key}") for key in keys), class_="contents", aria_label="Contents")
