"""What only containers have: limits, no privileges, images, an engine that may go away or lose them."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import msgspec
import pytest
import requests
import urllib3
from docker import APIClient
from docker.errors import APIError, ImageNotFound

from tests.support.registry import registry
from tests.support.services import wait_until
from tests.support.threads import NoThreads
from tracking.ids import new_run_id, new_uuid
from tracking.records import Resources
from tracking.states import Cause
from worker import errands as errands_module
from worker.errands import CalledOff
from worker.errors import EngineAway, ImageAway, ImageMissing, LaunchFailed, LaunchRefused
from worker.runtimes import docker as docker_module
from worker.runtimes.base import AttemptKey, AttemptSpec, ExitReport, Handle, Mount, outcome_of
from worker.runtimes.docker import DockerRuntime, container_name, engine_answers
from worker.runtimes.host import host_incarnation, machine_life

if TYPE_CHECKING:
    from docker import DockerClient
    from docker.models.containers import Container

PATIENCE_S = 60.0
MIB = 1024 * 1024
# Others may be running the same tests on this engine.
WORKER, HOME = (f"{what}-{new_uuid()}" for what in ("worker", "home"))


@pytest.fixture
def runtime(base_image: str) -> Iterator[DockerRuntime]:
    """A runtime of its own; whatever is left at the end is removed."""
    opened = DockerRuntime(WORKER, HOME, network="none")
    yield opened
    opened.sweep_orphans(set())
    opened.close()


@pytest.fixture
def workers(base_image: str) -> Iterator[Callable[[str, str], DockerRuntime]]:
    """Makes runtimes of a worker and a home; whatever they leave is removed."""
    opened: list[DockerRuntime] = []

    def make(worker_id: str, home_id: str) -> DockerRuntime:
        opened.append(DockerRuntime(f"{worker_id}-{WORKER}", f"{home_id}-{HOME}", network="none"))
        return opened[-1]

    yield make
    for each in opened:
        each.sweep_orphans(set())
        each.close()


def make_spec(home: Path, image: str, *argv: str, resources: Resources | None = None) -> AttemptSpec:
    """A new attempt."""
    run_id = new_run_id()
    folder = home / "runs" / run_id / "1"
    (folder / "work").mkdir(parents=True)
    resources = msgspec.structs.replace(resources or Resources(), image=image)
    return AttemptSpec(run_id, 1, WORKER, "host", argv, {}, folder / "work", folder, resources, stop_grace_s=5.0)


def finish(handle: Handle) -> ExitReport:
    """The report of an attempt that is about to end."""
    report = handle.wait(PATIENCE_S)
    assert report is not None, "it did not end"
    return report


def container_of(engine: "DockerClient", spec: AttemptSpec) -> "Container":
    """The container of an attempt."""
    return engine.containers.get(container_name(*spec.key))


def test_docker_limits_hold_inside(runtime: DockerRuntime, tmp_path: Path, base_image: str, docker_engine: "DockerClient") -> None:
    """Memory and processors are bounded, no capability is left, and none can be gained."""
    spec = make_spec(tmp_path, base_image, "grep", "-E", "^(CapEff|CapBnd|NoNewPrivs)", "/proc/self/status", resources=Resources(0.5, 64 * MIB))
    handle = runtime.start(spec)
    finish(handle)
    assert (spec.folder / "stdout").read_text().split() == ["CapEff:", "0" * 16, "CapBnd:", "0" * 16, "NoNewPrivs:", "1"]
    limits = container_of(docker_engine, spec).attrs["HostConfig"]
    assert (limits["Memory"], limits["MemorySwap"], limits["NanoCpus"]) == (64 * MIB, 64 * MIB, 500_000_000)
    assert limits["PidsLimit"] == 4096


def test_docker_reports_out_of_memory(runtime: DockerRuntime, tmp_path: Path, base_image: str) -> None:
    """A command over its memory limit is told from one that somebody killed."""
    spec = make_spec(tmp_path, base_image, "python3", "-c", "x = bytearray(300_000_000)", resources=Resources(memory_bytes=48 * MIB))
    assert outcome_of(finish(runtime.start(spec))).cause == Cause.OUT_OF_MEMORY


def test_docker_labels_and_removes_its_containers(runtime: DockerRuntime, tmp_path: Path, base_image: str, docker_engine: "DockerClient") -> None:
    """A container says whose it is, stays until its outcome is committed, and is gone then."""
    spec = make_spec(tmp_path, base_image, "true")
    handle = runtime.start(spec)
    finish(handle)
    labels = container_of(docker_engine, spec).labels
    assert {name: labels[name] for name in labels if name.startswith("sweep.")} == {
        "sweep.run": spec.run_id,
        "sweep.attempt": "1",
        "sweep.worker": WORKER,
        "sweep.host": "host",
        "sweep.home": HOME,
    }
    handle.cleanup()
    assert docker_engine.containers.list(all=True, filters={"name": container_name(*spec.key)}) == []


def test_docker_mounts_are_read_only(runtime: DockerRuntime, tmp_path: Path, base_image: str) -> None:
    """What a container is given beside its working folder can be read and not written."""
    extra = tmp_path / "extra"
    extra.mkdir()
    (extra / "note").write_text("hello\n")
    spec = make_spec(tmp_path, base_image, "sh", "-c", "cat /extra/note; echo no > /extra/note")
    report = finish(runtime.start(msgspec.structs.replace(spec, mounts=(Mount(extra, "/extra"),))))
    assert report.exit_status != 0
    assert (spec.folder / "stdout").read_text() == "hello\n"
    assert (extra / "note").read_text() == "hello\n"


def test_docker_starts_in_subfolder(runtime: DockerRuntime, tmp_path: Path, base_image: str) -> None:
    """The command starts where the spec says, seen from inside."""
    spec = make_spec(tmp_path, base_image, "pwd")
    (spec.cwd / "a" / "b").mkdir(parents=True)
    finish(runtime.start(msgspec.structs.replace(spec, cwd=spec.cwd / "a" / "b")))
    assert (spec.folder / "stdout").read_text() == "/work/a/b\n"


def test_docker_attempt_is_lost_when_container_is_removed(runtime: DockerRuntime, tmp_path: Path, base_image: str, docker_engine: "DockerClient") -> None:
    """A container that someone removed has not succeeded."""
    spec = make_spec(tmp_path, base_image, "sleep", "1000")
    handle = runtime.start(spec)
    container_of(docker_engine, spec).remove(force=True)
    assert outcome_of(finish(handle)).cause == Cause.LOST
    handle.cleanup()


def test_docker_attempt_is_lost_when_container_is_removed_while_nobody_watches(
    runtime: DockerRuntime, tmp_path: Path, base_image: str, docker_engine: "DockerClient"
) -> None:
    """A note in the attempt's folder tells a container that is gone from one that never was."""
    spec = make_spec(tmp_path, base_image, "sleep", "1000")
    runtime.start(spec)
    container_of(docker_engine, spec).remove(force=True)
    adopted = runtime.adopt(*spec.key, spec.folder)
    assert adopted is not None
    assert outcome_of(finish(adopted)).detail == "its container was removed by someone else"
    adopted.cleanup()


def test_docker_adopts_container_that_was_renamed(runtime: DockerRuntime, tmp_path: Path, base_image: str, docker_engine: "DockerClient") -> None:
    """It is known by its labels: taken for none, it would run beside the next attempt."""
    spec = make_spec(tmp_path, base_image, "sleep", "1000")
    handle = runtime.start(spec)
    container_of(docker_engine, spec).rename(f"precious-{spec.run_id[:12]}")
    adopted = runtime.adopt(*spec.key, spec.folder)
    assert adopted is not None
    assert adopted.describe()["container"] == handle.describe()["container"]
    adopted.stop("cancel")
    assert outcome_of(finish(adopted)).cause == Cause.CANCELLED


@pytest.mark.parametrize(
    ("script", "life", "cause"),
    [
        ("kill -TERM $PPID", "this", Cause.LOST),
        ("kill -KILL $PPID", "this", Cause.LOST),
        ("kill -SEGV $PPID", "this", Cause.SIGNAL),
        ("exit 3", "this", Cause.EXIT_STATUS),
        ("exit 3", "this, worker in another container", Cause.EXIT_STATUS),
        ("exit 3", "another", Cause.LOST),
        ("kill -SEGV $PPID", "another", Cause.LOST),
        ("exit 0", "another", Cause.COMPLETED),
    ],
)
def test_docker_doubts_an_end_that_an_engine_or_a_reboot_may_have_brought(
    runtime: DockerRuntime, tmp_path: Path, base_image: str, script: str, life: str, cause: Cause
) -> None:
    """While nobody watched: the signals that engines send when they stop, and after a reboot whatever is no success."""
    argv = ("sh", "-c", f"sh -c '{script}'; exit $?") if script.startswith("kill") else ("sh", "-c", script)
    spec = make_spec(tmp_path, base_image, *argv)
    here = host_incarnation()
    lives = {"this": here, "this, worker in another container": f"{machine_life(here)}.1-2", "another": "machine.boot.1-2"}
    spec = msgspec.structs.replace(spec, host_incarnation=lives[life])
    finish(runtime.start(spec))
    adopted = runtime.adopt(*spec.key, spec.folder)
    assert adopted is not None
    assert outcome_of(finish(adopted)).cause == cause


def test_docker_knows_a_want_of_memory_whatever_came_later(runtime: DockerRuntime, tmp_path: Path, base_image: str) -> None:
    """The kernel's verdict is kept by the engine through a reboot."""
    spec = make_spec(tmp_path, base_image, "python3", "-c", "x = bytearray(300_000_000)", resources=Resources(memory_bytes=48 * MIB))
    finish(runtime.start(spec))
    adopted = runtime.adopt(*spec.key, spec.folder)
    assert adopted is not None
    assert outcome_of(finish(adopted)).cause == Cause.OUT_OF_MEMORY


def test_docker_forgets_an_absence_of_the_engine_that_a_container_has_outlived(runtime: DockerRuntime, tmp_path: Path, base_image: str) -> None:
    """Seen to run afterwards, it ends by itself."""
    spec = make_spec(tmp_path, base_image, "sh", "-c", "while [ ! -e go ]; do sleep 0.02; done; exit 3")
    handle = runtime.start(spec)
    handle._miss_engine()  # type: ignore[attr-defined]
    assert handle.wait(0.5) is None
    (spec.cwd / "go").touch()
    assert outcome_of(finish(handle)).cause == Cause.EXIT_STATUS


@pytest.mark.parametrize("hangs", ["_look", "output"])
def test_docker_stop_returns_at_once_when_the_engine_hangs_at_the_end(
    runtime: DockerRuntime, tmp_path: Path, base_image: str, monkeypatch: pytest.MonkeyPatch, hangs: str
) -> None:
    """The supervisor's renewals wait for whoever asks for a stop: not for an engine that does not say how the container ended, nor for its output."""
    spec = make_spec(tmp_path, base_image, "true")
    handle = runtime.start(spec)
    asked, answers = threading.Event(), threading.Event()
    of, name = (handle, "_look") if hangs == "_look" else (handle._output, "finish")  # type: ignore[attr-defined]
    real = getattr(of, name)

    def hang() -> object:
        asked.set()
        assert answers.wait(PATIENCE_S)
        return real()

    monkeypatch.setattr(of, name, hang)
    waiting, stopping = threading.Thread(target=handle.wait, daemon=True), threading.Thread(target=handle.stop, args=("cancel",), daemon=True)
    waiting.start()
    try:
        assert asked.wait(PATIENCE_S)
        stopping.start()
        stopping.join(5)
        assert not stopping.is_alive()
    finally:
        answers.set()
    waiting.join(PATIENCE_S)
    assert outcome_of(finish(handle)).cause == Cause.COMPLETED


def test_docker_knows_an_end_that_it_saw_before_the_engine_went_away(
    runtime: DockerRuntime, tmp_path: Path, base_image: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What lacks of its output is read later; who ended it is known by then."""
    spec = make_spec(tmp_path, base_image, "sh", "-c", "echo why; exit 3")
    handle = runtime.start(spec)
    output = handle._output  # type: ignore[attr-defined]
    real, asked = output.finish, []

    def fail_once() -> OSError | None:
        asked.append(1)
        if len(asked) == 1:
            raise ConnectionResetError
        return cast("OSError | None", real())

    monkeypatch.setattr(output, "finish", fail_once)
    assert outcome_of(finish(handle)).cause == Cause.EXIT_STATUS
    assert len(asked) == 2
    assert (spec.folder / "stdout").read_text() == "why\n"


def test_docker_asks_without_haste_when_the_output_of_an_ended_container_can_not_be_had(
    runtime: DockerRuntime, tmp_path: Path, base_image: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An engine that answers at once, and with an error each time, is not asked hundreds of times a second."""
    handle = runtime.start(make_spec(tmp_path, base_image, "true"))
    asked = threading.Semaphore(0)

    def fail() -> None:
        asked.release()
        raise ConnectionResetError

    monkeypatch.setattr(handle._output, "finish", fail)  # type: ignore[attr-defined]
    while not asked.acquire(blocking=False):
        assert handle.wait(0.5) is None
    assert handle.wait(2.0) is None
    n_times = 1
    while asked.acquire(blocking=False):
        n_times += 1
    assert 2 <= n_times <= 5


def test_docker_image_is_missing_when_no_registry_has_it(runtime: DockerRuntime, tmp_path: Path) -> None:
    """An image that its registry does not know, or not for us, is the attempt's cause, and the error names it."""
    for status, code, text in ((404, "MANIFEST_UNKNOWN", "manifest unknown"), (403, "DENIED", "denied"), (401, "UNAUTHORIZED", "authentication required")):
        with registry(status, code, text) as address, pytest.raises(ImageMissing, match=f"{address}/nobody/nothing:1"):
            runtime.start(make_spec(tmp_path, f"{address}/nobody/nothing:1", "true"))


@pytest.mark.parametrize(("status", "code"), [(503, "UNAVAILABLE"), (429, "TOOMANYREQUESTS"), (None, "")], ids=["503", "429", "nobody"])
def test_docker_blames_the_machinery_when_the_registry_is_away(
    runtime: DockerRuntime, tmp_path: Path, status: int | None, code: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A registry that does not answer, or can't just now, says nothing about the image; after minutes the attempt fails for it."""
    monkeypatch.setattr(errands_module, "AWAY_S", 0.0)
    with registry(status or 503, code, "later") as address, pytest.raises(ImageAway) as caught:
        runtime.start(make_spec(tmp_path, f"{address if status else '127.0.0.1:1'}/nobody/nothing:1", "true"))
    assert caught.value.cause.is_machinery


def test_docker_pulls_again_when_a_pull_breaks_off(runtime: DockerRuntime, tmp_path: Path, base_image: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error in the middle comes as a part of a good answer: an outage that passes costs no attempt."""
    monkeypatch.setattr(errands_module, "_FIRST_DELAY_S", 0.01)
    image, missing = base_image, [True]
    create, inspect = runtime._api.create_container, runtime._api.inspect_image  # type: ignore[attr-defined]
    answers: list[list[dict[str, str]]] = [
        [{"status": "Pulling"}, {"error": "unexpected EOF"}],
        [{"error": "received unexpected HTTP status: 502 Bad Gateway"}],
        [{"status": "Pulled"}],
    ]

    def lacking(real: Callable[..., object], *arguments: Any, **options: Any) -> object:
        if missing[0]:
            raise ImageNotFound("No such image")
        return real(*arguments, **options)

    def pull(_image: str, **_options: object) -> list[dict[str, str]]:
        answer = answers.pop(0)
        missing[0] = "error" in answer[-1]
        return answer

    monkeypatch.setattr(runtime._api, "create_container", partial(lacking, create))
    monkeypatch.setattr(runtime._api, "inspect_image", partial(lacking, inspect))
    monkeypatch.setattr(runtime._api, "pull", pull)
    assert finish(runtime.start(make_spec(tmp_path, image, "true"))).exit_status == 0
    assert not answers


@pytest.mark.parametrize(
    ("said", "is_user"),
    [
        ("manifest for a/b:1 not found: manifest unknown: manifest unknown", True),
        ("pull access denied for a/b, repository does not exist or may require 'docker login': denied: requested access to the resource is denied", True),
        ("no matching manifest for linux/arm64/v8 in the manifest list entries", True),
        ("failed to resolve reference: unexpected status from HEAD request to http://r/v2/a/manifests/1: 401 Unauthorized", True),
        ("unauthorized", True),
        ('Get "https://r/v2/": dial tcp: lookup r: no such host', False),
        ("error pulling image configuration: download failed after attempts=6: unexpected EOF", False),
        ("toomanyrequests: You have reached your unauthenticated pull rate limit", False),
        ("failed to register layer: write /usr/lib/x: no space left on device", False),
        ('Get "https://denied.example/v2/unauthorized/": net/http: TLS handshake timeout', False),
    ],
)
def test_docker_tells_an_image_that_is_not_there_from_a_registry_that_is_not(said: str, is_user: bool) -> None:
    """By what engines and registries say: names of images are no part of it."""
    assert isinstance(docker_module._no_image("denied/unauthorized:1", said), ImageMissing if is_user else ImageAway)


def test_docker_attempt_goes_on_when_no_thread_can_be_had(runtime: DockerRuntime, tmp_path: Path, base_image: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A container that runs is not lost sight of because its output can't be followed yet, nor left alone because it can't be stopped at once."""
    lack = NoThreads(monkeypatch, "output", 1)
    handle = runtime.start(make_spec(tmp_path, base_image, "sh", "-c", "echo all of it; exec sleep 1000"))
    assert lack.n_refused == 1
    assert handle.wait(0.1) is None
    stop = NoThreads(monkeypatch, "stop", 1)
    handle.stop("cancel")
    assert stop.n_refused == 1
    handle.stop("cancel")
    report = finish(handle)
    assert report.stop_sent
    assert (tmp_path / "runs" / handle._folder.parent.name / "1" / "stdout").read_bytes() == b"all of it\n"  # type: ignore[attr-defined]


@pytest.mark.parametrize("resources", [Resources(memory_bytes=MIB), Resources(cpus=100_000)], ids=["memory", "cpus"])
def test_docker_blames_the_user_when_limits_are_out_of_range(runtime: DockerRuntime, tmp_path: Path, base_image: str, resources: Resources) -> None:
    """What the engine calls a bad request is what the run asks for, and would be refused elsewhere too."""
    with pytest.raises(LaunchRefused, match="refused") as caught:
        runtime.start(make_spec(tmp_path, base_image, "true", resources=resources))
    assert caught.value.cause == Cause.ENVIRONMENT


def test_docker_pull_holds_up_nobody_else_and_not_who_is_cancelled(runtime: DockerRuntime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A slow registry costs those who want its image and wait; a pull goes on in the background for whoever comes later."""
    began, may_end, called_off = threading.Event(), threading.Event(), threading.Event()
    refused: list[BaseException] = []

    def slow(_image: str, **_options: object) -> list[object]:
        began.set()
        assert may_end.wait(PATIENCE_S)
        return []

    def start() -> None:
        try:
            runtime.start(make_spec(tmp_path, "registry.invalid/slow:1", "true"), called_off)
        except CalledOff as error:
            refused.append(error)

    monkeypatch.setattr(runtime._api, "pull", slow)
    waiting = threading.Thread(target=start, daemon=True)
    waiting.start()
    try:
        assert began.wait(PATIENCE_S)
        with monkeypatch.context() as patch:
            patch.setattr(runtime._api, "pull", lambda _image, **_options: [])
            with pytest.raises(ImageMissing):
                runtime.start(make_spec(tmp_path, "registry.invalid/other:1", "true"))
        called_off.set()
        waiting.join(PATIENCE_S)
        assert len(refused) == 1
    finally:
        may_end.set()


def test_docker_refuses_foreign_container_of_same_name(runtime: DockerRuntime, tmp_path: Path, base_image: str, docker_engine: "DockerClient") -> None:
    """A container of the right name and the wrong labels is neither adopted nor removed."""
    spec = make_spec(tmp_path, base_image, "true")
    foreign = docker_engine.containers.create(base_image, ["true"], name=container_name(*spec.key))
    try:
        assert runtime.adopt(*spec.key, spec.folder) is None
        with pytest.raises(LaunchFailed, match="another container"):
            runtime.start(spec)
        foreign.reload()
    finally:
        foreign.remove(force=True)


def test_docker_replaces_container_that_never_started(runtime: DockerRuntime, tmp_path: Path, base_image: str, docker_engine: "DockerClient") -> None:
    """A worker that died between creating and starting leaves a container that the next start does not stumble over."""
    spec = make_spec(tmp_path, base_image, "echo", "second")
    labels = {"sweep.run": spec.run_id, "sweep.attempt": "1", "sweep.worker": WORKER}
    docker_engine.containers.create(base_image, ["echo", "first"], name=container_name(*spec.key), labels=labels)
    assert finish(runtime.start(spec)).exit_status == 0
    assert (spec.folder / "stdout").read_text() == "second\n"


def test_docker_output_is_whole_when_stream_breaks(runtime: DockerRuntime, tmp_path: Path, base_image: str) -> None:
    """An output stream that ends early is taken up where it broke: no line lacks, none is doubled."""
    script = "echo start; while [ ! -e go ]; do sleep 0.02; done; seq 20000; seq 3 >&2"
    spec = make_spec(tmp_path, base_image, "sh", "-c", script)
    handle = runtime.start(spec)
    output = handle._output  # type: ignore[attr-defined]
    real, broke = output._frames, threading.Event()

    def break_once(*, follow: bool) -> Iterator[tuple[str, bytes]]:
        for count, frame in enumerate(real(follow=follow)):
            if count == 500 and not broke.is_set():
                broke.set()
                raise ConnectionResetError
            yield frame

    # The stream under way ends with the first container's engine connection; later ones go through `break_once`.
    output._frames = break_once
    again = runtime.adopt(*spec.key, spec.folder)
    assert again is not None
    again._output._frames = break_once  # type: ignore[attr-defined]
    (spec.cwd / "go").touch()
    assert finish(again).exit_status == 0
    assert (spec.folder / "stdout").read_text().split() == ["start", *map(str, range(1, 20001))]
    assert (spec.folder / "stderr").read_text() == "1\n2\n3\n"


@pytest.mark.parametrize("is_restarted", [False, True])
def test_docker_output_is_whole_when_its_folder_is_removed_meanwhile(runtime: DockerRuntime, tmp_path: Path, base_image: str, is_restarted: bool) -> None:
    """The engine has all of it still; who watches then, and whether it had begun to, makes no difference."""
    spec = make_spec(tmp_path, base_image, "sh", "-c", "echo one; sleep 2; echo two")
    handle = runtime.start(spec)
    stdout = spec.folder / "stdout"
    wait_until(lambda: stdout.exists() and stdout.stat().st_size > 0, "its output is written", interval_s=0.01)
    shutil.rmtree(spec.folder)
    adopted = runtime.adopt(*spec.key, spec.folder) if is_restarted else handle
    assert adopted is not None
    assert outcome_of(finish(adopted)).cause == Cause.COMPLETED
    assert (spec.folder / "stdout").read_text() == "one\ntwo\n"


@pytest.mark.parametrize(("status", "stop", "cause"), [(0, False, Cause.LAUNCH), (3, False, Cause.LAUNCH), (0, True, Cause.CANCELLED)])
def test_docker_attempt_ends_when_its_output_can_not_be_written(
    runtime: DockerRuntime, tmp_path: Path, base_image: str, *, status: int, stop: bool, cause: Cause
) -> None:
    """By the machinery's fault where metrics or the reason may lack; a stop is one in any case. Nothing waits for ever."""
    spec = make_spec(tmp_path, base_image, "sh", "-c", f"trap 'exit 0' TERM; while [ ! -e go ]; do sleep 0.02; done; echo loss=1; exit {status}")
    handle = runtime.start(spec)
    assert handle.wait(0.5) is None
    aside = spec.folder.with_name("aside")
    spec.folder.rename(aside)
    spec.folder.write_text("no folder")
    if stop:
        handle.stop("cancel")
    else:
        (aside / "work" / "go").touch()
    report = finish(handle)
    assert outcome_of(report, stop_reason="cancel" if stop else None).cause == cause
    assert stop or "could not be kept" in outcome_of(report).detail


def test_docker_output_has_no_hole_when_the_disk_takes_less_than_it_is_given(
    runtime: DockerRuntime, tmp_path: Path, base_image: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Short writes are gone on with."""
    real = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda file, data, start: real(file, data[:2], start))
    spec = make_spec(tmp_path, base_image, "seq", "1000")
    assert finish(runtime.start(spec)).exit_status == 0
    assert (spec.folder / "stdout").read_text().split() == [str(number) for number in range(1, 1001)]


def test_docker_output_of_an_ended_container_is_not_waited_for_on_a_dead_connection(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine on another machine that vanished in the middle of its answer says nothing ever again there: it is asked anew."""
    monkeypatch.setattr(docker_module, "_DRAIN_S", 0.1)
    monkeypatch.setattr(docker_module, "_WAIT_S", 0.2)
    held: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0)) as engine, ThreadPoolExecutor(1) as pool:

        def answer() -> None:
            with contextlib.suppress(OSError):
                while True:
                    held.append(engine.accept()[0])
                    held[-1].recv(4096)
                    held[-1].sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n")

        threading.Thread(target=answer, daemon=True).start()
        output = docker_module._Output(APIClient(f"tcp://127.0.0.1:{engine.getsockname()[1]}", version="1.41"), "0" * 64, tmp_path)
        try:
            with pytest.raises(urllib3.exceptions.ReadTimeoutError):
                pool.submit(output.finish).result(10)
        finally:
            output.close()
            engine.shutdown(socket.SHUT_RDWR)
            for connection in held:
                connection.close()


def test_docker_is_away_when_nobody_listens(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without an engine there is a clear error, and the question whether there is one has an answer."""
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path / 'nobody.sock'}")
    assert not engine_answers()
    with pytest.raises(EngineAway, match="does not answer"):
        DockerRuntime("w", "h")


def is_running(engine: "DockerClient", spec: AttemptSpec) -> bool:
    """Whether the container of an attempt is there and runs."""
    return any(container.status == "running" for container in engine.containers.list(filters={"name": container_name(*spec.key)}))


def test_docker_ends_what_an_earlier_name_of_its_worker_has_left(
    workers: Callable[[str, str], DockerRuntime], tmp_path: Path, base_image: str, docker_engine: "DockerClient"
) -> None:
    """Its folder gone or not, and only what the record gave up. Its own attempts, and those of another home on the same engine, are not even asked about."""
    old, new, elsewhere = workers("old", "here"), workers("new", "here"), workers("other", "there")
    over, live, own, foreign = (make_spec(tmp_path, base_image, "sleep", "1000") for _ in range(4))
    for runtime, spec in ((old, over), (old, live), (new, own), (elsewhere, foreign)):
        runtime.start(spec)
    shutil.rmtree(over.folder)
    asked: list[AttemptKey] = []

    def abandoned(keys: Sequence[AttemptKey]) -> list[AttemptKey]:
        asked.extend(keys)
        return [key for key in keys if key != live.key]

    assert new.sweep_home(abandoned) == [over.key]
    assert sorted(asked) == sorted([over.key, live.key])
    assert [is_running(docker_engine, spec) for spec in (over, live, own, foreign)] == [False, True, True, True]
    assert docker_engine.containers.list(all=True, filters={"name": container_name(*over.key)}) == []


def test_docker_asks_nobody_when_nothing_is_left(workers: Callable[[str, str], DockerRuntime]) -> None:
    """The record is spared a question a minute of each worker."""

    def abandoned(keys: Sequence[AttemptKey]) -> list[AttemptKey]:
        raise AssertionError(keys)

    assert workers("new", "empty").sweep_home(abandoned) == []


def test_docker_ends_an_earlier_attempt_under_another_worker_before_the_next_starts(
    workers: Callable[[str, str], DockerRuntime], tmp_path: Path, base_image: str, docker_engine: "DockerClient"
) -> None:
    """As after a worker was renamed; other runs, later attempts and another home's are none of our business, and what has ended is in nobody's way."""
    old, new, elsewhere = workers("old", "here"), workers("new", "here"), workers("other", "there")
    first, stranger = (make_spec(tmp_path, base_image, "sleep", "1000") for _ in range(2))
    ended, later, foreign = (msgspec.structs.replace(first, attempt=attempt) for attempt in (2, 4, 0))
    finish(old.start(msgspec.structs.replace(ended, argv=("true",))))
    for runtime, spec in ((old, first), (old, stranger), (old, later), (elsewhere, foreign)):
        runtime.start(spec)
    third = new.start(msgspec.structs.replace(first, attempt=3))
    assert [is_running(docker_engine, spec) for spec in (first, stranger, later, foreign)] == [False, True, True, True]
    assert container_of(docker_engine, ended).status == "exited"
    assert third.wait(0.05) is None


def test_docker_starts_no_attempt_beside_an_earlier_one_that_can_not_be_ended(
    workers: Callable[[str, str], DockerRuntime], tmp_path: Path, base_image: str, docker_engine: "DockerClient", monkeypatch: pytest.MonkeyPatch
) -> None:
    """An engine that fails at that is asked again; what has ended and can't be removed is in nobody's way."""
    old, new = workers("old", "here"), workers("new", "here")
    first = make_spec(tmp_path, base_image, "sh", "-c", "while [ ! -e go ]; do sleep 0.02; done")
    second = msgspec.structs.replace(first, attempt=2, argv=("true",))
    handle = old.start(first)
    with monkeypatch.context() as patch:
        patch.setattr(new._api, "remove_container", refuse)
        patch.setattr(docker_module, "_KILLED_S", 0.2)
        with pytest.raises(EngineAway):
            new.start(second)
        (first.cwd / "go").touch()
        finish(handle)
        assert finish(new.start(second)).exit_status == 0
    assert container_of(docker_engine, first).status == "exited"


def refuse(*_arguments: object, **_options: object) -> None:
    """What an engine says that can't remove a container's files."""
    response = requests.Response()
    response.status_code = 500
    raise APIError("500 Server Error", response, "device or resource busy")


def test_docker_removes_the_others_when_one_container_can_not_be_removed(
    runtime: DockerRuntime, tmp_path: Path, base_image: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files that are busy are one container's misfortune; the next sweep tries it again."""
    specs = [make_spec(tmp_path, base_image, "true") for _ in range(3)]
    for spec in specs:
        runtime.start(spec)
    refused: list[str] = []
    remove = runtime._api.remove_container

    def refuse_first(container_id: str, **options: Any) -> None:
        if not refused:
            refused.append(container_id)
            refuse()
        remove(container_id, **options)

    monkeypatch.setattr(runtime._api, "remove_container", refuse_first)
    swept = runtime.sweep_orphans(set())
    assert len(swept) == 2
    assert sorted([*swept, *runtime.sweep_orphans(set())]) == sorted(spec.key for spec in specs)


def test_docker_end_by_the_kernel_is_told_when_the_engine_hears_of_it_late(
    runtime: DockerRuntime, tmp_path: Path, base_image: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is told of the kernel's killer apart from the end: what it says some seconds later counts."""
    handle = runtime.start(make_spec(tmp_path, base_image, "sh", "-c", "kill -9 $$"))
    inspect = runtime._api.inspect_container
    looks: list[bool] = []

    def hear_late(container_id: str) -> Any:
        facts = inspect(container_id)
        if not facts["State"]["Running"]:
            facts["State"]["OOMKilled"] = bool(looks)
            looks.append(True)
        return facts

    monkeypatch.setattr(handle._api, "inspect_container", hear_late)
    assert outcome_of(finish(handle)).cause == Cause.OUT_OF_MEMORY


def test_docker_stop_is_enforced_by_a_later_worker(runtime: DockerRuntime, tmp_path: Path, base_image: str) -> None:
    """A worker that adopts a container knows its grace period and can end it."""
    spec = make_spec(tmp_path, base_image, "sh", "-c", "trap '' TERM; while :; do sleep 0.05; done")
    runtime.start(msgspec.structs.replace(spec, stop_grace_s=1.0))
    later = DockerRuntime(WORKER, HOME, network="none")
    adopted = later.adopt(*spec.key, spec.folder)
    assert adopted is not None
    adopted.wait(0.3)
    adopted.stop("cancel")
    report = finish(adopted)
    assert report.signal == signal.SIGKILL
    assert outcome_of(report).cause == Cause.CANCELLED
    later.close()


def test_docker_base_image_has_python(base_image: str) -> None:
    """The image for tests and examples has `python` on its path."""
    done = subprocess.run(["docker", "run", "--rm", "--network", "none", base_image, "python", "-c", "print(1)"], capture_output=True, check=False)
    assert done.stdout == b"1\n", done.stderr
