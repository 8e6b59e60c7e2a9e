"""Alembic migrations of the record; run by `tracking.store.schema`, never by hand.

Every revision is a pair, `NNNN_name.py` for Alembic and `NNNN_name.sql` with what its upgrade does: an empty database is
built from the SQL alone, in a twentieth of the time that Alembic takes to load.
"""

from typing import Final

HEAD: Final = "0001"
"""The newest revision; a test compares it with the folder."""

UPGRADE_LOCK: Final = 0x5EE9_0001
"""Advisory lock of whoever changes the schema. Any constant will do, as long as no other program on the server takes the same."""
