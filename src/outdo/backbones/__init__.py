"""Pretrained weights by name, whatever library they come from. One plug-in file for each family."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from outdo import plugins
from outdo.backbones._precision import choose_precision as choose_precision
from outdo.contracts import Backbone, BackboneFamily, Kind
from outdo.errors import BackboneError, nearest

START_FROM = {"image": "vision", "text": "text"}  # the family whose default is used when no name is given


def load(name: str | None = None, kind: Kind | None = None, *, preprocessing: Mapping[str, Any] | None = None
         ) -> Backbone:
    """The backbone of that name, or the embedded default of a kind.

    `preprocessing` restores what a run recorded, or overrides parts of it: `{"fit": "crop"}`.
    Raises BackboneError: unknown name (with the nearest), the other kind, weights unreachable or not as pinned.
    """
    if name is None:
        assert kind is not None, "a name or a kind"
        chosen = plugins.load("backbones", START_FROM[kind])
        name = str(chosen.default)
    else:
        chosen = family(name, kind)
    if kind is not None and chosen.kind != kind:
        raise BackboneError(f"'{name}' is a backbone for {chosen.kind}s", expected=f"one for {kind}s",
                            fix=f"leave it out to start from '{plugins.load('backbones', START_FROM[kind]).default}'")
    backbone: Backbone = chosen.load(name, preprocessing=preprocessing)
    return backbone


def family(name: str, kind: Kind | None = None) -> BackboneFamily:
    """The family that offers `name`. Raises BackboneError with the nearest name, of `kind` where one is given."""
    families = plugins.load_all("backbones")
    for candidate in families.values():
        if candidate.offers(name):
            return candidate  # type: ignore[no-any-return]
    names = {n for f in families.values() if kind in (None, f.kind) for n in f.names()}
    if "." not in name:  # "resnet5" is nearer to "resnet50" than to any of its weights
        names = {n.split(".")[0] if "/" not in n else n for n in names}
    raise BackboneError(f"unknown backbone '{name}'", fix=nearest(name, names))
