"""MLflow itself, of two major versions, each in an environment of its own that `make peers` builds: its server, and scripts with its clients."""

import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from tests.support.cluster import answers
from tests.support.needs import missing
from tests.support.services import free_port, stop_process, wait_until
from tracking.store.database import normalise_url

ROOT: Final = Path(__file__).resolve().parents[2]
# MLflow's server waits for its database, migrates it through some seventy versions and imports pandas before it answers.
START_S: Final = 180.0

Major = Literal[2, 3]


@dataclass(frozen=True, slots=True)
class MlflowEnvironment:
    """Where one major version of MLflow is installed."""

    major: Major

    @property
    def folder(self) -> Path:
        """The virtual environment."""
        return ROOT / ".cache" / ("mlflow-venv" if self.major == 3 else "mlflow2-venv")

    @property
    def pins(self) -> Path:
        """The versions it is made of."""
        return ROOT / "tests" / "peers" / f"mlflow{self.major}.txt"

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return self.folder / "bin" / "python"

    @property
    def is_there(self) -> bool:
        """Whether it is installed, of just these versions."""
        stamp = self.folder / ".installed"
        return stamp.exists() and stamp.read_text(encoding="utf-8") == self.pins.read_text(encoding="utf-8")

    def require(self) -> "MlflowEnvironment":
        """Itself, if it is there; else the test ends: skipped, or failed where nothing may be missing."""
        if not self.is_there:
            missing(f"MLflow {self.major} is not installed, to be compared with (make peers)")
        return self

    def environ(self, home: Path, **more: str) -> dict[str, str]:
        """Variables for its programs: nothing of ours, no proxy, nothing sent to anybody but the server that is named."""
        return {
            "PATH": os.pathsep.join([str(self.folder / "bin"), os.defpath]),
            "HOME": str(home),
            "LANG": "C.UTF-8",
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "DO_NOT_TRACK": "true",
            "GIT_PYTHON_REFRESH": "quiet",
            # A refusal that the client would retry for minutes fails a test in seconds.
            "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
            **more,
        }

    def start_script(self, script: Path, server_url: str, home: Path, *arguments: str, **environ: str) -> "subprocess.Popen[str]":
        """Start an unedited script against a server."""
        command: Sequence[str | Path] = [self.python, "-I", script, *arguments]
        variables = self.environ(home, MLFLOW_TRACKING_URI=server_url, **environ)
        return subprocess.Popen(
            command, cwd=home, env=variables, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, encoding="utf-8"
        )

    def run_script(self, script: Path, server_url: str, home: Path, *arguments: str, timeout_s: float = 240.0, **environ: str) -> str:
        """Run an unedited script against a server; what it printed.

        Raises:
            AssertionError: it failed; with what it said.
        """
        with self.start_script(script, server_url, home, *arguments, **environ) as process:
            return finish_script(process, timeout_s=timeout_s)


def finish_script(process: "subprocess.Popen[str]", *, timeout_s: float = 240.0) -> str:
    """Wait for a script; what it printed.

    Raises:
        AssertionError: it failed; with what it said.
    """
    try:
        out, err = process.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        process.kill()
        out, err = process.communicate()
    if process.returncode != 0:
        raise AssertionError(f"{process.args!r} ended with {process.returncode}:\n{out[-4000:]}\n{err[-8000:]}")
    return out


class MlflowServer:
    """`mlflow server` 3 on a database of its own, on loopback, without its jobs.

    Args:
        folder: for its artifacts, its home and its log.
        database_url: of an empty database, or one that it has filled before.
        workers: processes that answer requests.
    """

    def __init__(self, folder: Path, database_url: str, *, workers: int = 1) -> None:
        self.folder = folder
        self.port = free_port()
        self.workers = workers
        self.log_file = folder / "mlflow-server.log"
        # The driver is named: without one its SQLAlchemy would look for another.
        self._database_url = normalise_url(database_url)
        self._environment = MlflowEnvironment(3)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """Of its first process."""
        if self._process is None:
            raise AssertionError("this server was never started")
        return self._process.pid

    def start(self) -> None:
        """Start it and wait until it answers."""
        home = self.folder / "mlflow-home"
        home.mkdir(exist_ok=True)
        command: list[str | Path] = [
            self._environment.folder / "bin" / "mlflow",
            "server",
            "--host",
            "127.0.0.1",
            "--port",
            str(self.port),
            "--workers",
            str(self.workers),
        ]
        command += ["--backend-store-uri", self._database_url, "--artifacts-destination", str(self.folder / "mlflow-artifacts")]
        environ = self._environment.environ(home, MLFLOW_SERVER_ENABLE_JOB_EXECUTION="false")
        with self.log_file.open("ab") as log:
            self._process = subprocess.Popen(command, cwd=home, env=environ, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        wait_until(self._answers, "mlflow server answers", deadline_s=START_S, interval_s=0.2)

    def stop(self) -> None:
        """Stop it and what it has started."""
        if self._process is not None:
            stop_process(self._process)
            self._process = None

    def log(self) -> str:
        """What it said last."""
        return self.log_file.read_text(encoding="utf-8", errors="replace")[-8000:]

    def _answers(self) -> bool:
        if self._process is not None and self._process.poll() is not None:
            raise AssertionError(f"mlflow server ended with {self._process.returncode}:\n{self.log()}")
        return answers(f"{self.url}/health")


@contextmanager
def mlflow_server(folder: Path, database_url: str, *, workers: int = 1) -> Iterator[MlflowServer]:
    """A running one."""
    server = MlflowServer(folder, database_url, workers=workers)
    server.start()
    try:
        yield server
    finally:
        server.stop()
