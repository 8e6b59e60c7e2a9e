"""Which snapshots of code the server holds (their bytes lie beside the artifacts)."""

from tracking.store.database import Database


class Snapshots:
    """The snapshots that were stored."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def exists(self, digest: str) -> bool:
        """Whether a snapshot of this digest was stored."""
        with self._database.autocommit() as tx:
            return tx.one("SELECT 1 FROM snapshots WHERE digest = %(digest)s", {"digest": digest}) is not None

    def add(self, digest: str, size_bytes: int, n_files: int) -> None:
        """Note a stored snapshot; again is no change."""
        with self._database.autocommit() as tx:
            tx.execute(
                "INSERT INTO snapshots (digest, size_bytes, n_files) VALUES (%(digest)s, %(size_bytes)s, %(n_files)s) ON CONFLICT DO NOTHING",
                {"digest": digest, "size_bytes": size_bytes, "n_files": n_files},
            )
