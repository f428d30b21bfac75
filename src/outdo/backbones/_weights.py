"""Finding weights on disk or on the hub, and refusing what is not safetensors."""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from outdo.errors import BackboneError, MissingExtra

HUB_SECONDS = 5.0  # how long the hub may take to answer before it counts as unreachable


def hash_tensors(tensors: Mapping[str, torch.Tensor]) -> str:
    """sha256 over names, types, shapes and raw bytes, in order."""
    whole = hashlib.sha256()
    for name, tensor in tensors.items():
        whole.update(f"{name}\x1f{tensor.dtype}\x1f{tuple(tensor.shape)}\x1e".encode())
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        whole.update(flat.view(torch.uint8).numpy().data)
    return whole.hexdigest()


def hash_file(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def verify(path: Path, sha256: str) -> Path:
    """The same path, once its content is the one that is pinned. Raises BackboneError."""
    found = hash_file(path)
    if found != sha256:
        raise BackboneError(f"{path} is not the weights file that outdo knows", expected=f"sha256 {sha256}",
                            found=found, fix="reinstall the package that it came with")
    return path


def package_folder(package: str, feature: str, extra: str) -> Path:
    """Where an installed package keeps its files, without importing it. Raises MissingExtra."""
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise MissingExtra(feature, package.replace("_", "-"), extra)
    return Path(spec.origin).parent


def local_file(path: Path) -> Path:
    """The safetensors file that `path` is, or holds as a folder. Raises BackboneError."""
    file = path / "model.safetensors" if path.is_dir() else path
    if not file.exists():
        raise BackboneError(f"there are no weights at {file}", fix="give a .safetensors file, or the folder of one")
    if file.suffix != ".safetensors":
        raise BackboneError(f"{file.name} is not a safetensors file", expected="weights as .safetensors",
                            fix="pickled weights can run code when loaded: convert with safetensors.torch.save_file")
    return file


def hub_file(repository: str, filename: str, instead: str) -> Path:
    """A file from the hub's cache, else from the hub. Raises BackboneError within seconds when neither answers."""
    import huggingface_hub
    from huggingface_hub import errors

    try:
        return Path(huggingface_hub.hf_hub_download(repository, filename, local_files_only=True))
    except errors.LocalEntryNotFoundError:
        pass
    reason = _hub_is_silent()
    if reason is None:
        try:
            return Path(huggingface_hub.hf_hub_download(repository, filename, etag_timeout=HUB_SECONDS))
        except (errors.HfHubHTTPError, errors.LocalEntryNotFoundError, OSError) as error:
            reason = str(error).strip().splitlines()[0]
    raise BackboneError(f"{filename} of '{repository}' is not in the hub's cache, and the hub could not give it "
                        f"({reason})", fix=instead)


def _hub_is_silent() -> str | None:
    """Why not even to try the hub: asking it costs many retries when there is no network."""
    import socket
    from urllib.parse import urlparse

    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set"
    if _proxied():
        return None
    endpoint = urlparse(constants.ENDPOINT)
    port = endpoint.port or (443 if endpoint.scheme == "https" else 80)
    try:
        socket.create_connection((endpoint.hostname or "", port), timeout=HUB_SECONDS).close()
    except OSError as error:
        return f"no connection to {endpoint.hostname}: {error}"
    return None


def _proxied() -> bool:
    from urllib.request import getproxies

    return any(scheme in getproxies() for scheme in ("http", "https", "all"))


def overriding(defaults: Mapping[str, Any], said: Mapping[str, Any] | None) -> dict[str, Any]:
    """Defaults with what a run recorded put over them."""
    return {**defaults, **(said or {})}
