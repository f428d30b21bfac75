"""Afterwards: a run once more from its stored plan, and whether weights, answers and figures agree.

Decisions that the clock took part in (precision, size, plan) are read from the run, so on the same machine the same
bits are expected; elsewhere, answers and figures within a stated tolerance. Everything is computed anew, in a cache of
its own; only the trials of a search are taken as they are, because how many it makes depends on the clock: its winner
is trained again. Times and memory are the machine's and are not compared. Rivals are not asked again.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from outdo.contracts import Progress
from outdo.errors import RunError
from outdo.improve import improve
from outdo.runs import Run, prepare
from outdo.storage import cache_folder, full_disk, plain, read_json, write_json

LABELS, FIGURES = 0.99, 0.02  # elsewhere: the share of answers that must agree, and how far figures may lie apart
TIMED = ("seconds", "per second", "bytes")


@dataclass(frozen=True)
class Reproduction:
    """`same` bits, or `agrees` within the tolerance; `lines` say what was found, for people."""

    folder: Path  # of the new run
    same_machine: bool
    weights: bool  # the same bits
    labels: float  # share of answers that agree, over all contestants
    largest: float  # difference between two probabilities
    figures: Mapping[str, tuple[float, float]]  # "axis of contestant" -> (then, now), those that differ
    compared: int
    curves: tuple[int, int]  # epochs trained, then and now
    searched: bool  # its recipe was found by a search, which was not repeated

    @property
    def same(self) -> bool:
        return self.weights and self.largest == 0 and not self.figures

    @property
    def agrees(self) -> bool:
        """The same bits on the same machine; elsewhere within LABELS and FIGURES."""
        near = all(abs(then - now) <= FIGURES * max(1.0, abs(then)) for then, now in self.figures.values())
        return self.same or (not self.same_machine and self.labels >= LABELS and near)

    def __str__(self) -> str:
        where = "this machine" if self.same_machine else "another machine or other versions"
        winner = "; the search was not repeated, its winner was trained again" * self.searched
        lines = [f"made again on {where}, in {self.folder}{winner}",
                 f"weights       {'the same, bit for bit' if self.weights else 'other bits'}",
                 f"predictions   {self._predictions()}",
                 f"measurements  {self._measurements()}"]
        lines += [f"  {name}: {then:.6g} then, {now:.6g} now" for name, (then, now) in list(self.figures.items())[:10]]
        if self.curves[0] != self.curves[1]:
            lines.append(f"the clock cut training short: {self.curves[0]} epochs then, {self.curves[1]} now")
        if self.same:
            return "\n".join([*lines, "reproduced: the same bits"])
        margin = f"{LABELS:.0%} of answers and figures within {FIGURES:g}"
        verdict = f"reproduced: within {margin}" if self.agrees else \
            f"not reproduced: {'the same bits' if self.same_machine else margin} were expected"
        return "\n".join([*lines, verdict])

    def _predictions(self) -> str:
        if self.largest == 0:
            return "the same, bit for bit"
        return f"{self.labels:.2%} of the answers agree, probabilities differ by up to {self.largest:.2g}"

    def _measurements(self) -> str:
        return f"{self.compared} compared, {len(self.figures) or 'none'} of them otherwise"

    def as_json(self) -> dict[str, Any]:
        return {"folder": str(self.folder), "same_machine": self.same_machine, "same": self.same, "agrees": self.agrees,
                "weights": self.weights, "labels": self.labels, "largest": self.largest, "compared": self.compared,
                "figures": {name: {"then": then, "now": now} for name, (then, now) in self.figures.items()}}


def reproduce(run: str | Path, *, out: str | Path | None = None, progress: Progress | None = None) -> Reproduction:
    """Make a finished run again, into `out` (by default beside it), and compare.

    Raises RunError (not finished, of another version, `out` taken), and DataError when its data are gone or changed.
    """
    from outdo.data.read import read as read_source

    first = Run.finished(Path(run))
    said = first.state["settings"]
    data = read_source(said["source"], **said.get("read_with", {}))
    folder = Path(out) if out is not None else beside(Path(run))
    planned(first, folder)
    try:
        with empty_cache():
            improve(data, task=said["task"], start_from=said["start_from"], minutes=said["minutes"], seed=said["seed"],
                    baselines=said["baselines"], seeds=said.get("seeds", 1), margin=said.get("margin"), out=folder,
                    resume=True, axes=said.get("axes", "default"), progress=progress, **said["recipe"],
                    **search_of(first))
    except BaseException:
        if not (folder / "model.json").exists():
            shutil.rmtree(folder, ignore_errors=True)
        raise
    return compared(Path(run), folder)


def beside(run: Path) -> Path:
    number = 1
    while (folder := run.with_name(f"{run.name}-again-{number}")).exists():
        number += 1
    return folder


@contextlib.contextmanager
def empty_cache() -> Iterator[None]:
    """Nothing that was computed before is read back, and the ledger of judged models stays as it is."""
    known, place = os.environ.get("OUTDO_CACHE"), cache_folder()
    place.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="again-", dir=place) as folder:
        os.environ["OUTDO_CACHE"] = folder
        try:
            yield
        finally:
            del os.environ["OUTDO_CACHE"]
            os.environ.update({} if known is None else {"OUTDO_CACHE": known})


def search_of(run: Run) -> dict[str, Any]:
    """What asks for the search that the run made, and for no more trials than it has; nothing where it made none."""
    from outdo.evaluation.report import Report
    from outdo.search.space import read

    said = run.state["settings"]
    if not said.get("search"):
        return {}
    sampler, also, space = (said["search"][name] for name in ("sampler", "also", "space"))
    usual = plain(read(said["recipe"], latency=also == "latency").as_json())
    ranges = {d["name"]: ",".join(d["options"]) if "options" in d else f"{d['low']}..{d['high']}"
              for d in space if d not in usual}
    return {"search": sampler, "also": also, "trials": Report.read(run.folder).content["search"]["trials"], **ranges}


def planned(first: Run, folder: Path) -> None:
    """A run that has taken all of `first`'s decisions and done nothing yet."""
    try:
        prepare(folder, resume=False)
        for part in ("stages", "search"):
            if (first.folder / part).exists():
                shutil.copytree(first.folder / part, folder / part)
        write_json(folder / "run.json", {**first.state, "state": "running", "spent": 0.0, "test_opened": 0})
    except OSError as error:
        raise full_disk(error, folder) from error


def compared(then: Path, now: Path) -> Reproduction:
    """What agrees between two finished runs of the same settings."""
    from outdo.evaluation import predictions, report

    was, new = (report.Report.read(folder).content for folder in (then, now))
    (test, answers), (other, again) = (predictions.read(folder) for folder in (then, now))
    if test.ids != other.ids:
        raise RunError(f"{now} has another test than {then}", fix="restore the data")
    pairs = [(a.predictions, b.predictions) for a in answers for b in again
             if (a.name, a.role) == (b.name, b.role)]
    labels = np.concatenate([a.labels == b.labels for a, b in pairs]) if pairs else np.zeros(1, bool)
    largest = max((float(np.abs(a.probabilities - b.probabilities).max()) for a, b in pairs if len(test)), default=1.0)
    figures = paired_figures(was, new)
    return Reproduction(
        now, was["machine"] == new["machine"],
        read_json(then / "model.json")["tensors"] == read_json(now / "model.json")["tensors"], float(labels.mean()),
        largest, {name: pair for name, pair in figures.items() if pair[0] != pair[1]}, len(figures),
        (len(was["curve"]), len(new["curve"])), "search" in was)


def paired_figures(was: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, tuple[float, float]]:
    """"axis of contestant" -> (then, now), where both have it and no clock is in it."""
    anew = {axis["axis"]: axis["values"] for axis in new["axes"]}
    return {f"{axis['title']} of {who}": (value, anew[axis["axis"]][who])
            for axis in was["axes"] if axis["unit"] not in TIMED
            for who, value in axis["values"].items()
            if value is not None and anew.get(axis["axis"], {}).get(who) is not None}
