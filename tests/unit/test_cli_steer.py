"""Verbs that change the course of a sweep, and `wait`, against a made-up server."""

import json
from io import StringIO
from typing import Any

import pytest

from sweeps.cli import follow, main, steer
from tests.support.fake_server import ACTIVE, CANCELLED, FINISHED, FRUITLESS, RUN_ID, RUNNING, STILL_RUNNING, FakeServer, sweep_answer


def test_cli_asks_before_it_cancels(server: FakeServer, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a terminal and without --yes nothing is changed."""
    monkeypatch.setattr("sys.stdin", StringIO())
    server.says("GET /sweeps/wine", ACTIVE)
    assert main(["cancel", "wine"]) == 2
    assert "--yes" in capsys.readouterr().err
    assert server.asked == ["GET /sweeps/wine"]


def test_cli_cancels_by_id_what_was_named(server: FakeServer) -> None:
    """What `@latest` means is decided once, before the question."""
    server.says("GET /sweeps/@latest", ACTIVE)
    server.says(f"POST /sweeps/{ACTIVE['sweep_id']}/cancel", CANCELLED)
    assert main(["cancel", "@latest", "--yes"]) == 0
    assert server.asked[-1] == f"POST /sweeps/{ACTIVE['sweep_id']}/cancel"


@pytest.mark.parametrize("verb", ["cancel", "stop"])
def test_cli_leaves_alone_what_has_ended(server: FakeServer, capsys: pytest.CaptureFixture[str], verb: str) -> None:
    """Ending what has ended changes nothing and says so."""
    server.says("GET /sweeps/wine", FINISHED)
    assert main([verb, "wine"]) == 0
    assert "already ended: finished" in capsys.readouterr().err
    assert [request for request in server.asked if request.startswith("POST")] == []


@pytest.mark.parametrize(("answers", "expected"), [([ACTIVE, FINISHED], 0), ([ACTIVE, FRUITLESS], 6), ([CANCELLED], 1)])
def test_cli_wait_exits_by_how_it_ended(server: FakeServer, monkeypatch: pytest.MonkeyPatch, answers: list[Any], expected: int) -> None:
    """0 for a success, 6 for none, 1 for a sweep that was cancelled."""
    monkeypatch.setattr("time.sleep", lambda _: None)
    server.says("GET /sweeps/@latest", answers[0])
    server.says(f"GET /sweeps/{ACTIVE['sweep_id']}", list(answers))
    assert main(["wait"]) == expected


@pytest.mark.parametrize("state", ["finished", "failed", "cancelled"])
@pytest.mark.parametrize("finished", [0, 1])
def test_exit_status_puts_the_missing_success_first(state: str, finished: int) -> None:
    """Whatever a sweep ended as, 6 means that no trial succeeded; 1 that it failed or was cancelled although one did."""
    ended: Any = sweep_answer(state=state, counts={"finished": finished})
    assert follow.exit_status(ended) == (6 if not finished else 0 if state == "finished" else 1)


def test_cli_wait_gives_up_in_time(server: FakeServer, capsys: pytest.CaptureFixture[str]) -> None:
    """`--timeout` ends with 124 while the sweep goes on."""
    server.says("GET /sweeps/@latest", ACTIVE)
    server.says(f"GET /sweeps/{ACTIVE['sweep_id']}", ACTIVE)
    assert main(["wait", "--timeout", "0", "--json"]) == 124
    assert json.loads(capsys.readouterr().out)["state"] == "active"


def test_cli_wait_waits_for_trials_that_take_their_time_to_stop(
    server: FakeServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A cancelled sweep is over when none of its trials runs any more; a time-out before that says what is so."""
    monkeypatch.setattr("time.sleep", lambda _: None)
    server.says("GET /sweeps/@latest", ACTIVE)
    server.says(f"GET /sweeps/{ACTIVE['sweep_id']}", [STILL_RUNNING, STILL_RUNNING, CANCELLED])
    assert main(["wait", "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["counts"]["running"] == 0
    server.says(f"GET /sweeps/{ACTIVE['sweep_id']}", STILL_RUNNING)
    assert main(["wait", "--timeout", "0"]) == 124
    assert "is cancelled, but 1 trial was asked to stop and still runs after 0 s" in capsys.readouterr().err


def test_cli_wait_for_first_success(server: FakeServer) -> None:
    """One finished trial is enough."""
    server.says("GET /sweeps/@latest", ACTIVE)
    server.says(f"GET /sweeps/{ACTIVE['sweep_id']}", ACTIVE)
    assert main(["wait", "--for", "first-success"]) == 0


def test_cli_cancels_a_run_by_its_number(server: FakeServer, capsys: pytest.CaptureFixture[str]) -> None:
    """`SWEEP/NUMBER` means one run, not the sweep, and the answer says which."""
    server.says("GET /runs/wine/3", RUNNING)
    server.says(f"POST /runs/{RUN_ID}/cancel", RUNNING)
    assert main(["cancel", "wine/3", "-y"]) == 0
    assert server.asked[-1] == f"POST /runs/{RUN_ID}/cancel"
    assert capsys.readouterr().err == f"Trial brave-otter-7f3a/3 (run {RUN_ID}) is being cancelled.\n"
    assert {"finished", "failed", "cancelled"} == steer.FINAL_STATES


@pytest.mark.parametrize("ref", ["ml/flow", "ml/3"])
def test_cli_cancels_a_sweep_whose_name_has_slashes(server: FakeServer, ref: str) -> None:
    """Also one that looks like SWEEP/NUMBER, if there is no such trial."""
    server.says(f"GET /sweeps/{ref.replace('/', '%2F')}", ACTIVE)
    server.says(f"POST /sweeps/{ACTIVE['sweep_id']}/cancel", CANCELLED)
    assert main(["cancel", ref, "--yes"]) == 0
    assert server.asked[-1] == f"POST /sweeps/{ACTIVE['sweep_id']}/cancel"


def test_cli_cancel_tells_of_the_trial_that_is_not_there(server: FakeServer, capsys: pytest.CaptureFixture[str]) -> None:
    """Not of a sweep that nobody meant."""
    assert main(["cancel", "wine/99", "--yes"]) == 3
    assert "nothing at GET /runs/wine/99" in capsys.readouterr().err


@pytest.mark.parametrize(("kind", "asked"), [("managed", f"POST /runs/{RUN_ID}/cancel"), ("sweep", f"POST /sweeps/{RUN_ID}/cancel")])
def test_cli_cancels_what_a_whole_id_names(server: FakeServer, kind: str, asked: str) -> None:
    """A sweep is a run too, and is cancelled as a sweep."""
    server.says(f"GET /runs/{RUN_ID}", RUNNING | {"kind": kind})
    server.says(f"GET /sweeps/{RUN_ID}", ACTIVE | {"sweep_id": RUN_ID})
    server.says(f"POST /runs/{RUN_ID}/cancel", RUNNING)
    server.says(f"POST /sweeps/{RUN_ID}/cancel", CANCELLED)
    assert main(["cancel", RUN_ID, "--yes"]) == 0
    assert server.asked[-1] == asked


@pytest.mark.parametrize(
    ("verb", "state", "told"), [("pause", "paused", "already paused"), ("resume", "active", "not paused"), ("stop", "stopping", "stopping")]
)
def test_cli_steering_twice_changes_nothing_and_says_so(server: FakeServer, capsys: pytest.CaptureFixture[str], verb: str, state: str, told: str) -> None:
    """What is already so is left alone, unasked."""
    server.says("GET /sweeps/wine", ACTIVE | {"state": state})
    assert main([verb, "wine"]) == 0
    err = capsys.readouterr().err
    assert told in err
    assert "Nothing was changed." in err
    assert server.asked == ["GET /sweeps/wine"]


def test_cli_confirmation_is_no_wrong_usage(server: FakeServer, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing was mistyped, so no usage is shown."""
    monkeypatch.setattr("sys.stdin", StringIO())
    server.says("GET /sweeps/wine", ACTIVE)
    assert main(["cancel", "wine"]) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: Not done")
    assert err.endswith("hint: Add --yes to do this without a terminal.\n")


def test_cli_cancel_says_that_trials_take_their_time(server: FakeServer, capsys: pytest.CaptureFixture[str]) -> None:
    """The sweep has ended at once, what runs of it has not."""
    server.says("GET /sweeps/wine", ACTIVE)
    server.says(f"POST /sweeps/{ACTIVE['sweep_id']}/cancel", STILL_RUNNING)
    assert main(["cancel", "wine", "-y"]) == 0
    assert capsys.readouterr().err == "Sweep wine (brave-otter-7f3a) is cancelled; 1 trial was asked to stop and still runs.\n"


def test_cli_cancels_the_run_whose_id_begins_so(server: FakeServer) -> None:
    """Six characters or more, as `show` takes them."""
    server.says(f"GET /runs/{RUN_ID[:6]}", RUNNING)
    server.says(f"POST /runs/{RUN_ID}/cancel", RUNNING)
    assert main(["cancel", RUN_ID[:6], "--yes"]) == 0
    assert server.asked[-1] == f"POST /runs/{RUN_ID}/cancel"


def test_cli_retries_the_run_whose_id_begins_so(server: FakeServer) -> None:
    """That trial, and no other."""
    sweep_id = ACTIVE["sweep_id"]
    server.says(f"GET /runs/{RUN_ID[:8]}", RUNNING | {"sweep_id": sweep_id})
    server.says(f"POST /sweeps/{sweep_id}/retry", {"schema": 1, "trials": [3], "sweep": ACTIVE})
    assert main(["retry", RUN_ID[:8]]) == 0
    assert server.bodies[-1]["trials"] == [3]


def test_cli_cancels_the_sweep_where_a_run_begins_so_too(server: FakeServer) -> None:
    """What names a sweep means the sweep."""
    server.says("GET /sweeps/ababab", ACTIVE)
    server.says("GET /runs/ababab", RUNNING)
    server.says(f"POST /sweeps/{ACTIVE['sweep_id']}/cancel", CANCELLED)
    assert main(["cancel", "ababab", "--yes"]) == 0
    assert server.asked[-1] == f"POST /sweeps/{ACTIVE['sweep_id']}/cancel"


def test_cli_cancel_misses_a_sweep_where_nothing_begins_so(server: FakeServer, capsys: pytest.CaptureFixture[str]) -> None:
    """As of any other name that is not there."""
    assert main(["cancel", "ababab", "--yes"]) == 3
    assert "nothing at GET /sweeps/ababab" in capsys.readouterr().err


def test_cli_wait_says_once_that_trials_of_an_ended_sweep_still_run(
    server: FakeServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """After some seconds, as `run` does: a worker that has vanished ends nothing for a while."""
    monkeypatch.setattr("time.sleep", lambda _: None)
    server.says("GET /sweeps/@latest", ACTIVE)
    seen = [ACTIVE, STILL_RUNNING, STILL_RUNNING, STILL_RUNNING, CANCELLED]
    server.says(f"GET /sweeps/{ACTIVE['sweep_id']}", list(seen))
    assert main(["wait"]) == 1
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(steer, "NOTE_AFTER_S", 0.0)
    server.says(f"GET /sweeps/{ACTIVE['sweep_id']}", list(seen))
    assert main(["wait"]) == 1
    assert capsys.readouterr().err.count("is cancelled, but 1 trial was asked to stop and still runs") == 1
