"""How a route of `/api/v1` is written: path, right and shapes in one line above a plain function.

The shapes are `TypedDict`s, which FastAPI can't describe on Python 3.11, so msgspec writes their schemas into the
OpenAPI document, decodes bodies and encodes answers.
"""

import inspect
import logging
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import wraps
from typing import Annotated, Any, Final, TypeVar
from urllib.parse import quote, unquote

import msgspec
from fastapi import Depends, FastAPI
from starlette.convertors import PathConvertor, StringConvertor, register_url_convertor
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Scope

from sweeps.api import shapes
from sweeps.api.rights import Right, admit
from tracking.artifacts import ArtifactStore
from tracking.errors import DatabaseAway, InvalidValue, TooLarge
from tracking.settings import Settings
from tracking.snapshot_store import SnapshotStore
from tracking.store import Store

_LOG = logging.getLogger("sweeps.server")
PREFIX: Final = "/api/v1"
BODY_MAX_BYTES: Final = 8 * 1024 * 1024
_REF: Final = "#/components/schemas/{name}"

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Services:
    """What routes work with."""

    store: Store
    snapshots: SnapshotStore
    artifacts: ArtifactStore
    settings: Settings


class _Segment(StringConvertor):
    """One segment of a path as it was sent; a slash within a name is encoded there."""

    def convert(self, value: str) -> str:
        return unquote(value)


class _Segments(PathConvertor):
    """The same for several: `SWEEP/NUMBER`."""

    def convert(self, value: str) -> str:
        return unquote(value)


register_url_convertor("segment", _Segment())
register_url_convertor("segments", _Segments())


def as_sent(scope: Scope) -> Scope:
    """A request whose path is matched as it was sent: servers decode it before, and then `ml%2Fflow` would be two segments."""
    if not scope["path"].startswith(f"{PREFIX}/"):
        return scope
    raw = scope.get("raw_path")
    return {**scope, "path": raw.decode("latin-1") if raw is not None else quote(scope["path"])}


def _matched_as_sent(path: str) -> str:
    return re.sub(r"\{(\w+)(:path)?\}", lambda found: f"{{{found[1]}:{'segments' if found[2] else 'segment'}}}", path)


async def _services(request: Request) -> Services:
    services: Services = request.app.state.services
    return services


async def _body(request: Request) -> bytes:
    parts: list[bytes] = []
    size = 0
    async for part in request.stream():
        size += len(part)
        if size > BODY_MAX_BYTES:
            raise TooLarge(f"The request's body is over {BODY_MAX_BYTES} bytes.")
        parts.append(part)
    return b"".join(parts)


def wake(services: Services) -> None:
    """Wake the scheduler after a write. It polls as well, so a wake-up that can't be sent costs a second."""
    try:
        services.store.wake()
    except DatabaseAway as error:
        _LOG.warning("the scheduler was not woken: %s", error.message)


Use = Annotated[Services, Depends(_services)]
Body = Annotated[bytes, Depends(_body)]


def parse_body(body: bytes, shape: type[T]) -> T:
    """Decode a JSON body as one of the shapes.

    Raises:
        InvalidValue: it is not JSON, or not of this shape; the message names the field.
    """
    try:
        return msgspec.json.decode(body, type=shape)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise InvalidValue(f"The request's body is not acceptable: {error}") from None


class Json(Response):
    """A JSON answer, encoded by msgspec."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        """Encode `content`."""
        return msgspec.json.encode(content)


@dataclass(frozen=True, slots=True)
class _Definition:
    method: str
    path: str
    endpoint: Callable[..., Any]
    summary: str
    right: Right
    answers: type | None
    body: type | None
    status: int


@dataclass(frozen=True, slots=True)
class Routes:
    """The routes of one resource, collected where they are defined and added to the app when it is composed."""

    tag: str
    definitions: list[_Definition] = field(default_factory=list)

    def get(self, path: str, right: Right, *, answers: type | None) -> Callable[..., Any]:
        """Define a GET route; `answers` is its shape, or None for bytes."""
        return self._define("GET", path, right, answers, None, 200)

    def post(self, path: str, right: Right, *, answers: type, body: type | None = None, status: int = 200) -> Callable[..., Any]:
        """Define a POST route with a JSON body of shape `body`."""
        return self._define("POST", path, right, answers, body, status)

    def put(self, path: str, right: Right, *, answers: type) -> Callable[..., Any]:
        """Define a PUT route whose body is bytes."""
        return self._define("PUT", path, right, answers, None, 200)

    def head(self, path: str, right: Right) -> Callable[..., Any]:
        """Define a HEAD route."""
        return self._define("HEAD", path, right, None, None, 200)

    def add_to(self, app: FastAPI) -> None:
        """Add every route to `app`, under the prefix."""
        for each in self.definitions:
            app.add_api_route(
                PREFIX + _matched_as_sent(each.path),
                each.endpoint,
                methods=[each.method],
                tags=[self.tag],
                summary=each.summary,
                status_code=each.status,
                response_model=None,
                # Json would be described as a string; the shapes describe it.
                response_class=Response,
                dependencies=[Depends(admit(each.right))],
                openapi_extra=_described(each),
            )

    def _define(self, method: str, path: str, right: Right, answers: type | None, body: type | None, status: int) -> Callable[..., Any]:
        def define(function: Callable[..., Any]) -> Callable[..., Any]:
            summary = (function.__doc__ or function.__name__).strip().splitlines()[0]  # none where PYTHONOPTIMIZE=2
            endpoint = _answering(function, status) if answers else function
            endpoint.right = right  # type: ignore[attr-defined]
            self.definitions.append(_Definition(method, path, endpoint, summary, right, answers, body, status))
            return function

        return define


def _answering(function: Callable[..., Any], status: int) -> Callable[..., Any]:
    """`function`, its answer encoded. Coroutines stay coroutines, so that FastAPI runs the others in its thread pool."""
    if inspect.iscoroutinefunction(function):

        @wraps(function)
        async def answer_async(*args: Any, **kwargs: Any) -> Response:
            return Json(await function(*args, **kwargs), status)

        return answer_async

    @wraps(function)
    def answer(*args: Any, **kwargs: Any) -> Response:
        return Json(function(*args, **kwargs), status)

    return answer


def _described(each: _Definition) -> dict[str, Any]:
    extra: dict[str, Any] = {"x-right": str(each.right), "responses": {"default": _content(shapes.ErrorAnswer, "Refused")}}
    if each.answers is not None:
        extra["responses"][str(each.status)] = _content(each.answers, (each.answers.__doc__ or "").strip())
    if each.body is not None:
        extra["requestBody"] = {"required": True, **_content(each.body, "")}
    return extra


def _content(shape: type, description: str) -> dict[str, Any]:
    schema = {"$ref": _REF.format(name=shape.__name__)}
    return {"description": description, "content": {"application/json": {"schema": schema}}}


def shape_schemas() -> Mapping[str, Any]:
    """JSON Schemas of all shapes by name, for `components/schemas`."""
    named = [shape for shape in vars(shapes).values() if hasattr(shape, "__required_keys__")]
    _, components = msgspec.json.schema_components(named, ref_template=_REF)
    return components
