"""Which server a command talks to: SWEEP_SERVER, or the cluster of this machine, started if need be."""

from collections.abc import Iterator
from contextlib import contextmanager

from sweeps.cli.terminal import say
from sweeps.client import Client
from tracking.settings import Settings, load_settings


@contextmanager
def connected(settings: Settings | None = None) -> Iterator[Client]:
    """A client of the server in question."""
    settings = settings or load_settings()
    with Client(server_url(settings), settings.token) as client:
        yield client


def server_url(settings: Settings) -> str:
    """The server's address; starts the cluster of this machine if none is named."""
    if settings.server:
        return settings.server
    from sweeps.local import ensure_cluster

    return ensure_cluster(settings, say=say)
