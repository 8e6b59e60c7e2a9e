"""A project's `python_env.yaml` is checked where its MLproject is: before anything is sent."""

from pathlib import Path

import pytest

from sweeps.errors import SpecProblems
from sweeps.spec import load_project

MLPROJECT = "python_env: env/python_env.yaml\nentry_points: {main: {command: 'true'}}\n"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """The environment's file of a project."""
    (tmp_path / "env").mkdir()
    (tmp_path / "MLproject").write_text(MLPROJECT)
    return tmp_path / "env/python_env.yaml"


@pytest.mark.parametrize(
    ("text", "place", "message", "suggestion"),
    [
        ("pyhton: '3.11'\n", ":1:1", "unknown key 'pyhton'", "did you mean 'python'?"),
        ("python: '3.11'\ndependecies:\n  - numpy\n", ":2:1", "unknown key 'dependecies'", "did you mean 'dependencies'?"),
        ("dependencies: numpy\n", ":1:15", "'dependencies' is a list of requirements, not text", ""),
        ("dependencies:\n  - numpy\n  - pip: [torch]\n", ":3:5", "'dependencies' lists requirements, not a mapping", ""),
        ("python: 3.10\n", ":1:9", "'python: 3.10' reads as 3.1", 'write "3.10"'),
        ("python: '>=3.9'\n", ":1:9", "'python' is a version, not '>=3.9'", "write it as in '3.11'"),
        ("- numpy\n", ":1:1", "'env/python_env.yaml' is a mapping with 'python' and 'dependencies', not a list", ""),
        ("python:3.11\ndependencies: [numpy]\n", ":1:1", "'python:' has no space after it, and is no key", "write 'python: 3.11'"),
    ],
)
def test_python_env_problem_is_told_with_its_place(file: Path, text: str, place: str, message: str, suggestion: str) -> None:
    """Of a file that a worker would refuse when the trial starts."""
    file.write_text(text)
    with pytest.raises(SpecProblems) as caught:
        load_project(file.parents[1])
    (problem,) = caught.value.problems
    assert (problem.place, problem.message, problem.suggestion) == (str(file) + place, message, suggestion)


def test_python_env_problems_stand_beside_those_of_the_mlproject(file: Path) -> None:
    """All of them at once, each with its file."""
    file.write_text("pyhton: 3\n")
    (file.parents[1] / "MLproject").write_text(MLPROJECT + "nmae: x\n")
    with pytest.raises(SpecProblems) as caught:
        load_project(file.parents[1])
    assert [Path(problem.filename).name for problem in caught.value.problems] == ["MLproject", "python_env.yaml"]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "# nothing yet\n",
        "---\n",
        "python: '3.11'\nbuild_dependencies: [pip]\ndependencies:\n  - numpy>=2\n  - -r requirements.txt\n",
        "python: 3.11\nname: x\n",
    ],
)
def test_python_env_that_can_be_built_is_taken(file: Path, text: str) -> None:
    """Nothing is asked that a worker does not ask."""
    file.with_name("requirements.txt").write_text("# torch\nscipy \\\n  >=1\n")
    file.write_text(text)
    assert load_project(file.parents[1]).config.environment.path == "env/python_env.yaml"


@pytest.mark.parametrize(
    ("requirement", "listing", "place", "message"),
    [
        ("-r nothing.txt", "", "python_env.yaml:3:5", "the project has no requirements file 'nothing.txt'"),
        ("-r ../MLproject", "", "python_env.yaml:3:5", "the requirements file '../MLproject' lies outside 'env', the folder of the python_env file"),
        ("-e .", "", "python_env.yaml:3:5", "the dependency `-e .` is a local folder or file, and environments are shared between attempts"),
        ("./lib", "", "python_env.yaml:3:5", "the dependency `./lib` is a local folder or file, and environments are shared between attempts"),
        ("-c versions.txt", "", "python_env.yaml:3:5", "constraint files (`-c versions.txt`) are not supported"),
        ("-r list.txt", "torch\nscipy \\\n>=1\n-r more.txt\n", "list.txt:4:1", "the project has no requirements file 'more.txt'"),
        (
            "-r list.txt",
            "torch\n\n--editable ../x  # ours\n",
            "list.txt:3:1",
            "the dependency `--editable ../x` is a local folder or file, and environments are shared between attempts",
        ),
        ("-r list.txt", "-r deep.txt\n", "deep.txt:2:1", "the dependency `-e .` is a local folder or file"),
        ("-r list.txt", "-r ./list.txt\n", "list.txt:1:1", "the requirements file './list.txt' includes itself"),
        ("-r list.txt", "caf\udce9\n", "python_env.yaml:3:5", "the requirements file 'list.txt' can't be read"),
    ],
)
def test_python_env_requirement_that_no_worker_takes_is_told_with_its_place(file: Path, requirement: str, listing: str, place: str, message: str) -> None:
    """In the file that has to be changed, before anything is sent: not by a worker, when the first trial starts."""
    file.write_text(f"dependencies:\n  - numpy\n  - {requirement}\n")
    file.with_name("deep.txt").write_text("torch\n-e .\n")
    file.with_name("list.txt").write_text(listing, errors="surrogateescape")
    with pytest.raises(SpecProblems) as caught:
        load_project(file.parents[1])
    (problem,) = caught.value.problems
    assert problem.place == f"{file.parent}/{place}"
    assert problem.message.startswith(message)


def test_python_env_found_by_itself_is_checked_too(tmp_path: Path) -> None:
    """A file of that name beside the MLproject is the environment's, whether a key names it or not."""
    (tmp_path / "MLproject").write_text("entry_points: {main: {command: 'true'}}\n")
    (tmp_path / "python_env.yaml").write_text("pyhton: '3.11'\n")
    with pytest.raises(SpecProblems, match="unknown key 'pyhton'"):
        load_project(tmp_path)
