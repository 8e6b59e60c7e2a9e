"""The broker: where wake-ups travel, how a connection to it is made, how something is published without waiting.

A message here is never more than a wake-up that carries a run's id (I1): losing, doubling or delaying one
costs time and nothing else. That is what allows the short cuts in this module: no acknowledgement kept in
Redis, no fsync, the oldest dropped when a buffer is full.

Three kinds of broker: Redis; a private folder on one machine (kombu's filesystem transport, made safe); none.
With `redis_transport` the only module that imports kombu. Tasks and workers are Celery's business: scheduler.dispatch, worker.celery_app.
"""

# kombu is typed in part: most of its functions say nothing of their arguments.
# mypy: disallow-untyped-calls=False

import contextlib
import fcntl
import itertools
import json
import logging
import os
import secrets
import select
import shutil
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from queue import Empty
from typing import Any, Final
from urllib.parse import quote, unquote, urlsplit

from kombu.connection import Connection
from kombu.entity import Exchange
from kombu.exceptions import ChannelError, KombuError
from kombu.messaging import Producer
from kombu.transport import filesystem, virtual

from tracking.errors import SettingError
from tracking.settings import Settings

log = logging.getLogger(__name__)

TASK_NAME: Final = "sweep.run"
"""The one Celery task there is. Its arguments are a run's id and the number of its placement."""

CONNECT_TIMEOUT_S: Final = 2.0
SOCKET_TIMEOUT_S: Final = 5.0

_REDIS_TRANSPORT: Final = "tracking.redis_transport:RedisTransport"
"""By name: only Redis owes the tenth of a second to import it, and Celery tells Flower of it in JSON."""

_BROKER_HINT: Final = "Set SWEEP_BROKER_URL to redis://host:port/number, filesystem://, filesystem:///a/folder, or none."


def task_id(run_id: str, placement: int) -> str:
    """The Celery task's id of one placement of a run; Flower shows it."""
    return f"{run_id}.{placement}"


class BrokerKind(StrEnum):
    """What carries the wake-ups."""

    REDIS = "redis"
    FOLDER = "folder"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class BrokerConfig:
    """One broker, ready to be connected to.

    Attributes:
        url: as kombu takes it. It may hold a password: show `shown_url` instead.
        folder: of the folder broker, else None.
    """

    kind: BrokerKind
    url: str = field(default="", repr=False)
    folder: Path | None = None

    @property
    def shown_url(self) -> str:
        """The URL as it may be logged: without its password."""
        if self.kind is not BrokerKind.REDIS:
            return str(self.folder or self.kind)
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"

    @property
    def has_events(self) -> bool:
        """Whether task events have a reader: Flower is for Redis."""
        return self.kind is BrokerKind.REDIS

    def connection(self) -> Connection:
        """A connection, not opened yet.

        Raises:
            ValueError: there is no broker.
        """
        if self.kind is BrokerKind.REDIS:
            return Connection(self.url, transport=_REDIS_TRANSPORT, connect_timeout=CONNECT_TIMEOUT_S, transport_options=_redis_options())
        if self.kind is BrokerKind.FOLDER:
            return Connection(self.url, transport=FolderTransport, transport_options={"control_folder": str(self.folder)})
        raise ValueError("broker `none` has no connection")


def connect_once(connection: Connection) -> None:
    """Open a connection, or fail at once; kombu's own `connect` tries twice with two seconds between.

    Raises:
        Exception: one of `connection.connection_errors`.
    """
    connection.ensure_connection(max_retries=1, interval_start=0, interval_step=0, reraise_as_library_errors=False)


def _redis_options() -> dict[str, Any]:
    return {
        "socket_keepalive": True,
        "socket_connect_timeout": CONNECT_TIMEOUT_S,
        # Without it, a publish on a half-open connection waits for ever.
        "socket_timeout": SOCKET_TIMEOUT_S,
        "health_check_interval": 10,
        # A queue has one reader, and the record knows what is outstanding: keeping unacknowledged messages in Redis
        # would add two round trips a message, and with its visibility time-out, repeats of messages long handled.
        "ack_emulation": False,
        # Off, because only then kombu sends a batch as one pipeline. The publisher repeats a failed batch itself.
        "retry_on_timeout": False,
    }


def broker_config(url: str, home: Path) -> BrokerConfig:
    """Parse a broker's URL.

    Args:
        url: `redis://...`, `rediss://...`, `filesystem://` (a folder under `home`), `filesystem:///a/folder`, `none`;
            empty means `filesystem://`.
        home: the local cluster's folder.

    Raises:
        SettingError: no such kind of broker, or the URL is not whole.
    """
    if url == "none":
        return BrokerConfig(BrokerKind.NONE)
    scheme, separator, rest = url.partition("://")
    if not url or (scheme == "filesystem" and separator):
        if rest and not rest.startswith("/"):
            raise SettingError(f"The broker's folder {rest!r} is not absolute.", hint="Write filesystem:///a/folder, with three slashes.")
        return BrokerConfig(BrokerKind.FOLDER, "filesystem://localhost/", Path(unquote(rest)) if rest.strip("/") else home / "broker")
    if scheme in {"redis", "rediss"} and separator:
        return BrokerConfig(BrokerKind.REDIS, _redis_url(url))
    raise SettingError(f"There is no broker of kind {scheme!r}.", hint=_BROKER_HINT)


def _redis_url(url: str) -> str:
    parts = urlsplit(url)
    try:
        is_whole = bool(parts.hostname) and parts.port != 0 and (parts.path.strip("/") or "0").isdigit()
    except ValueError:  # the port is no number, or out of range
        is_whole = False
    if not is_whole:
        raise SettingError(f"The broker's URL names no host, port or database: {parts.scheme}://...", hint=_BROKER_HINT)
    if parts.scheme == "rediss" and "ssl_cert_reqs" not in parts.query:
        # kombu takes a rediss:// URL without this to mean an unencrypted connection.
        return f"{url}{'&' if parts.query else '?'}ssl_cert_reqs=required"
    return url


# --- publishing -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class Letter:
    """Something to publish: what kombu's producer takes.

    Attributes:
        queue: name of the queue it goes to directly; ignored where `exchange` is set.
        on_sent: called, in the publisher's thread, once the broker has taken it.
    """

    body: Any
    queue: str = ""
    exchange: Exchange | None = None
    routing_key: str = ""
    headers: Mapping[str, Any] = field(default_factory=dict)
    properties: Mapping[str, Any] = field(default_factory=dict)
    on_sent: Callable[[], None] | None = None


class Publisher:
    """A thread that publishes, so that whoever has something to say never waits for the broker.

    The buffer is bounded: when it is full the oldest letter is dropped and counted. An outage is logged once, when
    it begins, and once when it ends; what is in the buffer then is sent. A letter whose sending failed half-way is
    sent again, so it may arrive twice.

    Args:
        limit: of letters in the buffer.
        linger_s: how long to wait for more letters to send with the first: fewer, larger batches, where there is no hurry.
    """

    BATCH: Final = 200
    PAUSES_S: Final = (0.05, 0.2, 0.5, 1.0, 2.0)

    def __init__(self, config: BrokerConfig, *, name: str, limit: int = 10_000, linger_s: float = 0.0) -> None:
        self._config = config
        self._name = name
        self._limit = limit
        self._linger_s = linger_s
        self._letters: deque[Letter] = deque()
        self._changed = threading.Condition()
        self._closing = threading.Event()
        self._connection: Connection | None = None
        self._producer: Producer | None = None
        self._failures = 0
        self._n_dropped = 0
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    @property
    def n_dropped(self) -> int:
        """How many letters were dropped because the buffer was full, or the publisher closed."""
        return self._n_dropped

    @property
    def n_waiting(self) -> int:
        """How many letters wait to be sent."""
        return len(self._letters)

    @property
    def is_away(self) -> bool:
        """Whether the broker could not be reached at the last try."""
        return self._failures > 0

    def put(self, letters: Sequence[Letter]) -> None:
        """Hand over letters; returns at once."""
        with self._changed:
            if self._closing.is_set():
                self._n_dropped += len(letters)
                return
            self._letters.extend(letters)
            self._trim()
            self._changed.notify()

    def close(self, timeout_s: float = 2.0) -> None:
        """Send what waits, for at most `timeout_s`, then let go of the broker."""
        with self._changed:
            self._closing.set()
            self._changed.notify()
        self._thread.join(timeout_s)

    def _trim(self) -> None:
        while len(self._letters) > self._limit:
            self._letters.popleft()
            self._n_dropped += 1

    def _work(self) -> None:
        while batch := self._take():
            try:
                self._send(batch)
            except self._broker_errors() as error:
                self._give_back(batch, error)
                if self._closing.wait(self.PAUSES_S[min(self._failures, len(self.PAUSES_S)) - 1]):
                    break
            else:
                self._note_sent(batch)
        self._disconnect()

    def _broker_errors(self) -> tuple[type[BaseException], ...]:
        connection = self._connection
        known = () if connection is None else (*connection.connection_errors, *connection.channel_errors)
        return (*known, KombuError, OSError)

    def _take(self) -> list[Letter]:
        with self._changed:
            self._changed.wait_for(lambda: self._letters or self._closing.is_set())
        if self._linger_s:
            self._closing.wait(self._linger_s)
        with self._changed:
            return [self._letters.popleft() for _ in range(min(len(self._letters), self.BATCH))]

    def _send(self, batch: Sequence[Letter]) -> None:
        producer = self._connected()
        with producer.batch():
            for letter in batch:
                producer.publish(
                    letter.body,
                    exchange="" if letter.exchange is None else letter.exchange.name,
                    routing_key=letter.queue or letter.routing_key,
                    headers=dict(letter.headers),
                    serializer="json",
                    delivery_mode=1,
                    retry=False,
                    declare=[] if letter.exchange is None else [letter.exchange],
                    **letter.properties,
                )

    def _connected(self) -> Producer:
        if self._producer is None:
            self._connection = self._config.connection()
            connect_once(self._connection)
            self._producer = Producer(self._connection.channel(), auto_declare=False)
        return self._producer

    def _disconnect(self) -> None:
        connection, self._connection, self._producer = self._connection, None, None
        if connection is not None:
            with contextlib.suppress(*connection.connection_errors, OSError):  # it may well be broken: that is why it goes
                connection.release()

    def _give_back(self, batch: Sequence[Letter], error: BaseException) -> None:
        if not self._failures:
            # kombu hides what a batch died of behind "delivery is uncertain".
            why = error.__cause__ or error
            log.warning("%s: the broker %s is away (%s); trying again until it is back.", self._name, self._config.shown_url, why)
        self._failures += 1
        self._disconnect()
        with self._changed:
            self._letters.extendleft(reversed(batch))
            self._trim()

    def _note_sent(self, batch: Sequence[Letter]) -> None:
        if self._failures:
            log.info("%s: the broker %s is back.", self._name, self._config.shown_url)
            self._failures = 0
        for letter in batch:
            if letter.on_sent is not None:
                letter.on_sent()


# --- the folder broker ------------------------------------------------------------------------------------------

RELIST_S: Final = 0.5
"""How often a queue's folder is read although nobody rang. The bell is only a bell: a process killed between the
rename and the ring leaves its message for this."""

_ABANDONED_S: Final = 120.0
"""Messages to a monitor or an asker (task events, remote control) that nobody has read for so long are for nobody."""
_STALE_S: Final = 24 * 3600.0
"""So long no wake-up is worth anything; one lies so long only where a worker is gone for good."""
_SWEEP_S: Final = 60.0
_COUNTER = itertools.count()


class FolderChannel(filesystem.Channel):
    """kombu's filesystem channel with its dangers removed.

    Each queue has a folder of its own, so reading it costs what waits there. A message is written under another
    name and renamed into place: a reader sees all of it or nothing, and a writer killed in between leaves no poison.
    Whoever removes the file owns the message. A file that can't be understood is removed and logged. Exchange
    tables change under one lock and are replaced by rename. A named pipe in the folder rings the reader's bell, so
    that waiting costs nothing and arrival is noticed at once.
    """

    def __init__(self, connection: Any, **kwargs: Any) -> None:
        super().__init__(connection, **kwargs)
        self._root = Path(self.transport_options["control_folder"])
        self._unread: dict[str, deque[str]] = {}
        self._bells: dict[str, int] = {}
        for folder in (self._root, self._root / "queues", self._root / "writing", self._root / "exchanges"):
            _make_private(folder)

    @property
    def control_folder(self) -> Path:
        """Where the exchange tables are."""
        return self._root / "exchanges"

    @property
    def bells(self) -> Sequence[int]:
        """File descriptors that become readable when a message may have come."""
        return list(self._bells.values())

    def basic_consume(self, queue: str, *args: Any, **kwargs: Any) -> None:
        """Consume from a queue, and open its bell."""
        super().basic_consume(queue, *args, **kwargs)
        if queue not in self._bells:
            self._hang_bell(queue)

    def basic_cancel(self, consumer_tag: str) -> None:
        """Stop consuming from a queue."""
        queue = self._tag_to_queue.get(consumer_tag)
        super().basic_cancel(consumer_tag)
        if queue not in self._active_queues and queue in self._bells:
            os.close(self._bells.pop(queue))

    def _hang_bell(self, queue: str) -> None:
        bell = _open_bell(self._queue_folder(queue))
        if bell is not None:
            self._bells[queue] = bell

    def _mend_bell(self, queue: str) -> None:
        """Hang another bell where the folder was deleted under us and somebody has made it again: nobody can ring the old one."""
        bell = self._bells.get(queue)
        if bell is not None and not os.fstat(bell).st_nlink:
            os.close(self._bells.pop(queue))
            self._hang_bell(queue)

    def sweep(self) -> None:
        """Remove what nobody will ever read, and forget the queues it was for."""
        now = time.time()
        for folder in (self._root / "queues").iterdir():
            queue = unquote(folder.name)
            is_passing = queue.startswith("celeryev.") or queue.endswith(".celery.pidbox")
            _remove_older(folder, now - (_ABANDONED_S if is_passing else _STALE_S), ".msg")
            if is_passing and not _is_heard(folder) and folder.stat().st_mtime < now - _ABANDONED_S:
                self._unbind_everywhere(queue)
                shutil.rmtree(folder, ignore_errors=True)
        _remove_older(self._root / "writing", now - _ABANDONED_S, "")

    def _queue_folder(self, queue: str) -> Path:
        # Quoted, so that a name can't leave the folder; the dot too, because of `.` and `..`.
        folder = self._root / "queues" / quote(queue, safe="").replace(".", "%2E")
        folder.mkdir(mode=0o700, exist_ok=True)
        return folder

    def _new_queue(self, queue: str, **_kwargs: Any) -> None:
        self._queue_folder(queue)

    def _put(self, queue: str, payload: Mapping[str, Any], **_kwargs: Any) -> None:  # type: ignore[override]  # kombu's own classes differ
        name = f"{time.time_ns():020d}-{os.getpid():07d}-{next(_COUNTER):09d}-{secrets.token_hex(4)}.msg"
        try:
            folder = self._queue_folder(queue)
            self._write(json.dumps(payload).encode(), folder / name)
        except OSError as error:
            raise ChannelError(f"Can't write a message for queue {queue!r}: {error}") from error
        _ring(folder)

    def _write(self, data: bytes, path: Path) -> None:
        """Write a file that appears whole or not at all. No fsync: after a power cut the record wakes everybody."""
        draft = self._root / "writing" / f"{path.name}.{secrets.token_hex(4)}"
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as file:
            file.write(data)
        draft.rename(path)

    def _get(self, queue: str, timeout: float | None = None) -> dict[str, Any]:  # noqa: ARG002  # kombu's signature
        folder = self._queue_folder(queue)
        unread = self._unread.setdefault(queue, deque())
        if not unread:
            self._mend_bell(queue)
            unread.extend(sorted(path.name for path in _messages(folder)))
        while unread:
            path = folder / unread.popleft()
            try:
                data = path.read_bytes()
                path.unlink()
            except FileNotFoundError:  # another reader was faster
                continue
            except OSError as error:
                self._move_aside(path, error)
                continue
            payload = self._parse(path, data)
            if payload is not None:
                return payload
        raise Empty

    def _parse(self, path: Path, data: bytes) -> dict[str, Any] | None:
        try:
            payload = json.loads(data)
            virtual.Message(payload, channel=self)  # checks what kombu would trip over later
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            log.warning("A message that can't be read was removed: %s (%d bytes, %r).", path.name, len(data), error)
            return None
        return dict(payload)

    def _move_aside(self, path: Path, error: OSError) -> None:
        log.warning("A message that can't be opened was moved aside: %s (%s).", path.name, error)
        path.rename(self._root / "writing" / f"{path.name}.{secrets.token_hex(4)}")

    def _size(self, queue: str) -> int:
        return len(_messages(self._queue_folder(queue)))

    def _purge(self, queue: str) -> int:
        paths = _messages(self._queue_folder(queue))
        for path in paths:
            path.unlink(missing_ok=True)
        return len(paths)

    def get_table(self, exchange: str) -> list[tuple[str, str, str]]:
        """Who is bound to an exchange: (routing key, pattern, queue)."""
        file = self._exchange_file(exchange)
        try:
            return [filesystem.exchange_queue_t(*row) for row in json.loads(file.read_bytes())]
        except FileNotFoundError:
            return []
        except (ValueError, TypeError) as error:
            # Whoever is bound binds again when it reconnects; a wrong table must not stop anybody.
            log.warning("The exchange table %s can't be read and counts as empty (%r).", file.name, error)
            return []

    def _queue_bind(self, exchange: str, routing_key: str | None, pattern: str | None, queue: str | None) -> None:
        row = filesystem.exchange_queue_t(routing_key or "", pattern or "", queue or "")
        with self._changing(exchange) as table:
            if row not in table:
                table.insert(0, row)

    def _delete(self, queue: str, exchange: str, routing_key: str | None, pattern: str | None, *_args: Any, **_kwargs: Any) -> None:
        self._purge(queue)
        row = filesystem.exchange_queue_t(routing_key or "", pattern or "", queue or "")
        with self._changing(exchange) as table:
            if row in table:
                table.remove(row)

    def _unbind_everywhere(self, queue: str) -> None:
        for file in self.control_folder.glob("*.exchange"):
            with self._changing(file.stem) as table:
                table[:] = [row for row in table if row[2] != queue]

    @contextlib.contextmanager
    def _changing(self, exchange: str) -> Iterator[list[tuple[str, str, str]]]:
        """An exchange's table, to be changed by nobody else meanwhile; replaced when it did change."""
        with os.fdopen(os.open(self._root / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)) as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # closing the file lets go, and so does dying
            table = self.get_table(exchange)
            before = list(table)
            yield table
            if table != before:
                self._write(json.dumps(table).encode(), self._exchange_file(exchange))


class FolderTransport(filesystem.Transport):
    """The transport over `FolderChannel`: it sleeps until a bell rings."""

    Channel = FolderChannel
    # A folder that was deleted or unmounted is a broker that is away.
    connection_errors = (OSError,)

    def __init__(self, client: Any, **kwargs: Any) -> None:
        super().__init__(client, **kwargs)
        # kombu shares one state between all connections of a process, whatever folder they are for, and skips a
        # binding that it has made before although its file may be gone.
        self.state = virtual.BrokerState()
        self._swept_at = float("-inf")

    def drain_events(self, connection: Any, timeout: float | None = None, **_kwargs: Any) -> None:  # noqa: ARG002  # kombu's signature
        """Deliver one message, waiting for it at most `timeout` seconds.

        Raises:
            TimeoutError: none came.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        self._maybe_sweep()
        while True:
            try:
                self.cycle.get(self._deliver, timeout=timeout)  # type: ignore[union-attr]  # set by kombu's constructor
            except Empty:
                left = RELIST_S if deadline is None else deadline - time.monotonic()
                if left <= 0:
                    raise TimeoutError from None
                self._listen(min(left, RELIST_S))
            else:
                return

    def _maybe_sweep(self) -> None:
        if self.channels and time.monotonic() - self._swept_at >= _SWEEP_S:
            self._swept_at = time.monotonic()
            self.channels[0].sweep()

    def _listen(self, timeout_s: float) -> None:
        bells = [bell for channel in self.channels for bell in channel.bells]
        if not bells:  # a file system without named pipes
            time.sleep(min(timeout_s, 0.05))
            return
        poll = select.poll()
        for bell in bells:
            poll.register(bell, select.POLLIN)
        for bell, _event in poll.poll(timeout_s * 1000):
            with contextlib.suppress(BlockingIOError):  # a second reader of the queue has heard it first
                os.read(bell, 4096)


def _make_private(folder: Path) -> None:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if folder.stat().st_mode & 0o077:
        folder.chmod(0o700)


def _messages(folder: Path) -> list[Path]:
    return [folder / name for name in os.listdir(folder) if name.endswith(".msg")]  # noqa: PTH208  # a busy queue has thousands


def _open_bell(folder: Path) -> int | None:
    bell = folder / "bell"
    try:
        with contextlib.suppress(FileExistsError):
            os.mkfifo(bell, 0o600)
        # Read and write: with a reader's end alone it would count as hung up whenever nobody is ringing.
        return os.open(bell, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        log.info("No bell for %s (%s): its folder is polled.", folder.name, error)
        return None


def _ring(folder: Path) -> None:
    # Errors mean: no bell yet, nobody listens, or it is ringing already. All are fine.
    with contextlib.suppress(OSError), os.fdopen(_open_to_ring(folder / "bell"), "wb", buffering=0) as bell:
        bell.write(b"\0")


def _is_heard(folder: Path) -> bool:
    """Whether a living process holds the queue's bell open."""
    try:
        os.close(_open_to_ring(folder / "bell"))
    except OSError:
        return False
    return True


def _open_to_ring(bell: Path) -> int:
    return os.open(bell, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # fails at once where nobody listens


def _remove_older(folder: Path, before: float, suffix: str) -> None:
    for path in folder.glob(f"*{suffix}"):
        with contextlib.suppress(OSError):  # read by its owner meanwhile, or moved-aside rubbish that resists
            if path.lstat().st_mtime < before:
                path.unlink()


# --- Flower -----------------------------------------------------------------------------------------------------

FLOWER_OPTIONS: Final[Mapping[str, str]] = {
    "read_only": "True",  # a window: nothing is driven through it
    "natural_time": "True",
    "max_tasks": "20000",
    "purge_offline_workers": "86400",
    "persistent": "False",  # the record is Postgres
    "inspect_timeout": "3000",
    "task_runtime_metric_buckets": "1,5,15,60,300,900,3600,14400,43200,86400",
    "tasks_columns": "uuid,state,received,started,runtime,worker",
}
"""What Flower is told, whoever starts it; `deploy/flower/flowerconfig.py` says the same."""


def flower_argv(settings: Settings, *, address: str = "127.0.0.1", port: int = 5555) -> list[str]:
    """The command that starts Flower; run it with `flower_environ`.

    The broker's URL is not in it: it may hold a password, and anybody may read a process's arguments.

    Raises:
        SettingError: the broker is not Redis.
    """
    _redis_only(settings)
    options = [f"--{name}={value}" for name, value in FLOWER_OPTIONS.items()]
    return [sys.executable, "-m", "celery", "--quiet", "flower", f"--address={address}", f"--port={port}", *options]


def flower_environ(settings: Settings) -> dict[str, str]:
    """What to add to Flower's environment: the broker's URL.

    Raises:
        SettingError: the broker is not Redis.
    """
    return {"CELERY_BROKER_URL": _redis_only(settings).url}


def _redis_only(settings: Settings) -> BrokerConfig:
    config = broker_config(settings.broker_url, settings.home)
    if config.kind is not BrokerKind.REDIS:
        raise SettingError("Flower watches Redis, and the broker is not Redis.", hint="Set SWEEP_BROKER_URL to a redis:// URL.")
    return config
