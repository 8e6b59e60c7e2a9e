"""How soon the command line answers: wall time of whole processes, beside an interpreter that does nothing."""

import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from tests.benchmarks.figures import Figure
from tests.benchmarks.local import running_home, write_project
from tests.benchmarks.stage import Stage

N_TIMES: Final = 15
GOALS_S: Final = {"--help": 0.120, "best": 0.200, "completion of a sweep's name": 0.300}
_TAB: Final = {"_SWEEP_COMPLETE": "bash_complete", "COMP_WORDS": "sweep status ", "COMP_CWORD": "2"}
SWEEP: Final = str(Path(sys.executable).with_name("sweep"))
_PROJECT: Final = {
    "name": "startup",
    "method": "grid",
    "metric": {"name": "loss", "goal": "minimize"},
    "command": ["sh", "-c", "echo loss=0.5"],
    "parameters": {"x": {"values": [1, 2, 3]}},
}


def measure(stage: Stage) -> Iterator[Figure]:
    """`sweep --help`, `sweep best` of a finished sweep on a cluster that runs, and the Tab key."""
    with running_home(stage, "filesystem://") as environ:
        project = write_project(stage.new_folder("startup"), _PROJECT)
        subprocess.run([SWEEP, "run", str(project)], env=environ, check=True, capture_output=True, timeout=120)
        empty_s = median_wall_s([sys.executable, "-c", "pass"], environ)
        asked: dict[str, tuple[list[str], dict[str, str]]] = {
            "--help": (["--help"], {}),
            "best": (["best", "@latest"], {}),
            "completion of a sweep's name": ([], _TAB),
        }
        for name, (arguments, more) in asked.items():
            took_s = median_wall_s([SWEEP, *arguments], {**environ, **more})
            yield Figure(
                f"sweep {name}, median of {N_TIMES}",
                f"{took_s * 1000:.0f} ms",
                f"the same interpreter, nothing to do: {empty_s * 1000:.0f} ms",
                f"{took_s / empty_s:.1f}",
                f"<= {GOALS_S[name] * 1000:.0f} ms",
                took_s <= GOALS_S[name],
                {"s": took_s, "interpreter_s": empty_s},
            )


def median_wall_s(argv: Sequence[str], environ: Mapping[str, str]) -> float:
    """Median wall time of a command from before its start to after its end."""
    times = []
    for _ in range(N_TIMES):
        began = time.perf_counter()
        subprocess.run(argv, env=environ, check=True, capture_output=True, timeout=60)
        times.append(time.perf_counter() - began)
    return statistics.median(times)
