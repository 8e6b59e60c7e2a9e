"""One Postgres, its connections and transactions. The only file that knows the driver."""

import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final, cast

import msgspec
from psycopg2 import Error as DriverError
from psycopg2 import errors as pg
from sqlalchemy import create_engine
from sqlalchemy.engine import Connection, CursorResult, Engine, Row, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, IntegrityError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from tracking.errors import Contradiction, DatabaseAway, InvalidValue, SchemaOutdated, SettingError

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
    """Statements of one transaction; rows come back as named tuples."""

    __slots__ = ("connection",)

    def __init__(self, connection: Connection) -> None:
        self.connection = connection

    def rows(self, sql: str, params: Params | None = None) -> Sequence[Row[Any]]:
        """All rows of a query."""
        return self._run(sql, dict(params or {})).all()

    def one(self, sql: str, params: Params | None = None) -> Row[Any] | None:
        """The first row, or None."""
        return self._run(sql, dict(params or {})).first()

    def scalar(self, sql: str, params: Params | None = None) -> Any:
        """The first column of the first row, or None."""
        row = self.one(sql, params)
        return None if row is None else row[0]

    def execute(self, sql: str, params: Params | None = None) -> int:
        """Run a statement; how many rows it touched."""
        return self._run(sql, dict(params or {})).rowcount

    def insert(self, head: str, rows: Sequence[Sequence[Any]], tail: str = "") -> None:
        """Multi-row `INSERT ... VALUES`: `head` ends before the rows, `tail` follows them."""
        if not rows:
            return
        one = "(" + ", ".join(["%s"] * len(rows[0])) + ")"
        flat = tuple(value for row in rows for value in row)
        self._run(f"{head} VALUES {', '.join([one] * len(rows))} {tail}", flat)

    def copy(self, table: str, columns: Sequence[str], body: str) -> None:
        """Append `body` (COPY's text format) to a table."""
        try:
            source = io.BytesIO(body.encode())
        except UnicodeEncodeError as error:
            raise InvalidValue(f"A value can't be stored: {error}") from error
        cursor = cast(Any, self.connection.connection).cursor()
        try:
            cursor.copy_expert(f"COPY {table} ({', '.join(columns)}) FROM STDIN", source)
        except DriverError as error:
            # SQLAlchemy knows nothing of this cursor: its errors are wrapped here as they would be there.
            raise _wrapped(error) from error
        finally:
            cursor.close()

    def _run(self, sql: str, params: dict[str, Any] | tuple[Any, ...]) -> CursorResult[Any]:
        try:
            return self.connection.exec_driver_sql(sql, params)
        except ValueError as error:
            # The driver itself refuses what no text column takes: NUL characters and lone surrogates.
            raise InvalidValue(f"A value can't be stored: {error}") from error


class Database:
    """A pool of connections to the record.

    Raises (from every call): `DatabaseAway` when Postgres can't be reached or the connection broke. A commit that
    raises it is ambiguous: it may have happened.
    """

    def __init__(self, url: str, *, pool_size: int = 5, application: str = "sweep") -> None:
        self.url = normalise_url(url)
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
        with _translated(), self.engine.connect() as connection:
            try:
                with connection.begin():
                    yield Transaction(connection)
            except DBAPIError as error:
                # A server that has become a standby stays one: the next try is to find the new primary.
                if getattr(error.orig, "pgcode", None) == _READ_ONLY:
                    connection.invalidate()
                raise

    def notify(self) -> None:
        """Wake the scheduler. After the commit and apart from it: NOTIFY takes a database-wide lock at commit."""
        # A transaction like any other: to leave autocommit again the driver would have to SET session state (D12).
        with self.transaction() as tx:
            tx.execute(f"NOTIFY {CHANNEL}")

    def close(self) -> None:
        """Close every idle connection."""
        self.engine.dispose()


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except DBAPIError as error:
        raise _our_error(error) from error
    except PoolTimeout as error:
        raise DatabaseAway("All database connections of this process are in use.") from error


def _wrapped(error: DriverError) -> DBAPIError:
    kind = OperationalError if isinstance(error, pg.OperationalError) else InterfaceError if isinstance(error, pg.InterfaceError) else DBAPIError
    return kind("COPY", None, error)


def _may_pass(cause: BaseException | None) -> bool:
    code = getattr(cause, "pgcode", None) or ""
    return code.startswith(_PASSING)


def _our_error(error: DBAPIError) -> Exception:
    cause = error.orig
    first_line = str(cause).strip().split("\n", 1)[0]
    if isinstance(cause, pg.UndefinedTable | pg.UndefinedColumn):
        return SchemaOutdated(f"The database's schema does not fit this program: {first_line}")
    if isinstance(cause, pg.CharacterNotInRepertoire | pg.UntranslatableCharacter | pg.NumericValueOutOfRange):
        return InvalidValue(f"A value can't be stored: {first_line}")
    if isinstance(error, IntegrityError):
        return Contradiction(f"The record refused the write: {first_line}")
    if isinstance(error, OperationalError | InterfaceError) or error.connection_invalidated or _may_pass(cause):
        return DatabaseAway(f"Postgres can't be reached or broke off: {first_line}")
    return error
