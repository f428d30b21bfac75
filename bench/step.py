"""How many times as fast as stock PyTorch: training steps, features of images and of texts; and what the speed costs.

    python bench/step.py hymenoptera/train --texts banking77/train.csv

Two processes take turns, so that both meet the machine in the same mood, and wait for each other. Stock is PyTorch as
the transfer-learning tutorial uses it (NCHW, float32, batch norm in training mode, SGD with momentum; batches of 32
ready in memory) and sentence-transformers' `encode` (which has to be installed), without outdo's allocator. Ours is
the product's own `Trainer.step`, from uint8 rows in the cache: reading, augmentation, clipping, optimiser and average
count. ResNet-50 has random weights. Prints JSON: medians of the turns, the gradients' cosine to float32, the share of
the measured bfloat16 peak, and the share of time that an epoch spends on fetching its rows.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

SIZE, BATCH, CLASSES = 224, 32, 2
OF_THE_ALLOCATOR = ("THP_MEM_ALLOC_ENABLE", "MALLOC_", "LD_PRELOAD", "GLIBC_TUNABLES")


# ── the two sides: each gives what is to be timed, and how many items that is ────────────────────────────────────────


def network(name: str) -> Any:
    """EfficientNet-Lite0 with its weights, or ResNet-50 with random ones and batch statistics that fit them."""
    import timm
    import torch

    from outdo.backbones import vision

    if name == "lite0":
        return vision.embedded()[0]
    torch.manual_seed(0)
    module = timm.create_model(name, zero_init_last=False).train()
    with torch.no_grad():
        for _ in range(3):
            module(torch.randn(8, 3, 96, 96))
    return module


def stock(what: str, said: argparse.Namespace) -> tuple[Callable[[], Any], int]:
    import torch

    torch.manual_seed(0)
    if what == "texts":
        from sentence_transformers import SentenceTransformer

        from outdo.backbones import text

        encoder, sentences = SentenceTransformer(str(text.find(text.EMBEDDED)), device="cpu"), read_texts(said)
        return lambda: encoder.encode(sentences), len(sentences)
    kind, _, name = what.partition(" ")
    module, x, y = network(name), torch.randn(BATCH, 3, SIZE, SIZE), torch.randint(CLASSES, (BATCH,))
    if kind == "features":
        module.eval()
        return lambda: frozen(module, x), BATCH
    module.reset_classifier(CLASSES)
    module.train()
    optimiser = torch.optim.SGD(module.parameters(), lr=0.001, momentum=0.9)

    def step() -> None:
        optimiser.zero_grad()
        torch.nn.functional.cross_entropy(module(x), y).backward()
        optimiser.step()

    return step, BATCH


def frozen(module: Any, x: Any) -> Any:
    import torch

    with torch.no_grad():
        return module.forward_head(module.forward_features(x), pre_logits=True)


def outdos(what: str, said: argparse.Namespace) -> tuple[Callable[[], Any], int]:
    from outdo import runtime

    runtime.prepare()
    if what == "texts":
        return our_texts(said)
    kind, _, name = what.partition(" ")
    if kind == "features":
        backbone, rows = ours(name, said)
        few = rows[range(64)]
        return lambda: backbone.features(few, SIZE), 64
    one = trainer(name, said)
    return lambda: one.step(range_of(BATCH)), BATCH


def ours(name: str, said: argparse.Namespace) -> tuple[Any, Any]:
    """(backbone in the precision that suits this machine, rows of photos)."""
    import numpy as np

    import outdo
    from outdo import backbones
    from outdo.backbones import _image
    from outdo.contracts import Origin

    how = {"kind": "image", "size": SIZE, "train_size": SIZE, "fit": "crop", "store": None, "mean": [0.5] * 3,
           "std": [0.5] * 3, "interpolation": "bicubic"}
    backbone = _image.ImageBackbone(name, network(name), Origin("bench", f"bench {name}", None), how)
    data = outdo.read(said.photos)
    data = data.take(np.random.default_rng(0).permutation(len(data))[: said.images])
    rows = backbone.encode(data.inputs, Path(os.environ["OUTDO_CACHE"])).rows
    backbone.precision, _ = backbones.choose_precision(backbone, rows)
    return backbone, rows


def trainer(name: str, said: argparse.Namespace) -> Any:
    import numpy as np

    from outdo import plugins
    from outdo.recipe import Recipe
    from outdo.training.loop import Examples, Plan, Trainer

    backbone, rows = ours(name, said)
    task = plugins.load("tasks", "image_classification")
    examples = Examples(np.arange(len(rows)) % CLASSES, rows)
    plan = Plan(0, SIZE, 1, 1e-4, False, False, "")
    return Trainer(backbone, task.head(backbone.width, CLASSES), task, plan, Recipe(batch_size=BATCH),
                   classes=CLASSES, seed=0, train=examples, validation=examples)


def range_of(count: int) -> Any:
    import numpy as np

    return np.arange(count)


def our_texts(said: argparse.Namespace) -> tuple[Callable[[], Any], int]:
    """From sentences to vectors: tokens, batches of one length, the frozen encoder, rows on disk."""
    from outdo import backbones
    from outdo.data import inputs
    from outdo.training.features import Features

    backbone, sentences = backbones.load(None, "text"), read_texts(said)
    encoded = backbone.encode(inputs.texts(sentences), None)
    backbone.precision, _ = backbones.choose_precision(backbone, encoded.rows)

    def encode() -> None:
        encoded = backbone.encode(inputs.texts(sentences), None)
        Features(backbone, encoded, None).pooled(range_of(len(sentences)), ["last"])

    return encode, len(sentences)


def read_texts(said: argparse.Namespace) -> list[str]:
    with open(said.texts, encoding="utf-8") as file:
        return [row[0] for row in list(csv.reader(file))[1 : 1 + said.sentences]]


# ── what it costs, and how near the silicon it is ────────────────────────────────────────────────────────────────────


def likeness(name: str, said: argparse.Namespace) -> dict[str, Any]:
    """Cosine of all gradients to those of the plain float32 forward in evaluation mode, on one batch of photos."""
    import torch

    from outdo import runtime

    runtime.prepare()
    one = trainer(name, said)
    state = one.backbone.prepare(one.train.rows[range_of(BATCH)], SIZE)
    target = torch.from_numpy(one.train.codes[:BATCH])

    def gradients(outputs: Any) -> Any:
        found = torch.autograd.grad(torch.nn.functional.cross_entropy(outputs, target), one.parameters)
        return torch.cat([g.flatten() for g in found])

    fast = gradients(one.forward(state, 0))
    module = one.backbone.torch_module
    plain = gradients(one.head(module.forward_head(module.forward_features(state["x"]), pre_logits=True)))
    return {"precision": one.backbone.precision, "gradient_cosine": float(torch.cosine_similarity(fast, plain, dim=0)),
            "gradient_norms": float(fast.norm() / plain.norm())}


def silicon(said: argparse.Namespace) -> dict[str, float]:
    """GFLOP/s of large matrix products in bfloat16 and float32, and the GFLOP of one image's features."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    found = {}
    for dtype in (torch.bfloat16, torch.float32):
        a, b, seconds = torch.randn(4096, 4096, dtype=dtype), torch.randn(4096, 4096, dtype=dtype), []
        for _ in range(7):
            start = time.perf_counter()
            a @ b
            seconds.append(time.perf_counter() - start)
        found[f"peak_{str(dtype).split('.')[-1]}_gflops"] = 2 * 4096**3 / min(seconds) / 1e9
    with FlopCounterMode(display=False) as counter:
        frozen(network("lite0").eval(), torch.randn(1, 3, SIZE, SIZE))
    return {**found, "image_gflop": counter.get_total_flops() / 1e9}


class Fetching:
    """Rows that note how long they were waited for."""

    def __init__(self, rows: Any) -> None:
        self.rows, self.shape, self.dtype, self.seconds = rows, rows.shape, rows.dtype, 0.0

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, at: Any) -> Any:
        start = time.perf_counter()
        try:
            return self.rows[at]
        finally:
            self.seconds += time.perf_counter() - start


def waiting(said: argparse.Namespace) -> dict[str, float]:
    """Share of the wall time in which features, and an epoch of training, wait for rows from the cache; and how busy
    the threads are."""
    import torch

    from outdo import runtime

    runtime.prepare()
    from dataclasses import replace

    from outdo.contracts import Encoded
    from outdo.training.features import Features

    one = trainer("lite0", said)
    count = len(one.train)
    one.step(range_of(BATCH))
    rows = Fetching(one.train.rows)
    encoded = Encoded(rows, tuple(map(str, range(count))), {}, range_of(count))
    features = Features(one.backbone, encoded, None, size=SIZE)
    one.train = replace(one.train, rows=rows)
    found = {}
    for what, work in (("features", lambda: features.pooled(range_of(count))), ("training", one.run_epoch)):
        rows.seconds, start, cpu = 0.0, time.perf_counter(), time.process_time()
        work()
        wall = time.perf_counter() - start
        found[f"{what}_waits_for_rows"] = rows.seconds / wall
        found[f"{what}_threads_busy"] = (time.process_time() - cpu) / wall / torch.get_num_threads()
    return found


# ── turns ────────────────────────────────────────────────────────────────────────────────────────────────────────────


class Side:
    """A process that waits for its turn."""

    def __init__(self, side: str, what: str) -> None:
        env = {k: v for k, v in os.environ.items() if not k.startswith(OF_THE_ALLOCATOR)}
        self.process = subprocess.Popen([sys.executable, __file__, *sys.argv[1:], "--side", side, "--what", what],
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env)

    def ask(self) -> Any:
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write("go\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def end(self) -> None:
        self.process.communicate()


def serve(side: str, what: str, said: argparse.Namespace) -> None:
    """Once unasked for, to set up, then once for each line."""
    if side == "once":
        asked = {"silicon": silicon, "waiting": waiting}.get(what) or (lambda s: likeness(what, s))
        sys.stdin.readline()
        print(json.dumps(asked(said)), flush=True)
        return
    work, items = (stock if side == "stock" else outdos)(what, said)
    work()
    for _ in sys.stdin:
        start = time.perf_counter()
        work()
        print(json.dumps((time.perf_counter() - start) / items), flush=True)


def once(what: str) -> Any:
    side = Side("once", what)
    try:
        return side.ask()
    finally:
        side.end()


def duel(what: str, turns: int) -> dict[str, float]:
    sides = {side: Side(side, what) for side in ("stock", "outdo")}
    seconds: dict[str, list[float]] = {side: [] for side in sides}
    for _ in range(turns):
        for side, process in sides.items():
            seconds[side].append(process.ask())
    for process in sides.values():
        process.end()
    mid = {side: statistics.median(values) for side, values in seconds.items()}
    ratios = [s / o for s, o in zip(seconds["stock"], seconds["outdo"], strict=True)]
    return {"stock_per_second": 1 / mid["stock"], "outdo_per_second": 1 / mid["outdo"],
            "times": mid["stock"] / mid["outdo"], "least": min(ratios), "most": max(ratios)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos")
    parser.add_argument("--texts", help="a CSV file, texts in its first column")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--images", type=int, default=192)
    parser.add_argument("--sentences", type=int, default=1500)
    parser.add_argument("--side", help=argparse.SUPPRESS)
    parser.add_argument("--what", help=argparse.SUPPRESS)
    parser.add_argument("--only", nargs="*", default=["step lite0", "step resnet50", "features lite0", "texts"])
    said = parser.parse_args()
    if said.side:
        serve(said.side, said.what, said)
        return
    with tempfile.TemporaryDirectory() as cache:
        os.environ["OUTDO_CACHE"] = cache
        peak = once("silicon")
        print(json.dumps(peak), flush=True)
        for what in said.only if said.texts else [one for one in said.only if one != "texts"]:
            found = {"what": what, "turns": said.turns, **duel(what, said.turns)}
            if what.startswith("step"):
                found |= once(what.partition(" ")[2])
            if what == "features lite0":
                found["of_bfloat16_peak"] = (found["outdo_per_second"] * peak["image_gflop"]
                                             / peak["peak_bfloat16_gflops"])
            print(json.dumps(found), flush=True)
        print(json.dumps(once("waiting")), flush=True)


if __name__ == "__main__":
    main()
