"""What a server says about itself: JSON lines on stderr, Prometheus metrics, and the log of the shadow.

Neither bodies, nor keys, nor query strings, nor anything that was in an image's EXIF is ever written.
"""

from __future__ import annotations

import json
import logging
import sys
import threading
import time
import traceback
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


class Log:
    """One JSON object a line: `log("reload", models=["pets"])`."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self._lock = threading.Lock()

    def __call__(self, event: str, level: str = "info", **fields: Any) -> None:
        line = json.dumps({"time": now(), "level": level, "event": event, **fields}, default=str)
        with self._lock:
            self._stream.write(line + "\n")
            self._stream.flush()

    def failure(self, event: str, error: BaseException, **fields: Any) -> None:
        """An error of ours: where it happened, but not its text, which may quote what a client sent."""
        where = [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in traceback.extract_tb(error.__traceback__)]
        self(event, "error", error=type(error).__name__, where=where[-8:], **fields)


class AsJson(logging.Handler):
    """Sends what a library logs (uvicorn) through `Log`."""

    def __init__(self, log: Log) -> None:
        super().__init__()
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info and record.exc_info[1] is not None:
            self._log.failure("server", record.exc_info[1])
        else:
            self._log("server", record.levelname.lower(), message=record.getMessage())


class Metrics:
    """Counters of one server, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self.requests = Counter("outdo_requests", "Requests answered", ["route", "status"], registry=registry)
        self.seconds = Histogram("outdo_request_seconds", "From the first byte of a request to the last of its answer",
                                 ["route"], buckets=SECONDS, registry=registry)
        self.answers = Counter("outdo_answers", "Inputs answered", ["model", "version", "sure"], registry=registry)
        self.shadowed = Counter("outdo_shadow", "Inputs shown to a shadow", ["outcome"], registry=registry)
        self.batch = Histogram("outdo_batch_inputs", "Inputs of a batch", buckets=(1, 2, 4, 8, 16, 32, 64),
                               registry=registry)
        self.model_seconds = Counter("outdo_model_seconds", "Seconds that models ran", registry=registry)
        self.pending = Gauge("outdo_pending_inputs", "Inputs admitted and not yet answered", registry=registry)

    def ran(self, items: int, seconds: float) -> None:
        self.batch.observe(items)
        self.model_seconds.inc(seconds)

    def answered(self, model: str, version: str, sure: Iterable[bool]) -> None:
        for one in sure:
            self.answers.labels(model, version, "yes" if one else "no").inc()

    def text(self) -> bytes:
        return generate_latest(self.registry)


class ShadowLog:
    """JSON Lines: what champion and challenger answered to the same input, which is known by its digest alone."""

    def __init__(self, path: Path) -> None:
        self._stream = open(path, "a", encoding="utf-8")  # noqa: SIM115 (for as long as the server runs)

    def write(self, **fields: Any) -> None:
        self._stream.write(json.dumps({"time": now(), **fields}) + "\n")
        self._stream.flush()

    def close(self) -> None:
        self._stream.close()


def now() -> str:
    return datetime.fromtimestamp(time.time(), UTC).isoformat(timespec="milliseconds")
