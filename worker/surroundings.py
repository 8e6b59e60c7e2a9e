"""What an attempt finds around it: its folder with the code, its parameters, its Python environment, its variables."""

import http.client
import json
import os
import re
import shutil
import threading
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec

import tracking.client
from tracking.errors import NotFound
from tracking.nesting import nest
from tracking.records import ClaimedRun, Launch, Outcome
from tracking.settings import Settings
from tracking.states import Cause
from worker.environments.uv import UvEnvironments
from worker.errands import CalledOff, keep_trying
from worker.errors import CodeBroken, EnvironmentBroken, Exhausted, LaunchFailed, SnapshotAway
from worker.folders import AttemptFolders
from worker.lack import telling_lack
from worker.logs import read_from
from worker.runtimes.base import WORK, WORK_TARGET, Mount
from worker.runtimes.process import trial_environment

T = TypeVar("T")

CLIENT_FOLDER: Final = Path(tracking.client.__file__).parent
"""Holds `sweep_client.py`, put on the path of every Python trial."""
PARAMS_FILE: Final = "params.json"
"""Holds the parameters by their names in the record."""
ARGS_FILE: Final = "args.json"
"""Holds them as the command's arguments have them: nested as in the sweep file."""
WANDB_FILE: Final = "wandb.yaml"
"""Holds them as W&B's agent writes them for its client."""
WANDB_EXIT_FILE: Final = ".wandb-exit"
"""In the working folder: written by our stand-in for `wandb` if the script ends its run there as a failed one."""
_FILES: Final = (PARAMS_FILE, ARGS_FILE, WANDB_FILE)
_IN_CONTAINER: Final = "/opt/sweep"
_IN_CONTAINER_CLIENT: Final = f"{_IN_CONTAINER}/client"
# W&B's own asks for capitals only; any other name would be left as it stands there.
_ENVVAR: Final = re.compile(r"\$\{envvar:([A-Za-z0-9_]*)\}")
# What YAML 1.1 reads otherwise than JSON: of strings some characters, and floats with an exponent and no point, which it takes for text.
_STRING_OR_FLOAT: Final = re.compile(r'"(?:[^"\\]|\\.)*"|(?<![\d.])(?P<whole>-?\d+)(?=e[-+])')
_NOT_IN_BOTH: Final = re.compile("[^\x20-\x7e\xa0-\u2027\u202a-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]")
_FETCH_S: Final = 60
_PASSING: Final = (http.HTTPStatus.NOT_FOUND, http.HTTPStatus.REQUEST_TIMEOUT, http.HTTPStatus.TOO_MANY_REQUESTS)
"""Not the server's own words, or words that it takes back. A 404 is somebody's who stands where the server should, or will."""
_ANSWER_BYTES: Final = 1 << 16
_PROXIES: Final = frozenset(("http_proxy", "https_proxy", "all_proxy"))
_PIECE_BYTES: Final = 1 << 18


class Surroundings:
    """Prepares what attempts need, for one worker."""

    def __init__(self, settings: Settings, state_folder: Path) -> None:
        self._server = settings.server
        self._token = settings.token
        self.folders = AttemptFolders(state_folder, self._fetch)
        # Of our own: an engine takes a mount's source for a path of its host, where ours may not exist if the worker is a container itself.
        self._client = state_folder / "client"
        shutil.copytree(CLIENT_FOLDER, self._client, ignore=shutil.ignore_patterns("__pycache__"), copy_function=_copy_anew, dirs_exist_ok=True)
        # Environments are the same for every worker of a home: built once.
        self._environments = UvEnvironments(settings.home / "environments")

    def prepare_code(self, claimed: ClaimedRun, called_off: threading.Event | None = None) -> tuple[Path, Path]:
        """The attempt's folder and, within it, where its command starts.

        Raises:
            CodeBroken: the snapshot can't be used.
            LaunchFailed: the server did not hand it out, or this machine was out of something for minutes.
            CalledOff: `called_off` was set first.
        """
        return _in_spite_of_lack(lambda: self._prepare_code(claimed, called_off), called_off)

    def _prepare_code(self, claimed: ClaimedRun, called_off: threading.Event | None) -> tuple[Path, Path]:
        launch = claimed.launch
        folder, start = self.folders.prepare(claimed.run_id, claimed.attempt, digest=launch.code_digest, subfolder=launch.subfolder, called_off=called_off)
        as_given = nest(claimed.params, launch.nested)
        for name, text in zip(_FILES, (json.dumps(claimed.params), json.dumps(as_given), wandb_config(as_given)), strict=True):
            (folder / name).write_text(text, encoding="utf-8")
        return folder, start

    def prepare_environment(self, folder: Path, launch: Launch, called_off: threading.Event | None = None) -> Path | None:
        """The `bin` folder of the environment that the project asks for, built if need be; None for none.

        Raises:
            EnvironmentBroken: it can't be built.
            IndexAway: the package index has not answered for minutes.
            Exhausted: this machine has been out of something for minutes.
            CalledOff: `called_off` was set first.
        """
        wanted = launch.environment
        if wanted.kind != "python_env" or wanted.path is None:
            return None
        file = folder / WORK / wanted.path
        if not file.is_file():
            raise EnvironmentBroken(f"The snapshot has no {wanted.path}.", hint="Check `python_env` in the MLproject and the ignore files.")
        return _in_spite_of_lack(lambda: self._environments.ensure(file, called_off), called_off)

    def variables(self, claimed: ClaimedRun, token: str, folder: Path, env_bin: Path | None) -> dict[str, str]:
        """The whole environment of a process run, or what is added to an image's own."""
        in_container = claimed.launch.resources.image is not None
        files = _IN_CONTAINER if in_container else str(folder)
        client = _IN_CONTAINER_CLIENT if in_container else str(CLIENT_FOLDER)
        additions = trial_variables(claimed, token=token, server=self._server, files_folder=files, client_folder=client)
        if claimed.launch.compat == "wandb":
            additions |= {"SWEEP_WANDB_EXIT_FILE": f"{WORK_TARGET if in_container else folder / WORK}/{WANDB_EXIT_FILE}"}
        if in_container:
            return past_proxies({**additions, "PYTHONUNBUFFERED": "1"}, self._server)
        return past_proxies(trial_environment(os.environ, additions, env_bin), self._server)

    def mounts(self, claimed: ClaimedRun, folder: Path) -> tuple[Mount, ...]:
        """What a container may read besides its working folder."""
        if claimed.launch.resources.image is None:
            return ()
        return Mount(self._client, _IN_CONTAINER_CLIENT), *(Mount(folder / name, f"{_IN_CONTAINER}/{name}") for name in _FILES)

    def _fetch(self, digest: str, target: Path, called_off: threading.Event) -> None:
        """Bring a snapshot from the server, however often it takes: a server that is restarted is nobody's fault."""
        keep_trying(lambda: self._fetch_once(digest, target, called_off), called_off, away=SnapshotAway)

    def _fetch_once(self, digest: str, target: Path, called_off: threading.Event) -> None:
        headers = {"Authorization": f"Bearer {self._token}"} if self._token else {}
        request = urllib.request.Request(f"{self._server}/api/v1/snapshots/{digest}", headers=headers)  # noqa: S310 -- the operator's own setting
        with self._errors_of(digest):
            # Straight to it: a proxy, which the environment may name for package indexes, need not know a server of ours.
            answer = urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=_FETCH_S)
        # Only what comes from the server is the server's fault: a full disk is not.
        with answer, target.open("wb") as out:
            while True:
                with self._errors_of(digest):
                    piece = answer.read(_PIECE_BYTES)
                if not piece:
                    break
                if called_off.is_set():
                    raise CalledOff
                out.write(piece)
            if out.tell() < int(answer.headers.get("Content-Length", 0)):
                # The library takes a connection that breaks off for the end.
                raise SnapshotAway(f"Snapshot {digest[:12]} could not be fetched from {self._server}: it broke off after {out.tell()} bytes.")

    @contextmanager
    def _errors_of(self, digest: str) -> Iterator[None]:
        try:
            yield
        except urllib.error.HTTPError as error:
            if _says_not_found(error):
                raise CodeBroken(f"The server has no snapshot {digest[:12]}.") from error
            is_passing = error.code >= http.HTTPStatus.INTERNAL_SERVER_ERROR or error.code in _PASSING
            kind = SnapshotAway if is_passing else LaunchFailed
            raise kind(f"The server answered {error.code} when asked for snapshot {digest[:12]}.") from error
        except (OSError, http.client.HTTPException) as error:
            raise SnapshotAway(f"Snapshot {digest[:12]} could not be fetched from {self._server}: {error}") from error


def _in_spite_of_lack(prepare: Callable[[], T], called_off: threading.Event | None) -> T:
    """Prepare something, again and again while this machine is out of threads, descriptors or memory."""

    def act() -> T:
        with telling_lack():
            return prepare()

    return keep_trying(act, called_off or threading.Event(), away=Exhausted)


def _says_not_found(error: urllib.error.HTTPError) -> bool:
    """Whether it is our server that knows of no such snapshot: anybody on the way there may answer 404, and knows nothing."""
    with error:
        if error.code != http.HTTPStatus.NOT_FOUND:
            return False
        try:
            answer = json.loads(error.read(_ANSWER_BYTES))
        except (OSError, http.client.HTTPException, ValueError):
            return False
    return isinstance(answer, dict) and answer.get("error_code") == NotFound.error_code


def expand(argv: Sequence[str], env: Mapping[str, str]) -> tuple[str, ...]:
    """The command with `${envvar:NAME}` in place, also within a longer word; a variable that is not set leaves its bare name, as with W&B's agent."""
    return tuple(_ENVVAR.sub(lambda match: env.get(match[1], match[1]), word) for word in argv)


def wandb_config(params: Mapping[str, Any]) -> str:
    """The file that W&B's agent writes for its client: YAML, which here is JSON too, for readers without a YAML library."""
    text = json.dumps({"wandb_version": 1, **{name: {"value": value} for name, value in params.items()}}, ensure_ascii=False)
    return _STRING_OR_FLOAT.sub(_in_both, text)


def _in_both(match: re.Match[str]) -> str:
    return f"{match['whole']}.0" if match["whole"] else _NOT_IN_BOTH.sub(lambda bad: f"\\u{ord(bad[0]):04x}", match[0])


def trial_variables(claimed: ClaimedRun, *, token: str, server: str, files_folder: str, client_folder: str) -> dict[str, str]:
    """What the environment tells a trial about itself (docs/trial-environment.md)."""
    params = json.dumps(claimed.params)
    own_path = claimed.launch.env.get("PYTHONPATH", "")
    our_path = f"{client_folder}/compat_{claimed.launch.compat}:{client_folder}" if claimed.launch.compat else client_folder
    variables = {
        "SWEEP_RUN_ID": claimed.run_id,
        "SWEEP_ATTEMPT": str(claimed.attempt),
        "SWEEP_ID": claimed.sweep_id or "",
        "SWEEP_TRIAL": "" if claimed.trial_number is None else str(claimed.trial_number),
        "SWEEP_SEED": str(claimed.seed),
        # The kernel bounds one variable at 128 KiB; the file has no such bound.
        "SWEEP_PARAMS": params if len(params) < 32_000 else "",
        "SWEEP_PARAMS_FILE": f"{files_folder}/{PARAMS_FILE}",
        "SWEEP_ARGS_FILE": f"{files_folder}/{ARGS_FILE}",
        "SWEEP_TRACKING_URI": server,
        "SWEEP_RUN_TOKEN": token,
        "MLFLOW_TRACKING_URI": server,
        "MLFLOW_TRACKING_TOKEN": token,
        "MLFLOW_RUN_ID": claimed.run_id,
        "MLFLOW_EXPERIMENT_ID": claimed.experiment_id,
        "WANDB_SWEEP_ID": claimed.sweep_id or "",
        "WANDB_RUN_ID": claimed.run_id,
        "WANDB_SWEEP_PARAM_PATH": f"{files_folder}/{WANDB_FILE}",
    }
    if claimed.gpu_ids:
        variables["CUDA_VISIBLE_DEVICES"] = ",".join(map(str, claimed.gpu_ids))
    # Ours win: a trial that is told of another run would report to that one.
    return {**claimed.launch.env, **variables, "PYTHONPATH": f"{our_path}:{own_path}" if own_path else our_path}


def past_proxies(env: Mapping[str, str], server: str) -> dict[str, str]:
    """The same environment; if it names a proxy, our server is an exception: clients such as `mlflow` would ask the proxy for it."""
    host = urllib.parse.urlsplit(server).hostname
    if host is None or not any(name.lower() in _PROXIES for name in env):
        return dict(env)
    # Both spellings are in use, and some read only one; what either says stands for both.
    listed = [entry.strip() for name in ("no_proxy", "NO_PROXY") for entry in env.get(name, "").split(",")]
    exceptions = ",".join(dict.fromkeys([*filter(None, listed), host]))
    return {**env, "no_proxy": exceptions, "NO_PROXY": exceptions}


def heed_wandb(outcome: Outcome, launch: Launch, folder: Path) -> Outcome:
    """A script that has told W&B that it failed has failed, although its process exits with 0."""
    path = folder / WORK / WANDB_EXIT_FILE
    if outcome.verdict != "succeeded" or launch.compat != "wandb" or not path.is_file():
        return outcome
    try:
        text = read_from(path, 0, 300).decode("utf-8", "replace")
    except PermissionError:  # a container's own user wrote it: that it is there says enough
        text = ""
    code, _, why = text.partition(" ")
    exit_status = (int(code) & 0xFF if code.isdecimal() else 0) or 1
    detail = f"{why or 'the script ended its wandb run as a failed one'} (its process exited with 0)"
    return msgspec.structs.replace(outcome, verdict="failed", cause=Cause.EXIT_STATUS, exit_status=exit_status, detail=detail)


def _copy_anew(source: str, target: str) -> None:
    """Copy a file under another name first: a trial may be reading the one that is there."""
    shutil.copy2(source, f"{target}.new")
    Path(f"{target}.new").replace(target)
