"""A server that speaks as much of MLflow's protocol as a trial's client needs, and remembers what it was told."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answer = Callable[[str, Any], tuple[int, dict[str, Any]]]


@dataclass
class FakeServer:
    """Speaks as much of the protocol as the client needs; `answer` may refuse."""

    url: str = ""
    batches: list[dict[str, Any]] = field(default_factory=list)
    files: dict[str, bytes] = field(default_factory=dict)
    tokens: set[str | None] = field(default_factory=set)
    refused: int = 0
    answer: Answer = field(default=lambda *_: (200, {}))
    gate: threading.Event = field(default_factory=threading.Event)
    arrived: threading.Event = field(default_factory=threading.Event)
    artifact_uri: str = "mlflow-artifacts:/7/r1/artifacts"

    def take(self, handler: BaseHTTPRequestHandler) -> tuple[int, dict[str, Any]]:
        """Note one request and decide its answer."""
        content = handler.rfile.read(int(handler.headers.get("Content-Length") or 0))
        self.tokens.add(handler.headers["Authorization"])
        body: Any = json.loads(content) if handler.command == "POST" else content
        self.arrived.set()
        self.gate.wait(60)
        status, answer = self.answer(handler.path, body)
        if status >= 400:
            self.refused += 1
        elif handler.command == "POST":
            self.batches.append(body)
        elif handler.command == "PUT":
            self.files[handler.path] = content
        elif handler.command == "GET":
            answer = {"run": {"info": {"artifact_uri": self.artifact_uri}}}
        return status, answer

    @property
    def points(self) -> list[tuple[str, Any, int]]:
        """Key, value and step of all points, in the order in which they arrived."""
        return [(point["key"], point["value"], point["step"]) for batch in self.batches for point in batch["metrics"]]

    @property
    def params(self) -> dict[str, str]:
        """All parameters that arrived."""
        return {param["key"]: param["value"] for batch in self.batches for param in batch["params"]}

    @property
    def tags(self) -> dict[str, str]:
        """All tags that arrived."""
        return {tag["key"]: tag["value"] for batch in self.batches for tag in batch["tags"]}


@contextmanager
def fake_server() -> Iterator[FakeServer]:
    """One that takes everything unless told otherwise."""
    fake = FakeServer()
    fake.gate.set()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _respond(self) -> None:
            status, answer = fake.take(self)
            content = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_PUT = _respond  # noqa: N815  http.server looks for these names

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    fake.url = f"http://127.0.0.1:{http.server_port}"
    try:
        yield fake
    finally:
        fake.gate.set()
        http.shutdown()
        thread.join()
        http.server_close()
