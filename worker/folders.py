"""Where attempts work: a folder each, with its own copy of the code (D10).

    home/runs/<run_id>/<attempt>/   work/, stdout, stderr, and what the runtime notes down
    home/snapshots/<digest>/        each snapshot, unpacked once

A trial may write into its working folder as it likes: it never shares a file with the unpacked snapshot.
"""

import errno
import fcntl
import hashlib
import logging
import os
import shutil
import stat
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from tracking.errors import SweepError
from tracking.snapshots import unpack
from worker.errands import LOOK_S, CalledOff, Errands
from worker.errors import CodeBroken
from worker.runtimes.base import WORK, AttemptKey

SNAPSHOTS_KEPT: Final = 20
SNAPSHOTS_KEPT_BYTES: Final = 5 * 1024**3
"""Of the unpacked snapshots, the most recently used stay, so many and so much at most."""
_ROOM_BYTES: Final = 1 << 16

_NOT_THERE: Final = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENXIO, errno.EISDIR, errno.ENAMETOOLONG})
"""What the system answers where a file of ours is not: it was never there, or a trial has put something else in its place or on the way."""

_log = logging.getLogger(__name__)

Fetch = Callable[[str, Path, threading.Event], None]
"""Brings the archive of a digest to a path; raises `CalledOff` soon after the event was set."""


class AttemptFolders:
    """The folders of one worker's attempts.

    Args:
        home: the worker's own state folder.
        fetch: called with a digest, the path that its archive is to be written to, and an event that calls it off.
    """

    def __init__(self, home: Path, fetch: Fetch) -> None:
        self.runs = home / "runs"
        self._snapshots = home / "snapshots"
        self._fetch = fetch
        self._fetches: Errands[None] = Errands()
        self._lock = threading.Lock()
        self._evicting = threading.Lock()
        self._in_use: Counter[str] = Counter()
        for folder in (self.runs, self._snapshots):
            folder.mkdir(parents=True, exist_ok=True)
        # What an earlier life of the worker was unpacking, or removing, when it was killed.
        for left in self._snapshots.glob(".*"):
            shutil.rmtree(left, ignore_errors=True)

    def path(self, run_id: str, attempt: int) -> Path:
        """The folder of an attempt, whether it exists or not."""
        return self.runs / run_id / str(attempt)

    def prepare(
        self, run_id: str, attempt: int, *, digest: str | None = None, subfolder: str = ".", called_off: threading.Event | None = None
    ) -> tuple[Path, Path]:
        """Make an attempt's folder with its own copy of the code.

        Returns:
            The attempt's folder, and the folder within it where its command is to start.

        Raises:
            CodeBroken: the snapshot is not what its digest says, or has no such subfolder.
            CalledOff: `called_off` was set first.
        """
        called_off = called_off or threading.Event()
        folder = self.path(run_id, attempt)
        work = folder / WORK
        _make(folder)
        if digest is None:
            work.mkdir(exist_ok=True)
        elif not work.exists():
            with self._unpacked(digest, called_off) as snapshot:
                _copy(snapshot, work, called_off)
        start = work / subfolder
        if not start.is_dir() or not start.resolve().is_relative_to(work.resolve()):
            raise CodeBroken(f"The snapshot {(digest or 'none')[:12]} has no folder {subfolder!r}.")
        return folder, start

    def attempts(self) -> Iterator[tuple[AttemptKey, Path]]:
        """Every attempt that has a folder here."""
        return attempt_folders(self.runs)

    def remove(self, run_id: str, attempt: int) -> None:
        """Remove an attempt's folder, if it exists, and its run's once that is empty."""
        remove_attempt(self.path(run_id, attempt))

    @contextmanager
    def _unpacked(self, digest: str, called_off: threading.Event) -> Iterator[Path]:
        """The unpacked snapshot, which stays for as long as it is used."""
        target = self._snapshots / digest
        with self._lock:
            self._in_use[digest] += 1
        try:
            if not target.exists():
                self._fetches.run(digest, lambda abandoned: self._unpack(digest, target, abandoned), called_off)
            os.utime(target)
            yield target
        finally:
            with self._lock:
                self._in_use[digest] -= 1

    def _evict(self) -> None:
        """Remove the snapshots that were not used for longest, until the rest is few and small enough."""
        snapshots = [path for path in self._snapshots.glob("[!.]*") if path.is_dir()]
        snapshots.sort(key=lambda path: path.stat().st_mtime, reverse=True)
        kept_bytes = n_kept = 0
        for path in snapshots:
            size_bytes = _size(path)
            if n_kept < SNAPSHOTS_KEPT and kept_bytes + size_bytes <= SNAPSHOTS_KEPT_BYTES:
                n_kept += 1
                kept_bytes += size_bytes
            else:
                self._forget(path)

    def _forget(self, snapshot: Path) -> None:
        with self._lock:
            if self._in_use[snapshot.name]:
                return
            # Under another name first: half a snapshot must not be taken for a whole one.
            old = snapshot.rename(snapshot.with_name(f".{snapshot.name}.old"))
        shutil.rmtree(old)

    def _unpack(self, digest: str, target: Path, abandoned: threading.Event) -> None:
        if target.exists():
            # Another attempt was first.
            return
        archive = self._snapshots / f"{digest}.tar.gz"
        try:
            self._fetch(digest, archive, abandoned)
            with archive.open("rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
            if found != digest:
                raise CodeBroken(f"The snapshot that was fetched as {digest[:12]} is another one, {found[:12]}.")
            _unpack_or_say_why(archive, target)
        finally:
            archive.unlink(missing_ok=True)
        with self._evicting:
            self._evict()


@contextmanager
def locked(path: Path, called_off: threading.Event) -> Iterator[None]:
    """Hold a lock file, against other threads and processes; it goes with its holder.

    Raises:
        CalledOff: `called_off` was set first.
    """
    with path.open("ab") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if called_off.wait(LOOK_S):
                    raise CalledOff from None
            else:
                break
        yield


def attempt_folders(runs: Path) -> Iterator[tuple[AttemptKey, Path]]:
    """Every attempt that has a folder in `runs`. Folders come and go meanwhile: `Path.glob` would stumble over one that does.

    One that can't be looked into does not hide the others.
    """
    for run in _entries(runs):
        try:
            found = list(attempts_of(run))
        except OSError as error:
            _log.warning("The attempts of run %s can't be looked for: %s", run.name, error)
            continue
        yield from found


def attempts_of(run: Path) -> Iterator[tuple[AttemptKey, Path]]:
    """Every attempt that has a folder in that of its run."""
    for folder in _entries(run):
        if folder.name.isdigit():
            yield (run.name, int(folder.name)), folder


def other_runs(runs: Path) -> list[Path]:
    """The folders like `runs` of a home's other workers, `HOME/workers/NAME/runs`."""
    return [other for other in runs.parent.parent.glob(f"*/{runs.name}") if other != runs]


def remove_attempt(folder: Path) -> None:
    """Remove the folder of an attempt, if it exists, and its run's once that is empty."""
    try:
        _remove(folder)
    except FileNotFoundError:
        # Removed already; nothing else takes files from here.
        if folder.exists():
            raise
    except PermissionError:
        take_back(folder)
        _unlock(folder)
        _remove(folder)
    # Not while another attempt of the run has its folder there.
    with suppress(OSError):
        folder.parent.rmdir()


def take_back(folder: Path) -> None:
    """Give the worker back the rights on an attempt's folder, on those around it and on the files there, which a trial may have taken."""
    for path in (folder.parent.parent, folder.parent, folder, folder / WORK):
        # Somebody else's, or no folder: what can't be helped shows when it is used.
        with suppress(OSError):
            path.chmod(path.stat().st_mode | stat.S_IRWXU)
    with suppress(OSError):
        for path in folder.iterdir():
            if stat.S_ISREG(mode := path.lstat().st_mode):
                path.chmod(mode | stat.S_IRUSR | stat.S_IWUSR)


def open_file(path: Path) -> int | None:
    """Open a file of ours for reading; None if there is none, or if a trial has put something else there, for which one might wait for ever."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except OSError as error:
        if error.errno in _NOT_THERE:
            return None
        raise
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return descriptor
    os.close(descriptor)
    return None


def read_file(path: Path) -> bytes | None:
    """What a file of ours holds; None if there is none.

    Raises:
        OSError: this machine is short of something, or the file is locked: that says nothing about what it holds.
    """
    descriptor = open_file(path)
    if descriptor is None:
        return None
    with os.fdopen(descriptor, "rb") as file:
        return file.read()


def file_size(path: Path) -> int:
    """How large a file of ours is; nothing if there is none."""
    try:
        found = path.stat()
    except OSError as error:
        if error.errno in _NOT_THERE:
            return 0
        raise
    return found.st_size if stat.S_ISREG(found.st_mode) else 0


def _entries(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []
    except PermissionError:
        folder.chmod(stat.S_IRWXU)
        return list(folder.iterdir())


def _remove(folder: Path) -> None:
    if folder.is_symlink() or not folder.is_dir():
        # What a trial has put in its place.
        folder.unlink()
    else:
        shutil.rmtree(folder)


def lack_of_room(folder: Path) -> OSError | None:
    """Why nothing more can be written there, for a full disk or a quota; None if there is room, if little."""
    probe = folder / ".room"
    try:
        probe.write_bytes(bytes(_ROOM_BYTES))
    except OSError as error:
        return error if error.errno in (errno.ENOSPC, errno.EDQUOT) else None
    finally:
        # Where it can't be written it can't be removed either.
        with suppress(OSError):
            probe.unlink(missing_ok=True)
    return None


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileNotFoundError:
        # The run's folder went in between, with the attempt before this one.
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        # The attempt before this one has put a file in its place.
        for path in (folder.parent, folder):
            if path.is_symlink() or path.is_file():
                path.unlink()
        folder.mkdir(parents=True, exist_ok=True)


def _unpack_or_say_why(archive: Path, target: Path) -> None:
    try:
        unpack(archive, target)
    except SweepError as error:
        raise CodeBroken(error.message) from error


def _copy(source: Path, target: Path, called_off: threading.Event) -> None:
    """Copy under another name first: an interrupted copy must not be taken for a whole one."""
    part = target.with_name(target.name + ".part")
    if part.exists():
        shutil.rmtree(part)

    def copy_file(one: str, other: str) -> None:
        if called_off.is_set():
            raise CalledOff
        shutil.copy2(one, other)

    shutil.copytree(source, part, symlinks=True, copy_function=copy_file)
    part.rename(target)


def _size(folder: Path) -> int:
    return sum(path.lstat().st_size for path in folder.rglob("*"))


def _unlock(folder: Path) -> None:
    """Give back the rights that a trial may have taken from its own folders, as some tools do with what they cache."""
    folder.chmod(0o700)
    for path, names, _ in os.walk(folder):
        for name in names:
            inner = Path(path, name)
            if not inner.is_symlink():
                inner.chmod(0o700)
