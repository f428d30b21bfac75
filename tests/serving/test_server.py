"""Over real sockets: slow and endless requests, overload, draining, new bundles under load, kill -9."""

import collections
import contextlib
import http.client
import json
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time

import pytest
from live import Process, running
from standins import Length, picture, service

from outdo import cli
from outdo.errors import UserError
from outdo.serving.app import make_app
from outdo.serving.limits import Limits
from outdo.serving.server import Address, Server, check_address, check_free, configure, is_loopback

BODY = json.dumps({"text": "hello"})
HEADERS = {"Content-Type": "application/json"}


@pytest.fixture(scope="module")
def hasty():
    """A server that waits for nobody."""
    served = service(Length(), limits=Limits(body_seconds=0.4, header_seconds=0.4, header_bytes=2000, body_bytes=5000,
                                             connections=8))
    with running(make_app(served), served) as port:
        yield port


def ask(port, connection=None):
    """(status, version, whether the connection stays)"""
    connection = connection or http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    connection.request("POST", "/predict", BODY, HEADERS)
    answer = connection.getresponse()
    said = json.loads(answer.read())
    return answer.status, said.get("version"), not answer.will_close


class Load:
    """Clients that ask without end, each request with its outcome: a status, "refused" (not let in), or "lost"."""

    def __init__(self, port, clients, keep_alive=True):
        self.port, self.keep_alive, self.stop = port, keep_alive, threading.Event()
        self.outcomes, self.versions, self.seconds = collections.Counter(), [], []
        self.threads = [threading.Thread(target=self._run) for _ in range(clients)]
        for thread in self.threads:
            thread.start()

    def _run(self):
        connection = None
        while not self.stop.is_set():
            begin = time.monotonic()
            if connection is None:
                connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
                try:
                    connection.connect()
                except OSError:
                    self.outcomes["refused"] += 1
                    return
            try:
                status, version, stays = ask(self.port, connection)
            except (OSError, http.client.HTTPException):
                self.outcomes["lost"] += 1
                return
            self.outcomes[status] += 1
            if status == 200:
                self.versions.append(version)
                self.seconds.append(time.monotonic() - begin)
            if not (stays and self.keep_alive):
                connection.close()
                connection = None

    def end(self):
        self.stop.set()
        for thread in self.threads:
            thread.join(20)
        return self.outcomes


# ── slow and endless ─────────────────────────────────────────────────────────────────────────────────────────────────


def told(port, *parts, pause=0.0):
    """What a server says to bytes that come in parts, until it closes; and the seconds that it took."""
    begin = time.monotonic()
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        with contextlib.suppress(OSError):
            for part in parts:
                connection.sendall(part)
                time.sleep(pause)
        received = b""
        with contextlib.suppress(ConnectionError):
            while part := connection.recv(65536):
                received += part
    return received, time.monotonic() - begin


HEAD = b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"


def test_a_slow_body_is_ended(hasty):
    said, seconds = told(hasty, HEAD + b"Content-Length: 100\r\n\r\n", *[b"x"] * 20, pause=0.05)
    assert said.startswith(b"HTTP/1.1 408")
    assert seconds < 3


def test_a_slow_head_is_ended(hasty):
    said, seconds = told(hasty, *[b"GET / HTTP/1.1\r\nX: "], *[b"y"] * 12, pause=0.05)
    assert said == b""
    assert seconds < 3


def test_silence_is_ended(hasty):
    assert told(hasty)[1] < 3
    assert told(hasty, *[b"\r\n"] * 12, pause=0.05)[1] < 3


def test_silence_after_an_answer_is_ended(hasty):
    said, seconds = told(hasty, b"GET /v2 HTTP/1.1\r\nHost: x\r\n\r\n", *[b"\r\n"] * 12, pause=0.05)
    assert said.startswith(b"HTTP/1.1 200")
    assert seconds < 3


@pytest.mark.parametrize("endless", [b"X: " + b"y" * 400_000, b"X: y\r\n" * 60_000])
def test_an_endless_head_is_ended(hasty, endless):
    parts = [endless[i : i + 1000] for i in range(0, len(endless), 1000)]
    said, seconds = told(hasty, b"GET / HTTP/1.1\r\n", *parts)
    assert said == b"" or said.startswith(b"HTTP/1.1 400")
    assert seconds < 3


def test_an_endless_body_is_ended(hasty):
    chunk = b"400\r\n" + b"x" * 1024 + b"\r\n"
    said, _ = told(hasty, HEAD + b"Transfer-Encoding: chunked\r\n\r\n", *[chunk] * 2000)
    assert said == b"" or said.startswith(b"HTTP/1.1 413")


def test_two_lengths_are_no_request(hasty):
    for wrong in (b"Content-Length: 5\r\nContent-Length: 6\r\n", b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
                  b"Content-Length: -5\r\n", b"Content-Length: 1e3\r\n", b"X y\r\n", b"\xff\xfe: x\r\n"):
        said, _ = told(hasty, HEAD + wrong + b"\r\nhello")
        assert said == b"" or said.startswith(b"HTTP/1.1 4"), said


def test_crowds_at_the_door_do_not_lock_it(hasty):
    crowd = [socket.create_connection(("127.0.0.1", hasty)) for _ in range(20)]
    time.sleep(0.8)
    assert ask(hasty)[0] == 200
    for one in crowd:
        one.close()


# ── overload, and ending ─────────────────────────────────────────────────────────────────────────────────────────────


def test_overload_is_answered_with_200_or_429(tmp_path):
    """4 ms a text are 250 texts a second; 24 clients ask for more, and only 8 texts may wait."""
    with Process(tmp_path, batching={"queue": 8, "deadline": 1.0}) as server:
        load = Load(server.port, 24)
        time.sleep(2)
        outcomes = load.end()
        assert set(outcomes) == {200, 429}
        assert outcomes[200] > 100
        assert max(load.seconds) < 1.5
        assert ask(server.port)[0] == 200
        assert "outdo_pending_inputs 0.0" in metrics(server.port)


def test_bodies_that_nobody_can_answer_are_not_kept(tmp_path):
    """One text in work and one that waits fill a server; what else is sent is received, and let go at once."""
    model = Gated()
    served = service(model, queue=1, log=None)
    with running(make_app(served), served) as port:
        model.gate.clear()
        first = threading.Thread(target=ask, args=[port])
        first.start()
        while not served.batcher.pending:
            time.sleep(0.01)
        body = json.dumps({"text": "x" * 90_000}).encode()
        with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
            connection.sendall(HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body[:80_000])
            time.sleep(0.2)
            assert served.bodies.held < 1000, "but for the first one's"
            connection.sendall(body[80_000:])
            assert connection.recv(65536).startswith(b"HTTP/1.1 429")
            model.gate.set()
            first.join()
            connection.sendall(HEAD + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY.encode())
            assert connection.recv(65536).startswith(b"HTTP/1.1 200"), "the connection stays"


class Gated(Length):
    """Answers when it may."""

    def __init__(self):
        super().__init__()
        self.gate = threading.Event()
        self.gate.set()

    def probabilities(self, items):
        self.gate.wait(10)
        return super().probabilities(items)


def metrics(port):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("GET", "/metrics")
    return connection.getresponse().read().decode()


@pytest.mark.parametrize("keep_alive", [True, False])
def test_sigterm_loses_no_request(tmp_path, keep_alive):
    with Process(tmp_path) as server:
        load = Load(server.port, 8, keep_alive)
        time.sleep(0.5)
        server.send(signal.SIGTERM)
        assert server.process.wait(10) == 0
        outcomes = load.end()
        # a connection that the kernel took but the server had not yet is reset when the port closes: one a client
        assert outcomes["lost"] <= (0 if keep_alive else 8)
        assert outcomes["lost"] + outcomes["refused"] >= 8
        assert set(outcomes) <= {200, "lost", "refused"}
        assert outcomes[200] > 20


def test_a_request_that_was_under_way_at_sigterm_is_answered(tmp_path):
    """Connections on which nothing has been asked yet, and one that was kept: none is closed in a client's face."""
    with Process(tmp_path) as server:
        kept, fresh = (http.client.HTTPConnection("127.0.0.1", server.port, timeout=10) for _ in range(2))
        assert ask(server.port, kept) == (200, "1", True)
        fresh.connect()
        ask(server.port)  # the server has seen them all
        server.send(signal.SIGTERM)
        server.until("draining")
        time.sleep(0.25)
        for connection in (kept, fresh):
            assert ask(server.port, connection) == (200, "1", False)
        with pytest.raises(ConnectionRefusedError):
            ask(server.port)
        assert server.process.wait(10) == 0


def test_sighup_brings_a_new_bundle_without_losing_a_request(tmp_path):
    with Process(tmp_path) as server:
        load = Load(server.port, 4)
        for version in ("2", "broken", "3"):
            time.sleep(0.25)
            server.bundle.write_text(version)
            server.send(signal.SIGHUP)
            line = server.until("reload")
            assert line["level"] == ("error" if version == "broken" else "info")
        time.sleep(0.25)
        outcomes = load.end()
        assert set(outcomes) == {200}
        assert set(load.versions) == {"1", "2", "3"}
        assert load.versions[-1] == "3"


def test_kill_is_seen_as_lost_connections_and_a_restart_is_clean(tmp_path):
    with Process(tmp_path) as server:
        load = Load(server.port, 4)
        time.sleep(0.3)
        server.send(signal.SIGKILL)
        server.process.wait(10)
        assert set(load.end()) <= {200, "lost", "refused"}
        with Process(tmp_path, port=server.port) as again:
            assert ask(again.port)[:2] == (200, "1")


# ── where it listens ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_loopback_is_known():
    assert all(map(is_loopback, ("127.0.0.1", "127.8.8.8", "::1", "localhost")))
    assert not any(map(is_loopback, ("0.0.0.0", "::", "192.168.1.4", "example.org", "")))


def test_strangers_are_not_served_without_keys(tmp_path, capsys):
    bundle = tmp_path / "bundle"
    assert cli.main(["serve", str(bundle), "--host", "0.0.0.0"]) == 2
    assert "no keys are asked for" in capsys.readouterr().err
    check_address(Address("0.0.0.0"), None, without_keys=True)
    with pytest.raises(Exception, match="TLS needs"):
        check_address(Address(certificate=tmp_path / "c.pem"), None, False)
    with pytest.raises(Exception, match="no file"):
        check_address(Address(certificate=tmp_path / "c.pem", private_key=tmp_path / "k.pem"), None, False)


def test_a_port_that_is_none_or_taken_is_refused():
    for port in (-5, 99999):
        with pytest.raises(UserError, match=r"from 0 .* to 65535"):
            check_free(Address(port=port))
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(UserError, match=r"in use\. Choose another"):
        check_free(Address(port=taken.getsockname()[1]))
    check_free(Address(port=0))


def test_flags_out_of_range(capsys):
    for wrong in (["--share", "2"], ["--rate", "0"], ["--rate", "x"], ["--port", "x"]):
        assert cli.main(["serve", "bundle", *wrong]) == 2
    assert "from 0 to 1" in capsys.readouterr().err


@pytest.mark.skipif(shutil.which("openssl") is None, reason="there is no openssl to make a certificate")
def test_tls(tmp_path, monkeypatch):
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
                    "-days", "1", "-keyout", key, "-out", certificate, "-subj", "/CN=localhost",
                    "-addext", "subjectAltName=DNS:localhost"], check=True, capture_output=True)
    served = service(Length())
    address = Address(port=0, certificate=certificate, private_key=key)
    monkeypatch.setattr(Server, "capture_signals", lambda self: contextlib.nullcontext())
    server = Server(configure(make_app(served), served, address), served)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    trusting = ssl.create_default_context(cafile=certificate)
    try:
        connection = http.client.HTTPSConnection("localhost", port, context=trusting, timeout=10)
        assert ask(port, connection)[0] == 200
        old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        old.load_verify_locations(certificate)
        with pytest.warns(DeprecationWarning, match="TLSv1_1"):
            old.maximum_version = ssl.TLSVersion.TLSv1_1
        with pytest.raises(OSError, match=r"(?i)protocol|alert|version"):
            http.client.HTTPSConnection("localhost", port, context=old, timeout=10).request("GET", "/")
    finally:
        begin = time.monotonic()
        server.should_exit = True
        thread.join(10)
        assert time.monotonic() - begin < 5  # the client's idle connection does not hold the server


# ── real bundles, from the command line ──────────────────────────────────────────────────────────────────────────────


def test_the_command_serves_bundles_by_their_names(tmp_path):
    tiny = pytest.importorskip("tiny", reason="onnx is not installed")
    pytest.importorskip("onnxruntime")
    paths = [tiny.make_bundle(tmp_path, kind, name=f"tiny-{kind}", threshold=0.6) for kind in ("image", "text")]
    rival = tiny.make_bundle(tmp_path, "image", name="tiny-image", seed=5)
    shadow = tmp_path / "shadow.jsonl"
    code = "import sys; from outdo.cli import main; sys.exit(main(sys.argv[1:]))"
    process = subprocess.Popen([sys.executable, "-c", code, "serve", *paths, "--port", "0", "--challenger", rival,
                                "--shadow", shadow], stderr=subprocess.PIPE, text=True)
    try:
        port = json.loads(process.stderr.readline())["port"]
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        connection.request("POST", "/predict", picture(250), {"Content-Type": "image/png"})
        answer = json.loads(connection.getresponse().read())
        assert (answer["model"], answer["answers"][0]["label"]) == ("tiny-image", "dog")
        connection.request("POST", "/predict?model=tiny-text", BODY, HEADERS)
        assert json.loads(connection.getresponse().read())["model"] == "tiny-text"
        process.terminate()
        assert process.wait(20) == 0
        assert "torch" not in process.stderr.read()
        [line] = map(json.loads, shadow.read_text().splitlines())
        assert line["champion"]["version"] == answer["version"] != line["challenger"]["version"]
        assert line["challenger"]["label"] == "dog"
    finally:
        process.kill()
        process.wait()


def test_a_tampered_bundle_is_not_served(tmp_path, capsys):
    tiny = pytest.importorskip("tiny", reason="onnx is not installed")
    path = tiny.make_bundle(tmp_path)
    data = path.read_bytes()
    path.write_bytes(data.replace(b"Softmax", b"Sigmoid", 1))
    assert cli.main(["serve", str(path), "--port", "0"]) == 2
    assert "is damaged" in capsys.readouterr().err
