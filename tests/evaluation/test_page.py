"""report.html: complete, self-contained, inert whatever it is given, in two languages, and readable."""

import base64
import copy
import hashlib
import html.parser
import io
import json
import re
import shutil
import string
import subprocess
import sys
from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from outdo.contracts import Contestant, Predictions, TestSet
from outdo.evaluation import page
from outdo.evaluation.page import charts, units, words
from outdo.evaluation.page.markup import Markup, h, inert, name, shorten, width
from outdo.evaluation.report import build, measure_all

SAMPLE = json.loads(Path(__file__).with_name("sample_report.json").read_text(encoding="utf-8"))
SECTIONS = ["results", "gained", "lost", "classes", "calibration", "training", "decisions", "search",
            "baselines", "data", "suspects", "reproduce"]
BIDI = "".join(map(chr, [0x200E, 0x200F, 0x061C, *range(0x202A, 0x202F), *range(0x2066, 0x206A)]))
HOSTILE = ["<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "javascript:alert(1)", "' onload='x",
           "&lt;b&gt;", "{0} {after.__class__} %s ${x}", "</style><style>*{display:none}", "--><!--",
           "photo\u202egpj.exe", "two\nlines\r\tand a null \0", "\udc80\ud800", "http://example.com/x.png", "مرحبا",
           "x" * 5000, " "]


class Parsed(html.parser.HTMLParser):
    """Tags, attributes, and the text by the language that it is for."""

    def __init__(self, source):
        super().__init__()
        self.tags, self.attributes, self.ids, self.open = Counter(), [], [], []
        self.text = {"": "", "en": "", "zh": "", "style": ""}
        self.feed(source)

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        self.tags[tag] += 1
        self.attributes += [(tag, *pair) for pair in attributes]
        self.ids += [given["id"]] if "id" in given else []
        if tag not in ("meta", "input", "img", "br", "wbr"):
            self.open.append("style" if tag == "style" else given.get("class"))

    def handle_endtag(self, tag):
        self.open.pop()

    def handle_data(self, data):
        found = {c for c in self.open if c in self.text}
        if len(found) < 2:  # what stands in both languages at once is shown in neither
            self.text["".join(found)] += data

    def read(self, language):
        """What a reader of that language sees, and nothing of the style sheet."""
        return self.text[""] + self.text[language]


def parse(report, thumbnails=None):
    return Parsed(page.render(report, thumbnails or {}))


def replaced(value, new):
    """The report with every string that comes from outside replaced."""
    ours = {"role", "axis", "unit", "better", "verdict", "severity", "task", "outdo"}
    if isinstance(value, dict):
        return {k if k.isidentifier() else new: v if k in ours else replaced(v, new) for k, v in value.items()}
    if isinstance(value, list):
        return [replaced(item, new) for item in value]
    return new if isinstance(value, str) else value


# ── complete ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_every_section_is_there_once_and_the_contents_lead_to_them():
    parsed = parse(SAMPLE)
    assert [i for i in parsed.ids if i in SECTIONS] == SECTIONS
    assert len(parsed.ids) == len(set(parsed.ids))
    assert [value for _, attribute, value in parsed.attributes if attribute == "href"] == [f"#{s}" for s in SECTIONS]
    assert not parsed.open, "a tag is left open"


def test_figures_of_the_report_are_on_the_page():
    seen = parse(SAMPLE).read("en")
    accuracy = next(a for a in SAMPLE["axes"] if a["axis"] == "accuracy")
    found = accuracy["comparisons"][0]
    for figure in (*accuracy["values"].values(), found["difference"], found["low"], found["high"]):
        assert f"{100 * abs(figure):.1f}" in seen
    for text in (SAMPLE["in_words"], SAMPLE["data"]["fingerprint"], "The test set was opened once",
                 *SAMPLE["notes"], *(rung["words"] for rung in SAMPLE["ladder"]),
                 *(flip["id"] for key in ("gained", "lost") for flip in SAMPLE["flips"][key])):
        assert text in seen
    assert SAMPLE["command"] in seen


@pytest.mark.parametrize("verdict", ["better", "worse", "no difference shown", "equivalent"])
def test_headline_is_the_verdict(verdict):
    report = copy.deepcopy(SAMPLE)
    next(a for a in report["axes"] if a["axis"] == "accuracy")["comparisons"][0]["verdict"] = verdict
    source = page.render(report, {})
    headline = Parsed(re.search("<h1>.*?</h1>", source, re.DOTALL).group())
    assert headline.read("en").startswith(f"{verdict.capitalize()}: fine-tuned reaches ")
    assert headline.read("zh").startswith(words.WORDS[f"verdict.{verdict}"][1] + "：")


def test_a_test_opened_often_is_a_warning():
    report = copy.deepcopy(SAMPLE)
    report["data"]["test_opened"] = 3
    assert 'class="warn"' in page.render(report, {})
    assert "opened 3 times" in parse(report).read("en")
    assert 'class="warn"' not in page.render(SAMPLE, {})


@pytest.mark.parametrize("key", [*SAMPLE, None])
def test_any_part_may_be_missing(key):
    parsed = parse({k: v for k, v in SAMPLE.items() if k != key} if key else {})
    assert not parsed.open
    if key is None:
        assert not set(SECTIONS) & set(parsed.ids)


def test_parts_that_are_empty_or_unknown():
    report = copy.deepcopy(SAMPLE) | {"curve": [], "ladder": [], "notes": [], "detectable": None}
    report["flips"] = {"gained": [], "lost": [], "n_gained": 0, "n_lost": 0}
    for axis in report["axes"]:
        axis["values"] = dict.fromkeys(axis["values"])
        for found in axis["comparisons"]:
            found.update(difference=None, low=None, high=None, p=None, p_raw=None)
    parsed = parse(report)
    assert "training" not in parsed.ids
    assert "decisions" not in parsed.ids
    assert "No example was lost." in parsed.read("en")
    assert "None" not in parsed.read("en")
    assert "nan" not in parsed.read("en").split()


def test_renders_what_the_report_builds():
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 3, 30)
    sides = [Contestant(who, role, Predictions(np.eye(3)[rng.permutation(codes)] * 0.7 + 0.1))
             for who, role in (("linear probe", "before"), ("fine-tuned", "after"), ("a rival", "rival"))]
    test = TestSet(tuple(f"{i}.jpg" for i in range(30)), None, codes, ("ant", "bee", "wasp"))
    context = {"task": "image_classification", "seed": 0, "machine": {}, "seconds": {}, "recipe": {},
               "data": {"source": "s", "n": {"train": 9, "validation": 9, "test": 30}, "test_opened": 1}}
    axes = ["accuracy", "calibration_error", "worst_class"]
    report = build(sides, test, measure_all(sides, test, axes), context)
    parsed = parse(report)
    assert {"results", "gained", "lost", "classes", "calibration", "baselines", "reproduce"} <= set(parsed.ids)
    pair = report["confusions"]["appeared"][0]
    assert f"{pair['truth']} taken for {pair['predicted']}" in parsed.read("en")
    assert "a rival" in parsed.read("en")


# ── self-contained ───────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def shown():
    image = io.BytesIO()
    Image.new("RGB", (40, 30), "green").save(image, "JPEG")
    ids = [flip["id"] for key in ("gained", "lost") for flip in SAMPLE["flips"][key]]
    return page.render(SAMPLE, dict.fromkeys(ids, image.getvalue()))


def test_nothing_is_loaded_and_nothing_runs(shown):
    parsed = Parsed(shown)
    active = {"script", "link", "iframe", "object", "embed", "form", "base", "foreignobject", "use", "animate", "set"}
    assert not set(parsed.tags) & active
    for tag, attribute, value in parsed.attributes:
        assert not attribute.startswith("on"), (tag, attribute)
        assert attribute not in ("style", "srcset", "action", "background", "ping"), (tag, attribute)
        if attribute in ("src", "href"):
            assert value.startswith(("data:image/jpeg;base64,", "#")), value
    assert parsed.tags["img"] == len(SAMPLE["flips"]["gained"] + SAMPLE["flips"]["lost"])
    assert not re.search(r"url\(|@import|https?://", shown)


def test_content_security_policy_allows_the_style_sheet_and_nothing_else(shown):
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', shown)
    assert policy.start() < shown.index("<style>"), "a policy holds only for what follows it"
    rules = dict(rule.split(" ", 1) for rule in html.unescape(policy[1]).split("; "))
    style = re.search("<style>(.*?)</style>", shown, re.DOTALL)[1]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert rules == {"default-src": "'none'", "img-src": "data:", "style-src": f"'sha256-{digest}'",
                     "base-uri": "'none'", "form-action": "'none'"}


def test_the_file_is_written_whole(tmp_path, shown):
    page.write_page(tmp_path / "report.html", replaced(SAMPLE, "\udc80"), {})
    assert (tmp_path / "report.html").read_bytes().endswith(b"</html>\n")
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]


def test_importing_the_page_loads_no_heavy_library():
    code = "import sys, outdo.evaluation.page; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "PIL", "scipy", "sklearn", "jinja2"} & set(loaded)


# ── inert ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def structure(report):
    tags = parse(report, dict.fromkeys(["a.jpg"], "a text")).tags
    del tags["wbr"]
    return tags


@pytest.mark.parametrize("text", HOSTILE, ids=lambda text: ascii(text)[:24])
def test_names_change_no_structure_whatever_they_contain(text):
    assert structure(replaced(SAMPLE, text)) == structure(replaced(SAMPLE, "harmless"))


@given(st.text(min_size=1))
@settings(max_examples=25)
def test_no_name_changes_the_structure(text):
    assert structure(replaced(SAMPLE, text)) == structure(replaced(SAMPLE, "harmless"))


@pytest.mark.parametrize("text", HOSTILE[:6], ids=lambda text: ascii(text)[:24])
def test_names_are_shown_as_they_are(text):
    report = copy.deepcopy(SAMPLE)
    report["flips"]["gained"][0] |= {"id": text, "truth": text}
    assert parse(report).read("en").count(text) >= 2


def test_control_and_bidirectional_characters_never_reach_the_page():
    source = page.render(replaced(SAMPLE, f"a{BIDI}\0\x1b[31m\u2028b"), {})
    assert not set(source) & set(BIDI + "\0\x1b\u2028")
    assert "⟨U+202E⟩" in source
    assert inert("é 中文 \u0645\u200c\u0645 👩\u200d👧") == "é 中文 \u0645\u200c\u0645 👩\u200d👧"


def test_names_are_isolated_from_the_text_around_them():
    assert name("مرحبا") == '<bdi dir="auto">مرحبا</bdi>'
    assert name("a/b_c") == '<bdi dir="auto">a/<wbr>b_<wbr>c</bdi>'


def test_markup_escapes_all_but_markup():
    made = h("a", "<b>", Markup("<i></i>"), None, 3, href='"#x', hidden=True, title=None, x=0, for_="y", aria_label="z")
    assert made == '<a href="&quot;#x" hidden x="0" for="y" aria-label="z">&lt;b&gt;<i></i>3</a>'


@given(st.text(alphabet=st.characters(codec="utf-8"), max_size=300), st.integers(5, 60))
def test_shortened_names_fit_and_keep_both_ends(text, columns):
    short = shorten(text, columns)
    assert width(short) <= columns
    if short != text:
        head, _, tail = short.partition("…")
        assert width(text) > columns
        assert text.startswith(head)
        assert text.endswith(short[len(head) + 1 :] if "…" not in text else tail[-1:])


# ── texts, many classes ──────────────────────────────────────────────────────────────────────────────────────────────


def test_texts_stand_in_for_thumbnails():
    flip = SAMPLE["flips"]["gained"][0]
    source = page.render(SAMPLE, {flip["id"]: "Where is\nmy <card>?" + "!" * 9999})
    quoted = re.search("<blockquote[^>]*>(.*?)</blockquote>", source, re.DOTALL)[1]
    assert quoted.startswith("Where is\nmy &lt;card&gt;?")
    assert len(quoted) < 2000


def many(classes):
    """A report on `classes` classes, two examples each; class i is taken for i + 1 once, by before only."""
    report, names = copy.deepcopy(SAMPLE), [f"class_{i:03d}" for i in range(classes)]
    report["classes"] = names
    report["class_changes"] = [{"class": c, "n": 2, "before": 1, "after": 2, "difference": 1} for c in names]
    report["confusions"] = {"appeared": [], "vanished": [
        {"truth": c, "predicted": other, "before": 1, "after": 0} for c, other in pairwise(names)]}
    accuracy = next(a for a in report["axes"] if a["axis"] == "accuracy")
    before = np.eye(classes, dtype=int) + np.roll(np.eye(classes, dtype=int), 1, 1)
    for side, counts in (("linear probe", before), ("fine-tuned", 2 * np.eye(classes, dtype=int))):
        accuracy["detail"][side] = {"per_class": [], **({"confusion": counts.tolist()} if classes <= 100 else {})}
    return report


@pytest.mark.parametrize(("classes", "table", "grid"), [(5, True, False), (77, False, True), (200, False, False)])
def test_many_classes(classes, table, grid):
    source = page.render(many(classes), {})
    assert ('class="confusion' in source) == table
    assert (source.count('class="cells hit"') == 2 * classes) == grid
    assert f"class_{classes - 1:03d}" in source.replace("<wbr>", "")
    assert ("changed most" in source) == (classes > 16)
    assert len(source) < 600_000


def test_a_confusion_is_darker_the_more_of_its_class_it_is():
    drawn = charts.heat([[8, 2, 0], [1, 99, 0], [0, 0, 4]], "caption")
    cells = re.findall(r'x="(\d)" y="(\d)" width="1" height="1" fill-opacity="([\d.]+)"', drawn)
    opacity = {(int(x), int(y)): float(o) for x, y, o in cells}
    assert set(opacity) == {(0, 0), (1, 0), (0, 1), (1, 1), (2, 2)}
    assert opacity[1, 0] > opacity[0, 1]


# ── two languages ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_every_word_is_there_in_both_languages():
    for key, (english, chinese) in words.WORDS.items():
        fields = [{field for _, field, _, _ in string.Formatter().parse(text) if field} for text in (english, chinese)]
        assert english.strip(), key
        assert chinese.strip(), key
        assert fields[0] == fields[1], key
    assert sum(any("一" <= c <= "鿿" for c in chinese) for _, chinese in words.WORDS.values()) > 0.9 * len(words.WORDS)


def test_no_word_is_left_over():
    files = [p for p in Path(words.__file__).parent.glob("*.py") if p.stem != "words"]
    source = "".join(p.read_text(encoding="utf-8") for p in files)
    made = {"axis", "task", "name", "role", "split", "severity", "verdict", "headline", "forest", "gained", "lost",
            "rung", "ended", "kind", "looked", "weighed", "by loss", "by likelihood ratio"}
    left = [key for key in words.WORDS if f'"{key}"' not in source and key.split(".")[0] not in made]
    assert not left


def test_chinese_page_has_no_english_interface_words():
    parsed = parse(SAMPLE)
    chinese, english = parsed.text["zh"], parsed.text["en"]
    assert "未显示差异" in chinese
    assert "测试集只打开过一次" in chinese
    assert "no difference shown" in english
    assert not re.search(r"\b(before|after|better|worse|accuracy|class|the)\b", chinese)


def test_one_language_is_seen_at_a_time(shown):
    style = re.search("<style>(.*?)</style>", shown, re.DOTALL)[1]
    assert ".zh, #zh:checked ~ * .en { display: none; }" in style
    radios = re.findall(r'<input type="radio" name="language" id="(\w+)"[^>]*?( checked)?[ >]', shown)
    assert [code for code, _ in radios] == ["en", "zh"]
    assert shown.index('id="zh"') < shown.index('class="bar"'), "the switch must stand before what it switches"


# ── figures ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("unit", "values", "value", "signed"), [
    ("fraction", [0.915, 0.961], "91.5 %", "+91.5"),
    ("seconds", [0.01312, 0.013], "13.1 ms", "+13.1 ms"),
    ("seconds", [2.5], "2.50 s", "+2.50 s"),
    ("bytes", [13_563_000], "13.6 MB", "+13.6 MB"),
    ("per second", [9_493.1], "9,493 /s", "+9,493 /s"),
    ("nats", [0.334], "0.334", "+0.334"),
])
def test_units(unit, values, value, signed):
    scale = units.scale(unit, values)
    plain = str.maketrans({units.THIN: " ", units.MINUS: "-"})
    assert scale.show(values[0]).translate(plain) == value
    assert scale.signed(values[0]).translate(plain) == signed
    assert scale.signed(-values[0]).translate(plain) == signed.replace("+", "-")
    assert scale.show(None) == scale.signed(None) == "–"
    assert scale.interval(None, 1.0) == ""


@given(st.floats(-1, 1))
def test_no_signed_zero(value):
    assert units.scale("fraction", [1.0]).signed(value) not in ("+0.0", "−0.0")


def test_p_values():
    assert [units.probability(p) for p in (0.0, 0.0009, 0.0163, 1.0, None)] == ["< 0.001", "< 0.001", "0.016", "1", "–"]


@given(st.floats(-1e6, 1e6), st.floats(1e-6, 1e6), st.integers(2, 8))
def test_ticks_are_few_round_and_inside(low, span, about):
    found = units.ticks(low, low + span, about)
    assert len(found) <= about + 1
    assert found == sorted(set(found))
    slack = 1e-6 * span + 1e-12 * abs(low)  # what a float of that size can tell
    assert all(low - slack <= t <= low + span + slack for t in found)


def test_forest_is_turned_so_that_right_is_better():
    report = copy.deepcopy(SAMPLE)
    for axis in report["axes"]:
        sign = 1 if axis["better"] == "higher" else -1
        for found in axis["comparisons"]:
            found.update(difference=0.1 * sign, low=0.05 * sign, high=0.15 * sign, verdict="better")
            if sign < 0:
                found["low"], found["high"] = found["high"], found["low"]
    drawn = re.search(r'<svg class="chart"[^>]*aria-labelledby="forest-points-caption".*?</figure>',
                      page.render(report, {}), re.DOTALL).group()
    zero = float(re.search(r'<line x1="([\d.]+)%"[^>]*class="zero"', drawn)[1])
    marks = [float(x) for x in re.findall(r'<svg x="([\d.]+)%"', drawn)]
    assert len(marks) == 4
    assert all(x > zero for x in marks)


def test_every_drawing_has_a_name_that_exists(shown):
    parsed = Parsed(shown)
    named = [v for tag, attribute, v in parsed.attributes if tag in ("svg", "section", "table") and
             attribute == "aria-labelledby"]
    assert len(named) > 10
    assert set(named) <= set(parsed.ids)


@pytest.mark.parametrize("start", [":root {\n  color-scheme", ":root {\n    --paper: #17", ":root { --paper: #fff"])
def test_contrast_of_all_text_colours(start):
    style = Path(page.__file__).with_name("style.css").read_text(encoding="utf-8")
    block = style[style.index(start) :].split("}")[0]
    colours = dict(re.findall(r"--(\w+): (#\w{3,6})", block))
    paper = luminance(colours["paper"])
    for role in ("ink", "quiet", "after", "worse"):
        lighter, darker = sorted((luminance(colours[role]), paper), reverse=True)
        assert (lighter + 0.05) / (darker + 0.05) >= 4.5, role  # WCAG 2.2, 1.4.3


def luminance(colour):
    digits = colour[1:] if len(colour) == 7 else "".join(c * 2 for c in colour[1:])
    channels = [int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return float(np.dot(linear, (0.2126, 0.7152, 0.0722)))


# ── thumbnails ───────────────────────────────────────────────────────────────────────────────────────────────────────


def photo(size, orientation=None):
    """A JPEG that is red at the left and blue at the right as stored, with GPS in its EXIF."""
    image = Image.new("RGB", size, "red")
    image.paste("blue", (size[0] // 2, 0, *size))
    exif = Image.Exif()
    exif[0x0110] = "camera of a stranger"
    exif.get_ifd(0x8825)[1] = "N"
    if orientation:
        exif[0x0112] = orientation
    out = io.BytesIO()
    image.save(out, "JPEG", exif=exif, quality=95, subsampling=0)
    return out.getvalue()


def test_thumbnails_are_small_upright_and_tell_nothing_of_the_camera():
    assert b"stranger" in photo((600, 300))
    small = page.thumbnail(photo((600, 300), orientation=6))  # 6: to be turned 90 degrees clockwise
    opened = Image.open(io.BytesIO(small))
    assert opened.format == "JPEG"
    assert opened.size == (80, 160)
    assert not opened.getexif()
    assert not {"exif", "icc_profile"} & set(opened.info)
    assert b"stranger" not in small
    red, _, blue = opened.getpixel((40, 20))
    assert red > 200
    assert blue < 60, "after turning, red is above"


def test_tiny_images_are_enlarged_by_whole_pixels():
    out = io.BytesIO()
    Image.new("L", (8, 8), 200).save(out, "PNG")
    assert Image.open(io.BytesIO(page.thumbnail(out.getvalue()))).size == (160, 160)


# ── in a browser ─────────────────────────────────────────────────────────────────────────────────────────────────────

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium is installed to look at the page with")
@pytest.mark.parametrize("preferred", ["dark", "light"])
def test_a_browser_shows_it_without_complaint(tmp_path, shown, preferred):
    (tmp_path / "report.html").write_text(shown, encoding="utf-8")
    seen = subprocess.run(
        [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
         "--disable-background-networking", "--disable-component-update", "--disable-sync", "--hide-scrollbars",
         f"--user-data-dir={tmp_path / 'profile'}", "--enable-logging=stderr", "--window-size=900,1200",
         f"--blink-settings=preferredColorScheme={['dark', 'light'].index(preferred)}",
         f"--screenshot={tmp_path / 'page.png'}", (tmp_path / "report.html").as_uri()],
        capture_output=True, text=True, timeout=120, check=False)
    assert "CONSOLE" not in seen.stderr, [line for line in seen.stderr.splitlines() if "CONSOLE" in line]
    grey = np.asarray(Image.open(tmp_path / "page.png").convert("L"))
    paper = np.bincount(grey.ravel()).argmax()
    assert paper > 240 if preferred == "light" else paper < 40
    assert 0.01 < (np.abs(grey.astype(int) - int(paper)) > 80).mean() < 0.4, "blank, or painted over"


# ── behind the axes ──────────────────────────────────────────────────────────────────────────────────────────────────

DEEP_SECTIONS = ["slices", "corruption", "attack", "selective", "privacy", "doubtful"]


def axis_of(name, details):
    return {"axis": name, "title": name, "summary": "s", "unit": "fraction", "better": "higher", "values": {},
            "comparisons": [], "detail": dict(zip(("linear probe", "fine-tuned"), details, strict=True))}


def deep():
    """A report with all that axes may tell, and what explains answers."""
    report = copy.deepcopy(SAMPLE)
    kinds = [[{"which": "fog", "n": 8, "accuracy": a}, {"which": "made up", "n": 8, "accuracy": 1 - a}]
             for a in (0.25, 0.75)]
    thresholds = [{"precision": 0.9, "threshold": 0.6, "n": 9, "right": 9, "coverage": 0.9, "low": 0.7,
                   "test": {"n": 10, "right": 8, "coverage": 0.375, "low": 0.5}},
                  {"precision": 0.99, "threshold": 1.0, "n": 0, "right": 0, "coverage": 0.0, "low": None,
                   "test": {"n": 0, "right": 0, "coverage": 0.0, "low": None}}]
    report["axes"] += [
        axis_of("corruption", [{"per_corruption": k, "per_severity": [{"which": 1, "n": 16, "accuracy": 0.5}],
                                "mce": 0.625, "spoilt": 16, "of": 16} for k in kinds]),
        axis_of("adversarial", [{"robust": [{"eps": 1 / 255, "accuracy": 0.125}], "flags": flags}
                                for flags in ([], ["masking"])]),
        axis_of("selective_risk", [{"thresholds": thresholds}] * 2),
        axis_of("privacy", [{"loss": {"auc": 0.5125, "found": 0.02}}, {"loss": {"auc": 0.875, "found": 0.3}}])]
    report["slices"] = [{"column": "place", "value": "wood", "n": 8, "before": 7, "after": 5}]
    report["doubtful"] = [{"id": "odd.jpg", "truth": "ants", "answer": "bees", "confidence": 0.97, "agreeing": 5,
                           "of": 5}]
    first = report["flips"]["gained"][0]["id"]
    report["nearest"] = {first: [{"id": "train/7.jpg", "label": "bees", "similarity": 0.9}]}
    report["resources"] = {"cpu_seconds": 90.0, "energy_joules": 900.0, "how": "an estimate"}
    return report


def test_what_stands_behind_the_axes_is_shown():
    parsed = Parsed(page.render(deep(), {}, {}))
    assert not parsed.open
    assert set(DEEP_SECTIONS) <= set(parsed.ids)
    seen = parsed.read("en")
    for words_ in ("25\u202f% → 75\u202f%", "made up", "0.62", "1/255", "12.5\u202f%", "masking", "60.0\u202f%",
                   "37.5\u202f%", "not reached", "87.5\u202f%", "place = wood", "odd.jpg", "5/5", "bees 1",
                   "train/7.jpg", "0.25 Wh", "1\u202fmin 30\u202fs"):
        assert words_ in seen, words_
    assert "雾" in parsed.read("zh")


def test_looks_are_small_pictures_or_marked_words():
    report, looked = deep(), {}
    first, second = (flip["id"] for flip in report["flips"]["gained"][:2])
    looked[first] = {"before": b"jpeg", "after": b"jpeg"}
    looked[second] = {"after": [("the ", 0.0), ("<b>bee ", 0.3), ("not ", -0.06)]}
    source = page.render(report, {}, looked)
    assert source.count('src="data:image/jpeg;base64,anBlZw=="') == 2
    assert '<mark class="for strong">&lt;b&gt;bee</mark>' in source
    assert '<mark class="against">not</mark>' in source
    assert "the </" not in re.search("after:.*?</p>", source, re.DOTALL).group().replace("the <mark", "")


@pytest.mark.parametrize("text", HOSTILE)
def test_no_name_changes_the_structure_behind_the_axes(text):
    plain, hostile = (Parsed(page.render(replaced(deep(), word), {}, {})) for word in ("x", text))
    assert (hostile.tags - Counter({"wbr": 9999})) == (plain.tags - Counter({"wbr": 9999}))
    assert not hostile.open


@pytest.mark.parametrize("key", ["slices", "doubtful", "nearest", "resources", "axes"])
def test_any_part_behind_the_axes_may_be_missing(key):
    assert not Parsed(page.render({k: v for k, v in deep().items() if k != key}, {}, {})).open
