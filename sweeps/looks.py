"""Looking at a sweep again and again until it has ended: a server that is away for a while is ridden out. What is shown of it is others' business."""

import math
import time
from collections.abc import Callable, Iterator
from typing import Final, TypeVar

from sweeps.api.shapes import SweepAnswer
from sweeps.client import Client, ServerAway
from sweeps.standing import FINAL_STATES, has_settled, still_running_text
from sweeps.wording import Tell, clean

POLL_S: Final = 0.5
NOTE_AFTER_S: Final = 3.0
"""How long trials wait for what passes by itself before whoever follows is told."""
RIDE_OUT_S: Final = 240.0
"""How long a server may be away before following gives up; clients of runs ride out as much."""

_REST: Final = 4
"""So many times as long as a look took, nobody looks."""
_REST_MAX_S: Final = 5.0
_PASSING: Final = frozenset({"placing", "claim", "scheduler"})
"""Waits that every sweep has for a moment."""

_T = TypeVar("_T")
Look = Callable[[], SweepAnswer]


def looks(
    look: Look,
    *,
    tell: Tell,
    poll_s: float = POLL_S,
    pause: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[SweepAnswer]:
    """The sweep, again and again, until it has ended and none of its trials runs any more."""
    return again(look, has_settled, poll_s=poll_s, pause=pause, clock=clock, tell=tell)


def again(
    look: Callable[[], _T],
    is_over: Callable[[_T], bool],
    *,
    tell: Tell,
    poll_s: float = POLL_S,
    pause: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[_T]:
    """What `look` gives, again and again, until it is over; a server that is away for a while is ridden out.

    Args:
        tell: told once of each absence.

    Raises:
        ServerAway: for longer than `RIDE_OUT_S`.
    """
    away_since: float | None = None
    while True:
        began, rest_s = clock(), poll_s
        try:
            seen = look()
        except ServerAway as error:
            if away_since is None:
                away_since = clock()
                tell(f"{error.message} Trying again; the sweep goes on.")
            elif clock() - away_since > RIDE_OUT_S:
                raise
        else:
            away_since = None
            # Where the answer itself takes long, as of ten thousand trials, the server is not kept busy with nothing else.
            rest_s = max(poll_s, min(_REST * (clock() - began), _REST_MAX_S))
            yield seen
            if is_over(seen):
                return
        pause(rest_s)


def only_waits(sweep: SweepAnswer) -> bool:
    """Whether trials wait although none runs."""
    counts = sweep["counts"]
    return not counts["running"] and bool(counts["queued"] + counts["placed"]) and sweep["state"] not in FINAL_STATES


def waiting_notes(client: Client, sweep: SweepAnswer, waited_s: float = math.inf) -> list[str]:
    """Why trials wait although none runs, or run although the sweep has ended; nothing where that is not so, or may pass any moment."""
    if sweep["state"] in FINAL_STATES and sweep["counts"]["running"]:
        return [still_running_text(sweep)]
    if not only_waits(sweep):
        return []
    try:
        answer = client.why(sweep["sweep_id"])
    except ServerAway:
        return []  # whoever follows finds that out with the next look
    passing = {wait["text"] for wait in answer["waits"] if wait["wait"] in _PASSING} if waited_s < NOTE_AFTER_S else set()
    return [f"waits: {clean(reason)}" for reason in answer["reasons"][:1] if reason not in passing]
