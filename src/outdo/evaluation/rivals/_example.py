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
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    matrix = np.eye(3, len(ground.classes), dtype=np.float32) * 10
    nodes = [helper.make_node("GlobalAveragePool", ["image"], ["mean"]),
             helper.make_node("Flatten", ["mean"], ["flat"]),
             helper.make_node("MatMul", ["flat", "matrix"], ["logits"])]
    graph = helper.make_graph(
        nodes, "colours", [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 3, 8, 8])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", len(ground.classes)])],
        [numpy_helper.from_array(matrix, "matrix")])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), str(path))
    return f"{path}?classes={','.join(ground.classes)}"


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
