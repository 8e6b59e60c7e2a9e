"""`parameters:` of a sweep file: W&B's distributions, given or inferred, plain or nested, to the classes of `sweeps.distributions`."""

import math
import typing
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from sweeps.distributions import Categorical, CategoricalWithProbabilities, Constant, IntUniform, Parameter
from sweeps.spec_source import NOWHERE, Item, Place, Source, did_you_mean, kind_of

DISTRIBUTIONS: Final[Mapping[str, Any]] = {str(kind.__struct_config__.tag): kind for kind in typing.get_args(Parameter)}
"""Every distribution's class, by W&B's name of it."""

KEYS: Final[Mapping[str, tuple[str, ...]]] = {name: kind.__struct_fields__[1:] for name, kind in DISTRIBUTIONS.items()}
"""The keys that each distribution takes: its class's own fields."""

DEFAULTS: Final[Mapping[str, float]] = {
    key: default
    for name, kind in DISTRIBUTIONS.items()
    for key, default in zip(KEYS[name][len(KEYS[name]) - len(kind.__struct_defaults__) :], kind.__struct_defaults__, strict=True)
}
"""The keys that may be left out, and W&B's defaults for them."""

REFUSED_KEYS: Final[Mapping[str, str]] = {
    "when": "leave it out: the script may pass over a parameter that it does not need",
    "zip": "give one parameter whose 'values' are mappings, as in [{depth: 18, width: 64}]",
}

_VALUE_KEYS: Final = tuple(dict.fromkeys(key for keys in KEYS.values() for key in keys))
_KNOWN: Final = ("distribution", *_VALUE_KEYS, "parameters")
_NEEDS_DISTRIBUTION: Final[Mapping[str, str]] = {"q": "q_uniform", "mu": "normal", "sigma": "normal", "a": "beta", "b": "beta"}
"""Keys that tell no distribution by themselves, and one that takes them."""

# What the same distributions are called elsewhere.
_ALIASES: Final = {
    "loguniform": "log_uniform_values",
    "lognormal": "log_normal",
    "gaussian": "normal",
    "qnormal": "q_normal",
    "qloguniform": "q_log_uniform_values",
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


class Read(NamedTuple):
    """What stands under `parameters`.

    Attributes:
        parameters: all that can be read; what is wrong with the others is noted.
        nested: of those that stand within others, the keys that lead there.
        keys: where each name stands.
        items: what each name stands for.
    """

    parameters: tuple[Parameter, ...]
    nested: dict[str, tuple[str, ...]]
    keys: dict[str, Place]
    items: dict[str, Item]

    def value_place(self, name: str) -> Item | Place:
        """Where the values of a parameter stand, for whoever finds fault with them later."""
        entries: Mapping[str, Item] = self.items[name].entries or {}
        return next((entries[key] for key in ("values", "value", "min") if key in entries), self.keys[name])


def read_parameters(source: Source, item: Item) -> Read:
    """All parameters, those that stand within others under a name with dots."""
    read = Read((), {}, {}, {})
    found = _read_group(source, item, (), read)
    return read._replace(parameters=tuple(found))


def _read_group(source: Source, item: Item, outer: tuple[str, ...], read: Read) -> list[Parameter]:
    if item.entries is None:
        what = f"'parameters' of parameter '{'.'.join(outer)}'" if outer else "'parameters'"
        source.add(item, f"{what} is a mapping of names to distributions, not {kind_of(item.value)}")
        return []
    found: list[Parameter] = []
    for key, inner in item.entries.items():
        path, where = (*outer, key), item.keys.get(key, NOWHERE)
        name = ".".join(path)
        if inner.entries is not None and "parameters" in inner.entries and key.strip():
            found += _read_nested(source, inner, path, where, read)
            continue
        if name in read.keys:
            source.add(where, f"parameter '{name}' stands twice (first on line {read.keys[name].line})", path=inner.path)
            continue
        read.keys[name], read.items[name] = where, inner
        if outer:
            read.nested[name] = path
        parameter = _Parameter(source, name, inner, where, is_unnamed=not key.strip()).read()
        found += [] if parameter is None else [parameter]
    return found


def _read_nested(source: Source, item: Item, path: tuple[str, ...], where: Place, read: Read) -> list[Parameter]:
    entries, name = item.entries or {}, ".".join(path)
    for key, inner in entries.items():
        if key != "parameters":
            source.add(item.keys.get(key, NOWHERE), f"parameter '{name}' has both 'parameters' and '{key}'", path=inner.path)
    group = entries["parameters"]
    if group.is_nothing or group.entries == {}:
        source.add(where if group.is_nothing else group, f"'parameters' of parameter '{name}' is empty", path=group.path)
        return []
    return _read_group(source, group, path, read)


class _Refused(Exception):
    """A parameter that can't be read: where, why, what instead."""

    def __init__(self, where: Item | Place, message: str, suggestion: str = "") -> None:
        super().__init__(message)
        self.where = where
        self.message = message
        self.suggestion = suggestion


class _Parameter:
    """Reads one parameter."""

    def __init__(self, source: Source, name: str, item: Item, key: Place, *, is_unnamed: bool = False) -> None:
        self._source = source
        self._name = name
        self._is_unnamed = is_unnamed
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
        if self._is_unnamed:
            raise _Refused(self._key, "a parameter has an empty name")
        if self._item.entries is None:
            raise _Refused(self._item if self._item.value is not None else self._key, f"parameter '{self._name}' is a mapping", self._as_mapping())
        self._check_keys()
        if self._entries and not self._entries.keys() & set(_KNOWN):
            return None
        kind = self._distribution() if "distribution" in self._entries else self._inferred()
        return self._make(kind) if self._has_all(kind) else None

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
        if name not in KEYS:
            nearest = _ALIASES.get(name.lower().replace("-", "_"))
            suggestion = f"did you mean '{nearest}'?" if nearest else did_you_mean(name, KEYS)
            where = item if item.text else self._item.keys.get("distribution", self._key)
            raise _Refused(where, f"unknown distribution '{name}'", suggestion or f"use one of {', '.join(KEYS)}")
        for key in _VALUE_KEYS:
            if key in self._entries and key not in KEYS[name]:
                self._refuse_key(key, f"distribution '{name}' does not take '{key}' (parameter '{self._name}')")
        return name

    def _inferred(self) -> str:
        """W&B's rule: whole bounds make int_uniform, any float makes uniform."""
        given = [key for key in self._entries if key in _VALUE_KEYS]
        kind = next((kind for key, kind in _INFERRED.items() if key in given), None)
        if kind is None and not any(key in _NEEDS_DISTRIBUTION for key in given):
            raise _Refused(self._key, f"parameter '{self._name}' has no values", "give 'value', 'values', or 'min' and 'max'")
        for key in given:
            if key in _NEEDS_DISTRIBUTION:
                self._refuse_key(key, f"parameter '{self._name}' has '{key}' but no distribution", f"add 'distribution: {_NEEDS_DISTRIBUTION[key]}'")
            elif kind is not None and key not in KEYS[kind]:
                self._refuse_key(key, f"parameter '{self._name}' has both '{next(one for one in given if one != key)}' and '{key}'")
        are_whole = all(type(self._entries[key].value) is int for key in ("min", "max") if key in self._entries)
        return "int_uniform" if kind == "uniform" and are_whole else kind or ""

    def _has_all(self, kind: str) -> bool:
        needed = [key for key in KEYS.get(kind, ()) if key not in DEFAULTS]
        missing = [key for key in needed if key not in self._entries or (key != "value" and self._entries[key].is_nothing)]
        if missing:
            has = [key for key in KEYS[kind] if key in self._entries and key not in missing]
            but = f" has {_list(has)} but" if has else " has"
            self._source.add(self._key, f"parameter '{self._name}'{but} no {_list(missing)}", path=self._item.path)
        # What could not be read as YAML was told where it stands.
        return bool(kind) and not missing and (kind == "constant" or all(self._entries[key].value is not None for key in needed))

    def _make(self, kind: str) -> Parameter | None:
        if kind == "constant":
            item = self._entries["value"]
            return Constant(self._name, item.value) if self._is_plain(item) else None
        if kind == "categorical":
            values = self._values()
            return Categorical(self._name, values) if values else None
        if kind == "categorical_w_probabilities":
            values, probabilities = self._values(), self._probabilities()
            return self._checked(CategoricalWithProbabilities(self._name, values, probabilities)) if values and probabilities else None
        return self._numeric(kind)

    def _values(self) -> tuple[Any, ...]:
        """The values, or nothing with the reason noted."""
        item = self._entries["values"]
        if item.elements is None:
            raise _Refused(item, f"'values' of parameter '{self._name}' is a list, not {kind_of(item.value)}", f"write [{item.text}]" if item.text else "")
        if not item.elements:
            raise _Refused(item, f"'values' of parameter '{self._name}' is empty")
        if not all([self._is_plain(element) for element in item.elements]):  # noqa: C419 -- a list: every bad value is noted
            return ()
        return tuple(element.value for element in item.elements)

    def _probabilities(self) -> tuple[float, ...]:
        item = self._entries["probabilities"]
        if not item.elements:
            raise _Refused(item, f"'probabilities' of parameter '{self._name}' is a list of numbers, one for each value")
        found = [self._number_of(element, f"a probability of parameter '{self._name}'") for element in item.elements]
        return tuple(float(number) for number in found if number is not None) if None not in found else ()

    def _numeric(self, kind: str) -> Parameter | None:
        """A distribution that numbers describe."""
        given = [key for key in KEYS[kind] if key not in DEFAULTS or (key in self._entries and not self._entries[key].is_nothing)]
        numbers = {key: self._number(key) for key in given}
        if None in numbers.values():
            return None
        made = DISTRIBUTIONS[kind]
        if made is IntUniform:
            for key, number in numbers.items():
                if number != int(number or 0):
                    raise _Refused(self._entries[key], f"'{key}' of parameter '{self._name}' is a whole number for int_uniform, not {number}")
            return self._checked(IntUniform(self._name, **{key: int(number or 0) for key, number in numbers.items()}))
        # A whole 'q' gives whole numbers; everything else is a float, however it is written.
        return self._checked(made(self._name, **{key: number if key == "q" else float(number or 0) for key, number in numbers.items()}))

    def _checked(self, parameter: Parameter) -> Parameter:
        flaw = parameter.flaw()
        if flaw is None:
            return parameter
        where = self._entries.get(flaw.key)
        raise _Refused(where if where is not None else self._key, f"'{flaw.key}' of parameter '{self._name}' {flaw.what}")

    def _number(self, key: str) -> int | float | None:
        return self._number_of(self._entries[key], f"'{key}' of parameter '{self._name}'")

    def _number_of(self, item: Item, what: str) -> int | float | None:
        value = item.value
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            suggestion = "write it without quotes" if item.is_quoted and _is_numeric(item.text) else ""
            # Noted, not raised: several may be wrong.
            self._source.add(item, f"{what} is a number, not {item.text or kind_of(value)!r}", suggestion=suggestion)
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


_INFERRED: Final[Mapping[str, str]] = {
    "value": "constant",
    "probabilities": "categorical_w_probabilities",
    "values": "categorical",
    "min": "uniform",
    "max": "uniform",
}
"""What a key alone tells; the first that is given."""


def _list(keys: list[str]) -> str:
    return " and ".join(f"'{key}'" for key in keys)


def _is_numeric(text: str | None) -> bool:
    try:
        float(text or "")
    except ValueError:
        return False
    return True
