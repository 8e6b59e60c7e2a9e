"""Builds the schema of an empty database, and sees whether one is at the newest, without loading SQLAlchemy or Alembic.

`python -m tracking.migrations.fresh` reads a URL on standard input and falls back to Alembic for all other databases.
"""

import sys
from pathlib import Path

import psycopg2

from tracking.embedded import keep_to
from tracking.migrations import HEAD, UPGRADE_LOCK

_STAMP = """
CREATE TABLE alembic_version (version_num varchar(32) NOT NULL, CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num));
INSERT INTO alembic_version (version_num) VALUES (%s);
"""


def bring_up(dsn: str) -> bool:
    """Whether the database is at the newest schema now: because it was, or because it was empty and has been built.

    Args:
        dsn: as libpq takes it.

    Raises:
        psycopg2.Error: the database can't be reached or refused the schema.
    """
    keep_to(dsn)
    connection = psycopg2.connect(dsn, connect_timeout=5)
    try:
        with connection, connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_xact_lock(%s)", (UPGRADE_LOCK,))
            cursor.execute("SELECT to_regclass('alembic_version') IS NOT NULL, to_regclass('runs') IS NOT NULL")
            is_stamped, is_filled = cursor.fetchone() or (False, False)
            if is_stamped:
                cursor.execute("SELECT version_num FROM alembic_version")
                return cursor.fetchone() == (HEAD,)
            if is_filled or connection.server_version < 140000:
                return False
            for script in sorted((Path(__file__).parent / "versions").glob("*.sql")):
                cursor.execute(script.read_text(encoding="utf-8"))
            cursor.execute(_STAMP, (HEAD,))
            return True
    finally:
        connection.close()


def main() -> None:
    """Bring the database of the URL on standard input to the newest schema."""
    url = sys.stdin.readline().strip()
    if not bring_up(url.replace("postgresql+psycopg2://", "postgresql://", 1)):
        from tracking.store import upgrade_schema  # noqa: PLC0415 -- half a second that most starts need not pay

        upgrade_schema(url)


if __name__ == "__main__":
    main()
