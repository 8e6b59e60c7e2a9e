"""Attempts in containers: the boundary between users (D12), with limits on processors and memory, and no capabilities.

A container outlives the worker, and is found again by its labels, whatever its name is by then. It is never removed by the engine
itself, which would take its exit status with it, but by us once the outcome is committed. Its output is followed through the engine into
the same two files that a process run writes; what these files hold already says where to go on after a break, so nothing is lost or doubled.

An engine ends its containers when it is stopped or comes back from a crash, and so does a machine; that is nobody's fault (I6). It leaves
no trace of who sent a signal, so an end is doubted if the engine was away when it came, and if nobody watched. See `_Doubt`.

With the network `bridge`, a server that listens on 127.0.0.1 of the host can't be reached from inside; one that listens on the bridge's
address is `host.docker.internal`. Metrics on standard output need no network at all.
"""

import contextlib
import logging
import math
import os
import re
import signal
import struct
import threading
import time
from collections.abc import Container, Iterator, Mapping
from datetime import datetime
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import Any, Final, Literal, NamedTuple

import msgspec
import requests
import urllib3
from docker import APIClient
from docker.errors import APIError, DockerException, ImageNotFound, NotFound
from docker.types import DeviceRequest, LogConfig
from docker.utils import kwargs_from_env

from worker.errands import Errands, keep_trying
from worker.errors import EngineAway, Exhausted, ImageAway, ImageMissing, LaunchFailed, LaunchRefused, WorkerError
from worker.lack import telling_lack
from worker.runtimes.base import (
    STDERR,
    STDOUT,
    STOP_FILE,
    WORK,
    WORK_TARGET,
    Abandoned,
    AttemptKey,
    AttemptSpec,
    ExitReport,
    Handle,
    StopReason,
    check_launchable,
    record_stop,
    recorded_stop,
    signal_name,
)
from worker.runtimes.host import host_incarnation, machine_life

Network = Literal["bridge", "none", "host"]

LABEL_RUN: Final = "sweep.run"
LABEL_ATTEMPT: Final = "sweep.attempt"
LABEL_WORKER: Final = "sweep.worker"
LABEL_HOST: Final = "sweep.host"
LABEL_HOME: Final = "sweep.home"
_NOTE: Final = "container"
"""Name of the file that keeps a container's id from before it is started: if there is none by it any more, someone has removed it."""
_N_PIDS: Final = 4096
_BAD_REQUEST: Final = 400
_CONFLICT: Final = 409
_WAIT_S: Final = 60.0
"""How long one wait may last: the connection may be dead without anybody saying so."""
_CONNECT_S: Final = 10.0
_BACK_OFF_S: Final = 1.0
_KILLED_S: Final = 10
"""How long to wait for a container that is being killed."""
_REMOVAL_S: Final = 2
"""How long to see whether a container that was killed is being removed."""
_DRAIN_S: Final = 10.0
"""How long the output of an ended container may take to arrive; what then lacks is read again in one go."""
_WRITE_AGAIN_S: Final = 60.0
"""How long to wait at most before output that can't be written is tried again: each try reads all of it anew."""
_MAX_CONNECTIONS: Final = 64
"""More than the containers one worker runs at once, each with an open stream and a wait."""
_STREAM_ERRORS: Final = (requests.exceptions.RequestException, urllib3.exceptions.HTTPError, OSError)
"""What a connection that breaks in the middle may raise."""
_NOT_TO_BE_HAD: Final = re.compile(
    r"\bmanifest unknown\b|\bname unknown\b|\bnot found\b|\bno matching manifest\b|\baccess (?:to the resource is |is )?denied\b|\brequested access\b"
    r"|(?:^|: )(?:denied|unauthorized|forbidden)\b|\bno basic auth credentials\b|\bincorrect username or password\b|\binvalid reference\b"
    r"|\b40[134] (?:Unauthorized|Forbidden|Not Found)\b",
    re.IGNORECASE,
)
"""What engines and registries say of an image that is not there, or not for whoever asks. Their statuses say less: 500 is any of these, and any outage."""
_FRAME: Final = struct.Struct(">BxxxL")
_STREAM_NAMES: Final = {1: STDOUT, 2: STDERR}

_log = logging.getLogger(__name__)


class _Doubt(NamedTuple):
    """Why the machinery may have ended a container whose end nobody of us has seen.

    Attributes:
        detail: for people.
        signals: the doubt holds for an end by one of these only; None if for any that is no success. A command may answer a signal
            with an exit status of its own.
    """

    detail: str
    signals: frozenset[int] | None = None


_ENDED: Final = ("exited", "dead", "removing")


class _Labelled(NamedTuple):
    """A container that its labels tell to be an attempt's."""

    key: AttemptKey
    worker_id: str
    container_id: str
    has_ended: bool

    @classmethod
    def of(cls, facts: Mapping[str, Any]) -> "_Labelled | None":
        """What the engine says in a list; None for one that is no attempt."""
        labels = facts["Labels"]
        run_id, attempt = labels.get(LABEL_RUN), labels.get(LABEL_ATTEMPT, "")
        if not run_id or not attempt.isdigit():
            return None
        return cls((run_id, int(attempt)), labels.get(LABEL_WORKER, ""), facts["Id"], facts["State"] in _ENDED)


_CUT_OFF: Final = _Doubt("the container engine went away while it ran")


class DockerRuntime:
    """Runs attempts in containers of the engine that the environment names (DOCKER_HOST and its kin).

    Args:
        worker_id: labels what is started here.
        home_id: does too, and stays when the worker is given another name: other homes and other clusters may use the same engine.
        network: which network containers get.

    Raises:
        EngineAway: the engine does not answer.
    """

    def __init__(self, worker_id: str, home_id: str, *, network: Network = "bridge") -> None:
        self._worker_id = worker_id
        self._home_id = home_id
        self._network = network
        self._pulls: Errands[None] = Errands()
        try:
            self._api = APIClient(version="auto", max_pool_size=_MAX_CONNECTIONS, **kwargs_from_env())
        except DockerException as error:
            raise EngineAway(f"The container engine does not answer: {error}.") from error

    def start(self, spec: AttemptSpec, called_off: threading.Event | None = None) -> Handle:
        """See `base.Runtime`."""
        check_launchable(spec)
        image = spec.resources.image
        if image is None:
            raise LaunchFailed(f"Run {spec.run_id} names no image.")
        name = container_name(spec.run_id, spec.attempt)
        with _engine_errors(name):
            self._end_earlier(spec)
            container_id = self._create(image, name, spec, called_off)
            if container_id is None:
                return self._take_existing(name, spec)
            return self._begin(container_id, name, spec)

    def adopt(self, run_id: str, attempt: int, folder: Path) -> Handle | None:
        """See `base.Runtime`."""
        name = container_name(run_id, attempt)
        with _engine_errors(name):
            try:
                facts = self._find(run_id, attempt)
            except NotFound:
                container_id = _noted_id(folder)
                return DockerHandle(self._api, container_id, name, folder, 0.0) if container_id else None
            if facts["State"]["Status"] == "created":
                # The worker died before it started this one: as good as none.
                self._discard(facts["Id"], folder)
                return None
            return DockerHandle(self._api, facts["Id"], name, folder, float(facts["Config"].get("StopTimeout") or 0), _doubt_of(facts))

    def sweep_orphans(self, owned: Container[AttemptKey]) -> list[AttemptKey]:
        """See `base.Runtime`."""
        with _engine_errors("of this worker"):
            return [each.key for each in self._labelled({LABEL_WORKER: self._worker_id}) if each.key not in owned and self._clear(each)]

    def sweep_home(self, abandoned: Abandoned) -> list[AttemptKey]:
        """See `base.Runtime`."""
        with _engine_errors("of this home"):
            found = self._of_others()
            over = abandoned([each.key for each in found]) if found else ()
            return [each.key for each in found if each.key in over and self._clear(each)]

    def _end_earlier(self, spec: AttemptSpec) -> None:
        """End what other workers of this home have left of the run's earlier attempts: each is over now that the record has this one."""
        if spec.attempt == 1:
            return
        for each in self._of_others({LABEL_RUN: spec.run_id}):
            # What has ended is its worker's to tidy up, if that is there, or a sweep's.
            if each.key[1] >= spec.attempt or each.has_ended:
                continue
            if self._clear(each):
                _log.warning("Ended attempt %d of run %s, which another worker of this home had left.", each.key[1], spec.run_id)
                continue
            # Not removed, it must have ended at least: two attempts never run side by side.
            with contextlib.suppress(NotFound):
                self._api.wait(each.container_id, timeout=_KILLED_S)

    def _of_others(self, labels: Mapping[str, str] = MappingProxyType({})) -> list[_Labelled]:
        """The containers that other workers of this home have started."""
        return [each for each in self._labelled({LABEL_HOME: self._home_id, **labels}) if each.worker_id != self._worker_id]

    def _labelled(self, labels: Mapping[str, str]) -> list[_Labelled]:
        """All containers with these labels, running or not, that are attempts."""
        found = self._api.containers(all=True, filters={"label": [f"{label}={value}" for label, value in labels.items()]})
        return [each for each in map(_Labelled.of, found) if each is not None]

    def close(self) -> None:
        """See `base.Runtime`."""
        self._api.close()

    def _find(self, run_id: str, attempt: int) -> dict[str, Any]:
        """The container of an attempt, under whatever name.

        Raises:
            NotFound: there is none.
        """
        found = self._labelled({LABEL_RUN: run_id, LABEL_ATTEMPT: str(attempt), LABEL_WORKER: self._worker_id})
        if not found:
            raise NotFound(f"no container of attempt {attempt} of run {run_id}")
        facts: dict[str, Any] = self._api.inspect_container(found[0].container_id)
        return facts

    def _create(self, image: str, name: str, spec: AttemptSpec, called_off: threading.Event | None) -> str | None:
        """Create a container, pulling its image once if it is missing; None if there is one of that name."""
        try:
            return self._try_create(image, name, spec)
        except ImageNotFound:
            self._pulls.run(image, lambda abandoned: keep_trying(lambda: self._pull(image), abandoned, away=ImageAway), called_off)
        try:
            return self._try_create(image, name, spec)
        except ImageNotFound as error:
            raise ImageMissing(f"There is no image {image!r} for the architecture of this machine.") from error

    def _try_create(self, image: str, name: str, spec: AttemptSpec) -> str | None:
        try:
            created = self._api.create_container(
                image,
                command=list(spec.argv),
                # The image's own entry point would make another command of it.
                entrypoint=[],
                name=name,
                user=_user_of(spec),
                environment=spec.env,
                working_dir=str(PurePosixPath(WORK_TARGET, spec.cwd.relative_to(spec.folder / WORK))),
                labels={
                    LABEL_RUN: spec.run_id,
                    LABEL_ATTEMPT: str(spec.attempt),
                    LABEL_WORKER: self._worker_id,
                    LABEL_HOST: spec.host_incarnation,
                    LABEL_HOME: self._home_id,
                },
                # Kept here for a worker that adopts it.
                stop_timeout=math.ceil(spec.stop_grace_s),
                host_config=self._host_config(spec),
            )
        except APIError as error:
            if error.status_code == _CONFLICT:
                return None
            raise
        return str(created["Id"])

    def _host_config(self, spec: AttemptSpec) -> Any:
        binds = [f"{spec.folder / WORK}:{WORK_TARGET}:rw"] + [f"{mount.source}:{mount.target}:ro" for mount in spec.mounts]
        limits: dict[str, Any] = {"nano_cpus": int(spec.resources.cpus * 1e9)}
        if spec.resources.memory_bytes is not None:
            # Both the same: no swap beside the memory.
            limits |= {"mem_limit": spec.resources.memory_bytes, "memswap_limit": spec.resources.memory_bytes}
        if spec.gpu_ids:
            limits["device_requests"] = [DeviceRequest(device_ids=[str(gpu) for gpu in spec.gpu_ids], capabilities=[["gpu"]])]
        return self._api.create_host_config(
            binds=binds,
            network_mode=self._network,
            extra_hosts={"host.docker.internal": "host-gateway"} if self._network == "bridge" else None,
            cap_drop=["ALL"],
            security_opt=["no-new-privileges:true"],
            # A first process that reaps and passes signals on.
            init=True,
            pids_limit=_N_PIDS,
            # Without rotation: output is counted from its beginning.
            log_config=LogConfig(type=LogConfig.types.JSON),
            **limits,
        )

    def _begin(self, container_id: str, name: str, spec: AttemptSpec) -> Handle:
        # A full disk costs no more than the knowledge that it was there, should someone remove it.
        with contextlib.suppress(OSError):
            (spec.folder / _NOTE).write_text(container_id, encoding="ascii")
        try:
            self._api.start(container_id)
        except APIError as error:
            self._discard(container_id, spec.folder)
            raise _refusal(name, error) from error
        return DockerHandle(self._api, container_id, name, spec.folder, spec.stop_grace_s)

    def _take_existing(self, name: str, spec: AttemptSpec) -> Handle:
        """Go on with the container of this attempt that is there already: an earlier request got through."""
        handle = self.adopt(spec.run_id, spec.attempt, spec.folder)
        if handle is not None:
            return handle
        container_id = self._try_create(spec.resources.image or "", name, spec)
        if container_id is None:
            raise LaunchFailed(f"There is another container by the name of {name}.", hint="Remove or rename it.")
        return self._begin(container_id, name, spec)

    def _pull(self, image: str) -> None:
        """Pull an image. The engine can't be told to stop that: it goes on for whoever wants the image later."""
        try:
            # Maybe another attempt has pulled it meanwhile.
            self._api.inspect_image(image)  # type: ignore[no-untyped-call]
        except ImageNotFound:
            try:
                for told in self._api.pull(image, stream=True, decode=True):
                    # What goes wrong once it has begun comes as a part of a good answer.
                    if "error" in told:
                        raise _no_image(image, str(told["error"]))
            except APIError as error:
                raise _no_image(image, str(error.explanation or error)) from error
            except _STREAM_ERRORS as error:
                raise EngineAway(f"The container engine went away while it pulled {image!r}: {error}.") from error

    def _discard(self, container_id: str, folder: Path) -> None:
        """Remove a container that was never started, and the note of it."""
        self._remove(container_id)
        with contextlib.suppress(OSError):
            (folder / _NOTE).unlink()

    def _clear(self, each: _Labelled) -> bool:
        """End and remove a container; whether it is gone. One that the engine can't remove must not keep the others from it."""
        try:
            self._remove(each.container_id)
        except APIError as error:
            _log.warning("The container of attempt %d of run %s can't be removed now: %s", each.key[1], each.key[0], error.explanation or error)
            return False
        return True

    def _remove(self, container_id: str) -> None:
        with contextlib.suppress(NotFound):
            self._api.remove_container(container_id, force=True, v=True)


class DockerHandle:
    """An attempt's container. A thread follows its output; waiting is the caller's own."""

    def __init__(self, api: APIClient, container_id: str, name: str, folder: Path, grace_s: float, doubt: _Doubt | None = None) -> None:
        self._api = api
        self._id = container_id
        self._name = name
        self._folder = folder
        self._grace_s = grace_s
        self._guard = threading.Lock()
        # Apart from that: who asks for a stop does not wait for an engine that is asked how it ended.
        self._stop_guard = threading.Lock()
        self._report: ExitReport | None = None
        self._judged: ExitReport | None = None
        self._ended = threading.Event()
        self._doubt = doubt
        self._stop_sent = False
        self._stopper: threading.Thread | None = None
        self._output = _Output(api, container_id, folder)

    def wait(self, timeout_s: float | None = None) -> ExitReport | None:
        """See `base.Handle`. An engine that does not answer has not said that the container ended: waiting goes on."""
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while self._report is None:
            left_s = None if deadline is None else deadline - time.monotonic()
            if left_s is not None and left_s < 0:
                return None
            if self._await_end(left_s):
                self._conclude()
        return self._report

    def stop(self, reason: StopReason) -> None:
        """See `base.Handle`."""
        with self._stop_guard:
            if self._ended.is_set() or (self._stopper is not None and self._stopper.is_alive()):
                return
            record_stop(self._folder, reason)
            stopper = threading.Thread(target=self._stop, name=f"stop {self._name}", daemon=True)
            try:
                with telling_lack():
                    stopper.start()
            except Exhausted as error:
                # The supervisor asks again for as long as the stop is wanted.
                _log.warning("container %s can't be stopped just now: %s", self._name, error.message)
            else:
                self._stopper = stopper

    def kill(self) -> None:
        """See `base.Handle`."""
        try:
            with telling_lack():
                threading.Thread(target=self._send, args=(signal.SIGKILL,), name=f"kill {self._name}", daemon=True).start()
        except Exhausted:
            # Slower, for whoever asks, and as sure.
            self._send(signal.SIGKILL)

    def describe(self) -> dict[str, str | int]:
        """See `base.Handle`."""
        return {"runtime": "docker", "container": self._id, "name": self._name}

    def cleanup(self) -> None:
        """See `base.Handle`: removes the container."""
        self._ended.set()
        self._output.close()
        with _engine_errors(self._name), contextlib.suppress(NotFound):
            self._api.remove_container(self._id, force=True, v=True)

    def _await_end(self, timeout_s: float | None) -> bool:
        """Whether the engine says, within a while, that the container has ended or is gone."""
        self._output.begin()
        patience_s = _WAIT_S if timeout_s is None else max(min(timeout_s, _WAIT_S), 0.01)
        asked_at = time.monotonic()
        try:
            if self._doubt is _CUT_OFF and self._api.inspect_container(self._id)["State"]["Running"]:
                # The engine is back, and it has outlived that: what comes now is its own.
                self._doubt = None
            # Fractions of a second work, whatever the stubs say.
            self._api.wait(self._id, timeout=patience_s)  # type: ignore[arg-type]
        except NotFound:
            return True
        except (requests.exceptions.RequestException, ValueError):
            # Either the time is over, or the engine went away in the middle of its answer, or does not answer at all.
            left_s = patience_s - (time.monotonic() - asked_at)
            if left_s > 0.1:
                self._miss_engine()
                time.sleep(min(left_s, _BACK_OFF_S))
            return False
        return True

    def _conclude(self) -> None:
        """Look at how it ended, if it did."""
        with self._guard:
            if self._report is not None:
                return
            try:
                self._report = self._look()
            except NotFound:
                self._ended.set()
                self._report = ExitReport(is_lost=True, detail="its container was removed by someone else")
            except _STREAM_ERRORS as error:
                _log.info("how container %s ended is not known yet: %s", self._name, error)
                self._miss_engine()
                time.sleep(_BACK_OFF_S)

    def _look(self) -> ExitReport | None:
        """How it ended, once all its output is here; None if it runs.

        Raises:
            NotFound: it is gone.
        """
        if self._judged is None:
            state = self._api.inspect_container(self._id)["State"]
            if state["Running"]:
                return None
            with self._stop_guard:
                self._ended.set()
            if self._stopper is not None:
                # It may be just back from sending the signal that ended this.
                self._stopper.join(_DRAIN_S)
            self._judged = self._judge(state)
        report = self._judged
        error = self._output.finish()
        if report.signal == signal.SIGKILL and not report.stop_sent and not report.oom and not report.is_lost:
            # The engine hears of the kernel's killer apart from the end, and perhaps after it.
            report = self._judged = self._judge(self._see_it_stays())
        return report if error is None else _without_output(report, error)

    def _miss_engine(self) -> None:
        """It does not answer; what ends meanwhile, it may have ended. What was judged before stays as it is."""
        self._doubt = self._doubt or _CUT_OFF

    def _see_it_stays(self) -> dict[str, Any]:
        """Tell a kill from a removal by someone else, which begins with one; its state some seconds after its end.

        Raises:
            NotFound: it is gone.
        """
        with contextlib.suppress(requests.exceptions.ReadTimeout, requests.exceptions.ConnectionError):
            self._api.wait(self._id, timeout=_REMOVAL_S, condition="removed")
        state: dict[str, Any] = self._api.inspect_container(self._id)["State"]
        return state

    def _judge(self, state: dict[str, Any]) -> ExitReport:
        started_at, ended_at = _timestamp(state["StartedAt"]), _timestamp(state["FinishedAt"])
        status, number = _split_status(int(state["ExitCode"]))
        stop_sent = self._stop_sent or _was_stopped_before(ended_at, self._folder)
        oom = bool(state["OOMKilled"]) and status != 0
        # The kernel's own killer is known; a child of it may have met that one long before.
        is_known = status == 0 or stop_sent or (oom and number == signal.SIGKILL)
        doubt = None if is_known else self._doubt
        is_lost = doubt is not None and (doubt.signals is None or number in doubt.signals)
        return ExitReport(
            exit_status=status,
            signal=number,
            oom=oom,
            detail=doubt.detail if doubt and is_lost else str(state.get("Error") or "") or _ambiguity(state["ExitCode"], number, oom=oom),
            started_at=started_at,
            duration_s=max(ended_at - started_at, 0.0),
            stop_sent=stop_sent,
            stop_reason=recorded_stop(self._folder) if stop_sent else None,
            is_lost=is_lost,
        )

    def _stop(self) -> None:
        if self._send(signal.SIGTERM):
            self._stop_sent = True
            if not self._ended.wait(self._grace_s):
                self._send(signal.SIGKILL)

    def _send(self, number: int) -> bool:
        """Send a signal; False if the container does not run any more, or the engine can't be asked."""
        try:
            self._api.kill(self._id, number)
        except requests.exceptions.RequestException as error:
            # The supervisor asks again for as long as the stop is wanted.
            _log.info("signal %d did not reach container %s: %s", number, self._name, error)
            return False
        return True


class _Unwritten(Exception):
    """The output of a container can't be written on this machine: no fault of the engine's."""

    def __init__(self, error: OSError) -> None:
        super().__init__(str(error))
        self.error = error


class _Output:
    """Copies a container's output into the attempt's files, from where these end."""

    def __init__(self, api: APIClient, container_id: str, folder: Path) -> None:
        self._api = api
        self._id = container_id
        self._folder = folder
        self._is_complete = False
        self._over = threading.Event()
        # A daemon: a stream that the engine forgot to end must not keep the worker from ending.
        self._thread = threading.Thread(target=self._follow, name=f"output {container_id[:12]}", daemon=True)
        self.begin()

    def begin(self) -> None:
        """Follow the output, if that is not under way. Where no thread can be had the container runs all the same: all its output is read in the end."""
        if self._thread.ident is None:
            with contextlib.suppress(Exhausted), telling_lack():
                self._thread.start()

    def finish(self) -> OSError | None:
        """See that all of an ended container's output is in the files; why it is not, if they can't be written.

        Raises:
            NotFound: the container is gone.
        """
        if self._thread.ident is not None:
            self._thread.join(_DRAIN_S)
        self._over.set()
        if not self._is_complete:
            # The stream broke or hangs: known to happen (docker-py 3084, moby 35332). Read what lacks in one go.
            try:
                self._copy(follow=False)
            except _Unwritten as unwritten:
                return unwritten.error
            self._is_complete = True
        return None

    def close(self) -> None:
        """Write nothing more: the folder goes."""
        self._over.set()

    def _follow(self) -> None:
        pause_s = _BACK_OFF_S
        while not self._over.is_set():
            try:
                n_bytes = self._copy(follow=True)
                # The end of the stream need not be the end of the container.
                if not self._api.inspect_container(self._id)["State"]["Running"] and self._holds(n_bytes):
                    self._is_complete = True
                    return
            except NotFound:
                return
            except _Unwritten as error:
                _log.warning("the output of container %s can't be written: %s", self._id[:12], error)
                pause_s = min(2 * pause_s, _WRITE_AGAIN_S)
            except _STREAM_ERRORS as error:
                _log.info("the output of container %s broke off: %s", self._id[:12], error)
                pause_s = _BACK_OFF_S
            self._over.wait(pause_s)

    def _holds(self, n_bytes: dict[str, int]) -> bool:
        """Whether the files hold so much: someone may have removed them while they were written."""
        return all((self._folder / name).exists() and (self._folder / name).stat().st_size >= size for name, size in n_bytes.items())

    def _copy(self, *, follow: bool) -> dict[str, int]:
        """Read the output from its beginning, and write what the files do not hold yet; how much it is by now.

        Each byte goes to its own place: two who copy the same output at a time, as when a worker was replaced, write the same.

        Raises:
            _Unwritten: there is no room, or no way to the folder.
            NotFound: the container is gone.
        """
        if not self._folder.exists():
            # Someone removed it, or we did: then it stays removed.
            self._api.inspect_container(self._id)
        with contextlib.ExitStack() as stack:
            files = {name: stack.enter_context(_opened(self._folder / name)) for name in _STREAM_NAMES.values()}
            held = {name: os.fstat(file).st_size for name, file in files.items()}
            seen = dict.fromkeys(held, 0)
            for name, data in self._frames(follow=follow):
                start, seen[name] = seen[name], seen[name] + len(data)
                if seen[name] > held[name]:
                    _write(files[name], data, start)
        return seen

    def _frames(self, *, follow: bool) -> Iterator[tuple[str, bytes]]:
        """The engine's own framing (https://docs.docker.com/reference/api/engine/, "attach"): stream, length, bytes.

        The library's `logs` joins both streams into one.
        """
        url = f"{self._api.base_url}/v{self._api.api_version}/containers/{self._id}/logs"
        params: dict[str, int] = {"stdout": 1, "stderr": 1, "follow": int(follow)}
        # A quiet container is no fault; an engine is at fault that has all of the output and does not go on with it.
        with self._api.get(url, params=params, stream=True, timeout=(_CONNECT_S, None if follow else _WAIT_S)) as response:
            if response.status_code == requests.codes.not_found:
                raise NotFound("gone", response)
            response.raise_for_status()
            while len(header := response.raw.read(_FRAME.size)) == _FRAME.size:
                stream, length = _FRAME.unpack(header)
                yield _STREAM_NAMES[stream], response.raw.read(length)


def engine_answers() -> bool:
    """Whether there is a container engine that this worker may use."""
    try:
        with contextlib.closing(APIClient(version="auto", **kwargs_from_env())) as api:
            return bool(api.ping())
    except (DockerException, requests.exceptions.RequestException):
        return False


def container_name(run_id: str, attempt: int) -> str:
    """The name of an attempt's container: the same for whoever asks, so that two can't be made."""
    return f"sweep-{run_id[:12]}-{attempt}"


@contextlib.contextmanager
def _engine_errors(what: str) -> Iterator[None]:
    try:
        yield
    except APIError as error:
        raise _refusal(what, error) from error
    except requests.exceptions.RequestException as error:
        raise EngineAway(f"The container engine does not answer: {error}.") from error


def _refusal(what: str, error: APIError) -> WorkerError:
    """Whose fault it is that the engine does not do it: what it calls a bad request is what the run asks for, such as limits out of range."""
    text = f"The container engine refused container {what}: {error.explanation or error}."
    return LaunchRefused(text) if error.status_code == _BAD_REQUEST else LaunchFailed(text)


def _no_image(image: str, why: str) -> WorkerError:
    """Whose fault it is that an image can't be pulled: the run's where there is no such image, or not for us; else it may be had later."""
    why = why.strip().rstrip(".")
    if _NOT_TO_BE_HAD.search(why):
        return ImageMissing(f"The image {image!r} is not here and can't be pulled: {why}.")
    return ImageAway(f"The image {image!r} is not here and can't be pulled just now: {why}.")


def _user_of(spec: AttemptSpec) -> str | None:
    """Who runs the command: the worker's own user, so that the working folder is theirs; the image's if the worker is root."""
    if spec.uid is not None:
        return f"{spec.uid}:{spec.gid if spec.gid is not None else spec.uid}"
    return f"{os.getuid()}:{os.getgid()}" if os.getuid() != 0 else None


def _split_status(code: int) -> tuple[int | None, int | None]:
    """(exit status, signal) from a container's one number: 128 + n is how its first process tells of a signal."""
    number = code - 128
    return (None, number) if number in signal.valid_signals() else (code, None)


def _ambiguity(code: int, number: int | None, *, oom: bool) -> str:
    """Nobody can tell one who was killed from one who exits like that; people are told so."""
    if number is None or oom:
        return ""
    return f"exit status {code}: ended by {signal_name(number)}, which no part of this system sent, or by itself with that status"


def _without_output(report: ExitReport, error: OSError) -> ExitReport:
    """Part of what it printed could not be kept: a success may lack its metrics, and a failure its reason. Other ends stand for themselves."""
    if report.exit_status is None or report.oom:
        return report
    return msgspec.structs.replace(report, output_error=str(error))


def _doubt_of(facts: dict[str, Any]) -> _Doubt | None:
    """Whether the machinery may have ended a container that a worker finds at its start."""
    if facts["State"]["Running"]:
        return None
    if machine_life(facts["Config"]["Labels"].get(LABEL_HOST, "")) != machine_life(host_incarnation()):
        return _Doubt("its machine was restarted")
    number = _split_status(int(facts["State"]["ExitCode"]))[1]
    own = getattr(signal, str(facts["Config"].get("StopSignal") or "SIGTERM"), signal.SIGTERM)
    detail = f"ended by {signal_name(number or 0)} while no worker watched, as by a container engine that is stopped or started"
    return _Doubt(detail, frozenset({signal.SIGTERM, signal.SIGKILL, own}))


def _noted_id(folder: Path) -> str:
    """The id of the container that an attempt had; empty if it never had one."""
    try:
        return (folder / _NOTE).read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError):
        return ""


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[int]:
    """A file of output, to write in place. If someone has removed it, its folder too, it begins anew: the engine still has all of it."""
    with _local_errors():
        path.parent.mkdir(parents=True, exist_ok=True)
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        yield file
    finally:
        with _local_errors():
            os.close(file)


def _write(file: int, data: bytes, start: int) -> None:
    """Write all of it: a disk that is about to be full takes less than it is given."""
    with _local_errors():
        while data:
            n_written = os.pwrite(file, data, start)
            data, start = data[n_written:], start + n_written


@contextlib.contextmanager
def _local_errors() -> Iterator[None]:
    """Tell errors of this machine's files from those of the connection to the engine, which may be the same class."""
    try:
        yield
    except OSError as error:
        raise _Unwritten(error) from error


def _timestamp(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def _was_stopped_before(ended_at: float, folder: Path) -> bool:
    """Whether an earlier life of this worker asked for a stop while the container still ran."""
    try:
        return (folder / STOP_FILE).stat().st_mtime < ended_at
    except OSError:
        return False
