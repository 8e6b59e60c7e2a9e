"""Artifacts: which paths are taken, and files that appear whole or not at all."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracking.artifacts import ArtifactInfo, ArtifactStore, Location, parse_location, run_uri, safe_path
from tracking.errors import InvalidValue, NoRoom, NotFound, TooLarge

MAX_BYTES = 1000


@pytest.fixture(params=["folder", "memory"])
def artifacts(request: pytest.FixtureRequest, tmp_path: Path) -> ArtifactStore:
    """A store in a folder, and one of fsspec's others."""
    return ArtifactStore(tmp_path / "store" if request.param == "folder" else f"memory://{tmp_path}")


@pytest.fixture
def local(tmp_path: Path) -> ArtifactStore:
    """A store in a folder."""
    return ArtifactStore(tmp_path / "store")


def put(artifacts: ArtifactStore, path: str, content: bytes) -> None:
    """Store one file."""
    with artifacts.upload(path, max_bytes=MAX_BYTES) as upload:
        upload.write(content)
        upload.commit()


def content_of(artifacts: ArtifactStore, path: str) -> bytes:
    """Read one file."""
    file, size_bytes = artifacts.open(path)
    with file:
        content = file.read()
    assert len(content) == size_bytes
    return content


@pytest.mark.parametrize(
    "text, expected",
    [
        ("a/b.txt", "a/b.txt"),
        ("a//b/./c/", "a/b/c"),
        ("", ""),
        (".", ""),
        ("a b/ü.txt", "a b/ü.txt"),
        ("100%.txt", "100%.txt"),
        ("a%20b", "a%20b"),
        ("...", "..."),
        ("a..b", "a..b"),
    ],
)
def test_safe_path_takes_names_as_they_are(text: str, expected: str) -> None:
    """Odd names are fine as long as they stay inside; decoding is for the check only."""
    assert safe_path(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "..",
        "a/../../b",
        "/etc/passwd",
        "//host/share",
        "C:/x",
        "c:x",
        "a\\b",
        "..\\x",
        "a\0b",
        "a\nb",
        "a\x7f",
        "a#b",
        "a;b",
        "a?b",
        "%2e%2e/x",
        "%252e%252e%252fx",
        "a%2f..%2f..%2fb",
        "%2fetc",
        "%5c%5chost",
        "a%00",
        "a%2523b",
        "%43%3a/x",
        "%25252525252525252525252541",
        "x" * 256,
        "/".join(["x" * 200] * 6),
        "a\ud800",
    ],
)
def test_safe_path_refuses_what_could_leave_the_folder(text: str) -> None:
    """Absolute, upwards, with a drive, with characters that other stores read otherwise, at any depth of encoding."""
    with pytest.raises(InvalidValue, match="artifact path"):
        safe_path(text)


@given(st.text(st.sampled_from("ab./%25eEfF\\0"), max_size=20))
def test_safe_path_stays_below_its_folder(text: str) -> None:
    """Whatever is taken, joined to a folder, is in the folder."""
    try:
        path = safe_path(text)
    except InvalidValue:
        return
    assert not path.startswith("/")
    assert ".." not in path.split("/")


def test_location_is_told_only_below_a_runs_folder() -> None:
    """Experiment, run and the path below; anything else belongs to no run."""
    assert parse_location("1/abc/artifacts/a/b") == Location("1", "abc", "a/b")
    assert parse_location("1/abc/artifacts") == Location("1", "abc", "")
    assert [parse_location(path) for path in ("1/abc", "1/abc/other/a", "abc/artifacts/a", "")] == [None] * 4


def test_run_uri_is_one_that_clients_resolve_by_their_tracking_uri() -> None:
    """No host: the client's own server."""
    assert run_uri("1", "abc") == "mlflow-artifacts:/1/abc/artifacts"


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


@pytest.mark.parametrize("path", ["absent", "folder", "folder/a/below"])
def test_store_answers_not_found_when_there_is_no_file(artifacts: ArtifactStore, path: str) -> None:
    """Folders and what would lie below a file are no files."""
    put(artifacts, "folder/a", b"x")
    with pytest.raises(NotFound):
        artifacts.open(path)


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


def test_upload_leaves_nothing_when_it_is_not_committed(local: ArtifactStore, tmp_path: Path) -> None:
    """An upload that breaks off is neither under its name nor anywhere else."""
    put(local, "a", b"before")
    with local.upload("a", max_bytes=MAX_BYTES) as upload:
        upload.write(b"half")
    assert content_of(local, "a") == b"before"
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["a"]


def test_upload_is_refused_when_it_is_too_large(local: ArtifactStore, tmp_path: Path) -> None:
    """At the first piece over the limit, and it leaves nothing."""
    with local.upload("a", max_bytes=MAX_BYTES) as upload:
        upload.write(b"x" * MAX_BYTES)
        with pytest.raises(TooLarge, match="1000 bytes"):
            upload.write(b"x")
    assert not any(path.is_file() for path in tmp_path.rglob("*"))


def test_upload_says_that_the_disk_is_full_and_leaves_nothing(local: ArtifactStore, tmp_path: Path) -> None:
    """Not a fault of ours, and not one that goes by trying again."""
    upload = local.upload("a", max_bytes=1 << 30)
    with upload, open("/dev/full", "wb") as full:  # noqa: PTH123 -- a device
        os.dup2(full.fileno(), upload._file.fileno())
        with pytest.raises(NoRoom):
            upload.write(b"x" * (1 << 20))
    assert not any(path.is_file() for path in tmp_path.rglob("*"))


def test_store_tidies_what_a_killed_server_left(local: ArtifactStore, tmp_path: Path) -> None:
    """Old halves go; one that may be on its way stays."""
    with local.upload("a", max_bytes=MAX_BYTES):
        (half,) = (path for path in tmp_path.rglob("*") if path.is_file())
        local.tidy()
        assert half.exists()
        os.utime(half, (0, 0))
        local.tidy()
        assert not half.exists()
        half.touch()  # for the upload to discard


@pytest.mark.parametrize("path", ["folder", "folder/a/below", "", ".uploads/x", "../x"])
def test_upload_is_refused_when_its_path_is_taken_or_reserved(local: ArtifactStore, path: str) -> None:
    """A folder stays a folder and a file a file; where uploads wait is nobody's."""
    put(local, "folder/a", b"x")
    with pytest.raises(InvalidValue):
        local.upload(path, max_bytes=MAX_BYTES)
    assert content_of(local, "folder/a") == b"x"


def test_store_follows_no_link_out_of_its_folder(local: ArtifactStore, tmp_path: Path) -> None:
    """A link that somebody planted reads, lists, writes and deletes nothing outside."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_text("s")
    put(local, "f/a", b"x")
    (tmp_path / "store" / "f" / "link").symlink_to(outside)
    for refused in (local.open, local.list, local.delete):
        with pytest.raises(InvalidValue, match="leads out"):
            refused("f/link/secret")
    with pytest.raises(InvalidValue, match="leads out"):
        local.upload("f/link/new", max_bytes=MAX_BYTES)
    assert [info.path for info in local.list("f")] == ["a"]
    assert (outside / "secret").read_text() == "s"
