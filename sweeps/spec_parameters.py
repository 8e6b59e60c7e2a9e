"""`parameters:` of a sweep file: W&B's distributions, given or inferred, to the classes of `sweeps.space`."""

import math
from collections.abc import Callable, Mapping
from typing import Any, Final

from sweeps.space import MAX_EXACT, Categorical, Constant, IntUniform, LogUniformValues, Parameter, QUniform, Uniform
from sweeps.spec_source import NOWHERE, Item, Place, Source, did_you_mean, kind_of

KEYS: Final[Mapping[str, tuple[str, ...]]] = {
    "constant": ("value",),
    "categorical": ("values",),
    "uniform": ("min", "max"),
    "int_uniform": ("min", "max"),
    "log_uniform_values": ("min", "max"),
    "q_uniform": ("min", "max", "q"),
}
"""The distributions that are served, and the keys that each takes; `q` alone may be left out."""

REFUSED_DISTRIBUTIONS: Final[Mapping[str, str]] = {
    "categorical_w_probabilities": "use 'values' alone",
    "log_uniform": "its bounds are exponents; use 'log_uniform_values' with the values themselves",
    "q_log_uniform": "use 'log_uniform_values'",
    "q_log_uniform_values": "use 'log_uniform_values'",
    "inv_log_uniform": "use 'log_uniform_values'",
    "inv_log_uniform_values": "use 'log_uniform_values'",
    "normal": "use 'uniform'",
    "q_normal": "use 'q_uniform'",
    "log_normal": "use 'log_uniform_values'",
    "q_log_normal": "use 'log_uniform_values'",
    "beta": "use 'uniform'",
    "q_beta": "use 'q_uniform'",
}
REFUSED_KEYS: Final[Mapping[str, str]] = {
    "probabilities": "use 'values' alone",
    "mu": "",
    "sigma": "",
    "a": "",
    "b": "",
    "parameters": "give nested parameters flat names, such as 'optimizer.lr'",
    "when": "",
    "zip": "",
}

_VALUE_KEYS: Final = ("value", "values", "min", "max", "q")
_KNOWN: Final = ("distribution", *_VALUE_KEYS)

# What the same distributions are called elsewhere.
_ALIASES: Final = {
    "loguniform": "log_uniform_values",
    "log": "log_uniform_values",
    "log_float": "log_uniform_values",
    "quniform": "q_uniform",
    "choice": "categorical",
    "int": "int_uniform",
    "integer": "int_uniform",
    "randint": "int_uniform",
    "float": "uniform",
    "double": "uniform",
}


def read_parameters(source: Source, item: Item) -> tuple[Parameter, ...]:
    """All parameters that can be read; what is wrong with the others is noted."""
    if item.entries is None:
        source.add(item, f"'parameters' is a mapping of names to distributions, not {kind_of(item.value)}")
        return ()
    found = (_Parameter(source, name, inner, item.keys.get(name, NOWHERE)).read() for name, inner in item.entries.items())
    return tuple(parameter for parameter in found if parameter is not None)


class _Refused(Exception):
    """A parameter that can't be read: where, why, what instead."""

    def __init__(self, where: Item | Place, message: str, suggestion: str = "") -> None:
        super().__init__(message)
        self.where = where
        self.message = message
        self.suggestion = suggestion


class _Parameter:
    """Reads one parameter."""

    def __init__(self, source: Source, name: str, item: Item, key: Place) -> None:
        self._source = source
        self._name = name
        self._item = item
        self._key = key
        self._entries = item.entries or {}

    def read(self) -> Parameter | None:
        n_before = len(self._source.problems)
        parameter = None
        try:
            parameter = self._parameter()
        except _Refused as refused:
            path = refused.where.path if isinstance(refused.where, Item) else self._item.path
            self._source.add(refused.where, refused.message, suggestion=refused.suggestion, path=path)
        return parameter if len(self._source.problems) == n_before else None

    def _parameter(self) -> Parameter | None:
        if not self._name.strip():
            raise _Refused(self._key, "a parameter has an empty name")
        if self._item.entries is None:
            raise _Refused(self._item if self._item.value is not None else self._key, f"parameter '{self._name}' is a mapping", self._as_mapping())
        self._check_keys()
        if self._entries and not self._entries.keys() & set(_KNOWN):
            return None
        kind = self._distribution() if "distribution" in self._entries else self._inferred()
        return _MAKERS[kind](self) if self._has_all(kind) else None

    def _as_mapping(self) -> str:
        if self._item.elements is not None:
            return "write {values: [...]}"
        return f"write {{value: {self._item.text}}}" if self._item.text else "write {value: ...}, {values: [...]} or {min: ..., max: ...}"

    def _check_keys(self) -> None:
        for key, inner in self._entries.items():
            where = self._item.keys.get(key, NOWHERE)
            if key in REFUSED_KEYS:
                message = f"'{key}' of parameter '{self._name}' is not served by this version"
                self._source.add(where, message, suggestion=REFUSED_KEYS[key], path=inner.path)
            elif key not in _KNOWN:
                suggestion = did_you_mean(key, (*_KNOWN, *REFUSED_KEYS))
                self._source.add(where, f"unknown key '{key}' in parameter '{self._name}'", suggestion=suggestion, path=inner.path)

    def _distribution(self) -> str:
        item = self._entries["distribution"]
        name = item.text or ""
        if name in REFUSED_DISTRIBUTIONS:
            raise _Refused(item, f"distribution '{name}' is not served by this version", REFUSED_DISTRIBUTIONS[name])
        if name not in KEYS:
            nearest = _ALIASES.get(name.lower().replace("-", "_"))
            suggestion = f"did you mean '{nearest}'?" if nearest else did_you_mean(name, (*KEYS, *REFUSED_DISTRIBUTIONS))
            where = item if item.text else self._item.keys.get("distribution", self._key)
            raise _Refused(where, f"unknown distribution '{name}'", suggestion or f"use one of {', '.join(KEYS)}")
        for key in _VALUE_KEYS:
            if key in self._entries and key not in KEYS[name]:
                self._refuse_key(key, f"distribution '{name}' does not take '{key}' (parameter '{self._name}')")
        return name

    def _inferred(self) -> str:
        """W&B's rule: whole bounds make int_uniform, any float makes uniform."""
        given = [key for key in self._entries if key in _VALUE_KEYS]
        if not given:
            raise _Refused(self._key, f"parameter '{self._name}' has no values", "give 'value', 'values', or 'min' and 'max'")
        kind = {"value": "constant", "values": "categorical"}.get(given[0], "uniform")
        for key in given:
            if key == "q":
                self._refuse_key(key, f"parameter '{self._name}' has 'q' but no distribution", "add 'distribution: q_uniform'")
            elif key not in KEYS[kind]:
                self._refuse_key(key, f"parameter '{self._name}' has both '{given[0]}' and '{key}'")
        are_whole = all(type(self._entries[key].value) is int for key in ("min", "max") if key in self._entries)
        return "int_uniform" if kind == "uniform" and are_whole else kind

    def _has_all(self, kind: str) -> bool:
        needed = [key for key in KEYS[kind] if key != "q"]
        missing = [key for key in needed if key not in self._entries or (key != "value" and self._entries[key].is_nothing)]
        if missing:
            has = [key for key in KEYS[kind] if key in self._entries and key not in missing]
            but = f" has {_list(has)} but" if has else " has"
            self._source.add(self._key, f"parameter '{self._name}'{but} no {_list(missing)}", path=self._item.path)
        # What could not be read as YAML was told where it stands.
        return not missing and (kind == "constant" or all(self._entries[key].value is not None for key in needed))

    def constant(self) -> Parameter | None:
        item = self._entries["value"]
        return Constant(self._name, item.value) if self._is_plain(item) else None

    def categorical(self) -> Parameter | None:
        item = self._entries["values"]
        if item.elements is None:
            raise _Refused(item, f"'values' of parameter '{self._name}' is a list, not {kind_of(item.value)}", f"write [{item.text}]" if item.text else "")
        if not item.elements:
            raise _Refused(item, f"'values' of parameter '{self._name}' is empty")
        if not all([self._is_plain(element) for element in item.elements]):  # noqa: C419 -- a list: every bad value is noted
            return None
        return Categorical(self._name, tuple(element.value for element in item.elements))

    def uniform(self) -> Parameter | None:
        bounds = self._bounds()
        return Uniform(self._name, float(bounds[0]), float(bounds[1])) if bounds else None

    def int_uniform(self) -> Parameter | None:
        bounds = self._bounds()
        if bounds is None:
            return None
        for key, bound in zip(("min", "max"), bounds, strict=True):
            if bound != int(bound):
                raise _Refused(self._entries[key], f"'{key}' of parameter '{self._name}' is a whole number for int_uniform, not {bound}")
            if abs(bound) > MAX_EXACT:
                raise _Refused(self._entries[key], f"'{key}' of parameter '{self._name}' is beyond 2^53, where floats skip numbers")
        return IntUniform(self._name, int(bounds[0]), int(bounds[1]))

    def log_uniform_values(self) -> Parameter | None:
        bounds = self._bounds()
        if bounds is None:
            return None
        if bounds[0] <= 0:
            suggestion = "give the values themselves, not their exponents"
            raise _Refused(self._entries["min"], f"'min' of parameter '{self._name}' is above zero for log_uniform_values, not {bounds[0]}", suggestion)
        return LogUniformValues(self._name, float(bounds[0]), float(bounds[1]))

    def q_uniform(self) -> Parameter | None:
        bounds, item = self._bounds(), self._entries.get("q")
        q = self._number("q") if item is not None and item.value is not None else 1
        if bounds is None or q is None:
            return None
        if q <= 0 and item is not None:
            raise _Refused(item, f"'q' of parameter '{self._name}' is above zero, not {q}")
        if max(abs(bound) for bound in bounds) / q > MAX_EXACT:
            raise _Refused(item or self._key, f"'q' of parameter '{self._name}' is too small for its bounds")
        return QUniform(self._name, float(bounds[0]), float(bounds[1]), q)

    def _bounds(self) -> tuple[float, float] | None:
        low, high = self._number("min"), self._number("max")
        if low is None or high is None:
            return None
        if low > high:
            raise _Refused(self._entries["max"], f"'max' of parameter '{self._name}' is below its 'min'")
        return low, high

    def _number(self, key: str) -> int | float | None:
        item = self._entries[key]
        value = item.value
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            suggestion = "write it without quotes" if item.is_quoted and _is_numeric(item.text) else ""
            # Noted, not raised: both bounds may be wrong.
            self._source.add(item, f"'{key}' of parameter '{self._name}' is a number, not {item.text or kind_of(value)!r}", suggestion=suggestion)
            return None
        return value

    def _is_plain(self, item: Item) -> bool:
        """Whether a value can be recorded: JSON has no NaN and no infinities."""
        if item.elements is not None or item.entries is not None:
            return all([self._is_plain(inner) for inner in item.elements or (item.entries or {}).values()])  # noqa: C419 -- as above
        if isinstance(item.value, float) and not math.isfinite(item.value):
            self._source.add(item, f"{item.text} can't be a value of parameter '{self._name}'")
            return False
        if item.value is not None and not isinstance(item.value, (str, int, float, bool)):
            self._source.add(item, f"{kind_of(item.value)} can't be a value of parameter '{self._name}'")
            return False
        return True

    def _refuse_key(self, key: str, message: str, suggestion: str = "") -> None:
        self._source.add(self._item.keys.get(key, self._key), message, suggestion=suggestion, path=self._entries[key].path)


_MAKERS: Final[Mapping[str, Callable[[_Parameter], Parameter | None]]] = {
    "constant": _Parameter.constant,
    "categorical": _Parameter.categorical,
    "uniform": _Parameter.uniform,
    "int_uniform": _Parameter.int_uniform,
    "log_uniform_values": _Parameter.log_uniform_values,
    "q_uniform": _Parameter.q_uniform,
}


def value_place(item: Item, name: str) -> Item | Place:
    """Where the values of a parameter stand, for whoever finds fault with them later."""
    entries: Mapping[str, Any] = item.entries or {}
    inner = entries[name].entries or {}
    return next((inner[key] for key in ("values", "value", "min") if key in inner), item.keys.get(name, NOWHERE))


def _list(keys: list[str]) -> str:
    return " and ".join(f"'{key}'" for key in keys)


def _is_numeric(text: str | None) -> bool:
    try:
        float(text or "")
    except ValueError:
        return False
    return True
