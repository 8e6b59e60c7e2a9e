"""Whole sweeps read from Python: ten thousand trials as a data frame and as an Optuna study, beside Optuna's own storage with the same trials."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Final
from unittest import mock

import optuna

import sweeps
from tests.benchmarks.figures import Figure
from tests.benchmarks.scheduler import submit_with_past
from tests.benchmarks.stage import Stage
from tests.support.cluster import Cluster
from tracking.store import open_store

N_TRIALS: Final = 10_000
N_STEPS: Final = 10
N_TIMES: Final = 3
_CURVES: Final = """
INSERT INTO metric_points (series_id, step, time_ms, value)
SELECT m.series_id, s.step, s.step, 1.0 / (s.step + 1) FROM metric_latest m, generate_series(0, %(last)s) AS s (step)
"""


def measure(stage: Stage) -> Iterator[Figure]:
    """A finished sweep of 10,000 trials with ten points each, over HTTP from a server of its own."""
    with stage.database() as url:
        store = open_store(url)
        submit_with_past(store, "bayes", N_TRIALS)
        with store.database.transaction() as tx:
            tx.execute(_CURVES, {"last": N_STEPS - 1})
            tx.execute("UPDATE metric_latest SET step = %(last)s", {"last": N_STEPS - 1})
            tx.execute("ANALYZE")
        store.close()
        folder = stage.new_folder("reading")
        cluster = Cluster(folder, url, "none")
        try:
            cluster.start_server()
            with mock.patch.dict(os.environ, {"SWEEP_SERVER": cluster.url}):
                yield from _figures(str(folder / "study.db"))
        finally:
            cluster.stop()


def _figures(storage: str) -> Iterator[Figure]:
    sweep = sweeps.sweep("@latest")
    # Once for the imports, and for Optuna's own storage with the same trials in it.
    subprocess.run([sys.executable, "-m", "sweeps.cli", "export", sweep.id, "--format", "optuna", "--out", storage], check=True, capture_output=True)
    peer = f"sqlite:///{storage}"
    assert len(sweep.trials()) == len(sweep.study().trials) == len(_load(peer).trials) == N_TRIALS
    for what, ours, theirs in (
        ("as a data frame", sweep.trials, lambda: _load(peer).trials_dataframe()),
        ("as a study with its curves", lambda: sweep.study().trials, lambda: _load(peer).trials),
    ):
        ours_s, peer_s = _fastest_s(ours), _fastest_s(theirs)
        yield Figure(
            f"{N_TRIALS:,} trials of {N_STEPS} points read {what}",
            f"{ours_s:.2f} s",
            f"Optuna, from SQLite: {peer_s:.2f} s",
            f"{ours_s / peer_s:.2f}",
            values={"s": ours_s, "optuna_s": peer_s},
        )


def _load(storage: str) -> optuna.Study:
    (name,) = optuna.get_all_study_names(storage)
    return optuna.load_study(study_name=name, storage=storage)


def _fastest_s(act: Callable[[], object]) -> float:
    times = []
    for _ in range(N_TIMES):
        began = time.perf_counter()
        act()
        times.append(time.perf_counter() - began)
    return min(times)
