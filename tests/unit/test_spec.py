"""The sweep file: what is read, what is refused, and exactly where."""

import json
import re
import subprocess
import sys
from pathlib import Path
from random import Random

import pytest
from msgspec.structs import replace

from sweeps import distributions as dist
from sweeps.command import MacroCommand, TemplateCommand, build_argv
from sweeps.errors import SpecError, SpecProblems
from sweeps.spec import REFUSED, REFUSED_INNER, SERVED, Overrides, Submission, config_from_mapping, load_project, load_sweep, parse_sweep
from sweeps.spec_config import Limits, Metric, Register, SweepConfig
from sweeps.spec_parameters import DISTRIBUTIONS, REFUSED_KEYS
from tracking.records import Collect, Environment, Resources, Retry
from worker.collect import StdoutCollector
from worker.errors import BadPattern

HEAD = "program: train.py\nmethod: random\n"
PARAMETERS = "parameters: {x: {min: 0.0, max: 1.0}}\n"
METRIC = "metric: {name: loss}\n"


def parse(text: str, *, no_pruning: bool = False) -> SweepConfig:
    """Parse without looking at files."""
    return parse_sweep(text, "sweep.yaml", project_dir=None, no_pruning=no_pruning)


def problems(text: str) -> list[tuple[str, str]]:
    """(place, message) of everything that is wrong with a text."""
    with pytest.raises(SpecProblems) as caught:
        parse(text)
    return [(problem.place.removeprefix("sweep.yaml:"), problem.message) for problem in caught.value.problems]


EVERYTHING = """
name: resnet-lr
description: how fast
project: vision
program: train.py
command: [ "${env}", python3, "${program}", "-v", 2, "${args_json}" ]
method: bayes
metric: {name: val_loss, goal: maximize, from: best}
parameters:
  lr: {distribution: log_uniform_values, min: 1e-5, max: 1e-1}
  opt: {values: [sgd, adam]}
  depth: {min: 1, max: 8}
  drop: {min: 0, max: 0.5}
  mixed: {min: 1, max: 10.0}
  q: {distribution: q_uniform, min: 0, max: 1, q: 0.1}
  steps: {distribution: int_uniform, min: 1e1, max: 100}
  fixed: {value: null}
  named: {distribution: constant, value: [1, {a: 2}]}
run_cap: 40
limits: {trials: 40, parallel: 8, time: 6h, trial_time: 1h30m, failures: 10}
resources: {cpus: 0.5, memory: 4g, gpus: 1, image: "img:tag"}
queue: gpu
priority: 0
env: {WANDB_MODE: offline, N: 010, FLAG: on, EMPTY: }
collect: {stdout: '(?P<key>\\w+)=(?P<value>\\S+)', keys: [loss, acc]}
strategy: {seed: 7}
register: {model: my-model, alias: champion}
retry: {max: 2, on: [lost, out_of_memory, exit_75, exit_75], delay: 10s, delay_max: 5m}
tags: {team: vision}
"""


def test_spec_every_key_reaches_the_config() -> None:
    """Each served key has its place in the config, defaults filled in."""
    assert parse(EVERYTHING) == SweepConfig(
        name="resnet-lr",
        description="how fast",
        experiment="vision",
        method="bayes",
        metric=Metric("val_loss", "maximize", "best"),
        parameters=(
            dist.LogUniformValues("lr", 1e-5, 0.1),
            dist.Categorical("opt", ("sgd", "adam")),
            dist.IntUniform("depth", 1, 8),
            dist.Uniform("drop", 0.0, 0.5),
            dist.Uniform("mixed", 1.0, 10.0),
            dist.QUniform("q", 0.0, 1.0, 0.1),
            dist.IntUniform("steps", 10, 100),
            dist.Constant("fixed", None),
            dist.Constant("named", [1, {"a": 2}]),
        ),
        command=MacroCommand(("${env}", "python3", "${program}", "-v", "2", "${args_json}"), "train.py"),
        limits=Limits(40, 8, 21600.0, 5400.0, 10),
        resources=Resources(0.5, 4 * 2**30, 1, "img:tag"),
        environment=Environment("docker"),
        queue="gpu",
        priority=0,
        env={"WANDB_MODE": "offline", "N": "010", "FLAG": "on", "EMPTY": ""},
        collect=Collect(pattern=r"(?P<key>\w+)=(?P<value>\S+)", keys=("loss", "acc")),
        seed=7,
        register=Register("my-model", "model", "champion"),
        retry=Retry(2, ("lost", "out_of_memory", "exit_75"), 10.0, 300.0),
        tags={"team": "vision"},
    )


def test_spec_config_survives_json() -> None:
    """What the record keeps is what was parsed, number types included."""
    config = parse(EVERYTHING)
    back = SweepConfig.from_builtins(json.loads(json.dumps(config.to_builtins())))
    assert back == config
    assert [type(p) for p in back.parameters] == [type(p) for p in config.parameters]


def test_spec_mapping_gives_the_same_config_as_yaml() -> None:
    """Python callers go through the same reader."""
    mapping = {"name": "n", "program": "t.py", "method": "grid", "parameters": {"a": {"values": [1, 1.0, "x"]}, "b": {"min": 1, "max": 3}}}
    text = "name: n\nprogram: t.py\nmethod: grid\nparameters:\n  a: {values: [1, 1.0, x]}\n  b: {min: 1, max: 3}\n"
    assert config_from_mapping(mapping) == parse(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", Retry()),
        ("retry:\n", Retry()),
        ("retry: {max: 0}\n", Retry()),
        ("retry: {max: 3}\n", Retry(3, ("exit_status", "signal", "out_of_memory", "timed_out"), 1.0, 60.0)),
        ("retry: {max: 1, delay: 5m}\n", Retry(1, delay_s=300.0, delay_max_s=300.0)),
        ("retry:\n  max: 1\n  on:\n  - signal_9\n", Retry(1, ("signal_9",))),
        ("retry: {max: 1, 'on': [exit_255]}\n", Retry(1, ("exit_255",))),
    ],
)
def test_spec_retry_has_defaults(text: str, expected: Retry) -> None:
    """No retry unless asked for; of what the code itself does wrong, unless `on` says otherwise; a late first wait moves the cap."""
    config = parse(HEAD + PARAMETERS + text)
    assert config.retry == expected
    assert Submission(config, "", Path()).to_new_sweep(None).retry == expected


def test_spec_retry_says_what_is_meant() -> None:
    """A slip of the pen and a bare exit status are told with what to write instead."""
    with pytest.raises(SpecProblems) as caught:
        parse(HEAD + PARAMETERS + "retry: {max: 1, on: [exit_statos, 75]}\n")
    assert [problem.suggestion for problem in caught.value.problems] == ["did you mean 'exit_status'?", "write exit_75"]


def test_spec_mapping_problem_names_the_key_path() -> None:
    """Without lines, the key path says where."""
    with pytest.raises(SpecProblems) as caught:
        config_from_mapping({"program": "t.py", "method": "random", "parameters": {"lr": {"min": 2, "max": 1}}})
    assert caught.value.problems[0].path == "parameters.lr.max"
    assert "parameters.lr.max: error: 'max' of parameter 'lr' is below its 'min'" in str(caught.value)


@pytest.mark.parametrize(
    ("number", "value"),
    [("1e-5", 1e-5), ("9e-6", 9e-6), ("15e-5", 15e-5), ("1E3", 1000.0), ("-.5", -0.5), ("1.", 1.0), ("+1.5e+2", 150.0), ("1_000.5", 1000.5)],
)
def test_spec_float_is_read_as_people_write_it(number: str, value: float) -> None:
    """Numbers that YAML 1.1 takes for text are floats, as a fifth of real files need."""
    assert parse(f"{HEAD}parameters: {{x: {{value: {number}}}}}").parameters == (dist.Constant("x", value),)


def test_spec_words_of_yaml_1_1_keep_their_meaning() -> None:
    """`yes` is true, as for W&B; dates and quoted numbers stay text."""
    config = parse(HEAD + "parameters: {x: {values: [yes, off, 'yes', 2020-01-01, '1e-5', ~]}}")
    assert config.parameters[0] == dist.Categorical("x", (True, False, "yes", "2020-01-01", "1e-5", None))


BAD = [
    ("", ["sweep.yaml"], "the file is empty"),
    ("# nothing\n", ["sweep.yaml"], "the file is empty"),
    ("- a\n- b\n", ["1:1"], "a sweep file is a mapping of keys to values, not a list"),
    ("just text", ["1:1"], "a sweep file is a mapping of keys to values, not text"),
    (HEAD + PARAMETERS + "\tqueue: x\n", ["4:1"], "a tab can't indent YAML"),
    (HEAD + PARAMETERS + "queue: [", ["4:8"], "not valid YAML"),
    (HEAD + PARAMETERS + "method: grid\n", ["4:1"], "'method' stands twice (first on line 2)"),
    (HEAD + PARAMETERS + "sede: 1\n", ["4:1"], "unknown key 'sede'"),
    (HEAD + PARAMETERS + "seeds: {values: [1]}\n", ["4:1"], "'seeds' is not served by this version"),
    (HEAD + PARAMETERS + METRIC + "early_terminate: {type: hyperband, min_iter: 3}\n", ["5:1"], "'early_terminate' is not served by this version"),
    (HEAD + PARAMETERS + METRIC + "early_terminate: {type: hyperband}\n", ["5:1", "5:18"], "'early_terminate' needs 'min_iter', or 'max_iter' and 's'"),
    (HEAD + PARAMETERS + METRIC + "early_terminate: {min_iter: 3}\n", ["5:1", "5:18"], "'early_terminate' has no 'type'"),
    (HEAD + PARAMETERS + METRIC + "early_terminate: {type: asha, min_iter: 3}\n", ["5:1", "5:25"], "'early_terminate.type' 'asha' is not served"),
    (HEAD + PARAMETERS + METRIC + "early_terminate: {type: hyperband, min_iter: 0}\n", ["5:1", "5:46"], "'early_terminate.min_iter' is at least 1, not 0"),
    (HEAD + PARAMETERS + METRIC + "early_terminate: {type: hyperband, max_iter: 9}\n", ["5:1", "5:18"], "'early_terminate' needs 'min_iter'"),
    (HEAD + PARAMETERS + METRIC + "early_terminate: {type: hyperband, min_iter: 3, eta: 1}\n", ["5:1", "5:54"], "'early_terminate.eta' is above 1, not 1"),
    (HEAD + PARAMETERS + METRIC + "early_terminate: {type: hyperband, min_iter: 3, strict: 1}\n", ["5:1", "5:57"], "'early_terminate.strict' is true or false"),
    (HEAD + PARAMETERS + METRIC + "early_terminate: {type: hyperband, mini_iter: 3}\n", ["5:1", "5:36"], "unknown key 'early_terminate.mini_iter'"),
    (HEAD + PARAMETERS + "early_terminate: {type: hyperband, min_iter: 3}\n", ["4:1", "4:1"], "'early_terminate' needs a 'metric' to judge by"),
    (HEAD + PARAMETERS + "early_terminate: 3\n", ["4:1", "4:1", "4:18"], "'early_terminate' is a mapping, not a number"),
    ("method: random\njob: a/b:latest\nimage_uri: x\nscheduler: {job: y}\n" + PARAMETERS, ["2:1"], "this is a file for W&B Launch: 'job' names what"),
    ("method: random\nimage_uri: x\n" + PARAMETERS, ["2:1"], "this is a file for W&B Launch: 'image_uri' names what"),
    (HEAD + PARAMETERS + "scheduler: {engine: optuna}\n", ["4:21"], "'scheduler.engine' 'optuna' is not served by this version"),
    (HEAD + PARAMETERS + "scheduler: {engine: wandb, source: s.py}\n", ["4:28"], "'scheduler.source' is not served by this version"),
    (HEAD + PARAMETERS + "scheduler: {engine: ray}\n", ["4:21"], "'scheduler.engine' can't be 'ray'"),
    (HEAD + PARAMETERS + "scheduler: {}\n", ["4:12"], "'scheduler' has no 'engine'"),
    ("program: t.py\nmethod: custom\n" + PARAMETERS, ["2:9"], "'method' 'custom' is not served by this version"),
    (HEAD + PARAMETERS + "kind: launch\n", ["4:7"], "'kind' can't be 'launch'"),
    (HEAD + PARAMETERS + "controller: {type: remote}\n", ["4:20"], "'controller.type' can't be 'remote'"),
    (HEAD + PARAMETERS + "controller: {kind: local}\n", ["4:13", "4:14"], "'controller' has no 'type'"),
    ("program: t.py\nmethod: custom\n" + PARAMETERS, ["2:9"], "'method' 'custom' is not served by this version"),
    (HEAD + PARAMETERS + "limits: {cost: 5}\n", ["4:10"], "'limits.cost' is not served by this version"),
    (HEAD + PARAMETERS + "limits: 5\n", ["4:9"], "'limits' is a mapping, not a number"),
    (HEAD + PARAMETERS + "run_cap: 3\nlimits: {trials: 4}\n", ["5:18"], "'limits.trials' is 4, but 'run_cap' is 3"),
    (HEAD + PARAMETERS + "run_cap: 0\n", ["4:10"], "'run_cap' is at least 1, not 0"),
    (HEAD + PARAMETERS + "run_cap: 2.5\n", ["4:10"], "'run_cap' is a whole number, not '2.5'"),
    (HEAD + PARAMETERS + "run_cap: true\n", ["4:10"], "'run_cap' is a whole number, not 'true'"),
    (HEAD + PARAMETERS + "limits:\n  time: 6 hours\n", ["5:9"], "'limits.time' is a time such as 6h, 90s or 1h30m, not '6 hours'"),
    (HEAD + PARAMETERS + "resources: {memory: 4x}\n", ["4:21"], "'resources.memory' is a size such as 4g or 512m, not '4x'"),
    (HEAD + PARAMETERS + "resources: {cpus: -1}\n", ["4:19"], "'resources.cpus' is a number above zero, not '-1'"),
    (HEAD + PARAMETERS + "priority: 101\n", ["4:11"], "'priority' is at most 100, not 101"),
    (HEAD + PARAMETERS + "collect: {stdout: '('}\n", ["4:19"], "'collect.stdout' is no regular expression"),
    (HEAD + PARAMETERS + "collect: {stdout: 'loss=(.*)'}\n", ["4:19"], "'collect.stdout' has one group"),
    (HEAD + PARAMETERS + "collect: {stdout: 'loss=.*'}\n", ["4:19"], "'collect.stdout' needs the groups"),
    (HEAD + PARAMETERS + "collect: {stdout: {}}\n", ["4:19"], "'collect.stdout' is empty"),
    (HEAD + PARAMETERS + "collect: {stdout: {a: 'a=(.*)'}, keys: [a]}\n", ["4:40"], "'collect.keys' stands beside the names under 'collect.stdout'"),
    (HEAD + PARAMETERS + "collect:\n  stdout:\n    a: '('\n", ["6:8"], "the pattern of 'a' in 'collect.stdout' is no regular expression"),
    (HEAD + PARAMETERS + "collect: {stdout: {a: 'a=(.)(.)'}}\n", ["4:23"], "the pattern of 'a' in 'collect.stdout' needs one group, the value"),
    (HEAD + PARAMETERS + "collect: {stdout: {a: '(?P<key>.)'}}\n", ["4:23"], "the pattern of 'a' in 'collect.stdout' needs one group, the value"),
    (HEAD + PARAMETERS + "collect: {keys: loss}\n", ["4:17"], "'collect.keys' is a list of names"),
    (HEAD + PARAMETERS + "env: {A: [1]}\n", ["4:10"], "the value of 'A' in 'env' is text, not a list"),
    (HEAD + PARAMETERS + "retry: 2\n", ["4:8"], "'retry' is a mapping, not a number"),
    (HEAD + PARAMETERS + "retry: {on: [exit_1]}\n", ["4:8"], "'retry' has no 'max'"),
    (HEAD + PARAMETERS + "retry: {max: -1}\n", ["4:14"], "'retry.max' is at least 0, not -1"),
    (HEAD + PARAMETERS + "retry: {max: 101}\n", ["4:14"], "'retry.max' is at most 100, not 101"),
    (HEAD + PARAMETERS + "retry: {max: 1, on: [lost, exit_status, oom]}\n", ["4:41"], "'retry.on' can't be 'oom'"),
    (HEAD + PARAMETERS + "retry: {max: 1, on: [exit_0]}\n", ["4:22"], "'retry.on' can't be 'exit_0'"),
    (HEAD + PARAMETERS + "retry: {max: 1, on: [exit_256, signal_65]}\n", ["4:22", "4:32"], "'retry.on' can't be 'exit_256'"),
    (HEAD + PARAMETERS + "retry: {max: 1, on: [pruned]}\n", ["4:22"], "'retry.on' can't be 'pruned': another attempt would end no better"),
    (HEAD + PARAMETERS + "retry: {max: 1, on: [75]}\n", ["4:22"], "'retry.on' takes names of ends, not a number"),
    (HEAD + PARAMETERS + "retry: {max: 1, on: exit_75}\n", ["4:21"], "'retry.on' is a list of ends"),
    (HEAD + PARAMETERS + "retry: {max: 1, on: []}\n", ["4:21"], "'retry.on' is a list of ends"),
    (HEAD + PARAMETERS + "retry: {max: 1, delay: soon}\n", ["4:24"], "'retry.delay' is a time such as 6h, 90s or 1h30m, not 'soon'"),
    (HEAD + PARAMETERS + "retry: {max: 1, delay: 5m, delay_max: 1m}\n", ["4:39"], "'retry.delay_max' is at least 'retry.delay'"),
    (HEAD + PARAMETERS + "retry: {max: 1, resume: checkpoint}\n", ["4:17"], "'retry.resume' is not served by this version"),
    (HEAD + PARAMETERS + "retry: {max: 1, delay_mx: 1m}\n", ["4:17"], "unknown key 'retry.delay_mx'"),
    (HEAD + PARAMETERS + "register: {alias: x}\n", ["4:11"], "'register' has no 'model'"),
    (HEAD + PARAMETERS + "metric: {goal: minimize}\n", ["4:9"], "'metric' has no 'name'"),
    (HEAD + PARAMETERS + 'metric: {name: "lo\\tss"}\n', ["4:16"], "'metric.name' can't be the name of a metric: up to 250 characters that can be printed"),
    (HEAD + PARAMETERS + "metric: {name: " + "x" * 251 + "}\n", ["4:16"], "'metric.name' can't be the name of a metric: up to 250 characters"),
    (HEAD + PARAMETERS + "metric: {name: a, target: low}\n", ["4:27"], "'metric.target' is a number, not 'low'"),
    (HEAD + PARAMETERS + "metric: {name: a, impute: wrst}\n", ["4:27"], "'metric.impute' can't be 'wrst'"),
    (HEAD + PARAMETERS + "metric: {name: a, impute_while_running: best}\n", ["4:41"], "'metric.impute_while_running' 'best' is not served by this version"),
    (HEAD + PARAMETERS + "strategy: {name: tpe}\n", ["4:18"], "'strategy.name' stands beside 'method'"),
    (HEAD + PARAMETERS + "code: git+https://host/repo\n", ["4:7"], "a git URL as 'code' is not served by this version"),
    (HEAD + PARAMETERS + "entry_point: main\n", ["4:14"], "'entry_point' stands beside 'program'"),
    (HEAD + PARAMETERS + "command: python train.py\n", ["4:10"], "'command' is not a list"),
    (HEAD + PARAMETERS + "command: ['${arg}']\n", ["4:11"], "unknown macro '${arg}'"),
    ("method: random\ncommand: ['${program}']\n" + PARAMETERS, ["2:11"], "'${program}' stands for 'program:', which is not given"),
    ("method: random\n" + PARAMETERS, ["1:1"], "nothing says what to run"),
    ("program: t.py\n" + PARAMETERS, ["1:1"], "'method' is missing"),
    ("program: t.py\nmethod: byes\n" + PARAMETERS, ["2:9"], "'method' can't be 'byes'"),
    ("program: t.py\nmethod: bayes\n" + PARAMETERS, ["1:1"], "'metric' is missing, and 'bayes' needs one"),
    (HEAD, ["1:1"], "'parameters' is missing"),
    (HEAD + "parameters: {}\n", ["3:13"], "'parameters' is empty"),
    (HEAD + "parameters: [x]\n", ["3:13"], "'parameters' is a mapping of names to distributions, not a list"),
    (HEAD + "parameters:\n  x: 3\n", ["4:6"], "parameter 'x' is a mapping"),
    (HEAD + "parameters:\n  x:\n", ["4:3"], "parameter 'x' is a mapping"),
    (HEAD + "parameters:\n  x: {}\n", ["4:3"], "parameter 'x' has no values"),
    (HEAD + "parameters:\n  x: {min: 1}\n", ["4:3"], "parameter 'x' has 'min' but no 'max'"),
    (HEAD + "parameters:\n  x: {min: 2, max: 1}\n", ["4:20"], "'max' of parameter 'x' is below its 'min'"),
    (HEAD + "parameters:\n  x: {min: 0, max: '1'}\n", ["4:20"], "'max' of parameter 'x' is a number, not '1'"),
    (HEAD + "parameters:\n  x: {min: 0, max: .inf}\n", ["4:20"], "'max' of parameter 'x' is a number, not '.inf'"),
    (HEAD + "parameters:\n  x: {min: yes, max: 3}\n", ["4:12"], "'min' of parameter 'x' is a number, not 'yes'"),
    (HEAD + "parameters:\n  x:\n    values: [1]\n    min: 1\n", ["6:5"], "parameter 'x' has both 'values' and 'min'"),
    (HEAD + "parameters:\n  x: {values: []}\n", ["4:15"], "'values' of parameter 'x' is empty"),
    (HEAD + "parameters:\n  x: {values: 3}\n", ["4:15"], "'values' of parameter 'x' is a list, not a number"),
    (HEAD + "parameters:\n  x: {values: [1, .nan]}\n", ["4:19"], ".nan can't be a value of parameter 'x'"),
    (HEAD + "parameters:\n  x: {value: 1, q: 2}\n", ["4:17"], "parameter 'x' has 'q' but no distribution"),
    (HEAD + "parameters:\n  x:\n    distribution: loguniform\n    min: 1\n    max: 2\n", ["5:19"], "unknown distribution 'loguniform'"),
    (HEAD + "parameters:\n  x: {distribution: normal, mean: 0}\n", ["4:29"], "unknown key 'mean' in parameter 'x'"),
    (HEAD + "parameters:\n  x: {distribution: normal, sigma: -1}\n", ["4:36"], "'sigma' of parameter 'x' is at least 0, not -1"),
    (HEAD + "parameters:\n  x: {distribution: log_normal, mu: 1e4}\n", ["4:37"], "'mu' of parameter 'x' is an exponent of e"),
    (HEAD + "parameters:\n  x: {distribution: log_uniform, min: 1, max: 1000}\n", ["4:47"], "'max' of parameter 'x' is an exponent of e from -700 to 700"),
    (HEAD + "parameters:\n  x: {distribution: beta, a: 0}\n", ["4:30"], "'a' of parameter 'x' is from 0.001 to 1000000, not 0"),
    (HEAD + "parameters:\n  x: {mu: 0, sigma: 1}\n", ["4:7", "4:14"], "parameter 'x' has 'mu' but no distribution"),
    (HEAD + "parameters:\n  x: {values: [1, 2], probabilities: [1]}\n", ["4:38"], "'probabilities' of parameter 'x' holds 1 numbers for 2 values"),
    (HEAD + "parameters:\n  x: {values: [1, 2], probabilities: [0.5, 0.4]}\n", ["4:38"], "'probabilities' of parameter 'x' makes 0.9 in all, not 1"),
    (HEAD + "parameters:\n  x: {values: [1, 2], probabilities: [-1, 2]}\n", ["4:38"], "'probabilities' of parameter 'x' holds a number below zero"),
    (HEAD + "parameters:\n  x: {values: [1, 2], probabilities: [a, b]}\n", ["4:39", "4:42"], "a probability of parameter 'x' is a number, not 'a'"),
    (HEAD + "parameters:\n  x: {values: [1], probabilities: 1}\n", ["4:35"], "'probabilities' of parameter 'x' is a list of numbers"),
    (HEAD + "parameters:\n  x: {probabilities: [1]}\n", ["4:3"], "parameter 'x' has 'probabilities' but no 'values'"),
    (HEAD + "parameters:\n  x: {distribution: uniform, values: [1], min: 0, max: 1}\n", ["4:30"], "distribution 'uniform' does not take 'values'"),
    (HEAD + "parameters:\n  x: {distribution: log_uniform_values, min: 0, max: 1}\n", ["4:46"], "'min' of parameter 'x' is above zero"),
    (HEAD + "parameters:\n  x: {distribution: int_uniform, min: 0.5, max: 1}\n", ["4:39"], "'min' of parameter 'x' is a whole number"),
    (HEAD + "parameters:\n  x: {distribution: q_uniform, min: 0, max: 1, q: 0}\n", ["4:51"], "'q' of parameter 'x' is above zero"),
    (HEAD + "parameters:\n  opt: {parameters: {lr: {vale: 1}}}\n", ["4:27"], "unknown key 'vale' in parameter 'opt.lr'"),
    (HEAD + "parameters:\n  opt: {parameters: {lr: {value: 1}}, min: 1}\n", ["4:39"], "parameter 'opt' has both 'parameters' and 'min'"),
    (HEAD + "parameters:\n  opt: {parameters: {}}\n", ["4:21"], "'parameters' of parameter 'opt' is empty"),
    (HEAD + "parameters:\n  opt: {parameters: 3}\n", ["4:21"], "'parameters' of parameter 'opt' is a mapping of names to distributions"),
    (
        HEAD + "parameters:\n  o: {parameters: {x: {value: 1}}}\n  o.x: {value: 1}\n",
        ["5:3"],
        "parameter 'o.x' stands twice (first on line 4)",
    ),
    (
        HEAD.replace("random", "grid") + "parameters:\n  o: {parameters: {x: {min: 0.0, max: 1.0}}}\n",
        ["4:20"],
        "a grid can't walk parameter 'o.x': 'uniform' is continuous",
    ),
    (
        HEAD.replace("random", "grid") + "parameters:\n  x: {values: [1], probabilities: [1]}\n",
        ["4:3"],
        "a grid can't walk parameter 'x': it has probabilities",
    ),
    (HEAD + "parameters:\n  no: {value: 1}\n", ["4:3"], "the key no reads as true or false, not as text"),
    (HEAD.replace("random", "grid") + "parameters:\n  x: {min: 0.0, max: 1.0}\n", ["4:3"], "a grid can't walk parameter 'x': 'uniform' is continuous"),
    ("method: random\nname: 日本 \x1b[31m\n", ["2:10"], "the character U+001B can't stand in a YAML file"),
    (HEAD + 'name: "a\\0b"\n' + PARAMETERS, ["3:7"], "holds a NUL character or half of a surrogate pair"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "places", "message"), BAD)
def test_spec_problem_says_what_and_where(text: str, places: list[str], message: str) -> None:
    """Each kind of mistake has its own message, at its own line and column."""
    found = problems(text)
    assert [place for place, _ in found] == places
    assert any(said.startswith(message) for _, said in found)


def test_spec_problems_are_all_told_in_one_pass() -> None:
    """Ten mistakes are ten messages, in the order of the file, each with its line and a caret under it."""
    text = "metod: bayes\nprogram: train.py\nparameters:\n  lr:\n    distribution: loguniform\n  layers:\n    values: [1]\n    min: 1\nrun_cap: x\nseeds: 1\n"
    assert [place for place, _ in problems(text)] == ["1:1", "1:1", "5:19", "8:5", "9:10", "10:1"]
    with pytest.raises(SpecProblems) as caught:
        parse(text)
    shown = str(caught.value)
    assert (
        "sweep.yaml:5:19: error: unknown distribution 'loguniform'\n"
        "   5 |     distribution: loguniform\n"
        "     |                   ^^^^^^^^^^ did you mean 'log_uniform_values'?\n"
    ) in shown
    assert shown.endswith("6 errors. Nothing was submitted.")
    assert caught.value.exit_status == 2


@pytest.mark.parametrize(
    ("text", "places"),
    [
        ("parameters: {x: {min: 0, max: 99999999999999999999999999999}}", ["3:31"]),
        ("parameters: {x: {min: 0, max: null}}", ["3:14"]),
        (f"{PARAMETERS}retry: {{max: 99999999999999999999999999999}}", ["4:14"]),
        (f"{PARAMETERS}retry: {{max: ~}}", ["4:8"]),
    ],
)
def test_spec_value_that_can_not_be_read_is_told_once(text: str, places: list[str]) -> None:
    """What was said is not called missing; what is null is."""
    assert [place for place, _ in problems(HEAD + text + "\n")] == places


def test_spec_caret_stands_under_wide_characters() -> None:
    """A caret is placed by terminal cells, not by characters."""
    with pytest.raises(SpecProblems) as caught:
        parse("{name: 日本, metod: bayes, program: t.py, method: random, parameters: {x: {value: 1}}}")
    _, line, caret = caught.value.problems[0].render().split("\n")
    assert line.index("metod") + 2 == caret.index("^")


@pytest.mark.parametrize("key", sorted(REFUSED.keys() - {"early_terminate"}))
def test_spec_unserved_key_is_refused_by_name(key: str) -> None:
    """A key of W&B or of ours that this version does not honour is never ignored."""
    assert problems(f"{HEAD}{PARAMETERS}{key}: 1\n") == [("4:1", f"'{key}' is not served by this version")]


@pytest.mark.parametrize("key", sorted(REFUSED_KEYS))
def test_spec_unserved_parameter_key_is_refused_by_name(key: str) -> None:
    """So are the keys of those distributions, and conditional or linked parameters."""
    found = problems(f"{HEAD}parameters:\n  x: {{value: 1, {key}: 1}}\n")
    assert found == [("4:17", f"'{key}' of parameter 'x' is not served by this version")]


def test_spec_every_refusal_says_what_to_do_instead() -> None:
    """A key or word that is not served comes with a way to do without it."""
    inner = [f"{section}: {{{key}: 1}}" for section, keys in REFUSED_INNER.items() for key in keys]
    words = ["metric: {name: a, impute_while_running: latest}", "scheduler: {engine: ax}", "method: custom", "image_uri: x"]
    for line in [*(f"{key}: 1" for key in REFUSED), *inner, *words]:
        with pytest.raises(SpecProblems) as caught:
            parse(f"program: t.py\n{'' if 'method' in line else 'method: random'}\n{PARAMETERS}{line}\n")
        told = [problem for problem in caught.value.problems if problem.line == 4]
        assert told, line
        assert [problem.message for problem in told if "not served" in problem.message and not problem.suggestion] == []
        assert any(problem.suggestion for problem in told), line


def test_spec_every_known_key_of_the_file_is_served_or_refused_but_not_both() -> None:
    """The two tables share no key."""
    assert not set(SERVED) & REFUSED.keys()


def test_spec_early_terminate_is_ignored_when_the_user_says_no_pruning() -> None:
    """Files of W&B's users run after their explicit word."""
    text = HEAD + PARAMETERS + METRIC + "early_terminate: {type: hyperband, max_iter: 27, s: 2, eta: 2.5, strict: true}\n"
    assert parse(text, no_pruning=True) == parse(HEAD + PARAMETERS + METRIC)


def test_spec_early_terminate_is_checked_when_the_user_says_no_pruning() -> None:
    """It is left aside, not left unread."""
    with pytest.raises(SpecProblems) as caught:
        parse(HEAD + PARAMETERS + METRIC + "early_terminate: {type: hyperband, min_iter: x}\n", no_pruning=True)
    assert [problem.place for problem in caught.value.problems] == ["sweep.yaml:5:46"]


def test_spec_wandbs_keys_without_effect_are_taken() -> None:
    """What only W&B's own machinery reads changes nothing; the entity is a tag, which the file's own tags may replace."""
    config = parse(HEAD + PARAMETERS + "apiVersion: v1\nkind: sweep\ncontroller: {type: local}\nscheduler: {engine: wandb}\nentity: team\n")
    assert config == replace(parse(HEAD + PARAMETERS), tags={"entity": "team"})
    assert parse(HEAD + PARAMETERS + "entity: team\ntags: {entity: mine, a: b}\n").tags == {"entity": "mine", "a": "b"}


def test_spec_metric_takes_wandbs_target_and_impute() -> None:
    """The target is kept, and what is made of trials without an objective."""
    config = parse(HEAD + PARAMETERS + "metric: {name: loss, goal: maximize, target: 1e-2, impute: worst, impute_while_running: false}\n")
    assert config.metric == Metric("loss", "maximize", target=0.01)
    for word in ("worst", "latest", "best"):
        assert parse(HEAD + PARAMETERS + f"metric: {{name: loss, impute: {word}, impute_while_running: worst}}\n").metric == Metric("loss", impute=word)
    assert [config.metric.is_reached(value) for value in (None, 0.009, 0.01, 1.0)] == [False, False, True, True]
    assert [Metric("l", target=0.5).is_reached(value) for value in (0.6, 0.5, 0.0)] == [False, True, True]


DISTRIBUTED: list[tuple[str, dist.Parameter]] = [
    ("{values: [1, a], probabilities: [0.25, 75e-2]}", dist.CategoricalWithProbabilities("x", (1, "a"), (0.25, 0.75))),
    ("{distribution: categorical_w_probabilities, values: [1], probabilities: [1]}", dist.CategoricalWithProbabilities("x", (1,), (1.0,))),
    ("{distribution: q_uniform, min: 0, max: 4}", dist.QUniform("x", 0.0, 4.0, 1.0)),
    ("{distribution: log_uniform, min: -9, max: 0}", dist.LogUniform("x", -9.0, 0.0)),
    ("{distribution: q_log_uniform, min: 0, max: 3, q: 2}", dist.QLogUniform("x", 0.0, 3.0, 2)),
    ("{distribution: q_log_uniform_values, min: 1, max: 99}", dist.QLogUniformValues("x", 1.0, 99.0, 1.0)),
    ("{distribution: inv_log_uniform, min: 1, max: 3}", dist.InvLogUniform("x", 1.0, 3.0)),
    ("{distribution: inv_log_uniform_values, min: 1e-5, max: 1}", dist.InvLogUniformValues("x", 1e-5, 1.0)),
    ("{distribution: normal}", dist.Normal("x", 0.0, 1.0)),
    ("{distribution: normal, mu: 5, sigma: 0}", dist.Normal("x", 5.0, 0.0)),
    ("{distribution: q_normal, mu: 5, q: 5}", dist.QNormal("x", 5.0, 1.0, 5)),
    ("{distribution: log_normal, sigma: 2}", dist.LogNormal("x", 0.0, 2.0)),
    ("{distribution: q_log_normal}", dist.QLogNormal("x", 0.0, 1.0, 1.0)),
    ("{distribution: beta, a: 2, b: 5e-1}", dist.Beta("x", 2.0, 0.5)),
    ("{distribution: q_beta, q: 0.1}", dist.QBeta("x", 1.0, 1.0, 0.1)),
]


@pytest.mark.parametrize(("text", "expected"), DISTRIBUTED)
def test_spec_distribution_is_read_with_wandbs_defaults(text: str, expected: dist.Parameter) -> None:
    """Each of W&B's names makes its class; what is left out is W&B's default; whole numbers stay whole in `q` alone."""
    (parameter,) = parse(f"{HEAD}parameters:\n  x: {text}\n").parameters
    assert parameter == expected
    assert [type(getattr(parameter, name)) for name in parameter.__struct_fields__] == [type(getattr(expected, name)) for name in expected.__struct_fields__]


def test_spec_every_distribution_of_wandb_is_served() -> None:
    """The names of W&B's schema, and no other."""
    assert sorted(DISTRIBUTIONS) == sorted(
        "constant categorical categorical_w_probabilities uniform int_uniform q_uniform log_uniform log_uniform_values q_log_uniform q_log_uniform_values "
        "inv_log_uniform inv_log_uniform_values normal q_normal log_normal q_log_normal beta q_beta".split()
    )


NESTED = "parameters:\n  lr: {value: 1}\n  opt:\n    parameters:\n      name: {values: [a, b]}\n      deep: {parameters: {x.y: {min: 1, max: 2}}}\n"


def test_spec_nested_parameters_have_names_with_dots() -> None:
    """One parameter each, under its keys joined; the way back is kept for the script, through JSON too."""
    config = parse(HEAD + NESTED)
    assert config.parameters == (dist.Constant("lr", 1), dist.Categorical("opt.name", ("a", "b")), dist.IntUniform("opt.deep.x.y", 1, 2))
    assert config.command.nested == {"opt.name": ("opt", "name"), "opt.deep.x.y": ("opt", "deep", "x.y")}
    back = SweepConfig.from_builtins(json.loads(json.dumps(config.to_builtins())))
    argv = build_argv(back, {"lr": 1, "opt.name": "a", "opt.deep.x.y": 2})
    assert argv[3:] == ("--lr=1", "--opt={'name': 'a', 'deep': {'x.y': 2}}")


def test_spec_strategy_name_replaces_method() -> None:
    """`strategy: {name: tpe}` alone is bayes."""
    config = parse("program: t.py\nmetric: {name: l}\nstrategy: {name: auto, seed: 3}\n" + PARAMETERS)
    assert (config.method, config.seed) == ("bayes", 3)


@pytest.mark.parametrize(
    ("method", "cap", "expected"),
    [("grid", "", 6), ("grid", "run_cap: 4\n", 4), ("grid", "run_cap: 9\n", 6), ("random", "run_cap: 9\n", 9), ("random", "", None)],
)
def test_spec_trials_max_is_the_cap_or_the_grid(method: str, cap: str, expected: int | None) -> None:
    """A grid ends with its last cell, everything else with its cap or never."""
    config = parse(f"program: t.py\nmethod: {method}\n{cap}parameters: {{a: {{values: [1, 2]}}, b: {{min: 1, max: 3}}}}\n")
    assert config.trials_max == expected


@pytest.mark.parametrize(
    ("text", "filename", "names"),
    [
        ("name: n\nproject: p\n", "sweep.yaml", ("n", "p")),
        ("", "lr-sweep.yaml", ("lr-sweep", "folder")),
        ("", "sweep.yaml", ("folder", "folder")),
        ("name: n\n", "sweep.yaml", ("n", "n")),
    ],
)
def test_spec_names_have_defaults(tmp_path: Path, text: str, filename: str, names: tuple[str, str]) -> None:
    """A sweep is named by its file, or by its folder when the file is just `sweep.yaml`; the experiment by `project`, sweep or folder."""
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "train.py").touch()
    config = parse_sweep(text + HEAD + PARAMETERS, filename, project_dir=folder)
    assert (config.name, config.experiment) == names


def test_spec_merge_keys_and_aliases_are_followed() -> None:
    """Anchors, aliases and `<<` work; own keys win over merged ones."""
    config = parse(HEAD + "parameters:\n  a: &a {min: 1, max: 3}\n  b: {<<: *a, max: 9}\n  c: *a\n")
    assert config.parameters == (dist.IntUniform("a", 1, 3), dist.IntUniform("b", 1, 9), dist.IntUniform("c", 1, 3))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: " + "[" * 200_000, "nested over 64 levels"),
        ("a: &a [*a]", "an alias that contains itself"),
        ("l: &l [1,2,3,4,5,6,7,8,9,0]\n" + "".join(f"m{i}: &m{i} [{','.join([f'*m{i - 1}' if i else '*l'] * 10)}]\n" for i in range(9)), "over 200000 values"),
        ("a: !!python/object/apply:os.system [x]", "the tag 'python/object/apply:os.system' is not understood here"),
        ("a: 99999999999999999999", "99999999999999999999 is too large for an integer"),
        ("a: 1e999", "1e999 is too large for a float"),
        ("a: 1\n---\nb: 2\n", "a second YAML document begins here"),
        ("? [a]\n: 1", "a key must be text"),
        ("x" * 2_000_000, "the file is over 1 MB"),
    ],
)
def test_spec_hostile_text_is_a_problem_not_a_crash(text: str, message: str) -> None:
    """Deep nesting, alias bombs, tags and huge files end in a message."""
    assert any(said.startswith(message) for _, said in problems(text))


@pytest.mark.parametrize(("data", "place", "message"), [(b"a: 1\nb: \xff", "2:4", "not UTF-8"), (b"a" * 2_000_000, "", "over 1 MB"), (None, "", "can't read")])
def test_spec_unreadable_file_is_a_problem(tmp_path: Path, data: bytes | None, place: str, message: str) -> None:
    """Bytes that are no text, too many of them, or none at all."""
    path = tmp_path / "sweep.yaml"
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(SpecProblems, match=message) as caught:
        load_sweep(path)
    assert caught.value.problems[0].place == f"{path}:{place}".rstrip(":")


@pytest.mark.parametrize(
    ("line", "place", "message"),
    [
        ("env: {A=B: x}", "4:7", "'A=B' in 'env' is no name for a variable: letters, digits and '_', not beginning with a digit"),
        ("env: {1A: x}", "4:7", "'1A' in 'env' is no name for a variable: letters, digits and '_', not beginning with a digit"),
        ("env: {SWEEP_RUN_TOKEN: x}", "4:7", "'SWEEP_RUN_TOKEN' in 'env' is reserved: the worker tells each trial its own"),
        ("env: {MLFLOW_TRACKING_USERNAME: x}", "4:7", "'MLFLOW_TRACKING_USERNAME' in 'env' is reserved: the worker tells each trial its own"),
        ("env: {MLFLOW_RUN_ID: x}", "4:7", "'MLFLOW_RUN_ID' in 'env' is reserved: the worker tells each trial its own"),
        ("env: {WANDB_SWEEP_ID: x}", "4:7", "'WANDB_SWEEP_ID' in 'env' is reserved: the worker tells each trial its own"),
        (f"env: {{A: {'x' * 100_001}}}", "4:10", "the value of 'A' in 'env' is over 100000 bytes"),
        ("resources: {cpus: 0.001}", "4:19", "'resources.cpus' is at least 0.01, not 0.001"),
        ("resources: {memory: 1m, image: busybox}", "4:21", "'resources.memory' is at least 6m for a container, not 1048576 bytes"),
        ("resources: {image: 'a b'}", "4:20", "'resources.image' is the name of an image, without spaces"),
        ("limits: {time: 100000d}", "4:16", "'limits.time' is a time above zero and at most ten years"),
        ("name: " + "n" * 251, "4:7", "'name' is over 250 characters"),
        ("name: '@latest'", "4:7", "'name' begins with '@', which is kept for references such as @latest"),
        ("queue: " + "q" * 101, "4:8", "'queue' is over 100 characters"),
        ("register: {model: m, artifact: ../x}", "4:32", "'register.artifact' must lie within the project folder"),
        ("collect: {stdout: '(?P<key>a)(?P<value>b){99999999999}'}", "4:19", "'collect.stdout' is no regular expression: the repetition number is too large"),
        ("command: ['${args}', '${program}']", "4:10", "'command' begins with no program"),
    ],
)
def test_spec_tells_what_is_out_of_bounds(line: str, place: str, message: str) -> None:
    """What could not be started, stored or trusted is refused where it stands."""
    assert problems(f"{HEAD}{PARAMETERS}{line}\n") == [(place, message)]


@pytest.mark.parametrize(
    "line", ["env: {MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING: 1, WANDB_MODE: offline, _x: ''}", "resources: {cpus: 0.01, memory: 1m}", "resources: {gpus: 0}"]
)
def test_spec_takes_what_is_just_within_bounds(line: str) -> None:
    """Other variables of MLflow and W&B are the user's; a process needs no 6 MiB."""
    parse(f"{HEAD}{PARAMETERS}{line}\n")


def test_spec_bounds_are_told_beside_other_problems_but_not_twice() -> None:
    """One pass covers both; what the reader has told already is not told again."""
    text = "program: train.py\nmethod: bayes\nparameters: {x: {min: 2, max: 1}}\nenv: {A-B: x}\nlimits: {trials: 0}\n"
    assert [place for place, _ in problems(text)] == ["1:1", "3:31", "4:7", "5:18"]


def test_spec_mapping_refuses_nul_in_a_variable() -> None:
    """A text that no process can be given is refused from Python too."""
    with pytest.raises(SpecProblems, match="'env' holds a NUL character") as caught:
        config_from_mapping({"program": "t.py", "method": "random", "parameters": {"x": {"value": 1}}, "env": {"A": "x\0y"}})
    assert caught.value.problems[0].path == "env"


def test_spec_overrides_are_within_bounds_too(tmp_path: Path) -> None:
    """The command line is not a way around."""
    (tmp_path / "train.py").touch()
    path = tmp_path / "s.yaml"
    path.write_text(HEAD + PARAMETERS)
    with pytest.raises(SpecError, match="'queue' is over 100 characters"):
        load_sweep(path, overrides=Overrides(queue="q" * 101))


def test_spec_byte_order_mark_is_no_character(tmp_path: Path) -> None:
    """Files that Windows editors saved are read."""
    (tmp_path / "train.py").touch()
    path = tmp_path / "s.yaml"
    path.write_bytes(b"\xef\xbb\xbf" + (HEAD + PARAMETERS).encode())
    assert load_sweep(path).config.method == "random"


def test_spec_program_must_be_in_the_project(tmp_path: Path) -> None:
    """A missing file is told before anything is submitted, with the nearest name."""
    (tmp_path / "train.py").touch()
    path = tmp_path / "s.yaml"
    path.write_text("program: trian.py\nmethod: random\n" + PARAMETERS)
    with pytest.raises(SpecProblems) as caught:
        load_sweep(path)
    (problem,) = caught.value.problems
    assert (problem.line, problem.column, problem.suggestion) == (1, 10, "did you mean 'train.py'?")


@pytest.mark.parametrize(("written", "suggestion"), [("-1", ""), ("'2'", "write it without quotes")])
def test_spec_suggests_no_quotes_only_where_there_are_some(written: str, suggestion: str) -> None:
    """A number that is out of bounds is not a text that looks like one."""
    with pytest.raises(SpecProblems) as caught:
        parse(HEAD + PARAMETERS + f"resources: {{cpus: {written}}}\n")
    assert [problem.suggestion for problem in caught.value.problems] == [suggestion]


@pytest.mark.parametrize("program", ["../../etc/passwd", "sub/../../x.py", "/etc/passwd"])
def test_spec_program_stays_in_the_project(tmp_path: Path, program: str) -> None:
    """What lies elsewhere is not sent, whether it is there or not; a name that only looks so is none of that."""
    path = tmp_path / "s.yaml"
    path.write_text(f"program: {program}\nmethod: random\n" + PARAMETERS)
    with pytest.raises(SpecProblems, match=f"'{program}' lies outside the project folder"):
        load_sweep(path)
    (tmp_path / "..x.py").touch()
    path.write_text("program: ..x.py\nmethod: random\n" + PARAMETERS)
    assert load_sweep(path).config.command == MacroCommand(program="..x.py")


def test_spec_program_that_goes_round_to_the_project_is_told_its_name_there(tmp_path: Path) -> None:
    """Named from elsewhere, it lies in the project all the same: what to write is said."""
    (tmp_path / "src").mkdir()
    (tmp_path / "src/train.py").touch()
    path = tmp_path / "s.yaml"
    for program in (f"{tmp_path}/src/train.py", f"../{tmp_path.name}/src/train.py"):
        path.write_text(f"program: {program}\nmethod: random\n" + PARAMETERS)
        with pytest.raises(SpecProblems) as caught:
            load_sweep(path)
        assert [problem.suggestion for problem in caught.value.problems] == ["write 'src/train.py'"]


@pytest.mark.parametrize(
    ("written", "told"),
    [
        ("retry: {max: 1, delay: 0}", "'retry.delay' is a time above zero, not '0'"),
        ("retry: {max: 1, delay: soon}", "'retry.delay' is a time such as 6h, 90s or 1h30m, not 'soon'"),
        ("x: {distribution: q_log_uniform, min: 16, max: 256, q: 16}", "'q_log_uniform_values' takes the values themselves"),
        ("x: {distribution: q_log_uniform, min: 1, max: 2, q: -1}", "'q' of parameter 'x' is above zero, not -1"),
    ],
)
def test_spec_tells_what_a_number_should_have_been(written: str, told: str) -> None:
    """The value that was meant, not only that this one is wrong."""
    text = f"parameters:\n  {written}\n" if written.startswith("x:") else f"{PARAMETERS}{written}\n"
    with pytest.raises(SpecProblems) as caught:
        parse(HEAD + text)
    assert told in str(caught.value.problems[0])


def test_spec_program_after_dash_m_is_a_module(tmp_path: Path) -> None:
    """Only what is run as a file is looked for."""
    path = tmp_path / "s.yaml"
    path.write_text("program: pkg.train\nmethod: random\ncommand: [python, -m, '${program}', '${args}']\n" + PARAMETERS)
    assert load_sweep(path).config.command == MacroCommand(("python", "-m", "${program}", "${args}"), "pkg.train")


def test_spec_code_names_the_folder_to_pack(tmp_path: Path) -> None:
    """`code:` is relative to the file; what must exist is looked for there."""
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "train.py").touch()
    path = tmp_path / "s.yaml"
    path.write_text(HEAD + PARAMETERS + "code: src\n")
    assert load_sweep(path).folder == tmp_path / "src"
    path.write_text(HEAD + PARAMETERS + "code: nowhere\n")
    with pytest.raises(SpecProblems, match="there is no folder") as caught:
        load_sweep(path)
    assert caught.value.problems[0].place == f"{path}:4:7"


MLPROJECT = """
python_env: env.yaml
entry_points:
  main:
    parameters:
      alpha: float
      name: {type: string, default: x y}
    command: python train.py --alpha {alpha} '{name}'
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder with an MLproject and its environment."""
    (tmp_path / "MLproject").write_text(MLPROJECT)
    (tmp_path / "env.yaml").write_text("dependencies: []\n")
    return tmp_path


def test_spec_mlproject_gives_command_and_environment(project: Path) -> None:
    """Without `program`, the MLproject's entry point is what runs."""
    config = parse_sweep("method: grid\nparameters: {alpha: {values: [1, 0.5]}}\n", "s.yaml", project_dir=project)
    assert config.command == TemplateCommand(
        (("python",), ("train.py",), ("--alpha",), ("", "alpha", ""), ("", "name", "")), {"name": "x y"}, ("alpha", "name")
    )
    assert config.environment == Environment("python_env", "env.yaml")


@pytest.mark.parametrize(
    ("text", "place", "message"),
    [
        ("method: random\nparameters: {alhpa: {value: 1}}\n", "2:1", "entry point 'main' needs 'alpha', which 'parameters' does not give"),
        ("method: random\nparameters: {alpha: {values: [1, low]}}\n", "2:30", "'alpha' is a float in the MLproject, and 'low' is not a number"),
        ("method: random\nparameters: {alpha: {value: 1}}\nentry_point: mian\n", "3:14", "there is no entry point 'mian' (there are: 'main')"),
        ("method: random\nparameters: {alpha: {value: 1}}\nentry_point: x.py\n", "3:14", "there is no file 'x.py' in the project folder"),
    ],
)
def test_spec_mlproject_and_sweep_must_agree(project: Path, text: str, place: str, message: str) -> None:
    """Parameters, their types and the entry point are checked against each other, told at the sweep file's place."""
    with pytest.raises(SpecProblems) as caught:
        parse_sweep(text, "s.yaml", project_dir=project)
    (problem,) = caught.value.problems
    assert (problem.place, problem.message) == (f"s.yaml:{place}", message)


def test_spec_problems_of_both_files_are_told_together(project: Path) -> None:
    """One pass covers the sweep file and its MLproject."""
    (project / "MLproject").write_text(MLPROJECT.replace("env.yaml", "no.yaml").replace("'{name}'", "| tee {name}"))
    with pytest.raises(SpecProblems) as caught:
        parse_sweep("method: random\nsede: 1\nparameters: {alpha: {value: 1}}\n", "s.yaml", project_dir=project)
    assert [problem.place for problem in caught.value.problems] == ["s.yaml:2:1", f"{project}/MLproject:2:13", f"{project}/MLproject:8:46"]


def test_spec_image_brings_its_own_environment(project: Path) -> None:
    """With an image, the MLproject's environment is not built."""
    text = "method: random\nresources: {image: i}\nparameters: {alpha: {value: 1}}\n"
    assert parse_sweep(text, "s.yaml", project_dir=project).environment == Environment("docker")


def test_spec_overrides_take_the_place_of_the_files_words(tmp_path: Path) -> None:
    """The command line wins over the file."""
    (tmp_path / "train.py").touch()
    path = tmp_path / "s.yaml"
    path.write_text(HEAD + PARAMETERS + "run_cap: 5\n")
    config = load_sweep(path, overrides=Overrides(name="n", trials=2, parallel=3, queue="gpu")).config
    assert (config.name, config.limits.trials, config.limits.parallel, config.queue) == ("n", 2, 3, "gpu")
    with pytest.raises(SpecError, match="--trials is at least 1"):
        load_sweep(path, overrides=Overrides(trials=0))


def test_spec_submission_carries_everything_to_the_record(tmp_path: Path) -> None:
    """Name, launch, metric and a seed that is always set."""
    (tmp_path / "train.py").touch()
    path = tmp_path / "s.yaml"
    text = HEAD + PARAMETERS + "metric: {name: loss, goal: maximize}\nlimits: {parallel: 2, trial_time: 1m}\nenv: {A: b}\n"
    path.write_text(text)
    new = load_sweep(path).to_new_sweep("abc", "ann")
    assert (new.name, new.metric_name, new.metric_goal, new.metric_from, new.parallel, new.user_name) == ("s", "loss", "maximize", "last", 2, "ann")
    assert (new.launch.code_digest, new.launch.trial_time_s, new.launch.env, new.launch.metric_keys) == ("abc", 60.0, {"A": "b"}, ("loss",))
    assert new.source == text
    assert isinstance(SweepConfig.from_builtins(new.config).seed, int)


def test_spec_project_folder_runs_once_without_a_sweep_file(project: Path) -> None:
    """`sweep run FOLDER -P alpha=0.5` is a grid of one cell whose values are passed as they were typed."""
    submission = load_project(project, params={"alpha": "0.50"})
    assert submission.config.trials_max == 1
    assert submission.config.space.cell(0) == {"alpha": "0.50"}
    with pytest.raises(SpecProblems, match="needs 'alpha'"):
        load_project(project)


@pytest.mark.parametrize(
    ("mlproject", "filename", "names"),
    [
        ("name: proj ü\n", "sweep.yaml", ("proj ü", "proj ü")),
        ("name: proj ü\n", "lr-sweep.yaml", ("lr-sweep", "proj ü")),
        ("name: null\n", "sweep.yaml", ("folder", "folder")),
        ("name: '  '\n", "sweep.yaml", ("folder", "folder")),
    ],
)
def test_spec_mlproject_names_what_the_file_does_not(tmp_path: Path, mlproject: str, filename: str, names: tuple[str, str]) -> None:
    """Its name comes before the folder's; also for a folder without a sweep file."""
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "train.py").touch()
    (folder / "MLproject").write_text(f"{mlproject}entry_points: {{main: {{command: python train.py}}}}\n")
    config = parse_sweep(HEAD + PARAMETERS, filename, project_dir=folder)
    assert (config.name, config.experiment) == names
    assert load_project(folder).config.name == (names[1])


def test_spec_import_is_light() -> None:
    """Commands that read no file and search nothing do not load PyYAML, Optuna or NumPy."""
    code = "import sys, sweeps.spec, sweeps.strategies; print([m for m in ('yaml', 'optuna', 'numpy', 'dataclasses') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("seed", range(100))
def test_spec_broken_file_is_told_with_a_line_that_is_there(seed: int) -> None:
    """A good file with a few slips of the keyboard: read, or refused at lines of the file, and never a bug."""
    rng = Random(seed)  # noqa: S311 -- slips, not secrets
    text = list(EVERYTHING + "early_terminate: {type: hyperband, max_iter: 9, s: 2}\ncontroller: {type: local}\n" + "entity: team\n")
    for _ in range(rng.randint(1, 4)):
        place = rng.randrange(len(text))
        text[place : place + rng.randint(0, 1)] = rng.choice(["", ":", "{", "}", "[", "'", "-", "~", "a\n", "\t", " ", "#", "&", "*"])
    broken = "".join(text)
    try:
        assert parse(broken, no_pruning=True).parameters
    except SpecProblems as error:
        assert all(1 <= problem.line <= len(broken.splitlines()) + 1 and problem.column >= 1 for problem in error.problems)  # noqa: PT017 -- either will do


@pytest.mark.parametrize(
    ("declared", "given", "message"),
    [
        ("int", "{values: [1, 2.5]}", "'p' is an int in the MLproject, and 2.5 is not a whole number"),
        ("int", "{min: 0.1, max: 2.0}", "'p' is an int in the MLproject, and its distribution yields other numbers"),
        ("bool", "{value: maybe}", "'p' is a bool in the MLproject, and 'maybe' is neither true nor false"),
        ("path", "{values: [train.py, gone.csv]}", "'p' is a path in the MLproject, and 'gone.csv' names 'gone.csv', which is not in the project folder"),
        ("uri", "{value: ../x}", "'p' is a uri in the MLproject, and '../x' lies outside the project folder, which is all that is sent"),
        ("int", "{min: 1, max: 4}", None),
        ("float", "{min: 1, max: 4}", None),
        ("string", "{min: 1, max: 4}", None),
        ("bool", "{values: [true, 'no']}", None),
        ("path", "{values: [train.py, /mnt/x]}", None),
    ],
)
def test_spec_values_are_of_the_type_that_the_mlproject_declares(tmp_path: Path, declared: str, given: str, message: str | None) -> None:
    """Whatever a parameter may yield must be of its type, before anything is sent."""
    (tmp_path / "train.py").touch()
    (tmp_path / "MLproject").write_text(f"entry_points:\n  main:\n    parameters: {{p: {declared}}}\n    command: python train.py {{p}}\n")
    text = f"method: random\nparameters:\n  p: {given}\n"
    try:
        parse_sweep(text, "sweep.yaml", project_dir=tmp_path)
        found = []
    except SpecProblems as error:
        found = [(problem.line, problem.message) for problem in error.problems]
    assert found == ([(3, message)] if message else [])


def test_spec_patterns_may_be_a_mapping_as_sagemakers() -> None:
    """Each metric has its own, and what the file takes the worker takes."""
    text = HEAD + PARAMETERS + "collect:\n  stdout:\n    train:error: 'Train=([0-9.]+);'\n    b: '(?P<step>\\step) (?P<value>\\value)'\n"
    collect = parse(text).collect
    assert collect == Collect(patterns={"train:error": "Train=([0-9.]+);", "b": r"(?P<step>\step) (?P<value>\value)"})
    StdoutCollector(collect)


@pytest.mark.parametrize(
    ("pattern", "more", "is_fine"),
    [
        (r"(\key): (\value)", "", True),
        (r"([a-z]+) = ((\d+)(\.\d+)?)", "", True),
        ("auc:(?P<auc>.*)", "", True),
        ("(?P<_key>a) (?P<_val>b)", "", True),
        ("loss (.*)", ", keys: [loss]", True),
        ("loss (.*)", ", keys: [loss, acc]", False),
        ("loss", ", keys: [loss]", False),
        ("(?P<key>a) (b)", "", False),
    ],
)
def test_spec_pattern_is_taken_where_the_worker_takes_it(pattern: str, more: str, is_fine: bool) -> None:
    """The file's check and the worker's reader have one rule."""
    text = f"program: t.py\nmethod: random\nparameters: {{x: {{values: [1]}}}}\ncollect: {{stdout: '{pattern}'{more}}}\n"
    collect = Collect(pattern=pattern, keys=tuple(re.findall(r"\w+", more)[1:]))
    if is_fine:
        assert parse_sweep(text, "s.yaml", project_dir=None).collect == collect
        StdoutCollector(collect)
        return
    with pytest.raises(SpecProblems):
        parse_sweep(text, "s.yaml", project_dir=None)
    with pytest.raises(BadPattern):
        StdoutCollector(collect)
