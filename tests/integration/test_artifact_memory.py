"""Large files through the server as a process of its own: it holds a few pieces of them at a time, wherever they are kept."""

import hashlib
import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from tests.support.cluster import Cluster, stopped_afterwards
from tests.support.protocol import FILES, new_run
from tests.support.s3_server import CREDENTIALS, s3_server

MIB = 1024 * 1024
GROWTH_MOST_MIB = 40


def peak_mib(pid: int) -> float:
    """The most memory that a process has had since it was last forgotten."""
    lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM:"))


def forget_peak(pid: int) -> None:
    """From here on the peak counts anew."""
    Path(f"/proc/{pid}/clear_refs").write_text("5", encoding="ascii")


def pieces(n_mib: int, digest: "hashlib._Hash") -> Iterator[bytes]:
    """A file of that size, no two pieces the same."""
    block = os.urandom(MIB)
    for number in range(n_mib):
        piece = number.to_bytes(8, "big") + block[8:]
        digest.update(piece)
        yield piece


def send_and_read(client: httpx.Client, n_mib: int) -> None:
    """Send a file and read it back, every byte the same."""
    sent, got = hashlib.blake2b(), hashlib.blake2b()
    file = f"{FILES}/0/{new_run(client)}/artifacts/big"
    assert client.put(file, content=pieces(n_mib, sent), headers={"Content-Length": str(n_mib * MIB)}).status_code == 200
    with client.stream("GET", file) as answer:
        for piece in answer.iter_bytes():
            got.update(piece)
    assert (answer.headers["Content-Length"], got.digest()) == (str(n_mib * MIB), sent.digest())


@pytest.mark.parametrize(("place", "n_mib"), [("folder", 256), ("s3", 56)])
def test_server_holds_little_of_a_large_file(module_database_url: str, tmp_path: Path, place: str, n_mib: int) -> None:
    """Up and down, and the server's memory has never grown by more than a few pieces."""
    with ExitStack() as stack:
        environ: dict[str, str] = {}
        if place == "s3":
            server = stack.enter_context(s3_server(tmp_path))
            environ = {**CREDENTIALS, "SWEEP_ARTIFACT_ROOT": f"s3://{server.new_bucket()}/x", "SWEEP_ARTIFACT_ENDPOINT": server.url}
        cluster = stack.enter_context(stopped_afterwards(Cluster(tmp_path, module_database_url, "none", environ)))
        pid = cluster.start_server().process.pid
        with httpx.Client(base_url=cluster.url, timeout=60, trust_env=False) as client:
            # What the server loads and allocates once is no growth.
            send_and_read(client, 16)
            forget_peak(pid)
            before = peak_mib(pid)
            send_and_read(client, n_mib)
        most = peak_mib(pid)
    assert most - before < GROWTH_MOST_MIB, f"{before:.0f} MiB before, {most:.0f} MiB at the most"
