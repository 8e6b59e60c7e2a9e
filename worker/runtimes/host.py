"""Which life of which machine this is: when it changed, every process of the earlier one has ended (D5)."""

import socket
from functools import cache
from pathlib import Path


@cache
def host_incarnation() -> str:
    """Machine id, boot id and process namespace, in one word.

    A namespace is known by its number and by when its first process started: a restarted container may get the number of the
    one before it. Where the system does not tell (no /proc), the machine's name has to do.
    """
    return ".".join((_machine_id(), _read("/proc/sys/kernel/random/boot_id") or "boot", _process_namespace()))


def machine_life(incarnation: str) -> str:
    """What of an incarnation is the machine's, which a worker that is restarted in its own container shares with the one before it."""
    return incarnation.rpartition(".")[0]


def process_start(pid: int) -> int | None:
    """When a process started, in clock ticks since boot; None if there is no such process or no way to know."""
    stat = _read(f"/proc/{pid}/stat")
    # The second field, the command's name, may itself hold spaces and parentheses.
    return int(stat.rpartition(")")[2].split()[19]) if stat else None


def _machine_id() -> str:
    return _read("/etc/machine-id") or socket.gethostname()


def _process_namespace() -> str:
    try:
        number = Path("/proc/self/ns/pid").stat().st_ino
    except OSError:
        return "0"
    return f"{number}-{process_start(1)}"


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except OSError:
        return ""
