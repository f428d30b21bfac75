"""Mutated requests by the thousand, in process: every answer is one that was meant, and none takes long."""

import contextlib
import io
import json
import os
import string
import struct
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from standins import Brightness, Length, app, picture
from starlette.testclient import TestClient

from outdo.serving.limits import json_depth

EXAMPLES = int(os.environ.get("OUTDO_ATTACKS", "120"))  # of each of five, which send one to four requests each
MEANT = {200, 400, 401, 404, 405, 408, 413, 415, 422, 429}
SLOW = 5.0  # seconds

CORPUS = [picture(format=name) for name in ("PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF")]
CORPUS += [picture(format="JPEG", progressive=True),
           picture(format="JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12")]


@pytest.fixture(scope="module")
def client():
    with TestClient(app(Brightness(), Length()), raise_server_exceptions=False) as client:
        yield client


def sent(client, path, body, **headers):
    begin = time.monotonic()
    answer = client.post(path, content=body, headers={k.replace("_", "-"): v for k, v in headers.items()})
    assert answer.status_code in MEANT, (answer.status_code, answer.text, body[:200])
    assert time.monotonic() - begin < SLOW
    if answer.status_code != 200:
        assert set(answer.json()) == {"error"}
    return answer


@st.composite
def mutated(draw, seeds):
    """Bytes near one of `seeds`: some changed, cut out, put in, repeated, cut off."""
    data = bytearray(draw(st.sampled_from(seeds)))
    for _ in range(draw(st.integers(1, 6))):
        at = draw(st.integers(0, len(data)))
        match draw(st.sampled_from(["set", "cut", "insert", "repeat", "end"])):
            case "set":
                new = draw(st.sampled_from([b"\0", b"\xff", b"\x80", b"\x7f", b"\xff\xff\xff\xff", b"\0\0\0\0"])
                           | st.binary(max_size=4))
                data[at : at + len(new)] = new
            case "cut":
                del data[at : at + draw(st.integers(1, 40))]
            case "insert":
                data[at:at] = draw(st.binary(max_size=20))
            case "repeat":
                data[at:at] = data[at : at + draw(st.integers(1, 60))] * draw(st.integers(1, 5))
            case "end":
                del data[max(at, 12) :]
    return bytes(data)


@settings(max_examples=EXAMPLES)
@given(mutated(CORPUS), st.sampled_from(["image/png", "", "application/octet-stream", "image/svg+xml"]))
def test_images(client, body, kind):
    sent(client, "/predict", body, content_type=kind)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8), max_leaves=8,
    extend=lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3))
tensor_values = {
    "name": st.sampled_from(["text", "image"]), "datatype": st.sampled_from(["BYTES", "UINT8", "FP32"]),
    "shape": st.lists(st.integers(-2, 5) | st.sampled_from([2**31, 2**63, 10**30]), max_size=4),
    "data": st.lists(st.text(max_size=5) | st.integers(-1, 256), max_size=12),
    "parameters": st.fixed_dictionaries({}, optional={"binary_data_size": st.integers(-2, 30)})}


@st.composite
def requests(draw):
    """An inference request, parts of which are anything at all."""
    def perhaps(strategy):
        return draw(json_values) if draw(st.integers(0, 9)) == 0 else draw(strategy)

    tensor = {name: perhaps(values) for name, values in tensor_values.items() if draw(st.integers(0, 5))}
    head = {"inputs": perhaps(st.just([tensor])), "id": perhaps(st.text(max_size=5)),
            "outputs": perhaps(st.lists(st.fixed_dictionaries({"name": st.sampled_from(["label", "sure", "x"])})))}
    return {name: value for name, value in head.items() if draw(st.integers(0, 4))}


@settings(max_examples=EXAMPLES)
@given(requests(), st.binary(max_size=30),
       st.none() | st.integers(-3, 400).map(str) | st.text(string.printable.strip()))
def test_inference_requests(client, head, tail, length):
    text = json.dumps(head).encode()
    for model in ("lights", "lengths"):
        sent(client, f"/v2/models/{model}/infer", text + tail, inference_header_content_length=str(len(text)))
        sent(client, f"/v2/models/{model}/infer", text, **({} if length is None else {
            "inference_header_content_length": length}))


@settings(max_examples=EXAMPLES)
@given(mutated([json.dumps(said).encode() for said in (
    {"text": "hello"}, {"texts": ["a", "b\\\"c", "\ud800"]},
    {"outputs": [{"name": "sure"}],
     "inputs": [{"name": "text", "datatype": "BYTES", "shape": [2], "data": ["a", "b"]}]},
    {"text": 1e308, "x": [[[[[[]]]]]]})]))
def test_json(client, body):
    sent(client, "/predict?model=lengths", body, content_type="application/json")
    sent(client, "/v2/models/lengths/infer", body)


FORMS = [b'--b\r\nContent-Disposition: form-data; name="f"; filename="x.png"\r\nContent-Type: image/png\r\n\r\n'
         + picture() + b"\r\n--b--\r\n",
         b'preamble\r\n--b\r\nContent-Disposition: form-data; name="text"\r\n\r\nhi\r\n--b\r\n'
         b'Content-Disposition: form-data; name*=utf-8\'\'%ff; filename="../../x"\r\n\r\n\r\n--b--epilogue']


@settings(max_examples=EXAMPLES)
@given(mutated(FORMS), st.sampled_from(["multipart/form-data" + more for more in (
    "; boundary=b", ";boundary=\"b\"; charset=x", "; boundary=", "; charset=utf-7; boundary=b")]))
def test_forms(client, body, kind):
    for model in ("lights", "lengths"):
        sent(client, f"/predict?model={model}", body, content_type=kind)


@settings(max_examples=EXAMPLES)
@given(st.binary(max_size=60).map(lambda tail: tail.replace(b"\n", b"")),
       st.sampled_from(["GET", "POST", "PUT", "HEAD"]))
def test_paths_and_queries(client, tail, method):
    path = "".join(f"%{byte:02x}" for byte in tail)
    for url in (f"/{path}", f"/v2/models/{path}/infer", f"/predict?model={path}&top={path}"):
        answer = client.request(method, url)
        assert answer.status_code in MEANT


nested = st.recursive(
    st.sampled_from(["", '"{"', r'"\\"', 1, "\u732b"]), max_leaves=8,
    extend=lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from('a["'), inner, max_size=3))


@settings(max_examples=EXAMPLES)
@given(nested.map(lambda value: json.dumps(value).encode()) | st.binary(max_size=60)
       | mutated([b'{"a": [[], {"b": "]"}]}', b'[["\\"[", [1]], {}]']))
def test_json_depth_is_that_of_the_parser(body):
    def deepest(value):
        inside = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
        return 0 if inside is None else 1 + max(map(deepest, inside), default=0)

    found = json_depth(body)
    with contextlib.suppress(ValueError):
        assert found == deepest(json.loads(body))


def test_json_depth_of_what_no_parser_takes():
    assert json_depth(json.dumps("[" * 50 + '"{').encode()) == 0
    assert json_depth(b"[" * 100_000) == 100_000
    assert json_depth(b'["[[[[') == 1


# ── hostile images ───────────────────────────────────────────────────────────────────────────────────────────────────


def png_of(wide, high):
    """A PNG whose header promises much and which holds little."""
    return (b"\x89PNG\r\n\x1a\n" + struct.pack(">I4sIIBBBBBI", 13, b"IHDR", wide, high, 8, 2, 0, 0, 0, 0)
            + picture()[33:])


def saved(mode, size, format="PNG", **options):
    file = io.BytesIO()
    Image.new(mode, size).save(file, format, **options)
    return file.getvalue()


@pytest.mark.parametrize(("body", "status"), [
    (png_of(60_000, 60_000), 422), (png_of(0, 0), 422), (png_of(2**31 - 1, 1), 422), (saved("L", (8000, 8000)), 422),
    (saved("1", (1, 1)), 200), (saved("I;16", (9, 9)), 200), (saved("CMYK", (9, 9), "JPEG"), 200),
    (saved("RGBA", (9, 9)), 200),
    (saved("P", (9, 9), "GIF", save_all=True, append_images=[Image.new("P", (9, 9))]), 200),
    (picture(format="JPEG")[:-20], 422), (picture(format="JPEG") + b"<script>PK\3\4", 200),
    (b"\x1f\x8b" + b"\0" * 100, 422),
    (b"<svg xmlns='http://www.w3.org/2000/svg'/>", 422), (b"%PDF-1.4", 422), (b"\x80\x04cos\nsystem\n", 422),
    (np.lib.format.magic(1, 0) + b"x" * 100, 422)])
def test_hostile_images(client, body, status):
    assert sent(client, "/predict", body, content_type="image/png").status_code == status
