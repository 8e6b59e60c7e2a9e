"""A supervisor on a real record, with attempts that end when the test says so: both ways of reconciling, and every way to go away."""

import fcntl
import logging
import shutil
import socket
import threading
from collections.abc import Callable, Container, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import pytest

from tests.support.record import Hands
from tests.support.services import wait_until
from tests.support.threads import NoThreads
from tracking.errors import DatabaseAway, InvalidValue, SchemaOutdated
from tracking.ids import new_uuid
from tracking.records import Collect, Launch, MetricPoint, Resources, SessionInfo
from tracking.settings import Settings
from tracking.store import Fence, Store, open_store
from worker import attempt as attempt_module
from worker import errands as errands_module
from worker import supervisor as supervisor_module
from worker.attempt import Work
from worker.celery_app import NoWindow, Released, RunFailed
from worker.collect import POLL_BYTES
from worker.errors import Displaced, EngineAway, LaunchFailed
from worker.output import Output
from worker.runtimes.base import Abandoned, AttemptKey, AttemptSpec, ExitReport, Handle, StopReason
from worker.supervisor import Supervisor
from worker.surroundings import Surroundings

WELL: Final = ExitReport(exit_status=0, started_at=1.0, duration_s=1.0)
PATIENCE_S: Final = 60.0


class StubHandle:
    """An attempt that ends when it is told to.

    Attributes:
        stops: the reasons of all stops that were asked for.
        waits: how long each wait was willing to last.
        n_deaf: how many stops it does not hear.
    """

    def __init__(self) -> None:
        self.stops: list[StopReason] = []
        self.waits: list[float | None] = []
        self.n_deaf = 0
        self.killed = False
        self.cleaned = False
        self._report: ExitReport | None = None
        self._ended = threading.Event()

    def end(self, report: ExitReport = WELL) -> None:
        """It has ended so."""
        self._report = report
        self._ended.set()

    def wait(self, timeout_s: float | None = None) -> ExitReport | None:
        """See `base.Handle`."""
        self.waits.append(timeout_s)
        return self._report if self._ended.wait(timeout_s) else None

    def stop(self, reason: StopReason) -> None:
        """See `base.Handle`."""
        self.stops.append(reason)
        if len(self.stops) > self.n_deaf:
            self.end(ExitReport(signal=15, stop_sent=True, stop_reason=self.stops[0]))

    def kill(self) -> None:
        """See `base.Handle`."""
        self.killed = True
        self.end(ExitReport(signal=9))

    def describe(self) -> dict[str, str | int]:
        """See `base.Handle`."""
        return {"runtime": "stub"}

    def cleanup(self) -> None:
        """See `base.Handle`."""
        self.cleaned = True


class StubRuntime:
    """Keeps the handles; they outlive supervisors, as processes do.

    Attributes:
        swept: what of it was owned, each time that orphans were looked for.
        abandoned: what of it the record had given up, when the home was last looked through.
        refusals: raised by the next starts, each of which starts all the same.
    """

    def __init__(self) -> None:
        self.handles: dict[AttemptKey, StubHandle] = {}
        self.swept: list[set[AttemptKey]] = []
        self.abandoned: set[AttemptKey] = set()
        self.refusals: list[Exception] = []

    def start(self, spec: AttemptSpec, called_off: threading.Event | None = None) -> Handle:
        """See `base.Runtime`."""
        handle = self.handles.setdefault(spec.key, StubHandle())
        if self.refusals:
            raise self.refusals.pop(0)
        return handle

    def adopt(self, run_id: str, attempt: int, folder: Path) -> Handle | None:
        """See `base.Runtime`."""
        return self.handles.get((run_id, attempt))

    def sweep_orphans(self, owned: Container[AttemptKey]) -> list[AttemptKey]:
        """See `base.Runtime`."""
        self.swept.append({key for key in self.handles if key in owned})
        return []

    def sweep_home(self, abandoned: Abandoned) -> list[AttemptKey]:
        """See `base.Runtime`."""
        over = abandoned(list(self.handles))
        self.abandoned = {key for key in self.handles if key in over}
        return []

    def close(self) -> None:
        """The handles stay."""


class StubWindow(NoWindow):
    """Keeps what was published.

    Attributes:
        told: (what, run_id) of each event.
    """

    def __init__(self) -> None:
        self.told: list[tuple[str, str]] = []

    def publish_started(self, run_id: str, placement: int) -> None:
        """See `Window`."""
        self.told.append(("started", run_id))

    def publish_ended(self, run_id: str, placement: int, state: str, text: str = "") -> None:
        """See `Window`."""
        self.told.append((state, run_id))


class Message(threading.Thread):
    """A Celery task that waits for its run.

    Attributes:
        told: what it was told, in the end.
    """

    def __init__(self, supervisor: Supervisor, run_id: str) -> None:
        super().__init__(daemon=True)
        self.told: str | None = None
        self._supervisor = supervisor
        self._run_id = run_id

    def run(self) -> None:
        """Wait."""
        try:
            self.told = self._supervisor.handle(self._run_id, 1)
        except Released:
            self.told = "released"
        except RunFailed as error:
            self.told = str(error)


class Site:
    """A worker that can be started again and again, and the hands that give it runs."""

    def __init__(self, hands: Hands, folder: Path) -> None:
        self.hands = hands
        self.folder = folder
        self.worker_id = new_uuid()
        self.server = "http://127.0.0.1:1"
        self.window = StubWindow()
        self.ended_with: list[Exception] = []
        self.process = StubRuntime()
        self.docker = StubRuntime()
        self.connect_engine: Callable[[], StubRuntime] = lambda: self.docker
        self._lives: list[tuple[Supervisor, threading.Thread, list[Store]]] = []

    def start(self, *, slots: int = 2, has_broker: bool = False, **settings: Any) -> Supervisor:
        """Start the worker, and wait until its session is open; with a broker it hears nothing by itself for an hour."""
        given = {"renew_s": 3600.0 if has_broker else 0.1, "watch_s": 0.1, "stop_grace_s": 1.0, **settings}
        stores = [open_store(self.hands.store.database.url, pool_size=1) for _ in range(2)]
        info = SessionInfo(self.worker_id, new_uuid(), f"w-{self.worker_id}", "host", f"q.{self.worker_id}", ("default",), slots, 2.0, 1 << 30)
        made = Settings(home=self.folder, server=self.server, broker_url="none", **given)
        supervisor = Supervisor(
            made,
            info,
            store=stores[0],
            ingest=stores[1],
            surroundings=Surroundings(made, self.folder / "state"),
            runtimes={"process": self.process},
            connect_engine=self.connect_engine,
            has_broker=has_broker,
        )
        supervisor.window = self.window
        thread = threading.Thread(target=self._run, args=(supervisor,), daemon=True)
        thread.start()
        self._lives.append((supervisor, thread, stores))
        self.wait_for_session(info.session_id)
        return supervisor

    def _run(self, supervisor: Supervisor) -> None:
        try:
            supervisor.run()
        except Displaced as error:
            self.ended_with.append(error)

    def wait_for_exit(self) -> None:
        """Wait until the worker has ended by itself."""
        self._lives[-1][1].join(PATIENCE_S)
        assert not self._lives[-1][1].is_alive()

    def wait_for_session(self, session_id: str) -> None:
        """Wait until a session is live."""
        live = "SELECT 1 FROM sessions WHERE session_id = %(id)s AND state = 'live'"
        wait_until(lambda: self.hands.sql(live, id=session_id), "the session is open", interval_s=0.01)

    def stop(self) -> None:
        """Stop the worker as SIGTERM does."""
        supervisor, thread, stores = self._lives[-1]
        supervisor.stop()
        thread.join(PATIENCE_S)
        assert not thread.is_alive()
        for store in stores:
            store.close()

    def close(self) -> None:
        """Stop it if it still runs, and let every attempt go."""
        for runtime in (self.process, self.docker):
            for handle in runtime.handles.values():
                handle.end()
        if self._lives and self._lives[-1][1].is_alive():
            self.stop()

    def run(self, supervisor: Supervisor, **launch: Any) -> str:
        """Place a new run on the worker; its id."""
        sweep = self.hands.sweep(launch=Launch(**launch))
        run_id = self.hands.run_id(sweep)
        self.hands.place(run_id, supervisor._info)
        return run_id

    def begun(self, supervisor: Supervisor, **launch: Any) -> tuple[str, StubHandle]:
        """A run that the worker has started; its id and its handle."""
        run_id = self.run(supervisor, **launch)
        runtime = self.docker if "resources" in launch else self.process
        wait_until(lambda: (run_id, 1) in runtime.handles, "it is started", interval_s=0.01)
        handle = runtime.handles[run_id, 1]
        wait_until(lambda: handle.waits, "it is waited for", interval_s=0.01)
        return run_id, handle

    def announced(self, supervisor: Supervisor) -> tuple[str, "Message"]:
        """A run that the worker has started because of a message, which waits."""
        run_id = self.run(supervisor)
        message = Message(supervisor, run_id)
        message.start()
        wait_until(lambda: (run_id, 1) in self.process.handles and self.process.handles[run_id, 1].waits, "it is waited for", interval_s=0.01)
        return run_id, message

    def wait_for_end(self, run_id: str) -> Any:
        """Wait until the current attempt of a run is over, here and in the record; its row."""
        wait_until(lambda: any(a.ended_at for a in self.hands.store.attempts.list(run_id)[-1:]), "the attempt has ended", interval_s=0.01)
        return self.hands.store.attempts.list(run_id)[-1]

    def run_folder(self, run_id: str) -> Path:
        """Where the attempts of a run lie while they live."""
        return self.folder / "state" / "runs" / run_id

    def wait_for_tidiness(self, run_id: str) -> None:
        """Wait until nothing of a run lies here."""
        wait_until(lambda: not self.run_folder(run_id).exists(), "its folder is gone", interval_s=0.01)


@pytest.fixture
def site(hands: Hands, tmp_path: Path) -> Iterator[Site]:
    """A worker that was never started."""
    made = Site(hands, tmp_path)
    yield made
    made.close()


def test_supervisor_finds_what_was_placed_and_never_announced(site: Site) -> None:
    """No message comes, and the run is claimed, run, reported and tidied away all the same (I1)."""
    run_id, handle = site.begun(site.start())
    assert site.run_folder(run_id).exists()
    handle.end()
    ended = site.wait_for_end(run_id)
    assert (ended.state, ended.cause, ended.exit_status) == ("succeeded", "completed", 0)
    site.wait_for_tidiness(run_id)
    assert handle.cleaned


def test_supervisor_takes_a_run_once_however_often_it_hears_of_it(site: Site) -> None:
    """Repeated, delayed and forged messages open no second attempt; of those that wait for the first, one shows its end."""
    supervisor = site.start()
    run_id, handle = site.begun(supervisor)
    assert supervisor.handle(run_id, 0) == "not ours"
    assert supervisor.handle("0" * 32, 1) == "not ours"
    message = Message(supervisor, run_id)
    message.start()
    wait_until(lambda: supervisor._works[run_id].announced, "the message waits", interval_s=0.01)
    with pytest.raises(Released):
        supervisor.handle(run_id, 1)
    assert message.is_alive()
    handle.end()
    message.join(PATIENCE_S)
    assert message.told == "completed"
    site.wait_for_end(run_id)
    site.wait_for_tidiness(run_id)
    assert supervisor.handle(run_id, 1) == "not ours"
    assert len(site.hands.store.attempts.list(run_id)) == 1
    # The end is the message's to show: shown twice, it would count twice.
    assert site.window.told == [("started", run_id)]


@pytest.mark.parametrize("has_broker", [False, True], ids=["looked for", "announced"])
def test_supervisor_takes_a_run_later_when_no_thread_could_be_had(site: Site, monkeypatch: pytest.MonkeyPatch, has_broker: bool) -> None:
    """It is not taken for known while nobody works on it: the next look has it, and a message about it is let go."""
    lack = NoThreads(monkeypatch, "run-", 2)
    supervisor = site.start(has_broker=has_broker)
    run_id = site.run(supervisor)
    if has_broker:
        for _ in range(2):
            message = Message(supervisor, run_id)
            message.start()
            message.join(PATIENCE_S)
            assert message.told == "released"
        assert not supervisor._works
        supervisor._renew()
    wait_until(lambda: (run_id, 1) in site.process.handles, "it is started", interval_s=0.01)
    assert lack.n_refused == 2
    site.process.handles[run_id, 1].end()
    assert site.wait_for_end(run_id).state == "succeeded"


def test_supervisor_adopts_later_when_no_thread_could_be_had(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """The worker starts all the same, tells nobody that an attempt is lost, and goes on with each as soon as there are threads, its own ones too."""
    monkeypatch.setattr(supervisor_module, "_BEGIN_AGAIN_S", 0.01)
    first = site.start()
    runs = [site.begun(first) for _ in range(2)]
    site.stop()
    threads = NoThreads(monkeypatch, "run-", 1_000_000), NoThreads(monkeypatch, "s", 3)
    second = site.start()
    renewed: list[None] = []
    renew = second.store.sessions.renew

    def count(*arguments: Any, **options: Any) -> Any:
        renewed.append(None)
        return renew(*arguments, **options)

    monkeypatch.setattr(second.store.sessions, "renew", count)
    wait_until(lambda: len(renewed) > 4, "it has renewed", interval_s=0.01)
    assert len(second._works) == 2
    threads[0].end()
    for run_id, handle in runs:
        handle.end()
        assert site.wait_for_end(run_id).state == "succeeded"
        assert len(site.hands.store.attempts.list(run_id)) == 1
    assert threads[1].n_refused == 3
    wait_until(lambda: site.process.swept, "it has looked for what nobody owns", interval_s=0.01)


def test_supervisor_ends_what_it_could_not_adopt_when_its_session_is_taken(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """An attempt that no thread could be had for is somebody else's by now: what runs of it is nobody's, and ended as such."""
    monkeypatch.setattr(supervisor_module, "_BEGIN_AGAIN_S", 0.01)
    run_id, _ = site.begun(site.start())
    site.stop()
    lack = NoThreads(monkeypatch, "run-", 1_000_000)
    second = site.start()
    session_id = second.session_id
    site.hands.lose(session_id)
    wait_until(lambda: second.session_id != session_id, "it has begun anew", interval_s=0.01)
    site.wait_for_session(second.session_id)
    assert lack.n_refused > 0
    assert not second.holds(run_id, 1)
    second._sweep()
    assert (run_id, 1) in site.process.handles
    assert (run_id, 1) not in site.process.swept[-1]


def test_supervisor_shows_the_end_of_a_run_once_when_its_message_comes_late(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """A message that comes when the end was shown already does not show it again."""
    supervisor = site.start()
    run_id, handle = site.begun(supervisor)
    told = threading.Event()
    may_go = threading.Event()
    real = site.window.publish_ended

    def publish(*arguments: Any) -> None:
        real(*arguments)
        told.set()
        assert may_go.wait(PATIENCE_S)

    monkeypatch.setattr(site.window, "publish_ended", publish)
    handle.end()
    assert told.wait(PATIENCE_S)
    try:
        with pytest.raises(Released):
            supervisor.handle(run_id, 1)
    finally:
        may_go.set()
    assert site.window.told == [("started", run_id), ("succeeded", run_id)]


def test_supervisor_takes_nothing_new_while_it_drains(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """What runs goes on, what is placed or announced waits for another worker; it does not end, and takes runs again once it may."""
    supervisor = site.start()
    _, handle = site.begun(supervisor)
    site.hands.store.sessions.drain(site.worker_id)
    wait_until(lambda: supervisor._is_draining, "it knows", interval_s=0.01)
    run_id = site.run(supervisor)
    looked = threading.Semaphore(0)
    real = supervisor.store.sessions.look
    monkeypatch.setattr(supervisor.store.sessions, "look", lambda session_id: (looked.release(), real(session_id))[1])
    for _ in range(3):
        assert looked.acquire(timeout=PATIENCE_S)
    with pytest.raises(Released):
        supervisor.handle(run_id, 1)
    assert site.hands.run_state(run_id) == "placed"
    assert handle.stops == []
    site.hands.store.sessions.drain(site.worker_id, draining=False)
    wait_until(lambda: (run_id, 1) in site.process.handles, "it is taken", interval_s=0.01)


@pytest.mark.parametrize(("report", "shown"), [(WELL, "completed"), (ExitReport(exit_status=3), "exit_status: exit status 3")])
def test_supervisor_tells_a_waiting_message_how_its_run_ended(site: Site, report: ExitReport, shown: str) -> None:
    """What Flower shows: the cause, and of a failure the reason."""
    supervisor = site.start(has_broker=True)
    run_id, message = site.announced(supervisor)
    site.process.handles[run_id, 1].end(report)
    message.join(PATIENCE_S)
    assert message.told == shown


def test_supervisor_releases_waiting_messages_when_it_stops(site: Site) -> None:
    """The run goes on, so its task is no success; the next life of the worker takes it up under the same attempt (I8)."""
    supervisor = site.start(has_broker=True)
    run_id, message = site.announced(supervisor)
    site.stop()
    message.join(PATIENCE_S)
    assert message.told == "released"
    with pytest.raises(Released):
        supervisor.handle("0" * 32, 1)
    assert site.process.handles[run_id, 1].stops == []
    site.start()
    site.process.handles[run_id, 1].end()
    ended = site.wait_for_end(run_id)
    assert (ended.attempt, ended.state) == (1, "succeeded")


def test_supervisor_stops_what_is_to_be_cancelled(site: Site) -> None:
    """The request lies in the record; the attempt is asked to end, and its end is a cancel."""
    run_id, handle = site.begun(site.start())
    assert site.hands.store.queue.request_cancel(run_id)
    ended = site.wait_for_end(run_id)
    assert (ended.state, ended.cause) == ("stopped", "cancelled")
    assert handle.stops == ["cancel"]


def test_supervisor_whose_session_was_taken_stops_everything_and_begins_anew(site: Site) -> None:
    """What was given to another is stopped and not reported (I3); then a new session serves new runs."""
    supervisor = site.start()
    run_id, handle = site.begun(supervisor)
    old = supervisor.session_id
    site.hands.lose(old)
    wait_until(lambda: supervisor.session_id != old, "it has a new session", interval_s=0.01)
    site.wait_for_session(supervisor.session_id)
    assert handle.stops == ["superseded"]
    assert [(a.state, a.cause) for a in site.hands.store.attempts.list(run_id)] == [("lost", "lost")]
    site.wait_for_tidiness(run_id)
    again, other = site.begun(supervisor)
    other.end()
    assert site.wait_for_end(again).state == "succeeded"


def test_supervisor_tells_once_that_a_run_is_no_longer_its_own(site: Site, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """As when the record went back to an earlier state; however long the command takes to end, and however often the record is asked."""
    supervisor = site.start()
    run_id, handle = site.begun(supervisor)
    handle.n_deaf = 2
    looked = threading.Semaphore(0)
    real = supervisor.store.sessions.look
    monkeypatch.setattr(supervisor.store.sessions, "look", lambda session_id: (looked.release(), real(session_id))[1])
    with caplog.at_level(logging.WARNING, logger=supervisor_module.__name__):
        site.hands.change("UPDATE runs SET session_id = %(other)s WHERE run_id = %(id)s", other=site.hands.worker().session_id, id=run_id)
        wait_until(lambda: handle.stops, "it is stopped", interval_s=0.01)
        while looked.acquire(blocking=False):
            pass
        for _ in range(5):
            assert looked.acquire(timeout=PATIENCE_S)
    assert [record.getMessage() for record in caplog.records] == [f"Run {run_id} is no longer ours: stopping it."]
    assert handle.stops == ["superseded"]


def test_supervisor_keeps_an_end_that_postgres_did_not_hear_of(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped while the record is away: what lies on the disk stays there, and the next life reports it under the same attempt."""
    supervisor = site.start()
    run_id, handle = site.begun(supervisor)
    asked = threading.Event()

    def away(*_arguments: object, **_options: object) -> None:
        asked.set()
        raise DatabaseAway("Postgres is away.")

    monkeypatch.setattr(supervisor.store.attempts, "finish", away)
    handle.end()
    assert asked.wait(PATIENCE_S)
    site.stop()
    assert site.run_folder(run_id).exists()
    assert not handle.cleaned
    assert [a.state for a in site.hands.store.attempts.list(run_id)] == ["running"]
    site.start()
    ended = site.wait_for_end(run_id)
    assert (ended.attempt, ended.state) == (1, "succeeded")
    site.wait_for_tidiness(run_id)


def test_supervisor_blames_itself_when_the_command_had_not_started(site: Site) -> None:
    """Claimed, and then the worker died: there is no trace of a process, so the attempt is lost and the user not charged."""
    run_id, _ = site.begun(site.start())
    site.stop()
    site.process.handles.clear()
    site.start()
    ended = site.wait_for_end(run_id)
    assert (ended.state, ended.cause) == ("failed", "lost")
    assert "before the command had started" in ended.detail


def test_supervisor_gives_an_adopted_attempt_no_new_time(site: Site) -> None:
    """Its time counts from the start of its command, however often the worker was restarted."""
    run_id, handle = site.begun(site.start(), trial_time_s=3600.0)
    site.stop()
    assert handle.stops == []
    begun = site.run_folder(run_id) / "1" / "begun"
    begun.write_text(repr(float(begun.read_text()) - 7200))
    site.start()
    ended = site.wait_for_end(run_id)
    assert (ended.state, ended.cause) == ("failed", "timed_out")
    assert handle.stops == ["timeout"]


def test_supervisor_waits_for_a_container_engine_that_is_away(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine that does not answer has not said that the container ended: it is asked until it does."""
    monkeypatch.setattr(errands_module, "_LONGEST_DELAY_S", 0.01)
    run_id, handle = site.begun(site.start(), resources=Resources(image="any"))
    site.stop()
    refused: list[None] = []

    def connect() -> StubRuntime:
        if len(refused) < 3:
            refused.append(None)
            raise EngineAway("It does not answer.")
        return site.docker

    site.connect_engine = connect
    n_waits = len(handle.waits)
    site.start()
    wait_until(lambda: len(handle.waits) > n_waits, "the container is watched again", interval_s=0.01)
    handle.end()
    ended = site.wait_for_end(run_id)
    assert (ended.attempt, ended.state) == (1, "succeeded")


def test_supervisor_says_so_when_a_container_engine_stays_away(site: Site) -> None:
    """Nobody knows then what became of the container; that it had not started is not the story."""
    run_id, _ = site.begun(site.start(), resources=Resources(image="any"))
    site.stop()

    def connect() -> StubRuntime:
        raise EngineAway("It does not answer.")

    site.connect_engine = connect
    site.start(reassign_after_s=0.0)
    ended = site.wait_for_end(run_id)
    assert (ended.state, ended.cause) == ("failed", "lost")
    assert "not known: It does not answer." in (ended.detail or "")


def test_supervisor_waits_while_the_record_is_without_its_tables(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """As while somebody restores it: the worker lives on, and an outcome is not taken for refused."""
    supervisor = site.start()
    run_id, handle = site.begun(supervisor)
    n_refusals = 0
    finish, renew = supervisor.store.attempts.finish, supervisor.store.sessions.renew

    def without(act: Callable[..., Any]) -> Callable[..., Any]:
        def refuse(*values: Any, **named: Any) -> Any:
            nonlocal n_refusals
            n_refusals += 1
            if n_refusals < 6:
                raise SchemaOutdated("There is no such table.")
            return act(*values, **named)

        return refuse

    monkeypatch.setattr(supervisor.store.attempts, "finish", without(finish))
    monkeypatch.setattr(supervisor.store.sessions, "renew", without(renew))
    handle.end()
    assert site.wait_for_end(run_id).state == "succeeded"
    assert n_refusals >= 6


def test_supervisor_offers_an_engine_that_came_up_after_it(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs that want a container come to a worker that was started before the engine."""
    monkeypatch.setattr(supervisor_module, "_SWEEP_S", 0.05)
    is_up = threading.Event()
    docker = site.docker

    def connect() -> StubRuntime:
        if not is_up.is_set():
            raise EngineAway("It does not answer.")
        return docker

    def offered() -> list[str]:
        return next(list(worker.runtimes) for worker in site.hands.store.sessions.workers() if worker.worker_id == site.worker_id)

    site.connect_engine = connect
    site.start()
    assert offered() == ["process"]
    is_up.set()
    wait_until(lambda: offered() == ["process", "docker"], "containers are offered")


def test_supervisor_ends_the_command_of_an_attempt_it_can_not_go_on_with(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bug of ours costs the attempt, not the slot; and nothing runs on beside the next attempt."""
    site.start()
    site.stop()
    supervisor = site.start(slots=1)
    run_id, handle = site.begun(supervisor)

    def broken(*_arguments: object, **_options: object) -> None:
        raise RuntimeError("a bug")

    with monkeypatch.context() as patch:
        patch.setattr(attempt_module, "outcome_of", broken)
        handle.end()
        ended = site.wait_for_end(run_id)
    assert (ended.state, ended.cause) == ("failed", "launch")
    assert handle.killed
    site.wait_for_tidiness(run_id)
    other, handle = site.begun(supervisor)
    handle.end()
    assert site.wait_for_end(other).state == "succeeded"


SHORT = OSError(24, "Too many open files")


class Short:
    """Something that this machine is short of, for the first so many times that it is asked for.

    Attributes:
        is_asked: whether it has been asked for at all.
        is_over: whether it has been asked for oftener than that.
    """

    def __init__(self, act: Callable[..., Any], n_times: int = 2, error: Exception = SHORT) -> None:
        self._act = act
        self._left = n_times
        self._error = error
        self.is_asked = self.is_over = False

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        """Fail, or act."""
        self.is_asked = True
        self._left -= 1
        if self._left >= 0:
            raise self._error
        self.is_over = True
        return self._act(*arguments, **options)


@pytest.mark.parametrize("error", [SHORT, MemoryError(), PermissionError(13, "Permission denied")], ids=["descriptors", "memory", "rights"])
def test_supervisor_tells_no_attempt_as_failed_that_it_can_not_look_at(site: Site, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    """What lives can't be taken up just now, as its folder is locked or for want of something: it is tried until it goes, under the same attempt."""
    run_id, handle = site.begun(site.start())
    site.stop()
    adopt, resume = Short(site.process.adopt, error=error), Short(Output.resume, error=error)
    monkeypatch.setattr(site.process, "adopt", adopt)
    monkeypatch.setattr(Output, "resume", resume)
    site.run_folder(run_id).chmod(0)
    handle.waits.clear()
    site.start()
    wait_until(lambda: handle.waits, "it is waited for", interval_s=0.01)
    assert (adopt.is_over, resume.is_over) == (True, True)
    assert (site.run_folder(run_id).stat().st_mode & 0o700 == 0o700) == isinstance(error, PermissionError)
    handle.end()
    ended = site.wait_for_end(run_id)
    assert (ended.attempt, ended.state, ended.cause) == (1, "succeeded", "completed")
    assert not handle.killed


@pytest.mark.parametrize("what", ["its report", "its output", "what it said last", "its stop"])
def test_supervisor_reads_how_an_attempt_ended_once_it_can(site: Site, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    """Neither the end nor the stop of a command is lost for something that its worker's machine was short of for a moment."""
    monkeypatch.setattr(attempt_module, "_STOP_AGAIN_S", 0.05)
    supervisor = site.start()
    run_id, handle = site.begun(supervisor)
    short = {
        "its report": lambda: monkeypatch.setattr(handle, "wait", made),
        "its output": lambda: monkeypatch.setattr(supervisor._works[run_id].output, "ship", made),
        "what it said last": lambda: monkeypatch.setattr(attempt_module, "outcome_of", made),
        "its stop": lambda: monkeypatch.setattr(handle, "stop", made),
    }
    real = {"its report": handle.wait, "its stop": handle.stop, "what it said last": attempt_module.outcome_of}
    made = Short(real.get(what, supervisor._works[run_id].output.ship))
    short[what]()
    if what == "its stop":
        site.hands.store.sweeps.cancel(site.hands.store.runs.get(run_id).sweep_id)
    else:
        # The wait under way is still the old one.
        wait_until(lambda: what != "its report" or made.is_asked, "it is asked", interval_s=0.01)
        handle.end()
    ended = site.wait_for_end(run_id)
    assert made.is_over
    assert (ended.attempt, ended.cause) == (1, "cancelled" if what == "its stop" else "completed")
    assert not handle.killed


def test_supervisor_asks_again_for_a_start_that_may_have_happened(site: Site) -> None:
    """The command may run already as the worker finds nothing to follow it by: the same start gives its handle."""
    site.process.refusals = [SHORT, MemoryError()]
    run_id, handle = site.begun(site.start())
    handle.end()
    ended = site.wait_for_end(run_id)
    assert (ended.attempt, ended.cause, handle.killed) == (1, "completed", False)


def test_supervisor_kills_what_it_can_not_go_on_with_before_it_says_so(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bug as an attempt is taken up leaves nothing running beside the next one, though what is to be killed can't be found at once."""
    run_id, handle = site.begun(site.start())
    site.stop()

    def broken(*_arguments: object, **_options: object) -> None:
        raise RuntimeError("a bug")

    with monkeypatch.context() as patch:
        patch.setattr(Work, "_take_up", broken)
        adopt = Short(site.process.adopt)
        patch.setattr(site.process, "adopt", adopt)
        site.start()
        ended = site.wait_for_end(run_id)
    assert adopt.is_over
    assert handle.killed
    assert (ended.state, ended.cause) == ("failed", "launch")


def test_supervisor_removes_what_is_left_though_one_of_it_is_odd(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """A trial has put a file in the place of its folder, another's can't be looked at: neither keeps the rest, and files go as folders do."""
    monkeypatch.setattr(supervisor_module, "_SWEEP_S", 0.05)
    odd, sick, plain = (site.folder / "state" / "runs" / f"{letter}{new_uuid()}" / "1" for letter in "abc")
    odd.parent.mkdir(parents=True)
    odd.write_text("hello")
    for folder in (sick, plain):
        folder.mkdir(parents=True)
    real = supervisor_module.is_alive

    def alive(folder: Path) -> bool:
        if folder == sick:
            raise OSError(5, "Input/output error")
        return real(folder)

    monkeypatch.setattr(supervisor_module, "is_alive", alive)
    site.start()
    wait_until(lambda: not odd.parent.exists() and not plain.parent.exists(), "the others are gone", interval_s=0.01)
    assert sick.exists()
    monkeypatch.undo()
    wait_until(lambda: not sick.parent.exists(), "it is gone too", interval_s=0.01)


def test_supervisor_keeps_the_folder_of_what_still_lives(site: Site) -> None:
    """Without it nobody would find the process any more."""
    supervisor = site.start()
    run_id, handle = site.begun(supervisor)
    with (site.run_folder(run_id) / "1" / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        handle.end()
        site.wait_for_end(run_id)
        wait_until(lambda: run_id not in supervisor._works, "it is let go of", interval_s=0.01)
        assert handle.cleaned
        assert site.run_folder(run_id).exists()


def test_supervisor_removes_the_folders_of_attempts_that_nobody_owns(site: Site) -> None:
    """Left by a worker that died between its report and its tidying up."""
    run_id, handle = site.begun(site.start())
    site.stop()
    left = site.folder / "state" / "runs" / new_uuid() / "2"
    (left / "work").mkdir(parents=True)
    site.start()
    wait_until(lambda: not left.parent.exists(), "the folder is gone", interval_s=0.01)
    assert site.run_folder(run_id).exists(), "this one is owned"
    assert site.process.swept == [set(), {(run_id, 1)}]
    assert site.docker.swept == [set(), set()], "an engine that was not there at the start is asked too"
    handle.end()
    site.wait_for_end(run_id)


def test_supervisor_looks_for_what_nobody_owns_again_and_again(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a failed start leaves behind does not wait for the next restart; what is in hand, in whatever phase, is spared."""
    monkeypatch.setattr(supervisor_module, "_SWEEP_S", 0.05)
    supervisor = site.start()
    run_id, handle = site.begun(supervisor)
    waiting = site.run(supervisor)
    site.process.handles["somebody", 1] = StubHandle()
    wait_until(lambda: {(run_id, 1)} <= site.process.swept[-1], "it was looked for", interval_s=0.01)
    assert all(("somebody", 1) not in swept for swept in site.process.swept)
    wait_until(lambda: (waiting, 1) in site.process.handles and (waiting, 1) in site.process.swept[-1], "the other is held too", interval_s=0.01)
    left = site.folder / "state" / "runs" / new_uuid() / "2"
    (left / "work").mkdir(parents=True)
    wait_until(lambda: not left.exists(), "the folder is gone", interval_s=0.01)
    assert site.run_folder(run_id).exists()
    handle.end()


def test_supervisor_clears_up_after_an_earlier_name_of_its_own(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the record gave up, at the start and from then on; what it has running, or knows nothing of, is left alone."""
    monkeypatch.setattr(supervisor_module, "_SWEEP_S", 0.05)
    hands, before = site.hands, site.hands.worker()
    over, later = (hands.start(hands.sweep(), 0, before) for _ in range(2))
    hands.finish(over)
    hands.store.sessions.close(before.session_id)
    keys = [(over.run_id, 1), (later.run_id, 1), (new_uuid(), 1)]
    folders = [site.folder / "earlier name" / "runs" / run_id / str(attempt) / "work" for run_id, attempt in keys]
    for key, folder in zip(keys, folders, strict=True):
        folder.mkdir(parents=True)
        site.docker.handles[key] = StubHandle()
    site.start()
    wait_until(lambda: not folders[0].parent.parent.exists(), "the folder is gone", interval_s=0.01)
    assert site.docker.abandoned == {keys[0]}
    hands.change("UPDATE attempts SET state = 'lost', ended_at = now() WHERE run_id = %(id)s", id=later.run_id)
    wait_until(lambda: site.docker.abandoned == set(keys[:2]), "it is looked for again", interval_s=0.01)
    wait_until(lambda: not folders[1].exists(), "this folder too is gone", interval_s=0.01)
    assert folders[2].exists()


def test_supervisor_reports_the_others_while_somebody_holds_a_lock_on_one(site: Site) -> None:
    """One connection serves all reports and renewals: the one that waits for a lock gives it back soon, and asks again."""
    supervisor = site.start()
    (locked, handle), (other, other_handle) = site.begun(supervisor), site.begun(supervisor)
    with site.hands.store.database.transaction() as tx:
        tx.execute("SELECT 1 FROM runs WHERE run_id = %(id)s FOR UPDATE", {"id": locked})
        handle.end()
        site.hands.wait_for_blocked()
        other_handle.end()
        ended = "SELECT 1 FROM attempts WHERE run_id = %(id)s AND state = 'succeeded'"
        wait_until(lambda: site.hands.sql(ended, id=other), "the other's end is recorded", deadline_s=3, interval_s=0.01)
        assert site.hands.store.attempts.list(locked)[-1].state == "running"
    assert site.wait_for_end(locked).state == "succeeded"
    assert handle.stops == other_handle.stops == []


def test_supervisor_leaves_its_attempts_to_a_newer_session_of_the_same_worker(site: Site) -> None:
    """The newer one has adopted them under the same numbers: the older ends, says why, and neither stops nor removes anything (D5)."""
    supervisor = site.start()
    run_id, handle = site.begun(supervisor)
    site.hands.worker(worker_id=site.worker_id)
    site.wait_for_exit()
    assert isinstance(site.ended_with[0], Displaced)
    assert (handle.stops, handle.killed, handle.cleaned) == ([], False, False)
    assert site.run_folder(run_id).exists()
    assert [a.state for a in site.hands.store.attempts.list(run_id)] == ["running"]


def test_supervisor_keeps_what_a_newer_session_still_needs(site: Site) -> None:
    """Fenced and not yet aware of it, an end that the record refuses removes nothing: the newer session is to find how it ended."""
    supervisor = site.start(renew_s=3600.0)
    run_id, handle = site.begun(supervisor)
    site.hands.worker(worker_id=site.worker_id)
    handle.end()
    wait_until(lambda: run_id not in supervisor._works, "the attempt is over here", interval_s=0.01)
    supervisor._sweep()
    assert (run_id, 1) in site.process.swept[-1]
    assert not handle.cleaned
    assert site.run_folder(run_id).exists()


def test_supervisor_asks_again_for_a_stop_until_it_is_heard(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stop may be lost, as when a container engine is away just then."""
    monkeypatch.setattr(attempt_module, "_STOP_AGAIN_S", 0.05)
    run_id, handle = site.begun(site.start(renew_s=3600.0, watch_s=3600.0), trial_time_s=0.2)
    handle.n_deaf = 3
    ended = site.wait_for_end(run_id)
    assert (ended.state, ended.cause) == ("failed", "timed_out")
    assert handle.stops == ["timeout"] * 4


def test_supervisor_starts_again_when_the_engine_went_away_meanwhile(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """The answer was lost, not the container: asked again for the same attempt, the engine gives the same one."""
    monkeypatch.setattr(errands_module, "_LONGEST_DELAY_S", 0.01)
    site.docker.refusals = [EngineAway("It does not answer."), EngineAway("It does not answer.")]
    run_id, handle = site.begun(site.start(), resources=Resources(image="any"))
    assert site.docker.refusals == []
    handle.end()
    ended = site.wait_for_end(run_id)
    assert (ended.attempt, ended.state) == (1, "succeeded")


def test_supervisor_ends_what_a_failed_start_has_started(site: Site) -> None:
    """Nothing runs that nobody owns: what is found of it is ended before the attempt is reported."""
    site.docker.refusals = [LaunchFailed("It failed half-way.")]
    run_id = site.run(site.start(), resources=Resources(image="any"))
    ended = site.wait_for_end(run_id)
    assert (ended.state, ended.cause) == ("failed", "launch")
    site.wait_for_tidiness(run_id)
    handle = site.docker.handles[run_id, 1]
    assert (handle.killed, handle.cleaned) == (True, True)


@pytest.fixture
def deaf_server(site: Site) -> Iterator[str]:
    """A server that takes connections and never answers, as the worker's server."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        site.server = f"http://127.0.0.1:{listening.getsockname()[1]}"
        yield site.server


def preparing(site: Site, supervisor: Supervisor) -> str:
    """A run whose code is being fetched; its id."""
    run_id = site.run(supervisor, code_digest="a" * 64)
    wait_until(lambda: "a" * 64 in supervisor.surroundings.folders._fetches._under_way, "its code is fetched", interval_s=0.01)
    return run_id


def test_supervisor_cancels_an_attempt_that_is_being_prepared(site: Site, deaf_server: str) -> None:
    """It does not wait for the fetch to end, nor for the server to answer."""
    run_id = preparing(site, site.start())
    assert site.hands.store.queue.request_cancel(run_id)
    ended = site.wait_for_end(run_id)
    assert (ended.state, ended.cause) == ("stopped", "cancelled")
    assert site.process.handles == {}
    site.wait_for_tidiness(run_id)


def test_supervisor_gives_back_what_it_was_preparing_when_it_stops(site: Site, deaf_server: str) -> None:
    """Its command has not started, so there is nothing to leave running: another worker may have it at once."""
    run_id = preparing(site, site.start())
    site.stop()
    (attempt,) = site.hands.store.attempts.list(run_id)
    assert (attempt.state, attempt.cause) == ("failed", "lost")
    assert "before the command had started" in (attempt.detail or "")


def test_supervisor_leaves_nothing_behind_when_the_disk_is_full(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Preparing fails half-way: the attempt says why, and what was copied is removed."""
    supervisor = site.start()
    digest = "b" * 64
    (site.folder / "state" / "snapshots" / digest).mkdir(parents=True)

    def full(_source: Path, target: Path, **_options: object) -> None:
        target.mkdir()
        (target / "part").write_bytes(b"x" * 1000)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shutil, "copytree", full)
    run_id = site.run(supervisor, code_digest=digest)
    ended = site.wait_for_end(run_id)
    assert (ended.state, ended.cause) == ("failed", "launch")
    assert "No space left" in ended.detail
    site.wait_for_tidiness(run_id)


def test_supervisor_says_that_it_does_not_know_what_the_record_thinks_it_runs(site: Site) -> None:
    """Such an attempt would wait for ever: it is reported as lost, so that it can be tried again (I5)."""
    supervisor = site.start()
    run_id, _ = site.begun(supervisor)
    with supervisor._lock:
        supervisor._works.clear()
    ended = site.wait_for_end(run_id)
    assert (ended.state, ended.cause) == ("failed", "lost")


# -- output -----------------------------------------------------------------------------------------------


def test_supervisor_reports_a_run_that_the_script_gave_up_at_wandb_as_failed(site: Site) -> None:
    """Its process exits with 0; what the stand-in has left in its folder says otherwise."""
    run_id, handle = site.begun(site.start(), compat="wandb")
    (site.run_folder(run_id) / "1" / "work" / ".wandb-exit").write_text("3 the script called wandb.finish(exit_code=3)")
    handle.end()
    ended = site.wait_for_end(run_id)
    assert (ended.state, ended.cause, ended.exit_status) == ("failed", "exit_status", 3)
    assert ended.detail == "the script called wandb.finish(exit_code=3) (its process exited with 0)"


def test_output_names_the_metric_that_was_printed_otherwise(site: Site) -> None:
    """Nothing of it was collected, for nobody asked for it: the run's end says what was probably meant."""
    sweep = site.hands.sweep(metric_name="val_loss", launch=Launch(metric_keys=("val_loss",)))
    supervisor, run_id = site.start(), site.hands.run_id(sweep)
    site.hands.place(run_id, supervisor._info)
    wait_until(lambda: (run_id, 1) in site.process.handles, "it is started", interval_s=0.01)
    handle = site.process.handles[run_id, 1]
    wait_until(lambda: handle.waits, "it is waited for", interval_s=0.01)
    (site.run_folder(run_id) / "1" / "stdout").write_text("epoch=1 val-loss=0.3\n")
    handle.end()
    site.wait_for_end(run_id)
    run = site.hands.store.runs.get(run_id)
    assert run.cause == "no_objective"
    assert "The nearest name that it printed is 'val-loss'." in (run.detail or "")


def test_output_of_a_killed_worker_is_sent_again_without_a_trace(hands: Hands, tmp_path: Path) -> None:
    """Killed when the points were committed and before it had noted that: sent again they are exact repetitions, which no reader sees."""
    held = hands.start(hands.sweep(launch=Launch(collect=Collect(keys=("loss",)))))
    hands.store.attempts.started(held.run_id, held.attempt, held.session_id, {})
    launch, folder, killed_at = held.claimed.launch, tmp_path / "attempt", tmp_path / "killed"
    folder.mkdir()
    (folder / "stdout").write_text("loss=1\nloss=2\nlo")
    output = Output(folder, launch, 1 << 20)
    output.ship(hands.store, held.claimed, is_final=False)
    (folder / "stdout").write_text("loss=1\nloss=2\nloss=3\nloss=4\nloss=5")

    class Dying:
        """A store that keeps what lay in the folder when the points were committed."""

        logs = hands.store.logs

        class metrics:  # noqa: N801  # stands for an attribute
            @staticmethod
            def log(*arguments: Any) -> None:
                hands.store.metrics.log(*arguments)
                shutil.copytree(folder, killed_at)

    output.ship(Dying, held.claimed, is_final=True)  # type: ignore[arg-type]
    Output.resume(killed_at, launch, 1 << 20).ship(hands.store, held.claimed, is_final=True)
    history, _ = hands.store.metrics.history(held.run_id, "loss")
    assert [(point.step, point.value) for point in history] == [(n, n + 1.0) for n in range(5)]
    assert hands.store.logs.read(held.run_id).data == (folder / "stdout").read_bytes()


def test_output_of_an_ended_attempt_is_read_on_from_where_a_killed_worker_was(hands: Hands, tmp_path: Path) -> None:
    """A long one is read piece by piece, and each piece is noted, whether it held a metric or none."""
    held = hands.start(hands.sweep(launch=Launch(collect=Collect(keys=("loss",)))))
    filler = b"y\n" * (POLL_BYTES // 2)
    (tmp_path / "stdout").write_bytes(b"loss=1\n" + filler + b"loss=2\n" + filler + filler + b"loss=3")
    launch = held.claimed.launch
    for n_read in (1, 2, 3):
        output = Output.resume(tmp_path, launch, 1 << 20)
        assert not output.ship(hands.store, held.claimed, is_final=True)
        # A line that was cut is read again.
        assert n_read * POLL_BYTES - output.progress[0] in range(n_read)
    output = Output.resume(tmp_path, launch, 1 << 20)
    assert output.ship(hands.store, held.claimed, is_final=True)
    assert output.progress == ((tmp_path / "stdout").stat().st_size,) * 2
    history, _ = hands.store.metrics.history(held.run_id, "loss")
    assert [(point.step, point.value) for point in history] == [(0, 1.0), (1, 2.0), (2, 3.0)]


def test_supervisor_tells_how_far_it_has_read_a_long_output(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run whose command has ended, and which is not told as ended, waits for a reason that can be read in the record (I5)."""
    monkeypatch.setattr(attempt_module, "_TELL_READING_S", 0.0)
    run_id, handle = site.begun(site.start(), collect=Collect(keys=("loss",)))
    text = b"y\n" * POLL_BYTES + b"loss=4\n"
    (site.run_folder(run_id) / "1" / "stdout").write_bytes(text)
    handle.end()
    ended = site.wait_for_end(run_id)
    assert ended.info == {"output_read_bytes": 2 * POLL_BYTES, "output_bytes": len(text)}
    history, _ = site.hands.store.metrics.history(run_id, "loss")
    assert [point.value for point in history] == [4.0]


def test_output_that_was_cut_is_not_sent_twice_when_postgres_was_away(hands: Hands, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The end of a long output is read once, however often it must be sent."""
    held = hands.start(hands.sweep())
    (tmp_path / "stdout").write_bytes(b"x" * 300_000 + b"the end")
    output = Output(tmp_path, held.claimed.launch, 100_000)

    def away(*_arguments: object) -> None:
        raise DatabaseAway("Postgres is away.")

    with monkeypatch.context() as patch:
        patch.setattr(hands.store.logs, "append", away)
        for _ in range(3):
            with pytest.raises(DatabaseAway):
                output.ship(hands.store, held.claimed, is_final=True)
    output.ship(hands.store, held.claimed, is_final=True)
    text = hands.store.logs.read(held.run_id).data
    assert text.count(b"the end") == 1
    assert text.endswith(b"the end")
    assert len(text) < 110_000


class Picky:
    """A store that refuses points of some value, as it would a value that the database can't hold."""

    def __init__(self, store: Store, refused: float) -> None:
        self.logs = store.logs
        self.metrics = self
        self._store = store
        self._refused = refused

    def log(self, run_id: str, points: Sequence[MetricPoint], fence: Fence) -> None:
        """See `Store`."""
        if any(point.value == self._refused for point in points):
            raise InvalidValue("A value can't be stored.")
        self._store.metrics.log(run_id, points, fence)


@pytest.mark.parametrize("is_final", [False, True], ids=["while it runs", "at the end"])
def test_output_leaves_out_refused_values_only(hands: Hands, tmp_path: Path, caplog: pytest.LogCaptureFixture, is_final: bool) -> None:
    """One value that the record does not take keeps back neither the others nor the logs, and is told of once."""
    held = hands.start(hands.sweep(launch=Launch(collect=Collect(keys=("loss",)))))
    text = "".join(f"loss={n}\n" for n in range(100, 200)) + "loss=13\nloss=13\n"
    (tmp_path / "stdout").write_text(text)
    output = Output(tmp_path, held.claimed.launch, 1 << 20)
    picky = Picky(hands.store, 13)
    with caplog.at_level(logging.WARNING):
        output.ship(picky, held.claimed, is_final=is_final)  # type: ignore[arg-type]
    (tmp_path / "stdout").write_text(text + "loss=14\n")
    if not is_final:
        output.ship(picky, held.claimed, is_final=False)  # type: ignore[arg-type]
    history, _ = hands.store.metrics.history(held.run_id, "loss")
    assert [point.value for point in history] == [float(n) for n in range(100, 200)] + ([] if is_final else [14.0])
    assert hands.store.logs.read(held.run_id).data.startswith(text.encode())
    assert len(caplog.records) == 1
    assert output.note == "2 metric values in its output were refused by the record."


def test_output_of_any_step_and_key_is_stored(hands: Hands, tmp_path: Path) -> None:
    """What a script prints by mistake spoils nothing of what it prints besides, in a real record."""
    held = hands.start(hands.sweep(launch=Launch(collect=Collect(pattern=r"(?P<step>\S+) (?P<key>.+)=(?P<value>\S+)"))))
    (tmp_path / "stdout").write_bytes(b"1 loss=1\n99999999999999999999 loss=2\n3 " + b"k" * 3000 + b"=3\n4 a\0b=4\n5 loss=5\n")
    output = Output(tmp_path, held.claimed.launch, 1 << 20)
    output.ship(hands.store, held.claimed, is_final=True)
    history, _ = hands.store.metrics.history(held.run_id, "loss")
    assert [(point.step, point.value) for point in history] == [(1, 1.0), (2, 2.0), (5, 5.0)]


def test_supervisor_tells_in_the_record_that_a_pattern_was_given_up(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever misses a metric finds the reason beside the attempt's end."""
    monkeypatch.setattr("worker.collect.PATTERN_LINE_S", 0.05)
    run_id, handle = site.begun(site.start(), collect=Collect(pattern=r"(?P<key>(a|aa)+)=(?P<value>\d+)"))
    (site.run_folder(run_id) / "1" / "stdout").write_bytes(b"a=1\n" + b"a" * 60 + b"!=1\n")
    handle.end()
    ended = site.wait_for_end(run_id)
    assert ended.state == "succeeded"
    assert "was given up" in ended.detail
