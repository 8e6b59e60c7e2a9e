"""A stored file as an answer: which bytes, under which name, and the file closed in the end."""

import io
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import Request

from tracking.artifacts import StoredFile
from tracking.downloads import UnsatisfiableRangeError, asked_range, attachment, file_response


class Unread(io.BytesIO):
    """A file that may be closed, and nothing else."""

    def read(self, *_: Any) -> bytes:
        """Fail."""
        raise AssertionError("nobody asked for the bytes")


def request(method: str, **headers: str) -> Request:
    """A request with these headers."""
    return Request({"type": "http", "method": method, "headers": [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]})


def stored(content: io.BytesIO, size_bytes: int = 10) -> StoredFile:
    """A file of the store."""
    return StoredFile(content, size_bytes, "v1", datetime(2001, 2, 3, 4, 5, 6, tzinfo=UTC))


@given(st.integers(0, 40), st.one_of(st.none(), st.integers(0, 40)), st.one_of(st.none(), st.integers(0, 40)))
def test_asked_range_is_what_the_header_means(size: int, first: int | None, last: int | None) -> None:
    """The bytes that slices of Python would give, of any file; nothing is a refusal, nonsense is everything."""
    content = bytes(range(size))
    text = f"bytes={'' if first is None else first}-{'' if last is None else last}"
    if (first is None and last is None) or (first is not None and last is not None and last < first):
        assert asked_range(text, size) is None
        return
    expected = content[-last:] if first is None and last else content[:0] if first is None else content[first : None if last is None else last + 1]
    try:
        asked = asked_range(text, size)
    except UnsatisfiableRangeError:
        assert expected == b""
        return
    assert asked is not None
    assert content[asked.start : asked.stop] == expected != b""
    assert asked.stop <= size


@pytest.mark.parametrize("text", ["", "bytes", "bytes=", "bytes=a-b", "bytes=1-2,3-4", "lines=1-2", "bytes=-", "bytes=" + "9" * 5000 + "-", "bytes=\u0661-"])
def test_asked_range_is_everything_when_it_is_not_understood(text: str) -> None:
    """RFC 9110: a server may ignore what it does not know."""
    assert asked_range(text, 10) is None


@given(st.text(st.characters(codec="utf-8", exclude_characters="/\x00"), min_size=1))
def test_attachment_can_be_a_header(name: str) -> None:
    """Whatever a file is called: one line of Latin letters, its quotes closed."""
    value = attachment(name)
    assert value.isascii()
    assert value.startswith("attachment; filename=")


def test_head_reads_nothing_and_closes_the_file() -> None:
    """Of a file of any size."""
    content = Unread()
    response = file_response(request("HEAD"), stored(content), media_type="text/plain", headers={"X": "y"})
    assert (response.status_code, response.body, response.headers["content-length"], response.headers["x"]) == (200, b"", "10", "y")
    assert content.closed


def test_range_that_is_not_there_closes_the_file() -> None:
    """It is not asked for a byte."""
    content = Unread()
    response = file_response(request("GET", range="bytes=10-"), stored(content), media_type="text/plain", headers={})
    assert (response.status_code, response.headers["content-range"]) == (416, "bytes */10")
    assert content.closed


@pytest.mark.parametrize("told", ["Sat, 03 Feb 2001 04:05:06 GMT", None, "Sat, 03 Feb 2001 04:05:07 GMT"])
def test_range_is_of_the_file_that_was_begun(told: str | None) -> None:
    """By its time too, if it is the same to the second; else the whole is sent."""
    headers = {"range": "bytes=2-"} | ({} if told is None else {"if_range": told})
    response = file_response(request("GET", **headers), stored(io.BytesIO(b"0123456789")), media_type="text/plain", headers={})
    assert response.status_code == (200 if told and "07" in told else 206)
