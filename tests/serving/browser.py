"""Headless Chromium over the DevTools protocol: enough of it to drive a page and photograph it."""

import base64
import contextlib
import itertools
import json
import os
import shutil
import subprocess
import tempfile
import time
import urllib.request
from pathlib import Path

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


class Browser:
    """One tab. `js` gives an expression's value (promises are awaited); `until` waits for one to become true."""

    def __init__(self, socket):
        self._socket, self._ids, self.console = socket, itertools.count(1), []
        for domain in ("Page", "Runtime", "Log", "DOM"):
            self("".join((domain, ".enable")))

    def __call__(self, method, **parameters):
        number = next(self._ids)
        self._socket.send(json.dumps({"id": number, "method": method, "params": parameters}))
        while True:
            message = json.loads(self._socket.recv())
            if message.get("method") in ("Log.entryAdded", "Runtime.exceptionThrown"):
                self.console.append(json.dumps(message["params"]))
            if message.get("id") == number:
                assert "error" not in message, message
                return message["result"]

    def js(self, expression):
        said = self("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True, userGesture=True)
        assert "exceptionDetails" not in said, said
        return said["result"].get("value")

    def until(self, expression, seconds=15):
        end = time.monotonic() + seconds
        while not self.js(expression):
            assert time.monotonic() < end, f"{expression} did not come true: {self.js('document.body.innerText')}"
            time.sleep(0.03)

    def open(self, url, wide=1100, high=900, scale=1, dark=False, language="en-GB"):
        self("Emulation.setDeviceMetricsOverride", width=wide, height=high, deviceScaleFactor=scale, mobile=wide < 600)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self("Emulation.setEmulatedMedia", features=[scheme])
        agent = self.js("navigator.userAgent")
        self("Emulation.setUserAgentOverride", userAgent=agent, acceptLanguage=language)
        self("Page.navigate", url=url)
        self.until("document.readyState === 'complete' && !document.getElementById('desk').hidden")

    def choose(self, selector, *paths):
        """Files for an `<input type=file>`."""
        root = self("DOM.getDocument")["root"]["nodeId"]
        node = self("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self("DOM.setFileInputFiles", nodeId=node, files=[str(path) for path in paths])

    def press(self, key, code=None, text=None):
        more = {"text": text} if text else {}
        self("Input.dispatchKeyEvent", type="keyDown", key=key, code=code or key, **more)
        self("Input.dispatchKeyEvent", type="keyUp", key=key, code=code or key)

    def text(self, id):
        return self.js(f"document.getElementById({id!r}).innerText")

    def photograph(self, path):
        data = self("Page.captureScreenshot", captureBeyondViewport=True)["data"]
        Path(path).write_bytes(base64.b64decode(data))


@contextlib.contextmanager
def browser():
    import websocket

    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as home:
        process = subprocess.Popen(
            [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
             "--remote-debugging-port=0", "--remote-allow-origins=*", f"--user-data-dir={home}", "about:blank"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env={**os.environ, "HOME": home})
        try:
            socket = websocket.create_connection(_tab(Path(home) / "DevToolsActivePort"), timeout=30)
            yield Browser(socket)
            socket.close()
        finally:
            process.terminate()
            process.wait(10)


def _tab(file):
    end = time.monotonic() + 30
    while not (file.exists() and len(lines := file.read_text().splitlines()) == 2):
        assert time.monotonic() < end, "Chromium did not start"
        time.sleep(0.05)
    with urllib.request.urlopen(f"http://127.0.0.1:{lines[0]}/json") as answer:
        return next(tab["webSocketDebuggerUrl"] for tab in json.load(answer) if tab["type"] == "page")
