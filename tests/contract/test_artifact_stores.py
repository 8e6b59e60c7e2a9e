"""What the server relies on, of every place for artifacts: the same cases over a folder, S3, and the way of all others."""

import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.s3_server import CREDENTIALS, S3Server, s3_server
from tracking.artifacts import ArtifactInfo, ArtifactStore
from tracking.errors import ArtifactsAway, InvalidValue, NotFound, TooLarge

MIB = 1024 * 1024
MAX_BYTES = 64 * MIB


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """S3 on loopback."""
    with pytest.MonkeyPatch.context() as environ, s3_server(tmp_path_factory.mktemp("s3")) as running:
        for name, value in CREDENTIALS.items():
            environ.setenv(name, value)
        yield running


@dataclass(frozen=True)
class Bench:
    """One kind of store under test, and how many uploads have left something in it."""

    artifacts: ArtifactStore
    n_halves: Callable[[], int]
    endpoint_url: str = ""

    def another(self) -> ArtifactStore:
        """The same place, as another server has it."""
        return ArtifactStore(self.artifacts.root, endpoint_url=self.endpoint_url)


@pytest.fixture(params=["folder", "s3", "memory"])
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Bench:
    """A new, empty store."""
    match request.param:
        case "folder":
            return Bench(ArtifactStore(tmp_path / "store"), lambda: sum(path.is_file() for path in tmp_path.glob("store/.uploads/*")))
        case "s3":
            server: S3Server = request.getfixturevalue("server")
            bucket = server.new_bucket()
            return Bench(ArtifactStore(f"s3://{bucket}/some/prefix", endpoint_url=server.url), lambda: server.unfinished(bucket), server.url)
        case _:
            artifacts = ArtifactStore(f"memory://{tmp_path}")
            return Bench(artifacts, lambda: len(artifacts._files.find(f"{tmp_path}/.uploads")))


@pytest.fixture
def artifacts(bench: Bench) -> ArtifactStore:
    """The store alone."""
    return bench.artifacts


def put(artifacts: ArtifactStore, path: str, content: bytes) -> None:
    """Store one file, in pieces."""
    with artifacts.upload(path, max_bytes=MAX_BYTES) as upload:
        for start in range(0, len(content), MIB):
            upload.write(content[start : start + MIB])
        upload.commit()


def content_of(artifacts: ArtifactStore, path: str) -> bytes:
    """Read one file."""
    stored = artifacts.open(path)
    with stored.content as file:
        content = file.read()
    assert len(content) == stored.size_bytes
    return content


def test_store_lists_and_reads_what_was_put(artifacts: ArtifactStore) -> None:
    """Folders come without a size; a file or nothing lists as empty."""
    put(artifacts, "1/r/artifacts/b/c.txt", b"hello")
    put(artifacts, "1/r/artifacts/a.txt", b"")
    assert artifacts.list("1/r/artifacts") == (ArtifactInfo("a.txt", False, 0), ArtifactInfo("b", True, None))
    assert artifacts.list("1/r/artifacts/b") == (ArtifactInfo("c.txt", False, 5),)
    assert artifacts.list("1/r/artifacts/a.txt") == artifacts.list("absent") == ()
    assert content_of(artifacts, "1/r/artifacts/b/c.txt") == b"hello"


def test_store_replaces_a_file(artifacts: ArtifactStore) -> None:
    """The later one is there."""
    put(artifacts, "a", b"first")
    put(artifacts, "a", b"second")
    assert content_of(artifacts, "a") == b"second"


@pytest.mark.parametrize("path", ["absent", "folder/a/below"])
def test_store_answers_not_found_when_there_is_no_file(artifacts: ArtifactStore, path: str) -> None:
    """What would lie below a file is no file."""
    put(artifacts, "folder/a", b"x")
    with pytest.raises(NotFound):
        artifacts.open(path)


def test_store_refuses_to_read_a_folder(artifacts: ArtifactStore) -> None:
    """It is something else than nothing."""
    put(artifacts, "folder/a", b"x")
    with pytest.raises(InvalidValue, match="directory"):
        artifacts.open("folder")


def test_store_deletes_files_and_folders(artifacts: ArtifactStore) -> None:
    """Once or twice; but never everything."""
    put(artifacts, "f/a", b"x")
    put(artifacts, "f/b/c", b"x")
    artifacts.delete("f/a")
    assert [info.path for info in artifacts.list("f")] == ["b"]
    artifacts.delete("f")
    artifacts.delete("f")
    assert artifacts.list("f") == ()
    with pytest.raises(InvalidValue):
        artifacts.delete("")


def test_store_shows_what_another_server_has_written(bench: Bench) -> None:
    """At once: nothing that was listed a moment ago is remembered."""
    another = bench.another()
    put(bench.artifacts, "f/a", b"x")
    assert another.list("f") == (ArtifactInfo("a", False, 1),)
    put(bench.artifacts, "f/b", b"x")
    put(bench.artifacts, "f/a", b"longer")
    assert another.list("f") == (ArtifactInfo("a", False, 6), ArtifactInfo("b", False, 1))
    bench.artifacts.delete("f")
    assert another.list("f") == ()
    assert not another.has("f/a")
    put(another, "f", b"a file by now")


def test_store_keeps_files_of_many_pieces(artifacts: ArtifactStore) -> None:
    """Also what is larger than what S3 is sent at once, and reads from the middle."""
    content = os.urandom(MIB) * 17 + b"end"
    put(artifacts, "1/r/artifacts/a", content)
    assert content_of(artifacts, "1/r/artifacts/a") == content
    with artifacts.open("1/r/artifacts/a").content as file:
        file.seek(16 * MIB + 1)
        assert file.read(MIB) == content[16 * MIB + 1 : 17 * MIB + 1]


def test_store_tells_sizes(artifacts: ArtifactStore) -> None:
    """Of a file, of all that a folder holds, and of nothing."""
    put(artifacts, "f/a", b"xy")
    put(artifacts, "f/b/c", b"z")
    assert [artifacts.size_bytes(path) for path in ("f/a", "f", "absent")] == [2, 3, None]
    assert [artifacts.has(path) for path in ("f/a", "f", "absent")] == [True, False, False]


def test_store_tells_versions_apart(artifacts: ArtifactStore) -> None:
    """Whoever goes on with a download sees that it is another file by now."""
    versions = []
    for content in (b"first", b"other"):
        put(artifacts, "a", content)
        stored = artifacts.open("a")
        stored.content.close()
        versions.append(stored.version)
    assert versions[0] != versions[1]


NAMES = ["a b", "ü é", "a+b&c=d", "100%", "50%25", "~x", ".hidden", "a'b", 'a"b', "a*", "*", "[ab]", "{a}", "a,b", "a:b", "$x", "日本"]


def test_store_takes_names_as_they_are(artifacts: ArtifactStore) -> None:
    """What is a sign to a shell, to a URL or to fsspec is a letter here: written, listed, read and removed one by one."""
    names = sorted([*NAMES, "a", "ab"])
    for name in names:
        put(artifacts, f"f/{name}", name.encode())
    for number, name in enumerate(names):
        assert [info.path for info in artifacts.list("f")] == names[number:]
        assert content_of(artifacts, f"f/{name}") == name.encode()
        artifacts.delete(f"f/{name}")
    assert artifacts.list("f") == ()


def test_store_deletes_just_the_folder_that_is_named(artifacts: ArtifactStore) -> None:
    """Not what would fit its name as a pattern, nor what begins like it."""
    for path in ("f/a*/x", "f/a*/deep/y", "f/ab/x", "f/a*b"):
        put(artifacts, path, b"x")
    artifacts.delete("f/a*")
    assert (artifacts.size_bytes("f/ab"), artifacts.size_bytes("f/a*b"), artifacts.has("f/a*/x"), artifacts.has("f/a*/deep/y")) == (1, 1, False, False)


@pytest.mark.parametrize("n_bytes", [10, 20 * MIB])
def test_upload_leaves_nothing_when_it_is_not_committed(bench: Bench, n_bytes: int) -> None:
    """An upload that breaks off is neither under its name nor anywhere else."""
    put(bench.artifacts, "f/a", b"before")
    with bench.artifacts.upload("f/a", max_bytes=MAX_BYTES) as upload, bench.artifacts.upload("f/b", max_bytes=MAX_BYTES) as another:
        for start in range(0, n_bytes, MIB):
            for each in (upload, another):
                each.write(b"x" * min(MIB, n_bytes - start))
    assert content_of(bench.artifacts, "f/a") == b"before"
    assert bench.artifacts.list("f") == (ArtifactInfo("a", False, 6),)
    assert bench.n_halves() == 0


def test_upload_is_refused_when_it_is_too_large(bench: Bench) -> None:
    """At the first piece over the limit, and it leaves nothing."""
    with bench.artifacts.upload("a", max_bytes=1000) as upload:
        upload.write(b"x" * 1000)
        with pytest.raises(TooLarge, match="1000 bytes"):
            upload.write(b"x")
    assert bench.artifacts.list("") == ()
    assert bench.n_halves() == 0


def test_upload_appears_whole_when_two_are_of_one_path(bench: Bench) -> None:
    """One of them, not some of each; readers see nothing of the other."""
    contents = [letter * 10 * MIB for letter in (b"a", b"b")]
    both_sent = threading.Barrier(2)

    def send(content: bytes) -> None:
        with bench.artifacts.upload("f/a", max_bytes=MAX_BYTES) as upload:
            for start in range(0, len(content), MIB):
                upload.write(content[start : start + MIB])
            both_sent.wait(60)
            upload.commit()

    senders = [threading.Thread(target=send, args=(content,)) for content in contents]
    for sender in senders:
        sender.start()
    for sender in senders:
        sender.join(60)
    assert content_of(bench.artifacts, "f/a") in contents
    assert bench.n_halves() == 0


def test_store_tidies_what_a_killed_server_left(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Old halves go; one that may be on its way stays. Ending it afterwards is no error."""
    put(bench.artifacts, "f/a", b"whole")
    with bench.artifacts.upload("f/b", max_bytes=MAX_BYTES) as upload:
        upload.write(b"x" * 9 * MIB)
        bench.artifacts.tidy()
        assert bench.n_halves() == 1
        for module in ("room", "s3", "uploads"):
            monkeypatch.setattr(f"tracking.{module}.ARRIVES_WITHIN_S", -60)
        bench.artifacts.tidy()
        assert bench.n_halves() == 0
    assert bench.artifacts.list("f") == (ArtifactInfo("a", False, 5),)


def test_store_tidies_its_own_part_of_a_bucket_only(server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """What others send beside it is theirs."""
    monkeypatch.setattr("tracking.s3.ARRIVES_WITHIN_S", -60)
    bucket = server.new_bucket()
    ours, theirs = (ArtifactStore(f"s3://{bucket}/{prefix}", endpoint_url=server.url) for prefix in ("team", "team2"))
    for each in (ours, theirs):
        each.begin_parts("1/r/artifacts/a", 1)
    ours.tidy()
    assert server.unfinished(bucket) == 1


def test_store_tells_what_is_wrong_with_it(server: S3Server) -> None:
    """A bucket that is not there, a store that does not answer; neither keeps a server from starting."""
    lost = ArtifactStore("s3://no-such-bucket/x", endpoint_url=server.url)
    assert "is not there" in lost.problem()
    lost.tidy()
    away = ArtifactStore("s3://bucket/x", endpoint_url="http://127.0.0.1:9")
    assert "can't be reached" in away.problem()
    with pytest.raises(ArtifactsAway):
        away.open("a")
    away.tidy()


@pytest.mark.parametrize("path", ["folder", "folder/a/below", "folder/a/far/below", "1/r/artifacts/a/below", "", ".uploads/x", "../x"])
def test_upload_is_refused_when_its_path_is_taken_or_reserved(artifacts: ArtifactStore, path: str) -> None:
    """A folder stays a folder and a file a file; where uploads wait is nobody's."""
    put(artifacts, "folder/a", b"x")
    put(artifacts, "1/r/artifacts/a", b"x")
    with pytest.raises(InvalidValue):
        artifacts.upload(path, max_bytes=MAX_BYTES)
    assert content_of(artifacts, "folder/a") == b"x"


def test_store_is_well(artifacts: ArtifactStore) -> None:
    """What `sweep doctor` asks; and tidying up leaves what is whole."""
    put(artifacts, "f/a", b"x")
    artifacts.tidy()
    assert artifacts.problem() == ""
    assert content_of(artifacts, "f/a") == b"x"
