"""One peer's quick start on one dataset: accuracy on the test by CPU seconds, from the weights that outdo starts from.

    python bench/peers.py PEER DATA [--seed 0] [--limit 720] >> peers.jsonl

PEER is tutorial or tutorial-frozen (the PyTorch transfer-learning tutorial's two scenarios, 25 epochs), fastai
(`fine_tune`), trainer (transformers' Trainer, for images and for texts), sentence-transformers (`encode`, and
scikit-learn's logistic regression), setfit, outdo, or outdo-probe (`--epochs 0`). DATA is a folder with train/ and val/
or test/ full of folders of photos; a folder with train.csv and test.csv (text,category); or one with CIFAR-10 as
parquet, of which 5,000 and 2,000 images are taken, drawn once. A virtual environment of the peer's own needs:

    pip install outdo[text] fastai accelerate setfit sentence-transformers

Settings are those of each documented quick start; epochs are ended by `--limit` CPU seconds. The clock starts when
everything is imported, counts user and system time of all threads and ended children, and stands still while the test
is answered. Prints one line of JSON; `points` are [CPU seconds, accuracy], the last being the model that comes out.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

Predict = Callable[[list[str]], Sequence[str]]  # items to labels


@dataclass(frozen=True)
class Data:
    source: Path
    kind: str
    train: list[str]  # paths or texts
    train_labels: list[str]
    test: list[str]
    test_labels: list[str]

    @property
    def classes(self) -> list[str]:
        return sorted(set(self.train_labels))

    @property
    def codes(self) -> list[int]:
        where = {name: i for i, name in enumerate(self.classes)}
        return [where[label] for label in self.train_labels]


def accuracy(predicted: Sequence[str], truth: Sequence[str]) -> float:
    assert len(predicted) == len(truth)
    return sum(p == t for p, t in zip(predicted, truth, strict=True)) / len(truth)


class Clock:
    """CPU seconds of training; answering the test is not counted."""

    def __init__(self, data: Data, limit: float) -> None:
        self.data, self.limit = data, limit
        self.points: list[tuple[float, float]] = []
        self.wall = 0.0
        self.start()

    def start(self) -> None:
        self._cpu, self._wall = cpu_seconds(), time.perf_counter()

    def spent(self) -> float:
        return cpu_seconds() - self._cpu

    def over(self) -> bool:
        return self.spent() > self.limit

    def lap(self, predict: Predict, at: tuple[float, float] | None = None) -> None:
        """Answer the test. `at` are CPU and wall seconds, where it is later than the model was ready."""
        now = at or (self.spent(), time.perf_counter() - self._wall)
        before, wall = cpu_seconds(), time.perf_counter()
        self.wall = now[1]
        self.points.append((round(now[0], 2), accuracy(predict(self.data.test), self.data.test_labels)))
        self._cpu += cpu_seconds() - before
        self._wall += time.perf_counter() - wall

    def now(self) -> tuple[float, float]:
        return self.spent(), time.perf_counter() - self._wall


def cpu_seconds() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(u.ru_utime + u.ru_stime for u in used)


# ── data ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def read(source: Path, scratch: Path) -> Data:
    if list(source.glob("*train*.parquet")):
        source = unpacked(source, scratch)
    if (source / "train.csv").exists():
        import csv

        sides = []
        for name in ("train", "test"):
            with open(source / f"{name}.csv", encoding="utf-8") as file:
                sides += zip(*list(csv.reader(file))[1:], strict=True)
        return Data(source, "text", *map(list, sides))
    held = "val" if (source / "val").is_dir() else "test"
    sides = []
    for name in ("train", held):
        files = sorted(p for p in (source / name).rglob("*.*") if p.is_file())
        sides += [[str(p) for p in files], [p.parent.name for p in files]]
    return Data(source, "image", *sides)


def unpacked(source: Path, scratch: Path) -> Path:
    """5,000 and 2,000 images of CIFAR-10 as files, the same for everybody and every seed."""
    import pyarrow.parquet

    for name, count in (("train", 5000), ("test", 2000)):
        table = pyarrow.parquet.read_table(next(source.glob(f"*{name}*.parquet"))).to_pylist()
        for i in np.random.default_rng(0).permutation(len(table))[:count]:
            place = scratch / "cifar" / name / str(table[i]["label"]) / f"{i}.jpg"
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(table[i]["image"]["bytes"])
    return scratch / "cifar"


def pictures(paths: list[str], codes: list[int], varied: bool) -> Any:
    """A torch dataset with the tutorial's transforms."""
    import torch
    from PIL import Image
    from torchvision import transforms as t

    end = [t.ToTensor(), t.Normalize([0.5] * 3, [0.5] * 3)]
    change = t.Compose([t.RandomResizedCrop(224), t.RandomHorizontalFlip(), *end] if varied
                       else [t.Resize(256), t.CenterCrop(224), *end])

    class Pictures(torch.utils.data.Dataset):
        def __len__(self) -> int:
            return len(paths)

        def __getitem__(self, i: int) -> Any:
            return change(Image.open(paths[i]).convert("RGB")), codes[i]

    return Pictures()


def answers(network: Any, classes: list[str], paths: list[str]) -> list[str]:
    import torch

    network.eval()
    with torch.no_grad():
        found = [network(x).argmax(1) for x, _ in
                 torch.utils.data.DataLoader(pictures(paths, [0] * len(paths), False), 32)]
    network.train()
    return [classes[i] for i in torch.cat(found)]


def lite0(classes: int) -> Any:
    import torch

    from outdo.backbones import vision

    network, _, _ = vision.embedded()
    network.classifier = torch.nn.Linear(network.classifier.in_features, classes)
    return network


# ── peers ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def tutorial(data: Data, seed: int, clock: Clock, epochs: int = 25, frozen: bool = False) -> None:
    """SGD 0.001 with momentum 0.9, batches of 4, a tenth of the rate every 7 epochs; the last epoch's model."""
    import torch

    network = lite0(len(data.classes))
    if frozen:
        network.requires_grad_(False)
        network.classifier.requires_grad_(True)
    optimiser = torch.optim.SGD([p for p in network.parameters() if p.requires_grad], lr=0.001, momentum=0.9)
    schedule = torch.optim.lr_scheduler.StepLR(optimiser, step_size=7, gamma=0.1)
    loader = torch.utils.data.DataLoader(pictures(data.train, data.codes, True), 4, shuffle=True)
    predict = partial(answers, network, data.classes)
    network.train()
    clock.start()
    for _ in range(epochs):
        for x, y in loader:
            optimiser.zero_grad()
            torch.nn.functional.cross_entropy(network(x), y).backward()
            optimiser.step()
            if clock.over():
                return clock.lap(predict)
        schedule.step()
        clock.lap(predict)
    return None


def fastai(data: Data, seed: int, clock: Clock, epochs: int = 1) -> None:
    """`vision_learner(...).fine_tune(1)`: the head for an epoch, then everything for another."""
    from fastai.vision.all import ImageDataLoaders, Resize, set_seed, vision_learner

    set_seed(seed)
    where = dict(zip(data.train, data.train_labels, strict=True))
    loaders = ImageDataLoaders.from_path_func(data.source, [Path(p) for p in data.train], lambda p: where[str(p)],
                                              valid_pct=0.01, seed=seed, item_tfms=Resize(224), num_workers=0)
    learner = vision_learner(loaders, "tf_efficientnet_lite0", pretrained=False)
    weights = lite0(len(data.classes)).state_dict()
    left = learner.model[0].model.load_state_dict(weights, strict=False)
    assert not left.missing_keys, left
    learner.freeze()

    def predict(paths: list[str]) -> list[str]:
        with learner.no_bar():
            p, _ = learner.get_preds(dl=loaders.test_dl([Path(path) for path in paths]))
        return [loaders.vocab[i] for i in p.argmax(1)]

    clock.start()
    with learner.no_bar(), learner.no_logging():
        learner.fine_tune(epochs)
    clock.lap(predict)


def trainer(data: Data, seed: int, clock: Clock, epochs: int | None = None) -> None:
    """transformers' Trainer as its guides to image and to text classification use it."""
    from transformers import Trainer, TrainerCallback, TrainingArguments

    said: dict[str, Any] = {"output_dir": tempfile.mkdtemp(), "report_to": "none", "save_strategy": "no", "seed": seed,
                            "use_cpu": True, "disable_tqdm": True, "per_device_train_batch_size": 16,
                            "logging_strategy": "no"}
    if data.kind == "image":
        model, rows, predict, collate = pictured(data)
        said |= {"learning_rate": 5e-5, "gradient_accumulation_steps": 4, "num_train_epochs": epochs or 3,
                 "warmup_steps": 0.1, "remove_unused_columns": False}
    else:
        model, rows, predict, collate = worded(data)
        said |= {"learning_rate": 2e-5, "num_train_epochs": epochs or 2, "weight_decay": 0.01}

    class Laps(TrainerCallback):
        def on_epoch_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            clock.lap(predict)

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            control.should_training_stop = clock.over()

    one = Trainer(model=model, args=TrainingArguments(**said), train_dataset=rows, data_collator=collate,
                  callbacks=[Laps()])
    clock.start()
    one.train()
    if clock.over():
        clock.lap(predict)


def pictured(data: Data) -> tuple[Any, Any, Predict, Any]:
    import torch

    class Network(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = lite0(len(data.classes))

        def forward(self, pixel_values: Any, labels: Any = None) -> dict[str, Any]:
            logits = self.network(pixel_values)
            return {"loss": torch.nn.functional.cross_entropy(logits, labels), "logits": logits}

    def collate(rows: list[Any]) -> dict[str, Any]:
        return {"pixel_values": torch.stack([x for x, _ in rows]), "labels": torch.tensor([y for _, y in rows])}

    model = Network()
    return model, pictures(data.train, data.codes, True), partial(answers, model.network, data.classes), collate


def worded(data: Data) -> tuple[Any, Any, Predict, Any]:
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer, DataCollatorWithPadding

    folder, tokenizer = minilm(), AutoTokenizer.from_pretrained(minilm())
    model = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=len(data.classes))
    rows = [{"labels": code, **tokenizer(text, truncation=True)}
            for text, code in zip(data.train, data.codes, strict=True)]

    def predict(texts: list[str]) -> list[str]:
        model.eval()
        found: list[int] = []
        with torch.no_grad():
            for i in range(0, len(texts), 64):
                batch = tokenizer(texts[i : i + 64], truncation=True, padding=True, return_tensors="pt")
                found += model(**batch).logits.argmax(1).tolist()
        model.train()
        return [data.classes[i] for i in found]

    return model, rows, predict, DataCollatorWithPadding(tokenizer)


def minilm() -> str:
    from outdo.backbones import text

    return str(text.find(text.EMBEDDED))


def sentence_transformers(data: Data, seed: int, clock: Clock) -> None:
    from sentence_transformers import SentenceTransformer
    from sklearn.linear_model import LogisticRegression

    encoder = SentenceTransformer(minilm(), device="cpu")
    clock.start()
    model = LogisticRegression(max_iter=1000).fit(encoder.encode(data.train), data.train_labels)
    clock.lap(lambda texts: list(model.predict(encoder.encode(texts))))


def setfit(data: Data, seed: int, clock: Clock) -> None:
    """8 examples of each class, batches of 16, 4 epochs of pairs at most."""
    from datasets import Dataset
    from setfit import SetFitModel, Trainer, TrainingArguments, sample_dataset
    from transformers import TrainerCallback

    class Limit(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            control.should_training_stop = clock.over()

    few = sample_dataset(Dataset.from_dict({"text": data.train, "label": data.train_labels}), num_samples=8, seed=seed)
    model = SetFitModel.from_pretrained(minilm(), device="cpu")
    said = TrainingArguments(output_dir=tempfile.mkdtemp(), batch_size=16, num_epochs=4, seed=seed, report_to="none",
                             save_strategy="no")
    one = Trainer(model=model, args=said, train_dataset=few, callbacks=[Limit()])
    clock.start()
    one.train()
    clock.lap(lambda texts: list(model.predict(texts)))


def outdos(data: Data, seed: int, clock: Clock, minutes: float = 2.0, **choices: Any) -> None:
    """Reading, decoding and checks are counted, judging is not."""
    import outdo
    from outdo import runtime
    from outdo.data import inputs

    ready = []

    def progress(what: str, *_: Any) -> None:
        if what.startswith("choice: "):
            ready.append(clock.now())

    runtime.prepare()
    import timm  # noqa: F401

    with tempfile.TemporaryDirectory() as folder:
        os.environ["OUTDO_CACHE"] = f"{folder}/cache"
        clock.start()
        result = outdo.improve(data.source, minutes=minutes, seed=seed, out=f"{folder}/run", progress=progress,
                               axes="accuracy", **choices)
        kind = inputs.files if data.kind == "image" else inputs.texts
        clock.lap(lambda items: [result.model.classes[i] for i in result.model.predict(kind(items)).argmax(1)],
                  ready[0])


PEERS: dict[str, Callable[..., None]] = {
    "tutorial": tutorial, "tutorial-frozen": partial(tutorial, frozen=True), "fastai": fastai, "trainer": trainer,
    "sentence-transformers": sentence_transformers, "setfit": setfit, "outdo": outdos,
    "outdo-probe": partial(outdos, epochs=0)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("peer", choices=PEERS)
    parser.add_argument("data", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--limit", type=float, default=720.0, help="CPU seconds")
    parser.add_argument("--minutes", type=float, default=None, help="outdo's")
    parser.add_argument("--epochs", type=int, default=None, help="instead of the quick start's")
    said = parser.parse_args()
    if said.peer.startswith("outdo"):
        from outdo import runtime

        runtime.prepare()
    import torch

    torch.manual_seed(said.seed)
    with tempfile.TemporaryDirectory() as scratch:
        data = read(said.data, Path(scratch))
        clock = Clock(data, said.limit)
        more = {name: getattr(said, name) for name in ("minutes", "epochs") if getattr(said, name) is not None}
        PEERS[said.peer](data, said.seed, clock, **more)
    print(json.dumps({"peer": said.peer, "data": said.data.name, "seed": said.seed, "n": len(data.test),
                      "accuracy": clock.points[-1][1], "cpu_seconds": clock.points[-1][0],
                      "wall_seconds": round(clock.wall, 2), "process_cpu_seconds": round(cpu_seconds(), 1),
                      "peak_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
                      "threads": torch.get_num_threads(), "stopped": clock.points[-1][0] > said.limit, **more,
                      "points": clock.points}))


if __name__ == "__main__":
    main()
