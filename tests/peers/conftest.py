"""Fixtures: MLflow's server and ours, each on a database of its own in the session's Postgres; MLflow's clients."""

from collections.abc import Iterator

import pytest

from tests.support.cluster import Cluster, stopped_afterwards
from tests.support.databases import DatabaseMaker
from tests.support.mlflow_peer import Major, MlflowEnvironment, MlflowServer, mlflow_server


@pytest.fixture(scope="module")
def our_server(module_database_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Our server as a process of its own."""
    with stopped_afterwards(Cluster(tmp_path_factory.mktemp("ours"), module_database_url, "none")) as cluster:
        cluster.start_server()
        yield cluster


@pytest.fixture(scope="module")
def their_database_url(database_maker: DatabaseMaker) -> Iterator[str]:
    """An empty database for MLflow's server."""
    MlflowEnvironment(3).require()
    with database_maker.fresh(is_migrated=False) as url:
        yield url


@pytest.fixture(scope="module")
def their_server(their_database_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowServer]:
    """MLflow's server."""
    with mlflow_server(tmp_path_factory.mktemp("theirs"), their_database_url) as server:
        yield server


@pytest.fixture(params=(2, 3), ids=("mlflow2", "mlflow3"))
def environment(request: pytest.FixtureRequest) -> MlflowEnvironment:
    """The environment of MLflow's clients, one version after the other."""
    major: Major = request.param
    return MlflowEnvironment(major).require()
