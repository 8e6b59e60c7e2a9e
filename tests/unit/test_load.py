"""The load of the benchmarks: what it sends is countable, and what is missing is told."""

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import pytest

from tests.benchmarks import load
from tests.benchmarks.load import BATCH, Kind, Row, Sent


def sent_points(kind: Kind, number: int) -> list[dict[str, Any]]:
    """The points, or the run, that one request carries."""
    _, body, _, _ = load._body(kind, "r", "7")
    told = json.loads(body.replace(load._MARK, b"%05d" % number))
    if kind == "create":
        return [{"value": told["start_time"]}]
    return told["metrics"] if kind == "batch" else [told]


@pytest.mark.parametrize("kind", ["batch", "metric", "create"])
def test_load_sends_no_point_twice_and_knows_the_sum(kind: Kind) -> None:
    """Every point differs by key, step or start; their sum is what reading back is compared with."""
    points = [point for number in range(3) for point in sent_points(kind, number)]
    assert len(points) == 3 * (BATCH if kind == "batch" else 1)
    assert len({json.dumps(point, sort_keys=True) for point in points}) == len(points)
    assert len({(point.get("key"), point.get("step"), point["value"] if kind == "create" else 0) for point in points}) == len(points)
    assert sum(point["value"] for point in points) == pytest.approx(load.total_of(kind, 3), rel=1e-12)


@pytest.fixture
def record_url() -> Iterator[str]:
    """A server that has two points of every metric, 1 and 2, a page each."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            page = {"metrics": [{"value": 2.0}]} if "page_token" in self.path else {"metrics": [{"value": 1.0}], "next_page_token": "t"}
            content = json.dumps(page).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    Handler.protocol_version = "HTTP/1.1"
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_load_tells_what_is_missing(record_url: str) -> None:
    """A point too few, or another value, is told with the run."""
    whole = Sent("r1", ("m",), 2, 2, 3.0, 1.0, [])
    too_few, other = Sent("r2", ("m",), 3, 3, 3.0, 1.0, []), Sent("r3", ("m",), 2, 2, 4.0, 1.0, [])
    assert load.missing(record_url, [Row("metric", "7", [whole])]) == []
    assert [line.split(":")[0] for line in load.missing(record_url, [Row("metric", "7", [too_few, other])])] == ["points of run r2", "points of run r3"]


def test_load_adds_up_its_clients() -> None:
    """The rate is the sum over clients, each over the time that it took; the percentiles are of all their requests."""
    row = Row("metric", "7", [Sent("a", ("m",), 10, 10, 0.0, 2.0, [0.001] * 10), Sent("b", ("m",), 10, 10, 0.0, 1.0, [0.003] * 10)])
    assert (row.n_clients, row.rate) == (2, 15.0)
    assert (row.percentile_ms(0.25), row.percentile_ms(0.99)) == (1.0, 3.0)
