"""A worker's window and the scheduler's dispatcher over real brokers, and what becomes of them in outages."""

import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import celery
import pytest

from scheduler.dispatch import CeleryDispatcher, WakeUp, make_dispatcher
from tests.support.services import RedisServer, wait_until
from tracking.settings import Settings
from worker import celery_app
from worker.celery_app import CeleryWindow, NoWindow, Released, RunFailed, make_window

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)


class Site:
    """Windows and dispatchers of one test, stopped when it ends."""

    def __init__(self, broker_url: str, home: Path) -> None:
        self.settings = Settings(home=home, broker_url=broker_url)
        self.heard: list[tuple[str, str, int]] = []
        self.let_go = threading.Event()
        self._windows: list[CeleryWindow] = []
        self._dispatchers: list[CeleryDispatcher] = []

    def window(self, name: str, handler: Callable[[str, int], str | None] | None = None, *, concurrency: int = 2) -> CeleryWindow:
        """A started window that hears; without a handler it notes what it hears."""

        def note(run_id: str, placement: int) -> str | None:
            self.heard.append((name, run_id, placement))
            return handler(run_id, placement) if handler else "finished"

        made = make_window(self.settings, celery_queue=f"worker.{name}", node_name=f"sweep@{name}", concurrency=concurrency, handler=note)
        assert isinstance(made, CeleryWindow)
        self._windows.append(made)
        made.start()
        wait_until(lambda: made.is_healthy, "the window hears")
        return made

    def dispatcher(self) -> CeleryDispatcher:
        """A dispatcher."""
        made = make_dispatcher(self.settings)
        assert isinstance(made, CeleryDispatcher)
        self._dispatchers.append(made)
        return made

    def wait_for(self, run_id: str) -> None:
        """Until a window has heard of a run."""
        wait_until(lambda: any(run_id == heard[1] for heard in self.heard), f"{run_id} is heard of", interval_s=0.005)

    def close(self) -> None:
        """Let handlers go, stop everything."""
        self.let_go.set()
        for part in self._windows:
            part.stop(5)
        for dispatcher in self._dispatchers:
            dispatcher.close()


@pytest.fixture(params=["redis", "filesystem"])
def site(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Site]:
    """Over Redis, and over a folder."""
    made = Site(request.getfixturevalue("redis_url") if request.param == "redis" else "filesystem://", tmp_path)
    yield made
    made.close()


@pytest.fixture
def redis_site(redis_url: str, tmp_path: Path) -> Iterator[Site]:
    """Over the session's Redis."""
    made = Site(redis_url, tmp_path)
    yield made
    made.close()


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[RedisServer]:
    """A Redis to be killed."""
    server = RedisServer(tmp_path)
    server.start()
    yield server
    server.stop()


@pytest.fixture
def outage_site(own_redis: RedisServer, tmp_path: Path) -> Iterator[Site]:
    """Over a Redis to be killed."""
    made = Site(own_redis.url, tmp_path)
    yield made
    made.close()


class Monitor:
    """What Flower would see: the events of a Redis."""

    def __init__(self, url: str) -> None:
        self.events: list[dict[str, Any]] = []
        app = celery.Celery("monitor", broker=url, backend="disabled://", set_as_current=False)
        self._connection = app.connection_for_read()
        self._receiver = app.events.Receiver(self._connection, handlers={"*": self.events.append})
        self._thread = threading.Thread(target=self._capture, daemon=True)
        self._thread.start()
        probe = celery.Celery("probe", broker=url, backend="disabled://", set_as_current=False)
        with probe.connection_for_write() as connection, probe.events.Dispatcher(connection) as sender:
            wait_until(lambda: sender.send("monitor-probe") or self.events, "the monitor sees events")

    def of(self, uuid: str) -> list[str]:
        """The types of one task's events."""
        return [event["type"] for event in list(self.events) if event.get("uuid") == uuid]

    def last(self, uuid: str) -> dict[str, Any]:
        """A task's last event."""
        return [event for event in list(self.events) if event.get("uuid") == uuid][-1]

    def close(self) -> None:
        """Stop looking."""
        self._receiver.should_stop = True
        self._thread.join(10)
        self._connection.release()

    def _capture(self) -> None:
        self._receiver.capture(limit=None, timeout=None, wakeup=False)


@pytest.fixture
def monitor(redis_url: str) -> Iterator[Monitor]:
    """A monitor of the session's Redis."""
    made = Monitor(redis_url)
    yield made
    made.close()


def kill(server: RedisServer) -> None:
    """SIGKILL: nobody is told."""
    assert server._process is not None
    server._process.kill()
    server._process.wait()


def test_broker_delivers_each_message_once_to_its_own_worker(site: Site) -> None:
    """A thousand messages for two workers: each is heard once, by the worker it is for."""
    site.window("a")
    site.window("b", concurrency=1)
    wake_ups = [WakeUp(f"run{n}", n, f"worker.{'ab'[n % 2]}", 60.0) for n in range(1000)]
    assert site.dispatcher().send_many(wake_ups) == 1000
    wait_until(lambda: len(site.heard) >= 1000, "all are heard")
    assert Counter(site.heard) == Counter(("ab"[n % 2], f"run{n}", n) for n in range(1000))


def test_dispatcher_message_expires(site: Site) -> None:
    """A message older than its expiry is not handed to the worker."""
    dispatcher = site.dispatcher()
    dispatcher.send("old", 1, "worker.a", 0.001)
    wait_until(lambda: not dispatcher._publisher.n_waiting, "it is sent")
    site.window("a")
    dispatcher.send("new", 1, "worker.a", 60.0)
    site.wait_for("new")
    assert [heard[1] for heard in site.heard] == ["new"]


def test_window_survives_forged_messages(redis_site: Site, redis_server: RedisServer) -> None:
    """Rubbish, unknown tasks and wrong arguments in the queue cost nothing but themselves."""
    redis_site.window("a")
    dispatcher = redis_site.dispatcher()
    for junk in (b"{}", b"[]", b"junk", b'{"properties":{}}', b'{"properties":{"delivery_tag":"1","delivery_info":{}},"headers":null,"body":"e30="}'):
        assert redis_server.command(b"LPUSH worker.a '" + junk + b"'").startswith(b":")
    sender = celery.Celery("forger", broker=redis_site.settings.broker_url, backend="disabled://", set_as_current=False)
    sender.send_task("os.system", ("true",), queue="worker.a")
    sender.send_task("sweep.run", (), queue="worker.a")
    sender.send_task("sweep.run", (1, "x"), queue="worker.a")
    sender.close()
    dispatcher.send("good", 1, "worker.a", 60.0)
    site_heard = [heard[1] for heard in redis_site.heard]
    redis_site.wait_for("good")
    assert "os.system" not in site_heard


def test_window_leaves_signals_alone(site: Site) -> None:
    """The process's signals stay the worker's own: Celery installs no handler."""
    before = [signal.getsignal(number) for number in SIGNALS]
    site.window("a").stop(5)
    assert [signal.getsignal(number) for number in SIGNALS] == before


def test_window_shows_outcomes_as_events(redis_site: Site, monitor: Monitor) -> None:
    """Success, failure with its sentence and without a traceback; released is neither."""

    def handler(run_id: str, _placement: int) -> str:
        if run_id == "bad":
            raise RunFailed("exit status 3")
        if run_id == "gone":
            raise Released("the worker stops")
        return "finished"

    window = redis_site.window("a", handler)
    dispatcher = redis_site.dispatcher()
    dispatcher.send_many(WakeUp(run_id, 1, "worker.a", 60.0) for run_id in ("good", "bad", "gone"))
    wait_until(lambda: len(redis_site.heard) == 3, "all are heard")
    window.stop(5)  # which sends what is left to send
    wait_until(lambda: "worker-offline" in [event["type"] for event in monitor.events], "the window's last event is seen")
    assert monitor.of("good.1") == ["task-received", "task-started", "task-succeeded"]
    assert monitor.last("good.1")["result"] == "'finished'"
    assert monitor.of("bad.1") == ["task-received", "task-started", "task-failed"]
    assert "exit status 3" in monitor.last("bad.1")["exception"]
    assert monitor.last("bad.1")["traceback"] is None
    assert monitor.of("gone.1") == ["task-received", "task-started"]


def test_window_shows_runs_that_came_without_a_message(redis_site: Site, monitor: Monitor) -> None:
    """Adopted runs, and those found at a renewal, publish the events that Celery would have."""
    window = redis_site.window("a")
    for run_id, state in (("adopted", "finished"), ("broken", "failed"), ("cut", "pruned")):
        window.publish_started(run_id, 2)
        window.publish_ended(run_id, 2, state, "out of memory" if state == "failed" else "")
    wait_until(lambda: len(monitor.of("cut.2")) == 3, "the events are seen")
    assert monitor.of("adopted.2") == ["task-received", "task-started", "task-succeeded"]
    assert monitor.last("cut.2")["result"] == "'pruned'"
    assert monitor.of("broken.2") == ["task-received", "task-started", "task-failed"]
    assert monitor.last("broken.2")["exception"] == "out of memory"
    received = next(event for event in monitor.events if event.get("uuid") == "adopted.2")
    assert (received["name"], received["hostname"], received["args"]) == ("sweep.run", "sweep@a", "('adopted', 2)")


def test_window_answers_questions_and_obeys_no_commands(redis_site: Site) -> None:
    """Flower may ask; nobody may stop, revoke or resize from outside (D4)."""
    window = redis_site.window("a", lambda _run_id, _placement: redis_site.let_go.wait(60) and None)
    redis_site.dispatcher().send("long", 1, "worker.a", 60.0)
    redis_site.wait_for("long")
    asker = celery.Celery("asker", broker=redis_site.settings.broker_url, backend="disabled://", set_as_current=False)
    asker.control.shutdown()
    asker.control.revoke("long.1", terminate=True)
    asker.control.pool_shrink(2)
    asker.control.cancel_consumer("worker.a")
    inspect = asker.control.inspect(timeout=10, limit=1)
    stats = inspect.stats()["sweep@a"]
    assert [task["id"] for task in inspect.active()["sweep@a"]] == ["long.1"]
    assert [queue["name"] for queue in inspect.active_queues()["sweep@a"]] == ["worker.a"]
    assert inspect.registered()["sweep@a"] == ["sweep.run"]
    assert stats["pool"]["max-concurrency"] == 2
    redis_site.dispatcher().send("next", 1, "worker.a", 60.0)
    redis_site.wait_for("next")
    assert window.is_healthy
    asker.close()


def test_window_stops_promptly_when_handlers_are_released(site: Site) -> None:
    """Released handlers return, nothing more is taken, and what was not begun stays for the next start."""

    def wait(_run_id: str, _placement: int) -> None:
        site.let_go.wait(60)
        raise Released("the worker stops")

    window = site.window("a", wait, concurrency=2)
    site.dispatcher().send_many(WakeUp(f"run{n}", 1, "worker.a", 60.0) for n in range(3))
    wait_until(lambda: len(site.heard) == 2, "both slots are taken")
    site.let_go.set()
    began = time.monotonic()
    window.stop(10)
    assert time.monotonic() - began < 3
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("window")]


def test_window_stops_in_time_when_handlers_are_stuck(site: Site) -> None:
    """A handler that does not return is left behind at the time given."""
    window = site.window("a", lambda _run_id, _placement: site.let_go.wait(60) and None)
    site.dispatcher().send("stuck", 1, "worker.a", 60.0)
    site.wait_for("stuck")
    began = time.monotonic()
    window.stop(1.0)
    assert time.monotonic() - began < 3


STUCK_WORKER = """
import os, signal, sys, threading
from pathlib import Path
from tracking.settings import Settings
from worker.celery_app import make_window

stop = threading.Event()
signal.signal(signal.SIGTERM, lambda *_: stop.set())
def handler(run_id, placement):
    print("heard", flush=True)
    threading.Event().wait()
window = make_window(Settings(home=Path(sys.argv[2]), broker_url=sys.argv[1]), celery_queue="worker.a", node_name="sweep@a", concurrency=1, handler=handler)
window.start()
stop.wait()
window.stop(0.5)
print("stopped", flush=True)
"""


def test_window_does_not_keep_its_process_alive(site: Site) -> None:
    """SIGTERM reaches the worker's own handler, and the process ends although a handler is stuck for ever."""
    command = [sys.executable, "-c", STUCK_WORKER, site.settings.broker_url, str(site.settings.home)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        site.dispatcher().send("stuck", 1, "worker.a", 60.0)
        assert process.stdout.readline() == b"heard\n"
        process.terminate()
        assert process.stdout.read() == b"stopped\n"
        assert process.wait(10) == 0


def test_broker_outage_ends_by_itself_when_redis_is_killed(outage_site: Site, own_redis: RedisServer, caplog: pytest.LogCaptureFixture) -> None:
    """Sending goes on at full speed, handlers keep waiting, and both ends recover; the outage is one line for each."""
    window = outage_site.window("a", lambda run_id, _placement: outage_site.let_go.wait(60) and None if run_id == "long" else "finished")
    dispatcher = outage_site.dispatcher()
    dispatcher.send("long", 1, "worker.a", 60.0)
    outage_site.wait_for("long")
    kill(own_redis)
    wait_until(lambda: not window.is_healthy, "the window notices")
    began = time.monotonic()
    for n in range(100):
        dispatcher.send(f"waiting{n}", 1, "worker.a", 60.0)
    assert time.monotonic() - began < 0.5
    wait_until(lambda: dispatcher.is_away and dispatcher._publisher._failures > 2, "the dispatcher notices")
    own_redis.start()
    outage_site.wait_for("waiting99")
    wait_until(lambda: window.is_healthy and not dispatcher.is_away, "both are well")
    assert {heard[1] for heard in outage_site.heard} == {"long"} | {f"waiting{n}" for n in range(100)}
    assert len([record for record in caplog.records if "is away" in record.message]) <= 3  # the consumer, the dispatcher, the events
    assert window.n_restarts == 0


def test_broker_recovers_when_redis_dies_again_and_again(outage_site: Site, own_redis: RedisServer) -> None:
    """Several drops within seconds leave no deaf consumer behind."""
    outage_site.window("a")
    dispatcher = outage_site.dispatcher()
    for n in range(4):
        kill(own_redis)
        own_redis.start()
        dispatcher.send(f"run{n}", 1, "worker.a", 60.0)
    dispatcher.send("last", 1, "worker.a", 60.0)
    outage_site.wait_for("last")


def test_broker_recovers_when_redis_forgets_everything(redis_site: Site, redis_server: RedisServer) -> None:
    """FLUSHALL, and connections cut from Redis's side, stop nothing."""
    redis_site.window("a")
    dispatcher = redis_site.dispatcher()
    redis_server.command(b"FLUSHALL")
    dispatcher.send("flushed", 1, "worker.a", 60.0)
    redis_site.wait_for("flushed")
    redis_server.command(b"CLIENT KILL TYPE normal")
    redis_server.command(b"CLIENT KILL TYPE pubsub")
    dispatcher.send("cut", 1, "worker.a", 60.0)
    redis_site.wait_for("cut")


def test_window_stops_in_time_when_redis_is_frozen(outage_site: Site, own_redis: RedisServer) -> None:
    """A broker that takes bytes and never answers does not hold up the end."""
    window = outage_site.window("a")
    assert own_redis._process is not None
    own_redis._process.send_signal(signal.SIGSTOP)
    try:
        window.publish_started("run", 1)
        began = time.monotonic()
        window.stop(2.0)
        assert time.monotonic() - began < 4
    finally:
        own_redis._process.send_signal(signal.SIGCONT)


def test_window_starts_before_its_broker(own_redis: RedisServer, tmp_path: Path) -> None:
    """A worker that comes up first waits for Redis, and hears when it is there."""
    own_redis.stop()
    heard = threading.Event()
    settings = Settings(home=tmp_path, broker_url=own_redis.url)
    window = make_window(settings, celery_queue="worker.a", node_name="sweep@a", concurrency=1, handler=lambda _run_id, _placement: heard.set())
    window.start()
    dispatcher = make_dispatcher(settings)
    dispatcher.send("early", 1, "worker.a", 60.0)
    assert not window.is_healthy
    own_redis.start()
    assert heard.wait(30)
    window.stop(5)
    dispatcher.close()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A watch that suspects soon."""
    for name, value in {"PROBE_EVERY_S": 0.1, "PROBE_LOST_S": 0.5, "STUCK_S": 1.5, "WATCH_S": 0.05}.items():
        monkeypatch.setattr(celery_app, name, value)


def test_window_makes_a_new_consumer_when_it_is_deaf(site: Site, impatient: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """A consumer that comes round but hears nothing is found out by a message to itself, and replaced."""
    honest = celery_app._Listening.hear
    lives: list[int] = []

    def deaf_once(listening: celery_app._Listening, on_task: Callable[[Any], None]) -> Callable[[Any], None]:
        lives.append(1)
        return honest(listening, on_task) if len(lives) > 1 else lambda message: message.ack()

    monkeypatch.setattr(celery_app._Listening, "hear", deaf_once)
    window = site.window("a")
    wait_until(lambda: window.n_restarts > 0 and window.is_healthy, "a new consumer listens")
    site.dispatcher().send("heard", 1, "worker.a", 60.0)
    site.wait_for("heard")


def test_window_makes_a_new_consumer_when_it_hangs(site: Site, impatient: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """A consumer stuck in a call is left behind; handlers that wait are not disturbed."""
    hang = threading.Event()
    honest = celery_app._Consumer._run_due
    monkeypatch.setattr(celery_app._Consumer, "_run_due", lambda consumer: site.let_go.wait(60) if hang.is_set() else honest(consumer))
    window = site.window("a", lambda run_id, _placement: site.let_go.wait(60) and None if run_id == "long" else "finished")
    site.dispatcher().send("long", 1, "worker.a", 60.0)
    site.wait_for("long")
    hang.set()
    wait_until(lambda: window.n_restarts > 0, "the hanging one is given up")
    hang.clear()
    wait_until(lambda: window.is_healthy, "a new one listens")
    site.dispatcher().send("heard", 1, "worker.a", 60.0)
    site.wait_for("heard")
    assert [heard[1] for heard in site.heard].count("long") == 1


def test_window_is_none_for_no_broker(tmp_path: Path) -> None:
    """Without a broker the window is there, well, and silent."""
    window = make_window(Settings(home=tmp_path, broker_url="none"), celery_queue="q", node_name="n", concurrency=1, handler=lambda _run_id, _placement: None)
    assert isinstance(window, NoWindow)
    window.start()
    window.publish_started("r", 1)
    window.publish_ended("r", 1, "finished")
    assert window.is_healthy
    window.stop()
