"""The pure parts of the sweeps API: reasons, shapes, the gate, and what a client makes of answers."""

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
from sweeps.api.routing import parse_body, shape_schemas
from sweeps.api.runs import whole_characters
from sweeps.api.shapes import RegisterBody
from sweeps.api.why import why_run, why_sweep
from sweeps.client import Client, InvalidRequest
from sweeps.server import Gate, ServerOptions, is_loopback, require_loopback_or_open, require_rights
from tracking.errors import InvalidValue, SettingError
from tracking.records import Event, Launch, Resources, Run, Sweep, SweepCounts, WorkerView

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
WORKER = WorkerView(
    worker_id="w" * 8,
    session_id="1",
    name="w1",
    hostname="h",
    state="live",
    celery_queue="q",
    queues=("gpu",),
    slots=1,
    cpus=2.0,
    memory_bytes=2**30,
    gpus=0,
    runtimes=("process",),
    renewed_at=NOW,
    silent=False,
)
RUN = Run(
    run_id="r" * 32,
    experiment_id="1",
    kind="managed",
    name="",
    user_name="",
    state="queued",
    lifecycle_stage="active",
    attempt=0,
    created_at=NOW,
    sweep_id=SWEEP.sweep_id,
    trial_number=0,
)
WAITING = SweepCounts(open=1, queued=1)


@pytest.mark.parametrize(
    ("workers", "told"),
    [
        ([], "No worker is here"),
        ([replace(WORKER, queues=("cpu",))], "No worker serves queue 'gpu' (served: cpu)"),
        ([replace(WORKER, draining=True)], "w1 serves queue 'gpu', but is draining"),
        ([replace(WORKER, silent=True)], "has not renewed its lease"),
        ([replace(WORKER, cordoned="three faults in a row")], "is cordoned: three faults in a row"),
        ([replace(WORKER, cpus=0.5)], "No worker of queue 'gpu' is large enough: a trial asks for 1 cpu."),
        ([replace(WORKER, running=("x",))], "The only slot of the workers that fit is busy"),
        ([WORKER], "check that `sweep scheduler` runs"),
    ],
)
def test_why_names_what_a_waiting_trial_waits_for(workers: list[WorkerView], told: str) -> None:
    """A sweep and its waiting run give the same reason, the first that applies (I5)."""
    assert told in why_sweep(SWEEP, WAITING, workers, [])[0]
    assert told in why_run(RUN, SWEEP, workers, [], NOW)[0]


def test_why_knows_that_containers_need_an_engine() -> None:
    """A trial with an image fits only where containers run."""
    sweep = replace(SWEEP, launch=Launch(resources=Resources(image="img")))
    assert "containers" in why_sweep(sweep, WAITING, [WORKER], [])[0]
    assert "about to be placed" in why_sweep(sweep, WAITING, [replace(WORKER, runtimes=("process", "docker"))], [])[0]


def test_why_tells_how_it_ended_and_what_failed() -> None:
    """A sweep's end has a cause, and its last failure is told."""
    ended = replace(SWEEP, state="failed", cause="over_budget", detail="10 trials failed.")
    failure = Event(seq=1, at=NOW, subject="trial", event="fail", to_state="failed", trial_number=7, cause="signal", detail="signal 9")
    assert why_sweep(ended, SweepCounts(failed=10), [], [failure]) == [
        "The sweep is failed, cause over_budget (10 trials failed).",
        "10 trials failed, the last one trial 7: signal (signal 9).",
    ]


def test_why_tells_of_a_paused_sweep() -> None:
    """A pause is the reason, whatever the workers do."""
    paused = replace(SWEEP, state="paused")
    assert "paused" in why_sweep(paused, WAITING, [], [])[0]
    assert why_run(RUN, paused, [], [], NOW) == ["The run waits because its sweep is paused."]


def test_why_tells_where_a_run_is_and_what_came_before() -> None:
    """A running attempt names its worker; lost ones before it are listed."""
    lost = Event(seq=1, at=NOW, subject="attempt", event="lose", to_state="lost", attempt=1, cause="lost")
    running = replace(RUN, state="running", attempt=2, worker_id=WORKER.worker_id, started_at=NOW - timedelta(seconds=30))
    assert why_run(running, SWEEP, [WORKER], [lost], NOW) == ["Attempt 2 runs on w1 since 30 s ago.", "Attempt 1 lost: lost."]
    assert "silent" in why_run(running, SWEEP, [replace(WORKER, silent=True)], [], NOW)[1]
    asked = Event(seq=2, at=NOW - timedelta(seconds=5), subject="run", event="cancel_requested", attempt=2)
    told = why_run(running, SWEEP, [WORKER], [asked], NOW, stop_grace_s=7)
    assert told[0] == "It was asked to stop 5 s ago; if it does not end by itself, it is killed 7 s after its worker has heard of that."
    assert why_run(running, SWEEP, [WORKER], [replace(asked, attempt=1)], NOW) == ["Attempt 2 runs on w1 since 30 s ago."]
    assert "waits to be claimed" in why_run(replace(running, state="placed"), SWEEP, [WORKER], [], NOW)[0]
    assert "a client opened it" in why_run(replace(running, kind="external"), None, [], [], NOW)[0]


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
