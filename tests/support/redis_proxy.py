"""A proxy that reads along in Redis' protocol and decides what becomes of each message that is pushed to a queue.

Source: the RESP protocol's specification; clients send arrays of bulk strings. A push is answered with a number, whatever is pushed
where, so one can be turned into another without the client's noticing: into a list where nobody reads, or into three of the same.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Final

from tests.support.proxy import Link, Proxy

DROPPED: Final = b"dropped"
"""The list where pushes go that are to get lost, and those that come later."""

Fate = Callable[[bytes, bytes], int]
"""How often a message (queue, payload) is to arrive: 0 for not at all."""


class RedisProxy(Proxy):
    """Carries everything but messages to queues of workers as it is; what becomes of those is `fate`'s word.

    Attributes:
        n_pushed: how many messages have come by.
        lost: queue and payload of those that were not carried.
    """

    def __init__(self, target_port: int, fate: Fate) -> None:
        self.fate = fate
        self.n_pushed = 0
        self.lost: list[tuple[bytes, bytes]] = []
        super().__init__("127.0.0.1", target_port)

    def take(self) -> list[tuple[bytes, bytes]]:
        """What was lost since the last time, to be sent after all."""
        with self._changed:
            taken, self.lost = self.lost, []
        return taken

    def _requests(self, link: Link) -> Callable[[bytes], Iterator[bytes]]:
        del link
        buffer = bytearray()

        def pieces(chunk: bytes) -> Iterator[bytes]:
            buffer.extend(chunk)
            while (found := _command(buffer)) is not None:
                words, size = found
                raw = bytes(buffer[:size])
                del buffer[:size]
                yield raw if words[0].upper() != b"LPUSH" or not words[1].startswith(b"sweep.worker.") else self._push(words[1], words[2])

        return pieces

    def _push(self, queue: bytes, payload: bytes) -> bytes:
        with self._changed:
            self.n_pushed += 1
            times = self.fate(queue, payload)
            if not times:
                self.lost.append((queue, payload))
        return _request(b"LPUSH", queue, *[payload] * times) if times else _request(b"LPUSH", DROPPED, payload)


def _command(buffer: bytearray) -> tuple[Sequence[bytes], int] | None:
    """The first whole command and how many bytes it takes; None if it has not all come."""
    head, at = _line(buffer, 0)
    if head is None:
        return None
    assert head[:1] == b"*", f"not a client's command: {head!r}"
    words: list[bytes] = []
    for _ in range(int(head[1:])):
        size, begin = _line(buffer, at)
        if size is None:
            return None
        at = begin + int(size[1:]) + 2
        if len(buffer) < at:
            return None
        words.append(bytes(buffer[begin : at - 2]))
    return words, at


def _line(buffer: bytearray, begin: int) -> tuple[bytes | None, int]:
    end = buffer.find(b"\r\n", begin)
    return (None, begin) if end < 0 else (bytes(buffer[begin:end]), end + 2)


def _request(*words: bytes) -> bytes:
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in words)
