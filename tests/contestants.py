"""Stand-ins for the tests of evaluation: inputs, models that answer by rule, contestants with invented answers."""

import time

import numpy as np
from PIL import Image

from outdo.contracts import Answers, Audit, Contestant, Ground, Predictions, TestSet
from outdo.data.inputs import files
from pictures import saved


class Texts:
    """Inputs that are the texts themselves."""

    kind = "text"

    def __init__(self, texts):
        self.texts = list(texts)

    def __len__(self):
        return len(self.texts)

    def read(self, index):
        return self.texts[index]

    signature = read

    def take(self, indices):
        return Texts(self.texts[i] for i in indices)


class Model:
    """Answers every class alike, after `seconds` per call and `per_input` per input; `allocate` bytes while it does."""

    def __init__(self, classes=3, seconds=0.0, per_input=0.0, allocate=0, size=1000):
        self.classes, self.seconds, self.per_input = classes, seconds, per_input
        self.allocate, self.size, self.calls = allocate, size, []

    def predict(self, inputs):
        self.calls.append([inputs.read(i) for i in range(len(inputs))])
        time.sleep(self.seconds + self.per_input * len(inputs))
        working = [np.ones(1 << 16, np.uint8) for _ in range(self.allocate >> 16)]  # small blocks, from the heap
        del working
        return np.full((len(inputs), self.classes), 1 / self.classes)

    def size_bytes(self):
        return self.size

    def parameters(self):
        return self.size // 4


def opened(codes, classes=3):
    """A sealed test, opened: codes (N,)."""
    ids = tuple(f"photos/{i}.jpg" for i in range(len(codes)))
    return TestSet(ids, Texts(ids), np.asarray(codes, dtype=np.int64), tuple(f"class {c}" for c in range(classes)))


def guesses(rng, codes, classes=3, skill=2.0):
    """(N, C) probabilities that know the truth more or less well."""
    scores = rng.normal(size=(len(codes), classes))
    scores[np.arange(len(codes)), codes] += skill
    weights = np.exp(scores)
    return weights / weights.sum(1, keepdims=True)


def certain(labels, classes=3):
    """(N, C) probabilities that leave no doubt."""
    return np.eye(classes)[np.asarray(labels, dtype=np.int64)]


def contestant(name, probabilities, role="before", model=None):
    return Contestant(name, role, Predictions(np.asarray(probabilities)), model)


COLOURS = ("blue", "green", "red")


def squares(root, count, tried, brighter):
    """What rivals are met on: files of noise that is brighter in the colour of its class, the first `tried` of them for
    trying, the others as the test."""
    rng, paths = np.random.default_rng(0), []
    for i in range(count):
        pixels = rng.normal(90, 20, (16, 16, 3))
        pixels[:, :, 2 - i % 3] += brighter
        paths.append(root / COLOURS[i % 3] / f"{i}.png")
        paths[-1].parent.mkdir(exist_ok=True)
        paths[-1].write_bytes(saved(Image.fromarray(pixels.clip(0, 255).astype(np.uint8)), "PNG"))
    ids = tuple(f"{p.parent.name}/{p.name}" for p in paths)
    trial = TestSet(ids[:tried], files(paths[:tried]), np.arange(tried) % 3, COLOURS)
    return Ground("image", COLOURS, trial, ids[tried:], files(paths[tried:]))


# ── images that are asked about again ────────────────────────────────────────────────────────────────────────────────


class Linear:
    """Outputs: for each class the mean over pixels of weight * pixel, and a bias. Its robust accuracy is known."""

    def __init__(self, weight, bias):
        self.weight, self.bias = np.asarray(weight, np.float32), np.asarray(bias, np.float32)  # (C, 3), (C,)

    def predict_pixels(self, images, shared=None):
        import torch

        means = torch.from_numpy(images.mean((1, 2)) / 255)  # torch, so that its operations can be counted
        scores = (means @ torch.from_numpy(self.weight.T.astype(float))).numpy() + self.bias
        odds = np.exp(10 * (scores - scores.max(1, keepdims=True)))
        return odds / odds.sum(1, keepdims=True)

    def predict(self, inputs):
        from outdo.data.images import decode

        return self.predict_pixels(np.stack([decode(inputs.read(i), None) for i in range(len(inputs))]))

    def differentiable(self):
        import torch

        return lambda x: 10 * (x.mean((2, 3)) @ torch.from_numpy(self.weight).T + torch.from_numpy(self.bias))

    def size_bytes(self):
        return self.weight.nbytes

    def parameters(self):
        return self.weight.size


def colourful(codes, classes=3, seed=0):
    """A test of images whose class is their strongest colour, as far as noise lets it, with an audit; and two
    contestants who judge by colour, the second better."""
    from outdo.data.inputs import pictures

    codes, rng = np.asarray(codes, np.int64), np.random.default_rng(seed)

    def images(truth):
        level = rng.normal(110, 12, (len(truth), 1, 1, 3))
        level[np.arange(len(truth)), ..., truth % 3] += 25
        return np.clip(level + rng.normal(0, 15, (len(truth), 32, 32, 3)), 0, 255).astype(np.uint8)

    shown, seen_codes = images(codes), np.arange(max(3, len(codes))) % classes
    seen = images(seen_codes)
    audit = Audit(seen.mean((1, 2)).astype(np.float32), shown.mean((1, 2)).astype(np.float32).reshape(-1, 3))
    ids = tuple(f"photos/{i}.png" for i in range(len(codes)))
    test = TestSet(ids, pictures(shown), codes, tuple(f"class {c}" for c in range(classes)), audit=audit)
    weight = np.eye(classes, 3)
    models = {"linear probe": Linear(weight + 0.3 * rng.normal(size=weight.shape), np.zeros(classes)),
              "fine-tuned": Linear(weight, np.zeros(classes))}
    sides = [Contestant(name, role, Predictions(model.predict_pixels(shown).reshape(-1, classes)), model,
                        trained_on=Answers(Predictions(model.predict_pixels(seen)), seen_codes))
             for (name, model), role in zip(models.items(), ("before", "after"), strict=True)]
    return sides, test
