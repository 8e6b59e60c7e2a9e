"""Which server is talked to: SWEEP_SERVER, or the cluster of this machine."""

from sweeps.wording import Tell
from tracking.settings import Settings


def server_url(settings: Settings, tell: Tell) -> str:
    """The server's address; starts the cluster of this machine if none is named."""
    if settings.server:
        return settings.server
    from sweeps.local import ensure_cluster  # noqa: PLC0415 - who names a server needs none of what starts one

    return ensure_cluster(settings, say=tell)


def running_url(settings: Settings) -> str | None:
    """The server's address, if one is named or the cluster of this machine runs; starts nothing."""
    if settings.server:
        return settings.server
    from sweeps.local import cluster_status  # noqa: PLC0415 - the same

    status = cluster_status(settings)
    return status.url if status.is_running else None
