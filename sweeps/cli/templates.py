"""The commented sweep.yaml that `sweep init` writes, begun with what the folder holds."""

import json
import re
from pathlib import Path
from typing import Final

import click

from sweeps.mlproject import EntryParameter, Project, find_mlproject, read_project

_SCRIPTS: Final = ("train.py", "main.py", "run.py")

SCHEMA_NAME: Final = "sweep.schema.json"
_HEAD: Final = f"""\
# yaml-language-server: $schema={SCHEMA_NAME}
# A sweep: what to run, over which parameters, how often. `sweep validate` checks this file, `sweep run` runs it.
name: {{name}}
"""

_PROGRAM: Final = """\
program: {program}               # run as: python {program} --lr=0.01 ...
"""

_COMPAT: Final = """\
compat: wandb                       # `import wandb` finds our stand-in; without this line, what is installed
"""

_ENTRY_POINT: Final = """\
entry_point: {entry_point}                   # of the MLproject beside this file
"""

_MIDDLE: Final = """\
method: bayes                       # grid | random | bayes
metric:
  name: loss                        # logged through mlflow or sweep_client, or printed as loss=0.123
  goal: minimize                    # minimize | maximize
"""

_PARAMETERS: Final = """\
parameters:
{parameters}
"""

_TAIL_OURS: Final = """\
limits:
  trials: 20
  parallel: 2                       # at a time
  # trial_time: 1h
# resources: {cpus: 2, memory: 4g}  # of one trial; image: "img:tag" runs it in a container
# retry: {max: 2, on: [out_of_memory, exit_75]}   # more attempts when your code fails; faults of the machinery are tried again anyway
# register: {model: my-model, artifact: model, alias: candidate}   # the winner, when the sweep has ended
"""

_TAIL_WANDB: Final = """\
run_cap: 20
"""

_DEFAULT_PARAMETERS: Final = """\
  lr: {distribution: log_uniform_values, min: 1.0e-5, max: 1.0e-1}
  layers: {values: [1, 2, 3]}"""


def starting_file(folder: Path, origin: str | None) -> str:
    """The text of a sweep.yaml for a folder.

    Args:
        folder: the project.
        origin: `mlproject` or `wandb` to insist on one; None begins with the MLproject if there is one.

    Raises:
        click.UsageError: an MLproject was asked for, and there is none.
        SpecProblems: the MLproject can't be read.
    """
    has_project = find_mlproject(folder) is not None
    if origin == "mlproject" and not has_project:
        raise click.UsageError(f"{folder} has no MLproject.")
    head = _HEAD.format(name=json.dumps(folder.resolve().name or "my-sweep"))
    if has_project and origin != "wandb":
        return head + _of_project(read_project(folder)) + _TAIL_OURS
    tail = _TAIL_WANDB if origin == "wandb" else _TAIL_OURS
    script = _script_in(folder)
    compat = _COMPAT if origin == "wandb" or _imports_wandb(folder / script) else ""
    return head + _PROGRAM.format(program=script) + compat + _MIDDLE + _PARAMETERS.format(parameters=_DEFAULT_PARAMETERS) + tail


def _of_project(project: Project) -> str:
    project.source.raise_problems()
    name = "main" if "main" in project.entry_points else next(iter(project.entry_points), "main")
    point = project.entry_points.get(name)
    lines = [_parameter_line(parameter) for parameter in point.parameters if parameter.default is not None or not parameter.optional] if point else []
    parameters = "\n".join(lines) or _DEFAULT_PARAMETERS
    return _ENTRY_POINT.format(entry_point=json.dumps(name)) + _MIDDLE + _PARAMETERS.format(parameters=parameters)


def _parameter_line(parameter: EntryParameter) -> str:
    """One parameter, a search range around a number's default."""
    name, default = json.dumps(parameter.name), parameter.default
    if parameter.type == "float" and isinstance(default, int | float) and not isinstance(default, bool) and default > 0:
        return f"  {name}: {{distribution: log_uniform_values, min: {float(default) / 10!r}, max: {float(default) * 10!r}}}"
    if default is not None:
        return f"  {name}: {{value: {json.dumps(default)}}}                 # the MLproject's default; give values, or min and max"
    return f"  {name}: {{values: []}}                 # required by the MLproject: give values, or min and max"


def _imports_wandb(script: Path) -> bool:
    """Whether a script needs `compat: wandb`, as far as a glance can tell."""
    return script.is_file() and re.search(r"^\s*(import|from) (.*, *)?wandb\b", script.read_text(encoding="utf-8", errors="replace"), re.MULTILINE) is not None


def script_is_missing(folder: Path, text: str) -> bool:
    """Whether a file that was begun for a folder names a script that is not there."""
    return "\nprogram: " in text and not (folder / _script_in(folder)).is_file()


def _script_in(folder: Path) -> str:
    scripts = sorted(path.name for path in folder.glob("*.py"))
    likely = [name for name in _SCRIPTS if name in scripts]
    return next(iter([*likely, *scripts]), "train.py")
