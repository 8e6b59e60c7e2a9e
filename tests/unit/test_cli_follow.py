"""Following a sweep, against a made-up server: the live table, a line at each change, Ctrl-C."""

import json
from collections.abc import Iterator
from functools import partial
from io import StringIO
from typing import Any

import pytest

from sweeps.cli import follow, main
from sweeps.client import Client, ServerAway
from sweeps.looks import NOTE_AFTER_S, RIDE_OUT_S, looks
from tests.support.fake_server import ACTIVE, CANCELLED, FINISHED, STILL_RUNNING, WAITS, WHY, FakeServer
from tests.support.screen import shown_lines


def test_cli_watch_prints_a_line_at_each_change_and_the_end(server: FakeServer, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Off a terminal: changes on standard error, never twice the same; the ending on standard output."""
    monkeypatch.setattr("time.sleep", lambda _: None)
    monkeypatch.setattr(follow, "LINE_EVERY_S", 0.0)
    monkeypatch.setattr(looks, "__kwdefaults__", {**(looks.__kwdefaults__ or {}), "pause": lambda _: None})
    server.says("GET /sweeps/@latest", ACTIVE)
    server.says(f"GET /sweeps/{ACTIVE['sweep_id']}", [ACTIVE, ACTIVE, FINISHED])
    assert main(["status", "--watch"]) == 0
    out, err = capsys.readouterr()
    assert [line.split("  ")[1] for line in err.splitlines()[:2]] == ["active", "finished"]
    assert "best rmse 0.125  trial 3" in out
    assert "sweep register brave-otter-7f3a --model NAME" in err
    assert "register" not in out


def test_cli_watch_goes_on_until_nothing_runs(server: FakeServer, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A cancelled sweep whose trials have yet to stop is followed until they have, and whoever follows is told."""
    monkeypatch.setattr(looks, "__kwdefaults__", {**(looks.__kwdefaults__ or {}), "pause": lambda _: None})
    monkeypatch.setattr(follow, "LINE_EVERY_S", 0.0)
    server.says("GET /sweeps/@latest", ACTIVE)
    server.says(f"GET /sweeps/{ACTIVE['sweep_id']}", [ACTIVE, STILL_RUNNING, STILL_RUNNING, CANCELLED])
    assert main(["status", "--watch"]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert [line.split("  ")[1] for line in lines[:3]] == ["active", "cancelled", "cancelled"]
    assert lines[1].endswith("  1 trial was asked to stop and still runs")


def test_cli_watch_json_is_one_object_a_line(server: FakeServer, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """`--watch --json` can be read line by line."""
    monkeypatch.setattr(looks, "__kwdefaults__", {**(looks.__kwdefaults__ or {}), "pause": lambda _: None})
    server.says("GET /sweeps/@latest", ACTIVE)
    server.says(f"GET /sweeps/{ACTIVE['sweep_id']}", [ACTIVE, ACTIVE, FINISHED])
    assert main(["status", "--watch", "--json"]) == 0
    assert [json.loads(line)["state"] for line in capsys.readouterr().out.splitlines()] == ["active", "finished"]


def test_cli_watch_detaches_on_ctrl_c(server: FakeServer, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C leaves the sweep alone, says so, and exits with 130."""

    def interrupted(_: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(looks, "__kwdefaults__", {**(looks.__kwdefaults__ or {}), "pause": interrupted})
    server.says("GET /sweeps/@latest", ACTIVE)
    server.says(f"GET /sweeps/{ACTIVE['sweep_id']}", ACTIVE)
    assert main(["status", "--watch"]) == 130
    assert "detached; the sweep goes on" in capsys.readouterr().err
    assert all(request.startswith("GET") for request in server.asked)


def test_following_rides_out_a_server_that_is_away() -> None:
    """A restart of the server costs a line, not the follower; an absence without end is told."""
    now = 0.0
    away = ServerAway("Away.")

    def pause(_: float) -> None:
        nonlocal now
        now += RIDE_OUT_S / 2

    def look(script: Iterator[Any]) -> Any:
        item = next(script)
        if isinstance(item, Exception):
            raise item
        return item

    script = iter([ACTIVE, away, away, FINISHED])
    assert [seen["state"] for seen in looks(lambda: look(script), tell=print, pause=pause, clock=lambda: now)] == ["active", "finished"]
    for_ever = iter([ACTIVE, *[away] * 9])
    with pytest.raises(ServerAway):
        list(looks(lambda: look(for_ever), tell=print, pause=pause, clock=lambda: now))


@pytest.mark.parametrize("arguments", [["status"], ["status", "--watch"]])
def test_cli_status_says_why_nothing_runs(
    server: FakeServer, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, arguments: list[str]
) -> None:
    """Trials that wait while none runs are told with the first reason of `sweep why`."""
    monkeypatch.setattr(looks, "__kwdefaults__", {**(looks.__kwdefaults__ or {}), "pause": lambda _: None})
    server.says("GET /sweeps/@latest", WAITS)
    server.says(f"GET /sweeps/{WAITS['sweep_id']}", [WAITS, FINISHED])
    server.says(f"GET /why/{WAITS['sweep_id']}", WHY)
    assert main(arguments) == 0
    assert "waits: w1 serves queue 'gpu', but is draining." in "".join(capsys.readouterr())


def test_following_speaks_of_what_passes_only_when_it_stays(server: FakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """That trials are about to be placed is no news at once; what does not pass by itself is; trials that run begin it anew."""
    placing = WHY | {"waits": [{"wait": "placing", "text": WHY["reasons"][0], "until": None}]}
    lasting = WHY | {"waits": [{"wait": "worker", "text": WHY["reasons"][0], "until": None}]}
    clock = [0.0]
    with Client(server.url) as client:
        explain = follow._Patience(partial(follow.waiting_notes, client), lambda: clock[0])

        def told(sweep: Any, answer: Any, at: float) -> bool:
            server.says(f"GET /why/{WAITS['sweep_id']}", answer)
            clock[0] = at
            return bool(explain(sweep))

        assert not told(WAITS, placing, 100.0)
        assert told(WAITS, lasting, 100.1)
        assert not told(WAITS, placing, 100.0 + NOTE_AFTER_S - 0.1)
        assert told(WAITS, placing, 100.0 + NOTE_AFTER_S)
        assert not told(ACTIVE, placing, 110.0)
        assert not told(WAITS, placing, 111.0)


def test_live_table_leaves_nothing_behind_when_the_server_was_away(server: FakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is said of an absence stands in the table, so that each drawing begins where the one before began."""
    from rich.console import Console

    screen = StringIO()
    console = Console(file=screen, force_terminal=True, width=100, height=30, highlight=False)
    script: list[Any] = [ACTIVE, ServerAway("The server is away."), ACTIVE, FINISHED]

    def look() -> Any:
        item = script.pop(0)
        if isinstance(item, Exception):
            raise item
        return item

    monkeypatch.setattr(looks, "__kwdefaults__", {**(looks.__kwdefaults__ or {}), "pause": lambda _: None})
    assert follow._follow_live(look, lambda _: [], console)["state"] == "finished"
    assert "The server is away. Trying again" in screen.getvalue()
    assert shown_lines(screen.getvalue()) == []
