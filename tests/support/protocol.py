"""Our side of MLflow's protocol as bytes: a server of its routes over loopback, a live attempt, and what a client sends and is told."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx
import uvicorn
from starlette.applications import Starlette

from tracking.artifacts import ArtifactStore
from tracking.ids import attempt_token, new_secret, new_uuid, token_hash
from tracking.mlflow_api import build_routes
from tracking.records import Launch, NewSweep, NewTrial, Outcome, SessionInfo
from tracking.settings import Settings
from tracking.store import Store
from tracking.store.queue import Placement

API: Final = "/api/2.0/mlflow"
FILES: Final = "/api/2.0/mlflow-artifacts/artifacts"


@dataclass(frozen=True)
class Attempt:
    """A live attempt of a managed run, as a worker would hold it."""

    run_id: str
    experiment_id: str
    session_id: str
    headers: dict[str, str]


def open_attempt(store: Store) -> Attempt:
    """Submit a sweep of one trial, and place and claim its run."""
    sweep = store.sweeps.submit(NewSweep(name="s", experiment=f"question {new_uuid()}", config={}, source="", launch=Launch()))
    leadership = store.leader.acquire("test", lease_s=60, suspend_s=0)
    assert leadership is not None
    assert store.trials.create(leadership.epoch, sweep, [NewTrial(number=0, params={"lr": 1, "name": "x"}, argv=("true",), seed=0)])
    session = SessionInfo(new_uuid(), new_uuid(), "w", "host", "w.q", ("default",), slots=1, cpus=1.0, memory_bytes=1 << 30)
    store.sessions.open(session, lease_s=60)
    run_id = store.trials.get(sweep.sweep_id, 0).run_id
    (placed,) = store.queue.place(leadership.epoch, [Placement(run_id, session.session_id, session.worker_id)])
    secret = new_secret()
    claimed = store.attempts.claim(run_id, placed.placement, session.session_id, claim_id=new_uuid(), secret_hash=token_hash(secret))
    assert claimed is not None
    headers = {"Authorization": f"Bearer {attempt_token(run_id, claimed.attempt, secret)}"}
    return Attempt(run_id, sweep.experiment_id, session.session_id, headers)


def end_attempt(store: Store, attempt: Attempt) -> None:
    """Report it as failed, as its worker would."""
    store.attempts.finish(attempt.run_id, 1, attempt.session_id, Outcome("failed", "exit_status", exit_status=1), finish_key=new_uuid())


class Server(uvicorn.Server):
    """Tells when it listens."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.is_up = threading.Event()

    async def startup(self, sockets: list[Any] | None = None) -> None:
        """Listen, and say so."""
        await super().startup(sockets)
        self.is_up.set()


@contextmanager
def serving(store: Store, home: Path, **values: Any) -> Iterator[str]:
    """URL of a server of the protocol alone. Over loopback, for refused uploads behave as they do only on a real connection."""
    settings = Settings(home=home, **values)
    artifacts = ArtifactStore(settings.artifact_place, endpoint_url=settings.artifact_endpoint)
    app = Starlette(routes=build_routes(store, artifacts, settings))
    server = Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_config=None, lifespan="off"))
    thread = threading.Thread(target=server.run)
    thread.start()
    assert server.is_up.wait(30)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()


@contextmanager
def connected(url: str) -> Iterator[httpx.Client]:
    """A client of such a server."""
    with httpx.Client(base_url=url, timeout=30, trust_env=False) as client:
        yield client


def post(client: httpx.Client, endpoint: str, headers: dict[str, str] | None = None, /, **body: Any) -> Any:
    """POST a body, which must succeed; the answer."""
    response = client.post(API + endpoint, json=body, headers=headers)
    assert response.status_code == 200, response.text
    return response.json()


def get(client: httpx.Client, endpoint: str, headers: dict[str, str] | None = None, /, **query: Any) -> Any:
    """GET with a query, which must succeed; the answer."""
    response = client.get(API + endpoint, params=query, headers=headers)
    assert response.status_code == 200, response.text
    return response.json()


def refusal(response: Any) -> tuple[int, str, str]:
    """Status, error code and message of an answer that refuses."""
    body = response.json()
    assert set(body) == {"error_code", "message"}
    return response.status_code, body["error_code"], body["message"]


def new_run(client: httpx.Client, headers: dict[str, str] | None = None, **body: Any) -> str:
    """Open a run in the default experiment; its id."""
    return str(post(client, "/runs/create", headers, **{"experiment_id": "0", **body})["run"]["info"]["run_id"])


def pairs(items: list[dict[str, str]]) -> dict[str, str]:
    """A list of keys and values as a dict."""
    return {item["key"]: item["value"] for item in items}
