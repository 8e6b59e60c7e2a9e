"""A TCP proxy that breaks on purpose: cuts, refuses, hangs, delays, drops; for Postgres also exactly around a COMMIT.

One thread accepts, two carry each connection. Everything is switched while it runs, from any thread, and takes effect at once.
"""

import contextlib
import re
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final, Literal, Self

from tests.support.services import wait_until

Direction = Literal["to_server", "to_client"]
Fate = Literal["lose_reply", "lose_commit"]

_CHUNK: Final = 1 << 16
_RESET: Final = struct.pack("ii", 1, 0)
"""SO_LINGER on, for zero seconds: closing sends RST instead of FIN."""


class Link:
    """One connection through a proxy: the client's side and the server's."""

    def __init__(self, client: socket.socket) -> None:
        self.client = client
        self.server: socket.socket | None = None
        self.is_cut = False
        self.has_lost_bytes = False
        self._lock = threading.Lock()

    def join(self, server: socket.socket) -> bool:
        """Have a server's side; False if the link was cut meanwhile."""
        with self._lock:
            if not self.is_cut:
                self.server = server
            else:
                server.close()
        return not self.is_cut

    def cut(self) -> None:
        """Reset both sides; safe from any thread, more than once."""
        with self._lock:
            if self.is_cut:
                return
            self.is_cut = True
            ends = [end for end in (self.client, self.server) if end is not None]
        for end in ends:
            # A thread that waits in recv() is woken by shutdown, not by close. Not connected any more: nothing to wake.
            end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RD)
            end.close()


class Proxy:
    """Listens on a port and carries each connection to a target, as well as it is told to.

    Args:
        host: the address to listen on; another than loopback's only in a network namespace of the test's own.

    Attributes:
        port: where it listens, from the start to `close`; refusing does not change it.
        n_connections: how many it has accepted.
    """

    def __init__(self, target_host: str, target_port: int, *, host: str = "127.0.0.1") -> None:
        self.host = host
        self.target = (target_host, target_port)
        self._changed = threading.Condition()
        self._links: set[Link] = set()
        self._hangs = False
        self._delay_s = 0.0
        self._dropped: set[Direction] = set()
        self._is_closed = False
        self.n_connections = 0
        self._listener: socket.socket | None = self._listen(0)
        self.port: int = self._listener.getsockname()[1]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- what a test says --------------------------------------------------------------------------------------

    def pass_through(self) -> None:
        """Carry everything again. Connections that lost bytes meanwhile are reset: nobody could make sense of the rest."""
        with self._changed:
            self._hangs, self._delay_s = False, 0.0
            self._dropped.clear()
            lossy = [link for link in self._links if link.has_lost_bytes]
            if self._listener is None and not self._is_closed:
                self._listener = self._listen(self.port)
            self._changed.notify_all()
        self._cut(*lossy)

    def cut(self) -> int:
        """Reset all connections now, and take new ones; how many there were."""
        with self._changed:
            links = list(self._links)
        self._cut(*links)
        return len(links)

    def refuse(self) -> None:
        """Refuse new connections; those that stand go on, until `cut`."""
        with self._changed:
            listener, self._listener = self._listener, None
        if listener is not None:
            _close_listener(listener)

    def hang(self) -> None:
        """Half-open: accept and keep connections, carry nothing, say nothing. What was held is carried by `pass_through`."""
        with self._changed:
            self._hangs = True

    def delay(self, seconds: float) -> None:
        """Carry everything so much later, each piece in each direction."""
        with self._changed:
            self._delay_s = seconds

    def drop(self, direction: Direction) -> None:
        """Let every byte of one direction vanish, as on a path that works one way only."""
        with self._changed:
            self._dropped.add(direction)

    def close(self) -> None:
        """Let go of everything."""
        self._is_closed = True
        self.refuse()
        self.cut()

    def _cut(self, *links: Link) -> None:
        for link in links:
            link.cut()
        with self._changed:
            self._changed.notify_all()

    # -- carrying ------------------------------------------------------------------------------------------------

    def _listen(self, port: int) -> socket.socket:
        listener = socket.create_server((self.host, port), backlog=256)
        threading.Thread(target=self._accept, args=(listener,), daemon=True).start()
        return listener

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            link = Link(client)
            with self._changed:
                self._links.add(link)
                self.n_connections += 1
            threading.Thread(target=self._serve, args=(link,), daemon=True).start()

    def _serve(self, link: Link) -> None:
        """Connect onwards and carry both ways until an end is reached; one side's end is both sides' end."""
        try:
            # While the proxy hangs, the server does not see a connection either.
            if not self._may_pass(link):
                return
            server = socket.create_connection(self.target, timeout=10)
            server.settimeout(None)
            server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if not link.join(server):
                return
            back = threading.Thread(target=self._carry, args=(link, server, link.client, "to_client", self._answers(link)), daemon=True)
            back.start()
            self._carry(link, link.client, server, "to_server", self._requests(link))
            back.join()
        except OSError:
            return
        finally:
            self._cut(link)
            with self._changed:
                self._links.discard(link)

    def _carry(self, link: Link, source: socket.socket, target: socket.socket, direction: Direction, pieces: Callable[[bytes], Iterator[bytes]]) -> None:
        try:
            while chunk := source.recv(_CHUNK):
                for piece in pieces(chunk):
                    if not self._may_pass(link):
                        return
                    if direction in self._dropped:
                        link.has_lost_bytes = True
                        continue
                    target.sendall(piece)
            if self._may_pass(link) and direction not in self._dropped:
                target.shutdown(socket.SHUT_WR)
        except OSError:
            # A reset by one side, or by us: the other one is to see it as well.
            if self._may_pass(link):
                self._cut(link)

    def _may_pass(self, link: Link) -> bool:
        """Wait for as long as the proxy hangs or delays; False once the link is cut."""
        with self._changed:
            if self._delay_s:
                self._changed.wait_for(lambda: link.is_cut, self._delay_s)
            self._changed.wait_for(lambda: link.is_cut or not self._hangs)
        return not link.is_cut

    def _requests(self, link: Link) -> Callable[[bytes], Iterator[bytes]]:
        return lambda chunk: iter((chunk,))

    def _answers(self, link: Link) -> Callable[[bytes], Iterator[bytes]]:
        return lambda chunk: iter((chunk,))


@dataclass
class Strike:
    """One COMMIT that is to go wrong, as `PostgresProxy.on_commit` says.

    Attributes:
        seen: statements of the transaction that was struck, once it was.
    """

    fate: Fate
    nth: int
    matching: bytes
    n_matched: int = 0
    seen: tuple[bytes, ...] = ()
    _struck: threading.Event = field(default_factory=threading.Event)

    @property
    def is_struck(self) -> bool:
        """Whether it has happened."""
        return self._struck.is_set()

    def wait(self, deadline_s: float = 60.0) -> None:
        """Wait until it has happened.

        Raises:
            TimeoutError: no such COMMIT came.
        """
        wait_until(self._struck.is_set, f"commit {self.nth} of a transaction with {self.matching!r} is struck ({self.n_matched} seen)", deadline_s=deadline_s)

    def strikes(self, statements: tuple[bytes, ...]) -> bool:
        """Whether this transaction is the one."""
        if self.is_struck or not any(self.matching in statement for statement in statements):
            return False
        self.n_matched += 1
        if self.n_matched != self.nth:
            return False
        self.seen = statements
        return True

    def mark(self) -> None:
        """It has happened."""
        self._struck.set()


class PostgresProxy(Proxy):
    """A proxy that reads along in Postgres' protocol, as far as it tells transactions apart.

    Source: the Message Flow and Message Formats pages of Postgres' manual. Simple queries, which is what psycopg2 sends.

    Attributes:
        n_commits: transactions whose COMMIT arrived here, single statements outside of a transaction among them.
    """

    def __init__(self, target_host: str, target_port: int, *, host: str = "127.0.0.1") -> None:
        self.n_commits = 0
        self._strikes: list[Strike] = []
        self._replies_lost: dict[Link, Strike] = {}
        super().__init__(target_host, target_port, host=host)

    def on_commit(self, fate: Fate, nth: int = 1, matching: bytes = b"attempts") -> Strike:
        """Break the connection exactly around a COMMIT, once.

        Args:
            fate: `lose_reply`: the server commits, and the client never hears of it. `lose_commit`: the COMMIT never arrives, the server rolls back.
            nth: which of the transactions from now on that match.
            matching: what some statement of the transaction contains.
        """
        strike = Strike(fate, nth, matching)
        with self._changed:
            self._strikes.append(strike)
        return strike

    def _requests(self, link: Link) -> Callable[[bytes], Iterator[bytes]]:
        reader = _Reader()

        def pieces(chunk: bytes) -> Iterator[bytes]:
            for message in reader.feed(chunk):
                statements = reader.committed(message)
                if statements is None or self._commit(link, statements):
                    yield message

        return pieces

    def _commit(self, link: Link, statements: tuple[bytes, ...]) -> bool:
        """Whether a COMMIT is to be carried."""
        with self._changed:
            self.n_commits += 1
            # Each counts for itself: a list, not a generator that stops at the first.
            struck = [strike for strike in self._strikes if strike.strikes(statements)]
            if struck and struck[0].fate == "lose_reply":
                self._replies_lost[link] = struck[0]
                return True
        if not struck:
            return True
        self._cut(link)
        struck[0].mark()
        return False

    def _answers(self, link: Link) -> Callable[[bytes], Iterator[bytes]]:
        def pieces(chunk: bytes) -> Iterator[bytes]:
            # The first word after that COMMIT: it is done. (The client waits for it, so nothing else is under way.)
            strike = self._replies_lost.pop(link, None)
            if strike is None:
                yield chunk
                return
            self._cut(link)
            strike.mark()

        return pieces


_PLAIN_START: Final = 3 << 16
"""Protocol 3.0: after that packet every message begins with a byte for its type. Requests for TLS and the like come before it."""
_OPENS: Final = re.compile(rb"\s*(BEGIN|START\s+TRANSACTION)\b", re.IGNORECASE)
_COMMITS: Final = re.compile(rb"(^|;)\s*(COMMIT|END)\s*;?\s*$", re.IGNORECASE)
_ROLLS_BACK: Final = re.compile(rb"\s*(ROLLBACK|ABORT)\s*;?\s*$", re.IGNORECASE)
_IS_NO_WRITE: Final = re.compile(rb"\s*(SET|SHOW|RESET|LISTEN|UNLISTEN|DISCARD)\b", re.IGNORECASE)


class _Reader:
    """The client's half of one conversation: messages, and the statements of its transactions."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._is_started = False
        self._statements: list[bytes] = []
        self._is_open = False

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        """Whole messages, in order; what is not whole yet waits."""
        self._buffer += chunk
        while (size := self._size()) is not None and len(self._buffer) >= size:
            message = bytes(self._buffer[:size])
            del self._buffer[:size]
            if not self._is_started and message[4:8] == _PLAIN_START.to_bytes(4, "big"):
                self._is_started = True
            yield message

    def _size(self) -> int | None:
        head = 1 if self._is_started else 0
        if len(self._buffer) < head + 4:
            return None
        return head + int.from_bytes(self._buffer[head : head + 4], "big")

    def committed(self, message: bytes) -> tuple[bytes, ...] | None:
        """The statements that this message commits; None if it commits nothing."""
        if not self._is_started or message[:1] != b"Q":
            return None
        text = message[5:].rstrip(b"\0")
        if _ROLLS_BACK.match(text):
            self._statements, self._is_open = [], False
            return None
        self._is_open = self._is_open or _OPENS.match(text) is not None
        self._statements.append(text)
        if self._is_open and not _COMMITS.search(text):
            return None
        done, self._statements, self._is_open = tuple(self._statements), [], False
        # Outside of a transaction each statement commits itself.
        return None if len(done) == 1 and _IS_NO_WRITE.match(done[0]) else done


def _close_listener(listener: socket.socket) -> None:
    # accept() in another thread is woken by shutdown, not by close.
    with contextlib.suppress(OSError):
        listener.shutdown(socket.SHUT_RDWR)
    listener.close()
