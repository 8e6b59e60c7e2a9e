"""Files that do not fit into anything: MLflow's own client logs and reads back 2 GiB, while the server's memory stays as it was."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

from tests.support.cluster import Cluster
from tests.support.memory import family_bytes
from tests.support.mlflow_peer import MlflowEnvironment

SCRIPT: Final = Path(__file__).parents[1] / "peers" / "scripts" / "big_file.py"
SIZE: Final = 2 << 30
GROWTH_MOST_BYTES: Final = 64 << 20

pytestmark = pytest.mark.timeout(900)


def test_file_of_two_gibibytes_goes_through_the_server_in_constant_memory(make_cluster: Callable[..., Cluster], tmp_path: Path) -> None:
    """Up and down through the artifact proxy, every byte the same."""
    environment = MlflowEnvironment(3).require()
    cluster = make_cluster()
    server = cluster.start_server()
    warm = tmp_path / "warm"
    warm.mkdir()
    # A small one first: what the server loads once is no growth.
    assert environment.run_script(SCRIPT, cluster.url, warm, str(warm), "1000000").splitlines()[-1] == "done"
    before, most = family_bytes(server.process.pid), 0
    is_over = threading.Event()

    def watch() -> None:
        nonlocal most
        while not is_over.wait(0.1):
            most = max(most, family_bytes(server.process.pid))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        assert environment.run_script(SCRIPT, cluster.url, tmp_path, str(tmp_path), str(SIZE), timeout_s=600).splitlines()[-1] == "done"
    finally:
        is_over.set()
        watcher.join()
    assert most - before < GROWTH_MOST_BYTES, f"{before >> 20} MiB before, {most >> 20} MiB at the most"
