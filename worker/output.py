"""What one attempt prints: followed, shipped to the record as logs, and read for metrics.

Nothing is dropped because Postgres is away: what was read and not committed is kept and tried again.
"""

import contextlib
import threading
import time
from pathlib import Path

import msgspec
from msgspec import Struct

from tracking.records import ClaimedRun, Launch, LogChunk, MetricPoint
from tracking.store import Fence, Store
from worker.collect import CollectState, MetricTail, StdoutCollector
from worker.logs import FollowState, OutputFollower, last_error_line
from worker.runtimes.base import STDOUT

_STATE = "output.json"


class _State(Struct, frozen=True):
    follow: FollowState = FollowState()
    collect: CollectState = CollectState()


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
        self._tail = MetricTail(folder / STDOUT, self._collector)
        self._chunks: list[LogChunk] = []
        self._points: list[MetricPoint] = []
        self._lock = threading.Lock()
        self._is_whole = False

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
            self._read(is_final=is_final)
            sent = bool(self._chunks or self._points)
            if self._chunks:
                store.logs.append(claimed.run_id, claimed.attempt, self._chunks)
                self._chunks = []
            if self._points:
                store.metrics.log(claimed.run_id, self._points, Fence(claimed.run_id, claimed.attempt))
                self._points = []
            self._is_whole = is_final
            if sent and not is_final:
                self._save()

    def last_error_line(self) -> str:
        """The last line of its error output that says something."""
        return last_error_line(self._folder)

    def _read(self, *, is_final: bool) -> None:
        now_ms = time.time_ns() // 1_000_000
        if is_final:
            self._chunks += self._follower.finish()
            self._points += self._tail.finish(now_ms)
        elif not self._chunks and not self._points:
            # While something waits to be committed nothing more is read: memory stays bounded.
            self._chunks += self._follower.poll()
            self._points += self._tail.poll(now_ms)

    def _save(self) -> None:
        fresh = self._folder / f"{_STATE}.new"
        # A full disk costs no more than pieces sent again after a restart, which the record drops.
        with contextlib.suppress(OSError):
            fresh.write_bytes(msgspec.json.encode(_State(self._follower.state(), self._collector.state())))
            fresh.replace(self._folder / _STATE)
