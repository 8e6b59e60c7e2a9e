"""Which release this is."""

from importlib import metadata
from typing import Final

DISTRIBUTION: Final = "sweep-runner"


def program_version() -> str:
    """The installed release, or `0+unknown` when run from a folder that was never installed."""
    try:
        return metadata.version(DISTRIBUTION)
    except metadata.PackageNotFoundError:
        return "0+unknown"
