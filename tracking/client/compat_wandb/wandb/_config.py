"""`wandb.config`: what the script sets, and the sweep's parameters, which win and stay."""

import json
import os

from ._plain import Items, plain
from .errors import ConfigError, Error, say

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable, Optional

DEFAULTS_FILE = "config-defaults.yaml"


class Config(Items):
    """Read and written by attribute or by item. Parameters of the sweep can't be changed: the attempt is told once and goes on."""

    _locked: "set[str]"
    _on_change: "Callable[[dict[str, Any]], None]"
    _allow: bool

    def __init__(self, on_change: "Callable[[dict[str, Any]], None]" = lambda _: None) -> None:
        for name, value in (("_items", {}), ("_locked", set()), ("_on_change", on_change), ("_allow", False)):
            object.__setattr__(self, name, value)

    def update(self, d: "Any", allow_val_change: "Optional[bool]" = None) -> None:
        """Set several values: a mapping, a namespace, a file's path."""
        self._set(parse_config(d), self._allow if allow_val_change is None else allow_val_change)

    def setdefaults(self, d: "Any") -> None:
        """Set those values that are not set yet."""
        self._set({key: value for key, value in parse_config(d).items() if key not in self._items}, is_change_allowed=True)

    def items(self) -> "list[tuple[str, Any]]":
        """Names and values."""
        return list(self._items.items())

    def values(self) -> "list[Any]":
        """The values."""
        return list(self._items.values())

    def get(self, key: str, default: "Any" = None) -> "Any":
        """A value, or the default."""
        try:
            return self[key]
        except KeyError:
            return default

    def as_dict(self) -> "dict[str, Any]":
        """A mapping of its own."""
        return dict(self._items)

    def persist(self) -> None:
        """Nothing to do: what is set is sent at once."""

    def __reduce__(self) -> "Any":
        """A copy, also one of another process, is plain data: it has the values, and tells the run nothing."""
        return _detached, (dict(self._items),)

    def _set(self, values: "dict[str, Any]", is_change_allowed: bool) -> None:
        taken = {}
        for name, given in values.items():
            key, value = str(name).strip("-"), plain(given)
            if self._is_locked(key):
                if value != self[key]:
                    say(f"'{key}' is a parameter of the sweep and stays {self[key]!r}; the script's {value!r} is ignored", "locked " + key)
                continue
            if not is_change_allowed and key in self._items and value != self._items[key]:
                raise ConfigError(
                    f'Attempted to change value of key "{key}" from {self._items[key]} to {value}\n'
                    "If you really want to do this, pass allow_val_change=True to config.update()"
                )
            taken[key] = value
        self._items.update(taken)
        self._on_change(taken)

    def _lock(self, params: "dict[str, Any]") -> None:
        """Merge the sweep's parameters over everything. `a.b` is `b` within `a`, as the sweep file has it; it is found as `a.b` too."""
        for name, value in params.items():
            *outer, last = name.split(".") if all(name.split(".")) else [name]
            nested: "Any" = {last: value}
            for part in reversed(outer):
                nested = {part: nested}
            self._items.update(_merged({key: self._items[key] for key in nested if key in self._items}, nested))
            self._locked.update(nested)

    def _is_locked(self, key: str) -> bool:
        return key in self._locked or (key.partition(".")[0] in self._locked and key in self)

    def __getitem__(self, key: str) -> "Any":
        if key in self._items or not isinstance(key, str):
            return self._items[key]
        found: "Any" = self._items
        for part in key.split("."):
            if not isinstance(found, dict) or part not in found:
                raise KeyError(key)
            found = found[part]
        return found

    def __setitem__(self, key: str, value: "Any") -> None:
        self._set({key: value}, self._allow)

    def __getattr__(self, key: str) -> "Any":
        try:
            return self[key]
        except KeyError:
            raise AttributeError(f"wandb.config has no '{key}': neither the sweep's parameters nor the script's own config name it") from None

    __setattr__ = __setitem__

    def __contains__(self, key: str) -> bool:
        try:
            self[key]
        except KeyError:
            return False
        return True


def _detached(items: "dict[str, Any]") -> Config:
    made = Config(_nothing)
    made._items.update(items)
    object.__setattr__(made, "_allow", True)
    return made


def _nothing(_values: "dict[str, Any]") -> None:
    """Nobody to tell."""


def parse_config(given: "Any", exclude: "Any" = None, include: "Any" = None) -> "dict[str, Any]":
    """A mapping of whatever W&B takes for a config.

    Raises:
        ConfigError: the file can't be read.
        TypeError: it is no config.
    """
    if exclude and include:
        raise Error("Expected at most only one of exclude or include")
    values = _to_dict(given)
    return {key: value for key, value in values.items() if (not include or key in include) and not (exclude and key in exclude)}


def read_file(path: str) -> "dict[str, Any]":
    """W&B's file of a config: each key with its `value`.

    Raises:
        ConfigError: it is not there, or is none.
    """
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read()
    except OSError as error:
        raise ConfigError(f"config file {path} can't be read: {error}") from error
    try:
        loaded = json.loads(text)
    except ValueError:
        loaded = _yaml(path, text)
    if not isinstance(loaded, dict):
        raise ConfigError(f"config file {path} is not a mapping of names")
    loaded.pop("wandb_version", None)
    return {key: entry["value"] if isinstance(entry, dict) and "value" in entry else entry for key, entry in loaded.items()}


def defaults() -> "dict[str, Any]":
    """Of the file that W&B reads by itself, if the working folder has it."""
    return read_file(DEFAULTS_FILE) if os.path.exists(DEFAULTS_FILE) else {}


def _yaml(path: str, text: str) -> "Any":
    try:
        import yaml
    except ImportError as error:
        raise ConfigError(f"config file {path} is YAML, and this Python has no PyYAML: install it, or write the file as JSON") from error
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"config file {path} is no YAML: {error}") from error


def _to_dict(given: "Any") -> "dict[str, Any]":
    if given is None:
        return {}
    if isinstance(given, (str, os.PathLike)):
        return read_file(os.fspath(given))
    if isinstance(given, Config):
        return given.as_dict()
    if hasattr(given, "keys") and hasattr(given, "__getitem__"):
        return {key: given[key] for key in given.keys()}  # noqa: SIM118  a mapping by duck's measure
    if hasattr(given, "FLAGS"):  # absl's module of flags
        given = given.FLAGS
    if hasattr(given, "flag_values_dict"):
        return dict(given.flag_values_dict())
    if hasattr(given, "__dict__"):
        return dict(vars(given))
    raise TypeError("config must be a dict or have a __dict__ attribute.")


def _merged(below: "dict[str, Any]", above: "dict[str, Any]") -> "dict[str, Any]":
    merged = dict(below)
    for key, value in above.items():
        known = merged.get(key)
        merged[key] = _merged(known, value) if isinstance(known, dict) and isinstance(value, dict) else value
    return merged
