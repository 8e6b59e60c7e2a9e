"""Some fifteen hundred requests, good and bad, to MLflow's server and to ours: what they answer differently is listed with its reason, and nothing else."""

from collections.abc import Iterator
from typing import Final

import psycopg2
import pytest

from tests.support.cluster import Cluster
from tests.support.mlflow_differences import LISTED, Listed, judge
from tests.support.mlflow_peer import MlflowServer
from tests.support.mlflow_replay import FIRST_EXPERIMENT, Answer, Ask, Difference, Side, differences, replay
from tests.support.mlflow_requests import all_asks
from tracking.store.database import normalise_url

SLOW_S: Final = 1.0

pytestmark = pytest.mark.timeout(300)

Answers = list[tuple[Ask, Answer, Answer]]


def number_experiments(database_url: str) -> None:
    """Let a server count its experiments from where no other number is taken for one of them."""
    connection = psycopg2.connect(normalise_url(database_url).replace("+psycopg2", ""))
    try:
        with connection, connection.cursor() as cursor:
            cursor.execute("ALTER SEQUENCE experiments_experiment_id_seq RESTART WITH %s", (FIRST_EXPERIMENT,))
    finally:
        connection.close()


@pytest.fixture(scope="module")
def answers(their_server: MlflowServer, their_database_url: str, our_server: Cluster) -> Iterator[Answers]:
    """What both servers answer to every request, in order."""
    for url in (their_database_url, our_server.database_url):
        number_experiments(url)
    theirs, ours = Side(their_server.url), Side(our_server.url)
    yield list(replay(all_asks(), theirs, ours))
    theirs.close()
    ours.close()


def test_mlflow_answers_differ_only_as_listed(answers: Answers) -> None:
    """Status, error code, message and every field, ids and times apart; and what is listed still occurs."""
    found = [difference for ask, theirs, ours in answers for difference in differences(ask, theirs, ours)]
    unlisted, gone = judge(found)
    assert not unlisted, "\n".join([f"{len(unlisted)} differences are not listed in tests/support/mlflow_differences.py:", *map(str, unlisted)])
    assert not gone, "\n".join(["Listed in tests/support/mlflow_differences.py, but gone:", *gone])


def test_mlflow_requests_are_never_answered_5xx(answers: Answers) -> None:
    """Whatever is asked: a client would ask again for minutes. 501 says that it is of no use."""
    assert [(ask.name, ours.status) for ask, _, ours in answers if ours.status == 0 or (ours.status >= 500 and ours.status != 501)] == []


def test_mlflow_requests_are_answered_within_a_second(answers: Answers) -> None:
    """The bad ones too."""
    assert [(ask.name, ours.seconds) for ask, _, ours in answers if ours.seconds > SLOW_S] == []


def test_judge_tells_what_is_not_listed_and_what_is_gone() -> None:
    """A listed difference passes, another does not, and a listed one that does not occur is told."""
    found = Difference(Ask("runs/get: x", "GET", "runs/get"), "message", "their words", "our words")
    other = Difference(found.ask, "answer", "200", "400 INVALID_PARAMETER_VALUE: no")
    kind = Listed("x", "", "", "", "their", "our", "message", ("runs/get: .*", "runs/search: .*"))
    assert judge([found, other], [kind]) == ([other], ["x: runs/search: .*"])
    assert judge([found], []) == ([found], [])


def test_listed_differences_are_kinds_not_everything() -> None:
    """None passes differences of every request whatever is said."""
    assert [kind.what for kind in LISTED if kind.theirs == kind.ours == "" and ".*" in kind.asks] == []
