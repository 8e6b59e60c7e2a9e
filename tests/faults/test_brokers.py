"""Messages lost, doubled, late, out of order, forged; the broker emptied, killed, deaf, full, gone: it costs a renewal, never a result (I1, I2, I5)."""

import base64
import contextlib
import json
import os
import pickle
import random
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import pytest
import redis

from tests.faults.invariants import check
from tests.support.fault_table import Faults
from tests.support.faults import FaultCluster
from tests.support.ledger import ledger_file
from tests.support.redis_proxy import RedisProxy
from tracking.ids import new_run_id

MakeCluster = Callable[..., FaultCluster]

SLOW: Final = {"SWEEP_LEASE_S": "20", "SWEEP_REASSIGN_AFTER_S": "60", "SWEEP_CLAIM_TIMEOUT_S": "60", "SWEEP_WATCH_S": "60"}
"""Nothing but a message or a renewal sets anything going."""

SLACK_S: Final = 4.0
"""What a claim may take beyond the renewal that brought it, on a machine with other things to do."""


@pytest.fixture
def postman(fault_cluster: MakeCluster) -> Iterator[Callable[..., tuple[FaultCluster, RedisProxy]]]:
    """Makes a cluster with somebody between scheduler and Redis who decides what becomes of each message."""
    with contextlib.ExitStack() as stack:

        def make(fate: Callable[[bytes, bytes], int], *, workers: Sequence[str] = ("w1",), **more: Any) -> tuple[FaultCluster, RedisProxy]:
            cluster = fault_cluster(proxies=(), start=False, **more)
            proxy = stack.enter_context(RedisProxy(cluster.redis.port, fate))
            cluster.role_environ["scheduler"] = {"SWEEP_BROKER_URL": f"redis://127.0.0.1:{proxy.port}/0"}
            return cluster.start(workers=workers), proxy

        yield make


def connect(cluster: FaultCluster) -> Any:
    """A Redis client of the test's own, past any proxy."""
    return redis.Redis(port=cluster.redis.port, socket_timeout=30)


def run_sweep(cluster: FaultCluster, *, n_trials: int = 30, meanwhile: Callable[[str], None] | None = None, **keys: Any) -> str:
    """Submit a sweep, do something to it, wait for its end, check the invariants; its id."""
    project = cluster.ledger_project(n_trials=n_trials, **({"seconds": 0.05} | keys))
    sweep_id = cluster.submit(project)
    if meanwhile is not None:
        meanwhile(sweep_id)
    cluster.wait_for_end(sweep_id)
    check(cluster, sweep_id, n_trials=n_trials, ledger=ledger_file(project))
    burnt = cluster.query("SELECT * FROM audit_attempts WHERE sweep_id = %(id)s AND (attempt > 1 OR state <> 'succeeded')", id=sweep_id)
    assert not burnt, f"attempts were burnt: {burnt}"
    return sweep_id


def claim_delays_s(cluster: FaultCluster, sweep_id: str) -> list[float]:
    """How long each run was placed before it was claimed; of those taken back, how long until then."""
    sql = """
    SELECT extract(epoch FROM min(l.at) - p.at)::float8 AS delay_s
      FROM events p JOIN events l ON l.run_id = p.run_id AND l.seq > p.seq AND l.event IN ('claim', 'unplace')
     WHERE p.sweep_id = %(id)s AND p.subject = 'run' AND p.event = 'place' GROUP BY p.seq
    """
    return [row.delay_s for row in cluster.query(sql, id=sweep_id)]


# -- what becomes of messages ------------------------------------------------------------------------------------


@pytest.mark.quick
def test_sweep_is_whole_when_half_of_the_messages_are_lost(postman: Callable[..., tuple[FaultCluster, RedisProxy]], faults: Faults) -> None:
    """Every second message, by chance, never arrives."""
    draw = random.Random(5)  # noqa: S311 -- repeatable, not secret
    cluster, proxy = postman(lambda _queue, _payload: draw.randint(0, 1))
    run_sweep(cluster, n_trials=40)
    assert len(proxy.lost) > 5
    faults.record("messages: dropped (50 %)", len(proxy.lost))


def test_placed_run_is_claimed_within_a_renewal_when_every_message_is_lost(postman: Callable[..., tuple[FaultCluster, RedisProxy]], faults: Faults) -> None:
    """The renewal's answer tells what is placed here: nothing waits until the placement is taken back."""
    waits = {"SWEEP_RENEW_S": "1", **SLOW}
    cluster, proxy = postman(lambda _queue, _payload: 0, environ=waits)
    # One at a time: none is placed behind another, so that each could begin at once.
    sweep_id = run_sweep(cluster, n_trials=6, limits={"trials": 6, "parallel": 1})
    delays = claim_delays_s(cluster, sweep_id)
    assert len(delays) == 6, "some were placed again"
    assert max(delays) < 1 + SLACK_S, delays
    faults.record("messages: all dropped", len(proxy.lost))


def test_run_is_executed_once_when_its_message_comes_three_times(postman: Callable[..., tuple[FaultCluster, RedisProxy]], faults: Faults) -> None:
    """Every message three times over: one is the run, two are nothing."""
    cluster, proxy = postman(lambda _queue, _payload: 3)
    run_sweep(cluster, n_trials=40)
    assert proxy.n_pushed >= 40
    faults.record("messages: tripled", proxy.n_pushed)


def test_sweep_is_whole_when_messages_come_late_and_out_of_order(postman: Callable[..., tuple[FaultCluster, RedisProxy]], faults: Faults) -> None:
    """Held back and sent in any order, most of them when their run is long claimed, over, or placed anew."""
    cluster, proxy = postman(lambda _queue, _payload: 0)
    draw = random.Random(11)  # noqa: S311 -- repeatable, not secret
    n_late = 0

    def deliver(_sweep_id: str) -> None:
        nonlocal n_late
        held: list[tuple[bytes, bytes]] = []
        with connect(cluster) as client:
            for n_seen in range(5, 40, 5):
                cluster.wait_for(lambda n_seen=n_seen: proxy.n_pushed >= n_seen, "messages are held back")  # type: ignore[misc]  # a lambda's default
                held.extend(proxy.take())
                draw.shuffle(held)
                for queue, payload in held[len(held) // 3 :]:
                    client.lpush(queue, payload)
                    n_late += 1
                del held[len(held) // 3 :]

    run_sweep(cluster, n_trials=40, meanwhile=deliver)
    faults.record("messages: late, out of order", n_late)


# -- messages that nobody sent -----------------------------------------------------------------------------------


class Forger:
    """Somebody who can write to Redis, and knows how a message looks."""

    def __init__(self, cluster: FaultCluster, template: bytes) -> None:
        self._client = connect(cluster)
        self._template = template

    def close(self) -> None:
        """Let go of Redis."""
        self._client.close()

    def send(self, queue: str, body: object, *, headers: Mapping[str, Any] | None = None, **envelope: Any) -> None:
        """A message with this body, which is JSON unless it is bytes."""
        message = json.loads(self._template)
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        message["body"] = base64.b64encode(data).decode()
        message["headers"] |= {"id": f"forged-{new_run_id()}", "expires": None, **(headers or {})}
        self.push(queue, json.dumps(message | envelope).encode())

    def call(self, queue: str, *args: object) -> None:
        """The one task, with these arguments."""
        self.send(queue, [list(args), {}, {"callbacks": None, "errbacks": None, "chain": None, "chord": None}])

    def push(self, queue: str, payload: bytes) -> None:
        """Bytes as they are."""
        self._client.lpush(queue, payload)

    def left(self, queue: str) -> int:
        """How many messages nobody has taken yet."""
        return int(self._client.llen(queue))


class Bomb:
    """Unpickled, it makes a file."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, (str(self._file),))


def test_forged_messages_cost_nothing_but_themselves(postman: Callable[..., tuple[FaultCluster, RedisProxy]], faults: Faults) -> None:
    """Of runs that are not there, that are somebody else's, that are over; rubbish, pickles, a giant: refused, while a sweep goes on around them."""
    seen: list[bytes] = []
    cluster, _ = postman(lambda _queue, payload: seen.append(payload) or 1, workers=("w1", "w2"))
    finished_id = check_messages_travel(cluster)
    bomb = cluster.folder / "exploded"
    n_forged = 0

    def forge(sweep_id: str) -> None:
        nonlocal n_forged
        with contextlib.closing(Forger(cluster, seen[0])) as forger:
            for n_finished in (4, 20):
                cluster.wait_for_finished(sweep_id, n_finished)
                for worker in cluster.query(WORKER_QUEUES):
                    n_forged += send_forgeries(cluster, forger, worker.celery_queue, sweep_id, finished_id, bomb)
            for worker in cluster.query(WORKER_QUEUES):
                cluster.wait_for(lambda queue=worker.celery_queue: not forger.left(queue), "all forgeries are taken")  # type: ignore[misc]  # a lambda's default

    run_sweep(cluster, n_trials=40, seconds=(0.05, 0.3), meanwhile=forge)
    faults.record("messages: forged", n_forged)
    assert not bomb.exists(), "a pickle was opened"
    # What was sent in earnest is heard as before.
    check_messages_travel(cluster)


WORKER_QUEUES: Final = "SELECT celery_queue FROM sessions WHERE state = 'live'"


def test_message_at_the_wrong_worker_or_of_another_placement_starts_nothing(postman: Callable[..., tuple[FaultCluster, RedisProxy]], faults: Faults) -> None:
    """While a run stands placed its own message is lost; one goes to a worker it was not placed on, others name placements that are not: each waits on."""
    waits = {"SWEEP_RENEW_S": "2", **SLOW}
    seen: list[bytes] = []
    cluster, _ = postman(lambda _queue, payload: seen.append(payload) or 0, workers=("w1", "w2"), environ=waits)
    placed_now = "SELECT run_id, placement, session_id FROM runs WHERE sweep_id = %(id)s AND state = 'placed'"
    queues = {row.session_id: row.celery_queue for row in cluster.query("SELECT session_id, celery_queue FROM sessions WHERE state = 'live'")}
    met: set[str] = set()

    def misdeliver(sweep_id: str) -> None:
        for _ in range(3):
            cluster.wait_for(lambda: seen and any(run.run_id not in met for run in cluster.query(placed_now, id=sweep_id)), "another run is placed")
            (placed,) = cluster.query(placed_now, id=sweep_id)
            met.add(placed.run_id)
            with contextlib.closing(Forger(cluster, seen[0])) as forger:
                for session_id, queue in queues.items():
                    for step in (-1, 1) if session_id == placed.session_id else (-1, 0, 1):
                        forger.call(queue, placed.run_id, placed.placement + step)
                        faults.record("messages: misdelivered")

    run_sweep(cluster, n_trials=3, limits={"trials": 3, "parallel": 1}, meanwhile=misdeliver)


def send_forgeries(cluster: FaultCluster, forger: Forger, queue: str, sweep_id: str, finished_id: str, bomb: Path) -> int:
    """Everything that anybody could think of, for one worker; how many."""
    calls: list[tuple[object, ...]] = [(new_run_id(), 1), ("../../etc/passwd", 1), (None, None), ("x", "y"), (), (1, 2, 3), ("a" * (4 << 20), 1)]
    for run in cluster.query("SELECT run_id, placement FROM runs WHERE kind = 'managed' AND sweep_id = ANY(%(ids)s)", ids=[sweep_id, finished_id]):
        # The placement that is, whoever's it is; the one before; the next; one that never comes.
        calls += [(run.run_id, run.placement + step) for step in (0, -1, 1, 997)]
    for call in calls:
        forger.call(queue, *call)
    forger.send(queue, pickle.dumps(Bomb(bomb)), **{"content-type": "application/x-python-serialize", "content-encoding": "binary"})
    forger.send(queue, pickle.dumps(Bomb(bomb)))
    forger.send(queue, b"\xff\xfe rubbish")
    forger.send(queue, "just a text", **{"content-type": "text/plain"})
    forger.send(queue, [[], {}, {}], headers={"task": "os.system"})
    forger.send(queue, [[], {}, {}], headers={"task": None})
    forger.send(queue, [[], {}, {}], headers={"id": None})
    rubbish = (
        b"",
        b"{}",
        b"[]",
        b"null",
        b"junk",
        b"\x80\x05.",
        b'{"properties": {}}',
        b'{"properties":{"delivery_tag":"1","delivery_info":{}},"headers":null,"body":"e30="}',
    )
    for payload in rubbish:
        forger.push(queue, payload)
    return len(calls) + 7 + len(rubbish)


# -- what becomes of Redis ---------------------------------------------------------------------------------------


def outlast(seconds: float) -> None:
    """Let a fault last: its length is what is tested, so there is nothing to wait for."""
    threading.Event().wait(seconds)


def check_messages_travel(cluster: FaultCluster) -> str:
    """Assert that the scheduler sends, and that the workers hear: what is pushed for them does not stay; the sweep by which it was seen."""
    sweep_id = ""
    with connect(cluster) as client:
        # Again until whoever waits before the next try has tried.
        def hears() -> bool:
            nonlocal sweep_id
            before = pushes(client)
            sweep_id = run_sweep(cluster, n_trials=4)
            return pushes(client) >= before + 4 and not any(client.llen(row.celery_queue) for row in cluster.query(WORKER_QUEUES))

        cluster.wait_for(hears, "messages travel")
    return sweep_id


def pushes(client: Any) -> int:
    """How many messages Redis has taken since it was started."""
    return int(client.info("commandstats").get("cmdstat_lpush", {}).get("calls", 0))


def test_sweep_is_whole_when_redis_is_emptied_under_load(fault_cluster: MakeCluster, faults: Faults) -> None:
    """FLUSHALL again and again: messages and bindings are gone, runs are not."""
    cluster = fault_cluster(proxies=(), workers=("w1", "w2"))

    def flush(sweep_id: str) -> None:
        for n_finished in range(4, 60, 5):
            cluster.wait_for_finished(sweep_id, n_finished)
            cluster.redis.flush()
            faults.record("Redis: FLUSHALL under load")

    run_sweep(cluster, n_trials=60, meanwhile=flush)
    check_messages_travel(cluster)


def test_sweep_is_whole_when_redis_is_killed_and_comes_back_empty(fault_cluster: MakeCluster, faults: Faults) -> None:
    """Away while runs end and others begin, back with nothing in it."""
    cluster = fault_cluster(proxies=())

    def kill(sweep_id: str) -> None:
        for n_finished in (5, 15, 25):
            cluster.wait_for_finished(sweep_id, n_finished)
            cluster.redis.kill()
            faults.record("Redis: kill -9, back empty")
            # It goes on without.
            cluster.wait_for_finished(sweep_id, n_finished + 5)
            cluster.redis.start()

    run_sweep(cluster, n_trials=40, meanwhile=kill)
    check_messages_travel(cluster)


def test_worker_hears_again_when_its_connections_are_reset_three_times_in_three_seconds(fault_cluster: MakeCluster, faults: Faults) -> None:
    """The pattern by which consumers go deaf elsewhere: cut off while they are putting themselves together again."""
    cluster = fault_cluster(proxies=("redis",))

    def cut(sweep_id: str) -> None:
        cluster.wait_for_finished(sweep_id, 3)
        for _ in range(3):
            n_cut = cluster.proxy("w1", "redis").cut() + cluster.proxy("scheduler", "redis").cut()
            faults.record("Redis: connections reset, three times in 3 s", n_cut)
            outlast(1.0)

    run_sweep(cluster, n_trials=60, seconds=0.2, meanwhile=cut)
    check_messages_travel(cluster)


@pytest.mark.parametrize("role", ["w1", "scheduler"])
def test_placed_run_is_claimed_within_a_renewal_when_redis_is_half_open(fault_cluster: MakeCluster, faults: Faults, role: str) -> None:
    """Connections stand and carry nothing: whoever waits for Redis keeps nobody else waiting, and afterwards hears as before."""
    waits = {"SWEEP_RENEW_S": "1", **SLOW}
    cluster = fault_cluster(proxies=("redis",), environ=waits)
    run_sweep(cluster, n_trials=2)
    cluster.proxy(role, "redis").hang()
    faults.record(f"Redis: half-open from {'a worker' if role == 'w1' else 'the scheduler'}")
    sweep_id = run_sweep(cluster, n_trials=8, limits={"trials": 8, "parallel": 1})
    delays = claim_delays_s(cluster, sweep_id)
    assert len(delays) == 8, "some were placed again"
    assert max(delays) < 1 + SLACK_S, delays
    cluster.proxy(role, "redis").pass_through()
    check_messages_travel(cluster)


def test_sweep_is_whole_when_redis_is_out_of_memory(fault_cluster: MakeCluster, faults: Faults) -> None:
    """It refuses every push and forgets nothing: runs are found by renewals, and messages travel again once there is room."""
    cluster = fault_cluster(proxies=())
    with connect(cluster) as client:
        client.config_set("maxmemory", 1)
        run_sweep(cluster, n_trials=30)
        refused = int(client.info("errorstats")["errorstat_OOM"]["count"])
        assert refused
        faults.record("Redis: out of memory", refused)
        client.config_set("maxmemory", 0)
    check_messages_travel(cluster)


def test_sweep_is_whole_when_redis_was_never_there(fault_cluster: MakeCluster, faults: Faults) -> None:
    """Every role starts without it and works; when it comes at last, it is used."""
    cluster = fault_cluster(proxies=(), start=False)
    cluster.redis.kill()
    cluster.start()
    faults.record("Redis: not there at the start")
    run_sweep(cluster, n_trials=20)
    cluster.redis.start()
    check_messages_travel(cluster)


# -- other brokers -----------------------------------------------------------------------------------------------


def test_sweep_is_whole_without_a_broker(fault_cluster: MakeCluster, faults: Faults) -> None:
    """`none`: the worker looks for itself, often while runs come and go."""
    cluster = fault_cluster(proxies=(), broker="none")
    faults.record("no broker at all")
    sweep_id = run_sweep(cluster, n_trials=30)
    assert max(claim_delays_s(cluster, sweep_id)) < 1 + SLACK_S


@pytest.fixture
def small_folder(tmp_path: Path) -> Iterator[Path]:
    """A file system of 128 KB, to be filled or made read-only."""
    if os.geteuid() != 0:
        pytest.skip("mounts a small file system, which takes root")
    folder = tmp_path / "broker"
    folder.mkdir()
    try:
        mount_small(folder)
    except subprocess.CalledProcessError as error:
        pytest.skip(f"can't mount a small file system: {error.stderr.decode().strip()}")
    yield folder
    unmount(folder)


def mount_small(folder: Path) -> None:
    """Have an empty file system there."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=128k", "tmpfs", str(folder)], capture_output=True, check=True)


def unmount(folder: Path) -> None:
    """Take it away, whoever has files open there."""
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def empty(folder: Path) -> None:
    """Delete everything in it."""
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def remount(folder: Path, how: str) -> None:
    """Make it read-only (`ro`) or writable again (`rw`), whoever has files open there."""
    subprocess.run(["mount", "-o", f"remount,{how}", str(folder)], check=True)


def fill(folder: Path) -> None:
    """Leave no byte free."""
    with (folder / "ballast").open("ab", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(b"\0" * 512)


BREAKS: Final[Mapping[str, tuple[Callable[[Path], None], Callable[[Path], None]]]] = {
    "full": (fill, lambda folder: (folder / "ballast").unlink()),
    "read-only": (lambda folder: remount(folder, "ro"), lambda folder: remount(folder, "rw")),
    "deleted": (empty, lambda _folder: None),
}


@pytest.mark.parametrize("how", BREAKS)
def test_sweep_is_whole_when_the_brokers_folder_is_of_no_use(small_folder: Path, fault_cluster: MakeCluster, faults: Faults, how: str) -> None:
    """Full, read-only, deleted under everybody's feet: runs are found by renewals, and messages travel again once it is mended."""
    cluster = fault_cluster(proxies=(), broker="folder", start=False)
    cluster.broker_url = f"filesystem://{small_folder}"
    cluster.start()
    destroy, mend = BREAKS[how]

    def break_it(sweep_id: str) -> None:
        cluster.wait_for_finished(sweep_id, 4)
        destroy(small_folder)
        faults.record(f"broker's folder: {how}")

    run_sweep(cluster, n_trials=40, meanwhile=break_it)
    mend(small_folder)
    run_sweep(cluster, n_trials=4)
    cluster.wait_for(lambda: not list(small_folder.glob("queues/sweep*/*.msg")) and list(small_folder.glob("queues/sweep*/bell")), "the worker listens again")
