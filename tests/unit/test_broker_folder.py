"""The folder broker in one process: what is read, what is thrown away, what is left behind."""

import json
import os
import shutil
import socket
import stat
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kombu import Consumer, Exchange, Producer, Queue
from kombu.connection import Connection

from tracking import broker
from tracking.broker import broker_config

QUEUE = Queue("worker.a", routing_key="worker.a")


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[Connection]:
    """An open connection to a fresh folder broker."""
    with broker_config(f"filesystem://{tmp_path / 'broker'}", tmp_path).connection() as opened:
        opened.connect()
        yield opened


def send(connection: Connection, body: Any, queue: str = QUEUE.name) -> None:
    """Publish straight into a queue."""
    Producer(connection.channel(), auto_declare=False).publish(body, exchange="", routing_key=queue, serializer="json")


def receive_all(connection: Connection, queue: Queue = QUEUE) -> list[Any]:
    """Everything that waits in a queue."""
    received: list[Any] = []
    with Consumer(connection.channel(), [queue], callbacks=[lambda body, message: (received.append(body), message.ack())], accept=["json"]):
        while True:
            try:
                connection.drain_events(timeout=0.01)
            except TimeoutError:
                return received


def queue_folder(tmp_path: Path, queue: str = QUEUE.name) -> Path:
    """Where a queue's messages are."""
    return tmp_path / "broker" / "queues" / queue.replace(".", "%2E")


def test_folder_delivers_in_order_and_leaves_nothing(connection: Connection, tmp_path: Path) -> None:
    """Messages come in the order of sending; afterwards no file remains."""
    for n in range(300):
        send(connection, n)
    assert receive_all(connection) == list(range(300))
    assert [path.name for path in queue_folder(tmp_path).iterdir()] == ["bell"]
    assert list((tmp_path / "broker" / "writing").iterdir()) == []


def test_folder_is_private(connection: Connection, tmp_path: Path) -> None:
    """Nobody else may read or write messages, whatever the rights were before."""
    root = tmp_path / "broker"
    root.chmod(0o777)
    send(connection, "secret")
    connection.channel()
    for path in (root, *root.rglob("*")):
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path


@pytest.mark.parametrize(
    "data",
    [b"", b"{", b"[]", b"{}", b"null", b"\xff\xfe", b'{"properties": {}}', b'{"properties": {"delivery_tag": "x", "body_encoding": "base64"}, "body": "abc"}'],
)
def test_folder_skips_a_file_that_is_no_message(connection: Connection, tmp_path: Path, caplog: pytest.LogCaptureFixture, data: bytes) -> None:
    """An empty or broken file is removed and told of; the messages behind it arrive."""
    send(connection, 1)
    (queue_folder(tmp_path) / "00000000000000000000-0.msg").write_bytes(data)
    send(connection, 2)
    assert receive_all(connection) == [1, 2]
    assert "can't be read was removed" in caplog.text
    assert not list(queue_folder(tmp_path).glob("*.msg"))


def test_folder_moves_aside_what_it_can_not_open(connection: Connection, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Something that is no file does not stop the queue."""
    send(connection, 1)
    (queue_folder(tmp_path) / "0.msg").mkdir()
    assert receive_all(connection) == [1]
    assert "moved aside" in caplog.text


def test_folder_ignores_a_message_being_written(connection: Connection, tmp_path: Path) -> None:
    """A draft, left by a writer that was killed, is never read; after a while it is removed."""
    draft = tmp_path / "broker" / "writing" / "1-1-1.msg.abc"
    send(connection, 1)
    draft.write_bytes(b'{"half')
    assert receive_all(connection) == [1]
    os.utime(draft, (0, 0))
    connection.channel().sweep()
    assert not draft.exists()


@pytest.mark.parametrize("queue", ["../../escaped", ".", "..", "a/b", "sweep@host.celery.pidbox", "ünïcode \n"])
def test_folder_keeps_any_queue_inside(connection: Connection, tmp_path: Path, queue: str) -> None:
    """A queue's name is quoted: it can't name a folder elsewhere."""
    before = set(tmp_path.rglob("*"))
    send(connection, "x", queue)
    assert all((tmp_path / "broker" / "queues") in path.parents for path in set(tmp_path.rglob("*")) - before)
    assert receive_all(connection, Queue(queue, routing_key=queue)) == ["x"]


def test_folder_keeps_queues_apart(connection: Connection) -> None:
    """A reader gets its own messages only."""
    send(connection, "a", "worker.a")
    send(connection, "b", "worker.b")
    assert receive_all(connection, Queue("worker.b", routing_key="worker.b")) == ["b"]
    assert receive_all(connection) == ["a"]


def test_folder_gives_back_what_was_not_acknowledged(connection: Connection, tmp_path: Path) -> None:
    """A worker that stops before it began a task leaves its message for the next start."""
    send(connection, "x")
    channel = connection.channel()
    with Consumer(channel, [QUEUE], callbacks=[lambda _body, _message: None], accept=["json"]):
        connection.drain_events(timeout=1)
    assert not list(queue_folder(tmp_path).glob("*.msg"))
    channel.close()
    assert receive_all(connection) == ["x"]


def test_folder_rings_a_waiting_reader(connection: Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Arrival is noticed by the bell, not by looking now and then."""
    monkeypatch.setattr(broker, "RELIST_S", 60.0)
    received: list[Any] = []
    sender = broker_config(f"filesystem://{tmp_path / 'broker'}", tmp_path).connection()
    with Consumer(connection.channel(), [QUEUE], callbacks=[lambda body, message: (received.append(body), message.ack())], accept=["json"]):
        with pytest.raises(socket.timeout):
            connection.drain_events(timeout=0.01)
        timer = threading.Timer(0.1, send, (sender, "x"))
        timer.start()
        connection.drain_events(timeout=30)
        timer.join()
    sender.release()
    assert received == ["x"]


def test_folder_finds_a_message_whose_bell_never_rang(connection: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    """A writer killed between the rename and the ring costs one look, not the message."""
    monkeypatch.setattr(broker, "RELIST_S", 0.05)
    monkeypatch.setattr(broker, "_ring", lambda _folder: None)
    received: list[Any] = []
    with Consumer(connection.channel(), [QUEUE], callbacks=[lambda body, message: (received.append(body), message.ack())], accept=["json"]):
        timer = threading.Timer(0.1, send, (connection, "x"))
        timer.start()
        connection.drain_events(timeout=30)
        timer.join()
    assert received == ["x"]


def test_folder_waiting_costs_next_to_nothing(connection: Connection) -> None:
    """An idle reader uses far less than the 3 % of a core that all roles together may."""
    with Consumer(connection.channel(), [QUEUE], accept=["json"]):
        cpu, wall = time.thread_time(), time.monotonic()
        with pytest.raises(TimeoutError):
            connection.drain_events(timeout=2.0)
        assert (time.thread_time() - cpu) / (time.monotonic() - wall) < 0.01


def test_folder_table_survives_garbage(connection: Connection, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A broken exchange table counts as empty and is written anew by the next binding."""
    exchange = Exchange("news", type="fanout")
    table = tmp_path / "broker" / "exchanges" / "news.exchange"
    connection.channel()
    table.write_bytes(b'[["", "", "a"]]]]')
    queue = Queue("reader", exchange)
    queue(connection.channel()).declare()
    assert "counts as empty" in caplog.text
    assert json.loads(table.read_bytes()) == [["", "", "reader"]]
    Producer(connection.channel(), exchange).publish("hello", serializer="json")
    assert receive_all(connection, queue) == ["hello"]


def test_folder_expires_queues_of_dead_monitors(connection: Connection, tmp_path: Path) -> None:
    """Events and replies that nobody reads do not pile up, and their reader's binding goes; wake-ups stay."""
    exchange = Exchange("celeryev", type="topic")
    Queue("celeryev.dead", exchange, routing_key="#")(connection.channel()).declare()
    Producer(connection.channel(), exchange).publish({"type": "x"}, routing_key="worker.heartbeat", serializer="json")
    send(connection, "wake-up")
    for path in (dead := queue_folder(tmp_path, "celeryev.dead"), *dead.iterdir(), *queue_folder(tmp_path).iterdir()):
        os.utime(path, (time.time() - 200, time.time() - 200))
    os.utime(dead, (time.time() - 200, time.time() - 200))
    connection.channel().sweep()  # takes the message, which touches the folder
    os.utime(dead, (time.time() - 200, time.time() - 200))
    connection.channel().sweep()
    assert not dead.exists()
    assert json.loads((tmp_path / "broker" / "exchanges" / "celeryev.exchange").read_bytes()) == []
    assert receive_all(connection) == ["wake-up"]


def test_folder_leaves_a_living_monitor_alone(connection: Connection, tmp_path: Path) -> None:
    """A monitor that waits has its bell open: its queue is not swept, however long nothing happens."""
    queue = Queue("celeryev.alive", Exchange("celeryev", type="topic"), routing_key="#")
    folder = queue_folder(tmp_path, queue.name)
    with Consumer(connection.channel(), [queue], accept=["json"]):
        os.utime(folder, (0, 0))
        connection.channel().sweep()
        assert folder.exists()
    os.utime(folder, (0, 0))
    connection.channel().sweep()
    assert not folder.exists()


def test_folder_that_was_deleted_and_made_again_has_a_bell_again(connection: Connection, tmp_path: Path) -> None:
    """The reader hangs another bell: nobody can ring one that was deleted."""
    with Consumer(connection.channel(), [QUEUE], callbacks=[lambda _body, message: message.ack()], accept=["json"]):
        shutil.rmtree(queue_folder(tmp_path))
        with pytest.raises(TimeoutError):
            connection.drain_events(timeout=0.01)
        assert stat.S_ISFIFO((queue_folder(tmp_path) / "bell").stat().st_mode)
