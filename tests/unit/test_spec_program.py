"""Where a sweep file's program is looked for."""

from pathlib import Path

import pytest

from sweeps.errors import SpecProblems
from sweeps.spec import load_sweep


@pytest.mark.parametrize(
    ("folder", "program", "suggestion"),
    [
        ("sweeps", "train.py", "add 'code: ..'"),
        ("configs/sweeps", "train.py", "add 'code: ../..'"),
        ("sweeps", "sweeps/fit.py", "add 'code: ..'"),
        ("sweeps", "fti.py", "did you mean 'fit.py'?"),
        ("a/b/c/d", "train.py", ""),
    ],
)
def test_spec_program_of_a_folder_above_is_told_with_the_code_it_needs(tmp_path: Path, folder: str, program: str, suggestion: str) -> None:
    """W&B's agent takes programs from where it is started, so sweep files of a folder of their own name them from there; with that `code` it is found."""
    for file in ("train.py", "sweeps/fit.py", f"{folder}/sweep.yaml"):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).touch()
    file, text = tmp_path / folder / "sweep.yaml", f"program: {program}\nmethod: grid\nparameters: {{lr: {{values: [1]}}}}\n"
    file.write_text(text)
    with pytest.raises(SpecProblems) as caught:
        load_sweep(file)
    (problem,) = caught.value.problems
    assert (problem.message, problem.suggestion) == (f"there is no file '{program}' in the project folder", suggestion)
    if suggestion.startswith("add"):
        file.write_text(text + suggestion.removeprefix("add ").strip("'") + "\n")
        assert load_sweep(file).folder.resolve() == tmp_path


@pytest.mark.parametrize("program", [".", "./", "src/..", "src"])
def test_spec_program_that_is_a_folder_is_told(tmp_path: Path, program: str) -> None:
    """Python can't run a folder without a `__main__.py`."""
    (tmp_path / "src").mkdir()
    file = tmp_path / "sweep.yaml"
    file.write_text(f"program: {program}\nmethod: grid\nparameters: {{lr: {{values: [1]}}}}\n")
    with pytest.raises(SpecProblems) as caught:
        load_sweep(file)
    (problem,) = caught.value.problems
    assert (problem.line, problem.column, problem.message) == (1, 10, f"'{program}' is a folder, not a script")
    (tmp_path / program / "__main__.py").touch()
    assert load_sweep(file).config.command.program == program  # type: ignore[union-attr]


def test_spec_program_that_is_a_folder_is_for_a_command_of_ones_own_to_know(tmp_path: Path) -> None:
    """`node .` runs one."""
    file = tmp_path / "sweep.yaml"
    file.write_text('program: .\ncommand: [node, "${program}"]\nmethod: grid\nparameters: {lr: {values: [1]}}\n')
    assert load_sweep(file).config.command.words == ("node", "${program}")  # type: ignore[union-attr]
