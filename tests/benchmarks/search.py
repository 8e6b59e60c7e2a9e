"""Searches among a million runs: the best of a sweep, its children with everything, pages at any depth; filters over 100,000 runs.

Over HTTP, by a server of its own, each answer read whole. SWEEP_BENCH_RUNS and SWEEP_BENCH_FILTERED set how many runs there are.
"""

import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import httpx

from tests.benchmarks.figures import Figure, percentile
from tests.benchmarks.stage import Stage
from tests.support.cluster import Cluster
from tracking.store import open_store
from tracking.store.database import Transaction

N_RUNS: Final = int(os.environ.get("SWEEP_BENCH_RUNS", "1000000"))
N_FILTERED: Final = int(os.environ.get("SWEEP_BENCH_FILTERED", "100000"))
N_CHILDREN: Final = 1000
N_TIMES: Final = 15
_BY_VALUE: Final = ["ix_metric_latest_value", "ix_params_value", "ix_tags_value"]

_RUNS: Final = """
INSERT INTO runs (run_id, experiment_id, kind, name, user_name, state, created_at, started_at, ended_at, parent_run_id)
SELECT md5(%(e)s || '-' || i), %(e)s, 'external', 'run-' || i, 'user' || i %% 7, CASE WHEN i %% 20 = 0 THEN 'failed' ELSE 'finished' END,
       to_timestamp(1.7e9 + i * 0.1), to_timestamp(1.7e9 + i * 0.1), to_timestamp(1.7e9 + i * 0.1 + 60),
       CASE WHEN %(children)s > 0 THEN md5('parent-' || i / %(children)s) END
  FROM generate_series(0, %(n)s - 1) i
"""
# Stands for EVEN(a, b) below: spread evenly from 0 to 1, the same each time.
_EVEN: Final = r"(hashint8(i * \1 + \2)::bigint + 2147483648) / 4294967296.0"
_METRICS: Final = """
INSERT INTO metric_latest (run_id, key, attempt, step, time_ms, value, min_value, max_value)
SELECT md5(%(e)s || '-' || i), key, 0, 100, 1700000000000 + i, value, value, value
  FROM generate_series(0, %(n)s - 1) i,
       LATERAL (VALUES ('accuracy', EVEN(1, 0)), ('f1', EVEN(7, 1)), ('loss', EVEN(13, 5))) m (key, value)
"""
_PARAMS: Final = """
INSERT INTO params (run_id, key, value)
SELECT md5(%(e)s || '-' || i), key, value
  FROM generate_series(0, %(n)s - 1) i,
       LATERAL (VALUES ('batch', (16 << i %% 5)::text), ('layers', (i %% 8)::text), ('lr', (EVEN(3, 2))::float8::text),
                       ('optimizer', (ARRAY['adam', 'sgd', 'rmsprop', 'lion'])[1 + i %% 4]), ('seed', i::text)) p (key, value)
"""
_TAGS: Final = """
INSERT INTO tags (run_id, key, value)
SELECT md5(%(e)s || '-' || i), key, value
  FROM generate_series(0, %(n)s - 1) i,
       LATERAL (VALUES ('mlflow.source.name', 'train.py'), ('mlflow.source.type', 'LOCAL'), ('team', 'team' || i %% 5)) t (key, value)
"""


def measure(stage: Stage) -> Iterator[Figure]:
    """An experiment of sweeps with 1,000 children each, and one of runs to filter, in one database."""
    with stage.database() as url:
        store = open_store(url)
        many = store.experiments.ensure("many").experiment_id
        some = store.experiments.ensure("some").experiment_id
        with store.database.autocommit() as tx, without_indexes(tx):
            fill(tx, int(many), N_RUNS, N_CHILDREN)
            fill(tx, int(some), N_FILTERED, 0)
        with store.database.autocommit() as tx:
            tx.execute("VACUUM ANALYZE")
            parent = str(tx.scalar("SELECT md5('parent-' || %(n)s)", {"n": N_RUNS // N_CHILDREN // 2}))
        store.close()
        cluster = Cluster(stage.new_folder("search"), url, "none")
        try:
            cluster.start_server()
            with httpx.Client(base_url=cluster.url, timeout=120) as client:
                yield from _figures(client, many, some, parent)
        finally:
            cluster.stop()


@contextmanager
def without_indexes(tx: Transaction) -> Iterator[None]:
    """Let the indexes by value be made at the end, at once: row by row they would take minutes."""
    made = tx.rows("SELECT indexname, indexdef FROM pg_indexes WHERE indexname = ANY(%(names)s)", {"names": _BY_VALUE})
    for index in made:
        tx.execute(f"DROP INDEX {index.indexname}")
    yield
    for index in made:
        tx.execute(index.indexdef)


def fill(tx: Transaction, experiment: int, n_runs: int, n_children: int) -> None:
    """Runs with three metrics, five parameters and three tags each; with `n_children`, so many of each parent."""
    for statement in (_RUNS, _METRICS, _PARAMS, _TAGS):
        tx.execute(re.sub(r"EVEN\((\d+), (\d+)\)", _EVEN, statement), {"e": experiment, "n": n_runs, "children": n_children})


def _figures(client: httpx.Client, many: str, some: str, parent: str) -> Iterator[Figure]:
    children = f"tags.mlflow.parentRunId = '{parent}'"
    common = "metrics.accuracy > 0.5 AND metrics.loss < 0.1 AND params.optimizer = 'adam'"
    rare = "metrics.accuracy > 0.999 AND metrics.loss < 0.5 AND params.optimizer = 'adam'"
    yield _figure(client, f"best of a sweep among {N_RUNS:,} runs", 5, 1, experiment_ids=[many], filter=children, order_by=["metrics.loss"], max_results=1)
    yield _figure(client, f"{N_CHILDREN:,} children with everything", 60, N_CHILDREN, experiment_ids=[many], filter=children, max_results=N_CHILDREN)
    yield _figure(client, f"first page of 100 of {N_RUNS:,} runs", 20, 100, experiment_ids=[many], max_results=100)
    token = _token_at(client, many, N_RUNS // 2)
    yield _figure(client, f"page of 100 in the middle of {N_RUNS:,} runs", 20, 100, experiment_ids=[many], max_results=100, page_token=token)
    yield _figure(client, f"best of {N_FILTERED:,} runs by a metric", None, 1, experiment_ids=[some], order_by=["metrics.loss"], max_results=1)
    for what, text, n_found in (("1 in 80 meets", common, None), ("1 in 7,000 meets", rare, None)):
        for size in (100, 1000):
            name = f"two metrics and a parameter that {what}, of {N_FILTERED:,}, page of {size:,}"
            yield _figure(client, name, None, n_found, experiment_ids=[some], filter=text, max_results=size)


def _token_at(client: httpx.Client, experiment: str, n_before: int) -> str:
    """The token of the page after so many runs, read in the largest pages there are."""
    token = ""
    while n_before > 0:
        size = min(n_before, 50_000)
        answer = _search(client, experiment_ids=[experiment], max_results=size, page_token=token)
        token, n_before = answer["next_page_token"], n_before - size
    return token


def _search(client: httpx.Client, **asked: Any) -> dict[str, Any]:
    found: dict[str, Any] = client.post("/api/2.0/mlflow/runs/search", json=asked).raise_for_status().json()
    return found


def _figure(client: httpx.Client, what: str, goal_ms: float | None, n_found: int | None, **asked: Any) -> Figure:
    times = []
    for _ in range(N_TIMES):
        began = time.perf_counter()
        response = client.post("/api/2.0/mlflow/runs/search", json=asked)
        times.append((time.perf_counter() - began) * 1000)
        found = response.raise_for_status().json().get("runs", [])
        assert n_found is None or len(found) == n_found, (what, len(found))
    median = percentile(times, 0.5)
    goal = "" if goal_ms is None else f"<= {goal_ms:g} ms"
    return Figure(
        what, f"{median:.1f} ms", goal=goal, is_met=None if goal_ms is None else median <= goal_ms, values={"median_ms": median, "least_ms": min(times)}
    )
