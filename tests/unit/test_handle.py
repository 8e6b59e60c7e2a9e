"""`import sweeps`: what needs no server."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

import sweeps
from sweeps.client import ServerError
from sweeps.errors import SpecError, SpecProblems
from sweeps.handle import plain_value
from sweeps.report.frames import require_pandas
from sweeps.report.live import LINE_EVERY_S, Lines, html
from sweeps.report.rows import columns
from sweeps.report.study import column_of
from sweeps.spec import parse_sweep
from tests.support.fake_server import ACTIVE, FakeServer, sweep_answer
from tests.support.outcomes import made_outcome, made_sweep, made_trial
from tests.support.pages import DOCS


@pytest.fixture(autouse=True)
def _nowhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A server that is not there, and an empty folder: nothing is started, nothing is sent."""
    monkeypatch.setenv("SWEEP_SERVER", "http://127.0.0.1:9")
    monkeypatch.chdir(tmp_path)


def test_package_loads_nothing_until_it_is_asked() -> None:
    """`import sweeps` costs nothing, and the command line, which does it too, stays as fast as it was."""
    code = (
        "import sys, sweeps; before = set(sys.modules); sweeps.__dir__(); assert set(sys.modules) == before;"
        "ours = [m for m in sys.modules if m.startswith(('sweeps.', 'tracking', 'click', 'msgspec', 'pandas'))];"
        "sweeps.submit; print(ours, 'sweeps.handle' in sys.modules, [m for m in ('pandas', 'optuna', 'numpy', 'IPython') if m in sys.modules])"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert told == "[] True []\n"


def test_package_has_its_names_and_no_others() -> None:
    """Each name that is offered is there; what is not is an AttributeError."""
    assert [name for name in sweeps.__all__ if getattr(sweeps, name, None) is None or name not in dir(sweeps)] == []
    with pytest.raises(AttributeError, match="nosuch"):
        sweeps.nosuch  # type: ignore[attr-defined] # noqa: B018


def test_submit_tells_all_problems_of_a_mapping_with_their_paths() -> None:
    """One error for everything, as on the command line; places are key paths."""
    with pytest.raises(SpecProblems) as caught:
        sweeps.submit({"method": "baies", "program": "train.py", "parameters": {"lr": {"min": 1, "max": 0.5}}, "run_cap": "many"})
    paths = {problem.path for problem in caught.value.problems}
    assert {"method", "run_cap"} <= paths
    assert any(path.startswith("parameters.lr") for path in paths)
    assert str(caught.value).endswith("Nothing was submitted.")


def test_submit_tells_all_problems_of_a_file_with_line_and_column(tmp_path: Path) -> None:
    """The same error that `sweep submit` prints."""
    (tmp_path / "sweep.yaml").write_text("method: baies\nprogram: train.py\nparameters:\n  lr: {min: 1, max: 0.5}\n")
    for named in (tmp_path, tmp_path / "sweep.yaml", str(tmp_path / "sweep.yaml")):
        with pytest.raises(SpecProblems) as caught:
            sweeps.submit(named)
        assert [(problem.line, problem.column) for problem in caught.value.problems][:2] == [(1, 9), (2, 10)]
        assert "sweep.yaml:1:9: error:" in str(caught.value)


@pytest.mark.parametrize(
    "arguments",
    [
        ({"method": "grid"}, {"params": {"x": 1}}),
        ({"method": "grid"}, {"entry_point": "main"}),
        (("sweep.yaml",), {"folder": "."}),
        (("sweep.yaml",), {"params": {"x": 1}}),
    ],
    ids=["mapping and params", "mapping and entry point", "file and folder", "file and params"],
)
def test_submit_refuses_arguments_that_contradict(arguments: tuple[Any, dict[str, Any]]) -> None:
    """What would be ignored is refused."""
    Path("sweep.yaml").touch()
    file, keywords = arguments
    with pytest.raises(SpecError, match="belong"):
        sweeps.submit(file[0] if isinstance(file, tuple) else file, **keywords)


@pytest.mark.parametrize(("keyword", "value"), [("trials", 0), ("parallel", 0), ("name", " "), ("queue", "")])
def test_submit_checks_its_own_arguments(tmp_path: Path, keyword: str, value: Any) -> None:
    """What can't be is an error, not a sweep; it is called what it is called in Python."""
    (tmp_path / "train.py").touch()
    asked: dict[str, Any] = {keyword: value}
    with pytest.raises(SpecError, match=f"^'{keyword}' is"):
        sweeps.submit({"method": "random", "program": "train.py", "parameters": {"x": {"min": 0.0, "max": 1.0}}}, **asked)


def test_mapping_may_hold_what_notebooks_hold() -> None:
    """Arrays, numbers of numpy and pandas, ranges, tuples and paths become what a file could hold."""
    told = plain_value(
        {
            "a": np.array([0.5, 1.0]),
            "b": {"values": range(3), "n": np.int64(3), "f": np.float32(0.5)},
            "c": (np.bool_(True), "x", None),
            "d": pd.Series([1, 2]),
            "e": Path("train.py"),
        }
    )
    assert told == {"a": [0.5, 1.0], "b": {"values": [0, 1, 2], "n": 3, "f": 0.5}, "c": [True, "x", None], "d": [1, 2], "e": "train.py"}
    assert json.loads(json.dumps(told)) == told


def refusing(server: FakeServer, move: str, state: str) -> sweeps.Sweep:
    """A sweep in that state, whose server refuses that move."""
    server.says("GET /sweeps/wine", ACTIVE)
    server.says(f"GET /sweeps/{ACTIVE['sweep_id']}", sweep_answer(state=state))
    server.says(f"POST /sweeps/{ACTIVE['sweep_id']}/{move}", {"error_code": "RESOURCE_CONFLICT", "message": "not now"}, 409)
    return sweeps.sweep("wine", server=server.url)


@pytest.mark.parametrize(("move", "state"), [("stop", "finished"), ("cancel", "failed"), ("stop", "stopping"), ("pause", "paused"), ("resume", "active")])
def test_steering_twice_changes_nothing(server: FakeServer, move: str, state: str) -> None:
    """What is already so is no error, as on the command line."""
    sweep = refusing(server, move, state)
    assert getattr(sweep, move)() is sweep
    assert f"POST /sweeps/{ACTIVE['sweep_id']}/{move}" in server.asked


@pytest.mark.parametrize(("move", "state"), [("pause", "finished"), ("resume", "stopping"), ("cancel", "active")])
def test_steering_tells_what_can_not_be(server: FakeServer, move: str, state: str) -> None:
    """What the server refuses, and is not so already."""
    with pytest.raises(ServerError, match="not now"):
        getattr(refusing(server, move, state), move)()


def test_frames_say_what_they_need(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without pandas one sentence tells what to install."""
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'sweep-runner\[notebook\]'"):
        require_pandas()


def test_lines_are_printed_at_changes_only(capsys: pytest.CaptureFixture[str]) -> None:
    """The same is not said twice, nor more often than every few seconds; the end is said at once."""
    clock = [0.0]
    lines = Lines(clock=lambda: clock[0])
    counts = made_sweep()["counts"]
    for seconds, finished, state in ((0.0, 0, "active"), (1.0, 1, "active"), (LINE_EVERY_S, 1, "active"), (2 * LINE_EVERY_S, 1, "active")):
        clock[0] = seconds
        lines.show(made_sweep(state=state, counts={**counts, "finished": finished}), [])
    clock[0] += 0.1
    lines.show(made_sweep(state="finished", counts={**counts, "finished": 4}, best=made_trial(3, {"x": 1}, 0.125)), ["a note"])
    assert capsys.readouterr().err.splitlines() == [
        "brave-otter-7f3a  active  0/4  finished 0  running 0",
        "brave-otter-7f3a  active  1/4  finished 1  running 0",
        "brave-otter-7f3a  finished  4/4  finished 4  running 0  best loss 0.125 (trial 3)  a note",
    ]


def test_picture_shows_what_runs_and_escapes_what_is_the_users() -> None:
    """Names and parameters are text, whatever they hold."""
    evil = "<script>alert(1)</script>"
    running = {**made_trial(7, {evil: evil}, state="running"), "metric": {"key": "loss", "value": 0.25, "step": 3, "time_ms": 0}}
    counts = {**made_sweep()["counts"], "running": 9, "open": 9, "finished": 2}
    drawn = html(made_sweep(name=evil, counts=counts, running=[running], best=made_trial(1, {"a&b": "<i>"}, 0.5)), [evil])
    assert "<script" not in drawn
    assert drawn.count("&lt;script&gt;") == 4
    assert "a&amp;b=&lt;i&gt;" in drawn
    assert ">0.25<" in drawn
    assert "and 8 more" in drawn


def test_docs_tell_every_name_and_column() -> None:
    """docs/python.md names all that a Sweep can do, what `import sweeps` offers, and each column of its trials."""
    text = (DOCS / "python.md").read_text(encoding="utf-8")
    told = set(re.findall(r"`\.?(?:sweeps\.)?(\w+)[^`]*`", text)) | set(re.findall(r"sweeps\.(\w+)", text))
    offered = {name for name in dir(sweeps.Sweep) if not name.startswith("_")} | {"id", "short_id", "name"} | set(sweeps.__all__)
    assert offered - told == set()
    trial = made_trial(0, {"NAME": 0.5}, 0.5)
    table = columns(made_outcome({"NAME": {"min": 0.0, "max": 1.0}}, [trial], {0: {"NAME": 0.5}}))
    assert [name for name in table if f"`{name}`" not in text.partition("## An Optuna study")[0]] == []


def test_docs_have_the_right_distribution_for_each_suggest() -> None:
    """What docs/coming-from-optuna.md puts in the place of a `suggest_` is, told back to Optuna, of the same kind."""
    text = (DOCS / "coming-from-optuna.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(suggest_\w+\(.*?\))` \| `(x: .*?)`", text, re.MULTILINE)
    kinds = {"float": FloatDistribution, "int": IntDistribution, "categorical": CategoricalDistribution}
    for call, written in rows:
        (parameter,) = parse_sweep(f"program: t.py\nmethod: random\nparameters:\n  {written}\n", "s", project_dir=None).parameters
        column = column_of(parameter)
        assert column is not None
        assert isinstance(column.distribution, kinds[call.partition("(")[0].removeprefix("suggest_")]), call
        assert getattr(column.distribution, "log", False) is ("log=True" in call), call
    assert len(rows) == 7


@pytest.mark.parametrize("name", sweeps.__all__)
def test_sweeps_has_what_its_page_names(name: str) -> None:
    """Functions, classes and errors, each by its bare name."""
    assert getattr(sweeps, name).__name__ == name


def test_sweeps_errors_are_of_one_root() -> None:
    """So that one `except` takes them all."""
    errors = [getattr(sweeps, name) for name in ("SpecError", "SpecProblems", "MissingOnServer", "NoBest", "ServerAway", "LocalError")]
    assert all(issubclass(error, sweeps.SweepError) for error in errors)
