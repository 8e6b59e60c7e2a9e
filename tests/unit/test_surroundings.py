"""What an attempt finds around it: its code, its variables, and what a container may read."""

import errno
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from tests.support.threads import NoThreads
from tracking.errors import NotFound
from tracking.records import ClaimedRun, Environment, Launch, Resources
from tracking.settings import Settings
from tracking.snapshots import pack
from worker import errands as errands_module
from worker.errands import CalledOff
from worker.errors import CodeBroken, EnvironmentBroken, LaunchFailed
from worker.surroundings import CLIENT_FOLDER, Surroundings, expand, wandb_config

MAX_BYTES: Final = 1 << 20
NOT_FOUND: Final = json.dumps({"error_code": NotFound.error_code, "message": "Not stored here.", "hint": ""}).encode()
NO_SUCH_ENDPOINT: Final = b'{"error_code": "ENDPOINT_NOT_FOUND", "message": "There is no such endpoint."}'
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
PLAIN = st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats(allow_nan=False, allow_infinity=False) | TEXTS
VALUES = st.recursive(PLAIN, lambda inner: st.lists(inner, max_size=2) | st.dictionaries(TEXTS, inner, max_size=2), max_leaves=4)


class SnapshotServer:
    """Answers for the server's snapshots.

    Attributes:
        answers: of each digest (status, body, length promised); others are not found, in our server's words.
        seen: path and Authorization of each request.
        on_request: called before each answer.
    """

    def __init__(self) -> None:
        self.answers: dict[str, tuple[int, bytes, int]] = {}
        self.seen: list[tuple[str, str | None]] = []
        self.on_request: Callable[[], object] = lambda: None
        site = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                site.seen.append((self.path, self.headers.get("Authorization")))
                site.on_request()
                status, body, length = site.answers.get(self.path.rpartition("/")[2], (404, NOT_FOUND, len(NOT_FOUND)))
                self.send_response(status)
                self.send_header("Content-Length", str(length))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_arguments: object) -> None:
                """Quiet."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop it; again is no change."""
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join(30)
            self._server.server_close()


@pytest.fixture
def server() -> Iterator[SnapshotServer]:
    """A server that has no snapshots yet."""
    made = SnapshotServer()
    yield made
    made.close()


@pytest.fixture
def surroundings(server: SnapshotServer, tmp_path: Path) -> Surroundings:
    """Of a worker that talks to that server, with a token of its own."""
    return Surroundings(Settings(home=tmp_path / "home", server=server.url, token="operator"), tmp_path / "home" / "workers" / "w1")


@pytest.fixture
def digest(server: SnapshotServer, tmp_path: Path) -> str:
    """A snapshot that the server has: one script in a folder."""
    project = tmp_path / "project"
    (project / "src").mkdir(parents=True)
    (project / "src" / "train.py").write_text("print(1)\n")
    packed = pack(project, max_bytes=MAX_BYTES)
    body = packed.archive.read_bytes()
    packed.archive.unlink()
    server.answers[packed.digest] = (200, body, len(body))
    return packed.digest


def claimed(run_id: str = "r1", *, params: dict[str, Any] | None = None, gpu_ids: tuple[int, ...] = (), **launch: Any) -> ClaimedRun:
    """A claimed run of trial 3 of sweep s1, its second attempt."""
    return ClaimedRun(run_id, 2, 1, "7", "s1/3", ("true",), params or {"lr": 0.1}, Launch(**launch), "s1", 3, 42, gpu_ids)


def test_surroundings_fetch_a_snapshot_once_and_give_each_attempt_its_own_copy(surroundings: Surroundings, server: SnapshotServer, digest: str) -> None:
    """With the worker's token; what one attempt writes into its code the next does not see."""
    _, first = surroundings.prepare_code(claimed("r1", code_digest=digest, subfolder="src"))
    (first / "train.py").write_text("changed")
    folder, second = surroundings.prepare_code(claimed("r2", code_digest=digest, subfolder="src"))
    assert (second / "train.py").read_text() == "print(1)\n"
    assert second == folder / "work" / "src"
    assert server.seen == [(f"/api/v1/snapshots/{digest}", "Bearer operator")]
    assert json.loads((folder / "params.json").read_text()) == {"lr": 0.1}


def test_surroundings_blame_the_code_when_it_is_not_there_or_another(surroundings: Surroundings, server: SnapshotServer, digest: str) -> None:
    """Unknown to the server, or not what its digest says: to try again would change nothing."""
    with pytest.raises(CodeBroken, match="has no snapshot"):
        surroundings.prepare_code(claimed(code_digest="f" * 64))
    _, body, length = server.answers[digest]
    server.answers["e" * 64] = (200, body, length)
    with pytest.raises(CodeBroken, match="is another one"):
        surroundings.prepare_code(claimed(code_digest="e" * 64))


def test_surroundings_blame_the_machinery_when_the_server_fails(
    surroundings: Surroundings, server: SnapshotServer, digest: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error of the server, a connection that breaks off in the middle, nobody there, for too long; once it is well again, it works."""
    monkeypatch.setattr(errands_module, "AWAY_S", 0.0)
    good = server.answers[digest]
    for answer in ((503, b"", 0), (200, good[1][:100], good[2])):
        server.answers[digest] = answer
        with pytest.raises(LaunchFailed):
            surroundings.prepare_code(claimed(code_digest=digest))
    server.answers[digest] = good
    _, start = surroundings.prepare_code(claimed(code_digest=digest))
    assert (start / "src" / "train.py").exists()
    server.close()
    with pytest.raises(LaunchFailed, match="could not be fetched"):
        surroundings.prepare_code(claimed("r9", code_digest="d" * 64))


@pytest.mark.parametrize(
    ("status", "said"), [(500, b""), (503, b""), (429, b""), (404, b"<h1>404 page not found</h1>"), (404, NO_SUCH_ENDPOINT), (404, b"[]"), (408, b"")]
)
def test_surroundings_wait_for_a_server_that_is_restarted(
    surroundings: Surroundings, server: SnapshotServer, digest: str, status: int, said: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An attempt does not fail because the server was away for a moment, or somebody else answered in its place: it asks again."""
    monkeypatch.setattr(errands_module, "_LONGEST_DELAY_S", 0.01)
    good = server.answers[digest]
    server.answers[digest] = (status, said, len(said))
    server.on_request = lambda: server.answers.update({digest: good}) if len(server.seen) == 3 else None
    _, start = surroundings.prepare_code(claimed(code_digest=digest))
    assert (start / "src" / "train.py").exists()
    assert len(server.seen) == 3


def test_surroundings_ask_their_own_server_past_any_proxy(
    surroundings: Surroundings, server: SnapshotServer, digest: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the environment names for package indexes: neither the worker nor a trial's `mlflow` asks it for our server."""
    monkeypatch.setattr(errands_module, "AWAY_S", 0.0)
    for name in ("http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.setenv("no_proxy", "localhost, .corp")
    surroundings.prepare_code(claimed(code_digest=digest))
    told = surroundings.variables(claimed(), "token", tmp_path, None)
    assert told["no_proxy"] == told["NO_PROXY"] == "localhost,.corp,127.0.0.1"
    assert told["http_proxy"] == "http://127.0.0.1:1"


def test_surroundings_name_no_exception_where_there_is_no_proxy(surroundings: Surroundings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A trial's environment holds nothing that it has no use for."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    assert "no_proxy" not in surroundings.variables(claimed(), "token", tmp_path, None)


def test_surroundings_try_again_when_the_machine_is_out_of_something(surroundings: Surroundings, digest: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Descriptors, or the thread that fetches a snapshot: a lack that passes costs no attempt."""
    monkeypatch.setattr(errands_module, "_FIRST_DELAY_S", 0.01)
    prepare, lacks = surroundings.folders.prepare, [OSError(errno.EMFILE, "Too many open files"), MemoryError()]

    def scarce(*arguments: Any, **options: Any) -> tuple[Path, Path]:
        if lacks:
            raise lacks.pop()
        return prepare(*arguments, **options)

    monkeypatch.setattr(surroundings.folders, "prepare", scarce)
    threads = NoThreads(monkeypatch, "errand", 2)
    _, start = surroundings.prepare_code(claimed(code_digest=digest))
    assert (start / "src" / "train.py").exists()
    assert not lacks
    assert threads.n_refused == 2


def test_surroundings_stop_waiting_for_the_server_when_called_off(surroundings: Surroundings, server: SnapshotServer, digest: str) -> None:
    """A cancelled attempt ends at once, also between two tries that would go on for minutes."""
    server.answers[digest] = (503, b"", 0)
    called_off = threading.Event()
    server.on_request = called_off.set
    with pytest.raises(CalledOff):
        surroundings.prepare_code(claimed(code_digest=digest), called_off)


def test_surroundings_leave_a_server_that_hangs_when_called_off(surroundings: Surroundings, server: SnapshotServer, digest: str) -> None:
    """Nothing interrupts the call; the attempt does not wait for it."""
    called_off, may_end = threading.Event(), threading.Event()

    def hang() -> None:
        called_off.set()
        may_end.wait(60)

    server.on_request = hang
    try:
        with pytest.raises(CalledOff):
            surroundings.prepare_code(claimed(code_digest=digest), called_off)
    finally:
        may_end.set()


def test_surroundings_of_a_process_are_told_in_variables(
    surroundings: Surroundings, server: SnapshotServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Run, attempt, trial, seed, parameters, server and token, for our client, MLflow's and W&B's; nothing of the worker's own."""
    monkeypatch.setenv("SWEEP_DATABASE_URL", "postgresql://secret")
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "operator")
    monkeypatch.setenv("HARMLESS", "stays")
    told = surroundings.variables(claimed(gpu_ids=(1, 3)), "token", tmp_path, None)
    expected = {
        "SWEEP_RUN_ID": "r1",
        "SWEEP_ATTEMPT": "2",
        "SWEEP_ID": "s1",
        "SWEEP_TRIAL": "3",
        "SWEEP_SEED": "42",
        "SWEEP_PARAMS": '{"lr": 0.1}',
        "SWEEP_PARAMS_FILE": str(tmp_path / "params.json"),
        "SWEEP_ARGS_FILE": str(tmp_path / "args.json"),
        "WANDB_SWEEP_PARAM_PATH": str(tmp_path / "wandb.yaml"),
        "SWEEP_TRACKING_URI": server.url,
        "SWEEP_RUN_TOKEN": "token",
        "MLFLOW_TRACKING_URI": server.url,
        "MLFLOW_TRACKING_TOKEN": "token",
        "MLFLOW_RUN_ID": "r1",
        "MLFLOW_EXPERIMENT_ID": "7",
        "CUDA_VISIBLE_DEVICES": "1,3",
        "PYTHONPATH": str(CLIENT_FOLDER),
        "HARMLESS": "stays",
    }
    assert told.items() >= expected.items()
    assert not {"SWEEP_DATABASE_URL", "SWEEP_HOME", "MLFLOW_TRACKING_USERNAME"} & told.keys()


def test_surroundings_of_the_stand_in_for_wandb_tell_where_a_failure_is_told(surroundings: Surroundings, tmp_path: Path) -> None:
    """In the working folder, which containers have elsewhere; where the real package is used nobody looks there."""
    in_process, in_container = claimed(compat="wandb"), claimed(compat="wandb", resources=Resources(image="any"))
    assert surroundings.variables(in_process, "token", tmp_path, None)["SWEEP_WANDB_EXIT_FILE"] == str(tmp_path / "work" / ".wandb-exit")
    assert surroundings.variables(in_container, "token", tmp_path, None)["SWEEP_WANDB_EXIT_FILE"] == "/work/.wandb-exit"
    assert "SWEEP_WANDB_EXIT_FILE" not in surroundings.variables(claimed(), "token", tmp_path, None)


def test_surroundings_add_what_the_file_asks_for_behind_our_client(surroundings: Surroundings, tmp_path: Path) -> None:
    """A PYTHONPATH of its own comes after ours, not instead of it."""
    told = surroundings.variables(claimed(env={"PYTHONPATH": "lib", "OMP_NUM_THREADS": "1"}), "token", tmp_path, None)
    assert (told["PYTHONPATH"], told["OMP_NUM_THREADS"]) == (f"{CLIENT_FOLDER}:lib", "1")


def test_surroundings_put_the_stand_in_for_wandb_first_when_the_file_asks_for_it(surroundings: Surroundings, tmp_path: Path) -> None:
    """Before our client and before a PYTHONPATH of the file's own; in a container it lies in the mounted folder."""
    told = surroundings.variables(claimed(env={"PYTHONPATH": "lib"}, compat="wandb"), "token", tmp_path, None)
    assert told["PYTHONPATH"] == f"{CLIENT_FOLDER}/compat_wandb:{CLIENT_FOLDER}:lib"
    contained = claimed(resources=Resources(image="i"), compat="wandb")
    inside, _, _ = surroundings.variables(contained, "token", tmp_path, None)["PYTHONPATH"].partition(":")
    client = next(mount for mount in surroundings.mounts(contained, tmp_path) if inside.startswith(str(mount.target)))
    assert (Path(client.source) / Path(inside).relative_to(client.target) / "wandb" / "__init__.py").is_file()


@pytest.mark.parametrize("name", ["SWEEP_RUN_TOKEN", "SWEEP_SEED", "MLFLOW_TRACKING_URI", "MLFLOW_RUN_ID", "WANDB_RUN_ID", "WANDB_SWEEP_PARAM_PATH"])
def test_surroundings_tell_a_trial_its_own_run_whatever_the_file_says(surroundings: Surroundings, tmp_path: Path, name: str) -> None:
    """What the worker tells a trial about itself wins over the record's `env` (D7)."""
    ours = surroundings.variables(claimed(), "token", tmp_path, None)[name]
    assert surroundings.variables(claimed(env={name: "another"}), "token", tmp_path, None)[name] == ours


def test_surroundings_hand_containers_a_copy_of_the_client(surroundings: Surroundings, tmp_path: Path) -> None:
    """It lies in the state folder, the one that an engine is told the true place of; a worker that starts again brings it up to date."""
    (mount, *_) = surroundings.mounts(claimed(resources=Resources(image="any")), tmp_path)
    copy = mount.source / "sweep_client.py"
    assert mount.source.is_relative_to(tmp_path / "home" / "workers" / "w1")
    copy.write_text("outdated")
    Surroundings(Settings(home=tmp_path / "home"), tmp_path / "home" / "workers" / "w1")
    assert copy.read_bytes() == (CLIENT_FOLDER / "sweep_client.py").read_bytes()


def test_surroundings_leave_parameters_to_the_file_when_they_are_long(surroundings: Surroundings, tmp_path: Path) -> None:
    """One variable may hold 128 KiB and no more; a run must not fail for that."""
    told = surroundings.variables(claimed(params={"text": "x" * 200_000}), "token", tmp_path, None)
    assert told["SWEEP_PARAMS"] == ""
    assert max(map(len, told.values())) < 128 * 1024


def test_surroundings_of_a_container_are_only_what_is_ours(surroundings: Surroundings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The image's own environment stays; of the host it sees the client and the parameters, read-only, and no more."""
    monkeypatch.setenv("MY_OWN", "the worker's")
    run = claimed(resources=Resources(image="any"))
    told = surroundings.variables(run, "token", tmp_path, None)
    assert not {"PATH", "HOME", "MY_OWN"} & told.keys()
    mounts = {mount.target: mount.source for mount in surroundings.mounts(run, tmp_path)}
    client = tmp_path / "home" / "workers" / "w1" / "client"
    files = {told["SWEEP_PARAMS_FILE"]: "params.json", told["SWEEP_ARGS_FILE"]: "args.json", told["WANDB_SWEEP_PARAM_PATH"]: "wandb.yaml"}
    assert mounts == {told["PYTHONPATH"]: client} | {target: tmp_path / name for target, name in files.items()}
    assert surroundings.mounts(claimed(), tmp_path) == ()


@given(st.dictionaries(TEXTS, VALUES, max_size=4))
def test_surroundings_file_for_wandb_is_yaml_and_json(params: dict[str, Any]) -> None:
    """W&B's client reads YAML 1.1, where 1e-5 is text and some characters are not allowed; ours reads JSON. Both read the same."""
    text = wandb_config(params)
    expected = {"wandb_version": 1, **{name: {"value": value} for name, value in params.items()}}
    assert yaml.safe_load(text) == json.loads(text) == expected
    assert json.dumps(yaml.safe_load(text)) == json.dumps(expected)


def test_surroundings_write_parameters_flat_and_nested(surroundings: Surroundings) -> None:
    """By their names in the record, as the command's arguments have them, and as W&B's client reads them."""
    folder, _ = surroundings.prepare_code(claimed(params={"o.lr": 1e-5, "a.b": 2}, nested={"o.lr": ("o", "lr")}))
    found = {name: json.loads((folder / name).read_text(encoding="utf-8")) for name in ("params.json", "args.json", "wandb.yaml")}
    assert found == {
        "params.json": {"o.lr": 1e-5, "a.b": 2},
        "args.json": {"o": {"lr": 1e-5}, "a.b": 2},
        "wandb.yaml": {"wandb_version": 1, "o": {"value": {"lr": 1e-5}}, "a.b": {"value": 2}},
    }


def test_surroundings_expand_variables_of_the_trial() -> None:
    """Within words and several in one; what is not set leaves its name, what has no name is nothing, and a value is not looked at again."""
    env = {"A": "1", "B_2": "${envvar:A} x", "C": ""}
    words = ("${envvar:A}", "--b=${envvar:B_2}/${envvar:A}", "${envvar:NOT_SET}", "-${envvar:C}${envvar:}-", "$A ${A} ${envvar:a-b}")
    assert expand(words, env) == ("1", "--b=${envvar:A} x/1", "NOT_SET", "--", "$A ${A} ${envvar:a-b}")


def test_surroundings_need_the_environment_file_in_the_snapshot(surroundings: Surroundings, tmp_path: Path) -> None:
    """A missing one is the project's fault, and named; without one the worker's own path serves."""
    with pytest.raises(EnvironmentBroken, match=r"no env/python_env\.yaml"):
        surroundings.prepare_environment(tmp_path, Launch(environment=Environment("python_env", "env/python_env.yaml")))
    assert surroundings.prepare_environment(tmp_path, Launch()) is None
