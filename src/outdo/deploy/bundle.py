"""The shipped model: one file (a zip of stored members) or the folder it unpacks to.

    manifest.json      what it is, and the SHA-256 and size of every other member
    manifest.sig       Ed25519 signature of manifest.json, when it was signed
    model.onnx         pixels or token ids in, probabilities out
    model-int8.onnx    the same in 8 bits, when that was faster and as good
    tokenizer.json, report.json

A bundle comes from strangers: it is checked whole before anything in it is loaded, and nothing in it is unpickled.
Names are flat, members are exactly those of the manifest, and what is handed out is hashed again as it is read.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import re
import stat
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from outdo.errors import BundleError, MissingExtra
from outdo.storage import as_json, replacing

SCHEMA = 1
MANIFEST, SIGNATURE = "manifest.json", "manifest.sig"
MOST_MEMBERS, LARGEST, LARGEST_MANIFEST = 64, 2 << 30, 8 << 20  # an ONNX file cannot have more than 2 GB
SIGNATURE_BYTES = 64
CHUNK = 1 << 20
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
FACTS: dict[str, Any] = {"name": str, "version": str, "task": str, "kind": str, "classes": list,
                         "temperature": (int, float), "input": dict, "models": dict, "members": dict}
MORE_FACTS: dict[str, Any] = {"parity": dict, "expected": dict, "threshold": (int, float, type(None))}  # if at all


class Members(Protocol):
    """Where the members lie: in a zip or in a folder."""

    def sizes(self) -> dict[str, int]: ...
    def open(self, name: str) -> contextlib.AbstractContextManager[BinaryIO]: ...


class Bundle:
    """A bundle whose every member was found to be what the manifest says."""

    def __init__(self, path: Path, members: Members, about: Mapping[str, Any], signed: bool) -> None:
        self.path, self._members, self.about, self.signed = path, members, about, signed

    @classmethod
    def open(cls, path: str | Path, trust: str | Path | None = None) -> Bundle:
        """`trust` is a file with the public key (PEM) that must have signed it.

        Raises BundleError: nothing there, no bundle, a member damaged, changed, missing or too many, a name that
        leaves the folder, no signature by that key.
        """
        path = Path(path)
        members = _members(path)
        with _damaged(path):
            sizes = members.sizes()
            _check_names(path, sizes)
            manifest = _read(members, MANIFEST, min(sizes[MANIFEST], LARGEST_MANIFEST))
            if trust is not None:
                _check_signature(path, manifest, members, sizes, Path(trust))
            about = _facts(path, manifest)
            _check_members(path, members, sizes, about["members"])
        return cls(path, members, about, signed=trust is not None)

    def names(self) -> list[str]:
        """Members beside the manifest, sorted."""
        return sorted(self.about["members"])

    def read(self, name: str) -> bytes:
        """A member's bytes, hashed once more: what was checked on opening is what is used. Raises BundleError."""
        said = self.about["members"][name]
        with _damaged(self.path):
            data = _read(self._members, name, said["bytes"])
        if len(data) != said["bytes"] or hashlib.sha256(data).hexdigest() != said["sha256"]:
            raise BundleError(f"{self.path}: '{name}' was changed after the bundle was opened", fix="open it again")
        return data

    def json(self, name: str) -> Any:
        """A member that is JSON."""
        return _parsed(self.path, name, self.read(name))


def is_bundle(path: str | Path) -> bool:
    """Whether `path` is a bundle rather than a run; cheap, and no promise that it is a good one."""
    path = Path(path)
    return (path / MANIFEST).is_file() if path.is_dir() else path.is_file()


def write(path: Path, about: Mapping[str, Any], members: Mapping[str, bytes], key: Path | None = None) -> None:
    """Write a bundle, whole or not at all. `about` are the facts of the manifest, `key` signs it (PEM, Ed25519)."""
    listed = {name: {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)} for name, data in members.items()}
    whole = hashlib.sha256(as_json(listed).encode()).hexdigest()
    facts = {"schema": SCHEMA, **about, "version": whole[:12], "members": listed}
    manifest = (as_json(facts, indent=1) + "\n").encode()
    signature = {} if key is None else {SIGNATURE: signed(manifest, key)}
    with replacing(path) as draft, zipfile.ZipFile(draft, "w", zipfile.ZIP_STORED) as packed:
        for name, data in {MANIFEST: manifest, **signature, **members}.items():
            assert NAME.fullmatch(name), name
            info = zipfile.ZipInfo(name)  # of 1980: the same members make the same file
            info.external_attr = 0o644 << 16
            packed.writestr(info, data)


def in_memory(about: Mapping[str, Any], members: Mapping[str, bytes]) -> Bundle:
    """A bundle that is not written yet, to try it."""
    listed = {name: {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)} for name, data in members.items()}
    return Bundle(Path("(draft)"), _Memory(members), {"version": "draft", **about, "members": listed}, signed=False)


# ── signatures ───────────────────────────────────────────────────────────────────────────────────────────────────────


def signed(data: bytes, key: Path) -> bytes:
    """The Ed25519 signature (RFC 8032) by the private key in a PEM file. Raises BundleError."""
    crypto = _cryptography("signing a bundle")
    try:
        private = crypto.load_pem_private_key(key.read_bytes(), password=None)
    except OSError as error:
        raise BundleError(f"the key {key} cannot be read ({error.strerror})") from None
    except (ValueError, TypeError) as error:
        raise BundleError(f"{key} is no private key without a password ({error})", fix=MAKE_A_KEY) from None
    if not hasattr(private, "sign") or type(private).__name__ != "Ed25519PrivateKey":
        raise BundleError(f"{key} is a key of another sort", expected="an Ed25519 key", fix=MAKE_A_KEY)
    return bytes(private.sign(data))


def _check_signature(path: Path, manifest: bytes, members: Members, sizes: Mapping[str, int], trust: Path) -> None:
    crypto = _cryptography("checking a signature")
    if SIGNATURE not in sizes:
        raise BundleError(f"{path} is not signed", expected=f"a signature by the key of {trust}",
                          fix="export it with --sign KEY")
    try:
        public = crypto.load_pem_public_key(trust.read_bytes())
    except OSError as error:
        raise BundleError(f"the key {trust} cannot be read ({error.strerror})") from None
    except ValueError as error:
        raise BundleError(f"{trust} is no public key ({error})", fix=MAKE_A_KEY) from None
    if type(public).__name__ != "Ed25519PublicKey":
        raise BundleError(f"{trust} is a key of another sort", expected="an Ed25519 key", fix=MAKE_A_KEY)
    try:
        public.verify(_read(members, SIGNATURE, SIGNATURE_BYTES + 1), manifest)
    except Exception as error:
        if type(error).__name__ != "InvalidSignature":
            raise
        raise BundleError(f"{path} was not signed by the key of {trust}, or was changed since",
                          fix="do not use it; fetch it again from where it was made") from None


MAKE_A_KEY = ("make a pair of keys with: openssl genpkey -algorithm ed25519 -out key.pem, and "
              "openssl pkey -in key.pem -pubout -out key.pub")


def _cryptography(what: str) -> Any:
    try:
        from cryptography.hazmat.primitives import serialization
    except ImportError:
        raise MissingExtra(what, "cryptography", "serve") from None
    return serialization


# ── checks ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def _check_names(path: Path, sizes: Mapping[str, int]) -> None:
    if len(sizes) > MOST_MEMBERS:
        raise BundleError(f"{path} has {len(sizes)} members", expected=f"at most {MOST_MEMBERS}")
    for name, size in sizes.items():
        if not NAME.fullmatch(name):
            raise BundleError(f"{path}: a member is named {name!r}", expected="letters, digits, dots and dashes",
                              fix="do not trust this bundle")
        if size > (LARGEST_MANIFEST if name == MANIFEST else LARGEST):
            raise BundleError(f"{path}: '{name}' has {size:,} bytes, more than outdo reads")
    if MANIFEST not in sizes:
        raise BundleError(f"{path} is no bundle", expected=f"a member {MANIFEST}", found=", ".join(sorted(sizes)[:5]),
                          fix="make one with: outdo export RUN BUNDLE")


def _facts(path: Path, manifest: bytes) -> dict[str, Any]:
    about = _parsed(path, MANIFEST, manifest)
    if not isinstance(about, dict) or about.get("schema") != SCHEMA:
        raise BundleError(f"{path} was written by another version of outdo", expected=f"schema {SCHEMA}",
                          found=f"schema {about.get('schema') if isinstance(about, dict) else None}",
                          fix="export it again with this version")
    there = FACTS | {name: kind for name, kind in MORE_FACTS.items() if name in about}
    wrong = next((name for name, kind in there.items() if not isinstance(about.get(name), kind)), None)
    if wrong is not None or about["kind"] not in ("image", "text") or not NAME.fullmatch(about["name"]):
        raise BundleError(f"{path}: the manifest does not say what it must", found=f"'{wrong or 'kind'}' as it is")
    if not all(isinstance(name, str) for name in about["classes"]) or len(about["classes"]) < 2:
        raise BundleError(f"{path}: the manifest's classes are not names")
    return about


def _check_members(path: Path, members: Members, sizes: Mapping[str, int], said: Mapping[str, Any]) -> None:
    there, wanted = set(sizes) - {MANIFEST, SIGNATURE}, set(said)
    if there != wanted:
        raise BundleError(f"{path} does not hold what its manifest says",
                          expected=", ".join(sorted(wanted)), found=", ".join(sorted(there)) or "nothing else",
                          fix="do not trust this bundle; fetch it again from where it was made")
    for name, facts in said.items():
        if not isinstance(facts, dict) or sizes[name] != facts.get("bytes") or _hash(members, name) != facts["sha256"]:
            raise BundleError(f"{path}: '{name}' is not what the manifest says: damaged or changed",
                              fix="fetch the bundle again from where it was made")


def _parsed(path: Path, name: str, data: bytes) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{path}: '{name}' is not JSON ({error})", fix="fetch it again") from None


def _read(members: Members, name: str, most: int) -> bytes:
    with members.open(name) as opened:
        return opened.read(most)


def _hash(members: Members, name: str) -> str:
    found = hashlib.sha256()
    with members.open(name) as opened:
        while part := opened.read(CHUNK):
            found.update(part)
    return found.hexdigest()


@contextlib.contextmanager
def _damaged(path: Path) -> Iterator[None]:
    """What reading raises, in words."""
    try:
        yield
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, KeyError) as error:
        raise BundleError(f"{path} is damaged ({error})", fix="fetch it again from where it was made") from None
    except OSError as error:
        raise BundleError(f"{path} cannot be read ({error.strerror or error})") from None


# ── where members lie ────────────────────────────────────────────────────────────────────────────────────────────────


def _members(path: Path) -> Members:
    if path.is_dir():
        return _Folder(path)
    if not path.exists():
        raise BundleError(f"there is no bundle {path}", fix="check the path, or make one: outdo export RUN BUNDLE")
    with _damaged(path):
        try:
            return _Zip(path)
        except (zipfile.BadZipFile, ValueError) as error:
            raise BundleError(f"{path} is no bundle ({error})", expected="a file that `outdo export` wrote") from None


class _Zip:
    """Members are stored as they are, so that their sizes are what they say and nothing can grow on unpacking."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.zip = zipfile.ZipFile(path)
        self.infos = self.zip.infolist()

    def sizes(self) -> dict[str, int]:
        found = {info.filename: info.file_size for info in self.infos}
        odd = next((i.filename for i in self.infos if i.compress_type != zipfile.ZIP_STORED or i.flag_bits & 1
                    or i.file_size != i.compress_size or i.orig_filename != i.filename), None)
        if odd is not None:
            raise BundleError(f"{self.path}: '{odd}' is compressed or locked", expected="members stored as they are",
                              fix="do not trust this bundle")
        if len(found) != len(self.infos) or sum(found.values()) > os.path.getsize(self.path):
            raise BundleError(f"{self.path}: members overlap or come twice", fix="do not trust this bundle")
        return found

    def open(self, name: str) -> Any:
        return self.zip.open(name)


class _Memory:
    def __init__(self, members: Mapping[str, bytes]) -> None:
        self.members = members

    def sizes(self) -> dict[str, int]:
        return {name: len(data) for name, data in self.members.items()}

    def open(self, name: str) -> Any:
        return io.BytesIO(self.members[name])


class _Folder:
    """Regular files only: a link could lead anywhere."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def sizes(self) -> dict[str, int]:
        found = {}
        with os.scandir(self.path) as entries:
            for entry in entries:
                status = entry.stat(follow_symlinks=False)
                if not stat.S_ISREG(status.st_mode):
                    raise BundleError(f"{self.path}: '{entry.name}' is a link or a folder", expected="files only")
                found[entry.name] = status.st_size
        return found

    def open(self, name: str) -> Any:
        return open(self.path / name, "rb", opener=_no_links)


def _no_links(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
