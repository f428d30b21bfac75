"""The routes: /predict and /explain, the Open Inference Protocol, metrics, the page."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import itertools
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Scope

from outdo import __version__
from outdo.errors import DataError, nearest
from outdo.serving import occlusion, protocol
from outdo.serving.batcher import Batcher, Busy
from outdo.serving.forms import check, read_inputs
from outdo.serving.gate import Gate
from outdo.serving.keys import KeyFile
from outdo.serving.limits import Bodies, Limits, off_loop
from outdo.serving.models import Models, Predictor, Served
from outdo.serving.telemetry import Log, Metrics, ShadowLog

# path -> file in the package; the style is the report's, and what the page adds to it
PAGE = {"/": "serving/page/index.html", "/style.css": "evaluation/page/style.css"} | {
    f"/{name}": f"serving/page/{name}" for name in ("page.js", "words.js", "page.css", "icon.svg", "openapi.json")}
MEDIA = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml",
         ".json": "application/json"}
OPEN = frozenset({*PAGE, "/v2/health/live", "/v2/health/ready"})


@dataclass
class Service:
    """Everything that the routes share. `draining` is set when the server was told to end."""

    models: Models
    batcher: Batcher
    limits: Limits = field(default_factory=Limits)
    log: Log = field(default_factory=Log)
    metrics: Metrics = field(default_factory=Metrics)
    shadow_log: ShadowLog | None = None
    draining: bool = False

    def __post_init__(self) -> None:
        self.bodies = Bodies(self.limits)
        self.batcher.observe = self.metrics.ran
        self.batcher.check = lambda data: check(data, self.limits)
        self.metrics.pending.set_function(lambda: self.batcher.pending)
        self.background: set[asyncio.Task[None]] = set()  # asyncio itself forgets tasks that nobody holds

    @property
    def ready(self) -> bool:
        return not (self.draining or self.batcher.stuck)


def make_app(service: Service, *, keys: KeyFile | None = None, rate: float | None = None,
             hosts: frozenset[str] | None = None) -> Gate:
    """The ASGI app. `rate` is inputs a second for each key, or each address where there are no keys."""
    routes = Routes(service)
    app = Starlette(routes=routes.table(), lifespan=routes.lifespan, exception_handlers={
        HTTPException: refused, Busy: busy, DataError: unreadable, Exception: broken})
    return Gate(app, service.log, service.metrics, OPEN, route_of, keys, rate, hosts)


class Routes:
    """One method for each route."""

    def __init__(self, service: Service) -> None:
        self.service = service

    def table(self) -> list[Route]:
        model = "/v2/models/{model}"
        version = model + "/versions/{version}"
        get: list[tuple[str, Callable[[Request], Awaitable[Response]]]] = [
            ("/v2", self.about), ("/v2/health/live", self.live), ("/v2/health/ready", self.ready),
            ("/v2/models", self.list), (model, self.describe), (version, self.describe), (model + "/ready", self.ready),
            (version + "/ready", self.ready), ("/metrics", self.metrics), ("/report", self.report),
            *((path, self.page) for path in PAGE)]
        post: list[tuple[str, Callable[[Request], Awaitable[Response]]]] = [
            ("/predict", self.predict), ("/explain", self.explain), (model + "/infer", self.infer),
            (version + "/infer", self.infer)]
        return [*(Route(path, endpoint, methods=["GET"]) for path, endpoint in get),
                *(Route(path, endpoint, methods=["POST"]) for path, endpoint in post)]

    @contextlib.asynccontextmanager
    async def lifespan(self, app: Starlette) -> AsyncIterator[None]:
        yield
        for task in self.service.background:
            task.cancel()
        await asyncio.to_thread(self.service.batcher.close)

    # ── answers ──────────────────────────────────────────────────────────────────────────────────────────────────────

    async def predict(self, request: Request) -> Response:
        """An image as it is, a form with files, or JSON with texts; answered in plain JSON."""
        begin = time.monotonic()
        only(request, "model", "version", "top")
        top = whole(request.query_params.get("top", "5"), 1, 10_000, "top")
        served = self.served(request)
        async with self.body(request) as body:
            inputs = await read_inputs(body, request.headers, served.champion.kind, self.service.limits)
            model, probabilities = await self.answer(request, served, inputs)
        values = protocol.values_of(probabilities, model.classes, model.threshold)
        return JSONResponse({
            "id": request.scope["note"]["id"], "model": model.name, "version": model.version,
            "answers": [one_answer(row, sure, model.classes, top)
                        for row, sure in zip(probabilities, values["sure"], strict=True)],
            "ms": round(1000 * (time.monotonic() - begin), 2)})

    async def infer(self, request: Request) -> Response:
        """The Open Inference Protocol."""
        served = self.served(request)
        async with self.body(request) as body:
            asked = await off_loop(len(body), protocol.read_request, body, request.headers.get(protocol.LENGTH),
                                   served.champion.kind, self.service.limits)
            model, probabilities = await self.answer(request, served, asked.inputs, asked.pixels)
        values = protocol.values_of(probabilities, model.classes, model.threshold)
        answer, length = protocol.write_answer(asked, model.name, model.version, values)
        if length is None:
            return Response(answer, media_type="application/json")
        return Response(answer, media_type="application/octet-stream", headers={protocol.LENGTH: str(length)})

    async def explain(self, request: Request) -> Response:
        """Where in one image the answer comes from."""
        only(request, "model", "version")
        model = self.served(request).champion
        if model.kind != "image":
            raise HTTPException(400, f"'{model.name}' answers texts; only images have a heat map")
        batcher = self.service.batcher
        async with self.body(request) as body:
            data = one_image(await read_inputs(body, request.headers, "image", self.service.limits))
            image = await batcher.aside(whole_image, data, self.service.limits)
            answer = (await batcher.answer(model, [data]))[0]  # as /predict gives it
        best = int(answer.argmax())
        before = (await batcher.run(model, [image]))[0, best]
        shape = occlusion.grid(image)
        note_items(request, 2 + math.prod(shape))
        after = []
        copies = occlusion.covered(image)
        while part := [*itertools.islice(copies, batcher.most // 2 or 1)]:  # others get their turn in between
            after.append(await batcher.run(model, part))
        lost = occlusion.heat(float(before), np.concatenate(after)[:, best], shape)
        return JSONResponse({"model": model.name, "version": model.version, "label": str(model.classes[best]),
                             "probability": float(answer[best]), "heat": lost.astype(float).round(4).tolist()})

    @contextlib.asynccontextmanager
    async def body(self, request: Request) -> AsyncIterator[bytes]:
        """The request's body; where nothing more is let in, it is not kept. Raises Busy, or HTTPException."""
        if self.service.batcher.full():
            await self.service.bodies.skip(request)
            raise Busy(self.service.batcher.wait())
        async with self.service.bodies.read(request) as body:
            yield body

    async def answer(self, request: Request, served: Served, inputs: Sequence[bytes | str],
                     pixels: np.ndarray | None = None) -> tuple[Predictor, np.ndarray]:
        """Who answered, and (N, C) probabilities. The shadow is shown the same afterwards."""
        digest = hashlib.blake2b(digest_size=16)
        for data in inputs if pixels is None else [pixels.tobytes()]:
            digest.update(data.encode() if isinstance(data, str) else data)
        model = served.route(digest.digest())
        note_items(request, len(inputs) if pixels is None else len(pixels))
        request.scope["note"].update(model=model.name, version=model.version)
        batcher = self.service.batcher
        probabilities = await (batcher.answer(model, inputs) if pixels is None else batcher.run(model, list(pixels)))
        sure = probabilities.max(1) >= (model.threshold or 0.0)
        self.service.metrics.answered(model.name, model.version, sure)
        if served.shadow and served.challenger is not None and pixels is None:
            self.in_background(self.shadow(request.scope["note"]["id"], served, inputs, probabilities))
        return model, probabilities

    async def shadow(self, id: str, served: Served, inputs: Sequence[bytes | str], answered: np.ndarray) -> None:
        rival, log = served.challenger, self.service.shadow_log
        assert rival is not None
        try:
            watched = await self.service.batcher.shadow(rival, inputs)
        except Exception as error:  # whatever befalls a shadow, nobody waits for it
            self.service.metrics.shadowed.labels("skipped" if isinstance(error, Busy) else "failed").inc(len(inputs))
            return
        self.service.metrics.shadowed.labels("answered").inc(len(inputs))
        if log is None:
            return
        for data, old, new in zip(inputs, answered, watched, strict=True):
            raw = data.encode() if isinstance(data, str) else data
            log.write(id=id, digest=hashlib.sha256(raw).hexdigest(), model=rival.name,
                      champion=shadow_side(served.champion, old), challenger=shadow_side(rival, new))

    def in_background(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self.service.background.add(task)
        task.add_done_callback(self.service.background.discard)

    def served(self, request: Request) -> Served:
        """The model that a request names, in its path or its query; the first one where it names none."""
        by_name = self.service.models.by_name
        said = {**request.query_params, **request.path_params}
        name = said.get("model", next(iter(by_name)))
        if name not in by_name:
            raise HTTPException(404, f"no model named '{name[:100]}'; {nearest(name[:100], by_name)}")
        served, version = by_name[name], said.get("version")
        if not version:  # tritonclient and kserve leave it empty
            return served
        if version not in served.versions:
            raise HTTPException(404, f"'{name}' has no version '{version[:100]}'; "
                                     f"{nearest(version[:100], served.versions)}")
        return Served(served.versions[version])

    # ── what is there ────────────────────────────────────────────────────────────────────────────────────────────────

    async def about(self, request: Request) -> Response:
        return JSONResponse({"name": "outdo", "version": __version__, "extensions": ["binary_tensor_data"]})

    async def live(self, request: Request) -> Response:
        return JSONResponse({"live": True})

    async def ready(self, request: Request) -> Response:
        if request.path_params:
            self.served(request)
        ready = self.service.ready
        return JSONResponse({"ready": ready, **({"name": request.path_params["model"]} if request.path_params else {})},
                            200 if ready else 503)

    async def list(self, request: Request) -> Response:
        return JSONResponse({"models": [*self.service.models.by_name]})

    async def describe(self, request: Request) -> Response:
        served = self.served(request)
        return JSONResponse(protocol.metadata(served.champion, [*served.versions]))

    async def report(self, request: Request) -> Response:
        """The report that came with the bundle: how good the model was on its sealed test."""
        report = self.served(request).champion.report
        if report is None:
            raise HTTPException(404, "the bundle holds no report")
        return JSONResponse(report)

    async def metrics(self, request: Request) -> Response:
        return Response(self.service.metrics.text(), media_type="text/plain; version=0.0.4")

    async def page(self, request: Request) -> Response:
        file = resources.files("outdo") / PAGE[request.url.path]
        return Response(file.read_bytes(), media_type=MEDIA[Path(file.name).suffix],
                        headers={"Cache-Control": "no-cache"})


# ── small things ─────────────────────────────────────────────────────────────────────────────────────────────────────


def one_answer(probabilities: np.ndarray, sure: bool, classes: Sequence[str], top: int) -> dict[str, Any]:
    order = np.argsort(-probabilities, kind="stable")[:top]
    listed = [{"label": str(classes[i]), "probability": float(probabilities[i])} for i in order]
    return {**listed[0], "sure": bool(sure), "classes": listed}


def shadow_side(model: Predictor, probabilities: np.ndarray) -> dict[str, Any]:
    best = int(probabilities.argmax())
    return {"version": model.version, "label": str(model.classes[best]), "probability": float(probabilities[best]),
            "probabilities": [round(float(p), 6) for p in probabilities]}


def one_image(inputs: Sequence[Any]) -> bytes:
    if len(inputs) != 1:
        raise HTTPException(400, f"one image is explained at a time; found {len(inputs)}")
    return inputs[0]


def whole_image(data: bytes, limits: Limits) -> np.ndarray:
    check(data, limits)
    return occlusion.whole(data)


def note_items(request: Request, count: int) -> None:
    request.scope["note"]["items"] = count


def only(request: Request, *names: str) -> None:
    """Raises HTTPException 400 for a parameter of the query that would change nothing."""
    for said in request.query_params:
        if said not in names:
            raise HTTPException(400, f"no parameter '{said[:100]}'; {nearest(said[:100], names)}")


def whole(said: str, low: int, high: int, name: str) -> int:
    if not (said.isascii() and said.isdecimal() and len(said) < 10 and low <= int(said) <= high):
        raise HTTPException(400, f"'{name}' is a whole number from {low} to {high}")
    return int(said)


def route_of(scope: Scope) -> str:
    """The route's pattern, not what a client wrote: metrics and logs stay few and clean."""
    route = scope.get("route")
    return getattr(route, "path", "none")


# ── errors ───────────────────────────────────────────────────────────────────────────────────────────────────────────


async def refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return JSONResponse({"error": error.detail}, error.status_code, headers=error.headers)


async def busy(request: Request, error: Exception) -> Response:
    assert isinstance(error, Busy)
    return JSONResponse({"error": str(error)}, 429, headers={"Retry-After": str(max(1, math.ceil(error.retry_after)))})


async def unreadable(request: Request, error: Exception) -> Response:
    return JSONResponse({"error": str(error)}, 422)


async def broken(request: Request, error: Exception) -> Response:
    return JSONResponse({"error": "an error of the server", "id": request.scope["note"]["id"]}, 500)
