"""The network in 8 bits: several ways of rounding, of which the export keeps the fastest that stays right.

Images: static QDQ (quantize and dequantize nodes with fixed scales), which ONNX Runtime and OpenVINO both fuse into
whole-number kernels; scales come from training images. Texts: weights in 8 bits and activations scaled as they come,
because a transformer's activations differ too much between texts for fixed scales.
"""

from __future__ import annotations

import contextlib
import logging
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from outdo.deploy.engines import Feed
from outdo.errors import MissingExtra

CALIBRATION = 64  # training images to take scales from
CONVOLUTIONAL = ("Conv", "Add", "Clip", "Relu", "MaxPool", "AveragePool", "GlobalAveragePool", "Concat", "Mul",
                 "Sigmoid", "HardSigmoid", "HardSwish")
PRODUCTS = ("MatMul", "Gemm", "Add", "Conv")

# name -> how. Weights with one scale for each channel are finer; with one for all, some kernels are faster
WAYS: dict[str, dict[str, dict[str, Any]]] = {
    "image": {"per channel": {"per_channel": True}, "per tensor": {"per_channel": False},
              "per channel, stem in float": {"per_channel": True, "stem": False}},
    "text": {"per channel": {"per_channel": True}, "per tensor": {"per_channel": False}},
}


def quantized(model: bytes, kind: str, examples: Sequence[Feed]) -> Iterator[tuple[str, bytes]]:
    """(the way's name, the model) one after the other; `examples` are feeds of one image each. Raises MissingExtra."""
    try:
        import onnx  # noqa: F401
        from onnxruntime.quantization.shape_inference import quant_pre_process
    except ImportError as error:
        raise MissingExtra("an int8 model", error.name or "onnx", "export") from None
    with tempfile.TemporaryDirectory(prefix="outdo-int8-") as folder, quiet():
        whole, plain, done = (Path(folder) / name for name in ("whole.onnx", "plain.onnx", "done.onnx"))
        whole.write_bytes(model)
        quant_pre_process(whole, plain, skip_symbolic_shape=True)
        for name, how in WAYS[kind].items():
            (_static if kind == "image" else _dynamic)(plain, done, examples, **how)
            yield name, done.read_bytes()


def _static(plain: Path, done: Path, examples: Sequence[Feed], per_channel: bool, stem: bool = True
            ) -> None:
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

    kinds, left = what_to_round(plain, stem)
    quantize_static(plain, done, Feeds(examples), quant_format=QuantFormat.QDQ, per_channel=per_channel,
                    activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8, op_types_to_quantize=list(kinds),
                    nodes_to_exclude=left)


def _dynamic(plain: Path, done: Path, examples: Any, per_channel: bool) -> None:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    quantize_dynamic(plain, done, op_types_to_quantize=["MatMul"], per_channel=per_channel, weight_type=QuantType.QInt8)


def what_to_round(file: Path, stem: bool) -> tuple[Sequence[str], list[str]]:
    """(sorts of nodes, names of those left as they are): what prepares pixels, which ends in a convolution, and what
    follows the body costs next to nothing and decides much. So may the stem, the first convolution of the body."""
    import onnx

    nodes = list(onnx.load(file, load_external_data=False).graph.node)
    convolutional = sum(node.op_type == "Conv" for node in nodes) > 3
    body = [i for i, node in enumerate(nodes) if node.op_type == ("Conv" if convolutional else "LayerNormalization")]
    end = body[-1] if body else len(nodes)
    end = next((i for i in range(end + 1, len(nodes)) if nodes[i].op_type.startswith(("Reduce", "Global"))), end)
    early = {node.name for node, depth in zip(nodes, depths(nodes), strict=True) if depth <= (1 if stem else 2)}
    late = {node.name for node in nodes[end + 1 :]}
    return CONVOLUTIONAL if convolutional else PRODUCTS, sorted(early | late)


def depths(nodes: Sequence[Any]) -> list[int]:
    """How many convolutions lie on the way to each node's output, itself included; nodes come in order."""
    of: dict[str, int] = {}
    for node in nodes:
        depth = max((of.get(name, 0) for name in node.input), default=0) + (node.op_type == "Conv")
        of |= dict.fromkeys(node.output, depth)
    return [of[node.output[0]] for node in nodes]


class Feeds:
    """What ONNX Runtime's calibration asks for its examples."""

    def __init__(self, examples: Sequence[Feed]) -> None:
        self.left = iter(examples)

    def get_next(self) -> Feed | None:
        return next(self.left, None)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without the library's advice on the root logger."""
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)
    try:
        yield
    finally:
        root.setLevel(level)
