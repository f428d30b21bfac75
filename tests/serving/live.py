"""A server on a real socket: in a thread of this process, or in a process of its own that may be killed."""

import contextlib
import threading
import time

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
