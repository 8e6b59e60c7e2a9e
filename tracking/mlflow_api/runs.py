"""`runs/...`: opened, read, updated, tagged and searched. Who may write what is the store's decision (I3)."""

from typing import Final, Literal

from msgspec import Struct
from starlette.concurrency import run_in_threadpool

from tracking.errors import InvalidValue
from tracking.filters import parse_filter, parse_order_by
from tracking.mlflow_api import limits
from tracking.mlflow_api.endpoints import ATTEMPT, READ, Caller, Endpoint
from tracking.mlflow_api.experiments import ASKED_TAG
from tracking.mlflow_api.wire import Millis, Required, RunBody, RunInfo, RunRef, Tag, new_run_body, run_body, run_info
from tracking.records import Run, RunData
from tracking.store import Fence, Store
from tracking.store.runs import COLUMN_TAGS, NewRun, column_tags

_STATUS_OF: Final = {1: "RUNNING", 2: "SCHEDULED", 3: "FINISHED", 4: "FAILED", 5: "KILLED"}
"""MLflow's numbers of its status names, which some clients send."""


class CreateRun(Struct, frozen=True):
    """Body of runs/create."""

    experiment_id: str
    user_id: str | None = None
    run_name: str | None = None
    start_time: Millis | None = None
    tags: list[Tag] | None = None


class UpdateRun(RunRef, frozen=True, kw_only=True):
    """Body of runs/update."""

    status: str | int | None = None
    end_time: Millis | None = None
    run_name: str | None = None


class SearchRuns(Struct, frozen=True):
    """Body of runs/search."""

    experiment_ids: list[str]
    filter: str | None = None
    run_view_type: Literal["ACTIVE_ONLY", "DELETED_ONLY", "ALL"] = "ACTIVE_ONLY"
    max_results: int = 1000
    order_by: list[str] | None = None
    page_token: str | None = None


class LogParam(RunRef, frozen=True, kw_only=True):
    """Body of runs/log-parameter, and of runs/set-tag."""

    key: Required
    value: str | None = ""


class DeleteTag(RunRef, frozen=True, kw_only=True):
    """Body of runs/delete-tag."""

    key: Required


class RunAnswer(Struct, frozen=True):
    """One run."""

    run: RunBody


class RunInfoAnswer(Struct, frozen=True):
    """What a run is."""

    run_info: RunInfo


class RunsAnswer(Struct, frozen=True, omit_defaults=True):
    """A page of runs."""

    runs: list[RunBody] = []
    next_page_token: str = ""


async def create_run(caller: Caller, asked: CreateRun) -> RunAnswer:
    """Open a run; an attempt's is a descendant of its own run, in its experiment."""
    tags = limits.tag_values(asked.tags or ())
    name = _checked_name(asked.run_name) or ""
    if caller.fence is None:
        new = NewRun.made(asked.experiment_id, user_name=asked.user_id or "", name=name, start_time_ms=asked.start_time, tags=tags)
        run = await caller.groups.creations.write(new)
    else:
        run = await run_in_threadpool(_create_descendant, caller.store, caller.fence, asked, name, tags)
    own = {key: value for key, value in sorted(tags.items()) if key not in COLUMN_TAGS}
    return RunAnswer(new_run_body(run, RunData({}, column_tags(run) | own)))


def _create_descendant(store: Store, fence: Fence, asked: CreateRun, name: str, tags: dict[str, str]) -> Run:
    experiment_id = store.runs.get(fence.run_id).experiment_id
    if asked.experiment_id != experiment_id:
        tags[ASKED_TAG] = asked.experiment_id[: limits.TAG_MAX_CHARS]
    return store.runs.create_external(experiment_id, user_name=asked.user_id or "", name=name, start_time_ms=asked.start_time, tags=tags, fence=fence)


def get_run(caller: Caller, asked: RunRef) -> RunAnswer:
    """A run with what was logged to it."""
    return RunAnswer(run_body(*caller.store.runs.get_with_data(asked.named)))


def update_run(caller: Caller, asked: UpdateRun) -> RunInfoAnswer:
    """Status, end and name. A managed run keeps its status: its worker ends it (D9), and `end_run` succeeds all the same."""
    status = _STATUS_OF.get(asked.status, str(asked.status)) if isinstance(asked.status, int) else asked.status
    run = caller.store.runs.update(asked.named, status=status, end_time_ms=asked.end_time, name=_checked_name(asked.run_name), fence=caller.fence)
    return RunInfoAnswer(run_info(run))


def search_runs(caller: Caller, asked: SearchRuns) -> RunsAnswer:
    """A page of runs."""
    found, token = caller.store.runs.search(
        asked.experiment_ids,
        parse_filter(asked.filter or ""),
        parse_order_by(asked.order_by or ()),
        asked.run_view_type,
        limits.check_max_results(asked.max_results, limits.SEARCH_MAX_RESULTS),
        asked.page_token or "",
    )
    return RunsAnswer([run_body(run, data) for run, data in found], token)


def delete_run(caller: Caller, asked: RunRef) -> None:
    """Mark a run deleted."""
    caller.store.runs.delete(asked.named, caller.fence)


def restore_run(caller: Caller, asked: RunRef) -> None:
    """Bring a deleted run back."""
    caller.store.runs.restore(asked.named, caller.fence)


def log_param(caller: Caller, asked: LogParam) -> None:
    """Log one parameter."""
    caller.store.runs.log_params(asked.named, limits.one_param(asked.key, asked.value, is_trial=caller.is_trial(asked.named)), caller.fence)


def set_tag(caller: Caller, asked: LogParam) -> None:
    """Set one tag."""
    caller.store.runs.set_tags(asked.named, limits.one_tag(asked.key, asked.value, is_trial=caller.is_trial(asked.named)), caller.fence)


def delete_tag(caller: Caller, asked: DeleteTag) -> None:
    """Remove one tag."""
    caller.store.runs.delete_tag(asked.named, asked.key, caller.fence)


def _checked_name(name: str | None) -> str | None:
    if name is not None and len(name) > limits.TAG_MAX_CHARS:
        raise InvalidValue(f"'run_name' exceeds the maximum length of {limits.TAG_MAX_CHARS} characters: it has {len(name)}.")
    return name


ENDPOINTS: Final = (
    Endpoint("POST", "/runs/create", ATTEMPT, CreateRun, create_run),
    Endpoint("GET", "/runs/get", READ, RunRef, get_run),
    Endpoint("POST", "/runs/update", ATTEMPT, UpdateRun, update_run),
    Endpoint("POST", "/runs/search", READ, SearchRuns, search_runs),
    Endpoint("POST", "/runs/delete", ATTEMPT, RunRef, delete_run),
    Endpoint("POST", "/runs/restore", ATTEMPT, RunRef, restore_run),
    Endpoint("POST", "/runs/log-parameter", ATTEMPT, LogParam, log_param),
    Endpoint("POST", "/runs/set-tag", ATTEMPT, LogParam, set_tag),
    Endpoint("POST", "/runs/delete-tag", ATTEMPT, DeleteTag, delete_tag),
)
