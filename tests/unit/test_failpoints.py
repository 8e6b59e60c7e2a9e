"""Failpoints: inert unless armed, and then exactly what was asked for."""

import os
import re
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tracking import failpoints
from tracking.errors import DatabaseAway, SettingError
from tracking.failpoints import BUILDS, POINTS, Failpoints, armed, broken_builds, hit, is_broken, unless_broken

ROOT = Path(failpoints.__file__).parents[1]
PLACED = re.compile(r"^\s*hit\(\"([a-z.]+)\"\)$", re.MULTILINE)


def test_failpoints_stand_in_one_place_of_the_product_each() -> None:
    """Every point of the docstring is passed in exactly one place, and no other point is."""
    files = [file for package in ("scheduler", "worker", "sweeps", "tracking") for file in (ROOT / package).rglob("*.py")]
    placed = sorted(point for file in files for point in PLACED.findall(file.read_text(encoding="utf-8")))
    assert placed == sorted(POINTS)
    assert len(placed) == 16


def test_failpoints_are_inert_in_a_process_that_was_not_armed() -> None:
    """Nothing happens at any of them here."""
    assert armed({}) is None
    assert armed({"SWEEP_FAILPOINTS": "", "SWEEP_FAILPOINTS_SEED": "1"}) is None
    for point in POINTS:
        hit(point)


def test_failpoint_acts_at_every_hit_unless_told_otherwise() -> None:
    """No suffix means each time, and other points do nothing."""
    points = Failpoints("worker.claimed=error")
    points.hit("worker.started")
    for _ in range(3):
        with pytest.raises(DatabaseAway):
            points.hit("worker.claimed")


def test_failpoint_acts_at_its_nth_hit_only() -> None:
    """`@N` counts the hits of its own point; two rules of one point both count all of them."""
    points = Failpoints("worker.claimed=error@2, worker.claimed=error@4,worker.started=error@1")
    acted = []
    for turn in range(1, 6):
        try:
            points.hit("worker.claimed")
        except DatabaseAway:
            acted.append(turn)
    assert acted == [2, 4]


def test_failpoint_acts_by_chance_as_the_seed_says() -> None:
    """`%P` is drawn from the seed: the same one gives the same, another one something else, about P of the time."""

    def acted(seed: str) -> list[int]:
        points, turns = Failpoints("scheduler.told=error%0.25", seed), []
        for turn in range(400):
            try:
                points.hit("scheduler.told")
            except DatabaseAway:
                turns.append(turn)
        return turns

    assert acted("w1:1") == acted("w1:1") != acted("w1:2")
    assert 60 < len(acted("w1:1")) < 140


def test_failpoint_carries_out_its_actions_in_order(tmp_path: Path) -> None:
    """`+` joins them: the file is there when the error comes."""
    file = tmp_path / "reached"
    with pytest.raises(DatabaseAway):
        Failpoints(f"scheduler.sent=touch:{file}+sleep:0+error").hit("scheduler.sent")
    assert file.exists()


@pytest.mark.parametrize(("action", "status"), [("kill", -signal.SIGKILL), ("exit:7", 7)])
def test_failpoint_ends_the_process_that_was_armed_by_its_environment(action: str, status: int) -> None:
    """At the second hit, and without a word of farewell."""
    code = "from tracking.failpoints import hit\nfor _ in range(3): print('hit', flush=True); hit('worker.claimed')\nprint('survived')"
    environ = {**os.environ, "SWEEP_FAILPOINTS": f"worker.claimed={action}@2"}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environ, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout.split()) == (status, ["hit", "hit"])


def test_failpoint_freezes_the_process_until_it_is_woken() -> None:
    """`stop` is a SIGSTOP, and not a word is said past it by the thread that came by, whatever the others do."""
    code = """
import os, threading, time
from tracking.failpoints import hit
def idle():
    while True: time.sleep(0.001)
for _ in range(8): threading.Thread(target=idle, daemon=True).start()
def pass_by():
    for _ in range(20): hit("worker.claimed"); os.write(1, b"woken ")
thread = threading.Thread(target=pass_by)
thread.start(); thread.join()
"""
    environ = {**os.environ, "SWEEP_FAILPOINTS": "worker.claimed=stop"}
    process = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, env=environ, stdout=subprocess.PIPE)
    assert process.stdout is not None
    for turn in range(20):
        _, status = os.waitpid(process.pid, os.WUNTRACED)
        assert os.WIFSTOPPED(status)
        assert bool(select.select([process.stdout], [], [], 0)[0]) == (turn > 0)
        if turn:
            assert os.read(process.stdout.fileno(), 100) == b"woken "
        process.send_signal(signal.SIGCONT)
    assert process.communicate(timeout=60)[0] == b"woken "


@pytest.mark.parametrize(
    "text",
    [
        "nowhere=kill",
        "worker.claimed",
        "worker.claimed=",
        "worker.claimed=explode",
        "worker.claimed=kill:9",
        "worker.claimed=sleep:long",
        "worker.claimed=touch:",
        "worker.claimed=exit",
        "worker.claimed=kill@0",
        "worker.claimed=kill@x",
    ],
)
def test_failpoints_refuse_what_they_do_not_understand(text: str) -> None:
    """A test that arms nothing by mistake would prove nothing."""
    with pytest.raises(SettingError, match=r"SWEEP_FAILPOINTS.*is no"):
        Failpoints(text)


def test_broken_builds_are_none_unless_asked_for(caplog: pytest.LogCaptureFixture) -> None:
    """Every guard stands in a process that was told nothing, and nothing is said."""
    assert broken_builds({}) == broken_builds({"SWEEP_BROKEN": " , "}) == frozenset()
    assert not any(is_broken(build) for build in BUILDS)
    assert unless_broken("no-fence", "attempt = 1") == "attempt = 1"
    assert not caplog.records


def test_broken_build_says_so_loudly(caplog: pytest.LogCaptureFixture) -> None:
    """Whoever reads the log of such a program knows that its results mean nothing."""
    assert broken_builds({"SWEEP_BROKEN": "no-fence, no-reconciler"}) == {"no-fence", "no-reconciler"}
    (record,) = caplog.records
    assert (record.levelname, "BROKEN ON PURPOSE (SWEEP_BROKEN=no-fence,no-reconciler)" in record.message) == ("CRITICAL", True)


def test_broken_builds_refuse_a_name_that_they_do_not_know() -> None:
    """A misspelt build would be an intact one."""
    with pytest.raises(SettingError, match="no broken build no-fences"):
        broken_builds({"SWEEP_BROKEN": "no-fence,no-fences"})


def test_broken_builds_stand_in_the_product() -> None:
    """Every build of the docstring leaves out something, and no other build is asked for anywhere."""
    files = [file for package in ("scheduler", "worker", "sweeps", "tracking") for file in (ROOT / package).rglob("*.py")]
    asked = {build for file in files for build in re.findall(r"(?:is|unless)_broken\(\"([a-z-]+)\"", file.read_text(encoding="utf-8"))}
    assert asked == BUILDS
    assert len(BUILDS) == 7
