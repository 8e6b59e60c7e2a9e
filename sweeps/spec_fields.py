"""Typed readers of one mapping of a sweep file. Each notes what is wrong and answers None, so that reading goes on."""

import math
import re
from collections.abc import Collection, Mapping
from typing import Final

from sweeps.spec_source import NOWHERE, Item, Place, Source, did_you_mean, kind_of

_DURATION: Final = r"^(?=[0-9])(?:(?P<d>[0-9.]+)d)?(?:(?P<h>[0-9.]+)h)?(?:(?P<m>[0-9.]+)m)?(?:(?P<s>[0-9.]+)s)?$"
_SECONDS: Final = {"d": 86400, "h": 3600, "m": 60, "s": 1}
_SIZE: Final = r"(?i)^([0-9]+(?:\.[0-9]+)?)\s*([kmgt]?)(?:i?b)?$"
_FACTOR: Final = {"": 1, "k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}


def parse_duration(text: str) -> float | None:
    """Seconds of `6h`, `90s`, `1h30m`, `1.5d` or a plain number; None if it is none of them."""
    text = text.strip().lower()
    try:
        match = re.match(_DURATION, text)
        seconds = sum(_SECONDS[unit] * float(n) for unit, n in match.groupdict().items() if n) if match else float(text)
    except ValueError:
        return None
    return seconds if math.isfinite(seconds) else None


def parse_size(text: str) -> int | None:
    """Bytes of `4g`, `512m`, `1.5GiB` (powers of 1024, as Docker counts) or a plain number; None if it is none of them."""
    match = re.match(_SIZE, text.strip())
    return int(float(match[1]) * _FACTOR[match[2].lower()]) if match else None


class Section:
    """One mapping: which keys it may have, and readers for their values.

    Args:
        source: where problems are noted.
        item: the mapping, or None where it is not given.
        title: its name in messages, empty for the whole file.
        served: the keys that are understood.
        refused: the keys that another version understands, each with what to do instead.
        word_key: the key that one word in the mapping's place is meant for, to say how that is written.
    """

    def __init__(self, source: Source, item: Item | None, title: str, served: Collection[str], refused: Mapping[str, str], word_key: str = "") -> None:
        self._source = source
        self._title = title
        self._item = item
        self.entries: dict[str, Item] = {}
        if item is None or item.value is None:
            return
        if item.entries is None:
            suggestion = f"write {{{word_key}: {item.text}}}" if word_key and item.text else ""
            source.add(item, f"{self._named('')} is a mapping, not {kind_of(item.value)}", suggestion=suggestion)
            return
        for key, inner in item.entries.items():
            if key in refused:
                source.add(item.keys.get(key, NOWHERE), f"{self._named(key)} is not served by this version", suggestion=refused[key], path=inner.path)
            elif key in served:
                self.entries[key] = inner
            else:
                known = [*served, *refused]
                source.add(item.keys.get(key, NOWHERE), f"unknown key {self._named(key)}", suggestion=did_you_mean(key, known), path=inner.path)

    def __contains__(self, key: str) -> bool:
        return key in self.entries and not self.entries[key].is_nothing

    def place(self, key: str) -> Place:
        """Where a key stands."""
        return self._item.keys.get(key, NOWHERE) if self._item is not None else Place()

    def add(self, key: str, message: str, *, suggestion: str = "") -> None:
        """Note a problem with the value of a key, or with the key if it has no value."""
        item = self.entries.get(key)
        # What has lines of its own below its key is shown by the key: the first of them is not to blame.
        is_block = item is not None and item.text is None and item.place.line != self.place(key).line
        where = item if item is not None and item.value is not None and not is_block else self.place(key)
        self._source.add(where, message, suggestion=suggestion, path=item.path if item else key)

    def text(self, key: str, *, may_be_empty: bool = False) -> str | None:
        """A text that is not empty, or one that is as good as not there. A number or a word such as `on` counts as written."""
        item = self._scalar(key)
        if item is None:
            return None
        text = (item.text or "").strip() if not item.is_quoted else (item.text or "")
        if not text.strip():
            if not may_be_empty:
                self.add(key, f"{self._named(key)} is empty")
            return None
        return text

    def choice(self, key: str, options: Collection[str], refused: Collection[str] = (), *, instead: str = "") -> str | None:
        """One of a few words; `refused` are those that another version understands, and `instead` what to do without them."""
        text = self.text(key)
        if text is None or text in options:
            return text
        if text in refused:
            self.add(key, f"{self._named(key)} {text!r} is not served by this version", suggestion=instead or f"use {_either(options)}")
        else:
            suggestion = did_you_mean(text, options) or f"use {_either(options)}"
            self.add(key, f"{self._named(key)} can't be {text!r}", suggestion=suggestion)
        return None

    def integer(self, key: str, *, minimum: int, maximum: int = 2**31 - 1) -> int | None:
        """A whole number within bounds."""
        item = self._scalar(key)
        if item is None:
            return None
        value = item.value
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int):
            self.add(key, f"{self._named(key)} is a whole number, not {item.text!r}", suggestion=_unquoted(item))
            return None
        if not minimum <= value <= maximum:
            bounds = f"at most {maximum}" if value > maximum else f"at least {minimum}"
            self.add(key, f"{self._named(key)} is {bounds}, not {value}")
            return None
        return value

    def number(self, key: str) -> float | None:
        """A number above zero."""
        item = self._scalar(key)
        if item is None:
            return None
        value = item.value
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < math.inf:
            self.add(key, f"{self._named(key)} is a number above zero, not {item.text!r}", suggestion=_unquoted(item))
            return None
        return float(value)

    def finite(self, key: str) -> float | None:
        """A number of any sign."""
        item = self._scalar(key)
        if item is None:
            return None
        value = item.value
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            self.add(key, f"{self._named(key)} is a number, not {item.text!r}", suggestion=_unquoted(item))
            return None
        return float(value)

    def boolean(self, key: str) -> bool | None:
        """True or false."""
        item = self._scalar(key)
        if item is None:
            return None
        if not isinstance(item.value, bool):
            self.add(key, f"{self._named(key)} is true or false, not {item.text!r}")
            return None
        return item.value

    def duration_s(self, key: str) -> float | None:
        """A time above zero, in seconds."""
        item = self._scalar(key)
        if item is None:
            return None
        # An unquoted 1:30 has already been read as 90, YAML 1.1's way of writing times.
        seconds = parse_duration(str(item.value)) if not isinstance(item.value, bool) else None
        if seconds is None or seconds <= 0:
            kind = "a time such as 6h, 90s or 1h30m" if seconds is None else "a time above zero"
            self.add(key, f"{self._named(key)} is {kind}, not {item.text!r}")
            return None
        return seconds

    def size_bytes(self, key: str) -> int | None:
        """A size above zero, in bytes."""
        item = self._scalar(key)
        if item is None:
            return None
        size = parse_size(str(item.value))
        if not size:
            self.add(key, f"{self._named(key)} is a size such as 4g or 512m, not {item.text!r}")
            return None
        return size

    def texts(self, key: str) -> tuple[str, ...]:
        """A list of texts."""
        item = self.entries.get(key)
        if item is None or item.value is None:
            return ()
        if item.elements is None or any(not isinstance(inner.value, str) or not inner.value for inner in item.elements):
            self.add(key, f"{self._named(key)} is a list of names")
            return ()
        return tuple(str(inner.value) for inner in item.elements)

    def text_mapping(self, key: str) -> dict[str, str]:
        """A mapping of names to texts; numbers and words such as `on` count as written."""
        item = self.entries.get(key)
        if item is None or item.value is None:
            return {}
        if item.entries is None:
            self.add(key, f"{self._named(key)} is a mapping of names to texts, not {kind_of(item.value)}")
            return {}
        found: dict[str, str] = {}
        for name, inner in item.entries.items():
            if inner.text is None:
                self._source.add(inner, f"the value of '{name}' in {self._named(key)} is text, not {kind_of(inner.value)}")
            else:
                found[name] = inner.text if inner.value is not None else ""
        return found

    def _scalar(self, key: str) -> Item | None:
        item = self.entries.get(key)
        if item is None or item.value is None:
            return None
        if item.text is None:
            self.add(key, f"{self._named(key)} is a single value, not {kind_of(item.value)}")
            return None
        return item

    def _named(self, key: str) -> str:
        return f"'{'.'.join(part for part in (self._title, key) if part)}'"


def _either(options: Collection[str]) -> str:
    *others, last = (f"'{option}'" for option in options)
    return f"{', '.join(others)} or {last}" if others else last


def _unquoted(item: Item) -> str:
    try:
        float(item.text or "")
    except ValueError:
        return ""
    return "write it without quotes" if item.is_quoted else ""
