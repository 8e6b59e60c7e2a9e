"""Snapshots: what is packed and what is left out, the same bytes for the same project, and no way out when unpacked."""

import gzip
import hashlib
import io
import os
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tracking.artifacts import ArtifactStore
from tracking.errors import InvalidValue, TooLarge
from tracking.snapshot_store import SnapshotStore
from tracking.snapshots import Snapshot, pack, unpack

MAX_BYTES = 1 << 20


@pytest.fixture(autouse=True)
def _temporary(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Archives are packed below the test's own folder."""
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """An empty project folder."""
    folder = tmp_path / "project"
    folder.mkdir()
    return folder


def write(folder: Path, **files: str) -> None:
    """Write files; `__` in a name stands for a slash, `_dot_` for a leading dot."""
    for name, text in files.items():
        path = folder / name.replace("__", "/").replace("_dot_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def packed_names(folder: Path) -> set[str]:
    """What a snapshot of a folder holds."""
    snapshot = pack(folder, max_bytes=MAX_BYTES)
    with tarfile.open(snapshot.archive) as tar:
        names = tar.getnames()
    assert len(names) == snapshot.n_files
    return set(names)


def archive_of(tmp_path: Path, *members: tuple[tarfile.TarInfo, bytes]) -> Path:
    """An archive with just these entries."""
    path = tmp_path / "made.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        for header, content in members:
            header.size = len(content)
            tar.addfile(header, io.BytesIO(content))
    return path


def entry(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    """The header of one entry."""
    header = tarfile.TarInfo(name)
    header.type = kind
    header.linkname = link
    return header


def test_pack_and_unpack_round_trip(project: Path, tmp_path: Path) -> None:
    """Names, contents, executable bits and links arrive; digest, size and count are told."""
    write(project, train="print(1)", sub__deep="x", empty="")
    names = ["a b", "ünïcode", "line\nbreak", "semi;colon", "-dash", "x" * 120, "deep/" + "y" * 200]
    for name in names:
        (project / name).parent.mkdir(exist_ok=True)
        (project / name).write_text(name)
    (project / "train").chmod(0o755)
    (project / "link").symlink_to("sub/deep")
    (project / "sub" / "up").symlink_to("../train")
    snapshot = pack(project, max_bytes=MAX_BYTES)
    assert snapshot.digest == hashlib.sha256(snapshot.archive.read_bytes()).hexdigest()
    assert (snapshot.size_bytes, snapshot.n_files) == (snapshot.archive.stat().st_size, 3 + len(names) + 2)
    target = tmp_path / "target"
    unpack(snapshot.archive, target)
    assert {name: (target / name).read_text() for name in names} == {name: name for name in names}
    assert (os.access(target / "train", os.X_OK), os.access(target / "empty", os.X_OK)) == (True, False)
    assert (target / "link").readlink() == Path("sub/deep")
    assert (target / "sub" / "up").read_text() == "print(1)"


def test_pack_gives_the_same_digest_for_the_same_project(project: Path, tmp_path: Path) -> None:
    """Times, owners' rights, places and the order of creation do not count; contents and executable bits do."""
    write(project, a="1", b="2")
    other = tmp_path / "elsewhere"
    other.mkdir()
    write(other, b="2", a="1")
    os.utime(other / "a", (1, 1))
    (other / "b").chmod(0o600)
    first, same = pack(project, max_bytes=MAX_BYTES), pack(other, max_bytes=MAX_BYTES)
    assert (first.digest, first.archive.read_bytes()) == (same.digest, same.archive.read_bytes())
    (other / "a").chmod(0o755)
    assert pack(other, max_bytes=MAX_BYTES).digest != first.digest


def test_pack_takes_names_that_are_no_unicode(project: Path, tmp_path: Path) -> None:
    """A file name is bytes to Linux."""
    odd = os.fsencode(project) + b"/caf\xe9"
    with open(odd, "w", encoding="ascii") as file:  # noqa: PTH123  pathlib takes no bytes
        file.write("x")
    unpack(pack(project, max_bytes=MAX_BYTES).archive, tmp_path / "target")
    assert [os.fsencode(path.name) for path in (tmp_path / "target").iterdir()] == [b"caf\xe9"]


def test_pack_always_leaves_out_what_no_trial_needs(project: Path) -> None:
    """Version control, environments, caches and other trackers' folders, at any depth; not what only looks like them."""
    for name in (".git", ".venv", "__pycache__", "mlruns", "wandb"):
        (project / "pkg" / name).mkdir(parents=True)
        (project / "pkg" / name / "x").write_text("x")
    (project / "pkg" / "wandb_setup.py").write_text("x")
    (project / ".github").mkdir()
    (project / ".github" / "x").write_text("x")
    assert packed_names(project) == {"pkg/wandb_setup.py", ".github/x"}


IGNORES = {
    "*.log": {"b/keep.txt", "b/c/deep.txt", "data/keep", "data/x.bin"},
    "/b": {"a.log", "data/keep", "data/x.bin"},
    "data/": {"a.log", "b/keep.txt", "b/c/deep.txt"},
    "data/*\n!data/keep": {"a.log", "b/keep.txt", "b/c/deep.txt", "data/keep"},
    "data/**\n!data/keep": {"a.log", "b/keep.txt", "b/c/deep.txt", "data/keep"},
    "data/\n!data/keep": {"a.log", "b/keep.txt", "b/c/deep.txt"},
    "*\n!*/\n!*.txt": {"b/keep.txt", "b/c/deep.txt"},
    "**/c": {"a.log", "b/keep.txt", "data/keep", "data/x.bin"},
    "# *\n\\#x": {"a.log", "b/keep.txt", "b/c/deep.txt", "data/keep", "data/x.bin"},
}


@pytest.mark.parametrize("file_name", [".gitignore", ".sweepignore"])
@pytest.mark.parametrize("ignore, expected", IGNORES.items(), ids=IGNORES)
def test_pack_respects_ignore_files(project: Path, file_name: str, ignore: str, expected: set[str]) -> None:
    """Both kinds of file, as git reads them, repository or not."""
    write(project, b__c__deep="x")
    for name in ("a.log", "b/keep.txt", "b/c/deep.txt", "data/keep", "data/x.bin"):
        (project / name).parent.mkdir(exist_ok=True)
        (project / name).write_text("x")
    (project / "b" / "c" / "deep").unlink()
    (project / file_name).write_text(ignore)
    assert packed_names(project) - {file_name} == expected


def test_pack_agrees_with_git(project: Path) -> None:
    """On nested ignore files that overrule each other, git itself is the judge."""
    if shutil.which("git") is None:
        pytest.skip("git is not installed")
    for folder in ("", "a/", "a/b/", "build/", "build/a/"):
        for name in ("keep", "x.log", "y.py", "deep"):
            (project / folder).mkdir(parents=True, exist_ok=True)
            (project / folder / name).write_text("x")
    (project / ".gitignore").write_text("*.log\nbuild/*\n!build/keep\n/a/b/*.py\n**/deep\n")
    (project / "a" / ".gitignore").write_text("!x.log\nb/\n!*/\n/y.py\n")
    git = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1", "PATH": os.environ["PATH"]}
    subprocess.run(["git", "init", "--quiet", project], check=True, env=git)
    listed = subprocess.run(["git", "-C", project, "ls-files", "-z", "--others", "--exclude-standard"], check=True, env=git, capture_output=True, text=True)
    assert packed_names(project) == set(listed.stdout.split("\0")) - {""}


def test_pack_lets_sweepignore_bring_back_what_git_ignores(project: Path) -> None:
    """Data that is not in git may still be what a trial needs."""
    write(project, data="x", other="x", _dot_gitignore="data\nother\n", _dot_sweepignore="!data\n")
    assert packed_names(project) == {"data", ".gitignore", ".sweepignore"}


def test_pack_respects_ignore_files_of_the_repository_around(project: Path) -> None:
    """A project in a subfolder of a repository; patterns count from their own file, and .git/info/exclude counts too."""
    inner = project / "apps" / "one"
    write(inner, train="x", big="x", local="x", private="x")
    write(project, _dot_git__info__exclude="private\n", _dot_gitignore="/apps/one/big\n/train\n", apps___dot_gitignore="local\n")
    (project / "apps" / ".gitignore").write_text("local\n")
    assert packed_names(inner) == {"train"}


def test_pack_takes_a_folder_that_its_repository_ignores(project: Path) -> None:
    """Who asks for an ignored folder by name wants it."""
    write(project, _dot_git__HEAD="", _dot_gitignore="out/\n*.log\n", out__run="x", out__x="x")
    assert packed_names(project / "out") == {"run", "x"}


def test_pack_refuses_a_link_that_leads_out(project: Path, tmp_path: Path) -> None:
    """The error names the link and where it leads; an ignored one is left out."""
    (tmp_path / "data").mkdir()
    (project / "sub").mkdir()
    (project / "sub" / "data").symlink_to(tmp_path / "data")
    with pytest.raises(InvalidValue, match=r"sub/data leads out of the project, to .*data"):
        pack(project, max_bytes=MAX_BYTES)
    (project / ".sweepignore").write_text("sub/data\n")
    assert packed_names(project) == {".sweepignore"}


def test_pack_makes_inner_links_relative(project: Path, tmp_path: Path) -> None:
    """A link that reaches its target by way of the world outside reaches it inside."""
    write(project, a="1")
    (project / "absolute").symlink_to(project / "a")
    (project / "around").symlink_to("../project/a")
    unpack(pack(project, max_bytes=MAX_BYTES).archive, tmp_path / "target")
    assert [(tmp_path / "target" / name).readlink() for name in ("absolute", "around")] == [Path("a")] * 2


def test_pack_refuses_too_large_a_project_and_names_its_largest_files(project: Path) -> None:
    """Ten of them, largest first, so that people know what to ignore; and no archive is left behind."""
    for number in range(12):
        (project / f"f{number}").write_bytes(os.urandom(1000 + number))
    with pytest.raises(TooLarge) as refused:
        pack(project, max_bytes=5000)
    assert "f11 (1011 bytes), f10 (1010 bytes)" in refused.value.message
    assert "f2 (" in refused.value.message
    assert "f1 (" not in refused.value.message
    assert ".sweepignore" in refused.value.hint
    assert list((project.parent / "scratch").iterdir()) == []


def test_pack_leaves_out_what_is_no_file(project: Path) -> None:
    """Pipes and empty folders can't be packed, and git does not keep them either."""
    write(project, a="1")
    os.mkfifo(project / "pipe")
    (project / "empty").mkdir()
    assert packed_names(project) == {"a"}


def test_pack_refuses_a_folder_that_is_not_there(tmp_path: Path) -> None:
    """The error names it."""
    with pytest.raises(InvalidValue, match="absent is not a folder"):
        pack(tmp_path / "absent", max_bytes=MAX_BYTES)


@pytest.mark.parametrize(
    "header",
    [
        entry("../out"),
        entry("a/../../out"),
        entry("/tmp/out"),
        entry("."),
        entry("link", tarfile.SYMTYPE, "/etc/passwd"),
        entry("link", tarfile.SYMTYPE, "../out"),
        entry("a/link", tarfile.SYMTYPE, "b/../../../out"),
        entry("hard", tarfile.LNKTYPE, "a"),
        entry("device", tarfile.CHRTYPE),
        entry("pipe", tarfile.FIFOTYPE),
    ],
    ids=lambda header: f"{header.name}-{header.linkname}",
)
def test_unpack_refuses_what_leads_out(tmp_path: Path, header: tarfile.TarInfo) -> None:
    """Names and links that leave the folder, devices and hard links; and nothing at all is unpacked."""
    archive = archive_of(tmp_path, (entry("fine"), b"x"), (header, b""))
    with pytest.raises(InvalidValue, match="snapshot's"):
        unpack(archive, tmp_path / "inner" / "target")
    assert list((tmp_path / "inner").iterdir()) == []


def test_unpack_refuses_links_that_lead_out_together(tmp_path: Path) -> None:
    """Each link looks harmless; one after the other they leave the folder."""
    archive = archive_of(tmp_path, (entry("a/up", tarfile.SYMTYPE, ".."), b""), (entry("out", tarfile.SYMTYPE, "a/up/.."), b""))
    with pytest.raises(InvalidValue, match="leads out"):
        unpack(archive, tmp_path / "target")


@pytest.mark.parametrize("second", [entry("d/x"), entry("d")], ids=["through", "over"])
def test_unpack_writes_nothing_through_a_link(tmp_path: Path, second: tarfile.TarInfo) -> None:
    """A link and a file that would go through it or over it: refused, wherever the link leads."""
    outside = tmp_path / "outside"
    outside.mkdir()
    archive = archive_of(tmp_path, (entry("d", tarfile.SYMTYPE, str(outside)), b""), (second, b"x"))
    with pytest.raises(InvalidValue):
        unpack(archive, tmp_path / "target")
    assert list(outside.iterdir()) == []


def test_unpack_refuses_too_much(tmp_path: Path) -> None:
    """A small archive that would fill the disk."""
    archive = archive_of(tmp_path, (entry("zeros"), bytes(1 << 20)))
    assert archive.stat().st_size < 10_000
    with pytest.raises(TooLarge, match="100000 bytes"):
        unpack(archive, tmp_path / "target", max_bytes=100_000)
    assert not (tmp_path / "target").exists()


@pytest.mark.parametrize(
    "content", [b"", b"no archive", gzip.compress(b"no tar" * 200), gzip.compress(bytes(10240))[:15]], ids=["empty", "text", "gzip", "cut"]
)
def test_unpack_refuses_what_is_no_snapshot(tmp_path: Path, content: bytes) -> None:
    """Broken bytes are named as such, and leave nothing."""
    archive = tmp_path / "broken.tar.gz"
    archive.write_bytes(content)
    with pytest.raises(InvalidValue, match="is not a snapshot"):
        unpack(archive, tmp_path / "inner" / "target")
    assert list((tmp_path / "inner").iterdir()) == []


def test_unpack_refuses_a_target_that_holds_something(project: Path, tmp_path: Path) -> None:
    """Two projects never mix."""
    write(project, a="1")
    target = tmp_path / "target"
    target.mkdir()
    (target / "mine").write_text("x")
    with pytest.raises(OSError, match="not empty"):
        unpack(pack(project, max_bytes=MAX_BYTES).archive, target)
    assert [path.name for path in target.iterdir()] == ["mine"]


@pytest.fixture
def snapshot(project: Path) -> Snapshot:
    """A small packed project."""
    write(project, a="1")
    return pack(project, max_bytes=MAX_BYTES)


def test_store_keeps_an_archive_under_its_digest(snapshot: Snapshot, tmp_path: Path) -> None:
    """From a file or from pieces, and once more without harm."""
    store = SnapshotStore(ArtifactStore(tmp_path / "store"))
    assert not store.has(snapshot.digest)
    with snapshot.archive.open("rb") as file:
        assert store.put(snapshot.digest, file) == snapshot.size_bytes
    content = snapshot.archive.read_bytes()
    assert store.put(snapshot.digest, iter([content[:10], content[10:]])) == snapshot.size_bytes
    assert store.has(snapshot.digest)
    with store.open(snapshot.digest).content as kept:
        assert kept.read() == content


def test_store_refuses_bytes_of_another_digest(snapshot: Snapshot, tmp_path: Path) -> None:
    """What is stored under a digest is what the digest says; nothing stays of what was refused."""
    store = SnapshotStore(ArtifactStore(tmp_path / "store"))
    with pytest.raises(InvalidValue, match="have digest"):
        store.put(snapshot.digest, [b"something else"])
    with pytest.raises(TooLarge, match="over 10 bytes"):
        store.put(snapshot.digest, [b"x" * 11], max_bytes=10)
    assert not any(path.is_file() for path in (tmp_path / "store").rglob("*"))


def test_store_keeps_nothing_when_the_sender_breaks_off(snapshot: Snapshot, tmp_path: Path) -> None:
    """Half an archive is none."""

    def pieces() -> Iterator[bytes]:
        yield b"half"
        raise ConnectionResetError

    store = SnapshotStore(ArtifactStore(tmp_path / "store"))
    with pytest.raises(ConnectionResetError):
        store.put(snapshot.digest, pieces())
    assert not any(path.is_file() for path in (tmp_path / "store").rglob("*"))


@pytest.mark.parametrize("digest", ["", "../x", "A" * 64, "g" * 64, "a" * 63, "a" * 64 + "\n"])
def test_store_takes_only_digests_for_names(tmp_path: Path, digest: str) -> None:
    """A digest becomes a file name, so it is nothing but hex digits."""
    with pytest.raises(InvalidValue, match="no SHA-256"):
        SnapshotStore(ArtifactStore(tmp_path)).has(digest)
