"""Runs in the environment of the peers: answers, a line of JSON for each line of JSON, by the code of W&B's packages `sweeps` and `wandb`.

Nothing of this project is imported here. A question is `[function, argument...]`, an answer `{"answer": ...}`, or `{"error": ...}` where W&B's
code raised.
"""

import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

# NumPy warns of what SciPy makes of the ends of a distribution.
os.environ["PYTHONWARNINGS"] = "ignore"


def infer(config: dict[str, Any]) -> list[Any] | None:
    """The kind of a parameter, as W&B's schema calls it, and its keys with the defaults filled in; None if it fits no kind."""
    from sweeps.config import fill_parameter

    found = fill_parameter("x", config)
    return None if found is None else list(found)


def quantiles(config: dict[str, Any], shares: list[float]) -> list[Any]:
    """The value of a parameter at each share, one by one, as its sampler asks for them."""
    import numpy as np
    from sweeps.params import HyperParameter

    parameter = HyperParameter("x", config)
    values = [parameter.ppf(share) for share in shares]
    return [value.item() if isinstance(value, (np.generic, np.ndarray)) else value for value in values]


def cells(config: dict[str, Any], most: int) -> list[dict[str, Any]]:
    """What W&B's grid proposes, at most so many, in its order, as the agent hands them to the command."""
    from sweeps import next_runs

    return [run.config for run in next_runs(config, [], n=most) if run is not None]


def violations(text: str) -> list[list[Any]]:
    """What W&B finds wrong with a sweep file: the key path, the value there, what is said of it."""
    import yaml
    from sweeps.config.schema import validator

    from sweeps import schema_violations_from_proposed_config

    config = yaml.safe_load(text)
    by_schema = [[list(error.absolute_path), error.instance, error.message] for error in validator.iter_errors(config)]
    told = schema_violations_from_proposed_config(config)
    return by_schema + [[[], None, message] for message in told[len(by_schema) :]]


def argv(command: list[Any], program: str, args: dict[str, Any], environ: dict[str, str]) -> list[Any]:
    """The argument vector that W&B's agent starts for one run, and what it has written where `${args_json_file}` points."""
    from wandb import wandb_agent

    started: list[Any] = []

    class Process:
        """Starts nothing."""

        def __init__(self, command: list[str], **_kwargs: Any) -> None:
            started.extend(command)

    wandb_agent.AgentProcess = Process
    agent = object.__new__(wandb_agent.Agent)
    agent.__dict__.update(_in_jupyter=False, _sweep_command=list(command), _function=None, _run_processes={}, _forward_signals=False)
    os.environ.update(environ)
    # Not by _process_command, which swallows what is raised.
    agent._command_run({"type": "run", "run_id": "r", "program": program, "args": args})
    path = Path(os.environ["WANDB_DIR"], "wandb", "sweep-s", "config-r.json")
    words = [word if word != str(path) else "${args_json_file}" for word in started]
    return [words, path.read_text(encoding="utf-8") if "${args_json_file}" in command else None]


def written_config(args: dict[str, Any]) -> dict[str, Any]:
    """What W&B's client reads of the file that W&B's agent writes for a run."""
    argv([], "x", args, {})
    return read_config(Path(os.environ["WANDB_DIR"], "wandb", "sweep-s", "config-r.yaml").read_text(encoding="utf-8"))


def read_config(text: str) -> dict[str, Any]:
    """What W&B's client reads of a file of parameters."""
    from wandb.sdk.lib import config_util

    path = Path(os.environ["WANDB_DIR"], "read.yaml")
    path.write_text(text, encoding="utf-8")
    found: dict[str, Any] = config_util.dict_from_config_file(str(path))
    return found


def main() -> None:
    """Answer until the questions end."""
    import warnings

    warnings.simplefilter("ignore")
    functions = {function.__name__: function for function in (infer, quantiles, cells, violations, argv, written_config, read_config)}
    answers, sys.stdout = sys.stdout, sys.stderr  # whatever W&B's code prints is no answer
    with tempfile.TemporaryDirectory() as folder:
        os.environ.update(WANDB_DIR=folder, WANDB_SWEEP_ID="s", WANDB_MODE="offline", WANDB_SILENT="true", WANDB_ERROR_REPORTING="false")
        os.chdir(folder)
        for line in sys.stdin:
            name, *args = json.loads(line)
            try:
                answer = {"answer": functions[name](*args)}
            except Exception as error:  # noqa: BLE001 -- whatever W&B's code raises is its answer
                answer = {"error": f"{type(error).__name__}: {error}"}
            answers.write(json.dumps(answer, default=str) + "\n")
            answers.flush()


if __name__ == "__main__":
    main()
