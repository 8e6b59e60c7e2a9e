"""A client of `/api/v1`, for the command line and for Python programs.

Standard library only, so that a command answers within milliseconds. What it returns are the objects of
`sweeps.api.shapes`, as the server sent them. One client belongs to one thread: it keeps one connection open.
"""

import http.client
import json
import ssl
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar, Final, Self, cast
from urllib.parse import quote, urlencode, urlsplit
from uuid import uuid4

from sweeps.api.shapes import (
    SCHEMA,
    BestAnswer,
    CurveList,
    CurveShape,
    EventList,
    LogAnswer,
    MetricList,
    MetricValue,
    ModelAnswer,
    ModelList,
    PlacementAnswer,
    PlacementBody,
    RegisterBody,
    RetryAnswer,
    RunAnswer,
    ServerAnswer,
    SnapshotAnswer,
    SubmitBody,
    SweepAnswer,
    SweepList,
    TrialAnswer,
    TrialList,
    VersionAnswer,
    VersionCreated,
    WhyAnswer,
    WorkerAnswer,
    WorkerList,
)
from tracking.errors import SweepError

_PREFIX: Final = "/api/v1"
_CHUNK_BYTES: Final = 256 * 1024
_TRIALS_PAGE: Final = 10_000
_HTTP_ERRORS: Final = 400


class ServerError(SweepError):
    """The server answered with an error."""

    def __init__(self, message: str, *, hint: str = "", error_code: str = "BAD_REQUEST", http_status: int = 400) -> None:
        super().__init__(message, hint=hint)
        self.error_code = error_code  # type: ignore[misc]  # what the server said, not what this class says
        self.http_status = http_status  # type: ignore[misc]  # as above


class InvalidRequest(ServerError):
    """The server found a value that is not acceptable."""

    exit_status = 2


class MissingOnServer(ServerError):
    """The server knows no such object."""

    exit_status = 3


class Refused(ServerError):
    """The server does not know the caller, or does not let them do this."""

    exit_status = 5


class NoBest(ServerError):
    """No trial of the sweep has finished with a value."""

    exit_status = 6


class ServerAway(ServerError):
    """The server can't be reached, or can't reach its database."""

    exit_status = 4


_BY_CODE: Final[Mapping[str, type[ServerError]]] = {
    "RESOURCE_DOES_NOT_EXIST": MissingOnServer,
    "ENDPOINT_NOT_FOUND": MissingOnServer,
    "INVALID_PARAMETER_VALUE": InvalidRequest,
    "PERMISSION_DENIED": Refused,
    "UNAUTHENTICATED": Refused,
    "NO_BEST_TRIAL": NoBest,
    "TEMPORARILY_UNAVAILABLE": ServerAway,
}

_BY_STATUS: Final[Mapping[int, type[ServerError]]] = {401: Refused, 403: Refused, 503: ServerAway}


class Client:
    """Talks to one server over one kept connection.

    Args:
        url: of the server, `http://host:port` or `https://...`, with a base path or without.
        token: bearer token, where the server asks for one.
        timeout_s: of one answer.

    Raises (from every call):
        ServerAway: nobody answers there, or the server's database is away.
        MissingOnServer, InvalidRequest, Refused, ServerError: what the server said.
    """

    retry_waits_s: ClassVar[tuple[float, ...]] = (0.2, 0.5)
    """Between tries of what may be repeated, when nobody answers."""

    def __init__(self, url: str, token: str = "", *, timeout_s: float = 30.0) -> None:
        parts = urlsplit(url if "//" in url else f"http://{url}")
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise InvalidRequest(f"{url!r} is not a server's address.", hint="Use http://host:port.")
        self.url = f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}"
        self._parts = parts
        self._base = parts.path.rstrip("/")
        self._timeout_s = timeout_s
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._connection: http.client.HTTPConnection | None = None

    def close(self) -> None:
        """Close the connection; the next call opens another."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- the server itself

    def is_healthy(self) -> bool:
        """Whether the server answers `/health`."""
        return self._exchange("GET", "/health")[0] == http.HTTPStatus.OK

    def version(self) -> VersionAnswer:
        """The server's release."""
        return cast(VersionAnswer, self._json("GET", "/version"))

    def server(self) -> ServerAnswer:
        """What the server knows of its surroundings."""
        return cast(ServerAnswer, self._api("GET", "/server"))

    # -- snapshots

    def has_snapshot(self, digest: str) -> bool:
        """Whether the server has this snapshot."""
        status, _ = self._exchange("HEAD", f"{_PREFIX}/snapshots/{quote(digest)}")
        if status in (http.HTTPStatus.OK, http.HTTPStatus.NOT_FOUND):
            return status == http.HTTPStatus.OK
        # An answer to HEAD has no body that would say more.
        kind = _BY_STATUS.get(status, ServerError)
        raise kind(
            f"The server at {self.url} does not say whether it has the snapshot (status {status}).", hint="`sweep doctor` tells more.", http_status=status
        )

    def put_snapshot(self, digest: str, archive: Path, n_files: int) -> SnapshotAnswer:
        """Upload a packed folder, streamed from disk."""
        path = f"/snapshots/{quote(digest)}?n_files={n_files}"
        return cast(SnapshotAnswer, self._api("PUT", path, archive=archive))

    # -- sweeps

    def submit(self, body: SubmitBody) -> SweepAnswer:
        """Submit a sweep; the same `submission_id` again answers with the same sweep, so a lost answer is harmless."""
        return cast(SweepAnswer, self._api("POST", "/sweeps", body=body, is_repeatable=True))

    def placement(self, body: PlacementBody) -> PlacementAnswer:
        """Which workers could run such trials now, or why none can; nothing is submitted."""
        return cast(PlacementAnswer, self._api("POST", "/placement", body=body, is_repeatable=True))

    def sweeps(self, *, state: str | None = None, limit: int = 50, user_name: str | None = None) -> SweepList:
        """Sweeps, newest first."""
        return cast(SweepList, self._api("GET", "/sweeps", query={"state": state, "limit": limit, "user_name": user_name}))

    def sweep(self, ref: str) -> SweepAnswer:
        """One sweep: counts, best, running trials, time left."""
        return cast(SweepAnswer, self._api("GET", f"/sweeps/{_segment(ref)}"))

    def trials(
        self, ref: str, *, states: tuple[str, ...] = (), sort: str = "number", limit: int | None = None, offset: int = 0, where: str | None = None
    ) -> TrialList:
        """Trials of a sweep whose runs meet a filter, by number or best first; all of them if there is no limit, page by page."""
        found: list[TrialAnswer] = []
        while True:
            left = None if limit is None else limit - len(found)
            query = {"state": states, "sort": sort, "limit": left and min(left, _TRIALS_PAGE), "offset": offset or None, "where": where}
            page = cast(TrialList, self._api("GET", f"/sweeps/{_segment(ref)}/trials", query=query))
            found += page["trials"]
            following = page.get("next_offset")
            if following is None or (limit is not None and len(found) >= limit):
                return {**page, "trials": found}
            offset = following

    def best(self, ref: str, *, top: int = 1, where: str | None = None) -> BestAnswer:
        """The best finished trials of a sweep, of those whose runs meet a filter."""
        return cast(BestAnswer, self._api("GET", f"/sweeps/{_segment(ref)}/best", query={"top": top, "where": where}))

    def events(self, ref: str, *, limit: int = 1000) -> EventList:
        """History of a sweep."""
        return cast(EventList, self._api("GET", f"/sweeps/{_segment(ref)}/events", query={"limit": limit}))

    def steer(self, ref: str, move: str) -> SweepAnswer:
        """`pause`, `resume`, `stop` or `cancel` a sweep."""
        return cast(SweepAnswer, self._api("POST", f"/sweeps/{_segment(ref)}/{move}"))

    def extend(self, ref: str, n_more: int) -> SweepAnswer:
        """Let a sweep have so many trials more than it has, if it has ended, or else than it was to have."""
        body = {"n_more": n_more, "request_id": uuid4().hex}
        return cast(SweepAnswer, self._api("POST", f"/sweeps/{_segment(ref)}/extend", body=body, is_repeatable=True))

    def retry(self, ref: str, trials: Sequence[int] | None = None, *, cancelled: bool = False) -> RetryAnswer:
        """Run failed trials again, all of them or these; cancelled ones too, if asked for."""
        body = {"trials": None if trials is None else list(trials), "cancelled": cancelled}
        return cast(RetryAnswer, self._api("POST", f"/sweeps/{_segment(ref)}/retry", body=body))

    # -- runs

    def run(self, ref: str) -> RunAnswer:
        """One run, by id, unique prefix, or `SWEEP/NUMBER`."""
        return cast(RunAnswer, self._api("GET", f"/runs/{_path(ref)}"))

    def cancel_run(self, ref: str) -> RunAnswer:
        """Ask for a run to be stopped."""
        return cast(RunAnswer, self._api("POST", f"/runs/{_path(ref)}/cancel"))

    def logs(self, ref: str, *, attempt: int | None = None, stream: str = "stdout", offset: int = 0, limit: int = 1024 * 1024) -> LogAnswer:
        """A piece of one attempt's output."""
        query = {"attempt": attempt, "stream": stream, "offset": offset, "limit": limit}
        return cast(LogAnswer, self._api("GET", f"/runs/{_path(ref)}/logs", query=query))

    def metrics(self, ref: str, *, key: str | None = None) -> MetricList:
        """Latest values, or one metric's whole history, page by page."""
        found: list[MetricValue] = []
        token: str | None = None
        while True:
            page = cast(MetricList, self._api("GET", f"/runs/{_path(ref)}/metrics", query={"key": key, "page_token": token}))
            found += page["metrics"]
            token = page.get("next_page_token")
            if not token:
                return {**page, "metrics": found}

    def curves(self, ref: str, key: str) -> Iterator[CurveShape]:
        """One metric in all trials of a sweep, by their number, page by page."""
        from_trial: int | None = 0
        while from_trial is not None:
            page = cast(CurveList, self._api("GET", f"/sweeps/{_segment(ref)}/curves", query={"key": key, "from_trial": from_trial}))
            yield from page["curves"]
            from_trial = page["next_trial"]

    def why(self, ref: str) -> WhyAnswer:
        """Why a sweep or a run is where it is."""
        return cast(WhyAnswer, self._api("GET", f"/why/{_path(ref)}"))

    # -- models and workers

    def register(self, body: RegisterBody) -> VersionCreated:
        """Register a sweep's best trial, or one run, as a model version."""
        return cast(VersionCreated, self._api("POST", "/models", body=body))

    def models(self) -> ModelList:
        """All registered models."""
        return cast(ModelList, self._api("GET", "/models"))

    def model(self, name: str) -> ModelAnswer:
        """One registered model."""
        return cast(ModelAnswer, self._api("GET", f"/models/{_segment(name)}"))

    def set_alias(self, name: str, alias: str, version: int) -> ModelAnswer:
        """Let an alias name a version."""
        return cast(ModelAnswer, self._api("POST", f"/models/{_segment(name)}/aliases", body={"alias": alias, "version": version}))

    def workers(self, *, include_gone: bool = False) -> WorkerList:
        """Workers that are here."""
        return cast(WorkerList, self._api("GET", "/workers", query={"include_gone": "true" if include_gone else None}))

    def drain_worker(self, ref: str) -> WorkerAnswer:
        """Give a worker no more runs; those it has go on, and it stays up."""
        return cast(WorkerAnswer, self._api("POST", f"/workers/{_segment(ref)}/drain"))

    def undrain_worker(self, ref: str) -> WorkerAnswer:
        """Give a drained worker runs again."""
        return cast(WorkerAnswer, self._api("POST", f"/workers/{_segment(ref)}/undrain"))

    def uncordon_worker(self, ref: str) -> WorkerAnswer:
        """Lift the cordon around a worker."""
        return cast(WorkerAnswer, self._api("POST", f"/workers/{_segment(ref)}/uncordon"))

    # -- how it is said

    def _api(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, Any] | None = None,
        body: Mapping[str, Any] | None = None,
        archive: Path | None = None,
        is_repeatable: bool = False,
    ) -> dict[str, Any]:
        target = _PREFIX + path + _query(query or {})
        answer = self._json(method, target, body=body, archive=archive, is_repeatable=is_repeatable)
        if answer.get("schema") != SCHEMA:
            raise ServerError(
                f"The server at {self.url} speaks schema {answer.get('schema')}, this client {SCHEMA}.",
                hint="Use the same release on both sides; `sweep doctor` shows them.",
            )
        return answer

    def _json(self, method: str, target: str, **how: Any) -> dict[str, Any]:
        status, payload = self._exchange(method, target, **how)
        answer = _decoded(payload)
        if status >= _HTTP_ERRORS or answer is None:
            raise _refusal(self.url, status, answer)
        return answer

    def _exchange(
        self,
        method: str,
        target: str,
        *,
        body: Mapping[str, Any] | None = None,
        archive: Path | None = None,
        is_repeatable: bool = False,
    ) -> tuple[int, bytes]:
        """One request and its answer. What may be repeated is, after a pause, when nobody answers.

        What may not goes over a new connection: on a kept one, which the server may just be closing, nobody could
        tell whether it arrived.
        """
        may_repeat = is_repeatable or method != "POST"
        if not may_repeat:
            self.close()
        waits = iter(self.retry_waits_s if may_repeat else ())
        while True:
            was_kept = self._connection is not None
            try:
                return self._once(method, target, body, archive)
            except (OSError, http.client.HTTPException) as error:
                self.close()
                wait_s = 0.0 if was_kept else next(waits, None)
                # Whoever was silent for a whole time-out is not asked again: three of them are no answer for a person.
                if wait_s is None or isinstance(error, TimeoutError):
                    raise _away(self.url, error) from error
                time.sleep(wait_s)

    def _once(self, method: str, target: str, body: Mapping[str, Any] | None, archive: Path | None) -> tuple[int, bytes]:
        connection = self._connection = self._connection or self._connect()
        headers = dict(self._headers)
        payload: bytes | Iterator[bytes] | None = None
        if body is not None:
            headers["Content-Type"] = "application/json"
            payload = json.dumps(body).encode()
        if archive is not None:
            headers["Content-Type"] = "application/gzip"
            headers["Content-Length"] = str(archive.stat().st_size)
            payload = _chunks_of(archive)
        # A server that refuses a large upload answers before it has read it all: what it said is worth more than that
        # it hung up. If it said nothing, reading the answer fails, and that is told.
        with suppress(BrokenPipeError, ConnectionResetError):
            connection.request(method, self._base + target, payload, headers)
        answer = connection.getresponse()
        return answer.status, answer.read()

    def _connect(self) -> http.client.HTTPConnection:
        host, port = self._parts.hostname or "", self._parts.port
        if self._parts.scheme == "https":
            return http.client.HTTPSConnection(host, port, timeout=self._timeout_s, context=ssl.create_default_context())
        return http.client.HTTPConnection(host, port, timeout=self._timeout_s)


def _segment(ref: str, safe: str = "@") -> str:
    if not ref.strip():
        raise InvalidRequest("A name is empty.")
    return quote(ref, safe=safe)


def _path(ref: str) -> str:
    return _segment(ref, safe="@/")


def _query(values: Mapping[str, Any]) -> str:
    given = {key: value for key, value in values.items() if value is not None}
    return f"?{urlencode(given, doseq=True)}" if given else ""


def _chunks_of(archive: Path) -> Iterator[bytes]:
    with archive.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            yield chunk


def _decoded(payload: bytes) -> dict[str, Any] | None:
    try:
        answer = json.loads(payload)
    except ValueError:
        return None
    return answer if isinstance(answer, dict) else None


def _refusal(url: str, status: int, answer: Mapping[str, Any] | None) -> ServerError:
    if answer is None or "error_code" not in answer:
        return ServerError(
            f"What answers at {url} is no sweep server (status {status}, no JSON).",
            hint="Check SWEEP_SERVER.",
            http_status=status,
        )
    code = str(answer["error_code"])
    kind = _BY_CODE.get(code, ServerError)
    return kind(str(answer.get("message", code)), hint=str(answer.get("hint", "")), error_code=code, http_status=status)


def _away(url: str, error: Exception) -> ServerAway:
    reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return ServerAway(
        f"The server at {url} can't be reached: {reason}.",
        hint="Check SWEEP_SERVER and that `sweep server` runs; `sweep doctor` tells more.",
        error_code="TEMPORARILY_UNAVAILABLE",
        http_status=503,
    )
