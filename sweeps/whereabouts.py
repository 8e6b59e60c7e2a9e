"""Paths that lead to nothing that could be submitted: what was looked for, what is there instead, what to type."""

import os
import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Final

from sweeps.errors import Problem, SpecProblems
from sweeps.spec_source import did_you_mean
from sweeps.wording import listed

FILE_NAME: Final = "sweep.yaml"
_ARCHIVES: Final = (".zip", ".tar", ".tgz", ".gz", ".bz2", ".xz", ".zst", ".7z", ".whl")
_HOST: Final = r"(www\.)?((github|gitlab|bitbucket|codeberg|git)\.[\w.-]+|huggingface\.co)/\w"
_KEYS: Final = r"^(method|parameters|program|command)[ \t]*:"
"""Of a sweep file each has at least one, and few other files do."""
_LOOKED_AT: Final = 1000
_READ_BYTES: Final = 64 * 1024


def is_archive(path: Path) -> bool:
    """Whether a path is named as archives are."""
    return path.suffix.lower() in _ARCHIVES


def why_no_place(path: Path) -> SpecProblems:
    """What to say of a path where nothing is, or an archive."""
    name = str(path)
    if path.exists():
        return _problem(name, "an archive is not read by this version", "unpack it, then run the folder: `sweep run FOLDER`")
    if re.match(_HOST, name):
        folder = path.name.removesuffix(".git")
        how = f"`git clone https://{name}`, then `sweep run {folder}`"
        return _problem(name, "there is no such file or folder; as the address of a repository it is not served by this version", how)
    parent = path.parent
    if not parent.is_dir():
        lacking = next((folder for folder in reversed(path.parents) if not folder.is_dir()), parent)
        what = "is a file, not a folder" if lacking.exists() else "is not there"
        return _problem(name, f"there is no such file or folder: '{lacking}' {what}", _instead(lacking.parent, lacking.name))
    suggestion = _instead(parent, path.name) or f"`sweep init {parent}` writes a {FILE_NAME}"
    unpacked = "; an archive is not read in any case: run the folder that it is unpacked to" if is_archive(path) else ""
    return _problem(name, f"there is no such file or folder in {parent.absolute()}", suggestion + unpacked)


def why_no_project(folder: Path) -> SpecProblems:
    """What to say of a folder that has nothing to run."""
    found = sorted(_runnable(folder))
    how = f"there are {listed(found)}: `sweep run {found[0]}`" if found else f"`sweep init {folder}` writes a {FILE_NAME}"
    return _problem(str(folder), f"the folder has neither a {FILE_NAME} nor an MLproject", how)


def _problem(name: str, message: str, suggestion: str) -> SpecProblems:
    return SpecProblems([Problem(message, name, suggestion=suggestion)])


def _instead(folder: Path, name: str) -> str:
    """The nearest name in a folder, or else what could be run there."""
    near = did_you_mean(name, [entry.name for entry in _entries(folder)])
    found = [] if near else sorted(_runnable(folder))
    return near or (f"there are {listed(found)}" if found else "")


def _runnable(folder: Path) -> Iterator[str]:
    """The sweep files and the project folders right below a folder."""
    for entry in _entries(folder):
        is_project = any(os.path.isfile(f"{entry.path}/{name}") for name in (FILE_NAME, "MLproject"))  # noqa: PTH113 - False where a Path raises
        if is_project or (entry.name.endswith((".yaml", ".yml")) and entry.is_file() and _is_sweep_file(entry.path)):
            yield str(folder / entry.name)


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return [entry for entry in islice(entries, _LOOKED_AT) if not entry.name.startswith(".")]
    except OSError:
        return []  # a folder that may not be read has nothing to offer


def _is_sweep_file(path: str) -> bool:
    try:
        with open(path, "rb") as file:  # noqa: PTH123 - scandir gives names
            return re.search(_KEYS.encode(), file.read(_READ_BYTES), re.MULTILINE) is not None
    except OSError:
        return False  # the same
