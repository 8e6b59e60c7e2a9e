"""No-op process trials: how many a second, and how long slots stand idle between two of them.

Real server, scheduler and worker processes, one worker with two slots, everything durable. The rate counts from the
submission to the end of the sweep, so that starting up and the last report are in it. Beside it stand the same command spawned
directly, two at a time, and Ray Tune's no-op function, two at a time.
"""

import json
import os
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from tests.benchmarks.figures import Figure, Span, percentile, slot_gaps
from tests.benchmarks.stage import INTERPRETER, PEERS_PYTHON, Stage
from tests.support.cluster import Cluster
from worker.runtimes.process import trial_environment

N_TRIALS: Final = 1000
N_RAY_TRIALS: Final = 60
SLOTS: Final = 2
GOAL_PER_S: Final = 60.0
GOAL_IDLE_S: Final = 0.015
# Without the interpreter's site-packages: what is installed there would cost more than anything measured here.
COMMANDS: Final = {"python -ISc pass": (INTERPRETER, "-I", "-S", "-c", "pass"), "true": ("true",)}
_RAY_SCRIPT: Final = Path(__file__).with_name("ray_noop.py")


def measure(stage: Stage) -> Iterator[Figure]:
    """Trials per second over each broker, beside bare processes and Ray Tune; slot idle time."""
    rates = {}
    for broker, name in [("redis", "python -ISc pass"), ("redis", "true"), ("folder", "python -ISc pass"), ("none", "python -ISc pass")]:
        with stage.cluster(broker, slots=SLOTS) as cluster:
            # Just before, so that both see the same machine.
            bare = _bare_rate(COMMANDS[name])
            sweep_id = run_noop_sweep(cluster, COMMANDS[name], N_TRIALS)
            rates[broker, name] = _rate(cluster, sweep_id)
            gaps = slot_gaps(_spans(cluster, sweep_id), SLOTS)
        yield from _ours(broker, name, rates[broker, name], bare, gaps)
    yield _ray(rates["redis", "python -ISc pass"])


def _ours(broker: str, name: str, rate: float, bare: float, gaps: Sequence[float]) -> Iterator[Figure]:
    is_python = name != "true"
    label = f"no-op process trials/s, {name}, broker {broker}"
    yield Figure(
        label,
        f"{rate:.0f} /s",
        f"bare processes: {bare:.0f} /s",
        f"{rate / bare:.2f}",
        f">= {GOAL_PER_S:.0f} /s" if is_python else "",
        rate >= GOAL_PER_S if is_python else None,
        {"per_s": rate, "bare_per_s": bare},
    )
    p50, p99 = percentile(gaps, 0.5), percentile(gaps, 0.99)
    yield Figure(
        f"  slot idle, p50 / p99 / mean, {name}, broker {broker}",
        f"{p50 * 1000:.1f} / {p99 * 1000:.1f} / {1000 * sum(gaps) / len(gaps):.1f} ms",
        goal=f"p50 <= {GOAL_IDLE_S * 1000:.0f} ms" if is_python else "",
        is_met=p50 <= GOAL_IDLE_S if is_python else None,
        values={"p50_s": p50, "p99_s": p99, "mean_s": sum(gaps) / len(gaps)},
    )


def run_noop_sweep(cluster: Cluster, argv: Sequence[str], n_trials: int) -> str:
    """Submit a sweep of no-op trials, wait for its end, and insist that every trial ran once; its id."""
    project = cluster.folder / f"project-{time.monotonic_ns()}"
    project.mkdir()
    (project / "sweep.yaml").write_text(json.dumps(noop_sweep(argv, n_trials)), encoding="utf-8")
    sweep_id: str = cluster.sweep_json("submit", str(project / "sweep.yaml"))["sweep_id"]
    cluster.sweep("wait", sweep_id, "--timeout", "300", timeout_s=310)
    told = cluster.query(
        "SELECT count(*), count(DISTINCT trial_number), min(trial_number), max(trial_number) FROM audit_attempts"
        " WHERE sweep_id = %(sweep_id)s AND state = 'succeeded'",
        sweep_id=sweep_id,
    )
    if tuple(told[0]) != (n_trials, n_trials, 0, n_trials - 1):
        raise AssertionError(f"Of {n_trials} trials the record tells: {told[0]}.")
    return sweep_id


def noop_sweep(argv: Sequence[str], n_trials: int) -> dict[str, object]:
    """A sweep file (JSON is YAML) of trials that do nothing: two parameters, no objective."""
    return {
        "name": "noop",
        "method": "random",
        "run_cap": n_trials,
        "command": list(argv),
        "parameters": {"learning_rate": {"distribution": "log_uniform_values", "min": 0.001, "max": 1}, "layers": {"values": [1, 2, 3]}},
    }


def _rate(cluster: Cluster, sweep_id: str) -> float:
    row = cluster.query(
        "SELECT extract(epoch FROM ended_at - created_at) FROM sweeps WHERE sweep_id = %(sweep_id)s",
        sweep_id=sweep_id,
    )[0]
    return N_TRIALS / float(row[0])


def _spans(cluster: Cluster, sweep_id: str) -> list[Span]:
    """When each process ran: from `started_at`, for as long as its shim measured.

    `ended_at` is when the outcome was recorded; the time between the two belongs to us, so it counts as idle.
    """
    rows = cluster.query(
        "SELECT extract(epoch FROM started_at) AS started, duration_s FROM audit_attempts WHERE sweep_id = %(sweep_id)s",
        sweep_id=sweep_id,
    )
    return [Span(float(row.started), float(row.started) + row.duration_s) for row in rows]


def _bare_rate(argv: Sequence[str], n_processes: int = N_TRIALS) -> float:
    """Processes per second of the same command in the same environment, started directly, as many at a time as there are slots."""
    env = trial_environment(os.environ, {}, None)

    def run_some() -> None:
        for _ in range(n_processes // SLOTS):
            # posix_spawn: the cheapest way that there is.
            pid = os.posix_spawnp(argv[0], list(argv), env)
            _, status = os.waitpid(pid, 0)
            if status != 0:
                raise AssertionError(f"{argv} ended with {status}")

    threads = [threading.Thread(target=run_some) for _ in range(SLOTS)]
    began = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return n_processes / (time.monotonic() - began)


def _ray(our_rate: float) -> Figure:
    what = "no-op trials/s beside Ray Tune, 2 at a time"
    ours = f"{our_rate:.0f} /s"
    if not PEERS_PYTHON.exists():
        return Figure(what, ours, "not installed (make bench-peers)")
    done = subprocess.run([str(PEERS_PYTHON), str(_RAY_SCRIPT), str(N_RAY_TRIALS), str(SLOTS)], capture_output=True, text=True, timeout=600, check=False)
    if done.returncode != 0:
        return Figure(what, ours, f"did not run: {(done.stderr.strip().splitlines() or ['no word'])[-1][:60]}")
    rate = float(done.stdout.strip().splitlines()[-1])
    return Figure(what, ours, f"Ray Tune: {rate:.2f} /s", f"{our_rate / rate:.0f}", values={"per_s": our_rate, "ray_per_s": rate})
