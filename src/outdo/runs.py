"""A run's folder: enough to reproduce it, to go on with it after a kill, and to refuse what only looks whole.

    run.json                 settings, state ("running" or "done"), seconds spent, how often the test was opened
    stages/NAME.json         each decision, written once: a resumed run reads it instead of deciding again
    splits.json log.jsonl checkpoint.safetensors
    model.json model-*.safetensors      the best so far
    held-out.safetensors     its outputs on validation, in the order of stages/splits.json, before it had seen it
    predictions.parquet report.json report.html        written at the end, in this order
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from outdo import __version__, runtime
from outdo.contracts import Progress
from outdo.errors import RunError
from outdo.storage import as_json, full_disk, plain, read_json, write_json

SCHEMA = 1
HELD_OUT = "held-out.safetensors"
FREE = ("minutes", "against", "margin", "axes", "read_with", "said")  # settings that may change when a run goes on


class Run:
    """One run's folder, opened by `Run.going` for writing or `Run.finished` for reading."""

    def __init__(self, folder: Path, state: dict[str, Any]) -> None:
        self.folder, self.state = folder, state
        self._start, self._before = time.monotonic(), float(state["spent"])
        self._cpu_start, self._cpu_before = runtime.cpu_seconds(), float(state.get("cpu_seconds", 0.0))

    @classmethod
    @contextlib.contextmanager
    def going(cls, folder: Path, settings: Mapping[str, Any], resume: bool) -> Iterator[Run]:
        """A new run, or with `resume` the one that is there; nobody else can write to it meanwhile.

        Raises RunError: taken, in use, finished, made with other settings, missing, not writable, disk full. A folder
        in which nothing was achieved yet is removed again when the block raises.
        """
        existed = folder.exists() and not untouched(folder)
        try:
            prepare(folder, resume)
            with locked(folder):
                run = cls._resumed(folder, settings) if existed else cls._new(folder, settings)
                try:
                    yield run
                except BaseException:
                    if existed or (folder / "model.json").exists():
                        run.save()
                    else:
                        shutil.rmtree(folder, ignore_errors=True)
                    raise
        except OSError as error:
            raise full_disk(error, folder) from error

    @classmethod
    def _new(cls, folder: Path, settings: Mapping[str, Any]) -> Run:
        run = cls(folder, {"schema": SCHEMA, "outdo": __version__, "state": "running", "settings": plain(settings),
                           "spent": 0.0, "test_opened": 0})
        run.save()
        return run

    @classmethod
    def _resumed(cls, folder: Path, settings: Mapping[str, Any]) -> Run:
        state = _read(folder)
        if state["state"] == "done":
            raise RunError(f"the run in {folder} is finished", fix=f"see it with: outdo report {folder}")
        wanted = plain(settings)
        differ = [k for k in wanted if k not in FREE and wanted[k] != state["settings"].get(k)]
        if differ:
            name = differ[0]
            then, now = apart(state["settings"].get(name), wanted[name])
            raise RunError(f"the run in {folder} was started with another {name.replace('_', ' ')}",
                           expected=f"{then}", found=f"{now}",
                           fix="repeat the command that started it and add --resume")
        return cls(folder, state)

    @classmethod
    def finished(cls, folder: Path) -> Run:
        """Raises RunError: no run there, not finished, or written by another version."""
        state = _read(folder)
        if state["state"] != "done":
            raise RunError(f"the run in {folder} has not finished", fix="go on with it by --resume")
        return cls(folder, state)

    # ── what a run remembers ─────────────────────────────────────────────────────────────────────────────────────────

    def once(self, name: str, make: Callable[[], Any]) -> Any:
        """The JSON value of a stage: made and written the first time, read back ever after."""
        path = self.folder / "stages" / f"{name}.json"
        if not path.exists():
            write_json(path, make())
        return read_json(path)

    def forget(self, name: str) -> None:
        """A stage is made again when it is asked for next."""
        (self.folder / "stages" / f"{name}.json").unlink()

    def knows(self, name: str) -> bool:
        return (self.folder / "stages" / f"{name}.json").exists()

    def log(self, event: Mapping[str, Any]) -> None:
        line = as_json({"at": round(self.spent(), 3), **event})
        with open(self.folder / "log.jsonl", "a", encoding="utf-8") as log:
            log.write(line + "\n")

    def spent(self) -> float:
        """Seconds, those before an interruption included."""
        return self._before + time.monotonic() - self._start

    def cpu_seconds(self) -> float:
        """Of all threads and finished child processes, those before an interruption included."""
        return self._cpu_before + runtime.cpu_seconds() - self._cpu_start

    def opened(self) -> None:
        """Count an opening of the test; on disk before anything is seen."""
        self.state["test_opened"] += 1
        self.save()

    def save(self) -> None:
        self.state |= {"spent": self.spent(), "cpu_seconds": self.cpu_seconds()}
        write_json(self.folder / "run.json", self.state)

    def finish(self) -> None:
        """From now on the run is whole."""
        for checkpoint in self.folder.rglob("checkpoint.safetensors"):
            checkpoint.unlink()
        self.state["state"] = "done"
        self.save()


class Log:
    """Says each decision once: to the run's log, to the report's ladder, and aloud."""

    def __init__(self, run: Run, progress: Progress | None) -> None:
        self.run, self.progress = run, progress
        self.ladder: list[dict[str, Any]] = []
        self.seconds: dict[str, float] = {}
        self._mark = run.spent()

    def __call__(self, rung: str, words: str, validation: float | None = None) -> None:
        now = self.run.spent()
        row = {"rung": rung, "words": words, "validation": validation, "seconds": now - self._mark}
        self._mark = now
        self.ladder.append(row)
        self.run.log({"event": "ladder", **row})
        if self.progress:
            scored = "" if validation is None else f" (validation {validation:.1%})"
            self.progress(f"{rung}: {words}{scored}", 1, 1)

    def stage(self, name: str, since: float) -> None:
        self.seconds[name] = self.seconds.get(name, 0.0) + self.run.spent() - since


def apart(then: Any, now: Any) -> tuple[Any, Any]:
    """Of two settings what they do not share."""
    if isinstance(then, dict) and isinstance(now, dict):
        found = {k: apart(then.get(k), now.get(k)) for k in {**then, **now} if then.get(k) != now.get(k)}
        return {k: one for k, (one, _) in found.items()}, {k: other for k, (_, other) in found.items()}
    if isinstance(then, list) and isinstance(now, list):
        return [one for one in then if one not in now], [one for one in now if one not in then]
    return then, now


def said_before(folder: Path) -> dict[str, Any]:
    """The settings of the run in that folder; none where there is no run."""
    path = folder / "run.json"
    return dict(read_json(path)["settings"]) if path.is_file() else {}


def next_folder(source: str, resume: bool, parent: Path = Path("runs")) -> Path:
    """`runs/NAME-1`, `-2` ... named after the source: the first free one, or with `resume` the last one there is."""
    name = re.sub(r"[^\w.-]+", "-", Path(source).name.split(".")[0] or "data").strip("-") or "data"
    number = 1
    while (parent / f"{name}-{number}").exists():
        number += 1
    return parent / f"{name}-{max(1, number - 1) if resume else number}"


def prepare(folder: Path, resume: bool) -> None:
    """Make the folder of a new run. Raises RunError: something else is there, or there is nothing to resume."""
    taken = folder.exists() and not untouched(folder)
    if taken and not (folder / "run.json").exists():
        raise RunError(f"{folder} exists already, and is no run", fix="choose another --out")
    if resume and not folder.exists():
        raise RunError(f"there is no run to resume in {folder}", fix="leave out --resume to start one there")
    if taken and not resume:
        raise RunError(f"{folder} exists already", fix="choose another --out, or go on with it by --resume")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileNotFoundError:  # as under /proc
        raise RunError(f"{folder} cannot be made there", fix="choose another --out") from None


def untouched(folder: Path) -> bool:
    """An empty folder, or what a run leaves that was killed before it had written anything."""
    return folder.is_dir() and all(p.name == "lock" or p.name.endswith(".tmp") for p in folder.iterdir())


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Raises RunError while another process works in the folder. The lock goes with the process, however it ends."""
    handle = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RunError(f"another outdo is at work in {folder}",
                           fix="wait for it, or choose another --out") from None
        yield
    finally:
        os.close(handle)


def _read(folder: Path) -> dict[str, Any]:
    state = read_json(folder / "run.json")
    if not isinstance(state, dict) or state.get("schema") != SCHEMA:
        raise RunError(f"{folder} holds a run of another version of outdo", expected=f"schema {SCHEMA}",
                       fix="use the version that made it")
    return state
