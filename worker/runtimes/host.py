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
    fields = _facts(pid)
    return int(fields[19]) if fields else None


def process_state(pid: int) -> str:
    """What a process does: `T` suspended, `t` held by whoever traces it, other letters as in proc(5); nothing if there is no such process."""
    fields = _facts(pid)
    return fields[0] if fields else ""


def parent_of(pid: int) -> int:
    """The parent of a process; 0 if there is no such process."""
    fields = _facts(pid)
    return int(fields[1]) if fields else 0


def _facts(pid: int) -> list[str]:
    # The second field, the command's name, may itself hold spaces and parentheses.
    return _read(f"/proc/{pid}/stat").rpartition(")")[2].split()


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
        return Path(path).read_text(encoding="utf-8", errors="replace").strip()
    except (FileNotFoundError, NotADirectoryError, ProcessLookupError, PermissionError):
        # All else, such as a lack of descriptors, says nothing about the machine or the process.
        return ""
