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

from outdo.serving.app import Service, make_app
from outdo.serving.batcher import Batcher
from outdo.serving.models import Models
from outdo.serving.telemetry import Log


def answers(predictor: Any, inputs: Sequence[bytes | str]) -> np.ndarray:
    """(N, C) probabilities that `POST /predict` gives for a `models.Predictor`, one input after the other; NaN for what
    the server refuses."""
    models = Models([Path(predictor.name)], load=lambda path: predictor)
    service = Service(models, Batcher(), log=Log(io.StringIO()))
    app = make_app(service)

    async def ask_all() -> list[dict[str, Any]]:
        return [await _ask(app, data) for data in inputs]

    try:
        return np.array([_row(said, predictor.classes) for said in asyncio.run(ask_all())])
    finally:
        service.batcher.close()


async def _ask(app: ASGIApp, data: bytes | str) -> dict[str, Any]:
    body, media = (json.dumps({"text": data}).encode(), b"application/json") if isinstance(data, str) else \
        (data, b"application/octet-stream")
    said: list[bytes] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": body}

    async def send(message: Message) -> None:
        said.append(message.get("body", b""))

    await app({"type": "http", "method": "POST", "path": "/predict", "query_string": b"top=10000",
               "headers": [(b"content-type", media)]}, receive, send)
    found: dict[str, Any] = json.loads(b"".join(said))
    return found


def _row(said: dict[str, Any], classes: Sequence[str]) -> list[float]:
    if "error" in said:
        return [float("nan")] * len(classes)
    given = {one["label"]: one["probability"] for one in said["answers"][0]["classes"]}
    return [given[str(name)] for name in classes]
