"""The JSON objects of `/api/v1`, once: the server fills them, the client returns them, `--json` prints them, OpenAPI lists them.

They are `TypedDict`s, not classes with behaviour: the command line needs them within milliseconds, so this module
imports nothing but `typing`. Every answer carries `schema`, the number of this set of shapes; fields are added without
changing it, never renamed or removed. Times are ISO 8601 in UTC. A metric value that JSON can't hold is one of the
strings `NaN`, `Infinity` and `-Infinity`.
"""

from typing import Any, Final, Literal, NotRequired, TypedDict

SCHEMA: Final = 1

Number = float | int | str | None


class ErrorAnswer(TypedDict):
    """What went wrong: a stable code, a sentence, and what to do next."""

    error_code: str
    message: str
    hint: str


class VersionAnswer(TypedDict):
    """The server's release, and the newest schema that it speaks."""

    schema: int
    name: str
    version: str


class Urls(TypedDict):
    """Addresses that belong to a sweep, as paths on the server."""

    api: str


class SubmitBody(TypedDict):
    """A submission. `config` is the canonical form of the sweep file, `source` its text.

    `submission_id` is chosen by the client; sending the same one again answers with the sweep that it made.
    """

    config: dict[str, Any]
    source: str
    code_digest: str | None
    submission_id: str
    user_name: str


class ExtendBody(TypedDict):
    """How many more trials a sweep is to have. `request_id` is chosen by the client; what was asked with it is done once."""

    n_more: int
    request_id: str


class RetryBody(TypedDict):
    """Numbers of trials to run again, null for all; those that failed, and if `cancelled` those that were cancelled too."""

    trials: list[int] | None
    cancelled: bool


class Counts(TypedDict):
    """Trials by state; `queued`, `placed` and `running` split the open ones by where their run is."""

    total: int
    open: int
    queued: int
    placed: int
    running: int
    finished: int
    failed: int
    pruned: int
    cancelled: int


class MetricValue(TypedDict):
    """One point of one metric."""

    key: str
    value: Number
    step: int
    time_ms: int


class TrialAnswer(TypedDict):
    """A trial with its current run: `state` is the trial's, `run_state` the run's, `attempts` how many tries it took."""

    number: int
    run_id: str
    state: str
    run_state: str
    cause: str | None
    detail: str | None
    value: Number
    params: dict[str, Any]
    attempts: int
    generation: int
    duration_s: float | None
    worker: str | None
    created_at: str
    started_at: str | None
    ended_at: str | None


class RunningTrial(TrialAnswer):
    """A running trial with the newest value of the sweep's metric."""

    metric: MetricValue | None


class SweepSummary(TypedDict):
    """A sweep as lists show it. `trials_asked` is None when the file sets no limit."""

    sweep_id: str
    short_id: str
    name: str
    state: str
    user_name: str
    method: str
    metric: str | None
    goal: Literal["minimize", "maximize"]
    trials_asked: int | None
    parallel: int | None
    queue: str
    priority: int
    counts: Counts
    cause: str | None
    detail: str | None
    created_at: str
    started_at: str | None
    ended_at: str | None
    elapsed_s: float | None
    eta_s: float | None


class SweepAnswer(SweepSummary):
    """A sweep with its best trial, what runs now (the first fifty), and the model versions made from it."""

    schema: int
    experiment_id: str
    config: dict[str, Any]
    best: TrialAnswer | None
    running: list[RunningTrial]
    models: list["VersionEntry"]
    urls: Urls


class RetryAnswer(TypedDict):
    """The numbers of the trials that run again, none where none had failed; and their sweep."""

    schema: int
    trials: list[int]
    sweep: SweepAnswer


class SweepList(TypedDict):
    """Sweeps, newest first."""

    schema: int
    sweeps: list[SweepSummary]


class TrialList(TypedDict):
    """Trials of one sweep, or a page of them: `next_offset` tells where to go on, None that these were the last."""

    schema: int
    sweep_id: str
    name: str
    short_id: str
    metric: str | None
    goal: str
    trials: list[TrialAnswer]
    next_offset: int | None


class BestAnswer(TypedDict):
    """The best finished trial; `number`, `run_id` and `value` are None while there is none. `top` holds the first N."""

    schema: int
    sweep_id: str
    short_id: str
    name: str
    state: str
    metric: str | None
    goal: str
    number: int | None
    run_id: str | None
    value: Number
    params: dict[str, Any]
    top: list[TrialAnswer]


class EventEntry(TypedDict):
    """One row of history."""

    seq: int
    at: str
    subject: str
    event: str
    from_state: str | None
    to_state: str | None
    trial_number: int | None
    run_id: str | None
    attempt: int | None
    worker_id: str | None
    cause: str | None
    detail: str


class EventList(TypedDict):
    """History, oldest first."""

    schema: int
    events: list[EventEntry]


class AttemptEntry(TypedDict):
    """One try at a run by one worker."""

    attempt: int
    state: str
    cause: str | None
    detail: str | None
    exit_status: int | None
    signal: int | None
    worker_id: str | None
    worker: str | None
    started_at: str | None
    ended_at: str | None
    duration_s: float | None


class RunAnswer(TypedDict):
    """One run: what was asked, what was logged, who tried it.

    `duration_s` is the current attempt's; `stop_requested_at` is set while a running attempt was asked to stop and has not.
    `earlier_runs` are those of the trial that retries by hand have replaced, the first one first.
    """

    schema: int
    run_id: str
    experiment_id: str
    kind: str
    name: str
    user_name: str
    state: str
    lifecycle_stage: str
    cause: str | None
    detail: str | None
    sweep_id: str | None
    sweep_short_id: str | None
    trial_number: int | None
    parent_run_id: str | None
    attempt: int
    stop_requested_at: str | None
    argv: list[str]
    value: Number
    params: dict[str, str]
    tags: dict[str, str]
    metrics: list[MetricValue]
    attempts: list[AttemptEntry]
    earlier_runs: list[str]
    created_at: str
    started_at: str | None
    ended_at: str | None
    duration_s: float | None


class LogAnswer(TypedDict):
    """A piece of one attempt's output, undecodable bytes replaced.

    `next_offset` is where to read on; `is_complete` says that the stream has ended and was read to its end.
    """

    schema: int
    run_id: str
    attempt: int
    stream: str
    text: str
    next_offset: int
    is_complete: bool


class MetricList(TypedDict):
    """Latest values (no `key`), or a page of one metric's history: `next_page_token` asks for the next, "" says that it was the last."""

    schema: int
    run_id: str
    key: str | None
    metrics: list[MetricValue]
    next_page_token: str


class CurveShape(TypedDict):
    """One metric's points in a trial's current run: step, time in ms, value. None of one with too many: the run's own metrics have pages."""

    number: int
    run_id: str
    points: list[tuple[int, int, Number]] | None


class CurveList(TypedDict):
    """One metric in the trials of a sweep, or in some of them: `next_trial` tells where to go on, None that these were the last."""

    schema: int
    sweep_id: str
    key: str
    curves: list[CurveShape]
    next_trial: int | None


class VersionEntry(TypedDict):
    """A version of a registered model, with its lineage."""

    name: str
    version: int
    aliases: list[str]
    run_id: str | None
    sweep_id: str | None
    trial_number: int | None
    metric: str | None
    value: Number
    params: dict[str, Any]
    source: str
    description: str
    size_bytes: int | None
    created_at: str


class VersionCreated(VersionEntry):
    """The version that a registration made."""

    schema: int


class ModelEntry(TypedDict):
    """A registered model with its versions, newest first."""

    name: str
    description: str
    created_at: str
    versions: list[VersionEntry]


class ModelAnswer(ModelEntry):
    """One registered model."""

    schema: int


class ModelList(TypedDict):
    """Registered models."""

    schema: int
    models: list[ModelEntry]


class RegisterBody(TypedDict):
    """Register a sweep's best trial (`sweep`), or one run (`run`: a run id or `SWEEP/NUMBER`), as a model version."""

    model: str
    sweep: NotRequired[str | None]
    run: NotRequired[str | None]
    artifact: NotRequired[str]
    alias: NotRequired[str | None]
    description: NotRequired[str]


class AliasBody(TypedDict):
    """Let an alias name a version, taking it from the one that had it."""

    alias: str
    version: int


class WorkerEntry(TypedDict):
    """A worker, and what it holds. `state` also says `silent`, `draining` or `cordoned`."""

    worker_id: str
    session_id: str
    name: str
    hostname: str
    state: str
    queues: list[str]
    slots: int
    cpus: float
    memory_bytes: int
    gpus: int
    runtimes: list[str]
    renewed_at: str
    cordoned: str | None
    running: list[str]
    placed: list[str]


class WorkerAnswer(WorkerEntry):
    """One worker."""

    schema: int


class WorkerList(TypedDict):
    """Workers that are here."""

    schema: int
    workers: list[WorkerEntry]


class WaitEntry(TypedDict):
    """Something that is waited for: one word for it (`wait`), the sentence among the reasons, and when it ends at the latest, if that is known."""

    wait: str
    text: str
    until: str | None


class StoryEntry(TypedDict):
    """One thing that happened."""

    at: str
    text: str


class WhyAnswer(TypedDict):
    """Why a sweep or run is where it is, in plain sentences, the most telling first; then what happened to it, oldest first.

    `state` of a trial that is not there yet is `not proposed`.
    """

    schema: int
    subject: str
    state: str
    reasons: list[str]
    waits: list[WaitEntry]
    story: list[StoryEntry]


class SnapshotAnswer(TypedDict):
    """A stored snapshot."""

    schema: int
    digest: str
    size_bytes: int


class ServerAnswer(TypedDict):
    """What the server knows of its surroundings, for `sweep doctor`. A problem is a sentence, or empty."""

    schema: int
    version: str
    time: str
    database_problem: str
    artifacts_problem: str
    artifact_root: str
    snapshot_max_bytes: int
    flower_url: str
    is_local: bool


class AskedResources(TypedDict):
    """What one run asks for; what is left out is as in the sweep file."""

    cpus: NotRequired[float]
    memory_bytes: NotRequired[int | None]
    gpus: NotRequired[int]
    image: NotRequired[str | None]


class PlacementBody(TypedDict):
    """What a sweep would ask of workers, were it submitted."""

    queue: str
    resources: AskedResources
    parallel: int | None


class PlacementEntry(TypedDict):
    """A worker that has room now, and for how many such trials."""

    name: str
    trials: int


class PlacementAnswer(TypedDict):
    """Which workers could run a trial of it now, and how many at once in all; if there are none, why."""

    schema: int
    workers: list[PlacementEntry]
    trials: int
    reasons: list[str]
    waits: list[WaitEntry]
