"""Where attempts work: a folder each, with its own copy of the code (D10).

    home/runs/<run_id>/<attempt>/   work/, stdout, stderr, and what the runtime notes down
    home/snapshots/<digest>/        each snapshot, unpacked once

A trial may write into its working folder as it likes: it never shares a file with the unpacked snapshot.
"""

import fcntl
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tracking.errors import SweepError
from tracking.snapshots import unpack
from worker.errors import CodeBroken
from worker.runtimes.base import WORK, AttemptKey

Fetch = Callable[[str, Path], None]
"""Brings the archive of a digest to a path."""


class AttemptFolders:
    """The folders of one worker's attempts.

    Args:
        home: the worker's own state folder.
        fetch: called with a digest and the path that its archive is to be written to.
    """

    def __init__(self, home: Path, fetch: Fetch) -> None:
        self.runs = home / "runs"
        self._snapshots = home / "snapshots"
        self._fetch = fetch
        for folder in (self.runs, self._snapshots):
            folder.mkdir(parents=True, exist_ok=True)

    def path(self, run_id: str, attempt: int) -> Path:
        """The folder of an attempt, whether it exists or not."""
        return self.runs / run_id / str(attempt)

    def prepare(self, run_id: str, attempt: int, *, digest: str | None = None, subfolder: str = ".") -> tuple[Path, Path]:
        """Make an attempt's folder with its own copy of the code.

        Returns:
            The attempt's folder, and the folder within it where its command is to start.

        Raises:
            CodeBroken: the snapshot is not what its digest says, or has no such subfolder.
        """
        folder = self.path(run_id, attempt)
        work = folder / WORK
        _make(folder)
        if digest is None:
            work.mkdir(exist_ok=True)
        elif not work.exists():
            _copy(self._unpacked(digest), work)
        start = work / subfolder
        if not start.is_dir() or not start.resolve().is_relative_to(work.resolve()):
            raise CodeBroken(f"The snapshot {(digest or 'none')[:12]} has no folder {subfolder!r}.")
        return folder, start

    def attempts(self) -> Iterator[tuple[AttemptKey, Path]]:
        """Every attempt that has a folder here."""
        for folder in self.runs.glob("*/*"):
            if folder.name.isdigit():
                yield (folder.parent.name, int(folder.name)), folder

    def remove(self, run_id: str, attempt: int) -> None:
        """Remove an attempt's folder, if it exists, and its run's once that is empty."""
        folder = self.path(run_id, attempt)
        try:
            shutil.rmtree(folder)
        except FileNotFoundError:
            # Removed already; nothing else takes files from here.
            if folder.exists():
                raise
        except PermissionError:
            _unlock(folder)
            shutil.rmtree(folder)
        # Not while another attempt of the run has its folder there.
        with suppress(OSError):
            folder.parent.rmdir()

    def _unpacked(self, digest: str) -> Path:
        target = self._snapshots / digest
        if target.exists():
            return target
        with locked(self._snapshots / f"{digest}.lock"):
            # Another thread may have been first.
            if not target.exists():
                self._unpack(digest, target)
        return target

    def _unpack(self, digest: str, target: Path) -> None:
        archive = self._snapshots / f"{digest}.tar.gz"
        try:
            self._fetch(digest, archive)
            with archive.open("rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
            if found != digest:
                raise CodeBroken(f"The snapshot that was fetched as {digest[:12]} is another one, {found[:12]}.")
            _unpack_or_say_why(archive, target)
        finally:
            archive.unlink(missing_ok=True)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock file, against other threads and processes; it goes with its holder."""
    with path.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileNotFoundError:
        # The run's folder went in between, with the attempt before this one.
        folder.mkdir(parents=True, exist_ok=True)


def _unpack_or_say_why(archive: Path, target: Path) -> None:
    try:
        unpack(archive, target)
    except SweepError as error:
        raise CodeBroken(error.message) from error


def _copy(source: Path, target: Path) -> None:
    """Copy under another name first: an interrupted copy must not be taken for a whole one."""
    part = target.with_name(target.name + ".part")
    if part.exists():
        shutil.rmtree(part)
    shutil.copytree(source, part, symlinks=True)
    part.rename(target)


def _unlock(folder: Path) -> None:
    """Give back the rights that a trial may have taken from its own folders, as some tools do with what they cache."""
    for path, names, _ in os.walk(folder):
        for name in names:
            inner = Path(path, name)
            if not inner.is_symlink():
                inner.chmod(0o700)
