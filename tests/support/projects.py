"""Small projects that tests submit: a folder with a sweep file and, mostly, a program beside it."""

from pathlib import Path
from typing import Any, Final

import yaml

SHELL: Final = ["/bin/sh", "${program}"]
"""A `command` for shell scripts: they start in a millisecond, where Python takes twenty."""


def write_project(folder: Path, program: str | None = None, **keys: Any) -> Path:
    """Write `folder/sweep.yaml`, and the program that it names; a random search of one trial unless `keys` say otherwise.

    Args:
        program: text of `program.py`, or of `program.sh` where the command is `SHELL`.
        keys: of the sweep file.
    """
    folder.mkdir(parents=True, exist_ok=True)
    sweep: dict[str, Any] = {"name": folder.name, "method": "random", "parameters": {"x": {"min": 0.0, "max": 1.0}}, "limits": {"trials": 1}}
    if program is not None:
        sweep["program"] = "program.sh" if keys.get("command") == SHELL else "program.py"
        (folder / sweep["program"]).write_text(program, encoding="utf-8")
    file = folder / "sweep.yaml"
    file.write_text(yaml.safe_dump(sweep | keys, sort_keys=False), encoding="utf-8")
    return file
