"""What happens to texts on their way: typing errors, slips on keys, a scanner's misreadings, other capitals, lost
words. In the spirit of Ma 2019 (nlpaug) and Moradi and Samwald 2021, "Evaluating the Robustness of Neural Language
Models to Input Perturbations".

A severity is the share of the words that are touched, at least one. Where words are not parted by blanks (Chinese,
Japanese, Korean), each character counts as one.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable

import numpy as np

SEVERITIES = (1, 2, 3, 4, 5)
SHARES = (0.1, 0.2, 0.3, 0.4, 0.5)
_APART = "\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af"
_PIECES = re.compile(rf"\s+|[{_APART}]|[^\s{_APART}]+")
_ROWS = ("qwertyuiop", "asdfghjkl", "zxcvbnm")
_MISREAD = {"m": "rn", "rn": "m", "w": "vv", "d": "cl", "cl": "d", "o": "0", "O": "0", "0": "O", "l": "1", "1": "l",
            "i": "l", "I": "l", "s": "5", "S": "5", "5": "S", "B": "8", "8": "B", "e": "c", "c": "e", "b": "6",
            "g": "9", "h": "b", "n": "ri", "u": "v", "t": "f", "Z": "2", "z": "2"}


def corrupt(text: str, name: str, severity: int, seed: int = 0) -> str:
    """The text with the damage `name` at a severity from 1 to 5; the random numbers depend on these and the text."""
    key = zlib.crc32(text.encode("utf-8", "surrogatepass"))
    rng = np.random.default_rng([seed, zlib.crc32(name.encode()), severity, key])
    pieces = _PIECES.findall(text)
    words = [i for i, piece in enumerate(pieces) if not piece.isspace()]
    if not words:
        return text
    touched = rng.permutation(words)[: max(1, round(SHARES[severity - 1] * len(words)))]
    for i in touched:
        pieces[i] = CORRUPTIONS[name](pieces[i], rng)
    return "".join(pieces) if "".join(pieces).strip() else text  # something has to be left to answer


def typos(word: str, rng: np.random.Generator) -> str:
    """Two letters swapped, one left out, or one doubled."""
    at = int(rng.integers(len(word)))
    kind = int(rng.integers(3))
    if kind == 0 and at + 1 < len(word):
        return word[:at] + word[at + 1] + word[at] + word[at + 2 :]
    return word[:at] + word[at + 1 :] if kind == 1 and len(word) > 1 else word[:at] + word[at] + word[at:]


def keyboard(word: str, rng: np.random.Generator) -> str:
    """A key beside the right one."""
    found = [(i, row, row.index(c)) for i, c in enumerate(word.lower()) for row in _ROWS if c in row]
    if not found or len(word) != len(word.lower()):
        return word
    i, row, place = found[int(rng.integers(len(found)))]
    beside = [row[p] for p in (place - 1, place + 1) if 0 <= p < len(row)]
    hit = beside[int(rng.integers(len(beside)))]
    return word[:i] + (hit.upper() if word[i].isupper() else hit) + word[i + 1 :]


def misreading(word: str, rng: np.random.Generator) -> str:
    """One or two letters taken for what looks like them."""
    found = [(i, k) for k in _MISREAD for i in range(len(word)) if word.startswith(k, i)]
    if not found:
        return word
    i, k = found[int(rng.integers(len(found)))]
    return word[:i] + _MISREAD[k] + word[i + len(k) :]


def casing(word: str, rng: np.random.Generator) -> str:
    """All capitals, none, or capitals and small letters exchanged."""
    changed = [other for other in (word.upper(), word.lower(), word.swapcase()) if other != word]
    return changed[int(rng.integers(len(changed)))] if changed else word


def lost(word: str, rng: np.random.Generator) -> str:
    return ""


CORRUPTIONS: dict[str, Callable[[str, np.random.Generator], str]] = {
    "typos": typos, "keyboard": keyboard, "ocr": misreading, "casing": casing, "dropped_words": lost,
}
STANDARD = CORRUPTIONS
