"""How many attempts run at once: first come, first served, and nobody waits for ever."""

import threading
from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st

from tests.support.services import wait_until
from worker.slots import Slots


class Waiter:
    """Somebody who takes a slot in a thread of its own."""

    def __init__(self, slots: Slots, note: Callable[[], None] = lambda: None) -> None:
        self.answer: bool | None = None
        self._slots = slots
        self._note = note
        self._thread = threading.Thread(target=self._take, daemon=True)
        n_before = len(slots._line)
        self._thread.start()
        wait_until(lambda: self.answer is not None or len(slots._line) > n_before, "it has a slot or stands in line", interval_s=0.001)

    def result(self) -> bool | None:
        """What it was told; None if it still waits after a while."""
        self._thread.join(30)
        return self.answer

    def _take(self) -> None:
        self.answer = self._slots.take()
        self._note()


def test_slots_are_taken_until_none_is_left() -> None:
    """As many as there are, and freed ones again."""
    slots = Slots(2)
    assert [slots.take(), slots.take()] == [True, True]
    assert slots.n_free == 0
    slots.free()
    assert slots.n_free == 1
    assert slots.take()


def test_slots_are_given_in_the_order_of_asking() -> None:
    """A freed slot goes to who has waited longest, and to nobody else."""
    slots = Slots(1)
    slots.take()
    order: list[int] = []
    waiters = [Waiter(slots, lambda n=n: order.append(n)) for n in range(3)]  # type: ignore[misc]
    for n, waiter in enumerate(waiters):
        slots.free()
        assert waiter.result() is True
        assert order == list(range(n + 1))
    assert slots.n_free == 0


def test_slots_occupied_by_adopted_attempts_are_owed() -> None:
    """More may be adopted than there are slots; nobody gets one before the excess has ended."""
    slots = Slots(1)
    slots.take_over()
    slots.take_over()
    assert slots.n_free == 0
    waiter = Waiter(slots)
    slots.free()
    assert waiter.answer is None
    slots.free()
    assert waiter.result() is True


def test_slots_closed_send_everybody_home() -> None:
    """Who waits is told that there will be none, and so is who comes later, even if one is free."""
    slots = Slots(1)
    slots.take()
    waiters = [Waiter(slots), Waiter(slots)]
    slots.close()
    assert [waiter.result() for waiter in waiters] == [False, False]
    slots.free()
    assert not slots.take()


@given(st.integers(1, 4), st.lists(st.sampled_from(["take", "take_over", "free"]), max_size=40))
def test_slots_count_whatever_happens(n_slots: int, acts: list[str]) -> None:
    """Free ones are those that nobody holds, never less than none."""
    slots, n_held = Slots(n_slots), 0
    for act in acts:
        if act == "take" and n_held < n_slots:
            assert slots.take()
            n_held += 1
        elif act == "take_over":
            slots.take_over()
            n_held += 1
        elif act == "free" and n_held:
            slots.free()
            n_held -= 1
        assert slots.n_free == max(0, n_slots - n_held)
