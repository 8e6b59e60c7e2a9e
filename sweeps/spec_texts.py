"""What each key of the sweep file means, in a sentence or two with an example: for editors, by way of the JSON Schema, and for the docs.

Keys are named by their path: `metric.goal`, `parameters.*.min` for the keys of one parameter. A default is told where leaving the key out
means a value; where it means something else, the sentence says what.
"""

from collections.abc import Mapping
from typing import Any, Final, NamedTuple


class KeyText(NamedTuple):
    """What a key means.

    Attributes:
        text: one or two sentences.
        example: a value that it may have.
        default: what stands for it if it is left out; None where no value does.
    """

    text: str
    example: Any
    default: Any = None


KEY_TEXTS: Final[Mapping[str, KeyText]] = {
    "name": KeyText(
        "The sweep's name, by which commands find it. Unless given: the file's name, or for a `sweep.yaml` the MLproject's or else the folder's.", "resnet-lr"
    ),
    "description": KeyText("What the sweep is for, kept with it as MLflow's note.", "Does a larger batch need a larger rate?", ""),
    "project": KeyText(
        "The experiment that the trials are recorded in; W&B's project is our experiment. Unless given: `name`, or else the MLproject's or the folder's.",
        "vision",
    ),
    "program": KeyText(
        "The script that runs, a file of the project folder. It stands in place of `entry_point`, and for `${program}` in `command`.", "train.py"
    ),
    "command": KeyText(
        "The words of the command, of which those that are exactly a macro such as `${args}` are expanded; no shell is involved.",
        ["${env}", "${interpreter}", "${program}", "--fast", "${args}"],
        ["${env}", "${interpreter}", "${program}", "${args}"],
    ),
    "method": KeyText("How the next trial is found: every cell of a grid, random draws, or a search that learns from the trials so far.", "bayes"),
    "metric": KeyText("The objective: which metric the search makes small or large. `bayes` needs one.", {"name": "val_loss", "goal": "minimize"}),
    "metric.name": KeyText("The metric's name, as the script logs or prints it.", "val_loss"),
    "metric.goal": KeyText("Whether a small or a large value is good.", "maximize", "minimize"),
    "metric.from": KeyText("Which value of its history is a trial's: the one of the last step, or the best one.", "best", "last"),
    "metric.target": KeyText("Nothing more is proposed once a finished trial is as good as this.", 0.01),
    "metric.impute": KeyText(
        "What the search makes of a trial that ended without an objective: worse than all that have one, or as good as its own `latest` or `best` value.",
        "latest",
        "worst",
    ),
    "metric.impute_while_running": KeyText(
        "W&B's word for what the search makes of a trial that still runs: `bayes` takes it for a bad one until it has ended, whatever this says.", False, False
    ),
    "parameters": KeyText(
        "What is searched: a mapping of names to a value, values, bounds or a distribution, or to `parameters` of their own.",
        {"lr": {"min": 0.0001, "max": 0.1}, "opt": {"values": ["sgd", "adam"]}},
    ),
    "run_cap": KeyText("How many trials there are at most: W&B's word for `limits.trials`.", 200),
    "entity": KeyText("W&B's: whose sweep it is there. Kept as the tag `entity`, and without effect.", "my-team"),
    "controller": KeyText("W&B's: where its search runs. Checked, and without effect: the scheduler does the search.", {"type": "cloud"}),
    "controller.type": KeyText("`local` or `cloud`, without effect.", "cloud"),
    "scheduler": KeyText("W&B's: what drives the search there. Its own engine is taken, and without effect; `method` says how to search.", {"engine": "wandb"}),
    "scheduler.engine": KeyText("`wandb`; searches by code of your own (`optuna`, `ax`) are not served.", "wandb"),
    "apiVersion": KeyText("W&B's: the version of the file's form. Read, and without effect.", "v1"),
    "kind": KeyText("W&B's: what the file describes. Checked, and without effect.", "sweep"),
    "code": KeyText("The folder that is packed and sent with the sweep, relative to this file: of the MLproject or of the script.", "../vision", "."),
    "entry_point": KeyText(
        "The entry point of the MLproject, or a script of its folder, in place of `program` and `command`. A parameter of this name chooses among several.",
        "train",
        "main",
    ),
    "limits": KeyText("When the sweep, or one trial, has had enough.", {"trials": 200, "parallel": 8, "time": "6h"}),
    "limits.trials": KeyText("How many trials there are at most. Without it, `random` and `bayes` go on until the sweep is stopped.", 200),
    "limits.parallel": KeyText("How many trials run at once at most. Unless given: as many as the workers can run.", 8),
    "limits.time": KeyText("How long the sweep may go on, from its submission: then running trials are stopped, with the cause `over_budget`.", "6h"),
    "limits.trial_time": KeyText("How long one attempt may run; then it is stopped, with the cause `timed_out`.", "1h30m"),
    "limits.failures": KeyText("So many failed trials end the sweep as failed.", 10),
    "resources": KeyText("What one trial needs of its worker.", {"cpus": 2, "memory": "4g", "gpus": 1}),
    "resources.cpus": KeyText("Processors, also in part.", 2, 1),
    "resources.memory": KeyText("Memory, as a size such as 4g or 512m; a container that takes more ends as `out_of_memory`. Unless given: no limit.", "4g"),
    "resources.gpus": KeyText("GPUs that are the trial's alone.", 1, 0),
    "resources.image": KeyText("The container image that the trial runs in. Unless given: a process on the worker.", "pytorch/pytorch:2.9.0"),
    "queue": KeyText("The label of the workers that may run it.", "gpu", "default"),
    "priority": KeyText("From 0 to 100: where several sweeps wait, the higher goes first.", 80, 50),
    "collect": KeyText("Metrics that the worker reads from the lines a trial prints.", {"keys": ["val_loss", "acc"]}),
    "collect.stdout": KeyText(
        "Whether lines are read, or how: a regular expression with the groups `key` and `value`, or groups named for metrics; or a mapping of "
        "metrics to a regular expression each, whose one group is the value.",
        "(?P<key>\\w+)=(?P<value>\\S+)",
        True,
    ),
    "collect.keys": KeyText(
        "The metrics that are kept beside the one under `metric`; with a pattern and neither of them, all that it finds.", ["val_loss", "acc"]
    ),
    "env": KeyText("Environment variables of each trial.", {"WANDB_MODE": "offline"}),
    "strategy": KeyText("The search by its own name, and its seed.", {"seed": 7}),
    "strategy.name": KeyText("In place of `method`: `tpe`, or `auto` for the one that suits.", "tpe"),
    "strategy.seed": KeyText("What the search's choices and the trials' seeds follow from. Unless given: drawn at submission, and recorded.", 7),
    "register": KeyText("The model version that the best trial becomes when the sweep ends.", {"model": "my-model", "alias": "candidate"}),
    "register.model": KeyText("The registered model's name; made if there is none.", "my-model"),
    "register.artifact": KeyText("Where the model lies among the trial's artifacts.", "checkpoints/best", "model"),
    "register.alias": KeyText("An alias that the version gets, and an earlier one loses.", "candidate"),
    "retry": KeyText("Further attempts for failures of your own code; the machinery's have a budget of their own.", {"max": 2, "on": ["out_of_memory"]}),
    "retry.max": KeyText("How many further attempts a run gets, up to 100.", 2),
    "retry.on": KeyText(
        "The ends that are tried again: causes, `exit_75` for one exit status, `signal_9` for one signal.",
        ["out_of_memory", "exit_75"],
        ["exit_status", "signal", "out_of_memory", "timed_out"],
    ),
    "retry.delay": KeyText("How long the run waits before its first further attempt; each wait is twice the last.", "10s", "1s"),
    "retry.delay_max": KeyText("How long it waits at most. Unless given: 60s, or `delay` if that is more.", "5m"),
    "tags": KeyText("Names and texts kept with the sweep, to find it by.", {"team": "vision"}),
    "compat": KeyText("`wandb` puts a stand-in for the package `wandb` on each trial's path: scripts that log with it run as they are.", "wandb"),
    "early_terminate": KeyText(
        "W&B's rule for stopping trials that will not win. It is checked, and not served yet: submit with `--no-pruning`.", {"type": "hyperband", "min_iter": 3}
    ),
    "early_terminate.type": KeyText("The rule's name.", "hyperband"),
    "early_terminate.min_iter": KeyText("The first iteration at which a trial may be stopped.", 3),
    "early_terminate.max_iter": KeyText("The last iteration of a trial; with `s`, in place of `min_iter`.", 27),
    "early_terminate.s": KeyText("How many brackets there are, with `max_iter`.", 2),
    "early_terminate.eta": KeyText("One in so many goes on from each bracket to the next.", 4, 3),
    "early_terminate.strict": KeyText("Whether trials are also stopped between brackets.", True, False),
    "parameters.*.distribution": KeyText("How values are drawn. Unless given, the other keys tell it.", "log_uniform_values"),
    "parameters.*.value": KeyText("The one value.", 0.1),
    "parameters.*.values": KeyText("The values to choose from, of any kind.", ["sgd", "adam"]),
    "parameters.*.probabilities": KeyText("How likely each of `values` is; together they make 1.", [0.8, 0.2]),
    "parameters.*.min": KeyText("The least value; of `log_uniform`, `q_log_uniform` and `inv_log_uniform` the least exponent of e.", 0.0001),
    "parameters.*.max": KeyText("The greatest value; of `log_uniform`, `q_log_uniform` and `inv_log_uniform` the greatest exponent of e.", 0.1),
    "parameters.*.q": KeyText("Values are rounded to multiples of it: of whole numbers to whole numbers.", 8),
    "parameters.*.mu": KeyText("The mean; of `log_normal` and `q_log_normal` that of the logarithm.", 0.5),
    "parameters.*.sigma": KeyText("The standard deviation; of `log_normal` and `q_log_normal` that of the logarithm.", 0.1),
    "parameters.*.a": KeyText("The beta distribution's first shape, from 0.001 to 1000000.", 2),
    "parameters.*.b": KeyText("The beta distribution's second shape, from 0.001 to 1000000.", 5),
    "parameters.*.parameters": KeyText(
        "Parameters within this one: recorded as names with dots, and given to the script nested.", {"lr": {"min": 0.001, "max": 0.1}}
    ),
}
"""By path, in the order of the docs."""

DISTRIBUTION_TEXTS: Final[Mapping[str, str]] = {
    "constant": "Always the value.",
    "categorical": "One of the values, each as likely.",
    "categorical_w_probabilities": "One of the values, each by its own probability.",
    "uniform": "A float between the bounds.",
    "int_uniform": "A whole number between the bounds, both included.",
    "q_uniform": "round(X / q) q, where X is uniform between the bounds.",
    "log_uniform": "e^X, where X is uniform: the bounds are exponents of e.",
    "log_uniform_values": "A float between the bounds whose logarithm is uniform.",
    "q_log_uniform": "round(e^X / q) q, where X is uniform: the bounds are exponents of e.",
    "q_log_uniform_values": "round(X / q) q, where the logarithm of X is uniform.",
    "inv_log_uniform": "X such that log(1 / X) is uniform between the bounds.",
    "inv_log_uniform_values": "X such that log(1 / X) is uniform between log(1 / max) and log(1 / min).",
    "normal": "A float, normally distributed.",
    "q_normal": "round(X / q) q, where X is normally distributed.",
    "log_normal": "e^X, where X is normally distributed.",
    "q_log_normal": "round(e^X / q) q, where X is normally distributed.",
    "beta": "A float between 0 and 1, by the beta distribution.",
    "q_beta": "round(X / q) q, where X follows the beta distribution.",
}

DISTRIBUTION_EXAMPLES: Final[Mapping[str, Mapping[str, Any]]] = {
    "constant": {"value": 0.1},
    "categorical": {"values": ["sgd", "adam"]},
    "categorical_w_probabilities": {"values": ["sgd", "adam"], "probabilities": [0.8, 0.2]},
    "uniform": {"min": 0.0, "max": 0.5},
    "int_uniform": {"min": 1, "max": 8},
    "q_uniform": {"min": 0, "max": 512, "q": 32},
    "log_uniform": {"min": -9, "max": 0},
    "log_uniform_values": {"min": 0.0001, "max": 0.1},
    "q_log_uniform": {"min": 0, "max": 6, "q": 8},
    "q_log_uniform_values": {"min": 16, "max": 1024, "q": 16},
    "inv_log_uniform": {"min": 0, "max": 9},
    "inv_log_uniform_values": {"min": 0.0001, "max": 0.1},
    "normal": {"mu": 0.5, "sigma": 0.1},
    "q_normal": {"mu": 64, "sigma": 16, "q": 8},
    "log_normal": {"mu": -3, "sigma": 1},
    "q_log_normal": {"mu": 4, "sigma": 1, "q": 8},
    "beta": {"a": 2, "b": 5},
    "q_beta": {"a": 2, "b": 5, "q": 0.1},
}
"""Each whole, but for its name."""
