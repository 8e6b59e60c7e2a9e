"""Snapshots: packed project folders, streamed in and out, named by their SHA-256."""

from collections.abc import Iterator
from typing import Annotated

import anyio.from_thread
from fastapi import Query
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from sweeps.api.rights import Right
from sweeps.api.routing import Routes, Services, Use
from sweeps.api.shapes import SCHEMA, SnapshotAnswer
from tracking.downloads import file_response
from tracking.errors import ArtifactsAway, InvalidValue, NotFound, TooLarge

routes = Routes("snapshots")


def require_snapshot(services: Services, digest: str) -> None:
    """Make sure that a snapshot is stored: its row and its bytes. Whoever has it uploads what lacks either.

    Raises:
        NotFound: it is not.
    """
    if not (services.snapshots.has(digest) and services.store.snapshots.exists(digest)):
        raise NotFound(f"Snapshot {digest} is not stored here.", hint="Upload it first.")


@routes.put("/snapshots/{digest}", Right.WRITE, answers=SnapshotAnswer)
async def put_snapshot(services: Use, request: Request, digest: str, n_files: Annotated[int, Query(ge=0)] = 0) -> SnapshotAnswer:
    """Store a snapshot; its bytes must have this digest. Storing it again changes nothing."""
    limit = services.settings.snapshot_max_bytes
    length = request.headers.get("content-length", "0")
    if not length.isdigit():
        raise InvalidValue("Content-Length is not a number.")
    if int(length) > limit:
        raise TooLarge(f"The snapshot is over {limit} bytes.", hint="Leave files out by a .sweepignore.")
    size_bytes = await run_in_threadpool(_store, services, request, digest, n_files)
    return SnapshotAnswer(schema=SCHEMA, digest=digest, size_bytes=size_bytes)


def _store(services: Services, request: Request, digest: str, n_files: int) -> int:
    size_bytes = services.snapshots.put(digest, _chunks(request), max_bytes=services.settings.snapshot_max_bytes)
    services.store.snapshots.add(digest, size_bytes, n_files)
    return size_bytes


def _chunks(request: Request) -> Iterator[bytes]:
    """The body, read by the event loop, handed to this thread piece by piece."""
    stream = request.stream()

    async def following() -> bytes | None:
        return await anext(stream, None)

    while (chunk := anyio.from_thread.run(following)) is not None:
        yield chunk


@routes.head("/snapshots/{digest}", Right.READ)
def has_snapshot(services: Use, digest: str) -> Response:
    """Whether a snapshot is stored: 200, or 404."""
    require_snapshot(services, digest)
    return Response()


@routes.get("/snapshots/{digest}", Right.READ, answers=None)
def get_snapshot(services: Use, request: Request, digest: str) -> Response:
    """A snapshot's archive (tar.gz), streamed; 503 if it was stored and can't be found."""
    if not services.snapshots.has(digest) and services.store.snapshots.exists(digest):
        # Whoever asks for it can't upload it, and must not take its trial's code for lost.
        raise ArtifactsAway(
            f"Snapshot {digest} is stored, and its file can't be found just now.",
            hint="Check the server's SWEEP_ARTIFACT_ROOT. A snapshot that is gone for good comes back when its folder is submitted again.",
        )
    require_snapshot(services, digest)
    return file_response(request, services.snapshots.open(digest), media_type="application/gzip", headers={})
