"""Stand-ins for the tests of evaluation: inputs, models that answer by rule, contestants with invented answers."""

import time

import numpy as np

from outdo.contracts import Contestant, Predictions, TestSet


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
