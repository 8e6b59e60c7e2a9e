"""Where snapshots are kept: with the artifacts, each under the digest of its bytes. Workers get them from the server, wherever that is."""

import hashlib
import re
from collections.abc import Iterable
from functools import partial
from typing import BinaryIO, Final

from tracking.artifacts import CHUNK_BYTES, ArtifactStore, StoredFile
from tracking.errors import InvalidValue, TooLarge
from tracking.snapshots import UNPACKED_MAX_BYTES

_DIGEST: Final = re.compile(r"[0-9a-f]{64}")


class SnapshotStore:
    """Archives, each under its digest, in the store that artifacts are kept in too."""

    def __init__(self, files: ArtifactStore) -> None:
        self._files = files

    def has(self, digest: str) -> bool:
        """Whether the archive of this digest is here."""
        return self._files.has(_path_of(digest))

    def open(self, digest: str) -> StoredFile:
        """The archive of this digest, open for reading.

        Raises:
            NotFound: it is not here.
        """
        return self._files.open(_path_of(digest))

    def put(self, digest: str, stream: BinaryIO | Iterable[bytes], *, max_bytes: int = UNPACKED_MAX_BYTES) -> int:
        """Store an archive, which appears whole or not at all; return its size. Storing it again changes nothing.

        Raises:
            InvalidValue: the bytes do not have this digest.
            TooLarge: there are more than `max_bytes`.
            NoRoom: the disk is full.
        """
        hashed = hashlib.sha256()
        with self._files.upload(_path_of(digest), max_bytes=max_bytes) as upload:
            for chunk in _chunks(stream):
                hashed.update(chunk)
                try:
                    upload.write(chunk)
                except TooLarge:
                    raise TooLarge(f"The snapshot is over {max_bytes} bytes.") from None
            _check_digest(hashed.hexdigest(), digest)
            upload.commit()
        return upload.size_bytes


def _path_of(digest: str) -> str:
    """Where the archive of this digest is, or would be.

    Raises:
        InvalidValue: it is no SHA-256 in hex.
    """
    if not _DIGEST.fullmatch(digest):
        raise InvalidValue(f"{digest!r} is no SHA-256 digest: 64 hex digits, lower case.")
    return f"snapshots/{digest[:2]}/{digest}.tar.gz"


def _check_digest(found: str, expected: str) -> None:
    if found != expected:
        raise InvalidValue(f"The snapshot's bytes have digest {found}, not {expected}.")


def _chunks(stream: BinaryIO | Iterable[bytes]) -> Iterable[bytes]:
    read = getattr(stream, "read", None)
    return stream if read is None else iter(partial(read, CHUNK_BYTES), b"")
