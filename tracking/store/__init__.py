"""The store: the record's only door. One class per area; each method is one transaction."""

from functools import cached_property
from typing import Final

from tracking.store import schema
from tracking.store.attempts import Attempts, Fence
from tracking.store.database import Database
from tracking.store.datasets import Datasets
from tracking.store.experiments import Experiments
from tracking.store.histories import Histories
from tracking.store.leader import Leader
from tracking.store.logged_models import LoggedModels
from tracking.store.logs import LogPage, Logs
from tracking.store.metrics import Metrics
from tracking.store.queue import Queue
from tracking.store.registry import Registry
from tracking.store.runs import Runs
from tracking.store.schema import upgrade_schema
from tracking.store.sessions import Sessions
from tracking.store.snapshots import Snapshots
from tracking.store.sweeps import Sweeps
from tracking.store.trials import Trials
from tracking.store.why import Why

N_GROUP_WRITERS: Final = 2
"""Transactions at once that write one kind of thing for many clients: while one waits for the disk the next is made ready. There are
two kinds, and for each as many again that write alone what a group has failed for."""

__all__ = ["Fence", "LogPage", "Store", "open_store", "upgrade_schema"]


class Store:
    """Every area of the record over one pool of connections."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.experiments = Experiments(database)
        self.runs = Runs(database)
        self.metrics = Metrics(database)
        self.histories = Histories(database)
        self.datasets = Datasets(database)
        self.logged_models = LoggedModels(database)
        self.sweeps = Sweeps(database)
        self.trials = Trials(database)
        self.queue = Queue(database)
        self.attempts = Attempts(database)
        self.sessions = Sessions(database)
        self.logs = Logs(database)
        self.registry = Registry(database)
        self.snapshots = Snapshots(database)
        self.leader = Leader(database)
        self.why = Why(database)

    @cached_property
    def ingest(self) -> "Store":
        """The same record over connections of their own, for what many clients write at once."""
        return Store(Database(self.database.url, pool_size=4 * N_GROUP_WRITERS, application=f"{self.database.application} ingestion"))

    def wake(self) -> None:
        """Wake the scheduler, after the commit that gave it something to do."""
        self.database.notify()

    def close(self) -> None:
        """Close every connection."""
        self.database.close()
        if "ingest" in self.__dict__:
            self.ingest.close()


def open_store(url: str, *, pool_size: int = 5, check_schema: bool = True, application: str = "sweep") -> Store:
    """Open the record.

    Raises:
        SettingError: the URL is no Postgres URL.
        DatabaseAway: Postgres can't be reached.
        SchemaOutdated: the schema is at another revision.
    """
    database = Database(url, pool_size=pool_size, application=application)
    if check_schema:
        try:
            schema.check_schema(database)
        except BaseException:
            database.close()
            raise
    return Store(database)
