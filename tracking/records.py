"""Frozen records that cross boundaries: what the store returns, what a worker is told, what it reports.

Parsed once, at the edge, by msgspec; no bare dict crosses a boundary except where the content is the
user's own (parameters, tags, environment).
"""

from datetime import datetime
from typing import Any, Final, Literal

from msgspec import Struct, field

JsonScalar = str | int | float | bool | None


class Resources(Struct, frozen=True, omit_defaults=True):
    """What one run asks for. `image` makes it a container run."""

    cpus: float = 1.0
    memory_bytes: int | None = None
    gpus: int = 0
    image: str | None = None


PYTHON_ENV_KEYS: Final = ("python", "build_dependencies", "dependencies", "name")
"""The keys of a `python_env.yaml`."""
PYTHON_VERSION: Final = r"\d+(\.\d+){0,2}"
"""What its `python` names."""


class Environment(Struct, frozen=True, omit_defaults=True):
    """The environment a command runs in.

    Attributes:
        kind: `system` (the worker's PATH), `python_env` (built by uv from `path`), or `docker` (the image's own).
        path: of the environment file, relative to the snapshot's root; only for `python_env`.
    """

    kind: Literal["system", "python_env", "docker"] = "system"
    path: str | None = None


class Collect(Struct, frozen=True, omit_defaults=True):
    """Metrics read from standard output (D7).

    Attributes:
        stdout: whether lines are read at all.
        pattern: a regular expression with groups `key` and `value`, or None for the built-in `key=value` reader.
        keys: which keys are kept beside the one that the sweep's `metric` names.
        patterns: a regular expression of its own for each metric, whose one group is the value; in place of the two above, for these.
    """

    stdout: bool = True
    pattern: str | None = None
    keys: tuple[str, ...] = ()
    patterns: dict[str, str] = {}


class Retry(Struct, frozen=True, omit_defaults=True, rename={"n_max": "max"}):
    """The user's budget for failures of their own code (I6); the machinery's faults never spend it.

    Attributes:
        n_max: how many further attempts a run gets on it.
        on: the ends that are tried again: causes, `exit_75` for one exit status, `signal_9` for one signal.
        delay_s: before the first of these attempts; it doubles with each.
        delay_max_s: what it doubles up to.
    """

    n_max: int = 0
    on: tuple[str, ...] = ("exit_status", "signal", "out_of_memory", "timed_out")
    delay_s: float = 1.0
    delay_max_s: float = 60.0


class Launch(Struct, frozen=True, omit_defaults=True):
    """How a worker starts any run of one sweep; what differs between runs stands in `ClaimedRun`.

    Attributes:
        code_digest: SHA-256 of the snapshot to unpack, or None for an empty working folder.
        subfolder: working folder within the snapshot, relative, `.` for its root.
        metric_keys: metric names the sweep cares about (its objective first).
        trial_time_s: time-out of one attempt, counted from the start of its process; None for none.
        stop_grace_s: between the polite and the final stop.
        compat: whose client our stand-in takes the place of, on the trial's path; None for nobody's.
        nested: of parameters that the sweep file nests, the keys that lead to each.
    """

    code_digest: str | None = None
    subfolder: str = "."
    environment: Environment = Environment()
    env: dict[str, str] = {}
    collect: Collect = Collect()
    resources: Resources = Resources()
    metric_keys: tuple[str, ...] = ()
    trial_time_s: float | None = None
    stop_grace_s: float = 30.0
    compat: Literal["wandb"] | None = None
    nested: dict[str, tuple[str, ...]] = {}


class ClaimedRun(Struct, frozen=True):
    """Everything a worker needs to run one attempt that it has just claimed (or adopts)."""

    run_id: str
    attempt: int
    placement: int
    experiment_id: str
    name: str
    argv: tuple[str, ...]
    params: dict[str, Any]
    launch: Launch
    sweep_id: str | None = None
    trial_number: int | None = None
    seed: int = 0
    gpu_ids: tuple[int, ...] = ()


class Outcome(Struct, frozen=True):
    """How an attempt ended, as its worker saw it.

    Attributes:
        verdict: `succeeded` (exit status 0), `failed`, or `stopped` (ended because we asked it to).
        cause: a value of `tracking.states.Cause`.
        detail: one sentence for people: the last lines of an error, the limit that was hit.
        exit_status: of the process, 0 to 255, if it exited by itself.
        signal: number of the signal that ended it, if one did.
        duration_s: wall time of the process by the worker's monotonic clock.
        printed: names under which its output has numbers, of a success whose objective was not read from there; one of them may be meant.
    """

    verdict: Literal["succeeded", "failed", "stopped"]
    cause: str
    detail: str = ""
    exit_status: int | None = None
    signal: int | None = None
    duration_s: float | None = None
    printed: tuple[str, ...] = ()


class MetricPoint(Struct, frozen=True, gc=False):
    """One value of one metric. NaN and infinities are values like others.

    Attributes:
        time_ms: Unix time in milliseconds, by the sender's clock.
    """

    key: str
    value: float
    step: int = 0
    time_ms: int = 0


class LogChunk(Struct, frozen=True):
    """A piece of one attempt's output; `offset` counts bytes from the stream's beginning."""

    stream: Literal["stdout", "stderr"]
    offset: int
    data: bytes


class SessionInfo(Struct, frozen=True):
    """What a worker says of itself when a session opens.

    Attributes:
        host_incarnation: machine id, boot id and process namespace; when it changed, process attempts have ended.
        slots: how many runs it takes at once.
        cpus: how many cores may be promised to runs.
    """

    worker_id: str
    session_id: str
    name: str
    hostname: str
    celery_queue: str
    queues: tuple[str, ...]
    slots: int
    cpus: float
    memory_bytes: int
    gpus: int = 0
    runtimes: tuple[str, ...] = ("process",)
    host_incarnation: str = ""
    version: str = ""
    pid: int = 0


class PlacedRun(Struct, frozen=True):
    """A run that waits for this session to claim it."""

    run_id: str
    placement: int


class OwnedRun(Struct, frozen=True):
    """A live attempt that the database thinks is this session's, and what is asked of it."""

    run_id: str
    attempt: int
    cancel: bool = False
    prune: bool = False


class RenewalAnswer(Struct, frozen=True):
    """Everything the database thinks is this session's."""

    placed: tuple[PlacedRun, ...]
    owned: tuple[OwnedRun, ...]
    draining: bool = False


class Experiment(Struct, frozen=True):
    experiment_id: str
    name: str
    artifact_location: str
    lifecycle_stage: str
    created_at: datetime
    updated_at: datetime
    tags: dict[str, str] = {}


class Run(Struct, frozen=True):
    """One run, managed or external, without its parameters, metrics and tags."""

    run_id: str
    experiment_id: str
    kind: Literal["managed", "external", "sweep"]
    name: str
    user_name: str
    state: str
    lifecycle_stage: str
    attempt: int
    created_at: datetime
    started_at: datetime | None = None
    ended_at: datetime | None = None
    parent_run_id: str | None = None
    sweep_id: str | None = None
    trial_number: int | None = None
    generation: int = 0
    cause: str | None = None
    detail: str | None = None
    worker_id: str | None = None
    placement: int = 0
    value: float | None = None
    argv: tuple[str, ...] = ()
    artifact_root: str | None = None
    """A URI of its experiment's own choice; None for the folder in our store."""


class Dataset(Struct, frozen=True):
    """What a run read: data as MLflow describes it, by name and digest within an experiment."""

    name: str
    digest: str
    source_type: str = ""
    source: str = ""
    schema: str | None = None
    profile: str | None = None


class DatasetInput(Struct, frozen=True):
    """A dataset that a run read, with what the run says of it."""

    dataset: Dataset
    tags: dict[str, str] = {}


class DatasetUse(Struct, frozen=True):
    """That some run of an experiment read a dataset, in a context such as `training`, if it told one."""

    experiment_id: str
    name: str
    digest: str
    context: str | None = None


class ModelOutput(Struct, frozen=True):
    """A logged model that a run made, and at which step."""

    model_id: str
    step: int = 0


class Lineage(Struct, frozen=True):
    """What a run read and made: its current attempt's view."""

    datasets: tuple[DatasetInput, ...] = ()
    models_in: tuple[str, ...] = ()
    models_out: tuple[ModelOutput, ...] = ()


class RunData(Struct, frozen=True):
    """What was logged to a run: its current attempt's view."""

    params: dict[str, str] = {}
    tags: dict[str, str] = {}
    metrics: tuple[MetricPoint, ...] = ()
    lineage: Lineage = Lineage()


class ModelMetric(Struct, frozen=True):
    """One value of one metric of a logged model, and the run that measured it; on which data, if that is known."""

    model_id: str
    run_id: str
    point: MetricPoint
    dataset_name: str | None = None
    dataset_digest: str | None = None


class LoggedModel(Struct, frozen=True):
    """A model that a run wrote down: files, parameters and metrics under an id of its own (MLflow 3)."""

    model_id: str
    experiment_id: str
    name: str
    model_type: str
    source_run_id: str
    status: Literal["unspecified", "pending", "ready", "upload_failed"]
    lifecycle_stage: str
    created_at: datetime
    updated_at: datetime
    artifact_root: str | None = None
    params: dict[str, str] = {}
    tags: dict[str, str] = {}
    metrics: tuple[ModelMetric, ...] = ()


class Sweep(Struct, frozen=True):
    """A sweep. `config` is the canonical form of its file (sweeps.spec); the record does not look inside."""

    sweep_id: str
    experiment_id: str
    name: str
    short_id: str
    state: str
    user_name: str
    config: dict[str, Any]
    source: str
    launch: Launch
    metric_name: str | None
    metric_goal: Literal["minimize", "maximize"]
    metric_from: Literal["last", "best"]
    queue: str
    priority: int
    parallel: int | None
    created_at: datetime
    started_at: datetime | None = None
    ended_at: datetime | None = None
    cause: str | None = None
    detail: str | None = None
    revision: int = 0


class SweepCounts(Struct, frozen=True):
    """Trials by state; open ones split by where their run is."""

    open: int = 0
    queued: int = 0
    placed: int = 0
    running: int = 0
    finished: int = 0
    failed: int = 0
    pruned: int = 0
    cancelled: int = 0

    @property
    def total(self) -> int:
        return self.open + self.finished + self.failed + self.pruned + self.cancelled


class Trial(Struct, frozen=True):
    """One trial with its current run.

    Attributes:
        value: the objective, if the trial has one.
        imputed: what the search was told in its place, of a trial that ended without.
        told_seq: position in the order in which outcomes were told to the search, None while it is open.
        attrs: the strategy adapter's own JSON.
        duration_s: how long the current attempt's process ran, or has run so far.
    """

    sweep_id: str
    number: int
    state: str
    params: dict[str, Any]
    generation: int
    run_id: str
    run_state: str
    attempts: int
    created_at: datetime
    value: float | None = None
    imputed: float | None = None
    cause: str | None = None
    detail: str | None = None
    told_seq: int | None = None
    attrs: dict[str, Any] = {}
    started_at: datetime | None = None
    ended_at: datetime | None = None
    worker_name: str | None = None
    duration_s: float | None = None

    @property
    def told(self) -> float | None:
        """What the search is told of its objective."""
        return self.imputed if self.value is None else self.value


class NewTrial(Struct, frozen=True):
    """What the scheduler writes for one proposal: trial, run, parameters, history in one transaction."""

    number: int
    params: dict[str, Any]
    argv: tuple[str, ...]
    seed: int
    attrs: dict[str, Any] = {}


class NewSweep(Struct, frozen=True):
    """A submission, already parsed and checked."""

    name: str
    experiment: str
    config: dict[str, Any]
    source: str
    launch: Launch
    metric_name: str | None = None
    metric_goal: Literal["minimize", "maximize"] = "minimize"
    metric_from: Literal["last", "best"] = "last"
    queue: str = "default"
    priority: int = 50
    parallel: int | None = None
    retry: Retry = Retry()
    description: str = ""
    user_name: str = ""
    tags: dict[str, str] = {}
    submission_id: str = ""


class WorkerView(Struct, frozen=True):
    """A worker as placement and people see it."""

    worker_id: str
    session_id: str
    name: str
    hostname: str
    state: str
    celery_queue: str
    queues: tuple[str, ...]
    slots: int
    cpus: float
    memory_bytes: int
    gpus: int
    runtimes: tuple[str, ...]
    renewed_at: datetime
    silent: bool
    draining: bool = False
    cordoned: str | None = None
    running: tuple[str, ...] = ()
    placed: tuple[str, ...] = ()


class ModelVersion(Struct, frozen=True):
    """A version of a registered model with its lineage."""

    name: str
    version: int
    created_at: datetime
    run_id: str | None = None
    sweep_id: str | None = None
    trial_number: int | None = None
    source: str = ""
    description: str = ""
    aliases: tuple[str, ...] = ()
    value: float | None = None
    metric_name: str | None = None
    params: dict[str, Any] = {}
    size_bytes: int | None = None


class RegisteredModel(Struct, frozen=True):
    name: str
    created_at: datetime
    description: str = ""
    versions: tuple[ModelVersion, ...] = ()


class Event(Struct, frozen=True):
    """One row of history."""

    seq: int
    at: datetime
    subject: Literal["sweep", "trial", "run", "attempt", "worker"]
    event: str
    from_state: str | None = None
    to_state: str | None = None
    sweep_id: str | None = None
    trial_number: int | None = None
    run_id: str | None = None
    attempt: int | None = None
    worker_id: str | None = None
    cause: str | None = None
    detail: str = ""
    data: dict[str, Any] = field(default_factory=dict)
