"""The notebooks of docs/ run as they stand, in a kernel of their own, on a cluster of this machine that they start."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted((ROOT / "docs" / "notebooks").glob("*.ipynb"))

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def environ(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mapping[str, str]]:
    """A home of this file's own for sweeps and for Jupyter; the cluster that the first notebook starts is stopped at the end."""
    folder = tmp_path_factory.mktemp("laptop")
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("SWEEP_", "MPL", "JUPYTER", "IPYTHON"))}
    homes = {name: str(folder / name.lower()) for name in ("IPYTHONDIR", "JUPYTER_RUNTIME_DIR", "JUPYTER_CONFIG_DIR", "MPLCONFIGDIR", "SWEEP_HOME")}
    made = {**inherited, **homes, "PYTHONPATH": str(ROOT)}
    yield made
    down = subprocess.run([sys.executable, "-m", "sweeps.cli", "down", "--yes"], env=made, cwd=folder, capture_output=True, text=True, check=False)
    for log in sorted((folder / "sweep_home").glob("logs/*.log")):
        print(f"---- {log.name}\n{log.read_text(errors='replace')[-3000:]}")  # noqa: T201 - shown when a test failed
    assert down.returncode == 0, down.stderr


def outputs_of(notebook: Any) -> list[Any]:
    """What all cells have shown."""
    return [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
@pytest.mark.filterwarnings("default")  # Jupyter's own
def test_notebook_runs_from_top_to_bottom(path: Path, environ: Mapping[str, str], tmp_path: Path) -> None:
    """No cell fails; waiting is one picture that ends with the sweep's end, and there is at least one plot."""
    shutil.copy(path, tmp_path)
    notebook = nbformat.read(tmp_path / path.name, as_version=4)  # type: ignore[no-untyped-call]
    client = NotebookClient(notebook, timeout=200, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}})
    client.execute(env=dict(environ))
    (waiting,) = [cell for cell in notebook.cells if ".wait()" in cell.source and cell.cell_type == "code"]
    pictures = [output["data"]["text/html"] for output in waiting.outputs if "text/html" in output.get("data", {})]
    assert len(pictures) == 1
    assert "finished" in pictures[0]
    assert "8/8" in pictures[0]
    assert any("image/png" in output.get("data", {}) for output in outputs_of(notebook))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_is_kept_without_what_a_run_leaves(path: Path) -> None:
    """No outputs, no counts, no path of anybody's machine."""
    text = path.read_text(encoding="utf-8")
    notebook = nbformat.reads(text, as_version=4)  # type: ignore[no-untyped-call]
    nbformat.validate(notebook)
    assert outputs_of(notebook) == []
    assert {cell.execution_count for cell in notebook.cells if cell.cell_type == "code"} == {None}
    assert [word for word in ("/home/", "/tmp/", "/root/", "/Users/", "file://") if word in text] == []
    assert set(notebook.metadata) == {"kernelspec", "language_info"}


def test_notebooks_are_there() -> None:
    """Both that the documentation names."""
    assert [path.stem for path in NOTEBOOKS] == ["coming-from-optuna", "first-sweep"]
