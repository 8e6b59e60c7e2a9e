"""Python environments built by uv from local wheels: what is built, how often, and what is said when it can't be."""

import subprocess
import sys
import threading
import zipfile
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Final

import pytest
import uv

from tests.support.services import wait_until
from worker import errands as errands_module
from worker.environments.uv import PythonEnv, UvEnvironments, pip_settings, read_python_env, uv_environment
from worker.errands import CalledOff
from worker.errors import EnvironmentBroken, Exhausted, IndexAway

OWN_VERSION = f"{sys.version_info.major}.{sys.version_info.minor}"


def make_wheel(folder: Path, name: str, version: str) -> None:
    """The smallest wheel there is: a module with a version."""
    folder.mkdir(exist_ok=True)
    info = f"{name}-{version}.dist-info"
    files = {
        f"{name}.py": f"VERSION = {version!r}\n",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as wheel:
        for path, text in files.items():
            wheel.writestr(path, text)
        wheel.writestr(f"{info}/RECORD", "".join(f"{path},,\n" for path in [*files, f"{info}/RECORD"]))


@pytest.fixture
def wheels(tmp_path: Path) -> Path:
    """A folder with two versions of one library."""
    folder = tmp_path / "wheels"
    make_wheel(folder, "toylib", "1.0")
    make_wheel(folder, "toylib", "2.0")
    return folder


@pytest.fixture
def environments(tmp_path: Path, wheels: Path) -> UvEnvironments:
    """Environments on a machine whose pip is set to that folder and to no registry."""
    environ = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(wheels), "UV_OFFLINE": "1"}
    return UvEnvironments(tmp_path / "environments", environ)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """An empty project folder."""
    folder = tmp_path / "project"
    folder.mkdir()
    return folder


def write(project: Path, text: str) -> Path:
    """Write a project's `python_env.yaml`."""
    file = project / "python_env.yaml"
    file.write_text(text)
    return file


def version_in(bin_folder: Path) -> str:
    """The toy library's version in an environment."""
    script = "import toylib; print(toylib.VERSION)"
    return subprocess.run([bin_folder / "python", "-I", "-c", script], check=True, capture_output=True, text=True).stdout.strip()


def test_environment_is_built_once_for_its_content(environments: UvEnvironments, project: Path, tmp_path: Path) -> None:
    """The same content, in another project too, is the same environment; other content is another one."""
    text = f'python: "{OWN_VERSION}"\nbuild_dependencies: [pip]\ndependencies: ["toylib==1.0"]\n'
    first = environments.ensure(write(project, text))
    assert version_in(first) == "1.0"
    (first / "touched").touch()
    other = tmp_path / "other"
    other.mkdir()
    assert environments.ensure(write(other, text)) == first
    assert (first / "touched").exists()
    newer = environments.ensure(write(project, text.replace("1.0", "2.0")))
    assert newer != first
    assert version_in(newer) == "2.0"


def test_environment_follows_requirement_files(environments: UvEnvironments, project: Path) -> None:
    """`-r` files, nested ones too, are part of the content."""
    file = write(project, "dependencies:\n  - -r requirements.txt\n")
    (project / "more").mkdir()
    (project / "requirements.txt").write_text("# what we need\n-r more/list.txt  # nested\n")
    (project / "more" / "list.txt").write_text("toylib \\\n  ==1.0\n")
    first = environments.ensure(file)
    assert version_in(first) == "1.0"
    (project / "more" / "list.txt").write_text("toylib\n")
    assert version_in(environments.ensure(file)) == "2.0"


def test_environment_is_built_by_one_when_many_ask(environments: UvEnvironments, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trials that start together share one build."""
    file = write(project, "dependencies: [toylib]\n")
    built: list[Path] = []
    build = environments._build

    def count_and_build(wanted: PythonEnv, target: Path, abandoned: threading.Event) -> None:
        built.append(target)
        build(wanted, target, abandoned)

    monkeypatch.setattr(environments, "_build", count_and_build)
    found: list[Path] = []
    threads = [threading.Thread(target=lambda: found.append(environments.ensure(file))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(found) == 4
    assert len(set(found)) == len(built) == 1


class Index:
    """A package index of one folder of wheels.

    Attributes:
        statuses: what it answers to the next requests instead; the last of them stays if there is no folder.
    """

    def __init__(self, *statuses: int, wheels: Path | None = None) -> None:
        self.statuses = list(statuses)
        site = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                status = 200
                if site.statuses:
                    status = site.statuses.pop(0) if wheels is not None else site.statuses[0]
                body = b""
                if status == 200 and wheels is not None:
                    named = wheels / self.path.rpartition("/")[2]
                    links = "".join(f'<a href="{path.name}">{path.name}</a>' for path in wheels.iterdir())
                    body = named.read_bytes() if named.is_file() else links.encode()
                self.send_response(status)
                self.send_header("Content-Type", "text/html")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body)

            do_HEAD = do_GET  # noqa: N815  # as the library calls it

            def log_message(self, *_arguments: object) -> None:
                """Quiet."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/simple"
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def close(self) -> None:
        """Stop it."""
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def index() -> Iterator[Index]:
    """One that is overloaded for ever."""
    made = Index(503)
    yield made
    made.close()


@pytest.fixture
def recovering_index(wheels: Path) -> Iterator[Index]:
    """One that is overloaded for a while."""
    made = Index(503, 429, 503, wheels=wheels)
    yield made
    made.close()


def online(tmp_path: Path, url: str) -> UvEnvironments:
    """Environments on a machine whose packages come from an index."""
    environ = {
        "PATH": "/usr/bin:/bin",
        "HOME": str(tmp_path),
        "PIP_CONFIG_FILE": "/dev/null",
        "UV_DEFAULT_INDEX": url,
        "UV_HTTP_RETRIES": "0",
        "UV_NO_CACHE": "1",
    }
    return UvEnvironments(tmp_path / "environments", environ)


@pytest.mark.parametrize("status", [503, 429, None], ids=["503", "429", "nobody"])
def test_environment_blames_the_machinery_when_the_index_is_away(
    tmp_path: Path, project: Path, index: Index, status: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An index that does not answer, or can't just now, is no fault of the requirements; after minutes the attempt fails for it."""
    monkeypatch.setattr(errands_module, "AWAY_S", 0.0)
    index.statuses = [status or 503]
    url = index.url if status else "http://127.0.0.1:1/simple"
    with pytest.raises(IndexAway) as caught:
        online(tmp_path, url).ensure(write(project, "dependencies: [toylib]\n"))
    assert caught.value.cause.is_machinery


FULL: Final = "error: Failed to write to the environment\n  Caused by: No space left on device (os error 28)"


@pytest.fixture
def scarce_uv(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, int], None]:
    """Puts a script before uv that fails in its own way so many times."""
    monkeypatch.setattr(errands_module, "_FIRST_DELAY_S", 0.01)
    monkeypatch.setattr(errands_module, "_LONGEST_DELAY_S", 0.01)

    def put(fault: str, n_times: int) -> None:
        script = tmp_path / "uv"
        script.write_text(f"""#!/bin/sh
echo x >> {tmp_path}/asked
if [ $(wc -l < {tmp_path}/asked) -le {n_times} ]; then {fault}; exit 2; fi
exec {uv.find_uv_bin()} "$@"
""")
        script.chmod(0o755)
        monkeypatch.setattr(uv, "find_uv_bin", lambda: str(script))

    return put


@pytest.mark.parametrize("fault", ["kill -9 $$", f"echo '{FULL}' >&2", "echo 'OSError: [Errno 24] too many' >&2"], ids=["killed", "full", "descriptors"])
def test_environment_is_built_later_when_the_machine_is_out_of_something(
    environments: UvEnvironments, project: Path, scarce_uv: Callable[[str, int], None], fault: str
) -> None:
    """A full disk, or a builder that the kernel killed for want of memory: nobody's fault, and it passes."""
    scarce_uv(fault, 2)
    assert version_in(environments.ensure(write(project, "dependencies: [toylib]\n"))) == "2.0"


@pytest.mark.parametrize("fault", ["kill -9 $$", f"echo '{FULL}' >&2"], ids=["killed", "full"])
def test_environment_blames_the_machinery_when_the_machine_stays_out_of_something(
    environments: UvEnvironments, project: Path, scarce_uv: Callable[[str, int], None], monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    """After minutes the attempt fails for it, and is tried again elsewhere."""
    monkeypatch.setattr(errands_module, "AWAY_S", 0.0)
    scarce_uv(fault, 1_000)
    with pytest.raises(Exhausted) as caught:
        environments.ensure(write(project, "dependencies: [toylib]\n"))
    assert caught.value.cause.is_machinery


def test_environment_blames_the_machinery_when_its_folder_can_not_be_used(
    environments: UvEnvironments, project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The folder of environments is ours; it comes back by itself when somebody has removed it."""
    monkeypatch.setattr(errands_module, "AWAY_S", 0.0)
    root, file = tmp_path / "environments", write(project, "dependencies: [toylib]\n")
    root.rmdir()
    root.write_text("in the way")
    with pytest.raises(Exhausted):
        environments.ensure(file)
    root.unlink()
    assert version_in(environments.ensure(file)) == "2.0"


def test_environment_blames_the_project_when_the_index_has_no_such_package(tmp_path: Path, project: Path, index: Index) -> None:
    """Not found is an answer: to ask again would change nothing."""
    index.statuses = [404]
    with pytest.raises(EnvironmentBroken, match="not found"):
        online(tmp_path, index.url).ensure(write(project, "dependencies: [toylib]\n"))


def test_environment_is_built_once_the_index_is_back(tmp_path: Path, project: Path, recovering_index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    """An outage that passes costs no attempt."""
    monkeypatch.setattr(errands_module, "_LONGEST_DELAY_S", 0.01)
    environments = online(tmp_path, recovering_index.url)
    assert version_in(environments.ensure(write(project, "dependencies: [toylib]\n"))) == "2.0"
    assert recovering_index.statuses == []


def test_environment_build_ends_when_called_off(environments: UvEnvironments, project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cancelled attempt ends at once, and so does uv, with all that it has started."""
    fake = tmp_path / "uv"
    fake.write_text("#!/bin/sh\nsleep 1000 & echo $! > child; wait\n")
    fake.chmod(0o755)
    monkeypatch.setattr("uv.find_uv_bin", lambda: str(fake))
    called_off = threading.Event()
    child = tmp_path / "environments" / "child"

    def call_off() -> None:
        wait_until(lambda: child.exists() and child.read_text().endswith("\n"), "uv has begun", interval_s=0.01)
        called_off.set()

    calling = threading.Thread(target=call_off, daemon=True)
    calling.start()
    with pytest.raises(CalledOff):
        environments.ensure(write(project, "dependencies: [toylib]\n"), called_off)
    stat = Path(f"/proc/{child.read_text().strip()}/stat")
    wait_until(lambda: not stat.exists() or ") Z " in stat.read_text(), "what uv had started has ended", interval_s=0.01)
    calling.join()


def test_environment_is_built_anew_when_a_build_was_interrupted(environments: UvEnvironments, project: Path) -> None:
    """Half an environment is never used."""
    file = write(project, "dependencies: [toylib]\n")
    bin_folder = environments.ensure(file)
    (bin_folder.parent / ".complete").unlink()
    (bin_folder / "python").unlink()
    assert version_in(environments.ensure(file)) == "2.0"


def test_environment_error_shows_what_uv_said(environments: UvEnvironments, project: Path) -> None:
    """A dependency that is not to be had is named, in uv's own words; a later try is a fresh one."""
    file = write(project, "dependencies: [toylib==3.0]\n")
    for _ in range(2):
        with pytest.raises(EnvironmentBroken, match=r"(?s)uv pip could not build.*toylib==3\.0"):
            environments.ensure(file)


def test_environment_error_names_python_that_is_not_to_be_had(environments: UvEnvironments, project: Path) -> None:
    """A version that is neither here nor to be fetched is an error, not another version."""
    with pytest.raises(EnvironmentBroken, match=r"3\.99"):
        environments.ensure(write(project, 'python: "3.99"\n'))


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("dependencies: toylib", "must be a list"),
        ("- toylib", "must be a mapping"),
        ("dependencies: [", "not valid YAML"),
        ("python: latest", "not a version"),
        ("conda: x", "unknown keys: conda"),
        ("dependencies: [-e .]", "local folder"),
        ("dependencies: [./lib]", "local folder"),
        ("dependencies: ['lib @ file:///x']", "local folder"),
        ("dependencies: [-c constraints.txt]", "Constraint files"),
        ("dependencies: [-r nothing.txt]", "no requirements file 'nothing.txt'"),
        ("dependencies: [-r ../secrets.txt]", "'../secrets.txt' lies outside"),
    ],
)
def test_environment_file_error_names_the_problem(project: Path, text: str, problem: str) -> None:
    """What is wrong in the file is told before anything is built."""
    (project.parent / "secrets.txt").write_text("secret\n")
    with pytest.raises(EnvironmentBroken, match=problem):
        read_python_env(write(project, text))


def test_environment_file_may_be_missing_or_empty(project: Path) -> None:
    """A missing file is an error; an empty one asks for this Python and nothing else."""
    with pytest.raises(EnvironmentBroken, match="no file"):
        read_python_env(project / "python_env.yaml")
    assert read_python_env(write(project, "")) == read_python_env(write(project, f'python: "{OWN_VERSION}"'))


def test_pip_settings_are_translated_for_uv(tmp_path: Path) -> None:
    """What the machine has set for pip holds for uv: variables above files, uv's own variables above both."""
    settings = tmp_path / "pip.conf"
    settings.write_text("[global]\nindex-url = http://127.0.0.1:1/one\nfind-links = /a\n    /b\n[install]\nextra-index-url = http://127.0.0.1:1/two\n")
    environ = {"HOME": str(tmp_path), "PIP_CONFIG_FILE": str(settings), "PIP_INDEX_URL": "http://127.0.0.1:1/above", "VIRTUAL_ENV": "/x"}
    env = uv_environment(environ)
    assert env["UV_DEFAULT_INDEX"] == "http://127.0.0.1:1/above"
    assert env["UV_INDEX"] == "http://127.0.0.1:1/two"
    assert env["UV_FIND_LINKS"] == "/a,/b"
    assert env["UV_INDEX_STRATEGY"] == "unsafe-best-match"
    assert "VIRTUAL_ENV" not in env
    assert uv_environment({**environ, "UV_DEFAULT_INDEX": "http://127.0.0.1:1/own"})["UV_DEFAULT_INDEX"] == "http://127.0.0.1:1/own"
    assert pip_settings({"PIP_CONFIG_FILE": "/dev/null"}) == {}
