"""Fixtures of tests that work on a real record."""

from collections.abc import Iterator

import pytest

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
