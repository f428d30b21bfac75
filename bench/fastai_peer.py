"""fastai's quick start, `fine_tune(1)`, on the same backbone and data as outdo; run in a venv that has fastai.

    python bench/fastai_peer.py FOLDER

FOLDER holds train/ and test/ (or val/). Stock settings of fastai's image classification tutorial: `Resize(224)`, batch
64, `vision_learner(...).fine_tune(1)`, which trains the head for one epoch and then everything for another. The
backbone is EfficientNet-Lite0 with its ImageNet weights, the same that outdo starts from. Prints accuracy on the held
folder, and wall and CPU seconds of `fine_tune` alone.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import torch
from fastai.vision.all import ImageDataLoaders, Resize, accuracy, set_seed, vision_learner

from outdo.backbones import vision


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    said = parser.parse_args()
    set_seed(said.seed)
    held = "val" if (said.folder / "val").is_dir() else "test"
    data = ImageDataLoaders.from_folder(said.folder, train="train", valid=held, item_tfms=Resize(224), num_workers=0)
    learner = vision_learner(data, "tf_efficientnet_lite0", pretrained=False, metrics=accuracy)
    ours, _, _ = vision.embedded()
    body = learner.model[0].model
    left = body.load_state_dict(ours.state_dict(), strict=False)
    assert not left.missing_keys, left
    learner.freeze()
    start, cpu = time.perf_counter(), time.process_time()
    with learner.no_bar(), learner.no_logging():
        learner.fine_tune(1)
    taken = {"wall_seconds": time.perf_counter() - start, "cpu_seconds": time.process_time() - cpu}
    _, right = learner.validate()
    print(json.dumps({"accuracy": right, "threads": torch.get_num_threads(), **taken}))


if __name__ == "__main__":
    main()
