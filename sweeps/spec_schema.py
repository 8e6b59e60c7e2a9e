"""The JSON Schema of the sweep file, for editors; made from the same tables that the file's reader goes by.

Every key has a description, an example and, where there is one, its default (`sweeps.spec_texts`). It is looser than the reader in what
only the reader can see (order of bounds, files, durations), and stricter in one thing: a key that is there has a value.
`sweep.schema.json` beside this module is what `python -m sweeps.spec_schema` prints.
"""

import json
import sys
from pathlib import Path
from typing import Any, Final

from sweeps.bounds import GPUS_MAX, PRIORITY_MAX, RETRIES_MAX
from sweeps.spec import COMPATS, IGNORED, METHODS, SECTIONS, SERVED, STRATEGIES
from sweeps.spec_parameters import DEFAULTS, DISTRIBUTIONS, KEYS
from sweeps.spec_texts import DISTRIBUTION_EXAMPLES, DISTRIBUTION_TEXTS, KEY_TEXTS

FILE: Final = Path(__file__).with_name("sweep.schema.json")

_ANY: Final[dict[str, Any]] = {}
_NUMBER: Final = {"type": "number"}
_SCALAR: Final = {"type": ["string", "number", "boolean"]}
_TEXTS: Final = {"type": "object", "additionalProperties": {"type": ["string", "number", "boolean", "null"]}}
_COUNT: Final = {"type": "integer", "minimum": 1}
_ABOVE_ZERO: Final = {"type": "number", "exclusiveMinimum": 0}
_SPAN: Final = {"type": ["string", "number"]}

_PARAMETER_KEYS: Final[dict[str, dict[str, Any]]] = {
    "value": _ANY,
    "values": {"type": "array", "minItems": 1},
    "probabilities": {"type": "array", "minItems": 1, "items": {"type": "number", "minimum": 0}},
    "sigma": {"type": "number", "minimum": 0},
    "q": _ABOVE_ZERO,
}
_SECTION_KEYS: Final[dict[str, dict[str, Any]]] = {
    "metric.goal": {"enum": ["minimize", "maximize"]},
    "metric.from": {"enum": ["last", "best"]},
    "metric.target": _NUMBER,
    "metric.impute": {"enum": ["worst", "latest", "best"]},
    "metric.impute_while_running": {"enum": ["false", False, "worst"]},
    "strategy.name": {"enum": list(STRATEGIES)},
    "strategy.seed": {"type": "integer", "minimum": 0},
    "limits.trials": _COUNT,
    "limits.parallel": _COUNT,
    "limits.failures": _COUNT,
    "limits.time": _SPAN,
    "limits.trial_time": _SPAN,
    "resources.cpus": _ABOVE_ZERO,
    "resources.gpus": {"type": "integer", "minimum": 0, "maximum": GPUS_MAX},
    "resources.memory": {"type": ["string", "number"]},
    "collect.stdout": {"type": ["boolean", "string", "object"], "additionalProperties": {"type": "string"}},
    "collect.keys": {"type": "array"},
    "retry.max": {"type": "integer", "minimum": 0, "maximum": RETRIES_MAX},
    "retry.on": {"type": "array", "minItems": 1, "items": {"type": "string"}},
    "retry.delay": _SPAN,
    "retry.delay_max": _SPAN,
    "scheduler.engine": {"enum": ["wandb"]},
    "controller.type": {"enum": ["local", "cloud"]},
    "early_terminate.type": {"enum": ["hyperband"]},
    "early_terminate.min_iter": _COUNT,
    "early_terminate.max_iter": _COUNT,
    "early_terminate.s": _ABOVE_ZERO,
    "early_terminate.eta": {"type": "number", "exclusiveMinimum": 1},
    "early_terminate.strict": {"type": "boolean"},
}
_TOP_KEYS: Final[dict[str, dict[str, Any]]] = {
    "command": {"type": "array", "minItems": 1, "items": _SCALAR},
    "compat": {"enum": list(COMPATS)},
    "env": _TEXTS,
    "kind": {"enum": list(IGNORED["kind"])},
    "method": {"enum": list(METHODS)},
    "parameters": {"$ref": "#/definitions/parameters"},
    "priority": {"type": "integer", "minimum": 0, "maximum": PRIORITY_MAX},
    "run_cap": _COUNT,
    "tags": _TEXTS,
}
_REQUIRED: Final = {"metric": ["name"], "register": ["model"], "retry": ["max"], "controller": ["type"], "scheduler": ["engine"], "early_terminate": ["type"]}


def make_schema() -> dict[str, Any]:
    """The schema, as JSON types."""
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "Sweep file",
        "type": "object",
        "required": ["parameters"],
        "additionalProperties": False,
        "properties": {key: _top(key) for key in (*SERVED, "early_terminate")},
        "definitions": {
            "parameters": {"type": "object", "minProperties": 1, "additionalProperties": {"$ref": "#/definitions/parameter"}},
            "parameter": {"anyOf": [*(_distribution(name) for name in DISTRIBUTIONS), _nested()]},
        },
    }


def _top(key: str) -> dict[str, Any]:
    if key not in SECTIONS:
        return _told(key, _TOP_KEYS.get(key, _SCALAR))
    properties = {inner: _told(f"{key}.{inner}", _SECTION_KEYS.get(f"{key}.{inner}", _SCALAR)) for inner in SECTIONS[key].split()}
    section = {"type": "object", "additionalProperties": False, "properties": properties}
    return _told(key, {**section, "required": _REQUIRED[key]} if key in _REQUIRED else section)


def _told(path: str, schema: dict[str, Any]) -> dict[str, Any]:
    """A key's schema with what it means."""
    key = KEY_TEXTS[path]
    # Beside a reference, other words of the schema are not read.
    whole = {"allOf": [schema]} if "$ref" in schema else schema
    default = {} if key.default is None else {"default": key.default}
    return {"description": key.text, **whole, **default, "examples": [key.example]}


def _distribution(name: str) -> dict[str, Any]:
    example = DISTRIBUTION_EXAMPLES[name]
    properties = {key: _told(f"parameters.*.{key}", _PARAMETER_KEYS.get(key, _NUMBER)) | {"examples": [example[key]]} for key in KEYS[name]}
    for key in properties.keys() & DEFAULTS.keys():
        properties[key]["default"] = DEFAULTS[key]
    required = [key for key in KEYS[name] if key not in DEFAULTS]
    # What is inferred needs no name.
    is_inferred = name in {"constant", "categorical", "categorical_w_probabilities", "uniform", "int_uniform"}
    return {
        "title": name,
        "description": DISTRIBUTION_TEXTS[name],
        "type": "object",
        "additionalProperties": False,
        "required": required if is_inferred else ["distribution", *required],
        "properties": {"distribution": _told("parameters.*.distribution", {"enum": [name]}) | {"examples": [name]}, **properties},
        "examples": [{"distribution": name, **example}],
    }


def _nested() -> dict[str, Any]:
    properties = {"parameters": _told("parameters.*.parameters", {"$ref": "#/definitions/parameters"})}
    return {
        "title": "nested",
        "description": "Parameters within a parameter.",
        "type": "object",
        "additionalProperties": False,
        "required": ["parameters"],
        "properties": properties,
    }


def schema_text() -> str:
    """The schema as it is shipped."""
    return json.dumps(make_schema(), indent=1) + "\n"


if __name__ == "__main__":
    sys.stdout.write(schema_text())
