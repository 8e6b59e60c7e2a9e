"""Postgres restarted, killed, away, full, locked, read-only, slow, and gone exactly around a COMMIT: nobody's fault, and nothing lost (I1, I2, I4, I8)."""

import contextlib
import os
import re
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, Literal

import psycopg2
import pytest

from sweeps.client import ServerAway
from tests.faults.invariants import check
from tests.support.fault_table import Faults
from tests.support.faults import FaultCluster
from tests.support.ledger import ledger_file
from tests.support.points import check_points, logging_lines
from tests.support.postgres import _server_user
from tests.support.proxy import Fate

MakeCluster = Callable[..., FaultCluster]

N_POINTS: Final = 40


def outlast(seconds: float) -> None:
    """Let an outage last: its length is what is tested, so there is nothing to wait for."""
    threading.Event().wait(seconds)


def past_reassignment_s(cluster: FaultCluster) -> float:
    """Longer than a worker may be silent before its runs are given away."""
    return cluster.settings.lease_s + cluster.settings.reassign_after_s + 1


def check_nobodys_fault(cluster: FaultCluster, sweep_id: str, *, n_trials: int, project: Path, n_points: int = N_POINTS) -> None:
    """Assert the invariants, that every trial needed one attempt only, and that what was logged is there."""
    check(cluster, sweep_id, n_trials=n_trials, ledger=ledger_file(project))
    burnt = cluster.query("SELECT * FROM audit_attempts WHERE sweep_id = %(id)s AND (attempt > 1 OR state <> 'succeeded')", id=sweep_id)
    assert not burnt, f"attempts were burnt: {burnt}"
    check_points(cluster, sweep_id, n_points)


@contextlib.contextmanager
def connected(cluster: FaultCluster) -> Iterator[Any]:
    """A cursor of the test's own, past any proxy; what it has done is committed at the end."""
    connection = psycopg2.connect(cluster.postgres.url)
    try:
        with connection.cursor() as cursor:
            yield cursor
        connection.commit()
    finally:
        connection.close()


def set_option(cluster: FaultCluster, name: str, value: str | None) -> None:
    """Change an option of the running server for all its sessions, or give it back its default."""
    cluster.postgres.execute(f"ALTER SYSTEM RESET {name}" if value is None else f"ALTER SYSTEM SET {name} = '{value}'")
    cluster.postgres.execute("SELECT pg_reload_conf()")
    # A session takes it up between two statements; one that begins now has it for certain.
    wanted = "SELECT setting <> boot_val FROM pg_settings WHERE name = %(name)s"
    cluster.wait_for(lambda: bool(cluster.query(wanted, name=name)[0][0]) == (value is not None), f"{name} is {value}")


# -- away ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["fast", "immediate", "kill -9"])
def test_sweep_loses_nothing_when_postgres_is_restarted_every_few_seconds(
    fault_cluster: MakeCluster, faults: Faults, how: Literal["fast", "immediate", "kill -9"]
) -> None:
    """Trials run on under the same attempts, and what was acknowledged is there, however Postgres ends."""
    cluster = fault_cluster()
    project = cluster.ledger_project(n_trials=24, seconds=(0.0, 0.6), extra=logging_lines(N_POINTS))
    sweep_id = cluster.submit(project)
    for n_ended in (2, 7, 12, 17):
        cluster.wait_for_finished(sweep_id, n_ended)
        if how == "kill -9":
            cluster.postgres.kill()
        else:
            cluster.postgres.stop(how)
        faults.record(f"Postgres: {how}, restarted under load")
        cluster.postgres.start()
    cluster.wait_for_end(sweep_id)
    check_nobodys_fault(cluster, sweep_id, n_trials=24, project=project)


@pytest.mark.parametrize("how", ["stopped", "frozen"])
def test_no_attempt_is_burnt_when_postgres_is_away_for_longer_than_the_reassignment(fault_cluster: MakeCluster, faults: Faults, how: str) -> None:
    """Silence that is Postgres' own is held against nobody: workers speak first once it is back (I4)."""
    cluster = fault_cluster(workers=("w1", "w2"))
    project = cluster.ledger_project(n_trials=12, seconds=(0.0, 1.0), extra=logging_lines(N_POINTS))
    sweep_id = cluster.submit(project)
    cluster.wait_for_finished(sweep_id, 2)
    if how == "stopped":
        cluster.postgres.stop("immediate")
    else:
        cluster.postgres.suspend()
    faults.record(f"Postgres: {how} past lease and reassignment")
    outlast(past_reassignment_s(cluster))
    if how == "stopped":
        cluster.postgres.start()
    else:
        cluster.postgres.wake()
    cluster.wait_for_end(sweep_id)
    check_nobodys_fault(cluster, sweep_id, n_trials=12, project=project)


def test_workers_go_on_renewing_when_postgres_is_out_of_connections(fault_cluster: MakeCluster, faults: Faults) -> None:
    """A worker keeps the connection it renews over; who has none says so in a sentence, and comes back by itself."""
    cluster = fault_cluster(postgres_options={"max_connections": "30"})
    project = cluster.ledger_project(n_trials=16, seconds=(0.2, 1.0), extra=logging_lines(N_POINTS))
    sweep_id = cluster.submit(project)
    cluster.wait_for_finished(sweep_id, 2)
    held = hoard(cluster)
    # The server's own are taken from it, and taken up at once.
    cluster.proxy("server", "postgres").cut()
    with cluster.client() as client:

        def is_refused() -> bool:
            held.extend(hoard(cluster))
            try:
                client.sweep(sweep_id)
            except ServerAway as error:
                return "too many clients" in error.message or "connection slots" in error.message
            return False

        cluster.wait_for(is_refused, "the server gets no connection")
    faults.record("Postgres: out of connections")
    n_before = renewals(held[0])
    outlast(past_reassignment_s(cluster))
    assert renewals(held[0]) > n_before, "the session was not renewed"
    for connection in held:
        connection.close()
    cluster.wait_for_end(sweep_id)
    check_nobodys_fault(cluster, sweep_id, n_trials=16, project=project)


def hoard(cluster: FaultCluster) -> list[Any]:
    """Take up every connection there is."""
    taken = []
    while True:
        try:
            taken.append(psycopg2.connect(cluster.postgres.url))
        except psycopg2.OperationalError:
            return taken


def renewals(connection: Any) -> float:
    """When the worker renewed last, over a connection at hand."""
    with connection, connection.cursor() as cursor:
        cursor.execute("SELECT extract(epoch FROM renewed_at) FROM sessions WHERE state = 'live'")
        return float(cursor.fetchone()[0])


# -- there, and of no use --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lock_timeout", ["0", "300ms"], ids=["waiting", "lock_timeout"])
def test_no_attempt_is_burnt_when_tables_are_locked(fault_cluster: MakeCluster, faults: Faults, lock_timeout: str) -> None:
    """Statements wait, or fail and are tried again; a table locked for longer than the reassignment costs nobody an attempt."""
    cluster = fault_cluster(start=False)
    bound_waits(cluster, lock_timeout)
    cluster.start()
    project = cluster.ledger_project(n_trials=16, seconds=(0.0, 1.0), extra=logging_lines(N_POINTS))
    sweep_id = cluster.submit(project)
    for n_ended, table in enumerate(("runs", "attempts", "leader", "sessions"), start=1):
        cluster.wait_for_finished(sweep_id, 2 * n_ended)
        with connected(cluster) as cursor:
            cursor.execute("SET lock_timeout = 0")
            cursor.execute(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE")
            outlast(past_reassignment_s(cluster) if table == "sessions" else cluster.settings.lease_s)
        faults.record(f"Postgres: table {table} locked, lock_timeout {lock_timeout}")
    cluster.wait_for_end(sweep_id)
    check_nobodys_fault(cluster, sweep_id, n_trials=16, project=project)


def bound_waits(cluster: FaultCluster, lock_timeout: str) -> None:
    """How long our role waits for a lock, in sessions that begin from now on."""
    cluster.postgres.execute(f"ALTER ROLE CURRENT_USER IN DATABASE sweep SET lock_timeout = '{lock_timeout}'")


@pytest.mark.parametrize("table", ["runs", "sessions"])
def test_no_attempt_is_burnt_when_somebody_holds_a_row(fault_cluster: MakeCluster, faults: Faults, table: str) -> None:
    """An administrator's transaction and a lunch: a worker that can't report one end goes on renewing, for the other trials' sake."""
    cluster = fault_cluster(start=False)
    bound_waits(cluster, "700ms")
    cluster.start()
    project = cluster.ledger_project(n_trials=2, extra="time.sleep(1.5 if number == '0' else 14)")
    sweep_id = cluster.submit(project)
    cluster.wait_for_running(sweep_id, 2)
    with connected(cluster) as cursor:
        cursor.execute("SET idle_in_transaction_session_timeout = 0")
        which = "runs WHERE trial_number = 0" if table == "runs" else "sessions"
        cursor.execute(f"SELECT 1 FROM {which} FOR UPDATE")  # noqa: S608 -- one of the two above
        outlast(past_reassignment_s(cluster))
    faults.record(f"Postgres: a row of {table} locked past reassignment")
    cluster.wait_for_end(sweep_id)
    check(cluster, sweep_id, n_trials=2, ledger=ledger_file(project))
    assert not cluster.query("SELECT 1 FROM audit_attempts WHERE attempt > 1 OR state <> 'succeeded'")


_STUMBLE: Final = """
CREATE SEQUENCE stumbles;
CREATE SEQUENCE stumbled;
CREATE FUNCTION stumble() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    -- Sequences are not rolled back. Through a hash: at regular intervals the same statement of a cycle might fail for ever.
    IF hashint8(nextval('stumbles')) % 12 = 0 THEN
        RAISE EXCEPTION 'made to fail' USING ERRCODE = (ARRAY['40P01', '40001'])[1 + nextval('stumbled') % 2];
    END IF;
    RETURN NULL;
END $$;
"""
_STUMBLING: Final = ("attempts", "events", "leader", "metric_latest", "metric_points", "runs", "sessions", "sweeps", "trials")


def test_each_move_is_repeated_when_it_is_a_deadlocks_victim_or_can_not_be_serialized(fault_cluster: MakeCluster, faults: Faults) -> None:
    """One in twelve writes of any kind fails with 40P01 or 40001, on every path: all is done once, by trying again."""
    cluster = fault_cluster()
    with connected(cluster) as cursor:
        cursor.execute(_STUMBLE)
        for table in _STUMBLING:
            cursor.execute(f"CREATE TRIGGER stumble AFTER INSERT OR UPDATE ON {table} FOR EACH STATEMENT EXECUTE FUNCTION stumble()")
    project = cluster.ledger_project(n_trials=30, seconds=(0.0, 0.2), extra=logging_lines(N_POINTS))
    sweep_id = ""
    while not sweep_id:
        with contextlib.suppress(ServerAway):
            sweep_id = cluster.submit(project)
    cluster.wait_for_end(sweep_id)
    (n_stumbled,) = cluster.query("SELECT last_value FROM stumbled")[0]
    assert n_stumbled > 50
    faults.record("Postgres: deadlock or serialization failure", n_stumbled)
    check_nobodys_fault(cluster, sweep_id, n_trials=30, project=project)


def test_no_attempt_is_burnt_while_postgres_is_read_only(fault_cluster: MakeCluster, faults: Faults) -> None:
    """As after a fail-over to a standby: readers are answered, writers wait, and go on with it past the reassignment."""
    cluster = fault_cluster()
    project = cluster.ledger_project(n_trials=12, seconds=(0.0, 1.0), extra=logging_lines(N_POINTS))
    sweep_id = cluster.submit(project)
    cluster.wait_for_finished(sweep_id, 2)
    set_option(cluster, "default_transaction_read_only", "on")
    faults.record("Postgres: read-only past lease and reassignment")
    with cluster.client() as client:
        assert client.sweep(sweep_id)["state"] == "active"
        with pytest.raises(ServerAway, match="read-only"):
            client.steer(sweep_id, "pause")
    outlast(past_reassignment_s(cluster))
    set_option(cluster, "default_transaction_read_only", None)
    cluster.wait_for_end(sweep_id)
    check_nobodys_fault(cluster, sweep_id, n_trials=12, project=project)


def test_sweep_goes_on_when_every_message_to_and_from_postgres_takes_half_a_second(fault_cluster: MakeCluster, faults: Faults) -> None:
    """Slow is not silent: leases hold, no attempt is given up."""
    # In proportion to production's, where half a second is less than a hundredth of a lease.
    cluster = fault_cluster(
        environ={
            "SWEEP_LEASE_S": "12",
            "SWEEP_REASSIGN_AFTER_S": "24",
            "SWEEP_LEADER_LEASE_S": "8",
            "SWEEP_RENEW_S": "3",
            "SWEEP_WATCH_S": "1.5",
            "SWEEP_CLAIM_TIMEOUT_S": "15",
        }
    )
    project = cluster.ledger_project(n_trials=2, extra=logging_lines(N_POINTS))
    sweep_id = cluster.submit(project)
    for role in ("server", "scheduler", "w1"):
        cluster.proxy(role, "postgres").delay(0.25)
    faults.record("Postgres: 500 ms away")
    cluster.wait_for(
        lambda: cluster.query("SELECT 1 FROM sweeps WHERE sweep_id = %(id)s AND ended_at IS NOT NULL", id=sweep_id), "the sweep ends", deadline_s=100
    )
    for role in ("server", "scheduler", "w1"):
        cluster.proxy(role, "postgres").pass_through()
    check_nobodys_fault(cluster, sweep_id, n_trials=2, project=project)


def test_no_attempt_is_burnt_when_connections_to_postgres_are_half_open(fault_cluster: MakeCluster, faults: Faults) -> None:
    """Each role in turn talks to nobody for longer than a lease; then all of them, past the reassignment, and their connections are reset."""
    cluster = fault_cluster()
    project = cluster.ledger_project(n_trials=20, seconds=(0.0, 1.0), extra=logging_lines(N_POINTS))
    sweep_id = cluster.submit(project)
    proxies = {role: cluster.proxy(role, "postgres") for role in ("server", "scheduler", "w1")}
    for n_ended, (role, proxy) in enumerate(proxies.items(), start=1):
        cluster.wait_for_finished(sweep_id, 3 * n_ended)
        proxy.hang()
        outlast(cluster.settings.lease_s)
        proxy.pass_through()
        faults.record(f"Postgres: half-open to the {'worker' if role == 'w1' else role}")
    cluster.wait_for_finished(sweep_id, 11)
    for proxy in proxies.values():
        proxy.hang()
    outlast(past_reassignment_s(cluster))
    for proxy in proxies.values():
        proxy.cut()
        proxy.pass_through()
    faults.record("Postgres: half-open to all past lease and reassignment")
    cluster.wait_for_end(sweep_id)
    check_nobodys_fault(cluster, sweep_id, n_trials=20, project=project)


# -- full ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 160 MB, owned by whoever Postgres runs as."""
    if os.geteuid() != 0:
        pytest.skip("mounts a small file system, which takes root")
    # Under /tmp: as another user, Postgres can't enter pytest's folders.
    folder = Path("/tmp") / f"sweep-small-{os.getpid()}-{tmp_path.name}"
    folder.mkdir(mode=0o700)
    uid, gid = _server_user()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size=160m,mode=700,uid={uid},gid={gid}", "tmpfs", str(folder)], capture_output=True, check=False)
    try:
        if mounted.returncode != 0:
            pytest.skip(f"can't mount a small file system: {mounted.stderr.decode().strip()}")
        # Not the mount point itself: whoever is given a folder may remove it.
        own = folder / "own"
        own.mkdir(mode=0o700)
        os.chown(own, uid, gid)
        yield own
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
    finally:
        folder.rmdir()


def fill(folder: Path) -> Path:
    """Leave no byte free; the file that takes them up."""
    ballast = folder.parent / "ballast"
    with ballast.open("ab", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(b"\0" * 4096)
    return ballast


def test_sweep_goes_on_once_there_is_room_when_postgres_disk_was_full(small_disk: Path, fault_cluster: MakeCluster, faults: Faults) -> None:
    """Writes fail with 53100 and are kept by whoever had them, past the reassignment; no state is wrong, nobody is lost."""
    cluster = fault_cluster(start=False)
    cluster.postgres.execute(f"CREATE TABLESPACE small LOCATION '{small_disk}'", database="postgres")
    # The log of writes stays where it is: a full disk there ends Postgres, which the next test is about.
    cluster.postgres.execute("ALTER DATABASE sweep SET TABLESPACE small", database="postgres")
    cluster.start()
    project = cluster.ledger_project(n_trials=30, seconds=(0.0, 0.3), extra=logging_lines(1500))
    sweep_id = cluster.submit(project)
    cluster.wait_for_finished(sweep_id, 4)
    ballast = fill(small_disk)
    no_room = re.compile(r"No space left on device")
    cluster.wait_for(lambda: len(no_room.findall(cluster.postgres.log_file.read_text(errors="replace"))) > 3, "writes fail for want of room")
    faults.record("Postgres: disk full (53100)")
    outlast(past_reassignment_s(cluster))
    ballast.unlink()
    cluster.wait_for_end(sweep_id)
    check_nobodys_fault(cluster, sweep_id, n_trials=30, project=project, n_points=1500)


def test_sweep_goes_on_when_postgres_has_ended_for_want_of_room_and_is_started_again(small_disk: Path, fault_cluster: MakeCluster, faults: Faults) -> None:
    """With its log of writes on the full disk Postgres panics; given room and a start it has all that it had acknowledged."""
    cluster = fault_cluster(postgres_folder=small_disk, postgres_options={"max_wal_size": "32MB", "restart_after_crash": "off"})
    project = cluster.ledger_project(n_trials=30, seconds=(0.0, 0.3), extra=logging_lines(1500))
    sweep_id = cluster.submit(project)
    cluster.wait_for_finished(sweep_id, 4)
    ballast = fill(small_disk)
    with contextlib.suppress(psycopg2.Error):
        # The next segment of the log finds no room.
        cluster.postgres.execute("SELECT pg_switch_wal()")
        while cluster.postgres.is_running:
            cluster.postgres.execute("SELECT pg_logical_emit_message(false, 'filler', repeat('x', 1000000))")
    cluster.wait_for(lambda: not cluster.postgres.is_running, "Postgres ends")
    faults.record("Postgres: ended by a full disk")
    outlast(past_reassignment_s(cluster))
    ballast.unlink()
    cluster.postgres.start()
    cluster.wait_for_end(sweep_id)
    check_nobodys_fault(cluster, sweep_id, n_trials=30, project=project, n_points=1500)


# -- gone around a COMMIT --------------------------------------------------------------------------------------------

# Whose connection breaks, and what a statement of the transaction holds. Some are transactions, some single statements that commit themselves.
COMMITS: Final[Mapping[str, tuple[str, bytes]]] = {
    "submit": ("server", b"INSERT INTO sweeps"),
    "create trials": ("scheduler", b"INSERT INTO trials"),
    "place": ("scheduler", b"placement = placement + 1"),
    "claim": ("w1", b"INSERT INTO attempts"),
    "metrics, through the server": ("server", b"metric_points"),
    "metrics, by the worker": ("w1", b"metric_points"),
    "finish": ("w1", b"finish_key = "),
    "verdict": ("scheduler", b"user_retries = user_retries + 1"),
    "conclude": ("scheduler", b"told_seq = told_seq"),
    "end and register": ("scheduler", b"INSERT INTO model_versions"),
}
N_COMMIT_TRIALS: Final = 6


@pytest.mark.parametrize("move", [pytest.param(move, marks=pytest.mark.quick) if move == "claim" else move for move in COMMITS])
def test_move_has_one_effect_when_its_commit_or_the_reply_is_lost(fault_cluster: MakeCluster, faults: Faults, move: str) -> None:
    """Whoever can't know asks again, and the record knows: never a second effect, never none."""
    cluster = fault_cluster()
    role, matching = COMMITS[move]
    fates: tuple[Fate, ...] = ("lose_reply", "lose_commit")
    for fate in fates:
        # The first try of trial 3 fails by its own fault, and is given another.
        failure = 'if number == "3" and attempt == "1":\n    note("end")\n    sys.exit(7)\n'
        project = cluster.ledger_project(
            n_trials=N_COMMIT_TRIALS, extra=logging_lines(N_POINTS) + failure, retry={"max": 1, "delay": "1s"}, register={"model": fate, "artifact": "model"}
        )
        strike = cluster.proxy(role, "postgres").on_commit(fate, matching=matching)
        try:
            sweep_id = cluster.submit(project)
        except ServerAway:
            assert move == "submit"
            sweep_id = cluster.submit(project)
        strike.wait()
        faults.record(f"{move}: {fate.replace('_', ' ')}")
        cluster.wait_for_end(sweep_id)
        check_one_effect(cluster, sweep_id, project)
    # Submitted once each, whatever was lost.
    assert [row.n for row in cluster.query("SELECT count(*) AS n FROM sweeps")] == [len(fates)]


def check_one_effect(cluster: FaultCluster, sweep_id: str, project: Path) -> None:
    """Assert the invariants, one attempt for each trial (two for the one that has failed), all points, and one registered version."""
    check(cluster, sweep_id, n_trials=N_COMMIT_TRIALS, ledger=ledger_file(project))
    attempts = cluster.query("SELECT trial_number, attempt, state FROM audit_attempts WHERE sweep_id = %(id)s ORDER BY 1, 2", id=sweep_id)
    expected = [(number, 1, "failed" if number == 3 else "succeeded") for number in range(N_COMMIT_TRIALS)]
    expected.insert(4, (3, 2, "succeeded"))
    assert [tuple(attempt) for attempt in attempts] == expected
    check_points(cluster, sweep_id, N_POINTS)
    versions = cluster.query("SELECT name, version, trial_number FROM model_versions WHERE sweep_id = %(id)s", id=sweep_id)
    assert [(row.version, row.trial_number) for row in versions] == [(1, 0)]
