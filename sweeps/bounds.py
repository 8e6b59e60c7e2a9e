"""What a sweep may ask for at most: one list of bounds, told with their places for a sweep file, and applied again by the server, which trusts no client.

The reader of the sweep file has its own words for what people get wrong every day; here stands everything that must not reach the record.
"""

import json
import math
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from pathlib import PurePosixPath
from typing import Any, Final

from msgspec import Struct

from sweeps.command import ENTRY_POINT, EntryCommands, argv_bytes, why_unbuildable
from sweeps.distributions import Categorical, CategoricalWithProbabilities, Constant, Parameter, listed_values
from sweeps.space import why_no_grid
from sweeps.spec_config import Limits, Metric, Register, SweepConfig
from tracking.records import Collect, Environment, Resources, Retry
from tracking.states import MACHINERY_CAUSES, Cause

NAME_MAX: Final = 250
"""Characters of a name; MLflow's bound for a key."""
QUEUE_MAX: Final = 100
DESCRIPTION_MAX: Final = 8000
TAG_MAX: Final = 8000
PATH_MAX: Final = 1000
PATTERN_MAX: Final = 1000
RETRIES_MAX: Final = 100
ITEMS_MAX: Final = 1000
"""Parameters, tags, variables, metric keys, words of a command: so many of each."""
NUMBER_MAX: Final = 2**31 - 1
SEED_MAX: Final = 2**63 - 1
PRIORITY_MAX: Final = 100
TIME_MAX_S: Final = 10 * 366 * 86400
CPUS_MIN: Final = 0.01
CPUS_MAX: Final = 65536
GPUS_MAX: Final = 65536
MEMORY_MAX: Final = 2**53
IMAGE_MEMORY_MIN: Final = 6 * 2**20
"""Docker starts no container below either of these."""
WORD_MAX_BYTES: Final = 100_000
"""The kernel takes 128 KiB for one argument or variable, and refuses to start the program beyond."""
ARGV_MAX_BYTES: Final = 500_000
ENV_MAX_BYTES: Final = 500_000
DEPTH_MAX: Final = 64

_ENV_NAME: Final = r"[A-Za-z_][A-Za-z0-9_]*"
_RESERVED_PREFIXES: Final = ("SWEEP_", "MLFLOW_TRACKING_")
_RESERVED: Final = frozenset({"MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID", "WANDB_SWEEP_ID", "WANDB_RUN_ID", "WANDB_SWEEP_PARAM_PATH"})
RETRY_ENDS: Final = (
    *(Cause.EXIT_STATUS, Cause.SIGNAL, Cause.OUT_OF_MEMORY, Cause.TIMED_OUT, Cause.ENVIRONMENT, Cause.IMAGE, Cause.CODE),
    *sorted(MACHINERY_CAUSES),
)
"""What `retry.on` may name. The machinery's faults are tried again in any case, on a budget of their own."""
_NUMBERED_END: Final = r"(exit|signal)_([0-9]{1,3})"
_NUMBERED_MAX: Final = {"exit": 255, "signal": 64}
_ALIAS: Final = r"[\w\-]{1,255}"


class Fault(Struct, frozen=True):
    """One value that is out of bounds.

    Attributes:
        path: its keys, as the sweep file has them.
        message: what is wrong; it names the key.
        at_key: the key itself is at fault, not its value.
    """

    path: tuple[str, ...]
    message: str
    at_key: bool = False


def faults(config: SweepConfig) -> Iterator[Fault]:
    """Everything in a config that is out of bounds; nothing else needs to be looked at when there is none."""
    unstorable = list(_unstorable(config))
    yield from unstorable
    if unstorable:
        # What follows takes texts and numbers for what they seem.
        return
    yield from _texts(config)
    yield from _numbers(config)
    yield from _resources(config.resources)
    yield from _environment(config.environment, config.resources)
    yield from _variables(config.env)
    yield from _collect(config.collect, config.metric)
    yield from _register(config.register)
    yield from _retry(config.retry)
    yield from _tags(config.tags)
    yield from _search(config)
    yield from _command(config)


def text_fault(text: str, maximum: int) -> str:
    """What is wrong with a text that is stored, or nothing."""
    if len(text) > maximum:
        return f"is over {maximum} characters"
    return "" if _is_storable(text) else "holds a NUL character or half of a surrogate pair"


def _fault(path: str, what: str) -> Iterator[Fault]:
    """A fault, if `what` is one."""
    if what:
        yield Fault(tuple(path.split(".")), f"'{path}' {what}")


def _is_storable(text: str) -> bool:
    # Postgres and argument vectors can't hold NUL, UTF-8 can't hold lone surrogates.
    return "\0" not in text and (text.isascii() or not re.search("[\ud800-\udfff]", text))


def _unstorable(config: SweepConfig) -> Iterator[Fault]:
    """Texts, numbers and nestings that JSON in the record can't hold, wherever they stand."""
    for key, value in config.to_builtins().items():
        pending: list[tuple[Any, int]] = [(value, 0)]
        found: set[str] = set()
        while pending:
            inner, depth = pending.pop()
            found.add(_why_unstorable(inner, depth))
            if isinstance(inner, dict):
                pending += [(each, depth + 1) for pair in inner.items() for each in pair]
            elif isinstance(inner, (list, tuple)):
                pending += [(each, depth + 1) for each in inner]
        for what in sorted(found - {""}):
            yield from _fault(_FILE_KEYS.get(key, key), what)


_FILE_KEYS: Final = {"experiment": "project", "seed": "strategy"}


def _why_unstorable(value: Any, depth: int) -> str:
    if depth > DEPTH_MAX:
        return f"is nested over {DEPTH_MAX} levels"
    if isinstance(value, str) and not _is_storable(value):
        return "holds a NUL character or half of a surrogate pair"
    if isinstance(value, float) and not math.isfinite(value):
        return "holds a number that is not finite"
    if isinstance(value, int) and abs(value) > SEED_MAX:
        return "holds a number beyond 64 bits"
    return ""


def _texts(config: SweepConfig) -> Iterator[Fault]:
    named = [("name", config.name, NAME_MAX), ("project", config.experiment, NAME_MAX), ("queue", config.queue, QUEUE_MAX)]
    if config.metric is not None:
        named.append(("metric.name", config.metric.name, NAME_MAX))
    for path, text, maximum in named:
        yield from _fault(path, _why_no_name(text, maximum))
    yield from _fault("name", "begins with '@', which is kept for references such as @latest" if config.name.startswith("@") else "")
    yield from _fault("description", text_fault(config.description, DESCRIPTION_MAX))
    yield from _fault("code", text_fault(config.code, PATH_MAX))


def _why_no_name(text: str, maximum: int = NAME_MAX) -> str:
    if not text.strip():
        return "is empty"
    if not text.isprintable():
        return "holds a control character"
    return text_fault(text, maximum)


def _numbers(config: SweepConfig) -> Iterator[Fault]:
    yield from _fault("priority", _why_outside(config.priority, 0, PRIORITY_MAX))
    yield from _fault("strategy.seed", _why_outside(config.seed, 0, SEED_MAX))
    yield from _limits(config.limits)


def _limits(limits: Limits) -> Iterator[Fault]:
    for key, number in (("trials", limits.trials), ("parallel", limits.parallel), ("failures", limits.failures)):
        yield from _fault(f"limits.{key}", _why_outside(number, 1, NUMBER_MAX))
    for key, seconds in (("time", limits.time_s), ("trial_time", limits.trial_time_s)):
        if seconds is not None and not 0 < seconds <= TIME_MAX_S:
            yield from _fault(f"limits.{key}", "is a time above zero and at most ten years")


def _why_outside(number: float | None, least: float, most: float, unit: str = "") -> str:
    """For a number that is not within its bounds: which bound, and what it is."""
    if number is None or least <= number <= most:
        return ""
    return f"is at least {least:g}{unit}, not {number}" if not number >= least else f"is at most {most}{unit}, not {number}"


def _resources(resources: Resources) -> Iterator[Fault]:
    yield from _fault("resources.cpus", _why_outside(resources.cpus, CPUS_MIN, CPUS_MAX))
    yield from _fault("resources.gpus", _why_outside(resources.gpus, 0, GPUS_MAX))
    memory, image = resources.memory_bytes, resources.image
    if image is not None and memory is not None and 0 < memory < IMAGE_MEMORY_MIN:
        yield from _fault("resources.memory", f"is at least 6m for a container, not {memory} bytes")
    else:
        yield from _fault("resources.memory", _why_outside(memory, 1, MEMORY_MAX, " bytes"))
    if image is not None and (not image or any(char.isspace() for char in image)):
        yield from _fault("resources.image", "is the name of an image, without spaces")
    elif image is not None:
        yield from _fault("resources.image", _why_no_name(image, PATH_MAX))


def _environment(environment: Environment, resources: Resources) -> Iterator[Fault]:
    if (environment.kind == "docker") != (resources.image is not None):
        yield from _fault("environment.kind", "is 'docker' exactly where 'resources.image' is given")
    if (environment.kind == "python_env") != (environment.path is not None):
        yield from _fault("environment.path", "belongs to a 'python_env', and to nothing else")
    elif environment.path is not None:
        yield from _fault("environment.path", _why_outside_project(environment.path))


def _retry(retry: Retry) -> Iterator[Fault]:
    yield from _fault("retry.max", _why_outside(retry.n_max, 0, RETRIES_MAX))
    for what in sorted({why_no_end(word) for word in retry.on} - {""}):
        yield from _fault("retry.on", what)
    if len(retry.on) > ITEMS_MAX:
        yield from _fault("retry.on", f"holds over {ITEMS_MAX} names")
    for key, seconds in (("delay", retry.delay_s), ("delay_max", retry.delay_max_s)):
        if not 0 < seconds <= TIME_MAX_S:
            yield from _fault(f"retry.{key}", "is a time above zero and at most ten years")
    if retry.delay_max_s < retry.delay_s:
        yield from _fault("retry.delay_max", "is at least 'retry.delay'")


def why_no_end(word: str) -> str:
    """What is wrong with a word of `retry.on`, or nothing."""
    numbered = re.fullmatch(_NUMBERED_END, word)
    if word in RETRY_ENDS or (numbered and 1 <= int(numbered[2]) <= _NUMBERED_MAX[numbered[1]]):
        return ""
    if word in set(Cause):
        return f"can't be '{word}': another attempt would end no better"
    return f"can't be {_shown(word)}"


def _why_outside_project(text: str) -> str:
    return why_outside(text, "the project folder")


def why_outside(text: str, where: str) -> str:
    """What is wrong with a path that must lie within a folder, or nothing."""
    path = PurePosixPath(text)
    if not text.strip() or path.is_absolute() or ".." in path.parts:
        return f"must lie within {where}"
    return text_fault(text, PATH_MAX)


def _variables(env: Mapping[str, str]) -> Iterator[Fault]:
    if sum(len(name) + len(value.encode()) + 2 for name, value in env.items()) > ENV_MAX_BYTES:
        yield from _fault("env", f"holds over {ENV_MAX_BYTES} bytes")
    for name, value in env.items():
        if what := _why_no_variable(name):
            yield Fault(("env", name), f"{_shown(name)} in 'env' {what}", at_key=True)
        elif len(value.encode()) > WORD_MAX_BYTES:
            yield Fault(("env", name), f"the value of {_shown(name)} in 'env' is over {WORD_MAX_BYTES} bytes")


def _why_no_variable(name: str) -> str:
    if not re.fullmatch(_ENV_NAME, name):
        return "is no name for a variable: letters, digits and '_', not beginning with a digit"
    if len(name) > NAME_MAX:
        return f"is over {NAME_MAX} characters"
    if name in _RESERVED or name.startswith(_RESERVED_PREFIXES):
        return "is reserved: the worker tells each trial its own"
    return ""


def _collect(collect: Collect, metric: Metric | None) -> Iterator[Fault]:
    n_keys = len(set(collect.keys)) or (1 if metric else 0)
    yield from _fault("collect.stdout", why_no_pattern(collect.pattern, n_keys) if collect.pattern is not None else "")
    yield from _all_named("collect.keys", collect.keys)
    yield from _all_named("collect.stdout", collect.patterns)
    for name, pattern in collect.patterns.items():
        if what := _why_no_value(pattern):
            yield Fault(("collect", "stdout", name), f"the pattern of {_shown(name)} in 'collect.stdout' {what}")


def why_no_pattern(pattern: str, n_keys: int) -> str:
    """What is wrong with the pattern that reads metrics of so many keys, or nothing; the rule is `worker.collect`'s."""
    compiled = _compiled(pattern)
    if isinstance(compiled, str):
        return compiled
    names = compiled.groupindex.keys() - {"step", "_step"}
    n_unnamed = compiled.groups - len(compiled.groupindex)
    has_key, has_value = bool(names & {"key", "_key"}), bool(names & {"value", "_val"})
    if (has_key and has_value) or (names and not has_key and not has_value) or (not names and n_unnamed > 1):
        return ""
    if not has_key and has_value + (0 if has_value else n_unnamed) == 1:
        return "" if n_keys == 1 else "has one group, which is the value of one metric: name that under 'keys', or use (?P<key>...) and (?P<value>...)"
    return "needs the groups (?P<key>...) and (?P<value>...)"


def _why_no_value(pattern: str) -> str:
    """What is wrong with a metric's own pattern, or nothing: one group is the value, and one more, named `step`, may be the step."""
    compiled = _compiled(pattern)
    if isinstance(compiled, str):
        return compiled
    steps = compiled.groupindex.keys() & {"step", "_step"}
    others = compiled.groupindex.keys() - steps - {"value", "_val"}
    return "" if compiled.groups - len(steps) == 1 and not others else "needs one group, the value; others begin with (?:"


def _compiled(pattern: str) -> re.Pattern[str] | str:
    """A pattern with Guild's words in place, or what is wrong with it."""
    if len(pattern) > PATTERN_MAX:
        return f"is over {PATTERN_MAX} characters"
    try:
        return re.compile(re.sub(r"\\(?:key|value|step)\b|\\.", lambda word: word[0] if len(word[0]) == 2 else r"\S+", pattern, flags=re.DOTALL))
    except (re.error, OverflowError, RecursionError) as error:
        return f"is no regular expression: {error}"


def _all_named(path: str, names: Collection[str]) -> Iterator[Fault]:
    """Faults of a list of names: one for each kind."""
    yield from _fault(path, f"holds over {ITEMS_MAX} names" if len(names) > ITEMS_MAX else "")
    for what in sorted({_why_no_name(name) for name in names} - {""}):
        yield from _fault(path, f"holds a name that {what}")


def _register(register: Register | None) -> Iterator[Fault]:
    if register is None:
        return
    yield from _fault("register.model", _why_no_name(register.model) or ("is a name without '/' and ':'" if set("/:") & set(register.model) else ""))
    yield from _fault("register.artifact", _why_outside_project(register.artifact))
    if register.alias is not None and not re.fullmatch(_ALIAS, register.alias):
        yield from _fault("register.alias", "is a name of letters, digits, '_' and '-'")


def _tags(tags: Mapping[str, str]) -> Iterator[Fault]:
    yield from _all_named("tags", tags)
    for name, value in tags.items():
        if len(value) > TAG_MAX:
            yield Fault(("tags", name), f"the value of {_shown(name)} in 'tags' is over {TAG_MAX} characters")


def _search(config: SweepConfig) -> Iterator[Fault]:
    if config.method == "bayes" and config.metric is None:
        yield from _fault("metric", "is missing, and 'bayes' needs one")
    if not config.parameters and config.method != "grid":
        yield from _fault("parameters", "is empty")
    names = [parameter.name for parameter in config.parameters]
    yield from _all_named("parameters", names)
    if len(set(names)) < len(names):
        yield from _fault("parameters", "names a parameter twice")
    broken = [fault for parameter in config.parameters for fault in _parameter(parameter)]
    yield from broken
    if not broken and config.method == "grid":
        yield from _grid(config)


def _parameter(parameter: Parameter) -> Iterator[Fault]:
    if flaw := parameter.flaw():
        yield Fault(("parameters", parameter.name), f"'{flaw.key}' of parameter {_shown(parameter.name)} {flaw.what}")


def _grid(config: SweepConfig) -> Iterator[Fault]:
    for parameter in config.parameters:
        if what := why_no_grid(parameter):
            yield Fault(("parameters", parameter.name), f"a grid can't walk parameter {_shown(parameter.name)}: {what}")
            return
    trials = config.trials_max
    if trials is not None and trials > NUMBER_MAX:
        yield from _fault("parameters", f"make a grid of {trials} cells; 'limits.trials' must end it before {NUMBER_MAX}")


def _command(config: SweepConfig) -> Iterator[Fault]:
    if what := why_unbuildable(config.command, [parameter.name for parameter in config.parameters]):
        yield from _fault("command", what)
        return
    command = config.command
    if isinstance(command, EntryCommands):
        (chooser,) = (parameter for parameter in config.parameters if parameter.name == ENTRY_POINT)
        if not (values := listed_values(chooser)) or not all(isinstance(value, str) and value in command.points for value in values):
            yield from _fault(f"parameters.{ENTRY_POINT}", "names what has no command")
    sizes = {parameter.name: _longest(parameter) for parameter in config.parameters}
    if huge := [name for name, size in sizes.items() if size > WORD_MAX_BYTES]:
        for name in huge:
            yield Fault(("parameters", name), f"parameter {_shown(name)} has a value of over {WORD_MAX_BYTES} bytes, more than a word of a command may have")
        return
    for one in command.points.values() if isinstance(command, EntryCommands) else [command]:
        words = argv_bytes(one, sizes)
        if len(words) > ITEMS_MAX or max(words) > WORD_MAX_BYTES or sum(words) > ARGV_MAX_BYTES:
            yield from _fault("command", f"is too long with the longest parameters: {WORD_MAX_BYTES} bytes a word, {ARGV_MAX_BYTES} in all")


def _longest(parameter: Parameter) -> int:
    """A bound of the bytes that a parameter's value takes in a command; JSON without its escapes is never longer."""
    return _json_bytes(listed_values(parameter)) if isinstance(parameter, (Constant, Categorical, CategoricalWithProbabilities)) else 32


def _json_bytes(values: Iterable[Any]) -> int:
    encode: Callable[[Any], str] = json.dumps
    return max((len(encode(value)) for value in values), default=0)


def _shown(name: str) -> str:
    """A name in a message; one that was made to be long is cut."""
    return f"'{name if len(name) <= NAME_MAX else f'{name[:40]}...'}'"
