"""What one attempt prints: followed, shipped to the record as logs, and read for metrics.

Nothing is dropped because Postgres is away: what was read and not committed is kept and tried again.
"""

import contextlib
import logging
import threading
import time
from pathlib import Path

import msgspec
from msgspec import Struct

from tracking.errors import InvalidValue
from tracking.records import ClaimedRun, Launch, LogChunk, MetricPoint
from tracking.store import Fence, Store
from worker.collect import CollectState, MetricTail, StdoutCollector
from worker.logs import FollowState, OutputFollower, last_error_line, read_from
from worker.runtimes.base import STDOUT

_STATE = "output.json"

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
        state = state or _State()
        self._folder = folder
        self._follower = OutputFollower(folder, max_bytes, state.follow)
        self._collector = StdoutCollector(launch.collect, launch.metric_keys, state.collect)
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
        return " ".join(filter(None, (self._collector.note, refused)))

    @classmethod
    def resume(cls, folder: Path, launch: Launch, max_bytes: int) -> "Output":
        """Go on from the state that lies in the folder, or from the beginning: the record drops repeated pieces."""
        try:
            state = msgspec.json.decode((folder / _STATE).read_bytes(), type=_State)
        except (FileNotFoundError, msgspec.DecodeError):
            state = _State()
        return cls(folder, launch, max_bytes, state)

    def ship(self, store: Store, claimed: ClaimedRun, *, is_final: bool) -> None:
        """Send what is new to the record; of an ended attempt all the rest.

        Raises:
            DatabaseAway: try again later, nothing is lost.
            NotAllowed: the attempt is no longer the run's current one.
        """
        with self._lock:
            if self._is_whole:
                return
            # While something waits to be committed nothing more is read: memory stays bounded.
            self._send(store, claimed)
            if not self._is_read:
                self._read(is_final=is_final)
                if self._collector.note:
                    self._say(claimed, self._collector.note)
                self._is_read = is_final
                self._send(store, claimed)
            self._is_whole = self._is_read

    def last_error_line(self) -> str:
        """The last line of its error output that says something."""
        return last_error_line(self._folder)

    def _send(self, store: Store, claimed: ClaimedRun) -> None:
        if not self._chunks and not self._points:
            return
        if self._chunks:
            store.logs.append(claimed.run_id, claimed.attempt, self._chunks)
            self._chunks = []
        if self._points:
            self._send_points(store, claimed)
            self._points = []
        if not self._is_read:
            self._save(_State(self._follower.state(), self._collector.state()))

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

    def _read(self, *, is_final: bool) -> None:
        now_ms = time.time_ns() // 1_000_000
        follow, collect = self._follower.state(), self._collector.state()
        if is_final:
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
        fresh = self._folder / f"{_STATE}.new"
        # A full disk costs no more than pieces sent again after a restart.
        with contextlib.suppress(OSError):
            fresh.write_bytes(msgspec.json.encode(state))
            fresh.replace(self._folder / _STATE)
