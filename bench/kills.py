"""Does `--resume` reach the same weights after `kill -9` at any moment?

    python bench/kills.py --kills 100

A reference run is never interrupted. Then runs of the same command are killed at random moments, over and over, until
each has ended, and the SHA-256 of their weights is compared with the reference's. Checkpoints are taken twice a second
here (30 s in use), so that kills fall between them often. The precision is said: which one is faster is measured, and
two runs on a busy machine need not measure alike.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

CHILD = """
import sys
from outdo import runtime
runtime.prepare()
import outdo.training.loop as loop
loop.CHECKPOINT_SECONDS = 0.5
import outdo
outdo.improve(sys.argv[1], start_from="tiny-image", minutes=5, epochs=40, early_stopping=0, depth=1000,
              axes="accuracy", precision="float32", out=sys.argv[2], resume=len(sys.argv) > 3)
"""


def squares(root: Path, per_class: int = 150) -> Path:
    rng = np.random.default_rng(0)
    for channel, name in enumerate(("red", "green", "blue")):
        (root / name).mkdir(parents=True)
        for i in range(per_class):
            pixels = rng.normal(110, 70, (32, 32, 3))
            pixels[:, :, channel] += 20
            Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(root / name / f"{i}.png")
    return root


def start(source: Path, out: Path, resume: bool, cache: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", CHILD, str(source), str(out), *(["resume"] if resume else [])]
    return subprocess.Popen(command, env={**os.environ, "OUTDO_CACHE": str(cache)}, stderr=subprocess.PIPE)


def finished(out: Path) -> bool:
    return (out / "run.json").is_file() and json.loads((out / "run.json").read_text())["state"] == "done"


def weights(out: Path) -> str:
    return str(json.loads((out / "model.json").read_text())["tensors"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    said = parser.parse_args()
    draw = random.Random(said.seed)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        source = squares(root / "data")
        began = time.monotonic()
        reference = start(source, root / "whole", False, root / "cache")
        assert reference.wait() == 0, reference.stderr and reference.stderr.read().decode()
        seconds, wanted = time.monotonic() - began, weights(root / "whole")
        kills = ended = same = 0
        while kills < said.kills:
            out, cache = root / f"run-{ended}", root / f"cache-{ended}"
            while True:
                child = start(source, out, out.exists(), cache)
                try:
                    child.wait(draw.uniform(0, 1.1 * seconds))
                    break
                except subprocess.TimeoutExpired:
                    child.send_signal(signal.SIGKILL)
                    child.wait()
                    kills += 1
                    if finished(out):  # killed on its way out
                        break
            assert child.returncode == 0 or finished(out), child.stderr and child.stderr.read().decode()
            ended, same = ended + 1, same + (weights(out) == wanted)
            print(f"{kills} kills, {ended} runs ended, {same} with the reference's weights", flush=True)
    sys.exit(0 if same == ended else 1)


if __name__ == "__main__":
    main()
