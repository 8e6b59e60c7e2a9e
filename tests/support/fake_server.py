"""A made-up server for tests of the command line: it answers what it was told to, and lists what it was asked."""

import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs

RUN_ID = "ab" * 16


def trial_answer(number: int = 3, **changes: Any) -> dict[str, Any]:
    """A trial as the API tells it."""
    return {
        "number": number,
        "run_id": RUN_ID,
        "state": "finished",
        "run_state": "finished",
        "cause": "completed",
        "detail": "",
        "value": 0.125,
        "params": {"lr": 0.01, "act": "re lu"},
        "attempts": 1,
        "generation": 0,
        "duration_s": 2.5,
        "worker": "w1",
        "created_at": "2026-01-02T03:04:05.000Z",
        "started_at": None,
        "ended_at": None,
    } | changes


def sweep_answer(**changes: Any) -> dict[str, Any]:
    """A sweep as the API tells it; `counts` given in part."""
    counts = dict.fromkeys("total open queued placed running finished failed pruned cancelled".split(), 0) | changes.pop("counts", {})
    return {
        "schema": 1,
        "sweep_id": "cd" * 16,
        "short_id": "brave-otter-7f3a",
        "name": "wine",
        "state": "active",
        "user_name": "kim",
        "method": "bayes",
        "metric": "rmse",
        "goal": "minimize",
        "trials_asked": 4,
        "parallel": 2,
        "queue": "default",
        "priority": 50,
        "counts": counts,
        "cause": None,
        "detail": None,
        "created_at": "2026-01-02T03:04:05.000Z",
        "started_at": None,
        "ended_at": None,
        "elapsed_s": 252.0,
        "eta_s": 180.0,
        "experiment_id": "1",
        "config": {},
        "best": None,
        "running": [],
        "models": [],
        "urls": {"api": "/api/v1/sweeps/" + "cd" * 16},
    } | changes


ACTIVE = sweep_answer(counts={"total": 2, "open": 1, "running": 1, "finished": 1}, best=trial_answer())
FINISHED = sweep_answer(state="finished", counts={"total": 4, "finished": 4}, best=trial_answer(), eta_s=None)
FRUITLESS = sweep_answer(state="failed", counts={"total": 4, "failed": 4}, eta_s=None)
STILL_RUNNING = sweep_answer(state="cancelled", counts={"total": 4, "open": 1, "running": 1, "finished": 1, "cancelled": 2}, eta_s=None)
CANCELLED = sweep_answer(state="cancelled", counts={"total": 4, "finished": 1, "cancelled": 3}, eta_s=None)
BEST = {
    "schema": 1,
    "sweep_id": "cd" * 16,
    "short_id": "brave-otter-7f3a",
    "name": "wine",
    "state": "active",
    "metric": "rmse",
    "goal": "minimize",
    "number": 3,
    "run_id": RUN_ID,
    "value": 0.125,
    "params": {"lr": 0.01, "act": "re lu"},
    "top": [trial_answer()],
}
WHY: dict[str, Any] = {
    "schema": 1,
    "subject": "sweep brave-otter-7f3a",
    "state": "active",
    "reasons": ["w1 serves queue 'gpu', but is draining.", "And more."],
    "waits": [],
    "story": [],
}
RUNNING = {"schema": 1, "run_id": RUN_ID, "kind": "managed", "name": "wine/3", "state": "running", "ended_at": None, "metrics": []}
RUNNING |= {"sweep_short_id": "brave-otter-7f3a", "trial_number": 3}
NO_BEST = BEST | {"number": None, "run_id": None, "value": None, "params": {}, "top": []}


class FakeServer(ThreadingHTTPServer):
    """Answers what it was told to; lists what it was asked, and the JSON it was sent."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answers: dict[str, tuple[int, Any]] = {}
        self.asked: list[str] = []
        self.queries: list[dict[str, list[str]]] = []
        self.bodies: list[Any] = []

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.server_port}"

    def says(self, request: str, answer: Any, status: int = 200) -> None:
        """Answer `METHOD /path` (under the prefix) from now on; a list is given out one by one, its last item again."""
        self.answers[request] = (status, answer)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FakeServer

    def _answer(self) -> None:
        sent = self.rfile.read(int(self.headers.get("content-length", 0)))
        if self.headers.get("content-type") == "application/json":
            self.server.bodies.append(json.loads(sent))
        request = f"{self.command} {self.path.partition('?')[0].removeprefix('/api/v1')}"
        self.server.asked.append(request)
        self.server.queries.append(parse_qs(self.path.partition("?")[2]))
        missing = {"error_code": "RESOURCE_DOES_NOT_EXIST", "message": f"nothing at {request}", "hint": "look elsewhere"}
        status, answer = self.server.answers.get(request, (404, missing))
        if isinstance(answer, list):
            answer = answer.pop(0) if len(answer) > 1 else answer[0]
        body = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_GET = do_POST = do_HEAD = _answer  # noqa: N815 - the names that http.server calls

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


WAITS = sweep_answer(counts={"total": 1, "open": 1, "queued": 1})
