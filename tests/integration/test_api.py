"""The sweeps API over a real record: rights, refusals, snapshots, submission, steering, reading."""

import asyncio
import errno
import http.client
import json
import math
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import httpx
import pytest
from fastapi.routing import APIRoute

from sweeps.api.rights import Right, right_of
from sweeps.api.routing import Services
from sweeps.api.shapes import SubmitBody
from sweeps.api.sweeps import get_sweep
from sweeps.api.workers import get_server
from sweeps.client import Client, InvalidRequest, MissingOnServer, NoBest, Refused, ServerError
from sweeps.server import compose, describe
from sweeps.spec import load_sweep
from tests.support.cluster import Cluster
from tests.support.record import Hands
from tracking import embedded
from tracking.artifacts import ArtifactStore
from tracking.ids import attempt_token
from tracking.records import MetricPoint
from tracking.settings import Settings
from tracking.snapshot_store import SnapshotStore
from tracking.snapshots import Snapshot, pack
from tracking.store import Store, open_store
from tracking.store.database import Transaction

SNAPSHOT_MAX_BYTES = 100_000


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory, module_database_url: str) -> Iterator[Cluster]:
    """A server, and nothing behind it that would move a sweep."""
    made = Cluster(tmp_path_factory.mktemp("api"), module_database_url, "none", {"SWEEP_SNAPSHOT_MAX_BYTES": str(SNAPSHOT_MAX_BYTES)})
    made.start_server()
    yield made
    made.stop()
    print(made.logs())  # noqa: T201 - shown when a test failed


@pytest.fixture
def client(cluster: Cluster) -> Iterator[Client]:
    """A client of that server."""
    with Client(cluster.url) as opened:
        yield opened


@pytest.fixture(scope="module")
def module_store(module_database_url: str) -> Iterator[Store]:
    """The record behind the server."""
    opened = open_store(module_database_url)
    yield opened
    opened.close()


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder with a script and a sweep file."""
    (tmp_path / "train.py").write_text("print('loss=1')\n")
    (tmp_path / "sweep.yaml").write_text(
        f"name: {tmp_path.name}\nprogram: train.py\nmethod: grid\nmetric: {{name: loss}}\nparameters:\n  lr: {{values: [1, 2, 3]}}\nlimits: {{parallel: 2}}\n"
    )
    return tmp_path


@pytest.fixture
def snapshot(project: Path) -> Iterator[Snapshot]:
    """That folder, packed."""
    packed = pack(project, max_bytes=SNAPSHOT_MAX_BYTES)
    yield packed
    packed.archive.unlink()


@pytest.fixture
def body(project: Path, snapshot: Snapshot, client: Client) -> SubmitBody:
    """A submission whose snapshot is stored."""
    client.put_snapshot(snapshot.digest, snapshot.archive, snapshot.n_files)
    loaded = load_sweep(project / "sweep.yaml")
    return SubmitBody(config=loaded.config.to_builtins(), source=loaded.source, code_digest=snapshot.digest, submission_id=project.name, user_name="kim")


def raw(cluster: Cluster, method: str, path: str, body: bytes | None = None, **headers: str) -> tuple[int, Any]:
    """One request as it stands; status and decoded answer."""
    connection = http.client.HTTPConnection("127.0.0.1", cluster.port, timeout=30)
    try:
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        text = answer.read()
        return answer.status, json.loads(text) if text.startswith(b"{") else text
    finally:
        connection.close()


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (OSError(errno.EMFILE, "Too many open files"), 503, "TEMPORARILY_UNAVAILABLE"),
        (MemoryError(), 503, "TEMPORARILY_UNAVAILABLE"),
        (RuntimeError("can't start new thread"), 503, "TEMPORARILY_UNAVAILABLE"),
        (RuntimeError("inner secret"), 500, "INTERNAL_ERROR"),
    ],
)
def test_error_that_nobody_foresaw_is_told_to_pass_when_the_machine_has_nothing_to_give(
    module_store: Store, tmp_path: Path, error: Exception, status: int, code: str
) -> None:
    """A lack of descriptors, memory or threads is not a fault of ours: clients try again. Neither answer tells a stranger more."""

    async def ask() -> httpx.Response:
        transport = httpx.ASGITransport(compose(module_store, Settings(home=tmp_path)))
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            return await client.get("/api/v1/sweeps/any")

    with patch.object(module_store.sweeps, "get", side_effect=error):
        answer = asyncio.run(ask())
    assert (answer.status_code, answer.json()["error_code"]) == (status, code)
    assert answer.headers.get("Retry-After") == ("1" if status == 503 else None)
    assert str(error) not in answer.text or not str(error)


def test_every_route_states_its_right(module_store: Store, tmp_path: Path) -> None:
    """All routes, those of MLflow's protocol included, name the right they need (I9); what changes things asks for more than to read."""
    app = compose(module_store, Settings(home=tmp_path))
    routes = app.routes
    assert len(routes) > 40
    assert [route for route in routes if right_of(route) is None] == []
    ours = [route for route in routes if isinstance(route, APIRoute)]
    assert len(ours) > 20
    assert [route.path for route in ours if right_of(route) is not (Right.READ if route.methods <= {"GET", "HEAD"} else Right.WRITE)] == []


def test_openapi_describes_every_route(client: Client, cluster: Cluster, module_store: Store, tmp_path: Path) -> None:
    """The document lists each path with a summary, its right and the shape of its answer, and every shape it points to."""
    document = raw(cluster, "GET", "/api/v1/openapi.json")[1]
    assert document == json.loads(json.dumps(describe(compose(module_store, Settings(home=tmp_path)))))
    operations = [operation for path in document["paths"].values() for operation in path.values()]
    assert all(operation["summary"] and operation["x-right"] in set(Right) for operation in operations)
    pointed = set(json.dumps(document).split('"#/components/schemas/')[1:])
    assert {each.partition('"')[0] for each in pointed} <= document["components"]["schemas"].keys()


def test_server_answers_health_and_version(cluster: Cluster) -> None:
    """What load balancers and clients ask first."""
    assert raw(cluster, "GET", "/health") == (200, b"OK")
    assert raw(cluster, "GET", "/version")[1]["name"] == "sweep-runner"


def test_server_says_what_it_is_at_its_root(cluster: Cluster) -> None:
    """Whoever opens the address finds a name, a release, and where to go on."""
    status, answer = raw(cluster, "GET", "/")
    assert status == 200
    assert answer.startswith(b"sweep-runner ")
    assert b"/api/v1/openapi.json" in answer


@pytest.mark.parametrize("path", ["/nothing", "/api/v1/nothing", "/api/v1/sweeps/x/nothing", "/api/2.0/mlflow/nothing"])
def test_server_tells_unknown_endpoints(cluster: Cluster, path: str) -> None:
    """Whatever is not there is answered at once, with MLflow's code."""
    status, answer = raw(cluster, "GET", path)
    assert (status, answer["error_code"]) == (404, "ENDPOINT_NOT_FOUND")


def test_server_answers_to_loopback_names_only(cluster: Cluster) -> None:
    """A page whose name resolves to this machine gets nothing."""
    status, answer = raw(cluster, "GET", "/api/v1/sweeps", Host="evil.example")
    assert (status, answer["error_code"]) == (403, "PERMISSION_DENIED")


def test_server_does_not_hold_answers_back(client: Client) -> None:
    """Answers on a kept connection do not wait for the client's delayed acknowledgement (40 ms)."""

    def timed() -> float:
        began = time.perf_counter()
        client.version()
        return time.perf_counter() - began

    client.version()
    assert min(timed() for _ in range(20)) < 0.035


@pytest.mark.parametrize(
    ("path", "told"), [("/api/v1/sweeps?limit=0", "limit"), ("/api/v1/sweeps?state=happy", "state"), ("/api/v1/runs/x/logs?stream=tape", "stream")]
)
def test_api_names_the_parameter_that_is_wrong(cluster: Cluster, path: str, told: str) -> None:
    """A query that is not acceptable is answered by 400 and the parameter's name."""
    status, answer = raw(cluster, "GET", path)
    assert (status, answer["error_code"]) == (400, "INVALID_PARAMETER_VALUE")
    assert answer["message"].startswith(told)


def test_snapshot_goes_in_and_comes_out_whole(client: Client, cluster: Cluster, snapshot: Snapshot) -> None:
    """Stored once under its digest; storing it again changes nothing."""
    assert not client.has_snapshot(snapshot.digest)
    for _ in range(2):
        assert client.put_snapshot(snapshot.digest, snapshot.archive, snapshot.n_files)["size_bytes"] == snapshot.size_bytes
    assert client.has_snapshot(snapshot.digest)
    assert raw(cluster, "GET", f"/api/v1/snapshots/{snapshot.digest}") == (200, snapshot.archive.read_bytes())


def test_snapshot_that_can_not_be_found_is_no_snapshot_that_is_unknown(client: Client, cluster: Cluster, snapshot: Snapshot) -> None:
    """The folder of artifacts may be a share that is away: workers are told to ask again, and whoever has it may store it anew."""
    client.put_snapshot(snapshot.digest, snapshot.archive, snapshot.n_files)
    (archive,) = cluster.folder.rglob(f"{snapshot.digest}.tar.gz")
    away = archive.rename(archive.with_name("away"))
    status, said = raw(cluster, "GET", f"/api/v1/snapshots/{snapshot.digest}")
    assert (status, said["error_code"]) == (503, "TEMPORARILY_UNAVAILABLE")
    assert not client.has_snapshot(snapshot.digest)
    away.rename(archive)
    assert raw(cluster, "GET", f"/api/v1/snapshots/{snapshot.digest}") == (200, snapshot.archive.read_bytes())
    status, said = raw(cluster, "GET", f"/api/v1/snapshots/{'0' * 64}")
    assert (status, said["error_code"]) == (404, "RESOURCE_DOES_NOT_EXIST")


def test_snapshot_of_other_bytes_is_refused(client: Client, snapshot: Snapshot, tmp_path: Path) -> None:
    """The bytes must have the digest they are sent under, and it must be one."""
    other = tmp_path / "other"
    other.write_bytes(b"not that")
    with pytest.raises(InvalidRequest, match="digest"):
        client.put_snapshot(snapshot.digest, other, 1)
    with pytest.raises(InvalidRequest, match="SHA-256"):
        client.put_snapshot("..%2F..", other, 1)
    assert not client.has_snapshot(snapshot.digest)


def test_snapshot_over_the_limit_is_refused(client: Client, snapshot: Snapshot, tmp_path: Path) -> None:
    """The server's limit holds, whatever the client thinks."""
    big = tmp_path / "big"
    big.write_bytes(os.urandom(SNAPSHOT_MAX_BYTES + 1))
    with pytest.raises(ServerError, match=f"over {SNAPSHOT_MAX_BYTES} bytes") as caught:
        client.put_snapshot(snapshot.digest, big, 1)
    assert caught.value.http_status == 413


def test_submit_makes_one_sweep_of_one_submission(client: Client, body: SubmitBody) -> None:
    """Sent twice, as after a lost answer, it is one sweep."""
    first, second = client.submit(body), client.submit(body)
    assert first["sweep_id"] == second["sweep_id"]
    assert (first["name"], first["state"], first["trials_asked"], first["user_name"]) == (body["config"]["name"], "active", 3, "kim")
    assert first["counts"]["total"] == 0


def test_submit_needs_its_snapshot(client: Client, body: SubmitBody) -> None:
    """Code that nobody uploaded can't be run."""
    with pytest.raises(MissingOnServer, match="not stored here"):
        client.submit({**body, "code_digest": "0" * 64, "submission_id": "other"})


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"method": "guess"}, "method"),
        ({"limits": {"trials": 0}}, "at least 1"),
        ({"name": " "}, "is empty"),
        ({"parameters": [{"distribution": "uniform", "name": "lr", "min": 0.0, "max": 1.0}]}, "grid"),
    ],
)
def test_submit_checks_the_config_again(client: Client, body: SubmitBody, changes: dict[str, Any], told: str) -> None:
    """What a client should have refused, the server refuses."""
    with pytest.raises(InvalidRequest, match=told):
        client.submit({**body, "config": body["config"] | changes, "submission_id": f"{body['submission_id']}-{told}"})


def test_submit_of_a_tampered_config_is_never_the_servers_fault(cluster: Cluster, body: SubmitBody) -> None:
    """Over HTTP and into the record: what is not taken is the client's fault; what is taken can be read again."""
    for key in sorted(body["config"]):
        for value in (-1, 10**40, "x\0y", "x" * 300_000, [[[]]], {"a": None}):
            tampered = {**body, "config": body["config"] | {key: value}, "submission_id": f"{body['submission_id']}-{key}"}
            status, answer = raw(cluster, "POST", "/api/v1/sweeps", json.dumps(tampered).encode())
            assert status == 201 or answer["error_code"] == "INVALID_PARAMETER_VALUE", answer
    assert raw(cluster, "POST", "/api/v1/sweeps", b"[" * 100_000)[0] == 400
    assert raw(cluster, "GET", "/api/v1/sweeps?limit=1000")[0] == 200


def test_sweep_is_found_by_its_names(client: Client, body: SubmitBody) -> None:
    """Id, short id, name, a unique prefix, and @latest."""
    sweep = client.submit(body)
    for ref in (sweep["sweep_id"], sweep["short_id"], sweep["name"], sweep["sweep_id"][:12], "@latest"):
        assert client.sweep(ref)["sweep_id"] == sweep["sweep_id"]
    assert client.sweeps(limit=1)["sweeps"][0]["sweep_id"] == sweep["sweep_id"]
    with pytest.raises(MissingOnServer):
        client.sweep("nobody")


@pytest.mark.parametrize("name", ["ml/flow", "/abs//twice/", "a%2Fb", "100% ü?#", "wine/trials", "wine/7"])
def test_sweep_is_found_by_a_name_that_urls_can_not_hold(client: Client, hands: Hands, name: str) -> None:
    """Every call takes it; its trials are behind one more slash."""
    sweep = hands.sweep(2, name=name)
    answers = (client.sweep(name), client.trials(name), client.best(name), client.steer(name, "pause"))
    assert {answer["sweep_id"] for answer in answers} == {sweep.sweep_id}
    assert client.events(name)["events"]
    assert client.why(name)["subject"] == f"sweep {sweep.short_id}"
    assert client.run(f"{name}/1")["run_id"] == hands.run_id(sweep, 1)
    assert client.logs(f"{name}/1")["run_id"] == client.metrics(f"{name}/1")["run_id"] == hands.run_id(sweep, 1)
    assert client.why(f"{name}/1")["subject"] == f"trial {sweep.short_id}/1"
    assert client.cancel_run(f"{name}/1")["state"] == "cancelled"


def test_number_behind_a_slash_is_a_trial_before_it_is_the_end_of_a_name(client: Client, hands: Hands) -> None:
    """Where both may be named: the trial, there or yet to come; as a sweep it is asked for by its name."""
    parent, odd = hands.sweep(1, name="deep"), hands.sweep(0, name="deep/0")
    assert client.why("deep/0")["subject"] == f"trial {parent.short_id}/0"
    assert client.why("deep/5")["subject"] == f"trial {parent.short_id}/5"
    assert client.run("deep/0")["run_id"] == hands.run_id(parent)
    assert client.sweep("deep/0")["sweep_id"] == odd.sweep_id
    with pytest.raises(MissingOnServer, match="no sweep 'nowhere/3'"):
        client.why("nowhere/3")


def test_logs_of_an_attempt_that_never_was_are_not_found(client: Client, hands: Hands) -> None:
    """What there is, is named."""
    sweep = hands.sweep(2)
    hands.start(sweep)
    with pytest.raises(MissingOnServer, match="has no attempt 9: the latest is 1"):
        client.logs(f"{sweep.short_id}/0", attempt=9)
    with pytest.raises(MissingOnServer, match="has no attempt 1: none has begun"):
        client.logs(f"{sweep.short_id}/1", attempt=1)
    assert client.logs(f"{sweep.short_id}/0", attempt=1)["attempt"] == 1


def test_sweep_is_steered(client: Client, body: SubmitBody) -> None:
    """Pause, resume and cancel; the same again changes nothing; what can't be is told."""
    ref = client.submit(body)["sweep_id"]
    states = [client.steer(ref, move)["state"] for move in ("pause", "pause", "resume", "cancel", "cancel")]
    assert states == ["paused", "paused", "active", "cancelled", "cancelled"]
    with pytest.raises(ServerError) as caught:
        client.steer(ref, "resume")
    assert caught.value.http_status == 409
    assert [event["event"] for event in client.events(ref)["events"] if event["subject"] == "sweep"][-3:] == ["pause", "resume", "cancel"]


def test_trials_and_best_are_asked_for_by_a_filter(client: Client, body: SubmitBody) -> None:
    """A filter is taken as one, and refused with the position of what is wrong with it."""
    ref = client.submit(body)["sweep_id"]
    assert client.trials(ref, where="metrics.loss < 1 OR params.lr < 0.1")["trials"] == []
    assert client.best(ref, where="params.lr < 0.1")["top"] == []
    for ask in (client.trials, client.best):
        with pytest.raises(InvalidRequest, match="at position 15, expected a number"):
            ask(ref, where="metrics.loss < '1'")


def test_sweep_without_trials_has_no_best(client: Client, body: SubmitBody) -> None:
    """No best is an answer; registering it is refused by a code of its own; and `why` says what is missing."""
    ref = client.submit(body)["short_id"]
    best = client.best(ref)
    assert (best["number"], best["value"], best["top"], best["metric"]) == (None, None, [], "loss")
    assert client.trials(ref)["trials"] == []
    with pytest.raises(NoBest):
        client.register({"model": "m", "sweep": ref})
    assert "check that `sweep scheduler` runs" in client.why(ref)["reasons"][0]


@pytest.fixture(scope="module")
def hands(module_store: Store) -> Hands:
    """Plays scheduler and workers; no real ones are here."""
    return Hands(module_store)


def test_sweep_answer_costs_the_same_however_many_trials_run(hands: Hands, tmp_path: Path) -> None:
    """Watchers ask twice a second: the metrics of all running trials are one query. Without a metric of its own a sweep shows none."""
    services = Services(hands.store, SnapshotStore(ArtifactStore(tmp_path)), ArtifactStore(tmp_path), Settings(home=tmp_path))
    sweep = hands.sweep(4, metric_name="loss")
    held = [hands.start(sweep, 0)]
    hands.log(held[0], "loss", 2.0, 1.5)
    hands.log(held[0], "other", 7.0)
    with counted_statements() as one:
        answer = get_sweep(services, sweep.sweep_id)
    assert [trial["metric"] and trial["metric"]["value"] for trial in answer["running"]] == [1.5]
    held += [hands.start(sweep, number) for number in (1, 2, 3)]
    hands.log(held[2], "loss", 0.5)
    with counted_statements() as four:
        answer = get_sweep(services, sweep.sweep_id)
    assert [trial["metric"] and trial["metric"]["value"] for trial in answer["running"]] == [1.5, None, 0.5, None]
    assert len(four) == len(one)
    bare = hands.sweep(1)
    hands.start(bare)
    assert [trial["metric"] for trial in get_sweep(services, bare.sweep_id)["running"]] == [None]


@contextmanager
def counted_statements() -> Iterator[list[str]]:
    """The statements that stores send meanwhile."""
    sent: list[str] = []

    execute = Transaction._run

    def note(self: Transaction, sql: str, params: Any) -> Any:
        sent.append(sql)
        return execute(self, sql, params)

    with patch.object(Transaction, "_run", note):
        yield sent


def test_trials_come_in_pages(cluster: Cluster, client: Client, hands: Hands) -> None:
    """An answer has a bound, and says where to go on; the client puts the pages together."""
    sweep = hands.sweep(5)
    path = f"/api/v1/sweeps/{sweep.sweep_id}/trials"
    pages = [raw(cluster, "GET", f"{path}?limit=2&offset={offset}")[1] for offset in (0, 2, 4)]
    assert [[trial["number"] for trial in page["trials"]] for page in pages] == [[0, 1], [2, 3], [4]]
    assert [page["next_offset"] for page in pages] == [2, 4, None]
    assert raw(cluster, "GET", f"{path}?limit=10001")[0] == 400
    assert [trial["number"] for trial in client.trials(sweep.sweep_id)["trials"]] == [0, 1, 2, 3, 4]
    assert [trial["number"] for trial in client.trials(sweep.sweep_id, limit=2, offset=1)["trials"]] == [1, 2]


def test_metric_history_comes_in_pages(cluster: Cluster, client: Client, module_store: Store) -> None:
    """A long history is read page by page and comes out whole."""
    experiment = module_store.experiments.ensure("api-history")
    run_id = module_store.runs.create_external(experiment.experiment_id).run_id
    module_store.metrics.log(run_id, [MetricPoint("loss", float(step), step) for step in range(25_003)])
    page = raw(cluster, "GET", f"/api/v1/runs/{run_id}/metrics?key=loss")[1]
    assert (len(page["metrics"]), bool(page["next_page_token"])) == (25_000, True)
    assert [point["step"] for point in client.metrics(run_id, key="loss")["metrics"]] == list(range(25_003))


def test_worker_is_drained_cordoned_and_taken_back(client: Client, hands: Hands) -> None:
    """Both can be undone; doing so for a worker that needs it not changes nothing."""
    worker = hands.worker()
    states = [client.drain_worker(worker.name)["state"], client.undrain_worker(worker.name)["state"], client.undrain_worker(worker.worker_id)["state"]]
    assert states == ["draining", "live", "live"]
    hands.change("UPDATE workers SET cordoned = 'three in a row', cordoned_at = now(), faults_in_row = 3 WHERE worker_id = %(id)s", id=worker.worker_id)
    assert {entry["name"]: entry["state"] for entry in client.workers()["workers"]}[worker.name] == "cordoned"
    lifted = [client.uncordon_worker(worker.name) for _ in range(2)]
    assert [(entry["state"], entry["cordoned"]) for entry in lifted] == [("live", None), ("live", None)]
    told = hands.sql("SELECT event FROM events WHERE worker_id = %(id)s AND event LIKE '%%cordon' ORDER BY seq", id=worker.worker_id)
    assert [row.event for row in told] == ["uncordon"]
    assert hands.sql("SELECT faults_in_row FROM workers WHERE worker_id = %(id)s", id=worker.worker_id)[0].faults_in_row == 0
    for move in (client.undrain_worker, client.uncordon_worker):
        with pytest.raises(MissingOnServer, match="no worker 'nobody'"):
            move("nobody")
    hands.store.sessions.close(worker.session_id)


def test_run_shows_what_was_logged(client: Client, module_store: Store) -> None:
    """Metrics with their history, NaN kept, and parameters of a run that a client opened."""
    experiment = module_store.experiments.ensure("api-runs")
    run = module_store.runs.create_external(experiment.experiment_id, name="mine")
    module_store.runs.log_params(run.run_id, {"lr": "0.1"})
    module_store.metrics.log(run.run_id, [MetricPoint("loss", value, step, 1000 + step) for step, value in enumerate((2.0, math.nan, 1.0))])
    answer = client.run(run.run_id[:12])
    assert (answer["kind"], answer["params"], answer["metrics"][0]["value"]) == ("external", {"lr": "0.1"}, 1.0)
    assert [point["value"] for point in client.metrics(run.run_id, key="loss")["metrics"]] == [2.0, "NaN", 1.0]
    assert client.logs(run.run_id)["text"] == ""
    with pytest.raises(ServerError) as caught:
        client.cancel_run(run.run_id)
    assert caught.value.http_status == 409


def test_model_versions_are_registered_from_runs(client: Client, module_store: Store) -> None:
    """A run becomes a version; an alias moves; what is not there is told."""
    experiment = module_store.experiments.ensure("api-models")
    run = module_store.runs.create_external(experiment.experiment_id, name="mine")
    versions = [client.register({"model": "wine", "run": run.run_id, "alias": "champion"})["version"] for _ in range(2)]
    assert versions == [1, 2]
    assert [version["aliases"] for version in client.model("wine")["versions"]] == [["champion"], []]
    assert client.set_alias("wine", "champion", 1)["versions"][1]["aliases"] == ["champion"]
    assert [model["name"] for model in client.models()["models"]] == ["wine"]
    with pytest.raises(MissingOnServer):
        client.model("beer")
    with pytest.raises(InvalidRequest, match="either"):
        client.register({"model": "wine"})


@pytest.mark.parametrize("artifact", ["../../etc", "/etc", "a/../../b", "", "..", "x\0"])
def test_model_version_is_of_the_runs_own_artifacts(client: Client, module_store: Store, artifact: str) -> None:
    """A path that leaves them is refused, and nothing is registered."""
    experiment = module_store.experiments.ensure("api-models")
    run = module_store.runs.create_external(experiment.experiment_id, name="mine")
    with pytest.raises(InvalidRequest, match="Artifact"):
        client.register({"model": "astray", "run": run.run_id, "artifact": artifact})
    with pytest.raises(MissingOnServer):
        client.model("astray")


def test_attempt_token_opens_nothing_else(cluster: Cluster, body: SubmitBody) -> None:
    """With an attempt's token nothing may be changed as a person does, and a dead one may not even read (I3)."""
    with Client(cluster.url, attempt_token("a" * 32, 1, "secret")) as trial:
        with pytest.raises(Refused, match="own run only"):
            trial.submit(body)
        with pytest.raises(Refused) as caught:
            trial.sweeps()
    assert caught.value.http_status == 401


def test_server_tells_of_its_surroundings(client: Client, cluster: Cluster) -> None:
    """What `doctor` asks."""
    server = client.server()
    # Nothing was uploaded yet: a folder that can be made is none too few.
    assert (server["database_problem"], server["artifacts_problem"]) == ("", "")
    assert server["snapshot_max_bytes"] == SNAPSHOT_MAX_BYTES


@pytest.mark.parametrize(
    ("database_url", "expected"), [("", True), ("postgresql+psycopg2://sweep@/postgres?host=/here", True), ("postgresql://db/sweep", False)]
)
def test_server_knows_the_cluster_of_one_machine(
    module_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, database_url: str, expected: bool
) -> None:
    """Roles of the local cluster are told the embedded Postgres' address, and are local all the same."""
    monkeypatch.setattr(embedded, "status", lambda _: SimpleNamespace(url="postgresql+psycopg2://sweep@/postgres?host=/here"))
    settings = Settings(home=tmp_path, database_url=database_url)
    services = Services(module_store, SnapshotStore(ArtifactStore(tmp_path)), ArtifactStore(tmp_path), settings)
    assert get_server(services)["is_local"] is expected


def test_server_picks_a_port_says_so_and_ends_in_order(cluster: Cluster, tmp_path: Path) -> None:
    """`--port 0` prints a working address; SIGTERM ends with status 0."""
    environ = {**os.environ, "SWEEP_DATABASE_URL": cluster.database_url, "SWEEP_HOME": str(tmp_path)}
    command = [sys.executable, "-m", "sweeps.cli", "server", "--port", "0"]
    with subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        try:
            line = process.stdout.readline()
            assert line.startswith("Serving on http://127.0.0.1:")
            with Client(line.split()[-1]) as client:
                assert client.is_healthy()
        finally:
            process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=30) == 0


def test_server_says_so_when_the_port_is_taken(cluster: Cluster, tmp_path: Path) -> None:
    """Another program's port is a clear error, not a traceback."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = cluster.sweep("server", "--port", str(taken.getsockname()[1]), status=2)
    assert "Can't listen on 127.0.0.1" in done.stderr
    assert "Traceback" not in done.stderr
