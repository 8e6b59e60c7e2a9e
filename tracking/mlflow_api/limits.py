"""MLflow's limits on names, values and batches. Long values are cut, as MLflow does; everything else is refused by name.

A trial's own names are bound less, for scripts that were written for other records (`metrics/mAP50(B)`).
"""

import json
import posixpath
import re
from collections.abc import Iterable, Sequence
from typing import Final

from tracking.errors import InvalidValue
from tracking.mlflow_api.wire import Tag

KEY_MAX_CHARS: Final = 250
PARAM_MAX_CHARS: Final = 6000
TAG_MAX_CHARS: Final = 8000
EXPERIMENT_NAME_MAX_CHARS: Final = 500
EXPERIMENT_TAG_MAX_CHARS: Final = 20_000
BATCH_MAX_METRICS: Final = 1000
BATCH_MAX_TEXTS: Final = 100
BATCH_MAX_ITEMS: Final = 1000
SEARCH_MAX_RESULTS: Final = 50_000
HISTORY_MAX_RESULTS: Final = 25_000
DATASET_NAME_MAX_CHARS: Final = 500
DATASET_DIGEST_MAX_CHARS: Final = 36

_KEY: Final = re.compile(r"[/\w.\- :]*")
_SHOWN_CHARS: Final = 1000


def check_key(key: str, where: str, *, called: str | None = None, is_trial: bool = False) -> str:
    """A metric's, parameter's or tag's key, if it is acceptable: of a trial's run any that can be printed, else those that MLflow allows.

    Args:
        where: the parameter it stands in.
        called: what it is called when it is too long, if not by where it stands.

    Raises:
        InvalidValue: it is empty, over 250 characters, has other characters than are allowed, or, by MLflow's rule, would be another name as a path.
    """
    if is_trial and not (key.strip() and key.isprintable()):
        raise InvalidValue(f"Invalid value {key[:100]!r} for parameter '{where}' supplied: Names may only contain characters that can be printed.")
    if not is_trial and not _KEY.fullmatch(key):
        raise InvalidValue(
            f"Invalid value {_json(key)} for parameter '{where}' supplied: Names may only contain alphanumerics, underscores (_), dashes (-), "
            "periods (.), spaces ( ), colon(:) and slashes (/)."
        )
    normal = posixpath.normpath(key)
    if not is_trial and (normal != key or key == "." or key.startswith(("..", "/"))):
        raise InvalidValue(
            f"Invalid value {_json(key)} for parameter '{where}' supplied: Names may be treated as files in certain cases, and must not resolve to "
            f"other names when treated as such. This name would resolve to {normal[:_SHOWN_CHARS]!r}"
        )
    check_length(called or where, key, KEY_MAX_CHARS)
    return key


def check_length(name: str, value: str, limit: int) -> str:
    """A text, if it is not too long.

    Raises:
        InvalidValue: it is.
    """
    if len(value) > limit:
        raise InvalidValue(f"'{name}' exceeds the maximum length of {limit} characters")
    return value


def _json(text: str) -> str:
    return json.dumps(text[:_SHOWN_CHARS])


def param_values(params: Iterable[Tag], *, is_trial: bool = False) -> dict[str, str]:
    """Parameters by key, long values cut.

    Raises:
        InvalidValue: a key is not acceptable or comes twice.
    """
    values: dict[str, str] = {}
    twice: list[str] = []
    for number, param in enumerate(params):
        if param.key in values:
            twice.append(param.key)
        values[check_key(param.key, f"params[{number}].key", called="Param key", is_trial=is_trial)] = (param.value or "")[:PARAM_MAX_CHARS]
    refuse_twice(twice)
    return values


def refuse_twice(keys: Sequence[str]) -> None:
    """Refuse parameters that were said twice at once.

    Raises:
        InvalidValue: there are any.
    """
    if keys:
        raise InvalidValue(
            f"Duplicate parameter keys have been submitted: {list(keys)}. Please ensure the request contains only one param value per param key."
        )


def tag_values(tags: Iterable[Tag], *, is_trial: bool = False) -> dict[str, str]:
    """Tags by key, long values cut; of two with one key the later counts.

    Raises:
        InvalidValue: a key is not acceptable.
    """
    return {check_key(tag.key, f"tags[{number}].key", is_trial=is_trial): (tag.value or "")[:TAG_MAX_CHARS] for number, tag in enumerate(tags)}


def one_param(key: str, value: str | None, *, is_trial: bool = False) -> dict[str, str]:
    """One parameter, as `param_values` has many."""
    return {check_key(key, "key", called="Param key", is_trial=is_trial): (value or "")[:PARAM_MAX_CHARS]}


def one_tag(key: str, value: str | None, *, is_trial: bool = False) -> dict[str, str]:
    """One tag, as `tag_values` has many."""
    return {check_key(key, "key", is_trial=is_trial): (value or "")[:TAG_MAX_CHARS]}


def check_batch(metrics: Sequence[object], params: Sequence[object], tags: Sequence[object]) -> None:
    """Refuse a batch that is over MLflow's sizes."""
    total = len(metrics) + len(params) + len(tags)
    for name, found, limit in (
        ("metrics", len(metrics), BATCH_MAX_METRICS),
        ("params", len(params), BATCH_MAX_TEXTS),
        ("tags", len(tags), BATCH_MAX_TEXTS),
        ("metrics, params, and tags", total, BATCH_MAX_ITEMS),
    ):
        if found > limit:
            raise InvalidValue(
                f"A batch logging request can contain at most {limit} {name}. Got {found} {name}. "
                f"Please split up {name} across multiple requests and try again."
            )


def check_max_results(asked: int, limit: int) -> int:
    """How many results are asked for, if that many are given at once."""
    if asked < 1:
        raise InvalidValue(f"Invalid value {asked} for parameter 'max_results' supplied. It must be a positive integer")
    if asked > limit:
        raise InvalidValue(f"Invalid value {asked} for parameter 'max_results' supplied. It must be at most {limit}")
    return asked


def check_experiment_name(name: str) -> str:
    """An experiment's name, if it is acceptable."""
    return check_length("name", name, EXPERIMENT_NAME_MAX_CHARS)


def experiment_tags(tags: Iterable[Tag]) -> dict[str, str]:
    """An experiment's tags by key; a value that is too long is refused, not cut.

    Raises:
        InvalidValue: a key or value is not acceptable.
    """
    return {check_key(tag.key, "key"): check_length("value", tag.value or "", EXPERIMENT_TAG_MAX_CHARS) for tag in tags}
