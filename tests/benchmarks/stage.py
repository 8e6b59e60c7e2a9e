"""Where benchmarks take place: a Postgres with durability on, a Redis, clusters of real processes, all in one folder of our own."""

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cached_property
from pathlib import Path
from typing import Final

from tests.support.cluster import Cluster
from tests.support.databases import DatabaseMaker
from tests.support.services import RedisServer
from tracking import embedded
from tracking.store.database import normalise_url

ROOT: Final = Path(__file__).resolve().parents[2]
PEERS_PYTHON: Final = ROOT / ".cache" / "bench-venv" / "bin" / "python"

INTERPRETER: Final = str(Path(sys.executable).resolve())
"""The interpreter itself: a virtual environment's, or a version manager's wrapper, would cost more than the trial."""


class Stage:
    """Services that several benchmarks share, each started when first asked for; made by `open_stage`."""

    def __init__(self, folder: Path, exits: ExitStack) -> None:
        self.folder = folder
        self._exits = exits
        self._n_folders = 0

    def new_folder(self, name: str) -> Path:
        """An empty folder."""
        self._n_folders += 1
        folder = self.folder / f"{self._n_folders}-{name}"
        folder.mkdir()
        return folder

    @cached_property
    def redis(self) -> RedisServer:
        """A redis-server on a port of its own."""
        server = RedisServer(self.new_folder("redis"))
        server.start()
        self._exits.callback(server.stop)
        return server

    @cached_property
    def _postgres_home(self) -> Path:
        home = self.new_folder("postgres")
        self._exits.callback(embedded.stop, home)
        return home

    @cached_property
    def _databases(self) -> DatabaseMaker:
        # The embedded Postgres as users get it: fsync and synchronous commit are on.
        maker = DatabaseMaker(embedded.ensure_running(self._postgres_home))
        self._exits.callback(maker.close)
        return maker

    @contextmanager
    def database(self, *, is_migrated: bool = True) -> Iterator[str]:
        """URL of a fresh database, with the schema unless a peer makes its own."""
        with self._databases.fresh(is_migrated=is_migrated) as url:
            yield url

    def restart_postgres(self) -> None:
        """Shut Postgres down and start it again, at the same address."""
        embedded.stop(self._postgres_home)
        if normalise_url(embedded.ensure_running(self._postgres_home)) != self._databases.url:
            raise AssertionError("the restarted Postgres has another address")

    @contextmanager
    def cluster(self, broker: str, *, slots: int) -> Iterator[Cluster]:
        """Server, scheduler and one worker over a fresh database and a broker: `redis`, `folder` or `none`."""
        folder = self.new_folder(f"cluster-{broker}")
        url = self.redis.url if broker == "redis" else f"filesystem://{folder / 'broker'}" if broker == "folder" else "none"
        with self.database() as database_url:
            cluster = Cluster(folder, database_url, url)
            try:
                yield cluster.start(worker_arguments=("--slots", str(slots)))
            except BaseException:
                print(cluster.logs(), file=sys.stderr)  # noqa: T201  # what there is to know of a failure
                raise
            finally:
                cluster.stop()

    def home_environment(self, home: Path, **settings: str) -> dict[str, str]:
        """Variables for the command line over a one-machine cluster of its own, under `home`."""
        inherited = {key: value for key, value in os.environ.items() if not key.startswith(("SWEEP_", "MLFLOW_"))}
        return {**inherited, "SWEEP_HOME": str(home), **settings}


@contextmanager
def open_stage() -> Iterator[Stage]:
    """A stage, and the end of everything that was started on it."""
    with tempfile.TemporaryDirectory(prefix="sweep-bench-", ignore_cleanup_errors=True) as name, contextlib.ExitStack() as exits:
        yield Stage(Path(name), exits)
