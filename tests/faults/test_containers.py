"""Trials in containers, and what may befall them: their engine, their worker, whoever has rights to them (I7, I8). On an engine of the test's own."""

import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

from tests.faults.conftest import MakeCluster
from tests.support.engine import BASE_IMAGE, OwnEngine
from tests.support.fault_table import Faults
from tests.support.faults import PATIENT, STRETCH, FaultCluster
from tests.support.needs import program, root
from tests.support.registry import registry
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
_FAILS: Final = f"{_WAITS}raise SystemExit(3)\n"
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


@contextmanager
def worker_down(site: Site) -> Iterator[None]:
    """The worker is killed, and started again afterwards."""
    site.cluster.role("w1").kill()
    try:
        yield
    finally:
        site.cluster.restart("w1")


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


@pytest.mark.parametrize("how", ["docker rm -f", "docker rename"])
def test_container_removed_or_renamed_while_its_worker_is_down_is_told_as_that(engine: OwnEngine, site: Site, faults: Faults, how: str) -> None:
    """Gone, it had started all the same; under another name it is the same one, and nothing runs beside it."""
    trials = submit(site, _WAITS_ONCE)
    await_ready(trials)
    with worker_down(site), engine.client() as client:
        container = client.containers.get(str(containers(engine, trials)[0].id))
        container.remove(force=True) if how == "docker rm -f" else container.rename("precious")
    faults.record(f"container: {how} while its worker is down")
    if how == "docker rename":
        let_go(trials)
        trials.end("finished", "completed")
        return
    trials.end("finished", "completed", n_attempts=2)
    lost = trials.attempts()[0]
    assert (lost.state, lost.cause, lost.detail) == ("failed", "lost", "its container was removed by someone else")


def test_container_left_by_a_worker_that_was_renamed_is_removed_once_its_attempt_is_over(
    engine: OwnEngine, fault_cluster: MakeCluster, faults: Faults, tmp_path: Path
) -> None:
    """By the worker of the new name, though the next attempt went to another and the folder is gone; a third one of the same engine has no say in it."""
    cluster = fault_cluster(proxies=())
    with site_on(cluster, tmp_path) as site:
        trials = submit(site, _WAITS_ONCE)
        await_ready(trials)
        cluster.role("w1").stop()
        faults.record("worker: renamed")
        (folder,) = (path.parents[1] for path in works(trials, "ready"))
        shutil.rmtree(folder)
        cluster.start_worker("w2")
        cluster.wait_for_end(trials.sweep_id)
        assert [container.labels["sweep.attempt"] for container in containers(engine, trials)] == ["1"]
        cluster.role_environ["w3"] = {"SWEEP_HOME": str(cluster.folder / "home-w1")}
        cluster.start_worker("w3")
        wait_until(lambda: not containers(engine, trials), "the container is removed")
        trials.end("finished", "completed", n_attempts=2)
    assert "which another worker of this home had left and the record has given up" in cluster.role("w3").log()


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
    """Its registry does not know it; not tried again."""
    with registry() as address:
        image = f"{address}/nobody/has-this:1"
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


@pytest.mark.parametrize("how", ["stopped", "killed"])
def test_container_is_lost_with_its_engine_while_its_worker_is_down(engine: OwnEngine, site: Site, faults: Faults, how: str) -> None:
    """Nobody saw it: an end by the signals that an engine sends is the machinery's fault as well."""
    trials = submit(site, _WAITS_ONCE, n_trials=2)
    await_ready(trials, 2)
    with worker_down(site):
        engine.stop() if how == "stopped" else engine.kill()
        engine.start()
    faults.record(f"engine: {how} and started while the worker is down")
    trials.end("finished", "completed", n_attempts=2)
    lost = trials.attempts()[0]
    assert lost.cause == "lost"
    assert "while no worker watched" in lost.detail


def test_container_is_lost_with_its_machine_whatever_it_answered_to_that(engine: OwnEngine, site: Site, faults: Faults, tmp_path: Path) -> None:
    """Worker and engine end, and it ends upon SIGTERM with a status of its own; the worker starts in another life of the machine."""
    root("to give the worker another boot id")
    trials = submit(site, f"import signal, sys\nsignal.signal(signal.SIGTERM, lambda *_: sys.exit(7))\n{_WAITS_ONCE}")
    await_ready(trials)
    boot_id = tmp_path / "boot_id"
    boot_id.write_text("00000000-0000-4000-8000-000000000000\n")
    bind = f'mount --bind {boot_id} /proc/sys/kernel/random/boot_id && exec "$@"'
    site.cluster.role_prefix["w1"] = [program("unshare"), "--mount", "sh", "-c", bind, "sh"]
    try:
        with worker_down(site):
            engine.stop()
            engine.start()
        faults.record("host: rebooted under a container")
        trials.end("finished", "completed", n_attempts=2)
        lost = trials.attempts()[0]
        assert (lost.cause, lost.exit_status, lost.detail) == ("lost", 7, "its machine was restarted")
    finally:
        del site.cluster.role_prefix["w1"]
        site.cluster.restart("w1")


def test_container_fails_by_itself_long_after_its_engine_was_away(engine: OwnEngine, site: Site, faults: Faults) -> None:
    """Live restore, and the worker has seen it run afterwards: the failure is its own, and the only attempt's."""
    engine.stop()
    engine.start(live_restore=True)
    try:
        trials = submit(site, _FAILS)
        await_ready(trials)
        engine.stop()
        engine.start(live_restore=True)
        # A second trial that runs from its start to its end: the worker has looked at the first one again by then.
        for n in range(2):
            other = submit(Site(site.cluster, site.store, site.outside / str(n)), "import time\ntime.sleep(2)\n")
            other.end("finished", "completed")
        let_go(trials)
        faults.record("engine: away long before a container fails")
        assert trials.end("failed", "exit_status").exit_status == 3
    finally:
        engine.stop()
        engine.start()


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


# -- its folder -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_restarted", [False, True], ids=["worker stays", "worker restarts"])
def test_container_whose_folder_is_removed_ends_as_it_does(engine: OwnEngine, site: Site, faults: Faults, *, is_restarted: bool) -> None:
    """One attempt, and all that it printed: the engine has it."""
    trials = submit(site, f"{_WAITS.partition('while')[0]}time.sleep(3)\nprint('ended', flush=True)\n")
    await_ready(trials)
    folder = works(trials, "ready")[0].parent.parent
    if is_restarted:
        with worker_down(site):
            shutil.rmtree(folder)
    else:
        shutil.rmtree(folder)
    faults.record("container: its attempt's folder deleted")
    trials.end("finished", "completed")
    assert trials.output() == b"started\nended\n"


@pytest.fixture
def small_home(cluster: FaultCluster) -> Iterator[Path]:
    """The home of worker `disk`, a file system of 8 MiB of its own."""
    root("to mount a small file system")
    home = cluster.folder / "home-disk"
    home.mkdir()
    subprocess.run([program("mount"), "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(home)], check=True)
    yield home
    cluster.role("disk").stop()
    subprocess.run([program("umount"), "--lazy", str(home)], check=True)


def test_container_whose_output_finds_no_room_is_no_fault_of_its_code(site: Site, small_home: Path, faults: Faults) -> None:
    """Tried again, as a process is; one that is cancelled meanwhile is cancelled, and the worker lives on."""
    site.cluster.start_worker("disk", "--slots", "2", "--queue", "disk")
    talks = f"{_WAITS_ONCE}print('x' * 200_000, flush=True)\n"
    talking = submit(site, talks, queue="disk", retry={"max": 0})
    unwanted = submit(Site(site.cluster, site.store, site.outside / "second"), _WAITS, queue="disk")
    for each in (talking, unwanted):
        site.cluster.wait_for_running(each.sweep_id, 1)
    ready = [home_work(small_home, trials) / "ready" for trials in (talking, unwanted)]
    for file in ready:
        wait_until(file.exists, "both containers have begun", deadline_s=60 * STRETCH)
    filler = small_home / "filler"
    filler.touch()
    subprocess.run(["dd", "if=/dev/zero", f"of={filler}", "bs=4096"], capture_output=True, check=False)
    faults.record("container: no room for its output")
    ready[0].with_name("go").touch()
    wait_until(lambda: talking.attempts()[0].state == "failed", "the first attempt has failed", deadline_s=60 * STRETCH)
    unwanted.cancel()
    unwanted.end("cancelled", "cancelled")
    filler.unlink()
    first, *_ = talking.settle("finished", "completed")
    assert first.cause == "launch"
    assert "No space left on device" in first.detail
    assert site.cluster.role("disk").is_running


def home_work(home: Path, trials: Trials) -> Path:
    """The working folder of trial 0's first attempt in a worker's home, where it will be."""
    (worker,) = (path for path in home.glob("workers/*") if path.is_dir())
    return worker / "runs" / trials.run_id / "1" / "work"
