"""Alembic migrations of the record; run by `tracking.store.schema`, never by hand."""
