"""What each optimisation is worth: features and a few training steps with all of them, and with each one switched off.

    python bench/ablation.py cats-dogs/train [--images 300] [--turns 3]

Every measurement is a process of its own with `OUTDO_WITHOUT` set, in turns, each from an empty cache; decoding is
not counted. `--texts FILE.csv` adds features of texts. Counts CPU seconds, of which a busy neighbour takes fewer than
of the wall's; set OMP_NUM_THREADS=1 where there is one. Prints JSON lines as they come, at the end medians and how
many times as long it takes without.
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
from functools import partial
from pathlib import Path
from typing import Any


def measured(said: argparse.Namespace) -> dict[str, float]:
    """Seconds of features, of a step of the whole network, of one of its last third from activations, of texts."""
    from outdo import runtime

    runtime.prepare()
    import numpy as np

    import outdo
    from outdo import backbones, plugins
    from outdo.data.inputs import texts
    from outdo.recipe import Recipe
    from outdo.training import ladder
    from outdo.training.features import Features
    from outdo.training.loop import Plan, Trainer

    cache = Path(os.environ["OUTDO_CACHE"])
    backbone = backbones.load(None, "image")
    data = outdo.read(said.photos)
    data = data.take(np.random.default_rng(0).permutation(len(data))[: said.images])
    encoded = backbone.encode(data.inputs, cache)
    backbone.precision, _ = backbones.choose_precision(backbone, encoded.rows)
    features, everything = Features(backbone, encoded, cache), np.arange(len(data))
    backbone.features(encoded.rows[everything[:64]])  # the first batch sets up kernels
    found = {"features": timed(lambda: features.pooled(everything)),
             "features again": timed(lambda: Features(backbone, encoded, cache).pooled(everything))}
    task, codes = plugins.load("tasks", "image_classification"), everything % 2
    cut = round(backbone.depth * 0.6)
    for what, first, cached in (("step", 0, False), ("step of the last blocks", cut, True)):
        part = ladder.examples(features, everything[:32], codes, first, cached, 1)
        plan = Plan(first, 224, 1, 0.0, cached, False, "")
        one = Trainer(backbone, task.head(backbone.width, 2), task, plan, Recipe(), classes=2, seed=0, train=part,
                      validation=part)
        one.step(everything[:32])
        found[what] = min(timed(partial(one.step, everything[:32])) for _ in range(2))
    if said.texts:
        with open(said.texts, encoding="utf-8") as file:
            sentences = [row[0] for row in list(csv.reader(file))[1 : 1 + said.sentences]]
        encoder = backbones.load(None, "text")
        encoded = encoder.encode(texts(sentences), None)
        encoder.precision, _ = backbones.choose_precision(encoder, encoded.rows)
        found["texts"] = timed(lambda: Features(encoder, encoded, cache).pooled(np.arange(len(sentences))))
    return found


def timed(work: Any) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def without(names: str) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as cache:
        env = {**os.environ, "OUTDO_WITHOUT": names, "OUTDO_CACHE": cache}
        done = subprocess.run([sys.executable, __file__, *sys.argv[1:], "--measure"], env=env, check=True, text=True,
                              stdout=subprocess.PIPE)
        return json.loads(done.stdout.splitlines()[-1])  # type: ignore[no-any-return]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos")
    parser.add_argument("--texts")
    parser.add_argument("--images", type=int, default=300)
    parser.add_argument("--sentences", type=int, default=1500)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--only", nargs="*", help="of the optimisations")
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    said = parser.parse_args()
    if said.measure:
        print(json.dumps(measured(said)))
        return
    from outdo import runtime

    every = ",".join(name for name in runtime.OPTIMISATIONS if name != "feature_cache")
    tried = ["", *(said.only or runtime.OPTIMISATIONS), every]
    seconds: dict[str, list[dict[str, float]]] = {names: [] for names in tried}
    for _ in range(said.turns):
        for names in tried:
            seconds[names].append(without(names))
            print(json.dumps({"without": names, **seconds[names][-1]}), flush=True)
    usual: dict[str, float] = {}
    for names in tried:
        middle = {what: statistics.median(one[what] for one in seconds[names]) for what in seconds[names][0]}
        usual = usual or middle
        print(json.dumps({"without": names.split(","), "seconds": middle,
                          "times": {what: round(middle[what] / usual[what], 2) for what in middle}}), flush=True)


if __name__ == "__main__":
    main()
