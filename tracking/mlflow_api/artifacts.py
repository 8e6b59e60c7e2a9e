"""`artifacts/list`, and the artifact proxy: files go through the server, in pieces, below their run's own folder."""

import mimetypes
import posixpath
from collections.abc import AsyncIterator
from typing import IO, Final
from urllib.parse import quote

import msgspec
from msgspec import Struct
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from tracking.artifacts import CHUNK_BYTES, Location, Upload, parse_location, run_folder, run_uri, safe_path
from tracking.errors import InvalidValue, NotFound, TooLarge
from tracking.mlflow_api.endpoints import ATTEMPT, READ, Caller, Endpoint, Services, caller_of, make_route
from tracking.mlflow_api.wire import RunRef


class ListArtifacts(RunRef, frozen=True, kw_only=True):
    """Query of artifacts/list."""

    path: str | None = None


class FileInfo(Struct, frozen=True, omit_defaults=True):
    """A file or folder."""

    path: str
    is_dir: bool
    file_size: int | None = None


class FilesAnswer(Struct, frozen=True):
    """What a folder holds."""

    files: list[FileInfo]


class ListAnswer(Struct, frozen=True):
    """What a folder of a run holds, and where the run's artifacts are."""

    root_uri: str
    files: list[FileInfo]


class SearchLoggedModels(Struct, frozen=True):
    """Body of logged-models/search; whatever it asks for, the answer is the same."""


class LoggedModelsAnswer(Struct, frozen=True):
    """A page of logged models."""

    models: list[str]


def list_artifacts(caller: Caller, asked: ListArtifacts) -> ListAnswer:
    """What a run's folder holds, paths relative to the run."""
    run = caller.store.runs.get(asked.named)
    below = safe_path(asked.path or "")
    folder = posixpath.join(run_folder(run.experiment_id, run.run_id), below)
    return ListAnswer(run_uri(run.experiment_id, run.run_id), _files(caller, folder, below))


def search_logged_models(_: Caller, __: SearchLoggedModels) -> LoggedModelsAnswer:
    """No logged models, for none can be made here: 3.x clients ask before they list a folder of a run, and need an answer."""
    return LoggedModelsAnswer([])


ENDPOINTS: Final = (
    Endpoint("GET", "/artifacts/list", READ, ListArtifacts, list_artifacts),
    Endpoint("POST", "/logged-models/search", READ, SearchLoggedModels, search_logged_models),
)


def proxy_routes(services: Services, prefix: str) -> list[Route]:
    """List, upload and download below `prefix`; MLflow's clients turn `mlflow-artifacts:` URIs into these."""

    async def list_folder(request: Request) -> Response:
        return await run_in_threadpool(_list_folder, services, request)

    async def download(request: Request) -> Response:
        return await run_in_threadpool(_download, services, request)

    async def upload(request: Request) -> Response:
        return await _upload(services, request)

    file = prefix + "/{path:path}"
    return [
        make_route(prefix, "GET", READ, list_folder),
        make_route(file, "GET", READ, download),
        make_route(file, "PUT", ATTEMPT, upload),
    ]


def _list_folder(services: Services, request: Request) -> Response:
    caller = caller_of(services, request)
    folder = safe_path(request.query_params.get("path", ""))
    _located(folder)
    return Response(msgspec.json.encode(FilesAnswer(_files(caller, folder, ""))), media_type="application/json")


def _download(services: Services, request: Request) -> Response:
    caller = caller_of(services, request)
    path = safe_path(request.path_params["path"])
    _located(path)
    file, size_bytes = caller.artifacts.open(path)
    name = posixpath.basename(path)
    headers = {
        "Content-Length": str(size_bytes),
        # Whatever a run stored, a browser must not run it as this server's page.
        "Content-Disposition": f"attachment; filename*=UTF-8''{quote(name, safe='')}",
        "X-Content-Type-Options": "nosniff",
        "Content-Security-Policy": "sandbox; default-src 'none'",
    }
    kind = mimetypes.guess_type(name)[0] or "application/octet-stream"
    return StreamingResponse(_pieces(file), headers=headers, media_type=kind)


async def _pieces(file: IO[bytes]) -> AsyncIterator[bytes]:
    with file:
        while piece := await run_in_threadpool(file.read, CHUNK_BYTES):
            yield piece


async def _upload(services: Services, request: Request) -> Response:
    path = safe_path(request.path_params["path"])
    location = _located(path)
    max_bytes = services.settings.upload_max_bytes
    if int(request.headers.get("content-length", "0")) > max_bytes:
        raise TooLarge(f"The artifact is over {max_bytes} bytes.", hint="SWEEP_UPLOAD_MAX_BYTES sets the limit.")
    await run_in_threadpool(_check_may_write, services, request, location)
    with await run_in_threadpool(services.artifacts.upload, path, max_bytes=max_bytes) as upload:
        await _receive(request, upload)
        # An upload may take longer than its attempt lives: what a superseded attempt sends never appears (I3).
        await run_in_threadpool(_check_may_write, services, request, location)
        await run_in_threadpool(upload.commit)
    return Response(b"{}", media_type="application/json")


async def _receive(request: Request, upload: Upload) -> None:
    pending = bytearray()
    async for part in request.stream():
        pending += part
        if len(pending) >= CHUNK_BYTES:
            await run_in_threadpool(upload.write, bytes(pending))
            pending.clear()
    await run_in_threadpool(upload.write, bytes(pending))


def _check_may_write(services: Services, request: Request, location: Location) -> None:
    """Refuse an upload whose sender may not write to the run, by the same rule as metrics: an empty write tells.

    Raises:
        NotFound: there is no such run in that experiment.
        NotAllowed: the run is managed, and the sender is not its current attempt; or is another run's attempt.
    """
    caller = caller_of(services, request)
    run = caller.store.runs.get(location.run_id)
    if run.experiment_id != location.experiment_id:
        raise NotFound(f"Run {location.run_id} is not in experiment {location.experiment_id}.")
    caller.store.runs.log_params(location.run_id, {}, caller.fence)


def _located(path: str) -> Location:
    location = parse_location(path)
    if location is None:
        raise InvalidValue(f"The artifact path {path!r} is not below a run's folder: <experiment_id>/<run_id>/artifacts.")
    return location


def _files(caller: Caller, folder: str, below: str) -> list[FileInfo]:
    return [FileInfo(posixpath.join(below, info.path), info.is_folder, info.size_bytes) for info in caller.artifacts.list(folder)]
