"""The schema's version: checked cheaply at every start, moved by Alembic."""

from pathlib import Path
from typing import TYPE_CHECKING, Final

from tracking.errors import DatabaseAway, SchemaOutdated
from tracking.migrations import HEAD, UPGRADE_LOCK
from tracking.store.database import Database

if TYPE_CHECKING:
    from alembic.config import Config


_MISSING_BOUNDS: Final = """
SELECT 'ALTER ROLE ' || quote_ident(current_user) || ' IN DATABASE ' || quote_ident(current_database())
       || ' SET ' || name || ' = ' || quote_literal(value) AS statement
  FROM (VALUES ('idle_in_transaction_session_timeout', '10s'), ('lock_timeout', '5s')) AS bounds (name, value)
 WHERE current_setting(name) = '0'
"""


def schema_version(database: Database) -> str | None:
    """The revision that the database is at, None for an empty one."""
    with database.autocommit() as tx:
        if tx.scalar("SELECT to_regclass('alembic_version') IS NULL"):
            return None
        version = tx.scalar("SELECT version_num FROM alembic_version")
        return None if version is None else str(version)


def check_schema(database: Database) -> None:
    """Refuse to work on a schema that this program does not know.

    Raises:
        SchemaOutdated: the database is at another revision.
    """
    version = schema_version(database)
    if version != HEAD:
        found = f"The database's schema is at {version}" if version else "The database is empty"
        raise SchemaOutdated(f"{found}; this program needs schema {HEAD}.")


def upgrade_schema(url: str) -> str:
    """Bring a database to the newest schema; safe when several programs do so at once. Returns the revision."""
    _migrate(url, "head")
    _set_bounds(url)
    return HEAD


def missing_bounds(database: Database) -> list[str]:
    """The statements that make Postgres end our role's forgotten transactions and its waits for locks; none if something does already.

    The first migration runs them, but what they set stands beside the database's contents: a dump that is restored, or a
    copy made from a template, comes without.
    """
    with database.autocommit() as tx:
        return [str(row.statement) for row in tx.rows(_MISSING_BOUNDS)]


def _set_bounds(url: str) -> None:
    # A connection of its own: the setting of one that was there before the migration is that of before.
    database = Database(url, pool_size=1, application="sweep migrate")
    try:
        if statements := missing_bounds(database):
            with database.transaction() as tx:
                # Two at once would be one too many: Postgres says "tuple concurrently updated".
                tx.execute("SELECT pg_advisory_xact_lock(%(key)s)", {"key": UPGRADE_LOCK})
                for statement in statements:
                    tx.execute(statement)
    finally:
        database.close()


def downgrade_schema(url: str, revision: str) -> None:
    """Bring a database back to `revision` (`base` for nothing at all)."""
    _migrate(url, revision)


def _migrate(url: str, revision: str) -> None:
    database = Database(url, pool_size=1, application="sweep migrate")
    try:
        if revision == "head" and schema_version(database) == HEAD:
            return
        # Imported late: a quarter of a second that a database at HEAD need not pay.
        from alembic import command  # noqa: PLC0415

        with database.alembic() as (tx, connection):
            if int(tx.scalar("SHOW server_version_num")) < 140000:
                raise DatabaseAway("This Postgres is older than 14.", hint="Use Postgres 14 or newer.")
            tx.execute("SET LOCAL lock_timeout = 0")
            tx.execute("SELECT pg_advisory_xact_lock(%(key)s)", {"key": UPGRADE_LOCK})
            config = _alembic_config()
            config.attributes["connection"] = connection
            if revision == "head":
                command.upgrade(config, revision)
            else:
                command.downgrade(config, revision)
    finally:
        database.close()


def _alembic_config() -> "Config":
    from alembic.config import Config  # noqa: PLC0415

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent.parent / "migrations"))
    return config
