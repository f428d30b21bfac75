"""How much a stranger may ask for: bytes, seconds, pixels, depth, fields, requests a second."""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import re
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request


@dataclass(frozen=True)
class Limits:
    """The caps of one server; the defaults suit photographs on a small machine."""

    body_bytes: int = 16 << 20  # of one request
    held_bytes: int = 256 << 20  # of all requests that are being read or answered
    body_seconds: float = 20.0  # for a request's body to arrive
    header_seconds: float = 10.0  # for its head to arrive, from the first moment of a connection
    header_bytes: int = 32 << 10
    connections: int = 1024
    items: int = 64  # images or texts of one request
    pixels: int = 50_000_000  # of one image
    characters: int = 100_000  # of one text
    depth: int = 16  # of JSON
    fields: int = 64  # of a form


class Bodies:
    """Reads request bodies, and knows how many bytes of them are held at this moment."""

    def __init__(self, limits: Limits) -> None:
        self.limits, self.held = limits, 0

    @contextlib.asynccontextmanager
    async def read(self, request: Request) -> AsyncIterator[bytes]:
        """The whole body, counted as held until the block ends. Raises HTTPException 400, 408, 413, 415 or 429."""
        parts: list[bytes] = []
        mine = 0

        def keep(part: bytes) -> None:
            nonlocal mine
            mine += len(part)
            self.held += len(part)
            if self.held > self.limits.held_bytes:
                raise HTTPException(429, "the server is busy", {"Retry-After": "1", "Connection": "close"})
            parts.append(part)

        try:
            await self._receive(request, keep)
            body = b"".join(parts)
            parts.clear()
            yield body
        finally:
            self.held -= mine

    async def skip(self, request: Request) -> None:
        """Receive the body and let it go: many clients listen only when they have sent all of it. Raises as `read`."""
        await self._receive(request, lambda part: None)

    async def _receive(self, request: Request, take: Callable[[bytes], None]) -> None:
        if request.headers.get("content-encoding", "identity") != "identity":
            raise HTTPException(415, "compressed requests are not read: send it as it is")
        if _announced(request) > self.limits.body_bytes:
            raise self._too_large()
        received = 0
        try:
            async with asyncio.timeout(self.limits.body_seconds):
                async for part in request.stream():
                    received += len(part)
                    if received > self.limits.body_bytes:
                        raise self._too_large()
                    take(part)
        except TimeoutError:
            raise HTTPException(408, f"the body did not arrive within {self.limits.body_seconds:g} seconds",
                                {"Connection": "close"}) from None
        except ClientDisconnect:
            raise HTTPException(400, "the client went away") from None

    def _too_large(self) -> HTTPException:
        return HTTPException(413, f"a request may have {self.limits.body_bytes} bytes", {"Connection": "close"})


def _announced(request: Request) -> int:
    said = request.headers.get("content-length", "0")
    return int(said) if said.isdecimal() and len(said) < 20 else 0


# ── JSON ─────────────────────────────────────────────────────────────────────────────────────────────────────────────

LONG = 64 << 10  # bytes of JSON that take more than a millisecond or so

# A string, closed or not: possessive, so that hostile quotes cost linear time
_STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+(?:"|\\?\Z)', re.DOTALL)


def parse_json(body: bytes, depth: int) -> Any:
    """The JSON value of a body of at most `depth` brackets inside each other. Raises HTTPException 400."""
    if json_depth(body) > depth:
        raise HTTPException(400, f"JSON of more than {depth} levels")
    try:
        return json.loads(body, parse_constant=_no_such_number, parse_float=_finite)
    except (ValueError, RecursionError) as error:  # UnicodeDecodeError is a ValueError
        reason = " ".join(str(error).split())[:120]
        raise HTTPException(400, f"the body is not JSON ({reason})") from None


async def off_loop(size: int, function: Callable[..., Any], *args: Any) -> Any:
    """What takes long for `size` bytes is done in a thread: nobody else shall wait for it."""
    return await asyncio.to_thread(function, *args) if size > LONG else function(*args)


def json_depth(body: bytes) -> int:
    """How deep brackets nest, without parsing: a parser would recurse."""
    bare = np.frombuffer(_STRING.sub(b"", body), np.uint8)
    brackets = bare[np.isin(bare, np.frombuffer(b"[]{}", np.uint8))]
    steps = np.where(np.isin(brackets, np.frombuffer(b"[{", np.uint8)), 1, -1)
    return int(np.cumsum(steps).max(initial=0))


def _no_such_number(name: str) -> float:
    raise ValueError(f"{name} is no JSON number")


def _finite(said: str) -> float:
    value = float(said)
    if not math.isfinite(value):
        raise ValueError(f"{said[:20]} is too large a number")
    return value


# ── rates ────────────────────────────────────────────────────────────────────────────────────────────────────────────


class Rates:
    """Token buckets, one for each key or address: `rate` inputs a second, twice that at once.

    A request is let in while anything is left and pays for all of its inputs, if need be on credit: how many there are
    is known only after its body was read.
    """

    REMEMBERED = 10_000  # the longest unheard of are forgotten, which fills their bucket

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()  # who -> (tokens, when)

    def wait(self, who: str, rate: float) -> float:
        """Seconds until `who` is let in; 0 for now."""
        return max(0.0, (1 - self._tokens(who, rate)) / rate)

    def pay(self, who: str, rate: float, count: int) -> None:
        self._buckets[who] = (self._tokens(who, rate) - count, self._clock())
        self._buckets.move_to_end(who)
        if len(self._buckets) > self.REMEMBERED:
            self._buckets.popitem(last=False)

    def _tokens(self, who: str, rate: float) -> float:
        most = max(1.0, 2 * rate)
        tokens, when = self._buckets.get(who, (most, 0.0))
        return min(most, tokens + (self._clock() - when) * rate)
