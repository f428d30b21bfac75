"""How cost grows with examples and classes: CPU seconds of each stage, and memory.

    python bench/scaling.py [--sizes 1000 5000 20000 50000] [--classes 2 20 200]

Drawn pictures of 32 x 32 pixels in a Parquet file and the small stand-in backbone, so that what is not the network
(whose cost grows with the number of pictures, and is large) is seen: reading, checks, duplicates, features, probes,
judging. Every size is a process of its own with an empty cache. The search for near copies also runs alone, on random
hashes and on a set in which every tenth picture has a near copy. Prints JSON lines; `slope` is that of log seconds
over log examples from the second size to the last: 1 is a straight line, 2 would be quadratic.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

FEW = 5000  # examples, with which classes are varied


def write_pictures(file: Path, count: int, classes: int) -> None:
    """Each class has its own pattern of 8 x 8 patches, each picture its own noise."""
    import pyarrow
    import pyarrow.parquet
    from PIL import Image

    rng = np.random.default_rng(0)
    patterns = rng.integers(40, 215, (classes, 8, 8, 3))
    codes = rng.permutation(np.arange(count) % classes)
    found = []
    for code in codes:
        patches = patterns[code] + rng.normal(0, 40, (8, 8, 3))
        pixels = np.clip(np.kron(patches, np.ones((4, 4, 1))) + rng.normal(0, 5, (32, 32, 3)), 0, 255)
        out = io.BytesIO()
        Image.fromarray(pixels.astype(np.uint8)).save(out, "PNG", compress_level=1)
        found.append({"bytes": out.getvalue(), "path": None})
    pyarrow.parquet.write_table(pyarrow.table({"image": found, "label": [f"class {c:03d}" for c in codes]}), file)


def run(count: int, classes: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        write_pictures(Path(folder) / "pictures.parquet", count, classes)
        done = subprocess.run([sys.executable, __file__, "--measure", folder], text=True, stdout=subprocess.PIPE,
                              check=True, env={**os.environ, "OUTDO_CACHE": f"{folder}/cache"})
    return {"examples": count, "classes": classes, **json.loads(done.stdout.splitlines()[-1])}


def measured(folder: Path) -> dict[str, Any]:
    """CPU seconds of each stage alone, then of everything on the warm cache, in one process; and memory above the idle
    libraries."""
    from outdo import runtime

    runtime.prepare()
    import timm  # noqa: F401

    import outdo
    from outdo import backbones, plugins
    from outdo.data import checks
    from outdo.training.features import Features

    seconds: dict[str, float] = {}

    def timed(stage: str, work: Callable[[], Any]) -> Any:
        start = time.process_time()
        found = work()
        seconds[stage] = time.process_time() - start
        return found

    idle, cache = runtime.peak_memory_bytes() or 0, Path(os.environ["OUTDO_CACHE"])
    source, task = folder / "pictures.parquet", plugins.load("tasks", "image_classification")
    data, backbone = timed("read", lambda: outdo.read(source)), backbones.load("tiny-image")
    encoded = timed("decode", lambda: backbone.encode(data.inputs, cache))
    timed("checks", lambda: checks.clean(data, encoded, task.targets, seed=0, validation=lambda n: 0.2))
    timed("features", lambda: Features(backbone, encoded, cache).pooled(np.arange(len(data))))
    report = timed("improve on the warm cache", lambda: outdo.improve(
        source, start_from="tiny-image", minutes=5, epochs=0, out=folder / "run").report.as_json())
    values = next(axis["values"] for axis in report["axes"] if axis["axis"] == "accuracy")
    return {"cpu_seconds": seconds, "accuracy": max(values.values()),
            "memory_mb": ((runtime.peak_memory_bytes() or 0) - idle) / 1e6}


def copies(count: int, near: bool) -> float:
    """CPU seconds of the search for near copies."""
    from outdo.data.copies import near_pairs

    rng = np.random.default_rng(0)
    hashes = rng.integers(0, 2**63, count, dtype=np.uint64)
    thumbs = rng.integers(0, 256, (count, 8, 8), dtype=np.uint8)
    if near:
        hashes[: count // 10] = hashes[-(count // 10) :] ^ np.uint64(1)
        thumbs[: count // 10] = thumbs[-(count // 10) :]
    start = time.process_time()
    pairs = near_pairs(hashes, thumbs)
    assert len(pairs) >= (count // 10 if near else 0)
    return time.process_time() - start


def slope(sizes: list[int], seconds: list[float]) -> float:
    return float(np.polyfit(np.log(sizes), np.log(np.maximum(seconds, 1e-3)), 1)[0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[1000, 5000, 20000, 50000])
    parser.add_argument("--classes", type=int, nargs="+", default=[2, 20, 200])
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    said = parser.parse_args()
    if said.measure:
        print(json.dumps(measured(said.measure)))
        return
    for near in (False, True):
        seconds = [copies(count, near) for count in said.sizes]
        print(json.dumps({"what": "near copies" if near else "no copies", "cpu_seconds": seconds,
                          "slope": slope(said.sizes[1:], seconds[1:])}), flush=True)
    found = []
    for count in said.sizes:
        found.append(run(count, 10))
        print(json.dumps(found[-1]), flush=True)
    if len(found) > 2:
        print(json.dumps({"slopes": {stage: slope(said.sizes[1:], [one["cpu_seconds"][stage] for one in found[1:]])
                                     for stage in found[0]["cpu_seconds"]}}), flush=True)
    for classes in said.classes:
        print(json.dumps(run(FEW, classes)), flush=True)


if __name__ == "__main__":
    main()
