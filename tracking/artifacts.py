"""Artifacts: files that runs leave behind, in a folder or any store that fsspec reaches.

The server assigns every location (`<experiment>/<run>/artifacts/...`); a client only ever names a path below it, and
that path is checked here. Files are written and read in pieces, and appear whole or not at all.
"""

import os
import posixpath
import re
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Final, Self
from urllib.parse import unquote

import fsspec
from fsspec.implementations.local import LocalFileSystem

from tracking.errors import InvalidValue, NotFound, TooLarge
from tracking.room import needing_room, remove_halves

SCHEME: Final = "mlflow-artifacts:/"
CHUNK_BYTES: Final = 1024 * 1024

_UPLOADS: Final = ".uploads"
_LOCATION: Final = re.compile(r"(?P<experiment_id>[^/]+)/(?P<run_id>[^/]+)/artifacts(?:/(?P<path>.*))?")
_FORBIDDEN: Final = re.compile(r"[\x00-\x1f\x7f\\#;?]")
_DRIVE: Final = re.compile(r"[A-Za-z]:")
_MAX_DECODINGS: Final = 8
_SEGMENT_MAX_BYTES: Final = 255
_PATH_MAX_BYTES: Final = 1024


@dataclass(frozen=True, slots=True)
class Location:
    """A path in the store, taken apart: `path` is below the run's own folder, empty for the folder itself."""

    experiment_id: str
    run_id: str
    path: str


@dataclass(frozen=True, slots=True)
class ArtifactInfo:
    """A file or folder; `path` is relative to the folder that was listed. Folders have no size."""

    path: str
    is_folder: bool
    size_bytes: int | None


def run_folder(experiment_id: str, run_id: str) -> str:
    """The folder of a run's artifacts, relative to the store."""
    return f"{experiment_id}/{run_id}/artifacts"


def run_uri(experiment_id: str, run_id: str) -> str:
    """The same as MLflow's clients know it: they find the server by their tracking URI."""
    return SCHEME + run_folder(experiment_id, run_id)


def parse_location(path: str) -> Location | None:
    """Whose a checked path is, or None if it is not below any run's folder."""
    found = _LOCATION.fullmatch(path)
    return found and Location(found["experiment_id"], found["run_id"], found["path"] or "")


def safe_path(text: str) -> str:
    """A relative path that is safe to join to a folder, without `.` or trailing slash.

    It is decoded until nothing changes, and refused if any stage is unsafe, so that no later decoding can make it so.
    The stages are for the check only: `50%25` stays `50%25`.

    Raises:
        InvalidValue: it is absolute, has `..`, a drive letter, a backslash, `#`, `;`, `?` or control characters, is
            too long, or is encoded too often.
    """
    stage = text
    for _ in range(_MAX_DECODINGS):
        _check_stage(stage, text)
        decoded = unquote(stage)
        if decoded == stage:
            normal = posixpath.normpath(text) if text else ""
            return "" if normal == "." else normal
        stage = decoded
    raise InvalidValue(f"The artifact path {text!r} is encoded more than {_MAX_DECODINGS} times.")


def _check_stage(stage: str, text: str) -> None:
    segments = stage.split("/")
    if stage.startswith("/") or _DRIVE.match(stage) or ".." in segments or _FORBIDDEN.search(stage):
        raise InvalidValue(
            f"The artifact path {text!r} is not acceptable: it must be relative, without '..', backslashes, '#', ';', '?' and control characters."
        )
    try:
        sizes = [len(segment.encode()) for segment in segments]
    except UnicodeEncodeError:
        raise InvalidValue(f"The artifact path {text!r} is not Unicode text.") from None
    if max(sizes) > _SEGMENT_MAX_BYTES or sum(sizes) + len(sizes) > _PATH_MAX_BYTES:
        raise InvalidValue(f"The artifact path has a name over {_SEGMENT_MAX_BYTES} bytes or is over {_PATH_MAX_BYTES} bytes.")


class Upload:
    """One file on its way in. It appears at `commit`; leaving the `with` block without it leaves no trace."""

    def __init__(self, file: IO[bytes], max_bytes: int, *, publish: Callable[[], None], discard: Callable[[], None]) -> None:
        self._file = file
        self._max_bytes = max_bytes
        self._publish = publish
        self._discard = discard
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
        with needing_room():
            self._file.write(chunk)

    def commit(self) -> None:
        """Make the file appear under its name, in place of an earlier one.

        Raises:
            NoRoom: the disk is full.
        """
        with needing_room():
            self._publish()
        self._is_open = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._is_open:
            self._is_open = False
            # What is not written yet is not wanted: that it can't be, on a full disk, is no news.
            with suppress(OSError):
                self._file.close()
            self._discard()


class ArtifactStore:
    """The files under one root: a folder, or a URL of any store that fsspec knows.

    All paths are relative to the root and checked by `safe_path`.
    """

    def __init__(self, root: str | Path) -> None:
        self._files, self._root = fsspec.core.url_to_fs(str(root))
        self._is_local = isinstance(self._files, LocalFileSystem)

    def tidy(self) -> None:
        """Remove what uploads left behind whose server was killed."""
        if self._is_local:
            remove_halves(Path(self._root, _UPLOADS).glob("*"))

    def list(self, folder: str) -> tuple[ArtifactInfo, ...]:
        """What a folder holds, sorted by name; nothing if it is a file or does not exist."""
        full = self._full(folder)
        if not self._files.isdir(full):
            return ()
        found = [info for info in self._files.ls(full, detail=True) if not info.get("islink") and _name_of(info) != _UPLOADS]
        return tuple(sorted((_artifact_info(info) for info in found), key=lambda info: info.path))

    def size_bytes(self, path: str) -> int | None:
        """The size of a file, or of all files below a folder; None if there is neither."""
        full = self._full(path)
        if not self._files.exists(full):
            return None
        return int(sum(self._files.du(full, total=False).values()))

    def upload(self, path: str, *, max_bytes: int) -> Upload:
        """Begin to write a file of `max_bytes` at most; use it as a context manager.

        Raises:
            InvalidValue: the path is not safe, is a folder, or leads through a file.
        """
        full = self._full(path)
        if full == self._root or self._files.isdir(full):
            raise InvalidValue(f"The artifact path {path!r} is a folder.")
        try:
            self._files.makedirs(posixpath.dirname(full), exist_ok=True)
            return self._local_upload(full, max_bytes) if self._is_local else self._remote_upload(full, max_bytes)
        except (FileExistsError, NotADirectoryError):
            raise InvalidValue(f"The artifact path {path!r} leads through a file.") from None

    def open(self, path: str) -> tuple[IO[bytes], int]:
        """A file, open for reading, and its size; the caller closes it.

        Raises:
            NotFound: there is no such file.
        """
        full = self._full(path)
        try:
            file: IO[bytes] = self._files.open(full, "rb")
        except (FileNotFoundError, FileExistsError, IsADirectoryError, NotADirectoryError):  # fsspec's stores differ
            raise NotFound(f"There is no artifact {path!r}.") from None
        size_bytes = file.seek(0, os.SEEK_END)
        file.seek(0)
        return file, size_bytes

    def delete(self, path: str) -> None:
        """Remove a file or folder; nothing happens if there is none.

        Raises:
            InvalidValue: it is the root itself.
        """
        full = self._full(path)
        if full == self._root:
            raise InvalidValue("The whole artifact store can't be deleted.")
        if self._files.exists(full):
            self._files.rm(full, recursive=True)

    def _full(self, path: str) -> str:
        safe = safe_path(path)
        if safe.split("/", 1)[0] == _UPLOADS:
            raise InvalidValue(f"The artifact path {path!r} is reserved.")
        full = f"{self._root}/{safe}" if safe else self._root
        if self._is_local and not Path(os.path.realpath(full)).is_relative_to(os.path.realpath(self._root)):
            raise InvalidValue(f"The artifact path {path!r} leads out of the store.")
        return full

    def _local_upload(self, full: str, max_bytes: int) -> Upload:
        # Beside the files, so that publishing is a rename; not in the system's temporary folder, which may be small.
        scratch = Path(self._root, _UPLOADS, uuid.uuid4().hex)
        scratch.parent.mkdir(exist_ok=True)
        file = scratch.open("xb")

        def publish() -> None:
            file.flush()
            os.fsync(file.fileno())
            file.close()
            scratch.replace(full)

        return Upload(file, max_bytes, publish=publish, discard=scratch.unlink)

    def _remote_upload(self, full: str, max_bytes: int) -> Upload:
        file: Any = self._files.open(full, "wb", autocommit=False)

        def publish() -> None:
            file.close()
            file.commit()

        return Upload(file, max_bytes, publish=publish, discard=file.discard)


def _name_of(info: dict[str, Any]) -> str:
    return posixpath.basename(str(info["name"]).rstrip("/"))


def _artifact_info(info: dict[str, Any]) -> ArtifactInfo:
    is_folder = info["type"] == "directory"
    return ArtifactInfo(_name_of(info), is_folder, None if is_folder else int(info["size"]))
