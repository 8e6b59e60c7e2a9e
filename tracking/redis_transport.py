"""kombu's Redis transport for queues that anybody may have written to: what is no message is dropped, and nothing else happens.

kombu's own ends the consumer, or takes rubbish for a broken connection and waits before the next try.
"""

# kombu is typed in part: most of its functions say nothing of their arguments.
# mypy: disallow-untyped-calls=False

import json
import logging
from typing import Any

from kombu.transport import redis, virtual

log = logging.getLogger(__name__)


class RedisChannel(redis.Channel):
    """Drops what is no text, or no JSON."""

    def _brpop_read(self, **options: Any) -> Any:
        try:
            return super()._brpop_read(**options)
        except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
            log.warning("A message that can't be read was removed (%s).", type(error).__name__)
            return True


class RedisTransport(redis.Transport):
    """Drops what has not the form that kombu gives its messages."""

    Channel = RedisChannel

    def _deliver(self, message: Any, queue: str) -> None:
        try:
            virtual.Message(message, channel=self.channels[0])  # checks what kombu would trip over later
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            log.warning("A message that can't be read was removed (%s).", type(error).__name__)
        else:
            super()._deliver(message, queue)
