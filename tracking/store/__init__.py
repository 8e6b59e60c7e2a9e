"""The store: the record's only door. One class per area; each method is one transaction."""

from tracking.store import schema
from tracking.store.attempts import Attempts, Fence
from tracking.store.database import Database
from tracking.store.experiments import Experiments
from tracking.store.leader import Leader
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

__all__ = ["Fence", "LogPage", "Store", "open_store", "upgrade_schema"]


class Store:
    """Every area of the record over one pool of connections."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.experiments = Experiments(database)
        self.runs = Runs(database)
        self.metrics = Metrics(database)
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

    def wake(self) -> None:
        """Wake the scheduler, after the commit that gave it something to do."""
        self.database.notify()

    def close(self) -> None:
        """Close every connection."""
        self.database.close()


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
