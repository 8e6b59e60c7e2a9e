"""Clients that log as fast as they can while Postgres goes and comes back: what was acknowledged is there, once (D6, I8)."""

import itertools
import math
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Final

import httpx
import pytest

from tests.faults.test_postgres import connected
from tests.support.fault_table import Faults
from tests.support.faults import FaultCluster

MakeCluster = Callable[..., FaultCluster]

N_CLIENTS: Final = 8
N_KEYS: Final = 3
RETRIED: Final = (408, 429, 500, 502, 503, 504)
"""What MLflow's clients send again."""
DEADLINE_S: Final = 120.0

Point = tuple[int, int, float]
"""Step, time (ms), value."""


@dataclass
class Writer:
    """Logs to a run of its own, one point or many a request, and sends again what was not answered, as MLflow's clients do."""

    url: str
    run_id: str
    tokens: dict[str, str]
    acknowledged: dict[str, list[Point]] = field(default_factory=dict)
    n_acknowledged: int = 0
    n_repeated: int = 0
    _step: Any = field(default_factory=itertools.count)

    def write_until(self, is_over: threading.Event) -> None:
        """Log until told to stop; the last request is answered too."""
        with httpx.Client(base_url=f"{self.url}/api/2.0/mlflow", headers=self.tokens, timeout=30, trust_env=False) as client:
            for size in itertools.cycle((1, 1, 200, 7)):
                if is_over.is_set():
                    return
                self._log(client, [self._next() for _ in range(size)])

    def read(self, key: str) -> list[Point]:
        """What a reader sees of a key."""
        points: list[Point] = []
        with httpx.Client(base_url=f"{self.url}/api/2.0/mlflow", headers=self.tokens, timeout=60, trust_env=False) as client:
            token = ""
            while True:
                answer = client.get("/metrics/get-history", params={"run_id": self.run_id, "metric_key": key, "max_results": 1000, "page_token": token})
                if answer.status_code in RETRIED:  # over a connection from before a restart
                    continue
                assert answer.status_code == 200, answer.text
                page = answer.json()
                points += [(point["step"], point["timestamp"], float(point["value"])) for point in page.get("metrics", [])]
                token = page.get("next_page_token", "")
                if not token:
                    return points

    def _next(self) -> tuple[str, Point]:
        step = next(self._step)
        return f"m{step % N_KEYS}", (step, 1_700_000_000_000 + step, math.nan if step % 97 == 0 else step / 7)

    def _log(self, client: httpx.Client, points: list[tuple[str, Point]]) -> None:
        metrics = [{"key": key, "step": step, "timestamp": ms, "value": "NaN" if math.isnan(value) else value} for key, (step, ms, value) in points]
        path, body = ("/runs/log-metric", metrics[0]) if len(metrics) == 1 else ("/runs/log-batch", {"metrics": metrics})
        while True:
            try:
                answer = client.post(path, json={"run_id": self.run_id, **body})
            except httpx.TransportError:
                self.n_repeated += 1
                continue
            if answer.status_code not in RETRIED:
                break
            self.n_repeated += 1
            threading.Event().wait(0.05)
        assert answer.status_code == 200, answer.text
        for key, point in points:
            self.acknowledged.setdefault(key, []).append(point)
        self.n_acknowledged += len(points)


def _shown(points: list[Point]) -> list[str]:
    return sorted(map(str, points))


def _writers(cluster: FaultCluster) -> list[Writer]:
    with httpx.Client(base_url=f"{cluster.url}/api/2.0/mlflow", timeout=30, trust_env=False) as client:
        runs = [client.post("/runs/create", json={"experiment_id": "0"}).json()["run"]["info"]["run_id"] for _ in range(N_CLIENTS)]
    return [Writer(cluster.url, run_id, {}) for run_id in runs]


@pytest.mark.timeout(400)
def test_points_are_there_once_when_postgres_is_restarted_under_their_writers(fault_cluster: MakeCluster, faults: Faults) -> None:
    """Eight clients, Postgres killed and then restarted: each acknowledged point is read exactly once, nothing else is, and no answer was odd."""
    cluster = fault_cluster(broker="none", proxies=(), start=False)
    cluster.start_server()
    writers = _writers(cluster)
    is_over = threading.Event()

    def written() -> int:
        return sum(writer.n_acknowledged for writer in writers)

    with ThreadPoolExecutor(N_CLIENTS) as pool:
        writing = [pool.submit(writer.write_until, is_over) for writer in writers]
        try:
            for how in ("kill -9", "fast"):
                seen = written()
                cluster.wait_for(lambda seen=seen: written() >= seen + 20_000, "they write", deadline_s=DEADLINE_S)  # type: ignore[misc]
                cluster.postgres.kill() if how == "kill -9" else cluster.postgres.stop("fast")
                faults.record(f"Postgres: {how}, eight clients logging")
                cluster.postgres.start()
            seen = written()
            cluster.wait_for(lambda: written() >= seen + 20_000, "they go on", deadline_s=DEADLINE_S)
        finally:
            is_over.set()
        for each in writing:
            each.result(DEADLINE_S)
    assert sum(writer.n_repeated for writer in writers) > 0, "no writer has noticed anything"
    for writer in writers:
        for key, points in writer.acknowledged.items():
            assert _shown(writer.read(key)) == _shown(points)
        latest = cluster.query("SELECT key, step FROM metric_latest WHERE run_id = %(id)s", id=writer.run_id)
        assert {row.key: row.step for row in latest} == {key: max(step for step, _, _ in points) for key, points in writer.acknowledged.items()}


@pytest.mark.quick
def test_points_of_others_are_written_when_somebody_holds_a_lock_on_one_runs(fault_cluster: MakeCluster, faults: Faults) -> None:
    """One run's latest values are locked: its writer is told to try again, the others' points are acknowledged meanwhile."""
    cluster = fault_cluster(broker="none", proxies=(), start=False)
    cluster.start_server()
    held, *others = _writers(cluster)
    with httpx.Client(base_url=f"{cluster.url}/api/2.0/mlflow", timeout=60, trust_env=False) as client:
        body = {"key": "m", "value": 1.0, "timestamp": 1, "step": 0}
        for writer in (held, *others):
            assert client.post("/runs/log-metric", json={**body, "run_id": writer.run_id}).status_code == 200
        with connected(cluster) as cursor, ThreadPoolExecutor(N_CLIENTS) as pool:
            cursor.execute("SELECT 1 FROM metric_latest WHERE run_id = %(id)s FOR UPDATE", {"id": held.run_id})
            faults.record("Postgres: one run's latest values locked")

            def log(run_id: str) -> int:
                return client.post("/runs/log-metric", json={**body, "run_id": run_id, "step": 1}).status_code

            told = [pool.submit(log, run_id) for run_id in [held.run_id, *(writer.run_id for writer in others)]]
            assert [each.result(DEADLINE_S) for each in told] == [503] + [200] * len(others)
        assert log(held.run_id) == 200
