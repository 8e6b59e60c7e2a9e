"""Whatever a script logs or configures, as plain values: numbers, text, lists, mappings. Arrays and tensors are known by what they can do."""

import datetime as dt
import enum
import math
import re

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Iterator, Mapping, Optional

_NO_NAME = re.compile(r"[^/\w.\- :]")


def is_array(value: "Any") -> bool:
    """Whether this is an array or a tensor, of whatever library."""
    return hasattr(value, "shape") and hasattr(value, "dtype")


def array_of(value: "Any") -> "Any":
    """A numpy array of an array or tensor; its library has brought numpy along."""
    for step in ("detach", "cpu", "numpy"):
        if hasattr(value, step):
            value = getattr(value, step)()
    import numpy as np  # type: ignore[import-not-found,unused-ignore]

    return np.asarray(value)


def n_elements(value: "Any") -> int:
    """Of an array or tensor; 0 while a length is not known, as in graphs that are not run yet."""
    count = 1
    for length in value.shape:
        count *= 0 if length is None else int(length)
    return count


def plain(value: "Any") -> "Any":
    """A value that JSON can hold; what is of no known kind becomes its text."""
    if isinstance(value, enum.Enum):
        return value.name
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if hasattr(value, "keys") and hasattr(value, "__getitem__"):
        return {str(key): plain(value[key]) for key in value.keys()}  # noqa: SIM118  W&B's own mappings have keys() only
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(one) for one in value]
    if is_array(value):
        elements = _only_element(value) if n_elements(value) == 1 else array_of(value).tolist()
        return _text(value) if elements is value else plain(elements)
    if hasattr(value, "__dataclass_fields__") and not isinstance(value, type):
        return {name: plain(getattr(value, name)) for name in value.__dataclass_fields__}
    return _text(value)


def _text(value: "Any") -> str:
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, dt.date):
        return value.isoformat()
    return f"{value.__module__}.{value.__qualname__}" if callable(value) and hasattr(value, "__qualname__") else str(value)


def json_safe(value: "Any") -> "Any":
    """A plain value without the numbers that JSON has no word for."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, dict):
        return {key: json_safe(one) for key, one in value.items()}
    return [json_safe(one) for one in value] if isinstance(value, list) else value


def leaves(values: "Mapping[str, Any]", above: "tuple[str, ...]" = ()) -> "Iterator[tuple[tuple[str, ...], Any]]":
    """The leaves of nested mappings, each with the names that lead there. An empty mapping is a leaf."""
    for key, value in values.items():
        if isinstance(value, dict) and value:
            yield from leaves(value, (*above, str(key)))
        else:
            yield (*above, str(key)), value


def flat(values: "Mapping[str, Any]") -> "dict[str, Any]":
    """The leaves of nested mappings, their names joined by dots."""
    return {".".join(path): value for path, value in leaves(values)}


def number_of(value: "Any") -> "Optional[float]":
    """What a metric would have of this value, or None: booleans count, arrays of one element too; text that reads like a number does not."""
    try:
        if is_array(value):
            value = _only_element(value) if n_elements(value) == 1 else None
        return None if value is None or isinstance(value, (str, bytes)) else float(value)
    except OverflowError:  # as JSON's readers take it
        return math.inf if value > 0 else -math.inf
    except Exception:  # noqa: BLE001  a value's own error must not end training; it is kept as text
        return None


def is_number(value: "Any") -> bool:
    """Whether a metric can have this value."""
    return number_of(value) is not None


def _only_element(value: "Any") -> "Any":
    return value.item() if hasattr(value, "item") else array_of(value).item()


def as_path(name: str) -> str:
    """A name as part of an artifact's path."""
    parts = [part for part in _NO_NAME.sub("_", name).split("/") if part not in ("", ".", "..")]
    return "/".join(parts)[:200] or "_"


class Items:
    """What `wandb.config` and `wandb.summary` share: names and values, looked through like a mapping."""

    _items: "dict[str, Any]"

    def keys(self) -> "list[str]":
        """The names."""
        return list(self._items)

    def __iter__(self) -> "Iterator[str]":
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)

    def __repr__(self) -> str:
        return str(self._items)
