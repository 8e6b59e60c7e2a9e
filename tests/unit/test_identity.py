"""Who a worker is: an id that stays with a folder which one process at a time may hold (D5)."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

from tests.support.needs import program, root
from tracking.settings import Settings
from worker.errors import WorkerError
from worker.identity import StateFolder, StateFolderTaken
from worker.main import WorkerOptions, run_worker


def test_identity_stays_from_one_start_to_the_next(tmp_path: Path) -> None:
    """The same name in the same home is the same worker, another name another."""
    first = StateFolder(tmp_path, "w1")
    other = StateFolder(tmp_path, "w2")
    first.close()
    again = StateFolder(tmp_path, "w1")
    assert again.worker_id == first.worker_id != other.worker_id
    assert again.path == tmp_path / "workers" / "w1"
    assert again.path.stat().st_mode & 0o077 == 0, "private"
    again.close()
    other.close()


def test_identity_is_refused_to_a_second_process(tmp_path: Path) -> None:
    """Two workers can't share an id; when the first is gone, however it went, the folder is free."""
    program = "import sys; from pathlib import Path; from worker.identity import StateFolder\n"
    program += "held = StateFolder(Path(sys.argv[1]), 'w1'); print(held.worker_id, flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", program, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]) as holder:
        assert holder.stdout is not None
        worker_id = holder.stdout.readline().strip()
        with pytest.raises(StateFolderTaken) as caught:
            StateFolder(tmp_path, "w1")
        assert "--name" in caught.value.hint
        holder.kill()
        holder.wait(30)
    folder = StateFolder(tmp_path, "w1")
    assert folder.worker_id == worker_id
    folder.close()


def test_identity_lock_is_not_inherited_by_programs_that_a_worker_starts(tmp_path: Path) -> None:
    """A trial that outlives its worker must not keep the worker's next start out."""
    folder = StateFolder(tmp_path, "w1")
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE, close_fds=False) as child:
        folder.close()
        StateFolder(tmp_path, "w1").close()
        assert child.poll() is None


def test_identity_knows_the_folders_of_others_that_are_down(tmp_path: Path) -> None:
    """Whoever runs looks after its own."""
    first, second = StateFolder(tmp_path, "w1"), StateFolder(tmp_path, "w2")
    (tmp_path / "workers" / "torn").mkdir()
    assert first.others() == [tmp_path / "workers" / "torn"]
    second.close()
    assert sorted(first.others()) == [tmp_path / "workers" / "torn", tmp_path / "workers" / "w2"]
    first.close()


def test_identity_of_the_home_is_the_same_for_all_its_workers(tmp_path: Path) -> None:
    """Whatever their names, started at once and started again; another home has another."""

    def home_id(name: str) -> str:
        folder = StateFolder(tmp_path / "one", name)
        folder.close()
        return folder.home_id

    with ThreadPoolExecutor(8) as pool:
        ids = set(pool.map(home_id, [f"w{number}" for number in range(8)]))
    assert ids == {home_id("w0")}
    other = StateFolder(tmp_path / "other", "w0")
    other.close()
    assert {other.home_id} != ids


@pytest.mark.parametrize("content", ["", "0" * 35, "\0" * 36, "\xff" * 36])
def test_identity_of_a_home_that_was_torn_is_made_anew(tmp_path: Path, content: str) -> None:
    """A crash may leave a file without its content; two homes of one id must not come of that."""
    ids = []
    for name in ("w1", "w2"):
        folder = StateFolder(tmp_path, name)
        folder.close()
        ids.append(folder.home_id)
        if name == "w1":
            (tmp_path / "workers" / "home.id").write_text(content, encoding="latin-1")
    again = StateFolder(tmp_path, "w1")
    again.close()
    assert ids[0] != ids[1] == again.home_id


def test_identity_of_a_worker_whose_disk_is_full_is_refused_with_the_name_of_its_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The system's own words are `No space left on device`, and not where."""
    root("to mount a small disk")
    monkeypatch.setattr("worker.main.on_signal", lambda _act: None)
    subprocess.run([program("mount"), "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(tmp_path)], check=True)
    try:
        with suppress(OSError):
            (tmp_path / "filler").write_bytes(bytes(1 << 17))
        with pytest.raises(WorkerError) as caught:
            run_worker(Settings(home=tmp_path, database_url="postgresql://nowhere", server="http://nowhere"), WorkerOptions(name="w1"))
    finally:
        subprocess.run([program("umount"), "--lazy", str(tmp_path)], check=True)
    assert str(tmp_path) in caught.value.message
    assert "No space left on device" in caught.value.message
    assert "SWEEP_HOME" in caught.value.hint


@pytest.mark.parametrize("name", ["", ".", "..", "../other", "a/b", "-x", "a b", "x" * 65, "\n", "a\n"])
def test_identity_refuses_names_that_lead_elsewhere(tmp_path: Path, name: str) -> None:
    """A name is the name of a folder below the home, and nothing else."""
    with pytest.raises(WorkerError):
        StateFolder(tmp_path, name)
    assert not (tmp_path / "workers").exists()


@pytest.mark.parametrize("content", [b"", b"{", b'{"worker_id": 3}', b"\xff"])
def test_identity_tells_of_a_damaged_file(tmp_path: Path, content: bytes) -> None:
    """It does not begin a new life by itself: the runs of the old one would be given up without a word."""
    folder = StateFolder(tmp_path, "w1")
    folder.close()
    (folder.path / "worker.json").write_bytes(content)
    with pytest.raises(WorkerError, match="is damaged") as caught:
        StateFolder(tmp_path, "w1")
    assert "new life" in caught.value.hint
    (folder.path / "worker.json").unlink()
    fresh = StateFolder(tmp_path, "w1")
    assert fresh.worker_id != folder.worker_id
    fresh.close()
