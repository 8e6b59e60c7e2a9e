"""Who a worker is: an id in a state folder that one process at a time holds (D5)."""

import fcntl
import os
import re
from pathlib import Path
from typing import IO, Final

import msgspec
from msgspec import Struct

from tracking.ids import new_uuid
from worker.errors import WorkerError

_NAME: Final = re.compile(r"[A-Za-z0-9][\w.\-]{0,63}")
_HOME_FILE: Final = "home.id"
_HOME_ID: Final = re.compile(r"[0-9a-f-]{36}")


class StateFolderTaken(WorkerError):
    """Another worker holds the state folder."""

    hint = "Stop that worker, or give this one another name: `sweep worker --name NAME`."


class _Identity(Struct, frozen=True):
    worker_id: str


class StateFolder:
    """A worker's folder, locked as long as this object is open.

    Attributes:
        path: `HOME/workers/NAME`, private.
        worker_id: a UUID that stays with the folder.
        home_id: one that stays with the home, the same for all workers of it, whatever their names.
    """

    def __init__(self, home: Path, name: str) -> None:
        """Take the folder.

        Raises:
            StateFolderTaken: another process holds it.
            WorkerError: the name can't be a folder's.
        """
        if not _NAME.fullmatch(name):
            raise WorkerError(f"{name!r} is no name for a worker: letters, digits, '.', '_' and '-', 64 at most.")
        self.path = home / "workers" / name
        self.path.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._lock: IO[str] = (self.path / "lock").open("a+", encoding="utf-8")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._lock.close()
            raise StateFolderTaken(f"Another worker already runs from {self.path}.") from None
        try:
            self.worker_id = self._read_or_make()
            self.home_id = _home_id(self.path.parent / _HOME_FILE)
        except BaseException:
            self._lock.close()
            raise

    def others(self) -> list[Path]:
        """The state folders of the home's other workers that nobody holds now."""
        return [path for path in self.path.parent.iterdir() if path.is_dir() and path != self.path and not _is_held(path)]

    def close(self) -> None:
        """Let others have it."""
        self._lock.close()

    def _read_or_make(self) -> str:
        file = self.path / "worker.json"
        try:
            return msgspec.json.decode(file.read_bytes(), type=_Identity).worker_id
        except FileNotFoundError:
            identity = _Identity(new_uuid())
            fresh = file.with_suffix(".new")
            with fresh.open("wb") as out:
                out.write(msgspec.json.encode(identity))
                out.flush()
                os.fsync(out.fileno())
            fresh.replace(file)
            return identity.worker_id
        except msgspec.DecodeError:
            raise WorkerError(f"{file} is damaged.", hint="Remove it; the worker then begins a new life under a new id.") from None


def _home_id(file: Path) -> str:
    """Whose home it is. One that was torn by a crash is made anew: no more is lost by that than what an earlier worker has left there."""
    with file.open("a+", encoding="ascii", errors="replace") as held:
        # Several workers may be started at a time.
        fcntl.flock(held, fcntl.LOCK_EX)
        held.seek(0)
        home_id = held.read()
        if not _HOME_ID.fullmatch(home_id):
            home_id = new_uuid()
            held.truncate(0)
            held.write(home_id)
            held.flush()
            os.fsync(held.fileno())
    return home_id


def _is_held(path: Path) -> bool:
    try:
        with (path / "lock").open("rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError:
        # Held; or not ours to look at.
        return True
    return False
