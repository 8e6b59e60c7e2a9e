"""What to do when a service is missing: skip on a laptop, saying why; fail in continuous integration."""

import os
import shutil
from pathlib import Path
from typing import Final, NoReturn

import pytest

IN_CI: Final = os.environ.get("CI") == "true"


def missing(reason: str) -> NoReturn:
    """End the test: it needs something that is not here.

    Args:
        reason: what is missing, and how to get it.
    """
    if IN_CI:
        pytest.fail(f"{reason} (CI=true: nothing may be missing)", pytrace=False)
    pytest.skip(reason)


def program(name: str, *, hint: str = "make services") -> str:
    """Path of a program, also from the folders that only root has on its PATH."""
    found = shutil.which(name, path=os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"]))
    if found is None:
        missing(f"{Path(name).name} is not installed ({hint})")
    return found


def root(why: str) -> None:
    """Go on only as root.

    Args:
        why: what that is needed for.
    """
    if os.geteuid() != 0:
        missing(f"root is needed {why}")
