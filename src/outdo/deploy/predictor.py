"""Answers from a bundle, without torch: decode, hand to an engine, say how sure.

Images go through the decoder that training used, to the very pixels that training saw; texts through the same
tokenizer. The rest (scale, normalise, network, words, temperature) is in the graph.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from outdo.contracts import batches
from outdo.data import images, ngrams
from outdo.data.inputs import File
from outdo.deploy import engines
from outdo.deploy.bundle import Bundle
from outdo.errors import BundleError, DataError, MissingExtra

BATCH = 16  # inputs that a network is given at once: more gain nothing on a CPU and cost memory
AHEAD = 64  # inputs that are read before they are answered
DECODERS = 2
LONGEST_TEXT = 1_000_000  # characters


class BundlePredictor:
    """Satisfies what `outdo.load` promises, and what the server's batcher needs.

    `engine` is one of `engines.ENGINES`; "auto" is the fastest here, found by measuring for about a second the
    first time. Not for several threads at once, except `decode`.
    """

    def __init__(self, bundle: Bundle, engine: str = "auto", threads: int | None = None) -> None:
        about = bundle.about
        self.bundle, self.name, self.version, self.kind = bundle, about["name"], about["version"], about["kind"]
        self.classes: tuple[str, ...] = tuple(about["classes"])
        self.threshold: float | None = about.get("threshold")
        self.report = bundle.json("report.json") if "report.json" in bundle.names() else None
        self._reader = reader_of(bundle)
        self.choice = engines.fastest_choice(bundle, self._reader.example, threads) if engine == "auto" else \
            engines.plain_choice(bundle, engine, threads)
        self._engine = engines.start(bundle, self.choice, self._reader.example(1))

    def decode(self, data: bytes | str) -> np.ndarray:
        """One input as the network takes it: (H, W, 3) uint8 of the bundle's size and upright, or (L,) int32 token ids.

        Raises DataError for what cannot be read.
        """
        return self._reader.decode(data)

    def probabilities(self, items: Sequence[np.ndarray]) -> np.ndarray:
        """(N, C) float32. Images that `decode` did not give may have any size and are fitted as it would."""
        out = np.empty((len(items), len(self.classes)), np.float32)
        order = sorted(range(len(items)), key=lambda i: items[i].size)  # texts of one length together
        for part in batches(len(items), BATCH):
            chosen = order[part]
            out[chosen] = self._engine.run(self._reader.feed([items[i] for i in chosen]))
        return out

    def predict(self, inputs: Sequence[str | Path]) -> list[dict[str, Any]]:
        """{"input", "label", "probability", "probabilities", "sure"} for each path of an image, or each text.

        Raises DataError for the first that cannot be read.
        """
        given = [inputs] if isinstance(inputs, str | Path) else list(inputs)
        answers = list(self.stream(given))
        wrong = next((answer for answer in answers if "error" in answer), None)
        if wrong is not None:
            raise DataError(f"{wrong['input']} cannot be read: {wrong['error']}")
        return answers

    def stream(self, inputs: Sequence[str | Path]) -> Iterator[dict[str, Any]]:
        """As `predict`, one after the other, in order and in constant memory; {"input", "error"} for what cannot be
        read."""
        left = iter(inputs)
        with ThreadPoolExecutor(DECODERS) as pool:
            while part := list(islice(left, AHEAD)):
                items = list(pool.map(self._read, part))
                rows = iter(self.probabilities([item for item in items if isinstance(item, np.ndarray)]))
                for said, item in zip(part, items, strict=True):
                    answer = {"error": item} if isinstance(item, str) else self._answer(next(rows))
                    yield {"input": str(said), **answer}

    def _read(self, said: str | Path) -> np.ndarray | str:
        """The item, or why there is none."""
        try:
            return self.decode(File(str(said)).read() if self.kind == "image" else str(said))
        except DataError as error:
            return str(error)
        except OSError as error:
            return error.strerror or str(error)

    def _answer(self, row: np.ndarray) -> dict[str, Any]:
        best = int(row.argmax())
        return {"label": self.classes[best], "probability": float(row[best]),
                "probabilities": {name: float(p) for name, p in zip(self.classes, row, strict=True)},
                "sure": bool(row[best] >= (self.threshold or 0.0))}


# ── what goes in ─────────────────────────────────────────────────────────────────────────────────────────────────────


class ImageReader:
    def __init__(self, said: dict[str, Any]) -> None:
        self.size: tuple[int, int] = (int(said["height"]), int(said["width"]))
        self.fit: images.Fit = "crop" if said["fit"] == "crop" else "squash"
        if not all(1 <= side <= 4096 for side in self.size):
            raise BundleError("the bundle's images have no sensible size", found=f"{self.size}")

    def decode(self, data: bytes | str) -> np.ndarray:
        if isinstance(data, str):
            raise DataError("an image is expected, found a text")
        try:
            return images.decode(data, self.size, self.fit)
        except images.RefusedImage as refused:
            raise DataError(str(refused)) from None

    def feed(self, items: Sequence[np.ndarray]) -> engines.Feed:
        return {"pixels": np.stack([self._fitted(item) for item in items])}

    def _fitted(self, item: np.ndarray) -> np.ndarray:
        if item.shape == (*self.size, 3):
            return item
        with images.refusing():
            return images.fitted(images.Image.fromarray(item), self.size, self.fit)

    def example(self, count: int) -> engines.Feed:
        """Waves of colour: pixels that every machine makes alike, as smooth as photographs."""
        y, x = np.ogrid[: self.size[0], : self.size[1]]
        waves = [np.sin(x * (0.02 + 0.03 * i) + c) + np.cos(y * (0.05 - 0.004 * i) + 2 * c + i)
                 for i in range(count) for c in range(3)]
        pixels = np.rint(127.5 + 60 * np.stack(waves)).astype(np.uint8)
        return {"pixels": np.ascontiguousarray(pixels.reshape(count, 3, *self.size).transpose(0, 2, 3, 1))}


class TextReader:
    def __init__(self, said: dict[str, Any], tokenizer: bytes | None) -> None:
        self.longest, self.words = int(said["max_length"]), bool(said.get("words"))
        self.tokenise = _tokeniser(tokenizer)

    def decode(self, data: bytes | str) -> np.ndarray:
        try:
            text = data if isinstance(data, str) else data.decode("utf-8")
            text.encode("utf-8")
        except UnicodeError:
            raise DataError("not valid text", expected="UTF-8") from None
        if len(text) > LONGEST_TEXT:
            raise DataError(f"a text of {len(text):,} characters", expected=f"at most {LONGEST_TEXT:,}")
        ids = self.tokenise(text)
        return np.array(ids if len(ids) <= self.longest else [*ids[: self.longest - 1], ids[-1]], np.int32)

    def feed(self, items: Sequence[np.ndarray]) -> engines.Feed:
        tokens = np.full((len(items), max(1, *map(len, items))), -1, np.int64)
        for row, ids in zip(tokens, items, strict=True):
            row[: len(ids)] = ids
        if not self.words:
            return {"tokens": tokens}
        buckets, counts = ngrams.counted(tokens)
        return {"tokens": tokens, "buckets": buckets, "counts": counts}

    def example(self, count: int) -> engines.Feed:
        words = ("a card has not come and the money is gone what shall i do now please help me with it " * 2).split()
        return self.feed([self.decode(" ".join(words[i : 12 + 2 * i])) for i in range(count)])


def reader_of(bundle: Bundle) -> ImageReader | TextReader:
    said = bundle.about["input"]
    try:
        if bundle.about["kind"] == "image":
            return ImageReader(said)
        return TextReader(said, bundle.read("tokenizer.json") if "tokenizer.json" in bundle.names() else None)
    except (KeyError, TypeError, ValueError) as error:
        if isinstance(error, BundleError | MissingExtra):
            raise
        raise BundleError(f"{bundle.path}: the manifest does not say how inputs are read ({error!r})") from None


def _tokeniser(said: bytes | None):
    """text -> ids. Without a tokenizer of its own a bundle was made from the tests' stand-in."""
    if said is None:
        from outdo.backbones.tiny_text import tokenise

        return lambda text: tokenise([text])[0]
    try:
        from tokenizers import Tokenizer
    except ImportError:
        raise MissingExtra("a bundle for texts", "tokenizers", "serve") from None
    try:
        made = Tokenizer.from_buffer(said)
    except Exception as error:  # the library has one exception for all
        raise BundleError("the bundle's tokenizer cannot be read", found=str(error)[:120]) from None
    made.no_padding()
    made.no_truncation()
    return lambda text: made.encode(text).ids
