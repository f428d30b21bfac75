"""The real clients of the Open Inference Protocol, unchanged, over a real socket."""

import json
import os
import subprocess
import sys
from importlib.util import find_spec

import numpy as np
import pytest
from live import running
from standins import Brightness, Length, picture, service

from outdo.serving.app import make_app
from outdo.serving.keys import KeyFile

triton = pytest.importorskip("tritonclient.http", reason="tritonclient[http] is not installed")


KSERVE = os.environ.get("OUTDO_KSERVE") or (sys.executable if find_spec("kserve") else None)  # a Python that has it


@pytest.fixture(scope="module")
def port(tmp_path_factory):
    served = service(Brightness(), Length())
    with running(make_app(served), served) as port:
        yield port


@pytest.fixture
def client(port):
    with triton.InferenceServerClient(f"127.0.0.1:{port}") as client:
        yield client


def asked(name, values, binary=True):
    given = triton.InferInput(name, [len(values)], "BYTES")
    return [given.set_data_from_numpy(np.array(values, dtype=object), binary_data=binary)]


def test_health_and_metadata(client):
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("lights")
    assert client.is_model_ready("lights", "1")
    assert not client.is_model_ready("nobody")
    assert "binary_tensor_data" in client.get_server_metadata()["extensions"]
    assert client.get_model_metadata("lights", "1")["outputs"][0] == {
        "name": "probabilities", "datatype": "FP32", "shape": [-1, 2]}


@pytest.mark.parametrize("binary", [True, False])
def test_texts_in_binary_and_in_json(client, binary):
    outputs = [triton.InferRequestedOutput(name, binary_data=binary) for name in ("label", "probabilities", "sure")]
    answer = client.infer("lengths", asked("text", ["hi", "长" * 20], binary), outputs=outputs, request_id="mine")
    assert answer.as_numpy("probabilities").tolist() == [[pytest.approx(0.9), pytest.approx(0.1), 0], [0, 1, 0]]
    labels = [label.decode() if binary else label for label in answer.as_numpy("label")]
    assert labels == ["short", "long"]
    assert answer.as_numpy("sure").tolist() == [True, True]
    assert answer.get_response()["id"] == "mine"


def test_images_and_pixels_answer_alike(client):
    encoded = client.infer("lights", asked("image", [picture(204), picture(51)]))
    given = triton.InferInput("image", [2, 4, 4, 3], "UINT8")
    levels = np.array([204, 51], np.uint8)[:, None, None, None]
    given.set_data_from_numpy(np.broadcast_to(levels, (2, 4, 4, 3)).copy())
    pixels = client.infer("lights", [given])
    assert encoded.as_numpy("probabilities") == pytest.approx(pixels.as_numpy("probabilities"))
    assert [label.decode() for label in pixels.as_numpy("label")] == ["light", "dark"]


def test_what_is_wrong_reaches_the_caller(client):
    with pytest.raises(triton.InferenceServerException, match="the input is named 'image'"):
        client.infer("lights", asked("text", ["hi"]))
    with pytest.raises(triton.InferenceServerException, match="cannot be read"):
        client.infer("lights", asked("image", [b"no image"]))
    with pytest.raises(triton.InferenceServerException, match="compressed"):
        client.infer("lengths", asked("text", ["hi"]), request_compression_algorithm="gzip")


def test_many_at_once(port):
    with triton.InferenceServerClient(f"127.0.0.1:{port}", concurrency=8) as client:
        waiting = [client.async_infer("lengths", asked("text", ["x" * (i % 20 + 1)])) for i in range(40)]
        found = [one.get_result().as_numpy("probabilities")[0, 1] for one in waiting]
    assert found == pytest.approx([(i % 20 + 1) / 20 for i in range(40)])


def test_with_a_key(tmp_path):
    keys = KeyFile(tmp_path / "keys.json")
    headers = {"Authorization": f"Bearer {keys.add('triton')}"}
    served = service(Length())
    with running(make_app(served, keys=keys), served) as port, \
            triton.InferenceServerClient(f"127.0.0.1:{port}") as client:
        with pytest.raises(triton.InferenceServerException, match="key is needed"):
            client.infer("lengths", asked("text", ["hi"]))
        assert client.infer("lengths", asked("text", ["hi"]), headers=headers).as_numpy("sure").all()


BY_KSERVE = """
import asyncio, json, sys
import numpy as np
from kserve import InferInput, InferRequest, InferenceRESTClient, RESTConfig

async def main(url, picture):
    client = InferenceRESTClient(RESTConfig(protocol="v2"))
    found = {"live": await client.is_server_live(url), "ready": await client.is_server_ready(url),
             "model": await client.is_model_ready(url, "lights"), "labels": []}
    for binary in (True, False):
        given = InferInput("text", [2], "BYTES")
        given.set_data_from_numpy(np.array([b"hi", b"x" * 20], dtype=object), binary_data=binary)
        answer = await client.infer(url, InferRequest("lengths", [given], request_id="mine"), model_name="lengths")
        [labels] = [output.as_numpy() for output in answer.outputs if output.name == "label"]
        found["labels"].append([label.decode() if isinstance(label, bytes) else str(label) for label in labels])
    given = InferInput("image", [1], "BYTES")
    given.set_data_from_numpy(np.array([bytes.fromhex(picture)], dtype=object))
    answer = await client.infer(url, InferRequest("lights", [given]), model_name="lights")
    [found["light"]] = [output.as_numpy()[0, 1].item() for output in answer.outputs if output.name == "probabilities"]
    await client.close()
    print(json.dumps(found))

asyncio.run(main(*sys.argv[1:]))
"""


@pytest.mark.skipif(KSERVE is None, reason="kserve is not installed; OUTDO_KSERVE names a Python that has it")
def test_kserve(port):
    url = f"http://127.0.0.1:{port}"
    done = subprocess.run([KSERVE, "-c", BY_KSERVE, url, picture(204).hex()], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == {
        "live": True, "ready": True, "model": True, "labels": [["short", "long"]] * 2, "light": pytest.approx(0.8)}
