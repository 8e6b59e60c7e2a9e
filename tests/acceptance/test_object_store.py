"""A cluster that keeps its artifacts and code in S3: only the server knows."""

from pathlib import Path

from tests.support.cluster import Cluster, stopped_afterwards
from tests.support.projects import write_project
from tests.support.s3_server import CREDENTIALS, s3_server

PROGRAM = """
import pathlib, sweep_client
pathlib.Path("model").mkdir()
pathlib.Path("model/weights").write_text("trained " + pathlib.Path("start.txt").read_text())
print("loss=1")
sweep_client.log_artifact("model")
"""


def test_sweep_runs_over_s3(module_database_url: str, tmp_path: Path) -> None:
    """Code travels, files are logged, the model that is registered has its size; workers need no credentials for the store."""
    project = write_project(tmp_path / "project", PROGRAM, metric={"name": "loss", "goal": "minimize"}, register={"model": "kept", "artifact": "model"})
    (project.parent / "start.txt").write_text("anew")
    with (
        s3_server(tmp_path) as s3,
        stopped_afterwards(Cluster(tmp_path, module_database_url, f"filesystem://{tmp_path}/broker")) as cluster,
    ):
        bucket = s3.new_bucket()
        everybody, cluster.environ = cluster.environ, {**CREDENTIALS, "SWEEP_ARTIFACT_ROOT": f"s3://{bucket}/team", "SWEEP_ARTIFACT_ENDPOINT": s3.url}
        cluster.start_server()
        cluster.environ = everybody
        cluster.start_scheduler()
        cluster.start_worker("w1")
        sweep_id = cluster.submit(project)
        (trial,) = cluster.wait_for_end(sweep_id)
        assert trial["state"] == "finished"
        (version,) = cluster.sweep_json("models", "show", "kept")["versions"]
        assert version["size_bytes"] == len("trained anew")
        kept = s3.get(bucket, "list-type=2")
        assert f"/{trial['run_id']}/artifacts/model/weights</Key>" in kept
        assert "<Key>team/snapshots/" in kept
        assert not (tmp_path / "artifacts").exists()
        (finding,) = (each for each in cluster.sweep_json("doctor")["checks"] if each["check"] == "artifacts")
        assert (finding["verdict"], finding["message"]) == ("OK", f"s3://{bucket}/team")


def test_server_does_not_start_when_the_package_for_its_place_is_missing(module_database_url: str, tmp_path: Path) -> None:
    """It names what to install, and no traceback."""
    cluster = Cluster(tmp_path, module_database_url, "none", {"SWEEP_ARTIFACT_ROOT": "oss://bucket/folder"})
    ended = cluster.sweep("server", "--port", "0", status=2)
    assert "Install ossfs" in ended.stderr
    assert "Traceback" not in ended.stderr
