"""Attempt folders: each its own copy of the code, unpacked once, never a broken one."""

import os
import shutil
import threading
from pathlib import Path

import pytest

from tracking.snapshots import Snapshot, pack
from worker import folders as folders_module
from worker.errands import CalledOff
from worker.errors import CodeBroken
from worker.folders import AttemptFolders


@pytest.fixture
def snapshot(tmp_path: Path) -> Snapshot:
    """A small packed project."""
    project = tmp_path / "project"
    (project / "sub").mkdir(parents=True)
    (project / "train.py").write_text("print('hello')\n")
    (project / "sub" / "deep.txt").write_text("deep\n")
    (project / "link.py").symlink_to("train.py")
    return pack(project, max_bytes=1 << 20)


class Fetcher:
    """Hands out one archive, and counts how often."""

    def __init__(self, archive: Path) -> None:
        self.archive = archive
        self.n_calls = 0

    def __call__(self, digest: str, target: Path, called_off: threading.Event) -> None:
        """Bring the archive."""
        self.n_calls += 1
        shutil.copy(self.archive, target)


def test_folders_prepare_empty_folder_when_there_is_no_code(tmp_path: Path) -> None:
    """A run without a snapshot works in an empty folder; preparing again is no error."""
    folders = AttemptFolders(tmp_path / "home", Fetcher(tmp_path))
    folder, start = folders.prepare("r1", 2)
    assert (folder, start) == (tmp_path / "home" / "runs" / "r1" / "2", folder / "work")
    assert list(start.iterdir()) == []
    assert folders.prepare("r1", 2) == (folder, start)
    assert list(folders.attempts()) == [(("r1", 2), folder)]


def test_folders_give_each_attempt_its_own_copy(tmp_path: Path, snapshot: Snapshot) -> None:
    """The snapshot is fetched once; what one attempt changes, no other sees."""
    fetcher = Fetcher(snapshot.archive)
    folders = AttemptFolders(tmp_path / "home", fetcher)
    _, first = folders.prepare("r1", 1, digest=snapshot.digest)
    (first / "train.py").write_text("changed")
    _, second = folders.prepare("r2", 1, digest=snapshot.digest)
    assert (second / "train.py").read_text() == "print('hello')\n"
    assert (second / "link.py").is_symlink()
    _, again = AttemptFolders(tmp_path / "home", fetcher).prepare("r3", 1, digest=snapshot.digest, subfolder="sub")
    assert (again / "deep.txt").read_text() == "deep\n"
    assert fetcher.n_calls == 1


def test_folders_refuse_snapshot_of_another_digest(tmp_path: Path, snapshot: Snapshot) -> None:
    """What ran is known by its digest, so an archive that has another is not used, nor kept."""
    fetcher = Fetcher(snapshot.archive)
    folders = AttemptFolders(tmp_path / "home", fetcher)
    for _ in range(2):
        with pytest.raises(CodeBroken, match="another one"):
            folders.prepare("r1", 1, digest="0" * 64)
    assert fetcher.n_calls == 2


@pytest.mark.parametrize("subfolder", ["nowhere", "train.py", "..", "../../../.."])
def test_folders_refuse_subfolder_that_is_none(tmp_path: Path, snapshot: Snapshot, subfolder: str) -> None:
    """A command starts in a folder of the snapshot and nowhere else."""
    folders = AttemptFolders(tmp_path / "home", Fetcher(snapshot.archive))
    with pytest.raises(CodeBroken, match="no folder"):
        folders.prepare("r1", 1, digest=snapshot.digest, subfolder=subfolder)


def test_folders_recover_when_a_copy_was_interrupted(tmp_path: Path, snapshot: Snapshot) -> None:
    """Half a copy is thrown away and made anew."""
    folders = AttemptFolders(tmp_path / "home", Fetcher(snapshot.archive))
    part = folders.path("r1", 1) / "work.part"
    part.mkdir(parents=True)
    (part / "half").touch()
    _, start = folders.prepare("r1", 1, digest=snapshot.digest)
    assert sorted(path.name for path in start.iterdir()) == ["link.py", "sub", "train.py"]


def test_folders_remove_attempt_and_nothing_else(tmp_path: Path) -> None:
    """An attempt's folder goes, with what it made read-only; its run's folder goes with the last attempt."""
    folders = AttemptFolders(tmp_path / "home", Fetcher(tmp_path))
    _, first = folders.prepare("r1", 1)
    folders.prepare("r1", 2)
    (first / "kept" / "deeper").mkdir(parents=True)
    (first / "kept" / "deeper" / "file").touch()
    (first / "kept" / "deeper").chmod(0o500)
    (first / "kept").chmod(0o500)
    folders.remove("r1", 1)
    folders.remove("r1", 1)
    assert [key for key, _ in folders.attempts()] == [("r1", 2)]
    folders.remove("r1", 2)
    assert list(folders.runs.iterdir()) == []


def projects(tmp_path: Path, count: int) -> dict[str, Path]:
    """Small packed projects, by digest, in order."""
    packed = {}
    for number in range(count):
        project = tmp_path / f"project-{number}"
        project.mkdir()
        (project / "train.py").write_text(f"print({number})\n" + "#" * 1000)
        snapshot = pack(project, max_bytes=1 << 20)
        packed[snapshot.digest] = snapshot.archive
    return packed


def age(home: Path, digest: str, seconds: float) -> None:
    """Let a snapshot have been used some time ago."""
    folder = home / "snapshots" / digest
    then = folder.stat().st_mtime - seconds
    os.utime(folder, (then, then))


@pytest.mark.parametrize("limit", ["SNAPSHOTS_KEPT", "SNAPSHOTS_KEPT_BYTES"])
def test_folders_keep_the_snapshots_used_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str) -> None:
    """The cache is bounded in number and in size; using a snapshot makes it young again."""
    monkeypatch.setattr(folders_module, limit, {"SNAPSHOTS_KEPT": 2, "SNAPSHOTS_KEPT_BYTES": 2500}[limit])
    packed = projects(tmp_path, 3)
    first, second, third = packed
    home = tmp_path / "home"
    folders = AttemptFolders(home, lambda digest, target, _called_off: shutil.copy(packed[digest], target))
    folders.prepare("r1", 1, digest=first)
    folders.prepare("r2", 1, digest=second)
    age(home, first, 200)
    age(home, second, 100)
    folders.prepare("r3", 1, digest=first)
    folders.prepare("r4", 1, digest=third)
    assert {path.name for path in (home / "snapshots").iterdir()} == {first, third}


def test_folders_spare_a_snapshot_that_is_being_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However old and however many others there are."""
    monkeypatch.setattr(folders_module, "SNAPSHOTS_KEPT", 1)
    packed = projects(tmp_path, 2)
    first, second = packed
    home = tmp_path / "home"
    folders = AttemptFolders(home, lambda digest, target, _called_off: shutil.copy(packed[digest], target))
    with folders._unpacked(first, threading.Event()) as snapshot:
        age(home, first, 100)
        folders.prepare("r2", 1, digest=second)
        assert (snapshot / "train.py").exists()
    folders._evict()
    assert {path.name for path in (home / "snapshots").iterdir()} == {second}


def test_folders_stop_copying_when_called_off(tmp_path: Path, snapshot: Snapshot) -> None:
    """A cancelled attempt does not wait for the copy of a large project."""
    folders = AttemptFolders(tmp_path / "home", Fetcher(snapshot.archive))
    folders.prepare("r1", 1, digest=snapshot.digest)
    called_off = threading.Event()
    called_off.set()
    with pytest.raises(CalledOff):
        folders.prepare("r2", 1, digest=snapshot.digest, called_off=called_off)


def test_folders_remove_what_an_earlier_life_was_unpacking(tmp_path: Path) -> None:
    """Half a snapshot of a worker that was killed is not kept for ever."""
    left = tmp_path / "home" / "snapshots" / ".abc.123"
    left.mkdir(parents=True)
    AttemptFolders(tmp_path / "home", Fetcher(tmp_path))
    assert not left.exists()


def test_folders_are_listed_while_others_go(tmp_path: Path) -> None:
    """Runs end while a worker looks for what nobody owns."""
    folders = AttemptFolders(tmp_path, Fetcher(tmp_path / "none"))
    for run_id in ("a", "b", "c"):
        folders.path(run_id, 1).mkdir(parents=True)
    (folders.runs / "a" / "1x").mkdir()
    (folders.runs / "a.part").touch()
    seen = set()
    for key, _ in folders.attempts():
        seen.add(key)
        for other in {"a", "b", "c"} - {key[0]}:
            folders.remove(other, 1)
            shutil.rmtree(folders.runs / other, ignore_errors=True)
    assert len(seen) == 1
    assert seen <= {("a", 1), ("b", 1), ("c", 1)}
