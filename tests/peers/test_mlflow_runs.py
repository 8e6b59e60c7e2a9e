"""The runs that benchmarks write straight into MLflow's tables and into ours are the same runs to both servers."""

from typing import Any, Final

import pytest

from tests.benchmarks.load import Connection
from tests.benchmarks.mlflow_runs import fill_mlflow
from tests.benchmarks.search import fill
from tests.support.cluster import Cluster
from tests.support.mlflow_peer import MlflowServer
from tracking.store import open_store

N_RUNS: Final = 1005
N_CHILDREN: Final = 100

pytestmark = pytest.mark.timeout(240)


def told(run: dict[str, Any]) -> tuple[object, ...]:
    """What a run is, its ids apart: an experiment's is in them."""
    info, data = run["info"], run["data"]
    return (
        *(info[key] for key in ("run_name", "user_id", "status", "start_time", "end_time")),
        sorted((metric["key"], metric["value"], metric["timestamp"], metric["step"]) for metric in data["metrics"]),
        *(sorted((each["key"], each["value"]) for each in data[kind]) for kind in ("params", "tags")),
    )


def test_filled_runs_are_the_same_to_both_servers(their_server: MlflowServer, their_database_url: str, our_server: Cluster) -> None:
    """With their metrics, parameters and tags; found by the same filters, in the same order."""
    theirs = fill_mlflow(their_database_url, N_RUNS, N_CHILDREN)
    store = open_store(our_server.database_url)
    ours = store.experiments.create("filled").experiment_id
    with store.database.autocommit() as tx:
        fill(tx, int(ours), N_RUNS, N_CHILDREN)
        parent = tx.scalar("SELECT md5('parent-3')")
    store.close()
    sides = [(Connection(our_server.url), ours), (Connection(their_server.url), theirs)]
    for text, order, least, most in (
        ("", [], N_RUNS, N_RUNS),
        (f"tags.mlflow.parentRunId = '{parent}'", ["metrics.loss"], N_CHILDREN, N_CHILDREN),
        ("metrics.accuracy > 0.5 AND metrics.loss < 0.5 AND params.optimizer = 'adam'", ["metrics.f1 DESC"], 10, 200),
    ):
        asked = {"filter": text, "order_by": order, "max_results": N_RUNS}
        found = [[told(run) for run in side.post("runs/search", experiment_ids=[experiment], **asked)["runs"]] for side, experiment in sides]
        assert least <= len(found[0]) <= most
        assert found[0] == found[1]
    for side, _ in sides:
        side.close()
