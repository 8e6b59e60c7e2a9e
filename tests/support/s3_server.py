"""A store that speaks S3's protocol, on loopback: moto's server, in a process of its own."""

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import httpx

from tests.support.services import free_port, stop_process, wait_until
from tracking.ids import new_uuid

CREDENTIALS: Final[Mapping[str, str]] = {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_DEFAULT_REGION": "us-east-1",
    # Nobody's own files and roles, and no question to the metadata service of a cloud.
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    "AWS_EC2_METADATA_DISABLED": "true",
}
"""Any are good enough for moto."""


@dataclass(frozen=True, slots=True)
class S3Server:
    """A running one."""

    url: str
    process: "subprocess.Popen[bytes]"

    def new_bucket(self) -> str:
        """A bucket of this test alone; its name."""
        bucket = f"b-{new_uuid()}"
        httpx.put(f"{self.url}/{bucket}", trust_env=False).raise_for_status()
        return bucket

    def get(self, bucket: str, query: str = "") -> str:
        """What the server says of a bucket, as S3 writes it."""
        return httpx.get(f"{self.url}/{bucket}?{query}", trust_env=False).raise_for_status().text

    def unfinished(self, bucket: str) -> int:
        """How many uploads in parts have neither been completed nor aborted."""
        return self.get(bucket, "uploads").count("<UploadId>")


@contextmanager
def s3_server(folder: Path) -> Iterator[S3Server]:
    """Start one; its log is in the folder."""
    port = free_port()
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    log_file = folder / "moto.log"
    with log_file.open("wb") as log:
        process = subprocess.Popen(command, cwd=folder, env={**os.environ, **CREDENTIALS}, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    server = S3Server(f"http://127.0.0.1:{port}", process)

    def answers() -> bool:
        if process.poll() is not None:
            raise AssertionError(f"moto's server ended: {log_file.read_text(errors='replace')[-4000:]}")
        try:
            return httpx.get(server.url, trust_env=False).is_success
        except httpx.TransportError:
            return False

    try:
        wait_until(answers, "moto's server answers")
        yield server
    finally:
        stop_process(process)
