"""The models of a server, by name: champion and challenger, and how a bundle is replaced while it is being asked."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from outdo.errors import UserError, nearest
from outdo.serving.batcher import Model


class Predictor(Model, Protocol):
    """A bundle that is ready to answer: what `outdo.deploy.predictor.BundlePredictor` is."""

    name: str
    version: str
    kind: str  # "image" or "text"
    classes: Sequence[str]
    threshold: float | None  # below this the answer is "not sure"
    report: Mapping[str, Any] | None  # report.json of the run that it came from


def load(path: Path, trust: Path | None = None) -> Any:
    """A bundle that is ready to answer, signed by the key in `trust` if there is one. Raises UserError."""
    from outdo.deploy.bundle import Bundle
    from outdo.deploy.predictor import BundlePredictor

    return BundlePredictor(Bundle.open(path, trust))


@dataclass(frozen=True)
class Served:
    """A name's champion, and the challenger that takes a share of its requests or only watches them."""

    champion: Predictor
    challenger: Predictor | None = None
    share: float = 0.0
    shadow: bool = False

    @property
    def versions(self) -> dict[str, Predictor]:
        found = {self.champion.version: self.champion}
        if self.challenger is not None:
            found.setdefault(self.challenger.version, self.challenger)
        return found

    def route(self, digest: bytes) -> Predictor:
        """Who answers an input: the same one every time that it comes."""
        if self.challenger is not None and not self.shadow:
            drawn = int.from_bytes(hashlib.blake2b(digest, digest_size=8, person=b"share").digest(), "big") / 2**64
            if drawn < self.share:
                return self.challenger
        return self.champion


class Models:
    """Opens bundles and finds them by name. `reload` replaces all of them at once, or none when one is no good."""

    def __init__(self, paths: Sequence[Path], challenger: Path | None = None, share: float = 0.0, shadow: bool = False,
                 load: Callable[[Path], Any] = load) -> None:
        self.paths, self.challenger, self.share, self.shadow = tuple(paths), challenger, share, shadow
        self._load = load
        self.by_name: dict[str, Served] = {}
        self.reload()

    def reload(self) -> None:
        """Open every bundle again. Raises UserError and keeps what there is when one cannot be opened."""
        champions = [self._load(path) for path in self.paths]
        served = {model.name: Served(model) for model in champions}
        if len(served) < len(champions):
            raise UserError("two bundles of one name", found=", ".join(model.name for model in champions),
                            fix="name the newer one as --challenger")
        if self.challenger is not None:
            rival = self._load(self.challenger)
            served[rival.name] = self._against(rival, served)
        for one in served.values():
            for model in one.versions.values():
                warm_up(model)
        self.by_name = served  # one assignment: a request sees all of the old models or all of the new ones

    def _against(self, rival: Predictor, served: dict[str, Served]) -> Served:
        if rival.name not in served:
            raise UserError(f"nobody to challenge: no bundle is named '{rival.name}'", fix=nearest(rival.name, served))
        champion = served[rival.name].champion
        if (rival.kind, list(rival.classes)) != (champion.kind, list(champion.classes)):
            raise UserError(f"the challenger of '{rival.name}' answers something else",
                            expected=f"the champion's {len(champion.classes)} classes",
                            found=", ".join(map(str, rival.classes[:12])))
        if rival.version == champion.version:
            raise UserError(f"champion and challenger of '{rival.name}' are the same version, {rival.version}")
        return Served(champion, rival, self.share, self.shadow)


def warm_up(model: Predictor) -> None:
    """The first run of an engine takes longest, and nobody should wait for it."""
    model.probabilities([model.decode(BLANK_IMAGE if model.kind == "image" else "warm up")])


# A grey GIF of 1 x 1 pixel
BLANK_IMAGE = bytes.fromhex("47494638376101000100800000808080000000" "2c00000000010001000002024401003b")
