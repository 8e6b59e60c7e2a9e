"""Users' programs that misbehave, each beside one that does not: the exact cause of the end, nothing left behind, nobody else held up (I6, I7)."""

import os
import re
import resource
import secrets
import signal
import subprocess
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

from tests.faults.conftest import MakeCluster
from tests.support.fault_table import Faults
from tests.support.faults import PATIENT, FaultCluster
from tests.support.needs import missing, program
from tests.support.services import wait_until
from tests.support.trials import Site, is_alive, site_on

MIB: Final = 1 << 20
_HARMLESS: Final = "SIGCHLD SIGCONT SIGURG SIGWINCH SIGSTOP SIGTSTP SIGTTIN SIGTTOU".split()
DEADLY: Final = sorted(signal.valid_signals() - {signal.Signals[name] for name in _HARMLESS if hasattr(signal, name)})
"""Signals that end a process which does not handle them."""
_DAEMON: Final = """
read, write = os.pipe()
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        os.write(write, str(os.getpid()).encode())
        os.execvp("sleep", ["sleep", "1000"])
    os._exit(0)
mark("daemon", os.read(read, 32).decode())
"""


@pytest.fixture(scope="module")
def cluster(shared_fault_cluster: MakeCluster) -> FaultCluster:
    """One worker with two slots; the machinery tries a run twice."""
    return shared_fault_cluster(proxies=(), environ={"SWEEP_INFRA_RETRIES": "1"})


@pytest.fixture
def site(cluster: FaultCluster, tmp_path: Path) -> Iterator[Site]:
    """The shared cluster: the same worker process serves every test, whatever their trials do."""
    worker = cluster.role("w1")
    with site_on(cluster, tmp_path) as opened:
        yield opened
    assert worker is cluster.role("w1")
    assert worker.is_running


# -- that will not end ------------------------------------------------------------------------------------------


def test_trial_that_ignores_sigterm_is_killed_after_its_grace_period(site: Site, faults: Faults) -> None:
    """A polite word, the grace period, and the end: cancelled all the same."""
    trials = site.submit("signal.signal(signal.SIGTERM, signal.SIG_IGN); mark('ready'); time.sleep(1000)")
    trials.await_mark("ready")
    trials.cancel()
    faults.record("trial: ignores SIGTERM")
    attempt = trials.end("cancelled", "cancelled")
    assert (attempt.state, attempt.signal) == ("stopped", signal.SIGKILL)


def test_trial_that_exits_0_at_sigterm_is_cancelled_all_the_same(site: Site, faults: Faults) -> None:
    """What was stopped has not finished, whatever its exit status and its last value say."""
    code = """
    def leave(number, frame):
        print("loss=0.5", flush=True)
        end(0)
    signal.signal(signal.SIGTERM, leave)
    mark("ready")
    time.sleep(1000)
    """
    trials = site.submit(code)
    trials.await_mark("ready")
    trials.cancel()
    faults.record("trial: exits 0 at SIGTERM")
    attempt = trials.end("cancelled", "cancelled")
    assert (attempt.state, attempt.exit_status, attempt.signal) == ("stopped", 0, None)


@pytest.mark.parametrize("deaf", [False, True], ids=["ends at SIGTERM", "ignores SIGTERM"])
def test_trial_is_stopped_when_its_time_is_over(site: Site, faults: Faults, deaf: bool) -> None:
    """Its own fault, told as such, and not tried again."""
    trials = site.submit(f"if {deaf}: signal.signal(signal.SIGTERM, signal.SIG_IGN)\ntime.sleep(1000)", limits={"trials": 2, "trial_time": "1s"})
    faults.record("trial: sleeps beyond its time limit")
    attempt = trials.end("failed", "timed_out")
    assert attempt.signal == (signal.SIGKILL if deaf else signal.SIGTERM)


def test_trial_that_stops_itself_is_ended_when_its_time_is_over(site: Site, faults: Faults) -> None:
    """A process that is suspended hears no SIGTERM; it is killed all the same."""
    trials = site.submit("os.kill(os.getpid(), signal.SIGSTOP)", limits={"trials": 2, "trial_time": "1s"})
    faults.record("trial: SIGSTOP to itself")
    trials.end("failed", "timed_out")


# -- and what it leaves behind ----------------------------------------------------------------------------------


def test_trial_that_leaves_children_behind_has_finished(site: Site, faults: Faults) -> None:
    """Its children, deaf to SIGTERM and without its environment, are ended with it."""
    code = """
    deaf = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(1000)"
    mark("children", " ".join(str(subprocess.Popen([sys.executable, "-ISc", deaf], env={}).pid) for _ in range(3)))
    """
    trials = site.submit(code)
    faults.record("trial: children that outlive it", 3)
    trials.end("finished", "completed")
    assert not [pid for pid in trials.await_mark("children").split() if is_alive(pid)]


@pytest.mark.quick
def test_trial_that_daemonises_has_finished(site: Site, faults: Faults) -> None:
    """A daemon with a session and a parent of its own is ended with the trial it came from."""
    trials = site.submit(_DAEMON)
    faults.record("trial: daemonises")
    trials.end("finished", "completed")
    assert not is_alive(trials.await_mark("daemon"))


def test_trial_that_daemonises_leaves_nothing_when_it_is_cancelled(site: Site, faults: Faults) -> None:
    """The daemon goes with the trial."""
    trials = site.submit(f"{_DAEMON}\ntime.sleep(1000)")
    daemon = trials.await_mark("daemon")
    trials.cancel()
    faults.record("trial: daemonises")
    trials.end("cancelled", "cancelled")
    assert not is_alive(daemon)


def test_trial_whose_shim_is_killed_is_lost_and_tried_again(site: Site, faults: Faults) -> None:
    """A kill -9 of the process that watches it: told as that, on the machinery's budget, and nothing of the first attempt runs on, not even a daemon."""
    trials = site.submit(f"if attempt == '1':\n{textwrap.indent(_DAEMON, '    ')}    mark('shim', os.getppid())\n    time.sleep(1000)")
    os.kill(int(trials.await_mark("shim")), signal.SIGKILL)
    faults.record("shim: kill -9")
    trials.end("finished", "completed", n_attempts=2)
    lost = trials.attempts()[0]
    assert (lost.state, lost.cause) == ("failed", "lost")
    assert "the process that watched it was killed" in lost.detail
    assert not is_alive(trials.await_mark("daemon"))


def test_trial_that_kills_its_shim_each_time_ends_lost_within_the_machinerys_budget(site: Site, faults: Faults) -> None:
    """There is no telling who did it: tried again as often as the machinery may, and then it is over."""
    trials = site.submit("os.kill(os.getppid(), signal.SIGKILL); time.sleep(1000)")
    faults.record("trial: kills its shim", 2)
    trials.end("failed", "lost", n_attempts=2)


def test_trial_that_suspends_its_shim_can_be_cancelled(site: Site, faults: Faults) -> None:
    """An order to a shim wakes it."""
    trials = site.submit("os.kill(os.getppid(), signal.SIGSTOP); mark('done'); time.sleep(1000)")
    trials.await_mark("done")
    trials.cancel()
    faults.record("trial: SIGSTOP to its shim")
    trials.end("cancelled", "cancelled")


def test_trial_that_kills_the_launcher_holds_up_nobody(site: Site, faults: Faults) -> None:
    """The worker starts another launcher; nobody's attempt pays for it."""
    code = """
    launcher = int(open(f"/proc/{os.getppid()}/stat").read().rpartition(")")[2].split()[1])
    os.kill(launcher, signal.SIGKILL)
    """
    trials = site.submit(code, n_trials=4)
    faults.record("launcher: kill -9")
    trials.end("finished", "completed")


def test_trial_that_kills_its_process_group_ends_by_that_signal(site: Site, faults: Faults) -> None:
    """The group is its own: neither shim nor worker is in it."""
    trials = site.submit("subprocess.Popen(['sleep', '1000']); os.killpg(0, signal.SIGKILL); time.sleep(1000)")
    faults.record("trial: kills its process group")
    attempt = trials.end("failed", "signal")
    assert attempt.signal == signal.SIGKILL
    assert "no part of this system sent" in attempt.detail


# -- what it prints ---------------------------------------------------------------------------------------------


def test_trial_that_prints_100_megabytes_has_finished(site: Site, faults: Faults) -> None:
    """The record keeps the beginning and the end, the metric on the last line counts, and the worker's memory stays bounded."""
    code = """
    print("the first line", flush=True)
    block = b"".join(b"%063d\\n" % n for n in range(16384))
    for _ in range(100):
        os.write(1, block)
    """
    trials = site.submit(code)
    faults.record("trial: prints 100 MB")
    trials.end("finished", "completed")
    output = trials.output()
    assert output.startswith(b"the first line\n")
    assert output.endswith(b"%063d\nloss=0\n" % 16383)
    assert b"is left out" in output
    assert len(output) < 9 * MIB
    status = Path(f"/proc/{site.cluster.role('w1').process.pid}/status").read_text()
    assert int(re.findall(r"VmHWM:\s+(\d+) kB", status)[0]) < 400 * 1024


def test_trial_that_prints_a_line_of_10_megabytes_has_finished(site: Site, faults: Faults) -> None:
    """What is on the next line still counts."""
    trials = site.submit("sys.stdout.write('x' * 10_000_000 + '\\n'); sys.stdout.flush()")
    faults.record("trial: prints a line of 10 MB")
    trials.end("finished", "completed")
    assert trials.output().endswith(b"x\nloss=0\n")


def test_trial_that_prints_garbage_fails_with_a_text_for_people(site: Site, faults: Faults) -> None:
    """Bytes that are no text are kept as they are; of the last line of its errors people are shown what can be read."""
    garbage = bytes(range(256)) * 256
    code = "garbage = bytes(range(256)) * 256\nos.write(1, garbage)\nos.write(2, garbage + b'\\nthe \\0 last \\xff word\\n')\nend(3)"
    trials = site.submit(code)
    faults.record("trial: prints garbage")
    attempt = trials.end("failed", "exit_status")
    assert attempt.exit_status == 3
    assert attempt.detail.startswith("exit status 3: the ")
    assert trials.output() == garbage


def test_trial_that_opens_its_output_by_name_loses_nothing_of_it(site: Site, faults: Faults) -> None:
    """As shell scripts do: `echo ... > /dev/stdout` and `tee /dev/stderr` empty a file each time. The value is the last one that was printed."""
    script = """
for number in $(seq 200); do echo "noise $number" >/dev/stderr; done
for loss in 3 2 1; do echo "loss=$loss" >/dev/stdout; sleep 0.7; done
echo "loss=0" | tee /dev/stderr
echo "the reason why" >&2
"""
    trials = site.submit_program(script, command=["sh", "${program}"], metric={"name": "loss", "goal": "minimize"})
    faults.record("trial: opens its output by name")
    trials.end("finished", "completed")
    assert site.store.trials.get(trials.sweep_id, 0).value == 0
    assert trials.output() == b"loss=3\nloss=2\nloss=1\nloss=0\n"
    assert trials.output("stderr") == b"".join(b"noise %d\n" % number for number in range(1, 201)) + b"loss=0\nthe reason why\n"


def test_trial_that_closes_its_output_has_finished(site: Site, faults: Faults) -> None:
    """What it printed before counts."""
    trials = site.submit("print('loss=7', flush=True)\nos.close(1)\nos.close(2)\ntime.sleep(0.3)\nend(0)")
    faults.record("trial: closes its output")
    trials.end("finished", "completed")
    assert site.store.trials.get(trials.sweep_id, 0).value == 7


def test_trial_output_of_100000_lines_is_whole_though_its_worker_is_restarted_twice(fault_cluster: MakeCluster, tmp_path: Path, faults: Faults) -> None:
    """Killed once, ended politely once, both while it talks: the record holds every line once, and every point once (I8)."""
    cluster = fault_cluster(proxies=(), environ=PATIENT)
    code = """
    for n in range(100_000):
        sys.stdout.write(f"{n}\\n")
        if n % 1000 == 999:
            sys.stdout.write(f"loss={n} step={n // 1000}\\n")
            sys.stdout.flush()
            time.sleep(0.02)
        if n in (30_000, 60_000):
            mark(f"at {n}")
        if n == 60_000:
            wait_for("restarted")
    end()
    """
    with site_on(cluster, tmp_path) as site:
        trials = site.submit(code, n_trials=1)
        trials.await_mark("at 30000")
        cluster.restart("w1")
        trials.await_mark("at 60000")
        trials.allow("restarted")
        cluster.role("w1").stop()
        cluster.restart("w1")
        faults.record("worker: restarted under a trial that talks", 2)
        trials.end("finished", "completed")
        expected = "".join(f"{n}\n" + (f"loss={n} step={n // 1000}\n" if n % 1000 == 999 else "") for n in range(100_000))
        assert trials.output() == expected.encode()
        points, _ = site.store.metrics.history(trials.run_id, "loss")
        assert [(point.step, point.value) for point in points] == [(step, step * 1000 + 999) for step in range(100)]


# -- what it does to its folder ---------------------------------------------------------------------------------


def test_trial_that_deletes_its_working_folder_has_finished(site: Site, faults: Faults) -> None:
    """It may: the folder is its own."""
    trials = site.submit("shutil.rmtree(os.getcwd())")
    faults.record("trial: deletes its working folder")
    trials.end("finished", "completed")
    assert trials.output() == b"loss=0\n"


@pytest.mark.parametrize("how", ["finishes", "fails", "is cancelled"])
def test_trial_that_deletes_all_of_its_attempts_folder_ends_for_its_own_reason(site: Site, faults: Faults, how: str) -> None:
    """With the lock, the output and whatever else we keep there: its end is told all the same, and tried again it is not."""
    code = f"""
    shutil.rmtree(os.path.dirname(os.getcwd()))
    mark("deleted")
    if {how!r} == "finishes": end(0)
    if {how!r} == "fails": end(3)
    time.sleep(1000)
    """
    trials = site.submit("print('loss=7', flush=True); time.sleep(1.5)\n" + code.replace("\n    ", "\n"))
    trials.await_mark("deleted")
    faults.record("trial: deletes its attempt's folder")
    if how == "is cancelled":
        trials.cancel()
        trials.end("cancelled", "cancelled")
    elif how == "fails":
        assert trials.end("failed", "exit_status").exit_status == 3
    else:
        trials.end("finished", "completed")


def test_trial_whose_attempts_folder_is_gone_is_ended_when_its_worker_is_restarted(fault_cluster: MakeCluster, tmp_path: Path, faults: Faults) -> None:
    """The next life of the worker can't follow it, finds it all the same, ends it before anything else is started, and says what happened."""
    cluster = fault_cluster(proxies=(), environ=PATIENT)
    code = """
    if attempt == "1":
        shutil.rmtree(os.path.dirname(os.getcwd()))
        mark("first", os.getpid())
        time.sleep(1000)
    try:
        os.kill(int(open(f"{outside}/first").read()), 0)
        end(9)  # as the first one lives on
    except ProcessLookupError:
        print("loss=7", flush=True)
    """
    with site_on(cluster, tmp_path) as site:
        trials = site.submit(code)
        trials.await_mark("first")
        cluster.restart("w1")
        faults.record("trial: deletes its attempt's folder")
        attempts = trials.settle("finished", "completed", n_attempts=2)
    assert attempts[0].cause == "lost"
    assert "its folder was removed" in attempts[0].detail


@pytest.mark.parametrize("how", ["fails", "is cancelled"])
def test_trial_that_fills_its_disk_ends_for_its_own_reason(fault_cluster: MakeCluster, tmp_path: Path, faults: Faults, how: str) -> None:
    """A full disk keeps neither the end of a trial from being told nor the next trials from running."""
    cluster = fault_cluster(proxies=(), start=False, environ={"SWEEP_INFRA_RETRIES": "1"})
    code = f"""
    print("loss=1", flush=True)
    try:
        with open("filling", "wb", 0) as file:
            while True:
                file.write(bytes(65536))
    except OSError:
        # To the very last byte, in this folder and in the one that is not its own.
        for name in ("rest", "../rest"):
            try:
                with open(name, "wb", 0) as file:
                    while True:
                        file.write(b"x")
            except OSError:
                pass
    mark("full")
    if {how!r} == "fails": raise OSError("no space")
    time.sleep(1000)
    """
    with small_disk(cluster.folder / "home-w1"), site_on(cluster.start(), tmp_path) as site:
        trials = site.submit(code, n_trials=3, limits={"trials": 3, "parallel": 1})
        trials.await_mark("full")
        faults.record("trial: fills its disk")
        if how == "is cancelled":
            trials.cancel()
            trials.end("cancelled", "cancelled")
        else:
            # Who has filled a disk is not known: the machinery's budget pays.
            assert "No space left" in trials.end("failed", "launch", n_attempts=2).detail
        assert cluster.role("w1").is_running


@contextmanager
def small_disk(folder: Path) -> Iterator[None]:
    """A file system of 8 MB, of this test alone."""
    if os.getuid() != 0:
        missing("Only root can mount a small disk")
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "sweep-test", folder], check=True)
    try:
        yield
    finally:
        # Lazily: the worker, which still runs, has files open there.
        subprocess.run(["umount", "--lazy", folder], check=True)


@pytest.mark.parametrize("how", ["finishes", "is cancelled"])
def test_trial_that_takes_the_rights_from_its_folders_ends_for_its_own_reason(fault_cluster: MakeCluster, tmp_path: Path, faults: Faults, how: str) -> None:
    """Neither the end nor the tidying up needs rights that the owner of the folder can't give back."""
    # A worker without root's way around rights: as anybody's.
    ordinary = [program("setpriv"), "--bounding-set", "-dac_override,-dac_read_search"] if os.getuid() == 0 else []
    cluster = fault_cluster(proxies=(), role_prefix={"w1": ordinary})
    code = f"""
    os.makedirs("deep/er")
    for folder in ("deep/er", "deep", "..", "."):
        os.chmod(folder, 0)
    mark("locked")
    if {how!r} == "is cancelled": time.sleep(1000)
    """
    with site_on(cluster, tmp_path) as site:
        trials = site.submit("print('loss=0', flush=True)\n" + code.replace("\n    ", "\n"))
        trials.await_mark("locked")
        faults.record("trial: takes the rights from its folders")
        if how == "is cancelled":
            trials.cancel()
            trials.end("cancelled", "cancelled")
        else:
            trials.end("finished", "completed")


def test_trial_that_locks_its_attempts_folder_is_taken_up_by_a_restarted_worker(fault_cluster: MakeCluster, tmp_path: Path, faults: Faults) -> None:
    """A worker without root's way around rights takes them back: it neither tells a trial as failed that lives, nor runs it twice."""
    ordinary = [program("setpriv"), "--bounding-set", "-dac_override,-dac_read_search"] if os.getuid() == 0 else []
    cluster = fault_cluster(proxies=(), role_prefix={"w1": ordinary}, environ=PATIENT)
    code = """
    print("loss=0", flush=True)
    for folder in ("../..", "..", "."):
        os.chmod(os.path.realpath(folder), 0o300)
    for name in ("../lock", "../stdout", ".."):
        os.chmod(os.path.realpath(name), 0)
    mark("locked")
    wait_for("go")
    """
    with site_on(cluster, tmp_path) as site:
        trials = site.submit(code)
        trials.await_mark("locked")
        cluster.restart("w1")
        faults.record("trial: takes the rights from its folders, worker restarted")
        trials.allow("go")
        trials.end("finished", "completed")


def test_trial_that_ends_while_its_worker_can_open_nothing_has_ended_well(site: Site, faults: Faults) -> None:
    """What lies intact on its disk is read as soon as that goes; nobody's budget pays for the lack of descriptors."""
    trials = site.submit('print("loss=0", flush=True); mark("up"); wait_for("go"); note("end"); mark("ended", os.getppid()); os._exit(0)')
    trials.await_mark("up")
    worker = site.cluster.role("w1").process.pid
    before = resource.prlimit(worker, resource.RLIMIT_NOFILE)
    resource.prlimit(worker, resource.RLIMIT_NOFILE, (4, before[1]))
    try:
        trials.allow("go")
        shim = int(trials.await_mark("ended"))
        wait_until(lambda: not is_alive(shim), "its end is written")
        wait_until(lambda: re.search("Too many open files: .*exit.json", site.cluster.role("w1").log()), "the worker has met it")
    finally:
        resource.prlimit(worker, resource.RLIMIT_NOFILE, before)
    faults.record("worker: out of descriptors as a trial ends")
    trials.end("finished", "completed")


# -- how it ends ------------------------------------------------------------------------------------------------


def test_trial_ended_by_each_signal_says_which(site: Site, faults: Faults) -> None:
    """Every signal that can end a process, by its number."""
    die = f"""
    import resource, signal
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    deadly = {[int(number) for number in DEADLY]}[int(number)]
    if deadly != signal.SIGKILL:
        signal.signal(deadly, signal.SIG_DFL)
    os.kill(os.getpid(), deadly)
    time.sleep(1000)
    """
    n_trials = len(DEADLY)
    project = site.cluster.ledger_project(n_trials=n_trials, extra=textwrap.dedent(die))
    sweep_id = site.cluster.submit(project)
    faults.record("trial: dies of a signal", n_trials)
    trials = site.cluster.wait_for_end(sweep_id)
    assert {(trial["state"], trial["cause"]) for trial in trials} == {("failed", "signal")}
    ended_by = site.cluster.query("SELECT signal FROM audit_attempts WHERE sweep_id = %(id)s ORDER BY trial_number", id=sweep_id)
    assert [row.signal for row in ended_by] == [int(number) for number in DEADLY]


@pytest.mark.parametrize("status", [1, 137, 143])
def test_trial_that_exits_by_itself_says_with_which_status(site: Site, faults: Faults, status: int) -> None:
    """137 and 143 are numbers like any other: nobody was killed."""
    trials = site.submit(f"sys.stderr.write('my own way out\\n'); end({status})")
    faults.record(f"trial: exits {status} by itself")
    attempt = trials.end("failed", "exit_status")
    assert (attempt.exit_status, attempt.signal, attempt.detail) == (status, None, f"exit status {status}: my own way out")


@pytest.mark.parametrize(("prints", "why"), [("nothing", "it never logged one"), ("loss=nan", "its value is NaN")])
def test_trial_without_an_objective_has_failed(site: Site, faults: Faults, prints: str, why: str) -> None:
    """Exit status 0 is not enough where the file asks for a metric (D8)."""
    trials = site.submit(f"print({prints!r}, flush=True); end(0)")
    faults.record(f"trial: logs {prints if prints == 'nothing' else 'NaN'}")
    attempt = trials.end("failed", "no_objective")
    assert (attempt.state, attempt.exit_status) == ("succeeded", 0)
    assert why in (site.store.trials.get(trials.sweep_id, 0).detail or "")


@pytest.mark.parametrize(
    ("command", "text", "status", "why"),
    [
        (["./program"], "\x7fELF and no more", 126, "Exec format error"),
        (["./program"], "#!/no/such/interpreter\n", 127, "interpreter"),
        (["no-such-command"], "", 127, "no such command"),
    ],
    ids=["exec format error", "missing interpreter", "command not found"],
)
def test_trial_that_can_not_be_started_ends_as_a_shell_would_have_it(
    site: Site, faults: Faults, command: list[str], text: str, status: int, why: str, request: pytest.FixtureRequest
) -> None:
    """The user's own fault, with the name of the command; the machinery's budget is not touched."""
    trials = site.submit_program(None, command=command, files=(("program", text),))
    faults.record(f"trial: {request.node.callspec.id}")
    attempt = trials.end("failed", "exit_status")
    assert attempt.exit_status == status
    assert command[0] in attempt.detail
    assert why in attempt.detail


# -- memory -----------------------------------------------------------------------------------------------------


@pytest.fixture
def little_memory() -> Iterator[Path]:
    """The file to write a process id to, to have that process held to 64 MiB by the kernel."""
    if os.getuid() != 0:
        missing("Only root can make a control group")
    name = f"sweep-test-{secrets.token_hex(4)}"
    old, new = Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup")
    if old.is_dir():
        group, limit = old / name, "memory.limit_in_bytes"
    elif "memory" in _text(new / "cgroup.subtree_control"):
        group, limit = new / name, "memory.max"
    else:
        missing("There is no control group for memory")
    group.mkdir()
    try:
        (group / limit).write_text(str(64 * MIB))
        yield group / "cgroup.procs"
    finally:
        wait_until(lambda: not _text(group / "cgroup.procs"), "the control group is empty")
        group.rmdir()


def _text(file: Path) -> str:
    return file.read_text() if file.exists() else ""


def test_trial_killed_by_the_kernel_for_want_of_memory_says_so(site: Site, faults: Faults, little_memory: Path) -> None:
    """Told from any other SIGKILL, and the user's own fault."""
    trials = site.submit(f"open({str(little_memory)!r}, 'w').write(str(os.getpid()))\nhog = [bytearray(b'x' * 2**20) for _ in range(256)]")
    faults.record("trial: killed by the kernel for want of memory")
    attempt = trials.end("failed", "out_of_memory")
    assert attempt.signal == signal.SIGKILL


@pytest.mark.parametrize("goes_on", [True, False], ids=["goes on", "gives up"])
def test_trial_whose_child_was_killed_for_want_of_memory_ends_for_its_own_reason(site: Site, faults: Faults, little_memory: Path, goes_on: bool) -> None:
    """The main process lives: what it makes of that is what counts."""
    code = f"""
    child = os.fork()
    if child == 0:
        open({str(little_memory)!r}, "w").write(str(os.getpid()))
        hog = [bytearray(b"x" * 2**20) for _ in range(256)]
    status = os.waitpid(child, 0)[1]
    assert os.WTERMSIG(status) == signal.SIGKILL
    if not {goes_on}:
        sys.exit("a loader was killed")
    """
    trials = site.submit(code)
    faults.record("trial: its child killed by the kernel for want of memory")
    if goes_on:
        trials.end("finished", "completed")
    else:
        assert trials.end("failed", "exit_status").detail == "exit status 1: a loader was killed"


def test_trial_over_its_own_limit_of_memory_fails_by_its_own_error(site: Site, faults: Faults) -> None:
    """A limit of the process: an allocation that fails, and no kernel that kills."""
    trials = site.submit("resource.setrlimit(resource.RLIMIT_AS, (2**28, 2**28)); hog = bytearray(2**29)")
    faults.record("trial: over its limit of memory")
    assert trials.end("failed", "exit_status").detail == "exit status 1: MemoryError"


def test_trial_over_its_own_limit_of_processor_time_ends_by_a_signal(site: Site, faults: Faults) -> None:
    """SIGXCPU, which its own limit sent."""
    trials = site.submit("resource.setrlimit(resource.RLIMIT_CPU, (1, 5))\nwhile True: pass")
    faults.record("trial: over its limit of processor time")
    assert trials.end("failed", "signal").signal == signal.SIGXCPU
