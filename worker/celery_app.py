"""The worker's window: a real Celery worker, in a thread, in which Flower and the broker see this worker.

It runs nothing by itself. Each task waits on the supervisor, through `handler`, for as long as its run lasts;
runs that began without a message publish the same task events. The window may break, be deaf, or lose its
broker for hours: it repairs itself, quietly, and the supervisor's renewal carries on meanwhile (I1).

What Celery would do and must not: install signal handlers (that is its command-line program; only the parts
below it are used here), take over logging, retry inside a call, wait at exit for tasks that wait on us, run
anything but the one task, or obey remote control.
"""

import itertools
import json
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Final, Protocol

from celery import Celery
from celery.app.events import Events
from celery.bootsteps import RUN
from celery.concurrency.base import BasePool, apply_target
from celery.events.dispatcher import EventDispatcher
from celery.exceptions import Ignore, WorkerShutdown
from celery.utils.timer2 import Schedule
from celery.worker import WorkController
from celery.worker.consumer import Consumer
from celery.worker.control import Panel

from tracking.broker import TASK_NAME, BrokerConfig, BrokerKind, Letter, Publisher, broker_config, connect_once, task_id
from tracking.ids import RUN_ID
from tracking.settings import Settings
from worker.errors import Exhausted
from worker.lack import telling_lack

log = logging.getLogger(__name__)

DRAIN_S: Final = 0.25
"""How long one wait for a message lasts; so soon a stop is noticed."""
STUCK_S: Final = 15.0
"""A consumer that has not come round for so long hangs in some call."""
PROBE_EVERY_S: Final = 30.0
"""How often a window that hears nothing sends a message to itself."""
PROBE_LOST_S: Final = 10.0
"""A probe that the broker took and that has not come back for so long means that the consumer is deaf."""
WATCH_S: Final = 1.0
HEARTBEAT_S: Final = 5.0
LINGER_S: Final = 0.1
"""How long task events wait for more of them: people look at them, nothing waits for them."""
_RESTART_PAUSES_S: Final = (0.1, 1.0, 5.0)
_CONNECT_PAUSES_S: Final = (0.05, 0.2, 0.5, 1.0, 2.0)
_REFUSED_PAUSE_S: Final = 1.0
_PROBE: Final = "sweep.probe"
_LARGEST_BODY: Final = 4096
_PLACEMENTS: Final = 1 << 31
"""What Postgres' integers hold."""

_QUESTIONS: Final = frozenset(
    (
        "active",
        "active_queues",
        "clock",
        "conf",
        "enable_events",
        "heartbeat",
        "ping",
        "query_task",
        "registered",
        "report",
        "reserved",
        "revoked",
        "scheduled",
        "stats",
    )
)
"""The remote control that stays: what Flower asks. Everything that would change a worker goes (D4)."""

Handler = Callable[[str, int], str | None]
"""Waits for one run, given its id and placement; returns its outcome in a word, for Flower, or raises
`RunFailed` or `Released`."""


class RunFailed(Exception):  # says what happened, to whoever reads Flower
    """Raised by a handler: the run failed, and this sentence says how. Flower shows the task as FAILURE."""


class Released(Exception):  # a signal, not an error
    """Raised by a handler: it waits no longer, but the run goes on. The task is neither success nor failure."""


class Window(Protocol):
    """What the supervisor sees of the broker."""

    def start(self) -> None:
        """Begin to listen; returns at once."""
        ...

    def stop(self, timeout: float = 5.0) -> None:
        """Listen no more, then wait, for at most `timeout` seconds, for handlers to return."""
        ...

    @property
    def is_healthy(self) -> bool:
        """Whether messages would be heard just now."""
        ...

    def publish_started(self, run_id: str, placement: int) -> None:
        """Show a run that began without a message."""
        ...

    def publish_ended(self, run_id: str, placement: int, state: str, text: str = "") -> None:
        """Show how such a run ended."""
        ...


class NoWindow:
    """For broker `none`: nothing is heard, nothing is shown, all is well."""

    is_healthy = True

    def start(self) -> None:
        """There is nothing to listen to."""

    def stop(self, timeout: float = 5.0) -> None:
        """There is nothing to stop."""

    def publish_started(self, run_id: str, placement: int) -> None:
        """Nobody watches."""

    def publish_ended(self, run_id: str, placement: int, state: str, text: str = "") -> None:
        """Nobody watches."""


def make_window(settings: Settings, *, celery_queue: str, node_name: str, concurrency: int, handler: Handler) -> Window:
    """The window for the broker in the settings.

    Raises:
        SettingError: the broker's URL can't be used.
    """
    if broker_config(settings.broker_url, settings.home).kind is BrokerKind.NONE:
        return NoWindow()
    return CeleryWindow(settings, celery_queue=celery_queue, node_name=node_name, concurrency=concurrency, handler=handler)


class CeleryWindow:
    """A Celery worker in a thread; see the module.

    Args:
        celery_queue: this worker's own queue; nobody else reads it.
        node_name: as Flower shows the worker, `sweep@name`.
        concurrency: how many handlers may wait at once: the worker's slots.
        handler: called in a thread of its own for each message; must tell messages that are old or repeated.
    """

    def __init__(self, settings: Settings, *, celery_queue: str, node_name: str, concurrency: int, handler: Handler) -> None:
        self._config = broker_config(settings.broker_url, settings.home)
        self._queue = celery_queue
        self._publisher = Publisher(self._config, name="window", limit=5_000, linger_s=LINGER_S)
        self._app = _make_app(self._config, self._publisher, handler)
        self._node_name = node_name
        self._threads = _Threads(concurrency, self._app)
        self._events = self._app.events.Dispatcher(self._config.connection(), hostname=node_name, enabled=self._config.has_events)
        self._stopping = threading.Event()
        self._listening: _Listening | None = None
        self._probe_sent_at: float | None = None
        self._probed_at = float("-inf")
        self._n_restarts = 0
        self._started_at: dict[str, float] = {}
        self._watch = threading.Thread(target=self._keep_listening, name="window-watch", daemon=True)

    @property
    def is_healthy(self) -> bool:
        """Whether the consumer is connected, comes round, and hears."""
        listening = self._listening
        return listening is not None and listening.is_ready and not listening.is_stuck and not self._is_deaf(listening)

    @property
    def n_restarts(self) -> int:
        """How often the consumer had to be made anew."""
        return self._n_restarts

    def start(self) -> None:
        """Begin to listen; returns at once, whether or not the broker is there."""
        self._watch.start()

    def stop(self, timeout: float = 5.0) -> None:
        """Listen no more, then wait, for at most `timeout` seconds, for handlers to return.

        Handlers must have been told to return (by raising `Released`) by whoever calls this. Those that do not are
        left behind; their threads do not keep the process alive.
        """
        deadline = time.monotonic() + timeout
        self._stopping.set()
        listening = self._listening
        if listening is not None:
            listening.end()
        if self._watch.ident is not None:
            self._watch.join(max(0.0, deadline - time.monotonic()))
        if listening is not None:
            listening.join(max(0.0, deadline - time.monotonic()))
        self._threads.close(max(0.0, deadline - time.monotonic()))
        self._publisher.close(max(0.1, min(2.0, deadline - time.monotonic())))

    def publish_started(self, run_id: str, placement: int) -> None:
        """Show a run that began without a message: received, then started."""
        uuid = task_id(run_id, placement)
        self._started_at[uuid] = time.monotonic()
        call = {"name": TASK_NAME, "args": repr((run_id, placement)), "kwargs": "{}", "root_id": uuid, "parent_id": None}
        self._events.send("task-received", uuid=uuid, retries=0, eta=None, expires=None, **call)
        self._events.send("task-started", uuid=uuid)

    def publish_ended(self, run_id: str, placement: int, state: str, text: str = "") -> None:
        """Show how a run ended that began without a message.

        State `failed` is shown as FAILURE, with `text` for its reason; every other as SUCCESS, with the state for its result.
        """
        uuid = task_id(run_id, placement)
        runtime = time.monotonic() - self._started_at.pop(uuid, time.monotonic())
        if state == "failed":
            self._events.send("task-failed", uuid=uuid, exception=text or state)
        else:
            self._events.send("task-succeeded", uuid=uuid, result=repr(state), runtime=runtime)

    def _keep_listening(self) -> None:
        """Make a consumer, watch it, make another when it has died, hangs, or hears nothing."""
        while not self._stopping.is_set():
            listening = self._listening = _Listening(self._app, self._config, self._threads, self._queue, self._node_name)
            try:
                with telling_lack():
                    listening.start()
            except Exhausted as error:
                why = f"could not be begun: {error.message.rstrip('.')}"
            else:
                why = self._watch_until_broken(listening)
                listening.end()
                listening.join(2 * DRAIN_S)  # if it hangs, its thread ends whenever it comes back, and nobody waits for that
            if not self._stopping.is_set():
                log.warning("The Celery consumer %s; making a new one.", why)
                self._stopping.wait(_RESTART_PAUSES_S[min(self._n_restarts, len(_RESTART_PAUSES_S) - 1)])
                self._n_restarts += 1

    def _watch_until_broken(self, listening: "_Listening") -> str:
        while not self._stopping.wait(WATCH_S):
            if not listening.is_alive:
                return "has ended"
            if listening.is_stuck:
                return "hangs"
            if self._is_deaf(listening):
                return "is deaf"
            self._maybe_probe(listening)
        return "was stopped"

    def _maybe_probe(self, listening: "_Listening") -> None:
        """Send a message to ourselves if nothing was heard for a while: a deaf consumer looks like an idle one."""
        now = time.monotonic()
        is_due = listening.is_ready and now - max(listening.heard_at, self._probed_at) >= PROBE_EVERY_S
        if is_due and not self._is_awaited(listening):
            self._probed_at = now
            self._probe_sent_at = None
            self._publisher.put([Letter([], queue=self._queue, headers={"task": _PROBE, "id": _PROBE}, on_sent=self._note_probe_sent)])

    def _note_probe_sent(self) -> None:
        self._probe_sent_at = time.monotonic()

    def _is_deaf(self, listening: "_Listening") -> bool:
        is_late = self._probe_sent_at is not None and self._probe_sent_at < time.monotonic() - PROBE_LOST_S
        return is_late and self._is_awaited(listening) and not self._publisher.is_away

    def _is_awaited(self, listening: "_Listening") -> bool:
        """Whether a probe is under way that this consumer, as it is connected now, should hear."""
        # Compared with the moment of handing over: it may be heard before the publisher says that it is sent.
        return max(listening.heard_at, listening.ready_at) < self._probed_at


class _Listening:
    """One life of a Celery consumer, in one thread."""

    def __init__(self, app: Celery, config: BrokerConfig, threads: "_Threads", queue: str, node_name: str) -> None:
        self.config = config
        self.heard_at = time.monotonic()
        self.ready_at = float("inf")
        self.ending = threading.Event()
        self._app = app
        self._threads = threads
        self._queue = queue
        self._node_name = node_name
        self._came_round_at = time.monotonic()
        self._is_away = False
        self._thread = threading.Thread(target=self._run, name="window-consumer", daemon=True)

    @property
    def is_alive(self) -> bool:
        return self._thread.is_alive()

    @property
    def is_ready(self) -> bool:
        """Whether it is connected and consumes."""
        return self.is_alive and self.ready_at <= time.monotonic()

    @property
    def is_stuck(self) -> bool:
        return time.monotonic() - self._came_round_at > STUCK_S

    def start(self) -> None:
        self._thread.start()

    def end(self) -> None:
        """Ask it to end; it does so within `DRAIN_S` unless it hangs."""
        self.ending.set()

    def join(self, timeout_s: float) -> None:
        if self._thread.ident is not None:
            self._thread.join(timeout_s)

    def come_round(self) -> None:
        """Called by the consumer again and again.

        Raises:
            WorkerShutdown: it is to end. Celery's own way to leave its loop, from the thread that runs it.
        """
        self._came_round_at = time.monotonic()
        if self.ending.is_set():
            raise WorkerShutdown(0)

    def note_ready(self) -> None:
        if self._is_away:
            log.info("window: the broker %s is back.", self.config.shown_url)
        self._is_away = False
        self.ready_at = time.monotonic()

    def note_away(self, error: BaseException) -> None:
        if not self._is_away and not self.ending.is_set():
            log.warning("window: the broker %s is away (%s); trying again until it is back.", self.config.shown_url, error)
        self._is_away = True
        self.ready_at = float("inf")

    def hear(self, on_task: Callable[[Any], None]) -> Callable[[Any], None]:
        """The receiver of messages: swallows our probes and what is no wake-up, hands over the rest."""

        def on_message(message: Any) -> None:
            self.heard_at = time.monotonic()
            if isinstance(message.headers, Mapping) and message.headers.get("task") == _PROBE:
                message.ack()
                return
            try:
                _purify(message)
            except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError) as error:
                log.warning("A message that is no wake-up was dropped (%s).", type(error).__name__)
                message.ack()
            else:
                on_task(message)

        return on_message

    def _run(self) -> None:
        controller = _Controller(
            app=self._app,
            hostname=self._node_name,
            queues=[self._queue],
            concurrency=self._threads.limit,
            pool=self._threads.pool_class(),
            consumer_cls=_Consumer,
            timer_cls=Schedule,  # run by our loop; Celery's own is a thread that ends the process when it fails
            use_eventloop=False,  # its acknowledgements wait for the next event on a socket
            # No limit: the scheduler sends what it has placed and no more, and a limit makes the consumer pause
            # until its next time-out whenever an acknowledgement comes after the look at it.
            prefetch_multiplier=0,
            task_events=self._config_has_events,
            without_heartbeat=not self._config_has_events,
            heartbeat_interval=HEARTBEAT_S,
            without_gossip=True,
            without_mingle=True,
        )
        controller.listening = self
        controller.start()

    @property
    def _config_has_events(self) -> bool:
        return self.config.has_events


def _purify(message: Any) -> None:
    """Leave of a message the run's id, the placement and the expiry, and write the rest anew.

    Whoever can write to the broker may write anything: callbacks that would send more tasks, headers that Celery trips over, pickles.

    Raises:
        ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError: it is no wake-up.
    """
    if message.headers["task"] != TASK_NAME or message.content_type != "application/json" or len(message.body) > _LARGEST_BODY:
        raise ValueError("not our task")
    (run_id, placement), _kwargs, _embed = json.loads(message.body)
    if not RUN_ID.match(run_id) or type(placement) is not int or not 0 <= placement < _PLACEMENTS:
        raise ValueError("not our arguments")
    expires = message.headers.get("expires")
    message.headers = {
        "lang": "py",
        "task": TASK_NAME,
        "id": task_id(run_id, placement),
        "argsrepr": repr((run_id, placement)),
        "kwargsrepr": "{}",
        "expires": None if expires is None else datetime.fromisoformat(expires).astimezone(UTC).isoformat(),
        "ignore_result": True,
    }
    message.body = json.dumps([[run_id, placement], {}, {}])
    message.content_encoding = "utf-8"
    message.properties = {"correlation_id": task_id(run_id, placement)}


class _Controller(WorkController):  # type: ignore[misc]  # Celery ships no types
    """Celery's worker without its program: no signals, no logging, no banner."""

    listening: _Listening


class _Consumer(Consumer):  # type: ignore[misc]  # Celery ships no types
    """Celery's consumer with a loop that can be stopped, and that tells of an outage once."""

    @property
    def listening(self) -> _Listening:
        listening: _Listening = self.controller.listening
        return listening

    def loop(self, _consumer: Any, connection: Any, task_consumer: Any, blueprint: Any, *_rest: Any) -> None:
        """Take messages until told to end; in place of Celery's `synloop`."""
        task_consumer.on_message = self.listening.hear(self.create_task_handler())
        task_consumer.consume()
        self.on_ready()
        self.listening.note_ready()
        while blueprint.state == RUN and self.connection:
            self.listening.come_round()
            self._run_due()
            self.perform_pending_operations()
            try:
                connection.drain_events(timeout=DRAIN_S)
            except TimeoutError:
                continue

    def ensure_connected(self, conn: Any) -> Any:
        """Try until the broker is there."""
        for n in itertools.count():
            self.listening.come_round()
            try:
                connect_once(conn)
            except self.connection_errors as error:
                self.listening.note_away(error)
                self.listening.ending.wait(_CONNECT_PAUSES_S[min(n, len(_CONNECT_PAUSES_S) - 1)])
            else:
                break
        return conn

    def connection_for_write(self, url: str | None = None, heartbeat: float | None = None) -> Any:
        """The event dispatcher's connection, which stays unopened: events leave through the publisher."""
        return self.app.connection_for_write(url, heartbeat=heartbeat)

    def on_connection_error_before_connected(self, exc: BaseException) -> None:
        """Tell once."""
        self.listening.note_away(exc)

    def on_connection_error_after_connected(self, exc: BaseException) -> None:
        """Tell once; Celery cleans up. A broker that is there and refuses (no memory, no folder) is given time: connecting to it takes none."""
        was_ready = self.listening.is_ready
        self.listening.note_away(exc)
        super().on_connection_error_after_connected(exc)
        if not was_ready or isinstance(exc, self.channel_errors):
            self.listening.ending.wait(_REFUSED_PAUSE_S)

    def _run_due(self) -> None:
        while True:
            _wait_s, entry = next(iter(self.timer))
            if entry is None:
                return
            self.timer.apply_entry(entry)


class _Reporter(EventDispatcher):  # type: ignore[misc]  # Celery ships no types
    """Task events, handed to the publisher: a handler's thread must not wait for a broker that is away."""

    def _publish(self, event: Any, producer: Any, routing_key: str, **_options: Any) -> None:  # noqa: ARG002  # Celery's signature
        publisher: Publisher = self.app.publisher
        if event.get("type") == "worker-heartbeat" and publisher.n_waiting:
            return  # an outage; nobody wants to know later that we were well then
        if str(event.get("exception", "")).startswith(RunFailed.__name__):
            event = {**event, "traceback": None}  # ours; it would say where the handler raised it
        publisher.put([Letter(event, exchange=self.exchange, routing_key=routing_key, headers=self.headers)])

    def disable(self) -> None:
        """Stay able to report: runs outlive the consumer that took their message."""

    close = disable


class _Events(Events):  # type: ignore[misc]  # Celery ships no types
    dispatcher_cls = _Reporter


class _App(Celery):  # type: ignore[misc]  # Celery ships no types
    """A Celery application for one window.

    Its connections come from our configuration: Celery would let CELERY_BROKER_URL in the environment win.
    """

    config: BrokerConfig
    publisher: Publisher

    def connection_for_read(self, url: str | None = None, **_options: Any) -> Any:  # noqa: ARG002  # Celery's signature
        return self.config.connection()

    connection_for_write = connection = connection_for_read


def _make_app(config: BrokerConfig, publisher: Publisher, handler: Handler) -> Celery:
    app = _App("sweep", set_as_current=False, backend="disabled://", events=_Events, fixups=[])
    app.config = config
    app.publisher = publisher
    app.conf.update(
        accept_content=["json"],
        task_serializer="json",
        result_serializer="json",
        event_serializer="json",
        task_ignore_result=True,
        task_track_started=True,
        task_acks_late=False,
        task_send_sent_event=False,
        worker_send_task_events=config.has_events,
        worker_enable_remote_control=config.has_events,
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
        worker_detect_quorum_queues=False,
        worker_enable_prefetch_count_reduction=False,
        # It is about tasks acknowledged late, and there are none; unset, every reconnection warns of a default.
        worker_cancel_long_running_tasks_on_connection_loss=True,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_channel_error_retry=True,
    )

    def run(run_id: str, placement: int) -> str | None:
        try:
            return handler(str(run_id), int(placement))
        except Released as reason:
            raise Ignore(str(reason)) from None

    app.task(run, name=TASK_NAME, throws=(RunFailed,), shared=False)
    app.finalize()
    for name in set(app.tasks) - {TASK_NAME}:
        app.tasks.unregister(name)
    for name in set(Panel.data) - _QUESTIONS:
        del Panel.data[name]
    _quieten()
    return app


def _quieten() -> None:
    """Celery's lines about every task and every try to connect are ours to tell, or not worth telling."""
    level = logging.getLogger(__name__.partition(".")[0]).getEffectiveLevel()
    for name in ("celery", "kombu"):
        logging.getLogger(name).setLevel(max(level, logging.WARNING))
    logging.getLogger("celery.worker.consumer.consumer").setLevel(logging.ERROR)


class _Threads:
    """The threads in which handlers wait. They outlive consumers, and do not keep the process alive.

    (The executor of the standard library, which Celery uses, makes the interpreter wait for its threads at exit.)
    """

    def __init__(self, limit: int, app: Celery) -> None:
        self.limit = limit
        self._app = app
        self._jobs: deque[Callable[[], None]] = deque()
        self._changed = threading.Condition()
        self._n_threads = 0
        self._n_idle = 0
        self._is_closed = False

    def pool_class(self) -> type[BasePool]:
        """A pool class for Celery to instantiate, whose instances all work through these threads."""
        return type("WindowPool", (_Pool,), {"threads": self})

    def submit(self, job: Callable[[], None]) -> None:
        """Run a job as soon as a thread is free."""
        with self._changed:
            if self._is_closed:
                return
            self._jobs.append(job)
            if self._n_idle >= len(self._jobs):
                self._changed.notify()
            elif self._n_threads < self.limit:
                thread = threading.Thread(target=self._work, name=f"window-{self._n_threads + 1}", daemon=True)
                try:
                    with telling_lack():
                        thread.start()
                except Exhausted as error:
                    # It waits for a thread that gets free, or for the next job to begin one. The run does not wait: a renewal finds it.
                    log.warning("window: a message waits: %s", error.message)
                else:
                    self._n_threads += 1

    def close(self, timeout_s: float) -> None:
        """Begin nothing more; wait for what runs."""
        with self._changed:
            self._is_closed = True
            self._jobs.clear()
            self._changed.notify_all()
            self._changed.wait_for(lambda: not self._n_threads, timeout_s)

    def _work(self) -> None:
        self._app.set_current()  # a thread's own matter; without it Celery would look for the task in its default app
        while (job := self._take()) is not None:
            try:
                job()
            except Exception:
                log.exception("A Celery task could not be traced.")

    def _take(self) -> Callable[[], None] | None:
        with self._changed:
            self._n_idle += 1
            self._changed.wait_for(lambda: self._jobs or self._is_closed)
            self._n_idle -= 1
            if self._jobs:
                return self._jobs.popleft()
            self._n_threads -= 1
            self._changed.notify_all()
            return None


class _Pool(BasePool):  # type: ignore[misc]  # Celery ships no types
    """What Celery's worker takes for its thread pool."""

    threads: _Threads
    signal_safe = False
    body_can_be_buffer = True

    def on_apply(self, target: Any, args: Any = None, kwargs: Any = None, callback: Any = None, accept_callback: Any = None, **_options: Any) -> None:
        """Run a task in one of the threads."""
        self.threads.submit(lambda: apply_target(target, args, kwargs, callback, accept_callback))
