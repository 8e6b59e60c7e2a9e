"""Sending wake-ups: after a run is placed, its worker is told by a Celery task in the worker's own queue.

Nothing here decides anything, and nothing here may hold up the scheduler: sending returns at once, and a message
that the broker does not take is found out by the worker's next renewal (I1).
"""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import NamedTuple, Protocol

from celery import Celery

from tracking.broker import TASK_NAME, BrokerConfig, BrokerKind, Letter, Publisher, broker_config, task_id
from tracking.settings import Settings


class WakeUp(NamedTuple):
    """One placed run, to be announced to its worker.

    Attributes:
        celery_queue: the worker's own queue.
        expires_s: after so long the worker need not look at it any more.
    """

    run_id: str
    placement: int
    celery_queue: str
    expires_s: float


class Dispatcher(Protocol):
    """Announces placed runs to workers. Never waits for the broker and never raises because of it."""

    def send(self, run_id: str, placement: int, celery_queue: str, expires_s: float) -> bool:
        """Announce one run; whether anything will carry it."""
        ...

    def send_many(self, wake_ups: Iterable[WakeUp]) -> int:
        """Announce several; how many will be carried."""
        ...

    def close(self) -> None:
        """Send what waits, briefly, and let go of the broker."""
        ...


class NoDispatcher:
    """For broker `none`: workers find their placed runs when they renew."""

    def send(self, run_id: str, placement: int, celery_queue: str, expires_s: float) -> bool:  # noqa: ARG002  # the protocol's signature
        """Carry nothing."""
        return False

    def send_many(self, wake_ups: Iterable[WakeUp]) -> int:  # noqa: ARG002  # the protocol's signature
        """Carry nothing."""
        return 0

    def close(self) -> None:
        """There is nothing to let go of."""


class CeleryDispatcher:
    """Sends Celery tasks through a thread of its own. The buffer drops its oldest when an outage is long."""

    def __init__(self, config: BrokerConfig, *, limit: int = 10_000) -> None:
        # The app only knows how a task message looks; it never connects. A loader that reads no configuration
        # from the environment's modules, no result backend, no global registration.
        self._app = Celery("sweep", set_as_current=False, backend="disabled://", fixups=[])
        self._publisher = Publisher(config, name="dispatch", limit=limit)

    @property
    def n_dropped(self) -> int:
        """How many wake-ups were given up because the broker was away for too long."""
        return self._publisher.n_dropped

    @property
    def is_away(self) -> bool:
        """Whether the broker could not be reached at the last try."""
        return self._publisher.is_away

    def send(self, run_id: str, placement: int, celery_queue: str, expires_s: float) -> bool:
        """Announce one run; see `Dispatcher`."""
        return self.send_many([WakeUp(run_id, placement, celery_queue, expires_s)]) == 1

    def send_many(self, wake_ups: Iterable[WakeUp]) -> int:
        """Announce several runs; see `Dispatcher`."""
        letters = [self._letter(wake_up) for wake_up in wake_ups]
        self._publisher.put(letters)
        return len(letters)

    def close(self) -> None:
        """Send what waits, for two seconds at most."""
        self._publisher.close()

    def _letter(self, wake_up: WakeUp) -> Letter:
        expires_at = datetime.now(UTC) + timedelta(seconds=wake_up.expires_s)
        message = self._app.amqp.as_task_v2(
            task_id(wake_up.run_id, wake_up.placement),
            TASK_NAME,
            args=(wake_up.run_id, wake_up.placement),
            expires=expires_at.isoformat(),
            ignore_result=True,
        )
        return Letter(message.body, queue=wake_up.celery_queue, headers=message.headers, properties=message.properties)


def make_dispatcher(settings: Settings) -> Dispatcher:
    """The dispatcher for the broker in the settings.

    Raises:
        SettingError: the broker's URL can't be used.
    """
    config = broker_config(settings.broker_url, settings.home)
    return NoDispatcher() if config.kind is BrokerKind.NONE else CeleryDispatcher(config)
