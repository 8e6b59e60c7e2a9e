"""The wheel: it holds every file of the four packages, and what is installed from it runs a sweep."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Final

import pytest

from tests.support.needs import missing, program

ROOT: Final = Path(__file__).resolve().parents[2]
PACKAGES: Final = ("tracking", "scheduler", "worker", "sweeps")

pytestmark = pytest.mark.timeout(240)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy of the tree: a build leaves its folders beside what it builds."""
    source, built = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("built")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for name in PACKAGES:
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    uv = program(str(Path(sys.executable).with_name("uv")), hint="make install")
    done = subprocess.run([uv, "build", "--wheel", "--out-dir", str(built), str(source)], capture_output=True, text=True, check=False)
    if "Failed to fetch" in done.stderr or "error sending request" in done.stderr:
        missing("setuptools can't be fetched: there is no package index")
    assert done.returncode == 0, done.stderr
    (found,) = built.glob("*.whl")
    return found


def test_wheel_holds_every_file_of_the_packages(wheel: Path) -> None:
    """No module, SQL script, schema or py.typed is left behind: what pyproject's package-data does not name is not installed."""
    tree = {str(path.relative_to(ROOT)) for name in PACKAGES for path in (ROOT / name).rglob("*") if path.is_file() and "__pycache__" not in path.parts}
    with zipfile.ZipFile(wheel) as opened:
        held = {name for name in opened.namelist() if ".dist-info/" not in name}
    assert sorted(tree - held) == []
    assert sorted(held - tree) == []


def test_wheel_installed_runs_a_sweep(wheel: Path, tmp_path: Path) -> None:
    """From nothing: the schema is written, trials run, and the best one is told."""
    installed, project = tmp_path / "installed", tmp_path / "project"
    with zipfile.ZipFile(wheel) as opened:
        opened.extractall(installed)
    shutil.copytree(ROOT / "examples" / "bare", project)
    environ = os.environ | {"PYTHONPATH": str(installed), "SWEEP_HOME": str(tmp_path / "home")}

    def sweep(*arguments: str) -> str:
        command = [sys.executable, "-m", "sweeps.cli", *arguments]
        done = subprocess.run(command, cwd=project, env=environ, capture_output=True, text=True, check=False, timeout=110)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    where = [sys.executable, "-c", "import tracking, sweeps, scheduler, worker; print(tracking.__file__, sweeps.__file__, scheduler.__file__, worker.__file__)"]
    loaded = subprocess.run(where, cwd=project, env=environ, capture_output=True, text=True, check=True).stdout.split()
    assert all(Path(path).is_relative_to(installed) for path in loaded)
    try:
        sweep("run", "sweep.yaml", "--trials", "2")
        assert "learning_rate" in sweep("best")
    finally:
        sweep("down", "--yes")
