"""Follows the two output files of an attempt and cuts them into chunks for the record.

The record keeps at most so many bytes of each stream: the beginning, one line that says where it is cut, and, once the attempt has
ended, the last 64 KiB. Offsets count the bytes *of the record*: they are those of the file up to the cut, and go on without a gap
after it, so that a reader of the record never has to know.
"""

import os
from pathlib import Path
from typing import Final, Literal

from msgspec import Struct

from tracking.records import LogChunk
from worker.folders import file_size, open_file
from worker.runtimes.base import STDERR, STDOUT

CHUNK_BYTES: Final = 64 * 1024
TAIL_BYTES: Final = 64 * 1024
_POLL_BYTES: Final = 1024 * 1024
_TRACEBACK: Final = "Traceback (most recent call last):"
_MESSAGE_LINES: Final = 12
_NO_ERRORS: Final = ("wandb (stand-in): ", "sweep_client: ")
"""What our own modules tell a script's user in between."""
"""How much of one stream is taken at a time, so that a flood in one attempt does not starve the others."""


def read_from(path: Path, offset: int, limit: int) -> bytes:
    """What a file holds from an offset on, at most `limit` bytes; nothing if it is not there (yet)."""
    # Most looks find nothing new: then the file is not even opened.
    if file_size(path) <= offset or (descriptor := open_file(path)) is None:
        return b""
    with os.fdopen(descriptor, "rb") as file:
        file.seek(offset)
        return file.read(limit)


class FollowState(Struct, frozen=True):
    """Where a follower stands, to go on from after a restart.

    Attributes:
        stdout: bytes of the stream that went into the record.
        is_stdout_cut: whether the line that marks the cut is among them.
    """

    stdout: int = 0
    stderr: int = 0
    is_stdout_cut: bool = False
    is_stderr_cut: bool = False


class OutputFollower:
    """Follows an attempt's output; made for one thread.

    Args:
        folder: the attempt's folder.
        max_bytes: how much of each stream the record keeps, the tail included.
        state: where an earlier follower stood.
    """

    def __init__(self, folder: Path, max_bytes: int, state: FollowState | None = None) -> None:
        state = state or FollowState()
        head_bytes = max(max_bytes - TAIL_BYTES, 0)
        self._stdout = _Stream("stdout", folder / STDOUT, head_bytes, state.stdout, is_cut=state.is_stdout_cut)
        self._stderr = _Stream("stderr", folder / STDERR, head_bytes, state.stderr, is_cut=state.is_stderr_cut)

    def poll(self) -> list[LogChunk]:
        """What is new: of each stream at most 1 MiB at a time; call again while it answers."""
        return self._stdout.poll() + self._stderr.poll()

    def finish(self) -> list[LogChunk]:
        """All the rest, once the attempt has ended; bounded by what the record keeps."""
        return self._stdout.finish() + self._stderr.finish()

    def state(self) -> FollowState:
        """Where this follower stands."""
        return FollowState(self._stdout.recorded, self._stderr.recorded, self._stdout.is_cut, self._stderr.is_cut)


class _Stream:
    def __init__(self, name: Literal["stdout", "stderr"], path: Path, head_bytes: int, recorded: int, *, is_cut: bool) -> None:
        self._name: Literal["stdout", "stderr"] = name
        self._path = path
        self._head_bytes = head_bytes
        self.recorded = recorded
        self.is_cut = is_cut

    def poll(self) -> list[LogChunk]:
        if self.is_cut:
            return []
        room = self._head_bytes - self.recorded
        data = read_from(self._path, self.recorded, min(room, _POLL_BYTES))
        chunks = self._record(data)
        if len(data) == room and self._size() > self._head_bytes:
            self.is_cut = True
            chunks += self._record(_cut_line(self._head_bytes))
        return chunks

    def finish(self) -> list[LogChunk]:
        chunks = []
        while news := self.poll():
            chunks += news
        if self.is_cut:
            tail_at = max(self._size() - TAIL_BYTES, self._head_bytes)
            chunks += self._record(read_from(self._path, tail_at, TAIL_BYTES))
        return chunks

    def _record(self, data: bytes) -> list[LogChunk]:
        chunks = []
        for start in range(0, len(data), CHUNK_BYTES):
            piece = data[start : start + CHUNK_BYTES]
            chunks.append(LogChunk(self._name, self.recorded, piece))
            self.recorded += len(piece)
        return chunks

    def _size(self) -> int:
        return file_size(self._path)


def _cut_line(head_bytes: int) -> bytes:
    return f"\n[output after the first {head_bytes} bytes is left out; its last {TAIL_BYTES} bytes follow when the run has ended]\n".encode()


def last_error_line(folder: Path, limit: int = 300) -> str:
    """The line of an attempt's error output that says best why it ended: a last traceback's error, or else the last line."""
    size = file_size(folder / STDERR)
    text = read_from(folder / STDERR, max(size - 8192, 0), 8192).decode("utf-8", "replace")
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith(_NO_ERRORS)]
    found = lines[-1] if lines else ""
    for place, line in enumerate(lines):
        if line.strip() == _TRACEBACK:
            after = lines[place + 1 :]
            of_error = next((row for row, inner in enumerate(after) if not inner[0].isspace()), None)
            # Its message may have more lines, such as advice for debugging. Far from the end it was caught, and something else came later.
            found = after[of_error] if of_error is not None and len(after) - of_error <= _MESSAGE_LINES else lines[-1]
    return found.strip()[:limit]
