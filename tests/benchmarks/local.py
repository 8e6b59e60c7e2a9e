"""The one-machine cluster in a home of its own, for the benchmarks that measure it as a user meets it."""

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tests.benchmarks.stage import Stage


@contextmanager
def running_home(stage: Stage, broker_url: str) -> Iterator[dict[str, str]]:
    """Variables for the command line over a cluster that runs; it is stopped afterwards."""
    environ = stage.home_environment(stage.new_folder("home"), SWEEP_BROKER_URL=broker_url)
    try:
        sweep(environ, "up")
        yield environ
    finally:
        sweep(environ, "down", "--yes")


def sweep(environ: Mapping[str, str], *arguments: str) -> str:
    """What a command of ours prints.

    Raises:
        RuntimeError: it failed; with what it said.
    """
    done = subprocess.run(
        [sys.executable, "-m", "sweeps.cli", *arguments], env=environ, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300, check=False
    )
    if done.returncode != 0:
        raise RuntimeError(f"sweep {' '.join(arguments)} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}")
    return done.stdout


def write_project(folder: Path, config: Mapping[str, object], **files: str) -> Path:
    """A folder with a sweep file (JSON is YAML) and scripts; the file's path."""
    for name, text in files.items():
        (folder / f"{name}.py").write_text(text, encoding="utf-8")
    path = folder / "sweep.yaml"
    path.write_text(json.dumps(config), encoding="utf-8")
    return path
