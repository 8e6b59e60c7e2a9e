"""One scheduler leads: a row with an epoch, checked in every transaction that it writes."""

from msgspec import Struct

from tracking.errors import RecordError
from tracking.failpoints import is_broken
from tracking.store.database import Database, Transaction


class NotLeader(RecordError):
    """Another scheduler leads now; this one becomes a standby."""

    http_status = 409
    error_code = "RESOURCE_CONFLICT"


class Leadership(Struct, frozen=True):
    """A won or renewed leadership.

    Attributes:
        expiry_suspended: leases are not judged now, so that workers speak first after an outage (I4).
    """

    epoch: int
    expiry_suspended: bool


_ACQUIRE = """
UPDATE leader SET epoch = epoch + 1, holder = %(holder)s, renewed_at = now(), lease_until = now() + make_interval(secs => %(lease_s)s),
       suspended_until = CASE WHEN lease_until + make_interval(secs => %(gap_s)s) < now()
                              THEN now() + make_interval(secs => %(suspend_s)s) ELSE suspended_until END
 WHERE lease_until < now() OR holder = %(holder)s
RETURNING epoch, coalesce(suspended_until > now(), false) AS suspended
"""

_RENEW = """
UPDATE leader SET renewed_at = now(), lease_until = now() + make_interval(secs => %(lease_s)s),
       suspended_until = CASE WHEN renewed_at + make_interval(secs => %(gap_s)s) < now()
                              THEN now() + make_interval(secs => %(suspend_s)s) ELSE suspended_until END
 WHERE epoch = %(epoch)s AND holder = %(holder)s
RETURNING epoch, coalesce(suspended_until > now(), false) AS suspended
"""

_RESIGN = "UPDATE leader SET lease_until = now() WHERE epoch = %(epoch)s AND holder = %(holder)s"

# The leader waits less for a lock than others: everybody waits for it.
_HOLD = "SELECT set_config('lock_timeout', '500ms', true) FROM leader WHERE epoch = %(epoch)s FOR SHARE"


class Leader:
    """The leader's row."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def acquire(self, holder: str, *, lease_s: float, suspend_s: float) -> Leadership | None:
        """Lead, if nobody does; None while another leads. A gap in the ticking suspends expiry for `suspend_s`."""
        values = {"holder": holder, "lease_s": lease_s, "gap_s": lease_s, "suspend_s": _suspension_s(suspend_s)}
        with self._database.autocommit() as tx:
            row = tx.one(_ACQUIRE, values)
        return None if row is None else Leadership(row.epoch, row.suspended)

    def renew(self, holder: str, epoch: int, *, lease_s: float, suspend_s: float, had_outage: bool = False) -> Leadership | None:
        """Go on leading; None when another has taken over.

        Args:
            had_outage: Postgres has refused the holder something since it renewed last, and workers too perhaps: that suspends as a gap does.
        """
        gap_s = 0.0 if had_outage else 2 * lease_s
        values = {"holder": holder, "epoch": epoch, "lease_s": lease_s, "gap_s": gap_s, "suspend_s": _suspension_s(suspend_s)}
        with self._database.autocommit() as tx:
            row = tx.one(_RENEW, values)
        return None if row is None else Leadership(row.epoch, row.suspended)

    def resign(self, holder: str, epoch: int) -> None:
        """Let a standby take over at once."""
        with self._database.autocommit() as tx:
            tx.execute(_RESIGN, {"holder": holder, "epoch": epoch})


def _suspension_s(suspend_s: float) -> float:
    return 0.0 if is_broken("no-expiry-suspension") else suspend_s


def hold_leadership(tx: Transaction, epoch: int) -> None:
    """Refuse unless `epoch` still leads, and keep it so until this transaction ends.

    Raises:
        NotLeader: another scheduler has taken over.
    """
    if tx.one(_HOLD, {"epoch": epoch}) is None:
        raise NotLeader("Another scheduler leads now.")
