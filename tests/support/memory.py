"""What processes have for themselves, of the kernel."""

from pathlib import Path


def family_bytes(pid: int) -> int:
    """The memory of a process and its descendants; what forked ones have in common counts once."""
    return sum(map(_own_bytes, _family(pid)))


def _family(pid: int) -> list[int]:
    try:
        children = [int(child) for task in Path(f"/proc/{pid}/task").iterdir() for child in (task / "children").read_text(encoding="ascii").split()]
    except OSError:
        return []  # it has ended
    return [pid, *(each for child in children for each in _family(child))]


def _own_bytes(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0  # it has ended
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:")), 0)
