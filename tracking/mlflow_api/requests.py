"""A request that did not fit at first sight: read once more with patience, or refused in MLflow's words.

Nothing here is on the way of a request that fits.
"""

import json
import re
from collections.abc import Mapping
from typing import Any, Final, TypeVar

import msgspec

from tracking.errors import InvalidValue
from tracking.mlflow_api.wire import SEE_DOCS, RunRef, missing_value

_SHOWN_CHARS: Final = 1000
_LACKS: Final = re.compile(r"Object missing required field `(\w+)`(?: - at `\$(.*)`)?\Z")

Shape = TypeVar("Shape", bound=msgspec.Struct)


def read_again(shape: type[Shape], body: bytes | Mapping[str, object], error: Exception) -> Shape:
    """A request in a form that old clients send: encoded twice, or with null for what is not there.

    Raises:
        InvalidValue: it does not fit; the message names the parameter.
    """
    values = _values(body) if isinstance(body, bytes) else body
    if values is None:
        raise InvalidValue(f"The request is not acceptable: {error}")
    values = {name: value for name, value in values.items() if value is not None}
    try:
        return msgspec.convert(values, shape, strict=False)
    except msgspec.ValidationError as refusal:
        raise _explained(shape, values, refusal) from None


def _values(body: bytes) -> dict[str, object] | None:
    """What a body says: nothing, as with MLflow, if it is no JSON; None if it says something else than names and values.

    None also of what is JSON to many, but not to us: NaN, half a pair of surrogates, what is nested out of all proportion.
    """
    found: Any = body
    for _ in range(2):
        if not isinstance(found, bytes | str):
            break
        try:
            found = msgspec.json.decode(found or b"{}")
        except (msgspec.DecodeError, UnicodeDecodeError):
            return None if _is_json(found) else {}
        except RecursionError:
            return None
    return {} if found is None else found if isinstance(found, dict) else None


def _is_json(text: bytes | str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _explained(shape: type[msgspec.Struct], values: Mapping[str, object], error: msgspec.ValidationError) -> InvalidValue:
    for field in msgspec.structs.fields(shape):
        name = field.name
        if _is_required(shape, field) and values.get(name, "") == "" and not (name == "run_id" and values.get("run_uuid")):
            return missing_value(name)
        if name in values:
            try:
                msgspec.convert(values[name], field.type, strict=False)
            except msgspec.ValidationError as problem:
                return _invalid(name, values[name], problem)
    return InvalidValue(f"The request is not acceptable: {error}")


def _is_required(shape: type[msgspec.Struct], field: msgspec.structs.FieldInfo) -> bool:
    return field.required or (field.name == "run_id" and issubclass(shape, RunRef))


def _invalid(name: str, value: object, problem: msgspec.ValidationError) -> InvalidValue:
    lacks = _LACKS.match(str(problem))
    if lacks:
        return missing_value(f"{name}{lacks[2] or ''}.{lacks[1]}")
    if " - at `$" in str(problem):
        return InvalidValue(f"Invalid value for parameter '{name}' supplied: {problem}.{SEE_DOCS}")
    shown = json.dumps(value, sort_keys=True, separators=(",", ":"))[:_SHOWN_CHARS]
    return InvalidValue(f"Invalid value {shown} for parameter '{name}' supplied:  Hint: Value was of type '{type(value).__name__}'.{SEE_DOCS}")
