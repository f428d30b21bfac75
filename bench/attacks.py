"""The axis' Auto-PGD and Square against those of torchattacks, on a fine-tuned or probed network of a real run.

    python bench/attacks.py RUN FOLDER [--images 40] [--eps 0.5] [--steps 20] [--queries 100]

Needs torchattacks beside outdo. Both attack the same images (of the test, decoded as the axis does) through the same
float32 function from pixels to outputs: first Auto-PGD on cross-entropy with one start, then Square on what still
stands. Claim: what stands after outdo's attacks is within 1 point of what stands after theirs, and never more by more
than that. Prints JSON: the share right without an attack, after the first, and after both.
"""

from __future__ import annotations

import argparse
import json
import time
from typing import Any

import numpy as np
import torch
import torchattacks

import outdo
from outdo import runtime
from outdo.evaluation import predictions
from outdo.evaluation.axes import _attacks
from outdo.evaluation.axes._helpers import square
from outdo.evaluation.axes.adversarial import BATCH


class Network(torch.nn.Module):
    """What torchattacks takes: a module, in eval mode, on a device that it finds by its parameters."""

    def __init__(self, logits: Any) -> None:
        super().__init__()
        self.logits, self.place = logits, torch.nn.Parameter(torch.zeros(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.logits(x)


def images(run: str, folder: str, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Decoded images of the run's test that make squares of 256 pixels, and their codes."""
    test, _ = predictions.read(run)
    data = outdo.read(folder)
    where = {name: i for i, name in enumerate(data.ids)}
    pixels, codes = [], []
    for i in np.random.default_rng(0).permutation(len(test)):
        picture = square(data.inputs.read(where[test.ids[i]]))
        if len(picture) == 256 and len(pixels) < count:
            pixels.append(picture)
            codes.append(test.codes[i])
    return torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).float() / 255, torch.from_numpy(np.array(codes))


def standing(logits: Any, x: torch.Tensor, y: torch.Tensor, attacks: list[Any]) -> list[float]:
    """The share that is right without an attack, and after each of them in turn on what still stands."""
    def right(images: torch.Tensor, codes: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            return torch.cat([logits(part).argmax(1) for part in images.split(BATCH)]) == codes

    left = right(x, y)
    shares = [float(left.float().mean())]
    for attack in attacks:
        at = torch.nonzero(left)[:, 0]
        if len(at):
            left[at] = right(_attacks.in_batches(attack, x[at], y[at], BATCH), y[at])
        shares.append(float(left.float().mean()))
    return shares


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run")
    parser.add_argument("folder")
    parser.add_argument("--images", type=int, default=40)
    parser.add_argument("--eps", type=float, default=0.5, help="in 1/255 of a pixel's range")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--queries", type=int, default=100)
    said = parser.parse_args()
    runtime.prepare()
    model = outdo.load(said.run).model
    logits, eps = model.differentiable(), said.eps / 255
    x, y = images(said.run, said.folder, said.images)
    theirs = Network(logits).eval()
    sides = {
        "outdo": [lambda a, b: _attacks.apgd(logits, a, b, eps, said.steps, runtime.generator(0)),
                  lambda a, b: _attacks.square(logits, a, b, eps, said.queries, runtime.generator(0))],
        "torchattacks": [torchattacks.APGD(theirs, eps=eps, steps=said.steps, seed=0),
                         torchattacks.Square(theirs, eps=eps, n_queries=said.queries, seed=0)]}
    found = {}
    for name, attacks in sides.items():
        start = time.process_time()
        clean, first, both = standing(logits, x, y, attacks)
        found[name] = {"clean": clean, "after Auto-PGD": first, "after Square too": both,
                       "CPU seconds": round(time.process_time() - start, 1)}
        print(json.dumps({"model": model.name, "images": len(x), "eps": eps, name: found[name]}), flush=True)


if __name__ == "__main__":
    main()
