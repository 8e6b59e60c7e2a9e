"""docs/sweep-file-reference.md: every key of the sweep file, from the JSON Schema that editors go by."""

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

import yaml

from sweeps.spec import LAUNCH_KEYS, REFUSED, REFUSED_INNER, SECTIONS
from sweeps.spec_schema import FILE
from tests.support.markdown import Row, listed, table

OURS: Final = frozenset("code entry_point limits resources queue priority collect env strategy register retry tags compat metric.from".split())
"""Keys that W&B does not have; what a section of ours holds is ours too."""
WANDBS: Final = frozenset(
    "name description project program command method metric parameters run_cap entity controller scheduler apiVersion kind early_terminate".split()
)
"""The others at the top of a file."""
_HEAD: Final = ("key", "whose", "takes", "default", "example", "meaning")
_SCALAR: Final = ["string", "number", "boolean"]


def render_file_reference() -> str:
    """The page."""
    schema = json.loads(FILE.read_text(encoding="utf-8"))
    keys: Mapping[str, Any] = schema["properties"]
    parts = [
        "# The sweep file, key by key\n",
        (
            "Generated from `sweeps/sweep.schema.json` by `make docs`. [The sweep file](sweep-file.md) explains it, with an example of the whole."
            " Keys are W&B's or ours; those of W&B mean what they mean there, but for what [that page](sweep-file.md#parameters) lists."
            " A time is text such as `90s` or `1h30m`, or a number of seconds; a size is `512m` or `4g`, or a number of bytes.\n"
        ),
        f"Required: {listed(schema['required'], 'and')}.\n",
        table(_HEAD, [_row("", key, value) for key, value in keys.items()]),
    ]
    for name in (key for key in keys if key in SECTIONS):
        section = keys[name]
        required = f" Required in it: {listed(section['required'], 'and')}." if "required" in section else ""
        parts += [f"## {name}\n", section["description"] + required + "\n"]
        parts.append(table(_HEAD, [_row(f"{name}.", key, value) for key, value in section["properties"].items()]))
    parts += [*_parameters(schema["definitions"]["parameter"]["anyOf"]), *_refused()]
    return "\n".join(parts)


def _parameters(kinds: list[dict[str, Any]]) -> Iterator[str]:
    yield "## parameters\n"
    yield "Of one parameter. All of these are W&B's.\n"
    keys = {key: value for kind in kinds for key, value in kind["properties"].items() if key != "distribution"}
    names = [kind["title"] for kind in kinds if kind["title"] != "nested"]
    told = {"distribution": {**kinds[0]["properties"]["distribution"], "enum": ["a name of the next table"], "examples": [names[-1]]}, **keys}
    yield table((_HEAD[0], *_HEAD[2:]), [(row := _row("parameters.*.", key, value))[:1] + row[2:] for key, value in told.items()])
    yield "### Distributions\n"
    yield "Names in brackets have a default; where a distribution's name may be left out, its keys tell it.\n"
    yield table(("distribution", "keys", "name may be left out", "yields"), [_distribution(kind) for kind in kinds if kind["title"] != "nested"])


def _distribution(kind: Mapping[str, Any]) -> Row:
    keys = [f"`{key}`" if key in kind["required"] else f"[`{key}`]" for key in kind["properties"] if key != "distribution"]
    return f"`{kind['title']}`", ", ".join(keys), "" if "distribution" in kind["required"] else "yes", kind["description"]


def _refused() -> Iterator[str]:
    yield "## Refused by name\n"
    yield (
        "Keys that are known and not served: a file that has one is refused, and the message says so."
        f" {listed(LAUNCH_KEYS, 'and')} make a file one for W&B Launch, which only W&B can run.\n"
    )
    rows = [(f"`{key}`", hint) for key, hint in REFUSED.items()]
    rows += [(f"`{section}.{key}`", hint) for section, keys in REFUSED_INNER.items() for key, hint in keys.items()]
    yield table(("key", "instead"), rows)


def _row(prefix: str, key: str, schema: Mapping[str, Any]) -> Row:
    path = prefix + key
    default = f"`{_yaml(schema['default'])}`" if "default" in schema else ""
    (example,) = schema["examples"]
    whose = "ours" if path in OURS or path.partition(".")[0] in OURS else "W&B"
    return f"`{key}`", whose, _takes(key, schema), default, f"`{key}: {_yaml(example)}`", schema["description"]


def _takes(key: str, schema: Mapping[str, Any]) -> str:
    """What a key's value may be, in words."""
    if "enum" in schema:
        words = list(dict.fromkeys(_yaml(value).strip("'") for value in schema["enum"]))
        return listed(words) if len(words) > 1 or " " not in words[0] else words[0]
    if "allOf" in schema or "$ref" in schema:
        return "[parameters](#parameters)"
    kind = schema.get("type", "")
    if kind == "object":
        return f"[a section](#{key})" if "properties" in schema else "names and texts"
    if kind == "array":
        inner = {"number": " of numbers", "string": " of texts"}.get(str(schema.get("items", {}).get("type")), "")
        return f"a list{inner}" + (", not empty" if schema.get("minItems") else "")
    if kind in ("integer", "number"):
        return ("a whole number" if kind == "integer" else "a number") + _bounds(schema)
    return {"": "anything", "boolean": "true or false", "string": "text"}.get(str(kind)) or _union(key, kind)


def _union(key: str, kinds: list[str]) -> str:
    if kinds == _SCALAR:
        return "text"
    if kinds == ["string", "number"]:
        return "a size" if key == "memory" else "a time"
    words = {"boolean": "true, false", "string": "text", "number": "a number", "integer": "a whole number", "array": "a list", "object": "a mapping"}
    *others, last = [words[each] for each in kinds]
    return f"{', '.join(others)} or {last}"


def _bounds(schema: Mapping[str, Any]) -> str:
    if "exclusiveMinimum" in schema:
        return f" above {schema['exclusiveMinimum']}"
    least, most = schema.get("minimum"), schema.get("maximum")
    return "" if least is None else f" from {least}" + ("" if most is None else f" to {most}")


def _yaml(value: Any) -> str:
    """A value as a person would write it in the file, on one line."""
    text = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=10_000, allow_unicode=True)
    # YAML 1.1 takes a bare `on` for true; the sweep file's reader takes it for the key.
    return text.removesuffix("\n").removesuffix("\n...").replace("'on':", "on:")
