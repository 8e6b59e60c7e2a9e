"""Files on their way in: they wait where nobody looks, and appear under their names whole or not at all."""

import os
import time
import uuid
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Final, Protocol, Self

from tracking.errors import ArtifactsAway, ArtifactsRefused, InvalidValue, NoRoom, TooLarge
from tracking.room import ARRIVES_WITHIN_S, Place, remove_halves

UPLOADS: Final = ".uploads"
"""Where they wait, below the root."""


class Half(Protocol):
    """What has come of a file so far."""

    def write(self, chunk: bytes) -> object:
        """Add a piece."""

    def publish(self) -> None:
        """Make it appear under its name, in place of an earlier file."""

    def discard(self) -> None:
        """Leave nothing of it."""


class Uploads(Protocol):
    """How one kind of store takes files."""

    def begin(self, full: str, max_bytes: int, /) -> Half:
        """A file of `max_bytes` at most that is to appear at `full`."""

    def tidy(self) -> None:
        """Remove what was left behind by a server that was killed."""


class Upload:
    """One file on its way in. It appears at `commit`; to be closed, or to leave the `with` block, without it leaves no trace."""

    def __init__(self, half: Half, place: Place, path: str, max_bytes: int) -> None:
        self._half = half
        self._place = place
        self._path = path
        self._max_bytes = max_bytes
        self._is_open = True
        self.size_bytes = 0

    def write(self, chunk: bytes) -> None:
        """Add a piece.

        Raises:
            TooLarge: the file is over its limit.
            NoRoom: the disk is full.
        """
        self.size_bytes += len(chunk)
        if self.size_bytes > self._max_bytes:
            raise TooLarge(f"The artifact is over {self._max_bytes} bytes.", hint="SWEEP_UPLOAD_MAX_BYTES sets the limit.")
        with self._place.used():
            self._half.write(chunk)

    def commit(self) -> None:
        """Make the file appear under its name, in place of an earlier one.

        Raises:
            InvalidValue: a folder has that name by now, or a file the name of a folder that leads to it.
            NoRoom: the disk is full.
        """
        try:
            with self._place.used():
                self._half.publish()
        except (FileExistsError, IsADirectoryError, NotADirectoryError):
            raise InvalidValue(f"The artifact path {self._path!r} is a folder, or leads through a file.") from None
        self._is_open = False

    def close(self) -> None:
        """Discard what was not committed. Blocks: a store may be asked."""
        if self._is_open:
            self._is_open = False
            # What can't be removed now is tidied later, by this server or another.
            with suppress(NoRoom, ArtifactsAway, ArtifactsRefused, FileNotFoundError), self._place.used():
                self._half.discard()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


class LocalUploads:
    """Into a folder: written beside the files and renamed. Not in the system's temporary folder, which may be small."""

    def __init__(self, root: Path) -> None:
        self._folder = root / UPLOADS

    def begin(self, full: str, _: int, /) -> "LocalHalf":
        """A file below the root."""
        self._folder.mkdir(parents=True, exist_ok=True)
        return LocalHalf(self._folder / uuid.uuid4().hex, Path(full))

    def tidy(self) -> None:
        """Remove those that nobody has written to for hours."""
        remove_halves(self._folder.glob("*"))


class LocalHalf:
    """A file that waits in a folder."""

    def __init__(self, scratch: Path, target: Path) -> None:
        self._scratch = scratch
        self._target = target
        self.file = scratch.open("xb")

    def write(self, chunk: bytes) -> None:
        """Add a piece."""
        self.file.write(chunk)

    def publish(self) -> None:
        """Rename it."""
        self.file.flush()
        # Before the rename: a file under its name must never be found empty after a crash.
        os.fsync(self.file.fileno())
        self.file.close()
        self._target.parent.mkdir(parents=True, exist_ok=True)
        self._scratch.replace(self._target)

    def discard(self) -> None:
        """Remove it."""
        # What is not written yet is not wanted: that it can't be, on a full disk, is no news.
        with suppress(OSError):
            self.file.close()
        self._scratch.unlink()


class OtherUploads:
    """Into any store that fsspec knows: written under another name and moved."""

    def __init__(self, files: Any, root: str) -> None:
        self._files = files
        self._folder = f"{root}/{UPLOADS}"

    def begin(self, full: str, _: int, /) -> "OtherHalf":
        """A file below the root."""
        # Not every store tells how old a file is.
        return OtherHalf(self._files, f"{self._folder}/{int(time.time())}-{uuid.uuid4().hex}", full)

    def tidy(self) -> None:
        """Remove those that were begun hours ago."""
        with suppress(FileNotFoundError):
            for path in self._files.ls(self._folder, detail=False):
                begun = str(path).rpartition("/")[2].partition("-")[0]
                if begun.isdigit() and time.time() - int(begun) > ARRIVES_WITHIN_S:
                    self._files.rm_file(path)


class OtherHalf:
    """A file that waits under another name."""

    def __init__(self, files: Any, scratch: str, target: str) -> None:
        self._files = files
        self._scratch = scratch
        self._target = target
        files.makedirs(scratch.rpartition("/")[0], exist_ok=True)
        self._file: IO[bytes] = files.open(scratch, "wb")

    def write(self, chunk: bytes) -> None:
        """Add a piece."""
        self._file.write(chunk)

    def publish(self) -> None:
        """Move it."""
        self._file.close()
        self._files.makedirs(self._target.rpartition("/")[0], exist_ok=True)
        self._files.mv(self._scratch, self._target)

    def discard(self) -> None:
        """Remove it."""
        self._file.close()
        self._files.rm_file(self._scratch)
