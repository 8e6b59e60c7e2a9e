"""`sweep config`: what counts, where it comes from, and what is not shown."""

import json
from pathlib import Path
from typing import Any

import pytest

from sweeps.cli import main
from sweeps.cli.config import without_secrets


def settings_of(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    """What `sweep config --json` prints, by name."""
    assert main(["config", "--json"]) == 0
    return {entry["name"]: entry for entry in json.loads(capsys.readouterr().out)["settings"]}


def test_config_tells_where_each_setting_comes_from(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The environment, or its default; an empty variable counts as unset, and what an empty setting stands for is told."""
    monkeypatch.setenv("SWEEP_HOME", str(tmp_path))
    monkeypatch.setenv("SWEEP_LEASE_S", "90")
    monkeypatch.setenv("SWEEP_DATABASE_URL", "")
    found = settings_of(capsys)
    assert (found["SWEEP_LEASE_S"]["value"], found["SWEEP_LEASE_S"]["source"]) == (90.0, "environment")
    assert (found["SWEEP_RENEW_S"]["value"], found["SWEEP_RENEW_S"]["source"]) == (5.0, "default")
    assert found["SWEEP_HOME"]["value"] == str(tmp_path)
    assert (found["SWEEP_DATABASE_URL"]["source"], found["SWEEP_DATABASE_URL"]["means"]) == ("default", "the embedded Postgres under SWEEP_HOME")
    assert main(["config"]) == 0
    rows = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert ["SWEEP_LEASE_S", "90", "environment"] in rows
    assert ["SWEEP_DATABASE_URL", "-", "default"] in rows


def test_config_shows_no_secret(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Neither as a table nor as JSON."""
    monkeypatch.setenv("SWEEP_DATABASE_URL", "postgresql://sweep:s3cret@db:5432/sweep?password=s3cret&sslmode=require")
    monkeypatch.setenv("SWEEP_BROKER_URL", "redis://:s3cret@broker/0")
    monkeypatch.setenv("SWEEP_TOKEN", "s3cret")
    for arguments in (["config"], ["config", "--json"]):
        assert main(arguments) == 0
        out = capsys.readouterr().out
        assert "s3cret" not in out
        assert "postgresql://sweep:***@db:5432/sweep?password=***&sslmode=require" in out
        assert "redis://:***@broker/0" in out


@pytest.mark.parametrize(
    ("value", "shown"),
    [("redis://broker/0", "redis://broker/0"), ("http://kim@flower", "http://kim@flower"), ("a:b@c", "a:b@c"), ("redis://u:p@ss@h/0", "redis://u:***@h/0")],
)
def test_config_hides_passwords_only(value: str, shown: str) -> None:
    """What is no password is shown as it stands."""
    assert without_secrets("broker_url", value) == shown


def test_config_warns_of_a_variable_that_is_nearly_a_setting(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """With --quiet too; what a trial is given is no mistake."""
    monkeypatch.setenv("SWEEP_SEVER", "http://h")
    monkeypatch.setenv("SWEEP_RUN_TOKEN", "x")
    assert main(["-q", "config"]) == 0
    assert capsys.readouterr().err == "warning: SWEEP_SEVER is no setting. Did you mean SWEEP_SERVER?\n"
