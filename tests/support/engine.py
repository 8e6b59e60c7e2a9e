"""A Docker engine of a test's own, beside the machine's: stopped, killed, suspended and started again without disturbing anybody. Needs root."""

import contextlib
import os
import secrets
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tests.support.needs import missing, program
from tests.support.services import wait_until

if TYPE_CHECKING:
    from docker import DockerClient

ROOT: Final = Path(__file__).resolve().parents[2]
BASE_IMAGE: Final = "sweep-base"
_TRIES: Final = 3


class OwnEngine:
    """A dockerd with its own data, socket and bridge."""

    def __init__(self) -> None:
        if os.getuid() != 0:
            missing("Only root can start a container engine")
        self._dockerd = program("dockerd")
        # A socket's path may not be long.
        self.folder = Path(tempfile.mkdtemp(prefix="sweep-engine-"))
        self._bridge = f"swp{secrets.token_hex(4)}"
        self._process: subprocess.Popen[bytes] | None = None
        self._has_started = False
        ip = program("ip")
        subnet = f"172.29.{secrets.randbelow(250) + 1}.1/24"
        for words in (f"link add {self._bridge} type bridge", f"addr add {subnet} dev {self._bridge}", f"link set {self._bridge} up"):
            done = subprocess.run([ip, *words.split()], capture_output=True, check=False)
            if done.returncode != 0:
                missing(f"A network bridge can't be made: {done.stderr.decode()}")

    @property
    def url(self) -> str:
        """As DOCKER_HOST takes it."""
        return f"unix://{self.folder}/socket"

    def start(self, *, live_restore: bool = False) -> None:
        """Start it and wait until it answers.

        Args:
            live_restore: whether containers are to survive it.
        """
        # After a crash its containerd does not always come up at the first try.
        for n_left in reversed(range(_TRIES)):
            if self._try_to_start(live_restore=live_restore):
                self._has_started = True
                return
            problem = (self.folder / "log").read_text()[-500:]
            if not self._has_started:
                missing(f"A container engine of our own can't be started: {problem}")
            assert n_left, problem

    def _try_to_start(self, *, live_restore: bool) -> bool:
        arguments = f"--host {self.url} --data-root {self.folder}/data --exec-root {self.folder}/exec --pidfile {self.folder}/pid --bridge {self._bridge}"
        more = ["--iptables=false", "--ip-masq=false", *(["--live-restore"] if live_restore else [])]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [self._dockerd, *arguments.split(), *more], stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        process = self._process
        wait_until(lambda: process.poll() is not None or self._answers(), "the container engine answers")
        return process.poll() is None

    def stop(self) -> None:
        """End it as its service would: without live restore it ends its containers first."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it as a crash would."""
        self._end(signal.SIGKILL)

    def suspend(self) -> None:
        """Have it accept connections and never answer."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def wake(self) -> None:
        """Let it go on."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def load_base_image(self) -> None:
        """Have the image that container tests start from."""
        script = ["bash", str(ROOT / "deploy" / "base_image.sh")]
        done = subprocess.run(script, cwd=ROOT, env={**os.environ, "DOCKER_HOST": self.url}, capture_output=True, check=False)
        if done.returncode != 0:
            missing(f"The image {BASE_IMAGE} can't be made: {done.stderr.decode()[-500:]}")

    @contextlib.contextmanager
    def client(self) -> "Iterator[DockerClient]":
        """A client of this engine."""
        import docker

        opened = docker.DockerClient(base_url=self.url, timeout=60)
        try:
            yield opened
        finally:
            opened.close()

    def remove(self) -> None:
        """End it and what it runs, and leave no trace."""
        if self._process is not None:
            self.wake()
            self.stop()
        for pid in self._processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        mounted = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines() if line.split()[1].startswith(f"{self.folder}/")]
        for mount in reversed(mounted):
            subprocess.run(["umount", "--lazy", mount], check=False)
        subprocess.run(["ip", "link", "del", self._bridge], check=True)
        shutil.rmtree(self.folder)

    def _answers(self) -> bool:
        return subprocess.run(["docker", "--host", self.url, "version"], capture_output=True, check=False).returncode == 0

    def _end(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)
        self._process.wait(60)
        wait_until(lambda: "containerd" not in self._names(), "its containerd has ended with it")

    def _names(self) -> list[str]:
        found = []
        for pid in self._processes():
            with contextlib.suppress(OSError):
                found.append(Path(f"/proc/{pid}/comm").read_text().strip())
        return found

    def _processes(self) -> list[int]:
        """Whatever has our folder in its command line: containerd and its shims."""
        found = []
        for entry in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if os.fsencode(self.folder) in (entry / "cmdline").read_bytes() and int(entry.name) != os.getpid():
                    found.append(int(entry.name))
        return found
