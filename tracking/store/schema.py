"""The schema's version: checked cheaply at every start, moved by Alembic."""

from pathlib import Path
from typing import TYPE_CHECKING

from tracking.errors import DatabaseAway, SchemaOutdated
from tracking.migrations import HEAD, UPGRADE_LOCK
from tracking.store.database import Database

if TYPE_CHECKING:
    from alembic.config import Config


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
    return HEAD


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
