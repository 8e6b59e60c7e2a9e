"""Fixtures of the unit tests."""

from collections.abc import Iterator
from threading import Thread

import pytest

from sweeps.client import Client
from tests.support.fake_server import FakeServer


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeServer]:
    """A made-up server that SWEEP_SERVER names."""
    fake = FakeServer()
    thread = Thread(target=fake.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    monkeypatch.setenv("SWEEP_SERVER", fake.url)
    monkeypatch.setattr(Client, "retry_waits_s", ())
    yield fake
    fake.shutdown()
    fake.server_close()
    thread.join()
