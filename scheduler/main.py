"""The scheduler's process: opens the record, runs the loop, stops on SIGTERM and SIGINT."""

import logging
import threading

from scheduler.dispatch import make_dispatcher
from scheduler.errors import SchedulerError
from scheduler.loop import Scheduler
from tracking.roles import on_signal, wait_for_store
from tracking.settings import Settings
from tracking.store.listener import Listener

_log = logging.getLogger(__name__)


def run_scheduler(settings: Settings) -> int:
    """Run until a signal; the exit status.

    Raises:
        SchedulerError: no database is configured.
    """
    if not settings.database_url:
        raise SchedulerError("A scheduler needs a database.", hint="Set SWEEP_DATABASE_URL, or use `sweep up` for the one-machine cluster.")
    stopping = threading.Event()
    on_signal(stopping.set)
    store = wait_for_store(settings.database_url, stopping, pool_size=2, application="sweep scheduler")
    if store is None:
        return 0
    dispatcher = make_dispatcher(settings)
    listener = Listener({"": settings.database_url, "none": ""}.get(settings.listen_url, settings.listen_url))
    scheduler = Scheduler(store, settings, dispatcher, listener)
    on_signal(scheduler.stop)
    if stopping.is_set():
        scheduler.stop()
    _log.info("Scheduler started.")
    try:
        scheduler.run()
    finally:
        dispatcher.close()
        listener.close()
        store.close()
    _log.info("Scheduler stopped.")
    return 0
