"""The page in headless Chromium: what people do with it, and what it shows them."""

import json
import re
from pathlib import Path

import pytest
from browser import CHROMIUM, browser
from live import running
from standins import Brightness, Length, picture, service

import outdo
from outdo.evaluation.page.words import WORDS
from outdo.serving.app import make_app
from outdo.serving.keys import KeyFile
from outdo.serving.limits import Limits

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium")
REPORT = json.loads((Path(__file__).parent.parent / "evaluation" / "sample_report.json").read_text(encoding="utf-8"))
MORE = (("privacy", "fraction", 0.5), ("multiply_adds", "operations", 635902688), ("new_one", "score", 1.0))
REPORT["axes"] += [{"axis": name, "unit": unit, "comparisons": [],
                    "values": dict.fromkeys(REPORT["axes"][0]["values"], value)} for name, unit, value in MORE]


@pytest.fixture(scope="module")
def tab():
    pytest.importorskip("websocket", reason="websocket-client is not installed")
    with browser() as tab:
        yield tab


@pytest.fixture(scope="module")
def site():
    served = service(Brightness(report=REPORT), Length(), Length("strict", threshold=0.95),
                     limits=Limits(body_bytes=100_000))
    with running(make_app(served), served) as port:
        yield f"http://127.0.0.1:{port}/"


@pytest.fixture
def page(tab, site):
    tab.console.clear()
    tab.js("try { localStorage.clear() } catch {}")
    tab.open(site)
    yield tab
    assert tab.console == []


@pytest.fixture
def files(tmp_path):
    said = {"light.png": picture(230), "dark=1.png": picture(20), "grey.png": picture(140), "broken.png": b"no image"}
    for name, data in said.items():
        (tmp_path / name).write_bytes(data)
    return [tmp_path / name for name in said]


REPORTED = "!document.getElementById('report').hidden"  # it is fetched after the desk is shown
ANSWERED = "document.getElementById('time').innerText && !document.querySelector('.busy')"


def test_an_image_is_answered_with_bars(page, files):
    page.choose("#file-one", files[0])
    page.until(ANSWERED)
    assert page.text("verdict") == "light"
    assert page.text("answers").split("\n") == ["light", "90.2 %", "dark", "9.8 %"]
    widths = page.js("[...document.querySelectorAll('.track i')].map(bar => bar.getBoundingClientRect().width)")
    assert widths[0] / widths[1] == pytest.approx(90.2 / 9.8, rel=0.05)
    assert page.js("document.getElementById('preview').naturalWidth") == 24
    assert "ms" in page.text("time")


def test_not_sure_is_said(page, files):
    page.choose("#file-one", files[2])
    page.until(ANSWERED)
    assert page.text("verdict") == "Not sure"
    assert page.text("why") == ("The most probable answer, light, has 54.9 %: less than the 70.0 % that this model "
                                "needs to be sure.")


def test_what_cannot_be_read_is_said(page, files):
    page.choose("#file-one", files[3])
    page.until("document.getElementById('trouble').innerText")
    assert "cannot be read" in page.text("trouble")
    assert "422" in page.console.pop()  # the browser itself notes every failed request


def test_the_heat_map(page, files):
    page.choose("#file-one", files[0])
    page.until(ANSWERED)
    page.js("document.getElementById('look').click()")
    page.until("document.getElementById('look-note').innerText.startsWith('Coloured')")
    assert page.js("document.getElementById('heat').width * document.getElementById('heat').height") == 7 * 5
    assert page.js("document.getElementById('look').getAttribute('aria-pressed')") == "true"
    page.js("document.getElementById('look').click()")
    assert page.js("document.getElementById('heat').hidden")


def test_many_files_and_their_csv(page, files):
    page.js("URL.createObjectURL = (made) => { window.saved = made; return '#'; }")
    page.choose("#file-many", *files)
    page.until("document.getElementById('stop').disabled")
    assert page.text("count") == "3 of 4 answered, 1 failed"
    assert "Not sure (light)" in page.text("rows")
    assert "cannot be read" in page.text("rows")
    page.js("document.getElementById('save').click()")
    lines = page.js("window.saved.text()").splitlines()
    assert lines[0].lstrip("\ufeff") == "input,label,probability,sure,ms,error"
    assert lines[1].startswith("light.png,light,0.90")
    assert "422" in page.console.pop()


def test_the_csv_holds_no_formula(page):
    page.js("document.getElementById('models').value = 'lengths';"
            "document.getElementById('models').dispatchEvent(new Event('change'))")
    page.until("!document.getElementById('ask-texts').hidden")
    page.js("URL.createObjectURL = (made) => { window.saved = made; return '#'; }")
    page.js("document.getElementById('tab-many').click();"
            "document.getElementById('texts').value = '=HYPERLINK(1)\\n\\n say \"hi\", now\\n-1';"
            "document.getElementById('ask-texts').requestSubmit()")
    page.until("document.getElementById('stop').disabled")
    page.js("document.getElementById('save').click()")
    cells = [line.rpartition(",l")[0] for line in page.js("window.saved.text()").splitlines()[1:3]]
    assert cells == ["'=HYPERLINK(1)", '"say ""hi"", now"']
    assert page.js("window.saved.text()").splitlines()[3].startswith("'-1,short")


def test_text_by_keyboard_alone(page):
    page.js("document.getElementById('models').value = 'strict';"
            "document.getElementById('models').dispatchEvent(new Event('change'))")
    page.until("!document.getElementById('ask-text').hidden")
    page.js("document.getElementById('tab-one').focus()")
    page.press("Tab")
    assert page.js("document.activeElement.id") == "text"
    page("Input.insertText", text="x" * 14)
    page.press("Tab")
    page.press("Enter", text="\r")
    page.until(ANSWERED)
    assert page.text("verdict") == "Not sure"
    page.js("document.getElementById('tab-one').focus()")
    page.press("ArrowRight")
    assert page.js("document.activeElement.id") == "tab-many"
    assert not page.js("document.getElementById('many').hidden")


def test_dropping_and_pasting(page, files):
    make = ("(async (event, field) => { const data = new DataTransfer();"
            "const canvas = document.createElement('canvas'); canvas.width = canvas.height = 8;"
            "canvas.getContext('2d').fillRect(0, 0, 8, 8);"
            "const png = await new Promise((done) => canvas.toBlob(done));"
            "data.items.add(new File([png], event + '.png', { type: 'image/png' }));"
            "document.dispatchEvent(new window[field === 'dataTransfer' ? 'DragEvent' : 'ClipboardEvent']"
            "(event, { [field]: data, bubbles: true, cancelable: true })); })")
    for event, field in (("drop", "dataTransfer"), ("paste", "clipboardData")):
        page.js(f"{make}('{event}', '{field}')")
        page.until(f"document.getElementById('file-name').innerText === '{event}.png' && {ANSWERED}")
        assert page.text("verdict") == "dark"


def test_chinese_and_back(page, files):
    page.choose("#file-one", files[2])
    page.until(ANSWERED)
    page.js("document.querySelector('[data-language=zh]').click()")
    assert page.js("document.documentElement.lang") == "zh-Hans"
    assert page.text("verdict") == "不确定"
    assert page.text("title") == "向 lights 提问"
    assert page.js("[...document.querySelectorAll('[data-say]')].every(part => part.textContent.trim())")
    page.open(page.js("location.href"))
    assert page.js("document.documentElement.lang") == "zh-Hans"


def test_the_report_is_shown(page):
    page.until(REPORTED)
    assert "accuracy" in page.text("axes")
    assert "better" in page.text("axes")
    assert "60 test examples" in page.text("report-note")
    for row in ("privacy leak\t50.0 %", "multiply-adds\t636 M", "new one\t1.000"):
        assert row in page.text("axes")


def test_the_language_of_the_browser_is_spoken_until_another_is_chosen(tab, site):
    tab.js("try { localStorage.clear() } catch {}")
    for said, spoken in (("en-GB", "en"), ("zh-CN", "zh-Hans"), ("en-GB", "en")):
        tab.open(site, language=said)
        assert tab.js("document.documentElement.lang") == spoken


def test_axes_are_called_as_in_the_report():
    words = (Path(outdo.__file__).parent / "serving" / "page" / "words.js").read_text(encoding="utf-8")
    found = re.findall(r'"(axis\..*?)": \["(.*?)", "(.*?)"\]', words)
    assert len(found) > 10
    assert {name: tuple(said) for name, *said in found} == {name: WORDS[name] for name, *_ in found}


@pytest.mark.parametrize(("wide", "dark"), [(360, False), (360, True), (1100, True)])
def test_nothing_sticks_out(tab, site, files, wide, dark):
    tab.open(site, wide=wide, dark=dark)
    tab.choose("#file-one", files[2])
    tab.until(ANSWERED)
    assert tab.js("document.documentElement.scrollWidth") <= wide
    tab.choose("#file-many", *files[:3])
    tab.until("document.getElementById('stop').disabled")
    assert tab.js("document.documentElement.scrollWidth") <= wide


def test_everything_that_can_be_used_has_a_name(page):
    nodes = page("Accessibility.getFullAXTree")["nodes"]
    roles = {"button", "tab", "textbox", "combobox", "link", "progressbar", "image"}
    used = [node for node in nodes if not node["ignored"] and node["role"]["value"] in roles]
    assert len(used) > 6
    assert [node for node in used if not node.get("name", {}).get("value", "").strip()] == []


def test_scripts_from_elsewhere_do_not_run(page):
    page.js("window.ran = false; const script = document.createElement('script');"
            "script.textContent = 'window.ran = true'; document.body.append(script)")
    assert page.js("window.ran") is False
    assert "Content Security Policy" in page.console.pop() or page.console == []


def test_a_key_is_asked_for(tab, tmp_path, files):
    keys = KeyFile(tmp_path / "keys.json")
    key = keys.add("person")
    served = service(Brightness(report=REPORT))
    with running(make_app(served, keys=keys), served) as port:
        tab("Page.navigate", url=f"http://127.0.0.1:{port}/")
        tab.until("document.getElementById('key-form') && !document.getElementById('key-form').hidden")
        assert tab.js("document.getElementById('desk').hidden")
        tab.js("document.getElementById('key').value = 'wrong'; document.getElementById('key-form').requestSubmit()")
        tab.until("document.getElementById('trouble').innerText")
        tab.js(f"document.getElementById('key').value = '{key}'; document.getElementById('key-form').requestSubmit()")
        tab.until("!document.getElementById('desk').hidden")
        tab.choose("#file-one", files[0])
        tab.until(ANSWERED)
        assert tab.text("verdict") == "light"
        tab.until(REPORTED)
        assert "accuracy" in tab.text("axes")
