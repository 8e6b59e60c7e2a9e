"""MLprojects of eight kinds, run for real: processes of a worker, in the worker's own environment.

Each program prints the arguments it was given; what MLflow does with the same project stands in the case's `why`.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from msgspec import Struct

from sweeps.api.shapes import TrialAnswer
from sweeps.errors import SpecProblems
from sweeps.spec import load_project, load_sweep
from sweeps.submission import send
from tests.support.cluster import Cluster, stopped_afterwards
from tracking.settings import Settings

SHOW: Final = "import json, sys\nprint(json.dumps(sys.argv[1:]))\n"
HOSTILE: Final = "a b; id #"


class Case(Struct, frozen=True):
    """A project, how it is run, and the arguments that its program sees.

    Attributes:
        mlproject: None where there is no such file.
        params: as `-P` gives them.
        why: what is special about it.
    """

    name: str
    mlproject: str | None
    arguments: list[str]
    params: dict[str, str] = {}
    entry_point: str = "main"
    files: dict[str, str] = {}
    why: str = ""


CASES: Final = (
    Case(
        "quoted",
        """
name: quoted
entry_points:
  main:
    parameters: {name: string}
    command: python show.py --single '{name}' --double "{name}" --bare {name}
""",
        ["--single", HOSTILE, "--double", HOSTILE, "--bare", HOSTILE],
        {"name": HOSTILE},
        why="MLflow quotes the value into the author's quotes, and a shell runs `id`",
    ),
    Case(
        "braces",
        """
entry_points:
  main:
    parameters:
      lr: {type: float, default: 0.1}
    command: 'python show.py ''{"lr": {lr}, "layers": {}}'' {lr}'
""",
        ['{"lr": 0.25, "layers": {}}', "0.25"],
        {"lr": "0.25"},
        why="KeyError in MLflow",
    ),
    Case(
        "defaults",
        """
name:
conda_env:
entry_points:
  main:
    parameters:
      given: {type: int, default: null}
      text: {type: string, default: None}
      empty: {default: ''}
      bare:
      flag: {type: bool, default: true}
    command: python show.py {given} {text} {empty} {bare} {flag}
  other:
    parameters:
    command: python show.py
""",
        ["3", "None", "", "x", "True"],
        {"given": "3", "bare": "x"},
        why="empty sections are tracebacks in MLflow",
    ),
    Case(
        "optional",
        """
entry_points:
  main:
    parameters:
      depth: {type: int, optional: true}
      tag: {optional: true}
      seed: {type: int, optional: true}
    command: python show.py --depth {depth} --tag={tag} --seed {seed}
""",
        ["--seed", "0"],
        {"seed": "0"},
        why="MLflow has no optional parameters",
    ),
    Case(
        "odd-keys",
        """
entry_points:
  main:
    parameters:
      learning rate: float
      model.depth: int
      a;b: string
    command: python show.py --lr {learning rate} --depth={model.depth} "{a;b}"
""",
        ["--lr", "1e-3", "--depth=4", "$HOME", "--extra k", "it's"],
        {"learning rate": "1e-3", "model.depth": "4", "a;b": "$HOME", "extra k": "it's"},
        why="MLflow quotes the key of an extra parameter into its option, and takes a dot for an attribute",
    ),
    Case(
        "locations",
        """
entry_points:
  main:
    parameters:
      data: {type: path, default: data/x.csv}
      out: {type: uri, default: results}
      lake: {type: uri, default: 's3://bucket/x'}
    command: sh -c 'cat "$1" >&2; exec python show.py "$@"' sh {data} {out} {lake}
""",
        ["data/x.csv", "results", "s3://bucket/x"],
        files={"data/x.csv": "seen by the program\n"},
        why="MLflow looks for the path where it is called, and refuses the relative URI",
    ),
    Case(
        "python-script",
        None,
        ["--lr", "0.5", "--name", HOSTILE],
        {"lr": "0.5", "name": HOSTILE},
        "show.py",
        why="no MLproject at all; every parameter is extra",
    ),
    Case(
        "shell-script",
        "entry_points:\n  main: {command: 'false'}\n",
        ["from a script", "--x", "1 2"],
        {"x": "1 2"},
        "scripts/it's {x}.sh",
        {"scripts/it's {x}.sh": 'python show.py "from a script" "$@"\n'},
        why="a file in place of an entry point, of any name",
    ),
)


class Site:
    """One cluster, and a folder for the projects."""

    def __init__(self, cluster: Cluster, folder: Path) -> None:
        self._cluster = cluster
        self._folder = folder

    def project(self, name: str, mlproject: str | None, files: dict[str, str]) -> Path:
        """A project folder."""
        folder = self._folder / name
        for path, text in {"show.py": SHOW, **files, **({"MLproject": mlproject} if mlproject is not None else {})}.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_text(text, encoding="utf-8")
        return folder

    def run(self, submission: Any) -> list[TrialAnswer]:
        """Submit as the command line does; the trials once all is over."""
        with self._cluster.client() as client:
            sweep_id = send(client, submission, Settings(home=self._folder / "home"), tell=print)["sweep_id"]
        return self._cluster.wait_for_end(sweep_id)

    def output(self, trial: TrialAnswer, stream: str = "stdout") -> str:
        """What a trial printed."""
        with self._cluster.client() as client:
            return str(client.logs(trial["run_id"], stream=stream)["text"])


@pytest.fixture(scope="module")
def site(module_database_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """One worker with four slots, without a broker."""
    folder = tmp_path_factory.mktemp("mlprojects")
    with stopped_afterwards(Cluster(folder, module_database_url, "none")) as cluster:
        yield Site(cluster.start(worker_arguments=("--slots", "4")), folder)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_mlproject_program_sees_its_arguments_as_they_were_given(site: Site, case: Case) -> None:
    """One run of each kind of project ends well, and its parameters are recorded as they were given, without a shell's quotes."""
    folder = site.project(case.name, case.mlproject, case.files)
    (trial,) = site.run(load_project(folder, entry_point=case.entry_point, params=case.params))
    assert (trial["state"], trial["params"]) == ("finished", case.params), site.output(trial, "stderr")
    assert json.loads(site.output(trial)) == case.arguments, case.why
    if case.files and "data/x.csv" in case.files:
        assert "seen by the program" in site.output(trial, "stderr")


def test_mlproject_is_swept_with_a_file_beside_it(site: Site) -> None:
    """A grid over an entry point's declared and undeclared parameters: each cell once, defaults where the file says nothing."""
    mlproject = "entry_points:\n  train:\n    parameters: {x: float, n: {type: int, default: 7}}\n    command: python show.py {x} {n}\n"
    sweep = "method: grid\nentry_point: train\nparameters:\n  x: {values: [0.5, 1e-5]}\n  extra: {values: [a, b]}\n"
    folder = site.project("swept", mlproject, {"sweep.yaml": sweep})
    trials = site.run(load_sweep(folder / "sweep.yaml"))
    assert [trial["state"] for trial in trials] == ["finished"] * 4
    found = sorted(json.loads(site.output(trial)) for trial in trials)
    assert found == [[x, "7", "--extra", extra] for x in ("0.5", "1e-05") for extra in "ab"]


def test_mlproject_entry_points_are_swept_together(site: Site) -> None:
    """Each trial runs the entry point that it names, declared or a script; what that does not declare is appended."""
    mlproject = "entry_points:\n  small: {command: python show.py small}\n  big: {parameters: {n: int}, command: 'python show.py big {n}'}\n"
    sweep = "method: grid\nparameters: {entry_point: {values: [small, big, show.py]}, n: {value: 3}}\n"
    folder = site.project("entries", mlproject, {"sweep.yaml": sweep})
    trials = sorted(site.run(load_sweep(folder / "sweep.yaml")), key=lambda trial: trial["number"])
    assert [json.loads(site.output(trial)) for trial in trials] == [["small", "--n", "3"], ["big", "3"], ["--n", "3"]]


def test_sweep_command_is_expanded_where_it_runs(site: Site) -> None:
    """Variables of the file and of the worker, the bare name of one that is not set, a value that only looks like one, and the file of arguments."""
    words = '["${interpreter}", show.py, "${envvar:DATA}/x", "${envvar:NOT_SET_ANYWHERE}", "${envvar:HOME}", "${args_no_hyphens}", "${args_json_file}"]'
    sweep = f"method: grid\ncommand: {words}\nenv: {{DATA: /d}}\nparameters: {{o: {{parameters: {{x: {{value: '${{envvar:HOME}}'}}}}}}}}\n"
    show = SHOW + "import os\nprint(open(sys.argv[-1]).read())\nprint(open(os.environ['WANDB_SWEEP_PARAM_PATH']).read())\nprint(os.environ['HOME'])\n"
    folder = site.project("expanded", None, {"sweep.yaml": sweep, "show.py": show})
    (trial,) = site.run(load_sweep(folder / "sweep.yaml"))
    arguments, as_json, for_wandb, home = site.output(trial).splitlines()
    assert json.loads(arguments)[:-1] == ["/d/x", "NOT_SET_ANYWHERE", home, "o={'x': '${envvar:HOME}'}"]
    assert json.loads(as_json) == {"o": {"x": "${envvar:HOME}"}}
    assert json.loads(for_wandb) == {"wandb_version": 1, "o": {"value": {"x": "${envvar:HOME}"}}}


def test_mlproject_mistakes_are_told_together_before_anything_runs(tmp_path: Path) -> None:
    """Types, defaults, templates and missing parameters of one file, each with its line and column."""
    (tmp_path / "MLproject").write_text(
        "entry_points:\n  main:\n    parameters:\n      n: {type: int, default: 0.5}\n      d: {type: path, default: gone.csv}\n"
        "      need: float\n    command: python a.py {n} {oops} | tee log\n"
    )
    with pytest.raises(SpecProblems) as caught:
        load_project(tmp_path)
    told = [(problem.line, problem.column, problem.message) for problem in caught.value.problems]
    assert told[0][2] == "entry point 'main' needs 'need': give it with -P need=VALUE"
    assert told[1:] == [
        (4, 31, "the default of 'n' is not a whole number"),
        (5, 32, "the default of 'd' names 'gone.csv', which is not in the project folder"),
        (7, 30, "'{oops}' names no parameter"),
    ]
