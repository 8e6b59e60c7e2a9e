"""What keeps a worker from running an attempt; each error knows which cause it is in the record (I7).

    WorkerError
    ├── LaunchFailed         the machinery could not start the process or container
    │   ├── EngineAway       the container engine does not answer
    │   ├── SnapshotAway     the server does not hand out the snapshot just now
    │   ├── IndexAway        the package index does not answer
    │   ├── ImageAway        the registry does not hand out the image just now
    │   └── Exhausted        this machine is out of threads, descriptors, memory or room just now
    ├── LaunchRefused        what the run asks for can't be started anywhere
    ├── EnvironmentBroken    the Python environment can't be built
    ├── CodeBroken           the snapshot can't be used
    ├── ImageMissing         the container image is not to be had
    └── BadPattern           the pattern that reads metrics from the output can't be used

They end one attempt, never the worker. What ends the worker itself:

    WorkerError
    ├── StateFolderTaken     another worker holds the state folder (worker.identity)
    └── Displaced            a newer session of the same worker has taken over
"""

from typing import ClassVar, Final

from tracking.errors import DatabaseAway, SchemaOutdated, SweepError
from tracking.states import Cause

RECORD_AWAY: Final = (DatabaseAway, SchemaOutdated)
"""What passes: Postgres does not answer, or is without its tables while somebody restores or upgrades it. Nothing is decided meanwhile."""


class WorkerError(SweepError):
    """A worker can't run an attempt.

    Attributes:
        cause: what the attempt's outcome says.
    """

    cause: ClassVar[Cause] = Cause.LAUNCH


class LaunchFailed(WorkerError):
    """The machinery, not the user's command, failed to start."""

    hint = "Look at the worker's log; the run is tried again, on another worker if there is one."


class EngineAway(LaunchFailed):
    """The container engine does not answer."""

    hint = "Check that the container engine runs on the worker and that the worker may use its socket."


class SnapshotAway(LaunchFailed):
    """The server does not hand out the snapshot just now; it may later."""

    hint = "Check that the server runs and that the worker's SWEEP_SERVER leads to it; the run is tried again."


class IndexAway(LaunchFailed):
    """The package index does not answer, or answers that it can't just now."""

    hint = "Check that the worker reaches the package index; the run is tried again."


class ImageAway(LaunchFailed):
    """The container engine can't have the image just now: its registry does not answer, or answers that it can't."""

    hint = "Check that the worker's container engine reaches the image's registry; the run is tried again."


class Exhausted(LaunchFailed):
    """The worker's machine is out of something just now: threads, descriptors, memory, room on a disk."""

    hint = "Check the machine's disks and memory, and the worker's limits on threads and open files; the run is tried again."


class LaunchRefused(WorkerError):
    """What the run asks for can't be started on any worker: its variables, arguments or limits."""

    cause = Cause.ENVIRONMENT
    hint = "Check `env`, `resources` and the command in the sweep file."


class EnvironmentBroken(WorkerError):
    """The Python environment of the project can't be built; the message ends with the builder's own last lines."""

    cause = Cause.ENVIRONMENT
    hint = "Try the environment file by hand, with `uv pip install` in a fresh virtual environment."


class CodeBroken(WorkerError):
    """The snapshot can't be used: it is not what its digest says, or lacks the folder it is to run in."""

    cause = Cause.CODE
    hint = "Submit the sweep again."


class ImageMissing(WorkerError):
    """The container image is neither here nor to be had."""

    cause = Cause.IMAGE
    hint = "Check the name under `resources.image`, or load the image on the worker's machine."


class BadPattern(WorkerError):
    """The pattern that reads metrics from the output can't be used."""

    cause = Cause.ENVIRONMENT
    hint = "Check `collect` in the sweep file: a regular expression with the groups `key` and `value`."


class Displaced(WorkerError):
    """Another worker process runs under this worker's identity, and has taken over its attempts."""

    hint = "Two workers need two state folders: give one of them another name (`sweep worker --name NAME`) and never copy a state folder."
