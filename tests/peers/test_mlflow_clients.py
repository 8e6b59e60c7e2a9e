"""MLflow's own clients, the latest of 2.x and 3.17.2, run unedited scripts against our server: they know it only by MLFLOW_TRACKING_URI."""

from pathlib import Path
from typing import Final

import pytest

from tests.support.cluster import Cluster
from tests.support.mlflow_peer import MlflowEnvironment, finish_script

SCRIPTS: Final = Path(__file__).parent / "scripts"
N_TRIALS: Final = 8

pytestmark = pytest.mark.timeout(300)


def run(environment: MlflowEnvironment, script: str, server: Cluster, home: Path, *arguments: str) -> None:
    """Run a script, which checks for itself, to its last line."""
    assert environment.run_script(SCRIPTS / f"{script}.py", server.url, home, *arguments).splitlines()[-1] == "done"


def test_mlflow_client_reads_back_what_it_tracks(environment: MlflowEnvironment, our_server: Cluster, tmp_path: Path) -> None:
    """Parameters, metrics, tags, nested runs, data sets, files of 0 B and 1 MiB, deleted and restored runs and experiments; refusals by their code."""
    run(environment, "tracking", our_server, tmp_path, str(tmp_path))


def test_mlflow_client_finds_what_plain_python_finds(environment: MlflowEnvironment, our_server: Cluster, tmp_path: Path) -> None:
    """Forty filters and seven orders over thirty runs, page by page."""
    run(environment, "searches", our_server, tmp_path)


def test_mlflow_autolog_records_a_grid_search(environment: MlflowEnvironment, our_server: Cluster, tmp_path: Path) -> None:
    """A parent with the best model and the data set, a child for each candidate, recorded at the same time."""
    run(environment, "autolog", our_server, tmp_path)


def test_mlflow_client_loads_the_model_that_it_logged(environment: MlflowEnvironment, our_server: Cluster, tmp_path: Path) -> None:
    """By its run and by its own URI, as what it was and as a function."""
    run(environment, "models", our_server, tmp_path)


def test_optuna_study_of_two_processes_is_kept_by_our_server(our_server: Cluster, tmp_path: Path) -> None:
    """Through `mlflow.optuna`'s own storage: every trial once, with its parameters, values and attributes."""
    environment = MlflowEnvironment(3).require()
    run(environment, "study", our_server, tmp_path, "study", "0")
    both = [environment.start_script(SCRIPTS / "study.py", our_server.url, tmp_path, "study", str(N_TRIALS // 2)) for _ in range(2)]
    for process in both:
        with process:
            assert finish_script(process).splitlines()[-1] == "done"
    run(environment, "study_result", our_server, tmp_path, "study", str(N_TRIALS))
