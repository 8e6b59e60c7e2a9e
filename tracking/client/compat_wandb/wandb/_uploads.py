"""Files on their way to the run's artifacts, sent by a thread: training does not wait for its pictures."""

import collections
import os
import threading
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Optional

    from tracking.client import sweep_client
else:
    import sweep_client

_THREAD_AGAIN_S = 0.25


class Uploads:
    """Sends files in order and removes them. A forked child has an empty one."""

    _thread: "Optional[threading.Thread]"

    def __init__(self) -> None:
        self._begin()

    def add(self, path: str, artifact_path: str) -> None:
        """Send a file some time soon."""
        if self._pid != os.getpid():
            self._begin()
        with self._changed:
            self._waiting.append((path, artifact_path))
            self._wake()

    def drain(self, timeout: float) -> int:
        """Wait until all is sent; how many files are not after `timeout` seconds."""
        if self._pid != os.getpid():
            return 0
        deadline = time.monotonic() + timeout
        with self._changed:
            while self._waiting or self._is_sending:
                left_s = deadline - time.monotonic()
                if left_s <= 0 or (self._thread is None and not self._wake()):
                    break
                self._changed.wait(left_s if self._thread is not None else min(left_s, _THREAD_AGAIN_S))
            return len(self._waiting) + self._is_sending

    def _wake(self) -> bool:
        """Wake the thread, or start it; False if there will never be one. The lock is held."""
        if self._thread is None:
            thread = threading.Thread(target=self._send_all, name="wandb-uploads", daemon=True)
            try:
                thread.start()
            except RuntimeError as error:  # the interpreter goes down; or it is out of threads, which passes: the next file tries again
                return "shutdown" not in str(error)
            self._thread = thread
        self._changed.notify_all()
        return True

    def _begin(self) -> None:
        self._pid = os.getpid()
        self._changed = threading.Condition()
        self._waiting: "collections.deque[tuple[str, str]]" = collections.deque()
        self._is_sending = False
        self._thread = None

    def _send_all(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting)
                path, artifact_path = self._waiting.popleft()
                self._is_sending = True
            try:
                # It tells on standard error what it could not store.
                sweep_client.log_artifact(path, artifact_path)
                if os.path.exists(path):  # a script may clear its folders
                    os.remove(path)
            finally:
                with self._changed:
                    self._is_sending = False
                    self._changed.notify_all()
