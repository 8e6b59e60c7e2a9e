"""Code travels by digest: a project folder becomes one archive named by its SHA-256, stored once, unpacked by workers.

The archive is a tar.gz that depends on names, contents, links and executable bits only: entries are sorted, times and
owners are zero. Nothing here knows of sweeps or of HTTP.
"""

import gzip
import hashlib
import heapq
import os
import re
import shutil
import stat
import tarfile
import tempfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

from pathspec import GitIgnoreSpec

from tracking.errors import InvalidValue, TooLarge

ALWAYS_LEFT_OUT: Final = frozenset({".git", ".venv", "__pycache__", "mlruns", "wandb"})
"""Names that no snapshot holds, wherever they are."""

IGNORE_FILES: Final = (".gitignore", ".sweepignore")
"""Read in every folder, the later one deciding where both speak: `!name` in `.sweepignore` brings a file back."""

UNPACKED_MAX_BYTES: Final = 8 * 1024**3
UNPACKED_MAX_FILES: Final = 200_000

_CHUNK_BYTES: Final = 1024 * 1024
_FOLDER_MARK: Final = "ps_d"
_N_LARGEST: Final = 10


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A packed folder.

    Attributes:
        digest: SHA-256 of the archive's bytes, in hex.
        archive: a temporary file that belongs to the caller.
        size_bytes: of the archive.
    """

    digest: str
    archive: Path
    size_bytes: int
    n_files: int


def pack(folder: Path, *, max_bytes: int) -> Snapshot:
    """Pack a folder, ignore files respected, into a temporary archive.

    Sockets, pipes and empty folders are left out, as git does. Links stay links, and must stay inside.

    Raises:
        InvalidValue: there is no such folder, a link leads out of it, or a file can't be read or changes meanwhile.
        TooLarge: the archive would be over `max_bytes`, or hold more than a worker unpacks.
    """
    root = folder.resolve()
    if not root.is_dir():
        raise InvalidValue(f"{folder} is not a folder.")
    try:
        entries = sorted(_entries(root), key=lambda entry: os.fsencode(entry.name))
        _check_unpacked_size(entries)
        return _write_archive(root, entries, max_bytes)
    except OSError as error:
        raise InvalidValue(f"{error.filename or folder} can't be packed: {error.strerror or error}.") from error


def unpack(archive: Path, target: Path, *, max_bytes: int = UNPACKED_MAX_BYTES) -> None:
    """Unpack an archive into the new folder `target`: completely or not at all.

    The archive is not trusted: names and links that lead out of `target`, devices, hard links and more than `max_bytes`
    are refused. Owners, times and set-uid bits are not taken over.

    Raises:
        InvalidValue: it is no snapshot, or not a safe one.
        TooLarge: it would unpack to more than `max_bytes`.
        FileExistsError: `target` exists and is not empty.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        try:
            with tarfile.open(archive, "r:gz", encoding="utf-8") as tar:
                _extract(tar, scratch, max_bytes)
        except (tarfile.TarError, gzip.BadGzipFile, zlib.error, EOFError) as error:
            raise InvalidValue(f"{archive.name} is not a snapshot: {error}.") from error
        except (FileExistsError, NotADirectoryError) as error:
            raise InvalidValue(f"{archive.name} is not a snapshot: it names {error.filename} twice.") from error
        scratch.chmod(0o755)
        scratch.rename(target)
    except BaseException:
        shutil.rmtree(scratch)
        raise


@dataclass(frozen=True, slots=True)
class _Entry:
    """One file or link to pack; `name` is relative, with slashes; `link` is a link's target, relative to it."""

    name: str
    size_bytes: int = 0
    is_executable: bool = False
    link: str | None = None


@dataclass(frozen=True, slots=True)
class _Ignore:
    """One ignore file; its patterns speak of names that begin with `base`."""

    base: str
    spec: GitIgnoreSpec

    def says(self, name: str, *, is_folder: bool) -> bool | None:
        """Whether `name` is ignored (True), brought back (False), or not spoken of (None)."""
        below = name.removeprefix(self.base)
        for pattern in reversed(tuple(self.spec.patterns)):
            if pattern.regex is not None and _speaks_of(pattern.regex, str(pattern.pattern), below, is_folder=is_folder):
                return pattern.include
        return None


def _speaks_of(regex: re.Pattern[str], pattern: str, name: str, *, is_folder: bool) -> bool:
    """Whether a pattern matches `name` itself.

    The library also matches what lies below a matched folder, and marks the folder's slash by a group. Folders are entered
    one by one here, so only the name itself counts, as git has it.
    """
    if is_folder and not pattern.rstrip().endswith("/**"):
        # With `/**` everything below a folder is meant, and not the folder.
        name += "/"
    has_mark = _FOLDER_MARK in regex.groupindex
    return any(not has_mark or found.end(_FOLDER_MARK) in {-1, len(name)} for found in regex.finditer(name))


def _entries(root: Path) -> Iterator[_Entry]:
    """What a snapshot of `root` holds; ignored folders are not entered.

    While walking, names are relative to the git repository around `root`, whose ignore files count too.
    """
    top, ignores = _outer_ignores(root)
    prefix = _base_of(root, top)
    pending = [(prefix, ignores)]
    while pending:
        base, ignores = pending.pop()
        ignores += _ignores_in(top / base, base)
        with os.scandir(top / base) as items:
            found = list(items)
        for item in found:
            name = base + item.name
            is_folder = item.is_dir(follow_symlinks=False)
            if item.name in ALWAYS_LEFT_OUT or _is_ignored(name, ignores, is_folder=is_folder):
                continue
            if is_folder:
                pending.append((name + "/", ignores))
            elif item.is_symlink():
                yield _Entry(name.removeprefix(prefix), link=_inner_link(root, Path(item.path)))
            elif item.is_file(follow_symlinks=False):
                facts = item.stat(follow_symlinks=False)
                yield _Entry(name.removeprefix(prefix), facts.st_size, is_executable=bool(facts.st_mode & stat.S_IXUSR))


def _is_ignored(name: str, ignores: tuple[_Ignore, ...], *, is_folder: bool) -> bool:
    """Whether the nearest ignore file that speaks of `name` ignores it."""
    for ignore in reversed(ignores):
        said = ignore.says(name, is_folder=is_folder)
        if said is not None:
            return said
    return False


def _ignores_in(folder: Path, base: str) -> tuple[_Ignore, ...]:
    paths = (folder / file_name for file_name in IGNORE_FILES)
    return tuple(_read_ignore(path, base) for path in paths if path.is_file())


def _read_ignore(path: Path, base: str) -> _Ignore:
    lines = path.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    try:
        return _Ignore(base, GitIgnoreSpec.from_lines(lines))
    except ValueError as error:
        raise InvalidValue(f"{path} can't be read: {error}") from error


def _outer_ignores(root: Path) -> tuple[Path, tuple[_Ignore, ...]]:
    """The folder that names are relative to, and the ignore files above `root` that count."""
    top = next((folder for folder in (root, *root.parents) if (folder / ".git").exists()), root)
    exclude = top / ".git" / "info" / "exclude"
    ignores: tuple[_Ignore, ...] = (_read_ignore(exclude, ""),) if exclude.is_file() else ()
    for folder in reversed((root, *root.parents)):
        if folder == top or not folder.is_relative_to(top):
            continue
        ignores += _ignores_in(folder.parent, _base_of(folder.parent, top))
        if _is_ignored(folder.relative_to(top).as_posix(), ignores, is_folder=True):
            # The repository ignores the very folder that is asked for: what it says does not count here.
            return root, ()
    return top, ignores


def _base_of(folder: Path, top: Path) -> str:
    return "" if folder == top else folder.relative_to(top).as_posix() + "/"


def _inner_link(root: Path, link: Path) -> str:
    """A link's target relative to it.

    Raises:
        InvalidValue: it leads out of `root`.
    """
    target = Path(os.path.realpath(link))
    if not target.is_relative_to(root):
        raise InvalidValue(
            f"The link {link.relative_to(root)} leads out of the project, to {target}.",
            hint="Name it in .sweepignore, or replace it by what it points to.",
        )
    return os.path.relpath(target, link.parent)


def _check_unpacked_size(entries: list[_Entry]) -> None:
    if sum(entry.size_bytes for entry in entries) > UNPACKED_MAX_BYTES:
        raise _too_large(f"The project is over {UNPACKED_MAX_BYTES} bytes before packing.", entries)
    if len(entries) > UNPACKED_MAX_FILES:
        raise _too_large(f"The project has {len(entries)} files, over {UNPACKED_MAX_FILES}.", entries)


def _too_large(problem: str, entries: list[_Entry]) -> TooLarge:
    largest = heapq.nlargest(_N_LARGEST, entries, key=lambda entry: entry.size_bytes)
    names = ", ".join(f"{entry.name} ({entry.size_bytes} bytes)" for entry in largest)
    return TooLarge(f"{problem} The largest files: {names}.", hint="Name what the trials don't need in .sweepignore.")


def _write_archive(root: Path, entries: list[_Entry], max_bytes: int) -> Snapshot:
    descriptor, name = tempfile.mkstemp(prefix="snapshot-", suffix=".tar.gz")
    archive = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            counted = _CountingWriter(file, max_bytes)
            with (
                gzip.GzipFile(filename="", mode="wb", fileobj=counted, mtime=0) as packed,
                tarfile.open(fileobj=packed, mode="w|", format=tarfile.PAX_FORMAT, encoding="utf-8") as tar,
            ):
                for entry in entries:
                    _add(tar, root, entry)
        return Snapshot(counted.digest(), archive, counted.size_bytes, len(entries))
    except _OverflowError as error:
        archive.unlink()
        raise _too_large(f"The packed project is over {max_bytes} bytes.", entries) from error
    except BaseException:
        archive.unlink()
        raise


def _add(tar: tarfile.TarFile, root: Path, entry: _Entry) -> None:
    header = tarfile.TarInfo(entry.name)
    header.mode = 0o755 if entry.is_executable else 0o644
    if entry.link is not None:
        header.type = tarfile.SYMTYPE
        header.linkname = entry.link
        tar.addfile(header)
        return
    header.size = entry.size_bytes
    with (root / entry.name).open("rb") as file:
        if os.fstat(file.fileno()).st_size != entry.size_bytes:
            raise InvalidValue(
                f"{entry.name} changed while it was packed.", hint="Submit again; what is written meanwhile, keep elsewhere or name in .sweepignore."
            )
        tar.addfile(header, file)


def _extract(tar: tarfile.TarFile, root: Path, max_bytes: int) -> None:
    left = max_bytes
    links: list[tarfile.TarInfo] = []
    for n_seen, member in enumerate(tar, start=1):
        left -= member.size
        if left < 0 or n_seen > UNPACKED_MAX_FILES:
            raise TooLarge(f"The snapshot unpacks to over {max_bytes} bytes or {UNPACKED_MAX_FILES} files.")
        path = root / _inner_name(member.name)
        if member.isdir():
            path.mkdir(parents=True, exist_ok=True)
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        if member.issym():
            links.append(member)
        elif member.isreg():
            _extract_file(tar, member, path)
        else:
            raise InvalidValue(f"The snapshot's entry {member.name!r} is neither file, folder nor link.")
    _make_links(links, root)


def _inner_name(name: str) -> str:
    parts = name.split("/")
    if name.startswith("/") or ".." in parts or "\0" in name or set(parts) <= {"", "."}:
        raise InvalidValue(f"The snapshot's entry {name!r} leads out of it.")
    return name


def _extract_file(tar: tarfile.TarFile, member: tarfile.TarInfo, path: Path) -> None:
    source = tar.extractfile(member)
    if source is None:
        raise InvalidValue(f"The snapshot's entry {member.name!r} has no content.")
    with source, path.open("xb") as file:
        shutil.copyfileobj(source, file, _CHUNK_BYTES)
    path.chmod(0o755 if member.mode & stat.S_IXUSR else 0o644)


def _make_links(links: list[tarfile.TarInfo], root: Path) -> None:
    """Make the links after all files, so that nothing is written through one; then check where they lead, chains included."""
    for link in links:
        (root / link.name).symlink_to(link.linkname)
    for link in links:
        if not Path(os.path.realpath(root / link.name)).is_relative_to(os.path.realpath(root)):
            raise InvalidValue(f"The snapshot's link {link.name!r} leads out of it, to {link.linkname!r}.")


class _OverflowError(Exception):
    """More bytes than a `_CountingWriter` takes."""


class _CountingWriter:
    """Passes bytes on while it counts and hashes them."""

    def __init__(self, file: IO[bytes], max_bytes: int) -> None:
        self._file = file
        self._max_bytes = max_bytes
        self._hash = hashlib.sha256()
        self.size_bytes = 0

    def write(self, data: bytes) -> int:
        """Write all of `data`."""
        self.size_bytes += len(data)
        if self.size_bytes > self._max_bytes:
            raise _OverflowError
        self._hash.update(data)
        self._file.write(data)
        return len(data)

    def flush(self) -> None:
        """Flush the file below."""
        self._file.flush()

    def digest(self) -> str:
        """SHA-256 of what was written, in hex."""
        return self._hash.hexdigest()
