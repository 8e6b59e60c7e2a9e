"""Several entry points of an MLproject in one sweep, by the parameter `entry_point`; and nested parameters in an MLproject's commands."""

import json
from pathlib import Path

import pytest
from msgspec.structs import replace

from sweeps.bounds import faults
from sweeps.command import EntryCommands, build_argv
from sweeps.distributions import Categorical, IntUniform
from sweeps.errors import SpecProblems
from sweeps.spec import parse_sweep
from sweeps.spec_config import SweepConfig

MLPROJECT = """\
entry_points:
  train:
    parameters: {lr: float, epochs: {type: int, default: 3}}
    command: python train.py --lr {lr} {epochs}
  train_big:
    parameters: {lr: float, depth: int, big: {type: string, default: "yes"}}
    command: python big.py {lr} --depth={depth} {big}
  named:
    parameters: {entry_point: string}
    command: python train.py {entry_point}
"""
GRID = "method: grid\nparameters:\n  lr: {values: [0.1]}\n"
CHOICE = "  entry_point: {values: [train, train_big]}\n"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project of three entry points, none of them `main`, and a script."""
    (tmp_path / "MLproject").write_text(MLPROJECT)
    (tmp_path / "eval.py").touch()
    return tmp_path


def read(text: str, project: Path) -> SweepConfig:
    """The config of a sweep file beside the project, as it comes back from the record."""
    config = parse_sweep(text, "sweep.yaml", project_dir=project)
    return SweepConfig.from_builtins(json.loads(json.dumps(config.to_builtins())))


def problems(text: str, project: Path) -> list[tuple[str, str, str]]:
    """Place, message and suggestion of everything that is wrong."""
    with pytest.raises(SpecProblems) as caught:
        parse_sweep(text, "sweep.yaml", project_dir=project)
    return [(problem.place.rpartition("/")[2].removeprefix("sweep.yaml:"), problem.message, problem.suggestion) for problem in caught.value.problems]


def test_entry_points_each_have_their_own_command_and_defaults(project: Path) -> None:
    """What an entry point does not declare is appended, as MLflow does; the choice itself is not passed on."""
    config = read(f"{GRID}{CHOICE}  depth: {{values: [2]}}\n", project)
    cells = [config.space.cell(index) for index in range(config.trials_max or 0)]
    assert [cell["entry_point"] for cell in cells] == ["train", "train_big"]
    assert [build_argv(config, cell) for cell in cells] == [
        ("python", "train.py", "--lr", "0.1", "3", "--depth", "2"),
        ("python", "big.py", "0.1", "--depth=2", "yes"),
    ]


def test_entry_points_may_be_scripts_or_one_alone(project: Path) -> None:
    """A file of the folder has no declared parameters; a constant chooses too."""
    config = read(GRID + "  entry_point: {values: [eval.py, train]}\n", project)
    assert [build_argv(config, config.space.cell(index))[:2] for index in range(2)] == [("python", "eval.py"), ("python", "train.py")]
    alone = read(GRID + "  entry_point: {value: train}\n", project)
    assert build_argv(alone, alone.space.cell(0)) == ("python", "train.py", "--lr", "0.1", "3")


def test_entry_points_are_checked_each(project: Path) -> None:
    """Unknown names where they stand, what each needs, and values of a wrong type once."""
    text = "method: grid\nparameters:\n  lr: {values: [low]}\n  entry_point:\n    values:\n      - train\n      - train_bg\n      - train_big\n      - 3\n"
    assert problems(text, project) == [
        ("2:1", "entry point 'train_big' needs 'depth', which 'parameters' does not give", ""),
        ("3:16", "'lr' is a float in the MLproject, and 'low' is not a number", ""),
        ("7:9", "there is no entry point 'train_bg' (there are: 'train', 'train_big', 'named')", "did you mean 'train_big'?"),
        ("9:9", "'entry_point' lists names of entry points, not a number", ""),
    ]


def test_entry_point_is_a_parameter_like_any_other_where_one_is_chosen(project: Path) -> None:
    """Where the file names its entry point, or its program, the parameter goes to the script."""
    chosen = read("method: grid\nentry_point: named\nparameters: {entry_point: {values: [x]}}\n", project)
    assert build_argv(chosen, {"entry_point": "x"}) == ("python", "train.py", "x")
    program = read("method: grid\nprogram: eval.py\nparameters: {entry_point: {values: [train]}}\n", project)
    assert build_argv(program, {"entry_point": "train"})[-1] == "--entry_point=train"
    (project / "MLproject").write_text(MLPROJECT.replace("named:", "main:"))
    declared = read("method: grid\nparameters: {entry_point: {values: [train]}}\n", project)
    assert build_argv(declared, {"entry_point": "train"}) == ("python", "train.py", "train")


def test_entry_points_of_a_client_are_not_trusted(project: Path) -> None:
    """A config whose choice has no command, or that has no choice, does not reach the record."""
    config = read(f"{GRID}{CHOICE}  depth: {{values: [2]}}\n", project)
    assert list(faults(config)) == []
    lr, choice, depth = config.parameters
    for parameters in ([lr, depth], [lr, depth, Categorical("entry_point", ("train", "gone"))], [lr, depth, IntUniform("entry_point", 1, 2)]):
        assert list(faults(replace(config, parameters=tuple(parameters))))
    assert isinstance(config.command, EntryCommands)
    assert list(faults(replace(config, command=EntryCommands({"train": config.command.points["train"]}))))
    assert choice == Categorical("entry_point", ("train", "train_big"))


def test_nested_parameters_have_names_with_dots_in_an_mlproject(project: Path) -> None:
    """In placeholders and in what is appended; the outermost name stands for all of them, as in W&B's arguments."""
    parameters = "method: grid\nparameters: {o: {parameters: {lr: {value: 0.1}, deep: {parameters: {x: {value: y z}}}}}}\n"
    for command, expected in (
        ("python train.py", ("--o.lr", "0.1", "--o.deep.x", "y z")),
        ("python train.py --lr={o.lr}", ("--lr=0.1", "--o.deep.x", "y z")),
        ("python train.py {o}", ("{'lr': 0.1, 'deep': {'x': 'y z'}}",)),
    ):
        (project / "MLproject").write_text(f"entry_points: {{main: {{command: '{command}'}}}}\n")
        config = read(parameters, project)
        assert list(faults(config)) == []
        assert build_argv(config, config.space.cell(0))[2:] == expected
