"""A machine that has no thread to give, for a while."""

import threading

import pytest


class NoThreads:
    """Refuses to start threads whose names begin with a word, as the standard library does where a limit is reached.

    Attributes:
        n_left: how many starts it still refuses.
        n_refused: how many it has.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, name: str, n_times: int, said: str = "can't start new thread") -> None:
        self.n_left = n_times
        self.n_refused = 0
        start = threading.Thread.start
        self._guard = threading.Lock()
        site = self

        def refuse(thread: threading.Thread) -> None:
            with site._guard:
                is_refused = thread.name.startswith(name) and site.n_left > 0
                site.n_left -= is_refused
                site.n_refused += is_refused
            if is_refused:
                raise RuntimeError(said)
            start(thread)

        monkeypatch.setattr(threading.Thread, "start", refuse)

    def end(self) -> None:
        """From now on there are threads."""
        with self._guard:
            self.n_left = 0
