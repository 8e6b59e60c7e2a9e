"""The first schema, as frozen SQL beside this file."""

from pathlib import Path

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_TABLES = (
    "logged_model_metrics logged_model_tags logged_model_params logged_models run_models dataset_inputs datasets "
    "model_aliases model_versions registered_models leader events sessions workers attempts trials sweeps log_chunks "
    "metric_latest metric_points tags params runs snapshots experiment_tags experiments"
).split()


def upgrade() -> None:
    """Create every table, index and audit view."""
    op.get_bind().exec_driver_sql(Path(__file__).with_suffix(".sql").read_text(encoding="utf-8"))


def downgrade() -> None:
    """Drop them all."""
    for view in ("audit_events", "audit_points", "audit_attempts", "audit_trials"):
        op.execute(f"DROP VIEW {view}")
    for table in _TABLES:
        op.execute(f"DROP TABLE {table}")
