"""What `POST /predict` takes: an image as it is, a form with files or texts, JSON with texts."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any

from starlette.datastructures import Headers, UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException, MultiPartParser

from outdo.data.images import RefusedImage, dimensions
from outdo.errors import DataError
from outdo.serving.limits import Limits, off_loop, parse_json


async def read_inputs(body: bytes, headers: Mapping[str, str], kind: str, limits: Limits) -> Sequence[bytes | str]:
    """Encoded images, or texts. Raises HTTPException 400 or 415."""
    media = headers.get("content-type", "").partition(";")[0].strip().lower()
    if media == "multipart/form-data":
        inputs: list[Any] = await _form(body, headers, kind, limits)
    elif kind == "text":
        if media != "application/json":
            raise HTTPException(415, "texts are sent as JSON, {\"text\": \"...\"} or {\"texts\": [...]}, or as a form")
        inputs = _texts(await off_loop(len(body), parse_json, body, limits.depth))
    else:
        if media in ("application/json", "application/x-www-form-urlencoded") or media.startswith("text/"):
            raise HTTPException(415, "an image is sent as it is, as image/jpeg or the like, or as a file of a form")
        inputs = [body]
    if not 1 <= len(inputs) <= limits.items:
        raise HTTPException(400, f"a request has 1 to {limits.items} inputs; found {len(inputs)}")
    return inputs


def check(data: bytes | str, limits: Limits) -> None:
    """Raises DataError for a text that is too long or an image of too many pixels, before anything is decoded."""
    if isinstance(data, str):
        if len(data) > limits.characters:
            raise DataError(f"a text of {len(data)} characters", expected=f"at most {limits.characters}")
        return
    try:
        wide, high = dimensions(data)
    except RefusedImage as reason:
        raise DataError(f"the image cannot be read: {reason}") from None
    if wide * high > limits.pixels:
        raise DataError(f"an image of {wide} x {high} pixels", expected=f"at most {limits.pixels} of them")


def _texts(said: Any) -> list[str]:
    if isinstance(said, dict):
        if set(said) == {"text"} and isinstance(said["text"], str):
            return [_clean(said["text"])]
        texts = said.get("texts")
        if set(said) == {"texts"} and isinstance(texts, list) and all(isinstance(text, str) for text in texts):
            return [_clean(text) for text in texts]
    raise HTTPException(400, "expected {\"text\": \"...\"} or {\"texts\": [\"...\", ...]}")


def _clean(text: str) -> str:
    """JSON may hold half a surrogate pair, which is no character."""
    return text.encode("utf-8", "replace").decode()


async def _form(body: bytes, headers: Mapping[str, str], kind: str, limits: Limits) -> list[Any]:
    async def stream() -> AsyncGenerator[bytes, None]:
        yield body

    parser = MultiPartParser(Headers(headers), stream(), max_files=limits.items, max_fields=limits.fields,
                             max_part_size=limits.characters * 4)
    parser.spool_max_size = len(body) + 1  # it is in memory already, and shall not be written to a disk
    try:
        form = await parser.parse()
    except MultiPartException as error:
        raise HTTPException(400, f"the form cannot be read: {error.message}") from None
    try:
        if kind == "text":
            return [_clean(value) for value in form.getlist("text") if isinstance(value, str)]
        return [await value.read() for _, value in form.multi_items() if isinstance(value, UploadFile)]
    finally:
        await form.close()
