"""The client of a command: of the server in question, which is started if need be."""

from collections.abc import Iterator
from contextlib import contextmanager

from sweeps.address import server_url
from sweeps.cli.terminal import say
from sweeps.client import Client
from tracking.settings import Settings, load_settings


@contextmanager
def connected(settings: Settings | None = None) -> Iterator[Client]:
    """A client of the server in question."""
    settings = settings or load_settings()
    with Client(server_url(settings, say), settings.token) as client:
        yield client
