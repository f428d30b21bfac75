"""A server that speaks the Open Inference Protocol v2 over HTTP: Triton, KServe, MLServer, outdo's own.

`http://host:8000/v2/models/NAME`, with the options of an ONNX file after a `?`. The model's metadata say what it eats:
pixels, encoded files (base64) or texts (BYTES). See github.com/kserve/open-inference-protocol.
"""

from __future__ import annotations

import base64
import http.client
import json
import math
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import numpy as np

from outdo.contracts import Ground, Inputs, Rival
from outdo.errors import DataError, nearest
from outdo.evaluation.rivals import _network, _pixels

TIMEOUT = 30.0  # seconds for one request
TRIES, PAUSE = 3, 0.5  # for an endpoint that is busy or restarting
LARGEST = 64 << 20  # bytes of one answer
BATCH, BATCH_PIXELS = 16, 4  # items in a request; pixels in JSON are bulky
DTYPES = {"FP32": "float32", "FP16": "float16", "FP64": "float64", "UINT8": "uint8"}
NUMBERS = ("FP32", "FP64", "FP16")


class Endpoint:
    summary = "a URL of the Open Inference Protocol, http://host:8000/v2/models/NAME"

    def accepts(self, said: Any) -> bool:
        return isinstance(said, str) and said.lower().startswith(("http://", "https://"))

    def meet(self, said: Any, ground: Ground) -> Rival:
        url, options = _url(said)
        about = asked(url)
        takes, gives = _tensors(about, url, options.get("output"))
        own = about.get("parameters")
        if isinstance(own, dict) and isinstance(own.get("classes"), list):
            options = {"classes": json.dumps([str(c) for c in own["classes"]])} | options

        def run(x: np.ndarray) -> np.ndarray:
            return infer(url, takes, gives, x)

        shape = takes["shape"]
        fixed = shape[0] if shape and shape[0] > 0 else None
        if takes["datatype"] == "BYTES":
            return _network.of_items(run, _item, options, ground, batch=fixed or BATCH)
        if takes["datatype"] in DTYPES and ground.kind == "image":
            shape = [n if n > 0 else None for n in shape]
            return _network.of_images(run, shape, DTYPES[takes["datatype"]], options, ground,
                                      batch=fixed or BATCH_PIXELS)
        raise DataError(f"{url} does not take {ground.kind}s", found=f"an input of {takes['datatype']}",
                        expected="BYTES, or pixels as FP32 or UINT8")

    def example(self, folder: Path, ground: Ground) -> str:
        from outdo.evaluation.rivals._example import serve

        return serve(ground)


def _url(said: str) -> tuple[str, dict[str, str]]:
    """(the model's URL, what was said after `?`)."""
    parts = urlsplit(said)
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    for name in options:
        if name not in _pixels.OPTIONS:
            raise DataError(f"'{name}' says nothing about a rival ({said})", fix=nearest(name, _pixels.OPTIONS))
    if "/v2/models/" not in parts.path:
        raise DataError(f"{said} is no model of the Open Inference Protocol",
                        expected="http://host:port/v2/models/NAME", fix="name the model in the URL")
    return f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}".removesuffix("/infer"), options


def _tensors(about: Any, url: str, output: str | None) -> tuple[dict[str, Any], str]:
    """(the one input, the name of the output) of a model's metadata."""
    try:
        inputs, outputs = about["inputs"], about["outputs"]
        takes = {k: inputs[0][k] for k in ("name", "datatype", "shape")}
        shape = takes["shape"]
        fitting = [o["name"] for o in outputs if o["datatype"] in NUMBERS]
        known = [o["name"] for o in outputs]
        usable = all(type(n) is int for n in shape)
    except (KeyError, IndexError, TypeError):
        usable, inputs = False, []
    if not usable:
        raise DataError(f"{url} does not describe its model", expected="metadata with inputs and outputs, each with "
                        "name, datatype and shape", found=str(about)[:120])
    if len(inputs) != 1:
        raise DataError(f"{url} takes {len(inputs)} inputs", expected="one")
    chosen = output or next(iter(fitting), None)
    if chosen not in known:
        raise DataError(f"{url} has no output of numbers" if output is None else f"{url} has no output '{output}'",
                        found=", ".join(known), fix="say output=NAME")
    return takes, str(chosen)


def _item(inputs: Inputs, index: int) -> str:
    """JSON has no bytes: an image stands there in base64."""
    value = inputs.read(index)
    return value if isinstance(value, str) else base64.b64encode(value).decode()


def infer(url: str, takes: Mapping[str, Any], gives: str, x: np.ndarray) -> np.ndarray:
    """Raw outputs (N, K) for a batch. Raises DataError: no answer, not the one promised, shapes that lie."""
    shape = [len(x), *([1] * (len(takes["shape"]) - 1) if x.dtype == object else x.shape[1:])]
    tensor = {"name": takes["name"], "datatype": takes["datatype"], "shape": shape, "data": x.ravel().tolist()}
    answer = asked(f"{url}/infer", {"inputs": [tensor], "outputs": [{"name": gives}]})
    try:
        output = next(o for o in answer["outputs"] if o["name"] == gives)
        values, said = np.array(flat(output["data"]), np.float64), [int(n) for n in output["shape"]]
    except (KeyError, TypeError, ValueError, StopIteration):
        raise DataError(f"{url} did not answer with '{gives}'", found=json.dumps(answer)[:120]) from None
    if math.prod(said) != len(values) or not said or said[0] != len(x):
        raise DataError(f"{url} says one shape and gives another", expected=f"{len(x)} rows",
                        found=f"shape {said}, {len(values)} values")
    return values.reshape(len(x), -1)


def flat(data: Any) -> list[Any]:
    """`data` may be nested as the shape is, or flat."""
    while isinstance(data, list) and data and isinstance(data[0], list):
        data = [value for row in data for value in row]
    return data if isinstance(data, list) else []


# ── HTTP ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def asked(url: str, body: Mapping[str, Any] | None = None) -> Any:
    """The JSON at `url`, posted to where there is a body. Raises DataError: unreachable, slow, refused, no JSON."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    for left in reversed(range(TRIES)):
        try:
            return json.loads(_read(request))
        except urllib.error.HTTPError as error:
            if error.code not in (429, 502, 503, 504) or not left:
                words = " ".join(error.read(400).decode("utf-8", "replace").split())
                raise DataError(f"{url} refused with {error.code}", found=words or error.reason,
                                fix="check the model's name and what it takes") from None
        except TimeoutError:
            raise DataError(f"{url} did not answer within {TIMEOUT:g} seconds",
                            fix="wait until it is less busy, or give outdo a table of its predictions") from None
        except (OSError, http.client.HTTPException) as error:  # URLError is an OSError
            if not left:
                raise DataError(f"{url} cannot be reached", found=str(getattr(error, "reason", error)),
                                fix="is it running, and is the address right?") from None
        except ValueError:
            raise DataError(f"{url} does not answer in JSON", expected="the Open Inference Protocol v2") from None
        time.sleep(PAUSE)
    raise AssertionError


def _read(request: urllib.request.Request) -> bytes:
    """The whole answer within TIMEOUT, however slowly it drips. Raises TimeoutError, ValueError for a huge one."""
    end = time.monotonic() + TIMEOUT
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT) as response:
            parts, size = [], 0
            while part := response.read1(1 << 16):
                parts.append(part)
                size += len(part)
                if time.monotonic() > end:
                    raise TimeoutError
                if size > LARGEST:
                    raise ValueError
            return b"".join(parts)
    except urllib.error.HTTPError:
        raise
    except urllib.error.URLError as error:
        if isinstance(error.reason, TimeoutError):
            raise TimeoutError from None
        raise


PLUGIN = Endpoint()
