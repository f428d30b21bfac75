"""A server on a real socket: in a thread of this process, or in a process of its own that may be killed."""

import contextlib
import json
import queue
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

from standins import Length

from outdo.errors import DataError
from outdo.serving.app import Service, make_app
from outdo.serving.batcher import Batcher
from outdo.serving.limits import Limits
from outdo.serving.models import Models
from outdo.serving.server import Address, Server, configure


class Live(Server):
    """As it is, but for signals, which only a main thread is sent."""

    @contextlib.contextmanager
    def capture_signals(self):
        yield


@contextlib.contextmanager
def running(app, service):
    """The server's port."""
    server = Live(configure(app, service, Address(port=0)), service)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.01)
    try:
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = True
        thread.join(20)
        assert not thread.is_alive(), "the server did not end"


# ── a process ────────────────────────────────────────────────────────────────────────────────────────────────────────


class Slow(Length):
    """Takes a while for every text, and longer where the text says so."""

    def probabilities(self, items):
        time.sleep(0.004 * len(items))
        return super().probabilities(items)


def load(path):
    version = path.read_text()
    if version == "broken":
        raise DataError(f"{path} is damaged")
    return Slow(version=version)


class Process:
    """`process.port`, `process.log` (lines so far); it is killed when the block ends."""

    def __init__(self, folder, port=0, batching=None, limits=None):
        self.bundle = folder / "bundle"
        if not self.bundle.exists():
            self.bundle.write_text("1")
        said = json.dumps([str(self.bundle), port, batching or {}, limits or {}])
        self.process = subprocess.Popen([sys.executable, __file__, said], stderr=subprocess.PIPE, text=True)
        self.log, self._arrived = [], queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()
        self.port = self.until("listening")["port"]

    def _read(self):
        for line in self.process.stderr:
            self.log.append(json.loads(line))
            self._arrived.put(self.log[-1])

    def until(self, event):
        """The next such line of the log."""
        while (line := self._arrived.get(timeout=20))["event"] != event:
            pass
        return line

    def send(self, number):
        self.process.send_signal(number)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait(10)


def main(said):
    bundle, port, batching, limits = json.loads(said)
    models = Models([Path(bundle)], load=load)
    service = Service(models, Batcher(**batching), Limits(**limits))
    app = make_app(service)
    Server(configure(app, service, Address(port=port)), service).run()


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    main(sys.argv[1])
