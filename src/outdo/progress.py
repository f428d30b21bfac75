"""Progress on a terminal, or in a log. Any `(what, done, total)` callable will do in its place."""

from __future__ import annotations

import contextlib
import shutil
import time
from typing import IO


class Bar:
    """On a terminal one line, redrawn with the time left, that stays when the stage is complete. Elsewhere a line for
    each complete stage, and twice a minute where a long one is. One thing done of one is a remark.
    """

    WIDTH = 24

    def __init__(self, stream: IO[str]) -> None:
        self.stream, self.terminal = stream, stream.isatty()
        self.every_seconds = 0.1 if self.terminal else 30.0
        self.what, self.done, self.total, self.began, self.drawn = "", 0, 0, 0.0, 0.0

    def __enter__(self) -> Bar:
        return self

    def __exit__(self, *_: object) -> None:
        self.leave(told=True)

    def __call__(self, what: str, done: int, total: int) -> None:
        now = time.monotonic()
        if done >= total and total <= 1 and what != self.what:
            self.leave()
            self.write(f"{what}\n")
            return
        if stage(what) != stage(self.what):
            self.leave()
            self.began, self.drawn = now, 0.0 if self.terminal else now
        self.what, self.done, self.total = what, done, total
        if now - self.drawn >= self.every_seconds:
            self.drawn = now
            line = self.line(now)
            self.write(f"\r{line[:shutil.get_terminal_size().columns - 1]}\x1b[K" if self.terminal else f"{line}\n")

    def line(self, now: float) -> str:
        spent, share = now - self.began, min(self.done / self.total, 1.0)
        bar = "━" * round(share * self.WIDTH)
        left = f"  {clock(spent / share - spent)} left" if share else ""
        return f"{self.what:<28.28} {bar:─<{self.WIDTH}} {self.done:,}/{self.total:,}{left}"

    def leave(self, told: bool = False) -> None:
        """End the stage; its last line is told if it is complete, or `told` says so."""
        if self.what and (told or self.done >= self.total):
            ended = f"{self.what:<28} {self.done:,} of {self.total:,} in {clock(time.monotonic() - self.began)}"
            self.write(f"\r{ended}\x1b[K\n" if self.terminal else f"{ended}\n")
        elif self.what and self.terminal:
            self.write("\r\x1b[K")
        self.what = ""

    def write(self, text: str) -> None:
        with contextlib.suppress(OSError):  # nobody reads it any more; that must not end a training
            self.stream.write(text)
            self.stream.flush()


def stage(what: str) -> str:
    """What stands before a comma; the rest may change on the way, as in `search, best 97.2 %`."""
    return what.partition(",")[0]


def clock(seconds: float) -> str:
    """75 -> "1:15", 3700 -> "1:01:40"."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
