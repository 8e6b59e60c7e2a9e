"""The broker's URL, the publisher that never waits, Flower's command line."""

import logging
import runpy
import threading
from pathlib import Path

import pytest

from scheduler.dispatch import CeleryDispatcher, NoDispatcher, WakeUp, make_dispatcher
from tests.support.services import free_port, wait_until
from tracking.broker import FLOWER_OPTIONS, BrokerConfig, BrokerKind, Letter, Publisher, broker_config, flower_argv, flower_environ
from tracking.errors import SettingError
from tracking.settings import Settings

HOME = Path("/home/of/sweep")
FLOWER_CONFIG = Path(__file__).parents[2] / "deploy" / "flower" / "flowerconfig.py"


def away() -> BrokerConfig:
    """A Redis that is not there."""
    return broker_config(f"redis://127.0.0.1:{free_port()}/0", HOME)


@pytest.mark.parametrize(
    ("url", "folder"),
    [("", HOME / "broker"), ("filesystem://", HOME / "broker"), ("filesystem:///", HOME / "broker"), ("filesystem:///a/my%20folder", Path("/a/my folder"))],
)
def test_broker_config_takes_a_folder(url: str, folder: Path) -> None:
    """A folder is given by an absolute path, or stands under the home."""
    assert broker_config(url, HOME) == BrokerConfig(BrokerKind.FOLDER, "filesystem://localhost/", folder)


@pytest.mark.parametrize("url", ["redis://host", "redis://host:6380/3", "redis://:secret@host:6379/0", "redis://user:secret@host/"])
def test_broker_config_takes_redis(url: str) -> None:
    """A Redis URL is passed on as it is."""
    config = broker_config(url, HOME)
    assert (config.kind, config.url, config.has_events) == (BrokerKind.REDIS, url, True)


def test_broker_config_takes_none() -> None:
    """No broker is a broker too: workers find their runs when they renew."""
    assert broker_config("none", HOME).kind is BrokerKind.NONE


@pytest.mark.parametrize(
    "url", ["amqp://host", "redis", "redis://", "redis:///0", "redis://host:port/0", "redis://host:99999/0", "redis://host/name", "filesystem://x/y"]
)
def test_broker_config_refuses_what_it_can_not_use(url: str) -> None:
    """Another kind, or a URL that is not whole, is an error with a hint, not a failure to connect later."""
    with pytest.raises(SettingError) as caught:
        broker_config(url, HOME)
    assert caught.value.hint


def test_broker_config_checks_certificates_when_encrypted() -> None:
    """A connection is encrypted and checked: kombu would connect without encryption where the URL does not say how to check the certificate."""
    assert broker_config("rediss://host/0", HOME).connection().ssl
    assert broker_config("rediss://host/0?ssl_cert_reqs=optional", HOME).url == "rediss://host/0?ssl_cert_reqs=optional"


def test_broker_config_hides_its_password() -> None:
    """Neither the URL for logs nor the representation tells the password."""
    config = broker_config("redis://user:secret@host:6379/0", HOME)
    assert config.shown_url == "redis://host:6379/0"
    assert "secret" not in repr(config)


def test_publisher_drops_the_oldest_and_tells_once_when_the_broker_is_away(caplog: pytest.LogCaptureFixture) -> None:
    """The buffer is bounded, an outage is one line, and putting does not wait."""
    caplog.set_level(logging.INFO)
    publisher = Publisher(away(), name="test", limit=10)
    publisher.put([Letter([n], queue="q") for n in range(8)])
    wait_until(lambda: publisher.is_away, "the publisher has noticed")
    publisher.put([Letter([n], queue="q") for n in range(8, 30)])
    wait_until(lambda: publisher._failures >= 3, "it has tried again")
    publisher.close(timeout_s=0.1)
    assert publisher.n_dropped == 20
    assert publisher.n_waiting <= 10
    assert len([record for record in caplog.records if record.name == "tracking.broker"]) == 1


def test_publisher_counts_what_comes_after_its_close() -> None:
    """Nothing is put into a buffer that nobody empties."""
    publisher = Publisher(away(), name="test")
    publisher.close()
    publisher.put([Letter([], queue="q")])
    assert (publisher.n_dropped, publisher.n_waiting) == (1, 0)


def test_publisher_sends_what_waits_when_closed(tmp_path: Path) -> None:
    """Closing empties the buffer first."""
    config = broker_config(f"filesystem://{tmp_path}", HOME)
    sent = threading.Semaphore(0)
    publisher = Publisher(config, name="test")
    publisher.put([Letter([n], queue="q", on_sent=sent.release) for n in range(1000)])
    publisher.close(timeout_s=30)
    assert all(sent.acquire(blocking=False) for _ in range(1000))
    with config.connection() as connection:
        assert connection.channel()._size("q") == 1000


def test_dispatcher_message_carries_ids_only() -> None:
    """What travels is the run's id and the placement's number, under the id that Flower shows, with an expiry."""
    dispatcher = CeleryDispatcher(away())
    letter = dispatcher._letter(WakeUp("r1", 3, "worker.a", 30.0))
    dispatcher.close()
    assert letter.body[:2] == (("r1", 3), {})
    assert letter.queue == "worker.a"
    assert (letter.headers["task"], letter.headers["id"], letter.headers["ignore_result"]) == ("sweep.run", "r1.3", True)
    assert letter.headers["expires"]


def test_dispatcher_is_none_for_no_broker() -> None:
    """Nothing is carried, and it says so."""
    dispatcher = make_dispatcher(Settings(home=HOME, broker_url="none"))
    assert isinstance(dispatcher, NoDispatcher)
    assert dispatcher.send("r", 1, "q", 1.0) is False
    assert dispatcher.send_many([WakeUp("r", 1, "q", 1.0)]) == 0


def test_flower_argv_holds_no_password() -> None:
    """Anybody may read a process's arguments; the URL goes into the environment."""
    settings = Settings(home=HOME, broker_url="redis://:secret@host/0")
    assert not any("secret" in word for word in flower_argv(settings))
    assert flower_environ(settings) == {"CELERY_BROKER_URL": "redis://:secret@host/0"}


@pytest.mark.parametrize("broker_url", ["", "none"])
def test_flower_is_refused_without_redis(broker_url: str) -> None:
    """There would be nothing to see."""
    with pytest.raises(SettingError):
        flower_argv(Settings(home=HOME, broker_url=broker_url))


def test_flower_config_file_says_the_same_as_our_command() -> None:
    """Whoever starts Flower, it is told the same."""
    told = {name: value for name, value in runpy.run_path(str(FLOWER_CONFIG)).items() if not name.startswith("__")}
    as_text = {name: ",".join(f"{item:g}" for item in value) if isinstance(value, list) else str(value).removesuffix(".0") for name, value in told.items()}
    assert as_text == dict(FLOWER_OPTIONS)
