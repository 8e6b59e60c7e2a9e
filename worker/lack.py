"""What a machine may be out of for a moment: threads, descriptors, memory. Nobody's fault, and it passes; whoever meets it tries again."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from worker.errors import Exhausted

_ERRNOS: Final = frozenset({errno.EAGAIN, errno.EMFILE, errno.ENFILE, errno.ENOMEM})
_NO_THREAD: Final = "start new thread"
"""Part of what the standard library says, in an error that has no class of its own."""


@contextmanager
def telling_lack() -> Iterator[None]:
    """Tell such a lack from other errors.

    Raises:
        Exhausted: the machine had no thread, descriptor or memory to give.
    """
    try:
        yield
    except (MemoryError, OSError, RuntimeError) as error:
        if not _is_lack(error):
            raise
        raise Exhausted(f"This machine is out of something just now: {str(error) or 'no memory'}.") from error


def _is_lack(error: BaseException) -> bool:
    if isinstance(error, OSError):
        return error.errno in _ERRNOS
    return isinstance(error, MemoryError) or _NO_THREAD in str(error)
