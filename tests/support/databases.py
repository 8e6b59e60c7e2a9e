"""Fresh databases, quickly: the schema is migrated once into a template and copied for each test."""

import itertools
import os
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import create_engine
from sqlalchemy.engine import make_url

from tracking.store.database import normalise_url
from tracking.store.schema import upgrade_schema

_numbers = itertools.count(1)


class DatabaseMaker:
    """Makes databases on one Postgres server.

    Args:
        url: of any database on it, with the right to create others.
    """

    def __init__(self, url: str) -> None:
        self.url = normalise_url(url)
        self._template: str | None = None

    @contextmanager
    def fresh(self, *, is_migrated: bool = True) -> Iterator[str]:
        """URL of a database of one's own, dropped afterwards even if somebody is still connected."""
        name = self._create(self._migrated_template() if is_migrated else "template0")
        try:
            yield self._url_of(name)
        finally:
            self._execute(f"DROP DATABASE {name} WITH (FORCE)")

    def close(self) -> None:
        """Drop the template."""
        if self._template is not None:
            self._execute(f"DROP DATABASE {self._template} WITH (FORCE)")
            self._template = None

    def _migrated_template(self) -> str:
        if self._template is None:
            self._template = self._create("template0")
            upgrade_schema(self._url_of(self._template))
        return self._template

    def _create(self, template: str) -> str:
        name = f"sweep_test_{os.getpid()}_{next(_numbers)}"
        self._execute(f"CREATE DATABASE {name} TEMPLATE {template}")
        return name

    def _url_of(self, name: str) -> str:
        return make_url(self.url).set(database=name).render_as_string(hide_password=False)

    def _execute(self, statement: str) -> None:
        engine = create_engine(self.url, isolation_level="AUTOCOMMIT")
        try:
            with engine.connect() as connection:
                connection.exec_driver_sql(statement)
        finally:
            engine.dispose()
