"""The seat that one scheduler holds at a time; standbys wait for it."""

import os
import socket
import time

from tracking.ids import new_uuid
from tracking.settings import Settings
from tracking.store import Store
from tracking.store.leader import NotLeader


class Seat:
    """Leads while it can renew in time.

    Attributes:
        epoch: of the leadership, None while another leads.
        expiry_suspended: leases are not judged now (I4).
    """

    def __init__(self, store: Store, settings: Settings) -> None:
        self._store = store
        self._lease_s = settings.leader_lease_s
        self._suspend_s = settings.lease_s
        self._holder = f"{socket.gethostname()}:{os.getpid()}:{new_uuid()[:8]}"
        self._renew_at = 0.0
        self._had_outage = False
        self.epoch: int | None = None
        self.expiry_suspended = True

    def hold(self) -> bool:
        """Renew or take the seat when it is time; whether this scheduler leads.

        Raises:
            DatabaseAway: nobody can lead now.
            NotLeader: this scheduler led, and another has taken over.
        """
        if time.monotonic() < self._renew_at:
            return self.epoch is not None
        if self.epoch is None:
            won = self._store.leader.acquire(self._holder, lease_s=self._lease_s, suspend_s=self._suspend_s)
        else:
            won = self._store.leader.renew(self._holder, self.epoch, lease_s=self._lease_s, suspend_s=self._suspend_s, had_outage=self._had_outage)
            if won is None:
                raise NotLeader("Another scheduler leads now.")
        self._had_outage = False
        self.epoch = None if won is None else won.epoch
        self.expiry_suspended = won is None or won.expiry_suspended
        # Standbys look more often than the leader renews, so that a fail-over takes one lease and little more.
        self._renew_at = time.monotonic() + self._lease_s / (10 if won is None else 5)
        return self.epoch is not None

    def note_outage(self) -> None:
        """Postgres did not do what it was asked, for us and perhaps for workers: renew now, and judge no lease for a while (I4).

        The leadership may have been renewed all the same meanwhile: a lock, a full disk, a want of connections need not touch its row.
        """
        self._had_outage = True
        self._renew_at = 0.0

    def lose(self) -> None:
        """Another scheduler leads: look again soon."""
        self.epoch = None
        self._renew_at = 0.0

    def resign(self) -> None:
        """Let a standby take over at once.

        Raises:
            DatabaseAway: the lease will run out by itself.
        """
        if self.epoch is not None:
            self._store.leader.resign(self._holder, self.epoch)
            self.epoch = None
