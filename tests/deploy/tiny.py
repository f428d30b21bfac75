"""Hand-made bundles: no torch, no training, milliseconds."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from outdo.deploy import bundle

SIDE = 16


def make_bundle(folder: Path, kind: str = "image", classes=("cat", "dog"), *, name: str = "tiny", threshold=0.6,
                seed: int = 0, key: Path | None = None, **about) -> Path:
    """A bundle file in `folder`: of images, whose brightness decides; of texts, whose first tokens do.

    For images the first class is the darkest and the last the brightest, in even steps.
    """
    model = (image_model if kind == "image" else text_model)(len(classes), seed)
    facts = {"name": name, "task": f"{kind}_classification", "kind": kind, "classes": list(classes),
             "temperature": 1.0, "threshold": threshold, "models": {"float32": "model.onnx"},
             "input": {"height": SIDE, "width": SIDE, "fit": "squash"} if kind == "image" else {"max_length": 32},
             "outdo": "0", "created": "2026-01-01T00:00:00+00:00", **about}
    path = Path(folder) / f"{name}-{kind}-{seed}.outdo"
    bundle.write(path, facts, {"model.onnx": model, "report.json": b'{"schema": 1}'}, key)
    return path


def image_model(classes: int, seed: int = 0) -> bytes:
    steps = np.linspace(0, 1, classes, dtype=np.float32)
    weight = (40 + seed) * steps[None]  # logits = weight * brightness - half its square: the nearest step wins
    nodes = [helper.make_node("Cast", ["pixels"], ["x"], to=TensorProto.FLOAT),
             helper.make_node("ReduceMean", ["x", "axes"], ["mean"], keepdims=0),
             helper.make_node("Div", ["mean", "full"], ["light"]),
             helper.make_node("Unsqueeze", ["light", "one"], ["column"]),
             helper.make_node("Gemm", ["column", "weight", "bias"], ["logits"]),
             helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1)]
    values = {"axes": np.array([1, 2, 3]), "full": np.array(255, np.float32), "one": np.array([1]), "weight": weight,
              "bias": -(40 + seed) * steps**2 / 2}
    return packed(nodes, values, ("pixels", TensorProto.UINT8, ["batch", SIDE, SIDE, 3]), classes)


def text_model(classes: int, seed: int = 0) -> bytes:
    table = np.random.default_rng(seed).normal(size=(1025, classes)).astype(np.float32)  # the last row is of padding
    table[-1] = 0
    nodes = [helper.make_node("Gather", ["table", "tokens"], ["each"], axis=0),
             helper.make_node("ReduceSum", ["each", "axes"], ["logits"], keepdims=0),
             helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1)]
    return packed(nodes, {"table": table, "axes": np.array([1])}, ("tokens", TensorProto.INT64, ["batch", "length"]),
                  classes)


def packed(nodes, values, takes, classes: int, check: bool = True) -> bytes:
    gives = helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["batch", classes])
    constants = [numpy_helper.from_array(np.ascontiguousarray(value), name) for name, value in values.items()]
    graph = helper.make_graph(nodes, "tiny", [helper.make_tensor_value_info(*takes)], [gives], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    if check:
        onnx.checker.check_model(model)
    return model.SerializeToString()


def make_keys(folder: Path, sort: str = "ed25519") -> tuple[Path, Path]:
    """PEM files of a new private and public key."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519

    made = ed25519.Ed25519PrivateKey.generate() if sort == "ed25519" else ec.generate_private_key(ec.SECP256R1())
    pem = serialization.Encoding.PEM
    private, public = folder / f"{sort}-{os.urandom(4).hex()}.pem", folder / f"{sort}-{os.urandom(4).hex()}.pub"
    private.write_bytes(made.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
    public.write_bytes(made.public_key().public_bytes(pem, serialization.PublicFormat.SubjectPublicKeyInfo))
    return private, public


if __name__ == "__main__":  # python tests/deploy/tiny.py FOLDER
    for kind in ("image", "text"):
        print(make_bundle(Path(sys.argv[1]), kind))
