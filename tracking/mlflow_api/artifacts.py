"""`artifacts/list`, and the artifact proxy: files go through the server, in pieces, below the folder of their own run or logged model.

Where the files are in S3, clients that ask for it send and read large ones past the server, by URLs that it signs.
"""

import posixpath
from functools import partial
from typing import Annotated, Final

import msgspec
from anyio import CancelScope
from msgspec import Meta, Struct
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from tracking.artifacts import CHUNK_BYTES, Location, parse_location, run_folder, run_uri, safe_path
from tracking.downloads import attachment, file_response, media_type_of
from tracking.errors import InvalidValue, NotFound, NotNow, TooLarge
from tracking.mlflow_api.endpoints import ATTEMPT, READ, Caller, Endpoint, Services, caller_of, json_routes, make_route
from tracking.mlflow_api.errors import NotSupported
from tracking.mlflow_api.wire import Required, RunRef
from tracking.records import LoggedModel, Run
from tracking.s3 import MAX_PARTS, Part
from tracking.store.paging import decode_token, encode_token
from tracking.uploads import Upload

PAGE_FILES: Final = 10_000
"""How many names `artifacts/list` tells at once: more than a page of MLflow's shows, and less than a server holds for each of many."""

_SIGNED_MOST_S: Final = 604_800


class ListArtifacts(RunRef, frozen=True, kw_only=True):
    """Query of artifacts/list."""

    path: str | None = None
    page_token: str = ""


class FileInfo(Struct, frozen=True, omit_defaults=True):
    """A file or folder."""

    path: str
    is_dir: bool
    file_size: int | None = None


class FilesAnswer(Struct, frozen=True):
    """What a folder holds."""

    files: list[FileInfo]


class ListAnswer(Struct, frozen=True, omit_defaults=True):
    """What a folder of a run holds, and where the run's artifacts are."""

    root_uri: str
    files: list[FileInfo]
    next_page_token: str = ""


class CreateParts(Struct, frozen=True, kw_only=True):
    """Body of mpu/create: `path` is the file's name, in the folder that the request's path names."""

    artifact_path: str = ""
    path: Required
    num_parts: Annotated[int, Meta(ge=1, le=MAX_PARTS)] = 1


class CompleteParts(Struct, frozen=True, kw_only=True):
    """Body of mpu/complete."""

    artifact_path: str = ""
    path: Required
    upload_id: Required
    parts: Annotated[list[Part], Meta(min_length=1, max_length=MAX_PARTS)]


class AbortParts(Struct, frozen=True, kw_only=True):
    """Body of mpu/abort."""

    artifact_path: str = ""
    path: Required
    upload_id: Required


class Credential(Struct, frozen=True):
    """Where one part goes."""

    url: str
    part_number: int
    headers: dict[str, str] = {}


class PartsAnswer(Struct, frozen=True):
    """An upload in parts."""

    upload_id: str
    credentials: list[Credential]


class ReadDirectly(Struct, frozen=True):
    """Query of presigned."""

    artifact_path: str = ""


class SignedAnswer(Struct, frozen=True):
    """Where a file can be read."""

    url: str
    headers: dict[str, str]
    file_size: int


class SignUpload(Struct, frozen=True):
    """Body of artifacts/presigned-upload-url."""

    path: Required
    run_id: str = ""
    model_id: str = ""
    expiration: int | None = None


class SignDownload(Struct, frozen=True):
    """Body of artifacts/presigned-download-url."""

    path: Required
    run_id: Required
    expiration: int = 900


def list_artifacts(caller: Caller, asked: ListArtifacts) -> ListAnswer:
    """What a run's folder holds, paths relative to the run, by name and in pages if there is much."""
    run = caller.store.runs.get(asked.named)
    refuse_remote(run.artifact_root)
    below = safe_path(asked.path or "")
    folder = posixpath.join(run_folder(run.experiment_id, run.run_id), below)
    uri = run_uri(run.experiment_id, run.run_id)
    after = decode_token(asked.page_token, folder)
    files = list_files(caller, folder, below)
    match after:
        case None:
            pass
        case [str(last)]:
            files = [file for file in files if file.path > last]
        case _:
            raise InvalidValue("Invalid page token.")
    page = files[:PAGE_FILES]
    return ListAnswer(uri, page, encode_token(folder, [page[-1].path]) if len(files) > PAGE_FILES else "")


def sign_upload(caller: Caller, asked: SignUpload) -> None:
    """Refuse what MLflow offers for artifacts that only clients open."""
    if bool(asked.run_id) == bool(asked.model_id):
        raise InvalidValue("Exactly one of run_id and model_id must be provided.")
    owner: Run | LoggedModel = caller.store.runs.get(asked.run_id) if asked.run_id else caller.store.logged_models.get(asked.model_id)
    refuse_remote(owner.artifact_root)
    raise InvalidValue(
        "Presigned upload is not supported for proxied artifact storage (artifact URI scheme: mlflow-artifacts). "
        "This endpoint requires a direct cloud storage artifact URI."
    )


def sign_download(caller: Caller, asked: SignDownload) -> None:
    """The same for reading."""
    if not 1 <= asked.expiration <= _SIGNED_MOST_S:
        raise InvalidValue(f"expiration must be between 1 and {_SIGNED_MOST_S} seconds (got {asked.expiration}).")
    refuse_remote(caller.store.runs.get(asked.run_id).artifact_root)
    raise InvalidValue(
        "Presigned download is not supported for runs with proxied artifact storage (artifact URI scheme: mlflow-artifacts). "
        "This endpoint requires a run with a direct cloud storage artifact URI."
    )


ENDPOINTS: Final = (
    Endpoint("GET", "/artifacts/list", READ, ListArtifacts, list_artifacts),
    Endpoint("POST", "/artifacts/presigned-upload-url", READ, SignUpload, sign_upload),
    Endpoint("POST", "/artifacts/presigned-download-url", READ, SignDownload, sign_download),
)


def proxy_routes(services: Services, prefix: str) -> list[Route]:
    """List, upload, download and delete below `prefix`; MLflow's clients turn `mlflow-artifacts:` URIs into these."""

    async def list_folder(request: Request) -> Response:
        return await run_in_threadpool(_list_folder, services, request)

    async def download(request: Request) -> Response:
        return await run_in_threadpool(_download, services, request)

    async def upload(request: Request) -> Response:
        return await _upload(services, request)

    async def delete(request: Request) -> Response:
        return await run_in_threadpool(_delete, services, request)

    file = prefix + "/artifacts/{path:path}"
    folder = "/{artifact_path:path}"
    parts = (
        Endpoint("POST", "/mpu/create" + folder, ATTEMPT, CreateParts, create_parts),
        Endpoint("POST", "/mpu/complete" + folder, ATTEMPT, CompleteParts, partial(complete_parts, services.settings.upload_max_bytes)),
        Endpoint("POST", "/mpu/abort" + folder, ATTEMPT, AbortParts, abort_parts),
        Endpoint("GET", "/presigned" + folder, READ, ReadDirectly, sign_file),
    )
    return [
        make_route(prefix + "/artifacts", "GET", READ, list_folder),
        make_route(file, "GET", READ, download),
        make_route(file, "PUT", ATTEMPT, upload),
        make_route(file, "DELETE", ATTEMPT, delete),
        *json_routes(services, prefix, parts),
    ]


def _list_folder(services: Services, request: Request) -> Response:
    caller = caller_of(services, request)
    folder = safe_path(request.query_params.get("path", ""))
    location = _located(folder)
    files = list_files(caller, folder, "")
    if not files:
        _explain_absence(caller, location)
    return _json(FilesAnswer(files))


def _download(services: Services, request: Request) -> Response:
    caller = caller_of(services, request)
    path = safe_path(request.path_params["path"])
    location = _located(path)
    try:
        file = caller.artifacts.open(path)
    except NotFound:
        _explain_absence(caller, location)
        raise
    name = posixpath.basename(path)
    # Whatever a run stored, a browser must not run it as this server's page.
    headers = {"Content-Disposition": attachment(name), "X-Content-Type-Options": "nosniff", "Content-Security-Policy": "sandbox; default-src 'none'"}
    return file_response(request, file, media_type=media_type_of(name), headers=headers)


async def _upload(services: Services, request: Request) -> Response:
    named = request.path_params["path"]
    path = safe_path(named)
    location = _located(path)
    if named.endswith("/"):
        raise InvalidValue("Artifact path must include a filename (cannot end with '/').")
    max_bytes = services.settings.upload_max_bytes
    if int(request.headers.get("content-length", "0")) > max_bytes:
        raise TooLarge(f"The artifact is over {max_bytes} bytes.", hint="SWEEP_UPLOAD_MAX_BYTES sets the limit.")
    await run_in_threadpool(_check_sender, services, request, location)
    upload = await run_in_threadpool(services.artifacts.upload, path, max_bytes=max_bytes)
    try:
        await _receive(request, upload)
        # An upload may take longer than its attempt lives: what a superseded attempt sends never appears (I3).
        await run_in_threadpool(_check_sender, services, request, location)
        await run_in_threadpool(upload.commit)
    finally:
        # Also if this request is cancelled.
        with CancelScope(shield=True):
            await run_in_threadpool(upload.close)
    return Response(headers={"X-Content-Type-Options": "nosniff"})


async def _receive(request: Request, upload: Upload) -> None:
    pending = bytearray()
    async for part in request.stream():
        pending += part
        if len(pending) >= CHUNK_BYTES:
            await run_in_threadpool(upload.write, bytes(pending))
            pending.clear()
    await run_in_threadpool(upload.write, bytes(pending))


def _delete(services: Services, request: Request) -> Response:
    caller = caller_of(services, request)
    path = safe_path(request.path_params["path"])
    location = _located(path)
    _check_may_write(caller, location)
    _refuse_registered(caller, location)
    caller.artifacts.delete(path)
    return _json({})


def create_parts(caller: Caller, asked: CreateParts) -> PartsAnswer:
    """Begin an upload whose parts the client sends past this server."""
    path = _file_of_parts(caller, asked)
    upload_id, urls = caller.artifacts.begin_parts(path, asked.num_parts)
    return PartsAnswer(upload_id, [Credential(url, number) for number, url in enumerate(urls, start=1)])


def complete_parts(max_bytes: int, caller: Caller, asked: CompleteParts) -> None:
    """Let the file appear, if its sender may still write."""
    caller.artifacts.complete_parts(_file_of_parts(caller, asked), asked.upload_id, asked.parts, max_bytes=max_bytes)


def abort_parts(caller: Caller, asked: AbortParts) -> None:
    """Forget the parts."""
    caller.artifacts.abort_parts(_file_of_parts(caller, asked), asked.upload_id)


def _file_of_parts(caller: Caller, asked: CreateParts | CompleteParts | AbortParts) -> str:
    """Which file the parts are of, if its sender may write it."""
    folder = safe_path(asked.artifact_path)
    if not caller.artifacts.is_direct:
        # Clients know this sentence, and then send the file through the server.
        raise NotSupported("Multipart upload is not supported for the current artifact repository")
    path = safe_path(posixpath.join(folder, posixpath.basename(asked.path)))
    _check_may_write(caller, _located(path))
    return path


def sign_file(caller: Caller, asked: ReadDirectly) -> SignedAnswer:
    """Where the client reads a file past this server."""
    path = safe_path(asked.artifact_path)
    if not caller.artifacts.is_direct:
        raise NotSupported("Multipart download is not supported for the current artifact repository")
    _located(path)
    name = posixpath.basename(path)
    url, size_bytes = caller.artifacts.signed_url(path, ResponseContentDisposition=attachment(name), ResponseContentType=media_type_of(name))
    return SignedAnswer(url, {}, size_bytes)


def _check_sender(services: Services, request: Request, location: Location) -> None:
    """The same as `_check_may_write`, asking anew who the sender is."""
    _check_may_write(caller_of(services, request), location)


def _check_may_write(caller: Caller, location: Location) -> None:
    """Refuse a sender who may not write to the run or model, by the same rule as metrics: an empty write tells.

    Raises:
        NotFound: there is no such run or model in that experiment.
        NotAllowed: the run is managed, and the sender is not its current attempt; or is another run's attempt.
        InvalidValue: its artifacts are not kept here.
    """
    if location.model_id:
        owner: Run | LoggedModel = caller.store.logged_models.check_may_write(location.model_id, caller.fence)
    else:
        owner = caller.store.runs.get(location.run_id)
        caller.store.runs.log_params(location.run_id, {}, caller.fence)
    if owner.experiment_id != location.experiment_id:
        raise NotFound(f"{_named(location)} is not in experiment {location.experiment_id}.")
    refuse_remote(owner.artifact_root)


def _refuse_registered(caller: Caller, location: Location) -> None:
    """Refuse to delete what a registered model is.

    Raises:
        NotNow: a version of one is there, above or below.
    """
    for version in caller.store.registry.of_run(location.run_id) if location.run_id else ():
        artifact = version.source.removeprefix(f"runs:/{location.run_id}").strip("/")
        if _is_within(artifact, location.path) or _is_within(location.path, artifact):
            raise NotNow(f"Version {version.version} of the registered model {version.name} is the artifact {artifact!r} of this run: it is not deleted.")


def _is_within(path: str, folder: str) -> bool:
    return folder in {"", path} or path.startswith(f"{folder}/")


def _explain_absence(caller: Caller, location: Location) -> None:
    """Say so if what is not here is kept somewhere else."""
    try:
        owner: Run | LoggedModel = (
            caller.store.logged_models.get(location.model_id, allow_deleted=True) if location.model_id else caller.store.runs.get(location.run_id)
        )
    except NotFound:
        return  # what is not recorded is not here either
    refuse_remote(owner.artifact_root)


def refuse_remote(artifact_root: str | None) -> None:
    """Refuse to work with artifacts that are not in our own store.

    Raises:
        InvalidValue: they are somewhere else.
    """
    if artifact_root is not None:
        raise InvalidValue(
            f"These artifacts are kept at {artifact_root}, by the experiment's own choice: this server records that place and does not open it.",
            hint="Read and write them with a client that has access to it.",
        )


def _named(location: Location) -> str:
    return f"Logged model {location.model_id}" if location.model_id else f"Run {location.run_id}"


def _located(path: str) -> Location:
    location = parse_location(path)
    if location is None:
        raise InvalidValue(
            f"The artifact path {path!r} is not below the folder of a run (<experiment_id>/<run_id>/artifacts) "
            "or of a logged model (<experiment_id>/models/<model_id>/artifacts)."
        )
    return location


def list_files(caller: Caller, folder: str, below: str) -> list[FileInfo]:
    """What a folder of the store holds, paths relative to its owner: `below` is where in it the folder is."""
    return [FileInfo(posixpath.join(below, info.path), info.is_folder, info.size_bytes) for info in caller.artifacts.list(folder)]


def _json(answer: object) -> Response:
    return Response(msgspec.json.encode(answer), media_type="application/json")
