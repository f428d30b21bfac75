"""Whether an ONNX model wants data from files outside itself. It is asked before an engine sees the model.

The format lets a tensor name a file (`data_location` EXTERNAL). A bundle's models are whole, so one that does is
refused. The few bytes of protobuf that this needs are walked here: bundles run without the `onnx` package.
"""

from __future__ import annotations

from collections.abc import Iterator

from outdo.errors import BundleError

# message -> {field number: message that it holds}, as far as tensors are reached (onnx.proto3)
MODEL, GRAPH, NODE, ATTRIBUTE, TENSOR, SPARSE, FUNCTION, TRAINING = range(8)
INSIDE = {
    MODEL: {7: GRAPH, 20: TRAINING, 25: FUNCTION},
    GRAPH: {1: NODE, 5: TENSOR, 15: SPARSE},
    NODE: {5: ATTRIBUTE},
    ATTRIBUTE: {5: TENSOR, 6: GRAPH, 10: TENSOR, 11: GRAPH, 22: SPARSE, 23: SPARSE},
    SPARSE: {1: TENSOR, 2: TENSOR},
    FUNCTION: {7: NODE, 11: ATTRIBUTE},
    TRAINING: {1: GRAPH, 2: GRAPH},
    TENSOR: {},
}
EXTERNAL_DATA, DATA_LOCATION = 13, 14  # of a tensor
DEEPEST = 32  # graphs within graphs


def refuse_external_data(model: bytes, name: str) -> None:
    """Raises BundleError: a tensor that lies outside the model, or bytes that are no ONNX model."""
    try:
        outside = _reaches_out(memoryview(model), MODEL, 0)
    except (IndexError, ValueError):
        raise BundleError(f"{name} does not hold an ONNX model", fix="do not trust this bundle") from None
    if outside:
        raise BundleError(f"{name}: its model wants data from files outside the bundle",
                          fix="do not trust this bundle")


def _reaches_out(data: memoryview, message: int, depth: int) -> bool:
    if depth > DEEPEST:
        raise ValueError("too deep")
    for field, value in _fields(data):
        if message == TENSOR and (field == EXTERNAL_DATA or (field == DATA_LOCATION and value != 0)):
            return True
        inside = INSIDE[message].get(field)
        if inside is not None and isinstance(value, memoryview) and _reaches_out(value, inside, depth + 1):
            return True
    return False


def _fields(data: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """(number, value) of each field of a message: numbers as int, what has a length as bytes."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        value: int | memoryview
        if key & 7 == 0:
            value, at = _varint(data, at)
        elif key & 7 == 2:
            length, at = _varint(data, at)
            if at + length > len(data):
                raise ValueError("a field is longer than its message")
            value, at = data[at : at + length], at + length
        elif key & 7 in (1, 5):
            value, at = 0, at + (8 if key & 7 == 1 else 4)
        else:
            raise ValueError("groups do not occur in ONNX")
        yield key >> 3, value


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
        if shift > 63:
            raise ValueError("a number of more than 64 bits")
