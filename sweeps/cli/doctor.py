"""`sweep doctor`: checks, each with a verdict and what to do about it."""

import os
import re
import shutil
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import asdict, dataclass
from datetime import datetime
from http import HTTPStatus
from http.client import HTTPException
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final, Literal
from urllib.error import HTTPError
from urllib.parse import urlsplit, urlunsplit
from urllib.request import ProxyHandler, build_opener

import click

from sweeps.address import running_url
from sweeps.api.shapes import SCHEMA
from sweeps.cli.cluster import queue_rows
from sweeps.cli.config import without_secrets
from sweeps.cli.terminal import as_called, has_colour, json_option, print_json
from sweeps.client import Client
from sweeps.wording import clean
from tracking.errors import SweepError
from tracking.settings import Settings, load_settings

Verdict = Literal["OK", "WARN", "FAIL"]
_COLOURS: Final = {"OK": "green", "WARN": "yellow", "FAIL": "red"}
_SKEW_S: Final = 5.0
_FLOWER_S: Final = 2.0
_LOCKED: Final = (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN)
_LOW_DISK_BYTES: Final = 1024**3


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the doctor: what was looked at, how it is, what to do."""

    check: str
    verdict: Verdict
    message: str
    fix: str = ""


@click.command()
@json_option
def doctor(*, as_json: bool) -> int:
    """Check the installation; say what to do.

    Starts nothing. Exit status 1 if a check fails.
    """
    settings = load_settings()
    findings: list[Finding] = []
    for finding in examine(settings):
        findings.append(finding)
        if not as_json:
            _print(finding)
    is_well = all(finding.verdict != "FAIL" for finding in findings)
    if as_json:
        print_json({"schema": SCHEMA, "ok": is_well, "checks": [asdict(finding) for finding in findings]})
    return 0 if is_well else 1


def _print(finding: Finding) -> None:
    verdict = finding.verdict.ljust(4)
    click.echo(f"{click.style(verdict, fg=_COLOURS[finding.verdict]) if has_colour() else verdict}  {finding.check}: {clean(as_called(finding.message))}")
    if finding.fix:
        click.echo(f"      {clean(as_called(finding.fix))}")


def examine(settings: Settings) -> Iterator[Finding]:
    """Look at everything, one after the other; a check that can't be made says so."""
    yield Finding("python", "OK", f"{sys.version.split()[0]} at {sys.executable}")
    yield check_home(settings.home)
    yield check_uv()
    yield check_docker()
    yield _told("broker", lambda: check_broker(settings))
    if settings.flower_url:
        yield check_flower(settings.flower_url)
    yield from _check_database(settings)
    yield from _check_server(settings)


def _told(check: str, look: Callable[[], Finding]) -> Finding:
    try:
        return look()
    except SweepError as error:
        return _failed(check, error)


def _failed(check: str, error: SweepError) -> Finding:
    # Whoever reads this has run the doctor: hints that end by sending them here end before that.
    hint = re.sub(r"(^|; )`sweep doctor` (tells more|shows them)\.$", lambda found: "." if found[1] else "", error.hint)
    return Finding(check, "FAIL", error.message, hint or "Put that right, and run `sweep doctor` again.")


def check_home(home: Path) -> Finding:
    """Whether the local cluster's folder can be written to, and has room."""
    nearest = next(folder for folder in (home, *home.parents) if os.path.lexists(folder))
    try:
        # Tried, for rights are not all: /proc takes nothing from anybody.
        with TemporaryDirectory(dir=nearest, prefix=".sweep-doctor-") as folder:
            (Path(folder) / "written").write_bytes(b"x")
    except OSError as error:
        lack = f"{home} can't be {'written to' if nearest == home else 'made'}: {error.strerror}"
        return Finding("home", "FAIL", lack, "Set SWEEP_HOME to a folder of yours.")
    free = shutil.disk_usage(nearest).free
    if free < _LOW_DISK_BYTES:
        return Finding("home", "WARN", f"{home}: only {free // 1024**2} MiB free", "Make room, or set SWEEP_HOME to another disk.")
    return Finding("home", "OK", str(home))


def check_uv() -> Finding:
    """Whether Python environments of MLprojects can be built."""
    beside = Path(sys.executable).with_name("uv")
    found = str(beside) if beside.is_file() else shutil.which("uv")
    if found is None:
        return Finding("uv", "WARN", "not found: projects with a python_env can't run here", "Install uv, or sweep-runner anew.")
    return Finding("uv", "OK", found)


def check_docker() -> Finding:
    """Whether trials with an image can run on this machine."""
    socket_path = Path(os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock").removeprefix("unix://"))
    if str(socket_path).startswith(("tcp:", "ssh:", "http")):
        return Finding("docker", "OK", f"at {socket_path} (not asked)")
    if not socket_path.exists():
        return Finding("docker", "WARN", "no engine here: trials with an image can't run on this machine", "Start dockerd if you need containers.")
    if not os.access(socket_path, os.R_OK | os.W_OK):
        return Finding("docker", "WARN", f"{socket_path} may not be used by this user", "Add the user to the group docker, and log in again.")
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(2.0)
            connection.connect(str(socket_path))
    except OSError as error:
        # A daemon that was killed leaves its socket behind.
        return Finding("docker", "WARN", f"nothing answers at {socket_path} ({error})", "Start dockerd if you need containers.")
    return Finding("docker", "OK", str(socket_path))


def check_broker(settings: Settings) -> Finding:
    """Whether the broker answers; Redis must not drop keys."""
    from tracking.broker import BrokerKind, broker_config

    config = broker_config(settings.broker_url, settings.home)
    if config.kind is not BrokerKind.REDIS:
        return Finding("broker", "OK", config.shown_url)
    import redis

    with closing(redis.Redis.from_url(config.url, socket_connect_timeout=2, socket_timeout=2)) as client:
        try:
            policy = dict(client.config_get("maxmemory-policy")).get("maxmemory-policy")
        except redis.ResponseError:
            return Finding("broker", "OK", f"{config.shown_url} answers (its settings may not be read)")
        except redis.RedisError as error:
            message = f"{config.shown_url} does not answer: {error}"
            return Finding("broker", "WARN", message, "Trials still run, each some seconds later. Start Redis or correct SWEEP_BROKER_URL.")
    if policy not in (None, "noeviction"):
        return Finding("broker", "WARN", f"{config.shown_url}: maxmemory-policy is {policy}", "Set it to noeviction, or wake-ups may be dropped.")
    return Finding("broker", "OK", config.shown_url)


def _check_database(settings: Settings) -> Iterator[Finding]:
    try:
        if settings.database_url:
            yield from check_database(settings.database_url)
        else:
            yield from _check_embedded(settings.home)
    except SweepError as error:
        yield _failed("database", error)


def _check_embedded(home: Path) -> Iterator[Finding]:
    from tracking import embedded

    status, where = embedded.status(home), f"embedded, under {home}"
    if status.is_running:
        yield from check_database(status.url, f"{where}: ")
    else:
        yield Finding("database", "OK", f"{where}; the first command starts it")


def check_database(url: str, where: str = "") -> Iterator[Finding]:
    """Whether Postgres answers with a schema that fits, and ends transactions that somebody froze in."""
    from tracking.store import open_store
    from tracking.store.schema import missing_bounds

    with closing(open_store(url, pool_size=1)) as store:
        yield Finding("database", "OK", f"{where}answers, and its schema fits")
        if statements := missing_bounds(store.database):
            message = "sets no bound to our role's idle transactions, or none to its waits for locks: a program that freezes would hold up all others"
            yield Finding("database's role", "WARN", message, f"`sweep db upgrade` sets them, and so does this: {'; '.join(statements)};")


def _check_server(settings: Settings) -> Iterator[Finding]:
    url = running_url(settings)
    if not url:
        yield Finding("server", "OK", "no cluster runs on this machine; the first command starts it")
        return
    try:
        with Client(url, settings.token, timeout_s=5) as client:
            yield from check_server(client)
            yield from check_workers(client)
            flower_url = client.server()["flower_url"]
    except SweepError as error:
        yield _failed("server", error)
    else:
        # What the server links to; our own setting was looked at before.
        if flower_url and flower_url != settings.flower_url:
            yield check_flower(flower_url)


def check_server(client: Client, now: Callable[[], float] = time.time) -> Iterator[Finding]:
    """Release, clock, database and artifacts of the server."""
    from sweeps.api.version import program_version

    asked_at = now()
    server = client.server()
    answered_at = now()
    if server["version"] == program_version():
        yield Finding("server", "OK", f"{client.url}, release {server['version']}")
    else:
        message = f"{client.url} is release {server['version']}, this is {program_version()}"
        yield Finding("server", "WARN", message, "Install the same release on both sides.")
    its_time = datetime.fromisoformat(server["time"]).timestamp()
    skew_s = max(asked_at - its_time, its_time - answered_at, 0.0)
    if skew_s > _SKEW_S:
        yield Finding("clock", "WARN", f"differs from the server's by {skew_s:.0f} s", "Let NTP set both clocks; only what is shown is affected.")
    else:
        yield Finding("clock", "OK", "agrees with the server's")
    if server["database_problem"]:
        yield Finding("server's database", "FAIL", server["database_problem"], "Check Postgres and the server's SWEEP_DATABASE_URL.")
    if server["artifacts_problem"]:
        yield Finding("artifacts", "FAIL", server["artifacts_problem"], "Create it, or set the server's SWEEP_ARTIFACT_ROOT.")
    else:
        yield Finding("artifacts", "OK", server["artifact_root"])


def check_flower(url: str) -> Finding:
    """Whether Flower answers where links to it lead."""
    try:
        shown, parts = without_secrets("flower_url", url), urlsplit(url)
        is_address = parts.scheme in {"http", "https"} and bool(parts.hostname)
    except ValueError:
        is_address = False
    if not is_address:
        return Finding("flower", "WARN", "SWEEP_FLOWER_URL, here or at the server, is no address of a page", "Write it as in http://host:5555.")
    # Who may look is not asked here: the check needs no login.
    asked = urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], path=f"{parts.path.rstrip('/')}/healthcheck", query="", fragment=""))
    try:
        with build_opener(ProxyHandler({})).open(asked, timeout=_FLOWER_S) as answer:
            is_flower, told = answer.read(3).strip() == b"OK", "something else"
    except HTTPError as error:
        # Before it may stand somebody who asks for a name.
        is_flower, told = error.code in _LOCKED, f"status {error.code}"
    except (OSError, HTTPException, ValueError) as error:
        lack = f"{shown} does not answer: {getattr(error, 'reason', None) or error}"
        return Finding("flower", "WARN", lack, "`sweep flower` starts it; or correct SWEEP_FLOWER_URL. Only what links there is affected.")
    if is_flower:
        return Finding("flower", "OK", shown)
    return Finding("flower", "WARN", f"{shown} answers, but not as Flower does: {told}", "Correct SWEEP_FLOWER_URL. Only what links there is affected.")


def check_workers(client: Client) -> Iterator[Finding]:
    """Whether each queue that is asked for has a worker."""
    workers = client.workers()["workers"]
    sweeps = [sweep for state in ("active", "paused", "stopping") for sweep in client.sweeps(state=state, limit=1000)["sweeps"]]
    if not workers:
        verdict: Verdict = "FAIL" if sweeps else "WARN"
        yield Finding("workers", verdict, "no worker is here", "Start one: `sweep worker`.")
        return
    unable = [f"{worker['name']} is {worker['state']}" for worker in workers if worker["state"] in ("silent", "cordoned")]
    if unable:
        yield Finding("workers", "WARN", "; ".join(unable), "`sweep worker ls` says more.")
    else:
        yield Finding("workers", "OK", ", ".join(worker["name"] for worker in workers))
    for row in queue_rows(sweeps, workers):
        if row["note"]:
            yield Finding(f"queue {row['queue']}", "FAIL", "no worker serves it", f"Start one: `sweep worker --queue {row['queue']} --name NAME`.")
