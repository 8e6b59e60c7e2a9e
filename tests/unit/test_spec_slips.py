"""Slips of the pen in sweep files and on the command line: each is told as what it is, with what to write."""

import json
from pathlib import Path

import pytest

from sweeps.cli import main
from sweeps.errors import Problem, SpecProblems
from sweeps.notes import notes
from sweeps.spec import load_project, load_sweep, parse_sweep

HEAD = "program: t.py\nmethod: random\nparameters: {x: {value: 1}}\n"
MLPROJECT = "entry_points:\n  main:\n    parameters: {max_iter: int, lr: {type: float, default: 0.1}}\n    command: python t.py {max_iter} {lr}\n"


def problem_of(text: str) -> Problem:
    """The one thing that is wrong with a text."""
    with pytest.raises(SpecProblems) as caught:
        parse_sweep(text, "s.yaml", project_dir=None)
    (problem,) = caught.value.problems
    return problem


@pytest.mark.parametrize(
    ("line", "suggestion"),
    [
        ("metric: loss", "write {name: loss}"),
        ("register: m", "write {model: m}"),
        ("retry: 2", "write {max: 2}"),
        ("limits: 20", "write {trials: 20}"),
        ("metric: [loss]", ""),
        ("resources: 2", ""),
    ],
)
def test_spec_word_in_place_of_a_section_is_told_how_to_be_written(line: str, suggestion: str) -> None:
    """Where one word can only be meant for one key, that is written out."""
    problem = problem_of(HEAD + line + "\n")
    assert f"'{line.partition(':')[0]}' is a mapping, not" in problem.message
    assert (problem.line, problem.suggestion) == (4, suggestion)


def test_spec_strategy_of_one_word_is_told_how_to_be_written() -> None:
    """Beside what is wrong without a method."""
    with pytest.raises(SpecProblems) as caught:
        parse_sweep(HEAD.replace("method: random\n", "strategy: tpe\n"), "s.yaml", project_dir=None)
    assert "write {name: tpe}" in [problem.suggestion for problem in caught.value.problems]


@pytest.mark.parametrize(
    ("text", "place", "width", "suggestion"),
    [
        ("program: t.py\nmethod:grid\nparameters:\n  x: {value: 1}\n", (2, 1), 11, "write 'method: grid'"),
        ("method:grid\nprogram: t.py\n", (1, 1), 11, "write 'method: grid'"),
        ("program: t.py\nmethod:grid\n", (2, 1), 11, "write 'method: grid'"),
        ("parameters:\n  x:\n    min:1 # one\n    max: 2\n", (3, 5), 5, "write 'min: 1'"),
        ("command:\n  - b:1\n    c: 2\n", (2, 5), 3, "write 'b: 1'"),
        ("name: a\nurl:http://x\nb: 2\n", (2, 1), 12, "write 'url: http://x'"),
    ],
)
def test_spec_colon_without_a_space_is_told_on_its_own_line(text: str, place: tuple[int, int], width: int, suggestion: str) -> None:
    """The parser trips over the next line; the slip is above."""
    problem = problem_of(text)
    assert ((problem.line, problem.column), problem.width, problem.suggestion) == (place, width, suggestion)
    assert "has no space after it" in problem.message


def test_spec_line_without_colon_is_told_as_ever() -> None:
    """Text of two lines is no key whose space is missing."""
    assert problem_of("program\nmethod: grid\n").suggestion == "line 1 has no ':'"


@pytest.mark.parametrize(
    ("distribution", "low", "high", "told"),
    [
        ("log_uniform", "1e-5", "1e-3", "log_uniform's bounds are exponents of e: values from 1.00001 to 1.001; did you mean log_uniform_values?"),
        ("q_log_uniform", "0.01", "1", "q_log_uniform's bounds are exponents of e: values from 1.01005 to 2.71828; did you mean q_log_uniform_values?"),
        ("inv_log_uniform", "0.01", "1", "inv_log_uniform's bounds are exponents of e: values from 0.367879 to 0.99005; did you mean inv_log_uniform_values?"),
        ("log_uniform", "-11.5", "-2.3", None),
        ("log_uniform", "0", "5", None),
        ("log_uniform", "0.05", "0.2", None),
        ("log_uniform_values", "1e-5", "1e-3", None),
    ],
)
def test_spec_exponents_that_look_like_values_are_noted(distribution: str, low: str, high: str, told: str | None) -> None:
    """The classic slip is no error, for it may be meant."""
    text = f"program: t.py\nmethod: random\nparameters:\n  lr: {{distribution: {distribution}, min: {low}, max: {high}}}\n"
    assert notes(parse_sweep(text, "s.yaml", project_dir=None)) == ([f"parameter 'lr': {told}"] if told else [])


def test_cli_validate_tells_notes_and_is_content(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """On standard error for people, as a field of the object for programs."""
    (tmp_path / "t.py").touch()
    (tmp_path / "sweep.yaml").write_text("program: t.py\nmethod: random\nparameters: {lr: {distribution: log_uniform, min: 1e-5, max: 1e-3}}\n")
    for arguments in ([], ["--json"]):
        assert main(["validate", str(tmp_path), *arguments]) == 0
        said = capsys.readouterr()
        assert "did you mean log_uniform_values?" in said.err
        told = json.loads(said.out)["notes"] if arguments else [said.out]
        assert [text.startswith("parameter 'lr': log_uniform's") for text in told] == [bool(arguments)]
        assert ("did you mean log_uniform_values?" in told[0]) is bool(arguments)


@pytest.mark.parametrize(
    ("params", "message", "suggestion"),
    [
        ({"maxiter": "3"}, "entry point 'main' needs 'max_iter': give it with -P max_iter=VALUE", "'maxiter' is given: did you mean 'max_iter'?"),
        ({}, "entry point 'main' needs 'max_iter': give it with -P max_iter=VALUE", ""),
        # What the entry point knows is not meant for another.
        ({"lr": "3"}, "entry point 'main' needs 'max_iter': give it with -P max_iter=VALUE", ""),
    ],
)
def test_project_run_that_lacks_a_parameter_says_how_to_give_it(tmp_path: Path, params: dict[str, str], message: str, suggestion: str) -> None:
    """There is no file whose `parameters` could lack it; the name that is suggested is the one that the project declares."""
    (tmp_path / "MLproject").write_text(MLPROJECT)
    with pytest.raises(SpecProblems) as caught:
        load_project(tmp_path, params=params)
    (problem,) = caught.value.problems
    assert (problem.message, problem.suggestion) == (message, suggestion)


def test_sweep_file_that_lacks_a_parameter_is_told_the_declared_name(tmp_path: Path) -> None:
    """In a sweep file the same slip is one of `parameters`."""
    (tmp_path / "MLproject").write_text(MLPROJECT)
    (tmp_path / "sweep.yaml").write_text("method: grid\nparameters: {maxiter: {values: [1]}}\n")
    with pytest.raises(SpecProblems) as caught:
        load_sweep(tmp_path / "sweep.yaml")
    (problem,) = caught.value.problems
    assert problem.message == "entry point 'main' needs 'max_iter', which 'parameters' does not give"
    assert problem.suggestion == "'maxiter' is given: did you mean 'max_iter'?"


@pytest.mark.parametrize("address", ["https://github.com/x/y", "git+https://github.com/x/y#sub", "git@host:x", "ssh://git@host/x", "file:///tmp/x"])
@pytest.mark.parametrize("params", [[], ["-P", "a=1"]])
def test_cli_address_of_a_project_is_told_to_be_cloned(capsys: pytest.CaptureFixture[str], address: str, params: list[str]) -> None:
    """What `mlflow run` would fetch is no file that can't be read."""
    assert main(["run", address, *params]) == 2
    assert "not served by this version: clone it, then run its folder" in " ".join(capsys.readouterr().err.split())


def test_cli_mlproject_in_place_of_its_folder_is_told_what_to_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its keys would all be wrong in a sweep file."""
    (tmp_path / "MLproject").write_text(MLPROJECT)
    assert main(["run", str(tmp_path / "MLproject")]) == 2
    assert f"run its folder: `sweep run {tmp_path}`" in capsys.readouterr().err


APPENDED = "parameter 'aplha' is not in the entry point, and is appended to the command as --aplha; 'alpha' was probably meant, which keeps its default, 0.5"


@pytest.mark.parametrize(
    ("params", "told"),
    [
        (["aplha=0.1"], [APPENDED]),
        (["Alpha=0.1"], [APPENDED.replace("aplha", "Alpha")]),
        # Both: the one that is appended is meant.
        (["aplha=0.1", "alpha=0.2"], []),
        (["beta=0.1"], []),
        (["alpha=0.1"], []),
    ],
)
def test_cli_parameter_near_one_with_a_default_is_noted_and_appended(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], params: list[str], told: list[str]
) -> None:
    """MLflow appends what the entry point does not declare, without a word; so do we, with one."""
    (tmp_path / "MLproject").write_text("entry_points:\n  main:\n    parameters: {alpha: {type: float, default: 0.5}}\n    command: python t.py {alpha}\n")
    assert main(["validate", str(tmp_path), *(f"-P{param}" for param in params), "--json"]) == 0
    said = capsys.readouterr()
    plan = json.loads(said.out)
    assert plan["notes"] == told
    assert said.err == "".join(f"note: {text}\n" for text in told)
    name, _, value = params[0].partition("=")
    assert plan["commands"][0] == (["python", "t.py", "0.1"] if name == "alpha" else ["python", "t.py", plan["commands"][0][2], f"--{name}", value])


def test_sweep_file_with_a_parameter_near_one_with_a_default_is_noted(tmp_path: Path) -> None:
    """The same in a sweep file; of several entry points one that declares it is enough, and nested ones go by their outermost name."""
    points = "entry_points:\n  main:\n    parameters: {alpha: {default: 0.5}, opt: {default: ''}}\n    command: python t.py {alpha} {opt}\n"
    (tmp_path / "MLproject").write_text(points + "  other:\n    parameters: {alpah: {default: 1}}\n    command: python t.py {alpah}\n")
    file = tmp_path / "sweep.yaml"
    for text, found in (
        ("parameters: {aplha: {values: [1]}, opt: {parameters: {alph: {value: 1}}}}", ["aplha"]),
        ("parameters: {entry_point: {values: [main, other]}, alpah: {value: 1}}", []),
        ("parameters: {entry_point: {values: [main, other]}, alfa: {value: 1}, alhpa: {value: 1}}", ["alhpa"]),
    ):
        file.write_text(f"method: grid\n{text}\n")
        assert [note.split("'")[1] for note in notes(load_sweep(file).config)] == found
