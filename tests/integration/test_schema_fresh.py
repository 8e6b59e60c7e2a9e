"""The two ways to the newest schema lead to the same place."""

from sqlalchemy import create_engine, text

from tracking.migrations import fresh
from tracking.store.database import plain_url
from tracking.store.schema import downgrade_schema, upgrade_schema

_COLUMNS = """
SELECT table_name, column_name, ordinal_position, data_type, column_default, is_nullable, is_identity
  FROM information_schema.columns WHERE table_schema = 'public' ORDER BY 1, 3
"""
_INDEXES = "SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = 'public' ORDER BY 1"
_CONSTRAINTS = "SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint WHERE connamespace = 'public'::regnamespace ORDER BY 1"
_VIEWS = "SELECT viewname, definition FROM pg_views WHERE schemaname = 'public' ORDER BY 1"


def _describe(url: str) -> list[list[tuple[object, ...]]]:
    engine = create_engine(url)
    try:
        with engine.connect() as connection:
            return [[tuple(row) for row in connection.execute(text(query))] for query in (_COLUMNS, _INDEXES, _CONSTRAINTS, _VIEWS)]
    finally:
        engine.dispose()


def test_fresh_builds_what_alembic_builds(empty_database_url: str) -> None:
    """An empty database built from the SQL alone is the one that Alembic makes."""
    assert fresh.bring_up(plain_url(empty_database_url))
    built = _describe(empty_database_url)
    downgrade_schema(empty_database_url, "base")
    upgrade_schema(empty_database_url)
    assert _describe(empty_database_url) == built


def test_fresh_leaves_an_older_schema_to_alembic(empty_database_url: str) -> None:
    """A database that is stamped with another revision is not touched."""
    assert fresh.bring_up(plain_url(empty_database_url))
    engine = create_engine(empty_database_url)
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '0000'"))
    engine.dispose()
    assert not fresh.bring_up(plain_url(empty_database_url))


def test_fresh_is_content_with_the_newest_schema(database_url: str) -> None:
    """A database that is already there stays as it is."""
    assert fresh.bring_up(plain_url(database_url))
