"""Failpoints: places in the product where a test makes a process die, freeze, dawdle or lose Postgres, on purpose.

Inert unless SWEEP_FAILPOINTS is set when this module is imported: then a comma-separated list of `NAME=ACTION[+ACTION...][@N | %P]`.
`@N` acts at the N-th hit of this process only, `%P` with probability P (drawn from SWEEP_FAILPOINTS_SEED), neither at every hit.

Actions, carried out in the order given:

    kill            SIGKILL to itself        stop          SIGSTOP to itself
    exit:STATUS     end at once              error         raise DatabaseAway
    sleep:SECONDS   wait                     touch:FILE    make the file, for tests to wait upon

Points, each in one place of the product:

    scheduler.asked      the search was asked, nothing is written      scheduler.created    proposals are committed
    scheduler.placed     placements are committed, nothing is sent     scheduler.sent       wake-ups are handed to the broker's thread
    scheduler.judged     a verdict on a failed attempt is committed    scheduler.concluded  a trial is concluded, the search not told
    scheduler.told       the search was told of it                     scheduler.ended      a sweep's end is committed
    worker.claiming      about to claim a run                          worker.claimed       the claim is committed
    worker.prepared      folder and environment are ready              worker.started       the command is started
    worker.ended         the command has ended, nothing is reported    worker.finished      the outcome is committed
    worker.renewed       a renewal was answered                        server.submitted     a sweep is committed, not answered

Broken builds: SWEEP_BROKEN, a comma-separated list of names, leaves out guards of the product, so that the tests can show that they would
notice. Never anywhere else; a program that runs so says so in its log.

    no-fence                 outcomes and metrics of attempts that have ended, or were given to others, are accepted
    worker-clock-lease       each program judges leases by its own clock, not by the database's
    no-reconciler            nobody looks for placements that were not claimed and sessions that fell silent
    claim-without-placement  any session may claim a placed run, by any placement
    no-finish-key            a report that is repeated after a lost reply is not known again
    no-claim-id              a claim that is repeated after a lost reply is not known again
    no-expiry-suspension     leases are judged at once after an outage
"""

import logging
import os
import random
import re
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tracking.errors import DatabaseAway, SettingError

VARIABLE: Final = "SWEEP_FAILPOINTS"
SEED_VARIABLE: Final = "SWEEP_FAILPOINTS_SEED"
POINTS: Final = frozenset(re.findall(r"\b(?:scheduler|worker|server)\.[a-z]+\b", __doc__ or ""))

BROKEN_VARIABLE: Final = "SWEEP_BROKEN"
BUILDS: Final = frozenset(re.findall(r"^    ([a-z]+(?:-[a-z]+)+) ", __doc__ or "", re.MULTILINE))

_log = logging.getLogger(__name__)
_RULE: Final = re.compile(r"(?P<point>[a-z.]+)=(?P<actions>.+?)(?:@(?P<nth>[1-9]\d*)|%(?P<chance>[01]?\.?\d+))?")
_HINT: Final = "NAME=ACTION[+ACTION...][@N|%P], comma separated; see tracking/failpoints.py."

Action = Callable[[], None]


@dataclass(frozen=True, slots=True)
class _Rule:
    point: str
    actions: tuple[Action, ...]
    nth: int | None
    chance: float | None


class Failpoints:
    """The rules of one process, and how often each point was hit.

    Args:
        text: as SWEEP_FAILPOINTS takes it.
        seed: of what happens by chance.

    Raises:
        SettingError: the text is not understood, or names a point that does not exist.
    """

    def __init__(self, text: str, seed: str = "") -> None:
        self._rules = tuple(_rule(part.strip()) for part in text.split(",") if part.strip())
        self._random = random.Random(seed)  # noqa: S311 -- repeatable, not secret
        self._hits: Counter[str] = Counter()
        self._lock = threading.Lock()

    def hit(self, point: str) -> None:
        """Do what the rules say of this hit. Outside the lock: whoever sleeps here holds up nobody else."""
        with self._lock:
            self._hits[point] += 1
            due = [rule for rule in self._rules if rule.point == point and self._is_due(rule)]
        for rule in due:
            for act in rule.actions:
                act()

    def _is_due(self, rule: _Rule) -> bool:
        if rule.chance is not None:
            return self._random.random() < rule.chance
        return rule.nth is None or rule.nth == self._hits[rule.point]


def armed(environ: Mapping[str, str]) -> Failpoints | None:
    """The failpoints that an environment asks for, None if it asks for none."""
    text = environ.get(VARIABLE, "")
    return Failpoints(text, environ.get(SEED_VARIABLE, "")) if text else None


def _rule(text: str) -> _Rule:
    found = _RULE.fullmatch(text)
    if found is None or found["point"] not in POINTS:
        raise SettingError(f"{VARIABLE}: {text!r} is no failpoint.", hint=_HINT)
    actions = tuple(_action(word) for word in found["actions"].split("+"))
    return _Rule(found["point"], actions, int(found["nth"]) if found["nth"] else None, float(found["chance"]) if found["chance"] else None)


def _action(text: str) -> Action:
    name, _, argument = text.partition(":")
    try:
        match name:
            case "kill" if not argument:
                return lambda: os.kill(os.getpid(), signal.SIGKILL)
            case "stop" if not argument:
                # To this thread: sent to the process, another one might take it, and this one go on for a moment.
                return lambda: signal.pthread_kill(threading.get_ident(), signal.SIGSTOP)
            case "error" if not argument:
                return _lose_postgres
            case "exit":
                status = int(argument)
                return lambda: os._exit(status)
            case "sleep":
                seconds = float(argument)
                return lambda: time.sleep(seconds)
            case "touch" if argument:
                return Path(argument).touch
    except ValueError:
        pass
    raise SettingError(f"{VARIABLE}: {text!r} is no action.", hint=_HINT)


def _lose_postgres() -> None:
    raise DatabaseAway("Postgres can't be reached or broke off: a failpoint says so.")


def broken_builds(environ: Mapping[str, str]) -> frozenset[str]:
    """Which guards an environment leaves out, and a loud word about it.

    Raises:
        SettingError: a name is not known.
    """
    names = frozenset(name.strip() for name in environ.get(BROKEN_VARIABLE, "").split(",") if name.strip())
    if unknown := names - BUILDS:
        raise SettingError(f"{BROKEN_VARIABLE}: there is no broken build {', '.join(sorted(unknown))}.", hint=f"For tests only: {', '.join(sorted(BUILDS))}.")
    if names:
        _log.critical("BROKEN ON PURPOSE (%s=%s): results can't be trusted. For tests only.", BROKEN_VARIABLE, ",".join(sorted(names)))
    return names


_ARMED: Final = armed(os.environ)
_BROKEN: Final = broken_builds(os.environ)


def hit(name: str) -> None:
    """Pass a failpoint; nothing happens unless a test armed it."""
    if _ARMED is not None:
        _ARMED.hit(name)


def is_broken(build: str) -> bool:
    """Whether this program is that broken build; never, unless a test says so."""
    return build in _BROKEN


def unless_broken(build: str, guard: str) -> str:
    """A guard of an SQL statement; always true in the broken build that goes without it."""
    return "true" if is_broken(build) else guard
