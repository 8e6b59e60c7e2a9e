"""What a machine is out of for a moment: told from other errors, and never the end of anything."""

import errno
import threading

import pytest
from celery import Celery

from tests.support.services import wait_until
from tests.support.threads import NoThreads
from worker.celery_app import _Threads
from worker.errors import Exhausted
from worker.lack import telling_lack


@pytest.mark.parametrize("error", [OSError(errno.EMFILE, "x"), OSError(errno.EAGAIN, "x"), MemoryError(), RuntimeError("can't start new thread")], ids=repr)
def test_lack_is_told_as_the_machinerys(error: Exception) -> None:
    """Descriptors, processes, memory, threads."""
    with pytest.raises(Exhausted) as caught, telling_lack():
        raise error
    assert caught.value.cause.is_machinery


@pytest.mark.parametrize("error", [OSError(errno.ENOENT, "x"), RuntimeError("a bug"), RecursionError(), ValueError()], ids=repr)
def test_lack_is_told_from_other_errors(error: Exception) -> None:
    """They pass as they are."""
    with pytest.raises(type(error)) as caught, telling_lack():
        raise error
    assert caught.value is error


def test_window_handles_a_message_later_when_no_thread_could_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is raised at Celery's consumer, and the next message brings the one before with it."""
    lack = NoThreads(monkeypatch, "window-", 1)
    threads = _Threads(2, Celery(set_as_current=False))
    done: list[int] = []
    guard = threading.Lock()

    def job(number: int) -> None:
        with guard:
            done.append(number)

    threads.submit(lambda: job(1))
    assert lack.n_refused == 1
    threads.submit(lambda: job(2))
    wait_until(lambda: sorted(done) == [1, 2], "both are handled", interval_s=0.01)
    threads.close(30)
