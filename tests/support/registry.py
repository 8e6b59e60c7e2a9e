"""A registry of container images that has none: it answers with one status, or with what registries say of an image that is not there."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@contextmanager
def registry(status: int = 404, code: str = "MANIFEST_UNKNOWN", text: str = "manifest unknown") -> Iterator[str]:
    """Run one; its address, as the first part of an image's name. Engines take one of this machine without encryption."""
    body = json.dumps({"errors": [{"code": code, "message": text}]}).encode()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            is_greeting = self.path == "/v2/"
            self.send_response(200 if is_greeting else status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", "0" if is_greeting else str(len(body)))
            self.end_headers()
            if self.command != "HEAD" and not is_greeting:
                self.wfile.write(body)

        do_HEAD = do_GET  # noqa: N815  # as the library calls it

        def log_message(self, *_arguments: object) -> None:
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield f"127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
