"""Attempt folders: each its own copy of the code, unpacked once, never a broken one."""

import errno
import os
import shutil
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tracking.snapshots import Snapshot, pack
from worker import folders as folders_module
from worker.errands import CalledOff
from worker.errors import CodeBroken
from worker.folders import AttemptFolders, attempt_folders, file_size, lack_of_room, read_file, take_back


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


@pytest.mark.parametrize("name", ["r/1", "r"])
def test_folders_make_way_for_an_attempt_when_a_file_lies_in_its_place(tmp_path: Path, name: str) -> None:
    """As a trial may have left it to the next attempt of its run."""
    folders = AttemptFolders(tmp_path, _nothing)
    (folders.runs / name).parent.mkdir(exist_ok=True)
    (folders.runs / name).write_text("hello")
    folder, start = folders.prepare("r", 1)
    assert start.is_dir()
    assert folder == folders.runs / "r" / "1"


@pytest.mark.parametrize("kind", ["file", "link"])
def test_folders_remove_what_a_trial_has_put_in_the_place_of_its_folder(tmp_path: Path, kind: str) -> None:
    """A file goes like a folder; a link goes alone, whatever it leads to is not ours."""
    folders = AttemptFolders(tmp_path, _nothing)
    folder, elsewhere = folders.path("r", 1), tmp_path / "elsewhere"
    elsewhere.mkdir()
    folder.parent.mkdir()
    if kind == "link":
        folder.symlink_to(elsewhere)
    else:
        folder.write_text("hello")
    folders.remove("r", 1)
    assert not folder.parent.exists()
    assert elsewhere.exists()


def test_folders_are_listed_though_one_can_not_be_looked_into(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """It is told, and hides nothing else."""
    for name in "abc":
        (tmp_path / name / "1").mkdir(parents=True)
    real = folders_module._entries

    def entries(folder: Path) -> list[Path]:
        if folder.name == "b":
            raise OSError(errno.EIO, "Input/output error")
        return real(folder)

    monkeypatch.setattr(folders_module, "_entries", entries)
    assert sorted(key for key, _ in attempt_folders(tmp_path)) == [("a", 1), ("c", 1)]
    assert "run b" in caplog.text


def test_folders_are_taken_back_with_the_files_in_them(tmp_path: Path) -> None:
    """A trial that locks its folders keeps neither an end nor an output from being read."""
    folder = tmp_path / "runs" / "r" / "1"
    (folder / "work").mkdir(parents=True)
    paths = [folder / "stdout", folder / "work", folder, folder.parent, folder.parent.parent]
    paths[0].write_text("x")
    for path in paths:
        path.chmod(0)
    take_back(folder)
    assert {stat.S_IMODE(path.stat().st_mode) for path in paths[1:]} == {0o700}
    assert stat.S_IMODE(paths[0].stat().st_mode) == 0o600


def test_folders_that_a_trial_has_locked_are_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their owner gives himself the right to look, which root need not."""
    (tmp_path / "r" / "1").mkdir(parents=True)
    (tmp_path / "r").chmod(0)
    real = Path.iterdir

    def iterdir(path: Path) -> Iterator[Path]:
        if not path.stat().st_mode & stat.S_IRUSR:
            raise PermissionError(errno.EACCES, "Permission denied")
        return real(path)

    monkeypatch.setattr(Path, "iterdir", iterdir)
    assert [key for key, _ in attempt_folders(tmp_path)] == [("r", 1)]


def test_folders_read_no_file_but_a_plain_one(tmp_path: Path) -> None:
    """Whatever else lies there is no file of ours, and nobody waits for a pipe; what can't be read just now is not taken for empty."""
    plain, pipe, loop, folder = (tmp_path / name for name in ("plain", "pipe", "loop", "folder"))
    plain.write_bytes(b"text")
    os.mkfifo(pipe)
    loop.symlink_to(loop)
    folder.mkdir()
    others = [pipe, loop, folder, plain / "below", tmp_path / "none"]
    assert (read_file(plain), file_size(plain)) == (b"text", 4)
    assert [read_file(path) for path in others] == [None] * 5
    assert [file_size(path) for path in others] == [0] * 5


def test_folders_lack_no_room_when_they_are_gone(tmp_path: Path) -> None:
    """Where nothing can be written for another reason, the disk is not full; a file in the place of the folder is such a reason."""
    (tmp_path / "file").write_text("hello")
    assert lack_of_room(tmp_path / "file") is None
    assert lack_of_room(tmp_path / "none") is None


def _nothing(_digest: str, _target: Path, _called_off: threading.Event) -> None:
    raise AssertionError("nothing is to be fetched")
