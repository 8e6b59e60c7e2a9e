"""Submissions whose answer never came: repeated, they name the sweep that the first try has made, if it has."""

import fcntl
import hashlib
import json
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Final

from sweeps.client import ServerError
from sweeps.wording import Tell

_KEPT_S: Final = 3600
"""Whoever submits the same again later than this wants it a second time."""
_FOLDER: Final = "submissions"
_HINT: Final = "It may have arrived all the same. Give the same command again within an hour: it is submitted once."
_INTERNAL_ERROR: Final = 500


@contextmanager
def remembered(home: Path, server: str, submission: Mapping[str, Any], tell: Tell) -> Iterator[str]:
    """The submission id to send, kept until the server has answered.

    Args:
        home: where it is kept. One that can't be written to keeps nothing, and costs nothing else.
        submission: all that makes it the same as another.
    """
    name = hashlib.sha256(json.dumps([server, submission], sort_keys=True).encode()).hexdigest()
    file = _held(home / _FOLDER / name)
    if file is None:
        yield uuid.uuid4().hex
        return
    with file:
        try:
            yield _submission_id(file, tell)
        except ServerError as error:
            if error.http_status >= _INTERNAL_ERROR:
                error.hint = _HINT
                raise
            _forget(file)
            raise
        _forget(file)


def _held(path: Path) -> IO[str] | None:
    """The file, for us alone; None if another process is just submitting the same: that is a sweep of its own."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        file = path.open("a+", encoding="ascii")
    except OSError:
        return None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        return None
    return file


def _submission_id(file: IO[str], tell: Tell) -> str:
    file.seek(0)
    earlier = file.read()
    if earlier and time.time() - Path(file.name).stat().st_mtime < _KEPT_S:
        tell("The answer to this submission was lost before: asking for it again.")
        return earlier
    fresh = uuid.uuid4().hex
    file.truncate(0)
    file.write(fresh)
    file.flush()
    return fresh


def _forget(file: IO[str]) -> None:
    # Emptied first: another process may have opened it, and gets it as soon as it is let go.
    file.truncate(0)
    Path(file.name).unlink(missing_ok=True)
