"""Fixtures of tests that work on a real record."""

from collections.abc import Iterator

import httpx
import pytest

from tests.support.protocol import connected, serving
from tests.support.record import Hands
from tracking.store import Store, open_store


@pytest.fixture(scope="module")
def shared_store(module_database_url: str) -> Iterator[Store]:
    """One record for the tests of a file: each works on sweeps and workers of its own."""
    opened = open_store(module_database_url)
    yield opened
    opened.close()


@pytest.fixture
def hands(shared_store: Store) -> Hands:
    """Hands on the file's record; they lead."""
    return Hands(shared_store)


@pytest.fixture(scope="module")
def protocol(shared_store: Store, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A client of MLflow's protocol over the file's record."""
    with serving(shared_store, tmp_path_factory.mktemp("home")) as url, connected(url) as client:
        yield client
