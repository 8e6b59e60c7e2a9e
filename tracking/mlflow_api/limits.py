"""MLflow's limits on names, values and batches. Long values are cut, as MLflow does; everything else is refused by name.

A trial's own names are bound less, for scripts that were written for other records (`metrics/mAP50(B)`).
"""

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

_KEY: Final = re.compile(r"[/\w.\- :]+")


def check_key(key: str, where: str, *, is_trial: bool = False) -> str:
    """A metric's, parameter's or tag's key, if it is acceptable: of a trial's run any that can be printed, else those that MLflow allows.

    Raises:
        InvalidValue: it is empty, over 250 characters, has other characters than are allowed, or, by MLflow's rule, would be another name as a path.
    """
    if is_trial and not (key.strip() and key.isprintable()):
        raise InvalidValue(f"Invalid value {key[:100]!r} for parameter '{where}' supplied: Names may only contain characters that can be printed.")
    if not is_trial and not _KEY.fullmatch(key):
        raise InvalidValue(
            f"Invalid value {key[:100]!r} for parameter '{where}' supplied: Names may only contain alphanumerics, underscores (_), dashes (-), "
            "periods (.), spaces ( ), colon(:) and slashes (/)."
        )
    if len(key) > KEY_MAX_CHARS:
        raise InvalidValue(f"'{where}' exceeds the maximum length of {KEY_MAX_CHARS} characters: it has {len(key)}.")
    if is_trial:
        return key
    normal = posixpath.normpath(key)
    if normal != key or key == "." or key.startswith(("..", "/")):
        raise InvalidValue(
            f"Invalid value {key!r} for parameter '{where}' supplied: Names may be treated as files in certain cases, and must not resolve to "
            f"other names when treated as such. This name would resolve to {normal!r}."
        )
    return key


def param_values(params: Iterable[Tag], where: str = "params", *, is_trial: bool = False) -> dict[str, str]:
    """Parameters by key, long values cut.

    Raises:
        InvalidValue: a key is not acceptable or comes twice.
    """
    values: dict[str, str] = {}
    for number, param in enumerate(params):
        if param.key in values:
            raise InvalidValue(
                f"Duplicate parameter keys have been submitted: {param.key!r}. Please ensure the request contains only one param value per param key."
            )
        values[check_key(param.key, f"{where}[{number}].key", is_trial=is_trial)] = (param.value or "")[:PARAM_MAX_CHARS]
    return values


def tag_values(tags: Iterable[Tag], where: str = "tags", *, is_trial: bool = False) -> dict[str, str]:
    """Tags by key, long values cut; of two with one key the later counts.

    Raises:
        InvalidValue: a key is not acceptable.
    """
    return {check_key(tag.key, f"{where}[{number}].key", is_trial=is_trial): (tag.value or "")[:TAG_MAX_CHARS] for number, tag in enumerate(tags)}


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
    if not 1 <= asked <= limit:
        raise InvalidValue(f"Invalid value {asked} for parameter 'max_results' supplied: It must be between 1 and {limit}.")
    return asked


def check_experiment_name(name: str) -> str:
    """An experiment's name, if it is acceptable."""
    if not name.strip():
        raise InvalidValue(f"Invalid experiment name: {name!r}")
    if len(name) > EXPERIMENT_NAME_MAX_CHARS:
        raise InvalidValue(f"'name' exceeds the maximum length of {EXPERIMENT_NAME_MAX_CHARS} characters: it has {len(name)}.")
    return name
