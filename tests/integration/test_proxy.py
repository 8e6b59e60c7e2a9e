"""The proxy of the fault suite: what it does to connections, and to Postgres around a COMMIT."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import psycopg2
import pytest

from tests.support.postgres import OwnPostgres, make_template
from tests.support.proxy import Direction, Fate, PostgresProxy, Proxy

SILENT_S = 0.3
"""How long nothing is to be heard for it to count as silence."""


@contextmanager
def echo_server() -> Iterator[int]:
    """Sends back what it gets; its port."""
    listener = socket.create_server(("127.0.0.1", 0))

    def answer(client: socket.socket) -> None:
        with client, suppress(OSError):
            while chunk := client.recv(65536):
                client.sendall(chunk)

    def accept() -> None:
        with suppress(OSError):
            while True:
                threading.Thread(target=answer, args=(listener.accept()[0],), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    yield listener.getsockname()[1]
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    """A proxy before an echo."""
    with echo_server() as port, Proxy("127.0.0.1", port) as made:
        yield made


@contextmanager
def connected(proxy: Proxy) -> Iterator[socket.socket]:
    """A connection through the proxy."""
    with socket.create_connection(("127.0.0.1", proxy.port), timeout=10) as connection:
        yield connection


def echoed(connection: socket.socket, text: bytes) -> bytes:
    """What comes back."""
    connection.sendall(text)
    return received(connection, len(text))


def received(connection: socket.socket, n_bytes: int) -> bytes:
    """Exactly so many bytes."""
    found = b""
    while len(found) < n_bytes and (chunk := connection.recv(n_bytes - len(found))):
        found += chunk
    return found


def is_silent(connection: socket.socket) -> bool:
    """Whether nothing comes, not even an end."""
    connection.settimeout(SILENT_S)
    try:
        connection.recv(1)
    except TimeoutError:
        return True
    finally:
        connection.settimeout(10)
    return False


def test_proxy_carries_both_ways_and_passes_an_end_on(proxy: Proxy) -> None:
    """Whole and in order, more than a buffer; half a close is half a close on the other side."""
    text = bytes(range(256)) * 4096
    with connected(proxy) as connection:
        sender = threading.Thread(target=connection.sendall, args=(text,))
        sender.start()
        assert received(connection, len(text)) == text
        sender.join()
        connection.shutdown(socket.SHUT_WR)
        assert connection.recv(1) == b""
    assert proxy.n_connections == 1


def test_proxy_cut_resets_what_stands_and_takes_what_comes(proxy: Proxy) -> None:
    """A reset, not an end; the next connection works."""
    with connected(proxy) as connection:
        assert echoed(connection, b"one") == b"one"
        assert proxy.cut() == 1
        with pytest.raises(ConnectionResetError):
            connection.recv(1)
    with connected(proxy) as connection:
        assert echoed(connection, b"two") == b"two"


def test_proxy_refuses_new_connections_until_it_passes_through_again(proxy: Proxy) -> None:
    """On the same port; a connection that stands is left alone."""
    with connected(proxy) as standing:
        assert echoed(standing, b"one") == b"one"
        proxy.refuse()
        with pytest.raises(ConnectionRefusedError), connected(proxy):
            pass
        assert echoed(standing, b"two") == b"two"
    proxy.pass_through()
    with connected(proxy) as connection:
        assert echoed(connection, b"three") == b"three"


def test_proxy_hangs_half_open_and_carries_what_it_held_afterwards(proxy: Proxy) -> None:
    """Old and new connections stand and are silent; nothing is lost once it is over."""
    with connected(proxy) as old:
        assert echoed(old, b"one") == b"one"
        proxy.hang()
        with connected(proxy) as new:
            old.sendall(b"two")
            new.sendall(b"three")
            assert is_silent(old)
            assert is_silent(new)
            proxy.pass_through()
            assert received(old, 3) == b"two"
            assert received(new, 5) == b"three"


def test_proxy_cut_ends_what_hangs(proxy: Proxy) -> None:
    """A connection whose bytes are held is reset as well."""
    with connected(proxy) as connection:
        assert echoed(connection, b"one") == b"one"
        proxy.hang()
        connection.sendall(b"two")
        assert is_silent(connection)
        proxy.cut()
        with pytest.raises(ConnectionResetError):
            connection.recv(1)


def test_proxy_delays_each_direction(proxy: Proxy) -> None:
    """There and back takes twice the delay."""
    with connected(proxy) as connection:
        assert echoed(connection, b"one") == b"one"
        proxy.delay(0.2)
        began = time.monotonic()
        assert echoed(connection, b"two") == b"two"
        assert time.monotonic() - began >= 0.4


@pytest.mark.parametrize("direction", ["to_server", "to_client"])
def test_proxy_drops_one_direction_and_resets_what_has_lost_bytes(proxy: Proxy, direction: Direction) -> None:
    """What vanished can't be made good: such a connection is reset when the path works again, others are not."""
    with connected(proxy) as connection, connected(proxy) as idle:
        assert echoed(connection, b"one") == b"one"
        assert echoed(idle, b"one") == b"one"
        proxy.drop(direction)
        connection.sendall(b"two")
        assert is_silent(connection)
        proxy.pass_through()
        with pytest.raises(ConnectionResetError):
            connection.recv(1)
        assert echoed(idle, b"two") == b"two"


def test_proxy_resets_the_client_when_the_target_is_away() -> None:
    """As if the target had died between two packets."""
    with echo_server() as port:
        proxy = Proxy("127.0.0.1", port)
    # So soon, perhaps, that connecting fails already.
    with proxy, pytest.raises(ConnectionResetError), connected(proxy) as connection:
        connection.recv(1)


# -- Postgres ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def postgres() -> Iterator[OwnPostgres]:
    """A Postgres with a table to commit to."""
    server = OwnPostgres(make_template())
    server.start()
    server.execute("CREATE TABLE kept (word text)")
    yield server
    server.remove()


@pytest.fixture
def before(postgres: OwnPostgres) -> Iterator[PostgresProxy]:
    """A proxy before it, and an empty table behind."""
    postgres.execute("TRUNCATE kept")
    with PostgresProxy("127.0.0.1", postgres.port) as proxy:
        yield proxy


def through(proxy: PostgresProxy, postgres: OwnPostgres) -> "psycopg2.extensions.connection":
    """A connection through it."""
    return psycopg2.connect(postgres.url.replace(f":{postgres.port}/", f":{proxy.port}/"))


def write(proxy: PostgresProxy, postgres: OwnPostgres, word: str, *, table: str = "kept") -> bool:
    """Write a word in a transaction of its own; whether the COMMIT was answered."""
    connection = through(proxy, postgres)
    try:
        with connection.cursor() as cursor:
            cursor.execute(f"INSERT INTO {table} VALUES (%s)", (word,))  # noqa: S608 -- a name of this file
        connection.commit()
    except psycopg2.OperationalError:
        return False
    finally:
        connection.close()
    return True


def kept(postgres: OwnPostgres) -> list[str]:
    """What is written, seen past the proxy, once nobody is writing any more."""
    connection = psycopg2.connect(postgres.url)
    try:
        with connection.cursor() as cursor:
            cursor.execute("LOCK TABLE kept; SELECT word FROM kept ORDER BY word")
            return [row[0] for row in cursor.fetchall()]
    finally:
        connection.close()


@pytest.mark.parametrize(("fate", "is_kept"), [("lose_reply", True), ("lose_commit", False)])
def test_proxy_strikes_the_nth_matching_commit_and_no_other(postgres: OwnPostgres, before: PostgresProxy, fate: Fate, is_kept: bool) -> None:
    """The client sees a broken connection both times; only with the reply lost has the server committed."""
    strike = before.on_commit(fate, nth=2, matching=b"INTO kept")
    assert write(before, postgres, "a")
    assert not strike.is_struck
    assert not write(before, postgres, "b")
    strike.wait()
    assert any(b"INTO kept" in statement for statement in strike.seen)
    assert write(before, postgres, "c")
    assert kept(postgres) == (["a", "b", "c"] if is_kept else ["a", "c"])


def test_proxy_leaves_transactions_alone_that_do_not_match_or_are_rolled_back(postgres: OwnPostgres, before: PostgresProxy) -> None:
    """A rollback is no commit, and its statements do not count for the next one."""
    strike = before.on_commit("lose_commit", matching=b"INTO kept")
    connection = through(before, postgres)
    with connection.cursor() as cursor:
        cursor.execute("INSERT INTO kept VALUES ('never')")
        connection.rollback()
        cursor.execute("SELECT 1")
    connection.commit()
    connection.close()
    assert (strike.is_struck, strike.n_matched, before.n_commits) == (False, 0, 1)


def test_proxy_counts_a_statement_outside_of_a_transaction_as_its_own_commit(postgres: OwnPostgres, before: PostgresProxy) -> None:
    """Autocommit, and statements sent together with their COMMIT."""
    connection = through(before, postgres)
    connection.autocommit = True
    with connection.cursor() as cursor:
        cursor.execute("INSERT INTO kept VALUES ('alone')")
        cursor.execute("BEGIN; INSERT INTO kept VALUES ('together'); COMMIT")
        assert before.n_commits == 2
        before.on_commit("lose_reply", matching=b"kept")
        with pytest.raises(psycopg2.OperationalError):
            cursor.execute("INSERT INTO kept VALUES ('lost')")
    connection.close()
    assert kept(postgres) == ["alone", "lost", "together"]


def test_proxy_carries_what_is_larger_than_a_buffer_to_postgres(postgres: OwnPostgres, before: PostgresProxy) -> None:
    """A statement of a megabyte arrives whole, and so does its answer."""
    connection = through(before, postgres)
    with connection.cursor() as cursor:
        cursor.execute("SELECT %s::text", ("x" * (1 << 20),))
        row = cursor.fetchone()
    connection.close()
    assert row is not None
    assert len(row[0]) == 1 << 20


def test_own_postgres_keeps_what_it_has_committed_when_it_is_killed(postgres: OwnPostgres) -> None:
    """Killed, stopped at once, stopped in order: on its port again, with its data."""
    postgres.execute("TRUNCATE kept")
    for turn, end in enumerate((postgres.kill, lambda: postgres.stop("immediate"), lambda: postgres.stop("fast"))):
        postgres.execute(f"INSERT INTO kept VALUES ('{turn}')")  # noqa: S608 -- a number
        end()
        assert not postgres.is_running
        with pytest.raises(psycopg2.OperationalError):
            psycopg2.connect(postgres.url)
        postgres.start()
    assert kept(postgres) == ["0", "1", "2"]
