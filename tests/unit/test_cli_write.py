"""Verbs that start things: init, validate, submit."""

import json
from pathlib import Path

import pytest

from sweeps.cli import main
from sweeps.client import Client
from tests.support.fake_server import ACTIVE, FINISHED, FakeServer


@pytest.mark.parametrize(("limits", "told"), [("", True), ("run_cap: 5\n", False), ("limits: {time: 1h}\n", False)])
def test_cli_submit_says_when_nothing_ends_a_sweep(
    server: FakeServer, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, limits: str, told: bool
) -> None:
    """Random search without a cap goes on for ever; whoever submits it hears of that."""
    monkeypatch.setattr(Client, "has_snapshot", lambda *_: True)
    (tmp_path / "train.py").touch()
    (tmp_path / "sweep.yaml").write_text(f"program: train.py\nmethod: random\nparameters: {{x: {{min: 0.0, max: 1.0}}}}\n{limits}")
    server.says("POST /sweeps", ACTIVE)
    assert main(["submit", str(tmp_path)]) == 0
    assert ("runs until you stop it" in capsys.readouterr().err) is told


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ((), "neither a sweep.yaml nor an MLproject"),
        (("-P", "x=1", "--parallel", "1"), "neither"),
        (("-P", "x"), "NAME=VALUE"),
        (("-P", "=3"), "'=3' is not NAME=VALUE: it has no name"),
    ],
)
def test_cli_says_what_a_folder_lacks(tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], told: str) -> None:
    """A folder is run by its sweep file, or else by its MLproject with parameters."""
    if arguments in {("-P", "x"), ("-P", "=3")}:
        (tmp_path / "MLproject").write_text("entry_points: {main: {command: 'true'}}\n")
    assert main(["validate", str(tmp_path), *arguments]) == 2
    assert told in capsys.readouterr().err


@pytest.mark.parametrize("verb", ["validate", "submit", "run"])
def test_cli_refuses_an_empty_file_name(capsys: pytest.CaptureFixture[str], verb: str) -> None:
    """An unset variable of a shell is no name of the current folder."""
    assert main([verb, ""]) == 2
    assert "The name is empty" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["-P", "n=1", "-P", "n=2"], "'n' is given twice"),
        (["--trials", "3"], "--trials 3: a folder without a sweep file is one run"),
    ],
)
def test_cli_refuses_to_search_without_a_sweep_file(tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], told: str) -> None:
    """A bare MLproject is one run; nothing that was asked for is dropped without a word."""
    (tmp_path / "MLproject").write_text("entry_points:\n  main:\n    parameters: {n: {type: int, default: 1}}\n    command: python train.py {n}\n")
    assert main(["validate", str(tmp_path), *arguments]) == 2
    assert told in capsys.readouterr().err
    assert main(["validate", str(tmp_path), "-P", "n=1", "--trials", "1"]) == 0


def test_cli_takes_parameters_for_folders_only(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A sweep file says itself what its parameters are; ignoring -P would mislead."""
    assert main(["init", str(tmp_path)]) == 0
    assert main(["validate", str(tmp_path), "-P", "x=1"]) == 2
    assert "-P belongs to a folder with an MLproject" in capsys.readouterr().err


def test_cli_runs_a_project_once_beside_its_sweep_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """-P and -e ask for one run of the project, whether or not there is a sweep file too; without them the file counts."""
    (tmp_path / "MLproject").write_text("entry_points:\n  main:\n    parameters: {n: int}\n    command: python train.py {n}\n")
    (tmp_path / "sweep.yaml").write_text("method: grid\nparameters: {n: {values: [1, 2]}}\n")
    for arguments, trials in ((["-P", "n=7"], 1), (["-e", "main", "-P", "n=7"], 1), ([], 2)):
        assert main(["validate", str(tmp_path), *arguments, "--json"]) == 0
        plan = json.loads(capsys.readouterr().out)
        assert (plan["trials"], plan["commands"][0][-1]) == (trials, "7" if arguments else "1")


def test_cli_validate_tells_problems_with_their_places(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The sweep file's own error lines are printed as they are; the status is 2."""
    monkeypatch.chdir(tmp_path)
    Path("train.py").write_text("")
    Path("sweep.yaml").write_text("program: train.py\nmethod: grid\nparameters:\n  lr: {distribution: loguniform, min: 1, max: 2}\n")
    assert main(["validate", "sweep.yaml"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("sweep.yaml:4:")
    assert err.endswith("Nothing was submitted.\n")
    assert main(["validate", "sweep.yaml", "--json"]) == 2
    answer = json.loads(capsys.readouterr().out)
    assert (answer["valid"], answer["errors"][0]["line"]) == (False, 4)


@pytest.mark.parametrize(
    ("retry", "told"),
    [
        ("{max: 0}", []),
        (
            "{max: 2, on: [lost, exit_75], delay: 10s}",
            [
                "retry: up to 2 more attempts after exit_75; waits 10s, doubling up to 1m00s; faults of the machinery have a budget of their own",
                "at worst: 12h00m with 1 at a time, 3 attempts each; 12h00m of trials, 12h00m of cpus",
            ],
        ),
        (
            "{max: 1, on: [lost]}",
            [
                "retry: no failure of your code; 'on' names faults of the machinery only, which have a budget of their own",
                "at worst: 4h00m with 1 at a time; 4h00m of trials, 4h00m of cpus",
            ],
        ),
    ],
)
def test_cli_validate_tells_what_a_retry_comes_to(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, retry: str, told: list[str]
) -> None:
    """How many attempts after what, how long between them, and what all that may take."""
    monkeypatch.chdir(tmp_path)
    Path("train.py").write_text("")
    Path("sweep.yaml").write_text(f"program: train.py\nmethod: grid\nparameters: {{x: {{values: [1, 2, 3, 4]}}}}\nlimits: {{trial_time: 1h}}\nretry: {retry}\n")
    assert main(["validate", "sweep.yaml"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if line.startswith(("retry", "at worst"))] == (told or ["at worst: 4h00m with 1 at a time; 4h00m of trials, 4h00m of cpus"])
    assert main(["validate", "sweep.yaml", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["attempts_max"] == (3 if "exit_75" in retry else 1)


@pytest.mark.parametrize("origin", [(), ("--from", "wandb")])
def test_cli_init_writes_a_file_that_is_valid(tmp_path: Path, capsys: pytest.CaptureFixture[str], origin: tuple[str, ...]) -> None:
    """What `init` writes passes `validate`, names the script, and is not overwritten."""
    (tmp_path / "train.py").write_text("")
    assert main(["init", str(tmp_path), *origin]) == 0
    assert main(["validate", str(tmp_path), "--json"]) == 0
    plan = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert "train.py" in plan["commands"][0]
    assert (plan["trials"], len(plan["commands"])) == (20, 3)
    assert main(["init", str(tmp_path)]) == 2


def test_cli_init_begins_with_the_mlproject(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Parameters of the entry point become the search space, around their defaults."""
    (tmp_path / "MLproject").write_text(
        "name: p\nentry_points:\n  main:\n    parameters:\n      lr: {type: float, default: 0.1}\n      mode: {type: string, default: fast}\n"
        "    command: python train.py --lr {lr} --mode {mode}\n"
    )
    assert main(["init", str(tmp_path)]) == 0
    assert main(["validate", str(tmp_path), "--json"]) == 0
    plan = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert [(p["name"], p["distribution"]) for p in plan["parameters"]] == [("lr", "log_uniform_values"), ("mode", "constant")]


def test_cli_init_says_so_without_an_mlproject(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`--from mlproject` insists."""
    assert main(["init", str(tmp_path), "--from", "mlproject"]) == 2
    assert "has no MLproject" in capsys.readouterr().err


def test_cli_submit_prints_one_line_of_data(server: FakeServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The id is data, the commands worth typing are hints, and `-q` silences those."""
    (tmp_path / "train.py").write_text("")
    (tmp_path / "sweep.yaml").write_text("program: train.py\nmethod: grid\nparameters: {x: {values: [1]}}\n")
    server.says("POST /sweeps", ACTIVE, 201)
    server.answers |= {f"{method} /snapshots/{digest}": (200, {"schema": 1}) for method, digest in [("HEAD", digest_of(tmp_path))]}
    assert main(["submit", str(tmp_path)]) == 0
    out, err = capsys.readouterr()
    assert out == "Submitted wine (brave-otter-7f3a): bayes, minimize rmse, 4 trials, 2 at a time, queue default\n"
    assert "sweep cancel brave-otter-7f3a" in err
    assert main(["-q", "submit", str(tmp_path)]) == 0
    assert capsys.readouterr() == (out, "")


@pytest.mark.parametrize("verb", ["submit", "run"])
def test_cli_json_of_a_submitted_sweep_has_the_notes_on_its_file(
    server: FakeServer, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    """A program hears as well what the file probably does not mean."""
    monkeypatch.setattr(Client, "has_snapshot", lambda *_: True)
    (tmp_path / "train.py").touch()
    (tmp_path / "sweep.yaml").write_text("program: train.py\nmethod: random\nparameters: {lr: {distribution: log_uniform, min: 1e-5, max: 1e-3}}\nrun_cap: 4\n")
    server.says("POST /sweeps", FINISHED)
    server.says(f"GET /sweeps/{FINISHED['sweep_id']}", FINISHED)
    assert main([verb, str(tmp_path), "--json"]) == 0
    (note,) = json.loads(capsys.readouterr().out)["notes"]
    assert "did you mean log_uniform_values?" in note


@pytest.mark.parametrize(
    ("method", "cap", "head", "count"),
    [
        ("grid", "", "first commands:", 3),
        ("grid", "run_cap: 2", "first commands:", 2),
        ("random", "run_cap: 2", "commands such as:", 2),
        ("bayes", "", "commands such as:", 3),
    ],
)
def test_cli_validate_shows_no_more_commands_than_there_are_trials(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], method: str, cap: str, head: str, count: int
) -> None:
    """Those of a grid are known; what a search proposes is not, so what is shown is like it."""
    (tmp_path / "train.py").touch()
    (tmp_path / "sweep.yaml").write_text(f"program: train.py\nmethod: {method}\nmetric: {{name: x}}\nparameters: {{x: {{values: [1, 2, 3, 4]}}}}\n{cap}\n")
    assert main(["validate", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.startswith("  /usr/bin/env") for line in lines[lines.index(head) + 1 :]] == [True] * count + [False]


def digest_of(folder: Path) -> str:
    """The digest of a folder's snapshot."""
    from tracking.snapshots import pack

    snapshot = pack(folder, max_bytes=2**20)
    snapshot.archive.unlink()
    return snapshot.digest


def test_cli_validate_abbreviates_a_large_grid(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A thousand values are told by their first and last, and how many they are."""
    (tmp_path / "train.py").write_text("")
    (tmp_path / "sweep.yaml").write_text(f"program: train.py\nmethod: grid\nparameters: {{x: {{values: {list(range(1000))}}}}}\n")
    assert main(["validate", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "8, 9, ..., 999] (1000 values)" in out
    assert max(map(len, out.splitlines())) < 100


def test_cli_init_says_when_there_is_no_script(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The file names a script that is still to be written."""
    assert main(["init", str(tmp_path)]) == 0
    assert "no script here yet" in capsys.readouterr().err


def test_cli_runs_an_entry_point_or_a_script_of_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`-e` names which; a script needs no MLproject."""
    (tmp_path / "train.py").touch()
    assert main(["validate", str(tmp_path), "-e", "train.py", "-P", "x=a b", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["commands"][0] == ["python", "train.py", "--x", "a b"]
    (tmp_path / "MLproject").write_text("entry_points:\n  evaluate:\n    parameters: {n: int}\n    command: python eval.py {n}\n")
    assert main(["validate", str(tmp_path), "-e", "evaluate", "-P", "n=3", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["commands"][0] == ["python", "eval.py", "3"]
    assert main(["validate", str(tmp_path), "-e", "evaluat", "-P", "n=3"]) == 2
    assert "did you mean 'evaluate'?" in capsys.readouterr().err
    assert main(["validate", str(tmp_path), "-e", "evaluate", "-P", "n=x"]) == 2
    assert "'n' is an int in the MLproject, and 'x' is not a whole number" in capsys.readouterr().err


def test_cli_refuses_an_entry_point_for_a_sweep_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A sweep file says itself what it runs."""
    (tmp_path / "sweep.yaml").write_text("program: t.py\nmethod: random\nparameters: {x: {values: [1]}}\n")
    assert main(["validate", str(tmp_path / "sweep.yaml"), "-e", "train.py"]) == 2
    assert "-e belongs to a folder, not to a sweep file" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("method", "limits", "more", "told"),
    [
        ("random", "{}", "", "no end; limits.trials or limits.time would set one"),
        ("random", "{trials: 4}", "", "no end; limits.trial_time or limits.time would set one"),
        ("random", "{time: 6h}", "", "6h00m (limits.time)"),
        ("random", "{time: 6h, parallel: 2}", "", "6h00m (limits.time); 12h00m of trials, 12h00m of cpus"),
        (
            "random",
            "{trials: 5, parallel: 2, trial_time: 1h}",
            "resources: {cpus: 2, gpus: 1}",
            "3h00m with 2 at a time; 5h00m of trials, 10h00m of cpus, 5h00m of gpus",
        ),
        ("grid", "{trial_time: 1h, time: 2h}", "", "2h00m (limits.time); 4h00m of trials, 4h00m of cpus"),
        ("grid", "{trial_time: 1h, time: 5h}", "", "4h00m with 1 at a time; 4h00m of trials, 4h00m of cpus"),
    ],
)
def test_cli_validate_tells_what_a_sweep_may_cost(tmp_path: Path, capsys: pytest.CaptureFixture[str], method: str, limits: str, more: str, told: str) -> None:
    """The least of what the file's limits allow, and what in it has no bound."""
    (tmp_path / "train.py").touch()
    (tmp_path / "sweep.yaml").write_text(f"program: train.py\nmethod: {method}\nparameters: {{x: {{values: [1, 2, 3, 4]}}}}\nlimits: {limits}\n{more}\n")
    assert main(["validate", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == f"at worst: {told}"
    assert ("grid: 4 cells" in lines) is (method == "grid")


WISHED = {"queue": "gpu", "resources": {"cpus": 2.0, "memory_bytes": 4 * 2**30, "gpus": 0, "image": None}, "parallel": 3}


@pytest.mark.parametrize("verb", ["submit", "run"])
@pytest.mark.parametrize(
    ("workers", "reasons", "told"),
    [
        ([("w1", 2), ("w2", 1)], [], ["placement: 2 workers could run this now, 3 trials at once: w1 (2) and w2 (1)"]),
        ([], ["No worker serves queue 'gpu'."], ["placement: no worker could run this now", "  No worker serves queue 'gpu'."]),
    ],
)
def test_cli_dry_run_tells_who_could_run_it_and_submits_nothing(
    server: FakeServer, tmp_path: Path, capsys: pytest.CaptureFixture[str], verb: str, workers: list[tuple[str, int]], reasons: list[str], told: list[str]
) -> None:
    """All that `validate` tells, and what the server says of workers; no snapshot is sent, no sweep made."""
    (tmp_path / "train.py").touch()
    (tmp_path / "sweep.yaml").write_text(
        "program: train.py\nmethod: random\nparameters: {x: {values: [1, 2]}}\nlimits: {trials: 9, parallel: 3}\nresources: {cpus: 2, memory: 4g}\nqueue: gpu\n"
    )
    entries = [{"name": name, "trials": n} for name, n in workers]
    answer = {"schema": 1, "workers": entries, "trials": sum(n for _, n in workers), "reasons": reasons, "waits": []}
    server.says("POST /placement", answer)
    assert main([verb, str(tmp_path), "--dry-run"]) == 0
    out, err = capsys.readouterr()
    assert out.splitlines()[-len(told) :] == told
    assert err == "Nothing was submitted.\n"
    assert main([verb, str(tmp_path), "--dry-run", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["placement"] == answer
    assert server.asked == ["POST /placement"] * 2
    assert server.bodies[-1] == WISHED


def test_cli_dry_run_starts_no_cluster(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Where none runs, that is what is told."""
    monkeypatch.setenv("SWEEP_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("SWEEP_SERVER", raising=False)
    (tmp_path / "train.py").touch()
    (tmp_path / "sweep.yaml").write_text("program: train.py\nmethod: grid\nparameters: {x: {values: [1, 2]}}\n")
    assert main(["submit", str(tmp_path), "--dry-run"]) == 0
    assert "placement: no cluster runs on this machine" in capsys.readouterr().out
    assert not (tmp_path / "home").exists()


def test_cli_schema_is_the_one_that_init_writes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The file names it beside itself, so that an editor finds it without a network; one of yours is left alone."""
    assert main(["schema"]) == 0
    printed = capsys.readouterr().out
    assert json.loads(printed)["$schema"].startswith("http://json-schema.org/draft-")
    beside = tmp_path / "sweep.schema.json"
    assert main(["init", str(tmp_path)]) == 0
    assert (tmp_path / "sweep.yaml").read_text().startswith(f"# yaml-language-server: $schema={beside.name}\n")
    assert beside.read_text() == printed
    beside.write_text("mine")
    (tmp_path / "sweep.yaml").unlink()
    assert main(["init", str(tmp_path)]) == 0
    assert beside.read_text() == "mine"
    assert main(["schema", "--out", str(beside)]) == 0
    assert beside.read_text() == printed
