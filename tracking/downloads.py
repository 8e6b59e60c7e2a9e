"""A stored file as an answer: in pieces, from where the client asks, never as a page of this server's own."""

import hashlib
import mimetypes
import re
import unicodedata
from collections.abc import AsyncIterator, Mapping
from datetime import UTC
from email.utils import format_datetime
from typing import Final
from urllib.parse import quote

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from tracking.artifacts import CHUNK_BYTES, StoredFile

# MLflow's pages show these, whatever a machine's own table of types says of them.
_TEXTS: Final = frozenset(
    "txt log err cfg conf cnf cf ini properties prop hocon toml yaml yml xml json js py py3 csv tsv md rst ipynb MLmodel MLproject".split()
)
_TOKEN: Final = re.compile(r"[\w!#$%&'*+\-.^`|~]+", re.ASCII)
_RANGE: Final = re.compile(r"bytes=(\d{0,18})-(\d{0,18})", re.ASCII)


class UnsatisfiableRangeError(Exception):
    """None of the bytes that are asked for are there."""


def media_type_of(name: str) -> str:
    """The type of a file by its name, as MLflow has it."""
    stem, _, extension = name.rpartition(".")
    if (extension if stem else name) in _TEXTS:
        return "text/plain"
    return mimetypes.guess_type(name)[0] or "application/octet-stream"


def attachment(name: str) -> str:
    """A Content-Disposition that makes a browser store a file, as MLflow writes it (RFC 6266)."""
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode() or "download"
    written = plain if _TOKEN.fullmatch(plain) else '"' + plain.replace("\\", "\\\\").replace('"', '\\"') + '"'
    exact = "" if name.isascii() else f"; filename*=UTF-8''{quote(name, safe='!#$&+-.^_`|~')}"
    return f"attachment; filename={written}{exact}"


def asked_range(text: str, size_bytes: int) -> range | None:
    """The bytes that a Range header asks for; None for all, also if it asks for several ranges or can't be understood (RFC 9110, 14.2).

    Raises:
        UnsatisfiableRangeError: the file has none of them.
    """
    found = _RANGE.fullmatch(text.strip())
    if found is None or found.groups() == ("", ""):
        return None
    first, last = found.groups()
    if not first:
        asked = range(max(0, size_bytes - int(last)), size_bytes)
    elif last and int(last) < int(first):
        return None
    else:
        asked = range(int(first), min(int(last) + 1, size_bytes) if last else size_bytes)
    if not asked:
        raise UnsatisfiableRangeError
    return asked


def file_response(request: Request, file: StoredFile, *, media_type: str, headers: Mapping[str, str]) -> Response:
    """The answer to GET or HEAD; it closes the file when it is sent, or the client gone."""
    etag = f'"{hashlib.sha256(file.version.encode()).hexdigest()[:32]}"'
    told = {**headers, "Accept-Ranges": "bytes", "ETag": etag, "Cache-Control": "no-cache", "Content-Type": media_type}
    if file.modified_at is not None:
        told["Last-Modified"] = format_datetime(file.modified_at.astimezone(UTC), usegmt=True)
    if request.method == "HEAD":
        file.content.close()
        return Response(headers={**told, "Content-Length": str(file.size_bytes)})
    # Whoever goes on with a download wants the same file's rest, or else the whole of the new one.
    is_same = request.headers.get("if-range", etag) in {etag, told.get("Last-Modified")}
    try:
        asked = asked_range(request.headers.get("range", ""), file.size_bytes) if is_same else None
    except UnsatisfiableRangeError:
        file.content.close()
        return Response(status_code=416, headers={"Content-Range": f"bytes */{file.size_bytes}"})
    if asked is None:
        return _FileResponse(file, range(file.size_bytes), 200, told)
    return _FileResponse(file, asked, 206, {**told, "Content-Range": f"bytes {asked.start}-{asked.stop - 1}/{file.size_bytes}"})


class _FileResponse(StreamingResponse):
    """Some bytes of a file."""

    def __init__(self, file: StoredFile, asked: range, status_code: int, headers: Mapping[str, str]) -> None:
        super().__init__(self._pieces(asked), status_code, {**headers, "Content-Length": str(len(asked))})
        self._file = file

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send them."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._file.content.close()

    async def _pieces(self, asked: range) -> AsyncIterator[bytes]:
        await run_in_threadpool(self._file.content.seek, asked.start)
        left = len(asked)
        while left and (piece := await run_in_threadpool(self._file.content.read, min(left, CHUNK_BYTES))):
            left -= len(piece)
            yield piece
