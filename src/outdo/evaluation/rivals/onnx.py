"""An ONNX file of anybody's: images as pixels, or texts as strings.

How it wants its images stands in its metadata, or after a `?` (`model.onnx?normalise=imagenet&classes=ant,bee`), or
is found out on validation. Weights in files beside it are read, those outside its folder refused; ONNX Runtime keeps
to that, links included (microsoft/onnxruntime#26776, #27539).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from outdo.contracts import Ground, Inputs, Rival
from outdo.errors import DataError, MissingExtra
from outdo.evaluation.rivals import _network, _pixels

BATCH = 16
SAFE = (1, 26)  # the first ONNX Runtime that keeps external data inside the model's folder, links and all
DTYPES = {"tensor(float)": "float32", "tensor(float16)": "float16", "tensor(double)": "float64",
          "tensor(uint8)": "uint8"}


class Onnx:
    summary = "an .onnx file, `model.onnx?normalise=imagenet&classes=ant,bee` where it has to be told"

    def accepts(self, said: Any) -> bool:
        path = Path(str(said).partition("?")[0]) if isinstance(said, str | Path) else None
        return path is not None and path.suffix.lower() == ".onnx" and path.is_file()

    def meet(self, said: Any, ground: Ground) -> Rival:
        path, options = _pixels.parted(str(said))
        session = opened(Path(path))
        options = {k: v for k, v in session.get_modelmeta().custom_metadata_map.items()
                   if k in (*_pixels.OPTIONS, "names", "labels")} | options
        takes, gives = self._input(session, path), self._output(session, path, options.get("output"))

        def run(x: np.ndarray) -> np.ndarray:
            return self._run(session, takes, gives, x, path)

        fixed = takes.shape[0] if takes.shape and isinstance(takes.shape[0], int) else None
        place: dict[str, Any] = {"batch": fixed or BATCH, "where": Path(path).parent}
        if takes.type == "tensor(string)" and ground.kind == "text":
            rival = _network.of_items(run, Inputs.read, options, ground, **place)
        elif takes.type in DTYPES and ground.kind == "image":
            rival = _network.of_images(run, takes.shape, DTYPES[takes.type], options, ground, **place)
        else:
            raise DataError(f"{path} does not take {ground.kind}s", found=f"an input of {takes.type}",
                            expected="pixels as float or uint8, or texts as strings",
                            fix="ask it yourself, and give outdo a table of its predictions")
        return _with_size(rival, weights(Path(path)))

    def _input(self, session: Any, path: str) -> Any:
        found = session.get_inputs()
        if len(found) != 1:
            raise DataError(f"{path} takes {len(found)} inputs", found=", ".join(i.name for i in found), expected="one",
                            fix="ask it yourself, and give outdo a table of its predictions")
        return found[0]

    def _output(self, session: Any, path: str, name: str | None) -> str:
        """The one that was named, else the first table of numbers."""
        outputs = {o.name: o for o in session.get_outputs()}
        fitting = [o.name for o in outputs.values() if o.type in DTYPES and len(o.shape) in (0, 2)]
        chosen = name or next(iter(fitting), None)
        if chosen not in outputs:
            raise DataError(f"{path} has no output with a column for each class" if name is None else
                            f"{path} has no output '{name}'", found=", ".join(f"{n} ({o.type})" for n, o in
                            outputs.items()), fix="say output=NAME; from scikit-learn, export with zipmap=False")
        return str(chosen)

    def _run(self, session: Any, takes: Any, gives: str, x: np.ndarray, path: str) -> np.ndarray:
        n = len(x)
        if takes.shape and isinstance(takes.shape[0], int):  # a fixed batch: fill it up
            x = np.concatenate([x, np.repeat(x[-1:], takes.shape[0] - n, 0)])
        if len(takes.shape) == 2 and x.ndim == 1:
            x = x[:, None]
        try:
            return np.asarray(session.run([gives], {takes.name: x})[0])[:n]
        except Exception as error:  # whatever ONNX Runtime raises has a class of its own
            raise DataError(f"{path} failed on an input of {' x '.join(map(str, x.shape))}",
                            found=" ".join(str(error).split())[:160]) from None

    def example(self, folder: Path, ground: Ground) -> str:
        from outdo.evaluation.rivals._example import write_onnx

        return write_onnx(folder / "example.onnx", ground)


def opened(path: Path) -> Any:
    """A session on the CPU. Raises DataError for what is no model, or reaches outside its folder."""
    try:
        import onnxruntime
    except ModuleNotFoundError:
        raise MissingExtra("a rival in ONNX", "onnxruntime", "serve") from None
    if not path.is_file():
        raise DataError(f"there is no file {path}", fix="check the path")
    if tuple(map(int, onnxruntime.__version__.split(".")[:2])) < SAFE:
        raise DataError("strangers' models are only opened by an ONNX Runtime that keeps them to their folder",
                        expected="onnxruntime 1.26 or newer", found=onnxruntime.__version__,
                        fix="run pip install -U onnxruntime")
    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = 4  # what is wrong comes as an exception
    settings.add_session_config_entry("session.intra_op.allow_spinning", "0")  # its idle threads would slow the others
    try:
        return onnxruntime.InferenceSession(str(path), settings, providers=["CPUExecutionProvider"])
    except Exception as error:
        words = " ".join(str(error).split())
        if "xternal data" in words:
            raise DataError(f"{path} wants weights from outside its folder, or that are not there", found=words[-160:],
                            expected="weights beside the model", fix="export it into one file") from None
        raise DataError(f"{path} is no model that ONNX Runtime can open", found=words[:160]) from None


def weights(path: Path) -> int:
    """Bytes of the model and of the files beside it that carry its name, which is where exporters put weights."""
    return sum(p.stat().st_size for p in path.parent.iterdir() if p.is_file() and p.name.startswith(path.name))


def _with_size(rival: Rival, size: int) -> Rival:
    from dataclasses import replace

    return replace(rival, size_bytes=size)


PLUGIN = Onnx()
