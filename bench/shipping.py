"""The shipped model against PyTorch: latency of one decoded input, throughput of batches, in turns on one machine.

    python bench/shipping.py RUN BUNDLE INPUT [--rounds 7] [--batch 16]

Each contestant lives in a process of its own and answers the same input (an image file, or a text); decoding is left
out, for it is the same. `eager` is the backbone as its library gives it: float32, images channels first, the system's
allocator. `run` is how outdo answers from the run's folder. Prints JSON: the medians over the rounds, and peak memory.
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

CALLS = 10  # in a round: its median counts
CONTESTANTS = ("eager", "run", "onnxruntime float32", "onnxruntime int8", "openvino float32", "openvino int8")


# ── one contestant ───────────────────────────────────────────────────────────────────────────────────────────────────


def of_bundle(name: str, path: Path, said: str) -> Callable[[int], Callable[[], Any]]:
    from outdo.deploy import engines
    from outdo.deploy.bundle import Bundle
    from outdo.deploy.predictor import reader_of

    engine, model = name.split()
    bundle = Bundle.open(path)
    reader = reader_of(bundle)
    item = reader.decode(Path(said).read_bytes() if bundle.about["kind"] == "image" else said)
    started = engines.start(bundle, engines.Choice(engine, model, engines.cores()), reader.example(1))

    def batch(size: int) -> Callable[[], Any]:
        feed = reader.feed([item] * size)
        return lambda: started.run(feed)

    return batch


def of_run(name: str, folder: Path, said: str) -> Callable[[int], Callable[[], Any]]:
    from outdo import runtime

    if name == "run":
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
    make = of_bundle(name, said.bundle, said.input) if " " in name else of_run(name, said.run, said.input)
    calls = [make(1), make(said.batch)]
    timed(calls, 3)
    print("ready", flush=True)
    for _ in sys.stdin:
        one, many = timed(calls, CALLS)
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
        print(json.dumps(measure(said), indent=1))


if __name__ == "__main__":
    main()
