"""Settings: read once from environment variables, checked, frozen. docs/settings.md lists them all."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from tracking.errors import SettingError

PREFIX = "SWEEP_"


def _default_home() -> Path:
    return Path.home() / ".sweep"


@dataclass(frozen=True, slots=True)
class Settings:
    """Every setting of every role. Field `lease_s` is environment variable `SWEEP_LEASE_S`, and so on.

    Attributes:
        home: folder of the local cluster: embedded Postgres, artifacts, worker state, logs.
        server: URL of the server that the command line talks to; empty means the local cluster under `home`.
        database_url: a Postgres 14+ URL; empty means the embedded Postgres under `home`.
        listen_url: the same database past any pooler, where the scheduler waits for wake-ups; empty means `database_url`, and
            `none` that it looks at each poll only.
        broker_url: `redis://...`, `filesystem://` (under `home`, or `filesystem:///a/folder`), or `none`.
        artifact_root: where artifacts and snapshots are kept: a folder, `s3://bucket/prefix` (with the extra `sweep-runner[s3]`, and credentials
            by AWS's usual variables), or another URL that fsspec knows, with its package; empty means `home/artifacts`.
        artifact_endpoint: URL of a store that speaks S3's protocol, if `artifact_root` is in one that is not Amazon's.
        token: bearer token of the command line, where the server asks for one.
        lease_s: how long a session's renewal is good for.
        renew_s: how often a session renews.
        watch_s: how often a worker with live attempts looks for cancel and prune requests.
        claim_timeout_s: how long a placed run may stay unclaimed before it is placed again.
        reassign_after_s: how long a silent session keeps its runs.
        poll_s: the scheduler's poll behind its wake-ups.
        leader_lease_s: how long a scheduler leads without renewing.
        stop_grace_s: between SIGTERM and SIGKILL of a trial.
        infra_retries: the machinery's retry budget of one run.
        log_max_bytes: how much of each attempt's output is kept in the record, per stream.
        snapshot_max_bytes: the largest packed project that is taken.
        upload_max_bytes: the largest artifact that is taken.
        flower_url: where Flower is, for links.
        log_level: of our own processes: DEBUG, INFO, WARNING or ERROR.
    """

    home: Path = field(default_factory=_default_home)
    server: str = ""
    database_url: str = ""
    listen_url: str = ""
    broker_url: str = ""
    artifact_root: str = ""
    artifact_endpoint: str = ""
    token: str = ""
    lease_s: float = 60.0
    renew_s: float = 5.0
    watch_s: float = 1.0
    claim_timeout_s: float = 15.0
    reassign_after_s: float = 900.0
    poll_s: float = 1.0
    leader_lease_s: float = 5.0
    stop_grace_s: float = 30.0
    infra_retries: int = 3
    log_max_bytes: int = 8 * 1024 * 1024
    snapshot_max_bytes: int = 256 * 1024 * 1024
    upload_max_bytes: int = 64 * 1024 * 1024 * 1024
    flower_url: str = ""
    log_level: str = "INFO"

    @property
    def artifact_place(self) -> str:
        """Where artifacts and snapshots are kept: a folder or a URL."""
        return self.artifact_root or str(self.home / "artifacts")

    @property
    def is_local(self) -> bool:
        """Whether this is the one-machine cluster over the embedded Postgres."""
        return not self.database_url


def load_settings(environ: Mapping[str, str] | None = None) -> Settings:
    """Read the settings from `SWEEP_*` environment variables.

    Raises:
        SettingError: a value is not of its type, or a duration or size is not positive.
    """
    environ = os.environ if environ is None else environ
    values: dict[str, Any] = {}
    for item in fields(Settings):
        name = PREFIX + item.name.upper()
        text = environ.get(name, "").strip()
        if text:
            values[item.name] = _parse(name, text, item.type)
    settings = Settings(**values)
    _check_order(settings)
    return settings


def _check_order(settings: Settings) -> None:
    """Refuse times that would make every healthy worker look silent, or lost."""
    for shorter, longer in (("renew_s", "lease_s"), ("lease_s", "reassign_after_s")):
        short_s, long_s = getattr(settings, shorter), getattr(settings, longer)
        if short_s >= long_s:
            raise SettingError(
                f"{PREFIX}{shorter.upper()} ({short_s:g} s) must be shorter than {PREFIX}{longer.upper()} ({long_s:g} s).",
                hint="Renewals come several times a lease, and a worker is silent long before its runs are given away.",
            )


def _parse(name: str, text: str, kind: object) -> object:
    if kind is Path or kind == "Path":
        return Path(text).expanduser().absolute()
    if kind is str or kind == "str":
        return text
    try:
        number = int(text) if kind in (int, "int") else float(text)
    except ValueError:
        raise SettingError(f"{name}={text!r} is not a number.", hint=f"Set {name} to a positive number.") from None
    if not number > 0 or number == float("inf"):
        raise SettingError(f"{name}={text!r} is not positive.", hint=f"Set {name} to a positive number.")
    return number
