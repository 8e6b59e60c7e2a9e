"""The schema: migrated up, down and at once, equal to the tables, and refusing rows that may not be (D1)."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine
from sqlalchemy.exc import IntegrityError

import tracking.migrations
from tests.support.record import NOT_LAUNCHED, Hands, both
from tracking.errors import SchemaOutdated
from tracking.ids import new_uuid
from tracking.migrations import HEAD
from tracking.store import open_store, upgrade_schema
from tracking.store.database import Database, normalise_url
from tracking.store.schema import check_schema, downgrade_schema, schema_version
from tracking.tables import metadata

DOCS = Path(__file__).parents[2] / "docs" / "audit.md"

EVERYTHING = """
SELECT 'column', table_name, column_name, data_type || coalesce(column_default, '') || is_nullable FROM information_schema.columns WHERE table_schema = 'public'
UNION ALL SELECT 'index', tablename, indexname, indexdef FROM pg_indexes WHERE schemaname = 'public'
UNION ALL SELECT 'constraint', conrelid::regclass::text, conname, pg_get_constraintdef(oid) FROM pg_constraint WHERE connamespace = 'public'::regnamespace
UNION ALL SELECT 'options', relname, '', reloptions::text FROM pg_class WHERE relnamespace = 'public'::regnamespace AND reloptions IS NOT NULL
ORDER BY 1, 2, 3
"""


@contextmanager
def opened(url: str) -> Iterator[Database]:
    """A database, whatever its schema."""
    database = Database(url, pool_size=1)
    yield database
    database.close()


def everything(url: str) -> list[tuple[Any, ...]]:
    """All tables, columns, indexes and constraints of a database, but for Alembic's own."""
    with opened(url) as database, database.engine.connect() as connection:
        return [tuple(row) for row in connection.exec_driver_sql(EVERYTHING) if not row[1].startswith("alembic")]


def test_migrations_head_is_the_newest_revision() -> None:
    """The constant that a start compares with, and one line of revisions without branches."""
    config = Config()
    config.set_main_option("script_location", str(Path(tracking.migrations.__file__).parent))
    assert ScriptDirectory.from_config(config).get_heads() == [HEAD]


def test_migrations_up_down_up(every_postgres_url: str) -> None:
    """On every Postgres at hand: nothing is left behind on the way down, and the way up gives the same again."""
    assert upgrade_schema(every_postgres_url) == HEAD
    first = everything(every_postgres_url)
    store = open_store(every_postgres_url)
    assert store.experiments.get("0").name == "Default"
    store.close()
    downgrade_schema(every_postgres_url, "base")
    assert everything(every_postgres_url) == []
    upgrade_schema(every_postgres_url)
    assert everything(every_postgres_url) == first


def test_migrations_make_what_the_tables_say(every_postgres_url: str, database_maker: Any) -> None:
    """The migrated schema and `tracking.tables` are one: by Alembic's comparison, and definition by definition."""
    upgrade_schema(every_postgres_url)
    engine = create_engine(normalise_url(every_postgres_url))
    try:
        with engine.connect() as connection:
            # Defaults are compared below: Alembic would ask Postgres whether two JSON texts are equal, which it does not answer.
            context = MigrationContext.configure(connection, opts={"compare_type": True})
            assert compare_metadata(context, metadata) == []
        migrated = everything(every_postgres_url)
        downgrade_schema(every_postgres_url, "base")
        with engine.begin() as connection:
            metadata.create_all(connection)
        views = ("audit_trials", "audit_attempts", "audit_points", "audit_events")
        assert everything(every_postgres_url) == [row for row in migrated if row[1] not in views]
    finally:
        engine.dispose()


def test_migrations_twice_at_once(empty_database_url: str) -> None:
    """Two programs that start on an empty database: one migrates, the other waits and finds it done."""
    assert both(*[lambda: upgrade_schema(empty_database_url)] * 2) == (HEAD, HEAD)
    with opened(empty_database_url) as database:
        check_schema(database)


def test_migrations_again_is_no_change(database_url: str) -> None:
    """At the newest schema there is nothing to do."""
    before = everything(database_url)
    upgrade_schema(database_url)
    assert everything(database_url) == before


def test_schema_empty_is_outdated(empty_database_url: str) -> None:
    """A database without any schema: refused, with what to do."""
    with opened(empty_database_url) as database:
        assert schema_version(database) is None
    with pytest.raises(SchemaOutdated, match=f"^The database is empty; this program needs schema {HEAD}") as refused:
        open_store(empty_database_url)
    assert "sweep db upgrade" in refused.value.hint


def test_schema_of_another_revision_is_outdated(database_url: str) -> None:
    """Older or newer than this program: refused by number."""
    with opened(database_url) as database, database.transaction() as tx:
        tx.execute("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(SchemaOutdated, match="9999"):
        open_store(database_url)


def test_schema_that_lacks_a_table_is_outdated_not_a_traceback(database_url: str) -> None:
    """A check that was skipped does not turn into a driver's error."""
    store = open_store(database_url)
    with store.database.transaction() as tx:
        tx.execute("DROP TABLE snapshots")
    with pytest.raises(SchemaOutdated, match="snapshots"):
        store.snapshots.exists("x")
    store.close()


# -- what the database itself refuses ---------------------------------------------------------------------------------


ILLEGAL = {
    "a run of no known state": "UPDATE runs SET state = 'flying' WHERE run_id = %(run)s",
    "a run of no known kind": "UPDATE runs SET kind = 'other' WHERE run_id = %(run)s",
    "a managed run that is killed": "UPDATE runs SET state = 'killed' WHERE run_id = %(run)s",
    "a run placed nowhere": "UPDATE runs SET state = 'placed', session_id = NULL WHERE run_id = %(run)s",
    "an attempt of no known state": "UPDATE attempts SET state = 'queued' WHERE run_id = %(run)s",
    "two live attempts of a run": "INSERT INTO attempts (run_id, attempt, state, worker_id, session_id, placement, claim_id, token_hash) "
    "VALUES (%(run)s, 2, 'running', 'w', 's', 1, 'another claim', '')",
    "one claim for two attempts": "INSERT INTO attempts (run_id, attempt, state, worker_id, session_id, placement, claim_id, token_hash) "
    "SELECT run_id, 2, 'lost', 'w', 's', 1, claim_id, '' FROM attempts WHERE run_id = %(run)s",
    "an attempt of no run": "INSERT INTO attempts (run_id, attempt, state, worker_id, session_id, placement, claim_id, token_hash) "
    "VALUES ('none', 1, 'lost', 'w', 's', 1, 'c', '')",
    "two trials of a number": "INSERT INTO trials (sweep_id, number, state, params, run_id) VALUES (%(sweep)s, 0, 'open', '{}', 'r')",
    "a negative trial": "INSERT INTO trials (sweep_id, number, state, params, run_id) VALUES (%(sweep)s, -1, 'open', '{}', 'r')",
    "an open trial that was told": "UPDATE trials SET told_seq = 1 WHERE sweep_id = %(sweep)s",
    "an ended trial that was not told": "UPDATE trials SET state = 'finished' WHERE sweep_id = %(sweep)s",
    "a trial of no known state": "UPDATE trials SET state = 'running', told_seq = 1 WHERE sweep_id = %(sweep)s",
    "a trial of no sweep": "INSERT INTO trials (sweep_id, number, state, params, run_id) VALUES ('none', 0, 'open', '{}', 'r')",
    "a sweep of no known state": "UPDATE sweeps SET state = 'open' WHERE sweep_id = %(sweep)s",
    "a goal that is none": "UPDATE sweeps SET metric_goal = 'min' WHERE sweep_id = %(sweep)s",
    "a way to judge that is none": "UPDATE sweeps SET metric_from = 'first' WHERE sweep_id = %(sweep)s",
    "two sweeps of a submission": "UPDATE sweeps SET submission_id = (SELECT submission_id FROM sweeps WHERE sweep_id = %(sweep)s)",
    "two live sessions of a worker": "INSERT INTO sessions (session_id, worker_id, state, celery_queue, queues, slots, cpus, memory_bytes, gpus, runtimes, "
    "host_incarnation) SELECT 'another', worker_id, 'live', '', '{}', 1, 1, 1, 0, '{}', '' FROM sessions WHERE session_id = %(session)s",
    "a session of no known state": "UPDATE sessions SET state = 'silent' WHERE session_id = %(session)s",
    "a second leader": "INSERT INTO leader (one, epoch, holder) VALUES (false, 1, 'x')",
    "a third stream": "INSERT INTO log_chunks (run_id, attempt, stream, offset_bytes, data) VALUES (%(run)s, 1, 'stdlog', 0, '')",
    "an event about nothing known": "INSERT INTO events (subject, event) VALUES ('cat', 'sleep')",
    "an experiment in limbo": "UPDATE experiments SET lifecycle_stage = 'lost'",
    "an alias of no version": "INSERT INTO model_aliases (name, alias, version) VALUES ('none', 'best', 1)",
}


@pytest.mark.parametrize("statement", ILLEGAL.values(), ids=ILLEGAL)
def test_constraints_refuse_illegal_rows(hands: Hands, statement: str) -> None:
    """What the database can enforce, it enforces, whoever writes."""
    sweep = hands.sweep()
    hands.sweep()
    held = hands.start(sweep)
    with pytest.raises(IntegrityError):
        _raw(hands, statement, {"run": held.run_id, "sweep": sweep.sweep_id, "session": held.session_id})


def _raw(hands: Hands, statement: str, values: dict[str, Any]) -> None:
    with hands.store.database.engine.begin() as connection:
        connection.exec_driver_sql(statement, values)


# -- audit views -----------------------------------------------------------------------------------------------------------


def test_audit_views_have_the_columns_that_are_documented(hands: Hands) -> None:
    """The views are a promise: names and order of columns stand in docs/audit.md."""
    documented = {
        cells[1].strip(" `"): [name.strip(" `") for name in cells[3].split(",")]
        for cells in (line.split("|") for line in DOCS.read_text(encoding="utf-8").splitlines() if line.startswith("| `audit_"))
    }
    rows = hands.sql("SELECT table_name, column_name FROM information_schema.columns WHERE table_name LIKE 'audit%%' ORDER BY table_name, ordinal_position")
    found: dict[str, list[str]] = {}
    for table, column in rows:
        found.setdefault(table, []).append(column)
    assert found == documented
    assert set(found) == {"audit_trials", "audit_attempts", "audit_points", "audit_events"}


def test_audit_page_runs_as_it_is_printed(hands: Hands) -> None:
    """Each statement of docs/audit.md is what psql takes, and answers as its comment says."""
    sweep = hands.sweep(metric_name="loss", name=new_uuid())
    held = hands.start(sweep)
    hands.log(held, "loss", 0.25)
    hands.finish(held)
    hands.store.trials.conclude(hands.epoch, sweep.sweep_id)
    gaps, doubled, budgets, causes, life = documented_answers(hands, sweep.sweep_id, held.run_id)
    assert [tuple(row) for row in gaps] == [(1, 0, 0, 1, 0)]
    assert not doubled
    assert not budgets
    assert [tuple(row) for row in causes] == [("completed", 1)]
    assert [row.event for row in life] == ["queue", "place", "claim", "succeed", "finish", "finish"]


def documented_answers(hands: Hands, sweep_id: str, run_id: str) -> list[Any]:
    """What each statement of docs/audit.md answers."""
    text = "".join(re.findall(r"```sql\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL))
    values = {"sweep_id": sweep_id, "run_id": run_id}
    statements = re.sub(r":'(\w+)'", lambda name: f"'{values[name[1]]}'", text).split(";")[:-1]
    return [hands.sql(statement) for statement in statements]


def test_audit_page_counts_retries_by_requeues(hands: Hands) -> None:
    """A retry is paid for when it is granted: one whose run was dropped before its next claim has no attempt (I6)."""
    sweep, worker = hands.sweep(2, name=new_uuid()), hands.worker()
    hands.finish(hands.retry(hands.start(sweep, 0, worker), worker))
    dropped = hands.start(sweep, 1, worker)
    hands.finish(dropped, NOT_LAUNCHED)
    assert hands.store.queue.requeue(hands.epoch, hands.due(dropped.run_id), delay_s=60, machinery=True, detail="again")
    assert hands.store.queue.request_cancel(dropped.run_id)
    budgets = documented_answers(hands, sweep.sweep_id, dropped.run_id)[2]
    assert sorted(tuple(row) for row in budgets) == [(0, 2, 1, 0, 1), (1, 1, 1, 0, 1)]


def test_audit_views_tell_the_whole_story_of_a_trial(hands: Hands) -> None:
    """A trial of two attempts, from submission to its end, by SQL alone."""
    sweep = hands.sweep(metric_name="loss", name=new_uuid())
    worker = hands.worker()
    second = hands.retry(hands.start(sweep), worker)
    hands.log(second, "loss", 0.25)
    hands.finish(second)
    hands.store.trials.conclude(hands.epoch, sweep.sweep_id)
    (trial,) = hands.sql("SELECT * FROM audit_trials WHERE sweep_id = %(id)s", id=sweep.sweep_id)
    assert (trial.sweep_name, trial.trial_number, trial.generation, trial.state, trial.cause) == (sweep.name, 0, 0, "finished", "completed")
    assert (trial.value, trial.told_seq, trial.run_state, trial.n_attempts) == (0.25, 1, "finished", 2)
    assert (trial.machinery_faults, trial.user_retries) == (1, 0)
    attempts = hands.sql("SELECT * FROM audit_attempts WHERE sweep_id = %(id)s ORDER BY attempt", id=sweep.sweep_id)
    assert [(a.attempt, a.placement, a.state, a.cause) for a in attempts] == [(1, 1, "failed", "launch"), (2, 2, "succeeded", "completed")]
    assert (attempts[1].worker_name, attempts[1].session_id, attempts[1].exit_status) == (worker.name, worker.session_id, 0)
    events = hands.sql("SELECT * FROM audit_events WHERE sweep_id = %(id)s ORDER BY seq", id=sweep.sweep_id)
    assert [(e.subject, e.event, e.from_state, e.to_state) for e in events] == [
        ("sweep", "submit", None, "active"),
        ("run", "queue", None, "queued"),
        ("run", "place", "queued", "placed"),
        ("run", "claim", "placed", "running"),
        ("attempt", "fail", "running", "failed"),
        ("run", "requeue", "running", "queued"),
        ("run", "place", "queued", "placed"),
        ("run", "claim", "placed", "running"),
        ("attempt", "succeed", "running", "succeeded"),
        ("run", "finish", "running", "finished"),
        ("trial", "finish", "open", "finished"),
    ]
