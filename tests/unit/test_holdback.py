"""How long what somebody else has locked is left alone."""

from scheduler.holdback import HoldBack


class Clock:
    """A clock that is set by hand."""

    now = 100.0

    def __call__(self) -> float:
        """The time."""
        return self.now


def test_holdback_leaves_alone_what_was_put_and_nothing_else() -> None:
    """For two seconds."""
    clock = Clock()
    held = HoldBack(clock)
    held.put("a")
    assert (held.holds("a"), held.holds("b")) == (True, False)
    clock.now += 2
    assert not held.holds("a")


def test_holdback_looks_more_and_more_seldom_at_what_stays_locked() -> None:
    """Twice as long each time, up to a bound; from the beginning again once it has been free for a while."""
    clock = Clock()
    held = HoldBack(clock)
    for leave_s in (2, 4, 8, 16, 16):
        held.put("a")
        clock.now += leave_s - 0.01
        assert held.holds("a")
        clock.now += 0.02
        assert not held.holds("a")
    clock.now += 60
    held.put("a")
    clock.now += 2
    assert not held.holds("a")
