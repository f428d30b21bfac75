"""API keys: made by us, shown once, kept as salted hashes.

A key is `outdo_ID_SECRET` with 256 random bits of secret. Slow password hashes protect what people choose; nobody
guesses 256 bits, and a slow hash would let strangers keep the machine busy with wrong keys. So: BLAKE2b, salted.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import hmac
import os
import re
import secrets
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from outdo.errors import RunError, UserError, nearest
from outdo.storage import read_json, write_json

_KEY = re.compile(r"outdo_([0-9a-f]{12})_([A-Za-z0-9_-]{43})")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True)
class Key:
    """One line of the key file."""

    name: str
    id: str
    salt: str
    hash: str
    created: str
    rate: float | None = None  # inputs a second; None for the server's own limit


class KeyFile:
    """The keys of a server, in a JSON file that only its owner may read. Changes are seen within a second."""

    CHECK_SECONDS = 1.0

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self._keys: dict[str, Key] = {}
        self._stamp: tuple[int, int, int] | None = None
        self._looked = -1e9

    def list(self) -> list[Key]:
        return sorted(self._read().values(), key=lambda key: key.name)

    def add(self, name: str, rate: float | None = None) -> str:
        """Make a key and return it, the only time it is seen. Raises UserError for a name that is taken or unfit."""
        if not _NAME.fullmatch(name):
            raise UserError(f"'{name}' is no name for a key", expected="letters, digits, dots, dashes and underscores")
        with self._changing() as keys:
            if name in {key.name for key in keys.values()}:
                raise UserError(f"there is a key named '{name}' already", fix="revoke it first, or choose another name")
            id, secret, salt = secrets.token_hex(6), secrets.token_urlsafe(32), secrets.token_hex(16)
            keys[id] = Key(name, id, salt, _hash(secret, salt), datetime.now(UTC).isoformat(timespec="seconds"), rate)
        return f"outdo_{id}_{secret}"

    def revoke(self, name: str) -> None:
        """Raises UserError when there is no such key."""
        with self._changing() as keys:
            found = [id for id, key in keys.items() if key.name == name]
            if not found:
                raise UserError(f"no key named '{name}'", fix=nearest(name, [key.name for key in keys.values()]))
            del keys[found[0]]

    def who(self, given: str) -> Key | None:
        """The key that a client showed; None when there is no such key. Takes as long for a wrong secret as for a
        right one."""
        self._refresh()
        match = _KEY.fullmatch(given)
        key = self._keys.get(match[1]) if match else None
        expected = key.hash if key else "0" * 64
        right = hmac.compare_digest(_hash(match[2] if match else "", key.salt if key else "00"), expected)
        return key if key and right else None

    def _refresh(self) -> None:
        if time.monotonic() - self._looked < self.CHECK_SECONDS:
            return
        self._looked = time.monotonic()
        stamp = self._stamp_now()
        if stamp != self._stamp:
            self._keys, self._stamp = self._read(), stamp

    def _stamp_now(self) -> tuple[int, int, int] | None:
        with contextlib.suppress(FileNotFoundError):
            found = self.path.stat()
            return found.st_mtime_ns, found.st_size, found.st_ino
        return None

    def _read(self) -> dict[str, Key]:
        if not self.path.exists():
            return {}
        try:
            return {entry["id"]: Key(**entry) for entry in read_json(self.path)["keys"]}
        except (KeyError, TypeError):
            raise RunError(f"{self.path} is no key file", fix="name the file that `outdo keys add` wrote") from None

    @contextlib.contextmanager
    def _changing(self) -> Iterator[dict[str, Key]]:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with open(self.path.with_name(self.path.name + ".lock"), "a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            keys = self._read()
            yield keys
            before = os.umask(0o077)
            try:
                write_json(self.path, {"keys": [asdict(key) for key in keys.values()]})
            finally:
                os.umask(before)


def _hash(secret: str, salt: str) -> str:
    return hashlib.blake2b(secret.encode(), salt=bytes.fromhex(salt)[:16], digest_size=32).hexdigest()
