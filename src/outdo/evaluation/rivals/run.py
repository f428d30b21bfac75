"""A run's folder: the better model of it, finished or not."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from outdo import backbones, plugins
from outdo.contracts import Ground, Inputs, Rival
from outdo.errors import RunError
from outdo.training.model import Model


class RunFolder:
    summary = "the folder of another run"

    def accepts(self, said: Any) -> bool:
        return isinstance(said, str | Path) and ((Path(said) / "model.json").is_file()
                                                 or (Path(said) / "run.json").is_file())

    def meet(self, said: Any, ground: Ground) -> Rival:
        if not (Path(said) / "model.json").is_file():
            raise RunError(f"the run in {said} has no model yet", fix="go on with it by --resume")
        model = Model.load(Path(said), find_task=lambda name: plugins.load("tasks", name),
                           find_backbone=backbones.load)
        if model.task.kind != ground.kind:
            raise RunError(f"the run in {said} is about {model.task.kind}s", expected=f"a run about {ground.kind}s")

        def answer(ids: Sequence[str], inputs: Inputs) -> np.ndarray:
            return model.predict(inputs)

        return Rival(model.classes, answer, size_bytes=model.size_bytes(), parameters=model.parameters(), model=model)

    def example(self, folder: Path, ground: Ground) -> Path:
        from outdo.training.model import Constant

        backbone = backbones.load(f"tiny-{ground.kind}", ground.kind)
        backbone.encode(ground.inputs.take(np.arange(1)), None)  # it then knows the size of its rows
        parts = [(1.0, Constant(np.arange(len(ground.classes), dtype=np.float32)))]
        task = next(t for t in plugins.load_all("tasks").values() if t.kind == ground.kind)
        Model("constant", task, ground.classes, backbone, parts,
              about={"backbone_sha256": backbone.origin.sha256}).save(folder / "run")
        return folder / "run"


PLUGIN = RunFolder()
