"""How runs end, and what they find and leave behind, on one cluster of real processes (I7)."""

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from sweeps.api.shapes import TrialAnswer
from tests.support.cluster import Cluster, stopped_afterwards
from tests.support.projects import SHELL, write_project
from tests.support.registry import registry
from tests.support.services import wait_until

LOSS: Final = {"name": "loss", "goal": "minimize"}
IGNORES_SIGTERM: Final = "trap '' TERM\ntouch started\nwhile :; do sleep 1; done\n"
SECRET: Final = "no-trial-may-see-this"


class Site:
    """One cluster, and a folder for the projects that are run on it."""

    def __init__(self, cluster: Cluster, folder: Path) -> None:
        self.cluster = cluster
        self._folder = folder
        self._n_projects = 0

    def file(self, program: str | None, **keys: Any) -> Path:
        """A project of its own; returns its sweep file."""
        self._n_projects += 1
        return write_project(self._folder / f"project-{self._n_projects}", program, **keys)

    def shell(self, program: str, **keys: Any) -> TrialAnswer:
        """Run a shell script as a sweep of one trial; that trial."""
        return self.run(program, command=SHELL, **keys)

    def run(self, program: str | None, **keys: Any) -> TrialAnswer:
        """Run a program as a sweep of one trial; that trial."""
        (trial,) = self.cluster.wait_for_end(self.cluster.submit(self.file(program, **keys)))
        return trial

    def attempts(self, trial: TrialAnswer) -> list[Any]:
        """A trial's attempts in the audit view."""
        return list(self.cluster.query("SELECT * FROM audit_attempts WHERE run_id = %(run_id)s ORDER BY attempt", run_id=trial["run_id"]))

    def output(self, trial: TrialAnswer, stream: str = "stdout") -> str:
        """What a trial printed, as `sweep logs` tells it."""
        return str(self.cluster.sweep_json("logs", trial["run_id"], "--stream", stream)[stream])

    def history(self, trial: TrialAnswer, key: str) -> list[tuple[int, Any]]:
        """(step, value) of each point."""
        with self.cluster.client() as client:
            return [(point["step"], point["value"]) for point in client.metrics(trial["run_id"], key=key)["metrics"]]


@pytest.fixture(scope="module")
def site(module_database_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """One worker with four slots, without a broker, that gives a trial one second to end; its environment holds secrets."""
    folder = tmp_path_factory.mktemp("run-ends")
    secrets = {"CELERY_BROKER_URL": f"redis://:{SECRET}@nowhere", "PGPASSWORD": SECRET, "SWEEP_TOKEN": SECRET, "MLFLOW_TRACKING_PASSWORD": SECRET}
    with stopped_afterwards(Cluster(folder, module_database_url, "none", {"SWEEP_STOP_GRACE_S": "1", "SWEEP_WATCH_S": "0.2", **secrets})) as cluster:
        yield Site(cluster.start(worker_arguments=("--slots", "4")), folder)


def cause(trial: TrialAnswer) -> tuple[str, str | None]:
    """State and cause."""
    return trial["state"], trial["cause"]


def test_run_ends_completed_with_its_objective(site: Site) -> None:
    """Exit status 0 and a value: finished, and the attempt says so too."""
    trial = site.shell("echo loss=0.25\n", metric=LOSS)
    assert (*cause(trial), trial["value"]) == ("finished", "completed", 0.25)
    (attempt,) = site.attempts(trial)
    assert (attempt.state, attempt.cause, attempt.exit_status, attempt.signal) == ("succeeded", "completed", 0, None)
    assert attempt.claimed_at <= attempt.started_at <= attempt.ended_at


def test_run_ends_with_the_last_line_of_its_error_when_its_code_fails(site: Site) -> None:
    """The exit status, and of a traceback the line that tells; the user's fault is not tried again."""
    trial = site.run("print('loss=1')\nraise ValueError('layer 7 is ünknown')\n", metric=LOSS)
    assert cause(trial) == ("failed", "exit_status")
    assert trial["detail"] is not None
    assert trial["detail"].endswith("ValueError: layer 7 is ünknown")
    assert [attempt.exit_status for attempt in site.attempts(trial)] == [1]
    assert "Traceback" in site.output(trial, "stderr")
    assert trial["value"] is None


def test_run_ends_by_a_signal_of_its_own(site: Site) -> None:
    """Its number is recorded, and who did not send it."""
    trial = site.shell("kill -SEGV $$\n")
    assert cause(trial) == ("failed", "signal")
    assert [attempt.signal for attempt in site.attempts(trial)] == [signal.SIGSEGV]
    killed = site.shell("kill -KILL $$\n")
    assert cause(killed) == ("failed", "signal")
    assert "no part of this system sent" in (killed["detail"] or "")


@pytest.mark.parametrize("program", ["exec sleep 1000\n", IGNORES_SIGTERM], ids=["ends at SIGTERM", "ignores SIGTERM"])
def test_run_ends_when_its_time_is_over(site: Site, program: str) -> None:
    """Politely, and without pity after the grace period."""
    trial = site.shell(program, limits={"trials": 1, "trial_time": "1s"})
    assert cause(trial) == ("failed", "timed_out")
    assert len(site.attempts(trial)) == 1, "its own fault is not tried again"


def test_run_ends_cancelled_whether_it_ran_or_waited(site: Site) -> None:
    """The running ones are stopped, though they ignore SIGTERM; those that waited never start."""
    sweep_id = site.cluster.submit(site.file(IGNORES_SIGTERM, command=SHELL, limits={"trials": 6, "parallel": 2}))
    site.cluster.wait_for_running(sweep_id, 2)
    wait_until(lambda: len(started(site, sweep_id)) == 2, "both ignore SIGTERM by now")
    site.cluster.sweep("cancel", sweep_id, "--yes")
    # The sweep is over at once; its last runs end when they have been stopped.
    wait_until(lambda: not site.cluster.query("SELECT 1 FROM runs WHERE sweep_id = %(id)s AND ended_at IS NULL", id=sweep_id), "all runs have ended")
    trials = site.cluster.sweep_json("trials", sweep_id)["trials"]
    assert {cause(trial) for trial in trials} == {("cancelled", "cancelled")}
    assert {trial["run_state"] for trial in trials} == {"cancelled"}
    attempts = [attempt for trial in trials for attempt in site.attempts(trial)]
    assert [(attempt.state, attempt.cause) for attempt in attempts] == [("stopped", "cancelled")] * 2
    site.cluster.sweep("wait", sweep_id, status=6)


def started(site: Site, sweep_id: str) -> list[Path]:
    """Marks that the trials of a sweep have left in their working folders."""
    runs = site.cluster.query("SELECT run_id FROM runs WHERE sweep_id = %(id)s", id=sweep_id)
    return [path for run in runs for path in site.cluster.folder.glob(f"home-*/workers/*/runs/{run.run_id}/*/work/started")]


def test_run_ends_cancelled_alone(site: Site) -> None:
    """One run can be cancelled; its sweep goes on to its end."""
    program = 'touch started\nif [ "$SWEEP_TRIAL" = 0 ]; then exec sleep 1000; fi\n'
    sweep_id = site.cluster.submit(site.file(program, command=SHELL, limits={"trials": 3}))
    wait_until(lambda: started(site, sweep_id), "the first trial sleeps")
    site.cluster.sweep("cancel", f"{sweep_id}/0", "--yes")
    trials = site.cluster.wait_for_end(sweep_id)
    assert [cause(trial) for trial in trials] == [("cancelled", "cancelled"), ("finished", "completed"), ("finished", "completed")]


@pytest.mark.parametrize(("printed", "why"), [("nothing", "it never logged one"), ("loss=nan", "its value is NaN")])
def test_run_ends_without_objective(site: Site, printed: str, why: str) -> None:
    """Exit status 0 is not enough: the file asks for a metric (D8)."""
    trial = site.shell(f"echo {printed}\n", metric=LOSS)
    assert cause(trial) == ("failed", "no_objective")
    assert why in (trial["detail"] or "")
    assert [(attempt.state, attempt.exit_status) for attempt in site.attempts(trial)] == [("succeeded", 0)]


def test_run_ends_before_it_began_when_its_environment_is_broken(site: Site) -> None:
    """What the builder said is in the detail; nothing was started."""
    file = site.file("print('never')\n", command=["python", "program.py"])
    (file.parent / "python_env.yaml").write_text("dependencies:\n  - 'this is no requirement'\n")
    (file.parent / "MLproject").write_text("name: broken\npython_env: python_env.yaml\n")
    (trial,) = site.cluster.wait_for_end(site.cluster.submit(file))
    assert cause(trial) == ("failed", "environment")
    assert "this is no requirement" in (trial["detail"] or "")
    assert site.output(trial) == ""


def test_run_ends_before_it_began_when_its_code_is_damaged(site: Site) -> None:
    """A snapshot that is not what was submitted fails the trial with that cause."""
    worker = site.cluster.role("w1")
    worker.suspend()
    try:
        sweep_id = site.cluster.submit(site.file(f"echo {os.urandom(8).hex()}\n", command=SHELL))
        digest = site.cluster.query("SELECT launch ->> 'code_digest' AS digest FROM sweeps WHERE sweep_id = %(id)s", id=sweep_id)[0].digest
        (archive,) = [path for path in (site.cluster.folder / "artifacts").rglob(f"*{digest}*") if path.is_file()]
        archive.write_bytes(b"damaged")
    finally:
        worker.wake()
    (trial,) = site.cluster.wait_for_end(sweep_id)
    assert cause(trial) == ("failed", "code")
    assert digest[:12] in (trial["detail"] or "")


def test_run_ends_before_it_began_when_its_image_is_missing(site: Site, docker_engine: object) -> None:
    """An image that its registry does not know."""
    with registry() as address:
        trial = site.shell("true\n", resources={"image": f"{address}/nobody/has-this:1"})
    assert cause(trial) == ("failed", "image")
    assert f"{address}/nobody/has-this:1" in (trial["detail"] or "")


def test_run_ends_as_a_shell_would_have_it_when_there_is_no_such_command(site: Site) -> None:
    """Not found is 127, not executable is 126, each with the name."""
    trial = site.run(None, command=["no-such-command", "${args}"])
    assert cause(trial) == ("failed", "exit_status")
    assert [attempt.exit_status for attempt in site.attempts(trial)] == [127]
    assert "no-such-command" in (trial["detail"] or "")
    trial = site.run("true\n", command=["./program.py"])
    assert [attempt.exit_status for attempt in site.attempts(trial)] == [126]


def test_run_leaves_no_process_behind(site: Site, tmp_path: Path) -> None:
    """Neither a background job nor a daemon with a session and a parent of its own outlives the trial."""
    program = f"""
import os, signal, subprocess
pids = [subprocess.Popen(["sleep", "1000"]).pid]
read, write = os.pipe()
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        os.write(write, str(os.getpid()).encode())
        os.execvp("sleep", ["sleep", "1000"])
    os._exit(0)
pids.append(int(os.read(read, 32)))
open({str(tmp_path / "pids")!r}, "w").write(" ".join(map(str, pids)))
"""
    assert cause(site.run(program)) == ("finished", "completed")
    pids = (tmp_path / "pids").read_text().split()
    assert len(pids) == 2
    assert [pid for pid in pids if is_sleeping(int(pid))] == []


def is_sleeping(pid: int) -> bool:
    """Whether that process is still the one that the trial began."""
    try:
        return b"1000" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except FileNotFoundError:
        return False


def test_run_output_of_ten_megabytes_keeps_its_beginning_and_its_end(site: Site) -> None:
    """The record is bounded, says where it is cut, and the metric on the last line still counts."""
    program = "print('the first line')\nfor n in range(160_000):\n    print('a line of sixty-four characters, number %20d' % n)\nprint('loss=0.5')\n"
    trial = site.run(program, metric=LOSS)
    assert (*cause(trial), trial["value"]) == ("finished", "completed", 0.5)
    text = site.output(trial)
    assert text.startswith("the first line\n")
    assert text.endswith(f"number {159_999:20d}\nloss=0.5\n")
    assert "is left out" in text
    assert len(text) <= 8 * 1024 * 1024 + 1024


def test_run_output_arrives_whole_whatever_its_bytes(site: Site) -> None:
    """Four-byte letters across every boundary of a piece, a NUL, bytes that are no text, a last line without an end."""
    program = "import os, sys\nwrite = sys.stdout.buffer.write\nwrite(('é𝄞' * 500_001).encode())\nwrite(b'\\nNUL:\\0: broken:\\xff: the end')\n"
    trial = site.run(program)
    assert cause(trial) == ("finished", "completed")
    head, _, tail = site.output(trial).partition("\n")
    assert head == "é𝄞" * 500_001
    assert tail == "NUL:\0: broken:\N{REPLACEMENT CHARACTER}: the end"


def test_run_error_with_bytes_that_are_no_text_is_told(site: Site) -> None:
    """A detail is always text that a database takes."""
    trial = site.shell("printf 'bad \\000 \\377 byte\\n' >&2\nexit 3\n")
    assert cause(trial) == ("failed", "exit_status")
    assert (trial["detail"] or "").startswith("exit status 3: bad ")


def test_run_output_may_be_closed(site: Site) -> None:
    """A trial that closes its standard output goes on, and what it had printed counts."""
    trial = site.run("import os\nprint('loss=2', flush=True)\nos.close(1)\nopen('still-there', 'w').write('yes')\n", metric=LOSS)
    assert (*cause(trial), trial["value"]) == ("finished", "completed", 2.0)


def test_run_progress_bars_are_read_like_lines(site: Site) -> None:
    """Each state of a bar that is redrawn in place, in colour, is a point."""
    program = "for n in range(5):\n    print(f'\\r\\x1b[32m{n * 25:3d}%\\x1b[0m|##| step={n} loss={1 / (n + 1)}', end='', flush=True)\n"
    trial = site.run(program, metric=LOSS)
    assert site.history(trial, "loss") == [(n, 1 / (n + 1)) for n in range(5)]
    assert trial["value"] == 0.2


def test_run_input_is_empty(site: Site) -> None:
    """A script that asks is told that nobody is there, instead of waiting for ever."""
    trial = site.run("print(f'read {len(__import__(\"sys\").stdin.read())} characters')\ninput()\n")
    assert site.output(trial) == "read 0 characters\n"
    assert (trial["detail"] or "").endswith("EOFError: EOF when reading a line")


def test_run_environment_holds_what_is_its_own_and_none_of_our_secrets(site: Site) -> None:
    """Run, trial, parameters, token; no address or password of database, broker or operator (D7)."""
    trial = site.run("import json, os\nprint(json.dumps(dict(os.environ)))\n", env={"MINE": "1"}, parameters={"x": {"values": [0.1]}})
    found = json.loads(site.output(trial))
    assert not [name for name, value in found.items() if SECRET in value or site.cluster.database_url in value]
    ours = {"RUN_ID", "ATTEMPT", "ID", "TRIAL", "SEED", "PARAMS", "PARAMS_FILE", "ARGS_FILE", "TRACKING_URI", "RUN_TOKEN"}
    assert {name for name in found if name.startswith("SWEEP_")} == {f"SWEEP_{name}" for name in ours}
    assert (found["SWEEP_RUN_ID"], found["SWEEP_TRIAL"], found["SWEEP_ATTEMPT"], found["MINE"]) == (trial["run_id"], "0", "1", "1")
    assert json.loads(found["SWEEP_PARAMS"]) == trial["params"] == {"x": 0.1}
    assert found["MLFLOW_TRACKING_TOKEN"] == found["SWEEP_RUN_TOKEN"]
    assert found["MLFLOW_TRACKING_URI"] == site.cluster.url


def test_run_folders_are_separate_and_go_when_it_ends(site: Site) -> None:
    """Trials at the same time write what they like without seeing each other; not even folders without rights stay."""
    program = (
        "test ! -e mine || exit 9\n"
        'echo "$SWEEP_TRIAL" > mine\nmkdir -p locked/deep\ntouch locked/deep/file\nchmod 500 locked/deep locked\n'
        'until [ "$(ls "$MEETING" | wc -l)" = 3 ]; do touch "$MEETING/$SWEEP_TRIAL"; sleep 0.02; done\n'
        'test "$(cat mine)" = "$SWEEP_TRIAL" || exit 9\npwd\n'
    )
    file = site.file(program, command=SHELL, limits={"trials": 3})
    meeting = file.parent.with_name(f"{file.parent.name}-meeting")
    meeting.mkdir()
    write_project(file.parent, program, command=SHELL, limits={"trials": 3}, env={"MEETING": str(meeting)})
    trials = site.cluster.wait_for_end(site.cluster.submit(file))
    assert [cause(trial) for trial in trials] == [("finished", "completed")] * 3
    folders = {site.output(trial).strip() for trial in trials}
    assert len(folders) == 3
    wait_until(lambda: not any(Path(folder).parents[1].exists() for folder in folders), "the folders of the runs are gone")
