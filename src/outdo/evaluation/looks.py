"""Where each side looked for its answer: pictures that are lit there, words with weights. For the page alone."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from outdo.contracts import Contestant, TestSet
from outdo.evaluation.axes._helpers import square

SHOWN = 12  # of the gained and of the lost: those that the page shows first
DIM = 0.45  # of the light that is left where nothing spoke for the answer
SIDE = 160  # pixels

Looks = Mapping[str, Mapping[str, Any]]  # id -> role -> JPEG, or [(word, weight)]


def looks(flips: Mapping[str, Any], test: TestSet, contestants: Sequence[Contestant]) -> dict[str, dict[str, Any]]:
    """For the first flips, what of an example spoke for the answer that before and after gave. Contestants that cannot
    be looked into are left out."""
    where = {name: i for i, name in enumerate(test.ids)}
    listed = [where[flip["id"]] for kind in ("gained", "lost") for flip in flips[kind][:SHOWN]]
    found: dict[str, dict[str, Any]] = {test.ids[i]: {} for i in listed}
    see = images if test.inputs.kind == "image" else texts
    for contestant in contestants:
        for i, look in see(contestant, test, listed).items():
            found[test.ids[i]][contestant.role] = look
    return found


def images(contestant: Contestant, test: TestSet, listed: Sequence[int]) -> dict[int, bytes]:
    from outdo.training import saliency
    from outdo.training.model import Model, seen

    if not isinstance(contestant.model, Model):
        return {}
    found: dict[int, Any] = {}
    squares = {i: square(test.inputs.read(i)) for i in listed}  # type: ignore[arg-type]
    for side in {len(image) for image in squares.values()}:
        some = [i for i, image in squares.items() if len(image) == side]
        pictures = np.stack([squares[i] for i in some])
        maps = saliency.maps(contestant.model, pictures, contestant.predictions.labels[some])
        if maps is None:
            return {}
        visible = seen(pictures, contestant.model.backbone.preprocessing())
        found |= {i: lit(picture, heat) for i, picture, heat in zip(some, visible, maps, strict=True)}
    return found


def texts(contestant: Contestant, test: TestSet, listed: Sequence[int]) -> dict[int, list[tuple[str, float]]]:
    from outdo.training import saliency

    if contestant.model is None or not listed:
        return {}
    said = [str(test.inputs.read(i)) for i in listed]
    weights = saliency.word_weights(contestant.model, said, contestant.predictions.labels[list(listed)].tolist())
    return dict(zip(listed, weights, strict=True))


def lit(picture: np.ndarray, heat: np.ndarray) -> bytes:
    """The picture (H, W, 3) uint8 as a small JPEG: itself where the map (h, w) in 0..1 is high, dim and grey elsewhere.
    A colour laid over it would be lost on pictures of that colour."""
    from PIL import Image

    small = Image.fromarray(picture).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    fine = Image.fromarray(heat.astype(np.float32)).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    share = np.clip(1.5 * np.asarray(fine), 0, 1)[..., None]
    dim = DIM * np.asarray(small.convert("L"), np.float32)[..., None]
    blended = Image.fromarray((np.asarray(small) * share + dim * (1 - share)).astype(np.uint8))
    encoded = io.BytesIO()
    blended.save(encoded, "JPEG", quality=80, optimize=True)
    return encoded.getvalue()
