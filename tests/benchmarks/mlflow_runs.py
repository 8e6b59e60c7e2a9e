"""MLflow's own tables filled with the runs that `search.fill` writes into ours, so that searches of both are measured over the same."""

import re
from typing import Final

import psycopg2

from tracking.store.database import normalise_url

# EVEN(a, b) is a number from 0 to 1, spread evenly, the same each time; ids, names, values and times are those of tests/benchmarks/search.py. A run's
# parent is told by a tag, which MLflow counts with the others.
_EVEN: Final = r"(hashint8(i * \1 + \2)::bigint + 2147483648) / 4294967296.0"
_FILL: Final = """
INSERT INTO runs (run_uuid, name, source_type, user_id, status, start_time, end_time, lifecycle_stage, artifact_uri, experiment_id)
SELECT md5(%(e)s || '-' || i), 'run-' || i, 'LOCAL', 'user' || i %% 7, CASE WHEN i %% 20 = 0 THEN 'FAILED' ELSE 'FINISHED' END,
       1700000000000 + i * 100, 1700000060000 + i * 100, 'active',
       'mlflow-artifacts:/' || %(e)s || '/' || md5(%(e)s || '-' || i) || '/artifacts', %(e)s
  FROM generate_series(0::bigint, %(n)s - 1) i;

INSERT INTO metrics (key, value, timestamp, run_uuid, step, is_nan)
SELECT key, value, 1700000000000 + i, md5(%(e)s || '-' || i), 100, false
  FROM generate_series(0::bigint, %(n)s - 1) i,
       LATERAL (VALUES ('accuracy', EVEN(1, 0)), ('f1', EVEN(7, 1)), ('loss', EVEN(13, 5))) m (key, value);

INSERT INTO latest_metrics (key, value, timestamp, run_uuid, step, is_nan)
SELECT key, value, timestamp, run_uuid, step, is_nan FROM metrics JOIN runs USING (run_uuid) WHERE experiment_id = %(e)s;

INSERT INTO params (run_uuid, key, value)
SELECT md5(%(e)s || '-' || i), key, value
  FROM generate_series(0, %(n)s - 1) i,
       LATERAL (VALUES ('batch', (16 << i %% 5)::text), ('layers', (i %% 8)::text), ('lr', (EVEN(3, 2))::float8::text),
                       ('optimizer', (ARRAY['adam', 'sgd', 'rmsprop', 'lion'])[1 + i %% 4]), ('seed', i::text)) p (key, value);

INSERT INTO tags (run_uuid, key, value)
SELECT md5(%(e)s || '-' || i), key, value
  FROM generate_series(0, %(n)s - 1) i,
       LATERAL (VALUES ('mlflow.source.name', 'train.py'), ('mlflow.source.type', 'LOCAL'), ('team', 'team' || i %% 5), ('mlflow.runName', 'run-' || i),
                       ('mlflow.user', 'user' || i %% 7), ('mlflow.parentRunId', md5('parent-' || i / %(children)s))) t (key, value)
 WHERE %(children)s > 0 OR key <> 'mlflow.parentRunId';
"""


def fill_mlflow(database_url: str, n_runs: int, n_children: int, *, name: str = "filled") -> str:
    """Write finished runs straight into the tables of MLflow's server, which has migrated them; the id of their experiment.

    Args:
        database_url: of MLflow's server.
        n_children: how many each parent has; 0 for no parents.
        name: of the new experiment.
    """
    connection = psycopg2.connect(normalise_url(database_url).replace("+psycopg2", ""))
    try:
        with connection, connection.cursor() as cursor:
            cursor.execute(
                "INSERT INTO experiments (name, artifact_location, lifecycle_stage, creation_time, last_update_time)"
                " VALUES (%s, 'mlflow-artifacts:/filled', 'active', 1700000000000, 1700000000000) RETURNING experiment_id",
                (name,),
            )
            row = cursor.fetchone()
            if row is None:
                raise AssertionError("an INSERT ... RETURNING returned nothing")
            # A division by no children would fail even where its row is left out.
            fill = _FILL if n_children else _FILL.replace("i / %(children)s", "i")
            cursor.execute(re.sub(r"EVEN\((\d+), (\d+)\)", _EVEN, fill), {"e": row[0], "n": n_runs, "children": n_children})
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute("VACUUM ANALYZE")
    finally:
        connection.close()
    return str(row[0])
