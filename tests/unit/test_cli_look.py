"""Verbs that only read, against a made-up server: what they print where."""

import json
import shlex
from typing import Any

import pytest

from sweeps.cli import main
from sweeps.command import build_argv
from sweeps.spec import config_from_mapping
from tests.support.fake_server import ACTIVE, BEST, CANCELLED, NO_BEST, RUN_ID, RUNNING, WHY, FakeServer, sweep_answer, trial_answer

CONFIG = config_from_mapping({"program": "t.py", "method": "random", "parameters": {"lr": {"min": 0.0, "max": 1.0}}})


def test_cli_best_json_is_stable(server: FakeServer, capsys: pytest.CaptureFixture[str]) -> None:
    """`best --json` gives what scripts rely on."""
    server.says("GET /sweeps/wine/best", BEST)
    assert main(["best", "wine", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    wanted = "schema sweep_id number run_id metric goal value params".split()
    assert {key: answer[key] for key in wanted} == {key: BEST[key] for key in wanted}


def test_cli_trials_json_is_stable(server: FakeServer, capsys: pytest.CaptureFixture[str]) -> None:
    """`trials --json` gives what scripts rely on."""
    server.says("GET /sweeps/@latest/trials", BEST | {"trials": [trial_answer()]})
    assert main(["trials", "--json"]) == 0
    trial = json.loads(capsys.readouterr().out)["trials"][0]
    assert {"number", "run_id", "state", "run_state", "cause", "value", "params", "attempts", "duration_s"} <= trial.keys()


@pytest.mark.parametrize(("form", "expected"), [("args", "--lr=0.01 '--act=re lu'\n"), ("env", "LR=0.01\nACT='re lu'\n")])
def test_cli_best_prints_parameters_for_shells(server: FakeServer, capsys: pytest.CaptureFixture[str], form: str, expected: str) -> None:
    """The winner's parameters can be pasted into a command line."""
    server.says("GET /sweeps/@latest/best", BEST)
    server.says(f"GET /sweeps/{BEST['sweep_id']}", sweep_answer(config=CONFIG.to_builtins()))
    assert main(["best", "--format", form]) == 0
    assert capsys.readouterr().out == expected


def test_cli_best_gives_nested_parameters_as_the_script_got_them(server: FakeServer, capsys: pytest.CaptureFixture[str]) -> None:
    """In the words of `${args}`, which hold a nested mapping whole; a shell reads them back as they were."""
    params = {"optimizer.lr": 0.01, "optimizer.name": "adam", "x.y": 1}
    config = config_from_mapping(
        {
            "program": "t.py",
            "method": "random",
            "parameters": {"optimizer": {"parameters": {"lr": {"value": 0.01}, "name": {"value": "adam"}}}, "x.y": {"value": 1}},
        }
    )
    server.says("GET /sweeps/@latest/best", BEST | {"top": [trial_answer(params=params)]})
    server.says(f"GET /sweeps/{BEST['sweep_id']}", sweep_answer(config=config.to_builtins()))
    assert main(["best", "--format", "args"]) == 0
    words = shlex.split(capsys.readouterr().out)
    assert words == ["--optimizer={'lr': 0.01, 'name': 'adam'}", "--x.y=1"]
    assert words == list(build_argv(config, params))[-2:]


def test_cli_best_and_trials_ask_for_those_that_meet_a_filter(server: FakeServer, capsys: pytest.CaptureFixture[str]) -> None:
    """The filter travels as it is written; that nothing meets it is said."""
    server.says("GET /sweeps/@latest/best", NO_BEST)
    server.says("GET /sweeps/@latest/trials", BEST | {"trials": []})
    assert main(["best", "--where", "params.lr < 0.1"]) == 6
    assert "that meets the filter" in capsys.readouterr().err
    assert main(["trials", "--where", "params.lr < 0.1"]) == 0
    assert "No trials that meet the filter" in capsys.readouterr().err
    assert [query["where"] for query in server.queries] == [["params.lr < 0.1"]] * 2


@pytest.mark.parametrize("command", ["best", "trials"])
def test_cli_where_is_refused_with_a_caret(server: FakeServer, capsys: pytest.CaptureFixture[str], command: str) -> None:
    """Nobody is asked; the line below the filter points at what is wrong, also in a long one."""
    assert main([command, "--where", "metrics.a > 'x'"]) == 2
    assert capsys.readouterr().err.splitlines()[1:] == ["  metrics.a > 'x'", "              ^"]
    assert main([command, "--where", "metrics.a > 1 AND\n" * 50 + "params.b =" + " AND metrics.a > 1" * 50]) == 2
    _, shown, caret = capsys.readouterr().err.splitlines()
    assert shown[caret.index("^") :].startswith("AND metrics.a")
    assert len(shown) < 90
    assert server.queries == []


def test_cli_best_exits_6_without_a_best(server: FakeServer, capsys: pytest.CaptureFixture[str]) -> None:
    """No finished trial yet is an answer, not an error; the status tells."""
    server.says("GET /sweeps/@latest/best", NO_BEST)
    assert main(["best", "--json"]) == 6
    assert json.loads(capsys.readouterr().out)["number"] is None


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"state": "active"}, "has no finished trial with a value yet."),
        ({"state": "finished"}, "has ended without a finished trial that has a value."),
        ({"state": "finished", "metric": None}, "has no metric to be best by."),
    ],
)
def test_cli_best_says_whether_there_may_be_one_yet(server: FakeServer, capsys: pytest.CaptureFixture[str], changes: dict[str, Any], told: str) -> None:
    """Nobody waits for what never comes."""
    server.says("GET /sweeps/@latest/best", NO_BEST | changes)
    assert main(["best"]) == 6
    assert told in capsys.readouterr().err


def test_cli_best_refuses_parameters_that_would_be_one_variable(server: FakeServer, capsys: pytest.CaptureFixture[str]) -> None:
    """Both are named; formats that keep names still work."""
    server.says("GET /sweeps/@latest/best", BEST | {"top": [trial_answer(params={"lernräte": 1, "lernr.te": 2})]})
    assert main(["best", "--format", "env"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "'lernräte' and 'lernr.te' would both be the variable LERNR_TE" in err
    server.says(f"GET /sweeps/{BEST['sweep_id']}", sweep_answer(config=CONFIG.to_builtins()))
    assert main(["best", "--format", "args"]) == 0


def test_cli_metrics_says_which_there_are(server: FakeServer, capsys: pytest.CaptureFixture[str]) -> None:
    """A key that was never logged is not found, with --json too."""
    server.says("GET /runs/wine/3", RUNNING | {"metrics": [{"key": "loss"}, {"key": "acc"}]})
    server.says(f"GET /runs/{RUN_ID}/metrics", {"schema": 1, "run_id": RUN_ID, "key": "nope", "metrics": [], "next_page_token": ""})
    for more in ([], ["--json"]):
        assert main(["metrics", "wine/3", "--key", "nope", *more]) == 3
        assert capsys.readouterr() == ("", "error: The run has no metric 'nope': it has logged 'loss' and 'acc'.\n")


def test_cli_rows_are_tab_separated_off_a_terminal(server: FakeServer, capsys: pytest.CaptureFixture[str]) -> None:
    """No headings, no colour, no cutting, and no control characters of the user's."""
    trial = trial_answer(params={"text": "a\x1b[31m\tb" + "x" * 300}, value=1 / 3)
    server.says("GET /sweeps/@latest/trials", BEST | {"trials": [trial]})
    assert main(["trials"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert line.split("\t")[:6] == ["3", "finished", repr(1 / 3), "2s", "1", "-"]
    assert line.endswith("x" * 300)
    assert "\x1b" not in line


def test_cli_trials_puts_pages_together(server: FakeServer, capsys: pytest.CaptureFixture[str]) -> None:
    """A sweep with more trials than one answer carries is listed whole."""
    pages = [BEST | {"trials": [trial_answer(0)], "next_offset": 1}, BEST | {"trials": [trial_answer(1)], "next_offset": None}]
    server.says("GET /sweeps/@latest/trials", pages)
    assert main(["trials", "--json"]) == 0
    assert [trial["number"] for trial in json.loads(capsys.readouterr().out)["trials"]] == [0, 1]


def test_cli_logs_keeps_the_streams_apart(server: FakeServer, capsys: pytest.CaptureFixture[str]) -> None:
    """Each stream of the run goes to its own; `--stream` sends one to standard output."""
    server.says("GET /runs/wine/3", {"schema": 1, "run_id": RUN_ID, "kind": "managed", "state": "finished", "ended_at": "x"})
    page = {"schema": 1, "run_id": RUN_ID, "attempt": 1, "stream": "", "is_complete": True}
    pages = [page | {"text": text, "next_offset": offset} for text, offset in (("one\ntwo\n", 8), ("", 8), ("bad\n", 4), ("", 4))]
    server.says(f"GET /runs/{RUN_ID}/logs", pages)
    assert main(["logs", "wine/3", "--tail", "1"]) == 0
    assert capsys.readouterr() == ("two\n", "bad\n")
    server.says(f"GET /runs/{RUN_ID}/logs", [page | {"text": "bad\n", "next_offset": 4}, page | {"text": "", "next_offset": 4}])
    assert main(["logs", "wine/3", "--stream", "stderr"]) == 0
    assert capsys.readouterr() == ("bad\n", "")


def test_cli_why_prints_reasons_and_the_story(server: FakeServer, capsys: pytest.CaptureFixture[str]) -> None:
    """One sentence a line; the story by the day, with the time of each."""
    answer = {
        **WHY,
        "subject": "trial wine/3",
        "state": "queued",
        "reasons": ["No worker is here."],
        "story": [
            {"at": "2026-01-02T23:59:58.500Z", "text": "Trial 3 was proposed."},
            {"at": "2026-01-02T23:59:59.000Z", "text": "Placed on w1."},
            {"at": "2026-01-03T00:00:01.000Z", "text": "Taken back\x1b[31m from w1."},
        ],
    }
    server.says("GET /why/wine/3", answer)
    assert main(["why", "wine/3"]) == 0
    assert capsys.readouterr().out == (
        "trial wine/3 is queued.\n  No worker is here.\nstory\n  2026-01-02\n  23:59:58  Trial 3 was proposed.\n  23:59:59  Placed on w1.\n"
        "  2026-01-03\n  00:00:01  Taken back [31m from w1.\n"
    )
    assert main(["why", "wine/3", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == answer


def test_cli_ls_names_the_state_that_has_none(server: FakeServer, capsys: pytest.CaptureFixture[str]) -> None:
    """An empty list of one state says nothing of the others."""
    server.says("GET /sweeps", {"schema": 1, "sweeps": []})
    assert main(["ls", "--state", "failed"]) == 0
    assert capsys.readouterr().err == "No sweeps in state failed.\n"


def test_cli_ls_tells_cancelled_trials_apart(server: FakeServer, capsys: pytest.CaptureFixture[str]) -> None:
    """What was cancelled is not done."""
    server.says("GET /sweeps", {"schema": 1, "sweeps": [CANCELLED | {"user_name": ""}]})
    assert main(["ls"]) == 0
    assert capsys.readouterr().out.split("\t")[2:8] == ["cancelled", "1/4", "0", "0", "3", "-"]


@pytest.mark.parametrize("verb", ["show", "logs", "metrics"])
def test_cli_asks_for_a_trial_where_a_sweep_is_named(server: FakeServer, capsys: pytest.CaptureFixture[str], verb: str) -> None:
    """A sweep's name, or its whole id, is answered with how its trials are named."""
    server.says("GET /sweeps/wine", ACTIVE)
    server.says(f"GET /runs/{ACTIVE['sweep_id']}", {"schema": 1, "run_id": ACTIVE["sweep_id"], "kind": "sweep"})
    server.says(f"GET /sweeps/{ACTIVE['sweep_id']}", ACTIVE)
    for ref in ("wine", ACTIVE["sweep_id"]):
        assert main([verb, ref]) == 3
        assert "is a sweep; name a trial of it, such as brave-otter-7f3a/0." in capsys.readouterr().err
    assert main([verb, "nothing"]) == 3
    assert "nothing at GET /runs/nothing" in capsys.readouterr().err


def test_cli_show_tells_of_a_pending_cancel(server: FakeServer, capsys: pytest.CaptureFixture[str]) -> None:
    """A run that was asked to stop and still runs says so, and is named by its sweep's short id."""
    run = {"schema": 1, "run_id": RUN_ID, "kind": "managed", "name": "", "state": "running", "cause": None, "detail": None, "duration_s": 3.0}
    run |= {"sweep_id": "cd" * 16, "sweep_short_id": "brave-otter-7f3a", "trial_number": 3, "experiment_id": "1", "argv": []}
    run |= {"params": {}, "metrics": [], "tags": {}, "attempts": [], "earlier_runs": ["before"], "stop_requested_at": "2026-01-02T03:04:05.000Z"}
    server.says("GET /runs/wine/3", run)
    assert main(["show", "wine/3"]) == 0
    out = capsys.readouterr().out
    assert "asked to stop" in out
    assert "before      before, until `sweep retry`\n" in out
    assert "trial       brave-otter-7f3a/3\n" in out


def test_cli_logs_follow_says_that_it_waits(server: FakeServer, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that has not started has nothing to print yet, which is said."""
    monkeypatch.setattr("time.sleep", lambda _: None)
    run = {"schema": 1, "run_id": RUN_ID, "kind": "managed", "state": "queued", "ended_at": None}
    server.says("GET /runs/wine/3", run)
    server.says(f"GET /runs/{RUN_ID}", run | {"state": "cancelled", "ended_at": "x"})
    server.says(f"GET /runs/{RUN_ID}/logs", {"schema": 1, "run_id": RUN_ID, "attempt": 0, "text": "", "next_offset": 0, "is_complete": False})
    assert main(["logs", "-f", "wine/3"]) == 0
    assert "queued and has not started; waiting for it" in capsys.readouterr().err


def test_cli_logs_follow_detaches_on_ctrl_c(server: FakeServer, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """What was printed is there, the run is left alone, and the exit status is 130."""

    def interrupted(_: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("time.sleep", interrupted)
    server.says("GET /runs/wine/3", RUNNING)
    server.says(f"GET /runs/{RUN_ID}", RUNNING)
    page = {"schema": 1, "run_id": RUN_ID, "attempt": 1, "is_complete": False, "next_offset": 4}
    server.says(f"GET /runs/{RUN_ID}/logs", [page | {"text": "one\n"}, page | {"text": ""}])
    assert main(["logs", "-f", "--stream", "stdout", "wine/3"]) == 130
    assert capsys.readouterr() == ("one\n", "detached; the run goes on.\n")
    assert all(request.startswith("GET") for request in server.asked)


def test_cli_trials_says_when_there_are_none(server: FakeServer, capsys: pytest.CaptureFixture[str]) -> None:
    """An empty list says where to look."""
    server.says("GET /sweeps/@latest/trials", BEST | {"trials": []})
    assert main(["trials", "--state", "failed"]) == 0
    assert capsys.readouterr() == ("", "No trials in state failed: `sweep status brave-otter-7f3a`.\n")
