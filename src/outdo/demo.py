"""A first run that downloads nothing: scikit-learn's handwritten digits, and scikit-learn's own example as the rival.

The split is that example's (`plot_digits_classification.py`): the first half trains, the second half tests, unshuffled,
so that people stand on the test side whose hand the training side has not seen.
"""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import outdo
from outdo.contracts import Dataset, Inputs, Progress
from outdo.storage import cache_folder

BRIGHTER = 15  # scikit-learn has 8 x 8 pixels of 0 to 16; times 15 they are a PNG and lose nothing


def demo(minutes: float = 1.0, out: Path | None = None, progress: Progress | None = None, **said: Any) -> Any:
    """Improve on the digits; `said` goes to `outdo.improve` as it is. Returns its Result."""
    data = outdo.read(write_digits(cache_folder() / "digits"))
    return outdo.improve(data, minutes=minutes, out=out, progress=progress, against={"scikit-learn SVC": rival(data)},
                         **{"augmentation": 0.0, **said})  # a mirrored 2 is no 2


def write_digits(folder: Path) -> Path:
    """The 1,797 digits as `folder/{train,test}/{0..9}/{number}.png`; a folder that is there already is left alone."""
    from sklearn.datasets import load_digits

    if folder.is_dir():
        return folder
    images, labels = load_digits(return_X_y=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(dir=folder.parent))
    for i, (image, label) in enumerate(zip(images, labels, strict=True)):
        path = draft / ("train" if i < len(images) // 2 else "test") / str(label) / f"{i:04}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((image.reshape(8, 8) * BRIGHTER).astype(np.uint8)).save(path)
    with contextlib.suppress(OSError):  # another demo was quicker
        os.rename(draft, folder)
    shutil.rmtree(draft, ignore_errors=True)
    return folder


def rival(data: Dataset) -> Any:
    """Scikit-learn's example, fitted on the training half: anything that has `predict(inputs)` can be a rival."""
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer
    from sklearn.svm import SVC

    train = data.take(np.flatnonzero(data.split == "train"))
    return make_pipeline(FunctionTransformer(pixels), SVC(gamma=0.001)).fit(train.inputs, train.labels)


def pixels(inputs: Inputs) -> np.ndarray:
    """(N, 64) float, 0 to 16: the digits as scikit-learn ships them, and others as if they were."""
    files = [inputs.read(i) for i in range(len(inputs))]
    opened = [Image.open(io.BytesIO(file)).convert("L") for file in files if isinstance(file, bytes)]
    images = [np.asarray(image if image.size == (8, 8) else image.resize((8, 8), Image.Resampling.BOX))
              for image in opened]
    return np.stack(images).reshape(len(files), -1) / BRIGHTER
