"""A disk that files are received on: it may be full, and a server that is killed leaves halves of them behind."""

import errno
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from tracking.errors import NoRoom

# Since its last piece came; clients give up within minutes.
_ARRIVES_WITHIN_S: Final = 6 * 3600


@contextmanager
def needing_room() -> Iterator[None]:
    """Tell a full disk from other faults.

    Raises:
        NoRoom: the disk is full, or its owner's quota.
    """
    try:
        yield
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            raise NoRoom("There is no room left where artifacts and snapshots are kept.") from error
        raise


def remove_halves(files: Iterable[Path]) -> None:
    """Remove those that nobody has written to for hours."""
    for file in files:
        # Another server may share the folder, and tidy it at the same time.
        with suppress(FileNotFoundError):
            if time.time() - file.stat().st_mtime > _ARRIVES_WITHIN_S:
                file.unlink()
