"""The output of attempts, in pieces by byte offset; the same piece again is no change."""

from collections.abc import Sequence

from msgspec import Struct

from tracking.errors import NotFound
from tracking.records import LogChunk
from tracking.store.attempts import Fence, hold_fence
from tracking.store.database import Database


class LogPage(Struct, frozen=True):
    """A stretch of one stream.

    Attributes:
        next_offset: where the following stretch begins.
        is_complete: the attempt has ended and nothing follows.
    """

    data: bytes
    next_offset: int
    attempt: int
    is_complete: bool


_INSERT = "INSERT INTO log_chunks (run_id, attempt, stream, offset_bytes, data)"
# After a restart a worker may cut the same output differently: the longer piece holds all of the shorter one.
_LONGER = """
ON CONFLICT (run_id, attempt, stream, offset_bytes) DO UPDATE SET data = excluded.data WHERE length(excluded.data) > length(log_chunks.data)
"""
_READ = """
SELECT offset_bytes, data FROM log_chunks
 WHERE run_id = %(run_id)s AND attempt = %(attempt)s AND stream = %(stream)s AND offset_bytes + length(data) > %(offset)s
 ORDER BY offset_bytes LIMIT 200
"""
_ATTEMPT = """
SELECT r.attempt AS current, coalesce((SELECT a.state <> 'running' FROM attempts a WHERE a.run_id = r.run_id
       AND a.attempt = coalesce(%(attempt)s, r.attempt)), r.state NOT IN ('queued', 'placed', 'running')) AS is_over
  FROM runs r WHERE r.run_id = %(run_id)s
"""


class Logs:
    """Output of attempts."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def append(self, run_id: str, attempt: int, chunks: Sequence[LogChunk]) -> None:
        """Keep pieces of output.

        Raises:
            NotAllowed: the attempt is no longer the run's current one.
        """
        if not chunks:
            return
        with self._database.transaction() as tx:
            hold_fence(tx, Fence(run_id, attempt))
            pieces: dict[tuple[str, int], bytes] = {}
            for chunk in chunks:
                place = (chunk.stream, chunk.offset)
                pieces[place] = max(pieces.get(place, b""), chunk.data, key=len)
            rows = [(run_id, attempt, stream, offset, data) for (stream, offset), data in pieces.items()]
            tx.insert(_INSERT, rows, _LONGER)

    def read(self, run_id: str, *, attempt: int | None = None, stream: str = "stdout", offset: int = 0, limit: int = 1 << 20) -> LogPage:
        """Output from a byte offset on, at most `limit` bytes; of the current attempt unless told otherwise.

        Raises:
            NotFound: no such run.
        """
        with self._database.autocommit() as tx:
            run = tx.one(_ATTEMPT, {"run_id": run_id, "attempt": attempt})
            if run is None:
                raise NotFound(f"Run with id={run_id} not found")
            number = run.current if attempt is None else attempt
            rows = tx.rows(_READ, {"run_id": run_id, "attempt": number, "stream": stream, "offset": offset})
        data = bytearray()
        position = offset
        for row in rows:
            piece = bytes(row.data)
            if row.offset_bytes > position:
                # A stretch that was left out (see worker/logs.py): go on behind it.
                if data:
                    break
                position = row.offset_bytes
            data += piece[position - row.offset_bytes :]
            position = max(position, row.offset_bytes + len(piece))
            if len(data) >= limit:
                break
        cut = bytes(data[:limit])
        end = position - (len(data) - len(cut))
        return LogPage(cut, end, number, bool(run.is_over) and not rows)
