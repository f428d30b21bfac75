"""When to say "not sure": the confidence above which answers are right often enough.

Selective classification (El-Yaniv and Wiener 2010; Geifman and El-Yaniv 2017).
"""

from __future__ import annotations

from typing import Any

import numpy as np

LEVELS = (0.9, 0.95, 0.99)


def thresholds(probabilities: np.ndarray, codes: np.ndarray) -> list[dict[str, Any]]:
    """For each level the least confidence above which that share of the answers is right, and how many those are.

    1.0, which hardly any answer reaches, where no confidence is enough. An estimate, not a guarantee: with few
    examples the share on new data may well be lower; `low` is the lower end of its 95 % interval (Wilson).
    """
    confidence = probabilities.max(1)
    order = np.argsort(-confidence, kind="stable")
    right = np.cumsum((probabilities.argmax(1) == codes)[order])
    count = np.arange(1, len(codes) + 1)
    last = np.append(np.diff(confidence[order]) != 0, True)[: len(codes)]  # equal confidences stand or fall together
    found = []
    for level in LEVELS:
        fit = np.flatnonzero((right / count >= level) & last)
        n = int(count[fit[-1]]) if len(fit) else 0
        hits = int(right[n - 1]) if n else 0
        found.append({"precision": level, "threshold": float(confidence[order][n - 1]) if n else 1.0, "n": n,
                      "right": hits, "coverage": n / max(1, len(codes)), "low": wilson(hits, n)})
    return found


def wilson(hits: int, n: int, z: float = 1.96) -> float | None:
    """Lower end of the 95 % score interval of a share (Wilson 1927)."""
    if not n:
        return None
    share = hits / n
    return float((share + z * z / (2 * n) - z * np.sqrt(share * (1 - share) / n + z * z / (4 * n * n)))
                 / (1 + z * z / n))
