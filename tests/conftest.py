"""Fixtures for every folder. A missing service skips with its reason, and fails when CI=true."""

import os
import signal
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

import hypothesis
import pytest

from tests.support.cluster import Cluster
from tests.support.databases import DatabaseMaker
from tests.support.needs import missing, program
from tests.support.services import PostgresServer, RedisServer, find_postgres

if TYPE_CHECKING:
    from docker import DockerClient
    from selenium.webdriver import Chrome

    from tracking.store import Store

TESTS: Final = Path(__file__).parent
MARKER_OF_FOLDER: Final = {
    "integration": "integration",
    "acceptance": "acceptance",
    "faults": "faults",
    "benchmarks": "bench",
    "differential": "differential",
    "peers": "differential",
}
BASE_IMAGE: Final = "sweep-base"

# A slow machine is no reason to fail: time limits are pytest-timeout's business.
hypothesis.settings.register_profile("sweep", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("sweep")
# Begun in the background by a shell, we ignore Ctrl-C; what we start would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--run-bench`: benchmarks take minutes and a quiet machine."""
    parser.addoption("--run-bench", action="store_true", help="run the tests under tests/benchmarks too")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark tests by their folder, and leave benchmarks out unless asked for."""
    for item in items:
        folder = item.path.relative_to(TESTS).parts[0] if item.path.is_relative_to(TESTS) else ""
        if marker := MARKER_OF_FOLDER.get(folder):
            item.add_marker(marker)
        if marker == "bench" and not config.getoption("--run-bench"):
            item.add_marker(pytest.mark.skip(reason="measures; run by `make bench`"))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test that asks for `every_postgres_url` runs on the embedded Postgres and on each version installed here."""
    if "every_postgres_url" in metafunc.fixturenames:
        metafunc.parametrize(
            "every_postgres_url", [None, *find_postgres()], ids=lambda folder: "embedded" if folder is None else folder.parent.name, indirect=True
        )


@pytest.fixture(scope="session", autouse=True)
def _own_environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Nothing of the developer's cluster or MLflow server leaks into a test, and nothing of a test into ~/.sweep."""
    with pytest.MonkeyPatch.context() as patch:
        for name in os.environ:
            if name.startswith(("SWEEP_", "MLFLOW_", "WANDB_")) and not name.startswith("SWEEP_TEST_"):
                patch.delenv(name)
        patch.setenv("SWEEP_HOME", str(tmp_path_factory.mktemp("home")))
        yield


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """A Postgres server: the one in SWEEP_TEST_DATABASE_URL, else an embedded one of this session."""
    if given := os.environ.get("SWEEP_TEST_DATABASE_URL"):
        yield given
        return
    from tracking import embedded

    with tempfile.TemporaryDirectory(prefix="sweep-test-") as home:
        try:
            yield embedded.ensure_running(Path(home))
        finally:
            embedded.stop(Path(home))


@pytest.fixture(scope="session")
def database_maker(postgres_url: str) -> Iterator[DatabaseMaker]:
    """Makes fresh databases on the session's Postgres."""
    maker = DatabaseMaker(postgres_url)
    yield maker
    maker.close()


@pytest.fixture
def database_url(database_maker: DatabaseMaker) -> Iterator[str]:
    """A fresh database with the newest schema, of this test alone."""
    with database_maker.fresh() as url:
        yield url


@pytest.fixture(scope="module")
def module_database_url(database_maker: DatabaseMaker) -> Iterator[str]:
    """A fresh database with the newest schema, shared by the tests of one file."""
    with database_maker.fresh() as url:
        yield url


@pytest.fixture
def empty_database_url(database_maker: DatabaseMaker) -> Iterator[str]:
    """A fresh database without any schema."""
    with database_maker.fresh(is_migrated=False) as url:
        yield url


@pytest.fixture
def store(database_url: str) -> "Iterator[Store]":
    """The store over a fresh database."""
    from tracking.store import open_store

    opened = open_store(database_url)
    yield opened
    opened.close()


@pytest.fixture(scope="session")
def postgres_versions() -> list[Path]:
    """Folders with the binaries of each Postgres installed on this machine (14 or newer), oldest first."""
    return find_postgres()


@pytest.fixture
def every_postgres_url(request: pytest.FixtureRequest) -> Iterator[str]:
    """A fresh, unmigrated database on each Postgres at hand, one after the other."""
    bin_folder: Path | None = request.param
    if bin_folder is None:
        yield request.getfixturevalue("empty_database_url")
        return
    server = PostgresServer(bin_folder)
    server.start()
    try:
        with DatabaseMaker(server.url).fresh(is_migrated=False) as url:
            yield url
    finally:
        server.stop()


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A redis-server of this session."""
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    server.start()
    yield server
    server.stop()


@pytest.fixture
def redis_url(redis_server: RedisServer) -> str:
    """URL of an empty Redis."""
    assert redis_server.command(b"FLUSHALL").startswith(b"+OK")
    return redis_server.url


@pytest.fixture
def make_cluster(tmp_path_factory: pytest.TempPathFactory, database_url: str) -> Iterator[Callable[..., Cluster]]:
    """Makes clusters of real processes over this test's database: `make_cluster("redis://...", SWEEP_LEASE_S="5").start()`."""
    clusters: list[Cluster] = []

    def make(broker_url: str = "none", **environ: str) -> Cluster:
        clusters.append(Cluster(tmp_path_factory.mktemp("cluster"), database_url, broker_url, environ))
        return clusters[-1]

    yield make
    for cluster in clusters:
        cluster.stop()
        # Shown by pytest when the test failed.
        print(cluster.logs())  # noqa: T201


@pytest.fixture(scope="session")
def docker_engine() -> "Iterator[DockerClient]":
    """A client of the Docker engine of this machine."""
    import docker

    try:
        client = docker.from_env(timeout=60)
        client.ping()
    except docker.errors.DockerException as error:
        missing(f"Docker does not answer: {error} (make services)")
    yield client
    client.close()


@pytest.fixture(scope="session")
def base_image(docker_engine: "DockerClient") -> str:
    """Name of the image that container tests start from."""
    from docker.errors import ImageNotFound

    try:
        docker_engine.images.get(BASE_IMAGE)
    except ImageNotFound:
        missing(f"The image {BASE_IMAGE} is not built (make services)")
    return BASE_IMAGE


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> "Iterator[Chrome]":
    """A headless Chromium of our own, with an empty profile, that talks to nobody but the page."""
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = program("chromium")
    flags = "headless no-sandbox disable-gpu disable-quic no-first-run disable-background-networking disable-component-update disable-sync no-proxy-server"
    for flag in [*flags.split(), f"user-data-dir={tmp_path_factory.mktemp('chromium')}", "window-size=1400,1000"]:
        options.add_argument(f"--{flag}")
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(program("chromedriver")))
    yield driver
    driver.quit()
