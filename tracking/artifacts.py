"""Artifacts: files that runs leave behind, in a folder or any store that fsspec reaches.

The server assigns every location: `<experiment>/<run>/artifacts/...`, and `<experiment>/models/<model>/artifacts/...` of a logged model. A
client only ever names a path below one, and that path is checked here. Files are written and read in pieces, and appear whole or not at
all.
"""

import logging
import os
import posixpath
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from glob import has_magic
from pathlib import Path
from typing import IO, Any, Final
from urllib.parse import unquote

import fsspec
from fsspec.implementations.local import LocalFileSystem

from tracking.errors import InvalidValue, NotFound, RecordError, SettingError
from tracking.room import Place
from tracking.s3 import S3, Part, bucket_needed, s3_options, s3_place
from tracking.s3 import SCHEMES as S3_SCHEMES
from tracking.uploads import UPLOADS, LocalUploads, OtherUploads, Upload, Uploads

SCHEME: Final = "mlflow-artifacts:/"
CHUNK_BYTES: Final = 1024 * 1024

_LOG = logging.getLogger("sweeps.server")
_READ_AHEAD_BYTES: Final = 4 * CHUNK_BYTES
_LOCATION: Final = re.compile(r"(?P<experiment_id>[^/]+)/(?:models/(?P<model_id>[^/]+)|(?P<run_id>[^/]+))/artifacts(?:/(?P<path>.*))?")
_FORBIDDEN: Final = re.compile(r"[\x00-\x1f\x7f\\#;?]")
_DRIVE: Final = re.compile(r"[A-Za-z]:")
_MAX_DECODINGS: Final = 8
_SEGMENT_MAX_BYTES: Final = 255
_PATH_MAX_BYTES: Final = 1024


@dataclass(frozen=True, slots=True)
class Location:
    """A path in the store, taken apart: `path` is below the own folder of a run or a logged model, empty for the folder itself.

    Of run and model one is empty.
    """

    experiment_id: str
    run_id: str
    path: str
    model_id: str = ""


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


def model_folder(experiment_id: str, model_id: str) -> str:
    """The folder of a logged model's files, relative to the store."""
    return f"{experiment_id}/models/{model_id}/artifacts"


def model_uri(experiment_id: str, model_id: str) -> str:
    """The same as MLflow's clients know it."""
    return SCHEME + model_folder(experiment_id, model_id)


def parse_location(path: str) -> Location | None:
    """Whose a checked path is, or None if it is not below any run's or model's folder."""
    found = _LOCATION.fullmatch(path)
    return found and Location(found["experiment_id"], found["run_id"] or "", found["path"] or "", found["model_id"] or "")


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
        raise InvalidValue(f"Invalid path: the artifact path {text!r} must be relative, without '..', backslashes, '#', ';', '?' and control characters.")
    try:
        sizes = [len(segment.encode()) for segment in segments]
    except UnicodeEncodeError:
        raise InvalidValue(f"The artifact path {text!r} is not Unicode text.") from None
    if max(sizes) > _SEGMENT_MAX_BYTES or sum(sizes) + len(sizes) > _PATH_MAX_BYTES:
        raise InvalidValue(f"The artifact path has a name over {_SEGMENT_MAX_BYTES} bytes or is over {_PATH_MAX_BYTES} bytes.")


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file, open for reading from its beginning; whoever has it closes it.

    Attributes:
        version: another one for other content.
        modified_at: when it was stored, if the store tells.
    """

    content: IO[bytes]
    size_bytes: int
    version: str
    modified_at: datetime | None


class ArtifactStore:
    """The files under one root: a folder, or a URL of any store that fsspec knows.

    All paths are relative to the root and checked by `safe_path`.

    Args:
        endpoint_url: of a store that speaks S3's protocol and is not Amazon's.

    Raises:
        SettingError: there is no such kind of store, or its package is not installed.
    """

    def __init__(self, root: str | Path, *, endpoint_url: str = "") -> None:
        self.root = str(root)
        self._files, full_root = _reach(self.root, endpoint_url)
        self._root = full_root.rstrip("/")
        self._s3: S3 | None = None
        self._folder: Path | None = None
        self._place = Place(is_remote=True)
        if isinstance(self._files, LocalFileSystem):
            self._folder = Path(self._root)
            self._place = Place()
            self._uploads: Uploads = LocalUploads(self._folder)
        elif _scheme_of(self.root) in S3_SCHEMES:
            self._place = s3_place()
            self._uploads = self._s3 = S3(self._files, self._root)
        else:
            self._uploads = OtherUploads(self._files, self._root)

    def tidy(self) -> None:
        """Remove what uploads left behind whose server was killed. What is wrong with the store is told to the log only."""
        try:
            with self._place.used():
                self._uploads.tidy()
        except (FileNotFoundError, RecordError) as error:
            _LOG.warning("what broken uploads may have left in %s is not tidied: %s", self.root, error)

    def problem(self) -> str:
        """What is wrong with the store, or nothing."""
        if self._folder is not None:
            # Made with the first upload: until then what counts is whether it can be.
            nearest = next((path for path in (self._folder, *self._folder.parents) if path.exists()), self._folder)
            is_well = nearest.is_dir() and os.access(nearest, os.W_OK | os.X_OK)
            return "" if is_well else f"{self._folder} is not a folder that the server may write to."
        try:
            with self._place.used():
                if self._s3 is not None:
                    self._s3.ask()
                else:
                    self._files.exists(self._root)
        except FileNotFoundError as error:
            return f"{self.root} is not there: {error}."
        except RecordError as error:
            return error.message
        return ""

    def list(self, folder: str) -> tuple[ArtifactInfo, ...]:
        """What a folder holds, sorted by name; nothing if it is a file or does not exist."""
        full = self._full(folder)
        try:
            with self._place.used():
                found = self._files.ls(full, detail=True)
        except (FileNotFoundError, NotADirectoryError):
            return ()
        kept = [_artifact_info(info) for info in found if not info.get("islink") and _bare(info) != full.strip("/")]
        return tuple(sorted((info for info in kept if info.path != UPLOADS), key=lambda info: info.path))

    def size_bytes(self, path: str) -> int | None:
        """The size of a file, or of all files below a folder; None if there is neither."""
        full = self._full(path)
        with self._place.used():
            if not self._files.exists(full):
                return None
            return int(sum(self._files.du(full, total=False).values()))

    def upload(self, path: str, *, max_bytes: int) -> Upload:
        """Begin to write a file of `max_bytes` at most; use it as a context manager.

        Raises:
            InvalidValue: the path is not safe, is a folder, or leads through a file.
            NoRoom: the disk is full.
        """
        full = self._free(path)
        with self._place.used():
            return Upload(self._uploads.begin(full, max_bytes), self._place, path, max_bytes)

    def open(self, path: str) -> StoredFile:
        """A file, open for reading.

        Raises:
            NotFound: there is no such file.
            InvalidValue: it is a folder.
        """
        full = self._full(path)
        try:
            with self._place.used():
                return _open_local(Path(full)) if self._folder is not None else _open_remote(self._files, full)
        except IsADirectoryError:
            raise InvalidValue(f"Artifact path refers to a directory, not a file: '{path}'") from None
        except (FileNotFoundError, NotADirectoryError, FileExistsError):  # the last: fsspec's stores differ
            raise NotFound(f"No such artifact: '{path}'") from None

    def has(self, path: str) -> bool:
        """Whether there is such a file."""
        full = self._full(path)
        with self._place.used():
            return bool(self._files.isfile(full))

    def delete(self, path: str) -> None:
        """Remove a file or folder; nothing happens if there is none.

        Raises:
            InvalidValue: it is the root itself.
        """
        full = self._full(path)
        if full == self._root:
            raise InvalidValue("The whole artifact store can't be deleted.")
        # Somebody else may delete the same at the same time.
        with suppress(FileNotFoundError), self._place.used():
            _remove(self._files, full)

    @property
    def is_direct(self) -> bool:
        """Whether clients can send and read files past this server, by URLs that it signs."""
        return self._s3 is not None

    def begin_parts(self, path: str, n_parts: int) -> tuple[str, tuple[str, ...]]:
        """Begin an upload whose parts the client sends by itself: its id, and where each part goes. Needs `is_direct`.

        Raises:
            InvalidValue: the path is not safe, is a folder, or leads through a file.
        """
        full = self._free(path)
        with self._place.used(), bucket_needed():
            upload_id = self._direct.create(full)
            return upload_id, self._direct.part_urls(full, upload_id, n_parts)

    def complete_parts(self, path: str, upload_id: str, parts: Sequence[Part], *, max_bytes: int) -> None:
        """Let the file appear whose parts the client has sent. Needs `is_direct`.

        Raises:
            NotFound: there is no such upload.
            InvalidValue: the parts are not those that were sent.
            TooLarge: together they are over `max_bytes`; nothing stays of them.
        """
        with self._place.used():
            self._direct.complete_checked(self._free(path), upload_id, parts, max_bytes)

    def abort_parts(self, path: str, upload_id: str) -> None:
        """Forget such an upload. Needs `is_direct`.

        Raises:
            NotFound: there is none.
        """
        with self._place.used():
            self._direct.abort_checked(self._full(path), upload_id)

    def signed_url(self, path: str, **answering: str) -> tuple[str, int]:
        """Where the client reads a file by itself, with what headers it is answered, and the file's size. Needs `is_direct`.

        Raises:
            NotFound: there is no such file.
        """
        file = self.open(path)
        with file.content, self._place.used():
            return self._direct.file_url(self._full(path), **answering), file.size_bytes

    @property
    def _direct(self) -> S3:
        if self._s3 is None:
            raise TypeError(f"{self.root} takes no files past this server")
        return self._s3

    def _free(self, path: str) -> str:
        """Where a file may be put."""
        full = self._full(path)
        with self._place.used():
            if full == self._root or self._files.isdir(full):
                raise InvalidValue(f"The artifact path {path!r} is a folder.")
            if any(self._files.isfile(folder) for folder in self._folders_to(full)):
                raise InvalidValue(f"The artifact path {path!r} leads through a file.")
        return full

    def _folders_to(self, full: str) -> Iterator[str]:
        """The folders that lead to a file; not those that are the server's own choice, where no file can be."""
        below = full.removeprefix(f"{self._root}/")
        location = parse_location(below)
        inner = below if location is None else location.path
        outer = full.removesuffix(inner)
        for end in (found.start() for found in re.finditer("/", inner)):
            yield outer + inner[:end]

    def _full(self, path: str) -> str:
        safe = safe_path(path)
        if safe.split("/", 1)[0] == UPLOADS:
            raise InvalidValue(f"The artifact path {path!r} is reserved.")
        full = f"{self._root}/{safe}" if safe else self._root
        if self._folder is not None and Path(os.path.realpath(full)) != Path(os.path.realpath(self._folder), safe):
            # Nothing here makes links: somebody planted it, and it may lead anywhere.
            raise InvalidValue(f"The artifact path {path!r} leads through a link.")
        return full


def _reach(root: str, endpoint_url: str) -> tuple[Any, str]:
    scheme = _scheme_of(root)
    try:
        files, path = fsspec.core.url_to_fs(root, **(s3_options(endpoint_url) if scheme in S3_SCHEMES else {}))
    except ImportError as error:
        hint = "pip install 'sweep-runner[s3]'" if scheme in S3_SCHEMES else "Install it where the server runs."
        raise SettingError(f"SWEEP_ARTIFACT_ROOT is {root!r}, and a package for that is missing: {error}.", hint=hint) from error
    except ValueError as error:
        raise SettingError(f"SWEEP_ARTIFACT_ROOT is {root!r}, which is no place for files: {error}.") from error
    return files, str(path)


def _scheme_of(root: str) -> str:
    scheme, mark, _ = root.partition("://")
    return scheme if mark else "file"


def _open_local(path: Path) -> StoredFile:
    file = path.open("rb")
    facts = os.fstat(file.fileno())
    version = f"{facts.st_mtime_ns}-{facts.st_size}-{facts.st_ino}"
    return StoredFile(file, facts.st_size, version, datetime.fromtimestamp(facts.st_mtime, UTC))


def _open_remote(files: Any, full: str) -> StoredFile:
    file = files.open(full, "rb", block_size=_READ_AHEAD_BYTES)
    # What it was opened with, if it says; a later look may see another file.
    facts = getattr(file, "details", None) or files.info(full)
    if facts["type"] == "directory":
        file.close()
        raise IsADirectoryError(full)
    version = str(facts.get("ETag") or sorted((name, str(value)) for name, value in facts.items()))
    modified_at = facts.get("LastModified")
    return StoredFile(file, int(facts["size"]), version, modified_at if isinstance(modified_at, datetime) else None)


def _remove(files: Any, full: str) -> None:
    if has_magic(full) and not isinstance(files, LocalFileSystem):
        # fsspec would take the name for a pattern, and remove whatever fits.
        for path in files.find(full):
            files.rm_file(path)
    else:
        files.rm(full, recursive=True)


def _bare(info: dict[str, Any]) -> str:
    return str(info["name"]).strip("/")


def _artifact_info(info: dict[str, Any]) -> ArtifactInfo:
    is_folder = info["type"] == "directory"
    return ArtifactInfo(posixpath.basename(_bare(info)), is_folder, None if is_folder else int(info["size"]))
