"""Turns the life-cycle tables into the guards of statements: no state list is written by hand."""

from collections.abc import Iterable

from tracking.states import Move


def quoted(values: Iterable[str]) -> str:
    """`('a', 'b')`, sorted, for IN lists of our own constants (never of users' values)."""
    return "(" + ", ".join(f"'{value}'" for value in sorted(values)) + ")"


def from_states(move: Move) -> str:
    """The states a move may start from, as an IN list."""
    return quoted(move.from_)


def to_state(move: Move) -> str:
    """The state a move ends in, as a literal."""
    return f"'{move.to}'"
