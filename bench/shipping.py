"""The shipped model against PyTorch: latency of one decoded input, throughput of batches, in turns on one machine.

    python bench/shipping.py RUN BUNDLE INPUT [--rounds 7] [--batch 16]

Each contestant lives in a process of its own and answers the same input (an image file, or a text); decoding is left
out, for it is the same. `eager` is the backbone as its library gives it: float32, images channels first, the system's
allocator; `eager kept` has one that keeps freed memory. `run` is how outdo answers from the run's folder. Prints JSON:
the medians over the rounds, peak memory, and what the machine could do: multiplications and additions that the network
needs for one input against those a second of the fastest product of matrices in 8 bits.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from outdo.deploy import engines
from outdo.deploy.bundle import Bundle
from outdo.deploy.predictor import reader_of

CALLS, BATCHES = 10, 3  # in a round: the median counts
OF_RUN = ("eager", "eager kept", "run")
CONTESTANTS = (*OF_RUN, "onnxruntime float32", "onnxruntime int8", "openvino float32", "openvino int8",
               "openvino-bfloat16 float32", "openvino-bfloat16 int8")
SIDE = 2048  # of the matrices


# ── one contestant ───────────────────────────────────────────────────────────────────────────────────────────────────


def of_bundle(name: str, path: Path, said: str) -> Callable[[int], Callable[[], Any]]:
    engine, model = name.split()
    bundle = Bundle.open(path)
    reader = reader_of(bundle)
    item = reader.decode(content(said, bundle.about["kind"]))
    started = engines.start(bundle, engines.Choice(engine, model, engines.cores()), reader.example(1))

    def batch(size: int) -> Callable[[], Any]:
        feed = reader.feed([item] * size)
        return lambda: started.run(feed)

    return batch


def content(said: str, kind: str) -> bytes | str:
    return Path(said).read_bytes() if kind == "image" else said


def of_run(name: str, folder: Path, said: str) -> Callable[[int], Callable[[], Any]]:
    from outdo import runtime

    if name != "eager":
        runtime.prepare()
    import numpy as np
    import torch

    import outdo
    from outdo.data import inputs

    model: Any = outdo.load(folder).model  # type: ignore[union-attr]
    backbone = model.backbone
    given = inputs.files([said]) if backbone.kind == "image" else inputs.texts([said])
    encoded = backbone.encode(given, None)
    row = encoded.rows[np.arange(1)]

    def batch(size: int) -> Callable[[], Any]:
        rows = np.repeat(row, size, 0)
        if name == "run":
            from outdo.data.encode import ArrayRows

            held = ArrayRows(rows)
            return lambda: model.probabilities(model._sum(held, np.arange(size), model._features(rows)))
        state = backbone.prepare(rows, model.size)
        module = backbone.torch_module.to(memory_format=torch.contiguous_format)
        if backbone.kind == "text":
            return lambda: module(input_ids=state["x"], attention_mask=state["mask"].long())
        x = state["x"].contiguous()
        return lambda: module(x)

    return batch


def answer(name: str, said: argparse.Namespace) -> None:
    """Time a round whenever a line comes."""
    make = of_run(name, said.run, said.input) if name in OF_RUN else of_bundle(name, said.bundle, said.input)
    calls = [make(1), make(said.batch)]
    timed(calls, 3)
    print("ready", flush=True)
    for _ in sys.stdin:
        (one,), (many,) = timed(calls[:1], CALLS), timed(calls[1:], BATCHES)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(json.dumps({"latency_ms": 1000 * one, "per_second": said.batch / many, "peak_memory_mb": peak}),
              flush=True)


def timed(calls: Sequence[Callable[[], Any]], times: int) -> list[float]:
    """Median seconds of each."""
    def once(call: Callable[[], Any]) -> float:
        begun = time.perf_counter()
        call()
        return time.perf_counter() - begun

    if "torch" not in sys.modules:
        return [statistics.median(once(call) for _ in range(times)) for call in calls]
    import torch

    with torch.no_grad():
        return [statistics.median(once(call) for _ in range(times)) for call in calls]


# ── all of them in turns ─────────────────────────────────────────────────────────────────────────────────────────────


def measure(said: argparse.Namespace) -> dict[str, dict[str, float]]:
    running = {name: start(name) for name in CONTESTANTS}
    running = {name: process for name, process in running.items() if heard(process) == "ready"}
    rounds: dict[str, list[dict[str, float]]] = {name: [] for name in running}
    for _ in range(said.rounds):
        for name, process in running.items():
            process.stdin.write("go\n")
            process.stdin.flush()
            rounds[name].append(json.loads(heard(process)))
    for process in running.values():
        process.stdin.close()
        process.wait()
    return {name: {key: round(statistics.median(one[key] for one in taken), 2) for key in taken[0]}
            for name, taken in rounds.items()}


def operations(said: argparse.Namespace) -> float:
    """Multiplications and additions of one input, in convolutions and products of matrices."""
    import numpy as np
    import onnx

    bundle = Bundle.open(said.bundle)
    model = onnx.load_from_string(bundle.read("model.onnx"))
    item = reader_of(bundle).decode(content(said.input, bundle.about["kind"]))
    for given in model.graph.input:
        sides = [1, *([len(item)] if bundle.about["kind"] == "text" else item.shape)]
        for dim, side in zip(given.type.tensor_type.shape.dim, sides, strict=True):
            dim.dim_value = side
    inferred = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    shapes = {value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim]
              for value in (*inferred.value_info, *inferred.input, *inferred.output)}
    shapes |= {tensor.name: list(tensor.dims) for tensor in inferred.initializer}
    count = 0
    for node in inferred.node:
        if node.op_type == "Conv":
            count += np.prod(shapes[node.output[0]]) * np.prod(shapes[node.input[1]][1:])
        elif node.op_type in ("MatMul", "Gemm"):
            count += np.prod(shapes[node.output[0]]) * shapes[node.input[0]][-1]
    return float(2 * count)


def peak() -> float:
    """Operations a second of a product of matrices in 8 bits: the best of the engines."""
    import numpy as np
    from onnx import TensorProto, helper, numpy_helper

    weights = numpy_helper.from_array(np.random.default_rng(0).integers(-9, 9, (SIDE, SIDE)).astype(np.int8), "weights")
    steps = [numpy_helper.from_array(np.float32(0.1), "step"), numpy_helper.from_array(np.uint8(128), "zero"),
             numpy_helper.from_array(np.int8(0), "middle")]
    nodes = [helper.make_node("Cast", ["pixels"], ["x"], to=TensorProto.FLOAT),
             helper.make_node("QuantizeLinear", ["x", "step", "zero"], ["q"]),
             helper.make_node("DequantizeLinear", ["q", "step", "zero"], ["a"]),
             helper.make_node("DequantizeLinear", ["weights", "step", "middle"], ["b"]),
             helper.make_node("MatMul", ["a", "b"], ["c"]),
             helper.make_node("QuantizeLinear", ["c", "step", "zero"], ["d"]),
             helper.make_node("DequantizeLinear", ["d", "step", "zero"], ["e"]),
             helper.make_node("ReduceMax", ["e"], ["probabilities"], keepdims=1)]
    graph = helper.make_graph(
        nodes, "peak", [helper.make_tensor_value_info("pixels", TensorProto.UINT8, [SIDE, SIDE])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, [1, 1])], [weights, *steps])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9).SerializeToString()
    pixels = {"pixels": np.random.default_rng(1).integers(0, 255, (SIDE, SIDE)).astype(np.uint8)}
    started = [engines.ENGINES[name](model, engines.cores()) for name in engines.available()]
    return 2 * SIDE**3 / min(engines.seconds(engine, pixels) for _ in range(CALLS) for engine in started)


def start(name: str) -> Any:
    return subprocess.Popen([sys.executable, *sys.argv, "--as", name], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                            stderr=subprocess.DEVNULL, text=True, env=dict(os.environ))


def heard(process: Any) -> str:
    return process.stdout.readline().strip()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("input")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--as", dest="name", help=argparse.SUPPRESS)
    said = parser.parse_args()
    if said.name:
        answer(said.name, said)
    else:
        print(json.dumps({**measure(said), "operations": operations(said), "int8 peak": peak()}, indent=1))


if __name__ == "__main__":
    main()
