"""Schedulers killed between any two of their steps, frozen, and several at a time: one leads, nothing is proposed, placed or told twice (I1, I2, I5)."""

import random
import signal
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import pytest

from sweeps.spec_config import SweepConfig
from sweeps.strategies import derive_seed, make_strategy
from tests.faults.invariants import check
from tests.support.fault_table import Faults
from tests.support.faults import FaultCluster
from tests.support.ledger import ledger_file

MakeCluster = Callable[..., FaultCluster]

N_TRIALS: Final = 24
SEARCHES: Final[Mapping[str, Mapping[str, Any]]] = {
    "grid": {"parameters": {"a": {"values": list(range(6))}, "b": {"values": ["p", "q", "r", "s"]}}},
    "random": {"parameters": {"a": {"min": 0.0, "max": 1.0}, "b": {"values": ["p", "q", "r"]}}},
    "bayes": {"parameters": {"a": {"min": 0.0, "max": 1.0}, "b": {"min": -1.0, "max": 1.0}}},
}
# At which hit the scheduler dies: well into a sweep.
NTH_HIT: Final[Mapping[str, int]] = {
    "scheduler.asked": 2,
    "scheduler.created": 2,
    "scheduler.placed": 3,
    "scheduler.sent": 3,
    "scheduler.judged": 1,
    "scheduler.concluded": 5,
    "scheduler.told": 5,
    "scheduler.ended": 1,
}
# Two of the trials fail once and are tried again: otherwise there would be nothing to judge.
FAILS_ONCE: Final = "if number in ('3', '9') and attempt == '1': sys.exit(75)"
RETRY: Final = {"max": 1, "delay": 0.1}


def proposals(cluster: FaultCluster, sweep_id: str) -> list[tuple[dict[str, Any], int]]:
    """Parameters and seed of each trial of a sweep, by number."""
    sql = "SELECT r.params, r.seed FROM trials t JOIN runs r ON r.run_id = t.run_id WHERE t.sweep_id = %(id)s ORDER BY t.number"
    return [(row.params, row.seed) for row in cluster.query(sql, id=sweep_id)]


def undisturbed(cluster: FaultCluster, sweep_id: str, n_trials: int) -> list[tuple[dict[str, Any], int]]:
    """What a search of the same seed proposes when nothing happens to it."""
    config = SweepConfig.from_builtins(cluster.query("SELECT config FROM sweeps WHERE sweep_id = %(id)s", id=sweep_id)[0].config)
    assert config.seed == 7
    strategy = make_strategy(config)
    asked = [strategy.ask(number) for number in range(n_trials)]
    return [(proposal.params, derive_seed(7, number, "trial")) for number, proposal in enumerate(asked) if proposal is not None]


def submit_search(cluster: FaultCluster, method: str) -> tuple[str, Path]:
    """Submit a sweep of one kind of search; its id and ledger."""
    project = cluster.ledger_project(n_trials=N_TRIALS, seconds=0.02, extra=FAILS_ONCE, method=method, strategy={"seed": 7}, retry=RETRY, **SEARCHES[method])
    return cluster.submit(project), ledger_file(project)


def check_search(cluster: FaultCluster, sweep_id: str, method: str, ledger: Path) -> None:
    """Assert the invariants, and that the sweep proposed what it would have proposed anyway.

    What bayes proposes depends on what had ended when: of it, that a search made anew repeats nothing.
    """
    check(cluster, sweep_id, n_trials=N_TRIALS, ledger=ledger)
    made = proposals(cluster, sweep_id)
    if method != "bayes":
        assert made == undisturbed(cluster, sweep_id, N_TRIALS), f"{method} proposed something else"
    points = Counter(repr(sorted(params.items())) for params, _ in made)
    assert max(points.values()) == 1, f"{method} proposed a point twice: {points.most_common(1)}"
    retried = cluster.query("SELECT trial_number, state, cause FROM audit_attempts WHERE sweep_id = %(id)s AND state <> 'succeeded' ORDER BY 1", id=sweep_id)
    assert [tuple(row) for row in retried] == [(3, "failed", "exit_status"), (9, "failed", "exit_status")]


@pytest.mark.parametrize("point", NTH_HIT)
def test_sweep_is_as_if_undisturbed_when_its_scheduler_is_killed(fault_cluster: MakeCluster, faults: Faults, point: str) -> None:
    """Killed at the n-th hit and started again, for each kind of search: the next life goes on where the record stands."""
    cluster = fault_cluster(proxies=(), role_environ={"scheduler": {"SWEEP_FAILPOINTS": f"{point}=kill@{NTH_HIT[point]}"}})
    armed = cluster.role_environ["scheduler"]["SWEEP_FAILPOINTS"]
    for method in SEARCHES:
        sweep_id, ledger = submit_search(cluster, method)
        assert cluster.role("scheduler").wait() == -signal.SIGKILL
        faults.record(f"scheduler: kill -9 at {point.removeprefix('scheduler.')} ({method})")
        cluster.arm("scheduler", "")
        cluster.restart("scheduler", is_awaited=False)
        cluster.wait_for_end(sweep_id)
        check_search(cluster, sweep_id, method, ledger)
        cluster.arm("scheduler", armed)
        cluster.restart("scheduler", is_awaited=False)


def test_sweeps_are_as_if_undisturbed_when_their_scheduler_dies_anywhere_again_and_again(fault_cluster: MakeCluster, faults: Faults) -> None:
    """Three sweeps at a time, and at each of its steps the scheduler may die, also while it picks up what its last life has left."""
    risky = ",".join(f"{point}=kill%.04" for point in NTH_HIT)
    cluster = fault_cluster(proxies=(), role_environ={"scheduler": {"SWEEP_FAILPOINTS": risky}})
    sweeps = {method: submit_search(cluster, method) for method in SEARCHES}
    n_deaths = 0
    while not all(has_ended(cluster, sweep_id) for sweep_id, _ in sweeps.values()):
        cluster.wait_for(
            lambda: not cluster.role("scheduler").is_running or all(has_ended(cluster, sweep_id) for sweep_id, _ in sweeps.values()),
            "the scheduler dies, or is through",
        )
        if cluster.role("scheduler").is_running:
            break
        assert cluster.role("scheduler").wait() == -signal.SIGKILL
        n_deaths += 1
        cluster.restart("scheduler", is_awaited=False)
    assert n_deaths > 2, "nothing was tested"
    faults.record("scheduler: kill -9 anywhere, again and again", n_deaths)
    for method, (sweep_id, ledger) in sweeps.items():
        check_search(cluster, sweep_id, method, ledger)


def has_ended(cluster: FaultCluster, sweep_id: str) -> bool:
    """Whether a sweep is over, by the record."""
    return bool(cluster.query("SELECT 1 FROM sweeps WHERE sweep_id = %(id)s AND ended_at IS NOT NULL", id=sweep_id))


# -- several schedulers ------------------------------------------------------------------------------------------

SCHEDULERS: Final = ("scheduler", "standby")
# Each scheduler is a user of its own in Postgres, and Postgres notes who wrote what under which epoch: a write of one that
# does not lead can't hide.
NOTEBOOK: Final = """
CREATE TABLE notes (seq bigserial, at timestamptz DEFAULT clock_timestamp(), who text DEFAULT session_user, what text, epoch bigint, lease_until timestamptz);
CREATE TABLE terms (epoch bigint PRIMARY KEY, who text DEFAULT session_user, at timestamptz DEFAULT clock_timestamp(), lease_before timestamptz);
CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    IF session_user LIKE 'scheduler%' OR session_user LIKE 'standby%' THEN
        INSERT INTO notes (what, epoch, lease_until) SELECT TG_OP || ' ' || TG_TABLE_NAME, epoch, lease_until FROM leader;
    END IF;
    RETURN NULL;
END $$;
CREATE FUNCTION begin_term() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    IF new.epoch <> old.epoch THEN INSERT INTO terms (epoch, lease_before) VALUES (new.epoch, old.lease_until); END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER begin_term AFTER UPDATE ON leader FOR EACH ROW EXECUTE FUNCTION begin_term();
"""
NOTED: Final = ("runs", "trials", "params", "attempts", "sweeps", "sessions", "workers", "events")


def noted_cluster(fault_cluster: MakeCluster, *, armed: str = "") -> FaultCluster:
    """A cluster that notes who writes what, with one scheduler that passes the given failpoints."""
    cluster = fault_cluster(proxies=(), start=False)
    assert cluster.postgres.url.count("//sweep@") == 1
    cluster.postgres.execute(NOTEBOOK)
    for table in NOTED:
        cluster.postgres.execute(f"CREATE TRIGGER note AFTER INSERT OR UPDATE OR DELETE ON {table} FOR EACH ROW EXECUTE FUNCTION note()")
    for name in SCHEDULERS:
        cluster.postgres.execute(f"CREATE ROLE {name} SUPERUSER LOGIN")
        cluster.role_environ[name] = {"SWEEP_DATABASE_URL": cluster.postgres.url.replace("//sweep@", f"//{name}@")}
    cluster.arm("scheduler", armed)
    return cluster.start()


def wait_for_both(cluster: FaultCluster) -> None:
    """Wait until both schedulers have got as far as the database."""
    sql = "SELECT count(DISTINCT usename) AS n FROM pg_stat_activity WHERE usename = ANY(%(names)s)"
    cluster.wait_for(lambda: cluster.query(sql, names=list(SCHEDULERS))[0].n == len(SCHEDULERS), "both schedulers are there")


def latest_term(cluster: FaultCluster) -> Any:
    """Who leads, by the notebook."""
    return cluster.query("SELECT * FROM terms ORDER BY epoch DESC LIMIT 1")[0]


def check_terms(cluster: FaultCluster) -> Sequence[Any]:
    """Assert that terms followed one upon the other, and that nobody wrote outside of their own; the terms."""
    terms = cluster.query("SELECT * FROM terms ORDER BY epoch")
    assert [term.epoch for term in terms] == list(range(1, len(terms) + 1)), "an epoch was given twice, or to nobody"
    early = [term for term in terms if term.at < term.lease_before]
    assert not early, f"began before the one before had run out: {early}"
    strays = cluster.query("SELECT n.*, t.who AS leader FROM notes n LEFT JOIN terms t ON t.epoch = n.epoch WHERE t.who IS DISTINCT FROM n.who")
    assert not strays, f"written by one that did not lead: {strays}"
    assert cluster.query("SELECT 1 FROM notes LIMIT 1"), "the notebook is empty: nothing was checked"
    return terms


def test_leaders_follow_one_upon_the_other_when_each_is_killed(fault_cluster: MakeCluster, faults: Faults) -> None:
    """The standby takes over within a lease and a little; no two lead at once, and what both have done together is done once."""
    cluster = noted_cluster(fault_cluster)
    cluster.start_scheduler(name="standby")
    wait_for_both(cluster)
    draw = random.Random(3)  # noqa: S311 -- repeatable, not secret
    project = cluster.ledger_project(n_trials=80, seconds=(0.05, 0.3), method="grid", **GRID_OF_80)
    sweep_id = cluster.submit(project)
    n_finished, killed = 0, []
    for _ in range(6):
        n_finished += draw.randint(5, 12)
        cluster.wait_for_finished(sweep_id, n_finished)
        leader = latest_term(cluster)
        cluster.role(leader.who).kill()
        faults.record("two schedulers: leader killed")
        killed.append(leader.epoch)
        cluster.restart(leader.who, is_awaited=False)
        cluster.wait_for(lambda: latest_term(cluster).epoch > killed[-1], "another leads")
        wait_for_both(cluster)
    cluster.wait_for_end(sweep_id)
    check(cluster, sweep_id, n_trials=80, ledger=ledger_file(project))
    assert len({repr(sorted(params.items())) for params, _ in proposals(cluster, sweep_id)}) == 80
    terms = check_terms(cluster)
    gaps = [term.at - term.lease_before for term in terms if term.epoch - 1 in killed]
    # A standby looks ten times a lease; the rest is for a machine with other things to do.
    assert max(gaps) < timedelta(seconds=cluster.settings.leader_lease_s / 10 + 3), f"nobody led for {gaps}"
    by_kill = {who for term, later in pairwise(terms) if term.epoch in killed for who in (term.who, later.who)}
    assert by_kill == set(SCHEDULERS), "the leadership never changed hands"


GRID_OF_80: Final = {"parameters": {"a": {"values": list(range(10))}, "b": {"values": list(range(8))}}}


@pytest.mark.parametrize("point", ["scheduler.asked", "scheduler.created", "scheduler.placed", "scheduler.concluded"])
def test_leader_that_comes_back_after_its_term_writes_nothing_in_it(fault_cluster: MakeCluster, faults: Faults, point: str) -> None:
    """Frozen in the middle of its work (SIGSTOP), with much to do when it wakes: it sees its epoch refused, forgets, and leads anew or stands by."""
    cluster = noted_cluster(fault_cluster, armed=f"{point}=stop@2")
    frozen = cluster.role("scheduler")
    project = cluster.ledger_project(n_trials=40, seconds=0.05)
    sweep_id = cluster.submit(project)
    cluster.wait_for(lambda: frozen.is_suspended, f"the leader freezes at {point}")
    faults.record(f"two schedulers: leader frozen at {point.removeprefix('scheduler.')}, comes back")
    # Only now: on a machine with much to do a lease of a second may run out by itself. It freezes too, with proposals that nobody has placed.
    cluster.arm("standby", "scheduler.created=stop@1")
    standby = cluster.start_scheduler(name="standby", is_awaited=False)
    cluster.wait_for(lambda: standby.is_suspended, "the standby leads, and freezes")
    faults.record("two schedulers: leader frozen at created, comes back")
    cluster.wait_for(lambda: cluster.query(IDLE, id=sweep_id)[0].is_idle, "all that was placed has ended")
    frozen.wake()
    cluster.wait_for(lambda: "standing by" in frozen.log(), "the old leader sees that its term is over")
    cluster.wait_for(lambda: latest_term(cluster).epoch > 2, "it leads anew")
    standby.wake()
    cluster.wait_for(lambda: "standing by" in standby.log(), "the other one sees that its term is over")
    cluster.wait_for_end(sweep_id)
    check(cluster, sweep_id, n_trials=40, ledger=ledger_file(project))
    assert [term.who for term in check_terms(cluster)][:3] == ["scheduler", "standby", "scheduler"]


IDLE: Final = """
SELECT bool_and(state NOT IN ('placed', 'running')) AND bool_or(state = 'queued') AS is_idle FROM runs WHERE sweep_id = %(id)s AND kind = 'managed'
"""
