"""The Open Inference Protocol, version 2, over HTTP: JSON, and Triton's binary tensor extension.

A request is a JSON object, which tensors in binary may follow; `Inference-Header-Content-Length` then says where the
JSON ends. See github.com/kserve/open-inference-protocol and Triton's docs/protocol/extension_binary_data.md. One input
goes in, `image` (encoded files, or pixels as UINT8) or `text`; out come `probabilities`, `label` and `sure`.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from starlette.exceptions import HTTPException

from outdo.serving.limits import Limits, parse_json
from outdo.serving.models import Predictor

DATATYPES = {"probabilities": "FP32", "label": "BYTES", "sure": "BOOL"}  # of the outputs
LENGTH = "Inference-Header-Content-Length"


@dataclass(frozen=True)
class Asked:
    """One request: encoded images or texts, or pixels (N, H, W, 3) uint8; which outputs, and whether in binary."""

    id: str | None
    inputs: Sequence[bytes | str]
    pixels: np.ndarray | None
    outputs: dict[str, bool]


def bad(problem: str) -> HTTPException:
    return HTTPException(400, problem)


# ── a request ────────────────────────────────────────────────────────────────────────────────────────────────────────


def read_request(body: bytes, json_length: str | None, kind: str, limits: Limits) -> Asked:
    """Raises HTTPException 400 for whatever is not such a request."""
    end = len(body)
    if json_length is not None:
        if not (json_length.isascii() and json_length.isdecimal() and len(json_length) < 12):
            raise bad(f"{LENGTH} is no length")
        end = int(json_length)
        if end > len(body):
            raise bad(f"{LENGTH} is more than the body has")
    head = typed(parse_json(body[:end], limits.depth), dict, "the request")
    id = head.get("id")
    if id is not None and not (isinstance(id, str) and len(id) <= 128):
        raise bad("'id' is a string of at most 128 characters")
    tensors = typed(head.get("inputs"), list, "'inputs'")
    if len(tensors) != 1:
        raise bad(f"one input is expected, '{kind}'; found {len(tensors)}")
    tensor = typed(tensors[0], dict, "an input")
    if tensor.get("name") != kind:
        raise bad(f"the input is named '{kind}'")
    inputs, pixels = _read_tensor(tensor, body[end:], kind, limits)
    return Asked(id, inputs, pixels, _outputs(head))


def _read_tensor(tensor: dict[str, Any], tail: bytes, kind: str, limits: Limits
                 ) -> tuple[Sequence[bytes | str], np.ndarray | None]:
    shape = typed(tensor.get("shape"), list, "'shape'")
    if not all(type(n) is int and 0 <= n < 2**31 for n in shape) or len(shape) > 8:
        raise bad("'shape' is a list of whole numbers, none negative")
    if not shape or not 1 <= shape[0] <= limits.items:
        raise bad(f"'shape' begins with the number of inputs, 1 to {limits.items}")
    size = parameters(tensor).get("binary_data_size")
    if size is None and tail:
        raise bad("bytes follow the JSON that no input has a 'binary_data_size' for")
    if size is not None and (type(size) is not int or size != len(tail)):
        raise bad(f"'binary_data_size' is not the {len(tail)} bytes that follow the JSON")
    datatype = tensor.get("datatype")
    if datatype == "UINT8" and kind == "image":
        return (), _pixels(tensor, tail, shape, size is not None, limits)
    if datatype != "BYTES":
        raise bad(f"'datatype' of '{kind}' is BYTES" + (" or UINT8" if kind == "image" else ""))
    elements = _split(tail) if size is not None else _strings(flat(tensor.get("data")), kind)
    if len(elements) != math.prod(shape) or len(elements) != shape[0]:
        raise bad(f"'shape' says {shape}, there are {len(elements)} elements")
    return (elements if kind == "image" else [_text(element) for element in elements]), None


def _pixels(tensor: dict[str, Any], tail: bytes, shape: list[int], binary: bool, limits: Limits) -> np.ndarray:
    if len(shape) != 4 or shape[3] != 3 or 0 in shape:
        raise bad("pixels have the shape [N, height, width, 3]")
    if shape[1] * shape[2] > limits.pixels:
        raise bad(f"an image may have {limits.pixels} pixels")
    if binary:
        values = np.frombuffer(tail, np.uint8)
    else:
        data = flat(tensor.get("data"))
        if not all(type(value) is int and 0 <= value < 256 for value in data):
            raise bad("pixels are whole numbers from 0 to 255")
        values = np.array(data, dtype=np.uint8)
    if values.size != math.prod(shape):
        raise bad(f"'shape' says {shape}, there are {values.size} values")
    return values.reshape(shape)


def _split(tail: bytes) -> list[bytes]:
    """The elements of a BYTES tensor: each has its length before it, 4 bytes, little-endian."""
    elements = []
    at = 0
    while at < len(tail):
        if at + 4 > len(tail):
            raise bad("the binary data end within a length")
        (length,) = struct.unpack_from("<I", tail, at)
        at += 4
        if at + length > len(tail):
            raise bad("the binary data end within an element")
        elements.append(tail[at : at + length])
        at += length
    return elements


def _strings(data: list[Any], kind: str) -> list[bytes]:
    """JSON has no bytes: an image stands there in base64."""
    if not all(isinstance(value, str) for value in data):
        raise bad("'data' is a list of strings" + (": images in base64" if kind == "image" else ""))
    if kind == "text":
        return [value.encode("utf-8", "replace") for value in data]
    try:
        return [base64.b64decode(value, validate=True) for value in data]
    except (binascii.Error, ValueError):
        raise bad("images in JSON are base64") from None


def _text(element: bytes | str) -> str:
    try:
        return element if isinstance(element, str) else element.decode("utf-8")
    except UnicodeDecodeError:
        raise bad("texts are UTF-8") from None


def _outputs(head: dict[str, Any]) -> dict[str, bool]:
    """name -> whether it goes back in binary."""
    default = parameters(head).get("binary_data_output") is True
    listed = head.get("outputs")
    if not listed:
        return dict.fromkeys(DATATYPES, default)
    found = {}
    for output in typed(listed, list, "'outputs'"):
        name = typed(output, dict, "an output").get("name")
        if not isinstance(name, str) or name not in DATATYPES:
            raise bad(f"the outputs are {', '.join(DATATYPES)}")
        if "classification" in parameters(output):
            raise bad("the classification extension is not supported: ask for 'label'")
        found[name] = parameters(output).get("binary_data", default) is True
    return found


def typed(value: Any, kind: type, what: str) -> Any:
    if not isinstance(value, kind):
        raise bad(f"{what} is not a JSON {'list' if kind is list else 'object'}")
    return value


def parameters(holder: dict[str, Any]) -> dict[str, Any]:
    return typed(holder.get("parameters", {}), dict, "'parameters'")


def flat(data: Any) -> list[Any]:
    """`data` may be nested as the shape is, or flat (row by row)."""
    rows = typed(data, list, "'data'")
    while rows and isinstance(rows[0], list):
        rows = [value for row in rows for value in typed(row, list, "a row of 'data'")]
    return rows


# ── an answer ────────────────────────────────────────────────────────────────────────────────────────────────────────


def write_answer(asked: Asked, name: str, version: str, values: dict[str, np.ndarray]) -> tuple[bytes, int | None]:
    """(body, length of its JSON when tensors in binary follow it)."""
    outputs, tails = [], []
    for output, binary in asked.outputs.items():
        array = values[output]
        described: dict[str, Any] = {"name": output, "datatype": DATATYPES[output], "shape": list(array.shape)}
        if binary:
            tails.append(_joined(array) if array.dtype.kind == "O" else array.tobytes())
            described["parameters"] = {"binary_data_size": len(tails[-1])}
        else:
            described["data"] = array.ravel().tolist()
        outputs.append(described)
    head = {"model_name": name, "model_version": version, "outputs": outputs}
    if asked.id is not None:
        head["id"] = asked.id
    text = json.dumps(head).encode()
    return b"".join([text, *tails]), len(text) if tails else None


def _joined(labels: np.ndarray) -> bytes:
    encoded = [label.encode() for label in labels]
    return b"".join(struct.pack("<I", len(label)) + label for label in encoded)


def values_of(probabilities: np.ndarray, classes: Sequence[str], threshold: float | None) -> dict[str, np.ndarray]:
    """The outputs by name: (N, C) float32, (N,) str, (N,) bool."""
    best = probabilities.argmax(1)
    highest = probabilities[np.arange(len(best)), best]
    return {
        "probabilities": probabilities.astype(np.float32),
        "label": np.array([str(classes[i]) for i in best], dtype=object),
        "sure": highest >= (0.0 if threshold is None else threshold),
    }


def metadata(model: Predictor, versions: Sequence[str]) -> dict[str, Any]:
    """What a model takes and gives; `parameters` are ours, for the page."""
    return {
        "name": model.name, "versions": list(versions), "platform": "outdo_onnx",
        "inputs": [{"name": model.kind, "datatype": "BYTES", "shape": [-1]}],
        "outputs": [{"name": name, "datatype": datatype, "shape": [-1, *[len(model.classes)][: datatype == "FP32"]]}
                    for name, datatype in DATATYPES.items()],
        "parameters": {"kind": model.kind, "classes": [*map(str, model.classes)], "threshold": model.threshold,
                       "report": model.report is not None},
    }
