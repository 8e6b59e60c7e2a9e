"""Long preparations: done once for all who wait, called off in time, tried again while somebody is away."""

import threading
from collections.abc import Iterator

import pytest

from tests.support.threads import NoThreads
from worker import errands as errands_module
from worker.errands import CalledOff, Errands, keep_trying
from worker.errors import CodeBroken, EngineAway

PATIENCE_S = 30.0


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pauses between tries take no time."""
    monkeypatch.setattr(errands_module, "_FIRST_DELAY_S", 0.001)
    monkeypatch.setattr(errands_module, "_LONGEST_DELAY_S", 0.001)


class Asker(threading.Thread):
    """Somebody who wants an errand done.

    Attributes:
        got: its result, or the error that was raised.
    """

    def __init__(self, errands: Errands[str], act: "Act", key: str = "key") -> None:
        super().__init__(daemon=True)
        self.called_off = threading.Event()
        self.got: object = None
        self._ask = lambda: errands.run(key, act, self.called_off)
        self.start()

    def run(self) -> None:
        """Ask."""
        try:
            self.got = self._ask()
        except Exception as error:  # noqa: BLE001  # for the test to look at
            self.got = error

    def answer(self) -> object:
        """Wait for it."""
        self.join(PATIENCE_S)
        assert not self.is_alive()
        return self.got


class Act:
    """An errand that ends when the test says so.

    Attributes:
        began: one event for each time it was begun, set when it was abandoned.
    """

    def __init__(self) -> None:
        self.n_begun = threading.Semaphore(0)
        self.began: list[threading.Event] = []
        self.may_end = threading.Event()
        self.error: Exception | None = None

    def __call__(self, abandoned: threading.Event) -> str:
        """Wait until it may end, deaf to everything else, as a pull is."""
        self.began.append(abandoned)
        self.n_begun.release()
        assert self.may_end.wait(PATIENCE_S)
        if self.error is not None:
            raise self.error
        return f"result {len(self.began)}"


@pytest.fixture
def act() -> Iterator[Act]:
    """One that is let go in the end."""
    made = Act()
    yield made
    made.may_end.set()


def joined(errands: Errands[str], count: int, key: str = "key") -> bool:
    """Wait until so many wait for an errand."""
    deadline = threading.Event()
    for _ in range(int(PATIENCE_S * 100)):
        errand = errands._under_way.get(key)
        if errand is not None and errand.n_waiting == count:
            return True
        deadline.wait(0.01)
    return False


def test_errand_is_done_once_for_all_who_wait(act: Act) -> None:
    """Trials that start together share one fetch, and another key waits for nobody."""
    errands: Errands[str] = Errands()
    askers = [Asker(errands, act) for _ in range(3)]
    assert act.n_begun.acquire(timeout=PATIENCE_S)
    assert joined(errands, 3)
    assert errands.run("another", lambda _abandoned: "at once") == "at once"
    act.may_end.set()
    assert [asker.answer() for asker in askers] == ["result 1"] * 3
    assert errands.run("key", lambda _abandoned: "anew") == "anew"


def test_errand_fails_for_all_who_wait(act: Act) -> None:
    """Its error is everybody's."""
    errands: Errands[str] = Errands()
    act.error = CodeBroken("It is broken.")
    askers = [Asker(errands, act) for _ in range(2)]
    assert act.n_begun.acquire(timeout=PATIENCE_S)
    assert joined(errands, 2)
    act.may_end.set()
    assert [asker.answer() for asker in askers] == [act.error] * 2


def test_errand_lets_go_of_who_is_called_off_and_is_abandoned_by_the_last(act: Act) -> None:
    """A cancelled attempt leaves at once although the call can't be interrupted; as long as somebody waits, it is still wanted."""
    errands: Errands[str] = Errands()
    first, second = Asker(errands, act), Asker(errands, act)
    assert act.n_begun.acquire(timeout=PATIENCE_S)
    assert joined(errands, 2)
    first.called_off.set()
    assert isinstance(first.answer(), CalledOff)
    assert not act.began[0].is_set()
    second.called_off.set()
    assert isinstance(second.answer(), CalledOff)
    assert act.began[0].is_set()


def test_errand_that_was_abandoned_is_done_anew_for_who_comes_later(act: Act) -> None:
    """That those before have called it off says nothing to others."""
    errands: Errands[str] = Errands()
    first = Asker(errands, act)
    assert act.n_begun.acquire(timeout=PATIENCE_S)
    first.called_off.set()
    assert isinstance(first.answer(), CalledOff)
    act.error = CalledOff()
    later = Asker(errands, lambda _abandoned: "anew")  # type: ignore[arg-type]
    assert joined(errands, 1)
    act.may_end.set()
    assert later.answer() == "anew"


def test_trying_goes_on_while_somebody_is_away() -> None:
    """An outage that passes costs nothing but time."""
    answers: list[EngineAway | str] = [EngineAway("away"), EngineAway("away"), "here"]

    def ask() -> str:
        answer = answers.pop(0)
        if isinstance(answer, EngineAway):
            raise answer
        return answer

    assert keep_trying(ask, threading.Event(), away=EngineAway) == "here"


def test_trying_ends_when_time_is_over_or_nobody_is_away_or_it_is_called_off() -> None:
    """It is bounded, other errors pass at once, and a stop is heard between two tries."""
    tries: list[None] = []
    called_off = threading.Event()

    def ask(error: Exception) -> str:
        tries.append(None)
        if len(tries) == 3:
            called_off.set()
        raise error

    with pytest.raises(EngineAway):
        keep_trying(lambda: ask(EngineAway("away")), threading.Event(), away=EngineAway, for_s=0.0)
    with pytest.raises(CodeBroken):
        keep_trying(lambda: ask(CodeBroken("broken")), threading.Event(), away=EngineAway)
    with pytest.raises(CalledOff):
        keep_trying(lambda: ask(EngineAway("away")), called_off, away=EngineAway)
    assert len(tries) == 3


def test_errand_is_done_later_when_no_thread_could_be_had(act: Act, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits for an errand that nobody runs: whoever asks tries again until there is a thread, and can be called off meanwhile."""
    errands: Errands[str] = Errands()
    lack = NoThreads(monkeypatch, "errand", 1_000_000)
    waiting, cancelled = Asker(errands, act), Asker(errands, act)
    cancelled.called_off.set()
    assert isinstance(cancelled.answer(), CalledOff)
    assert not errands._under_way
    lack.end()
    act.may_end.set()
    assert waiting.answer() == "result 1"
