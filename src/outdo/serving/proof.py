"""A bundle asked over HTTP, without a socket: whether a client is answered what the engine answers."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from starlette.types import ASGIApp, Message

from outdo.errors import BundleError
from outdo.serving.app import Service, make_app
from outdo.serving.batcher import Batcher
from outdo.serving.models import Models
from outdo.serving.telemetry import Log

REFUSED = (413, 422)  # a body, an image or a text that is larger than a server takes


def answers(predictor: Any, inputs: Sequence[bytes | str]) -> np.ndarray:
    """(N, C) probabilities that `POST /predict` gives for a `models.Predictor`, one input after the other; NaN for what
    the server refuses (413, 422). Raises BundleError for any other answer."""
    models = Models([Path(predictor.name)], load=lambda path: predictor)
    service = Service(models, Batcher(), log=Log(io.StringIO()))
    app = make_app(service)

    async def ask_all() -> list[tuple[int, dict[str, Any]]]:
        return [await _ask(app, data) for data in inputs]

    try:
        return np.array([_row(*said, predictor.classes) for said in asyncio.run(ask_all())])
    finally:
        service.batcher.close()


async def _ask(app: ASGIApp, data: bytes | str) -> tuple[int, dict[str, Any]]:
    """(status, the answer's JSON)."""
    body, media = (json.dumps({"text": data}).encode(), b"application/json") if isinstance(data, str) else \
        (data, b"application/octet-stream")
    said: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": body}

    async def send(message: Message) -> None:
        said.append(message)

    await app({"type": "http", "method": "POST", "path": "/predict", "query_string": b"top=10000",
               "headers": [(b"content-type", media)]}, receive, send)
    return said[0]["status"], json.loads(b"".join(message.get("body", b"") for message in said))


def _row(status: int, said: dict[str, Any], classes: Sequence[str]) -> list[float]:
    if status in REFUSED:
        return [float("nan")] * len(classes)
    if status != 200:
        raise BundleError(f"the server answers a validation example with {status}", found=str(said.get("error")))
    given = {one["label"]: one["probability"] for one in said["answers"][0]["classes"]}
    return [given[str(name)] for name in classes]
