"""Artifacts through the server: what is stored, told and refused, whether they lie in a folder or in S3."""

import errno
import json
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from tests.support.protocol import API, FILES, Attempt, connected, end_attempt, get, new_run, open_attempt, post, refusal, serving
from tests.support.s3_server import CREDENTIALS, S3Server, s3_server
from tests.support.services import wait_until
from tracking.store import Store
from tracking.store.paging import encode_token
from tracking.uploads import LocalHalf

UPLOAD_MAX_BYTES = 100_000
PROXY = "/api/2.0/mlflow-artifacts"


@dataclass(frozen=True)
class Place:
    """Where a server keeps artifacts."""

    home: Path
    server: S3Server | None = None
    bucket: str = ""
    settings: dict[str, Any] = field(default_factory=dict)

    def n_halves(self) -> int:
        """How many broken uploads have left something."""
        return self.server.unfinished(self.bucket) if self.server else sum(path.is_file() for path in self.home.glob("artifacts/.uploads/*"))


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """S3 on loopback."""
    with pytest.MonkeyPatch.context() as environ, s3_server(tmp_path_factory.mktemp("s3")) as running:
        for name, value in CREDENTIALS.items():
            environ.setenv(name, value)
        yield running


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """A folder."""
    return Place(tmp_path_factory.mktemp("home"))


@pytest.fixture(scope="module")
def bucket(s3: S3Server, tmp_path_factory: pytest.TempPathFactory) -> Place:
    """A prefix of a bucket."""
    name = s3.new_bucket()
    return Place(tmp_path_factory.mktemp("home"), s3, name, {"artifact_root": f"s3://{name}/some/prefix", "artifact_endpoint": s3.url})


@pytest.fixture(scope="module", params=["folder", "bucket"])
def place(request: pytest.FixtureRequest) -> Place:
    """Each of them."""
    found: Place = request.getfixturevalue(request.param)
    return found


def client_of(store: Store, place: Place, **settings: Any) -> Iterator[httpx.Client]:
    """A client of a server that keeps artifacts there."""
    with serving(store, place.home, **{"upload_max_bytes": UPLOAD_MAX_BYTES, **place.settings, **settings}) as url, connected(url) as opened:
        yield opened


@pytest.fixture(scope="module")
def client(shared_store: Store, place: Place) -> Iterator[httpx.Client]:
    """A client, once for each place."""
    yield from client_of(shared_store, place)


@pytest.fixture(scope="module")
def folder_client(shared_store: Store, folder: Place) -> Iterator[httpx.Client]:
    """A client where artifacts are in a folder."""
    yield from client_of(shared_store, folder)


@pytest.fixture(scope="module")
def bucket_client(shared_store: Store, bucket: Place) -> Iterator[httpx.Client]:
    """A client where they are in S3."""
    yield from client_of(shared_store, bucket, upload_max_bytes=12_000_000)


@pytest.fixture
def attempt(shared_store: Store) -> Attempt:
    """A live attempt."""
    return open_attempt(shared_store)


def folder_of(client: httpx.Client, run_id: str) -> str:
    """A run's folder below the proxy's address."""
    uri: str = get(client, "/runs/get", run_id=run_id)["run"]["info"]["artifact_uri"]
    return f"{FILES}/{uri.removeprefix('mlflow-artifacts:/')}"


def test_artifact_round_trip(client: httpx.Client) -> None:
    """A file comes back as it was sent, for download only, and is listed by both listings."""
    run_id = new_run(client)
    folder = folder_of(client, run_id)
    content = bytes(range(256)) * 300
    assert client.put(f"{folder}/plots/loss é.html", content=content, headers={"Content-Type": "text/html"}).status_code == 200
    response = client.get(f"{folder}/plots/loss é.html")
    assert response.content == content
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert response.headers["Content-Disposition"] == "attachment; filename=\"loss e.html\"; filename*=UTF-8''loss%20%C3%A9.html"
    assert response.headers["Content-Security-Policy"].startswith("sandbox")
    assert response.headers["Content-Length"] == str(len(content))
    expected = {"path": "plots/loss é.html", "is_dir": False, "file_size": len(content)}
    listed = get(client, "/artifacts/list", run_id=run_id, path="plots")
    assert listed == {"root_uri": f"mlflow-artifacts:/0/{run_id}/artifacts", "files": [expected]}
    assert get(client, "/artifacts/list", run_id=run_id)["files"] == [{"path": "plots", "is_dir": True}]
    proxied = client.get(FILES, params={"path": f"0/{run_id}/artifacts/plots"}).json()
    assert proxied == {"files": [{**expected, "path": "loss é.html"}]}


def test_artifact_is_replaced_by_a_later_one(client: httpx.Client) -> None:
    """The newest upload under a name is the one that is there."""
    folder = folder_of(client, new_run(client))
    for content in (b"first", b"second"):
        client.put(f"{folder}/a.txt", content=content)
    assert client.get(f"{folder}/a.txt").content == b"second"


def test_artifact_get_answers_not_found_when_there_is_none(client: httpx.Client) -> None:
    """Nor below a file; in MLflow's words."""
    folder = folder_of(client, new_run(client))
    client.put(f"{folder}/sub/a.txt", content=b"x")
    for path in ("absent", "sub/a.txt/b"):
        told = f"No such artifact: '{folder.removeprefix(FILES + '/')}/{path}'"
        assert refusal(client.get(f"{folder}/{path}")) == (404, "RESOURCE_DOES_NOT_EXIST", told)


def test_artifact_get_refuses_a_folder(client: httpx.Client) -> None:
    """In MLflow's words too; and a file is not put in a folder's place, nor below a file, nor without a name."""
    folder = folder_of(client, new_run(client))
    client.put(f"{folder}/sub/a.txt", content=b"x")
    told = f"Artifact path refers to a directory, not a file: '{folder.removeprefix(FILES + '/')}/sub'"
    assert refusal(client.get(f"{folder}/sub")) == (400, "INVALID_PARAMETER_VALUE", told)
    for path in ("", "sub", "sub/a.txt/b", "new/"):
        assert refusal(client.put(f"{folder}/{path}", content=b"x"))[:2] == (400, "INVALID_PARAMETER_VALUE")


def test_artifact_is_refused_when_it_is_too_large(client: httpx.Client) -> None:
    """Over the limit nothing stays, whether the client tells the size or not."""
    run_id = new_run(client)
    folder = folder_of(client, run_id)
    content = b"x" * (UPLOAD_MAX_BYTES + 1)
    pieces = (content[start : start + 1000] for start in range(0, len(content), 1000))
    assert refusal(client.put(f"{folder}/told", content=content))[0] == 413
    assert refusal(client.put(f"{folder}/untold", content=pieces))[0] == 413
    assert get(client, "/artifacts/list", run_id=run_id)["files"] == []


@pytest.mark.parametrize("name", ["..%2f..%2fetc", "%2e%2e/%2e%2e/x", "%252e%252e/x", "a%5cb", "a%00b", "a%23b", "a%3bb"])
@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE"])
def test_artifact_path_is_refused_when_it_could_leave_the_folder(client: httpx.Client, name: str, method: str) -> None:
    """However often it is encoded."""
    folder = folder_of(client, new_run(client))
    response = client.request(method, f"{folder}/{name}", content=b"x")
    assert response.status_code == 400
    assert method == "HEAD" or refusal(response)[1] == "INVALID_PARAMETER_VALUE"


@pytest.mark.parametrize("path", ["", "/etc/passwd", "snapshots/x", "0", ".uploads/x", "1/{run}/artifacts/a", "0/absent/artifacts/a", "0/{run}/a"])
def test_artifact_is_refused_when_it_is_below_no_run(client: httpx.Client, path: str) -> None:
    """Only a run's own folder, in its own experiment, takes files."""
    response = client.put(f"{FILES}/{path.format(run=new_run(client))}", content=b"x")
    assert response.status_code in {400, 404}
    assert refusal(response)[1] in {"INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST"}


def test_artifact_listing_is_refused_outside_runs(client: httpx.Client) -> None:
    """The store's root, where snapshots lie too, is nobody's to list."""
    for path in ("", "0", "snapshots", "0/../snapshots"):
        assert refusal(client.get(FILES, params={"path": path}))[0] == 400


def test_artifact_of_a_managed_run_needs_its_attempt(client: httpx.Client, attempt: Attempt) -> None:
    """Own run and descendants take the attempt's files, and lose them by it; others' and nobody's requests are refused (I3)."""
    own, child = folder_of(client, attempt.run_id), folder_of(client, new_run(client, attempt.headers))
    stranger = folder_of(client, new_run(client))
    assert refusal(client.put(f"{own}/a", content=b"x"))[:2] == (403, "PERMISSION_DENIED")
    assert refusal(client.put(f"{stranger}/a", content=b"x", headers=attempt.headers))[:2] == (403, "PERMISSION_DENIED")
    for folder in (own, child):
        assert client.put(f"{folder}/a", content=b"x", headers=attempt.headers).status_code == 200
    assert refusal(client.delete(f"{own}/a"))[:2] == (403, "PERMISSION_DENIED")
    for folder in (own, child):
        assert client.delete(f"{folder}/a", headers=attempt.headers).json() == {}


def test_artifact_does_not_appear_when_its_attempt_ends_meanwhile(client: httpx.Client, attempt: Attempt, shared_store: Store) -> None:
    """An upload that outlives its attempt is refused at its end (I3)."""
    folder = folder_of(client, attempt.run_id)

    def pieces() -> Iterator[bytes]:
        yield b"begin"
        end_attempt(shared_store, attempt)
        yield b"end"

    # By its token, or by the fence if the attempt ends between the two.
    assert refusal(client.put(f"{folder}/late", content=pieces(), headers=attempt.headers))[0] in {401, 403}
    assert get(client, "/artifacts/list", run_id=attempt.run_id)["files"] == []


@pytest.mark.parametrize(
    ("name", "kind", "disposition"),
    [
        ("a.txt", "text/plain", "attachment; filename=a.txt"),
        ("MLmodel", "text/plain", "attachment; filename=MLmodel"),
        ("b c.json", "text/plain", 'attachment; filename="b c.json"'),
        ("page.html", "text/html", "attachment; filename=page.html"),
        ("model.unknown", "application/octet-stream", "attachment; filename=model.unknown"),
        ("größe.png", "image/png", "attachment; filename=groe.png; filename*=UTF-8''gr%C3%B6%C3%9Fe.png"),
        ("日本", "application/octet-stream", "attachment; filename=download; filename*=UTF-8''%E6%97%A5%E6%9C%AC"),
        ('a"b', "application/octet-stream", 'attachment; filename="a\\"b"'),
    ],
)
def test_artifact_type_and_name_are_told_as_mlflow_does(folder_client: httpx.Client, name: str, kind: str, disposition: str) -> None:
    """By the name alone, whatever the sender said."""
    file = f"{folder_of(folder_client, new_run(folder_client))}/{name}"
    assert folder_client.put(file, content=b"x", headers={"Content-Type": "image/gif"}).status_code == 200
    response = folder_client.get(file)
    assert (response.headers["Content-Type"], response.headers["Content-Disposition"]) == (kind, disposition)


def test_artifact_is_empty_or_not(client: httpx.Client) -> None:
    """A file of no bytes is a file."""
    run_id = new_run(client)
    folder = folder_of(client, run_id)
    assert client.put(f"{folder}/empty", content=b"").content == b""
    assert client.get(f"{folder}/empty").content == b""
    assert get(client, "/artifacts/list", run_id=run_id)["files"] == [{"path": "empty", "is_dir": False, "file_size": 0}]


def test_artifact_head_tells_what_get_would(client: httpx.Client) -> None:
    """Size, type and version, without the bytes."""
    file = f"{folder_of(client, new_run(client))}/a.txt"
    client.put(file, content=b"0123456789")
    head, answer = client.head(file), client.get(file)
    assert (head.status_code, head.content) == (200, b"")
    assert {name: value for name, value in head.headers.items() if name != "date"} == {k: v for k, v in answer.headers.items() if k != "date"}
    assert (head.headers["Content-Length"], head.headers["Accept-Ranges"]) == ("10", "bytes")
    assert client.head(file + "x").status_code == 404


@pytest.mark.parametrize(
    ("asked", "status", "content", "told"),
    [
        ("bytes=2-4", 206, b"234", "bytes 2-4/10"),
        ("bytes=7-", 206, b"789", "bytes 7-9/10"),
        ("bytes=-4", 206, b"6789", "bytes 6-9/10"),
        ("bytes=-40", 206, b"0123456789", "bytes 0-9/10"),
        ("bytes=5-500", 206, b"56789", "bytes 5-9/10"),
        ("bytes=0-0", 206, b"0", "bytes 0-0/10"),
        ("bytes=10-", 416, b"", "bytes */10"),
        ("bytes=-0", 416, b"", "bytes */10"),
        ("bytes=4-2", 200, b"0123456789", None),
        ("bytes=0-1,3-4", 200, b"0123456789", None),
        ("lines=0-1", 200, b"0123456789", None),
        ("bytes=-", 200, b"0123456789", None),
    ],
)
def test_artifact_is_read_in_part(client: httpx.Client, asked: str, status: int, content: bytes, told: str | None) -> None:
    """One range; what is not understood is no reason to fail, and several ranges are answered by the whole."""
    file = f"{folder_of(client, new_run(client))}/a.txt"
    client.put(file, content=b"0123456789")
    response = client.get(file, headers={"Range": asked})
    assert (response.status_code, response.content, response.headers.get("Content-Range")) == (status, content, told)


def test_artifact_download_goes_on_only_with_the_same_file(client: httpx.Client) -> None:
    """The rest of a file that was replaced is the whole of the new one."""
    file = f"{folder_of(client, new_run(client))}/a.txt"
    client.put(file, content=b"0123456789")
    resume = {"Range": "bytes=8-", "If-Range": client.get(file).headers["ETag"]}
    assert client.get(file, headers=resume).content == b"89"
    client.put(file, content=b"abcdefghij")
    assert client.get(file, headers=resume).content == b"abcdefghij"


def test_artifact_is_deleted(client: httpx.Client) -> None:
    """A file, a folder, what is not there, and all that a run has; never another run's."""
    run_id, neighbour = new_run(client), new_run(client)
    folder, other = folder_of(client, run_id), folder_of(client, neighbour)
    for file in (f"{folder}/a.txt", f"{folder}/deep/b", f"{folder}/deep/er/c", f"{folder}/deeper", f"{other}/a.txt"):
        client.put(file, content=b"x")
    for path in ("deep", "deep", "absent"):
        assert client.delete(f"{folder}/{path}").json() == {}
    assert [file["path"] for file in get(client, "/artifacts/list", run_id=run_id)["files"]] == ["a.txt", "deeper"]
    assert client.delete(folder).status_code == 200
    assert get(client, "/artifacts/list", run_id=run_id)["files"] == []
    assert client.get(f"{other}/a.txt").content == b"x"


def test_artifact_of_a_registered_model_is_not_deleted(client: httpx.Client, shared_store: Store) -> None:
    """Nor what it lies in, nor a part of it; beside it is free."""
    run_id = new_run(client)
    folder = folder_of(client, run_id)
    for path in ("model/weights", "model2", "log.txt"):
        client.put(f"{folder}/{path}", content=b"x")
    shared_store.registry.register("precious", run=shared_store.runs.get(run_id), artifact="model")
    for path in ("/model", "/model/weights", ""):
        status, code, message = refusal(client.delete(folder + path))
        assert (status, code) == (409, "RESOURCE_CONFLICT")
        assert "registered model precious" in message
    for path in ("model2", "log.txt"):
        assert client.delete(f"{folder}/{path}").status_code == 200
    assert client.get(f"{folder}/model/weights").content == b"x"


def test_artifact_of_a_logged_model_is_deleted_by_who_may_write_it(client: httpx.Client, attempt: Attempt) -> None:
    """The model's own folder, by the attempt that made it."""
    asked = {"experiment_id": attempt.experiment_id, "source_run_id": attempt.run_id}
    model_id = post(client, "/logged-models", attempt.headers, **asked)["model"]["info"]["model_id"]
    file = f"{FILES}/{attempt.experiment_id}/models/{model_id}/artifacts/MLmodel"
    assert client.put(file, content=b"x", headers=attempt.headers).status_code == 200
    assert refusal(client.delete(file))[:2] == (403, "PERMISSION_DENIED")
    assert client.delete(file, headers=attempt.headers).status_code == 200
    assert client.get(file).status_code == 404


def test_artifact_upload_that_breaks_off_leaves_nothing(client: httpx.Client, place: Place) -> None:
    """Neither the file nor its half."""
    run_id = new_run(client)
    path = f"{folder_of(client, run_id)}/cut"
    address = urlsplit(str(client.base_url))
    with socket.create_connection((address.hostname, address.port)) as connection:
        connection.sendall(f"PUT {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 90000\r\n\r\n".encode() + b"x" * 50_000)
        if place.server is None:
            wait_until(lambda: place.n_halves() == 1, "the upload has begun")
    wait_until(lambda: place.n_halves() == 0, "nothing is left of the upload")
    assert get(client, "/artifacts/list", run_id=run_id)["files"] == []


def test_artifact_upload_that_breaks_off_holds_nobody_up(folder_client: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is discarded may be a store's that does not answer: the server goes on with everything else."""
    is_asked, may_answer = threading.Event(), threading.Event()
    discard = LocalHalf.discard

    def slow(half: LocalHalf) -> None:
        is_asked.set()
        may_answer.wait(60)
        discard(half)

    monkeypatch.setattr(LocalHalf, "discard", slow)
    run_id = new_run(folder_client)
    path = f"{folder_of(folder_client, run_id)}/cut"
    address = urlsplit(str(folder_client.base_url))
    with socket.create_connection((address.hostname, address.port)) as connection:
        connection.sendall(f"PUT {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 90000\r\n\r\n".encode() + b"x" * 50_000)
    try:
        assert is_asked.wait(60)
        assert get(folder_client, "/artifacts/list", run_id=run_id)["files"] == []
    finally:
        may_answer.set()


def test_artifact_is_refused_when_the_disk_is_full(folder_client: httpx.Client, folder: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a status that no client tries again; nothing stays."""

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    run_id = new_run(folder_client)
    monkeypatch.setattr(LocalHalf, "write", full)
    assert refusal(folder_client.put(f"{folder_of(folder_client, run_id)}/a", content=b"x"))[:2] == (507, "RESOURCE_EXHAUSTED")
    assert folder.n_halves() == 0
    assert get(folder_client, "/artifacts/list", run_id=run_id)["files"] == []


def test_artifacts_are_listed_in_pages(client: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every name once, in order; a token of another folder, or none at all, is refused."""
    run_id = new_run(client)
    folder = folder_of(client, run_id)
    names = ["a", "b", "c", "d", "e"]
    for name in names:
        client.put(f"{folder}/sub/{name}", content=b"x")
    monkeypatch.setattr("tracking.mlflow_api.artifacts.PAGE_FILES", 2)
    pages = []
    token = ""
    for _ in range(3):
        answer = get(client, "/artifacts/list", run_id=run_id, path="sub", page_token=token)
        pages.append([file["path"] for file in answer["files"]])
        token = answer.get("next_page_token", "")
    assert (pages, token) == ([["sub/a", "sub/b"], ["sub/c", "sub/d"], ["sub/e"]], "")
    foreign = get(client, "/artifacts/list", run_id=run_id, path="sub")["next_page_token"]
    for wrong in (foreign, "nonsense"):
        query = {"run_id": new_run(client), "page_token": wrong}
        assert refusal(client.get(API + "/artifacts/list", params=query))[:2] == (400, "INVALID_PARAMETER_VALUE")
    for made_up in ([], [1], ["a", "b"]):
        query = {"run_id": run_id, "path": "sub", "page_token": encode_token(folder.removeprefix(f"{FILES}/") + "/sub", made_up)}
        assert refusal(client.get(API + "/artifacts/list", params=query))[:2] == (400, "INVALID_PARAMETER_VALUE")


def test_artifacts_that_are_a_clients_own_are_never_opened(client: httpx.Client) -> None:
    """What the record only tells: read, written, listed, deleted, signed by nobody here."""
    experiment_id = post(client, "/experiments/create", name=f"remote {new_run(client)}", artifact_location="s3://their-bucket/root")["experiment_id"]
    run_id = new_run(client, experiment_id=experiment_id)
    file = f"{FILES}/{experiment_id}/{run_id}/artifacts/a"
    answers = [
        client.put(file, content=b"x"),
        client.get(file),
        client.delete(file),
        client.get(FILES, params={"path": f"{experiment_id}/{run_id}/artifacts"}),
        client.get(API + "/artifacts/list", params={"run_id": run_id}),
        client.post(API + "/artifacts/presigned-upload-url", json={"run_id": run_id, "path": "a"}),
        client.post(API + "/artifacts/presigned-download-url", json={"run_id": run_id, "path": "a"}),
    ]
    for answer in answers:
        status, code, message = refusal(answer)
        assert (status, code) == (400, "INVALID_PARAMETER_VALUE")
        assert "s3://their-bucket/root" in message


def test_artifact_urls_are_signed_for_nobody_but_stores_of_clients(client: httpx.Client) -> None:
    """As MLflow refuses them for what goes through the server."""
    body = {"run_id": new_run(client), "path": "a"}
    for what in ("upload", "download"):
        status, code, message = refusal(client.post(f"{API}/artifacts/presigned-{what}-url", json=body))
        assert (status, code) == (400, "INVALID_PARAMETER_VALUE")
        assert message.startswith(f"Presigned {what} is not supported for")
    assert refusal(client.post(f"{API}/artifacts/presigned-upload-url", json={"path": "a"}))[2] == "Exactly one of run_id and model_id must be provided."


def test_both_prefixes_serve_artifacts(client: httpx.Client) -> None:
    """The UI's too."""
    file = f"{folder_of(client, new_run(client))}/a"
    assert client.put(f"/ajax-{file.removeprefix('/')}", content=b"x").status_code == 200
    assert client.get(file).content == client.get(f"/ajax-{file.removeprefix('/')}").content == b"x"


# -- past the server ---------------------------------------------------------------------------------------------------


def ask_parts(client: httpx.Client, what: str, run_id: str, headers: dict[str, str] | None = None, **body: Any) -> httpx.Response:
    """A request about an upload in parts of `big.bin` in the run's folder `sub`."""
    folder = folder_of(client, run_id).removeprefix(FILES)
    return client.post(f"{PROXY}/mpu/{what}{folder}/sub", json={"path": "/home/me/big.bin", **body}, headers=headers)


def test_parts_are_refused_as_mlflow_does_when_artifacts_are_in_a_folder(folder_client: httpx.Client) -> None:
    """Clients know the sentence, and send the file through the server then."""
    run_id = new_run(folder_client)
    for what, body in (
        ("create", {"num_parts": 2}),
        ("complete", {"upload_id": "u", "parts": [{"part_number": 1, "etag": "e"}]}),
        ("abort", {"upload_id": "u"}),
    ):
        told = refusal(ask_parts(folder_client, what, run_id, **body))
        assert told == (501, "NOT_IMPLEMENTED", "Multipart upload is not supported for the current artifact repository")
    presigned = folder_client.get(f"{PROXY}/presigned{folder_of(folder_client, run_id).removeprefix(FILES)}/a")
    assert refusal(presigned) == (501, "NOT_IMPLEMENTED", "Multipart download is not supported for the current artifact repository")


def test_parts_become_a_file_when_they_are_completed(bucket_client: httpx.Client, bucket: Place) -> None:
    """The client sends them past the server, in any order; nothing is seen before."""
    run_id = new_run(bucket_client)
    created = ask_parts(bucket_client, "create", run_id, num_parts=2).json()
    contents = [b"a" * 5 * 1024 * 1024, b"b" * 1000]
    parts = []
    for credential, content in reversed(list(zip(created["credentials"], contents, strict=True))):
        sent = httpx.put(credential["url"], content=content, headers=credential["headers"], trust_env=False)
        parts.append({"part_number": credential["part_number"], "etag": sent.headers["ETag"], "url": credential["url"]})
    assert get(bucket_client, "/artifacts/list", run_id=run_id)["files"] == []
    assert ask_parts(bucket_client, "complete", run_id, upload_id=created["upload_id"], parts=parts).json() == {}
    file = f"{folder_of(bucket_client, run_id)}/sub/big.bin"
    assert bucket_client.get(file).content == b"".join(contents)
    signed = bucket_client.get(f"{PROXY}/presigned{file.removeprefix(FILES)}").json()
    assert (signed["file_size"], signed["headers"]) == (len(b"".join(contents)), {})
    read = httpx.get(signed["url"], headers={"Range": "bytes=5242878-5242882"}, trust_env=False)
    assert (read.status_code, read.content) == (206, b"aabbb")
    assert read.headers["Content-Disposition"] == "attachment; filename=big.bin"


def test_parts_leave_nothing_when_they_are_aborted_or_too_large(bucket_client: httpx.Client, bucket: Place) -> None:
    """The limit is that of uploads through the server."""
    run_id = new_run(bucket_client)
    created = ask_parts(bucket_client, "create", run_id).json()
    assert bucket.n_halves() == 1
    assert ask_parts(bucket_client, "abort", run_id, upload_id=created["upload_id"]).json() == {}
    assert bucket.n_halves() == 0
    created = ask_parts(bucket_client, "create", run_id, num_parts=3).json()
    parts = []
    for credential in created["credentials"]:
        sent = httpx.put(credential["url"], content=b"x" * 5_000_000, trust_env=False)
        parts.append({"part_number": credential["part_number"], "etag": sent.headers["ETag"]})
    assert refusal(ask_parts(bucket_client, "complete", run_id, upload_id=created["upload_id"], parts=parts))[0] == 413
    assert bucket.n_halves() == 0
    assert get(bucket_client, "/artifacts/list", run_id=run_id)["files"] == []


@pytest.mark.parametrize(
    ("what", "body", "status"),
    [
        ("create", {"num_parts": 0}, 400),
        ("create", {"num_parts": 10_001}, 400),
        ("create", {"num_parts": "x"}, 400),
        ("create", {"path": ""}, 400),
        ("create", {"path": "a\\b"}, 400),
        ("create", {"path": ".."}, 400),
        ("complete", {"upload_id": "none", "parts": []}, 400),
        ("complete", {"upload_id": "none", "parts": [{"part_number": 1, "etag": "e"}]}, 404),
        ("abort", {"upload_id": "none"}, 404),
    ],
)
def test_parts_are_refused_when_they_make_no_sense(bucket_client: httpx.Client, what: str, body: dict[str, Any], status: int) -> None:
    """By what fits, and never by 5xx."""
    assert refusal(ask_parts(bucket_client, what, new_run(bucket_client), **body))[0] == status


def test_parts_are_refused_when_they_are_not_those_that_were_sent(bucket_client: httpx.Client, bucket: Place) -> None:
    """What S3 does not know can't be put together."""
    run_id = new_run(bucket_client)
    created = ask_parts(bucket_client, "create", run_id).json()
    made_up = [{"part_number": 1, "etag": json.dumps("0" * 32)}]
    assert refusal(ask_parts(bucket_client, "complete", run_id, upload_id=created["upload_id"], parts=made_up))[:2] == (400, "INVALID_PARAMETER_VALUE")


def test_parts_of_a_managed_run_need_its_attempt(bucket_client: httpx.Client, attempt: Attempt, shared_store: Store) -> None:
    """When they are begun and when they are put together: what a superseded attempt has sent never appears (I3)."""
    assert refusal(ask_parts(bucket_client, "create", attempt.run_id))[:2] == (403, "PERMISSION_DENIED")
    created = ask_parts(bucket_client, "create", attempt.run_id, attempt.headers).json()
    sent = httpx.put(created["credentials"][0]["url"], content=b"x", trust_env=False)
    end_attempt(shared_store, attempt)
    body = {"upload_id": created["upload_id"], "parts": [{"part_number": 1, "etag": sent.headers["ETag"]}]}
    assert refusal(ask_parts(bucket_client, "complete", attempt.run_id, attempt.headers, **body))[:2] == (401, "UNAUTHENTICATED")
    assert get(bucket_client, "/artifacts/list", run_id=attempt.run_id)["files"] == []


def test_artifacts_are_away_while_s3_is(shared_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client may try again; one that is refused for good is told so."""
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    with (
        s3_server(tmp_path) as running,
        serving(shared_store, tmp_path, artifact_root="s3://no-such-bucket", artifact_endpoint=running.url) as url,
        connected(url) as client,
    ):
        file = f"{folder_of(client, new_run(client))}/a"
        assert refusal(client.put(file, content=b"x"))[:2] == (403, "PERMISSION_DENIED")
        running.process.kill()
        running.process.wait()
        for response in (client.put(file, content=b"x"), client.get(file)):
            assert refusal(response)[:2] == (503, "TEMPORARILY_UNAVAILABLE")
            assert response.headers["Retry-After"] == "1"
