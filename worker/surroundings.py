"""What an attempt finds around it: its folder with the code, its Python environment, its variables."""

import http.client
import json
import os
import shutil
import urllib.error
import urllib.request
from pathlib import Path
from typing import Final

import tracking.client
from tracking.records import ClaimedRun, Launch
from tracking.settings import Settings
from worker.environments.uv import UvEnvironments
from worker.errors import CodeBroken, EnvironmentBroken, LaunchFailed
from worker.folders import AttemptFolders
from worker.runtimes.base import WORK, Mount
from worker.runtimes.process import trial_environment

CLIENT_FOLDER: Final = Path(tracking.client.__file__).parent
"""Holds `sweep_client.py`, put on the path of every Python trial."""
PARAMS_FILE: Final = "params.json"
_IN_CONTAINER_CLIENT: Final = "/opt/sweep/client"
_IN_CONTAINER_PARAMS: Final = "/opt/sweep/params.json"
_FETCH_S: Final = 60


class Surroundings:
    """Prepares what attempts need, for one worker."""

    def __init__(self, settings: Settings, state_folder: Path) -> None:
        self._server = settings.server
        self._token = settings.token
        self.folders = AttemptFolders(state_folder, self._fetch)
        # Environments are the same for every worker of a home: built once.
        self._environments = UvEnvironments(settings.home / "environments")

    def prepare_code(self, claimed: ClaimedRun) -> tuple[Path, Path]:
        """The attempt's folder and, within it, where its command starts.

        Raises:
            CodeBroken: the snapshot can't be used.
            LaunchFailed: the server did not hand it out.
        """
        launch = claimed.launch
        folder, start = self.folders.prepare(claimed.run_id, claimed.attempt, digest=launch.code_digest, subfolder=launch.subfolder)
        (folder / PARAMS_FILE).write_text(json.dumps(claimed.params), encoding="utf-8")
        return folder, start

    def prepare_environment(self, folder: Path, launch: Launch) -> Path | None:
        """The `bin` folder of the environment that the project asks for, built if need be; None for none.

        Raises:
            EnvironmentBroken: it can't be built.
        """
        wanted = launch.environment
        if wanted.kind != "python_env" or wanted.path is None:
            return None
        file = folder / WORK / wanted.path
        if not file.is_file():
            raise EnvironmentBroken(f"The snapshot has no {wanted.path}.", hint="Check `python_env` in the MLproject and the ignore files.")
        return self._environments.ensure(file)

    def variables(self, claimed: ClaimedRun, token: str, folder: Path, env_bin: Path | None) -> dict[str, str]:
        """The whole environment of a process run, or what is added to an image's own."""
        in_container = claimed.launch.resources.image is not None
        params_file = _IN_CONTAINER_PARAMS if in_container else str(folder / PARAMS_FILE)
        client = _IN_CONTAINER_CLIENT if in_container else str(CLIENT_FOLDER)
        additions = trial_variables(claimed, token=token, server=self._server, params_file=params_file, client_folder=client)
        if in_container:
            return {**additions, "PYTHONUNBUFFERED": "1"}
        return trial_environment(os.environ, additions, env_bin)

    def mounts(self, claimed: ClaimedRun, folder: Path) -> tuple[Mount, ...]:
        """What a container may read besides its working folder."""
        if claimed.launch.resources.image is None:
            return ()
        return Mount(CLIENT_FOLDER, _IN_CONTAINER_CLIENT), Mount(folder / PARAMS_FILE, _IN_CONTAINER_PARAMS)

    def _fetch(self, digest: str, target: Path) -> None:
        """Bring a snapshot from the server."""
        request = urllib.request.Request(f"{self._server}/api/v1/snapshots/{digest}")  # noqa: S310 -- the operator's own setting
        if self._token:
            request.add_header("Authorization", f"Bearer {self._token}")
        try:
            with urllib.request.urlopen(request, timeout=_FETCH_S) as answer, target.open("wb") as out:  # noqa: S310 -- as above
                shutil.copyfileobj(answer, out, 1 << 20)
                n_bytes, n_promised = out.tell(), int(answer.headers.get("Content-Length", 0))
        except urllib.error.HTTPError as error:
            if error.code == 404:
                raise CodeBroken(f"The server has no snapshot {digest[:12]}.") from error
            raise LaunchFailed(f"The server answered {error.code} when asked for snapshot {digest[:12]}.") from error
        except (OSError, http.client.HTTPException) as error:
            raise LaunchFailed(f"Snapshot {digest[:12]} could not be fetched from {self._server}: {error}") from error
        if n_bytes < n_promised:
            # The library takes a connection that breaks off for the end; the digest would then blame the code.
            raise LaunchFailed(f"Snapshot {digest[:12]} broke off after {n_bytes} of {n_promised} bytes.")


def trial_variables(claimed: ClaimedRun, *, token: str, server: str, params_file: str, client_folder: str) -> dict[str, str]:
    """What the environment tells a trial about itself (docs/trial-environment.md)."""
    params = json.dumps(claimed.params)
    own_path = claimed.launch.env.get("PYTHONPATH", "")
    variables = {
        "SWEEP_RUN_ID": claimed.run_id,
        "SWEEP_ATTEMPT": str(claimed.attempt),
        "SWEEP_ID": claimed.sweep_id or "",
        "SWEEP_TRIAL": "" if claimed.trial_number is None else str(claimed.trial_number),
        "SWEEP_SEED": str(claimed.seed),
        # The kernel bounds one variable at 128 KiB; the file has no such bound.
        "SWEEP_PARAMS": params if len(params) < 32_000 else "",
        "SWEEP_PARAMS_FILE": params_file,
        "SWEEP_TRACKING_URI": server,
        "SWEEP_RUN_TOKEN": token,
        "MLFLOW_TRACKING_URI": server,
        "MLFLOW_TRACKING_TOKEN": token,
        "MLFLOW_RUN_ID": claimed.run_id,
        "MLFLOW_EXPERIMENT_ID": claimed.experiment_id,
        "WANDB_SWEEP_ID": claimed.sweep_id or "",
        "WANDB_RUN_ID": claimed.run_id,
    }
    if claimed.gpu_ids:
        variables["CUDA_VISIBLE_DEVICES"] = ",".join(map(str, claimed.gpu_ids))
    return {**variables, **claimed.launch.env, "PYTHONPATH": f"{client_folder}:{own_path}" if own_path else client_folder}
