"""Where `sweep export` writes to, against a made-up server: files whole, devices as they are, and what it refuses."""

import os
from collections.abc import Iterator
from pathlib import Path
from threading import Thread

import pytest

from sweeps.cli import main
from sweeps.cli.files import written
from tests.support.fake_server import FakeServer
from tests.support.outcomes import made_outcome, made_trial


@pytest.fixture(autouse=True)
def _sweep(server: FakeServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A sweep of one trial, and an empty folder."""
    monkeypatch.chdir(tmp_path)
    outcome = made_outcome({"x": {"min": 0.0, "max": 1.0}}, [made_trial(0, {"x": 0.5}, 0.125)])
    sweep = outcome.sweep
    page = {"schema": 1, "sweep_id": sweep["sweep_id"], "short_id": sweep["short_id"], "metric": "loss", "trials": outcome.trials, "next_offset": None}
    server.says("GET /sweeps/wine", sweep)
    server.says(f"GET /sweeps/{sweep['sweep_id']}", sweep)
    server.says(f"GET /sweeps/{sweep['sweep_id']}/trials", page)
    server.says("POST /api/2.0/mlflow/runs/search", {"runs": []})


def export(*arguments: str) -> int:
    """Its exit status."""
    return main(["export", "wine", *arguments])


def test_export_writes_through_a_link_that_stays(tmp_path: Path) -> None:
    """The file it names is replaced, beside itself; the link is none of ours."""
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "x.csv").write_text("old")
    (tmp_path / "x.csv").symlink_to(tmp_path / "kept" / "x.csv")
    assert export("--out", "x.csv", "--force") == 0
    assert (tmp_path / "x.csv").is_symlink()
    assert (tmp_path / "kept" / "x.csv").read_text().startswith("number,state,value")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["kept", "x.csv", "x.csv"]


@pytest.mark.parametrize("more", [[], ["--force"]])
def test_export_writes_into_a_pipe_that_stays(tmp_path: Path, more: list[str]) -> None:
    """What is no file keeps its place, and gets what a file would."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    read: list[str] = []
    reader = Thread(target=lambda: read.append(pipe.read_text()), daemon=True)
    reader.start()
    assert export("--out", "pipe", *more) == 0
    assert pipe.is_fifo()
    reader.join(20)
    assert read[0].startswith("number,state,value")


@pytest.mark.parametrize("name", ["-", "/dev/stdout"])
@pytest.mark.parametrize("form", ["csv", "json"])
def test_export_prints_where_standard_output_is_named(capsys: pytest.CaptureFixture[str], tmp_path: Path, name: str, form: str) -> None:
    """As without a name, and no file of that name comes about."""
    assert export("--format", form) == 0
    printed = capsys.readouterr().out
    assert export("--out", name, "--format", form, "--force") == 0
    assert capsys.readouterr().out == printed
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--out", ".", "--force"), ". is a folder"),
        (("--out", "new/", "--force"), "new/ is a folder"),
        (("--out", ".", "--format", "optuna"), ". is a folder"),
        (("--out", "x.xlsx"), "--format csv|json|parquet|optuna"),
        (("--out", "x.csv.gz"), "x.csv.gz ends in none of .csv, .json, .parquet, .db"),
        (("--out", "-", "--format", "parquet"), "--format parquet needs --out FILE"),
        (("--out", "/dev/null", "--format", "parquet", "--force"), "is a device or a pipe"),
        (("--out", "/dev/null", "--format", "optuna", "--force"), "is a device or a pipe"),
    ],
)
def test_export_refuses_what_it_can_not_write(
    server: FakeServer, capsys: pytest.CaptureFixture[str], tmp_path: Path, arguments: tuple[str, ...], told: str
) -> None:
    """Before it asks for anything, in a sentence."""
    assert export(*arguments) == 2
    assert told in capsys.readouterr().err
    assert server.asked == []
    assert list(tmp_path.iterdir()) == []


def test_export_takes_any_ending_with_a_form(tmp_path: Path) -> None:
    """What is said outright is not guessed; a name without an ending is CSV."""
    assert export("--out", "x.txt", "--format", "json") == 0
    assert (tmp_path / "x.txt").read_text().startswith("{")
    assert export("--out", "trials") == 0
    assert (tmp_path / "trials").read_text().startswith("number,")


@pytest.mark.parametrize("name", ["nowhere/x.csv", "nowhere/x.parquet", "file/x.csv"])
def test_export_names_the_file_that_was_asked_for(capsys: pytest.CaptureFixture[str], tmp_path: Path, name: str) -> None:
    """Not the one beside it that would have become it."""
    (tmp_path / "file").touch()
    assert export("--out", name) == 1
    assert f"error: {name}: " in capsys.readouterr().err


def test_written_keeps_what_was_there_when_it_fails(tmp_path: Path) -> None:
    """A file is whole or as it was, and nothing is left beside it."""
    file = tmp_path / "x"
    file.write_text("old")

    def lines() -> Iterator[str]:
        yield "half"
        raise ValueError("midway")

    with pytest.raises(ValueError, match="midway"), written(file) as scratch:
        scratch.writelines(lines())
    assert file.read_text() == "old"
    assert list(tmp_path.iterdir()) == [file]
