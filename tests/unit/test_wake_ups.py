"""What the window leaves of a message: a run's id, a placement, an expiry, and nothing that anybody else has put there."""

import base64
import json
from collections.abc import Mapping
from typing import Any

import pytest
from kombu.transport import virtual

from scheduler.dispatch import CeleryDispatcher, WakeUp
from tracking.broker import BrokerConfig, BrokerKind
from worker.celery_app import _purify


class Channel:
    """As much of a channel as a message asks of one."""

    @staticmethod
    def decode_body(body: str, _encoding: str | None = None) -> bytes:
        """From base64."""
        return base64.b64decode(body)


def message(body: object, headers: Mapping[str, Any] | None = None, content_type: str = "application/json") -> Any:
    """One as kombu hands it over."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    properties = {"delivery_tag": "1", "delivery_info": {}, "reply_to": "elsewhere"}
    payload = {
        "body": base64.b64encode(data).decode(),
        "headers": {"task": "sweep.run", "id": "any"} if headers is None else headers,
        "content-type": content_type,
        "content-encoding": "utf-8",
        "properties": properties,
    }
    return virtual.Message(payload, channel=Channel())


def test_wake_up_of_our_own_is_taken() -> None:
    """What the dispatcher sends passes, with its id and its expiry."""
    letter = CeleryDispatcher(BrokerConfig(BrokerKind.NONE))._letter(WakeUp("a" * 32, 3, "queue", 60.0))
    sent = message(letter.body, letter.headers)
    _purify(sent)
    assert json.loads(sent.body)[0] == ["a" * 32, 3]
    assert sent.headers["id"] == letter.headers["id"]
    assert sent.headers["expires"] == letter.headers["expires"]


def test_wake_up_keeps_nothing_that_would_send_more_tasks() -> None:
    """Callbacks, an answer's address and other headers are not handed to Celery."""
    call = {"task": "os.system", "args": ["true"], "options": {"queue": "elsewhere"}}
    forged = message(
        [["run", 1], {"more": 1}, {"callbacks": [call], "chain": [call]}], {"task": "sweep.run", "id": "x", "timelimit": 5, "eta": "never", "group": []}
    )
    _purify(forged)
    assert json.loads(forged.body) == [["run", 1], {}, {}]
    assert forged.headers.keys() == {"lang", "task", "id", "argsrepr", "kwargsrepr", "expires", "ignore_result"}
    assert forged.headers["id"] == "run.1"
    assert "reply_to" not in forged.properties


@pytest.mark.parametrize(
    ("body", "headers", "content_type"),
    [
        ([["run", 1], {}, {}], {"task": "os.system", "id": "x"}, "application/json"),
        ([["run", 1], {}, {}], None, "application/x-python-serialize"),
        ([["run", 1], {}, {}], {"task": "sweep.run", "expires": "tomorrow"}, "application/json"),
        ([["run", 1], {}, {}], {"task": "sweep.run", "expires": 7}, "application/json"),
        ([["run", 1], {}, {}], {}, "application/json"),
        ([["../run", 1], {}, {}], None, "application/json"),
        ([["run\0", 1], {}, {}], None, "application/json"),
        ([[7, 1], {}, {}], None, "application/json"),
        ([["run", "1"], {}, {}], None, "application/json"),
        ([["run", True], {}, {}], None, "application/json"),
        ([["run", -1], {}, {}], None, "application/json"),
        ([["run", 1 << 31], {}, {}], None, "application/json"),
        ([["run"], {}, {}], None, "application/json"),
        ([["run", 1, 2], {}, {}], None, "application/json"),
        ([["run" * 2000, 1], {}, {}], None, "application/json"),
        ({"task": "sweep.run"}, None, "application/json"),
        (None, None, "application/json"),
        (b"[" * 4000, None, "application/json"),
        (b"\x80\x05.", None, "application/json"),
    ],
)
def test_wake_up_of_another_form_is_refused(body: object, headers: Mapping[str, Any] | None, content_type: str) -> None:
    """Another task, another encoding, other arguments: whatever is wrong, it is one of the errors that the window expects."""
    with pytest.raises((ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError)):
        _purify(message(body, headers, content_type))
