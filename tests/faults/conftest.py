"""Fixtures of the fault suite: clusters to be broken, and the count of what was done to them."""

import os
import random
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Literal

import pytest

from tests.support.fault_table import Faults, FaultTable
from tests.support.faults import FULL, FaultCluster, Service
from tests.support.postgres import OwnPostgres, copy_template, make_template
from tests.support.services import RedisServer

MakeCluster = Callable[..., FaultCluster]
SEED: Final = os.environ.get("SWEEP_TEST_SEED") or secrets.token_hex(4)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Count faults; at full length tests may take as long as they wait."""
    if not config.pluginmanager.has_plugin("fault-table"):
        expression = str(config.option.markexpr)
        name = "soak" if expression == "soak" else "faults-quick" if "quick" in expression else "faults"
        config.pluginmanager.register(FaultTable(config.rootpath / ".cache" / f"{name}.md"), "fault-table")
    if FULL:
        for item in items:
            if item.path.is_relative_to(Path(__file__).parent):
                item.add_marker(pytest.mark.timeout(0))


def pytest_report_header() -> str:
    """Says how to draw the same again."""
    return f"fault seed: {SEED} (SWEEP_TEST_SEED)"


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> random.Random:
    """Of this test alone: what it draws is repeated by SWEEP_TEST_SEED."""
    return random.Random(f"{SEED}:{request.node.nodeid}")  # noqa: S311 -- repeatable, not secret


@pytest.fixture
def faults(request: pytest.FixtureRequest) -> Faults:
    """`faults.record("kill -9 of a worker")`: counts what was injected, for the table at the end."""
    return Faults(request.node)


@pytest.fixture(scope="session")
def postgres_template() -> Iterator[Path]:
    """The data folder that every cluster of this session begins with."""
    folder = make_template()
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def fault_cluster(tmp_path_factory: pytest.TempPathFactory, postgres_template: Path) -> Iterator[MakeCluster]:
    """Makes clusters to be broken; see `make` in `cluster_maker` for what it takes."""
    with cluster_maker(tmp_path_factory, postgres_template) as make:
        yield make


@pytest.fixture(scope="module")
def shared_fault_cluster(tmp_path_factory: pytest.TempPathFactory, postgres_template: Path) -> Iterator[MakeCluster]:
    """The same, for a cluster that all tests of a file share: what they break is not the cluster."""
    with cluster_maker(tmp_path_factory, postgres_template) as make:
        yield make


@contextmanager
def cluster_maker(tmp_path_factory: pytest.TempPathFactory, postgres_template: Path) -> Iterator[MakeCluster]:
    """Gives `make`; in the end everything made is stopped, and no role may have been surprised."""
    clusters: list[FaultCluster] = []

    def make(
        *,
        workers: Sequence[str] = ("w1",),
        slots: int = 2,
        broker: Literal["redis", "folder", "none"] = "redis",
        proxies: Sequence[Service] = ("postgres", "redis", "server"),
        environ: Mapping[str, str] | None = None,
        role_environ: Mapping[str, Mapping[str, str]] | None = None,
        role_prefix: Mapping[str, Sequence[str]] | None = None,
        postgres_folder: Path | None = None,
        postgres_options: Mapping[str, str] | None = None,
        start: bool = True,
    ) -> FaultCluster:
        """A cluster with a Postgres and a Redis of its own; every role behind its own proxies.

        Args:
            proxies: which services are reached through one.
            environ: more variables of every role.
            role_environ: more variables of single roles, by name.
            role_prefix: words before the commands of single roles, by name.
            postgres_folder: where its data is to lie, an existing empty folder.
            start: whether the roles are started as well; Postgres and Redis always are.
        """
        folder = tmp_path_factory.mktemp("faults")
        postgres = OwnPostgres(copy_template(postgres_template, folder=postgres_folder), postgres_options)
        redis = RedisServer(folder) if broker == "redis" else None
        cluster = FaultCluster(
            folder,
            postgres.url,
            redis.url if redis is not None else "none" if broker == "none" else f"filesystem://{folder}/broker",
            dict(environ or {}),
            postgres=postgres,
            redis_server=redis,
            proxied=tuple(proxies) if redis is not None else tuple(kind for kind in proxies if kind != "redis"),
            role_environ={role: dict(more) for role, more in (role_environ or {}).items()},
            role_prefix=dict(role_prefix or {}),
            slots=slots,
        )
        clusters.append(cluster)
        postgres.start()
        if redis is not None:
            redis.start()
        return cluster.start(workers=workers) if start else cluster

    try:
        yield make
    finally:
        for cluster in clusters:
            cluster.stop()
            # Shown by pytest when the test failed.
            print(cluster.logs())  # noqa: T201
    roles = [role for cluster in clusters if not cluster.expects_tracebacks for role in cluster.roles]
    surprised = [role.name for role in roles if b"Traceback" in role.log_file.read_bytes()]
    assert not surprised, f"A traceback means a bug: see the logs of {surprised}."
