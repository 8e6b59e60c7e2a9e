"""Log metrics and artifacts from a trial. One file, standard library only, Python 3.6 and newer.

    import sweep_client

    lr = sweep_client.params()["lr"]
    for epoch in range(10):
        sweep_client.log({"loss": train(lr)}, step=epoch)

Logging never breaks training and holds it up by some milliseconds at most: points wait in a bounded buffer that a
background thread sends. What can't be sent is told once on standard error. Outside a trial every call does nothing.

The worker sets SWEEP_TRACKING_URI, SWEEP_RUN_ID, SWEEP_RUN_TOKEN and SWEEP_PARAMS (JSON) or SWEEP_PARAMS_FILE.
"""

import atexit
import collections
import json
import math
import os
import sys
import threading
import time

TYPE_CHECKING = False
if TYPE_CHECKING:  # annotations are strings, so that Python 3.6 takes them and typing is not imported
    from collections.abc import Callable, Iterable, Mapping
    from http.client import HTTPConnection, HTTPResponse
    from typing import IO, Any

__all__ = ["flush", "log", "log_artifact", "log_artifacts", "log_param", "log_params", "params", "run_id", "set_tag", "set_tags"]

MAX_BUFFERED_POINTS = 200_000
MAX_BUFFERED_TEXTS = 10_000
EXIT_FLUSH_S = 60.0
UNREACHED_FLUSH_S = 15.0
ARTIFACT_TIME_S = 300.0

_MAX_BATCH_POINTS = 1000
_MAX_BATCH_TEXTS = 100
_MAX_NOTES = 50
_GATHER_S = 0.25
_REQUEST_TIME_S = 60.0
_BACKOFF_MAX_S = 10.0
_THREAD_AGAIN_S = 0.25
_ROOM_WAIT_S = 0.005
_ROOM_WAIT_POINT_S = 0.0001
_STALLED_S = 1.0
_KEY_CHARS = 250
_RETRIED = frozenset([408, 429, 500, 502, 503, 504])
_NO_LONGER_OURS = frozenset([401, 403, 409])
_OUTSIDE = "not in a trial of a server: there may be no parameters, and nothing is logged"
_DROPPED = "sweep.dropped_points"

run_id = os.environ.get("SWEEP_RUN_ID", "")
"""This trial's run, empty outside a trial."""


def params() -> "dict[str, Any]":
    """This trial's parameters; none outside a trial."""
    text = os.environ.get("SWEEP_PARAMS")
    path = os.environ.get("SWEEP_PARAMS_FILE")
    if not text and path:
        with open(path, encoding="utf-8") as file:
            text = file.read()
    if not text:
        _note("outside", _OUTSIDE)
        return {}
    values: "dict[str, Any]" = json.loads(text)
    return values


def log(metrics: "Mapping[str, Any]", step: "int | None" = None) -> None:
    """Log metrics of one step; without `step`, of the step after the largest so far."""
    _logger().add_metrics(metrics, step)


def log_param(key: str, value: "Any") -> None:
    """Log one parameter. A value once logged can't change."""
    log_params({key: value})


def log_params(values: "Mapping[str, Any]") -> None:
    """Log several parameters."""
    _logger().add_texts("params", values)


def set_tag(key: str, value: "Any") -> None:
    """Set one tag of the run."""
    set_tags({key: value})


def set_tags(values: "Mapping[str, Any]") -> None:
    """Set several tags of the run."""
    _logger().add_texts("tags", values)


def log_artifact(path: "str | os.PathLike[str]", artifact_path: "str | None" = None) -> bool:
    """Upload a file, or a folder under its own name, below `artifact_path`; wait for it. Tell whether it arrived."""
    path = os.fspath(path)
    if os.path.isdir(path):
        name = os.path.basename(os.path.abspath(path))
        return log_artifacts(path, artifact_path + "/" + name if artifact_path else name)
    return _logger().upload(path, artifact_path or "")


def log_artifacts(folder: "str | os.PathLike[str]", artifact_path: "str | None" = None) -> bool:
    """Upload what a folder holds below `artifact_path`; wait for it. Tell whether all of it arrived."""
    folder = os.fspath(folder)
    arrived = True
    for parent, _, names in os.walk(folder):
        below = os.path.relpath(parent, folder).replace(os.sep, "/")
        target = "/".join(part for part in (artifact_path, below) if part and part != ".")
        for name in sorted(names):
            arrived = _logger().upload(os.path.join(parent, name), target) and arrived
    return arrived


def flush(timeout: float = 30.0) -> bool:
    """Wait until everything logged so far is sent, `timeout` seconds at most. Tell whether it is."""
    return _logger().flush(timeout)


_noted: "set[str]" = set()


def _note(about: str, text: str) -> None:
    """Tell something once on standard error, if there is one."""
    if about in _noted or len(_noted) >= _MAX_NOTES:
        return
    _noted.add(about)
    try:
        sys.stderr.write(f"sweep_client: {text}\n")
    except (OSError, ValueError, AttributeError):  # closed or missing: there is nobody to tell
        return


class _RefusedError(Exception):
    """The server won't take this; sending it again changes nothing."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"{message} ({status})")
        self.status = status


class _AwayError(Exception):
    """The server can't be reached or is busy; sending it again may help, after `wait_s`."""

    def __init__(self, message: str, wait_s: float = 0.0) -> None:
        super().__init__(message)
        self.wait_s = wait_s


class _Server:
    """One kept-alive connection, for one thread at a time."""

    def __init__(self, uri: str, token: str) -> None:
        scheme, _, rest = uri.partition("://")
        host, _, path = rest.partition("/")
        self._is_https = scheme == "https"
        self._host = host.rpartition("@")[2]
        self._prefix = ("/" + path).rstrip("/")
        self._headers = {"Authorization": "Bearer " + token} if token else {}
        self._connection: "HTTPConnection | None" = None

    def call(self, method: str, path: str, body: "bytes | IO[bytes] | None", headers: "Mapping[str, str]") -> bytes:
        """The answer's body, or one of the two errors above."""
        import http.client

        try:
            response = self._answer(method, self._prefix + path, body, headers)
            content = response.read()
        except (OSError, http.client.HTTPException) as error:
            self.close()
            raise _AwayError(f"{type(error).__name__}: {error}") from error
        if response.status < 300:
            return content
        if response.status in _RETRIED:
            raise _AwayError(f"the server answered {response.status}", _seconds(response.getheader("Retry-After")))
        raise _RefusedError(response.status, _message(content))

    def close(self) -> None:
        """Drop the connection; the next call opens another."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _answer(self, method: str, path: str, body: "bytes | IO[bytes] | None", headers: "Mapping[str, str]") -> "HTTPResponse":
        import http.client

        if self._connection is None:
            kind = http.client.HTTPSConnection if self._is_https else http.client.HTTPConnection
            self._connection = kind(self._host, timeout=_REQUEST_TIME_S)
        try:
            self._connection.request(method, path, body, dict(self._headers, **headers))
        except (BrokenPipeError, ConnectionResetError):
            # The server may have answered before it had read everything: a refusal tells more than a broken pipe.
            if self._connection.sock is None:
                raise
        return self._connection.getresponse()


class _Logger:
    """Buffers what is logged and sends it from a thread of its own, which starts with the first item."""

    def __init__(self, uri: str, run: str, token: str) -> None:
        if uri and run:
            # Here, not in the thread: a process that forks while a thread imports leaves its child half a module.
            import http.client  # noqa: F401
        self.pid = os.getpid()
        self._uri = uri
        self._run = run
        self._token = token
        self._is_on = bool(uri and run)
        self._changed = threading.Condition()
        self._points: "collections.deque[dict[str, Any]]" = collections.deque()
        self._texts: "dict[str, dict[str, str]]" = {"params": {}, "tags": {}}
        self._is_sending = False
        self._was_reached = False
        self._batch: "dict[str, Any]" = {"metrics": [], "params": {}, "tags": {}}
        self._n_dropped = 0
        self._n_waiters = 0
        self._next_step = 0
        # Of each key: its highest step, and the latest time of a point.
        self._series: "dict[str, tuple[int, int]]" = {}
        self._sent_at = -math.inf
        self._thread: "threading.Thread | None" = None
        self._artifact_root = ""
        self._artifact_lock = threading.Lock()

    def add_metrics(self, metrics: "Mapping[str, Any]", step: "int | None") -> None:
        """Take the points of one step."""
        if not self._is_wanted():
            return
        now_ms = int(time.time() * 1000)
        values = [(str(key), _json_number(str(key), value)) for key, value in metrics.items()]
        with self._changed:
            at = _step(step, self._next_step)
            if at is None:
                return
            self._next_step = max(self._next_step, at + 1)
            kept = [(key, value) for key, value in values if value is not None and _is_key(key)]
            self._points.extend({"key": key, "value": value, "timestamp": self._time(key, at, now_ms), "step": at} for key, value in kept)
            if len(self._points) > MAX_BUFFERED_POINTS:
                self._drop(len(self._points) - MAX_BUFFERED_POINTS)
            self._wake()
            self._let_send(len(kept))

    def _time(self, key: str, step: int, now_ms: int) -> int:
        """A point's time: it grows where the step does not, for of points with one step and one time the greatest counts as the last."""
        highest, latest_ms = self._series.get(key, (step - 1, now_ms))
        at_ms = max(now_ms, latest_ms + 1) if step <= highest else now_ms
        self._series[key] = max(highest, step), max(latest_ms, at_ms)
        return at_ms

    def _drop(self, n_points: int) -> None:
        """Let go of the oldest points, and keep with the run how many these were. The lock is held."""
        for _ in range(n_points):
            self._points.popleft()
        self._n_dropped += n_points
        self._texts["tags"][_DROPPED] = str(self._n_dropped)
        _note("full", "the buffer is full: the oldest points are dropped")

    def _let_send(self, n_points: int) -> None:
        """Slow down a little who logs faster than is sent, as long as something is sent at all. The lock is held."""
        half = MAX_BUFFERED_POINTS // 2
        if len(self._points) > half and time.monotonic() - self._sent_at < _STALLED_S:
            self._changed.wait_for(lambda: len(self._points) <= half or not self._is_on, _ROOM_WAIT_S + n_points * _ROOM_WAIT_POINT_S)

    def add_texts(self, kind: str, values: "Mapping[str, Any]") -> None:
        """Take parameters or tags."""
        if not self._is_wanted():
            return
        texts = {str(key): str(value) for key, value in values.items()}
        with self._changed:
            for key, text in texts.items():
                if len(self._texts[kind]) >= MAX_BUFFERED_TEXTS:
                    _note("full " + kind, f"the buffer is full: some {kind} are dropped")
                elif _is_key(key):
                    self._texts[kind][key] = text
            self._wake()

    def flush(self, timeout: float) -> bool:
        """Wait until all is sent; False if it is not in time, or never will be."""
        deadline = time.monotonic() + timeout
        with self._changed:
            self._n_waiters += 1
            self._changed.notify_all()
            try:
                while self._has_items() or self._is_sending:
                    left_s = deadline - time.monotonic()
                    if left_s <= 0:
                        return False
                    if self._thread is None:
                        self._wake()
                    self._changed.wait(left_s if self._thread is not None else min(left_s, _THREAD_AGAIN_S))
            finally:
                self._n_waiters -= 1
            return self._is_on or not self._run

    def flush_at_exit(self) -> None:
        """Give what is buffered a last, bounded chance."""
        if os.getpid() != self.pid:
            return
        # A server that has answered before is being restarted; one that never did is perhaps not to be reached from here.
        if self._is_on and not self.flush(EXIT_FLUSH_S if self._was_reached else min(EXIT_FLUSH_S, UNREACHED_FLUSH_S)):
            _note("exit", f"not everything logged could be sent before the end; missing: {self._unsent()}")
        if self._n_dropped:
            _note("dropped", f"{self._n_dropped} points were dropped because the buffer was full")

    def _unsent(self) -> str:
        """What waits to be sent, or was under way; of the latter the server may have got some."""
        with self._changed:
            under_way = self._batch if self._is_sending else {"metrics": [], "params": {}, "tags": {}}
            n_points = len(self._points) + len(under_way["metrics"])
            n_texts = {kind: len(dict(under_way[kind], **texts)) for kind, texts in self._texts.items()}
        return f"{n_points} points, {n_texts['params']} parameters, {n_texts['tags']} tags"

    def upload(self, path: str, artifact_path: str) -> bool:
        """Send one file; False if it did not arrive."""
        if not self._is_wanted():
            return False
        try:
            with self._artifact_lock:
                self._upload(path, artifact_path)
        except (_RefusedError, _AwayError, OSError, ValueError, KeyError) as error:
            _note("artifact " + path, f"artifact {path} is not stored: {error}")
            return False
        return True

    def _upload(self, path: str, artifact_path: str) -> None:
        from urllib.parse import quote

        server = _Server(self._uri, self._token)
        try:
            if not self._artifact_root:
                answer = _patiently(lambda: server.call("GET", "/api/2.0/mlflow/runs/get?run_id=" + self._run, None, {}))
                uri = json.loads(answer.decode())["run"]["info"]["artifact_uri"]
                if not uri.startswith("mlflow-artifacts:"):
                    raise ValueError("this run's artifacts are kept at " + uri + ", which needs a client of that store")
                self._artifact_root = uri.partition(":")[2].strip("/")
            parts = [self._artifact_root, artifact_path.strip("/"), os.path.basename(path)]
            target = "/api/2.0/mlflow-artifacts/artifacts/" + quote("/".join(part for part in parts if part))
            with open(path, "rb") as file:
                headers = {"Content-Type": "application/octet-stream", "Content-Length": str(os.fstat(file.fileno()).st_size)}
                _patiently(lambda: server.call("PUT", target, _rewound(file), headers))
        finally:
            server.close()

    def _is_wanted(self) -> bool:
        if not (self._uri and self._run):
            _note("outside", _OUTSIDE)
        return self._is_on

    def _has_items(self) -> bool:
        return bool(self._points or self._texts["params"] or self._texts["tags"])

    def _wake(self) -> None:
        """Wake the thread, or start it. The lock is held."""
        if self._thread is None and self._has_items():
            thread = threading.Thread(target=self._send_all, name="sweep_client", daemon=True)
            try:
                thread.start()
            except RuntimeError as error:
                if "shutdown" in str(error):
                    _note("shutdown", f"nothing more is logged: {error}")
                    self._give_up()
                else:  # out of threads, which passes: the next call tries again
                    _note("thread", f"what is logged waits in the buffer: {error}")
                return
            self._thread = thread
        self._changed.notify_all()

    def _send_all(self) -> None:
        server = _Server(self._uri, self._token)
        wait_s = 0.0
        while True:
            batch = self._next_batch(wait_s)
            if not self._is_on:
                break
            try:
                self._send(server, batch)
                self._was_reached = True
                self._sent_at = time.monotonic()
                wait_s = 0.0
            except _AwayError as error:
                _note("away", f"the server can't be reached and is tried again: {error}")
                wait_s = max(error.wait_s, min(_BACKOFF_MAX_S, wait_s * 2 or 0.5) * _spread())
                self._put_back(batch)
            except _RefusedError as error:
                _note("stopped", f"nothing more is logged, this run is no longer this process's: {error}")
                self._give_up()
            with self._changed:
                self._is_sending = False
                self._changed.notify_all()
        server.close()

    def _next_batch(self, wait_s: float) -> "dict[str, Any]":
        """Wait for items, and a moment for more; take as many as one request may carry."""
        if wait_s:
            time.sleep(wait_s)
        with self._changed:
            self._changed.wait_for(lambda: self._has_items() or not self._is_on)
            self._changed.wait_for(lambda: len(self._points) >= _MAX_BATCH_POINTS or self._n_waiters > 0 or not self._is_on, _GATHER_S)
            self._is_sending = self._is_on
            batch: "dict[str, Any]" = {kind: _taken(texts, _MAX_BATCH_TEXTS) for kind, texts in self._texts.items()}
            room = _MAX_BATCH_POINTS - len(batch["params"]) - len(batch["tags"])
            batch["metrics"] = [self._points.popleft() for _ in range(min(room, len(self._points)))]
            self._batch = batch
            return batch

    def _put_back(self, batch: "dict[str, Any]") -> None:
        with self._changed:
            self._points.extendleft(reversed(batch["metrics"]))
            for kind in self._texts:
                # What was logged meanwhile is newer.
                self._texts[kind] = dict(batch[kind], **self._texts[kind])

    def _give_up(self) -> None:
        with self._changed:
            self._is_on = False
            self._points.clear()
            self._texts = {"params": {}, "tags": {}}
            self._changed.notify_all()

    def _send(self, server: _Server, batch: "dict[str, Any]") -> None:
        """Send a batch; if it is refused, its parts one by one, so that a bad parameter costs nothing but itself."""
        try:
            self._post(server, batch)
        except _RefusedError as error:
            if error.status in _NO_LONGER_OURS:
                raise
            parts = list(_parts(batch))
            if len(parts) == 1:
                _note(f"refused {error}", f"some of what was logged was refused: {error}")
                return
            for part in parts:
                self._send(server, part)

    def _post(self, server: _Server, batch: "dict[str, Any]") -> None:
        body = {
            "run_id": self._run,
            "metrics": batch["metrics"],
            "params": [{"key": key, "value": value} for key, value in batch["params"].items()],
            "tags": [{"key": key, "value": value} for key, value in batch["tags"].items()],
        }
        server.call("POST", "/api/2.0/mlflow/runs/log-batch", json.dumps(body).encode(), {"Content-Type": "application/json"})


def _json_number(key: str, value: "Any") -> "float | str | None":
    """A metric's value as MLflow's JSON has it, or None if it is no number."""
    try:
        # Of an array of one element, whatever its shape, as at W&B; numpy's own float() takes only those without any.
        number = float(value.item() if getattr(value, "shape", None) and hasattr(value, "item") else value)
    except OverflowError:
        number = math.inf if value > 0 else -math.inf
    except Exception as error:  # noqa: BLE001  a tensor's or array's own error must not end training
        _note("number " + key, f"metric {key!r} is not a number and not logged: {error}")
        return None
    if math.isfinite(number):
        return number
    return "NaN" if math.isnan(number) else "Infinity" if number > 0 else "-Infinity"


def _step(step: "int | None", following: int) -> "int | None":
    try:
        number = following if step is None else int(step)
    except (TypeError, ValueError, OverflowError) as error:
        _note("step", f"a step is no whole number, and its metrics are not logged: {error}")
        return None
    if -(2**63) <= number < 2**63:
        return number
    _note("step", f"step {number} is out of range, and its metrics are not logged")
    return None


def _is_key(key: str) -> bool:
    """Whether the server takes this name from a trial; it refuses the whole request otherwise."""
    is_key = len(key) <= _KEY_CHARS and key.isprintable() and bool(key.strip())
    if not is_key:
        about = "it has over 250 characters" if len(key) > _KEY_CHARS else "it is empty, or not all of it can be printed"
        _note("key " + key, f"{key[:100]!r} is no name for a metric, parameter or tag, and not logged: {about}")
    return is_key


def _taken(texts: "dict[str, str]", limit: int) -> "dict[str, str]":
    return {key: texts.pop(key) for key in list(texts)[:limit]}


def _parts(batch: "dict[str, Any]") -> "Iterable[dict[str, Any]]":
    """The points of a batch, and each parameter and tag alone."""
    if batch["metrics"]:
        yield {"metrics": batch["metrics"], "params": {}, "tags": {}}
    for kind in ("params", "tags"):
        for key, value in batch[kind].items():
            yield dict({"metrics": [], "params": {}, "tags": {}}, **{kind: {key: value}})


def _patiently(call: "Callable[[], bytes]") -> bytes:
    """The answer of a call that is tried again while the server is away."""
    deadline = time.monotonic() + ARTIFACT_TIME_S
    wait_s = 0.5
    while True:
        try:
            return call()
        except _AwayError as error:
            wait_s = max(wait_s, error.wait_s)
            if time.monotonic() + wait_s > deadline:
                raise
        time.sleep(wait_s)
        wait_s = min(_BACKOFF_MAX_S, wait_s * 2)


def _spread() -> float:
    """Between a half and one, at random: a thousand trials must not come back all at once."""
    return 0.5 + os.urandom(1)[0] / 510


def _rewound(file: "IO[bytes]") -> "IO[bytes]":
    file.seek(0)
    return file


def _seconds(text: "str | None") -> float:
    """Of a Retry-After header; its other form, a date, counts as none."""
    return min(float(text), _BACKOFF_MAX_S) if text and text.isdigit() else 0.0


def _message(content: bytes) -> str:
    """The sentence in an error's body."""
    try:
        return str(json.loads(content.decode())["message"])
    except (ValueError, KeyError, TypeError):
        return content[:200].decode("utf-8", "replace") or "no reason given"


_current: "_Logger | None" = None
_current_lock = threading.Lock()


def _logger() -> _Logger:
    """This process's logger. A forked child has neither the thread nor, perhaps, a free lock: it gets its own."""
    global _current, _current_lock  # noqa: PLW0603  one logger for each process is what this module is
    if _current is not None and _current.pid == os.getpid():
        return _current
    if _current is not None:
        _current_lock = threading.Lock()
    with _current_lock:
        if _current is None or _current.pid != os.getpid():
            environ = os.environ
            _current = _Logger(environ.get("SWEEP_TRACKING_URI", ""), environ.get("SWEEP_RUN_ID", ""), environ.get("SWEEP_RUN_TOKEN", ""))
            atexit.register(_current.flush_at_exit)
        return _current
