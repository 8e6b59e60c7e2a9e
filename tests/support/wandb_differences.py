"""Where a sweep file is judged otherwise than by W&B's own validator, and why: what the differential tests allow, and what the docs tell.

`make docs` writes the table into docs/coming-from-wandb.md. A difference that is not listed here fails a test, and so does one that is gone.
"""

import math
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

from sweeps.spec import SERVED
from tests.support.generated_docs import ROOT

PAGE: Final = ROOT / "docs" / "coming-from-wandb.md"
BEGIN: Final = "<!-- differences: begin -->\n"
END: Final = "<!-- differences: end -->\n"

WANDBS_KEYS: Final = frozenset(
    "apiVersion command controller description early_terminate entity image_uri job kind".split()
    + "method metric metrics name parameters program project run_cap scheduler".split()
)


class Violation(NamedTuple):
    """What W&B's validator says of a file: where (empty if it does not tell), the value there, the sentence."""

    path: list[str | int]
    value: Any
    message: str


class Refused(NamedTuple):
    """What W&B takes and we refuse.

    Attributes:
        what: is in the file.
        why: it is refused.
        messages: of ours, a pattern for what they begin with.
        examples: each refused for this alone.
    """

    what: str
    why: str
    messages: str
    examples: tuple[str, ...]


class Taken(NamedTuple):
    """What W&B refuses and we take.

    Attributes:
        what: is in the file.
        why: it is taken.
        is_behind: whether it explains what W&B says of a file.
        examples: each refused by W&B for this alone.
    """

    what: str
    why: str
    is_behind: Callable[[Violation, Mapping[str, Any]], bool]
    examples: tuple[str, ...]


def leaves(parameters: Any) -> Iterator[tuple[str, Any]]:
    """Every parameter with its own name, those within others included, and the groups themselves."""
    for name, config in parameters.items() if isinstance(parameters, dict) else ():
        yield str(name), config
        if isinstance(config, dict):
            yield from leaves(config.get("parameters"))


def _of_parameter(fits: Callable[[str, dict[str, Any]], bool]) -> Callable[[Violation, Mapping[str, Any]], bool]:
    """Whether what is said of a parameter can be laid to something in it, or in one within it."""

    def is_behind(violation: Violation, config: Mapping[str, Any]) -> bool:
        whole = config.get("parameters") or {}
        named = re.match(r"invalid hyperparameter configuration: (.*)", violation.message)
        name = violation.path[1] if len(violation.path) > 1 and violation.path[0] == "parameters" else named[1] if named else None
        return name in whole and any(fits(inner, leaf) for inner, leaf in leaves({name: whole[name]}) if isinstance(leaf, dict))

    return is_behind


def _is_number(text: Any) -> bool:
    try:
        return isinstance(text, str) and math.isfinite(float(text))
    except ValueError:
        return False


def _has_number_as_text(_name: str, leaf: dict[str, Any]) -> bool:
    return any(_is_number(value) for key, value in leaf.items() if key != "value") or any(map(_is_number, leaf.get("probabilities") or ()))


def _of_early_terminate(fits: Callable[[Any], bool]) -> Callable[[Violation, Mapping[str, Any]], bool]:
    """Whether what is said of the whole section can be laid to a value in it."""
    return lambda violation, _config: violation.path == ["early_terminate"] and isinstance(violation.value, dict) and any(map(fits, violation.value.values()))


def _any_of(*ways: Callable[[Violation, Mapping[str, Any]], bool]) -> Callable[[Violation, Mapping[str, Any]], bool]:
    return lambda violation, config: any(way(violation, config) for way in ways)


def _says(pattern: str) -> Callable[[Violation, Mapping[str, Any]], bool]:
    return lambda violation, _config: re.match(pattern, violation.message) is not None


def _extra_keys(violation: Violation, _config: Mapping[str, Any]) -> bool:
    unexpected = re.findall(r"'([^']*)'", violation.message) if violation.message.startswith("Additional properties are not allowed") else []
    where = violation.path[0] if violation.path else ""
    served = {"": set(SERVED) - WANDBS_KEYS, "metric": {"from"}}.get(str(where), set())
    return bool(unexpected) and set(unexpected) <= served


_HEAD: Final = "program: t.py\nmethod: random\n"
_PARAMETERS: Final = "parameters: {x: {values: [1, 2]}}\n"

REFUSED: Final = (
    Refused(
        "`method: custom`, `metrics`, a `scheduler` other than `engine: wandb`",
        "several objectives, and searches written by the user, are not served by this version",
        r"'(metrics|method|scheduler\.engine)' ('\w+' )?is not served",
        (
            f"program: t.py\nmethod: custom\nscheduler: {{engine: optuna}}\n{_PARAMETERS}",
            f"program: t.py\nmethod: custom\nmetrics: [{{name: a}}, {{name: b}}]\n{_PARAMETERS}",
        ),
    ),
    Refused(
        "`impute_while_running: latest` and `best`",
        "not served by this version: what a search proposes would hang on when it asks; it takes running trials for bad ones",
        r"'metric\.impute_while_running' '\w+' is not served",
        (f"{_HEAD}{_PARAMETERS}metric: {{name: m, impute_while_running: latest}}\n", f"{_HEAD}{_PARAMETERS}metric: {{name: m, impute_while_running: best}}\n"),
    ),
    Refused(
        "`job`, `image_uri`",
        "they name what only W&B Launch can run",
        "this is a file for W&B Launch",
        (f"{_HEAD}{_PARAMETERS}job: team/project/job:latest\n", f"{_HEAD}{_PARAMETERS}image_uri: img\n"),
    ),
    Refused(
        "neither `program` nor `command`",
        "W&B's agent would find nothing to start either",
        "nothing says what to run",
        (f"method: random\n{_PARAMETERS}",),
    ),
    Refused(
        "`method: bayes`, or `early_terminate`, without a `metric`",
        "W&B fails as soon as it asks for the metric",
        r"'metric' is missing, and 'bayes' needs one|'early_terminate' needs a 'metric'",
        (f"program: t.py\nmethod: bayes\n{_PARAMETERS}", f"{_HEAD}{_PARAMETERS}early_terminate: {{type: hyperband, min_iter: 3}}\n"),
    ),
    Refused(
        "`method: grid` over what is continuous, or has `probabilities`",
        "W&B fails at the first proposal",
        "a grid can't walk parameter",
        (
            "program: t.py\nmethod: grid\nparameters: {x: {min: 0.0, max: 1.0}}\n",
            "program: t.py\nmethod: grid\nparameters: {x: {values: [1, 2], probabilities: [0.5, 0.5]}}\n",
        ),
    ),
    Refused(
        "a grid of more than 2147483647 cells without a `run_cap`",
        "it would never end",
        "'parameters' make a grid of",
        ("program: t.py\nmethod: grid\nparameters: {x: {min: 1, max: 100000}, y: {min: 1, max: 100000}}\n",),
    ),
    Refused(
        "an unknown macro, or `${program}` without `program`",
        "W&B leaves the word out, or starts `None`",
        r"unknown macro|'\$\{program\}' stands for",
        (f"{_HEAD}{_PARAMETERS}command: [python, '${{argz}}']\n", f"method: random\n{_PARAMETERS}command: [python, '${{program}}']\n"),
    ),
    Refused(
        "a `command` that is empty, begins with no program, or has words that are no text or number",
        "an empty one W&B takes for its default; the others its agent can't start",
        "'command' |a word of a command is text",
        (f"{_HEAD}{_PARAMETERS}command: []\n", f"{_HEAD}{_PARAMETERS}command: [python, [x]]\n", f"{_HEAD}{_PARAMETERS}command: ['${{args}}']\n"),
    ),
    Refused(
        "faults of parameters within others: `max` below `min`, `probabilities` that do not make 1 or are of another number than the values",
        "W&B checks these of the outermost parameters only",
        r"'max' of parameter '.*' is below its 'min'|'probabilities' of parameter '.*' (makes|holds)",
        (
            f"{_HEAD}parameters: {{o: {{parameters: {{x: {{min: 2, max: 1}}}}}}}}\n",
            f"{_HEAD}parameters: {{o: {{parameters: {{x: {{values: [1, 2], probabilities: [1, 1]}}}}}}}}\n",
            f"{_HEAD}parameters: {{o: {{parameters: {{x: {{values: [1, 2], probabilities: [1]}}}}}}}}\n",
        ),
    ),
    Refused(
        "infinities and NaN, integers over 64 bits, bounds of `int_uniform` beyond 2^53, exponents of e beyond 700, `a` and `b` of `beta`"
        " out of 0.001 to 1000000, a `q` that makes more than 2^53 multiples, a `run_cap` over 2147483647",
        "JSON can't hold them, or floats hold nothing but the ends",
        r"\S+ can't be a value of|.* is too large for (an integer|a float)|.* is a (whole )?number( above zero)?, not '[+-]?\.(inf|nan)'"
        r"|'\w+' of parameter '.*' is (beyond|an exponent of e|from 0\.001|too small)|'run_cap' is at most",
        (
            f"{_HEAD}parameters: {{x: {{values: [.inf, 1]}}}}\n",
            f"{_HEAD}parameters: {{x: {{value: 10000000000000000000}}}}\n",
            f"{_HEAD}parameters: {{x: {{min: 0, max: 9007199254740993}}}}\n",
            f"{_HEAD}parameters: {{x: {{distribution: log_normal, mu: 800}}}}\n",
            f"{_HEAD}parameters: {{x: {{distribution: beta, a: 0}}}}\n",
            f"{_HEAD}parameters: {{x: {{distribution: q_uniform, min: 0, max: 1, q: 1.0e-30}}}}\n",
            f"{_HEAD}{_PARAMETERS}run_cap: 2147483648\n",
            f"{_HEAD}{_PARAMETERS}metric: {{name: m, target: .nan}}\n",
        ),
    ),
    Refused(
        "`max_iter` below 1, `s` of 0 or less",
        "W&B would have no iteration to stop at, and fails",
        r"'early_terminate\.(max_iter|s)' is",
        (
            f"{_HEAD}{_PARAMETERS}metric: {{name: m}}\nearly_terminate: {{type: hyperband, max_iter: 0, s: 1}}\n",
            f"{_HEAD}{_PARAMETERS}metric: {{name: m}}\nearly_terminate: {{type: hyperband, max_iter: 9, s: 0}}\n",
        ),
    ),
    Refused(
        "a key that stands twice, `a.b` beside `b` within `a`",
        "of the first, W&B keeps the last without a word; the second are one name in the record",
        r".*stands twice",
        (f"{_HEAD}parameters: {{x: {{value: 1}}, x: {{value: 2}}}}\n", f"{_HEAD}parameters: {{a.b: {{value: 1}}, a: {{parameters: {{b: {{value: 1}}}}}}}}\n"),
    ),
    Refused(
        "other keys in `controller`",
        "every unknown key is an error, for it is most often a slip of the pen",
        r"unknown key 'controller\.",
        (f"{_HEAD}{_PARAMETERS}controller: {{type: local, size: 3}}\n",),
    ),
    Refused(
        "an empty `program`, `apiVersion` or `metric.name`; other texts that are empty are as good as not there",
        "it names nothing",
        r"'(program|apiVersion|metric\.name)' is empty",
        (f"program: ''\nmethod: random\n{_PARAMETERS}", f"{_HEAD}{_PARAMETERS}metric: {{name: ' '}}\n"),
    ),
    Refused(
        "mappings as values whose keys are no texts",
        "JSON has none, and a script would get another key than the file says",
        "the key .* reads as",
        (f"{_HEAD}parameters: {{x: {{value: {{1: a}}}}}}\n",),
    ),
)
"""In the order of the page."""

TAKEN: Final = (
    Taken(
        "keys of ours, such as `limits`, `resources` and `metric: {from: best}`",
        "the sweep file is W&B's and more",
        _extra_keys,
        (f"{_HEAD}{_PARAMETERS}limits: {{trials: 3}}\n", f"{_HEAD}{_PARAMETERS}metric: {{name: m, from: best}}\n"),
    ),
    Taken(
        "numbers such as `1e-5`",
        "YAML 1.1 takes them for text without a point, which nobody means",
        _any_of(
            _of_parameter(_has_number_as_text),
            _of_early_terminate(_is_number),
            lambda violation, _config: _is_number(violation.value) and violation.message.endswith(("is not of type 'number'", "is not of type 'integer'")),
        ),
        (
            f"{_HEAD}parameters: {{x: {{min: 1e-5, max: 0.1}}}}\n",
            f"{_HEAD}{_PARAMETERS}metric: {{name: m, target: 1e-3}}\n",
            f"{_HEAD}{_PARAMETERS}run_cap: 1e3\n",
            f"{_HEAD}{_PARAMETERS}metric: {{name: m}}\nearly_terminate: {{type: hyperband, min_iter: 3, eta: 3e0}}\n",
        ),
    ),
    Taken("`min` equal to `max`", "it is one value", _says(r".*: min (\S+) is not less than max \1$"), (f"{_HEAD}parameters: {{x: {{min: 1, max: 1}}}}\n",)),
    Taken(
        "`log_uniform`, `q_log_uniform`, `inv_log_uniform`",
        "their bounds are exponents of e, as at W&B, which would rather see the kinds that end in `_values`",
        _says(r".* uses (q_|inv_)?log_uniform, where min/max specify base-e exponents"),
        tuple(f"{_HEAD}parameters: {{x: {{distribution: {kind}, min: 1, max: 2}}}}\n" for kind in ("log_uniform", "q_log_uniform", "inv_log_uniform")),
    ),
    Taken(
        "`int_uniform` with bounds such as `10.0`",
        "they are whole",
        _of_parameter(lambda _name, leaf: leaf.get("distribution") == "int_uniform" and any(isinstance(leaf.get(key), float) for key in ("min", "max"))),
        (f"{_HEAD}parameters: {{x: {{distribution: int_uniform, min: 1, max: 10.0}}}}\n",),
    ),
    Taken(
        "names of parameters that W&B's pattern excludes: `1st`, `größe`, `a/b`",
        "whatever can be printed can be passed to a script",
        _any_of(_says(r".* does not match '\^"), _of_parameter(lambda name, _leaf: re.fullmatch("[A-Za-z_][A-Za-z0-9_.-]*", name) is None)),
        (f"{_HEAD}parameters: {{1st: {{value: 1}}}}\n", f"{_HEAD}parameters: {{o: {{parameters: {{a/b: {{value: 1}}}}}}}}\n"),
    ),
    Taken(
        "a key without a value, as in `metric:`",
        "it is as good as not there",
        _any_of(
            _says("None is not "),
            _of_early_terminate(lambda value: value is None),
            _of_parameter(lambda _name, leaf: any(value is None for key, value in leaf.items() if key != "value")),
        ),
        (
            f"{_HEAD}{_PARAMETERS}metric:\n",
            f"{_HEAD}parameters: {{x: {{distribution: normal, mu: null}}}}\n",
            f"{_HEAD}{_PARAMETERS}early_terminate:\n",
            f"{_HEAD}{_PARAMETERS}metric: {{name: m}}\nearly_terminate: {{type: hyperband, min_iter: 3, eta: null}}\n",
        ),
    ),
    Taken(
        "a number, or a word such as `on`, where a text is expected; `impute_while_running: false`",
        "it counts as written",
        lambda violation, _config: (
            isinstance(violation.value, (int, float)) and (" is not of type 'string'" in violation.message or " is not one of " in violation.message)
        ),
        (f"{_HEAD}{_PARAMETERS}name: 7\n", f"{_HEAD}{_PARAMETERS}description: on\n", f"{_HEAD}{_PARAMETERS}metric: {{name: m, impute_while_running: false}}\n"),
    ),
    Taken(
        "`strategy: {name: tpe}` in place of `method`",
        "it says which search it is",
        _any_of(_says("'method' is a required property"), _extra_keys),
        (f"program: t.py\nstrategy: {{name: tpe}}\nmetric: {{name: m}}\n{_PARAMETERS}",),
    ),
)
"""In the order of the page."""


def render() -> str:
    """The table of the page."""
    rows = [(one.what, "takes it", "an error", one.why) for one in REFUSED] + [(one.what, "an error", "taken", one.why) for one in TAKEN]
    return "\n".join(["| in the file | W&B's validator | here | because |", "|---|---|---|---|", *("| " + " | ".join(row) + " |" for row in rows), ""])


def shown(page: Path = PAGE) -> str:
    """The table as it stands on the page."""
    return page.read_text(encoding="utf-8").partition(BEGIN)[2].partition(END)[0]


def main() -> None:
    """Write the table anew."""
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    PAGE.write_text(f"{before}{BEGIN}{render()}{END}{rest.partition(END)[2]}", encoding="utf-8")


if __name__ == "__main__":
    main()
