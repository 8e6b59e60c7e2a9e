"""Submissions are remembered until they are answered: a repetition is the same sweep, another submission is not."""

import os
from contextlib import suppress
from pathlib import Path

import pytest

from sweeps.client import InvalidRequest, ServerAway, ServerError
from sweeps.unanswered import remembered

SERVER = "http://somewhere"
BODY = {"config": {"name": "a"}, "source": "name: a"}


def submit(home: Path, answer: Exception | None, *, server: str = SERVER, body: dict[str, object] = BODY) -> str:
    """The id that a submission was sent under, whatever came back."""
    sent: list[str] = []
    with suppress(ServerError), remembered(home, server, body, print) as submission_id:
        sent.append(submission_id)
        if answer is not None:
            raise answer
    return sent[0]


@pytest.mark.parametrize("lost", [ServerAway("Nobody answers.", http_status=503), ServerError("Bad gateway.", http_status=502)], ids=["away", "gateway"])
def test_submission_keeps_its_id_until_it_is_answered(tmp_path: Path, lost: ServerError) -> None:
    """However often the answer is lost; the error says that it may be repeated."""
    first = submit(tmp_path, lost)
    assert "submitted once" in lost.hint
    assert submit(tmp_path, lost) == first
    assert submit(tmp_path, None) == first
    assert submit(tmp_path, None) != first
    assert list((tmp_path / "submissions").iterdir()) == []


def test_submission_keeps_its_id_when_it_is_interrupted(tmp_path: Path) -> None:
    """Ctrl-C says nothing about whether it had arrived."""
    sent = []
    with pytest.raises(KeyboardInterrupt), remembered(tmp_path, SERVER, BODY, print) as submission_id:  # noqa: PT012 -- what is given is looked at
        sent.append(submission_id)
        raise KeyboardInterrupt
    assert submit(tmp_path, None) == sent[0]


def test_submission_that_was_refused_is_forgotten(tmp_path: Path) -> None:
    """It made no sweep."""
    assert submit(tmp_path, InvalidRequest("No.")) != submit(tmp_path, None)


def test_submission_is_another_to_another_server_or_with_other_contents_or_later(tmp_path: Path) -> None:
    """Only the very same thing is a repetition, and only within the hour."""
    away = ServerAway("Nobody answers.", http_status=503)
    first = submit(tmp_path, away)
    assert submit(tmp_path, away, server="http://elsewhere") != first
    assert submit(tmp_path, away, body={**BODY, "source": "name: b"}) != first
    for file in (tmp_path / "submissions").iterdir():
        os.utime(file, (0, 0))
    assert submit(tmp_path, None) != first


def test_two_submissions_at_once_are_two_sweeps(tmp_path: Path) -> None:
    """Whoever submits while the same is under way does not repeat it."""
    with remembered(tmp_path, SERVER, BODY, print) as one, remembered(tmp_path, SERVER, BODY, print) as other:
        assert one != other


def test_submission_needs_no_home(tmp_path: Path) -> None:
    """Where nothing can be kept, a submission is what it was."""
    (tmp_path / "home").touch()
    assert submit(tmp_path / "home", None)
