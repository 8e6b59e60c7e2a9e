"""What one attempt prints: followed, shipped to the record as logs, and read for metrics.

Nothing is dropped because Postgres is away: what was read and not committed is kept and tried again.
"""

import contextlib
import logging
import os
import threading
import time
from pathlib import Path

import msgspec
from msgspec import Struct

from tracking.errors import InvalidValue
from tracking.records import ClaimedRun, Launch, LogChunk, MetricPoint
from tracking.store import Fence, Store
from worker.collect import POLL_BYTES, CollectState, MetricTail, StdoutCollector, printed_names
from worker.folders import file_size, read_file
from worker.logs import FollowState, OutputFollower, last_error_line, read_from
from worker.runtimes.base import STDOUT

_STATE = "output.json"
_LAST_BYTES = 64 * 1024
"""How much of an output is looked at for a metric that was printed under another name."""

_log = logging.getLogger(__name__)


class _State(Struct, frozen=True):
    """Where an earlier life of the worker left off.

    Attributes:
        until: what lies between `collect` and this byte of the stream was perhaps sent already, as of `time_ms`. Sent again with
            the same time it is an exact repetition, which no reader sees (D6).
    """

    follow: FollowState = FollowState()
    collect: CollectState = CollectState()
    until: int = 0
    time_ms: int = 0


class Output:
    """The output of one attempt, followed from where an earlier life of the worker left off."""

    def __init__(self, folder: Path, launch: Launch, max_bytes: int, state: _State | None = None) -> None:
        """Begin to follow.

        Raises:
            BadPattern: `collect` holds a pattern that can't be used.
        """
        self._state = state = state or _State()
        self._folder = folder
        self._follower = OutputFollower(folder, max_bytes, state.follow)
        self._collector = StdoutCollector(launch.collect, launch.metric_keys, state.collect)
        self._wanted = frozenset(launch.metric_keys) if launch.collect.stdout else frozenset()
        self._chunks: list[LogChunk] = []
        self._points: list[MetricPoint] = self._read_again(state)
        self._tail = MetricTail(folder / STDOUT, self._collector)
        self._lock = threading.Lock()
        self._is_read = False
        self._is_whole = False
        self._n_refused = 0
        self._has_said = False

    @property
    def note(self) -> str:
        """What a person should know of metrics that were left out; empty if none were."""
        refused = f"{self._n_refused} metric values in its output were refused by the record." if self._n_refused else ""
        path = self._folder / STDOUT
        replaced = "" if path.is_file() or not os.path.lexists(path) else "It had put something else in the place of the file that keeps its output."
        return " ".join(filter(None, (self._collector.note, refused, replaced)))

    @classmethod
    def resume(cls, folder: Path, launch: Launch, max_bytes: int) -> "Output":
        """Go on from the state that lies in the folder, or from the beginning: the record drops repeated pieces."""
        try:
            state = msgspec.json.decode(read_file(folder / _STATE) or b"{}", type=_State)
        except msgspec.DecodeError:
            state = _State()
        return cls(folder, launch, max_bytes, state)

    @property
    def progress(self) -> tuple[int, int]:
        """How many bytes of its standard output have been read for metrics, and how many there are."""
        return self._tail.n_read_bytes, self._tail.n_read_bytes + self._tail.n_left_bytes

    def ship(self, store: Store, claimed: ClaimedRun, *, is_final: bool) -> bool:
        """Send what is new to the record, of at most 4 MiB at a time; whether that was all that an ended attempt has printed.

        Raises:
            DatabaseAway: try again later, nothing is lost.
            NotAllowed: the attempt is no longer the run's current one.
        """
        with self._lock:
            if self._is_whole:
                return True
            # While something waits to be committed nothing more is read: memory stays bounded.
            self._send(store, claimed)
            if not self._is_read:
                is_last = is_final and self._tail.n_left_bytes <= POLL_BYTES
                self._read(is_last=is_last)
                if self._collector.note:
                    self._say(claimed, self._collector.note)
                self._is_read = is_last
                self._send(store, claimed)
            self._is_whole = self._is_read
            return self._is_whole

    def last_error_line(self) -> str:
        """The last line of its error output that says something."""
        return last_error_line(self._folder)

    def unasked(self) -> tuple[str, ...]:
        """Names under which its last lines have numbers, should a metric that is wanted not have been read from it."""
        if self._wanted <= self._collector.state().next_steps.keys():
            return ()
        path = self._folder / STDOUT
        return printed_names(read_from(path, max(0, file_size(path) - _LAST_BYTES), _LAST_BYTES))

    def _send(self, store: Store, claimed: ClaimedRun) -> None:
        if self._chunks:
            store.logs.append(claimed.run_id, claimed.attempt, self._chunks)
            self._chunks = []
        if self._points:
            self._send_points(store, claimed)
            self._points = []
        if not self._is_read and (state := _State(self._follower.state(), self._collector.state())) != self._state:
            self._save(state)

    def _send_points(self, store: Store, claimed: ClaimedRun) -> None:
        """Send all points that the record takes; one that it does not take must not keep back the others, nor the logs."""
        fence = Fence(claimed.run_id, claimed.attempt)
        parts = [self._points]
        while parts:
            part = parts.pop()
            try:
                store.metrics.log(claimed.run_id, part, fence)
            except InvalidValue as error:
                if len(part) == 1:
                    self._n_refused += 1
                else:
                    middle = len(part) // 2
                    parts += [part[middle:], part[:middle]]
                self._say(claimed, str(error))

    def _say(self, claimed: ClaimedRun, problem: str) -> None:
        """Once: the next thousand are no news."""
        if not self._has_said:
            self._has_said = True
            _log.warning("Run %s: metric values in its output are left out: %s", claimed.run_id, problem)

    def _read(self, *, is_last: bool) -> None:
        now_ms = time.time_ns() // 1_000_000
        follow, collect = self._follower.state(), self._collector.state()
        if is_last:
            self._chunks, self._points = self._follower.finish(), self._tail.finish(now_ms)
        else:
            self._chunks, self._points = self._follower.poll(), self._tail.poll(now_ms)
        if self._points:
            self._save(_State(follow, collect, self._collector.offset, now_ms))

    def _read_again(self, state: _State) -> list[MetricPoint]:
        """The points that were being sent when the worker died."""
        wanted = state.until - state.collect.offset
        if wanted <= 0:
            return []
        data = read_from(self._folder / STDOUT, state.collect.offset, wanted)
        # The last line of an ended attempt may lack its end, which was counted all the same.
        return self._collector.feed(data if len(data) == wanted else data + b"\n", state.time_ms)

    def _save(self, state: _State) -> None:
        self._state = state
        fresh = self._folder / f"{_STATE}.new"
        # A full disk costs no more than pieces sent again after a restart.
        with contextlib.suppress(OSError):
            fresh.write_bytes(msgspec.json.encode(state))
            fresh.replace(self._folder / _STATE)
