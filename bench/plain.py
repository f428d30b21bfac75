"""outdo's recipe against plain fine-tuning of the same network on the same split, judged by `outdo compare`.

    python bench/plain.py FOLDER --minutes 2 --epochs 3 --seeds 3 --out DIR

Plain: all layers, AdamW (1e-4, for the new head 1e-3, by a cosine; weight decay 0.01), batches of 16,
random resized crops of 160 pixels and flips, cross entropy; the epoch of least loss on validation is kept. It trains on
the run's own training examples, is exported to ONNX at 224 pixels and asked as such. Prints the table of each seed, and
at the end the means.
"""

from __future__ import annotations

import argparse
import copy
import json
import time
from pathlib import Path
from typing import Any

import numpy as np

import outdo
from outdo import runtime

SHOWN = ("accuracy", "corruption", "calibration_error", "brier", "nll")
CROP, SIZE, BATCH = 160, 224, 16


def images(data: Any, ids: list[str], labels: tuple[str, ...]) -> tuple[list[Any], Any]:
    """Pictures with a shorter side of 256 pixels, and their codes."""
    import io

    import torch
    from PIL import Image, ImageOps

    where = {name: i for i, name in enumerate(data.ids)}
    found = []
    for name in ids:
        image = ImageOps.exif_transpose(Image.open(io.BytesIO(data.inputs.read(where[name])))).convert("RGB")
        scale = 256 / min(image.size)
        found.append(image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BILINEAR))
    return found, torch.tensor([labels.index(str(data.labels[where[name]])) for name in ids])


def fine_tuned(run: Path, data: Any, epochs: int, seed: int, path: Path) -> None:
    """Train on the run's training examples, keep the best epoch on its validation examples, export."""
    import torch
    from torchvision import transforms

    from outdo.backbones import vision

    torch.manual_seed(seed)
    splits = json.loads((run / "stages" / "splits.json").read_text())
    classes = tuple(json.loads((run / "model.json").read_text())["classes"])
    finish = [transforms.ToTensor(), transforms.Normalize([0.5] * 3, [0.5] * 3)]
    varied = transforms.Compose([transforms.RandomResizedCrop(CROP, (0.35, 1.0)), transforms.RandomHorizontalFlip(),
                                 *finish])
    plain = transforms.Compose([transforms.CenterCrop(SIZE), *finish])
    (train, y), (held, truth) = (images(data, splits[part], classes) for part in ("train", "validation"))
    network, _, _ = vision.embedded()
    network.classifier = torch.nn.Linear(network.classifier.in_features, len(classes))
    network.to(memory_format=torch.channels_last)
    head = list(network.classifier.parameters())
    body = [p for p in network.parameters() if all(p is not h for h in head)]
    optimiser = torch.optim.AdamW([{"params": body}, {"params": head}], weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, [1e-4, 1e-3], epochs * -(-len(train) // BATCH),
                                                   pct_start=0.1)
    best, kept = float("inf"), None
    for epoch in range(epochs):
        network.train()
        for part in torch.randperm(len(train)).split(BATCH):
            x = torch.stack([varied(train[i]) for i in part]).to(memory_format=torch.channels_last)
            with torch.autocast("cpu", torch.bfloat16):
                outputs = network(x)
            optimiser.zero_grad()
            torch.nn.functional.cross_entropy(outputs.float(), y[part]).backward()
            optimiser.step()
            schedule.step()
        loss, right = validated(network.eval(), [plain(image) for image in held], truth)
        print(json.dumps({"seed": seed, "epoch": epoch + 1, "loss": loss, "validation": right}), flush=True)
        if loss < best:
            best, kept = loss, copy.deepcopy(network.state_dict())
    network.load_state_dict(kept)
    network.to(memory_format=torch.contiguous_format)
    torch.onnx.export(network, (torch.zeros(2, 3, SIZE, SIZE),), str(path), dynamo=False, opset_version=17,
                      input_names=["x"], output_names=["y"], dynamic_axes={"x": {0: "n"}, "y": {0: "n"}})


def validated(network: Any, pictures: list[Any], truth: Any) -> tuple[float, float]:
    import torch

    with torch.no_grad():
        outputs = torch.cat([network(torch.stack(pictures[i : i + BATCH])) for i in range(0, len(pictures), BATCH)])
    loss, right = torch.nn.functional.cross_entropy(outputs, truth), (outputs.argmax(1) == truth).float().mean()
    return float(loss), float(right)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--minutes", type=float, default=2.0)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, required=True)
    said = parser.parse_args()
    said.out.mkdir(parents=True)
    runtime.prepare()
    data, found = outdo.read(said.folder), []
    for seed in range(said.seeds):
        run = outdo.improve(data, minutes=said.minutes, seed=seed, axes="accuracy", out=said.out / f"run-{seed}").folder
        path, start = said.out / f"plain-{seed}.onnx", time.process_time()
        fine_tuned(run, data, said.epochs, seed, path)
        print(f"plain fine-tuning took {time.process_time() - start:.0f} CPU seconds", flush=True)
        compared = outdo.compare(f"{path}?normalise=half&fit=crop&colour=rgb", run, data=said.folder,
                                 axes=",".join(SHOWN), out=said.out / f"compared-{seed}")
        print(f"\n── seed {seed}\n\n{compared}\n", flush=True)
        found.append({a["axis"]: list(a["values"].values()) for a in compared.content["axes"]})
    for axis in SHOWN:
        plain, ours = np.mean([one[axis] for one in found], axis=0)
        print(f"{axis}: plain {plain:.4f}, outdo {ours:.4f} (means of {said.seeds} seeds)")


if __name__ == "__main__":
    main()
