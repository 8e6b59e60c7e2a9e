"""Say from the inside of a container what it is allowed; standard library only."""

import argparse
import socket
from pathlib import Path

# cgroup v2, then v1.
LIMIT_FILES = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


def memory_limit():
    for path in LIMIT_FILES:
        try:
            return Path(path).read_text().strip()
        except OSError:
            continue
    return "unknown"


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--x", type=float, required=True)
    x = parser.parse_args().x
    print(f"host {socket.gethostname()}")
    print(f"memory_limit_bytes={memory_limit()} loss={(x - 1) ** 2}")
