"""One Postgres, its connections and transactions. The only file that knows the driver."""

import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final, Literal

import msgspec
import psycopg2
from psycopg2 import errors as pg
from psycopg2.extras import NamedTupleCursor
from sqlalchemy import create_engine
from sqlalchemy.engine import Connection, Engine, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.pool import PoolProxiedConnection

from tracking.embedded import keep_to
from tracking.errors import Contradiction, DatabaseAway, InvalidValue, RowLocked, SchemaOutdated, SettingError

Params = Mapping[str, Any]
CHANNEL: Final = "sweep_wake"
CONNECT: Final[dict[str, Any]] = {
    "connect_timeout": 5,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    # What was sent and not acknowledged: without this a dead path is noticed after a quarter of an hour.
    "tcp_user_timeout": 10_000,
}
"""How connections notice that Postgres is gone. Times in seconds, `tcp_user_timeout` in milliseconds."""

_COPY_PIECE_BYTES: Final = 128 * 1024
_IN_TIME_MS: Final = 20_000
_GRANT_HINT: Final = "As the owner of the tables, GRANT that role the right, or let SWEEP_DATABASE_URL name a role that has it."
_READ_ONLY: Final = "25006"
# Classes of SQLSTATE that pass by themselves or with help: connection, read-only after a fail-over, rollback (deadlock),
# want of resources (disk, memory, connections), a lock not to be had, operator's intervention, system error.
_PASSING: Final = ("08", _READ_ONLY, "40", "53", "55", "57", "58", "XX")


def json_text(value: object) -> str:
    """JSON as Postgres takes it for a `json` column. Floats keep their exact text."""
    return msgspec.json.encode(value).decode()


def normalise_url(url: str) -> str:
    """A URL that SQLAlchemy opens with psycopg2, from any common spelling.

    Raises:
        SettingError: it is no Postgres URL.
    """
    try:
        parsed = make_url(url)
    except ArgumentError:
        raise SettingError("The database URL can't be parsed.", hint="Use postgresql://user:password@host:5432/name.") from None
    if parsed.get_backend_name() not in ("postgresql", "postgres"):
        raise SettingError(
            f"The database URL is of kind {parsed.drivername!r}; only Postgres 14 or newer is supported.",
            hint="Use postgresql://user:password@host:5432/name.",
        )
    return parsed.set(drivername="postgresql+psycopg2").render_as_string(hide_password=False)


def plain_url(url: str) -> str:
    """The same database as libpq's tools (psql, pg_dump) take it."""
    return make_url(normalise_url(url)).set(drivername="postgresql").render_as_string(hide_password=False)


class Transaction:
    """Statements on one connection; rows come back as named tuples.

    They go to the driver as they are: SQLAlchemy's own execution costs ten times as much as the driver's, on every statement.
    """

    __slots__ = ("_cursor",)

    def __init__(self, cursor: Any) -> None:
        self._cursor = cursor

    def rows(self, sql: str, params: Params | None = None) -> Sequence[Any]:
        """All rows of a query."""
        rows: Sequence[Any] = self._run(sql, params or {}).fetchall()
        return rows

    def rows_in_time(self, sql: str, params: Params | None = None) -> Sequence[Any]:
        """All rows of a query that its asker has shaped: given up where it takes too long.

        Raises:
            InvalidValue: it does. Who asks again would wait as long.
        """
        try:
            # One message, so one transaction: what is set holds for this query alone, whoever has the connection next.
            return self.rows(f"SET LOCAL statement_timeout = {_IN_TIME_MS}; {sql}", params)
        except pg.QueryCanceled as error:
            raise InvalidValue(
                f"This takes too long: it was given up after {_IN_TIME_MS / 1000:g} s.", hint="Narrow it: fewer terms, experiments or runs, or a smaller page."
            ) from error

    def one(self, sql: str, params: Params | None = None) -> Any:
        """The first row, or None."""
        return self._run(sql, params or {}).fetchone()

    def scalar(self, sql: str, params: Params | None = None) -> Any:
        """The first column of the first row, or None."""
        row = self.one(sql, params)
        return None if row is None else row[0]

    def execute(self, sql: str, params: Params | None = None) -> int:
        """Run a statement; how many rows it touched."""
        touched: int = self._run(sql, params or {}).rowcount
        return touched

    def insert(self, head: str, rows: Sequence[Sequence[Any]], tail: str = "") -> None:
        """Multi-row `INSERT ... VALUES`: `head` ends before the rows, `tail` follows them."""
        if not rows:
            return
        one = "(" + ", ".join(["%s"] * len(rows[0])) + ")"
        flat = tuple(value for row in rows for value in row)
        self._run(f"{head} VALUES {', '.join([one] * len(rows))} {tail}", flat)

    def rows_of(self, sql: str, **lists: Sequence[Sequence[Any]]) -> Sequence[Any]:
        """All rows of a statement in which `{name}` stands for a list of rows: `VALUES {name}`, `IN ({name})`; lists come in the order they stand in."""
        rows: Sequence[Any] = self._run(*_with_lists(sql, lists)).fetchall()
        return rows

    def execute_of(self, sql: str, **lists: Sequence[Sequence[Any]]) -> None:
        """Run such a statement."""
        self._run(*_with_lists(sql, lists))

    def copy(self, table: str, columns: Sequence[str], body: bytes, form: Literal["text", "binary"] = "text") -> None:
        """Append `body`, of one of COPY's formats, to a table."""
        self._cursor.copy_expert(f"COPY {table} ({', '.join(columns)}) FROM STDIN (FORMAT {form})", io.BytesIO(body), _COPY_PIECE_BYTES)

    def _run(self, sql: str, params: Params | tuple[Any, ...]) -> Any:
        try:
            self._cursor.execute(sql, params)
        except ValueError as error:
            # The driver itself refuses what no text column takes: NUL characters and lone surrogates.
            raise InvalidValue(f"A value can't be stored: {error}") from error
        return self._cursor


def _with_lists(sql: str, lists: Mapping[str, Sequence[Sequence[Any]]]) -> tuple[str, tuple[Any, ...]]:
    places = {name: ", ".join(["(" + ", ".join(["%s"] * len(rows[0])) + ")"] * len(rows)) for name, rows in lists.items()}
    return sql.format(**places), tuple(value for rows in lists.values() for row in rows for value in row)


class Database:
    """A pool of connections to the record.

    Raises (from every call): `DatabaseAway` when Postgres can't be reached or the connection broke. A commit that
    raises it is ambiguous: it may have happened.
    """

    def __init__(self, url: str, *, pool_size: int = 5, application: str = "sweep") -> None:
        self.url = normalise_url(url)
        self.application = application
        keep_to(self.url)
        self.engine: Engine = create_engine(
            self.url,
            pool_size=pool_size,
            max_overflow=0,
            pool_timeout=30,
            pool_use_lifo=True,
            connect_args={"application_name": application, "client_encoding": "utf8", **CONNECT},
        )

    @contextmanager
    def transaction(self) -> Iterator[Transaction]:
        """A transaction: committed at the end, rolled back on any error."""
        with self._connected() as connection:
            yield Transaction(connection.cursor(cursor_factory=NamedTupleCursor))
            connection.commit()

    @contextmanager
    def autocommit(self) -> Iterator[Transaction]:
        """Each statement is a transaction of its own: for single ones, two round trips (BEGIN, COMMIT) less than `transaction`."""
        with self._connected() as connection:
            driver: Any = connection.driver_connection
            # Kept in the client: it decides whether BEGIN is sent, and sets nothing in the session (D12).
            driver.autocommit = True
            try:
                yield Transaction(connection.cursor(cursor_factory=NamedTupleCursor))
            finally:
                if not driver.closed:
                    driver.autocommit = False

    @contextmanager
    def alembic(self) -> Iterator[tuple[Transaction, Connection]]:
        """A transaction for Alembic, which takes SQLAlchemy's connections only."""
        try:
            with self.engine.begin() as connection, _translated():
                cursor: Any = connection.connection.cursor(cursor_factory=NamedTupleCursor)
                yield Transaction(cursor), connection
        except DBAPIError as error:
            if isinstance(error.orig, psycopg2.Error):
                raise _our_error(error.orig) from error
            raise

    def notify(self) -> None:
        """Wake the scheduler. After the commit and apart from it: NOTIFY takes a database-wide lock at commit."""
        with self.autocommit() as tx:
            tx.execute(f"NOTIFY {CHANNEL}")

    def close(self) -> None:
        """Close every idle connection."""
        self.engine.dispose()

    @contextmanager
    def _connected(self) -> Iterator[PoolProxiedConnection]:
        with _translated():
            connection = self.engine.raw_connection()
            try:
                yield connection
            except psycopg2.Error as error:
                self._let_go(connection, error)
                raise
            finally:
                # Back to the pool, which rolls back what is open.
                connection.close()

    def _let_go(self, connection: PoolProxiedConnection, error: psycopg2.Error) -> None:
        """Drop connections that are of no use any more."""
        driver: Any = connection.driver_connection
        if driver.closed:
            # The others came from the same server: each would fail once. Not the engine's `dispose`: it takes what is given back
            # from under those who wait for it, and they go on waiting until their time is over.
            self.engine.pool._invalidate(connection, error)
        elif error.pgcode == _READ_ONLY:
            # A server that has become a standby stays one: the next try is to find the new primary.
            connection.invalidate(error)


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except psycopg2.Error as error:
        ours = _our_error(error)
        if ours is error:
            raise
        raise ours from error
    except PoolTimeout as error:
        raise DatabaseAway("All database connections of this process are in use.") from error


def _our_error(error: psycopg2.Error) -> Exception:
    first_line = str(error).strip().split("\n", 1)[0]
    if isinstance(error, pg.UndefinedTable | pg.UndefinedColumn):
        return SchemaOutdated(f"The database's schema does not fit this program: {first_line}")
    # A text that is too long for an index is a limit of Postgres: its class says nothing of whether that passes.
    if isinstance(error, pg.CharacterNotInRepertoire | pg.UntranslatableCharacter | pg.NumericValueOutOfRange | pg.ProgramLimitExceeded):
        return InvalidValue(f"A value can't be stored: {first_line}")
    if isinstance(error, psycopg2.IntegrityError):
        return Contradiction(f"The record refused the write: {first_line}")
    if isinstance(error, pg.InsufficientPrivilege):
        return DatabaseAway(f"Postgres does not let {_role_of(error)} do this: {first_line}", hint=_GRANT_HINT)
    if isinstance(error, pg.LockNotAvailable):
        return RowLocked("Somebody else holds a lock in Postgres on what is to be written.")
    # A connection that breaks off has no code: its error is of the driver's general kind.
    broke_off = error.pgcode is None and type(error) is psycopg2.DatabaseError
    if isinstance(error, psycopg2.OperationalError | psycopg2.InterfaceError) or broke_off or (error.pgcode or "").startswith(_PASSING):
        return DatabaseAway(f"Postgres can't be reached or broke off: {first_line}")
    return error


def _role_of(error: psycopg2.Error) -> str:
    """`role 'sweep'`: whose connection it came about on."""
    cursor: Any = error.cursor
    return "our role" if cursor is None else f"role {cursor.connection.info.user!r}"
