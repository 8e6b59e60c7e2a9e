"""How answers of two servers are made comparable: what must not differ does, and what must be told is told."""

import json
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.support.mlflow_replay import ABSENT, Ask, Side, differences
from tests.support.mlflow_requests import all_asks

RUN = "0a" * 16
OTHER = "0b" * 16


class Pair:
    """Two servers that answer what they are told to."""

    def __init__(self) -> None:
        self.sides = (Side("http://theirs"), Side("http://ours"))
        self.bodies: list[tuple[int, Any]] = [(200, {}), (200, {})]
        self.asked: list[httpx.Request] = []
        for number, side in enumerate(self.sides):
            side._client.close()
            side._client = httpx.Client(base_url="http://server", transport=httpx.MockTransport(lambda request, number=number: self._answer(request, number)))

    def _answer(self, request: httpx.Request, number: int) -> httpx.Response:
        self.asked.append(request)
        status, body = self.bodies[number]
        return httpx.Response(status, json=body)

    def told(self, theirs: Any, ours: Any, ask: Ask | None = None, statuses: tuple[int, int] = (200, 200)) -> list[tuple[str, Any, Any]]:
        """The differences between two bodies."""
        self.bodies = [(statuses[0], theirs), (statuses[1], ours)]
        ask = ask or Ask("route: special", "GET", "route")
        return [(found.where, found.theirs, found.ours) for found in differences(ask, *(side.send(ask) for side in self.sides))]


@pytest.fixture
def pair() -> Iterator[Pair]:
    """A pair."""
    made = Pair()
    yield made
    for side in made.sides:
        side.close()


def test_replay_takes_ids_for_the_same_when_they_are_kept_under_one_name(pair: Pair) -> None:
    """Each server has ids of its own; the next request to each has its own in it."""
    keep = Ask("runs/create: x", "POST", "runs/create", {"a": 1}, keep={"run": "run.id"})
    assert pair.told({"run": {"id": RUN}}, {"run": {"id": OTHER}}, keep) == []
    asked = Ask("runs/get: x", "POST", "runs/get", {"run_id": "$run"}, query=(("id", "$run"),))
    assert pair.told({"uri": f"a:/{RUN}/x"}, {"uri": f"a:/{OTHER}/x"}, asked) == []
    assert [(json.loads(request.content)["run_id"], request.url.params["id"]) for request in pair.asked[-2:]] == [(RUN, RUN), (OTHER, OTHER)]


def test_replay_tells_ids_that_are_not_the_same_run(pair: Pair) -> None:
    """An answer about another run than the one that was asked for is a difference."""
    pair.told({"id": RUN}, {"id": OTHER}, Ask("a: a", "GET", "a", keep={"run": "id"}))
    assert pair.told({"id": RUN}, {"id": "0c" * 16}) == [("id", "<run>", "<id 2>")]


def test_replay_compares_times_of_today_by_presence_and_others_by_value(pair: Pair) -> None:
    """What a server reads from its clock can't be the same."""
    now = int(time.time() * 1000)
    assert pair.told({"at": now}, {"at": now + 5000}) == []
    assert pair.told({"at": now}, {}) == [("at", "<now>", ABSENT)]
    assert pair.told({"at": 1_600_000_000_000}, {"at": 1_600_000_000_001}) == [("at", 1_600_000_000_000, 1_600_000_000_001)]


def test_replay_sorts_sets_and_keeps_the_order_of_lists(pair: Pair) -> None:
    """Tags have no order; pages of runs have."""
    tags = [{"key": "a", "value": "1"}, {"key": "b", "value": "2"}]
    assert pair.told({"tags": tags}, {"tags": tags[::-1]}) == []
    assert pair.told({"runs": tags}, {"runs": tags[::-1]}) != []
    assert pair.told({"runs": []}, {}) == []
    assert pair.told({"runs": [{"a": 1}, {"a": 2}]}, {"runs": [{"a": 1}]}) == [("runs", [{"a": 1}, {"a": 2}], [{"a": 1}])]


def test_replay_tells_status_code_and_message(pair: Pair) -> None:
    """An answer of another kind is one difference, other words in the same kind another."""
    refused = {"error_code": "INVALID_PARAMETER_VALUE", "message": "no"}
    assert pair.told({}, refused, statuses=(200, 400)) == [("answer", "200", "400 INVALID_PARAMETER_VALUE: no")]
    assert pair.told(refused, refused | {"error_code": "BAD_REQUEST"}, statuses=(400, 400))[0][0] == "answer"
    assert pair.told(refused, refused | {"message": "not so"}, statuses=(400, 400)) == [("message", "no", "not so")]
    assert pair.told(refused, refused, statuses=(400, 400)) == []


def test_requests_have_names_of_their_own() -> None:
    """More than a thousand, each of which can be named in the list of differences."""
    asks = all_asks()
    assert len({ask.name for ask in asks}) == len(asks) > 1000
