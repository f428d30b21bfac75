"""The PyTorch transfer-learning tutorial's recipe, on the same backbone and data as outdo.

    python bench/tutorial.py FOLDER --epochs 25

FOLDER holds train/ and val/ (or test/). As in the tutorial: random resized crop and flip, SGD 0.001 with momentum 0.9,
batch 32, step decay by 0.1 every 7 epochs, best epoch kept by accuracy on val, which is also the test. The backbone is
EfficientNet-Lite0 with its ImageNet weights. Prints accuracy by epoch, and wall and CPU seconds of training alone.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import torch
from torchvision import datasets, transforms

from outdo.backbones import vision


def loaders(folder: Path, batch: int) -> tuple[torch.utils.data.DataLoader, torch.utils.data.DataLoader]:
    normalise = transforms.Normalize([0.5] * 3, [0.5] * 3)
    varied = transforms.Compose([transforms.RandomResizedCrop(224), transforms.RandomHorizontalFlip(),
                                 transforms.ToTensor(), normalise])
    plain = transforms.Compose([transforms.Resize(256), transforms.CenterCrop(224), transforms.ToTensor(), normalise])
    held = "val" if (folder / "val").is_dir() else "test"
    return (torch.utils.data.DataLoader(datasets.ImageFolder(folder / "train", varied), batch, shuffle=True,
                                        num_workers=2),
            torch.utils.data.DataLoader(datasets.ImageFolder(folder / held, plain), batch, num_workers=2))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--epochs", type=int, default=25)
    said = parser.parse_args()
    torch.manual_seed(0)
    train, held = loaders(said.folder, 32)
    network, _, _ = vision.embedded()
    network.classifier = torch.nn.Linear(network.classifier.in_features, len(train.dataset.classes))
    optimiser = torch.optim.SGD(network.parameters(), lr=0.001, momentum=0.9)
    schedule = torch.optim.lr_scheduler.StepLR(optimiser, step_size=7, gamma=0.1)
    start, cpu = time.perf_counter(), time.process_time()
    for epoch in range(said.epochs):
        network.train()
        for x, y in train:
            optimiser.zero_grad()
            torch.nn.functional.cross_entropy(network(x), y).backward()
            optimiser.step()
        schedule.step()
        network.eval()
        with torch.no_grad():
            right = sum(int((network(x).argmax(1) == y).sum()) for x, y in held)
        print(json.dumps({"epoch": epoch + 1, "accuracy": right / len(held.dataset),
                          "wall_seconds": time.perf_counter() - start, "cpu_seconds": time.process_time() - cpu}),
              flush=True)


if __name__ == "__main__":
    main()
