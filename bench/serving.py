"""Photographs over HTTP: `outdo serve` beside plain FastAPI, LitServe and BentoML with the same ONNX file.

    python -m venv peers
    peers/bin/pip install fastapi uvicorn[standard] onnxruntime pillow litserve bentoml
    python bench/serving.py BUNDLE PHOTOS --peers peers/bin/python

50 clients on kept connections send JPEG files as fast as they are answered. The servers take turns, each turn starts a
server, warms it up and loads it for some seconds; medians over the turns are printed, and JSON at the end. Server and
clients share the machine. `--overload` instead loads outdo alone with ten times the clients.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from pathlib import Path
from typing import Any

PORT = 8765
OUTDO = """
import sys
from pathlib import Path
from outdo.deploy.bundle import Bundle
from outdo.deploy.predictor import BundlePredictor
from outdo.serving import server
server.load = lambda path, trust: BundlePredictor(Bundle.open(path), engine=sys.argv[3])
server.serve([Path(sys.argv[1])], server.Address(port=int(sys.argv[2])), deadline=5.0)
"""
# What a peer has to do for itself: decode, fit as the bundle says, run. On all cores, as the libraries do by default.
COMMON = """
import io, json, sys
import numpy as np, onnxruntime
from PIL import Image
said = json.loads(sys.argv[1])
session = onnxruntime.InferenceSession(said["model"], providers=["CPUExecutionProvider"])
def pixels(data):
    return fitted(Image.open(io.BytesIO(data)))
def fitted(image):
    image = image.convert("RGB")
    if said["fit"] == "crop":
        scale = 7 / 8 * min(image.height / said["height"], image.width / said["width"])
        half_wide, half_high = said["width"] * scale / 2, said["height"] * scale / 2
        x, y = image.width / 2, image.height / 2
        box = (x - half_wide, y - half_high, x + half_wide, y + half_high)
    else:
        box = None
    return np.asarray(image.resize((said["width"], said["height"]), Image.Resampling.BICUBIC, box=box))
def run(images):
    return session.run(["probabilities"], {"pixels": np.stack(images)})[0].tolist()
"""
PEERS = {
    "FastAPI": COMMON + """
import uvicorn
from fastapi import Body, FastAPI
app = FastAPI()
@app.post("/predict")
def predict(data: bytes = Body(media_type="image/jpeg")):
    return {"probabilities": run([pixels(data)])[0]}
uvicorn.run(app, port=said["port"], access_log=False, log_level="warning")
""",
    "LitServe": COMMON + """
from typing import Annotated
import litserve
from fastapi import Body
class Api(litserve.LitAPI):
    def setup(self, device): pass
    def decode_request(self, request: Annotated[bytes, Body(media_type="image/jpeg")]): return pixels(request)
    def batch(self, inputs): return list(inputs)
    def predict(self, images): return run(images)
    def unbatch(self, output): return output
    def encode_response(self, output): return {"probabilities": output}
if __name__ == "__main__":
    api = Api(max_batch_size=16, batch_timeout=0.005)
    litserve.LitServer(api, accelerator="cpu", workers_per_device=1, timeout=60).run(
        port=said["port"], num_api_servers=1, generate_client_file=False, log_level="warning")
""",
    "BentoML": COMMON.replace("sys.argv[1]", "os.environ['SAID']").replace("import io", "import io, os") + """
import bentoml
from PIL.Image import Image as Picture
@bentoml.service(workers=1, traffic={"timeout": 60}, http={"port": said["port"]},
                 logging={"access": {"enabled": False}})
class Photos:
    @bentoml.api(route="/predict")
    def predict(self, image: Picture, /) -> list[float]:
        return run([fitted(image)])[0]
""",
}


# ── clients ──────────────────────────────────────────────────────────────────────────────────────────────────────────


class Answers:
    """Statuses, and seconds of the answers that were 200."""

    def __init__(self) -> None:
        self.statuses: Counter[Any] = Counter()
        self.seconds: list[float] = []

    def add(self, status: Any, seconds: float) -> None:
        self.statuses[status] += 1
        if status == 200:
            self.seconds.append(seconds)

    def summary(self, duration: float) -> dict[str, Any]:
        ordered = sorted(self.seconds) or [0.0]
        return {"per_second": len(self.seconds) / duration, "p50_ms": 1000 * statistics.median(ordered),
                "p99_ms": 1000 * ordered[int(0.99 * (len(ordered) - 1))], "statuses": dict(self.statuses)}


async def load(photos: list[bytes], clients: int, seconds: float, pause: float = 0.0) -> dict[str, Any]:
    """`clients` connections, each sending the next photo when the last was answered; `pause` seconds after a 429."""
    answers, end = Answers(), time.monotonic() + seconds

    async def client(number: int) -> None:
        connection = None
        for turn in range(number, 10**9):
            if time.monotonic() > end:
                break
            connection = connection or await asyncio.open_connection("127.0.0.1", PORT)
            status, begin = "lost", time.monotonic()
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                status = await ask(*connection, photos[turn % len(photos)])
            answers.add(status, time.monotonic() - begin)
            if status == "lost":
                connection = None
            if status != 200:
                await asyncio.sleep(pause)

    await asyncio.gather(*(client(number) for number in range(clients)))
    return answers.summary(seconds)


async def ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, photo: bytes) -> int:
    writer.write(b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n"
                 % len(photo) + photo)
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    length = int(head.partition(b"content-length:")[2].partition(b"\r\n")[0])
    await reader.readexactly(length)
    return int(head.split(None, 2)[1])


# ── servers ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@contextlib.contextmanager
def serving(command: list[str], photo: bytes, log: Path):
    """The process, once it answers."""
    with log.open("w") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, start_new_session=True)
        try:
            until_it_answers(process, photo, log)
            yield process
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, 15)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(10)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, 9)
            process.wait()


def until_it_answers(process: subprocess.Popen, photo: bytes, log: Path) -> None:
    end = time.monotonic() + 60
    request = urllib.request.Request(f"http://127.0.0.1:{PORT}/predict", photo, {"Content-Type": "image/jpeg"})
    while True:
        with contextlib.suppress(OSError), urllib.request.urlopen(request, timeout=10) as answer:
            answer.read()
            return
        if process.poll() is not None or time.monotonic() > end:
            raise SystemExit(f"{process.args[0]} does not serve:\n{log.read_text()[-3000:]}")
        time.sleep(0.2)


def commands(bundle: Path, peers: Path | None, folder: Path) -> dict[str, list[str]]:
    """name -> how to start it. The peers get the member that outdo chose to run, unpacked."""
    from outdo.deploy.bundle import Bundle
    from outdo.deploy.predictor import BundlePredictor

    opened = Bundle.open(bundle)
    chosen = BundlePredictor(opened).choice
    model = folder / "model.onnx"
    model.write_bytes(opened.read(opened.about["models"][chosen.model]))
    print(f"{bundle.name}: {chosen}", file=sys.stderr)
    found = {f"outdo ({engine})": [sys.executable, "-c", OUTDO, str(bundle), str(PORT), engine]
             for engine in ("auto", "onnxruntime")[: 1 + (chosen.engine != "onnxruntime")]}
    said = json.dumps({**opened.about["input"], "model": str(model), "port": PORT})
    for name, program in PEERS.items() if peers else ():
        file = folder / f"serve_{name.lower()}.py"
        file.write_text(program)
        found[name] = [str(peers), str(file), said]
        if name == "BentoML":
            found[name] = ["env", f"SAID={said}", str(peers.parent / "bentoml"), "serve", f"{file.stem}:Photos",
                           "--working-dir", str(folder)]
    return found


def resident_mb(process: subprocess.Popen) -> float:
    lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS"))


def compare(args: argparse.Namespace, photos: list[bytes], folder: Path) -> dict[str, Any]:
    rounds: dict[str, list[dict[str, Any]]] = {}
    for _ in range(args.rounds):
        for name, command in commands(args.bundle, args.peers, folder).items():
            if args.only and args.only not in name:
                continue
            with serving(command, photos[0], folder / "log") as process:
                asyncio.run(load(photos, args.clients, 1.0))
                measured = asyncio.run(load(photos, args.clients, args.seconds))
                rounds.setdefault(name, []).append({**measured, "mb": resident_mb(process)})
                print(name, rounds[name][-1], file=sys.stderr)
    figures = ("per_second", "p50_ms", "p99_ms", "mb")
    return {name: {figure: statistics.median(one[figure] for one in found) for figure in figures}
            | {"statuses": [one["statuses"] for one in found]} for name, found in rounds.items()}


def overload(args: argparse.Namespace, photos: list[bytes], folder: Path) -> dict[str, Any]:
    command = commands(args.bundle, None, folder)["outdo (auto)"]
    with serving(command, photos[0], folder / "log") as process:
        before = asyncio.run(load(photos, args.clients, 2.0))
        idle = resident_mb(process)
        under = asyncio.run(load(photos, 10 * args.clients, args.seconds, pause=0.05))
        full = resident_mb(process)
        after = asyncio.run(load(photos, args.clients, 1.0))
        return {"before": before, "overload": under, "first second after": after, "mb": [idle, full]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("photos", type=Path, help="a folder of JPEG files")
    parser.add_argument("--peers", type=Path, help="the Python of an environment with the peers")
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--rounds", type=int, default=5, help="turns of each server")
    parser.add_argument("--only", help="servers whose name has this in it")
    parser.add_argument("--overload", action="store_true")
    args = parser.parse_args()
    photos = [path.read_bytes() for path in sorted(args.photos.rglob("*.jpg"))[:200]]
    with tempfile.TemporaryDirectory() as folder:
        result = (overload if args.overload else compare)(args, photos, Path(folder))
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
