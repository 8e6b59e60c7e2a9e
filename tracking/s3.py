"""S3 and what speaks its protocol, beyond what fsspec has for all stores: uploads that a client cuts leave no trace, signed URLs.

s3fs does the talking: it signs, asks again, and turns S3's errors into Python's.
"""

import errno
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, Final

from tracking.errors import ArtifactsRefused, InvalidValue, NotFound, TooLarge
from tracking.room import ARRIVES_WITHIN_S, Place

SCHEMES: Final = ("s3", "s3a")
MAX_PARTS: Final = 10_000

_PART_BYTES: Final = 8 * 1024 * 1024
_SIGNED_FOR_S: Final = 3600


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a file that a client has sent to S3 by itself: its number, and what S3 answered."""

    part_number: int
    etag: str


def s3_options(endpoint_url: str) -> Mapping[str, Any]:
    """How s3fs is told to behave; credentials and region come from AWS's own variables and files."""
    return {
        "endpoint_url": endpoint_url or None,
        # Other servers write there too: what was listed a moment ago may be wrong.
        "use_listings_cache": False,
        "skip_instance_cache": True,
        "config_kwargs": {"connect_timeout": 3, "read_timeout": 30, "retries": {"mode": "standard", "total_max_attempts": 2}, "signature_version": "s3v4"},
    }


def s3_place() -> Place:
    """What botocore raises beside the errors that s3fs translates."""
    from botocore import exceptions  # noqa: PLC0415 - an extra

    # Looked at before their root, which is that of all others too.
    refusals = (
        exceptions.NoCredentialsError,
        exceptions.PartialCredentialsError,
        exceptions.CredentialRetrievalError,
        exceptions.NoRegionError,
        exceptions.ParamValidationError,
        exceptions.TokenRetrievalError,
    )
    return Place(is_remote=True, refusals=refusals, absences=(exceptions.BotoCoreError,))


class S3:
    """A bucket, or a prefix in one."""

    def __init__(self, files: Any, root: str) -> None:
        self._files = files
        # botocore asks twice each time; somebody waits for the answer.
        self._files.retries = 2
        self._root = root

    def begin(self, full: str, max_bytes: int, /) -> "S3Half":
        """A file that appears when it is complete: in one piece if it is small, else in parts."""
        return S3Half(self, full, max(_PART_BYTES, -(-max_bytes // MAX_PARTS)))

    def tidy(self) -> None:
        """Abort uploads that have got no part for hours: what S3 has of them is unseen, and is paid for."""
        before = datetime.now(UTC) - timedelta(seconds=ARRIVES_WITHIN_S)
        bucket, _, prefix = self._root.partition("/")
        for upload in self._unfinished(bucket, f"{prefix}/" if prefix else ""):
            full = f"{bucket}/{upload['Key']}"
            # Another server may tidy, or a client end it, at the same time.
            with suppress(FileNotFoundError):
                newest = max((part["LastModified"] for part in self.parts(full, upload["UploadId"])), default=upload["Initiated"])
                if newest < before:
                    self.abort(full, upload["UploadId"])

    def _unfinished(self, bucket: str, prefix: str) -> Iterator[Mapping[str, Any]]:
        after: dict[str, str] = {}
        while True:
            page = self._files.call_s3("list_multipart_uploads", Bucket=bucket, Prefix=prefix, **after)
            yield from page.get("Uploads", ())
            if not page.get("IsTruncated"):
                return
            after = {"KeyMarker": page["NextKeyMarker"], "UploadIdMarker": page["NextUploadIdMarker"]}

    def ask(self) -> None:
        """Ask for something, to see whether anything can be had."""
        bucket, _, prefix = self._root.partition("/")
        self._files.call_s3("list_objects_v2", Bucket=bucket, Prefix=prefix, MaxKeys=1)

    def put(self, full: str, content: bytes) -> None:
        """Store a small file."""
        self.call("put_object", full, Body=content)

    def create(self, full: str) -> str:
        """Begin an upload in parts; its id."""
        return str(self.call("create_multipart_upload", full)["UploadId"])

    def put_part(self, full: str, upload_id: str, part_number: int, content: bytes) -> Part:
        """Store a part."""
        answer = self.call("upload_part", full, UploadId=upload_id, PartNumber=part_number, Body=content)
        return Part(part_number, answer["ETag"])

    def complete(self, full: str, upload_id: str, parts: Sequence[Part]) -> None:
        """Make the file of its parts, which appears at once."""
        told = [{"PartNumber": part.part_number, "ETag": part.etag} for part in sorted(parts, key=lambda part: part.part_number)]
        self.call("complete_multipart_upload", full, UploadId=upload_id, MultipartUpload={"Parts": told})

    def abort(self, full: str, upload_id: str) -> None:
        """Forget an upload and its parts."""
        self.call("abort_multipart_upload", full, UploadId=upload_id)

    def parts(self, full: str, upload_id: str) -> Iterator[Mapping[str, Any]]:
        """What S3 has of an upload."""
        after: dict[str, int] = {}
        while True:
            page = self.call("list_parts", full, UploadId=upload_id, **after)
            yield from page.get("Parts", ())
            if not page.get("IsTruncated"):
                return
            after = {"PartNumberMarker": int(page["NextPartNumberMarker"])}

    def part_urls(self, full: str, upload_id: str, n_parts: int) -> tuple[str, ...]:
        """Where a client sends each part by itself, without credentials, for an hour."""
        numbers = range(1, n_parts + 1)
        sign = partial(self._files.url, full, expires=_SIGNED_FOR_S, client_method="upload_part", UploadId=upload_id)
        return tuple(str(sign(PartNumber=number)) for number in numbers)

    def complete_checked(self, full: str, upload_id: str, parts: Sequence[Part], max_bytes: int) -> None:
        """Complete what a client has sent by itself, unless it is too large.

        Raises:
            NotFound: there is no such upload.
            InvalidValue: the parts are not those that were sent.
            TooLarge: together they are over `max_bytes`; nothing stays of them.
        """
        with _of_a_client(upload_id):
            if sum(part["Size"] for part in self.parts(full, upload_id)) > max_bytes:
                self.abort(full, upload_id)
                raise TooLarge(f"The artifact is over {max_bytes} bytes.", hint="SWEEP_UPLOAD_MAX_BYTES sets the limit.")
            self.complete(full, upload_id, parts)

    def abort_checked(self, full: str, upload_id: str) -> None:
        """Forget what a client has sent by itself.

        Raises:
            NotFound: there is no such upload.
        """
        with _of_a_client(upload_id):
            self.abort(full, upload_id)

    def file_url(self, full: str, **answering: str) -> str:
        """Where a client reads a file by itself, for an hour."""
        return str(self._files.url(full, expires=_SIGNED_FOR_S, **answering))

    def call(self, method: str, full: str, **arguments: Any) -> Mapping[str, Any]:
        """Call S3 about one key."""
        bucket, _, key = full.partition("/")
        answer: Mapping[str, Any] = self._files.call_s3(method, Bucket=bucket, Key=key, **arguments)
        return answer


class S3Half:
    """What has come of a file: parts that S3 has, and what is too little for one."""

    def __init__(self, s3: S3, full: str, part_bytes: int) -> None:
        self._s3 = s3
        self._full = full
        self._part_bytes = part_bytes
        self._pending = bytearray()
        self._upload_id = ""
        self._parts: list[Part] = []

    def write(self, chunk: bytes) -> None:
        """Add a piece."""
        self._pending += chunk
        while len(self._pending) > self._part_bytes:
            self._send_part(self._part_bytes)

    def publish(self) -> None:
        """Let it appear."""
        if not self._upload_id:
            with bucket_needed():
                self._s3.put(self._full, bytes(self._pending))
            return
        self._send_part(len(self._pending))
        with bucket_needed():
            self._s3.complete(self._full, self._upload_id, self._parts)

    def discard(self) -> None:
        """Forget it."""
        if self._upload_id:
            self._s3.abort(self._full, self._upload_id)

    def _send_part(self, size_bytes: int) -> None:
        # All but the last are of one size: not every store that speaks S3's protocol takes others.
        content = bytes(self._pending[:size_bytes])
        del self._pending[:size_bytes]
        with bucket_needed():
            self._upload_id = self._upload_id or self._s3.create(self._full)
            self._parts.append(self._s3.put_part(self._full, self._upload_id, len(self._parts) + 1, content))


@contextmanager
def bucket_needed() -> Iterator[None]:
    """Tell a bucket that is not there, where nothing else can be missing.

    Raises:
        ArtifactsRefused: it is not there.
    """
    try:
        yield
    except FileNotFoundError as error:
        raise ArtifactsRefused(f"The place of artifacts and snapshots is not there: {error}.") from error


@contextmanager
def _of_a_client(upload_id: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise NotFound(f"There is no multipart upload {upload_id!r} of this artifact.") from None
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        raise InvalidValue(f"The parts of the upload can't be put together: {error.strerror or error}") from None
