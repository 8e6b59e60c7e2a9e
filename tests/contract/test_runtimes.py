"""What the supervisor relies on, of every runtime: the same cases over processes and containers."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.services import wait_until
from tracking.ids import new_run_id, new_uuid
from tracking.records import Resources
from tracking.states import Cause
from worker.errors import LaunchRefused
from worker.runtimes.base import AttemptSpec, ExitReport, Handle, Runtime, outcome_of
from worker.runtimes.host import host_incarnation

PATIENCE_S = 60.0


class Bench:
    """One runtime under test, and attempts for it."""

    def __init__(self, make: Callable[[], Runtime], home: Path, image: str | None) -> None:
        self._make = make
        self._home = home
        self._image = image
        self._opened: list[Runtime] = []
        self.runtime = self.another_life()

    def another_life(self) -> Runtime:
        """The runtime as a restarted worker has it."""
        self._opened.append(self._make())
        return self._opened[-1]

    def spec(self, *argv: str, grace_s: float = 30.0, env: dict[str, str] | None = None) -> AttemptSpec:
        """A new attempt."""
        run_id = new_run_id()
        folder = self._home / "runs" / run_id / "1"
        (folder / "work").mkdir(parents=True)
        return AttemptSpec(
            run_id=run_id,
            attempt=1,
            worker_id="worker-under-test",
            host_incarnation=host_incarnation(),
            argv=argv,
            env={"PATH": "/usr/local/bin:/usr/bin:/bin", **(env or {})},
            cwd=folder / "work",
            folder=folder,
            resources=Resources(image=self._image),
            stop_grace_s=grace_s,
        )

    def shell(self, script: str, *, grace_s: float = 30.0) -> AttemptSpec:
        """A new attempt of a shell script."""
        return self.spec("/bin/sh", "-c", script, grace_s=grace_s)

    def close(self) -> None:
        """End everything that still runs."""
        self.runtime.sweep_orphans(set())
        for runtime in self._opened:
            runtime.close()


class RuntimeContract:
    """The cases; each subclass gives the `bench`."""

    def test_runtime_reports_success_and_output_when_command_exits_zero(self, bench: Bench) -> None:
        """Exit status 0 succeeds, and both streams lie whole in the attempt's folder when the report is there."""
        spec = bench.shell("echo seen; echo told >&2; pwd >&2; read line || echo no input")
        report = finish(bench.runtime.start(spec))
        outcome = outcome_of(report)
        assert (outcome.verdict, outcome.cause, outcome.exit_status) == ("succeeded", Cause.COMPLETED, 0)
        assert outcome.duration_s is not None
        assert (spec.folder / "stdout").read_text() == "seen\nno input\n"
        assert (spec.folder / "stderr").read_text().startswith("told\n/")

    def test_runtime_gives_environment_and_working_folder(self, bench: Bench) -> None:
        """The command starts in the attempt's working folder, with what the spec sets; what it writes there stays."""
        spec = bench.spec("/bin/sh", "-c", 'echo "$GREETING" > note', env={"GREETING": "good 'day'"})
        assert outcome_of(finish(bench.runtime.start(spec))).verdict == "succeeded"
        assert (spec.cwd / "note").read_text() == "good 'day'\n"

    def test_runtime_reports_exit_status_when_command_fails(self, bench: Bench) -> None:
        """The status is the command's own, and the error line is shown."""
        outcome = outcome_of(finish(bench.runtime.start(bench.shell("exit 3"))), error_line="ValueError: no")
        assert (outcome.verdict, outcome.cause, outcome.exit_status) == ("failed", Cause.EXIT_STATUS, 3)
        assert outcome.detail.endswith("exit status 3: ValueError: no")

    def test_runtime_blames_the_user_when_command_is_missing(self, bench: Bench) -> None:
        """A command that is not there ends as a shell would have it, not as a fault of the machinery."""
        outcome = outcome_of(finish(bench.runtime.start(bench.spec("no-such-command"))))
        assert (outcome.verdict, outcome.cause, outcome.exit_status) == ("failed", Cause.EXIT_STATUS, 127)

    @pytest.mark.parametrize(("env", "argv"), [({"A=B": "x"}, ("true",)), ({"": "x"}, ("true",)), ({"A": "x\0y"}, ("true",)), ({}, ("echo", "x\0y"))])
    def test_runtime_blames_the_user_when_no_program_can_be_given_this(self, bench: Bench, env: dict[str, str], argv: tuple[str, ...]) -> None:
        """Names with `=`, and NUL characters, are a fault of the sweep file on every worker."""
        with pytest.raises(LaunchRefused) as caught:
            bench.runtime.start(bench.spec(*argv, env=env))
        assert caught.value.cause == Cause.ENVIRONMENT

    def test_runtime_reports_signal_when_command_is_killed(self, bench: Bench) -> None:
        """A signal that nobody here sent is told as such."""
        outcome = outcome_of(finish(bench.runtime.start(bench.shell("/bin/sh -c 'kill -SEGV $PPID'; sleep 1000"))))
        assert (outcome.verdict, outcome.cause, outcome.signal) == ("failed", Cause.SIGNAL, 11)
        assert "SIGSEGV" in outcome.detail

    def test_runtime_waits_no_longer_than_asked(self, bench: Bench) -> None:
        """A wait with a limit returns None while the command runs."""
        handle = bench.runtime.start(bench.shell("exec sleep 1000"))
        assert handle.wait(0.05) is None
        handle.kill()
        assert finish(handle).signal == 9

    @pytest.mark.parametrize(
        ("reason", "verdict", "cause"),
        [("cancel", "stopped", Cause.CANCELLED), ("prune", "stopped", Cause.PRUNED), ("timeout", "failed", Cause.TIMED_OUT)],
    )
    def test_runtime_stops_politely(self, bench: Bench, reason: str, verdict: str, cause: Cause) -> None:
        """SIGTERM comes first, and a command that ends upon it has its last word; the outcome names the reason."""
        spec = bench.shell("trap 'echo bye; exit 0' TERM; echo ready; while :; do sleep 0.05; done")
        handle = bench.runtime.start(spec)
        wait_for_text(spec, "ready")
        handle.stop(reason)  # type: ignore[arg-type]
        outcome = outcome_of(finish(handle))
        assert (outcome.verdict, outcome.cause) == (verdict, cause)
        assert (spec.folder / "stdout").read_text() == "ready\nbye\n"

    def test_runtime_kills_after_grace_when_command_does_not_listen(self, bench: Bench) -> None:
        """A command deaf to SIGTERM is killed once its grace period is over; the first reason stands."""
        spec = bench.shell("trap '' TERM; echo ready; while :; do sleep 0.05; done", grace_s=0.3)
        handle = bench.runtime.start(spec)
        wait_for_text(spec, "ready")
        handle.stop("prune")
        handle.stop("cancel")
        report = finish(handle)
        assert report.signal == 9
        assert outcome_of(report).cause == Cause.PRUNED

    def test_runtime_keeps_true_outcome_when_stop_comes_late(self, bench: Bench) -> None:
        """A stop that comes after the end changes nothing."""
        handle = bench.runtime.start(bench.shell("exit 4"))
        finish(handle)
        handle.stop("cancel")
        handle.kill()
        assert outcome_of(finish(handle)).exit_status == 4
        assert outcome_of(finish(handle)).cause == Cause.EXIT_STATUS

    def test_runtime_tells_every_waiter(self, bench: Bench) -> None:
        """Several threads may wait for one attempt, and get the same report."""
        spec = bench.shell("while [ ! -e go ]; do sleep 0.02; done; exit 5")
        handle = bench.runtime.start(spec)
        reports: list[ExitReport] = []
        waiters = [threading.Thread(target=lambda: reports.append(finish(handle))) for _ in range(3)]
        for waiter in waiters:
            waiter.start()
        (spec.cwd / "go").touch()
        for waiter in waiters:
            waiter.join(PATIENCE_S)
        assert [report.exit_status for report in reports] == [5, 5, 5]
        assert len(set(map(id, reports))) == 1

    def test_runtime_adopts_running_attempt_after_restart(self, bench: Bench) -> None:
        """A worker's next life finds a running attempt, misses nothing of its output, and can stop it."""
        spec = bench.shell("echo one; while [ ! -e go ]; do sleep 0.02; done; echo two; exec sleep 1000")
        bench.runtime.start(spec)
        wait_for_text(spec, "one")
        adopted = bench.another_life().adopt(spec.run_id, 1, spec.folder)
        assert adopted is not None
        assert adopted.wait(0.01) is None
        (spec.cwd / "go").touch()
        wait_for_text(spec, "one\ntwo")
        adopted.stop("cancel")
        assert outcome_of(finish(adopted)).cause == Cause.CANCELLED
        assert (spec.folder / "stdout").read_text() == "one\ntwo\n"

    def test_runtime_adopts_ended_attempt_after_restart(self, bench: Bench) -> None:
        """A worker's next life learns how an attempt ended while nobody watched."""
        spec = bench.shell("echo done; exit 6")
        finish(bench.runtime.start(spec))
        adopted = bench.another_life().adopt(spec.run_id, 1, spec.folder)
        assert adopted is not None
        assert finish(adopted).exit_status == 6
        assert (spec.folder / "stdout").read_text() == "done\n"

    def test_runtime_adopts_stopped_attempt_with_its_reason(self, bench: Bench) -> None:
        """Why an attempt was stopped outlives the worker that stopped it."""
        spec = bench.shell("exec sleep 1000")
        handle = bench.runtime.start(spec)
        handle.wait(0.2)
        handle.stop("timeout")
        finish(handle)
        adopted = bench.another_life().adopt(spec.run_id, 1, spec.folder)
        assert adopted is not None
        assert outcome_of(finish(adopted)).cause == Cause.TIMED_OUT

    def test_runtime_adopts_nothing_when_attempt_never_started(self, bench: Bench) -> None:
        """An attempt that was claimed and never started leaves nothing to adopt."""
        spec = bench.shell("true")
        assert bench.runtime.adopt(spec.run_id, 1, spec.folder) is None

    def test_runtime_starts_an_attempt_once(self, bench: Bench) -> None:
        """Starting again what was started gives its handle and no second process."""
        spec = bench.shell("echo started; while [ ! -e go ]; do sleep 0.02; done")
        bench.runtime.start(spec)
        wait_for_text(spec, "started")
        again = bench.another_life().start(spec)
        (spec.cwd / "go").touch()
        assert finish(again).exit_status == 0
        assert (spec.folder / "stdout").read_text() == "started\n"

    def test_runtime_ends_what_is_not_owned(self, bench: Bench) -> None:
        """Sweeping ends attempts of this worker that are no longer its own, and spares the others."""
        mine, lost = bench.shell("exec sleep 1000"), bench.shell("exec sleep 1000")
        kept, superseded = bench.runtime.start(mine), bench.runtime.start(lost)
        assert superseded.wait(0.2) is None
        assert bench.another_life().sweep_orphans({mine.key}) == [lost.key]
        assert finish(superseded) is not None
        assert kept.wait(0.05) is None

    def test_runtime_leaves_no_process_behind(self, bench: Bench) -> None:
        """What a command left in the background, daemons too, ends with it."""
        spec = bench.shell("(setsid sh -c 'while :; do date +%s%N > beat; sleep 0.02; done' &) ; while [ ! -s beat ]; do sleep 0.02; done")
        assert finish(bench.runtime.start(spec)).exit_status == 0
        last = (spec.cwd / "beat").read_text()
        # Each beat takes 20 ms: a process still there would be seen within this.
        threading.Event().wait(0.3)
        assert (spec.cwd / "beat").read_text() == last

    def test_runtime_cleans_up_again(self, bench: Bench) -> None:
        """Letting go twice is no error, and the report stays."""
        handle = bench.runtime.start(bench.shell("exit 7"))
        finish(handle)
        handle.cleanup()
        handle.cleanup()
        assert finish(handle).exit_status == 7


def finish(handle: Handle) -> ExitReport:
    """The report of an attempt that is about to end."""
    report = handle.wait(PATIENCE_S)
    assert report is not None, "it did not end"
    return report


def wait_for_text(spec: AttemptSpec, text: str) -> None:
    """Return once the attempt's output begins with a text."""
    stdout = spec.folder / "stdout"
    wait_until(lambda: stdout.exists() and stdout.read_text().startswith(text), f"output {text!r}", interval_s=0.01)


class TestProcessRuntime(RuntimeContract):
    """Processes of this machine."""

    @pytest.fixture
    def bench(self, tmp_path: Path) -> Iterator[Bench]:
        """A process runtime with a home of its own."""
        from worker.runtimes.process import ProcessRuntime

        bench = Bench(lambda: ProcessRuntime(tmp_path / "runs"), tmp_path, image=None)
        yield bench
        bench.close()


class TestDockerRuntime(RuntimeContract):
    """Containers of this machine's engine."""

    @pytest.fixture
    def bench(self, tmp_path: Path, base_image: str) -> Iterator[Bench]:
        """A container runtime without a network: these cases need none, and it is the fastest."""
        from worker.runtimes.docker import DockerRuntime

        # Others may be running the same tests on this engine.
        worker_id, home_id = new_uuid(), new_uuid()
        bench = Bench(lambda: DockerRuntime(worker_id, home_id, network="none"), tmp_path, image=base_image)
        yield bench
        bench.close()
