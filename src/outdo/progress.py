"""Progress on a terminal, or in a log. Any `(what, done, total)` callable will do in its place."""

from __future__ import annotations

import contextlib
import shutil
import time
from typing import IO


class Bar:
    """On a terminal one line for each stage, redrawn with the time left; elsewhere a line when a stage ends.

    A long stage also says where it is twice a minute in a log. A call with `total` 0 is a remark, on its own line.
    """

    WIDTH = 24

    def __init__(self, stream: IO[str]) -> None:
        self.stream, self.terminal = stream, stream.isatty()
        self.every_seconds = 0.1 if self.terminal else 30.0
        self.what, self.done, self.total, self.began, self.drawn = "", 0, 0, 0.0, 0.0

    def __enter__(self) -> Bar:
        return self

    def __exit__(self, *_: object) -> None:
        self.end_stage()

    def __call__(self, what: str, done: int, total: int) -> None:
        if total == 0:
            self.end_stage()
            self.write(f"{what}\n")
            return
        now = time.monotonic()
        if what != self.what:
            self.end_stage()
            self.what, self.began, self.drawn = what, now, 0.0 if self.terminal else now
        self.done, self.total = done, total
        if now - self.drawn >= self.every_seconds:
            self.drawn = now
            line = self.line(now)
            self.write(f"\r{line[:shutil.get_terminal_size().columns - 1]}\x1b[K" if self.terminal else f"{line}\n")

    def line(self, now: float) -> str:
        spent, share = now - self.began, min(self.done / self.total, 1.0)
        bar = "━" * round(share * self.WIDTH)
        left = f"  {clock(spent / share - spent)} left" if share else ""
        return f"{self.what:<28.28} {bar:─<{self.WIDTH}} {self.done:,}/{self.total:,}{left}"

    def end_stage(self) -> None:
        if self.what:
            ended = f"{self.what:<28} {self.done:,} of {self.total:,} in {clock(time.monotonic() - self.began)}"
            self.write(f"\r{ended}\x1b[K\n" if self.terminal else f"{ended}\n")
            self.what = ""

    def write(self, text: str) -> None:
        with contextlib.suppress(OSError):  # nobody reads it any more; that must not end a training
            self.stream.write(text)
            self.stream.flush()


def clock(seconds: float) -> str:
    """75 -> "1:15", 3700 -> "1:01:40"."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
