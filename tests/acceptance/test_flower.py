"""Flower in a real browser, over Redis: which workers there are, what they run under which id, what has ended.

The workers here are windows whose runs end when the test says so; `Cluster` is all that the tests ask of them.
"""

import os
import re
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.error import HTTPError, URLError

import pytest

from scheduler.dispatch import CeleryDispatcher
from tests.support.services import free_port, stop_process, wait_until
from tracking.broker import broker_config, flower_argv, flower_environ
from tracking.settings import Settings

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

WORKER = """
import sys, threading, time
from pathlib import Path
from tracking.settings import Settings
from worker.celery_app import RunFailed, make_window

url, home, name = sys.argv[1:]
def handler(run_id, placement):
    told = Path(home) / run_id
    while not told.exists():
        time.sleep(0.02)
    if told.read_text() == "failed":
        raise RunFailed("exit status 3")
    return told.read_text()
window = make_window(Settings(home=Path(home), broker_url=url), celery_queue="worker." + name, node_name="sweep@" + name, concurrency=2, handler=handler)
window.start()
if name == "one":
    window.publish_started("adopted", 2)
print("started", flush=True)
sys.stdin.read()
window.stop(1.0)
"""


class Cluster:
    """Two workers that run what they are told to, for as long as they are told to."""

    worker_names = ("sweep@one", "sweep@two")

    def __init__(self, redis_url: str, home: Path) -> None:
        self._home = home
        self._workers: list[subprocess.Popen[bytes]] = []
        self._redis_url = redis_url
        self._dispatcher = CeleryDispatcher(broker_config(redis_url, home))

    def start(self) -> None:
        """Start both workers; the first has adopted a run, `adopted`, in its second placement."""
        for name in ("one", "two"):
            command = [sys.executable, "-c", WORKER, self._redis_url, str(self._home), name]
            self._workers.append(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL))

    def run(self, run_id: str, worker: str) -> str:
        """Begin a run; the id of its Celery task."""
        self._dispatcher.send(run_id, 1, f"worker.{worker}", 120.0)
        return f"{run_id}.1"

    def finish(self, run_id: str, outcome: str) -> None:
        """End a run."""
        draft = self._home / f"{run_id}.draft"
        draft.write_text(outcome)
        draft.rename(self._home / run_id)

    def stop(self) -> None:
        """Stop everything."""
        self._dispatcher.close()
        for process in self._workers:
            assert process.stdin is not None
            process.stdin.close()
            stop_process(process)


class Flower:
    """Flower, started as `sweep flower` starts it."""

    def __init__(self, redis_url: str, folder: Path) -> None:
        self._settings = Settings(home=folder, broker_url=redis_url)
        self._folder = folder
        self._port = free_port()
        self.url = f"http://127.0.0.1:{self._port}"

    def start(self) -> None:
        """Start it, and wait until it answers."""
        environ = {**os.environ, **flower_environ(self._settings)}
        with (self._folder / "flower.log").open("wb") as log:
            self._process = subprocess.Popen(flower_argv(self._settings, port=self._port), env=environ, cwd=self._folder, stdout=log, stderr=log)
        wait_until(self._answers, f"Flower answers: {self._folder / 'flower.log'}")

    def stop(self) -> None:
        """Stop it."""
        stop_process(self._process)

    def show(self, browser: "Chrome", page: str, *texts: str) -> str:
        """Open a page, again and again until every text is on it; all that is on it."""

        def shown() -> str:
            body: str = browser.find_element("tag name", "body").text
            return body

        def has_all() -> bool:
            browser.get(f"{self.url}{page}")
            browser.implicitly_wait(2)
            browser.find_elements("css selector", "tbody tr td + td")  # tables are filled by a script
            return all(text in shown() for text in texts)

        wait_until(has_all, f"{page} shows {texts}", interval_s=0.3)
        return shown()

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/healthcheck", timeout=5) as answer:  # noqa: S310  # our own URL
                return bool(answer.status == 200)
        except (URLError, ConnectionError):
            return False


@pytest.fixture
def flower(redis_url: str, tmp_path: Path) -> Iterator[Flower]:
    """A running Flower."""
    made = Flower(redis_url, tmp_path)
    made.start()
    yield made
    made.stop()


@pytest.fixture
def cluster(redis_url: str, tmp_path: Path) -> Iterator[Cluster]:
    """The workers to be watched."""
    home = tmp_path / "home"
    home.mkdir()
    made = Cluster(redis_url, home)
    yield made
    made.stop()


def states(page: str) -> dict[str, str]:
    """Task id and state of each row of the tasks page."""
    return dict(re.findall(r"^(\w+\.\d+) ([A-Z]+)\b", page, re.MULTILINE))


def test_flower_shows_workers_and_what_they_run(browser: "Chrome", flower: Flower, cluster: Cluster, tmp_path: Path) -> None:
    """Both workers, every running task under its run's id, and how each ended."""
    cluster.start()
    tasks = {run_id: cluster.run(run_id, worker) for run_id, worker in (("aaa111", "one"), ("bbb222", "two"), ("ccc333", "two"))}
    flower.show(browser, "/workers", *cluster.worker_names, "Online")
    browser.save_screenshot(str(tmp_path / "workers.png"))

    page = flower.show(browser, "/tasks", *tasks.values(), "adopted.2")
    assert states(page) == dict.fromkeys([*tasks.values(), "adopted.2"], "STARTED")
    browser.save_screenshot(str(tmp_path / "running.png"))

    cluster.finish("aaa111", "finished")
    cluster.finish("bbb222", "failed")
    page = flower.show(browser, "/tasks", "aaa111.1 SUCCESS", "bbb222.1 FAILURE")
    assert states(page) == {"aaa111.1": "SUCCESS", "bbb222.1": "FAILURE", "ccc333.1": "STARTED", "adopted.2": "STARTED"}
    browser.save_screenshot(str(tmp_path / "ended.png"))

    page = flower.show(browser, "/task/bbb222.1", "sweep.run", "FAILURE", "exit status 3")
    assert "Traceback" not in page
    flower.show(browser, "/task/aaa111.1", "SUCCESS", "('aaa111', 1)", "finished", "sweep@one")
    flower.show(browser, "/worker/sweep@one", "sweep@one", "WindowPool")
    browser.save_screenshot(str(tmp_path / "worker.png"))


def test_flower_is_a_window_only(flower: Flower, cluster: Cluster) -> None:
    """Nobody can revoke a run or stop a worker through it."""
    cluster.start()
    for path in ("/api/task/revoke/aaa111.1?terminate=true", "/api/worker/shutdown/sweep@one", "/api/worker/pool/shrink/sweep@one"):
        request = urllib.request.Request(f"{flower.url}{path}", method="POST", data=b"")  # noqa: S310  # our own URL
        with pytest.raises(HTTPError) as caught:
            urllib.request.urlopen(request, timeout=10)  # noqa: S310  # the same
        assert caught.value.code in {401, 403}
        caught.value.close()
