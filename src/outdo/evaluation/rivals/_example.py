"""Tiny rivals for the `example` of a sort: a network that looks at the mean colour, and a server."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np

from outdo.contracts import Ground


def write_onnx(path: Path, ground: Ground) -> str:
    """Mean of each colour, times a matrix: logits. (N, 3, 8, 8) in, a column for each class out."""
    path.write_bytes(network(len(ground.classes)))
    return f"{path}?classes={','.join(ground.classes)}"


def tiny_bundle(path: Path, ground: Ground) -> Path:
    """The same, shipped: (N, 8, 8, 3) bytes in, probabilities out."""
    from outdo.deploy.bundle import write

    about = {"name": "example", "task": "image_classification", "kind": "image", "classes": list(ground.classes),
             "temperature": 1.0, "models": {"float32": "model.onnx"},
             "input": {"height": 8, "width": 8, "fit": "squash"}}
    write(path, about, {"model.onnx": network(len(ground.classes), shipped=True)})
    return path


def network(classes: int, shipped: bool = False) -> bytes:
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    matrix = np.eye(3, classes, dtype=np.float32) * 10
    shape: list[str | int | None]
    kind, shape, axes = (TensorProto.UINT8, ["n", 8, 8, 3], [1, 2]) if shipped else (
        TensorProto.FLOAT, ["n", 3, 8, 8], [2, 3])
    nodes = [helper.make_node("Cast", ["pixels"], ["floats"], to=TensorProto.FLOAT),
             helper.make_node("ReduceMean", ["floats"], ["mean"], axes=axes, keepdims=0),
             helper.make_node("Div", ["mean", "scale"], ["scaled"]),
             helper.make_node("MatMul", ["scaled", "matrix"], ["logits"])]
    nodes += [helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1)] if shipped else []
    out = "probabilities" if shipped else "logits"
    scale = np.array(255 if shipped else 1, np.float32)
    graph = helper.make_graph(nodes, "colours", [helper.make_tensor_value_info("pixels", kind, shape)],
                              [helper.make_tensor_value_info(out, TensorProto.FLOAT, ["n", classes])],
                              [numpy_helper.from_array(matrix, "matrix"), numpy_helper.from_array(scale, "scale")])
    model: bytes = onnx.helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9
                                          ).SerializeToString()
    return model


def serve(ground: Ground, **lies: Any) -> str:
    """The URL of a model on this machine that gives every class the same; `lies` replace parts of its answers."""
    classes = len(ground.classes)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.answer({"name": "m", "inputs": [{"name": "input", "datatype": "BYTES", "shape": [-1]}],
                         "outputs": [{"name": "p", "datatype": "FP32", "shape": [-1, classes]}],
                         "parameters": {"classes": list(ground.classes)}} | lies.get("metadata", {}))

        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            n = asked["inputs"][0]["shape"][0]
            output = {"name": "p", "datatype": "FP32", "shape": [n, classes], "data": [1 / classes] * (n * classes)}
            self.answer({"outputs": [output | lies.get("output", {})]})

        def answer(self, content: dict[str, Any]) -> None:
            body = json.dumps(content).encode()
            self.send_response(lies.get("status", 200))
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return f"http://127.0.0.1:{server.server_port}/v2/models/m"
