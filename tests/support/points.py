"""Trials that log numbered points through `sweep_client`, and the check that each of them is in the record, once and in order."""

from typing import Final

from tests.support.cluster import Cluster

KEY: Final = "acc"
# `-I` leaves PYTHONPATH to us; the trial's own environment names the client's folder first.
_IMPORT: Final = 'sys.path.insert(0, os.environ["PYTHONPATH"].split(":")[0])\nimport sweep_client\n'
_LOG: Final = """
for step in range({n_points}):
    sweep_client.log({{"acc": int(number) + step / 1000}}, step=step)
    time.sleep({pause_s})
"""
_FLUSH: Final = 'assert sweep_client.flush(60), "not everything logged was taken"\n'


def logging_lines(n_points: int, *, pause_s: float = 0.0, is_flushed: bool = True, settings: str = "") -> str:
    """Lines for `ledger_project(extra=...)`: log points 0, 1, 2 ... of `KEY`.

    Args:
        is_flushed: a trial whose points were not all taken fails, and its second entry in the ledger comes after that. Else its end does the rest.
        settings: lines before the first call, such as `sweep_client.EXIT_FLUSH_S = 2`.
    """
    return _IMPORT + settings + _LOG.format(n_points=n_points, pause_s=pause_s) + (_FLUSH if is_flushed else "")


def points_of(cluster: Cluster, run_id: str, key: str = KEY) -> list[tuple[int, object]]:
    """Step and value of each point of one metric, as readers get them."""
    with cluster.client() as client:
        return [(point["step"], point["value"]) for point in client.metrics(run_id, key=key)["metrics"]]


def check_points(cluster: Cluster, sweep_id: str, n_points: int) -> None:
    """Assert that every trial's points are there, none twice, by step (I8)."""
    for trial in cluster.query("SELECT run_id, number FROM trials WHERE sweep_id = %(id)s", id=sweep_id):
        expected: list[tuple[int, object]] = [(step, trial.number + step / 1000) for step in range(n_points)]
        found = points_of(cluster, trial.run_id)
        assert found == expected, (
            f"trial {trial.number} has {len(found)} points instead of {n_points}: missing {[point for point in expected if point not in set(found)][:5]}"
        )
