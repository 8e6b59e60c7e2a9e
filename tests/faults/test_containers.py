"""Trials in containers, and what may befall them: their engine, their worker, whoever has rights to them (I7, I8). On an engine of the test's own."""

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

from tests.faults.conftest import MakeCluster
from tests.support.engine import BASE_IMAGE, OwnEngine
from tests.support.fault_table import Faults
from tests.support.faults import PATIENT, STRETCH, FaultCluster
from tests.support.services import wait_until
from tests.support.trials import Site, Trials, site_on

if TYPE_CHECKING:
    from docker.models.containers import Container

_WAITS: Final = """
import os, time
print("started", flush=True)
open("ready", "w").close()
while not os.path.exists("go"):
    time.sleep(0.02)
print("ended", flush=True)
"""
"""Waits for a file in its folder."""
_WAITS_ONCE: Final = _WAITS.replace("while not", "while os.environ['SWEEP_ATTEMPT'] == '1' and not")
"""The same on the first attempt; later ones do not wait."""
_HOG: Final = "hog = [bytearray(b'x' * 2**20) for _ in range(256)]\n"


@pytest.fixture(scope="module")
def engine() -> Iterator[OwnEngine]:
    """An engine with the base image; every role and every check of this file means this one."""
    own = OwnEngine()
    with pytest.MonkeyPatch.context() as patch:
        try:
            own.start()
            own.load_base_image()
            patch.setenv("DOCKER_HOST", own.url)
            yield own
        finally:
            own.remove()


@pytest.fixture(scope="module")
def cluster(engine: OwnEngine, shared_fault_cluster: MakeCluster) -> FaultCluster:
    """One worker with ten slots."""
    return shared_fault_cluster(proxies=(), slots=10, environ=PATIENT)


@pytest.fixture
def site(engine: OwnEngine, cluster: FaultCluster, tmp_path: Path) -> Iterator[Site]:
    """The shared cluster: the same worker serves every test, but where the test itself kills it."""
    with site_on(cluster, tmp_path) as opened:
        yield opened
    assert cluster.role("w1").is_running


def submit(site: Site, text: str, *, n_trials: int = 1, **keys: Any) -> Trials:
    """Submit trials in small containers."""
    resources = {"image": BASE_IMAGE, "cpus": 0.1, "memory": "64m"} | keys.pop("resources", {})
    return site.submit_program(text, n_trials=n_trials, resources=resources, **{"command": ["python3", "${program}"]} | keys)


def works(trials: Trials, name: str) -> list[Path]:
    """Files of that name in the working folders of a sweep's attempts."""
    runs = [trial.run_id for trial in trials.store.trials.list(trials.sweep_id)]
    return [path for run_id in runs for path in trials.cluster.folder.glob(f"home-w1/workers/*/runs/{run_id}/*/work/{name}")]


def await_ready(trials: Trials, n_trials: int = 1) -> None:
    """Wait until so many trials have begun."""
    wait_until(lambda: len(works(trials, "ready")) == n_trials, f"{n_trials} containers have begun", deadline_s=60 * STRETCH)


def let_go(trials: Trials) -> None:
    """Let all trials that wait go on to their ends."""
    for ready in works(trials, "ready"):
        ready.with_name("go").touch()


def containers(engine: OwnEngine, trials: Trials) -> "list[Container]":
    """Those of a sweep, running or not."""
    runs = {trial.run_id for trial in trials.store.trials.list(trials.sweep_id)}
    with engine.client() as client:
        found: list[Container] = client.containers.list(all=True, ignore_removed=True, filters={"label": "sweep.run"})
    return [container for container in found if container.labels["sweep.run"] in runs]


# -- from outside -----------------------------------------------------------------------------------------------


def test_container_removed_from_outside_is_lost_and_tried_again(engine: OwnEngine, site: Site, faults: Faults) -> None:
    """`docker rm -f`: the machinery's fault, told as what it was."""
    trials = submit(site, _WAITS_ONCE)
    await_ready(trials)
    with engine.client() as client:
        client.containers.get(str(containers(engine, trials)[0].id)).remove(force=True)
    faults.record("container: docker rm -f")
    trials.end("finished", "completed", n_attempts=2)
    lost = trials.attempts()[0]
    assert (lost.state, lost.cause, lost.detail) == ("failed", "lost", "its container was removed by someone else")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP], ids=lambda number: number.name)
def test_container_killed_from_outside_ends_by_that_signal(engine: OwnEngine, site: Site, faults: Faults, number: signal.Signals) -> None:
    """`docker kill`: nothing that looks like success, nor like a want of memory."""
    trials = submit(site, _WAITS)
    await_ready(trials)
    with engine.client() as client:
        client.containers.get(str(containers(engine, trials)[0].id)).kill(int(number))
    faults.record("container: docker kill")
    attempt = trials.end("failed", "signal")
    assert attempt.signal == number


# -- how it ends ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "state", "cause"),
    [
        (_HOG, "failed", "out_of_memory"),
        (f"import os\nif os.fork() == 0:\n    {_HOG}else:\n    os.wait()\n", "finished", "completed"),
        (f"import os\nif os.fork() == 0:\n    {_HOG}else:\n    os.wait()\n    raise SystemExit(1)\n", "failed", "out_of_memory"),
    ],
    ids=["main", "child of one that goes on", "child of one that gives up"],
)
def test_container_over_its_memory_ends_by_what_its_main_process_makes_of_it(site: Site, faults: Faults, text: str, state: str, cause: str) -> None:
    """The kernel's verdict is told; but who survives it and succeeds has succeeded."""
    trials = submit(site, text)
    faults.record("container: out of memory")
    trials.end(state, cause)


@pytest.mark.parametrize("status", [137, 143])
def test_container_that_exits_like_a_killed_one_is_not_out_of_memory(site: Site, faults: Faults, status: int) -> None:
    """An engine has one number for both, so the record says that it may have been either."""
    trials = submit(site, f"raise SystemExit({status})\n")
    faults.record(f"container: exits {status} by itself")
    attempt = trials.end("failed", "signal")
    assert attempt.signal == status - 128
    assert f"exit status {status}" in attempt.detail


@pytest.mark.parametrize("how", ["exits 0 at SIGTERM", "ignores SIGTERM"])
def test_container_that_is_cancelled_is_cancelled_whatever_it_makes_of_sigterm(site: Site, faults: Faults, how: str) -> None:
    """No false success, and no container that stays."""
    handler = "signal.SIG_IGN" if how == "ignores SIGTERM" else "lambda *_: sys.exit(0)"
    trials = submit(site, f"import signal, sys\nsignal.signal(signal.SIGTERM, {handler})\n{_WAITS}")
    await_ready(trials)
    trials.cancel()
    faults.record(f"container: {how}")
    trials.end("cancelled", "cancelled")


@pytest.mark.parametrize(
    ("command", "text", "status"),
    [(["no-such-command"], "", 127), (["./program"], "#!/no/such/interpreter\n", 127), (["./program"], "\x7fELF and no more", 127)],
    ids=["command not found", "missing interpreter", "exec format error"],
)
def test_container_whose_command_can_not_be_started_ends_as_a_shell_would_have_it(
    site: Site, faults: Faults, command: list[str], text: str, status: int
) -> None:
    """The user's own fault, with the name of the command, and no second attempt."""
    trials = site.submit_program(None, command=command, files=(("program", text),), resources={"image": BASE_IMAGE, "cpus": 0.1, "memory": "64m"})
    faults.record("container: bad command")
    attempt = trials.end("failed", "exit_status")
    assert attempt.exit_status == status
    assert command[0].removeprefix("./") in attempt.detail


def test_container_whose_image_is_missing_fails_by_that(site: Site, faults: Faults) -> None:
    """Named as of a registry that nobody runs; not tried again."""
    image = "127.0.0.1:1/nobody/has-this:1"
    trials = submit(site, _WAITS, resources={"image": image})
    faults.record("container: image missing")
    assert image in trials.end("failed", "image").detail


def test_container_that_ends_at_once_is_not_missed(site: Site, faults: Faults) -> None:
    """Over before anybody looked, ten times: finished, with its output."""
    trials = submit(site, "", n_trials=10, command=["echo", "all of it"])
    faults.record("container: ends at once", 10)
    trials.end("finished", "completed")
    assert trials.output() == b"all of it\n"


# -- engine and worker ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["stopped", "killed"])
def test_container_is_lost_with_its_engine_and_tried_again(engine: OwnEngine, site: Site, faults: Faults, how: str) -> None:
    """An engine that ends its containers, whether it goes or comes: the machinery's fault, whatever exit status they were left with."""
    trials = submit(site, _WAITS_ONCE, n_trials=2)
    await_ready(trials, 2)
    engine.stop() if how == "stopped" else engine.kill()
    engine.start()
    faults.record(f"engine: {how} and started")
    trials.end("finished", "completed", n_attempts=2)
    assert trials.attempts()[0].cause == "lost"


def test_container_survives_its_engine_where_that_is_told_to_let_it(engine: OwnEngine, site: Site, faults: Faults) -> None:
    """Live restore: the same attempt goes on, its output has no gap, and its end is seen."""
    engine.stop()
    engine.start(live_restore=True)
    try:
        trials = submit(site, _WAITS, n_trials=2)
        await_ready(trials, 2)
        engine.stop()
        engine.start(live_restore=True)
        let_go(trials)
        faults.record("engine: stopped and started, with live restore")
        trials.end("finished", "completed")
        assert trials.output() == b"started\nended\n"
    finally:
        engine.stop()
        engine.start()


def test_container_runs_on_while_its_engine_hangs(engine: OwnEngine, site: Site, faults: Faults) -> None:
    """Longer than any lease: the worker renews all the while, and the end is seen when the engine answers again."""
    trials = submit(site, _WAITS)
    await_ready(trials)
    renewed = "SELECT renewed_at FROM sessions WHERE state = 'live'"
    before = site.cluster.query(renewed)[0].renewed_at
    engine.suspend()
    try:
        let_go(trials)
        patience_s = 1.5 * site.cluster.settings.lease_s
        wait_until(lambda: (site.cluster.query(renewed)[0].renewed_at - before).total_seconds() > patience_s, "it renews", deadline_s=60 * STRETCH)
    finally:
        engine.wake()
    faults.record("engine: hangs under a running container")
    trials.end("finished", "completed")


def test_container_is_cancelled_and_others_are_started_once_their_engine_answers_again(engine: OwnEngine, site: Site, faults: Faults) -> None:
    """Nothing is stuck and nothing is started twice: what was asked for while it hung happens afterwards."""
    running = submit(site, _WAITS)
    await_ready(running)
    engine.suspend()
    try:
        running.cancel()
        waiting = submit(Site(site.cluster, site.store, site.outside / "second"), _WAITS, n_trials=2)
        site.cluster.wait_for_running(waiting.sweep_id, 2)
    finally:
        engine.wake()
    faults.record("engine: hangs when asked to start and to stop")
    await_ready(waiting, 2)
    let_go(waiting)
    running.end("cancelled", "cancelled")
    waiting.end("finished", "completed")


def test_containers_outlive_their_worker_killed_and_started_again(engine: OwnEngine, site: Site, faults: Faults) -> None:
    """Ten that talk all the while, kill -9 twice: the same containers under the same attempts, and not a line missing or doubled."""
    code = _WAITS.replace("while", "n = 0\nwhile").replace("    time.sleep", "    print(n, flush=True)\n    n += 1\n    time.sleep")
    trials = submit(site, code, n_trials=10)
    await_ready(trials, 10)
    before = {container.id for container in containers(engine, trials)}
    for _ in range(2):
        site.cluster.restart("w1")
        faults.record("worker: kill -9 under 10 containers")
    assert {container.id for container in containers(engine, trials)} == before
    let_go(trials)
    trials.end("finished", "completed")
    for trial in site.store.trials.list(trials.sweep_id):
        assert [attempt.attempt for attempt in site.store.attempts.list(trial.run_id)] == [1]
        first, *lines, last = site.store.logs.read(trial.run_id, limit=1 << 24).data.decode().splitlines()
        assert (first, last) == ("started", "ended")
        assert [int(line) for line in lines] == list(range(len(lines)))
