"""Alembic's entry: runs on the connection that `tracking.store.schema` hands over."""

from alembic import context

from tracking.tables import metadata

connection = context.config.attributes["connection"]
context.configure(connection=connection, target_metadata=metadata, transaction_per_migration=False)
with context.begin_transaction():
    context.run_migrations()
