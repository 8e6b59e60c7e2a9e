"""The folder broker between processes: each message once, whoever is killed."""

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from kombu import Consumer, Queue

from tests.support.services import wait_until
from tracking.broker import broker_config

PRELUDE = """
import sys
from pathlib import Path
from kombu import Consumer, Exchange, Producer, Queue
from tracking.broker import broker_config
folder, name, amount = sys.argv[1], sys.argv[2], int(sys.argv[3])
connection = broker_config("filesystem://" + folder, Path(folder)).connection()
print("ready", flush=True)
sys.stdin.readline()
"""

SEND = """
producer = Producer(connection.channel(), auto_declare=False)
for n in range(amount):
    producer.publish([name, n, "x" * 2000], exchange="", routing_key="q", serializer="json")
"""

RECEIVE = """
def received(body, message):
    print(body[0], body[1], flush=True)
    message.ack()
with Consumer(connection.channel(), [Queue("q", routing_key="q")], callbacks=[received], accept=["json"]):
    while True:
        connection.drain_events()
"""

BIND = """
channel = connection.channel()
for n in range(amount):
    Queue(f"{name}.{n}", Exchange("shared", type="fanout"))(channel).declare()
"""


def spawn(script: str, folder: Path, name: str, amount: int) -> subprocess.Popen[bytes]:
    """Start a process, which writes to `name.out` and waits for `go` when it is ready."""
    output = folder.parent / f"{name}.out"
    with output.open("wb") as file:
        process = subprocess.Popen([sys.executable, "-c", PRELUDE + script, str(folder), name, str(amount)], stdin=subprocess.PIPE, stdout=file)
    wait_until(lambda: b"ready" in output.read_bytes(), f"{name} is ready")
    return process


def go(process: subprocess.Popen[bytes]) -> None:
    """Let a process begin."""
    assert process.stdin is not None
    process.stdin.write(b"go\n")
    process.stdin.close()


def test_folder_gives_each_message_to_one_of_several_readers(tmp_path: Path) -> None:
    """Three writers and two readers of one queue at once: every message is read, and read once."""
    folder = tmp_path / "broker"
    readers = [spawn(RECEIVE, folder, f"reader-{n}", 0) for n in range(2)]
    writers = [spawn(SEND, folder, f"writer-{n}", 300) for n in range(3)]
    try:
        for process in (*readers, *writers):
            go(process)
        assert [writer.wait(60) for writer in writers] == [0, 0, 0]

        def lines() -> list[str]:
            return [line for output in tmp_path.glob("reader-*.out") for line in output.read_text().splitlines() if line != "ready"]

        wait_until(lambda: len(lines()) >= 900, "900 messages are read")
        assert sorted(lines()) == sorted(f"writer-{w} {n}" for w in range(3) for n in range(300))
    finally:
        for reader in readers:
            reader.kill()
            reader.wait()


def test_folder_has_no_poison_when_writers_are_killed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Writers killed at any moment leave whole messages or none, and each writer's arrive without a gap."""
    folder = tmp_path / "broker"
    for n in range(5):
        writer = spawn(SEND, folder, f"writer-{n}", 1_000_000)
        go(writer)
        queue = folder / "queues" / "q"
        before = len(list(queue.glob("*.msg"))) if queue.exists() else 0
        wait_until(lambda queue=queue, before=before: queue.exists() and len(list(queue.glob("*.msg"))) > before + 20, "it has written", interval_s=0.001)
        writer.kill()
        writer.wait()
    received: list[Any] = []
    with (
        broker_config(f"filesystem://{folder}", tmp_path).connection() as connection,
        Consumer(
            connection.channel(), [Queue("q", routing_key="q")], callbacks=[lambda body, message: (received.append(body), message.ack())], accept=["json"]
        ),
    ):
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            try:
                connection.drain_events(timeout=0.01)
            except TimeoutError:
                break
    for n in range(5):
        numbers = [number for name, number, _padding in received if name == f"writer-{n}"]
        assert len(numbers) > 20
        assert numbers == list(range(len(numbers)))
    assert not caplog.records


def test_folder_table_keeps_every_binding_when_processes_bind_at_once(tmp_path: Path) -> None:
    """Five processes bind forty queues each to one exchange: the table has them all and is whole."""
    folder = tmp_path / "broker"
    binders = [spawn(BIND, folder, f"binder-{n}", 40) for n in range(5)]
    for binder in binders:
        go(binder)
    assert [binder.wait(60) for binder in binders] == [0] * 5
    table = json.loads((folder / "exchanges" / "shared.exchange").read_bytes())
    assert sorted(queue for _key, _pattern, queue in table) == sorted(f"binder-{b}.{n}" for b in range(5) for n in range(40))
