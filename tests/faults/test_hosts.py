"""Hosts that can't be reached, or badly: workers in network namespaces of the test's own, joined by a bridge to Postgres, Redis and server.

Packets are lost by iptables inside the namespaces, as a bad cable or a firewall would lose them: no connection is told of it.
"""

import os
import random
import subprocess
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

import pytest

from tests.faults.invariants import check
from tests.support.fault_table import Faults
from tests.support.faults import FULL, FaultCluster
from tests.support.ledger import ledger_file, read_ledger
from tests.support.needs import missing, program, root
from tests.support.proxy import Proxy
from tests.support.services import wait_until

MakeCluster = Callable[..., FaultCluster]
Path_ = Literal["INPUT", "OUTPUT"]

BOTH: Final[tuple[Path_, ...]] = ("INPUT", "OUTPUT")
PATIENT: Final[Mapping[str, str]] = {} if FULL else {"SWEEP_REASSIGN_AFTER_S": "45"}
"""Long enough for TCP to find its way again; lease and renewal stay short."""


def run(*command: str) -> None:
    """A command of iproute2 or iptables.

    Raises:
        AssertionError: it failed; with what it said.
    """
    done = subprocess.run([program(command[0]), *command[1:]], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}"


@dataclass(frozen=True)
class Host:
    """A network namespace with one interface, on the bridge.

    Attributes:
        role: of the worker that runs there.
    """

    role: str
    namespace: str
    interface: str

    @property
    def prefix(self) -> list[str]:
        """What comes before a command that is to run there."""
        return [program("ip"), "netns", "exec", self.namespace]

    def lose(self, *ways: Path_, share: float = 1.0) -> None:
        """Lose packets from now on, of those that come, or go, or both; all of them, or a share."""
        for way in ways:
            some = [] if share == 1.0 else ["-m", "statistic", "--mode", "random", "--probability", str(share)]
            run(*self.prefix, "iptables", "--wait", "-A", way, "!", "-i" if way == "INPUT" else "-o", "lo", *some, "-j", "DROP")

    def heal(self) -> None:
        """Lose nothing any more."""
        run(*self.prefix, "iptables", "--wait", "-F")


@dataclass
class Network:
    """A bridge in this machine's own namespace, and hosts on it.

    Attributes:
        address: of the bridge: what hosts reach.
    """

    name: str
    number: int
    hosts: list[Host] = field(default_factory=list)

    @property
    def address(self) -> str:
        """From the range set aside for measuring networks (RFC 2544)."""
        return f"198.18.{self.number}.1"

    def open(self) -> None:
        """Make the bridge."""
        run("ip", "link", "add", self.name, "type", "bridge")
        run("ip", "address", "add", f"{self.address}/24", "dev", self.name)
        run("ip", "link", "set", self.name, "up")

    def add(self, role: str) -> Host:
        """A new host."""
        n = len(self.hosts) + 2
        host = Host(role, f"{self.name}-{n}", f"{self.name}v{n}")
        run("ip", "netns", "add", host.namespace)
        self.hosts.append(host)
        run("ip", "link", "add", host.interface, "type", "veth", "peer", "name", "eth0", "netns", host.namespace)
        run("ip", "link", "set", host.interface, "master", self.name, "up")
        for words in (["address", "add", f"198.18.{self.number}.{n}/24", "dev", "eth0"], ["link", "set", "eth0", "up"], ["link", "set", "lo", "up"]):
            run("ip", "-n", host.namespace, *words)
        return host

    def close(self) -> None:
        """Remove all of it."""
        for host in self.hosts:
            # Not by itself: a namespace lives on for as long as a process in it does.
            run("ip", "link", "delete", host.interface)
            run("ip", "netns", "delete", host.namespace)
        run("ip", "link", "delete", self.name)


@pytest.fixture
def network() -> Iterator[Network]:
    """A network of this test's own; gone with it."""
    root("to make network namespaces")
    for name in ("ip", "iptables"):
        program(name)
    made = Network(f"sw{os.getpid() % 100_000}", os.getpid() % 250)
    try:
        made.open()
    except AssertionError as error:
        missing(f"network namespaces can't be made here ({error})")
    try:
        yield made
    finally:
        made.close()


@dataclass
class Site:
    """A cluster whose workers have a host each.

    Attributes:
        proxies: what listens on the bridge for Postgres, Redis and the server, which are on loopback.
    """

    cluster: FaultCluster
    hosts: Mapping[str, Host]
    proxies: Mapping[str, Proxy]
    sweep_id: str = ""
    ledger: Path = Path()
    n_trials: int = 0

    def submit(self, n_trials: int, seconds: float | tuple[float, float] = 0.0, *, extra: str = "") -> None:
        """Submit the test's sweep."""
        file = self.cluster.ledger_project(n_trials=n_trials, seconds=seconds, extra=extra)
        self.sweep_id, self.ledger, self.n_trials = self.cluster.submit(file), ledger_file(file), n_trials

    def check(self) -> None:
        """Wait for its end, and insist on every invariant."""
        self.cluster.wait_for_end(self.sweep_id)
        check(self.cluster, self.sweep_id, n_trials=self.n_trials, ledger=self.ledger)

    def attempts(self) -> list[tuple[str, int, str]]:
        """Worker, number and state of all attempts, of each trial in turn."""
        rows = self.cluster.query("SELECT * FROM audit_attempts WHERE sweep_id = %(id)s ORDER BY trial_number, attempt", id=self.sweep_id)
        # Shown by pytest when the test failed.
        print({(row.cause, row.detail) for row in rows if row.state != "running"})  # noqa: T201
        return [(row.worker_name, row.attempt, row.state) for row in rows]

    def wait_for_attempts(self, *wanted: tuple[str, int, str]) -> None:
        """Wait until these are all there are."""
        self.cluster.wait_for(lambda: self.attempts() == list(wanted), f"attempts are {wanted}")

    def is_silent(self, worker: str) -> bool:
        """Whether its lease has run out."""
        sql = "SELECT s.lease_until < now() AS silent FROM sessions s JOIN workers w USING (worker_id) WHERE w.name = %(name)s AND s.state = 'live'"
        rows = self.cluster.query(sql, name=worker)
        return bool(rows) and bool(rows[0].silent)

    def states(self) -> list[str]:
        """Of all sessions there ever were."""
        return [row.state for row in self.cluster.query("SELECT state FROM sessions ORDER BY opened_at")]


MakeSite = Callable[..., Site]


@pytest.fixture
def make_site(network: Network, fault_cluster: MakeCluster) -> MakeSite:
    """Makes a cluster with a host for each worker."""

    def make(*names: str, environ: Mapping[str, str] = {}) -> Site:
        cluster = fault_cluster(start=False, proxies=(), environ=environ)
        targets = {"postgres": cluster.postgres.port, "redis": cluster.redis.port, "server": cluster.port}
        proxies = {name: Proxy("127.0.0.1", port, host=network.address) for name, port in targets.items()}
        hosts = {name: network.add(name) for name in names}
        for name, host in hosts.items():
            cluster.role_prefix[name] = host.prefix
            cluster.role_environ[name] = {
                "SWEEP_DATABASE_URL": over_there(cluster.postgres.url, proxies["postgres"]),
                "SWEEP_BROKER_URL": over_there(cluster.redis.url, proxies["redis"]),
                "SWEEP_SERVER": over_there(cluster.url, proxies["server"]),
            }
        # On loopback all the same: what it is open to are the names under which the hosts know it.
        cluster.start_server("--open")
        cluster.start_scheduler(is_awaited=False)
        for name in names:
            cluster.start_worker(name, is_awaited=False)
        cluster.wait_for_workers(*names)
        return Site(cluster, hosts, proxies)

    return make


def over_there(url: str, proxy: Proxy) -> str:
    """A URL of this machine as a host of the network takes it."""
    scheme, _, rest = url.partition("://")
    where, slash, path = rest.partition("/")
    user, at, _ = where.rpartition("@")
    return f"{scheme}://{user}{at}{proxy.host}:{proxy.port}{slash}{path}"


def until(file: Path, act: str = "pass") -> str:
    """Lines of Python: do something every fiftieth of a second until a file is there."""
    return f"while not os.path.exists({str(file)!r}):\n    {act}\n    time.sleep(0.05)\n"


def starts(site: Site) -> int:
    """How many attempts have really begun."""
    return len([line for line in read_ledger(site.ledger) if line.what == "start"])


def test_hosts_that_lose_every_fifth_packet_lose_no_trial(make_site: MakeSite, faults: Faults) -> None:
    """In both directions, on both hosts: everything takes longer, nothing is tried twice."""
    site = make_site("w1", "w2", environ=PATIENT)
    for host in site.hosts.values():
        host.lose(*BOTH, share=0.2)
        faults.record("host: 20 % of its packets lost")
    site.submit(20, (0.1, 0.5))
    site.check()
    assert {(attempt, state) for _, attempt, state in site.attempts()} == {(1, "succeeded")}
    assert site.states() == ["live", "live"]


@pytest.mark.parametrize("way", BOTH, ids=["deaf", "mute"])
def test_host_with_a_path_that_works_one_way_only_keeps_its_trials(make_site: MakeSite, faults: Faults, tmp_path: Path, way: Path_) -> None:
    """Nothing arrives, or nothing leaves, until its lease is over: it is silent, not lost, and goes on where it was."""
    go = tmp_path / "go"
    site = make_site("w1", environ=PATIENT)
    site.submit(4, extra=until(go, "print('here', flush=True)"))
    wait_until(lambda: starts(site) == 2, "two trials run")
    site.hosts["w1"].lose(way)
    faults.record(f"host: {'hears' if way == 'INPUT' else 'says'} nothing, past its lease")
    site.cluster.wait_for(lambda: site.is_silent("w1"), "the worker is silent")
    go.touch()
    site.hosts["w1"].heal()
    site.check()
    assert site.attempts() == [("w1", 1, "succeeded")] * 4
    assert site.states() == ["live"]


def test_host_cut_off_for_less_than_its_lease_is_not_even_missed(make_site: MakeSite, faults: Faults, rng: random.Random) -> None:
    """Three short partitions while trials come and go."""
    # Nobody may be called silent for the time that TCP takes to try again, which doubles.
    site = make_site("w1", environ={"SWEEP_LEASE_S": "60"} if FULL else {"SWEEP_LEASE_S": "20", "SWEEP_REASSIGN_AFTER_S": "45"})
    site.submit(12, (0.3, 1.0))
    was_silent = False
    for n_ended in (1, 4, 7):
        site.cluster.wait_for_finished(site.sweep_id, n_ended)
        before = last_renewal(site)
        site.hosts["w1"].lose(*BOTH)
        faults.record("host: partition shorter than its lease")
        missed_s = rng.uniform(3, 6) * site.cluster.settings.renew_s
        site.cluster.wait_for(lambda missed_s=missed_s: silence_s(site) > missed_s, "renewals are missing")
        site.hosts["w1"].heal()
        site.cluster.wait_for(lambda before=before: last_renewal(site) > before and silence_s(site) < 5, "it renews again")
        was_silent |= site.is_silent("w1")
    site.check()
    assert not was_silent
    assert site.attempts() == [("w1", 1, "succeeded")] * 12


def last_renewal(site: Site) -> float:
    """When the only worker renewed last, by the database's clock."""
    return float(site.cluster.query("SELECT extract(epoch FROM renewed_at) AS at FROM sessions")[0].at)


def silence_s(site: Site) -> float:
    """For how long the only worker has not renewed, by the database's clock."""
    return float(site.cluster.query("SELECT extract(epoch FROM now() - renewed_at) AS age FROM sessions")[0].age)


def test_host_cut_off_past_its_reassignment_gives_up_its_trials_when_it_is_back(make_site: MakeSite, faults: Faults, tmp_path: Path) -> None:
    """Both sides of the partition run the trial; only the one that the record knows counts, and the other is stopped once it can be told."""
    go = tmp_path / "go"
    site = make_site("w1")
    site.submit(1, extra=until(go, "print('here', flush=True)"))
    wait_until(lambda: starts(site) == 1, "the trial runs")
    site.hosts["w1"].lose(*BOTH)
    faults.record("host: partition longer than its reassignment")
    site.cluster.start_worker("w2")
    site.wait_for_attempts(("w1", 1, "lost"), ("w2", 2, "running"))
    n_chunks = chunks(site, attempt=1)
    wait_until(lambda: starts(site) == 2, "it runs on both sides")
    site.hosts["w1"].heal()
    site.cluster.wait_for(lambda: site.states() == ["lost", "live", "live"], "the cut off worker has begun anew")
    assert chunks(site, attempt=1) == n_chunks
    go.touch()
    site.check()
    assert site.attempts() == [("w1", 1, "lost"), ("w2", 2, "succeeded")]
    assert [(line.attempt, line.what) for line in read_ledger(site.ledger)] == [(1, "start"), (2, "start"), (2, "end")]


def chunks(site: Site, *, attempt: int) -> int:
    """How many pieces of output the record has of an attempt."""
    return int(site.cluster.query("SELECT count(*) AS n FROM log_chunks WHERE attempt = %(attempt)s", attempt=attempt)[0].n)


@pytest.mark.parametrize("by", ["proxy", "netem"])
def test_host_with_half_a_second_of_latency_works_on(make_site: MakeSite, faults: Faults, by: str) -> None:
    """Each way a quarter of a second, more than from one renewal to the next: slower, and nothing else."""
    site = make_site("w1", environ=PATIENT if FULL else {**PATIENT, "SWEEP_LEASE_S": "20", "SWEEP_CLAIM_TIMEOUT_S": "15"})
    if by == "proxy":
        for proxy in site.proxies.values():
            proxy.delay(0.25)
    else:
        delay_by_kernel(site.hosts["w1"])
    faults.record(f"host: 500 ms of latency ({by})")
    site.submit(4, 0.1)
    site.check()
    assert site.attempts() == [("w1", 1, "succeeded")] * 4


def delay_by_kernel(host: Host) -> None:
    """Skips where the kernel was built without netem: nothing that could be installed is missing."""
    command = [*host.prefix, program("tc"), "qdisc", "add", "dev", "eth0", "root", "netem", "delay", "500ms"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"the kernel has no netem ({done.stderr.strip()}); the proxy's delay is tested")
