"""Connections and transactions, where the far end breaks off or refuses."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from tests.support.services import wait_until
from tracking.errors import Contradiction, DatabaseAway, InvalidValue, SchemaOutdated
from tracking.store import upgrade_schema
from tracking.store.database import Database
from tracking.store.schema import missing_bounds

_COUNT = "SELECT count(*) FROM experiments WHERE name = 'half-way'"
_INSERT = "INSERT INTO experiments (name) VALUES ('half-way')"


@contextmanager
def opened(url: str) -> Iterator[Database]:
    """One connection, closed at the end."""
    database = Database(url, pool_size=1)
    try:
        yield database
    finally:
        database.close()


@pytest.fixture
def database(module_database_url: str) -> Iterator[Database]:
    """A pool of two connections, both open and idle."""
    opened = Database(module_database_url, pool_size=2)
    with opened.autocommit() as one, opened.autocommit() as other:
        assert one.scalar("SELECT pg_backend_pid()") != other.scalar("SELECT pg_backend_pid()")
    yield opened
    opened.close()


def _end_connections(url: str) -> None:
    """As a restart of Postgres ends them."""
    hammer = Database(url, pool_size=1, application="hammer")
    try:
        with hammer.autocommit() as tx:
            ended = tx.rows("SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE application_name = 'sweep' AND datname = current_database()")
            assert len(ended) >= 2
    finally:
        hammer.close()


@pytest.mark.parametrize("way", ["transaction", "autocommit"])
def test_database_fails_once_when_its_connections_were_ended(database: Database, way: str) -> None:
    """One call notices; what it had open and what lay idle is not used again."""
    _end_connections(database.url)
    with pytest.raises(DatabaseAway), getattr(database, way)() as tx:
        tx.scalar("SELECT 1")
    for _ in range(2):
        with database.transaction() as one, database.autocommit() as other:
            assert one.scalar("SELECT 1") + other.scalar("SELECT 1") == 2


def test_database_serves_who_waits_for_a_connection_that_breaks_off(module_database_url: str) -> None:
    """They get another one at once: their time-out, half a minute, is for when there is none."""
    database = Database(module_database_url, pool_size=1)
    try:
        for _ in range(5):
            with ThreadPoolExecutor(3) as pool:
                waiting = []
                with pytest.raises(DatabaseAway), database.autocommit() as tx:  # noqa: PT012
                    pid = tx.scalar("SELECT pg_backend_pid()")
                    waiting = [pool.submit(_backend, database) for _ in range(3)]
                    tx.scalar("SELECT pg_terminate_backend(pg_backend_pid())")
                assert {one.result(10) for one in waiting} != {pid}
    finally:
        database.close()


def _backend(database: Database) -> int:
    with database.autocommit() as tx:
        return int(tx.scalar("SELECT pg_backend_pid()"))


def test_transaction_ended_half_way_leaves_nothing(database: Database) -> None:
    """What was written before the connection broke off is not there, and the call says that Postgres is away."""
    with pytest.raises(DatabaseAway), database.transaction() as tx:  # noqa: PT012
        tx.execute(_INSERT)
        _end_connections(database.url)
    with database.autocommit() as tx:
        assert tx.scalar(_COUNT) == 0


def test_transaction_rolls_back_on_any_error(database: Database) -> None:
    """Also after the same connection has served statements of their own."""
    for _ in range(2):
        with database.autocommit() as one, database.autocommit() as other:
            assert one.scalar("SELECT 1") == other.scalar("SELECT 1")
        with pytest.raises(ZeroDivisionError), database.transaction() as tx:  # noqa: PT012
            tx.execute(_INSERT)
            raise ZeroDivisionError
        with database.transaction() as tx:
            assert tx.scalar(_COUNT) == 0


def test_autocommit_keeps_each_statement(database: Database) -> None:
    """An error behind a statement does not take it back."""
    with pytest.raises(ZeroDivisionError), database.autocommit() as tx:  # noqa: PT012
        tx.execute(_INSERT.replace("half-way", "whole"))
        raise ZeroDivisionError
    with database.autocommit() as tx:
        assert tx.scalar("SELECT count(*) FROM experiments WHERE name = 'whole'") == 1


def test_database_drops_a_connection_to_what_has_become_a_standby(database: Database) -> None:
    """A fail-over leaves the old primary read-only: the next try connects anew."""
    with database.autocommit() as tx:
        before = tx.scalar("SELECT pg_backend_pid()")
        tx.execute("SET default_transaction_read_only = on")
    with pytest.raises(DatabaseAway, match="read-only"), database.transaction() as tx:
        tx.execute(_INSERT)
    with database.transaction() as tx:
        assert tx.scalar("SELECT pg_backend_pid()") != before
        assert tx.execute(_INSERT.replace("half-way", "after the fail-over")) == 1


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        ("SELECT 1 FROM nowhere", SchemaOutdated),
        ("INSERT INTO experiments (name) VALUES ('Default')", Contradiction),
        ("SELECT 10::smallint * 100000::bigint::smallint", InvalidValue),
        ("DO $$ BEGIN RAISE EXCEPTION USING ERRCODE = '40P01'; END $$", DatabaseAway),
        ("DO $$ BEGIN RAISE EXCEPTION USING ERRCODE = '53100'; END $$", DatabaseAway),
        ("DO $$ BEGIN RAISE EXCEPTION USING ERRCODE = '42501'; END $$", DatabaseAway),
    ],
)
def test_database_says_whose_fault_an_error_is(database: Database, statement: str, expected: type[Exception]) -> None:
    """Ours, the caller's, or one that passes."""
    with pytest.raises(expected), database.transaction() as tx:
        tx.execute(statement)


def test_database_says_so_when_all_connections_are_in_use(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pool that stays empty is no error of the statement's."""
    monkeypatch.setattr(database.engine.pool, "_timeout", 0.01)
    with database.transaction(), database.transaction(), pytest.raises(DatabaseAway, match="in use"), database.transaction():
        pass


def test_rows_in_time_are_given_up_and_leave_no_bound(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who asks is told so, as it is no fault of Postgres; what comes next on the connection is not bounded."""
    monkeypatch.setattr("tracking.store.database._IN_TIME_MS", 50)
    with opened(database.url) as one:
        with pytest.raises(InvalidValue, match=r"takes too long: it was given up after 0\.05 s"), one.autocommit() as tx:
            tx.rows_in_time("SELECT pg_sleep(1)")
        with one.autocommit() as tx:
            assert [tuple(row) for row in tx.rows_in_time("SELECT %(n)s AS n", {"n": 1})] == [(1,)]
            assert tx.scalar("SHOW statement_timeout") == "0"
            tx.rows("SELECT pg_sleep(0.1)")


def test_cancelled_statements_of_others_are_postgress_fault(database: Database) -> None:
    """As when an administrator cancels one: the same call may succeed later."""
    with pytest.raises(DatabaseAway), database.autocommit() as tx:
        tx.rows("SET LOCAL statement_timeout = 50; SELECT pg_sleep(1)")


def test_database_ends_transactions_of_those_who_froze_in_them(empty_database_url: str) -> None:
    """Whoever is stopped between a statement and its commit holds up everybody else for ten seconds at most."""
    upgrade_schema(empty_database_url)
    database = Database(empty_database_url, pool_size=1)
    watcher = Database(empty_database_url, pool_size=1)
    is_over = "SELECT count(*) = 0 FROM pg_stat_activity WHERE state LIKE 'idle in transaction%%' AND datname = current_database()"

    def is_ended() -> bool:
        with watcher.autocommit() as tx:
            return bool(tx.scalar(is_over))

    with database.autocommit() as tx:
        assert tx.scalar("SHOW idle_in_transaction_session_timeout") == "10s"
        tx.execute("SET idle_in_transaction_session_timeout = '100ms'")
    with pytest.raises(DatabaseAway), database.transaction() as tx:  # noqa: PT012
        tx.execute(_INSERT)
        wait_until(is_ended, "the transaction is ended")
    with database.autocommit() as tx:
        assert tx.scalar(_COUNT) == 0
    database.close()
    watcher.close()


def test_database_says_which_role_lacks_a_right(database: Database, module_database_url: str) -> None:
    """Postgres is there and answers: what is lacking is a right, and whose, is told."""
    with database.autocommit() as tx:
        user = tx.scalar("SELECT current_user")
        tx.execute("CREATE ROLE sweep_test_stranger")
    try:
        with pytest.raises(DatabaseAway) as refused, database.transaction() as tx:  # noqa: PT012
            tx.execute("SET LOCAL ROLE sweep_test_stranger")
            tx.scalar(_COUNT)
    finally:
        with database.autocommit() as tx:
            tx.execute("DROP ROLE sweep_test_stranger")
    assert refused.value.message == f"Postgres does not let role {user!r} do this: permission denied for table experiments"
    assert "GRANT" in refused.value.hint


def test_upgrade_bounds_idle_transactions_of_a_copy(database_url: str) -> None:
    """A database made from a template lacks what is set beside its contents, until it is upgraded; then there is nothing to do."""
    with opened(database_url) as database:
        idle, locks = missing_bounds(database)
        assert idle.startswith("ALTER ROLE ")
        assert idle.endswith("SET idle_in_transaction_session_timeout = '10s'")
        assert locks.endswith("SET lock_timeout = '5s'")
    upgrade_schema(database_url)
    with opened(database_url) as database:
        assert missing_bounds(database) == []
        with database.autocommit() as tx:
            assert tx.scalar("SHOW idle_in_transaction_session_timeout") == "10s"
