"""From a request to a handler and back: body or query becomes a typed record, a token becomes a fence, errors become answers.

Handlers are plain functions that call the store; they run in threads, and the event loop only moves bytes.
"""

import re
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final, Literal

import msgspec
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from tracking.artifacts import ArtifactStore
from tracking.errors import InvalidValue, TooLarge
from tracking.mlflow_api.errors import EndpointNotFound, error_response
from tracking.settings import Settings
from tracking.store import Fence, Store

READ: Final = "read"
ATTEMPT: Final = "attempt"
"""The rights of routes (I9): see the record; write to a run, as its attempt's token or, while there are no users, anybody may."""

BODY_MAX_BYTES: Final = 16 * 1024 * 1024
DRAIN_MAX_BYTES: Final = 64 * 1024 * 1024

_ALL_METHODS: Final = ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS")
_ATTEMPT_PREFIX: Final = "sat_"
_LISTS: Final = frozenset({"experiment_ids", "order_by"})
# Postgres stores no NUL. In JSON it can only stand escaped, after an even number of backslashes.
_NUL: Final = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")

Respond = Callable[[Request], Awaitable[Response]]


@dataclass(frozen=True, slots=True)
class Services:
    """What the protocol works with."""

    store: Store
    artifacts: ArtifactStore
    settings: Settings


@dataclass(frozen=True, slots=True)
class Caller:
    """One request's services, and who sends it: an attempt, or anybody (None)."""

    store: Store
    artifacts: ArtifactStore
    fence: Fence | None

    def is_trial(self, run_id: str) -> bool:
        """Whether this is an attempt that writes its own run."""
        return self.fence is not None and self.fence.run_id == run_id


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One line of the protocol: a GET's query or a POST's body, read as `shape`, answered by `handler`."""

    method: Literal["GET", "POST"]
    path: str
    right: str
    shape: type[msgspec.Struct]
    handler: Callable[[Caller, Any], msgspec.Struct | None]


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
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    token = token.strip()
    is_attempt = scheme.lower() == "bearer" and token.startswith(_ATTEMPT_PREFIX)
    return Caller(services.store, services.artifacts, services.store.attempts.authenticate(token) if is_attempt else None)


def _json_respond(services: Services, endpoint: Endpoint) -> Respond:
    decoder = msgspec.json.Decoder(endpoint.shape, strict=False)

    def answer(request: Request, body: bytes | None) -> bytes:
        caller = caller_of(services, request)
        try:
            asked = _from_query(request, endpoint.shape) if body is None else decoder.decode(body or b"{}")
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise InvalidValue(f"The request is not acceptable: {error}") from None
        answered = endpoint.handler(caller, asked)
        return b"{}" if answered is None else msgspec.json.encode(answered)

    async def respond(request: Request) -> Response:
        body = None if endpoint.method == "GET" else await _read_json_body(request)
        return Response(await run_in_threadpool(answer, request, body), media_type="application/json")

    return respond


async def _read_json_body(request: Request) -> bytes:
    # A browser can send other types across origins without asking; it can't send this one.
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise InvalidValue("Bad Request. Content-Type must be 'application/json'.")
    parts: list[bytes] = []
    size = 0
    async for part in request.stream():
        size += len(part)
        if size > BODY_MAX_BYTES:
            raise TooLarge(f"The request's body is over {BODY_MAX_BYTES} bytes.", hint="Send it in several requests.")
        parts.append(part)
    body = b"".join(parts)
    if _NUL.search(body):
        raise InvalidValue("The request has a NUL character, which can't be stored.")
    return body


def _from_query(request: Request, shape: type[msgspec.Struct]) -> msgspec.Struct:
    query = request.query_params
    values: dict[str, object] = {name: query.getlist(name) if name in _LISTS else value for name, value in query.items()}
    if any("\0" in value for value in query.values()):
        raise InvalidValue("The request has a NUL character, which can't be stored.")
    return msgspec.convert(values, shape, strict=False)


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
