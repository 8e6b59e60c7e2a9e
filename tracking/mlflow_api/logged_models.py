"""`logged-models/...` and `runs/outputs`: models that runs write down, which MLflow 3's `log_model` and `load_model` work with.

Also `runs/log-model`, which clients of MLflow 2 note such a model by: as a tag of its run.
"""

import posixpath
from typing import Any, Final, Literal

import msgspec
from msgspec import Struct

from tracking.artifacts import model_folder, model_uri, safe_path
from tracking.errors import InvalidValue
from tracking.filters import LOGGED_MODELS, OrderBy, distinct, order_by_field, parse_filter
from tracking.mlflow_api import limits
from tracking.mlflow_api.artifacts import FileInfo, list_files, refuse_remote
from tracking.mlflow_api.endpoints import ATTEMPT, READ, Caller, Endpoint
from tracking.mlflow_api.wire import ModelOutputBody, Required, RunRef, Tag, json_number, texts
from tracking.records import LoggedModel, ModelMetric, ModelOutput
from tracking.store.runs import to_ms

NAME_MAX_CHARS: Final = 500
KEY_MAX_CHARS: Final = 255
_DEFAULT_RESULTS: Final = 50
_BAD_CHARS: Final = ("/", ":", ".", "%", '"', "'")
_HISTORY_FIELDS: Final = ("run_id", "artifact_path", "utc_time_created", "model_uuid")
_HISTORY_MANDATORY: Final = ("artifact_path", "flavors", "run_id", "utc_time_created")

StatusName = Literal["LOGGED_MODEL_STATUS_UNSPECIFIED", "LOGGED_MODEL_PENDING", "LOGGED_MODEL_READY", "LOGGED_MODEL_UPLOAD_FAILED"]
_STATUS: Final[dict[str | int, Any]] = {
    **dict.fromkeys(("LOGGED_MODEL_STATUS_UNSPECIFIED", 0), "unspecified"),
    **dict.fromkeys(("LOGGED_MODEL_PENDING", 1), "pending"),
    **dict.fromkeys(("LOGGED_MODEL_READY", 2), "ready"),
    **dict.fromkeys(("LOGGED_MODEL_UPLOAD_FAILED", 3), "upload_failed"),
}
_STATUS_NAMES: Final[dict[str, StatusName]] = {
    "unspecified": "LOGGED_MODEL_STATUS_UNSPECIFIED",
    "pending": "LOGGED_MODEL_PENDING",
    "ready": "LOGGED_MODEL_READY",
    "upload_failed": "LOGGED_MODEL_UPLOAD_FAILED",
}


class CreateModel(Struct, frozen=True):
    """Body of logged-models."""

    experiment_id: Required
    name: str | None = None
    model_type: str | None = None
    source_run_id: str | None = None
    params: list[Tag] | None = None
    tags: list[Tag] | None = None


class ModelRef(Struct, frozen=True, kw_only=True):
    """A model by its id, which stands in the path."""

    model_id: str = ""


class GetModel(ModelRef, frozen=True, kw_only=True):
    """Query of logged-models/{model_id}."""

    allow_deleted: bool = False


class SetStatus(ModelRef, frozen=True, kw_only=True):
    """Body of logged-models/{model_id}, to be changed."""

    status: StatusName | Literal[0, 1, 2, 3]


class ModelTexts(ModelRef, frozen=True, kw_only=True):
    """Body of logged-models/{model_id}/params and tags."""

    params: list[Tag] | None = None
    tags: list[Tag] | None = None


class ModelTagRef(ModelRef, frozen=True, kw_only=True):
    """A tag of a model; both stand in the path."""

    tag_key: str = ""


class ListModelFiles(ModelRef, frozen=True, kw_only=True):
    """Query of logged-models/{model_id}/artifacts/directories."""

    artifact_directory_path: str = ""


class GivenDatasetFilter(Struct, frozen=True):
    """A dataset that metrics were measured on."""

    dataset_name: str = ""
    dataset_digest: str = ""


class GivenOrderBy(Struct, frozen=True):
    """One sort key."""

    field_name: str = ""
    ascending: bool = True
    dataset_name: str = ""
    dataset_digest: str = ""


class SearchModels(Struct, frozen=True):
    """Body of logged-models/search."""

    experiment_ids: list[str]
    filter: str | None = None
    datasets: list[GivenDatasetFilter] | None = None
    max_results: int | None = None
    order_by: list[GivenOrderBy] | None = None
    page_token: str | None = None


class LogOutputs(RunRef, frozen=True, kw_only=True):
    """Body of runs/outputs."""

    models: list[ModelOutputBody]


class LogModel(RunRef, frozen=True, kw_only=True):
    """Body of runs/log-model."""

    model_json: Required


class ModelInfo(Struct, frozen=True, omit_defaults=True):
    """What a model is."""

    model_id: str
    experiment_id: str
    name: str
    creation_timestamp_ms: int
    last_updated_timestamp_ms: int
    artifact_uri: str
    status: StatusName
    model_type: str
    source_run_id: str
    tags: list[Tag] = []


class ModelMetricBody(Struct, frozen=True, omit_defaults=True):
    """A point of a metric of a model."""

    key: str
    value: float | str
    timestamp: int
    step: int
    model_id: str
    run_id: str
    dataset_name: str | None = None
    dataset_digest: str | None = None


class ModelData(Struct, frozen=True, omit_defaults=True):
    """What was logged to a model."""

    params: list[Tag] = []
    metrics: list[ModelMetricBody] = []


class ModelBody(Struct, frozen=True):
    """A model."""

    info: ModelInfo
    data: ModelData


class ModelAnswer(Struct, frozen=True):
    """One model."""

    model: ModelBody


class ModelsAnswer(Struct, frozen=True, omit_defaults=True):
    """A page of models."""

    models: list[ModelBody] = []
    next_page_token: str = ""


class ModelFilesAnswer(Struct, frozen=True, omit_defaults=True):
    """What a folder of a model holds, and where the model's files are."""

    root_uri: str
    files: list[FileInfo] = []


def create_model(caller: Caller, asked: CreateModel) -> ModelAnswer:
    """A new model; an attempt's is in its own experiment, whatever it asks for."""
    experiment_id = asked.experiment_id if caller.fence is None else caller.store.runs.get(caller.fence.run_id).experiment_id
    model = caller.store.logged_models.create(
        experiment_id,
        name=_checked_name(asked.name or ""),
        model_type=limits.check_length("model_type", asked.model_type or "", NAME_MAX_CHARS),
        source_run_id=asked.source_run_id or "",
        params=_texts(asked.params),
        tags={tag.key: tag.value or "" for tag in _checked(asked.tags)},
        fence=caller.fence,
    )
    return ModelAnswer(_body(model))


def get_model(caller: Caller, asked: GetModel) -> ModelAnswer:
    """A model."""
    return ModelAnswer(_body(caller.store.logged_models.get(asked.model_id, allow_deleted=asked.allow_deleted)))


def set_status(caller: Caller, asked: SetStatus) -> ModelAnswer:
    """Say how far a model is: its files are all there, or can't be had."""
    return ModelAnswer(_body(caller.store.logged_models.set_status(asked.model_id, _STATUS[asked.status], caller.fence)))


def delete_model(caller: Caller, asked: ModelRef) -> None:
    """Mark a model deleted."""
    caller.store.logged_models.delete(asked.model_id, caller.fence)


def set_tags(caller: Caller, asked: ModelTexts) -> None:
    """Set tags; of two with one key the later counts."""
    caller.store.logged_models.set_tags(asked.model_id, {tag.key: tag.value or "" for tag in _checked(asked.tags)}, caller.fence)


def delete_tag(caller: Caller, asked: ModelTagRef) -> None:
    """Remove one tag."""
    caller.store.logged_models.delete_tag(asked.model_id, asked.tag_key, caller.fence)


def log_params(caller: Caller, asked: ModelTexts) -> None:
    """Add parameters."""
    caller.store.logged_models.log_params(asked.model_id, _texts(asked.params), caller.fence)


def list_model_files(caller: Caller, asked: ListModelFiles) -> ModelFilesAnswer:
    """What a model's folder holds, paths relative to the model."""
    model = caller.store.logged_models.get(asked.model_id)
    refuse_remote(model.artifact_root)
    below = safe_path(asked.artifact_directory_path)
    folder = posixpath.join(model_folder(model.experiment_id, model.model_id), below)
    return ModelFilesAnswer(_uri(model), list_files(caller, folder, below))


def search_models(caller: Caller, asked: SearchModels) -> ModelsAnswer:
    """A page of models, newest first unless another order is asked for."""
    if any(not each.dataset_name for each in asked.datasets or ()):
        raise InvalidValue("`dataset_name` in the `datasets` clause must be specified.")
    found, token = caller.store.logged_models.search(
        asked.experiment_ids,
        parse_filter(asked.filter or "", LOGGED_MODELS),
        distinct([_order_by(each) for each in asked.order_by or ()]),
        tuple((each.dataset_name, each.dataset_digest or None) for each in asked.datasets or ()),
        limits.check_max_results(asked.max_results or _DEFAULT_RESULTS, limits.SEARCH_MAX_RESULTS),
        asked.page_token or "",
    )
    return ModelsAnswer([_body(model) for model in found], token)


def log_outputs(caller: Caller, asked: LogOutputs) -> None:
    """Note which models a run made."""
    caller.store.logged_models.log_outputs(asked.named, [ModelOutput(model.model_id, model.step) for model in asked.models], caller.fence)


def log_model(caller: Caller, asked: LogModel) -> None:
    """Note a model as MLflow 2 does: in a tag of its run that lists them."""
    try:
        model = msgspec.json.decode(asked.model_json)
    except (msgspec.DecodeError, RecursionError):
        model = None
    if not isinstance(model, dict):
        raise InvalidValue(f"Malformed model info. \n {asked.model_json[:1000]} \n is not a valid JSON.")
    missing = [name for name in _HISTORY_MANDATORY if name not in model]
    if missing:
        raise InvalidValue(f"Model json is missing mandatory fields: {missing}")
    flavors = model["flavors"] if isinstance(model["flavors"], dict) else {}
    noted = {name: model.get(name) for name in _HISTORY_FIELDS}
    noted["flavors"] = {
        name: {key: value for key, value in flavor.items() if key != "config"} if isinstance(flavor, dict) else flavor for name, flavor in flavors.items()
    }
    caller.store.logged_models.note(asked.named, noted, caller.fence)


def _checked_name(name: str) -> str:
    if any(char in name for char in _BAD_CHARS):
        raise InvalidValue(
            f"Invalid model name ({name[:NAME_MAX_CHARS]!r}) provided. Model name must be a non-empty string and cannot contain the following "
            f"characters: {_BAD_CHARS}"
        )
    return limits.check_length("name", name, NAME_MAX_CHARS)


def _checked(given: list[Tag] | None) -> list[Tag]:
    for each in given or ():
        limits.check_length("key", each.key, KEY_MAX_CHARS)
    return given or []


def _texts(params: list[Tag] | None) -> dict[str, str]:
    """Parameters by key.

    Raises:
        InvalidValue: a key comes twice, or is too long.
    """
    values: dict[str, str] = {}
    twice = []
    for param in _checked(params):
        if param.key in values:
            twice.append(param.key)
        values[param.key] = param.value or ""
    limits.refuse_twice(twice)
    return values


def _order_by(given: GivenOrderBy) -> OrderBy:
    dataset = (given.dataset_name, given.dataset_digest or None) if given.dataset_name else None
    return order_by_field(given.field_name, descending=not given.ascending, dataset=dataset)


def _uri(model: LoggedModel) -> str:
    return model.artifact_root or model_uri(model.experiment_id, model.model_id)


def _body(model: LoggedModel) -> ModelBody:
    info = ModelInfo(
        model.model_id,
        model.experiment_id,
        model.name,
        to_ms(model.created_at),
        to_ms(model.updated_at),
        _uri(model),
        _STATUS_NAMES[model.status],
        model.model_type,
        model.source_run_id,
        texts(model.tags),
    )
    return ModelBody(info, ModelData(texts(model.params), [_metric_body(metric) for metric in model.metrics]))


def _metric_body(metric: ModelMetric) -> ModelMetricBody:
    point = metric.point
    return ModelMetricBody(
        point.key,
        json_number(point.value),
        point.time_ms,
        point.step,
        metric.model_id,
        metric.run_id,
        metric.dataset_name or None,
        metric.dataset_digest or None,
    )


ENDPOINTS: Final = (
    Endpoint("POST", "/logged-models", ATTEMPT, CreateModel, create_model),
    Endpoint("POST", "/logged-models/search", READ, SearchModels, search_models),
    Endpoint("GET", "/logged-models/{model_id}", READ, GetModel, get_model),
    Endpoint("PATCH", "/logged-models/{model_id}", ATTEMPT, SetStatus, set_status),
    Endpoint("DELETE", "/logged-models/{model_id}", ATTEMPT, ModelRef, delete_model),
    Endpoint("PATCH", "/logged-models/{model_id}/tags", ATTEMPT, ModelTexts, set_tags),
    Endpoint("DELETE", "/logged-models/{model_id}/tags/{tag_key:path}", ATTEMPT, ModelTagRef, delete_tag),
    Endpoint("POST", "/logged-models/{model_id}/params", ATTEMPT, ModelTexts, log_params),
    Endpoint("GET", "/logged-models/{model_id}/artifacts/directories", READ, ListModelFiles, list_model_files),
    Endpoint("POST", "/runs/outputs", ATTEMPT, LogOutputs, log_outputs),
    Endpoint("POST", "/runs/log-model", ATTEMPT, LogModel, log_model),
)
