"""What somebody types first who comes from W&B."""

from pathlib import Path

import pytest

from sweeps.cli import main
from sweeps.spec import load_sweep


@pytest.mark.parametrize(
    ("script", "options", "compat"),
    [
        ("import wandb\n", [], "wandb"),
        ("def f():\n    from wandb import log\n", [], "wandb"),
        ("import os, wandb\n", [], "wandb"),
        ("# import wandb\nimport wandbish\n", [], None),
        ("print('loss=1')\n", ["--from", "wandb"], "wandb"),
    ],
)
def test_cli_init_gives_a_script_that_imports_wandb_the_line_it_needs(tmp_path: Path, script: str, options: list[str], compat: str | None) -> None:
    """Without it the first trial would fail."""
    (tmp_path / "train.py").write_text(script)
    assert main(["-q", "init", str(tmp_path), *options]) == 0
    assert load_sweep(tmp_path / "sweep.yaml").config.compat == compat


def test_cli_told_to_run_a_script_says_what_it_takes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Not that Python is bad YAML."""
    (tmp_path / "train.py").write_text("import wandb\n")
    assert main(["validate", str(tmp_path / "train.py")]) == 2
    assert f"train.py is a script, not a sweep file; `sweep init {tmp_path}` writes one" in capsys.readouterr().err
