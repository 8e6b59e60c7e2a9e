"""The server killed, restarted, away and slow while trials log and people type: what was acknowledged is there, and the rest is told (I1, I2, I8)."""

import itertools
import json
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http import HTTPStatus
from http.client import HTTPException
from typing import Any, Final, Literal

import pytest

from sweeps.api.shapes import SubmitBody
from sweeps.client import Client, ServerAway
from sweeps.spec import load_sweep
from tests.faults.invariants import check
from tests.support.fault_table import Faults
from tests.support.faults import FaultCluster
from tests.support.ledger import ledger_file, read_ledger
from tests.support.points import check_points, logging_lines, points_of

MakeCluster = Callable[..., FaultCluster]
End = Literal["kill -9", "SIGTERM"]

ENDS: Final[tuple[End, ...]] = ("kill -9", "SIGTERM")


def restart_server(cluster: FaultCluster, faults: Faults, how: End) -> None:
    """End the server and start it again."""
    if how == "SIGTERM":
        assert cluster.role("server").stop() == 0
    cluster.restart("server")
    faults.record(f"server: {how}, restarted under load")


def check_first_attempts(cluster: FaultCluster, sweep_id: str) -> None:
    """Assert that no attempt was burnt, and no worker taken for silent."""
    burnt = cluster.query("SELECT * FROM audit_attempts WHERE sweep_id = %(id)s AND (attempt > 1 OR state <> 'succeeded')", id=sweep_id)
    assert not burnt, f"attempts were burnt: {burnt}"
    assert not cluster.query("SELECT 1 FROM events WHERE event = 'session_lost'")


# -- trials --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ENDS)
def test_points_of_trials_are_all_there_when_the_server_is_restarted_under_load(fault_cluster: MakeCluster, faults: Faults, how: End) -> None:
    """Batches whose answer was lost are sent again: every point once, by step."""
    cluster = fault_cluster()
    project = cluster.ledger_project(n_trials=10, extra=logging_lines(150, pause_s=0.01))
    sweep_id = cluster.submit(project)
    for n_ended in (1, 3, 5, 7):
        cluster.wait_for_finished(sweep_id, n_ended)
        restart_server(cluster, faults, how)
    cluster.wait_for_end(sweep_id)
    check(cluster, sweep_id, n_trials=10, ledger=ledger_file(project))
    check_first_attempts(cluster, sweep_id)
    check_points(cluster, sweep_id, 150)


def test_points_wait_in_the_client_while_the_server_is_away_and_arrive_at_its_end(fault_cluster: MakeCluster, faults: Faults) -> None:
    """A trial that has logged everything and is about to end waits for the server, within bounds."""
    cluster = fault_cluster()
    project = cluster.ledger_project(n_trials=2, seconds=0.5, extra=logging_lines(2500, is_flushed=False))
    sweep_id = cluster.submit(project)
    ledger = ledger_file(project)
    cluster.wait_for(lambda: len(read_ledger(ledger)) == 2, "both trials run")
    cluster.role("server").kill()
    faults.record("server: away when a trial ends")
    cluster.wait_for(lambda: sum(line.what == "end" for line in read_ledger(ledger)) == 2, "both trials have said all they have to say")
    cluster.restart("server")
    cluster.wait_for_end(sweep_id)
    check(cluster, sweep_id, n_trials=2, ledger=ledger)
    check_first_attempts(cluster, sweep_id)
    check_points(cluster, sweep_id, 2500)


def test_client_ends_in_time_and_tells_what_is_missing_when_the_server_stays_away(fault_cluster: MakeCluster, faults: Faults) -> None:
    """A trial is not kept from its end: it succeeds by what it printed, and its output says how much did not arrive."""
    cluster = fault_cluster()
    settings = "sweep_client.EXIT_FLUSH_S = 1.0\nsweep_client.MAX_BUFFERED_POINTS = 300\nsweep_client.log_params({'depth': 3})\n"
    project = cluster.ledger_project(n_trials=1, seconds=1.0, extra=logging_lines(1000, is_flushed=False, settings=settings))
    sweep_id = cluster.submit(project)
    cluster.wait_for(lambda: read_ledger(ledger_file(project)), "the trial runs")
    cluster.role("server").kill()
    faults.record("server: away past the end of a trial")
    ended = "SELECT a.duration_s FROM audit_attempts v JOIN attempts a USING (run_id, attempt) WHERE v.sweep_id = %(id)s AND v.state = 'succeeded'"
    cluster.wait_for(lambda: cluster.query(ended, id=sweep_id), "the trial ends")
    assert cluster.query(ended, id=sweep_id)[0].duration_s < 20
    cluster.restart("server")
    (trial,) = cluster.wait_for_end(sweep_id)
    said = output_of(cluster, trial["run_id"], "stderr")
    assert "missing: 300 points, 1 parameters, 1 tags" in said  # the tag says how many were dropped
    assert "sweep_client: 700 points were dropped because the buffer was full" in said
    check(cluster, sweep_id, n_trials=1, ledger=ledger_file(project))


def test_client_stays_within_its_buffer_when_the_server_takes_two_seconds_a_batch(fault_cluster: MakeCluster, faults: Faults) -> None:
    """At ten times what the server takes, the newest points arrive in order, and those that were dropped are counted."""
    cluster = fault_cluster()
    n_points, n_buffered = 40_000, 3000
    settings = f"sweep_client.MAX_BUFFERED_POINTS = {n_buffered}\nimport resource\nbefore = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
    bounded = "assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 40_000, 'memory grows'\n"
    project = cluster.ledger_project(n_trials=1, seconds=1.0, extra=logging_lines(n_points, pause_s=0.00005, settings=settings) + bounded)
    sweep_id = cluster.submit(project)
    cluster.wait_for(lambda: read_ledger(ledger_file(project)), "the trial runs")
    cluster.proxy("w1", "server").delay(1.0)
    faults.record("server: 2 s a batch at ten times the load")
    (trial,) = cluster.wait_for_end(sweep_id)
    steps = [step for step, _ in points_of(cluster, trial["run_id"])]
    assert steps == sorted(set(steps))
    assert steps[-n_buffered + 1000 :] == list(range(n_points - n_buffered + 1000, n_points)), "the newest are not all there"
    assert f"sweep_client: {n_points - len(steps)} points were dropped" in output_of(cluster, trial["run_id"], "stderr")
    check(cluster, sweep_id, n_trials=1, ledger=ledger_file(project))
    check_first_attempts(cluster, sweep_id)


def output_of(cluster: FaultCluster, run_id: str, stream: str) -> str:
    """What a trial said."""
    with cluster.client() as client:
        return client.logs(run_id, stream=stream)["text"]


# -- any client of the protocol ------------------------------------------------------------------------------------------


def post(cluster: FaultCluster, path: str, body: dict[str, Any]) -> Any:
    """One request of MLflow's protocol, made again until it is answered."""
    request = urllib.request.Request(f"{cluster.url}/api/2.0/mlflow/{path}", json.dumps(body).encode(), {"Content-Type": "application/json"})  # noqa: S310 -- ours
    deadline = time.monotonic() + 60
    while True:
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310 -- as above
                return json.load(answer)
        except urllib.error.HTTPError as error:
            error.close()
            if error.code != HTTPStatus.SERVICE_UNAVAILABLE:
                raise
        except (OSError, HTTPException):
            pass
        assert time.monotonic() < deadline, "the server stayed away"
        threading.Event().wait(0.1)


@contextmanager
def logging_threads(cluster: FaultCluster, run_id: str) -> Iterator[dict[str, list[int]]]:
    """Log to a run without a pause, point by point and by tens; what was acknowledged, by metric. Ends with the block."""
    acknowledged: dict[str, list[int]] = {"single": [], "batch": []}
    stop = threading.Event()

    def log_single() -> None:
        for step in itertools.count():
            if stop.is_set():
                return
            post(cluster, "runs/log-metric", {"run_id": run_id, "key": "single", "value": step / 1000, "timestamp": step, "step": step})
            acknowledged["single"].append(step)

    def log_batches() -> None:
        for first in itertools.count(0, 10):
            if stop.is_set():
                return
            metrics = [{"key": "batch", "value": step / 1000, "timestamp": step, "step": step} for step in range(first, first + 10)]
            post(cluster, "runs/log-batch", {"run_id": run_id, "metrics": metrics})
            acknowledged["batch"].extend(range(first, first + 10))

    with ThreadPoolExecutor(2) as pool:
        logging = [pool.submit(log) for log in (log_single, log_batches)]
        try:
            yield acknowledged
        finally:
            stop.set()
        for log in logging:
            log.result()


@pytest.mark.parametrize("how", ENDS)
def test_acknowledged_points_are_there_once_when_the_server_is_restarted_under_load(fault_cluster: MakeCluster, faults: Faults, how: End) -> None:
    """Over the REST API, sent again until acknowledged: none missing, none doubled, by step."""
    cluster = fault_cluster(workers=(), broker="none")
    run_id = post(cluster, "runs/create", {"experiment_id": "0"})["run"]["info"]["run_id"]
    with logging_threads(cluster, run_id) as acknowledged:
        for _ in range(4):
            n_before = len(acknowledged["single"])
            cluster.wait_for(lambda n=n_before: len(acknowledged["single"]) > n + 20, "points are taken")
            restart_server(cluster, faults, how)
    for key, steps in acknowledged.items():
        assert points_of(cluster, run_id, key) == [(step, step / 1000) for step in steps]


# -- people --------------------------------------------------------------------------------------------------------------

COMMANDS: Final = (
    "ls",
    "status {sweep}",
    "trials {sweep}",
    "best {sweep}",
    "why {sweep}",
    "logs {sweep}/0",
    "pause {sweep}",
    "cancel {sweep}",
    "worker ls",
    "queue",
    "models ls",
    "submit {file}",
)


def test_commands_say_in_a_sentence_that_somebody_is_away(fault_cluster: MakeCluster, faults: Faults) -> None:
    """Exit status 4, one line what, one line what next, whether it is Postgres or the server."""
    cluster = fault_cluster(workers=())
    project = cluster.ledger_project(n_trials=1)
    sweep_id = cluster.submit(project)
    commands = [text.format(sweep=sweep_id, file=project).split() for text in COMMANDS]
    cluster.postgres.stop("fast")
    faults.record("Postgres: away from a command", len(commands))
    for command in commands:
        # The answer to a question about a snapshot has no body that could say more.
        check_says_away(cluster, command, "The server at" if "submit" in command else "Postgres can't be reached")
    cluster.role("server").kill()
    faults.record("server: away from a command", len(commands))
    for command in commands:
        check_says_away(cluster, command, f"The server at {cluster.url} can't be reached")


def check_says_away(cluster: FaultCluster, command: list[str], what: str) -> None:
    """Assert what a command says, and that it says no more."""
    done = cluster.sweep(*command, status=4)
    lines = done.stderr.splitlines()
    assert lines, command
    assert lines[0].startswith(f"error: {what}"), (command, done.stderr)
    assert len(lines) == 2, (command, done.stderr)
    assert lines[1].startswith("hint: "), (command, done.stderr)
    assert done.stdout == "", command


def test_command_waits_for_one_time_out_and_no_more_when_the_server_hangs(fault_cluster: MakeCluster, faults: Faults) -> None:
    """A server that accepts and says nothing is told as away after one time-out, not after three."""
    cluster = fault_cluster(workers=(), broker="none")
    proxy = cluster.proxy("cli", "server")
    with Client(f"http://127.0.0.1:{proxy.port}", timeout_s=1.0) as client:
        assert client.sweeps()["sweeps"] == []
        proxy.hang()
        faults.record("server: half-open to a command")
        began = time.monotonic()
        with pytest.raises(ServerAway, match="timed out"):
            client.sweeps()
        assert time.monotonic() - began < 2.5
        proxy.pass_through()
        assert client.sweeps()["sweeps"] == []


@pytest.mark.quick
def test_submission_whose_answer_was_lost_is_one_sweep_when_it_is_repeated(fault_cluster: MakeCluster, faults: Faults) -> None:
    """The same command again finds the sweep that the first has made; after that answer it makes another."""
    cluster = fault_cluster(workers=(), broker="none", role_environ={"server": {"SWEEP_FAILPOINTS": "server.submitted=kill@1"}})
    file = str(cluster.ledger_project(n_trials=3))
    lost = cluster.sweep("submit", file, status=4)
    assert "hint: It may have arrived all the same." in lost.stderr
    faults.record("submit: answer lost by kill -9 of the server")
    cluster.arm("server", "")
    cluster.restart("server")
    (first,) = cluster.query("SELECT sweep_id FROM sweeps")[0]
    repeated = cluster.sweep_json("submit", file)
    assert repeated["sweep_id"] == first
    assert [row.sweep_id for row in cluster.query("SELECT sweep_id FROM sweeps")] == [first]
    assert cluster.sweep_json("submit", file)["sweep_id"] != first


def test_submission_is_one_sweep_when_the_client_sends_it_twice(fault_cluster: MakeCluster, faults: Faults) -> None:
    """It asks again by itself when the connection breaks off before the answer."""
    cluster = fault_cluster(workers=(), broker="none")
    file = cluster.ledger_project(n_trials=3)
    first = cluster.submit(file)
    submission = load_sweep(file)
    digest = cluster.query("SELECT launch ->> 'code_digest' AS digest FROM sweeps")[0].digest
    body = SubmitBody(config=submission.config.to_builtins(), source=submission.source, code_digest=digest, submission_id="twice", user_name="")
    proxy = cluster.proxy("cli", "server")
    proxy.drop("to_client")
    with Client(f"http://127.0.0.1:{proxy.port}") as client, ThreadPoolExecutor(1) as pool:
        answer = pool.submit(client.submit, body)
        cluster.wait_for(lambda: len(cluster.query("SELECT 1 FROM sweeps")) == 2, "it has arrived")
        proxy.pass_through()
        faults.record("submit: answer lost on the way")
        second = answer.result(60)["sweep_id"]
    assert {row.sweep_id for row in cluster.query("SELECT sweep_id FROM sweeps")} == {first, second}
    assert second != first
