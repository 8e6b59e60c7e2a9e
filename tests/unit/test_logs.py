"""Following output: nothing lacks, nothing is doubled, and a flood is cut where the record says so."""

from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracking.records import LogChunk
from worker.logs import CHUNK_BYTES, TAIL_BYTES, OutputFollower, last_error_line

MIB = 1024 * 1024


def joined(chunks: Iterable[LogChunk], stream: str = "stdout") -> bytes:
    """What a record holds that takes chunks in order, each where the last one ended."""
    data = b""
    for chunk in chunks:
        if chunk.stream == stream:
            assert chunk.offset == len(data)
            assert 0 < len(chunk.data) <= CHUNK_BYTES
            data += chunk.data
    return data


def append(path: Path, data: bytes) -> None:
    """Write as a trial does."""
    with path.open("ab") as file:
        file.write(data)


def test_logs_follow_both_streams(tmp_path: Path) -> None:
    """What is new comes once, with its place in its stream."""
    follower = OutputFollower(tmp_path, MIB)
    assert follower.poll() == []
    append(tmp_path / "stdout", b"one\n")
    append(tmp_path / "stderr", b"warning\n")
    assert follower.poll() == [LogChunk("stdout", 0, b"one\n"), LogChunk("stderr", 0, b"warning\n")]
    assert follower.poll() == []
    append(tmp_path / "stdout", b"two")
    assert follower.finish() == [LogChunk("stdout", 4, b"two")]


def test_logs_come_in_bounded_chunks(tmp_path: Path) -> None:
    """A lot at once is cut into chunks, and one look takes at most 1 MiB of a stream."""
    append(tmp_path / "stdout", bytes(range(256)) * 4096 * 2)
    follower = OutputFollower(tmp_path, 8 * MIB)
    first = follower.poll()
    assert len(joined(first)) == MIB
    assert joined(first + follower.finish()) == (tmp_path / "stdout").read_bytes()


def test_logs_are_cut_when_there_is_too_much(tmp_path: Path) -> None:
    """Of a flood the record keeps the beginning, a line that says so, and the end."""
    output = b"".join(b"line %d\n" % number for number in range(100_000))
    append(tmp_path / "stdout", output)
    follower = OutputFollower(tmp_path, 300_000)
    live = follower.poll() + follower.poll()
    head = 300_000 - TAIL_BYTES
    assert joined(live).startswith(output[:head])
    marker = joined(live)[head:]
    assert marker.startswith(b"\n[output after the first %d bytes is left out" % head)
    assert marker.count(b"\n") == 2
    assert follower.poll() == []
    record = joined(live + follower.finish())
    assert record == output[:head] + marker + output[-TAIL_BYTES:]


def test_logs_repeat_nothing_when_little_follows_the_cut(tmp_path: Path) -> None:
    """An end shorter than what is kept of it begins right after the beginning."""
    head = 100_000 - TAIL_BYTES
    output = b"x" * head + b"the end"
    append(tmp_path / "stdout", output)
    record = joined(OutputFollower(tmp_path, 100_000).finish())
    assert record.startswith(b"x" * head + b"\n[output")
    assert record.endswith(b"]\nthe end")


def test_logs_are_whole_when_they_just_fit(tmp_path: Path) -> None:
    """Nothing is cut that fits before the end part."""
    output = b"x" * (100_000 - TAIL_BYTES)
    append(tmp_path / "stderr", output)
    assert joined(OutputFollower(tmp_path, 100_000).finish(), "stderr") == output


@given(st.lists(st.tuples(st.integers(1, 90_000), st.booleans()), max_size=6))
def test_logs_go_on_after_restart(tmp_path_factory: object, pieces: list[tuple[int, bool]]) -> None:
    """A follower that starts from another's state misses and repeats nothing, on either side of the cut."""
    folder = tmp_path_factory.mktemp("attempt")  # type: ignore[attr-defined]
    follower = OutputFollower(folder, 150_000)
    chunks: list[LogChunk] = []
    for size, is_restarted in pieces:
        append(folder / "stdout", bytes(number % 251 for number in range(size)))
        chunks += follower.poll()
        if is_restarted:
            follower = OutputFollower(folder, 150_000, follower.state())
    chunks += follower.finish()
    output = (folder / "stdout").read_bytes() if pieces else b""
    head = 150_000 - TAIL_BYTES
    record = joined(chunks)
    if len(output) <= head:
        assert record == output
    else:
        assert record.startswith(output[:head] + b"\n[output")
        assert record.endswith(b"]\n" + output[max(len(output) - TAIL_BYTES, head) :])


def test_logs_last_error_line_is_the_error_itself(tmp_path: Path) -> None:
    """Of a traceback the last line says what happened; without error output there is nothing to say."""
    assert last_error_line(tmp_path) == ""
    append(tmp_path / "stderr", b"x" * 20_000 + b"\nTraceback (most recent call last):\n  ...\nValueError: no \xff such\n\n")
    assert last_error_line(tmp_path) == "ValueError: no \ufffd such"
    assert last_error_line(tmp_path, limit=10) == "ValueError"


@pytest.mark.parametrize(
    ("output", "found"),
    [
        ("Traceback (most recent call last):\n  x\nRuntimeError: CUDA error\nFor debugging consider this.\nCompile with that.\n", "RuntimeError: CUDA error"),
        ("Traceback (most recent call last):\n  x\nKeyError: 1\n\nDuring it:\n\nTraceback (most recent call last):\n  x\nOSError: 2\n", "OSError: 2"),
        ("Traceback (most recent call last):\n  x\nOSError: tried again\n" + "later\n" * 12 + "no data\n", "no data"),
        ("no data\nwandb (stand-in): nothing is sent to W&B\nsweep_client: the server is away\n", "no data"),
        ("sweep_client: the server is away\n", ""),
        ("Traceback (most recent call last):\n  cut off here\n", "cut off here"),
    ],
)
def test_logs_last_error_line_is_the_error_when_other_lines_follow(tmp_path: Path, output: str, found: str) -> None:
    """Advice of a message's further lines is no error, nor is what our own modules say, nor a traceback that was caught long before."""
    append(tmp_path / "stderr", output.encode())
    assert last_error_line(tmp_path) == found
