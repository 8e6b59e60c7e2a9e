"""How soon the first trial's own code runs where nothing runs yet: `sweep run` in an empty home, then again after `sweep down`."""

import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from typing import Final

from tests.benchmarks.figures import Figure
from tests.benchmarks.local import sweep, write_project
from tests.benchmarks.stage import INTERPRETER, Stage

GOAL_S: Final = 4.0
# The trial leaves the time at which it ran.
_SCRIPT: Final = """
import os, sys, time
now = time.time()
with open(sys.argv[1] + ".part", "w") as file:
    file.write(repr(now))
os.replace(sys.argv[1] + ".part", sys.argv[1])
print("loss=1")
"""


def measure(stage: Stage) -> Iterator[Figure]:
    """Cold (no data yet: initdb and the schema come first) and warm (data, but no process)."""
    environ = stage.home_environment(stage.new_folder("first") / "home")
    try:
        for kind in ("cold", "warm"):
            took_s = _seconds_until_first_trial(stage, environ)
            yield Figure(
                f"sweep run until the first trial's code runs, {kind}",
                f"{took_s:.2f} s",
                goal=f"<= {GOAL_S:g} s",
                is_met=took_s <= GOAL_S,
                values={"s": took_s},
            )
            sweep(environ, "down", "--yes")
    finally:
        sweep(environ, "down", "--yes")


def _seconds_until_first_trial(stage: Stage, environ: Mapping[str, str]) -> float:
    folder = stage.new_folder("project")
    mark = folder.parent / f"{folder.name}.mark"
    config = {
        "name": "first",
        "method": "random",
        "run_cap": 1,
        "metric": {"name": "loss", "goal": "minimize"},
        "command": [INTERPRETER, "-I", "-S", "train.py", str(mark)],
        "parameters": {"x": {"min": 0.0, "max": 1.0}},
    }
    file = write_project(folder, config, train=_SCRIPT)
    began = time.time()
    process = subprocess.Popen([sys.executable, "-m", "sweeps.cli", "run", str(file)], env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    said, _ = process.communicate(timeout=120)
    if process.returncode != 0 or not mark.exists():
        raise RuntimeError(f"sweep run ended with {process.returncode}:\n{said.decode(errors='replace')}")
    return float(mark.read_text(encoding="utf-8")) - began
