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
