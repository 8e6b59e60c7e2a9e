"""Long preparations: done once for all the attempts that wait for them, tried again while somebody is away, and called off in time.

To fetch a snapshot, to build an environment or to pull an image may take minutes, and blocks in calls that nothing interrupts. So each
is done in a thread of its own, and attempts wait beside it: one that is cancelled leaves at once, whatever the thread does.
"""

import itertools
import logging
import threading
import time
from collections.abc import Callable
from typing import Final, Generic, TypeVar

from worker.errors import Exhausted, WorkerError
from worker.lack import telling_lack

T = TypeVar("T")

AWAY_S: Final = 300.0
"""For how long somebody may be away before an attempt fails for it: the time that a restart takes, with room to spare."""
LOOK_S: Final = 0.1
"""How soon a call that can't be interrupted is seen to be wanted no longer."""
_FIRST_DELAY_S: Final = 0.5
_LONGEST_DELAY_S: Final = 15.0

_log = logging.getLogger(__name__)


class CalledOff(Exception):  # a signal, not an error
    """What is being prepared is not wanted any more: a stop was asked for, or the worker goes away."""


def keep_trying(act: Callable[[], T], called_off: threading.Event, *, away: type[WorkerError] | tuple[type[WorkerError], ...], for_s: float | None = None) -> T:
    """Do it, again and again while it raises `away`.

    Raises:
        CalledOff: it was, before it succeeded.
        WorkerError: `away`, for longer than `for_s` (`AWAY_S` unless told otherwise); or another, at once.
    """
    deadline = time.monotonic() + (AWAY_S if for_s is None else for_s)
    for n_tries in itertools.count():
        if called_off.is_set():
            raise CalledOff
        try:
            return act()
        except away as error:
            # Bounded before it is computed: after a day of tries the power would be no number of seconds any more.
            delay_s = min(_FIRST_DELAY_S * 2 ** min(n_tries, 10), _LONGEST_DELAY_S)
            if time.monotonic() + delay_s > deadline:
                raise
            if n_tries == 0:
                _log.warning("%s Trying again.", error.message)
            called_off.wait(delay_s)
    raise AssertionError("counting has no end")


class _Errand(Generic[T]):
    def __init__(self) -> None:
        self.abandoned = threading.Event()
        self.done = threading.Event()
        self.n_waiting = 0
        self.result: T
        self.error: BaseException | None = None

    def run(self, act: Callable[[threading.Event], T]) -> None:
        try:
            self.result = act(self.abandoned)
        except BaseException as error:  # noqa: BLE001 -- handed to whoever waits
            self.error = error


class Errands(Generic[T]):
    """Preparations under way, each under a key: who asks for one that is under way waits for its end with the others."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._under_way: dict[str, _Errand[T]] = {}

    def run(self, key: str, act: Callable[[threading.Event], T], called_off: threading.Event | None = None) -> T:
        """Have it done, or wait for whoever is at it.

        Args:
            act: does it, in a thread of its own. Its argument is set once nobody waits any more; it then raises `CalledOff` soon, or
                goes on to the end for those who come later.
            called_off: ends this caller's waiting.

        Raises:
            CalledOff: `called_off` was set first.
            Exhausted: this machine has given no thread for minutes.
        """
        called_off = called_off or threading.Event()
        while True:
            errand = keep_trying(lambda: self._join(key, act), called_off, away=Exhausted)
            try:
                while not errand.done.wait(LOOK_S):
                    if called_off.is_set():
                        raise CalledOff
            finally:
                self._leave(errand)
            if errand.error is None:
                return errand.result
            # One that those before us had abandoned says nothing to us.
            if not isinstance(errand.error, CalledOff):
                raise errand.error
            if called_off.is_set():
                raise CalledOff

    def _join(self, key: str, act: Callable[[threading.Event], T]) -> _Errand[T]:
        with self._lock:
            errand = self._under_way.get(key)
            if errand is None:
                errand = _Errand()
                with telling_lack():
                    threading.Thread(target=self._run, args=(key, errand, act), name=f"errand {key[:16]}", daemon=True).start()
                # Once it is under way, never before: nobody is to wait for an errand that nobody runs.
                self._under_way[key] = errand
            errand.n_waiting += 1
            return errand

    def _leave(self, errand: _Errand[T]) -> None:
        with self._lock:
            errand.n_waiting -= 1
            if errand.n_waiting == 0:
                errand.abandoned.set()

    def _run(self, key: str, errand: _Errand[T], act: Callable[[threading.Event], T]) -> None:
        errand.run(act)
        with self._lock:
            del self._under_way[key]
        errand.done.set()
