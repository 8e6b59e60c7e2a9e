"""Artifacts: which paths are taken, and files that appear whole or not at all."""

import os
import sys
from pathlib import Path
from typing import cast

import pytest
from fsspec.registry import _registry
from hypothesis import given
from hypothesis import strategies as st

from tracking.artifacts import ArtifactStore, Location, parse_location, run_uri, safe_path
from tracking.errors import InvalidValue, NoRoom, SettingError
from tracking.uploads import LocalHalf

MAX_BYTES = 1000


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
    with artifacts.open(path).content as file:
        return file.read()


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


def test_download_goes_on_with_the_file_that_it_began(local: ArtifactStore) -> None:
    """A file that is replaced meanwhile is never some of both."""
    put(local, "a", b"first")
    with local.open("a").content as file:
        put(local, "a", b"other")
        assert file.read() == b"first"


def test_upload_says_that_the_disk_is_full_and_leaves_nothing(local: ArtifactStore, tmp_path: Path) -> None:
    """Not a fault of ours, and not one that goes by trying again."""
    upload = local.upload("a", max_bytes=1 << 30)
    with upload, open("/dev/full", "wb") as full:  # noqa: PTH123 -- a device
        os.dup2(full.fileno(), cast(LocalHalf, upload._half).file.fileno())
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


def test_store_follows_no_link_out_of_its_folder(local: ArtifactStore, tmp_path: Path) -> None:
    """A link that somebody planted reads, lists, writes and deletes nothing, wherever it leads."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_text("s")
    put(local, "f/a", b"x")
    (tmp_path / "store" / "f" / "link").symlink_to(outside)
    for refused in (local.open, local.list, local.delete):
        with pytest.raises(InvalidValue, match="through a link"):
            refused("f/link/secret")
    with pytest.raises(InvalidValue, match="through a link"):
        local.upload("f/link/new", max_bytes=MAX_BYTES)
    assert [info.path for info in local.list("f")] == ["a"]
    assert (outside / "secret").read_text() == "s"


def test_store_follows_no_link_within_its_folder(local: ArtifactStore, tmp_path: Path) -> None:
    """What is another run's is not reached by this run's name."""
    put(local, "1/a/artifacts/x", b"a")
    (tmp_path / "store" / "1" / "b").symlink_to(tmp_path / "store" / "1" / "a")
    for refused in (local.open, local.list, local.delete):
        with pytest.raises(InvalidValue, match="through a link"):
            refused("1/b/artifacts/x")
    assert content_of(local, "1/a/artifacts/x") == b"a"


def test_store_deletes_a_link_but_not_what_it_leads_to(local: ArtifactStore, tmp_path: Path) -> None:
    """A folder goes with the links that it holds."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").write_text("k")
    put(local, "f/a", b"x")
    (tmp_path / "store" / "f" / "link").symlink_to(outside)
    local.delete("f")
    assert not (tmp_path / "store" / "f").exists()
    assert (outside / "kept").read_text() == "k"


def test_store_tells_what_is_wrong_with_its_folder(tmp_path: Path) -> None:
    """Nothing, while it can be made; a file in its place can't be a folder."""
    assert ArtifactStore(tmp_path / "not" / "yet").problem() == ""
    (tmp_path / "file").touch()
    assert "is not a folder" in ArtifactStore(tmp_path / "file").problem()


@pytest.mark.parametrize("root, told", [("gs://bucket", "gcsfs"), ("nowhere://x", "nowhere")])
def test_store_names_the_package_that_is_missing(monkeypatch: pytest.MonkeyPatch, root: str, told: str) -> None:
    """Or the scheme that nobody knows; said when the server starts."""
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    with pytest.raises(SettingError, match=told) as refusal:
        ArtifactStore(root)
    assert root in refusal.value.message


def test_store_names_our_extra_when_s3fs_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The one that is tested."""
    for scheme in ("s3", "s3a"):
        monkeypatch.delitem(_registry, scheme, raising=False)
    monkeypatch.setitem(sys.modules, "s3fs", None)
    with pytest.raises(SettingError) as refusal:
        ArtifactStore("s3://bucket/prefix")
    assert "sweep-runner[s3]" in refusal.value.hint
