"""What the end of an attempt means, and what surroundings a process run gets: pure decisions of the runtimes."""

import sys
from pathlib import Path

import pytest

from tracking.states import Cause
from worker.runtimes.base import ExitReport, StopReason, outcome_of, record_stop, recorded_stop, signal_name
from worker.runtimes.process import resolve_python, trial_environment


@pytest.mark.parametrize(
    ("report", "verdict", "cause"),
    [
        (ExitReport(exit_status=0), "succeeded", Cause.COMPLETED),
        (ExitReport(exit_status=1), "failed", Cause.EXIT_STATUS),
        (ExitReport(signal=11), "failed", Cause.SIGNAL),
        (ExitReport(signal=9, oom=True), "failed", Cause.OUT_OF_MEMORY),
        (ExitReport(exit_status=1, oom=True), "failed", Cause.OUT_OF_MEMORY),
        (ExitReport(is_lost=True), "failed", Cause.LOST),
        (ExitReport(launch_error="no processes left"), "failed", Cause.LAUNCH),
        (ExitReport(signal=15, stop_sent=True, stop_reason="cancel"), "stopped", Cause.CANCELLED),
        (ExitReport(exit_status=0, stop_sent=True, stop_reason="prune"), "stopped", Cause.PRUNED),
        (ExitReport(signal=9, stop_sent=True, stop_reason="timeout"), "failed", Cause.TIMED_OUT),
        (ExitReport(signal=9, stop_sent=True, stop_reason="superseded"), "stopped", Cause.LOST),
        (ExitReport(exit_status=0, stop_sent=False, stop_reason="cancel"), "succeeded", Cause.COMPLETED),
        (ExitReport(signal=9, stop_sent=True), "failed", Cause.SIGNAL),
    ],
)
def test_outcome_has_the_right_cause(report: ExitReport, verdict: str, cause: Cause) -> None:
    """Ends have causes, and each its own; a stop counts only if it was sent in time."""
    outcome = outcome_of(report)
    assert (outcome.verdict, outcome.cause) == (verdict, cause)
    assert (outcome.exit_status, outcome.signal) == (report.exit_status, report.signal)


def test_outcome_detail_helps() -> None:
    """The detail names the signal, hints at memory for an unexplained SIGKILL, and shows the error line."""
    assert "SIGKILL (9)" in outcome_of(ExitReport(signal=9)).detail
    assert "memory" in outcome_of(ExitReport(signal=9)).detail
    assert "memory" not in outcome_of(ExitReport(signal=9, stop_sent=True)).detail
    assert outcome_of(ExitReport(exit_status=2), error_line="KeyError: 'x'").detail == "exit status 2: KeyError: 'x'"
    missing = outcome_of(ExitReport(exit_status=1), error_line="ModuleNotFoundError: No module named 'wandb'").detail
    assert missing.startswith("exit status 1: ModuleNotFoundError: No module named 'wandb' (add 'compat: wandb' to the sweep file")
    assert signal_name(250) == "signal 250"


@pytest.mark.parametrize("second", ["cancel", "timeout"])
def test_outcome_stop_reason_is_kept_once(tmp_path: Path, second: StopReason) -> None:
    """The first reason stands; a torn note counts as none."""
    assert recorded_stop(tmp_path) is None
    record_stop(tmp_path, "prune")
    record_stop(tmp_path, second)
    assert recorded_stop(tmp_path) == "prune"
    (tmp_path / "stop.json").write_text("{")
    assert recorded_stop(tmp_path) is None


def test_environment_is_scrubbed_of_what_is_ours() -> None:
    """Settings, credentials and the virtual environment of the worker stay out; the rest of the machine's stays in."""
    base = {
        "PATH": f"{sys.prefix}/bin:/usr/bin:/bin",
        "VIRTUAL_ENV": sys.prefix,
        "HOME": "/home/ada",
        "CUDA_HOME": "/opt/cuda",
        "SWEEP_DATABASE_URL": "secret",
        "CELERY_BROKER_URL": "secret",
        "MLFLOW_TRACKING_USERNAME": "ada",
        "MLFLOW_TRACKING_PASSWORD": "secret",
        "PYTHONPATH": "/somewhere",
        "PGPASSWORD": "secret",
    }
    env = trial_environment(base, {"SWEEP_RUN_ID": "r1", "MLFLOW_TRACKING_URI": "http://here"}, None)
    assert env == {
        "PATH": "/usr/bin:/bin",
        "HOME": "/home/ada",
        "CUDA_HOME": "/opt/cuda",
        "PYTHONUNBUFFERED": "1",
        "SWEEP_RUN_ID": "r1",
        "MLFLOW_TRACKING_URI": "http://here",
    }


def test_environment_puts_the_built_one_first() -> None:
    """The `bin` of an environment built for the run leads the PATH; another's virtual environment of the user's own is left alone."""
    env = trial_environment({"PATH": "/usr/bin", "VIRTUAL_ENV": "/home/ada/venv"}, {}, Path("/envs/abc/bin"))
    assert (env["PATH"], env["VIRTUAL_ENV"]) == ("/envs/abc/bin:/usr/bin", "/envs/abc")
    assert trial_environment({"PATH": "/usr/bin", "VIRTUAL_ENV": "/home/ada/venv"}, {}, None)["VIRTUAL_ENV"] == "/home/ada/venv"


def test_environment_additions_stand_above_all() -> None:
    """What the run is given wins."""
    assert trial_environment({"PATH": "/usr/bin"}, {"PATH": "/mine", "PYTHONUNBUFFERED": ""}, None) == {"PATH": "/mine", "PYTHONUNBUFFERED": ""}


def test_python_is_resolved_where_the_path_lacks_it(tmp_path: Path) -> None:
    """`python` stays where there is one, becomes `python3` where there is only that, and the worker's own where there is none."""

    def add(name: str) -> None:
        (tmp_path / name).touch(mode=0o755)

    path = str(tmp_path)
    assert resolve_python(("python", "t.py"), path) == (sys.executable, "t.py")
    add("python3")
    assert resolve_python(("python", "t.py"), path) == ("python3", "t.py")
    assert resolve_python(("/usr/bin/env", "python", "t.py"), path) == ("/usr/bin/env", "python3", "t.py")
    assert resolve_python(("/usr/bin/env",), path) == ("/usr/bin/env",)
    assert resolve_python(("bash", "python"), path) == ("bash", "python")
    add("python")
    assert resolve_python(("python", "t.py"), path) == ("python", "t.py")


def test_outcome_blames_the_environment_when_no_program_can_be_given_what_the_run_asks_for() -> None:
    """Variables and limits are the user's: to try again elsewhere would change nothing."""
    outcome = outcome_of(ExitReport(refusal="too long"))
    assert (outcome.verdict, outcome.cause, outcome.detail) == ("failed", Cause.ENVIRONMENT, "too long")
