"""Requests to a server of MLflow's protocol, as many as it answers: client processes over raw sockets, with bodies made beforehand.

Every point is its own: what was acknowledged is read back through the server and summed. A body is patched where its number stands, in digits of
fixed width, so that the generator costs little; `ceiling` is what it reaches against a server that does nothing.
"""

import json
import math
import multiprocessing
import socket
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final, Literal
from urllib.parse import urlencode, urlsplit

Kind = Literal["batch", "metric", "create"]

API: Final = "/api/2.0/mlflow/"
N_KEYS: Final = 10
BATCH: Final = 1000
START_MS: Final = 1_600_000_000_000
# Five digits that stand for the number of a request; numbers begin with a 1, so that none has a leading zero.
_MARK: Final = b"@@@@@"
_MOST: Final = 100_000
_PAGE: Final = 25_000
_GRACE_S: Final = 120.0
_AGAIN_S: Final = 30.0


@dataclass(frozen=True, slots=True)
class Sent:
    """What one client had acknowledged.

    Attributes:
        run_id: its run; empty where each request made one.
        keys: of its metrics.
        total: the sum of all values, of runs the sum of their start times.
        seconds: of each request.
    """

    run_id: str
    keys: tuple[str, ...]
    n_requests: int
    n_points: int
    total: float
    spent_s: float
    seconds: list[float]


@dataclass(frozen=True, slots=True)
class Row:
    """One kind of request from so many clients at a time."""

    kind: Kind
    experiment_id: str
    sent: list[Sent] = field(default_factory=list)

    @property
    def n_clients(self) -> int:
        """As many as there are results."""
        return len(self.sent)

    @property
    def rate(self) -> float:
        """Points, or runs, in a second."""
        return sum(one.n_points / one.spent_s for one in self.sent)

    def percentile_ms(self, share: float) -> float:
        """Of all requests."""
        ordered = sorted(each for one in self.sent for each in one.seconds)
        return ordered[min(len(ordered) - 1, math.ceil(share * len(ordered)))] * 1000 if ordered else math.nan


class Refused(RuntimeError):
    """An answer other than 200."""

    def __init__(self, status: int, body: bytes) -> None:
        super().__init__(f"answered {status}: {body[:500]!r}")
        self.status = status


class Connection:
    """One kept connection. HTTP as far as the protocol's answers need it, and no further.

    Attributes:
        spent_s: waiting for answers to `get` and `post`, and receiving them.
    """

    def __init__(self, url: str) -> None:
        self.spent_s = 0.0
        parts = urlsplit(url)
        self._host = f"{parts.hostname}:{parts.port}"
        self._socket = socket.create_connection((parts.hostname or "", parts.port or 80), timeout=_GRACE_S)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._rest = b""

    def close(self) -> None:
        """Close it."""
        self._socket.close()

    def head(self, path: str, n_bytes: int) -> bytes:
        """The head of a POST, to be sent with many bodies of one length."""
        return f"POST {path} HTTP/1.1\r\nHost: {self._host}\r\nContent-Type: application/json\r\nContent-Length: {n_bytes}\r\n\r\n".encode()

    def exchange(self, request: bytes) -> bytes:
        """Send one request; the body of its answer.

        Raises:
            Refused: it is not 200.
            RuntimeError: it is no answer.
        """
        self._socket.sendall(request)
        data = self._rest
        while (end := data.find(b"\r\n\r\n")) < 0:
            data += self._received()
        head = data[:end].lower()
        at = head.find(b"content-length:")
        if at < 0:
            raise RuntimeError(f"an answer without a length: {head!r}")
        n_bytes = int(head[at + 15 :].split(b"\r\n", 1)[0])
        parts, have = [data[end + 4 :]], len(data) - end - 4
        while have < n_bytes:
            parts.append(self._received())
            have += len(parts[-1])
        body = b"".join(parts)
        self._rest = body[n_bytes:]
        if head[9:12] != b"200":
            raise Refused(int(head[9:12]), body)
        return body[:n_bytes]

    def post(self, route: str, **fields: Any) -> Any:
        """One call of the protocol."""
        body = json.dumps(fields).encode()
        return self._asked(self.head(API + route, len(body)) + body)

    def get(self, route: str, **query: object) -> Any:
        """One question of the protocol."""
        return self._asked(f"GET {API}{route}?{urlencode(query)} HTTP/1.1\r\nHost: {self._host}\r\n\r\n".encode())

    def _asked(self, request: bytes) -> Any:
        """The answer as JSON. What a server can't do just now, as after a restart of its database, is asked again, as by every client."""
        until = time.monotonic() + _AGAIN_S
        while True:
            try:
                began = time.perf_counter()
                body = self.exchange(request)
                self.spent_s += time.perf_counter() - began
                return json.loads(body or b"{}")
            except Refused as error:
                if error.status < 500 or time.monotonic() > until:
                    raise
                time.sleep(0.1)

    def _received(self) -> bytes:
        got = self._socket.recv(1 << 20)
        if not got:
            raise RuntimeError("the server closed the connection")
        return got


def load(url: str, kind: Kind, n_clients: int, seconds: float) -> Row:
    """Send requests of one kind from so many processes for so long.

    Raises:
        RuntimeError: a client failed.
    """
    control = Connection(url)
    row = Row(kind, control.post("experiments/create", name=f"load {kind} {n_clients} {time.time_ns()}")["experiment_id"])
    control.close()
    # Not forked: what the benchmark has open stays its own.
    context = multiprocessing.get_context("spawn")
    results: Any = context.Queue()
    start = context.Barrier(n_clients)
    clients = [context.Process(target=_client, args=(url, kind, row.experiment_id, seconds, start, results)) for _ in range(n_clients)]
    for client in clients:
        client.start()
    for _ in clients:
        found = results.get(timeout=seconds + _GRACE_S)
        if isinstance(found, str):
            raise RuntimeError(f"a client of the load failed: {found}")  # noqa: TRY004 - what it said, not a wrong type
        row.sent.append(found)
    for client in clients:
        client.join()
    return row


def _client(url: str, kind: Kind, experiment_id: str, seconds: float, start: Any, results: Any) -> None:
    try:
        results.put(_send(url, kind, experiment_id, seconds, start))
    except (OSError, RuntimeError, threading.BrokenBarrierError) as error:
        start.abort()
        results.put(f"{type(error).__name__}: {error}")


def _send(url: str, kind: Kind, experiment_id: str, seconds: float, start: Any) -> Sent:
    connection = Connection(url)
    run_id = "" if kind == "create" else connection.post("runs/create", experiment_id=experiment_id, start_time=START_MS)["run"]["info"]["run_id"]
    route, body, unit, keys = _body(kind, run_id, experiment_id)
    head = connection.head(API + route, len(body))
    numbers = [b"%05d" % number for number in range(_MOST)]
    latencies: list[float] = []
    start.wait(_GRACE_S)
    began = sent = time.perf_counter()
    until = began + seconds
    number = 0
    while sent < until and number < _MOST:
        connection.exchange(head + body.replace(_MARK, numbers[number]))
        now = time.perf_counter()
        latencies.append(now - sent)
        number, sent = number + 1, now
    connection.close()
    return Sent(run_id, keys, number, number * unit, total_of(kind, number), sent - began, latencies)


def total_of(kind: Kind, n_requests: int) -> float:
    """The sum of all values that so many requests of one client carry; of runs, of their start times."""
    if kind == "create":
        return n_requests * (START_MS + _MOST) + n_requests * (n_requests - 1) // 2
    unit, shares = (BATCH, sum(range(BATCH)) / BATCH) if kind == "batch" else (1, 0.0)
    return unit * (n_requests * _MOST + n_requests * (n_requests - 1) // 2) + n_requests * shares


def _body(kind: Kind, run_id: str, experiment_id: str) -> tuple[str, bytes, int, tuple[str, ...]]:
    """The route, a body to be patched, how many points it holds, and their keys."""
    if kind == "create":
        # The start time tells the runs apart: 16000001NNNNN.
        text = json.dumps({"experiment_id": experiment_id, "start_time": "TIME"}).replace('"TIME"', f"{START_MS // _MOST + 1}{_MARK.decode()}")
        return "runs/create", text.encode(), 1, ()
    if kind == "metric":
        fields = f'"key": "m0", "value": 1{_MARK.decode()}, "timestamp": {START_MS}, "step": 1{_MARK.decode()}'
        return "runs/log-metric", f'{{"run_id": "{run_id}", {fields}}}'.encode(), 1, ("m0",)
    points = [
        f'{{"key": "m{at % N_KEYS}", "value": 1{_MARK.decode()}.{at:03d}, "timestamp": {START_MS + at}, "step": 1{_MARK.decode()}{at // N_KEYS:02d}}}'
        for at in range(BATCH)
    ]
    text = f'{{"run_id": "{run_id}", "metrics": [{", ".join(points)}]}}'
    return "runs/log-batch", text.encode(), BATCH, tuple(f"m{key}" for key in range(N_KEYS))


def missing(url: str, rows: Iterable[Row]) -> list[str]:
    """Read everything back, and say of what it is not the same number and sum."""
    connection = Connection(url)
    told = []
    for row in rows:
        if row.kind == "create":
            found = _start_times(connection, row.experiment_id)
            told += _unlike(f"runs of experiment {row.experiment_id}", found, sum(one.n_points for one in row.sent), sum(one.total for one in row.sent))
            continue
        for one in row.sent:
            values = [value for key in one.keys for value in history(connection, one.run_id, key)]
            told += _unlike(f"points of run {one.run_id}", values, one.n_points, one.total)
    connection.close()
    return told


def _unlike(what: str, found: Sequence[float], count: int, total: float) -> list[str]:
    if len(found) == count and math.isclose(math.fsum(found), total, rel_tol=1e-12):
        return []
    return [f"{what}: {len(found)} of {count}, sum {math.fsum(found)!r} of {total!r}"]


def history(connection: Connection, run_id: str, key: str) -> Iterator[float]:
    """Every value of a metric, page by page."""
    token = ""
    while True:
        page = connection.get("metrics/get-history", run_id=run_id, metric_key=key, max_results=_PAGE, **({"page_token": token} if token else {}))
        yield from (point["value"] for point in page.get("metrics", ()))
        token = page.get("next_page_token", "")
        if not token:
            return


def _start_times(connection: Connection, experiment_id: str) -> list[float]:
    found: list[float] = []
    token = ""
    while True:
        page = connection.post("runs/search", experiment_ids=[experiment_id], max_results=10_000, page_token=token)
        found += [run["info"]["start_time"] for run in page.get("runs", ())]
        token = page.get("next_page_token", "")
        if not token:
            return found


@contextmanager
def null_server() -> Iterator[str]:
    """A server that reads requests and answers nothing much, for the generator's own ceiling."""
    context = multiprocessing.get_context("spawn")
    ports: Any = context.Queue()
    process = context.Process(target=_serve_nothing, args=(ports,))
    process.start()
    try:
        yield f"http://127.0.0.1:{ports.get(timeout=_GRACE_S)}"
    finally:
        process.terminate()
        process.join()


def _serve_nothing(ports: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ports.put(listener.getsockname()[1])
        while True:
            client, _ = listener.accept()
            threading.Thread(target=_answer_nothing, args=(client,), daemon=True).start()


def _answer_nothing(client: socket.socket) -> None:
    content = b'{"experiment_id": "1", "run": {"info": {"run_id": "0"}}}'
    answer = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(content) + content
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    buffer = bytearray(1 << 20)
    with client:
        while head := client.recv(1 << 20):
            end = head.find(b"\r\n\r\n")
            left = int(head[:end].lower().partition(b"content-length:")[2].split(b"\r\n", 1)[0]) - (len(head) - end - 4)
            while left > 0:
                left -= client.recv_into(buffer)
            client.sendall(answer)
