"""How often a test was used, across runs, and what that does to a claim.

Within a run the test is opened once. Ten runs on one test, keeping the best, are ten looks at it, and the best of ten
looks better than it is. So every model that is judged leaves a line in a ledger, under the test's fingerprint: the
same examples and labels, wherever they lie. A model whose answers are the same bit for bit is the same model.

With k models fixed in advance a p-value has to be multiplied by k (Bonferroni), and the best of k equally good ones
exceeds its true accuracy by up to s * sqrt(2 ln k) on average, s the standard error (the maximum of k sub-Gaussian
figures). Both suppose that no model was built on what an earlier look showed; where one was, more is lost, in the
worst case of the order of sqrt(k / n) (Dwork et al. 2015, "The reusable holdout"; Blum and Hardt 2015, "The Ladder").
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import math
import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from outdo.contracts import Predictions, TestSet
from outdo.storage import as_json, cache_folder

FILE = "judged.jsonl"
MANY = 10  # models after which a test is said to wear out


def fingerprint(test: TestSet) -> str:
    """sha256 over contents and labels, whatever the files are called and in whatever order they come."""
    def content(i: int) -> bytes:
        value = test.inputs.read(i)
        return hashlib.sha256(value if isinstance(value, bytes) else value.encode("utf-8", "surrogatepass")).digest()

    lines = sorted(content(i) + test.classes[code].encode() for i, code in enumerate(test.codes))
    return hashlib.sha256(b"".join(hashlib.sha256(line).digest() for line in lines)).hexdigest()


def digest(answers: Predictions) -> str:
    return hashlib.sha256(answers.probabilities.astype("<f4").tobytes()).hexdigest()[:32]


def record(test: str, models: Iterable[Predictions], by: str, folder: Path | None = None) -> int:
    """Write down that these are about to be judged on the test of that fingerprint; how many different models, these
    included, have been judged on it as far as this machine knows. Raises OSError when nothing can be written."""
    path = (folder or cache_folder()) / FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)  # goes with the handle
        known = {line["model"] for line in _lines(path) if line["test"] == test}
        new = [model for model in dict.fromkeys(map(digest, models)) if model not in known]
        at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        said = "".join(as_json({"at": at, "test": test, "model": model, "by": by}) + "\n" for model in new)
        if said and not _ends_whole(path):
            said = "\n" + said  # a torn line costs itself and nothing else
        os.write(handle, said.encode())
        os.fsync(handle)
        return len(known) + len(new)
    finally:
        os.close(handle)


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            value = json.loads(line)
        except ValueError:
            continue
        if isinstance(value, dict) and {"test", "model"} <= set(value):
            yield value


def _ends_whole(path: Path) -> bool:
    content = path.read_bytes()[-1:]
    return content in (b"", b"\n")


# ── what it means ────────────────────────────────────────────────────────────────────────────────────────────────────


def optimism(accuracy: float, n: int, models: int) -> float:
    """By how much the best of so many equally good models is expected to look better than it is; at most."""
    return math.sqrt(accuracy * (1 - accuracy) / max(1, n) * 2 * math.log(max(1, models)))


def words(report: Mapping[str, Any]) -> str:
    """What earlier models judged on the same test do to this report's claim; nothing when there were none."""
    models = report["data"].get("test_judged") or 1
    if models < 2:
        return ""
    said = [f"{models} models have been judged on this test set."]
    found = _headline(report)
    if found is not None:
        value, comparison = found
        said.append(f"The best of {models} equally good ones would look up to "
                    f"{100 * optimism(value, comparison['n'], models):.1f} points better than it is.")
        said += _corrected(comparison, models)
    if models >= MANY:
        said.append("The test set is wearing out: hold out new examples for the next claim.")
    return " ".join(said)


def _headline(report: Mapping[str, Any]) -> tuple[float, Mapping[str, Any]] | None:
    """(accuracy of after, its comparison with before), where there is one."""
    names = {c["role"]: c["name"] for c in report["contestants"]}
    for axis in report["axes"]:
        for found in axis["comparisons"]:
            pair = (axis["axis"], found["of"], found["against"])
            if pair == ("accuracy", names.get("after"), names.get("before")) and found["n"]:
                return axis["values"][names["after"]], found
    return None


def _corrected(comparison: Mapping[str, Any], models: int) -> Sequence[str]:
    p = comparison["p"]
    if p is None or comparison["verdict"] not in ("better", "worse"):
        return []
    all_in = min(1.0, p * models)
    stands = "its verdict stands" if all_in < 0.05 else "its verdict would not stand"
    shown = "under 0.001" if all_in < 0.001 else f"{all_in:.2g}"
    return [f"Corrected for all of them, as if fixed in advance, p on accuracy is {shown}: {stands}."]
