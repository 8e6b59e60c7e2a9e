"""What every long-running role does alike: begin to log, end on a signal, wait for Postgres."""

import itertools
import logging
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType

from tracking.errors import DatabaseAway, SchemaOutdated
from tracking.store import Store, open_store

_log = logging.getLogger(__name__)


def start_logging(level: str) -> None:
    """Log to standard error, one line a record, in UTC-free local time as journals expect."""
    logging.basicConfig(level=level.upper(), stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s", force=True)


def on_signal(act: Callable[[], None]) -> None:
    """Call `act` on SIGTERM and SIGINT."""

    def handle(_signal: int, _frame: FrameType | None) -> None:
        act()

    signal.signal(signal.SIGTERM, handle)
    signal.signal(signal.SIGINT, handle)


def wait_for_store(url: str, stopping: threading.Event, *, pool_size: int, application: str) -> Store | None:
    """Open the record, trying again while Postgres or its schema is not ready; None when asked to stop."""
    said = ""
    pauses_s = itertools.chain([0.05] * 100, itertools.repeat(1.0))
    while not stopping.is_set():
        try:
            return open_store(url, pool_size=pool_size, application=application)
        except (DatabaseAway, SchemaOutdated) as error:
            if str(error) != said:
                said = str(error)
                _log.warning("%s Trying again.", said)
            stopping.wait(next(pauses_s))
    return None
