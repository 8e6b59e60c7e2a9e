"""Waits for wake-ups on a connection of its own: LISTEN does not pass through a pooler."""

import os
import select
import time

import psycopg2
from psycopg2.extensions import ISOLATION_LEVEL_AUTOCOMMIT

from tracking.embedded import keep_to
from tracking.store.database import CHANNEL, CONNECT, plain_url


class Listener:
    """Hears `Database.notify` of any process. A broken connection is replaced; what was missed meanwhile a poll finds.

    `wait` belongs to one thread; `interrupt` may be called from any, also from a signal handler.

    Args:
        url: of the database itself, not of a pooler; empty to hear nothing but `interrupt`.
    """

    def __init__(self, url: str) -> None:
        self._dsn = plain_url(url) if url else ""
        keep_to(self._dsn)
        self._connection: psycopg2.extensions.connection | None = None
        self._retry_at = 0.0
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._reader, False)
        os.set_blocking(self._writer, False)

    def wait(self, timeout_s: float) -> bool:
        """Wait for a wake-up or an interrupt; whether one came."""
        connection = self._connect()
        watched = [self._reader] + ([connection] if connection is not None else [])
        ready, _, _ = select.select(watched, [], [], max(0.0, timeout_s))
        if self._reader in ready:
            self._drain()
        if connection is not None and connection in ready:
            try:
                connection.poll()
                connection.notifies.clear()
            except psycopg2.Error:
                self._drop()
        return bool(ready)

    def interrupt(self) -> None:
        """Make a running or the next `wait` return at once."""
        try:
            os.write(self._writer, b"x")
        except BlockingIOError:
            return  # the pipe is full: it will wake up anyway

    def close(self) -> None:
        """Let go of the connection."""
        self._drop()
        os.close(self._reader)
        os.close(self._writer)

    def _connect(self) -> psycopg2.extensions.connection | None:
        if self._dsn and self._connection is None and time.monotonic() >= self._retry_at:
            try:
                connection = psycopg2.connect(self._dsn, application_name="sweep listen", **CONNECT)
                connection.set_isolation_level(ISOLATION_LEVEL_AUTOCOMMIT)
                with connection.cursor() as cursor:
                    cursor.execute(f"LISTEN {CHANNEL}")
                self._connection = connection
            except psycopg2.Error:
                # Postgres is away; the poll behind us says so to whoever reads the log.
                self._retry_at = time.monotonic() + 1.0
        return self._connection

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _drain(self) -> None:
        try:
            while os.read(self._reader, 4096):
                pass
        except BlockingIOError:
            return
