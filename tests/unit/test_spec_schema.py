"""The JSON Schema that editors get: made from the reader's tables, shipped as made, and never stricter than the reader."""

import re
from collections.abc import Iterator
from typing import Any

import pytest

from sweeps.errors import SpecProblems
from sweeps.spec import REFUSED, SECTIONS, SERVED, config_from_mapping, parse_sweep
from sweeps.spec_parameters import KEYS
from sweeps.spec_schema import FILE, make_schema, schema_text
from sweeps.spec_source import Source, read_yaml
from sweeps.spec_texts import KEY_TEXTS
from tests.support import generated_docs

SCHEMA = make_schema()
HEAD = "program: t.py\nmethod: random\n"
PARAMETERS = "parameters: {x: {min: 0, max: 1}}\n"
TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "number": (int, float),
    "integer": (int,),
    "boolean": (bool,),
    "null": (type(None),),
}


def is_valid(value: Any, schema: dict[str, Any]) -> bool:
    """What the schema's own keywords say of a value."""
    if "$ref" in schema:
        return is_valid(value, SCHEMA["definitions"][schema["$ref"].rpartition("/")[2]])
    is_one = any(is_valid(value, one) for one in schema["anyOf"]) if "anyOf" in schema else True
    if not is_one or not all(is_valid(value, one) for one in schema.get("allOf", ())):
        return False
    names = schema.get("type", list(TYPES))
    kinds = {kind for name in ([names] if isinstance(names, str) else names) for kind in TYPES[name]}
    if type(value) not in kinds or value not in schema.get("enum", [value]):
        return False
    if isinstance(value, dict):
        inner, rest = schema.get("properties", {}), schema.get("additionalProperties", {})
        if len(value) < schema.get("minProperties", 0) or any(key not in value for key in schema.get("required", ())):
            return False
        return all(is_valid(each, inner[key]) if key in inner else rest is not False and is_valid(each, rest) for key, each in value.items())
    if isinstance(value, list):
        return len(value) >= schema.get("minItems", 0) and all(is_valid(each, schema.get("items", {})) for each in value)
    if isinstance(value, (int, float)):
        return bool(schema.get("minimum", value) <= value <= schema.get("maximum", value) and value > schema.get("exclusiveMinimum", value - 1))
    return True


def values_of(text: str) -> Any:
    """A file's values, as the reader sees them."""
    item = read_yaml(text, Source("sweep.yaml"))
    assert item is not None
    return item.value


def test_schema_shipped_is_current() -> None:
    """What lies in the package is what the code says today."""
    assert FILE.read_text(encoding="utf-8") == schema_text(), "behind the code; run `python -m sweeps.spec_schema > sweeps/sweep.schema.json`"


def test_schema_has_the_keys_of_the_reader() -> None:
    """At the top, in each section, of each distribution."""
    assert SCHEMA["properties"].keys() == {*SERVED, "early_terminate"}
    assert not SCHEMA["properties"].keys() & (REFUSED.keys() - {"early_terminate"})
    assert {key: list(SCHEMA["properties"][key]["properties"]) for key in SECTIONS} == {key: keys.split() for key, keys in SECTIONS.items()}
    found = {one["title"]: tuple(key for key in one["properties"] if key != "distribution") for one in SCHEMA["definitions"]["parameter"]["anyOf"]}
    assert found == {**KEYS, "nested": ("parameters",)}


def described() -> Iterator[tuple[str, dict[str, Any]]]:
    """Every key's path and schema."""
    for key, top in SCHEMA["properties"].items():
        yield key, top
        yield from ((f"{key}.{inner}", schema) for inner, schema in top.get("properties", {}).items())
    for one in SCHEMA["definitions"]["parameter"]["anyOf"]:
        yield from ((f"{one['title']}.{key}", schema) for key, schema in one["properties"].items())


def test_schema_describes_every_key() -> None:
    """In at least a few words that end as a sentence does, and nothing is described that is no key."""
    bare = [path for path, schema in described() if not re.fullmatch(r"[A-Z`].{10,}\.", schema["description"])]
    assert bare == []
    distributions = [one["description"] for one in SCHEMA["definitions"]["parameter"]["anyOf"]]
    assert len(set(distributions)) == len(distributions)
    inner = {"distribution", "parameters", *(key for keys in KEYS.values() for key in keys)}
    assert {path for path, _ in described() if path.partition(".")[0] not in {*KEYS, "nested"}} | {f"parameters.*.{key}" for key in inner} == set(KEY_TEXTS)


def test_schema_examples_and_defaults_are_valid() -> None:
    """What an editor offers for a key is what the key takes."""
    for path, schema in described():
        for value in [*schema["examples"], *([schema["default"]] if "default" in schema else [])]:
            assert is_valid(value, schema), path


def test_schema_examples_are_taken_by_the_reader() -> None:
    """Each distribution's is drawn from as it stands; each section's and key's is no mistake by its kind."""
    for one in SCHEMA["definitions"]["parameter"]["anyOf"][:-1]:
        (parameter,) = config_from_mapping({"program": "t.py", "method": "random", "parameters": {"x": one["examples"][0]}}).parameters
        assert parameter.__struct_config__.tag == one["title"]
    alone = {"program": "t.py", "method": "random", "parameters": {"x": {"value": 1}}, "metric": {"name": "a"}}
    for key, schema in SCHEMA["properties"].items():
        # An entry point stands in place of the program, in a folder that is not looked at here.
        if key != "entry_point":
            assert config_from_mapping({**alone, key: schema["examples"][0]}, no_pruning=True).parameters, key


@pytest.mark.parametrize(
    "text",
    [
        *re.findall(r"```yaml\n(.*?)```", (generated_docs.ROOT / "docs" / "sweep-file.md").read_text(encoding="utf-8"), re.DOTALL),
        HEAD + PARAMETERS + "compat: wandb\ncontroller: {type: cloud}\nkind: sweep\napiVersion: v1\nentity: e\nrun_cap: 3\n",
        HEAD + PARAMETERS + "metric: {name: a, target: -1.5, impute: worst, impute_while_running: false}\nearly_terminate: {type: hyperband, min_iter: 3}\n",
        HEAD + "parameters: {x: {distribution: normal, sigma: 0}, y: {values: [1, null], probabilities: [0.5, 0.5]}, z: {value: {a: 1}}}\n",
        HEAD + "parameters: {x: {distribution: beta, a: 2}, o: {parameters: {p: {parameters: {q: {min: 0.1, max: 1}}}}}}\n",
        HEAD + "parameters: {x: {distribution: q_log_uniform_values, min: 1, max: 8, q: 2}}\ncommand: [x, 5, '${args}']\n",
    ],
)
def test_schema_takes_what_the_reader_takes(text: str) -> None:
    """A file that is read without a word is not marked in an editor."""
    assert parse_sweep(text, "sweep.yaml", project_dir=None, no_pruning=True).parameters
    assert is_valid(values_of(text), SCHEMA)


@pytest.mark.parametrize(
    "text",
    [
        HEAD,
        HEAD + "parameters: {}\n",
        HEAD + "parameters: {x: 3}\n",
        HEAD + "parameters: {x: {mni: 0, max: 1}}\n",
        HEAD + "parameters: {x: {distribution: normal, min: 1}}\n",
        HEAD + "parameters: {x: {mu: 1}}\n",
        HEAD + "parameters: {x: {distribution: normal, sigma: -1}}\n",
        HEAD + "parameters: {x: {distribution: q_beta, q: 0}}\n",
        HEAD + "parameters: {x: {values: []}}\n",
        HEAD + "parameters: {o: {parameters: {x: {vale: 1}}}}\n",
        HEAD + PARAMETERS + "sede: 1\n",
        HEAD + PARAMETERS + "limits: {trails: 1}\n",
        HEAD + PARAMETERS + "limits: {parallel: 0}\n",
        HEAD + PARAMETERS + "metric: {goal: minimize}\n",
        HEAD + PARAMETERS + "priority: 101\n",
        HEAD + PARAMETERS + "retry: {max: 101}\n",
        "program: t.py\nmethod: byes\n" + PARAMETERS,
    ],
)
def test_schema_marks_what_the_reader_refuses(text: str) -> None:
    """Unknown keys, wrong types and numbers out of bounds show while one types."""
    with pytest.raises(SpecProblems):
        parse_sweep(text, "sweep.yaml", project_dir=None)
    assert not is_valid(values_of(text), SCHEMA)
