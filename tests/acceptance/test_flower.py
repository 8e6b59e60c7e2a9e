"""Flower in a real browser, over Redis and a cluster of real processes: which workers there are, what they run under which id, what has ended."""

import re
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.error import HTTPError

import pytest

from tests.support.cluster import Cluster, stopped_afterwards
from tests.support.projects import SHELL, write_project
from tests.support.services import RedisServer, wait_until

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

WORKERS: Final = ("one", "two")
# Ends when a file with its exit status appears.
PROGRAM: Final = 'until [ -e "$MEETING/$SWEEP_TRIAL" ]; do sleep 0.05; done\nexit "$(cat "$MEETING/$SWEEP_TRIAL")"\n'


class Flower:
    """Flower's pages in a browser."""

    def __init__(self, url: str, browser: "Chrome") -> None:
        self.url = url
        self._browser = browser

    def show(self, page: str, *texts: str) -> str:
        """Open a page, again and again until every text is on it; all that is on it."""
        shown = ""

        def shows_all() -> bool:
            nonlocal shown
            shown = self._open(page)
            return all(text in shown for text in texts)

        wait_until(shows_all, f"{page} shows {texts}", interval_s=0.3)
        return shown

    def save_picture(self, file: Path) -> None:
        """Of what is shown just now."""
        self._browser.save_screenshot(str(file))

    def _open(self, page: str) -> str:
        self._browser.get(f"{self.url}{page}")
        if not page.startswith("/task/"):
            self._browser.implicitly_wait(2)
            self._browser.find_elements("css selector", "tbody tr td + td")  # lists are filled by a script
        text: str = self._browser.find_element("tag name", "body").text
        return text


@pytest.fixture(scope="module")
def cluster(module_database_url: str, redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Two workers of two slots."""
    assert redis_server.command(b"FLUSHALL").startswith(b"+OK")
    with stopped_afterwards(Cluster(tmp_path_factory.mktemp("flower"), module_database_url, redis_server.url)) as made:
        yield made.start(workers=WORKERS, worker_arguments=("--slots", "2"))


@pytest.fixture(scope="module")
def flower(cluster: Cluster, browser: "Chrome") -> Flower:
    """As `sweep flower` starts it."""
    return Flower(cluster.start_flower(), browser)


def states(page: str) -> dict[str, str]:
    """Task id and state of each row of the tasks page."""
    return dict(re.findall(r"^(\w+\.\d+) ([A-Z]+)\b", page, re.MULTILINE))


def test_flower_shows_workers_and_what_they_run(cluster: Cluster, flower: Flower, tmp_path: Path) -> None:
    """Both workers, every running trial under its run's id, and how each ended: also of those that a restarted worker took up."""
    flower.show("/workers", *(f"sweep@{name}" for name in WORKERS), "Online")
    flower.save_picture(tmp_path / "workers.png")

    file = write_project(tmp_path / "project", PROGRAM, command=SHELL, env={"MEETING": str(tmp_path)}, limits={"trials": 4})
    sweep_id = cluster.submit(file)
    trials = cluster.wait_for_running(sweep_id, 4)
    attempts = cluster.query("SELECT * FROM audit_attempts WHERE sweep_id = %(id)s ORDER BY trial_number", id=sweep_id)
    tasks = [f"{attempt.run_id}.{attempt.placement}" for attempt in attempts]
    assert [trial["run_id"] for trial in trials] == [attempt.run_id for attempt in attempts]
    assert states(flower.show("/tasks", *tasks)) == dict.fromkeys(tasks, "STARTED")
    flower.save_picture(tmp_path / "running.png")

    finish(tmp_path, 0, 0)
    finish(tmp_path, 1, 3)
    page = flower.show("/tasks", f"{tasks[0]} SUCCESS", f"{tasks[1]} FAILURE")
    assert states(page) == dict(zip(tasks, ("SUCCESS", "FAILURE", "STARTED", "STARTED"), strict=True))
    flower.save_picture(tmp_path / "ended.png")
    page = flower.show(f"/task/{tasks[1]}", "sweep.run", "FAILURE", "exit status 3")
    assert "Traceback" not in page
    flower.show(f"/task/{tasks[0]}", "SUCCESS", repr((attempts[0].run_id, attempts[0].placement)), "completed", f"sweep@{attempts[0].worker_name}")
    flower.show(f"/worker/sweep@{WORKERS[0]}", f"sweep@{WORKERS[0]}", "WindowPool")
    flower.save_picture(tmp_path / "worker.png")

    for name in WORKERS:
        cluster.role(name).kill()
        cluster.start_worker(name, "--slots", "2", is_awaited=False)
    cluster.wait_for_workers(*WORKERS)
    finish(tmp_path, 2, 0)
    finish(tmp_path, 3, 4)
    cluster.wait_for_end(sweep_id)
    flower.show("/tasks", f"{tasks[2]} SUCCESS", f"{tasks[3]} FAILURE")
    flower.show(f"/task/{tasks[3]}", "FAILURE", "exit status 4")


def finish(meeting: Path, number: int, exit_status: int) -> None:
    """End a trial."""
    draft = meeting / f"{number}.draft"
    draft.write_text(str(exit_status))
    draft.rename(meeting / str(number))


def test_flower_is_a_window_only(flower: Flower) -> None:
    """Nobody can revoke a run or stop a worker through it."""
    for path in ("/api/task/revoke/aaa111.1?terminate=true", "/api/worker/shutdown/sweep@one", "/api/worker/pool/shrink/sweep@one"):
        request = urllib.request.Request(f"{flower.url}{path}", method="POST", data=b"")  # noqa: S310  # our own URL
        with pytest.raises(HTTPError) as caught:
            urllib.request.urlopen(request, timeout=10)  # noqa: S310  # the same
        assert caught.value.code in {401, 403}
        caught.value.close()
