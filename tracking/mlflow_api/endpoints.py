"""From a request to a handler and back: body or query becomes a typed record, a token becomes a fence, errors become answers.

Handlers are plain functions that call the store; they run in threads, and the event loop only moves bytes.
"""

import inspect
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, cast, get_args

import msgspec
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from tracking.artifacts import ArtifactStore
from tracking.errors import InvalidValue, NotAllowed, TooLarge
from tracking.mlflow_api.errors import EndpointNotFound, error_response
from tracking.mlflow_api.grouping import Grouping
from tracking.mlflow_api.requests import read_again
from tracking.records import Run
from tracking.settings import Settings
from tracking.store import Fence, Store
from tracking.store.metrics import Append
from tracking.store.runs import NewRun

READ: Final = "read"
ATTEMPT: Final = "attempt"
"""The rights of routes (I9): see the record; write to a run, as its attempt's token or, while there are no users, anybody may."""

BODY_MAX_BYTES: Final = 16 * 1024 * 1024
DRAIN_MAX_BYTES: Final = 64 * 1024 * 1024

_KNOWN_MAX: Final = 10_000
_IN_LOOP_MAX_BYTES: Final = 256 * 1024

_ALL_METHODS: Final = ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS")
_ATTEMPT_PREFIX: Final = "sat_"
# Postgres stores no NUL. In JSON it can only stand escaped, after an even number of backslashes.
_NUL: Final = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")

Respond = Callable[[Request], Awaitable[Response]]


@dataclass(frozen=True, slots=True)
class Groups:
    """What many clients write at once."""

    appends: Grouping[Append, None]
    creations: Grouping[NewRun, Run]

    @classmethod
    def over(cls, store: Store) -> "Groups":
        """Over connections of their own: a flood of points never waits for searches, nor they for it."""
        return cls(
            Grouping(store.ingest.metrics.append, lambda append: sum(map(len, append.points.values()))),
            Grouping(store.ingest.runs.create_many, lambda run: 1 + len(run.tags)),
        )


@dataclass(frozen=True, slots=True)
class Services:
    """What the protocol works with."""

    store: Store
    artifacts: ArtifactStore
    settings: Settings
    groups: Groups
    known: dict[str, Fence] = field(default_factory=dict)
    """Attempts' tokens that were seen to be right, of writers that write often."""


@dataclass(frozen=True, slots=True)
class Caller:
    """One request's services, and who sends it: an attempt, or anybody (None)."""

    store: Store
    artifacts: ArtifactStore
    groups: Groups
    fence: Fence | None

    def is_trial(self, run_id: str) -> bool:
        """Whether this is an attempt that writes its own run."""
        return self.fence is not None and self.fence.run_id == run_id


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One line of the protocol: a query (of GET and DELETE) or a body, read as `shape`, answered by `handler`.

    What the path names is a field of `shape` too.

    A coroutine runs in the event loop: for writers that write often and leave the work to `Groups`. Its sender's token may have
    died, so what it writes must hold the fence.
    """

    method: Literal["GET", "POST", "PATCH", "DELETE"]
    path: str
    right: str
    shape: type[msgspec.Struct]
    handler: Callable[[Caller, Any], msgspec.Struct | Awaitable[msgspec.Struct | None] | None]


def json_routes(services: Services, prefix: str, endpoints: Iterable[Endpoint]) -> list[Route]:
    """The endpoints below a prefix."""
    return [make_route(prefix + each.path, each.method, each.right, _json_respond(services, each)) for each in endpoints]


def unknown_routes(prefixes: Iterable[str]) -> list[Route]:
    """Everything else below the prefixes, refused."""

    async def refuse(request: Request) -> Response:
        raise EndpointNotFound(f"There is no endpoint {request.method} {request.url.path} here.")

    return [make_route(prefix + "/{rest:path}", _ALL_METHODS, READ, refuse) for prefix in prefixes]


def make_route(path: str, methods: str | Iterable[str], right: str, respond: Respond) -> Route:
    """A route that states its right and answers errors in MLflow's form."""

    async def endpoint(request: Request) -> Response:
        try:
            return await respond(request)
        except ClientDisconnect:
            return Response(status_code=499)  # nobody reads it
        except Exception as error:  # noqa: BLE001  every error is answered here, and unforeseen ones are logged
            await _drain(request)
            return error_response(error, request)

    endpoint.right = right  # type: ignore[attr-defined]
    return Route(path, endpoint, methods=[methods] if isinstance(methods, str) else list(methods))


def caller_of(services: Services, request: Request) -> Caller:
    """Who sends a request, by its bearer token. Blocks: it asks the record.

    Raises:
        Unauthenticated: an attempt's token is unknown, or died with its attempt.
    """
    token = _attempt_token(request)
    return _caller(services, None if token is None else services.store.attempts.authenticate(token))


def _caller(services: Services, fence: Fence | None) -> Caller:
    return Caller(services.store, services.artifacts, services.groups, fence)


def _attempt_token(request: Request) -> str | None:
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    token = token.strip()
    return token if scheme.lower() == "bearer" and token.startswith(_ATTEMPT_PREFIX) else None


def _json_respond(services: Services, endpoint: Endpoint) -> Respond:
    decoder = msgspec.json.Decoder(endpoint.shape, strict=False)
    lists = _lists_of(endpoint.shape)

    def read(request: Request, body: bytes | None) -> msgspec.Struct:
        query = _query(request, lists) if body is None else None
        try:
            asked = decoder.decode(body or b"{}") if query is None else msgspec.convert(query, endpoint.shape, strict=False)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            asked = read_again(endpoint.shape, (body or b"") if query is None else query, error)
        return _with_path(asked, request.path_params) if request.path_params else asked

    def answer(request: Request, body: bytes | None) -> bytes:
        return _encoded(endpoint.handler(caller_of(services, request), read(request, body)))

    async def respond(request: Request) -> Response:
        body = None if endpoint.method in ("GET", "DELETE") else await _read_json_body(request)
        return Response(await run_in_threadpool(answer, request, body), media_type="application/json")

    async def respond_in_loop(request: Request) -> Response:
        body = await _read_json_body(request)
        token = _attempt_token(request)
        fence = None if token is None else await _fence_of(services, token)
        # A thousand points fit. What is larger, or needs patience, keeps nobody else waiting.
        asked = _at_first_sight(decoder, body) if len(body) <= _IN_LOOP_MAX_BYTES else None
        if asked is None:
            asked = await run_in_threadpool(read, request, body)
        try:
            answered = await cast(Awaitable[msgspec.Struct | None], endpoint.handler(_caller(services, fence), asked))
        except NotAllowed:
            if token is not None:
                # A token that has died since it was seen is told so, as to everybody else.
                await run_in_threadpool(services.store.attempts.authenticate, token)
            raise
        return Response(_encoded(answered), media_type="application/json")

    return respond_in_loop if inspect.iscoroutinefunction(endpoint.handler) else respond


def _at_first_sight(decoder: msgspec.json.Decoder[Any], body: bytes) -> msgspec.Struct | None:
    """A request, if it fits at once."""
    try:
        return cast(msgspec.Struct, decoder.decode(body or b"{}"))
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None


def _encoded(answered: object) -> bytes:
    return b"{}" if answered is None else msgspec.json.encode(answered)


async def _fence_of(services: Services, token: str) -> Fence:
    fence = services.known.get(token)
    if fence is None:
        fence = await run_in_threadpool(services.store.attempts.authenticate, token)
        if len(services.known) >= _KNOWN_MAX:
            services.known.clear()
        services.known[token] = fence
    return fence


async def _read_json_body(request: Request) -> bytes:
    # A browser can send other types across origins without asking; it can't send this one.
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise InvalidValue("Bad Request. Content-Type must be one of ['application/json'].")
    parts: list[bytes] = []
    size = 0
    async for part in request.stream():
        size += len(part)
        if size > BODY_MAX_BYTES:
            raise TooLarge(f"The request's body is over {BODY_MAX_BYTES} bytes.", hint="Send it in several requests.")
        parts.append(part)
    body = b"".join(parts)
    if b"\\u0000" in body and _NUL.search(body):
        raise InvalidValue("The request has a NUL character, which can't be stored.")
    return body


def _query(request: Request, lists: frozenset[str]) -> dict[str, object]:
    query = request.query_params
    if any("\0" in value for value in query.values()):
        raise InvalidValue("The request has a NUL character, which can't be stored.")
    return {name: query.getlist(name) if name in lists else value for name, value in query.items()}


def _lists_of(shape: type[msgspec.Struct]) -> frozenset[str]:
    """The parameters that a query may repeat."""
    return frozenset(field.name for field in msgspec.structs.fields(shape) if list[str] in (field.type, *get_args(field.type)))


def _with_path(asked: msgspec.Struct, named: Mapping[str, str]) -> msgspec.Struct:
    """The request with what its path names, which its body may repeat but not contradict."""
    for name, value in named.items():
        if "\0" in value:
            raise InvalidValue("The request has a NUL character, which can't be stored.")
        if getattr(asked, name) not in ("", value):
            raise InvalidValue(f"'{name}' is {value!r} in the path of the request and {getattr(asked, name)!r} in its body.")
    return msgspec.structs.replace(asked, **named)


async def _drain(request: Request) -> None:
    """Read what is left of a refused request, within reason.

    A client that is still sending would see its connection break in place of the answer, and try again for minutes.
    """
    left = DRAIN_MAX_BYTES
    try:
        async for part in request.stream():
            left -= len(part)
            if left < 0:
                return
    except (RuntimeError, ClientDisconnect):
        return  # it was read to its end before, or its sender has gone
