"""Tracking over HTTP, beside `mlflow server` on the same Postgres in the same run, each at its best number of clients.

A few seconds at each number of clients find the best one; the row is measured there for BENCH_SECONDS (30). After a restart of
Postgres everything acknowledged in the rows is read back through the servers and summed; a benchmark that lost a point fails. The raw limit
is COPY of the same points by as many connections into a table of the same columns and indexes.
"""

import io
import math
import multiprocessing
import os
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Self

import psycopg2

from tests.benchmarks.figures import Figure
from tests.benchmarks.load import BATCH, START_MS, Connection, Kind, Row, history, load, missing, null_server
from tests.benchmarks.mlflow_runs import fill_mlflow
from tests.benchmarks.search import N_CHILDREN, N_FILTERED, fill, without_indexes
from tests.benchmarks.stage import Stage
from tests.support.cluster import Cluster
from tests.support.memory import family_bytes
from tests.support.mlflow_peer import MlflowEnvironment, MlflowServer, mlflow_server
from tracking.settings import Settings
from tracking.store import open_store
from tracking.store.database import normalise_url

SECONDS: Final = float(os.environ.get("BENCH_SECONDS", "30"))
TRIED_S: Final = max(1.0, SECONDS / 10)
OUR_CLIENTS: Final = (1, 2, 4, 8, 16, 32)
THEIR_CLIENTS: Final = (4, 16)
# Two do best on two cores; its own default is four.
THEIR_WORKERS: Final = int(os.environ.get("BENCH_MLFLOW_WORKERS", "2"))
N_HISTORY: Final = 100_000
N_TIMES: Final = 5

# what is measured, how it is counted, the least ratio to the peer
_KINDS: Final[tuple[tuple[Kind, str, str, float], ...]] = (
    ("batch", f"points logged in batches of {BATCH:,}", "points/s", 20),
    ("metric", "single log-metric", "requests/s", 10),
    ("create", "create_run", "runs/s", 10),
)
_METRIC_P99_MS: Final = 20.0
_COPY_SHARE: Final = 0.6
_LATE_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class Contender:
    """A server that is measured.

    Attributes:
        clients: numbers of them to try.
        pid: of its first process; those that it has started count too.
    """

    name: str
    url: str
    database_url: str
    clients: Sequence[int]
    pid: int


def measure(stage: Stage) -> Iterator[Figure]:
    """All rows of ours; beside them MLflow's, where it is installed."""
    with ExitStack() as exits:
        ours = exits.enter_context(_our_server(stage))
        theirs = exits.enter_context(_their_server(stage)) if MlflowEnvironment(3).is_there else None
        if theirs is None:
            print("    MLflow is not installed (make peers): our numbers alone", file=sys.stderr)  # noqa: T201
        with null_server() as nobody:
            for kind, what, unit, _ in _KINDS:
                print(f"    the generator's ceiling, {what}: {load(nobody, kind, 2, TRIED_S).rate:,.0f} {unit}", file=sys.stderr)  # noqa: T201
        kept: dict[str, list[Row]] = {}
        for kind, what, unit, least in _KINDS:
            rows = {}
            for one in filter(None, (ours, theirs)):
                before = _database_bytes(one.database_url)
                with _Most(partial(family_bytes, one.pid)) as memory, _renewals(ours.database_url) as renewals:
                    rows[one.name] = _best(one, kind)
                kept.setdefault(one.name, []).append(rows[one.name])
                if kind == "batch":
                    yield from _beside(one, rows[one.name], before, memory.most)
                if one is ours:
                    yield _renewal_figure(what, renewals.most)
            yield _figure(what, unit, least, rows[ours.name], rows[theirs.name] if theirs else None)
            if kind == "batch":
                yield _copy_figure(ours, rows[ours.name])
        yield _history_figure(ours, theirs)
        yield from _search_figures(ours, theirs)
        stage.restart_postgres()
        for one in filter(None, (ours, theirs)):
            began = time.perf_counter()
            if lost := missing(one.url, kept[one.name]):
                raise AssertionError("\n".join([f"{one.name} has lost what it had acknowledged:", *lost]))
            n_points = sum(sent.n_points for row in kept[one.name] for sent in row.sent)
            yield Figure(f"read back from {one.name} after a restart of Postgres", f"all of {n_points:,}", values={"s": time.perf_counter() - began})


@contextmanager
def _our_server(stage: Stage) -> Iterator[Contender]:
    with stage.database() as url:
        cluster = Cluster(stage.new_folder("tracking"), url, "none")
        try:
            role = cluster.start_server(*os.environ.get("BENCH_SERVER_ARGUMENTS", "").split())
            # For its renewals: it has nothing else to do.
            cluster.start_worker("idle")
            yield Contender("our server", cluster.url, url, OUR_CLIENTS, role.process.pid)
        except BaseException:
            print(cluster.logs(), file=sys.stderr)  # noqa: T201  # what there is to know of a failure
            raise
        finally:
            cluster.stop()


@contextmanager
def _their_server(stage: Stage) -> Iterator[Contender]:
    with stage.database(is_migrated=False) as url, mlflow_server(stage.new_folder("mlflow"), url, workers=THEIR_WORKERS) as server:
        yield _contender(server, url)


def _contender(server: MlflowServer, database_url: str) -> Contender:
    return Contender("mlflow server", server.url, database_url, THEIR_CLIENTS, server.pid)


def _best(one: Contender, kind: Kind) -> Row:
    """The row at the number of clients that did best when tried; where an answer may take only so long, among those that kept to it."""
    tried = {n_clients: load(one.url, kind, n_clients, TRIED_S) for n_clients in one.clients}
    print(f"    {one.name}, {kind}: " + ", ".join(f"{clients}: {row.rate:,.0f}" for clients, row in tried.items()), file=sys.stderr)  # noqa: T201
    soon = {n_clients: row for n_clients, row in tried.items() if kind != "metric" or row.percentile_ms(0.99) <= _METRIC_P99_MS} or tried
    return load(one.url, kind, max(soon, key=lambda n_clients: soon[n_clients].rate), SECONDS)


def _figure(what: str, unit: str, least: float, ours: Row, theirs: Row | None) -> Figure:
    def told(row: Row) -> str:
        times = f"p50 {row.percentile_ms(0.5):.1f}, p99 {row.percentile_ms(0.99):.1f} ms"
        return f"{row.rate:,.0f} {unit} ({row.n_clients} clients; {times})"

    ratio = ours.rate / theirs.rate if theirs else None
    goal, is_met = f">= {least:g} x", None if ratio is None else ratio >= least
    if ours.kind == "metric":
        goal, is_met = f"{goal}, p99 <= {_METRIC_P99_MS:g} ms", None if ratio is None else ratio >= least and ours.percentile_ms(0.99) <= _METRIC_P99_MS
    values = {"rate": ours.rate, "p50_ms": ours.percentile_ms(0.5), "p99_ms": ours.percentile_ms(0.99), "clients": float(ours.n_clients)}
    if theirs:
        values |= {"mlflow_rate": theirs.rate, "mlflow_clients": float(theirs.n_clients)}
    return Figure(what, told(ours), f"mlflow server: {told(theirs)}" if theirs else "-", f"{ratio:.1f}" if ratio else "-", goal, is_met, values)


# ------------------------------------------------------------------------------------------------------- disk, memory, renewals


def _beside(one: Contender, row: Row, before: int, most_bytes: float) -> Iterator[Figure]:
    """What the points of a row, and of the trials before it, take on disk, and the server in memory."""
    after = _database_bytes(one.database_url)
    with psycopg2.connect(_plain(one.database_url)) as connection, connection.cursor() as cursor:
        table = "metric_points" if one.name == "our server" else "metrics"
        cursor.execute(f"SELECT count(*) FROM {table}")  # noqa: S608 - one of two names
        (n_points,) = cursor.fetchone() or (0,)
    connection.close()
    each = (after - before) / max(1, n_points)
    yield Figure(f"bytes on disk per point, {one.name}", f"{each:.0f} B", values={"bytes": each, "points": float(n_points)})
    mib = most_bytes / 2**20
    yield Figure(f"memory of {one.name} while points arrive", f"{mib:.0f} MiB", values={"mib": mib, "clients": float(row.n_clients)})


def _renewal_figure(what: str, most_s: float) -> Figure:
    """An idle worker renews every few seconds, whatever else goes on."""
    due_s = Settings().renew_s
    goal = due_s + _LATE_S
    return Figure(f"longest time between renewals of a worker, {what}", f"{most_s:.2f} s", goal=f"<= {goal:g} s", is_met=most_s <= goal, values={"s": most_s})


def _database_bytes(url: str) -> int:
    connection = psycopg2.connect(_plain(url))
    try:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute("CHECKPOINT")
            cursor.execute("SELECT pg_database_size(current_database())")
            (size,) = cursor.fetchone() or (0,)
            return int(size)
    finally:
        connection.close()


def _plain(url: str) -> str:
    return normalise_url(url).replace("+psycopg2", "")


class _Most:
    """The most that something was, looked at four times a second."""

    def __init__(self, look: Callable[[], float]) -> None:
        self.most = 0.0
        self._look = look
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(0.25):
            self.most = max(self.most, self._look())


@contextmanager
def _renewals(database_url: str) -> Iterator[_Most]:
    """How long the sessions of workers went without renewing."""
    connection = psycopg2.connect(_plain(database_url))
    connection.autocommit = True

    def look() -> float:
        with connection.cursor() as cursor:
            cursor.execute("SELECT extract(epoch FROM max(clock_timestamp() - renewed_at))::float FROM sessions WHERE state = 'live'")
            (age,) = cursor.fetchone() or (None,)
            # A session that is gone was not renewed at all.
            return math.inf if age is None else float(age)

    try:
        with _Most(look) as most:
            yield most
    finally:
        connection.close()


# ------------------------------------------------------------------------------------------------------- the raw limit


def _copy_figure(ours: Contender, row: Row) -> Figure:
    """COPY into a twin of the table of points, by as many connections as the row had clients, and by the number that does best."""
    connection = psycopg2.connect(_plain(ours.database_url))
    connection.autocommit = True
    with connection.cursor() as cursor:
        cursor.execute("CREATE TABLE copy_limit (LIKE metric_points INCLUDING ALL)")
        sample = io.StringIO()
        cursor.copy_expert(f"COPY (SELECT * FROM metric_points LIMIT {BATCH}) TO STDOUT", sample)  # noqa: S608 - a number
        names = [column.name for column in _columns(cursor)]
        rates = {}
        for n_connections in sorted({1, 2, 4, row.n_clients}):
            cursor.execute("TRUNCATE copy_limit")
            rates[n_connections] = _copy_rate(ours.database_url, n_connections, sample.getvalue(), names.index("step"))
        cursor.execute("DROP TABLE copy_limit")
    connection.close()
    best = max(rates, key=rates.__getitem__)
    share = row.rate / rates[best]
    return Figure(
        "points in batches beside COPY of the same rows",
        f"{row.rate:,.0f} points/s",
        f"COPY, {best} connections: {rates[best]:,.0f} rows/s",
        f"{share:.2f}",
        f">= {_COPY_SHARE:g} of COPY",
        share >= _COPY_SHARE,
        {"share": share, **{f"copy_{number}": rate for number, rate in rates.items()}},
    )


def _columns(cursor: Any) -> Any:
    cursor.execute("SELECT * FROM metric_points LIMIT 0")
    return cursor.description


def _copy_rate(database_url: str, n_connections: int, sample: str, step_at: int) -> float:
    context = multiprocessing.get_context("spawn")
    results: Any = context.Queue()
    start = context.Barrier(n_connections)
    arguments = (_plain(database_url), sample, step_at, TRIED_S, start, results)
    copiers = [context.Process(target=_copy, args=(number, *arguments)) for number in range(n_connections)]
    for copier in copiers:
        copier.start()
    rate = sum(results.get(timeout=TRIED_S + 60) for _ in copiers)
    for copier in copiers:
        copier.join()
    return float(rate)


def _copy(number: int, url: str, sample: str, step_at: int, seconds: float, start: Any, results: Any) -> None:
    """Rows of a sample again and again, each time with other steps: postgres takes numbers with leading zeros."""
    rows = [line.split("\t") for line in sample.splitlines()]
    for at, row in enumerate(rows):
        row[step_at] = f"{number + 1:03d}@@@@@{at:04d}"
    template = "\n".join(["\t".join(row) for row in rows] + [""]).encode()
    connection = psycopg2.connect(url)
    n_rows, batch = 0, 0
    with connection.cursor() as cursor:
        start.wait(60)
        began = now = time.perf_counter()
        while now - began < seconds:
            cursor.copy_expert("COPY copy_limit FROM STDIN", io.BytesIO(template.replace(b"@@@@@", b"%05d" % batch)))
            connection.commit()
            n_rows, batch, now = n_rows + len(rows), batch + 1, time.perf_counter()
    connection.close()
    results.put(n_rows / (now - began))


# ------------------------------------------------------------------------------------------------------- history


def _history_figure(ours: Contender, theirs: Contender | None) -> Figure:
    """All points of one metric, page by page: until the answers have arrived; what the client makes of them is the same for both."""
    times = {one.name: _history_s(one) for one in filter(None, (ours, theirs))}
    return _time_figure(f"history of a metric of {N_HISTORY:,} points", times[ours.name], times[theirs.name] if theirs else None, 10)


def _history_s(one: Contender) -> float:
    connection = Connection(one.url)
    experiment_id = connection.post("experiments/create", name=f"history {time.time_ns()}")["experiment_id"]
    run_id = connection.post("runs/create", experiment_id=experiment_id, start_time=START_MS)["run"]["info"]["run_id"]
    for first in range(0, N_HISTORY, BATCH):
        points = [{"key": "long", "value": step / 2, "timestamp": START_MS + step, "step": step} for step in range(first, first + BATCH)]
        connection.post("runs/log-batch", run_id=run_id, metrics=points)
    took = []
    for _ in range(N_TIMES):
        connection.spent_s = 0.0
        _read(connection, run_id)
        took.append(connection.spent_s)
    connection.close()
    return statistics.median(took)


def _read(connection: Connection, run_id: str) -> None:
    n_points, total = 0, 0.0
    for value in history(connection, run_id, "long"):
        n_points, total = n_points + 1, total + value
    if (n_points, total) != (N_HISTORY, N_HISTORY * (N_HISTORY - 1) / 4):
        raise AssertionError(f"{n_points} points of {N_HISTORY} were read back, sum {total}")


# ------------------------------------------------------------------------------------------------------- searches


def _search_figures(ours: Contender, theirs: Contender | None) -> Iterator[Figure]:
    """Searches of the same runs in both: 1,000 children of each parent, three metrics, five parameters, three tags."""
    store = open_store(ours.database_url)
    experiments = {ours.name: store.experiments.create("searched").experiment_id}
    with store.database.autocommit() as tx:
        with without_indexes(tx):
            fill(tx, int(experiments[ours.name]), N_FILTERED, N_CHILDREN)
        parent = tx.scalar("SELECT md5('parent-' || %(n)s)", {"n": N_FILTERED // N_CHILDREN // 2})
    with store.database.autocommit() as tx:
        tx.execute("VACUUM ANALYZE")
    store.close()
    if theirs:
        experiments[theirs.name] = fill_mlflow(theirs.database_url, N_FILTERED, N_CHILDREN, name="searched")
    clauses = "metrics.accuracy > 0.5 AND metrics.loss < 0.1 AND params.optimizer = 'adam'"
    searches: tuple[tuple[str, float | None, dict[str, Any]], ...] = (
        ("two metrics and a parameter, page of 100", 10, {"filter": clauses, "max_results": 100}),
        ("the best by a metric", None, {"order_by": ["metrics.loss"], "max_results": 1}),
        ("the best of 1,000 children", None, {"filter": f"tags.mlflow.parentRunId = '{parent}'", "order_by": ["metrics.loss"], "max_results": 1}),
        ("1,000 children with everything", None, {"filter": f"tags.mlflow.parentRunId = '{parent}'", "max_results": N_CHILDREN}),
        ("a page of 100", None, {"max_results": 100}),
    )
    for what, least, asked in searches:
        times = {one.name: _search_s(one, experiments[one.name], asked) for one in filter(None, (ours, theirs))}
        yield _time_figure(f"search of {N_FILTERED:,} runs: {what}", times[ours.name], times[theirs.name] if theirs else None, least)


def _search_s(one: Contender, experiment_id: str, asked: dict[str, Any]) -> float:
    connection = Connection(one.url)
    took = []
    for _ in range(N_TIMES):
        connection.spent_s = 0.0
        found = len(connection.post("runs/search", experiment_ids=[experiment_id], **asked).get("runs", ()))
        if found != asked["max_results"]:
            raise AssertionError(f"{found} runs were found by {asked}")
        took.append(connection.spent_s)
    connection.close()
    return statistics.median(took)


def _time_figure(what: str, ours_s: float, theirs_s: float | None, least: float | None) -> Figure:
    ratio = theirs_s / ours_s if theirs_s else None
    return Figure(
        what,
        f"{ours_s * 1000:.1f} ms",
        f"mlflow server: {theirs_s * 1000:.0f} ms" if theirs_s else "-",
        f"{ratio:.1f}" if ratio else "-",
        f">= {least:g} x" if least else "",
        ratio >= least if ratio and least else None,
        {"s": ours_s} | ({"mlflow_s": theirs_s} if theirs_s else {}),
    )
