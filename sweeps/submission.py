"""Submitting: the project packed, what the server lacks of it uploaded, and the sweep posted once, however often it is tried."""

import getpass
from pathlib import Path

from sweeps.api.shapes import SubmitBody, SweepAnswer
from sweeps.client import Client
from sweeps.spec import Submission
from sweeps.unanswered import remembered
from sweeps.wording import Tell, bytes_text
from tracking.settings import Settings
from tracking.snapshots import pack


def send(client: Client, submission: Submission, settings: Settings, *, tell: Tell) -> SweepAnswer:
    """Pack, upload what the server lacks, submit."""
    _leave_out_home(settings.home, submission.folder)
    digest = _upload(client, submission.folder, settings, tell)
    body = SubmitBody(
        config=submission.config.to_builtins(),
        source=submission.source,
        code_digest=digest,
        submission_id="",
        user_name=_user_name(),
    )
    with remembered(settings.home, client.url, body, tell) as submission_id:
        sweep = client.submit({**body, "submission_id": submission_id})
    if submission.config.trials_max is None and not submission.config.limits.time_s:
        tell(f"No limit is set: it runs until you stop it, with `sweep stop {sweep['short_id']}`.")
    return sweep


def _leave_out_home(home: Path, folder: Path) -> None:
    """Keep the local cluster, its database and secrets, out of a snapshot when it lies within the project."""
    if home.is_dir() and home.resolve().is_relative_to(folder.resolve()):
        (home / ".sweepignore").write_text("*\n", encoding="utf-8")


def _upload(client: Client, folder: Path, settings: Settings, tell: Tell) -> str:
    snapshot = pack(folder, max_bytes=settings.snapshot_max_bytes)
    try:
        if not client.has_snapshot(snapshot.digest):
            tell(f"Uploading {folder} ({snapshot.n_files} files, {bytes_text(snapshot.size_bytes)})")
            client.put_snapshot(snapshot.digest, snapshot.archive, snapshot.n_files)
    finally:
        snapshot.archive.unlink(missing_ok=True)
    return snapshot.digest


def _user_name() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # an uid without a name, as in many containers
        return ""
