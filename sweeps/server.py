"""The server: MLflow's protocol, `/api/v1`, `/health` and `/version` as one app, and how it is run.

Denies by default (I9): an app with a route that states no right does not start. Until there are users it is bound to
loopback only, answers only to loopback names there (a web page's name that resolves to this machine is refused), and
takes changes only from its own origin.
"""

import asyncio
import ipaddress
import logging
import signal
import socket
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType
from typing import Any, Final
from urllib.parse import urlsplit

import uvicorn
from fastapi import FastAPI
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sweeps.api import again, models, runs, snapshots, sweeps, workers
from sweeps.api.errors import ERROR_HANDLERS, error_response, internal_error_response
from sweeps.api.rights import Right, right_of
from sweeps.api.routing import PREFIX, Json, Services, as_sent, shape_schemas
from sweeps.api.shapes import SCHEMA, VersionAnswer
from sweeps.api.version import DISTRIBUTION, program_version
from tracking.errors import NotAllowed, SettingError
from tracking.settings import Settings
from tracking.store import Store

DEFAULT_PORT: Final = 8080
_LOG = logging.getLogger("sweeps.server")
_SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_GRACE_S: Final = 10
_POOL_SIZE: Final = 8


@dataclass(frozen=True, slots=True)
class ServerOptions:
    """Where to listen.

    Attributes:
        port: 0 picks a free one.
        is_open: allow an address other than loopback.
    """

    host: str = "127.0.0.1"
    port: int = DEFAULT_PORT
    is_open: bool = False


@lru_cache(256)
def is_loopback(host: str) -> bool:
    """Whether a host name or address means this machine only."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def run_server(settings: Settings, options: ServerOptions, *, on_ready: Callable[[str], None]) -> int:
    """Serve until SIGTERM or SIGINT; `on_ready` is told the address once requests are answered. Returns the exit status.

    Raises:
        SettingError: the address is not loopback and `is_open` is not set, or can't be bound.
        DatabaseAway: the embedded Postgres can't be used. One given by URL is waited for.
    """
    require_loopback_or_open(options)
    from tracking.roles import on_signal, wait_for_store  # noqa: PLC0415 - the address is checked first

    stopping = threading.Event()
    on_signal(stopping.set)
    with _bound(options) as listener:
        store = wait_for_store(_database_url(settings), stopping, pool_size=_POOL_SIZE, application="sweep server")
        if store is None:
            return 0
        try:
            app = compose(store, settings, is_open=options.is_open, on_ready=lambda: on_ready(address_of(listener, options.host)))
            return _serve(app, listener)
        finally:
            store.close()


def _database_url(settings: Settings) -> str:
    """The database that is named, or the embedded one, brought to the newest schema."""
    if settings.database_url:
        return settings.database_url
    from tracking.embedded import ensure_running  # noqa: PLC0415 - not needed over a Postgres given by URL
    from tracking.store import upgrade_schema  # noqa: PLC0415 - as above

    url = ensure_running(settings.home)
    upgrade_schema(url)
    return url


def require_loopback_or_open(options: ServerOptions) -> None:
    """Refuse an address that others can reach, unless that was asked for."""
    if options.is_open or is_loopback(options.host):
        return
    raise SettingError(
        f"Refusing to listen on {options.host}: there are no users yet, so whoever reaches this server may run commands through it.",
        hint="Add --open if everyone on that network is trusted, or listen on 127.0.0.1.",
    )


def address_of(listener: socket.socket, host: str) -> str:
    """The URL that reaches a listening socket from this machine."""
    shown = host if host not in ("0.0.0.0", "::") else "127.0.0.1"  # noqa: S104 - compared, not bound
    return f"http://{f'[{shown}]' if ':' in shown else shown}:{listener.getsockname()[1]}"


def _bound(options: ServerOptions) -> socket.socket:
    # TCP is named: asyncio turns Nagle's algorithm off only on sockets that say so, and `socket.create_server` makes
    # ones that do not. With it, every answer on a kept connection waits 40 ms for the client's acknowledgement.
    listener = socket.socket(_family(options.host), socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((options.host, options.port))
        listener.listen(2048)
    except OSError as error:
        listener.close()
        raise SettingError(
            f"Can't listen on {options.host}:{options.port}: {error.strerror or error}.",
            hint="Choose another address with --host and --port; --port 0 picks a free one.",
        ) from error
    return listener


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET


class _Server(uvicorn.Server):
    """uvicorn's server, ended by a signal without dying of it, so that everything is closed in order."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        ending = (signal.SIGINT, signal.SIGTERM)
        for each in ending:
            loop.add_signal_handler(each, self.handle_exit, each, None)
        try:
            yield
        finally:
            for each in ending:
                loop.remove_signal_handler(each)


def _serve(app: ASGIApp, listener: socket.socket) -> int:
    config = uvicorn.Config(
        app,
        access_log=False,
        log_config=None,
        lifespan="on",
        ws="none",
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=_GRACE_S,
    )
    server = _Server(config)
    with asyncio.Runner(loop_factory=config.get_loop_factory()) as runner:
        runner.run(server.serve(sockets=[listener]))
    return 0 if server.started else 1


def compose(store: Store, settings: Settings, *, is_open: bool = False, on_ready: Callable[[], None] = lambda: None) -> ASGIApp:
    """The whole app over an open store."""
    from tracking.artifacts import ArtifactStore  # noqa: PLC0415 - brings fsspec
    from tracking.mlflow_api import build_routes  # noqa: PLC0415 - as above
    from tracking.snapshot_store import SnapshotStore  # noqa: PLC0415 - as above

    artifacts = ArtifactStore(settings.artifact_place, endpoint_url=settings.artifact_endpoint)
    # Aside: a store that does not answer is no reason not to begin.
    threading.Thread(target=artifacts.tidy, name="tidy", daemon=True).start()
    services = Services(store, SnapshotStore(artifacts), artifacts, settings)
    protocol = build_routes(store, artifacts, settings)
    return compose_app(services, protocol, is_open=is_open, on_ready=on_ready)


def compose_app(services: Services, protocol: Sequence[BaseRoute] = (), *, is_open: bool = False, on_ready: Callable[[], None] = lambda: None) -> FastAPI:
    """The app over given services; `protocol` are the routes of MLflow's protocol.

    Raises:
        RuntimeError: a route states no right (a fault of the program).
    """

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        # The socket listens already: what arrives from here on waits for the first turn of the loop.
        on_ready()
        yield

    app = FastAPI(
        title="Sweeps",
        description="The sweeps API. MLflow's protocol is served beside it under `/api/2.0/mlflow`.",
        version=program_version(),
        openapi_url=None,
        lifespan=lifespan,
        exception_handlers=dict(ERROR_HANDLERS),
        # Ours would be measured twice, and nothing may leave the machine unasked.
        telemetry={"auto_configure": False, "tracing": False, "metrics": False, "logs": False},
        redirect_slashes=False,
    )
    app.state.services = services
    app.router.routes.extend([*protocol, *_OWN_ROUTES])
    for resource in (sweeps, again, runs, models, workers, snapshots):
        resource.routes.add_to(app)
    require_rights(app.routes)
    app.add_middleware(Gate, is_open=is_open, direct=_exact(protocol))
    return app


def require_rights(routes: Sequence[BaseRoute]) -> None:
    """Refuse routes that state no right (I9).

    Raises:
        RuntimeError: there is one.
    """
    open_routes = [getattr(route, "path", repr(route)) for route in routes if right_of(route) is None]
    if open_routes:
        raise RuntimeError(f"routes without a right: {', '.join(open_routes)}")


def _exact(routes: Sequence[BaseRoute]) -> dict[tuple[str, str], ASGIApp]:
    """Routes without parameters in their path, by method and path."""
    plain = [route for route in routes if isinstance(route, Route) and "{" not in route.path]
    return {(method, route.path): route.app for route in plain for method in route.methods or ()}


async def _health(_: Request) -> Response:
    return PlainTextResponse("OK")


async def _welcome(_: Request) -> Response:
    return PlainTextResponse(_WELCOME)


async def _version(_: Request) -> Response:
    return Json(VersionAnswer(schema=SCHEMA, name=DISTRIBUTION, version=program_version()))


async def _openapi(request: Request) -> Response:
    return Json(describe(request.app))


def describe(app: FastAPI) -> Mapping[str, Any]:
    """The OpenAPI document of `/api/v1`."""
    document = app.openapi()
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    schemas.update(shape_schemas())
    return document


def _own_route(path: str, endpoint: Callable[[Request], Awaitable[Response]]) -> Route:
    endpoint.right = Right.READ  # type: ignore[attr-defined]
    return Route(path, endpoint, methods=["GET"])


_WELCOME: Final = f"""\
{DISTRIBUTION} {program_version()}

{PREFIX}/openapi.json   what the sweeps API understands
/api/2.0/mlflow        MLflow's protocol: set MLFLOW_TRACKING_URI to this server
/health                whether it is well

People use it through the command `sweep`: set SWEEP_SERVER to this server, then `sweep ls`.
"""

_OWN_ROUTES: Final = (
    _own_route("/", _welcome),
    _own_route("/health", _health),
    _own_route("/version", _version),
    _own_route(f"{PREFIX}/openapi.json", _openapi),
)


class Gate:
    """The outermost layer: lets in who may call at all, and answers what nothing else caught."""

    def __init__(self, app: ASGIApp, *, is_open: bool, direct: Mapping[tuple[str, str], ASGIApp] = MappingProxyType({})) -> None:
        self._app = app
        self._is_open = is_open
        self._direct = direct

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer it with why not."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        refusal = self._refusal(scope)
        if refusal is not None:
            await error_response(refusal)(scope, receive, send)
            return
        # What training loops call is found at once, not by trying a hundred patterns in turn.
        app = self._direct.get((scope["method"], scope["path"]), self._app)
        await _shielded(app, as_sent(scope), receive, send)

    def _refusal(self, scope: Scope) -> NotAllowed | None:
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        # A page on evil.example whose name resolves to 127.0.0.1 sends its own name.
        if not self._is_open and not is_loopback(_without_port(host)):
            return NotAllowed(f"This server answers to loopback names only, not to {host!r}.", hint="Use http://127.0.0.1 or start it with --open.")
        origin = headers.get("origin")
        if origin is not None and scope["method"] not in _SAFE_METHODS and _place_of(origin) != host:
            return NotAllowed(f"A page from {origin} may not change anything here.")
        return None


def _place_of(origin: str) -> str:
    try:
        return urlsplit(origin).netloc
    except ValueError:
        return ""


def _without_port(host: str) -> str:
    name, colon, port = host.rpartition(":")
    return name if colon and port.isdigit() else host


async def _shielded(app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
    """Run `app`; log whatever escapes it and, if nothing was sent yet, answer without details."""
    is_started = False

    async def watching(message: Message) -> None:
        nonlocal is_started
        is_started = is_started or message["type"] == "http.response.start"
        await send(message)

    try:
        await app(scope, receive, watching)
    except Exception as error:
        _LOG.exception("unexpected error at %s %s", scope["method"], scope["path"])
        if is_started:
            raise
        await internal_error_response(error)(scope, receive, send)
