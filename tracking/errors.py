"""Every error a person may see, as one tree.

    SweepError
    ├── SettingError                a setting or environment variable is wrong
    ├── RecordError                 the record refused or could not answer
    │   ├── NotFound                no such experiment, run, sweep, model ...
    │   ├── AlreadyExists           the name is taken
    │   ├── InvalidValue            a field's value is not acceptable
    │   │   └── InvalidFilter       a filter or order_by is not of the search grammar
    │   ├── NotAllowed              the caller has no right to this write
    │   ├── NotNow                  the object's state does not allow this move
    │   │   └── NoBestTrial         no trial has finished with a value (sweeps.api.errors)
    │   ├── TooLarge                over a stated limit
    │   ├── NoRoom                  the disk of artifacts and snapshots is full
    │   ├── ArtifactsAway           the place of artifacts and snapshots can't be reached
    │   ├── ArtifactsRefused        that place does not let the server in
    │   ├── Contradiction           the write contradicts what stands in the record
    │   ├── Unauthenticated         the token is unknown or has died with its attempt
    │   ├── NotLeader               another scheduler leads now (tracking.store.leader)
    │   ├── DatabaseAway            Postgres can't be reached, or does not let our role
    │   │   └── RowLocked           somebody else holds a lock on just that
    │   └── SchemaOutdated          the database needs `sweep db upgrade`
    ├── EmbeddedError               the embedded Postgres can't start
    ├── EndpointNotFound            this part of MLflow's protocol is not served (tracking.mlflow_api.errors)
    ├── NotSupported                the place of artifacts does not offer that (tracking.mlflow_api.errors)
    ├── SpecError                   the sweep file or MLproject can't be used (sweeps.errors)
    │   └── SpecProblems            everything that is wrong with them, with places (sweeps.errors)
    ├── ServerError                 the server answered with an error (sweeps.client)
    │   ├── InvalidRequest          a value is not acceptable to it
    │   ├── MissingOnServer         it knows no such object
    │   ├── Refused                 it does not know the caller, or does not let them
    │   ├── NoBest                  no trial has finished with a value
    │   └── ServerAway              it can't be reached, or can't reach its database
    ├── LocalError                  the cluster of this machine can't be started or stopped (sweeps.local)
    ├── SchedulerError              a scheduler can't go on (scheduler.errors)
    └── WorkerError                 a worker can't run an attempt (worker.errors)
        ├── LaunchFailed            the machinery failed to start it
        │   ├── EngineAway          the container engine does not answer
        │   ├── SnapshotAway        the server did not hand out the code
        │   ├── IndexAway           the package index did not answer
        │   ├── ImageAway           the image's registry did not answer
        │   └── Exhausted           the worker's machine was out of something
        ├── LaunchRefused           the run asks for what can't be started
        ├── Displaced               another process has taken over this worker's identity
        ├── EnvironmentBroken       the Python environment can't be built
        ├── CodeBroken              the snapshot can't be used
        ├── ImageMissing            the image is not to be had
        ├── BadPattern              the pattern that reads metrics can't be used
        └── StateFolderTaken        another worker holds the state folder (worker.identity)

An error is fields, a sentence, and a hint: what to do next. It is shown in one place per surface: the
command line prints message and hint and exits with `exit_status`; the HTTP layer answers `http_status`
with `error_code`, MLflow's name for it. A traceback means a bug.
"""

from typing import ClassVar


class SweepError(Exception):
    """Root of all errors that are meant to be read by a person.

    Attributes:
        hint: what to do next, one sentence, or empty.
        exit_status: of the command line (see docs/commands.md).
        http_status: of the HTTP answer.
        error_code: MLflow's code for this kind of error.
    """

    hint: str = ""
    exit_status: ClassVar[int] = 1
    http_status: ClassVar[int] = 400
    error_code: ClassVar[str] = "BAD_REQUEST"

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        if hint is not None:
            self.hint = hint


class SettingError(SweepError):
    """A setting or environment variable has a value that can't be used."""

    exit_status = 2
    error_code = "INVALID_PARAMETER_VALUE"


class RecordError(SweepError):
    """The record refused a write or could not answer."""


class NotFound(RecordError):
    """There is no such object."""

    exit_status = 3
    http_status = 404
    error_code = "RESOURCE_DOES_NOT_EXIST"


class AlreadyExists(RecordError):
    """The name is taken."""

    error_code = "RESOURCE_ALREADY_EXISTS"


class InvalidValue(RecordError):
    """A field's value is not acceptable; the message names the field."""

    exit_status = 2
    error_code = "INVALID_PARAMETER_VALUE"


class InvalidFilter(InvalidValue):
    """A filter or order_by is not of the search grammar, or over its limits.

    Attributes:
        text: what was to be parsed, or None if the whole of it is what is wrong.
        position: in the text, from 0, where it stops making sense.
    """

    def __init__(self, message: str, *, text: str | None = None, position: int = 0) -> None:
        super().__init__(message)
        self.text = text
        self.position = position


class NotAllowed(RecordError):
    """The caller has no right to this write (the fence, I3, answers so too)."""

    exit_status = 5
    http_status = 403
    error_code = "PERMISSION_DENIED"


class Unauthenticated(RecordError):
    """The request carries an attempt's token that is unknown or has died with its attempt. Other tokens are not looked at."""

    exit_status = 5
    http_status = 401
    error_code = "UNAUTHENTICATED"


class NotNow(RecordError):
    """The object's state does not allow this move."""

    http_status = 409
    error_code = "RESOURCE_CONFLICT"


class TooLarge(RecordError):
    """Over a stated limit; the message names the limit."""

    http_status = 413
    error_code = "INVALID_PARAMETER_VALUE"


class NoRoom(RecordError):
    """The disk that keeps artifacts and snapshots is full. Trying again at once would not help."""

    http_status = 507
    error_code = "RESOURCE_EXHAUSTED"
    hint = "Make room in the server's SWEEP_ARTIFACT_ROOT, then send it again."


class ArtifactsAway(RecordError):
    """The place of artifacts and snapshots can't be reached just now; the same call may succeed later."""

    exit_status = 4
    http_status = 503
    error_code = "TEMPORARILY_UNAVAILABLE"
    hint = "Check the server's SWEEP_ARTIFACT_ROOT and SWEEP_ARTIFACT_ENDPOINT, and that what they name runs."


class ArtifactsRefused(RecordError):
    """The place of artifacts and snapshots does not let the server in, or is not there: a matter for who runs the server."""

    exit_status = 5
    http_status = 403
    error_code = "PERMISSION_DENIED"
    hint = "Check the server's SWEEP_ARTIFACT_ROOT, and the permissions or credentials it has there; `sweep doctor` tells more."


class Contradiction(RecordError):
    """The write contradicts what stands in the record: somebody else was first, or a value breaks a rule of the schema."""

    http_status = 409
    error_code = "RESOURCE_CONFLICT"


class DatabaseAway(RecordError):
    """Postgres can't be reached just now, or does not let our role do this; the same call may succeed later."""

    exit_status = 4
    http_status = 503
    error_code = "TEMPORARILY_UNAVAILABLE"
    hint = "Check SWEEP_DATABASE_URL and that Postgres runs; `sweep doctor` tells more."


class RowLocked(DatabaseAway):
    """Somebody else holds a lock on just that, and has for longer than is waited here; what is asked of others may succeed."""

    hint = "pg_locks and pg_stat_activity tell who."


class SchemaOutdated(RecordError):
    """The database's schema is older or newer than this program."""

    http_status = 503
    error_code = "TEMPORARILY_UNAVAILABLE"
    hint = "Run `sweep db upgrade` with the newest version, then start this again."


class EmbeddedError(SweepError):
    """The embedded Postgres can't be set up or started."""

    exit_status = 4
    http_status = 503
    error_code = "TEMPORARILY_UNAVAILABLE"
