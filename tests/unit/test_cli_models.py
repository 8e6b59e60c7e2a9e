"""Verbs of the registry, against a made-up server."""

from typing import Any

import pytest

from sweeps.cli import main
from sweeps.client import Client, Refused
from tests.support.fake_server import ACTIVE, RUN_ID, RUNNING, FakeServer


def test_cli_register_names_a_run_when_no_sweep_is_called_so(server: FakeServer, capsys: pytest.CaptureFixture[str]) -> None:
    """A run id works where a sweep's name does."""
    server.says(f"GET /runs/{RUN_ID}", {"schema": 1, "run_id": RUN_ID})
    version = {"name": "m", "version": 2, "aliases": ["champion"], "trial_number": 3, "metric": "rmse", "value": 0.125, "size_bytes": None}
    version |= {"run_id": RUN_ID, "source": f"runs:/{RUN_ID}/model"}
    server.says("POST /models", version | {"schema": 1})
    server.says("GET /models/m", {"schema": 1, "name": "m", "versions": [version, version | {"version": 1}]})
    assert main(["register", RUN_ID, "--model", "m", "--alias", "champion"]) == 0
    out, err = capsys.readouterr()
    assert out == "Registered m v2 (alias champion) from trial 3, rmse 0.125, without an artifact\n"
    assert "Version 1 of m is of the same run and artifact" in err


@pytest.mark.parametrize("more", [[], ["--json"]])
def test_cli_register_says_that_there_is_no_artifact(server: FakeServer, capsys: pytest.CaptureFixture[str], more: list[str]) -> None:
    """With --quiet too: such a version can't be loaded."""
    server.says(f"GET /sweeps/{RUN_ID}", ACTIVE)
    version = {"name": "m", "version": 1, "aliases": [], "trial_number": 3, "metric": None, "value": None, "size_bytes": None, "run_id": RUN_ID, "source": ""}
    server.says("POST /models", version | {"schema": 1})
    assert main(["-q", "register", RUN_ID, "--model", "m", *more]) == 0
    assert capsys.readouterr().err == "warning: The run logged no artifact 'model': the version holds parameters and lineage only.\n"


@pytest.mark.parametrize(
    ("ref", "there", "posted"),
    [
        ("ml/flow", ["GET /sweeps/ml%2Fflow"], {"sweep": ACTIVE["sweep_id"]}),
        ("ml/3", ["GET /runs/ml/3", "GET /sweeps/ml%2F3"], {"run": RUN_ID}),
        ("ml/3", ["GET /sweeps/ml%2F3"], {"sweep": ACTIVE["sweep_id"]}),
    ],
)
def test_cli_register_knows_a_trial_from_a_name_with_slashes(
    server: FakeServer, monkeypatch: pytest.MonkeyPatch, ref: str, there: list[str], posted: Any
) -> None:
    """SWEEP/NUMBER is a run first, anything else a sweep first."""
    for request in there:
        server.says(request, ACTIVE if "sweeps" in request else RUNNING)
    asked: list[dict[str, Any]] = []

    def register(_: Client, body: dict[str, Any]) -> dict[str, Any]:
        asked.append(body)
        raise Refused("seen enough")

    monkeypatch.setattr(Client, "register", register)
    assert main(["register", ref, "--model", "m"]) == 5
    assert asked[0].items() >= posted.items()
