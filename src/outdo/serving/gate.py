"""What every request passes: who is asking, how often, from which page; one line of log and the headers at the end."""

from __future__ import annotations

import math
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from outdo.serving.keys import KeyFile
from outdo.serving.limits import Rates
from outdo.serving.telemetry import Log, Metrics

# Nothing but our own files, and pictures that the page itself made of what was dropped on it
POLICY = ("default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
          "base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
    "Cache-Control": "no-store",
}


@dataclass
class Gate:
    """An ASGI app around the app.

    `open_paths` need no key; everything else does where `keys` is given. `hosts` are the names that a request may call
    the server by, None for any: a page elsewhere whose name was made to lead here (DNS rebinding) calls another.
    """

    app: ASGIApp
    log: Log
    metrics: Metrics
    open_paths: frozenset[str]
    route_of: Callable[[Scope], str]
    keys: KeyFile | None = None
    rate: float | None = None
    hosts: frozenset[str] | None = None
    rates: Rates = field(default_factory=Rates)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
        elif scope["type"] == "http":
            await self._request(scope, receive, send)

    async def _request(self, scope: Scope, receive: Receive, send: Send) -> None:
        begin = time.monotonic()
        note: dict[str, Any] = {"id": secrets.token_hex(8)}
        scope["note"] = note
        status = 0

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers["X-Request-Id"] = note["id"]
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        try:
            await (self._refusal(scope, note) or self.app)(scope, receive, sending)
        except Exception as error:  # the app has answered 500 before it raised
            self.log.failure("failure", error, id=note["id"])
            if not status:
                await JSONResponse({"error": "an error of the server", "id": note["id"]}, 500)(scope, receive, sending)
        finally:
            self._record(scope, note, status, time.monotonic() - begin)

    def _refusal(self, scope: Scope, note: dict[str, Any]) -> Response | None:
        headers = Headers(scope=scope)
        if self.hosts is not None and host_of(headers.get("host", "")) not in self.hosts:
            return refuse(421, "this server goes by another name")
        if scope["method"] == "POST" and headers.get("sec-fetch-site") in ("cross-site", "same-site"):
            return refuse(403, "pages of other sites may not ask this server")
        if scope["path"] in self.open_paths:
            return None
        who, rate = f"address {(scope.get('client') or ('unknown',))[0]}", self.rate
        if self.keys is not None:
            scheme, _, given = headers.get("authorization", "").partition(" ")
            key = self.keys.who(given.strip()) if scheme.lower() == "bearer" else None
            if key is None:
                return refuse(401, "a key is needed: Authorization: Bearer KEY", {"WWW-Authenticate": "Bearer"})
            note["key"], who, rate = key.name, f"key {key.id}", key.rate or rate
        return self._limited(who, rate, note)

    def _limited(self, who: str, rate: float | None, note: dict[str, Any]) -> Response | None:
        if rate is None:
            return None
        if wait := self.rates.wait(who, rate):
            return refuse(429, f"more than {rate:g} inputs a second", {"Retry-After": str(math.ceil(wait))})
        note["pay"] = lambda count: self.rates.pay(who, rate, count)
        return None

    def _record(self, scope: Scope, note: dict[str, Any], status: int, seconds: float) -> None:
        route = self.route_of(scope)
        if pay := note.pop("pay", None):
            pay(max(1, note.get("items", 1)))
        self.metrics.requests.labels(route, str(status)).inc()
        self.metrics.seconds.labels(route).observe(seconds)
        self.log("request", method=scope["method"], route=route, status=status, ms=round(1000 * seconds, 2),
                 client=(scope.get("client") or (None,))[0], **note)


def host_of(header: str) -> str:
    """The name in a Host header, without its port: `[::1]:8000` is `::1`."""
    name = header.rpartition(":")[0] if header.rpartition(":")[2].isdecimal() else header
    return name.strip("[]").lower()


def refuse(status: int, problem: str, headers: dict[str, str] | None = None) -> Response:
    """The body is not read: the connection ends with the answer."""
    return JSONResponse({"error": problem}, status, headers={"Connection": "close", **(headers or {})})
