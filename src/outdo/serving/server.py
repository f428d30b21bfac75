"""uvicorn, made safe for strangers: slow and endless heads, draining without a lost request, SIGHUP for new bundles."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import signal
import socket
import ssl
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from outdo.errors import UserError
from outdo.serving.app import Service, make_app
from outdo.serving.batcher import Batcher
from outdo.serving.keys import KeyFile
from outdo.serving.models import Models, load
from outdo.serving.telemetry import AsJson, Log, ShadowLog

LINGER_SECONDS = 0.5  # an idle connection is closed this long after SIGTERM: its next request may be under way
DRAIN_SECONDS = 30  # what is being answered at SIGTERM has so long to end


@dataclass(frozen=True)
class Address:
    """Where a server listens. `certificate` and `private_key` are PEM files."""

    host: str = "127.0.0.1"
    port: int = 8000
    certificate: Path | None = None
    private_key: Path | None = None

    @property
    def private(self) -> bool:
        return is_loopback(self.host)


def check_address(address: Address, keys: KeyFile | None, without_keys: bool) -> None:
    """Raises UserError where strangers could reach a server that asks nobody who he is, or TLS is given by half."""
    if not address.private and keys is None and not without_keys:
        raise UserError(f"{address.host} can be reached by others, and no keys are asked for",
                        fix="make keys with `outdo keys add NAME` and give --keys FILE, or say --without-keys")
    if (address.certificate is None) != (address.private_key is None):
        raise UserError("TLS needs a certificate and its private key", fix="give both --certificate and --private-key")
    for path in filter(None, (address.certificate, address.private_key)):
        if not path.is_file():
            raise UserError(f"no file {path}", expected="a PEM file")


def check_free(address: Address) -> None:
    """Raises UserError where nothing can listen there: a port out of range or taken, an address of another machine."""
    if not 0 <= address.port <= 65535:
        raise UserError(f"--port cannot be {address.port}", expected="a number from 0 (any free one) to 65535")
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    try:
        socket.create_server((address.host, address.port), family=family).close()
    except OSError as error:
        why = str(error.strerror).partition(" (while")[0]  # Python adds the address, which is said here already
        raise UserError(f"{address.host} port {address.port} cannot be listened on: {why}",
                        fix="choose another --port, or another --host") from None


def is_loopback(host: str) -> bool:
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost"


def serve(bundles: Sequence[Path], address: Address, *, keys: KeyFile | None = None, without_keys: bool = False,
          rate: float | None = None, challenger: Path | None = None, share: float = 0.0, shadow: Path | None = None,
          trust: Path | None = None, deadline: float = 10.0, queue: int = 256) -> None:
    """Answer until SIGTERM or SIGINT, then finish what was begun. SIGHUP opens the bundles again.

    `challenger` answers a `share` of the requests for the bundle of its name, or, where `shadow` is a file, only
    watches, and what both answered is written there. `queue` inputs may wait, none for longer than `deadline` seconds.
    `trust` is the public key that must have signed every bundle. Raises UserError.
    """
    check_address(address, keys, without_keys)
    check_free(address)
    models = Models(bundles, challenger, share, shadow is not None, load=partial(load, trust=trust))
    service = Service(models, Batcher(queue=queue, deadline=deadline),
                      shadow_log=None if shadow is None else ShadowLog(shadow))
    hosts = frozenset({"localhost", "127.0.0.1", "::1", address.host.lower()}) if address.private else None
    config = configure(make_app(service, keys=keys, rate=rate, hosts=hosts), service, address)
    quiet_uvicorn(service.log)
    Server(config, service).run()
    service.log("ended")


def configure(app: Any, service: Service, address: Address) -> uvicorn.Config:
    """uvicorn with nothing trusted that a client says of itself (X-Forwarded-For), and no WebSockets."""
    return uvicorn.Config(
        app, host=address.host, port=address.port, http=type("Http", (Protocol,), {"service": service}), ws="none",
        log_config=None, access_log=False, server_header=False, proxy_headers=False,
        limit_concurrency=service.limits.connections, timeout_graceful_shutdown=DRAIN_SECONDS,
        ssl_certfile=address.certificate, ssl_keyfile=address.private_key,
        ssl_context_factory=_modern if address.certificate else None)


def _modern(config: uvicorn.Config, default: Any) -> ssl.SSLContext:
    context = default()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


class Server(uvicorn.Server):
    """uvicorn's server with our signals."""

    def __init__(self, config: uvicorn.Config, service: Service) -> None:
        super().__init__(config)
        self.service = service
        self._reloading: asyncio.Task[None] | None = None

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Handlers of the event loop, so that the command ends with exit code 0 and not by the signal."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._drain, number)
        loop.add_signal_handler(signal.SIGHUP, self._hang_up)
        yield

    def _drain(self, number: int) -> None:
        self.service.log("draining", signal=signal.Signals(number).name, pending=self.service.batcher.pending)
        self.service.draining = True
        self.handle_exit(number, None)

    def _hang_up(self) -> None:
        if self._reloading is None or self._reloading.done():
            self._reloading = asyncio.get_running_loop().create_task(self._reload())

    async def _reload(self) -> None:
        log = self.service.log
        try:
            await asyncio.to_thread(self.service.models.reload)
        except UserError as error:
            log("reload", "error", problem=str(error), kept=versions(self.service))
        except Exception as error:
            log.failure("reload", error, kept=versions(self.service))
        else:
            log("reload", models=versions(self.service))

    def _log_started_message(self, listeners: Any) -> None:
        port = listeners[0].getsockname()[1]
        host = f"[{self.config.host}]" if ":" in self.config.host else self.config.host
        self.service.log("listening", url=f"http{'s' * self.config.is_ssl}://{host}:{port}/", port=port,
                         models=versions(self.service))


def versions(service: Service) -> dict[str, list[str]]:
    return {name: [*served.versions] for name, served in service.models.by_name.items()}


class Protocol(HttpToolsProtocol):
    """One connection. uvicorn waits for a request's head for ever and keeps all of it; and at shutdown it closes
    connections on which a request may just be arriving."""

    service: Service  # set by `serve`, in a subclass of its own

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._leaving = self.service.draining
        self._head_timer: asyncio.TimerHandle | None = None
        self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._head_arrived()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._head_timer is None and self.cycle.response_complete:
            self._expect_head()
        super().data_received(data)
        if self._head_timer is not None:
            self._head_bytes += len(data)
            if self._head_bytes > self.service.limits.header_bytes and not self.transport.is_closing():
                self.send_400_response("The head of the request is too long.")

    def on_headers_complete(self) -> None:
        self._head_arrived()
        super().on_headers_complete()
        if self._leaving:
            self.cycle.keep_alive = False

    def shutdown(self) -> None:
        if self.cycle is None or self.cycle.response_complete:
            self._leaving = True
            self.loop.call_later(LINGER_SECONDS, self._leave)
        else:
            super().shutdown()

    def _leave(self) -> None:
        idle = self.cycle is None or self.cycle.response_complete
        if idle and self.transport.get_write_buffer_size() == 0:
            self.transport.abort()  # a polite end of TLS would wait for the other side
        else:
            super().shutdown()

    def _expect_head(self) -> None:
        self._head_bytes = 0
        self._head_timer = self.loop.call_later(self.service.limits.header_seconds, self.transport.abort)

    def _head_arrived(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None


def quiet_uvicorn(log: Log) -> None:
    """What uvicorn logs takes the one form of this server; its greetings are left out."""
    logger = logging.getLogger("uvicorn")
    logger.handlers, logger.propagate = [AsJson(log)], False
    logger.setLevel(logging.WARNING)
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
