"""What the server takes of a sweep: canonical configs that a client has tampered with are refused by name, and nothing slips through."""

import json
import math
import random
import re
from collections.abc import Iterator
from typing import Any, Final

import msgspec
import pytest

from sweeps.api.routing import parse_body
from sweeps.api.shapes import SubmitBody
from sweeps.api.sweeps import checked
from sweeps.command import build_argv
from sweeps.spec import config_from_mapping
from sweeps.spec_config import SweepConfig
from tracking.errors import InvalidValue, SweepError
from tracking.records import NewSweep

CONFIG: Final[dict[str, Any]] = json.loads(
    msgspec.json.encode(
        config_from_mapping(
            {
                "name": "n",
                "program": "train.py",
                "method": "bayes",
                "metric": {"name": "loss", "from": "best", "target": 0.1},
                "parameters": {
                    "lr": {"distribution": "log_uniform_values", "min": 1e-5, "max": 0.1},
                    "depth": {"min": 1, "max": 8},
                    "drop": {"min": 0.0, "max": 0.5},
                    "q": {"distribution": "q_uniform", "min": 0, "max": 1, "q": 0.1},
                    "opt": {"values": ["sgd", "adam"]},
                    "fixed": {"value": [1, {"a": "b"}]},
                    "weighed": {"values": ["a", 1], "probabilities": [0.5, 0.5]},
                    "bell": {"distribution": "q_log_normal", "mu": 1, "sigma": 2, "q": 0.5},
                    "shape": {"distribution": "q_beta", "a": 2, "b": 3, "q": 0.1},
                    "power": {"distribution": "q_log_uniform", "min": 0, "max": 3},
                    "inverse": {"distribution": "inv_log_uniform_values", "min": 0.1, "max": 3},
                    "sgd": {"parameters": {"nu": {"distribution": "normal"}, "deep": {"parameters": {"x": {"value": 1}}}}},
                },
                "limits": {"trials": 4, "parallel": 2, "time": 60, "trial_time": 30, "failures": 3},
                "resources": {"cpus": 2, "memory": "1g", "gpus": 1},
                "queue": "gpu",
                "priority": 7,
                "env": {"A": "b"},
                "collect": {"stdout": r"(?P<key>\w+)=(?P<value>\S+)", "keys": ["loss"]},
                "strategy": {"seed": 3},
                "register": {"model": "m", "alias": "best"},
                "retry": {"max": 2, "on": ["lost", "exit_75", "signal"], "delay": 5, "delay_max": 50},
                "tags": {"team": "x"},
            }
        ).to_builtins()
    )
)
TEMPLATE: Final[dict[str, Any]] = {
    **CONFIG,
    "command": {"kind": "template", "words": [["python"], ["--lr=", "lr", ""]], "defaults": {"seed": 1}, "declared": ["lr", "seed"]},
    "environment": {"kind": "python_env", "path": "env.yaml"},
}
DEEP: Final = json.loads("[" * 300 + "]" * 300)
NASTY: Final[tuple[Any, ...]] = (
    -4,
    -1,
    0,
    0.001,
    1e300,
    2**31,
    2**63,
    10**40,
    2.5,
    True,
    None,
    "",
    " ",
    "x\0y",
    "../../etc/x.yaml",
    "/etc/x",
    "a\nb",
    "x" * 300_000,
    [],
    {},
    DEEP,
)


def body(config: Any) -> bytes:
    """A submission as it comes over the wire."""
    return json.dumps({"config": config, "source": "", "code_digest": None, "submission_id": "s", "user_name": "kim"}).encode()


def taken(config: Any) -> NewSweep:
    """What the server makes of it."""
    return checked(parse_body(body(config), SubmitBody))


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place in a tree."""
    if path:
        yield path
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, each in inner:
        yield from places(each, (*path, key))


def mutated(config: dict[str, Any], path: tuple[Any, ...], value: Any) -> dict[str, Any]:
    """A copy with one value replaced."""
    copy: dict[str, Any] = json.loads(json.dumps(config))
    inner: Any = copy
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    return copy


def assert_within_bounds(new: NewSweep) -> None:
    """Written anew, not by the code under test: what a taken sweep may hold, and that its commands can be built."""
    config = SweepConfig.from_builtins(new.config)
    launch, limits, resources = new.launch, config.limits, new.launch.resources
    assert all(0 < len(text.strip()) <= 250 and text.isprintable() for text in (new.name, new.experiment, new.queue))
    assert 0 <= new.priority <= 100
    assert all(number is None or 1 <= number < 2**31 for number in (limits.trials, limits.parallel, limits.failures, new.parallel))
    assert all(seconds is None or 0 < seconds < 1e9 for seconds in (limits.time_s, limits.trial_time_s))
    assert new.retry == config.retry
    assert 0 <= config.retry.n_max <= 100
    assert all(re.fullmatch(r"[a-z_]+|(exit|signal)_[0-9]{1,3}", word) for word in config.retry.on)
    assert 0 < config.retry.delay_s <= config.retry.delay_max_s < 1e9
    assert 0.01 <= resources.cpus < 1e6
    assert 0 <= resources.gpus < 1e6
    assert resources.memory_bytes is None or (6 * 2**20 if resources.image else 1) <= resources.memory_bytes < 2**60
    path = launch.environment.path or "x"
    assert not path.startswith("/")
    assert ".." not in path.split("/")
    assert launch.subfolder == "."
    assert all(name.isidentifier() and name.isascii() and not name.startswith("SWEEP_") for name in launch.env)
    assert all("\0" not in text and len(text) <= 100_000 for text in launch.env.values())
    assert "\\u0000" not in msgspec.json.encode(new).decode()
    rng = random.Random(0)  # noqa: S311 - no secret
    params = config.space.draw(rng) if config.method != "grid" else config.space.cell(0)
    argv = build_argv(config, params)
    assert argv[0].strip()
    assert all(len(word.encode()) < 128 * 1024 for word in argv)
    assert all(math.isfinite(value) for value in params.values() if isinstance(value, float))


@pytest.mark.parametrize("config", [CONFIG, TEMPLATE], ids=["macros", "template"])
def test_submission_with_any_one_value_changed_is_refused_or_within_bounds(config: dict[str, Any]) -> None:
    """Every place of a canonical config takes every nasty value: no bug, no server fault, nothing out of bounds that gets in."""
    n_taken, refusals = 0, list[int]()
    for path in places(config):
        for value in NASTY:
            try:
                new = taken(mutated(config, path, value))
            except SweepError as error:
                refusals.append(error.http_status)
            else:
                assert_within_bounds(new)
                n_taken += 1
    assert set(refusals) == {400}
    assert len(refusals) > 500
    assert n_taken > 50


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"resources": {"cpus": -4.0}}, "'resources.cpus' is at least 0.01, not -4"),
        ({"resources": {"gpus": -1}}, "'resources.gpus' is at least 0, not -1"),
        ({"resources": {"memory_bytes": 0}}, "'resources.memory' is at least 1 bytes, not 0"),
        ({"limits": {"parallel": 0}}, "'limits.parallel' is at least 1, not 0"),
        ({"limits": {"trial_time_s": 0.0}}, "'limits.trial_time'"),
        ({"priority": 101}, "'priority' is at most 100, not 101"),
        ({"env": {"A=B": "x"}}, "'A=B' in 'env' is no name"),
        ({"env": {"SWEEP_RUN_TOKEN": "x"}}, "'SWEEP_RUN_TOKEN' in 'env' is reserved"),
        ({"environment": {"kind": "python_env", "path": "../../../etc/x.yaml"}}, "'environment.path' must lie within"),
        ({"environment": {"kind": "docker"}}, "'environment.kind' is 'docker' exactly where"),
        ({"command": {"kind": "template", "words": [["python"], ["", "nobody", ""]]}}, "'command' names 'nobody'"),
        ({"command": {"kind": "macros", "words": ["${nothing}"]}}, "'command' has the unknown macro 'nothing'"),
        ({"command": {"kind": "macros", "words": ["${program}"]}}, "there is no program"),
        ({"retry": {"max": 101}}, "'retry.max' is at most 100, not 101"),
        ({"retry": {"max": 1, "on": ["completed"]}}, "'retry.on' can't be 'completed'"),
        ({"retry": {"max": 1, "on": ["exit_0"]}}, "'retry.on' can't be 'exit_0'"),
        ({"retry": {"max": 1, "delay_s": 0.0}}, "'retry.delay' is a time above zero"),
        ({"retry": {"max": 1, "delay_s": 5.0, "delay_max_s": 4.0}}, "'retry.delay_max' is at least 'retry.delay'"),
        ({"metric": None}, "'metric' is missing, and 'bayes' needs one"),
        ({"parameters": [{"distribution": "uniform", "name": "x", "min": 2.0, "max": 1.0}]}, "'max' of parameter 'x' is below its 'min'"),
        ({"parameters": [{"distribution": "constant", "name": "x", "value": 1}] * 2}, "'parameters' names a parameter twice"),
        ({"parameters": [{"distribution": "constant", "name": "x", "value": DEEP}]}, "'parameters' is nested over 64 levels"),
        ({"parameters": [{"distribution": "constant", "name": "x", "value": "y" * 200_000}]}, "parameter 'x' has a value of over 100000 bytes"),
        ({"parameters": [{"distribution": "constant", "name": n, "value": "y" * 99_000} for n in "abcdefghijklmnopqrstu"]}, "'command' is too long"),
        ({"method": "grid", "limits": {}, "parameters": [{"distribution": "int_uniform", "name": n, "min": 1, "max": 2**40} for n in "ab"]}, "make a grid of"),
    ],
)
def test_submission_out_of_bounds_is_refused_by_name(changes: dict[str, Any], told: str) -> None:
    """The server names the field, whatever the client let through."""
    with pytest.raises(InvalidValue) as caught:
        taken({**CONFIG, **changes})
    assert told in caught.value.message


@pytest.mark.parametrize("field", ["source", "submission_id", "user_name"])
@pytest.mark.parametrize("text", ["x\0y", "x" * 2_000_000])
def test_submission_fields_beside_the_config_are_bounded(field: str, text: str) -> None:
    """Nothing that comes with a submission is stored unlooked at."""
    asked = parse_body(body(CONFIG), SubmitBody)
    asked[field] = text  # type: ignore[literal-required]
    with pytest.raises(InvalidValue, match=f"'{field}'"):
        checked(asked)


def test_body_that_is_nested_without_end_is_refused() -> None:
    """The decoder's own limit is the client's fault, not the server's."""
    with pytest.raises(InvalidValue, match="not acceptable"):
        parse_body(b"[" * 100_000, SubmitBody)


def test_canonical_config_is_taken_as_it_is() -> None:
    """The bounds change nothing of what the sweep file's reader accepted."""
    for config in (CONFIG, TEMPLATE):
        assert json.loads(json.dumps(taken(config).config)) == config
