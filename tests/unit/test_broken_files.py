"""Hundreds of broken files, made from good ones: each is answered with the line that was touched, what is wrong there, and never a traceback.

What is done to a line is known, so the right answer is known too. Some slips leave a file that is whole (a dropped key that nobody needs): then
it is read.
"""

import codecs
import re
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Final, NamedTuple

import pytest

from sweeps.cli import main
from sweeps.errors import Problem, SpecProblems
from sweeps.mlproject import read_project
from sweeps.spec import load_sweep, parse_sweep

SWEEP: Final = """\
# the learning rate of the small model
name: resnet-lr
description: which rate, which optimizer
project: vision
entity: team
program: train.py
method: bayes
metric:
  name: val/loss
  goal: minimize
  target: 0.01
command:
  - ${env}
  - ${interpreter}
  - ${program}
  - ${args}
run_cap: 100
early_terminate:
  type: hyperband
  min_iter: 3
  eta: 3
parameters:
  lr:
    distribution: log_uniform_values
    min: 1e-5
    max: 1e-1
  depth:
    min: 2
    max: 8
  optimizer:
    parameters:
      name:
        values: [sgd, adam]
      momentum:
        distribution: normal
        mu: 0.9
        sigma: 0.01
  loss:
    values: [a, b, c]
    probabilities: [0.5, 0.25, 0.25]
  width:
    distribution: q_uniform
    min: 0
    max: 64
    q: 8
  epochs:
    value: 12
limits:
  parallel: 8
  time: 6h
resources:
  cpus: 2
  memory: 4g
retry:
  max: 2
  on: [out_of_memory, exit_75]
  delay: 10s
priority: 50
env:
  MODE: fast
collect:
  keys: [loss, acc]
strategy:
  seed: 7
register:
  model: my-model
  alias: candidate
tags:
  team: vision
"""
MLPROJECT: Final = """\
name: tutorial
python_env: python_env.yaml
entry_points:
  main:
    parameters:
      alpha: {type: float, default: 0.5}
      data:
        type: path
        default: data
      epochs:
        type: int
        default: 3
    command: "python train.py --alpha {alpha} --data {data} --epochs {epochs}"
  test:
    command: "python test.py"
"""
SMALL: Final = "program: t.py\nmethod: random\nparameters:\n  lr: {min: 1e-5, max: 0.1}\n  opt:\n    values: [sgd, 'ädam']\nlimits: {trials: 3}\n"
PER_FILE_S: Final = 2.0

NAMED_BY_USERS: Final = {"parameters", "entry_points", "env", "tags"}
"""What stands right below these is a name of the user's own."""
NEEDED: Final = {
    ("method", ""): ("name:", "'method' is missing"),
    ("metric", ""): ("name:", "'metric' is missing, and 'bayes' needs one"),
    ("parameters", ""): ("name:", "'parameters' is missing"),
    ("program", ""): ("  - ${program}", "'${program}' stands for 'program:'"),
    ("name", "metric"): ("metric:", "'metric' has no 'name'"),
    ("type", "early_terminate"): ("early_terminate:", "'early_terminate' has no 'type'"),
    ("min_iter", "early_terminate"): ("early_terminate:", "'early_terminate' needs 'min_iter', or 'max_iter' and 's'"),
    ("min", "lr"): ("  lr:", "parameter 'lr' has 'max' but no 'min'"),
    ("max", "lr"): ("  lr:", "parameter 'lr' has 'min' but no 'max'"),
    ("min", "depth"): ("  depth:", "parameter 'depth' has 'max' but no 'min'"),
    ("max", "depth"): ("  depth:", "parameter 'depth' has 'min' but no 'max'"),
    ("parameters", "optimizer"): ("  optimizer:", "parameter 'optimizer' is a mapping"),
    ("values", "name"): ("      name:", "parameter 'optimizer.name' is a mapping"),
    ("distribution", "momentum"): ("        mu:", "parameter 'optimizer.momentum' has 'mu' but no distribution"),
    ("values", "loss"): ("  loss:", "parameter 'loss' has 'probabilities' but no 'values'"),
    ("distribution", "width"): ("    q:", "parameter 'width' has 'q' but no distribution"),
    ("min", "width"): ("  width:", "parameter 'width' has 'max' and 'q' but no 'min'"),
    ("max", "width"): ("  width:", "parameter 'width' has 'min' and 'q' but no 'max'"),
    ("value", "epochs"): ("  epochs:", "parameter 'epochs' is a mapping"),
    ("max", "retry"): ("retry:", "'retry' has no 'max'"),
    ("model", "register"): ("register:", "'register' has no 'model'"),
}
"""The keys of SWEEP that can't be left out, each with what it stands under, the line that tells of its absence (of what lacks it), and how."""


class Broken(NamedTuple):
    """A file that something was done to.

    Attributes:
        what: was done.
        text: of the file.
        line: that was touched, from 1.
        says: a part of what must be told of that line; empty if anything will do.
        may_be_whole: whether what is left may be a good file.
    """

    what: str
    text: str
    line: int
    says: str = ""
    may_be_whole: bool = False


def lines_of(text: str) -> list[tuple[int, str, str, str]]:
    """The lines that have a key: number from 1, indentation, key, the rest."""
    found = ((number, re.match(r"( *)([\w/]+):(.*)$", line)) for number, line in enumerate(text.splitlines(), start=1))
    return [(number, match[1], match[2], match[3]) for number, match in found if match]


def with_line(text: str, number: int, *lines: str) -> str:
    """The text with other lines in the place of one."""
    whole = text.splitlines()
    whole[number - 1 : number] = lines
    return "\n".join(whole) + "\n"


def indent_of(line: str) -> int:
    """How many blanks a line begins with."""
    return len(line) - len(line.lstrip())


def block_end(text: str, number: int) -> int:
    """The last line of what stands under a key."""
    whole = text.splitlines()
    outer = indent_of(whole[number - 1])
    return next((place for place, line in enumerate(whole[number:], start=number) if indent_of(line) <= outer), len(whole))


def without(text: str, number: int) -> str:
    """The text without a key and all that stands under it."""
    whole = text.splitlines()
    del whole[number - 1 : block_end(text, number)]
    return "\n".join(whole) + "\n"


def given(text: str, number: int, value: str) -> str:
    """The text with one value in place of all that stands under a key."""
    whole = text.splitlines()
    whole[number - 1 : block_end(text, number)] = [f"{whole[number - 1].partition(':')[0]}: {value}"]
    return "\n".join(whole) + "\n"


def parent_of(text: str, number: int) -> str:
    """The key that a line stands under."""
    keyed = {place: (len(indent), key) for place, indent, key, _ in lines_of(text)}
    depth = keyed[number][0]
    return next((keyed[place][1] for place in range(number, 0, -1) if place in keyed and keyed[place][0] < depth), "")


def slips(text: str) -> Iterator[Broken]:
    """One slip of the keyboard at each key."""
    for number, indent, key, rest in lines_of(text):
        here = f"{key} of line {number}"
        if parent_of(text, number) not in NAMED_BY_USERS:
            typo = key[:-1] + ("x" if key[-1] != "x" else "y") if len(key) > 3 else key + "s"
            yield Broken(f"{here} misspelt", with_line(text, number, f"{indent}{typo}:{rest}"), number, f"{typo}'")
        block = text.splitlines()[number - 1 : block_end(text, number)]
        twice = text.splitlines()
        end = block_end(text, number)
        twice[end:end] = block
        yield Broken(f"{here} twice", "\n".join(twice) + "\n", end + 1, f"'{key}' stands twice (first on line {number})")
        yield Broken(f"{here} behind a tab", with_line(text, number, f"\t{indent}{key}:{rest}"), number, "a tab can't indent YAML")
        yield Broken(f"{here} without its colon", with_line(text, number, f"{indent}{key}{rest}"), number)
        for value in ("{a: {b: 1}}", "[[1], {}, 2]", '"\\0"') if rest else ("3", "x", "[1]"):
            is_any = key in {"value", "values", "command"} and value != '"\\0"'
            yield Broken(f"{here} is {value}", given(text, number, value), number, may_be_whole=is_any)
        for value in ("[", "{a: 1", "'x", '"x', "*nobody", "!!python/object:os.system x", "!!int x", "@x", "%x", "- x", "a: b: c") if rest else ():
            yield Broken(f"{here} is {value}", given(text, number, value), number)


def at(text: str, old: str, new: str, says: str, *, line: str = "") -> Broken:
    """What stands once in a file, exchanged for something else; the touched line is that of its beginning, or one that begins so."""
    assert text.count(old) == 1, old
    changed = text.replace(old, new)
    number = text[: text.index(old)].count("\n") + 1 if not line else next(n for n, one in enumerate(changed.splitlines(), 1) if one.startswith(line))
    return Broken(f"{old!r} is {new!r}", changed, number, says)


MEANT: Final = (
    at(SWEEP, "min: 1e-5\n    max: 1e-1", "min: 1e-1\n    max: 1e-5", "'max' of parameter 'lr' is below its 'min'", line="    max: 1e-5"),
    at(SWEEP, "min: 1e-5", "min: 0", "'min' of parameter 'lr' is above zero"),
    at(SWEEP, "min: 1e-5", "min: -1", "'min' of parameter 'lr' is above zero"),
    at(SWEEP, "min: 1e-5", "min: .nan", "'min' of parameter 'lr' is a number"),
    at(SWEEP, "min: 1e-5", "min: '1e-5'", "'min' of parameter 'lr' is a number"),
    at(SWEEP, "min: 1e-5", "min: 1e-5.", "'min' of parameter 'lr' is a number"),
    at(SWEEP, "max: 1e-1", "max: 1e999", "is too large for a float"),
    at(SWEEP, "max: 1e-1", "max: .inf", "'max' of parameter 'lr' is a number"),
    at(SWEEP, "max: 1e-1", "max: 1_0x", "'max' of parameter 'lr' is a number"),
    at(SWEEP, "max: 8", "max: 99999999999999999999", "is too large for an integer"),
    at(SWEEP, "max: 8", "max: 9007199254740993", "'max' of parameter 'depth' is beyond 2^53"),
    at(SWEEP, "max: 8", "max: 1", "'max' of parameter 'depth' is below its 'min'"),
    at(SWEEP, "max: 8", "max: true", "'max' of parameter 'depth' is a number"),
    at(SWEEP, "log_uniform_values", "loguniform", "unknown distribution 'loguniform'"),
    at(SWEEP, "log_uniform_values", "lgo_uniform_values", "unknown distribution 'lgo_uniform_values'"),
    at(SWEEP, "log_uniform_values", "categorical", "distribution 'categorical' does not take 'min'", line="    min: 1e-5"),
    at(SWEEP, "distribution: normal", "distribution: beta", "distribution 'beta' does not take 'mu'", line="        mu"),
    at(SWEEP, "sigma: 0.01", "sigma: -0.01", "'sigma' of parameter 'optimizer.momentum' is at least 0"),
    at(SWEEP, "[0.5, 0.25, 0.25]", "[0.5, 0.25, 0.5]", "makes 1.25 in all, not 1"),
    at(SWEEP, "[0.5, 0.25, 0.25]", "[0.5, 0.5]", "holds 2 numbers for 3 values"),
    at(SWEEP, "[0.5, 0.25, 0.25]", "[1.5, -0.25, -0.25]", "holds a number below zero"),
    at(SWEEP, "[0.5, 0.25, 0.25]", "[0.5, x, 0.25]", "a probability of parameter 'loss' is a number"),
    at(SWEEP, "values: [sgd, adam]", "values: []", "'values' of parameter 'optimizer.name' is empty"),
    at(SWEEP, "values: [sgd, adam]", "values: sgd", "'values' of parameter 'optimizer.name' is a list"),
    at(SWEEP, "values: [sgd, adam]", "values: [sgd, .nan]", ".nan can't be a value"),
    at(SWEEP, "q: 8", "q: 0", "'q' of parameter 'width' is above zero"),
    at(SWEEP, "q: 8", "q: 1e-300", "'q' of parameter 'width' is too small"),
    at(SWEEP, "method: bayes", "method: bayesian", "'method' can't be 'bayesian'"),
    at(SWEEP, "method: bayes", "method: custom", "'method' 'custom' is not served"),
    at(SWEEP, "method: bayes", "method: grid", "a grid can't walk parameter 'lr'", line="  lr:"),
    at(SWEEP, "goal: minimize", "goal: minimise", "'metric.goal' can't be 'minimise'"),
    at(SWEEP, "target: 0.01", "target: low", "'metric.target' is a number"),
    at(SWEEP, "target: 0.01", "target: .nan", "'metric.target' is a number"),
    at(SWEEP, "${args}", "${arg}", "unknown macro '${arg}'"),
    at(SWEEP, "${interpreter}", "${interpeter}", "unknown macro '${interpeter}'"),
    at(SWEEP, "  - ${program}\n  - ${args}", "  - ${program} ${args}", "unknown macro '${program} ${args}'"),
    at(SWEEP, "run_cap: 100", "run_cap: 0", "'run_cap' is at least 1"),
    at(SWEEP, "run_cap: 100", "run_cap: 1.5", "'run_cap' is a whole number"),
    at(SWEEP, "run_cap: 100", "run_cap: '100'", "'run_cap' is a whole number"),
    at(SWEEP, "run_cap: 100", "run_cap: 99999999999", "'run_cap' is at most"),
    at(SWEEP, "type: hyperband", "type: hyperbnd", "'early_terminate.type' can't be 'hyperbnd'"),
    at(SWEEP, "eta: 3", "eta: 1", "'early_terminate.eta' is above 1"),
    at(SWEEP, "min_iter: 3", "min_iter: -3", "'early_terminate.min_iter' is at least 1"),
    at(SWEEP, "min_iter: 3", "min_iter: 99999999999999999999", "is too large for an integer"),
    at(SWEEP, "parallel: 8", "parallel: many", "'limits.parallel' is a whole number"),
    at(SWEEP, "time: 6h", "time: six hours", "'limits.time' is a time such as 6h"),
    at(SWEEP, "time: 6h", "time: -6h", "'limits.time' is a time such as 6h"),
    at(SWEEP, "time: 6h", "time: 99999d", "'limits.time' is a time above zero"),
    at(SWEEP, "memory: 4g", "memory: 4 giga", "'resources.memory' is a size such as 4g"),
    at(SWEEP, "cpus: 2", "cpus: 0", "'resources.cpus' is a number above zero"),
    at(SWEEP, "exit_75", "exit_256", "'retry.on'"),
    at(SWEEP, "[out_of_memory, exit_75]", "[out_of_memry]", "'retry.on' can't be 'out_of_memry'"),
    at(SWEEP, "max: 2\n  on", "max: 1000\n  on", "'retry.max' is at most 100"),
    at(SWEEP, "delay: 10s", "delay: soon", "'retry.delay' is a time such as"),
    at(SWEEP, "priority: 50", "priority: 101", "'priority' is at most 100"),
    at(SWEEP, "MODE: fast", "SWEEP_ID: fast", "SWEEP_ID"),
    at(SWEEP, "MODE: fast", "MODE: [fast]", "the value of 'MODE' in 'env' is text"),
    at(SWEEP, "keys: [loss, acc]", "keys: loss", "'collect.keys' is a list of names"),
    at(SWEEP, "keys: [loss, acc]", "stdout: '(?P<key>'", "collect"),
    at(SWEEP, "seed: 7", "seed: -7", "'strategy.seed' is at least 0"),
    at(SWEEP, "model: my-model", "model: my/model", "register"),
    at(SWEEP, "name: val/loss", "name: ''", "'metric.name' is empty"),
    at(SWEEP, "value: 12", "value: {1: x}", "the key 1 reads as a number"),
    at(SWEEP, "  epochs:", "  yes:", "the key yes reads as true or false"),
    at(SWEEP, "  epochs:", "  ? [a]\n  :", "a key must be text"),
    at(SWEEP, "  epochs:", "  <<: 3\n  epochs:", "'<<' takes a mapping"),
    at(SWEEP, "value: 12", "value: &a [*a]", "an alias that contains itself"),
    at(SWEEP, "value: 12", f"value: {'[' * 70}{']' * 70}", "nested over 64 levels"),
    at(SWEEP, "value: 12", "value: \x07", "the character U+0007 can't stand"),
    at(SWEEP, "value: 12", 'value: "\\ud800"', "invalid Unicode character escape"),
    at(SWEEP, "tags:\n", "---\ntags:\n", "a second YAML document begins here"),
    at(SWEEP, "tags:\n", "...\ntags:\n", "not valid YAML", line="tags:"),
    at(SWEEP, "  team: vision", "   team: vision\n  other: x", "", line="  other"),
    at(MLPROJECT, "type: int\n", "type: integr\n", "parameter 'epochs' has no known type"),
    at(MLPROJECT, "type: float, default: 0.5", "type: float, default: half", "the default of 'alpha' is not a number"),
    at(MLPROJECT, "default: 3", "default: 3.5", "the default of 'epochs' is not a whole number"),
    at(MLPROJECT, "python_env.yaml", "pyton_env.yaml", "there is no file 'pyton_env.yaml'"),
    at(MLPROJECT, "python_env.yaml", "../python_env.yaml", "must lie within the project folder"),
    at(MLPROJECT, "python_env: python_env.yaml", "conda_env: conda.yaml", "'conda_env' is not served"),
    at(MLPROJECT, '"python test.py"', "", "entry point 'test' has no command", line="  test:"),
    at(MLPROJECT, '"python test.py"', "[python, test.py]", "the command of 'test' is one text"),
    at(MLPROJECT, "type: path", "typ: path", "unknown key 'typ'"),
)
"""What people get wrong by meaning it so, with what is told."""


def project(folder: Path) -> Path:
    """A folder with what the good files name."""
    (folder / "data").mkdir()
    for name in ("python_env.yaml", "train.py", "test.py", "t.py"):
        (folder / name).write_text("")
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Such a folder, for the tests that leave it as it is but for the broken file."""
    return project(tmp_path_factory.mktemp("project"))


def problems_of(text: str) -> list[Problem]:
    """What is told of a sweep file, in time."""
    begun = time.monotonic()
    try:
        parse_sweep(text, "sweep.yaml", project_dir=None, no_pruning=True)
    except SpecProblems as error:
        return list(error.problems)
    finally:
        assert time.monotonic() - begun < PER_FILE_S
    return []


def problems_of_mlproject(text: str, folder: Path) -> list[Problem]:
    """What is told of an MLproject whose entry points are all asked for, in time."""
    (folder / "MLproject").write_text(text, encoding="utf-8")
    begun = time.monotonic()
    try:
        found = read_project(folder)
    finally:
        (folder / "MLproject").unlink()
    for point in found.entry_points.values():
        point.template(found.source, ())
    assert time.monotonic() - begun < PER_FILE_S
    return found.source.problems


def is_named(line: int, text: str) -> bool:
    """Whether a message names a line."""
    return re.search(rf"\bline {line}\b| begins at {line}:", text) is not None


def check(case: Broken, found: list[Problem]) -> None:
    """The touched line is told, with what is wrong there, and every place is one of the file."""
    lines = case.text.splitlines()
    assert all(0 < problem.line <= len(lines) + 1 for problem in found)
    assert all(problem.source == (lines[problem.line - 1] if problem.line <= len(lines) else "") for problem in found)
    if case.may_be_whole and not found:
        return
    # Of a bracket or quote that is left open, or a line that the next one goes on, the next is where it shows; the message names the first.
    here = [problem for problem in found if problem.line == case.line or is_named(case.line, f"{problem.message} {problem.suggestion}")]
    assert here, [problem.render() for problem in found]
    assert any(case.says in problem.message for problem in here), [problem.render() for problem in here]
    if case.what.endswith("misspelt"):
        assert any(problem.suggestion.startswith("did you mean '") for problem in here)


def test_broken_files_are_made_from_good_ones(folder: Path) -> None:
    """Nothing is wrong with what the broken files are made from."""
    assert problems_of(SWEEP) == []
    assert problems_of(SMALL) == []
    assert problems_of_mlproject(MLPROJECT, folder) == []


@pytest.mark.parametrize("case", [pytest.param(case, id=case.what) for case in slips(SWEEP)])
def test_broken_sweep_file_is_told_where_a_key_was_touched(case: Broken) -> None:
    """Misspelt, doubled, behind a tab, without colon, or with a value that nobody can mean: one slip at each key."""
    check(case, problems_of(case.text))


@pytest.mark.parametrize("case", [pytest.param(case, id=case.what) for case in slips(MLPROJECT)])
def test_broken_mlproject_is_told_where_a_key_was_touched(case: Broken, folder: Path) -> None:
    """The same of an MLproject."""
    check(case, problems_of_mlproject(case.text, folder))


@pytest.mark.parametrize("case", [pytest.param(case, id=case.what) for case in MEANT])
def test_broken_file_is_told_what_is_wrong(case: Broken, folder: Path) -> None:
    """Values of the wrong kind or out of bounds, unknown words, and YAML's own traps: the line, and the sentence."""
    check(case, problems_of(case.text) if "method:" in case.text else problems_of_mlproject(case.text, folder))


@pytest.mark.parametrize(("number", "key"), [pytest.param(number, key, id=f"{key}-{number}") for number, _, key, _ in lines_of(SWEEP)])
def test_broken_sweep_file_is_told_what_is_missing(number: int, key: str) -> None:
    """A key that is dropped, with all under it: what needs it is told, at the line that needs it; else the file is whole."""
    text = without(SWEEP, number)
    found = problems_of(text)
    if (key, parent_of(SWEEP, number)) not in NEEDED:
        assert found == []
        return
    beginning, says = NEEDED[key, parent_of(SWEEP, number)]
    line = next(place for place, one in enumerate(text.splitlines(), start=1) if one.startswith(beginning))
    assert any(problem.line == line and says in problem.message for problem in found), [problem.render() for problem in found]


@pytest.mark.parametrize("n_bytes", range(len(SMALL.encode())))
def test_broken_sweep_file_is_told_wherever_it_ends(n_bytes: int, folder: Path) -> None:
    """Cut off at every byte: whole, or told at its last line, where something that is open begins, or at the beginning of what lacks a key."""
    data = SMALL.encode()[:n_bytes]
    (folder / "cut.yaml").write_bytes(data)
    try:
        load_sweep(folder / "cut.yaml")
    except SpecProblems as error:
        lines = data.decode(errors="replace").splitlines() or [""]
        last = max((number for number, line in enumerate(lines, start=1) if line.strip()), default=0)
        for problem in error.problems:
            is_missing = problem.line == 1 and ("is missing" in problem.message or problem.message == "nothing says what to run")
            is_outer = problem.line > 0 and any(indent_of(line) > indent_of(lines[problem.line - 1]) for line in lines[problem.line :])
            assert is_missing or is_outer or problem.line in {last, last + 1}, problem.render()
    else:
        assert b"parameters:\n  lr: {min: 1e-5, max: 0.1}" in data


@pytest.mark.parametrize(
    ("data", "line", "says"),
    [
        pytest.param(SMALL.encode("utf-16"), 1, "not UTF-8", id="utf-16"),
        pytest.param(SMALL.encode("utf-16-le"), 6, "not UTF-8", id="utf-16 without mark"),
        pytest.param(SMALL.encode("utf-32"), 1, "not UTF-8", id="utf-32"),
        pytest.param(SMALL.encode("latin-1"), 6, "not UTF-8", id="latin-1"),
        pytest.param(SMALL.encode().replace(b"lr:", b"l\0r:"), 4, "U+0000", id="nul"),
        pytest.param(SMALL.replace("\n", "\r\n").replace("random", "randm").encode(), 2, "'randm'", id="crlf"),
        pytest.param(SMALL.replace("\n", "\r").replace("random", "randm").encode(), 2, "'randm'", id="cr"),
        pytest.param(codecs.BOM_UTF8 + SMALL.replace("random", "randm").encode(), 2, "'randm'", id="mark"),
        pytest.param(b"# nothing\n# here\n", 0, "the file is empty", id="comments"),
        pytest.param(b"", 0, "the file is empty", id="empty"),
        pytest.param(b"\n\n \n", 0, "the file is empty", id="blank"),
        pytest.param(b"---\n", 2, "not nothing", id="nothing in a document"),
        pytest.param(b"- a\n- b\n", 1, "a sweep file is a mapping", id="list"),
        pytest.param(b"just words\n", 1, "a sweep file is a mapping", id="words"),
        pytest.param(b"\x7fELF\x02\x01\x01" + bytes(64), 1, "can't stand in a YAML file", id="program"),
        pytest.param(b"\x89PNG\r\n\x1a\n" + bytes(64), 1, "not UTF-8", id="picture"),
        pytest.param(b"a: " * 200_000, 1, "", id="many colons"),
        pytest.param(b"[" * 200_000, 1, "nested over 64 levels", id="brackets"),
        pytest.param(b"{a: " * 200_000, 1, "nested over 64 levels", id="braces"),
        pytest.param(b"- " * 200_000, 1, "nested over 64 levels", id="dashes"),
        pytest.param(b"x" * (1 << 20) + b"x", 0, "over 1 MB", id="large"),
        pytest.param(SMALL.encode() + b"name: " + b"n" * 1_000_000 + b"\n", 8, "'name' is over", id="long name"),
        pytest.param(
            b"".join(b"k%d: &k%d [%s]\n" % (n, n, b", ".join([b"*k%d" % (n - 1) if n else b"x"] * 9)) for n in range(12)),
            6,
            "once aliases are expanded",
            id="bomb",
        ),
        pytest.param(SMALL.encode().replace(b"  opt:", b"  a: &x {min: 1, max: no}\n  b: *x\n  c:\n    <<: *x\n  opt:"), 5, "'max' of parameter", id="anchor"),
        pytest.param(b"&a [*a]\n", 1, "", id="own alias"),
        pytest.param(b"%YAML 3.0\n---\na: 1\n", 1, "", id="version"),
        *(pytest.param(Random(seed).randbytes(3000), None, "", id=f"junk {seed}") for seed in range(12)),  # noqa: S311 -- bytes, not secrets
    ],
)
def test_broken_bytes_are_told(data: bytes, line: int | None, says: str, folder: Path) -> None:
    """Other encodings and line ends, other files, nothing at all, and what is made to break a parser; the line counts as an editor counts it."""
    (folder / "bytes.yaml").write_bytes(data)
    begun = time.monotonic()
    with pytest.raises(SpecProblems) as caught:
        load_sweep(folder / "bytes.yaml")
    assert time.monotonic() - begun < PER_FILE_S
    assert any(says in problem.message and line in {problem.line, None} for problem in caught.value.problems), str(caught.value)
    assert len(str(caught.value)) < 20_000


@pytest.mark.parametrize(
    "good",
    [
        SMALL.encode().replace(b"\n", b"\r\n"),
        codecs.BOM_UTF8 + SMALL.encode(),
        SMALL.encode().rstrip(),
        b"---\n" + SMALL.encode(),
        codecs.BOM_UTF8 * 2 + SMALL.encode(),
    ],
)
def test_file_of_other_line_ends_is_whole(good: bytes, folder: Path) -> None:
    """CRLF, a byte order mark, no line end at the end, a document's mark."""
    (folder / "good.yaml").write_bytes(good)
    assert load_sweep(folder / "good.yaml").config.limits.trials == 3


EVERY: Final = [*slips(SWEEP), *(case for case in MEANT if "method:" in case.text)]
EVERY_MLPROJECT: Final = list(slips(MLPROJECT))


def test_broken_files_are_hundreds() -> None:
    """As many as were promised, and no two alike."""
    texts = {case.text for case in (*EVERY, *EVERY_MLPROJECT)}
    assert len(texts) > 500


@pytest.mark.parametrize("case", [pytest.param(case, id=case.what) for case in EVERY[::29] if not case.may_be_whole])
def test_cli_tells_of_a_broken_sweep_file(case: Broken, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Exit status 2, the place on standard error, no traceback."""
    monkeypatch.chdir(project(tmp_path))
    Path("sweep.yaml").write_text(case.text, encoding="utf-8")
    assert main(["validate", "sweep.yaml", "--no-pruning"]) == 2
    told = capsys.readouterr()
    assert f"sweep.yaml:{case.line}:" in told.err or is_named(case.line, told.err)
    assert "Traceback" not in told.out + told.err


@pytest.mark.parametrize("case", [pytest.param(case, id=case.what) for case in EVERY_MLPROJECT[::13] if not case.may_be_whole])
def test_cli_tells_of_a_broken_mlproject(case: Broken, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The same for the folder of an MLproject."""
    (project(tmp_path) / "MLproject").write_text(case.text, encoding="utf-8")
    assert main(["validate", str(tmp_path)]) == 2
    told = capsys.readouterr()
    assert f"MLproject:{case.line}:" in told.err or is_named(case.line, told.err)
    assert "Traceback" not in told.out + told.err
