"""What must hold after every fault, by SQL over the audit views and by the trials' own ledger (I1 to I8)."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

from tests.support.cluster import Cluster
from tests.support.ledger import Line, read_ledger
from tests.support.services import wait_until
from tracking.states import (
    FINAL_ATTEMPT_STATES,
    FINAL_RUN_STATES,
    FINAL_SWEEP_STATES,
    FINAL_TRIAL_STATES,
    MACHINERY_CAUSES,
    RUN_MOVES,
    SWEEP_MOVES,
    TRIAL_MOVES,
    Move,
)

_MOVES: Final[Mapping[str, Mapping[Any, Move]]] = {"run": RUN_MOVES, "trial": TRIAL_MOVES, "sweep": SWEEP_MOVES}
_BEGINNINGS: Final = {("run", "queue", "queued"), ("sweep", "submit", "active")}
# The worker looks for what nobody owns once a minute; what it tidies by itself is gone at once.
_TIDY_S: Final = 75.0


def check(cluster: Cluster, sweep_id: str, *, n_trials: int, ledger: Path | None = None) -> None:
    """Assert that a sweep that has ended lost nothing, did nothing twice, and left nothing behind.

    Args:
        n_trials: how many were asked for.
        ledger: of trials made by `tests.support.ledger`.
    """
    attempts = _rows(cluster, "SELECT * FROM audit_attempts WHERE sweep_id = %(id)s ORDER BY run_id, attempt", sweep_id)
    check_trials(cluster, sweep_id, n_trials)
    check_attempts(attempts)
    check_events(cluster, sweep_id)
    check_budgets(cluster, sweep_id)
    check_metrics(cluster, sweep_id)
    if ledger is not None:
        check_ledger(read_ledger(ledger), attempts)
    check_nothing_left(cluster, attempts)


def check_trials(cluster: Cluster, sweep_id: str, n_trials: int) -> None:
    """Numbered without gaps, each in one final state with a cause, each told once (I2, I5, I7)."""
    sweep = _rows(cluster, "SELECT state, cause, ended_at FROM sweeps WHERE sweep_id = %(id)s", sweep_id)[0]
    assert sweep.state in FINAL_SWEEP_STATES, f"the sweep is {sweep.state}"
    assert sweep.cause, "the sweep ended without a cause"
    trials = _rows(cluster, "SELECT * FROM audit_trials WHERE sweep_id = %(id)s ORDER BY trial_number", sweep_id)
    assert [trial.trial_number for trial in trials] == list(range(n_trials)), "trials are missing, or there are more than were asked for"
    for trial in trials:
        assert trial.state in FINAL_TRIAL_STATES, f"stuck: {trial}"
        assert trial.run_state in FINAL_RUN_STATES, f"stuck: {trial}"
        assert trial.state == trial.run_state, f"trial and run tell different ends: {trial}"
        assert trial.cause, f"no cause: {trial}"
        assert trial.ended_at, f"no end: {trial}"
    told = sorted(trial.told_seq for trial in trials)
    assert len(set(told)) == n_trials, f"two trials were told in one place: {told}"
    stuck = _rows(cluster, "SELECT run_id, state FROM runs WHERE sweep_id = %(id)s AND (state IN ('queued', 'placed', 'running') OR verdict_due)", sweep_id)
    assert not stuck, f"runs that are not over: {stuck}"


def check_attempts(attempts: Sequence[Any]) -> None:
    """Numbered without gaps, ended with a cause, at most one of a run alive at any time (I3, I7)."""
    for of_run in _by_run(attempts).values():
        assert [attempt.attempt for attempt in of_run] == list(range(1, len(of_run) + 1)), f"attempts are missing: {of_run}"
        for attempt in of_run:
            assert attempt.state in FINAL_ATTEMPT_STATES, f"still alive: {attempt}"
            assert attempt.cause, f"no cause: {attempt}"
            assert attempt.ended_at is not None, f"no end: {attempt}"
        for earlier, later in pairwise(of_run):
            assert earlier.ended_at <= later.claimed_at, f"two attempts of one run were alive at once: {earlier}, {later}"
            assert earlier.placement < later.placement, f"two attempts of one placement: {earlier}, {later}"


def check_events(cluster: Cluster, sweep_id: str) -> None:
    """Every move was legal by the tables of states, every claim by the worker of the last placement, every life ended once, every conclusion told once (I2)."""
    events = _rows(cluster, "SELECT * FROM audit_events WHERE sweep_id = %(id)s ORDER BY seq", sweep_id)
    at: dict[tuple[str, object], str] = {}
    concluded: Counter[object] = Counter()
    placed_on: dict[str, str] = {}
    for event in events:
        if (event.subject, event.event) == ("run", "place"):
            placed_on[event.run_id] = event.worker_id
        if (event.subject, event.event) == ("run", "claim"):
            assert event.worker_id == placed_on.get(event.run_id, event.worker_id), f"claimed by a worker that it was not placed on: {event}"
        if event.to_state is None or event.subject == "attempt":
            continue
        subject = (event.subject, event.trial_number if event.subject == "trial" else event.run_id)
        if (event.subject, event.event, event.to_state) in _BEGINNINGS:
            assert subject not in at, f"began twice: {event}"
        else:
            move = _MOVES[event.subject][event.event]
            assert event.from_state in move.from_, f"not allowed from there: {event}"
            assert event.to_state == move.to, f"does not lead there: {event}"
            was = at.get(subject, "open" if event.subject == "trial" else None)
            assert was == event.from_state, f"it was {was} before: {event}"
        at[subject] = event.to_state
        if event.subject == "trial":
            concluded[event.trial_number] += 1
    trials = _rows(cluster, "SELECT trial_number, generation, state, run_id, run_state FROM audit_trials WHERE sweep_id = %(id)s", sweep_id)
    for trial in trials:
        # Each retry by hand opens it again (one event), to be concluded again (another).
        assert concluded[trial.trial_number] == 1 + 2 * trial.generation, f"concluded {concluded[trial.trial_number]} times: {trial}"
        assert at["trial", trial.trial_number] == trial.state, f"the history ends elsewhere: {trial}"
        assert at["run", trial.run_id] == trial.run_state, f"the history ends elsewhere: {trial}"
    claims = Counter((event.run_id, event.attempt) for event in events if (event.subject, event.event) == ("run", "claim"))
    assert all(count == 1 for count in claims.values()), f"an attempt was claimed twice: {claims}"
    ends = Counter((event.run_id, event.attempt) for event in events if event.subject == "attempt" and event.to_state is not None)
    assert ends == claims, f"attempts claimed and ended differ: {ends - claims}, {claims - ends}"


def check_budgets(cluster: Cluster, sweep_id: str) -> None:
    """Faults of the machinery are on its own budget, the user's failures are not (I6)."""
    sql = """
    SELECT r.run_id, r.state, r.cause, r.machinery_faults, r.user_retries, count(e.seq) AS n_requeued,
           count(e.seq) FILTER (WHERE e.cause = ANY(%(machinery)s)) AS n_machinery
      FROM runs r LEFT JOIN events e ON e.run_id = r.run_id AND e.subject = 'run' AND e.event = 'requeue'
     WHERE r.sweep_id = %(id)s AND r.kind = 'managed' GROUP BY r.run_id
    """
    for run in cluster.query(sql, id=sweep_id, machinery=sorted(MACHINERY_CAUSES)):
        assert run.machinery_faults == run.n_machinery, f"the machinery's faults are counted wrongly: {run}"
        assert run.user_retries == run.n_requeued - run.n_machinery, f"the user's retries are counted wrongly: {run}"


def check_metrics(cluster: Cluster, sweep_id: str) -> None:
    """No point of an attempt that never was (I3)."""
    sql = """
    SELECT DISTINCT p.run_id, p.attempt FROM audit_points p JOIN runs r ON r.run_id = p.run_id
     WHERE r.sweep_id = %(id)s AND r.kind = 'managed' AND NOT EXISTS (SELECT 1 FROM attempts a WHERE a.run_id = p.run_id AND a.attempt = p.attempt)
    """
    strays = cluster.query(sql, id=sweep_id)
    assert not strays, f"metrics of attempts that are not recorded: {strays}"


def check_ledger(lines: Sequence[Line], attempts: Sequence[Any]) -> None:
    """What ran is what is recorded; nothing ran twice, nor two attempts of a run at once unless the earlier had been given up (I2, I3)."""
    starts = Counter((line.run_id, line.attempt) for line in lines if line.what == "start")
    ends = Counter((line.run_id, line.attempt) for line in lines if line.what == "end")
    assert not (twice := {key for key, n in (starts | ends).items() if n > 1}), f"executed twice: {twice}"
    recorded = {(attempt.run_id, attempt.attempt): attempt for attempt in attempts}
    assert not (unknown := starts.keys() - recorded.keys()), f"executed, and not recorded: {unknown}"
    succeeded = {key for key, attempt in recorded.items() if attempt.state == "succeeded"}
    assert not (unreal := succeeded - ends.keys()), f"recorded as succeeded, and never executed to the end: {unreal}"
    began = {(line.run_id, line.attempt): line.at for line in lines if line.what == "start"}
    ended = {(line.run_id, line.attempt): line.at for line in lines if line.what == "end"}
    for run_id, attempt in began.keys() & ended.keys():
        for later in range(attempt + 1, attempt + 1 + len(attempts)):
            if (run_id, later) not in recorded:
                break
            if (run_id, later) in began and recorded[run_id, attempt].state != "lost":
                assert ended[run_id, attempt] <= began[run_id, later], f"attempts {attempt} and {later} of run {run_id} ran at once"


def check_nothing_left(cluster: Cluster, attempts: Sequence[Any]) -> None:
    """No process, container or folder of an ended attempt stays on a worker that runs."""
    running = {role.name for role in cluster.roles if role.is_running and not role.is_suspended}
    keys = {(attempt.run_id, attempt.attempt) for attempt in attempts if attempt.worker_name in running}
    has_containers = bool(cluster.query("SELECT 1 FROM sessions WHERE 'docker' = ANY(runtimes)"))

    def leftovers() -> list[str]:
        found = [f"process {pid} of {key}" for pid, key in _processes().items() if key in keys]
        found += [f"folder {folder}" for folder in cluster.folder.glob("home-*/workers/*/runs/*/*") if (folder.parent.name, int(folder.name)) in keys]
        return found + (_containers(keys) if has_containers else [])

    try:
        wait_until(lambda: not leftovers(), "everything is tidied up", deadline_s=_TIDY_S, interval_s=0.1)
    except TimeoutError:
        raise AssertionError(f"left behind: {leftovers()}") from None


def _processes() -> dict[int, tuple[str, int]]:
    """Which processes of this machine belong to which attempts: by their environment, wherever they have gone."""
    found: dict[int, tuple[str, int]] = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            variables = dict(item.split(b"=", 1) for item in (entry / "environ").read_bytes().split(b"\0") if b"=" in item)
        except OSError:
            continue  # it has ended, or is somebody else's
        if b"SWEEP_RUN_ID" in variables and variables.get(b"SWEEP_ATTEMPT", b"").isdigit():
            found[int(entry.name)] = (variables[b"SWEEP_RUN_ID"].decode(), int(variables[b"SWEEP_ATTEMPT"]))
    return found


def _containers(keys: set[tuple[str, int]]) -> list[str]:
    import docker

    try:
        client = docker.from_env(timeout=60)
    except docker.errors.DockerException as error:
        # Being restarted, perhaps: what it holds is not known until it is back.
        return [f"containers, perhaps: {error}"]
    try:
        found = client.api.containers(all=True, filters={"label": "sweep.run"})
    finally:
        client.close()
    return [f"container {each['Names']}" for each in found if (each["Labels"]["sweep.run"], int(each["Labels"]["sweep.attempt"])) in keys]


def _rows(cluster: Cluster, sql: str, sweep_id: str) -> Sequence[Any]:
    return cluster.query(sql, id=sweep_id)


def _by_run(attempts: Sequence[Any]) -> Mapping[str, list[Any]]:
    found: defaultdict[str, list[Any]] = defaultdict(list)
    for attempt in attempts:
        found[attempt.run_id].append(attempt)
    return found
