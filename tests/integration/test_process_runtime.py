"""What only process runs have: the shim between worker and command, and what happens when any of the three dies."""

import errno
import json
import os
import resource
import select
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
from msgspec.structs import replace

from tests.support.needs import missing, program, root
from tests.support.services import wait_until
from tracking.ids import new_run_id
from tracking.records import Launch
from tracking.states import Cause
from worker.errors import Exhausted, LaunchFailed
from worker.folders import remove_attempt
from worker.output import Output
from worker.runtimes import process, shim
from worker.runtimes.base import AttemptKey, AttemptSpec, ExitReport, Handle, outcome_of
from worker.runtimes.host import host_incarnation, process_start, process_state
from worker.runtimes.process import ProcessRuntime, is_alive

PATIENCE_S = 60.0
SLEEP_FOREVER = ("sleep", "1000")


@pytest.fixture
def runtime(tmp_path: Path) -> Iterator[ProcessRuntime]:
    """A runtime of its own; whatever still runs at the end is ended."""
    opened = ProcessRuntime(tmp_path / "runs")
    yield opened
    opened.sweep_orphans(set())
    opened.close()


def make_spec(home: Path, *argv: str, env: dict[str, str] | None = None, grace_s: float = 30.0) -> AttemptSpec:
    """A new attempt."""
    run_id = new_run_id()
    folder = home / "runs" / run_id / "1"
    (folder / "work").mkdir(parents=True)
    path = os.environ["PATH"]
    return AttemptSpec(run_id, 1, "w", host_incarnation(), argv, {"PATH": path, **(env or {})}, folder / "work", folder, stop_grace_s=grace_s)


def attempt_of(first: AttemptSpec, number: int, home: Path) -> AttemptSpec:
    """Another attempt of a run."""
    folder = home / "runs" / first.run_id / str(number)
    (folder / "work").mkdir(parents=True)
    return replace(first, attempt=number, folder=folder, cwd=folder / "work")


def finish(handle: Handle) -> ExitReport:
    """The report of an attempt that is about to end."""
    report = handle.wait(PATIENCE_S)
    assert report is not None, "it did not end"
    return report


def facts_of(spec: AttemptSpec) -> dict[str, int]:
    """What the shim noted when it started the command."""
    wait_until((spec.folder / shim.STARTED).exists, "the shim's note", interval_s=0.01)
    facts: dict[str, int] = json.loads((spec.folder / shim.STARTED).read_text())
    return facts


def test_process_outlives_its_worker(tmp_path: Path) -> None:
    """A worker killed on the spot takes neither launcher's runs nor their exit status with it."""
    spec = make_spec(tmp_path, "sh", "-c", "echo up; while [ ! -e go ]; do sleep 0.02; done; exit 9")
    worker = f"""
import os, signal
from pathlib import Path
from worker.runtimes.base import AttemptSpec
from worker.runtimes.process import ProcessRuntime
runtime = ProcessRuntime(Path({str(tmp_path / "runs")!r}))
runtime.start(AttemptSpec({spec.run_id!r}, 1, "w", {spec.host_incarnation!r}, {spec.argv!r}, {spec.env!r}, Path({str(spec.cwd)!r}), Path({str(spec.folder)!r})))
os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run([sys.executable, "-c", worker], check=False, timeout=PATIENCE_S, capture_output=True)
    # `run` returned: nobody holds the worker's output open either.
    assert done.returncode == -signal.SIGKILL, done.stderr
    runtime = ProcessRuntime(tmp_path / "runs")
    handle = runtime.adopt(*spec.key, spec.folder)
    assert handle is not None
    assert handle.wait(0.05) is None
    (spec.cwd / "go").touch()
    assert finish(handle).exit_status == 9
    assert (spec.folder / "stdout").read_text() == "up\n"
    runtime.close()


@pytest.mark.parametrize("env", [{"LARGE": "x" * 200_000}, {f"V{n}": "x" * 100_000 for n in range(100)}], ids=["one", "all"])
def test_process_blames_the_user_when_variables_are_too_long(runtime: ProcessRuntime, tmp_path: Path, env: dict[str, str]) -> None:
    """The kernel takes so much in one variable, and so much in all: another worker's kernel takes no more."""
    outcome = outcome_of(finish(runtime.start(make_spec(tmp_path, "true", env=env))))
    assert (outcome.verdict, outcome.cause) == ("failed", Cause.ENVIRONMENT)
    assert "bytes together" in outcome.detail


def test_process_blames_the_user_when_a_variable_can_not_be_encoded(runtime: ProcessRuntime, tmp_path: Path) -> None:
    """What only the system call finds out is no fault of the machinery either."""
    outcome = outcome_of(finish(runtime.start(make_spec(tmp_path, "true", env={"A": "\ud800"}))))
    assert (outcome.verdict, outcome.cause) == ("failed", Cause.ENVIRONMENT)


def test_process_launcher_waits_whatever_the_default_timeout(runtime: ProcessRuntime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A library that sets a default time-out for sockets does not make the launcher read half a request, or leave after one."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(30.0)
    try:
        first = runtime.start(make_spec(tmp_path, "true", env={f"V{n}": "x" * 1000 for n in range(1000)}))
        launcher = runtime._launcher._process
        second = runtime.start(make_spec(tmp_path, "true"))
    finally:
        socket.setdefaulttimeout(before)
    assert [finish(handle).exit_status for handle in (first, second)] == [0, 0]
    assert runtime._launcher._process is launcher


def test_process_runs_go_on_when_launcher_dies(runtime: ProcessRuntime, tmp_path: Path) -> None:
    """A launcher that was killed is replaced at the next start; what it had started does not notice."""
    first = make_spec(tmp_path, *SLEEP_FOREVER)
    handle = runtime.start(first)
    launcher = runtime._launcher._process
    assert launcher is not None
    launcher.kill()
    launcher.wait()
    assert finish(runtime.start(make_spec(tmp_path, "true"))).exit_status == 0
    assert handle.wait(0.05) is None
    handle.stop("cancel")
    assert outcome_of(finish(handle)).cause == Cause.CANCELLED


@pytest.mark.parametrize("request_line", [b'{"folder": "/nowhere"}\n', b'{"folder": "/now'], ids=["answer unread", "half a request"])
def test_process_launcher_ends_without_a_word_when_its_worker_is_gone(request_line: bytes) -> None:
    """Whatever was under way between the two when the worker was killed."""
    ours, theirs = socket.socketpair()
    with theirs:
        command = [sys.executable, "-I", "-S", shim.__file__, str(theirs.fileno())]
        launcher = subprocess.Popen(command, pass_fds=[theirs.fileno()], stderr=subprocess.PIPE)
    ours.sendall(request_line)
    if request_line.endswith(b"\n"):
        assert select.select([ours], [], [], PATIENCE_S)[0], "it did not answer"
    ours.close()
    assert launcher.communicate(timeout=PATIENCE_S) == (None, b"")
    assert launcher.returncode == 0


def test_process_is_lost_and_ended_when_its_shim_is_killed(runtime: ProcessRuntime, tmp_path: Path) -> None:
    """Without its shim nobody learns how a command ends: the attempt is lost, and the command does not go on in secret."""
    spec = make_spec(tmp_path, *SLEEP_FOREVER)
    handle = runtime.start(spec)
    facts = facts_of(spec)
    os.kill(facts["shim_pid"], signal.SIGKILL)
    outcome = outcome_of(finish(handle))
    assert (outcome.verdict, outcome.cause) == ("failed", Cause.LOST)
    wait_until(lambda: process_start(facts["trial_pid"]) != facts["trial_start"] or is_zombie(facts["trial_pid"]), "the command's end")


def is_zombie(pid: int) -> bool:
    """Whether a process has ended and waits to be reaped, by whoever inherited it."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"


def test_process_is_lost_when_machine_restarted(runtime: ProcessRuntime, tmp_path: Path) -> None:
    """Notes of another life of the machine name processes that are gone; one with the same number is spared."""
    spec = make_spec(tmp_path, "true")
    bystander = subprocess.Popen(SLEEP_FOREVER, start_new_session=True)
    try:
        note = {
            "run_id": spec.run_id,
            "attempt": 1,
            "host_incarnation": "another boot",
            "shim_pid": bystander.pid,
            "trial_pid": bystander.pid,
            "trial_start": process_start(bystander.pid),
        }
        (spec.folder / shim.STARTED).write_text(json.dumps(note))
        (spec.folder / shim.LOCK).write_text(str(bystander.pid))
        handle = runtime.adopt(*spec.key, spec.folder)
        assert handle is not None
        handle.kill()
        assert outcome_of(finish(handle)).cause == Cause.LOST
        assert runtime.sweep_orphans(set()) == []
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()


def test_process_survives_signals_to_its_shim(runtime: ProcessRuntime, tmp_path: Path) -> None:
    """A terminal that closes, a service manager that stops the worker's processes, or a trial that sends whatever it likes ends no run."""
    spec = make_spec(tmp_path, "sh", "-c", "while [ ! -e go ]; do sleep 0.02; done; exit 2")
    handle = runtime.start(spec)
    deadly = {signal.SIGKILL, signal.SIGSTOP, signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, shim.STOP_SIGNAL, shim.KILL_SIGNAL}
    for number in signal.valid_signals() - deadly:
        os.kill(facts_of(spec)["shim_pid"], number)
    assert handle.wait(0.1) is None
    (spec.cwd / "go").touch()
    assert finish(handle).exit_status == 2


SHUTDOWNS = [signal.SIGTERM, signal.SIGHUP, signal.SIGINT]


@pytest.mark.parametrize("number", SHUTDOWNS)
@pytest.mark.parametrize("order", [("shim_pid", "trial_pid"), ("trial_pid", "shim_pid")], ids=["shim first", "command first"])
def test_process_is_lost_when_all_around_it_is_shut_down(runtime: ProcessRuntime, tmp_path: Path, number: signal.Signals, order: tuple[str, ...]) -> None:
    """A machine, or a service, that is stopped sends the same to all, in whatever order: that is not the user's fault."""
    spec = make_spec(tmp_path, *SLEEP_FOREVER)
    handle = runtime.start(spec)
    facts = facts_of(spec)
    os.kill(facts[order[0]], number)
    if order[0] == "trial_pid":
        wait_until(lambda: process_start(facts["trial_pid"]) != facts["trial_start"], "the shim takes note of the command's end", interval_s=0.001)
    os.kill(facts[order[1]], number)
    report = finish(handle)
    assert report.signal == number
    outcome = outcome_of(report)
    assert (outcome.verdict, outcome.cause) == ("failed", Cause.LOST)
    assert f"ended by {number.name}" in outcome.detail
    assert "shut down" in outcome.detail


@pytest.mark.parametrize(("status", "cause"), [(3, Cause.LOST), (143, Cause.LOST), (0, Cause.COMPLETED)])
def test_process_that_leaves_as_all_is_shut_down_has_failed_for_that_only(runtime: ProcessRuntime, tmp_path: Path, status: int, cause: Cause) -> None:
    """A command may end in its own way when it is sent SIGTERM; if it says that it has succeeded, it has."""
    spec = make_spec(tmp_path, "sh", "-c", f"trap 'exit {status}' TERM; echo up; while :; do sleep 0.02; done")
    handle = runtime.start(spec)
    facts_of(spec)
    wait_until(lambda: (spec.folder / "stdout").read_text() == "up\n", "the trap", interval_s=0.01)
    for name in ("shim_pid", "trial_pid"):
        os.kill(facts_of(spec)[name], signal.SIGTERM)
    assert outcome_of(finish(handle)).cause == cause


@pytest.mark.parametrize("number", SHUTDOWNS)
def test_process_that_is_sent_a_signal_alone_ends_by_that_signal(runtime: ProcessRuntime, tmp_path: Path, number: signal.Signals) -> None:
    """That the launcher or another attempt was told to end is no excuse; and what we ask for after all that is what it was."""
    other, spec = make_spec(tmp_path, *SLEEP_FOREVER), make_spec(tmp_path, *SLEEP_FOREVER)
    handles = [runtime.start(other)]
    launcher = runtime._launcher._process
    assert launcher is not None
    for pid in (launcher.pid, facts_of(other)["shim_pid"]):
        os.kill(pid, number)
    handles.append(runtime.start(spec))
    os.kill(facts_of(spec)["trial_pid"], number)
    assert outcome_of(finish(handles[1])).cause == Cause.SIGNAL
    handles[0].stop("cancel")
    report = finish(handles[0])
    assert outcome_of(report).cause == Cause.CANCELLED
    assert not report.told_to_end


@pytest.mark.parametrize(
    ("ended", "incarnation", "cause"),
    [
        ({"signal": 15}, "another boot", Cause.LOST),
        ({"signal": 9}, "another boot", Cause.LOST),
        ({"signal": 15}, None, Cause.SIGNAL),
        ({"signal": 11}, "another boot", Cause.SIGNAL),
        ({"signal": 9, "oom": True}, "another boot", Cause.OUT_OF_MEMORY),
        ({"exit_status": 1}, "another boot", Cause.EXIT_STATUS),
    ],
)
def test_process_ended_by_a_signal_in_another_life_of_its_machine_is_lost(
    runtime: ProcessRuntime, tmp_path: Path, ended: dict[str, int], incarnation: str | None, cause: Cause
) -> None:
    """Its shim may have been faster to write the report than to be told; what ends a machine forgives no crash of the command's own."""
    spec = make_spec(tmp_path, "true")
    started = {"run_id": spec.run_id, "attempt": 1, "host_incarnation": incarnation or host_incarnation(), "shim_pid": 1, "trial_pid": 1}
    (spec.folder / shim.STARTED).write_text(json.dumps(started))
    (spec.folder / shim.EXIT).write_text(json.dumps(ended))
    handle = runtime.adopt(*spec.key, spec.folder)
    assert handle is not None
    assert outcome_of(finish(handle)).cause == cause


def test_process_keeps_what_it_printed_when_it_opens_its_output_by_name(runtime: ProcessRuntime, tmp_path: Path) -> None:
    """As shell scripts do; a file would be emptied each time."""
    script = "for word in first second; do echo $word | tee /dev/stderr >/dev/stdout; done; echo last; echo last >&2"
    spec = make_spec(tmp_path, "sh", "-c", script)
    assert finish(runtime.start(spec)).exit_status == 0
    assert [(spec.folder / name).read_text() for name in ("stdout", "stderr")] == ["first\nsecond\nlast\n"] * 2


def test_process_output_is_whole_when_its_command_ends_at_once(runtime: ProcessRuntime, tmp_path: Path) -> None:
    """What stands in the pipes when the command has ended, as much as it may, is on disk before its end is told."""
    script = """
import fcntl, os, signal
for stream in (1, 2):
    fcntl.fcntl(stream, fcntl.F_SETPIPE_SZ, 1 << 20)
os.kill(os.getppid(), signal.SIGSTOP)
os.write(1, bytes(1 << 20))
os.write(2, bytes(500_000))
"""
    spec = make_spec(tmp_path, sys.executable, "-ISc", script)
    handle = runtime.start(spec)
    facts = facts_of(spec)
    wait_until(lambda: is_zombie(facts["trial_pid"]), "the command has printed everything, and ended")
    os.kill(facts["shim_pid"], signal.SIGCONT)
    assert finish(handle).exit_status == 0
    assert [(spec.folder / name).stat().st_size for name in ("stdout", "stderr")] == [1 << 20, 500_000]


@pytest.mark.parametrize("ends", ["exec >&-; exec 2>&-; sleep 0.2", "sleep 1000 & exit 0"], ids=["closes it", "leaves it to a child"])
def test_process_ends_whoever_holds_its_output(runtime: ProcessRuntime, tmp_path: Path, ends: str) -> None:
    """Neither an output that is closed early nor one that a child holds open keeps the end from being told."""
    assert finish(runtime.start(make_spec(tmp_path, "sh", "-c", ends))).exit_status == 0


@pytest.mark.parametrize("then", ["", "; exit 0"], ids=["dies of it", "goes on"])
def test_process_blames_the_machinery_when_its_output_finds_no_room(runtime: ProcessRuntime, tmp_path: Path, then: str) -> None:
    """Also where the command did not mind: a metric may be missing."""
    root("to mount a small disk")
    spec = make_spec(tmp_path, "sh", "-c", "cat /dev/zero" + then)
    subprocess.run([program("mount"), "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(spec.folder)], check=True)
    try:
        outcome = outcome_of(finish(runtime.start(replace(spec, cwd=tmp_path))))
    finally:
        subprocess.run([program("umount"), "--lazy", str(spec.folder)], check=True)
    assert (outcome.verdict, outcome.cause) == ("failed", Cause.LAUNCH)
    assert "No space left on device" in outcome.detail


def test_process_beyond_a_limit_on_the_size_of_files_has_an_end_with_a_cause(runtime: ProcessRuntime, tmp_path: Path) -> None:
    """A worker under such a limit (`ulimit -f`) gives it to its shims: the signal that comes with it must not take the end along."""
    assert finish(runtime.start(make_spec(tmp_path, "true"))).exit_status == 0
    launcher = runtime._launcher._process
    assert launcher is not None
    resource.prlimit(launcher.pid, resource.RLIMIT_FSIZE, (1 << 16, resource.RLIM_INFINITY))
    spec = make_spec(tmp_path, "sh", "-c", "head -c 1000000 /dev/zero; exit 3")
    outcome = outcome_of(finish(runtime.start(spec)))
    assert (outcome.verdict, outcome.cause) == ("failed", Cause.LAUNCH)
    assert "File too large" in outcome.detail
    assert (spec.folder / "stdout").stat().st_size == 1 << 16


RUDE = {
    "report is a folder": "mkdir -p ../exit.json/x",
    "room for the report is a folder": "rm ../exit.part; mkdir -p ../exit.part/x",
    "room for the report is a pipe": "rm ../exit.part; mkfifo ../exit.part",
    "room for the report is full": "head -c 5000 /dev/zero | tr '\\0' x > ../exit.part",
    "output is a folder": "rm ../stdout; mkdir ../stdout",
    "errors lead nowhere": "rm ../stderr; ln -s stderr ../stderr",
    "lock is a pipe": "rm ../lock; mkfifo ../lock",
    "state is a pipe": "rm -f ../output.json; mkfifo ../output.json",
    "folder is a file": 'd=$(cd ..; pwd); rm -rf "$d"; echo hello > "$d"',
    "run's folder is a file": 'd=$(cd ../..; pwd); rm -rf "$d"; echo hello > "$d"',
}


@pytest.mark.parametrize("code", RUDE.values(), ids=RUDE)
def test_process_tells_its_own_end_whatever_it_has_made_of_its_folder(runtime: ProcessRuntime, tmp_path: Path, code: str) -> None:
    """What lies in the place of our files neither hides how the command ended nor is waited for, now or by a later life of the worker."""
    spec = make_spec(tmp_path, "sh", "-c", f"{code}; echo loss=1; exit 3")
    assert finish(runtime.start(spec)).exit_status == 3
    adopted = ProcessRuntime(tmp_path / "runs").adopt(*spec.key, spec.folder)
    assert adopted is not None
    assert finish(adopted).exit_status == 3
    output = Output.resume(spec.folder, Launch(), 1 << 20)
    assert output.unasked() == ()
    assert output.last_error_line() == ""
    assert ("something else" in output.note) == (spec.folder / "stdout").is_dir()
    remove_attempt(spec.folder)
    assert not spec.folder.parent.exists()


@contextmanager
def no_descriptors() -> Iterator[None]:
    """As if all that this process may have open were in use."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (1, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_process_is_not_judged_without_descriptors(runtime: ProcessRuntime, tmp_path: Path) -> None:
    """What can't be looked at just now is neither alive nor dead: it is an error, and the same question gets its answer later."""
    spec, other = make_spec(tmp_path, *SLEEP_FOREVER), make_spec(tmp_path, "sh", "-c", "exit 4")
    handle, ending = runtime.start(spec), runtime.start(other)
    assert ending._pidfd is not None  # type: ignore[attr-defined]
    select.select([ending._pidfd], [], [], PATIENCE_S)  # type: ignore[attr-defined]
    later = ProcessRuntime(tmp_path / "runs")
    questions: list[Callable[[], object]] = [
        partial(later.adopt, *spec.key, spec.folder),
        partial(is_alive, spec.folder),
        partial(ending.wait, 0),
        partial(process._processes_of, spec.run_id, "1"),
        partial(process_start, 1),
    ]
    with no_descriptors():
        errors = []
        for question in questions:
            with pytest.raises(OSError) as caught:  # noqa: PT011 - which one it is, is looked at below
                question()
            errors.append(caught.value.errno)
    assert errors == [errno.EMFILE] * len(questions)
    assert finish(ending).exit_status == 4
    adopted = later.adopt(*spec.key, spec.folder)
    assert adopted is not None
    assert adopted.wait(0) is None
    handle.kill()
    assert finish(adopted).signal == signal.SIGKILL


def test_process_start_says_that_the_machine_is_short_of_something(tmp_path: Path) -> None:
    """Nothing was started then: the same start is asked for again."""
    runtime, spec = ProcessRuntime(tmp_path / "runs"), make_spec(tmp_path, "true")
    with no_descriptors(), pytest.raises(Exhausted):
        runtime.start(spec)
    assert finish(runtime.start(spec)).exit_status == 0
    runtime.close()


def test_process_watcher_that_was_suspended_is_woken(runtime: ProcessRuntime, tmp_path: Path) -> None:
    """Who waits for it sees to it: else its end would not be seen before somebody stops it."""
    spec = make_spec(tmp_path, "sh", "-c", "kill -STOP $PPID; exit 5")
    handle = runtime.start(spec)
    wait_until(lambda: process_state(handle._shim_pid) == "T" or handle.wait(0) is not None, "it is suspended", interval_s=0.01)  # type: ignore[attr-defined]
    wait_until(lambda: handle.wait(0.01) is not None, "it is woken, and sees the end", interval_s=0.01)
    assert finish(handle).exit_status == 5


TRACE = """
import ctypes, os, sys, time
traced = ctypes.CDLL(None, use_errno=True).ptrace(16, os.getppid(), 0, 0)
print(traced, ctypes.get_errno(), flush=True)
time.sleep(1000 if traced == 0 else 0)
sys.exit(6)
"""


@pytest.mark.parametrize("is_stopped", [False, True])
def test_process_that_traces_its_watcher_is_ended(runtime: ProcessRuntime, tmp_path: Path, is_stopped: bool) -> None:
    """Root may trace any process; a watcher that is held like that would neither see an end nor hear a stop, nor a time-out."""
    if os.getuid() != 0:
        missing("Only root may trace the process that watches it")
    spec = make_spec(tmp_path, sys.executable, "-c", TRACE)
    handle = runtime.start(spec)
    wait_until(lambda: process_state(handle._shim_pid) == "t", "it is held", interval_s=0.01)  # type: ignore[attr-defined]
    if is_stopped:
        handle.stop("timeout")
    else:
        wait_until(lambda: handle.wait(0.01) is not None, "it is freed", interval_s=0.01)
    outcome = outcome_of(finish(handle))
    assert outcome.cause == (Cause.TIMED_OUT if is_stopped else Cause.SIGNAL)
    assert is_stopped or "attached itself" in outcome.detail


def test_process_is_stopped_though_somebody_debugs_its_watcher(runtime: ProcessRuntime, tmp_path: Path) -> None:
    """A debugger is given some time to let go; then the stop is carried out without the watcher, and told as what it is."""
    if os.getuid() != 0:
        missing("Only root may trace the process that watches it")
    spec = make_spec(tmp_path, *SLEEP_FOREVER)
    handle = runtime.start(spec)
    facts = facts_of(spec)
    attach = f"import ctypes, time; assert ctypes.CDLL(None).ptrace(16, {facts['shim_pid']}, 0, 0) == 0; time.sleep(1000)"
    with subprocess.Popen([sys.executable, "-c", attach]) as debugger:
        try:
            wait_until(lambda: process_state(facts["shim_pid"]) == "t", "it is held", interval_s=0.01)
            for _ in range(3):
                handle.stop("timeout")
                assert handle.wait(0.05) is None
            handle.stop("timeout")
            assert outcome_of(finish(handle)).cause == Cause.TIMED_OUT
            assert debugger.poll() is None
        finally:
            debugger.kill()
    wait_until(lambda: process_state(facts["trial_pid"]) in ("", "Z"), "the command has ended", interval_s=0.01)


def test_process_can_not_trace_its_watcher_unless_it_is_root(tmp_path: Path) -> None:
    """A process of the worker's own user is refused by the kernel."""
    script = f"""
import os
from pathlib import Path
from worker.runtimes.base import AttemptSpec
from worker.runtimes.process import ProcessRuntime
folder = Path({str(tmp_path)!r}) / "r" / "1"
(folder / "work").mkdir(parents=True)
spec = AttemptSpec("r", 1, "w", "h", ({sys.executable!r}, "-c", {TRACE!r}), {{"PATH": os.environ["PATH"]}}, folder / "work", folder)
runtime = ProcessRuntime(Path({str(tmp_path)!r}))
report = runtime.start(spec).wait(60)
print(report.exit_status, (folder / "stdout").read_text())
"""
    # Without root's way around: as anybody's.
    ordinary = [program("setpriv"), "--bounding-set", "-sys_ptrace"] if os.getuid() == 0 else []
    done = subprocess.run([*ordinary, sys.executable, "-c", script], check=False, timeout=PATIENCE_S, capture_output=True, text=True)
    assert done.stdout.split() == ["6", "-1", str(errno.EPERM)], done.stderr


def test_process_says_that_its_watcher_was_told_to_stop_it_by_somebody(runtime: ProcessRuntime, tmp_path: Path) -> None:
    """It ended by a signal that our own shim has sent, for a reason that nobody recorded."""
    outcome = outcome_of(finish(runtime.start(make_spec(tmp_path, "sh", "-c", "kill -USR1 $PPID; sleep 1000"))))
    assert outcome.cause == Cause.SIGNAL
    assert "SIGTERM (15) after SIGUSR1" in outcome.detail


def test_process_of_nobody_is_ended_whatever_lies_beside_it(runtime: ProcessRuntime, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """One odd folder hides none of the others; one whose lock was removed is known by its note and its variables."""
    odd, unlocked, plain = (make_spec(tmp_path, *SLEEP_FOREVER) for _ in range(3))
    handles = [runtime.start(spec) for spec in (unlocked, plain)]
    facts_of(unlocked)
    (unlocked.folder / shim.LOCK).unlink()
    shutil.rmtree(odd.folder)
    odd.folder.write_text("hello")
    broken = tmp_path / "runs" / new_run_id() / "1"
    (broken / shim.STARTED).mkdir(parents=True)
    assert sorted(runtime.sweep_orphans(set())) == sorted([unlocked.key, plain.key])
    assert [finish(handle).signal for handle in handles] == [signal.SIGKILL] * 2
    assert not caplog.records


def test_process_of_nobody_is_ended_though_another_can_not_be_looked_at(
    runtime: ProcessRuntime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever the system says of one folder: it is told, and looked at again the next time."""
    sick, plain = (make_spec(tmp_path, *SLEEP_FOREVER) for _ in range(2))
    handle = runtime.start(plain)

    def alive(folder: Path) -> bool:
        if folder == sick.folder:
            raise OSError(errno.EIO, "Input/output error")
        return is_alive(folder)

    monkeypatch.setattr(process, "is_alive", alive)
    assert runtime.sweep_orphans(set()) == [plain.key]
    assert finish(handle).signal == signal.SIGKILL
    assert "Input/output error" in caplog.text


def test_process_whose_folder_was_removed_is_ended_when_it_is_looked_for(runtime: ProcessRuntime, tmp_path: Path) -> None:
    """Nobody can follow it any more: neither it nor its folder stays; one that never was has left no trace."""
    spec = make_spec(tmp_path, *SLEEP_FOREVER)
    runtime.start(replace(spec, env=spec.env | {"SWEEP_RUN_ID": spec.run_id, "SWEEP_ATTEMPT": "1"}))
    facts = facts_of(spec)
    shutil.rmtree(spec.folder)
    # Its shim takes its time to end, and is waited for: it makes the folder anew.
    os.kill(facts["shim_pid"], signal.SIGSTOP)
    threading.Timer(0.5, os.kill, (facts["shim_pid"], signal.SIGCONT)).start()
    handle = ProcessRuntime(tmp_path / "runs").adopt(*spec.key, spec.folder)
    assert process_start(facts["shim_pid"]) is None
    assert handle is not None
    assert process_start(facts["trial_pid"]) != facts["trial_start"]
    outcome = outcome_of(finish(handle))
    assert (outcome.verdict, outcome.cause) == ("failed", Cause.LOST)
    assert "folder was removed" in outcome.detail
    shutil.rmtree(spec.folder)
    assert runtime.adopt(*spec.key, spec.folder) is None


def test_process_of_an_earlier_attempt_under_another_worker_is_ended_before_the_next_starts(tmp_path: Path) -> None:
    """As after a worker was renamed; other runs of that worker, and attempts that came later, are none of our business."""
    homes = [tmp_path / "workers" / name for name in ("old", "new")]
    old, new = (ProcessRuntime(home / "runs") for home in homes)
    first, stranger = make_spec(homes[0], *SLEEP_FOREVER), make_spec(homes[0], *SLEEP_FOREVER)
    handles = [old.start(spec) for spec in (first, stranger, attempt_of(first, 3, homes[0]))]
    second = new.start(attempt_of(first, 2, homes[1]))
    assert [handle.wait(0) is not None for handle in handles] == [True, False, False]
    assert second.wait(0) is None
    new.sweep_orphans(set())
    old.sweep_orphans(set())
    for runtime in (old, new):
        runtime.close()


def test_process_that_another_worker_of_its_home_left_is_ended_once_the_record_gave_it_up(tmp_path: Path) -> None:
    """Whether or not its next attempt comes to this machine. What the record still has running is spared, and so is what is our own."""
    homes = [tmp_path / "workers" / name for name in ("old", "new")]
    old, new = (ProcessRuntime(home / "runs") for home in homes)
    over, live, own = (make_spec(home, *SLEEP_FOREVER) for home in (homes[0], homes[0], homes[1]))
    handles = [runtime.start(spec) for runtime, spec in ((old, over), (old, live), (new, own))]
    asked: list[AttemptKey] = []

    def abandoned(keys: Sequence[AttemptKey]) -> list[AttemptKey]:
        asked.extend(keys)
        return [over.key]

    assert new.sweep_home(abandoned) == [over.key]
    assert sorted(asked) == sorted([over.key, live.key])
    assert [handle.wait(0) is not None for handle in handles] == [True, False, False]
    for runtime in (old, new):
        runtime.sweep_orphans(set())
        runtime.close()


def test_process_starts_clean(runtime: ProcessRuntime, tmp_path: Path) -> None:
    """A command has its own session, default signals, none blocked, and no open files but its three streams."""
    script = """
import os, signal, sys
assert os.getsid(0) == os.getpid()
assert sorted(map(int, os.listdir("/proc/self/fd")))[:3] == [0, 1, 2] and len(os.listdir("/proc/self/fd")) == 4, os.listdir("/proc/self/fd")
assert not signal.pthread_sigmask(signal.SIG_BLOCK, [])
print(" ".join(line.split()[1] for line in open("/proc/self/status") if line.startswith("SigIgn")))
"""
    # Python itself ignores SIGPIPE (13) and SIGXFSZ (25). Signals 32 and 33 are the C library's own: nobody can set them, so
    # they pass on from whatever started the tests.
    of_the_library = 1 << 31 | 1 << 32
    spec = make_spec(tmp_path, sys.executable, "-I", "-c", script)
    assert finish(runtime.start(spec)).exit_status == 0, (spec.folder / "stderr").read_text()
    assert int((spec.folder / "stdout").read_text(), 16) & ~of_the_library == 1 << 12 | 1 << 24


def test_process_measures_resources(runtime: ProcessRuntime, tmp_path: Path) -> None:
    """The report tells time, processor time and memory of the command and its children."""
    report = finish(runtime.start(make_spec(tmp_path, sys.executable, "-c", "x = bytearray(50_000_000)")))
    assert report.max_rss_bytes is not None
    assert report.max_rss_bytes > 50_000_000
    assert report.cpu_s is not None
    assert 0 < report.cpu_s < PATIENCE_S
    assert report.started_at is not None


def test_process_blames_the_user_when_command_is_not_executable(runtime: ProcessRuntime, tmp_path: Path) -> None:
    """A file without the right to be executed ends with 126, and says so."""
    spec = make_spec(tmp_path, "./train.sh")
    (spec.cwd / "train.sh").write_text("echo no\n")
    outcome = outcome_of(finish(runtime.start(spec)))
    assert (outcome.cause, outcome.exit_status) == (Cause.EXIT_STATUS, 126)
    assert "train.sh" in outcome.detail


def test_process_blames_the_machinery_when_working_folder_is_gone(runtime: ProcessRuntime, tmp_path: Path) -> None:
    """The folder is the worker's business: without it the attempt failed to launch."""
    spec = make_spec(tmp_path, "true")
    spec.cwd.rmdir()
    assert outcome_of(finish(runtime.start(spec))).cause == Cause.LAUNCH


def test_process_start_fails_when_attempt_folder_is_gone(runtime: ProcessRuntime, tmp_path: Path) -> None:
    """Without a place for its output nothing is started, and the next attempt is none the worse."""
    spec = make_spec(tmp_path, "true")
    spec.cwd.rmdir()
    spec.folder.rmdir()
    with pytest.raises(LaunchFailed, match="No such file"):
        runtime.start(spec)
    assert finish(runtime.start(make_spec(tmp_path, "true"))).exit_status == 0


def test_process_finds_some_python(runtime: ProcessRuntime, tmp_path: Path) -> None:
    """`python` runs on a machine whose PATH has none, also behind `env`."""
    empty = tmp_path / "bin"
    empty.mkdir()
    for argv in (("python", "-c", "print('hello')"), ("/usr/bin/env", "python", "-c", "print('hello')")):
        spec = make_spec(tmp_path, *argv, env={"PATH": str(empty)})
        assert finish(runtime.start(spec)).exit_status == 0
        assert (spec.folder / "stdout").read_text() == "hello\n"


def test_process_starts_from_many_threads(runtime: ProcessRuntime, tmp_path: Path) -> None:
    """Starts from several threads at once get each its own answer."""
    specs = [make_spec(tmp_path, "sh", "-c", f"exit {number}") for number in range(24)]
    statuses: dict[int, int | None] = {}

    def run(number: int) -> None:
        statuses[number] = finish(runtime.start(specs[number])).exit_status

    threads = [threading.Thread(target=run, args=(number,)) for number in range(24)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
    assert statuses == {number: number for number in range(24)}


def test_process_stop_is_not_missed_when_it_comes_at_once(runtime: ProcessRuntime, tmp_path: Path) -> None:
    """A stop that overtakes the fork of the shim still stops the command: the interpreter drops signals in that moment."""
    handles = [runtime.start(make_spec(tmp_path, *SLEEP_FOREVER)) for _ in range(2)]
    for _ in range(60):
        handles.append(runtime.start(make_spec(tmp_path, *SLEEP_FOREVER)))
        handles[-1].stop("cancel")
    assert {outcome_of(finish(handle)).cause for handle in handles[2:]} == {Cause.CANCELLED}
    assert [handle.wait(0) for handle in handles[:2]] == [None, None]


def test_process_waits_without_pidfd(runtime: ProcessRuntime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the kernel can't announce an end, it is found by looking."""
    monkeypatch.setattr("worker.runtimes.process._HAS_PIDFD", False)
    handle = runtime.start(make_spec(tmp_path, *SLEEP_FOREVER))
    assert handle.wait(0.1) is None
    handle.stop("prune")
    assert outcome_of(finish(handle)).cause == Cause.PRUNED


def test_process_lock_tells_living_from_dead(runtime: ProcessRuntime, tmp_path: Path) -> None:
    """The lock in the attempt's folder is held for exactly as long as the shim lives."""
    spec = make_spec(tmp_path, *SLEEP_FOREVER)
    assert not is_alive(spec.folder)
    handle = runtime.start(spec)
    assert is_alive(spec.folder)
    handle.kill()
    finish(handle)
    assert not is_alive(spec.folder)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can run a command as somebody else")
def test_process_runs_as_another_user(runtime: ProcessRuntime, tmp_path: Path) -> None:
    """A worker that is root can give a run another uid, without any further groups."""
    import msgspec

    spec = msgspec.structs.replace(make_spec(tmp_path, "sh", "-c", "id -u; id -G"), uid=65534, gid=65534)
    finish(runtime.start(spec))
    assert (spec.folder / "stdout").read_text() == "65534\n65534\n"


def test_process_tells_when_memory_ran_out(runtime: ProcessRuntime, tmp_path: Path, small_cgroup: Path) -> None:
    """A command that the kernel killed for want of memory is told from one that somebody killed."""
    script = f"import os; open({str(small_cgroup / 'cgroup.procs')!r}, 'w').write(str(os.getpid())); x = bytearray(200_000_000)"
    outcome = outcome_of(finish(runtime.start(make_spec(tmp_path, sys.executable, "-c", script))))
    assert (outcome.cause, outcome.signal) == (Cause.OUT_OF_MEMORY, 9)


@pytest.fixture
def small_cgroup() -> Iterator[Path]:
    """A control group with 32 MiB of memory and no swap."""
    v1, v2 = Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup")
    root, limits = (v1, ("memory.limit_in_bytes",)) if v1.is_dir() else (v2, ("memory.max", "memory.swap.max"))
    group = root / f"sweep-test-{os.getpid()}"
    try:
        group.mkdir()
    except OSError as error:
        missing(f"no control group could be made ({error}); this needs root and the memory controller")
    if not (group / limits[0]).exists():
        group.rmdir()
        missing("the memory controller is not at hand in this control group")
    try:
        for limit in limits:
            (group / limit).write_text("0" if "swap" in limit else "33554432")
        yield group
    finally:
        wait_until(lambda: not (group / "cgroup.procs").read_text(), "the group to be empty")
        group.rmdir()
