"""Charts that the stand-in for `wandb` counts by itself, and the few names that scripts take from W&B's inner modules."""

import subprocess
import sys

import pytest

from worker.surroundings import CLIENT_FOLDER

TRUTH = [0, 0, 1, 1]
PROBAS = [[0.9, 0.1], [0.6, 0.4], [0.65, 0.35], [0.2, 0.8]]


def run(script: str) -> str:
    """What a script prints that has the stand-in on its path."""
    environ = {"PYTHONPATH": f"{CLIENT_FOLDER}/compat_wandb:{CLIENT_FOLDER}", "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run([sys.executable, "-c", f"import wandb\n{script}"], env=environ, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        # By hand: of class 1 the probabilities fall 0.8 (true), 0.4 (false), 0.35 (true), 0.1 (false).
        (f"roc_curve({TRUTH}, {PROBAS}, classes_to_plot=[1])", [[1, 0, 0], [1, 0, 0.5], [1, 0.5, 0.5], [1, 0.5, 1], [1, 1, 1]]),
        (f"roc_curve({TRUTH}, {PROBAS}, labels=['cat', 'dog'], classes_to_plot=[0]).data[0:1]", [["cat", 0, 0]]),
        (f"pr_curve({TRUTH}, {PROBAS}, classes_to_plot=[1], interp_size=3)", [[1, 0.667, 1], [1, 1, 0.5], [1, 1, 0]]),
        # The same probability is one point.
        ("roc_curve([0, 1], [[0.5, 0.5], [0.5, 0.5]], classes_to_plot=[1])", [[1, 0, 0], [1, 1, 1]]),
    ],
)
def test_wandb_plot_counts_curves_without_other_packages(call: str, expected: list[list[object]]) -> None:
    """The table has W&B's columns, a row for each point."""
    found = run(f"made = wandb.plot.{call}\nprint(made if isinstance(made, list) else made.data)")
    assert eval(found) == expected  # noqa: S307 -- what our own script has printed


def test_wandb_inner_names_that_scripts_take_are_there() -> None:
    """A run's class in an annotation, by both ways to it, and an id for a run."""
    script = "from wandb.sdk.wandb_run import Run\nassert Run is wandb.sdk.wandb_run.Run is wandb.Run\nassert wandb.sdk.wandb_config.Config is wandb.Config"
    ids = run(f"{script}\nprint(wandb.util.generate_id(), wandb.util.generate_id())").split()
    assert [len(one) for one in ids] == [8, 8]
    assert ids[0] != ids[1]
