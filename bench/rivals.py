"""outdo against others' models on hymenoptera, each through `outdo compare`.

    python bench/rivals.py FOLDER --out /tmp/rivals

FOLDER holds train/ and val/. Made here, in a minute or two: a run (`--minutes 0.1`); the PyTorch tutorial's second
recipe (the network as a fixed feature extractor, its linear head trained with Adam, exported to ONNX); a copy of it
with noise in every sixth convolution's weights; a copy with its two classes exchanged; logistic regression on 24 x 24
pixels. The backbone of all networks is EfficientNet-Lite0 with its ImageNet weights. Prints each table; the pages are
in --out.
"""

from __future__ import annotations

import argparse
import io
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from torchvision import datasets, transforms

import outdo
from outdo.backbones import vision

NOISE = 0.25  # of each weight tensor's standard deviation


def tutorial(folder: Path, path: Path) -> None:
    torch.manual_seed(0)
    network, _, _ = vision.embedded()
    network.eval()
    head, network.classifier = torch.nn.Linear(network.classifier.in_features, 2), torch.nn.Identity()
    usual = transforms.Compose([transforms.Resize(256), transforms.CenterCrop(224), transforms.ToTensor(),
                                transforms.Normalize([0.5] * 3, [0.5] * 3)])
    loader = torch.utils.data.DataLoader(datasets.ImageFolder(folder / "train", usual), 32)
    with torch.no_grad():
        features, labels = (torch.cat(part) for part in zip(*((network(x), y) for x, y in loader), strict=True))
    optimiser = torch.optim.Adam(head.parameters(), 1e-3)
    for _ in range(200):
        optimiser.zero_grad()
        torch.nn.functional.cross_entropy(head(features), labels).backward()
        optimiser.step()
    network.classifier = head
    torch.onnx.export(network, (torch.zeros(2, 3, 224, 224),), str(path), dynamo=False, opset_version=17,
                      input_names=["x"], output_names=["y"], dynamic_axes={"x": {0: "n"}, "y": {0: "n"}})


def changed(path: Path, to: Path, change: Any) -> None:
    """A copy of the model, whose weights `change` (name, values) has seen."""
    import onnx
    from onnx import numpy_helper

    model = onnx.load(str(path))
    for i, tensor in enumerate(model.graph.initializer):
        tensor.CopyFrom(numpy_helper.from_array(change(i, numpy_helper.to_array(tensor)), tensor.name))
    onnx.save(model, str(to))


def noisy(rng: np.random.Generator) -> Any:
    seen = iter(range(10_000))

    def change(_: int, values: np.ndarray) -> np.ndarray:
        if values.ndim != 4 or next(seen) % 6:
            return values
        return (values + rng.normal(0, NOISE * values.std(), values.shape)).astype(np.float32)

    return change


def exchanged(_: int, values: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(values[::-1]) if len(values.shape) and len(values) == 2 else values


def pixels(inputs: Any) -> np.ndarray:
    small = [Image.open(io.BytesIO(inputs.read(i))).convert("RGB").resize((24, 24)) for i in range(len(inputs))]
    return np.stack([np.asarray(image).ravel() for image in small]) / 255


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    said = parser.parse_args()
    said.out.mkdir(parents=True)
    good, bad, swapped = (said.out / f"{name}.onnx" for name in ("tutorial", "noisy", "exchanged"))
    tutorial(said.folder, good)
    changed(good, bad, noisy(np.random.default_rng(0)))
    changed(good, swapped, exchanged)
    run = outdo.improve(said.folder, minutes=0.1, out=said.out / "run").folder
    data = outdo.read(said.folder)
    train = data.take(np.flatnonzero(data.split == "train"))
    classic = make_pipeline(FunctionTransformer(pixels), StandardScaler(), LogisticRegression(C=0.01, max_iter=500))
    classic.fit(train.inputs, train.labels)
    for name, pair in {"itself": (run, run), "tutorial": (good, run), "noisy": (good, bad), "exchanged": (run, swapped),
                       "scikit-learn": (classic, good)}.items():
        print(f"\n── {name}\n\n{outdo.compare(*pair, data=said.folder, out=said.out / name)}", flush=True)


if __name__ == "__main__":
    main()
