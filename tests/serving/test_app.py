"""The routes in process: what is asked, what is answered, what is refused, and what is said about it."""

import base64
import io
import json
import re
import time
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
from standins import Brightness, Length, app, lines, picture, service
from starlette.exceptions import HTTPException
from starlette.testclient import TestClient

from outdo.errors import UserError
from outdo.serving.app import OPEN, Routes
from outdo.serving.keys import KeyFile
from outdo.serving.limits import Limits, Rates, parse_json
from outdo.serving.models import Models
from outdo.serving.telemetry import ShadowLog

PNG = {"content-type": "image/png"}


@pytest.fixture
def client():
    """A client of an app of `models`."""
    opened = []

    def make(*models, **options):
        opened.append(TestClient(app(*(models or (Brightness(), Length())), **options)))
        return opened[-1].__enter__()

    yield make
    for one in opened:
        one.__exit__(None, None, None)


def infer(data, name="image", **more):
    return {"inputs": [{"name": name, "datatype": "BYTES", "shape": [len(data)], "data": data, **more}]}


# ── /predict ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_an_image_as_it_is(client):
    answer = client().post("/predict", content=picture(204), headers=PNG).json()
    assert (answer["model"], answer["version"]) == ("lights", "1")
    [one] = answer["answers"]
    assert one["label"] == "light"
    assert one["sure"] is True
    assert [c["label"] for c in one["classes"]] == ["light", "dark"]
    assert one["probability"] == one["classes"][0]["probability"] == pytest.approx(0.8)


def test_below_the_threshold_it_is_not_sure(client):
    [one] = client().post("/predict", content=picture(140), headers=PNG).json()["answers"]
    assert one["label"] == "light"
    assert one["sure"] is False


def test_a_form_with_several_files(client):
    files = [("file", (f"{level}.png", picture(level), "image/png")) for level in (10, 250)]
    answers = client().post("/predict", files=files).json()["answers"]
    assert [one["label"] for one in answers] == ["dark", "light"]


def test_of_several_files_the_one_that_cannot_be_read_is_named(client):
    answer = client().post("/predict", files=[("f", ("a.png", picture())), ("f", ("b.png", b"no image"))])
    assert answer.status_code == 422
    assert "input 2 of 2: the image cannot be read" in answer.json()["error"]


def test_a_parameter_that_would_change_nothing_is_refused(client):
    for path in ("/predict?modell=lights", "/explain?versoin=1"):
        answer = client().post(path, content=picture(), headers=PNG)
        assert answer.status_code == 400
        assert "did you mean" in answer.json()["error"]


def test_texts_as_json_and_as_a_form(client):
    ask = client()
    one = ask.post("/predict?model=lengths", json={"text": "hi"}).json()["answers"]
    many = ask.post("/predict?model=lengths&top=1", json={"texts": ["hi", "x" * 20]}).json()["answers"]
    form = ask.post("/predict?model=lengths", files={"text": (None, "hi")}).json()["answers"]
    assert [a["label"] for a in many] == ["short", "long"]
    assert one[0]["label"] == form[0]["label"] == "short"
    assert len(many[0]["classes"]) == 1


@pytest.mark.parametrize(("body", "headers", "status"), [
    (b"", PNG, 422), (b"no image", PNG, 422), (picture()[:40], PNG, 422),
    (b"{}", {"content-type": "application/json"}, 415),
    (b"a=1", {"content-type": "application/x-www-form-urlencoded"}, 415),
    (b"x", {"content-type": "multipart/form-data"}, 400),
    (b"x", {"content-type": "multipart/form-data; boundary=b"}, 400),
    (b"--b\r\n\r\nx\r\n--b--\r\n", {"content-type": "multipart/form-data; boundary=b"}, 400),
    (picture(), {**PNG, "content-encoding": "gzip"}, 415), (b"x" * 2000, PNG, 413)])
def test_bodies_that_are_no_question(client, body, headers, status):
    answer = client(limits=Limits(body_bytes=1500)).post("/predict", content=body, headers=headers)
    assert answer.status_code == status
    assert set(answer.json()) == {"error"}


@pytest.mark.parametrize("said", [
    "[]", "{}", '{"text": 1}', '{"texts": ["a", 1]}', '{"texts": []}', '{"text": "a", "texts": ["b"]}', "nope",
    '{"text": NaN}', "[" * 5000 + "]" * 5000, '{"texts": ' + json.dumps(["x"] * 65) + "}",
    '{"text": ' + "9" * 5000 + "}"])
def test_json_that_is_no_question(client, said):
    answer = client().post("/predict?model=lengths", content=said, headers={"content-type": "application/json"})
    assert answer.status_code == 400
    assert len(answer.json()["error"]) < 300


@pytest.mark.parametrize("said", [b"[NaN]", b"[-Infinity]", b"[1e999]", b"[[[[1]]]]", b'{"a": {"b": [{}]}}', b"[1", b"",
                                  b"\xff", b"9" * 5000, b"[" * 100_000])
def test_json_beyond_its_limits(said):
    with pytest.raises(HTTPException) as refused:
        parse_json(said, depth=3)
    assert refused.value.status_code == 400
    assert parse_json(b'[[[1e3, "[[[["]]]', depth=3) == [[[1000.0, "[[[["]]]


def test_a_text_may_hold_half_a_character(client):
    answer = client().post("/predict?model=lengths", content=rb'{"text": "\ud800"}',
                           headers={"content-type": "application/json"})
    assert answer.status_code == 200


def test_caps_on_pixels_texts_files_and_fields(client):
    ask = client(limits=Limits(pixels=100, characters=5, items=3, fields=3))
    assert ask.post("/predict", content=picture(size=(10, 11)), headers=PNG).status_code == 422
    assert ask.post("/predict", content=picture(size=(10, 10)), headers=PNG).status_code == 200
    assert ask.post("/predict?model=lengths", json={"text": "123456"}).status_code == 422
    assert ask.post("/predict", files=[("f", ("x", picture(size=(2, 2))))] * 4).status_code == 400
    assert ask.post("/predict?model=lengths", files=[("text", (None, "x"))] * 4).status_code == 400


def test_a_thousand_and_one_fields(client):
    ask = client()
    for part in (("f", (None, "x")), ("f", ("name", b"x"))):
        answer = ask.post("/predict", files=[part] * 1001)
        assert answer.status_code == 400
        assert "Too many" in answer.json()["error"]


def test_unknown_names_are_answered_with_the_nearest(client):
    ask = client()
    for path in ("/predict?model=light", "/v2/models/light/infer"):
        answer = ask.post(path, content=picture(), headers=PNG)
        assert answer.status_code == 404
        assert "did you mean 'lights'" in answer.json()["error"]
    assert ask.get("/v2/models/lights/versions/7").status_code == 404
    assert ask.post("/predict?top=0", content=picture(), headers=PNG).status_code == 400


@pytest.mark.parametrize("name", ["../../etc/passwd", "..%2f..%2fetc%2fpasswd", "%2e%2e", "lights%00", "lights/../x",
                                  "x" * 3000, "%ff%fe"])
def test_names_that_would_leave_are_just_unknown(client, name):
    ask = client()
    for path in (f"/v2/models/{name}", f"/v2/models/{name}/versions/{name}", f"/predict?model={name}", f"/{name}"):
        answer = ask.get(path)
        assert answer.status_code in (404, 405)
        assert "root:" not in answer.text


# ── the Open Inference Protocol ──────────────────────────────────────────────────────────────────────────────────────


def test_infer_in_json(client):
    data = [base64.b64encode(picture(level)).decode() for level in (10, 250)]
    answer = client().post("/v2/models/lights/infer", json={"id": "mine", **infer(data)}).json()
    assert (answer["id"], answer["model_name"], answer["model_version"]) == ("mine", "lights", "1")
    outputs = {output["name"]: output for output in answer["outputs"]}
    assert outputs["label"]["data"] == ["dark", "light"]
    assert outputs["probabilities"]["shape"] == [2, 2]
    assert outputs["sure"]["data"] == [True, True]


def test_pixels_answer_as_their_image(client):
    pixels = np.full((2, 3, 5, 3), 204, np.uint8)
    said = infer(pixels.tolist(), datatype="UINT8", shape=[2, 3, 5, 3])
    said["outputs"] = [{"name": "probabilities"}]
    [output] = client().post("/v2/models/lights/infer", json=said).json()["outputs"]
    assert output["data"] == pytest.approx([0.2, 0.8] * 2)


def test_metadata_and_health(client):
    ask = client()
    assert ask.get("/v2").json()["name"] == "outdo"
    assert ask.get("/v2/health/live").json() == {"live": True}
    assert ask.get("/v2/models/lights/versions/1/ready").json() == {"ready": True, "name": "lights"}
    about = ask.get("/v2/models/lengths").json()
    assert about["inputs"] == [{"name": "text", "datatype": "BYTES", "shape": [-1]}]
    assert {output["name"]: output["shape"] for output in about["outputs"]} == {
        "probabilities": [-1, 3], "label": [-1], "sure": [-1]}
    assert ask.get("/v2/models").json() == {"models": ["lights", "lengths"]}


@pytest.mark.parametrize("change", [
    {"shape": [-1]}, {"shape": [2]}, {"shape": [0]}, {"shape": []}, {"shape": "1"}, {"shape": [1.0]}, {"shape": [True]},
    {"shape": [1, 2**62]}, {"shape": [10**400]}, {"shape": [65]}, {"datatype": "FP32"}, {"datatype": None},
    {"datatype": []}, {"data": None}, {"data": [1]}, {"data": [[["x"]], 1]}, {"data": "x"}, {"name": "other"},
    {"name": []}, {"parameters": []}, {"parameters": {"binary_data_size": 5}}, {"parameters": {"binary_data_size": -1}},
    {"parameters": {"binary_data_size": True}}, {"datatype": "UINT8"}, {"datatype": "UINT8", "shape": [1, 1, 1, 3]},
    {"datatype": "UINT8", "shape": [1, 2**30, 2**30, 3], "data": [1]}, {"datatype": "UINT8", "shape": [1, 0, 0, 3]},
    {"datatype": "UINT8", "shape": [1, 1, 1, 3], "data": [256, -1, 1.5]}])
def test_tensors_that_lie(client, change):
    said = infer(["aGk="])
    said["inputs"][0].update(change)
    answer = client().post("/v2/models/lights/infer", json=said)
    assert answer.status_code == 400
    assert answer.json()["error"]


@pytest.mark.parametrize("said", [
    {}, {"inputs": []}, {"inputs": {}}, {"inputs": [1]}, {"inputs": None}, {**infer(["hi"], "text"), "id": 1},
    {**infer(["hi"], "text"), "id": "x" * 200}, {**infer(["hi"], "text"), "outputs": [{"name": "nope"}]},
    {**infer(["hi"], "text"), "outputs": [{"name": []}]}, {**infer(["hi"], "text"), "outputs": "label"},
    {**infer(["hi"], "text"), "outputs": [{"name": "label", "parameters": {"classification": 1}}]},
    {"inputs": infer(["hi"], "text")["inputs"] * 2}])
def test_requests_that_are_none(client, said):
    assert client().post("/v2/models/lengths/infer", json=said).status_code == 400


@pytest.mark.parametrize("length", ["-1", "x", "1e3", "99999", "٣", "9" * 30, ""])
def test_lengths_of_the_json_that_lie(client, length):
    answer = client().post("/v2/models/lengths/infer", json=infer(["hi"], "text"),
                           headers={"Inference-Header-Content-Length": length.encode()})
    assert answer.status_code == 400


@pytest.mark.parametrize("tail", [b"\x05\0\0\0hi", b"\xff\xff\xff\xff", b"\x01", b"\x02\0\0\0hi\x02\0\0\0hi",
                                  b"\x02\0\0\0\xff\xff"])
def test_binary_data_that_lie(client, tail):
    head = json.dumps({"inputs": [{"name": "text", "datatype": "BYTES", "shape": [1],
                                   "parameters": {"binary_data_size": len(tail)}}]}).encode()
    answer = client().post("/v2/models/lengths/infer", content=head + tail,
                           headers={"Inference-Header-Content-Length": str(len(head))})
    assert answer.status_code == 400


# ── who may ask ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_without_a_key_only_page_and_health_are_open(client, tmp_path):
    keys = KeyFile(tmp_path / "keys.json")
    key = keys.add("phone")
    ask = client(keys=keys)
    for route in Routes(service(Brightness())).table():
        path = route.path.format(model="lights", version="1")
        method = "POST" if "POST" in route.methods else "GET"
        answer = ask.request(method, path)
        assert (answer.status_code == 401) == (path not in OPEN), path
        assert ask.request(method, path, headers={"authorization": f"Bearer {key}x"}).status_code == answer.status_code
        assert ask.request(method, path, headers={"authorization": f"Basic {key}"}).status_code == answer.status_code
        assert ask.request(method, path, headers={"authorization": f"Bearer {key}"}).status_code != 401


def test_a_key_has_its_own_rate(client, tmp_path):
    keys = KeyFile(tmp_path / "keys.json")
    slow, fast = ({"authorization": f"Bearer {keys.add(*said)}"} for said in (("slow", 0.5), ("fast", 1000)))
    ask = client(keys=keys)
    texts = {"texts": ["a"] * 5}
    assert ask.post("/predict?model=lengths", json=texts, headers=slow).status_code == 200
    refused = ask.post("/predict?model=lengths", json=texts, headers=slow)
    assert refused.status_code == 429
    assert int(refused.headers["retry-after"]) > 5  # it pays for all five texts
    assert all(ask.post("/predict?model=lengths", json=texts, headers=fast).status_code == 200 for _ in range(5))


def test_a_forwarded_address_is_not_believed(client):
    ask = client(rate=0.5)
    statuses = [ask.get("/v2", headers={"x-forwarded-for": f"10.0.0.{i}", "forwarded": f"for=10.0.0.{i}"}).status_code
                for i in range(5)]
    assert statuses.count(200) < 3
    assert statuses[-1] == 429


def test_rates_fill_up_again_and_forget():
    now = [100.0]
    rates = Rates(lambda: now[0])
    assert rates.wait("a", 2.0) == 0
    rates.pay("a", 2.0, 10)
    assert rates.wait("a", 2.0) == pytest.approx(3.5)
    now[0] += 3.5
    assert rates.wait("a", 2.0) == 0
    for i in range(rates.REMEMBERED + 10):
        rates.pay(str(i), 2.0, 1)
    assert len(rates._buckets) == rates.REMEMBERED


def test_other_names_and_other_sites_are_refused(client):
    ask = client(hosts=frozenset({"localhost", "::1"}))
    assert ask.get("/v2", headers={"host": "localhost:8000"}).status_code == 200
    assert ask.get("/v2", headers={"host": "[::1]:8000"}).status_code == 200
    assert ask.get("/v2", headers={"host": "evil.example"}).status_code == 421
    assert ask.post("/predict", content=picture(), headers={
        **PNG, "host": "localhost", "sec-fetch-site": "cross-site"}).status_code == 403


# ── champion and challenger ──────────────────────────────────────────────────────────────────────────────────────────


def test_a_share_goes_to_the_challenger_and_always_the_same_one(client):
    ask = client(Length(), challenger=Length(version="2"), share=0.3)
    versions = [ask.post("/predict", json={"text": str(i)}).json()["version"] for i in range(300)]
    assert 60 < versions.count("2") < 120
    assert [ask.post("/predict", json={"text": str(i)}).json()["version"] for i in range(20)] == versions[:20]
    named = [ask.post("/predict?version=1", json={"text": str(i)}).json()["version"] for i in range(20)]
    assert set(named) == {"1"}
    assert ask.get("/v2/models/lengths").json()["versions"] == ["1", "2"]


def test_the_shadow_is_logged_without_what_was_asked(client, tmp_path):
    log = tmp_path / "shadow.jsonl"
    ask = client(Length(), challenger=Length(version="2"), shadow=True, share=1.0, shadow_log=ShadowLog(log))
    answer = ask.post("/predict", json={"texts": ["confidential", "words"]}).json()
    assert answer["version"] == "1"
    end = time.monotonic() + 5
    while len(log.read_text().splitlines()) < 2 and time.monotonic() < end:  # the shadow runs after the answer
        ask.get("/v2/health/live")
    written = [json.loads(line) for line in log.read_text().splitlines()]
    assert {line["id"] for line in written} == {answer["id"]}
    assert [line["champion"]["label"] for line in written] == ["long", "short"]
    assert [line["challenger"]["version"] for line in written] == ["2", "2"]
    assert len({line["digest"] for line in written}) == 2
    assert "confidential" not in log.read_text()


class Fails(Length):
    def probabilities(self, items):
        if getattr(self, "warm", False):
            raise RuntimeError("what was sent: confidential")
        self.warm = True
        return super().probabilities(items)


def test_a_failing_shadow_harms_nobody(client):
    ask = client(Length(), challenger=Fails(version="2"), shadow=True)
    assert all(ask.post("/predict", json={"text": "hi"}).status_code == 200 for _ in range(5))


def test_challengers_that_cannot_challenge():
    wrong = [Length("other", "2"), Length(version="1"), Brightness("lengths", "2")]
    for rival in wrong:
        with pytest.raises(UserError):
            service(Length(), challenger=rival)
    with pytest.raises(UserError, match="two bundles"):
        service(Length(), Length(version="2"))


def test_reload_replaces_all_or_nothing():
    shelf = {"a": Length("a"), "b": Length("b")}
    models = Models(["a", "b"], load=lambda path: shelf[path])
    before = models.by_name
    shelf["a"] = Length("a", "2")
    del shelf["b"]
    with pytest.raises(KeyError):
        models.reload()
    assert models.by_name is before
    shelf["b"] = Length("b", "2")
    models.reload()
    assert [served.champion.version for served in models.by_name.values()] == ["2", "2"]
    shelf["a"] = Length("renamed")
    models.reload()
    assert {*models.by_name} == {"renamed", "b"}


# ── explaining, and what is said ─────────────────────────────────────────────────────────────────────────────────────


def test_the_heat_map_is_hottest_where_the_answer_comes_from(client):
    from PIL import Image

    pixels = np.zeros((280, 560, 3), np.uint8)
    pixels[80:160, 400:560] = 255
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")

    class Wide(Brightness):
        classes = ("dark", "spot")

        def probabilities(self, items):
            found = np.array([(item > 200).mean() / (pixels > 200).mean() for item in items]).clip(0, 1)
            return np.stack([1 - found, found], 1)

    answer = client(Wide()).post("/explain", content=file.getvalue(), headers=PNG).json()
    heat = np.array(answer["heat"])
    assert answer["label"] == "spot"
    assert heat.shape == (4, 7)
    assert np.unravel_index(heat.argmax(), heat.shape) in [(1, 5), (1, 6)]
    assert heat[:, :3].max() == 0


def test_what_is_explained_is_the_answer_that_predict_gives(client):
    class Small(Brightness):  # surer of what it decoded itself
        def probabilities(self, items):
            light = np.array([0.9 if item.shape == (16, 16, 3) else 0.6 for item in items])
            return np.stack([1 - light, light], 1)

    ask = client(Small())
    (answer,) = ask.post("/predict", content=picture(230), headers=PNG).json()["answers"]
    explained = ask.post("/explain", content=picture(230), headers=PNG).json()
    assert (explained["label"], explained["probability"]) == (answer["label"], answer["probability"]) == ("light", 0.9)


def test_texts_have_no_heat_map(client):
    assert client().post("/explain?model=lengths", json={"text": "hi"}).status_code == 400


def test_every_answer_carries_the_policy(client):
    ask = client()
    for path in ("/", "/page.js", "/nope", "/v2", "/metrics"):
        headers = ask.get(path).headers
        assert "default-src 'none'" in headers["content-security-policy"]
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["x-request-id"]


def test_the_page_needs_nothing_from_outside_and_nothing_inline():
    folder = resources.files("outdo") / "serving" / "page"
    page, script = (folder / "index.html").read_text(), (folder / "page.js").read_text()
    assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\bstyle=|\bon\w+=|https?://", page)
    for name in ("page.js", "words.js", "page.css"):
        assert "http" + "://" not in (folder / name).read_text()
        assert "https://" not in (folder / name).read_text()
    assert "innerHTML" not in script
    said = set(re.findall(r'data-say="([^"]+)"', page)) | set(re.findall(r'say\("([^"]+)"', script))
    known = set(re.findall(r'"([\w ]+)": \[', (folder / "words.js").read_text()))
    assert said <= known


def test_logs_and_metrics_know_neither_bodies_nor_keys(tmp_path):
    log = io.StringIO()
    keys = KeyFile(tmp_path / "keys.json")
    key = keys.add("phone")
    gate = app(Fails(), keys=keys, log=log)
    with TestClient(gate) as ask:
        said = {"authorization": f"Bearer {key}"}
        assert ask.post("/predict?secret=confidential", json={"text": "a"}, headers=said).status_code == 400
        answer = ask.post("/predict", json={"text": "confidential"}, headers=said)
        assert answer.status_code == 500
        assert "confidential" not in answer.text
        assert answer.json()["id"] == answer.headers["x-request-id"]
        ask.get("/predict/confidential", headers={"authorization": "Bearer confidential", "user-agent": "confidential"})
        metrics = ask.get("/metrics", headers=said).text
    for told in (log.getvalue(), metrics):
        assert "confidential" not in told
        assert key.rpartition("_")[2] not in told
    failure = next(line for line in lines(log) if line["event"] == "failure")
    assert failure["error"] == "RuntimeError"
    assert any("probabilities" in place for place in failure["where"])
    asked = [(line["route"], line["status"], line.get("key")) for line in lines(log) if line["event"] == "request"]
    assert asked[:2] == [("/predict", 400, "phone"), ("/predict", 500, "phone")]
    assert 'outdo_requests_total{route="/predict",status="500"} 1.0' in metrics
    assert 'outdo_requests_total{route="none",status="401"} 1.0' in metrics


def test_the_description_has_every_route():
    described = json.loads((resources.files("outdo") / "serving/page/openapi.json").read_text())["paths"]
    routes = {(route.path, method.lower()) for route in Routes(service(Length())).table() for method in route.methods
              if method != "HEAD" and (route.path not in OPEN or "health" in route.path)}
    assert {(path, method) for path, methods in described.items() for method in methods} == routes


def test_nothing_of_the_page_is_missing_from_the_folder():
    folder = Path(str(resources.files("outdo") / "serving" / "page"))
    assert {path.name for path in folder.iterdir()} == {
        "index.html", "page.js", "words.js", "page.css", "icon.svg", "openapi.json"}
