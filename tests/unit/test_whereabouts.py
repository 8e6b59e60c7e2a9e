"""What is told of a path that leads to nothing: what was looked for, what is there, what to type."""

import json
from pathlib import Path

import pytest

import sweeps
from sweeps.cli import main
from sweeps.errors import SpecProblems


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a sweep file, a project, a file that is neither, and an archive; and one that is empty."""
    for name in ("wine", "bare"):
        (tmp_path / name).mkdir()
    (tmp_path / "wine" / "MLproject").write_text("entry_points: {main: {command: 'true'}}\n")
    (tmp_path / "digits.yaml").write_text("program: train.py\nmethod: grid\n")
    (tmp_path / "python_env.yaml").write_text("python: '3.11'\n")
    (tmp_path / "code.zip").touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("options", [[], ["-P", "a=1"], ["-e", "main"]])
@pytest.mark.parametrize(
    ("path", "message", "suggestion"),
    [
        ("digit.yaml", "there is no such file or folder in HERE", "did you mean 'digits.yaml'?"),
        ("train", "there is no such file or folder in HERE", "there are digits.yaml and wine"),
        ("bare/sweep.yaml", "there is no such file or folder in HERE/bare", "`sweep init bare` writes a sweep.yaml"),
        ("other.zip", "there is no such file or folder in HERE", "; an archive is not read in any case: run the folder that it is unpacked to"),
        ("code.zip", "an archive is not read by this version", "unpack it, then run the folder: `sweep run FOLDER`"),
        ("wint/sweep.yaml", "there is no such file or folder: 'wint' is not there", "did you mean 'wine'?"),
        ("digits.yaml/x", "there is no such file or folder: 'digits.yaml' is a file, not a folder", ""),
        ("github.com/a/b.git", "as the address of a repository it is not served by this version", "`git clone https://github.com/a/b.git`, then `sweep run b`"),
    ],
)
def test_cli_path_that_leads_nowhere_says_what_to_type(
    folder: Path, capsys: pytest.CaptureFixture[str], path: str, message: str, suggestion: str, options: list[str]
) -> None:
    """Whatever else was asked for: it is the path that is wrong."""
    assert main(["run", path, *options]) == 2
    told = capsys.readouterr().err
    assert told.startswith(f"{path}: error: ")
    assert message.replace("HERE", str(folder)) in told
    assert suggestion in told
    assert main(["validate", path, *options, "--json"]) == 2
    (problem,) = json.loads(capsys.readouterr().out)["errors"]
    assert (problem["filename"], message.replace("HERE", str(folder)) in problem["message"]) == (path, True)


def test_cli_folder_without_a_project_says_what_lies_below(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It is one folder too high, most often."""
    assert main(["run", "."]) == 2
    assert "neither a sweep.yaml nor an MLproject (there are digits.yaml and wine: `sweep run digits.yaml`)" in capsys.readouterr().err
    assert main(["run", str(folder / "bare")]) == 2
    assert f"`sweep init {folder / 'bare'}` writes a sweep.yaml" in capsys.readouterr().err


def test_python_path_that_leads_nowhere_is_told_as_on_the_command_line(folder: Path) -> None:
    """From Python the same sentence is the error's."""
    for path, message in (("digit.yaml", "no such file or folder"), (folder / "bare", "neither a sweep.yaml nor an MLproject")):
        with pytest.raises(SpecProblems, match=message):
            sweeps.submit(path, params={"a": 1})
