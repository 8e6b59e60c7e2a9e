"""The tables, their constraints and indexes. Each index says which query it serves; queries say the reverse.

What users wrote is kept as JSON, not JSONB: JSONB would hand 1e22 back as an integer.

Migrations hold the DDL that databases are built from; a test compares the two.
"""

from collections.abc import Iterable
from typing import Any, Final

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Computed,
    DateTime,
    Double,
    ForeignKey,
    ForeignKeyConstraint,
    Identity,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    Table,
    Text,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

from tracking.states import AttemptState, RunState, SweepState, TrialState

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)


def _time(name: str, *, required: bool = False) -> Column[Any]:
    if required:
        return Column(name, DateTime(timezone=True), nullable=False, server_default=func.now())
    return Column(name, DateTime(timezone=True))


def _one_of(column: str, values: Iterable[str]) -> CheckConstraint:
    listed = ", ".join(f"'{v}'" for v in values)
    return CheckConstraint(text(f"{column} IN ({listed})"), name=column)


SHORT_CHARS: Final = 200
"""The longest parameter or tag that searches for a value find by an index."""

_NEWEST_FIRST = "(- floor(extract(epoch FROM coalesce(started_at, created_at) - timestamptz '1970-01-01 00:00:00+00') * 1000))::bigint"

experiments = Table(
    "experiments",
    metadata,
    Column("experiment_id", BigInteger, Identity(start=1), primary_key=True),
    Column("name", Text, nullable=False, unique=True),
    Column("artifact_location", Text, nullable=False, server_default=""),
    Column("lifecycle_stage", Text, nullable=False, server_default="active"),
    _time("created_at", required=True),
    _time("updated_at", required=True),
    _one_of("lifecycle_stage", ("active", "deleted")),
)

experiment_tags = Table(
    "experiment_tags",
    metadata,
    Column("experiment_id", BigInteger, ForeignKey("experiments.experiment_id", ondelete="CASCADE"), primary_key=True),
    Column("key", Text, primary_key=True),
    Column("value", Text, nullable=False),
)

snapshots = Table(
    "snapshots",
    metadata,
    Column("digest", Text, primary_key=True),
    Column("size_bytes", BigInteger, nullable=False),
    Column("n_files", Integer, nullable=False),
    _time("created_at", required=True),
)

runs = Table(
    "runs",
    metadata,
    Column("run_id", Text, primary_key=True),
    Column("experiment_id", BigInteger, ForeignKey("experiments.experiment_id"), nullable=False),
    Column("kind", Text, nullable=False),
    Column("name", Text, nullable=False, server_default=""),
    Column("user_name", Text, nullable=False, server_default=""),
    Column("state", Text, nullable=False),
    Column("lifecycle_stage", Text, nullable=False, server_default="active"),
    _time("created_at", required=True),
    _time("started_at"),
    _time("ended_at"),
    Column("parent_run_id", Text),
    # Of an external run: the attempt whose token opened it; it ends with that attempt (D7).
    Column("opener_run_id", Text),
    Column("opener_attempt", Integer),
    # Of a managed run:
    Column("sweep_id", Text),
    Column("trial_number", Integer),
    Column("generation", Integer, nullable=False, server_default="0"),
    Column("argv", JSON, nullable=False, server_default="[]"),
    Column("params", JSON, nullable=False, server_default="{}"),
    Column("seed", BigInteger, nullable=False, server_default="0"),
    Column("queue", Text, nullable=False, server_default="default"),
    Column("priority", Integer, nullable=False, server_default="50"),
    Column("attempt", Integer, nullable=False, server_default="0"),
    Column("placement", Integer, nullable=False, server_default="0"),
    Column("session_id", Text),
    Column("worker_id", Text),
    Column("gpu_ids", ARRAY(Integer), nullable=False, server_default="{}"),
    _time("placed_at"),
    _time("not_before", required=True),
    # The two retry budgets, as far as they are spent (I6).
    Column("machinery_faults", Integer, nullable=False, server_default="0"),
    Column("user_retries", Integer, nullable=False, server_default="0"),
    Column("avoid_workers", ARRAY(Text), nullable=False, server_default="{}"),
    # The attempt has failed and the scheduler has yet to say: again, or failed.
    Column("verdict_due", Boolean, nullable=False, server_default=text("false")),
    _time("cancel_requested_at"),
    Column("cancel_cause", Text),
    _time("prune_requested_at"),
    Column("cause", Text),
    Column("detail", Text),
    Column("value", Double),
    # Where its artifacts are, if its experiment had a location of its own when the run began; else below our own store.
    Column("artifact_root", Text),
    # The start (or else the creation) in MLflow's milliseconds, negative: the default order, newest first and then by run_id, goes one way
    # in an index, and a page begins at one place in it.
    Column("newest_first", BigInteger, Computed(_NEWEST_FIRST, persisted=True), nullable=False),
    _one_of("kind", ("managed", "external", "sweep")),
    _one_of("lifecycle_stage", ("active", "deleted")),
    _one_of("state", (*RunState, "scheduled", "killed")),
    CheckConstraint("state <> 'placed' OR session_id IS NOT NULL", name="placed_somewhere"),
    CheckConstraint("kind <> 'managed' OR state NOT IN ('scheduled', 'killed')", name="managed_states"),
    # serves queries of one experiment, newest first (runs/search)
    Index("ix_runs_experiment", "experiment_id", "lifecycle_stage", "newest_first", "run_id"),
    # serves children of a run (mlflow.parentRunId), newest first
    Index("ix_runs_parent", "parent_run_id", "newest_first", "run_id", postgresql_where=text("parent_run_id IS NOT NULL")),
    # serves the scheduler: what waits, what is placed or running, what awaits a verdict
    Index("ix_runs_live", "state", "session_id", postgresql_where=text("kind = 'managed' AND state IN ('queued', 'placed', 'running')")),
    # serves the run of a trial
    Index("ix_runs_trial", "sweep_id", "trial_number", postgresql_where=text("sweep_id IS NOT NULL")),
    # serves ending the descendants an attempt opened
    Index("ix_runs_opener", "opener_run_id", postgresql_where=text("opener_run_id IS NOT NULL")),
)

params = Table(
    "params",
    metadata,
    Column("run_id", Text, ForeignKey("runs.run_id", ondelete="CASCADE"), primary_key=True),
    Column("key", Text, primary_key=True),
    Column("value", Text, nullable=False),
    # 0: given by the sweep, valid for every attempt; else the attempt whose client logged it
    Column("attempt", Integer, nullable=False, server_default="0"),
    # serves searches for a value; a long text would not fit an index; it costs each row 3 to 6 µs of Postgres' time
    Index("ix_params_value", "key", "value", "run_id", "attempt", postgresql_where=text(f"length(value) <= {SHORT_CHARS}")),
)

tags = Table(
    "tags",
    metadata,
    Column("run_id", Text, ForeignKey("runs.run_id", ondelete="CASCADE"), primary_key=True),
    Column("key", Text, primary_key=True),
    Column("value", Text, nullable=False),
    # as of params
    Index("ix_tags_value", "key", "value", "run_id", postgresql_where=text(f"length(value) <= {SHORT_CHARS}")),
)

metric_points = Table(
    "metric_points",
    metadata,
    # of metric_latest: what run, attempt and key would take, in every row and in the index, is more than all the rest
    Column("series_id", BigInteger, nullable=False),
    Column("step", BigInteger, nullable=False),
    Column("time_ms", BigInteger, nullable=False),
    Column("value", Double, nullable=False),
    # serves history of one metric; the only index, so that appends stay cheap (D6)
    Index("ix_metric_points_series", "series_id", "step"),
)

metric_latest = Table(
    "metric_latest",
    metadata,
    Column("run_id", Text, primary_key=True),
    Column("key", Text, primary_key=True),
    Column("attempt", Integer, primary_key=True),
    # of the points of this run, key and attempt; numbers are skipped, for each upsert takes one
    Column("series_id", BigInteger, Identity(), nullable=False),
    Column("step", BigInteger, nullable=False),
    Column("time_ms", BigInteger, nullable=False),
    Column("value", Double, nullable=False),
    # of this attempt's history, NaN left out
    Column("min_value", Double),
    Column("max_value", Double),
    # serves searches by value, and order by it; it costs each move of a latest value 10 to 20 µs of Postgres' time, and its place in the page (HOT)
    Index("ix_metric_latest_value", "key", "value", "run_id", "attempt"),
    postgresql_with={"fillfactor": "70"},
)

log_chunks = Table(
    "log_chunks",
    metadata,
    Column("run_id", Text, primary_key=True),
    Column("attempt", Integer, primary_key=True),
    Column("stream", Text, primary_key=True),
    Column("offset_bytes", BigInteger, primary_key=True),
    Column("data", LargeBinary, nullable=False),
    _one_of("stream", ("stdout", "stderr")),
)

sweeps = Table(
    "sweeps",
    metadata,
    Column("sweep_id", Text, ForeignKey("runs.run_id"), primary_key=True),
    Column("experiment_id", BigInteger, ForeignKey("experiments.experiment_id"), nullable=False),
    Column("name", Text, nullable=False),
    Column("short_id", Text, nullable=False, unique=True),
    Column("submission_id", Text, nullable=False, unique=True),
    Column("state", Text, nullable=False),
    Column("user_name", Text, nullable=False, server_default=""),
    Column("config", JSON, nullable=False),
    Column("source", Text, nullable=False),
    Column("launch", JSON, nullable=False),
    Column("metric_name", Text),
    Column("metric_goal", Text, nullable=False),
    Column("metric_from", Text, nullable=False),
    Column("queue", Text, nullable=False),
    Column("priority", Integer, nullable=False),
    Column("parallel", Integer),
    Column("retry", JSON, nullable=False, server_default="{}"),
    _time("created_at", required=True),
    _time("started_at"),
    _time("ended_at"),
    Column("cause", Text),
    Column("detail", Text),
    Column("told_seq", BigInteger, nullable=False, server_default="0"),
    # Set when `register:` has been carried out (or refused, with the reason), once.
    _time("registered_at"),
    Column("register_detail", Text),
    # Counts what was changed by hand since: a search built on an earlier one is out of date.
    Column("revision", Integer, nullable=False, server_default="0"),
    _one_of("state", SweepState),
    _one_of("metric_goal", ("minimize", "maximize")),
    _one_of("metric_from", ("last", "best")),
    # serves references by name, newest first
    Index("ix_sweeps_name", "name", text("created_at DESC")),
    # serves the scheduler: sweeps that are not over
    Index("ix_sweeps_live", "state", postgresql_where=text("state IN ('active', 'paused', 'stopping')")),
    Index("ix_sweeps_created", text("created_at DESC")),
)

trials = Table(
    "trials",
    metadata,
    Column("sweep_id", Text, ForeignKey("sweeps.sweep_id"), primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("state", Text, nullable=False),
    Column("params", JSON, nullable=False),
    Column("generation", Integer, nullable=False, server_default="0"),
    Column("run_id", Text, nullable=False),
    Column("value", Double),
    # What the search was told instead, of a trial that ended without an objective (`metric.impute`).
    Column("imputed", Double),
    Column("told_seq", BigInteger),
    Column("attrs", JSON, nullable=False, server_default="{}"),
    Column("cause", Text),
    Column("detail", Text),
    _time("created_at", required=True),
    _time("ended_at"),
    _one_of("state", TrialState),
    CheckConstraint("(state = 'open') = (told_seq IS NULL)", name="told_when_ended"),
    CheckConstraint("number >= 0", name="number"),
    # serves the best trials of a sweep, read from either end (D8)
    Index("ix_trials_value", "sweep_id", "value", "number", postgresql_where=text("state = 'finished' AND value IS NOT NULL")),
    # serves counts
    Index("ix_trials_state", "sweep_id", "state"),
    # serves the scheduler: what is open
    Index("ix_trials_open", "sweep_id", "number", postgresql_where=text("state = 'open'")),
)

attempts = Table(
    "attempts",
    metadata,
    Column("run_id", Text, ForeignKey("runs.run_id"), primary_key=True),
    Column("attempt", Integer, primary_key=True),
    Column("state", Text, nullable=False),
    Column("worker_id", Text, nullable=False),
    Column("session_id", Text, nullable=False),
    Column("placement", Integer, nullable=False),
    Column("claim_id", Text, nullable=False, unique=True),
    Column("finish_key", Text),
    Column("token_hash", Text, nullable=False),
    Column("host_incarnation", Text, nullable=False, server_default=""),
    Column("gpu_ids", ARRAY(Integer), nullable=False, server_default="{}"),
    _time("claimed_at", required=True),
    _time("started_at"),
    _time("ended_at"),
    Column("cause", Text),
    Column("detail", Text),
    Column("exit_status", SmallInteger),
    Column("signal", SmallInteger),
    Column("duration_s", Double),
    Column("info", JSONB, nullable=False, server_default="{}"),
    _one_of("state", AttemptState),
    # one live attempt a run; also serves what a session owns
    Index("uq_attempts_live", "run_id", unique=True, postgresql_where=text("state = 'running'")),
    Index("ix_attempts_session", "session_id", postgresql_where=text("state = 'running'")),
)

workers = Table(
    "workers",
    metadata,
    Column("worker_id", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column("hostname", Text, nullable=False),
    Column("draining", Boolean, nullable=False, server_default=text("false")),
    Column("cordoned", Text),
    _time("cordoned_at"),
    Column("faults_in_row", Integer, nullable=False, server_default="0"),
    _time("created_at", required=True),
)

sessions = Table(
    "sessions",
    metadata,
    Column("session_id", Text, primary_key=True),
    Column("worker_id", Text, ForeignKey("workers.worker_id"), nullable=False),
    Column("state", Text, nullable=False),
    Column("celery_queue", Text, nullable=False),
    Column("queues", ARRAY(Text), nullable=False),
    Column("slots", Integer, nullable=False),
    Column("cpus", Double, nullable=False),
    Column("memory_bytes", BigInteger, nullable=False),
    Column("gpus", Integer, nullable=False),
    Column("runtimes", ARRAY(Text), nullable=False),
    Column("host_incarnation", Text, nullable=False),
    Column("version", Text, nullable=False, server_default=""),
    Column("pid", Integer, nullable=False, server_default="0"),
    _time("opened_at", required=True),
    _time("renewed_at", required=True),
    _time("lease_until", required=True),
    _time("slot_freed_at"),
    _time("ended_at"),
    _one_of("state", ("live", "ended", "fenced", "lost")),
    # one live session a worker (a newer one fences the older)
    Index("uq_sessions_live", "worker_id", unique=True, postgresql_where=text("state = 'live'")),
    # serves the newest session of a worker
    Index("ix_sessions_worker", "worker_id", text("opened_at DESC")),
)

events = Table(
    "events",
    metadata,
    Column("seq", BigInteger, Identity(), primary_key=True),
    _time("at", required=True),
    Column("subject", Text, nullable=False),
    Column("event", Text, nullable=False),
    Column("from_state", Text),
    Column("to_state", Text),
    Column("sweep_id", Text),
    Column("trial_number", Integer),
    Column("run_id", Text),
    Column("attempt", Integer),
    Column("worker_id", Text),
    Column("cause", Text),
    Column("detail", Text, nullable=False, server_default=""),
    Column("data", JSONB, nullable=False, server_default="{}"),
    _one_of("subject", ("sweep", "trial", "run", "attempt", "worker")),
    Index("ix_events_sweep", "sweep_id", "seq"),
    Index("ix_events_run", "run_id", "seq"),
)

datasets = Table(
    "datasets",
    metadata,
    Column("dataset_id", BigInteger, Identity(), primary_key=True),
    Column("experiment_id", BigInteger, ForeignKey("experiments.experiment_id"), nullable=False),
    Column("name", Text, nullable=False),
    Column("digest", Text, nullable=False),
    Column("source_type", Text, nullable=False),
    Column("source", Text, nullable=False),
    Column("schema", Text),
    Column("profile", Text),
    # one dataset an experiment; also serves the datasets of experiments
    Index("uq_datasets_name", "experiment_id", "name", "digest", unique=True),
)

dataset_inputs = Table(
    "dataset_inputs",
    metadata,
    Column("run_id", Text, ForeignKey("runs.run_id", ondelete="CASCADE"), primary_key=True),
    Column("dataset_id", BigInteger, ForeignKey("datasets.dataset_id"), primary_key=True),
    # the tag mlflow.data.context, which searches ask for
    Column("context", Text),
    Column("tags", JSON, nullable=False, server_default="{}"),
    # as of params: the attempt whose client logged it, 0 of a run without attempts
    Column("attempt", Integer, nullable=False, server_default="0"),
    # serves in which contexts a dataset was used
    Index("ix_dataset_inputs_dataset", "dataset_id", "context"),
)

run_models = Table(
    "run_models",
    metadata,
    Column("run_id", Text, ForeignKey("runs.run_id", ondelete="CASCADE"), primary_key=True),
    Column("role", Text, primary_key=True),
    # Not a key of logged_models: clients may name models that live elsewhere.
    Column("model_id", Text, primary_key=True),
    Column("step", BigInteger, nullable=False, server_default="0"),
    Column("attempt", Integer, nullable=False, server_default="0"),
    _one_of("role", ("input", "output")),
)

logged_models = Table(
    "logged_models",
    metadata,
    Column("model_id", Text, primary_key=True),
    Column("experiment_id", BigInteger, ForeignKey("experiments.experiment_id"), nullable=False),
    Column("name", Text, nullable=False),
    Column("model_type", Text, nullable=False, server_default=""),
    # Not a key of runs: clients may name a run that lives elsewhere.
    Column("source_run_id", Text, nullable=False, server_default=""),
    Column("status", Text, nullable=False, server_default="pending"),
    Column("lifecycle_stage", Text, nullable=False, server_default="active"),
    # As of runs.
    Column("artifact_root", Text),
    _time("created_at", required=True),
    _time("updated_at", required=True),
    _one_of("status", ("unspecified", "pending", "ready", "upload_failed")),
    _one_of("lifecycle_stage", ("active", "deleted")),
    # serves searches of one experiment, newest first
    Index("ix_logged_models_experiment", "experiment_id", text("created_at DESC"), "model_id"),
    # serves the models of a run
    Index("ix_logged_models_run", "source_run_id", postgresql_where=text("source_run_id <> ''")),
)

logged_model_params = Table(
    "logged_model_params",
    metadata,
    Column("model_id", Text, ForeignKey("logged_models.model_id", ondelete="CASCADE"), primary_key=True),
    Column("key", Text, primary_key=True),
    Column("value", Text, nullable=False),
)

logged_model_tags = Table(
    "logged_model_tags",
    metadata,
    Column("model_id", Text, ForeignKey("logged_models.model_id", ondelete="CASCADE"), primary_key=True),
    Column("key", Text, primary_key=True),
    Column("value", Text, nullable=False),
)

logged_model_metrics = Table(
    "logged_model_metrics",
    metadata,
    Column("model_id", Text, ForeignKey("logged_models.model_id", ondelete="CASCADE"), primary_key=True),
    Column("key", Text, primary_key=True),
    Column("time_ms", BigInteger, primary_key=True),
    Column("step", BigInteger, primary_key=True),
    # The run that measured it.
    Column("run_id", Text, primary_key=True),
    # Part of the key, so that a point sent twice is one point.
    Column("value", Double, primary_key=True),
    Column("dataset_name", Text),
    Column("dataset_digest", Text),
)

leader = Table(
    "leader",
    metadata,
    Column("one", Boolean, primary_key=True, server_default=text("true")),
    Column("epoch", BigInteger, nullable=False),
    Column("holder", Text, nullable=False),
    _time("renewed_at", required=True),
    _time("lease_until", required=True),
    # Expiry of leases is suspended until then (I4).
    _time("suspended_until"),
    CheckConstraint("one", name="one"),
)

registered_models = Table(
    "registered_models",
    metadata,
    Column("name", Text, primary_key=True),
    Column("description", Text, nullable=False, server_default=""),
    _time("created_at", required=True),
    _time("updated_at", required=True),
)

model_versions = Table(
    "model_versions",
    metadata,
    Column("name", Text, ForeignKey("registered_models.name", ondelete="CASCADE", onupdate="CASCADE"), primary_key=True),
    Column("version", Integer, primary_key=True),
    Column("run_id", Text),
    Column("sweep_id", Text),
    Column("trial_number", Integer),
    Column("source", Text, nullable=False, server_default=""),
    Column("description", Text, nullable=False, server_default=""),
    Column("metric_name", Text),
    Column("value", Double),
    Column("params", JSON, nullable=False, server_default="{}"),
    Column("size_bytes", BigInteger),
    _time("created_at", required=True),
    Index("ix_model_versions_run", "run_id"),
    Index("ix_model_versions_sweep", "sweep_id"),
)

model_aliases = Table(
    "model_aliases",
    metadata,
    Column("name", Text, primary_key=True),
    Column("alias", Text, primary_key=True),
    Column("version", Integer, nullable=False),
    ForeignKeyConstraint(["name", "version"], ["model_versions.name", "model_versions.version"], ondelete="CASCADE", onupdate="CASCADE"),
)
