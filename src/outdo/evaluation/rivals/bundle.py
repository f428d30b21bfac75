"""A bundle, as `outdo export` writes it: the shipped model, answering through the engine that it ships with."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from outdo.contracts import Ground, Inputs, Rival, batches
from outdo.deploy.bundle import MANIFEST, Bundle, is_bundle
from outdo.deploy.predictor import BundlePredictor
from outdo.errors import BundleError

BATCH = 64


class ShippedBundle:
    summary = "a bundle, its file or folder"

    def accepts(self, said: Any) -> bool:
        return isinstance(said, str | Path) and (Path(said).is_dir() or _zipped(Path(said))) and is_bundle(said)

    def meet(self, said: Any, ground: Ground) -> Rival:
        predictor = BundlePredictor(Bundle.open(said))
        if predictor.kind != ground.kind:
            raise BundleError(f"{said} is about {predictor.kind}s", expected=f"a bundle for {ground.kind}s")

        def answer(ids: Sequence[str], inputs: Inputs) -> np.ndarray:
            parts = [predictor.probabilities([predictor.decode(inputs.read(i)) for i in range(part.start, part.stop)])
                     for part in batches(len(inputs), BATCH)]
            return np.concatenate(parts) if parts else np.zeros((0, len(predictor.classes)))

        chosen, about = predictor.choice, predictor.bundle.about
        size = about["members"][about["models"][chosen.model]]["bytes"]
        return Rival(predictor.classes, answer, (f"answered by {chosen.engine}, {chosen.model}",), size_bytes=size)

    def example(self, folder: Path, ground: Ground) -> Path:
        from outdo.evaluation.rivals._example import tiny_bundle

        return tiny_bundle(folder / "example.bundle", ground)


def _zipped(path: Path) -> bool:
    """Whether it is a zip with a manifest; torch's own files are zips too."""
    try:
        with zipfile.ZipFile(path) as packed:
            return MANIFEST in packed.namelist()
    except (OSError, zipfile.BadZipFile):
        return False


PLUGIN = ShippedBundle()
