"""docs/errors.md: every error, error code, cause of an end and wait, each with what to do."""

import ast
import importlib
import inspect
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Final

from tests.support.markdown import table
from tests.support.pages import ROOT
from tracking.errors import RecordError, SweepError
from tracking.states import Cause
from worker.errors import Displaced, WorkerError
from worker.identity import StateFolderTaken

PACKAGES: Final = ("tracking", "sweeps", "scheduler", "worker")

CAUSES: Final[Mapping[Cause, tuple[str, str]]] = {
    Cause.COMPLETED: ("It ended by itself, with exit status 0, and has its objective.", "Nothing."),
    Cause.NO_OBJECTIVE: (
        "It ended well, and never logged the metric that the sweep asks for, or only NaN.",
        "Compare `metric.name` with what the script logs or prints: `sweep metrics RUN` shows what arrived, `sweep logs RUN` what was printed.",
    ),
    Cause.PRUNED: ("It was stopped early because it would not win.", "Nothing."),
    Cause.CANCELLED: ("Somebody asked for the stop.", "Nothing; `sweep why RUN` tells when."),
    Cause.EXIT_STATUS: (
        "Its code ended with an exit status other than 0.",
        "`sweep logs RUN --tail 50` shows its last words. [`retry`](sweep-file.md#retry) in the file, or `sweep retry RUN`, tries again what passes by itself.",
    ),
    Cause.SIGNAL: (
        "A signal that we did not send ended it.",
        "SIGSEGV and SIGABRT come from the code or its libraries; SIGKILL often from the machine, for want of memory: fewer at once, or a larger machine.",
    ),
    Cause.OUT_OF_MEMORY: ("It went over its memory limit.", "Raise `resources.memory`, or make the trial smaller."),
    Cause.TIMED_OUT: ("It ran longer than `limits.trial_time`.", "Raise the limit; the log tells how far it came."),
    Cause.LOST: (
        "Its worker fell silent for too long or lost sight of it, or it was shut down with its machine.",
        "It is tried again elsewhere. If it is lost again and again, look at the worker's machine: memory, network, sleep.",
    ),
    Cause.ENVIRONMENT: (
        "Its Python environment could not be built, or nothing can be started with its variables, limits or patterns.",
        "The detail has the builder's last lines. Try `uv pip install -r` with the same requirements in a fresh virtual environment.",
    ),
    Cause.IMAGE: ("Its container image is not there.", "Check `resources.image`; build or pull it on the worker's machine."),
    Cause.CODE: ("Its code could not be fetched or unpacked.", "Submit the sweep again: its snapshot is damaged, or lacks the folder it is to run in."),
    Cause.LAUNCH: (
        "The worker could not start it, or its disk was full.",
        "It is tried again elsewhere. The detail and the worker's log tell what was missing: most often disk space, processes or the container engine.",
    ),
    Cause.OVER_BUDGET: (
        "A limit of the sweep file was reached (`limits.time`, `limits.failures`).",
        "Raise the limit, or mend what fails: `sweep trials --state failed`.",
    ),
    Cause.STOPPED: ("The sweep was stopped by hand; what ran could end.", "Nothing."),
    Cause.SEARCH_FAILED: (
        "The search itself could not go on; the sweep's detail says why.",
        "`sweep why SWEEP` shows the detail. Trials and their values are kept; submit the file again, with another `method` if it is the search's fault.",
    ),
}
"""Why it ended, and what to do about it."""

WAITS: Final[Mapping[str, tuple[str, str]]] = {
    "scheduler": ("a scheduler that leads, or that one's next look", "If it lasts for more than seconds: start `sweep scheduler`, or look at its log."),
    "search": ("a result: the search learns from each", "Nothing. A smaller `limits.parallel`, or `random`, waits less."),
    "resume": ("`sweep resume`", "`sweep resume SWEEP`."),
    "trials": ("the open trials of a sweep that is stopping or has reached its `metric.target`", "Nothing; `sweep cancel SWEEP` does not wait for them."),
    "back_off": ("its time, after an attempt that failed", "Nothing; `retry.delay` is yours to set. `sweep why` tells what failed."),
    "worker": ("a worker: none is here, or each is draining, cordoned or silent", "`sweep worker`; `sweep worker ls`, then `drain --undo` or `uncordon`."),
    "queue": ("a worker that serves its queue", "`sweep worker --queue QUEUE`, or another `queue` in the file."),
    "resources": ("a worker that is large enough", "Ask for less under `resources`, or start a larger worker (`--cpus`, `--memory`, `--gpus`)."),
    "parallel": ("another trial's end", "Raise `limits.parallel`."),
    "slot": ("room on the workers that fit", "Nothing, or more workers; `sweep queue` shows who is before it."),
    "other_worker": ("room on a worker other than the one on which the machinery failed it", "Nothing, or more workers."),
    "placing": ("its turn", "If it lasts for more than seconds: look at the scheduler's log."),
    "claim": ("the worker on which it is placed", "Nothing: it is found by the worker's next renewal, or placed anew."),
    "start": (
        "its code and environment, before its command starts",
        "Nothing: the first trial with an environment waits until that is built. The worker's log shows it.",
    ),
    "output": (
        "the worker to read the rest of a long output for metrics: the command has ended",
        "Nothing; `collect: {stdout: false}` where no metric is printed.",
    ),
    "verdict": ("the scheduler's word on a failed attempt", "If it lasts for more than seconds: start `sweep scheduler`, or look at its log."),
    "worker_back": ("a silent worker", "Start that worker again: it takes up what runs there. Otherwise the run goes to another one at the time that is told."),
    "stop": ("the end that was asked for", "Nothing: what does not end by itself is killed after `SWEEP_STOP_GRACE_S`."),
}
"""What is waited for, and what to do about it."""

ADVICE: Final[Mapping[str, str]] = {
    "SettingError": "Correct the variable that is named; [settings](settings.md) has them all.",
    "NotFound": "Check the name: `sweep ls`, `sweep trials`, `sweep models ls`, `sweep worker ls`.",
    "AlreadyExists": "Choose another name, or use what is there.",
    "InvalidValue": "Correct the field that is named.",
    "InvalidFilter": "Correct it at the position that is named; [searching](searching.md) has the grammar.",
    "NotAllowed": "An attempt that was given to another worker may write no more: let it end. Other callers write to runs of their own.",
    "Unauthenticated": "Its attempt is over: open a run of your own, without `MLFLOW_TRACKING_TOKEN` of a trial.",
    "NotNow": "The message says what state it is in; `sweep status` shows what can follow.",
    "TooLarge": "Send less at once, or raise the limit if it is a setting (`SWEEP_..._MAX_BYTES`).",
    "RowLocked": "End the transaction that holds it, if it was forgotten: `pg_locks` and `pg_stat_activity` tell whose it is.",
    "NoRoom": "Make room there; what was refused is sent again by hand, nothing sends it by itself.",
    "Contradiction": "Read the object again and decide anew.",
    "EmbeddedError": "The message ends with Postgres's own words; `sweep doctor` checks the rest. Or name a Postgres of yours by `SWEEP_DATABASE_URL`.",
    "EndpointNotFound": "Use another call: [README](../README.md#a-cluster) tells which part of MLflow's protocol is served.",
    "NotSupported": "Send or read the file through this server, as clients do by themselves.",
    "NotLeader": "Nothing: this scheduler stands by.",
    "SchedulerError": "The message says what is missing; start `sweep scheduler` again once that is mended.",
    "ServerError": "The message and hint are the server's own. With INTERNAL_ERROR, look at its log: that is a fault of ours.",
    "InvalidRequest": "Correct the value that is named.",
    "MissingOnServer": "Check the name, and that `SWEEP_SERVER` is the server you mean: `sweep ls`.",
    "Refused": "Check `SWEEP_TOKEN`, and who may do this.",
    "NoBest": "`sweep status` tells whether trials still run, `sweep trials` how they ended.",
    "ServerAway": "Check `SWEEP_SERVER`, and that the server runs; without the variable, `sweep up`. `sweep doctor` tells more.",
    "SpecError": "Correct the file; `sweep validate FILE` checks it without submitting.",
    "SpecProblems": "Each problem has its file, line, column and, where there is one, the likely correction; `sweep validate FILE` checks again.",
    "LocalError": "The message ends with the log's last lines; all logs are in the folder `local/logs` of `SWEEP_HOME`. `sweep down`, then `sweep up`.",
}
"""What to do, for errors whose class has no hint: their messages say more than a class can."""

CODES: Final[Mapping[str, tuple[str, str]]] = {
    "BAD_REQUEST": ("400", "The request can't be understood: not JSON, or against the protocol. The message says what."),
    "RESOURCE_EXHAUSTED": ("507", "The disk of artifacts and snapshots is full."),
    "INVALID_PARAMETER_VALUE": ("400, 413", "A value, or the size of the whole, is not acceptable. The message names the field or the limit."),
    "UNAUTHENTICATED": ("401", "The token is that of an attempt that is over."),
    "NOT_IMPLEMENTED": ("501", "The place of artifacts does not offer that: multipart uploads and signed URLs are S3's."),
    "PERMISSION_DENIED": (
        "403",
        (
            "The caller may not do this; an attempt's token may write its own run, and only while the attempt is the current one. Or the place of artifacts"
            " does not let the server in."
        ),
    ),
    "RESOURCE_DOES_NOT_EXIST": ("404", "There is no such experiment, run, sweep, trial, model, worker or artifact."),
    "ENDPOINT_NOT_FOUND": ("404, 405", "This path or method is not served."),
    "RESOURCE_ALREADY_EXISTS": ("400", "The name is taken."),
    "RESOURCE_CONFLICT": ("409", "The state of the object does not allow it, or somebody else was first. Read it again."),
    "NO_BEST_TRIAL": ("409", "No trial of the sweep has finished with a value."),
    "INTERNAL_ERROR": ("500", "A fault of ours. The server's log has the traceback; the answer has nothing of it."),
    "TEMPORARILY_UNAVAILABLE": (
        "503",
        "The database or the place of artifacts is away, the schema does not fit, or the server's machine is out of something. `Retry-After` says when.",
    ),
}
"""HTTP statuses, and what is meant."""

_GROUPS: Final = (
    (
        "Of the record and the server",
        ("tracking", "sweeps.api"),
        "The server answers the HTTP status with `error_code`; a role in the foreground ends with the exit status.",
    ),
    ("Of the command line", ("sweeps", "scheduler"), "Told on standard error, with the exit status."),
    ("Of workers", ("worker",), "They end one attempt, as its cause and detail (`sweep why RUN`); those without a cause end the worker."),
)


def render_errors() -> str:
    """The page."""
    parts = [
        "# Errors\n",
        (
            "Generated by `make docs`. What can go wrong, why, and what to do. The command line prints `error: MESSAGE`, and often `hint: ...`, to standard"
            " error and exits with a [status](commands.md#exit-status). The server answers an object with `error_code`, `message` and `hint`; MLflow's protocol"
            " has the hint within the message. A traceback means a bug.\n"
        ),
        (
            "Looking for a trial that failed? `sweep why SWEEP/NUMBER` names the [cause](#why-a-trial-or-sweep-ended). One that does not start?"
            " The same command names the [wait](#why-a-trial-waits). A sweep file that is refused? The message has"
            " [file, line and column](sweep-file.md#errors).\n"
        ),
        "## Why a trial or sweep ended\n",
        "The column CAUSE of `sweep trials`; `cause` in JSON.\n",
        table(("cause", "why", "what to do"), [(f"`{cause}`", why, what) for cause, (why, what) in CAUSES.items()]),
        "## Why a trial waits\n",
        "`wait` in `sweep why --json`; the sentences of `sweep why` say it of the case at hand.\n",
        table(("wait", "for what", "what to do"), [(f"`{wait}`", why, what) for wait, (why, what) in WAITS.items()]),
        "## Error codes of the server\n",
        table(("error_code", "HTTP", "why"), [(f"`{code}`", status, why) for code, (status, why) in CODES.items()]),
    ]
    left = list(error_classes())
    for title, modules, text in _GROUPS:
        mine = [kind for kind in left if kind.__module__.startswith(modules)]
        left = [kind for kind in left if kind not in mine]
        parts += [f"## {title}\n", text + "\n", _errors(mine, is_answered=title == _GROUPS[0][0], has_cause=modules == ("worker",))]
    return "\n".join(parts)


def _errors(kinds: list[type[SweepError]], *, is_answered: bool, has_cause: bool) -> str:
    if has_cause:
        told = [(f"`{kind.__name__}`", _cause(kind), _first_sentence(kind), advice(kind)) for kind in kinds if kind is not WorkerError]
        return table(("error", "cause", "why", "what to do"), told)
    rows = [
        (f"`{kind.__name__}`", str(kind.exit_status), *_answer(kind, is_answered=is_answered), _first_sentence(kind), advice(kind))
        for kind in kinds
        if kind not in (SweepError, RecordError)
    ]
    return table(("error", "exit", *(("HTTP",) if is_answered else ()), "why", "what to do"), rows)


def _answer(kind: type[SweepError], *, is_answered: bool) -> tuple[str, ...]:
    return (f"{kind.http_status} `{kind.error_code}`",) if is_answered else ()


def advice(kind: type[SweepError]) -> str:
    """What to do about an error: its class's hint, or what is said here."""
    return kind.hint or ADVICE.get(kind.__name__, "")


def _cause(kind: type[SweepError]) -> str:
    return "" if kind in (Displaced, StateFolderTaken) else f"`{getattr(kind, 'cause', '')}`"


def _first_sentence(kind: type) -> str:
    return (inspect.getdoc(kind) or "").partition("\n")[0]


@cache
def error_classes() -> tuple[type[SweepError], ...]:
    """`SweepError` and every class that derives from it in the four packages, in order of the source."""
    defined = [(module, node.name, {ast.unparse(base).rpartition(".")[2] for base in node.bases}) for module, node in _classes()]
    known = {"SweepError"}
    while grown := {name for _, name, bases in defined if bases & known} - known:
        known |= grown
    found = [getattr(importlib.import_module(module), name, None) for module, name, _ in defined if name in known]
    return tuple(kind for kind in found if isinstance(kind, type) and issubclass(kind, SweepError))


def _classes() -> Iterator[tuple[str, ast.ClassDef]]:
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            module = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.ClassDef):
                    yield module, node


def wait_words() -> set[str]:
    """Every word that a `Reason` of `sweep why` may have as its `wait`, read from the source."""
    words: set[str] = set()
    for path in (ROOT / "sweeps" / "api").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "Reason" and len(node.args) > 1:
                words |= {each.value for each in ast.walk(node.args[1]) if isinstance(each, ast.Constant) and isinstance(each.value, str)}
    return words
