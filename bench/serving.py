"""Inputs over HTTP: `outdo serve` beside plain FastAPI, LitServe and BentoML with the same ONNX file.

    python -m venv peers
    peers/bin/pip install fastapi uvicorn[standard] onnxruntime pillow tokenizers litserve bentoml
    python bench/serving.py BUNDLE DATA --peers peers/bin/python

50 clients on kept connections send files or texts of DATA as fast as they are answered. The servers take turns, each
turn starts a server, warms it up and loads it for some seconds; medians over the turns are printed, and JSON at the
end. Server and clients share the machine. Two other things are measured of outdo alone: `--overload` with ten times the
clients, and `--overhead`, pixels over HTTP against the engine on the same pixels.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import outdo
from outdo.data import ngrams
from outdo.deploy import engines
from outdo.deploy.bundle import Bundle
from outdo.deploy.predictor import BundlePredictor

PORT, INPUTS = 18765, 200
OUTDO = """
import sys
from pathlib import Path
from outdo.deploy.bundle import Bundle
from outdo.deploy.predictor import BundlePredictor
from outdo.serving import server
server.load = lambda path, trust: BundlePredictor(Bundle.open(path), engine=sys.argv[3])
server.serve([Path(sys.argv[1])], server.Address(port=int(sys.argv[2])), deadline=5.0)
"""
# What a peer has to do for itself: decode as the bundle says, run. On all cores, as the libraries do by default.
COMMON = """
import io, json, os, sys
import numpy as np, onnxruntime
said = json.loads(os.environ["SAID"])
session = onnxruntime.InferenceSession(said["model"], providers=["CPUExecutionProvider"])
def run(items):
    return session.run(["probabilities"], feed(items))[0].tolist()
"""
OF_KIND = {
    "image": COMMON + """
from PIL import Image
from PIL.Image import Image as Given
Sent = bytes
def decoded(data):
    return item(Image.open(io.BytesIO(data)))
def item(image):
    image = image.convert("RGB")
    if said["fit"] == "crop":
        scale = 7 / 8 * min(image.height / said["height"], image.width / said["width"])
        half_wide, half_high = said["width"] * scale / 2, said["height"] * scale / 2
        x, y = image.width / 2, image.height / 2
        box = (x - half_wide, y - half_high, x + half_wide, y + half_high)
    else:
        box = None
    return np.asarray(image.resize((said["width"], said["height"]), Image.Resampling.BICUBIC, box=box))
def feed(items):
    return {"pixels": np.stack(items)}
""",
    "text": COMMON + """
from tokenizers import Tokenizer
from ngrams import counted
tokenizer = Tokenizer.from_file(said["tokenizer"])
tokenizer.no_padding()
tokenizer.enable_truncation(said["max_length"])
Given, Sent = str, dict
def decoded(data):
    return item(data["text"])
def item(text):
    return tokenizer.encode(text).ids
def feed(items):
    tokens = np.full((len(items), max(map(len, items))), -1, np.int64)
    for row, ids in zip(tokens, items):
        row[:len(ids)] = ids
    words = dict(zip(("buckets", "counts"), counted(tokens))) if said["words"] else {}
    return {"tokens": tokens, **words}
""",
}
PEERS = {
    "FastAPI": """
import uvicorn
from fastapi import Body, FastAPI
app = FastAPI()
@app.post("/predict")
def predict(data: Sent = Body(media_type=said["media"])):
    return {"probabilities": run([decoded(data)])[0]}
uvicorn.run(app, port=said["port"], access_log=False, log_level="warning")
""",
    "LitServe": """
from typing import Annotated
import litserve
from fastapi import Body
class Api(litserve.LitAPI):
    def setup(self, device): pass
    def decode_request(self, request: Annotated[Sent, Body(media_type=said["media"])]): return decoded(request)
    def batch(self, inputs): return list(inputs)
    def predict(self, items): return run(items)
    def unbatch(self, output): return output
    def encode_response(self, output): return {"probabilities": output}
if __name__ == "__main__":
    api = Api(max_batch_size=16, batch_timeout=0.005)
    litserve.LitServer(api, accelerator="cpu", workers_per_device=1, timeout=60).run(
        port=said["port"], num_api_servers=1, generate_client_file=False, log_level="warning")
""",
    "BentoML": """
import bentoml
@bentoml.service(workers=1, traffic={"timeout": 60}, http={"port": said["port"]},
                 logging={"access": {"enabled": False}})
class Service:
    @bentoml.api(route="/predict")
    def predict(self, text: Given) -> list[float]:
        return run([item(text)])[0]
""",
}
MEDIA = {"image": "image/jpeg", "text": "application/json"}


@dataclass(frozen=True)
class Asked:
    """What clients send: bodies of one kind to one path."""

    media: str
    bodies: list[bytes]
    path: str = "/predict"
    header: str = ""

    def request(self, number: int) -> bytes:
        body = self.bodies[number % len(self.bodies)]
        return (f"POST {self.path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {self.media}\r\n{self.header}"
                f"Content-Length: {len(body)}\r\n\r\n").encode() + body


def asked_of(source: Path, kind: str) -> Asked:
    inputs = outdo.read(source).inputs
    some = [inputs.read(i) for i in range(0, len(inputs), max(1, len(inputs) // INPUTS))]
    return Asked(MEDIA[kind], [json.dumps({"text": one}).encode() if isinstance(one, str) else one for one in some])


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


async def load(asked: Asked, clients: int, seconds: float, pause: float = 0.0) -> dict[str, Any]:
    """`clients` connections, each sending the next input when the last was answered; `pause` seconds after a 429."""
    answers, end = Answers(), time.monotonic() + seconds

    async def client(number: int) -> None:
        connection = None
        for turn in range(number, 10**9):
            if time.monotonic() > end:
                break
            connection = connection or await asyncio.open_connection("127.0.0.1", PORT)
            status, begin = "lost", time.monotonic()
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                status = await ask(*connection, asked.request(turn))
            answers.add(status, time.monotonic() - begin)
            if status == "lost":
                connection = None
            if status != 200:
                await asyncio.sleep(pause)

    await asyncio.gather(*(client(number) for number in range(clients)))
    return answers.summary(seconds)


async def ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes) -> int:
    writer.write(request)
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    length = int(head.partition(b"content-length:")[2].partition(b"\r\n")[0])
    await reader.readexactly(length)
    return int(head.split(None, 2)[1])


# ── servers ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@contextlib.contextmanager
def serving(command: list[str], asked: Asked, log: Path):
    """The process, once it answers."""
    with log.open("w") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, start_new_session=True)
        try:
            until_it_answers(process, asked, log)
            yield process
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, 15)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(10)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, 9)
            process.wait()


def until_it_answers(process: subprocess.Popen, asked: Asked, log: Path) -> None:
    end = time.monotonic() + 60
    request = urllib.request.Request(f"http://127.0.0.1:{PORT}/predict", asked.bodies[0], {"Content-Type": asked.media})
    while True:
        with contextlib.suppress(OSError), urllib.request.urlopen(request, timeout=10) as answer:
            answer.read()
            return
        if process.poll() is not None or time.monotonic() > end:
            raise SystemExit(f"{process.args[0]} does not serve:\n{log.read_text()[-3000:]}")
        time.sleep(0.2)


def commands(bundle: Path, peers: Path | None, folder: Path) -> dict[str, list[str]]:
    """name -> how to start it. The peers get the member that ONNX Runtime is fastest with, unpacked."""
    opened = Bundle.open(bundle)
    kind = opened.about["kind"]
    plain = engines.plain_choice(opened)
    chosen = BundlePredictor(opened).choice
    print(f"{bundle.name}: {chosen}; peers: {plain.model}", file=sys.stderr)
    for member in opened.names():
        (folder / member).write_bytes(opened.read(member))
    shutil.copy(str(ngrams.__file__), folder)
    found = {f"outdo ({engine})": [sys.executable, "-c", OUTDO, str(bundle), str(PORT), engine]
             for engine in ("auto", "onnxruntime")[: 1 + (chosen.engine != "onnxruntime")]}
    said = json.dumps({**opened.about["input"], "model": str(folder / opened.about["models"][plain.model]),
                       "tokenizer": str(folder / "tokenizer.json"), "media": MEDIA[kind], "port": PORT})
    for name, program in PEERS.items() if peers else ():
        file = folder / f"serve_{name.lower()}.py"
        if kind == "image":  # the body itself; of a text it is an object
            program = program.replace("text: Given", "text: Given, /")
        file.write_text(OF_KIND[kind] + program)
        start = [str(peers), str(file)] if name != "BentoML" else [
            str(peers.parent / "bentoml"), "serve", f"{file.stem}:Service", "--working-dir", str(folder)]
        found[name] = ["env", f"SAID={said}", *start]
    return found


def resident_mb(process: subprocess.Popen) -> float:
    lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS"))


def compare(args: argparse.Namespace, asked: Asked, folder: Path) -> dict[str, Any]:
    rounds: dict[str, list[dict[str, Any]]] = {}
    for _ in range(args.rounds):
        for name, command in commands(args.bundle, args.peers, folder).items():
            if args.only and args.only not in name:
                continue
            with serving(command, asked, folder / "log") as process:
                asyncio.run(load(asked, args.clients, 1.0))
                measured = asyncio.run(load(asked, args.clients, args.seconds))
                rounds.setdefault(name, []).append({**measured, "mb": resident_mb(process)})
                print(name, rounds[name][-1], file=sys.stderr)
    figures = ("per_second", "p50_ms", "p99_ms", "mb")
    return {name: {figure: statistics.median(one[figure] for one in found) for figure in figures}
            | {"statuses": [one["statuses"] for one in found]} for name, found in rounds.items()}


def overload(args: argparse.Namespace, asked: Asked, folder: Path) -> dict[str, Any]:
    """Memory is looked at ten times."""
    async def under(process: subprocess.Popen) -> tuple[dict[str, Any], list[float]]:
        loading = asyncio.create_task(load(asked, 10 * args.clients, args.seconds, pause=0.05))
        seen = []
        for _ in range(10):
            await asyncio.sleep(args.seconds / 10)
            seen.append(round(resident_mb(process)))
        return await loading, seen

    with serving(commands(args.bundle, None, folder)["outdo (auto)"], asked, folder / "log") as process:
        idle = round(resident_mb(process))
        before = asyncio.run(load(asked, args.clients, 5.0))
        loaded = round(resident_mb(process))
        found, seen = asyncio.run(under(process))
        after = asyncio.run(load(asked, args.clients, 1.0))
        return {"before": before, "overload": found, "first second after": after,
                "mb": {"idle": idle, "loaded": loaded, "overloaded": seen, "after": round(resident_mb(process))}}


def overhead(args: argparse.Namespace, asked: Asked, folder: Path) -> dict[str, Any]:
    """Batches of decoded photos a second, through the Open Inference Protocol and by the engine alone, in turns."""
    model = BundlePredictor(Bundle.open(args.bundle))
    pixels = np.stack([model.decode(body) for body in asked.bodies[:8]])
    head = json.dumps({"inputs": [{"name": "image", "datatype": "UINT8", "shape": pixels.shape,
                                   "parameters": {"binary_data_size": pixels.nbytes}}]}).encode()
    binary = Asked("application/octet-stream", [head + pixels.tobytes()], f"/v2/models/{model.name}/infer",
                   f"Inference-Header-Content-Length: {len(head)}\r\n")
    alone, served = [], []
    for _ in range(args.rounds):
        end, count = time.monotonic() + args.seconds, 0
        while time.monotonic() < end:
            model.probabilities(list(pixels))
            count += len(pixels)
        alone.append(count / args.seconds)
        with serving(commands(args.bundle, None, folder)["outdo (auto)"], asked, folder / "log"):
            asyncio.run(load(binary, 4, 1.0))
            served.append(len(pixels) * asyncio.run(load(binary, 4, args.seconds))["per_second"])
    return {"engine alone": statistics.median(alone), "served": statistics.median(served),
            "share": statistics.median(one / other for one, other in zip(served, alone, strict=True))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("data", type=Path, help="what the bundle's run was made from: photos (JPEG), or texts")
    parser.add_argument("--peers", type=Path, help="the Python of an environment with the peers")
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--rounds", type=int, default=5, help="turns of each server")
    parser.add_argument("--only", help="servers whose name has this in it")
    parser.add_argument("--overload", action="store_true")
    parser.add_argument("--overhead", action="store_true")
    args = parser.parse_args()
    asked = asked_of(args.data, Bundle.open(args.bundle).about["kind"])
    measure = overload if args.overload else overhead if args.overhead else compare
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(measure(args, asked, Path(folder)), indent=1))


if __name__ == "__main__":
    main()
