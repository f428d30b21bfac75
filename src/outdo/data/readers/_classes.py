"""Class folders in a tree: `CLASS/photo.jpg` or `SPLIT/CLASS/photo.jpg`, folders inside a class belong to it."""

from __future__ import annotations

import re
from collections.abc import Iterable

import numpy as np

from outdo.contracts import Dataset, Finding
from outdo.data.images import READABLE, looks_like_image
from outdo.data.inputs import Items
from outdo.data.readers._tree import IMAGE_SUFFIXES, SPLIT_NAMES, Tree, skipped, suffix, wrapper
from outdo.errors import DataError

EXPECTED = ("a folder for each class with its images inside (photos/cat/1.jpg, photos/dog/2.jpg), perhaps below "
            "train/, val/ and test/ folders")


def read_classes(tree: Tree) -> Dataset:
    """Raises DataError when no image lies in a class folder."""
    names, others = _images(tree)
    prefix = _prefix(names)
    declared = _declares(names, prefix)
    _check_links(tree, names, prefix, declared)
    placed = {name: _place(name[len(prefix):], declared) for name in names}
    kept = [name for name in names if placed[name] is not None]
    if not kept:
        raise DataError(f"{tree.source} has no images in class folders", expected=EXPECTED, found=_found(names, others))
    stray = [name for name in names if placed[name] is None]
    where = [place for name in kept if (place := placed[name]) is not None]
    return Dataset(
        source=tree.source,
        inputs=Items("image", [tree.item(name) for name in kept]),
        ids=tuple(kept),
        labels=np.array([label for _, label in where]),
        split=np.array([split for split, _ in where]),
        findings=tuple(_findings(tree, stray, others)),
    )


def has_classes(names: Iterable[str]) -> bool:
    """Whether some image lies in a folder."""
    return any("/" in name and suffix(name) in IMAGE_SUFFIXES for name in names)


def _images(tree: Tree) -> tuple[list[str], list[str]]:
    """(images, other files) by suffix; a file that has none, by its first bytes."""
    images: list[str] = []
    others: list[str] = []
    for name in tree.names():
        (images if suffix(name) in IMAGE_SUFFIXES or _bare_image(tree, name) else others).append(name)
    return images, others


def _bare_image(tree: Tree, name: str) -> bool:
    if suffix(name) or not tree.exists(name):
        return False
    with tree.open(name) as opened:
        return looks_like_image(opened.read(16))


def _prefix(names: list[str]) -> str:
    """Folders wrapped around the class folders: stripped while a class folder is still left below."""
    prefix = ""
    while True:
        rest = [name[len(prefix):] for name in names]
        folder = wrapper(rest)
        if not folder or _split_of(folder[:-1]) or any(name.count("/") < 2 for name in rest):
            return prefix
        prefix += folder


def _declares(names: list[str], prefix: str) -> bool:
    """Whether the first level holds splits. A class called "train" holds images itself; a split holds class folders."""
    rest = [name[len(prefix):].split("/") for name in names]
    tops = {parts[0] for parts in rest if len(parts) > 1}
    splits = {top for top in tops if _split_of(top)}
    deep = {parts[0] for parts in rest if len(parts) > 2}
    roles = {_split_of(top) for top in splits & deep}
    return bool(roles) and (tops == splits or ("train" in roles and len(roles) > 1))


def _place(name: str, declared: bool) -> tuple[str, str] | None:
    """(split, label) of an image, None where it lies in no class folder."""
    parts = name.split("/")
    if not declared:
        return ("", parts[0].strip()) if len(parts) > 1 else None
    split = _split_of(parts[0])
    return (split, parts[1].strip()) if split and len(parts) > 2 else None


def _check_links(tree: Tree, names: list[str], prefix: str, declared: bool) -> None:
    """Raises DataError for a folder that is linked to two places where it means two things. A folder that contains
    itself, and a second way to the same class, are harmless."""
    for again, first in tree.twice():
        below = next((name[len(first):] for name in names if name.startswith(f"{first}/")), None)
        if below is None or f"{again}/".startswith(f"{first}/") or not f"{again}/".startswith(prefix):
            continue
        if _place((again + below)[len(prefix):], declared) != _place((first + below)[len(prefix):], declared):
            raise DataError(f"{tree.source}: {first} and {again} are the same folder, by a link",
                            expected="each image in one split and one class", fix="remove one of the two")


def _split_of(folder: str) -> str:
    return SPLIT_NAMES.get(re.sub(r"[ _-]?(set|data|images)$", "", folder.strip().lower()), "")


def _findings(tree: Tree, stray: list[str], others: list[str]) -> list[Finding]:
    return [
        *skipped("no class folder", stray, "images that lie in no class folder were left out"),
        *skipped("not an image", others, f"files that are not images were left out (outdo reads {READABLE})"),
        *skipped("hidden files", tree.hidden(), "hidden files were left out", "note"),
    ]


def _found(images: list[str], others: list[str]) -> str:
    if images:
        return f"{len(images)} images, none in a folder of its class, such as {images[0]}"
    return f"{len(others)} files, none of them an image ({READABLE}), such as {others[0]}" if others else "no files"
