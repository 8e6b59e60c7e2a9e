"""The pure parts of the sweeps API: shapes, the gate, and what a client makes of answers."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from msgspec.structs import replace
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from sweeps.api import shapes
from sweeps.api.present import number, sweep_shape, trials_asked
from sweeps.api.rights import Right, right_of
from sweeps.api.routing import as_sent, parse_body, shape_schemas
from sweeps.api.runs import whole_characters
from sweeps.api.shapes import RegisterBody
from sweeps.client import Client, InvalidRequest
from sweeps.server import Gate, ServerOptions, is_loopback, require_loopback_or_open, require_rights
from tracking.errors import InvalidValue, SettingError
from tracking.records import Launch, Sweep, SweepCounts

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)

SWEEP = Sweep(
    sweep_id="s" * 32,
    experiment_id="1",
    name="wine",
    short_id="brave-otter-7f3a",
    state="active",
    user_name="kim",
    config={},
    source="",
    launch=Launch(),
    metric_name="rmse",
    metric_goal="minimize",
    metric_from="last",
    queue="gpu",
    priority=50,
    parallel=2,
    created_at=NOW - timedelta(seconds=100),
)


def test_sweep_shape_guesses_the_time_left_by_the_rate_so_far() -> None:
    """25 of 100 in 100 s leaves 300 s; nothing is guessed when nothing has ended, or for a paused sweep."""
    config = {"name": "w", "experiment": "w", "method": "random", "parameters": [], "command": {"kind": "macros", "words": []}, "limits": {"trials": 100}}
    sweep = replace(SWEEP, config=config)
    assert trials_asked(config) == 100
    assert sweep_shape(sweep, SweepCounts(open=2, finished=20, failed=5), NOW)["eta_s"] == 300.0
    assert sweep_shape(sweep, SweepCounts(open=2), NOW)["eta_s"] is None
    assert sweep_shape(replace(sweep, state="paused"), SweepCounts(finished=25), NOW)["eta_s"] is None
    assert sweep_shape(replace(sweep, state="stopping"), SweepCounts(open=5, finished=25), NOW)["eta_s"] == 20.0


def test_sweep_shape_bears_a_config_of_another_release() -> None:
    """A list of sweeps does not break on one whose config it can't read."""
    assert sweep_shape(replace(SWEEP, config={"from": "the future"}), SweepCounts(), NOW)["trials_asked"] is None


@pytest.mark.parametrize(("value", "shown"), [(1.5, 1.5), (None, None), (float("nan"), "NaN"), (float("inf"), "Infinity"), (float("-inf"), "-Infinity")])
def test_number_fits_into_json(value: float | None, shown: Any) -> None:
    """Values that JSON has no number for are kept as words."""
    assert number(value) == shown


@pytest.mark.parametrize("text", ["abc", "é", "a€", "a😀", "é€😀"])
def test_whole_characters_never_splits_one(text: str) -> None:
    """Whatever the page's size, what is given and what follows decode to the whole."""
    data = text.encode()
    for size in range(len(data) + 1):
        kept = whole_characters(data[:size])
        assert kept.decode() + data[len(kept) :].decode() == text
        assert len(data[:size]) - len(kept) < 4


def test_whole_characters_leaves_alone_what_is_no_text() -> None:
    """Bytes that are no UTF-8 are not held back."""
    assert whole_characters(b"\x80\x80\x80\x80\x80") == b"\x80\x80\x80\x80\x80"
    assert whole_characters(b"") == b""


def test_parse_body_names_the_field() -> None:
    """A wrong body is told by the path of what is wrong."""
    with pytest.raises(InvalidValue, match=r"\$\.model"):
        parse_body(b'{"model": 1}', RegisterBody)
    with pytest.raises(InvalidValue):
        parse_body(b"{", RegisterBody)


def test_shape_schemas_describe_every_shape() -> None:
    """OpenAPI lists each shape with a sentence about it."""
    named = {name for name, shape in vars(shapes).items() if hasattr(shape, "__required_keys__")}
    schemas = shape_schemas()
    assert named <= schemas.keys()
    assert [name for name in named if not schemas[name].get("description")] == []


async def _endpoint(_: Request) -> Response:
    return Response("in")


@pytest.mark.parametrize(
    ("scope", "matched"),
    [
        ({"path": "/api/v1/sweeps/ml/flow", "raw_path": b"/api/v1/sweeps/ml%2Fflow"}, "/api/v1/sweeps/ml%2Fflow"),
        ({"path": "/api/v1/sweeps/100%"}, "/api/v1/sweeps/100%25"),
        ({"path": "/api/2.0/mlflow/a/b", "raw_path": b"/api/2.0/mlflow/a%2Fb"}, "/api/2.0/mlflow/a/b"),
    ],
)
def test_path_of_our_api_is_matched_as_it_was_sent(scope: dict[str, Any], matched: str) -> None:
    """An encoded slash stays within its segment; a server that does not tell what was sent is borne; MLflow's paths are left alone."""
    assert as_sent(scope)["path"] == matched


def test_require_rights_refuses_a_route_without_one() -> None:
    """An app with a route that states no right does not start (I9)."""
    route = Route("/secret", _endpoint)
    assert right_of(route) is None
    with pytest.raises(RuntimeError, match="/secret"):
        require_rights([route])


def test_right_of_knows_only_rights_there_are() -> None:
    """A made-up right counts as none."""

    async def stated(_: Request) -> Response:
        return Response()

    stated.right = "everything"  # type: ignore[attr-defined]
    assert right_of(Route("/x", stated)) is None
    stated.right = "read"  # type: ignore[attr-defined]
    assert right_of(Route("/x", stated)) is Right.READ


@pytest.mark.parametrize(
    ("host", "expected"),
    [("127.0.0.1", True), ("127.9.9.9", True), ("localhost", True), ("::1", True), ("[::1]", True), ("0.0.0.0", False), ("10.0.0.1", False), ("evil", False)],
)
def test_is_loopback(host: str, expected: bool) -> None:
    """Names of this machine only."""
    assert is_loopback(host) is expected


def test_server_refuses_the_network_unless_open() -> None:
    """Listening elsewhere must be asked for."""
    with pytest.raises(SettingError, match="no users yet"):
        require_loopback_or_open(ServerOptions(host="192.0.2.1"))
    require_loopback_or_open(ServerOptions(host="192.0.2.1", is_open=True))
    require_loopback_or_open(ServerOptions(host="::1"))


async def _status(gate: Gate, method: str, **headers: str) -> int:
    """The status with which a gate answers."""
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": b""}

    async def send(message: Any) -> None:
        sent.append(message)

    raw = [(name.encode(), value.encode()) for name, value in headers.items()]
    scope = {"type": "http", "method": method, "path": "/", "headers": raw, "query_string": b"", "scheme": "http", "http_version": "1.1"}
    await gate(scope, receive, send)
    return int(sent[0]["status"])


@pytest.mark.parametrize(
    ("method", "headers", "is_open", "expected"),
    [
        ("GET", {"host": "127.0.0.1:8080"}, False, 200),
        ("GET", {"host": "[::1]:8080"}, False, 200),
        ("GET", {"host": "evil.example:8080"}, False, 403),
        ("GET", {}, False, 403),
        ("GET", {"host": "sweeps.lan:8080"}, True, 200),
        ("POST", {"host": "127.0.0.1:8080", "origin": "http://127.0.0.1:8080"}, False, 200),
        ("POST", {"host": "127.0.0.1:8080", "origin": "http://evil.example"}, False, 403),
        ("POST", {"host": "127.0.0.1:8080", "origin": "null"}, False, 403),
        ("POST", {"host": "127.0.0.1:8080", "origin": "http://["}, False, 403),
        ("POST", {"host": "sweeps.lan", "origin": "http://evil.example"}, True, 403),
        ("GET", {"host": "127.0.0.1:8080", "origin": "http://evil.example"}, False, 200),
    ],
)
def test_gate_lets_in_whom_it_should(method: str, headers: dict[str, str], is_open: bool, expected: int) -> None:
    """Names that resolve here by a trick, and pages of other origins, get nothing done."""
    app = Starlette(routes=[Route("/", _endpoint, methods=["GET", "POST"])])
    assert asyncio.run(_status(Gate(app, is_open=is_open), method, **headers)) == expected


def test_gate_answers_a_bug_without_telling_of_it(caplog: pytest.LogCaptureFixture) -> None:
    """What nobody foresaw is logged, and answered by 500."""

    async def broken(*_: Any) -> None:
        raise ZeroDivisionError("a secret")

    assert asyncio.run(_status(Gate(broken, is_open=True), "GET", host="x")) == 500
    assert "a secret" in caplog.text


@pytest.mark.parametrize(("given", "expected"), [("localhost:80", "http://localhost:80"), ("https://h/base/", "https://h/base")])
def test_client_takes_common_spellings_of_an_address(given: str, expected: str) -> None:
    """A missing scheme means http; a base path is kept."""
    assert Client(given).url == expected


@pytest.mark.parametrize("given", ["ftp://h", "http://", "redis://localhost:6379"])
def test_client_refuses_what_is_no_address(given: str) -> None:
    """Another protocol's address is told at once."""
    with pytest.raises(InvalidRequest, match="is not a server's address"):
        Client(given)
