"""The thin client: what a trial logs arrives once, in order and in batches; nothing it does breaks or blocks training."""

import ast
import atexit
import importlib.util
import math
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from tests.support.threads import NoThreads
from tests.support.tracking_server import FakeServer, fake_server
from tracking.client import sweep_client as shipped

SOURCE = Path(shipped.__file__)


@pytest.fixture
def server() -> Iterator[FakeServer]:
    """A server that takes everything unless told otherwise."""
    with fake_server() as fake:
        yield fake


def load_client() -> ModuleType:
    """The module as a fresh process would have it."""
    spec = importlib.util.spec_from_file_location("sweep_client_under_test", SOURCE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def client(server: FakeServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The client inside a trial whose server is the fake one; retries come quickly."""
    monkeypatch.setenv("SWEEP_TRACKING_URI", server.url)
    monkeypatch.setenv("SWEEP_RUN_ID", "r1")
    monkeypatch.setenv("SWEEP_RUN_TOKEN", "sat_token")
    module = load_client()
    monkeypatch.setattr(module, "_BACKOFF_MAX_S", 0.02)
    yield module
    server.gate.set()
    logger = module._logger()
    logger._give_up()
    # What it has to say at the end of a process it would say at pytest's.
    atexit.unregister(logger.flush_at_exit)
    if logger._thread is not None:
        logger._thread.join(20)


def test_log_arrives_in_order_with_steps(client: ModuleType, server: FakeServer) -> None:
    """Steps are the caller's, or count on from the largest so far."""
    client.log({"a": 1, "b": 2.5})
    client.log({"a": 3})
    client.log({"a": 4}, step=10)
    client.log({"a": 5})
    assert client.flush(20)
    assert server.points == [("a", 1.0, 0), ("b", 2.5, 0), ("a", 3.0, 1), ("a", 4.0, 10), ("a", 5.0, 11)]
    assert server.tokens == {"Bearer sat_token"}
    assert {batch["run_id"] for batch in server.batches} == {"r1"}


def test_log_sends_batches_of_a_thousand(client: ModuleType, server: FakeServer) -> None:
    """What gathers while the server is slow goes out in as few requests as the protocol allows."""
    server.gate.clear()
    for step in range(3500):
        client.log({"m": step}, step=step)
    server.gate.set()
    assert client.flush(20)
    assert [value for _, value, _ in server.points] == list(range(3500))
    assert max(len(batch["metrics"]) for batch in server.batches) == 1000
    assert len(server.batches) <= 6


def test_log_takes_whatever_is_a_number(client: ModuleType, server: FakeServer, capsys: pytest.CaptureFixture[str]) -> None:
    """Anything that float() takes; NaN and infinities as the protocol writes them; the rest is told once and left out."""

    class Scalar:
        def __float__(self) -> float:
            return 1.5

    class Broken:
        def __float__(self) -> float:
            raise RuntimeError("on another device")

    values = {"bool": True, "scalar": Scalar(), "nan": math.nan, "inf": math.inf, "low": -math.inf, "none": None, "text": "many", "broken": Broken()}
    for _ in range(2):
        client.log(values, step=0)
    assert client.flush(20)
    assert {key: value for key, value, _ in server.points} == {"bool": 1.0, "scalar": 1.5, "nan": "NaN", "inf": "Infinity", "low": "-Infinity"}
    told = capsys.readouterr().err
    assert [told.count(f"metric '{name}'") for name in ("none", "text", "broken")] == [1, 1, 1]


def test_log_takes_an_array_of_one_element_as_a_number(client: ModuleType, server: FakeServer, capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever its shape; a number too large for a float is infinite, as in JSON."""
    values = {"flat": np.array([1.5]), "deep": np.array([[2.5]]), "scalar": np.array(3.5), "text": np.array(["a"]), "two": np.array([1, 2])}
    client.log({**values, "large": 10**400, "low": -(10**400)}, step=0)
    assert client.flush(20)
    assert server.points == [("flat", 1.5, 0), ("deep", 2.5, 0), ("scalar", 3.5, 0), ("large", "Infinity", 0), ("low", "-Infinity", 0)]
    told = capsys.readouterr().err
    assert [told.count(f"metric '{name}'") for name in ("text", "two")] == [1, 1]


def test_log_keeps_the_order_of_points_of_one_step_in_their_times(client: ModuleType, server: FakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of points with one step and one time the record takes the greatest for the last; where the step grows, the time is the clock's."""
    monkeypatch.setattr(client.time, "time", lambda: 50.0)
    for loss, step in ((9, 1), (1, 1), (8, 2), (7, 1), (2, 2), (3, 3)):
        client.log({"loss": loss}, step=step)
    client.log({"acc": 1}, step=1)
    monkeypatch.undo()
    assert client.flush(20)
    found = [(point["key"], point["value"], point["timestamp"] - 50_000) for batch in server.batches for point in batch["metrics"]]
    assert found == [("loss", 9, 0), ("loss", 1, 1), ("loss", 8, 0), ("loss", 7, 2), ("loss", 2, 3), ("loss", 3, 0), ("acc", 1, 0)]


@pytest.mark.parametrize("step", ["x", 2**63, math.nan])
def test_log_leaves_out_a_step_that_is_none(client: ModuleType, server: FakeServer, capsys: pytest.CaptureFixture[str], step: object) -> None:
    """It is told, and the next point is logged."""
    client.log({"m": 1}, step=step)
    client.log({"m": 2})
    assert client.flush(20)
    assert server.points == [("m", 2.0, 0)]
    assert "step" in capsys.readouterr().err


def test_bad_names_cost_nothing_but_themselves(client: ModuleType, server: FakeServer, capsys: pytest.CaptureFixture[str]) -> None:
    """The server would refuse the whole batch for one of them."""
    client.log({"good/one": 1, "bad\tone": 2, "\ud800": 3, "": 4, " ": 4, "x" * 251: 5})
    client.set_tag("bad\ntag", "x")
    client.set_tag("good tag", "x")
    assert client.flush(20)
    assert ([key for key, _, _ in server.points], server.tags) == (["good/one"], {"good tag": "x"})
    told = capsys.readouterr().err
    assert "'bad\\tone' is no name" in told
    assert "over 250 characters" in told


def test_names_that_can_be_printed_are_kept(client: ModuleType, server: FakeServer, capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever other tools call their metrics, parameters and tags."""
    names = ["metrics/mAP50(B)", "mAP@0.5", "Acc (%)", "f1>0.5", "a=b", "val loss, mean", "R²", "../up", "x" * 250]
    client.log(dict.fromkeys(names, 1))
    client.log_params(dict.fromkeys(names, 1))
    client.set_tags(dict.fromkeys(names, 1))
    assert client.flush(20)
    assert [key for key, _, _ in server.points] == list(server.params) == list(server.tags) == names
    assert capsys.readouterr().err == ""


def test_params_and_tags_arrive_as_text(client: ModuleType, server: FakeServer) -> None:
    """However many there are, at most a hundred of each in a request."""
    client.log_param("lr", 0.1)
    client.log_params({f"p{number}": number for number in range(250)})
    client.set_tags({"a": True})
    assert client.flush(20)
    assert server.params == {"lr": "0.1", **{f"p{number}": str(number) for number in range(250)}}
    assert server.tags == {"a": "True"}
    assert max(len(batch["params"]) for batch in server.batches) <= 100


def test_refused_parameter_costs_nothing_but_itself(client: ModuleType, server: FakeServer, capsys: pytest.CaptureFixture[str]) -> None:
    """One value that may not change; points, tags and the other parameters of its batch arrive once."""

    def refuse(path: str, body: Any) -> tuple[int, dict[str, Any]]:
        bad = any(param["key"] == "bad" for param in body["params"])
        return (400, {"error_code": "INVALID_PARAMETER_VALUE", "message": "Changing param values"}) if bad else (200, {})

    server.answer = refuse
    client.log_params({"good": 1, "bad": 2})
    client.set_tag("t", "x")
    client.log({"m": 1})
    assert client.flush(20)
    assert (server.points, server.params, server.tags) == ([("m", 1.0, 0)], {"good": "1"}, {"t": "x"})
    assert capsys.readouterr().err.count("Changing param values (400)") == 1


@pytest.mark.parametrize("status", [408, 429, 500, 503])
def test_points_wait_while_the_server_is_away(client: ModuleType, server: FakeServer, capsys: pytest.CaptureFixture[str], status: int) -> None:
    """They are sent again until they arrive, once, and that is told once."""
    failures = iter([True] * 3)
    server.answer = lambda *_: (status, {}) if next(failures, False) else (200, {})
    client.log({"m": 1})
    client.log_param("p", 1)
    assert client.flush(20)
    assert (server.refused, server.points, server.params) == (3, [("m", 1.0, 0)], {"p": "1"})
    assert capsys.readouterr().err.count("tried again") == 1


def test_points_wait_while_nobody_listens(client: ModuleType, server: FakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A refused connection is an outage like others: logging goes on, flush tells that it failed."""
    logger = client._logger()
    monkeypatch.setattr(logger, "_uri", "http://127.0.0.1:9")
    client.log({"m": 1})
    assert not client.flush(0.3)
    assert logger._has_items() or logger._is_sending
    client.log({"m": 2})


@pytest.mark.parametrize("status", [401, 403, 409])
def test_client_stops_when_the_run_is_no_longer_its_own(client: ModuleType, server: FakeServer, capsys: pytest.CaptureFixture[str], status: int) -> None:
    """Another attempt has taken over: nothing more is sent, the script goes on."""
    server.answer = lambda *_: (status, {"message": "not yours"})
    client.log({"m": 1})
    assert not client.flush(20)
    client.log({"m": 2})
    client.set_tag("a", "b")
    assert not client.flush(20)
    assert server.refused == 1
    assert "not yours" in capsys.readouterr().err


def test_log_never_waits_for_the_server(client: ModuleType, server: FakeServer) -> None:
    """Ten thousand points while the server does not answer at all take no time worth speaking of."""
    server.gate.clear()
    began = time.perf_counter()
    for step in range(10_000):
        client.log({"m": step})
    assert time.perf_counter() - began < 5
    server.gate.set()
    assert client.flush(30)
    assert len(server.points) == 10_000


def test_buffer_is_bounded(client: ModuleType, server: FakeServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Over the bound the oldest points go: the objective is the last one. It is told once."""
    monkeypatch.setattr(client, "MAX_BUFFERED_POINTS", 10)
    monkeypatch.setattr(client, "MAX_BUFFERED_TEXTS", 5)
    server.gate.clear()
    client.log({"first": 1})
    assert server.arrived.wait(20)
    for step in range(50):
        client.log({"m": step}, step=step)
        client.log_param(f"p{step}", step)
    server.gate.set()
    assert client.flush(20)
    assert [value for key, value, _ in server.points if key == "m"] == list(range(40, 50))
    assert len(server.params) == 5
    assert server.tags == {"sweep.dropped_points": "40"}
    assert capsys.readouterr().err.count("buffer is full") == 2


def test_buffer_that_fills_slows_down_who_logs_and_drops_nothing(client: ModuleType, server: FakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """As long as the server takes what is sent."""
    monkeypatch.setattr(client, "MAX_BUFFERED_POINTS", 4000)
    client.log({"m": -1})
    assert client.flush(20)
    for step in range(30_000):
        client.log({"m": step}, step=step)
    assert client.flush(30)
    assert [value for _, value, _ in server.points] == list(range(-1, 30_000))
    assert server.tags == {}


def test_buffer_that_fills_while_nothing_is_sent_holds_up_nobody(client: ModuleType, server: FakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Waiting for a server that hangs would end with dropped points all the same."""
    monkeypatch.setattr(client, "MAX_BUFFERED_POINTS", 1000)
    client.log({"m": -1})
    assert client.flush(20)
    server.gate.clear()
    began = time.perf_counter()
    for step in range(10_000):
        client.log({"m": step}, step=step)
    assert time.perf_counter() - began < 10
    server.gate.set()
    assert client.flush(20)
    assert server.points[-1] == ("m", 9999, 9999)


def test_artifacts_are_stored_below_the_run(client: ModuleType, server: FakeServer, tmp_path: Path) -> None:
    """A file, a file under a path, a folder under its name, and what a folder holds."""
    folder = tmp_path / "model"
    (folder / "deep").mkdir(parents=True)
    (folder / "w.bin").write_bytes(b"w")
    (folder / "deep" / "ü #1.txt").write_bytes(b"d")
    assert client.log_artifact(folder / "w.bin")
    assert client.log_artifact(str(folder / "w.bin"), "sub/path")
    assert client.log_artifact(folder)
    assert client.log_artifacts(folder, artifact_path="all")
    root = "/api/2.0/mlflow-artifacts/artifacts/7/r1/artifacts"
    names = ["w.bin", "sub/path/w.bin", "model/w.bin", "model/deep/%C3%BC%20%231.txt", "all/w.bin", "all/deep/%C3%BC%20%231.txt"]
    assert sorted(server.files) == sorted(f"{root}/{name}" for name in names)
    assert set(server.files.values()) == {b"w", b"d"}


def test_artifact_is_sent_again_while_the_server_is_away(client: ModuleType, server: FakeServer, tmp_path: Path) -> None:
    """From its beginning."""
    (tmp_path / "a").write_bytes(b"content")
    failures = iter([True] * 3)
    server.answer = lambda *_: (503, {}) if next(failures, False) else (200, {})
    assert client.log_artifact(tmp_path / "a")
    assert list(server.files.values()) == [b"content"]


def test_artifact_that_is_refused_is_told_and_breaks_nothing(
    client: ModuleType, server: FakeServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A missing file and a refusal answer False."""
    (tmp_path / "a").write_bytes(b"x")
    assert not client.log_artifact(tmp_path / "absent")
    server.answer = lambda *_: (413, {"message": "over the limit"})
    assert not client.log_artifacts(tmp_path)
    told = capsys.readouterr().err
    assert "absent" in told
    assert "over the limit (413)" in told


def test_artifact_that_is_kept_elsewhere_is_told_and_not_sent(
    client: ModuleType, server: FakeServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An experiment with a store of its own: the server does not open that, nor does this client."""
    server.artifact_uri = "s3://bucket/root/r1/artifacts"
    (tmp_path / "a").write_bytes(b"x")
    assert not client.log_artifact(tmp_path / "a")
    assert "s3://bucket/root/r1/artifacts" in capsys.readouterr().err
    assert server.files == {}


def test_params_come_from_the_environment_or_a_file(client: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """With their types; many parameters do not fit into the environment."""
    monkeypatch.setenv("SWEEP_PARAMS", '{"lr": 0.1, "layers": [1, 2]}')
    assert client.params() == {"lr": 0.1, "layers": [1, 2]}
    monkeypatch.setenv("SWEEP_PARAMS", "")
    (tmp_path / "params.json").write_text('{"name": "ü"}', encoding="utf-8")
    monkeypatch.setenv("SWEEP_PARAMS_FILE", str(tmp_path / "params.json"))
    assert client.params() == {"name": "ü"}
    assert client.run_id == "r1"


def run_python(script: str, **environ: str) -> "subprocess.CompletedProcess[str]":
    """Run a script as a trial runs it: the client's folder on the path, nothing else of ours."""
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(SOURCE.parent), **environ}
    return subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=60, check=False)


def test_client_does_nothing_outside_a_trial() -> None:
    """The same script runs by hand; that is told once and nothing is waited for."""
    script = """
import sweep_client
assert sweep_client.params() == {} and sweep_client.run_id == ""
sweep_client.log({"m": 1}); sweep_client.log_params({"a": 1}); sweep_client.set_tag("a", "b")
assert sweep_client.log_artifact(__import__("sys").executable) is False
assert sweep_client.flush() is True
"""
    ended = run_python(script)
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr == f"sweep_client: {shipped._OUTSIDE}\n"


def test_client_flushes_when_the_process_ends(server: FakeServer) -> None:
    """The last points are the ones that count."""
    script = "import sweep_client\nfor i in range(2500): sweep_client.log({'m': i})\nsweep_client.set_tag('done', 'yes')"
    ended = run_python(script, SWEEP_TRACKING_URI=server.url, SWEEP_RUN_ID="r1", SWEEP_RUN_TOKEN="t")
    assert (ended.returncode, ended.stderr) == (0, "")
    assert [value for _, value, _ in server.points] == list(range(2500))
    assert server.tags == {"done": "yes"}


def test_client_gives_up_in_time_when_the_server_stays_away() -> None:
    """A process ends, with its own exit status, and says what was lost."""
    script = "import sys, sweep_client\nsweep_client.EXIT_FLUSH_S = 0.3\nsweep_client.log({'m': 1})\nsys.exit(7)"
    ended = run_python(script, SWEEP_TRACKING_URI="http://127.0.0.1:9", SWEEP_RUN_ID="r1", SWEEP_RUN_TOKEN="t")
    assert ended.returncode == 7
    assert "not everything logged could be sent before the end; missing: 1 points, 0 parameters, 0 tags\n" in ended.stderr


def test_client_does_not_wait_long_at_the_end_for_a_server_that_never_answered() -> None:
    """As from a container that can't reach it: that is no restart to be waited for."""
    script = "import sweep_client\nsweep_client.UNREACHED_FLUSH_S = 0.3\nsweep_client.log({'m': 1})"
    ended = run_python(script, SWEEP_TRACKING_URI="http://127.0.0.1:9", SWEEP_RUN_ID="r1", SWEEP_RUN_TOKEN="t")
    assert "missing: 1 points" in ended.stderr


def test_client_waits_longer_at_the_end_for_a_server_that_has_answered_before(server: FakeServer) -> None:
    """That one is being restarted."""
    script = """
import sweep_client
sweep_client.EXIT_FLUSH_S, sweep_client.UNREACHED_FLUSH_S = 30.0, 0.0
sweep_client.log({"m": 1})
assert sweep_client.flush(20)
sweep_client.log({"m": 2})
"""
    ended = run_python(script, SWEEP_TRACKING_URI=server.url, SWEEP_RUN_ID="r1", SWEEP_RUN_TOKEN="t")
    assert (ended.stderr, [value for _, value, _ in server.points]) == ("", [1, 2])


def test_client_logs_from_a_forked_child(server: FakeServer) -> None:
    """Data loaders fork: the child's logger is its own, and neither waits for the other's thread."""
    script = """
import os, sweep_client
sweep_client.log({"parent": 1}, step=0)
child = os.fork()
if child == 0:
    sweep_client.log({"child": 1}, step=0)
    os._exit(0 if sweep_client.flush(20) else 1)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
"""
    ended = run_python(script, SWEEP_TRACKING_URI=server.url, SWEEP_RUN_ID="r1", SWEEP_RUN_TOKEN="t")
    assert ended.returncode == 0, ended.stderr
    assert sorted(key for key, _, _ in server.points) == ["child", "parent"]


def test_client_is_python_3_6() -> None:
    """Training environments are older than ours; annotations are strings, so only the syntax counts."""
    tree = ast.parse(SOURCE.read_text(encoding="utf-8"), feature_version=(3, 6))
    unquoted = [node.lineno for node in ast.walk(tree) if isinstance(node, ast.arg | ast.AnnAssign) and isinstance(node.annotation, ast.BinOp | ast.Subscript)]
    assert unquoted == []


def test_client_imports_nothing_but_the_standard_library_and_little_of_it() -> None:
    """What is slow to import waits until it is needed: training starts as fast as without the client."""
    ended = run_python("import sys; before = set(sys.modules); import sweep_client; print(*(set(sys.modules) - before))")
    modules = {name.partition(".")[0] for name in ended.stdout.split()} - {"sweep_client"}
    assert modules <= set(sys.stdlib_module_names)
    assert modules.isdisjoint({"http", "typing", "pathlib", "email", "ssl", "socket", "random", "urllib", "logging"})


def test_log_waits_in_the_buffer_when_no_thread_can_be_had(
    client: ModuleType, server: FakeServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A lack of threads passes: nothing is lost, and who waits for the server tries again."""
    monkeypatch.setattr(client, "_THREAD_AGAIN_S", 0.01)
    lack = NoThreads(monkeypatch, "sweep_client", 4)
    client.log({"a": 1})
    client.log({"a": 2})
    assert client.flush(20)
    assert lack.n_refused == 4
    assert server.points == [("a", 1.0, 0), ("a", 2.0, 1)]
    assert "waits in the buffer" in capsys.readouterr().err


def test_log_gives_up_when_the_interpreter_goes_down(client: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """There will be no thread any more, and the process is not kept from its end."""
    NoThreads(monkeypatch, "sweep_client", 1_000, "can't create new thread at interpreter shutdown")
    client.log({"a": 1})
    assert not client.flush(20)
    assert "nothing more is logged" in capsys.readouterr().err
