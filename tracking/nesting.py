"""Parameters as a script gets them. The record has one name for each, `optimizer.lr`; a sweep file may have it nested."""

from collections.abc import Mapping, Sequence
from typing import Any


def nest(params: Mapping[str, Any], paths: Mapping[str, Sequence[str]]) -> Mapping[str, Any]:
    """The parameters with those nested again that stand within others.

    Args:
        params: by their names in the record.
        paths: of those that the file nests, the keys that lead to each. A name with dots that is not among them stays as it is.
    """
    if not paths:
        return params
    whole: dict[str, Any] = {}
    for name, value in params.items():
        *outer, last = paths.get(name, (name,))
        inner = whole
        for key in outer:
            inner = inner.setdefault(key, {})
        inner[last] = value
    return whole
