"""Python environments from MLflow's `python_env.yaml`, built by uv, once for each content.

An environment lies under the SHA-256 of what it was asked to hold. Local folders as dependencies (`-e .`, `./lib`) are refused: one
environment serves every attempt with the same file, and such an install would tie it to the code of one.
"""

import configparser
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import uv
import yaml
from msgspec import Struct

from tracking.records import PYTHON_ENV_KEYS, PYTHON_VERSION
from tracking.requirements import Unusable, resolved
from worker.errands import LOOK_S, CalledOff, Errands, keep_trying
from worker.errors import EnvironmentBroken, Exhausted, IndexAway, WorkerError
from worker.folders import locked
from worker.runtimes.base import signal_name

_BUILD_S: Final = 1800
_DETAIL_LINES: Final = 12
_COMPLETE: Final = ".complete"
_FORMAT: Final = 1
"""Part of the hash: counts up when environments are to be built in another way."""
_AWAY: Final = re.compile(
    r"error sending request|HTTP status server error \(5(?!01|05)\d\d|HTTP status client error \(429|operation timed out|error decoding response body"
    r"|connection (?:closed|reset|refused|timed out)|dns error|network is unreachable|could not resolve host|temporary failure in name resolution",
    re.IGNORECASE,
)
"""What uv, or a tool that it starts, says of an index that can't be reached just now."""
_LACK: Final = re.compile(r"(?:\bos error |\[Errno )(?:5|11|12|23|24|28|116|122)\b|\bos error (?:1|13|30)\b|\bsignal: (?:9|15)\b")
"""What they say of this machine: a disk that is full or fails, no descriptors, no memory, processes that somebody killed. Of rights uv's own word
counts only: a build script may want to write where nobody may."""
_VERSION: Final = re.compile(PYTHON_VERSION)


class PythonEnv(Struct, frozen=True):
    """What a `python_env.yaml` asks for.

    Attributes:
        python: the version asked for, as `3.11`; the one that runs the worker if the file names none.
        requirements: lines of a requirements file, includes resolved.
    """

    python: str
    requirements: tuple[str, ...]

    @property
    def digest(self) -> str:
        """Names the environment: same digest, same environment."""
        content = json.dumps([_FORMAT, self.python, sys.platform, self.requirements])
        return hashlib.sha256(content.encode()).hexdigest()


class UvEnvironments:
    """The environments of one worker.

    Args:
        root: folder that holds them, `<root>/<digest>`.
        environ: the worker's environment variables, where settings of pip and uv are looked up.
    """

    def __init__(self, root: Path, environ: Mapping[str, str] | None = None) -> None:
        self._root = root
        self._environ = dict(os.environ if environ is None else environ)
        self._builds: Errands[None] = Errands()
        root.mkdir(parents=True, exist_ok=True)

    def ensure(self, file: Path, called_off: threading.Event | None = None) -> Path:
        """Build the environment that a `python_env.yaml` asks for, unless it is here already; return its `bin` folder.

        Raises:
            EnvironmentBroken: the file is wrong, or uv could not do it; the message ends with uv's last lines.
            IndexAway: the package index has not answered for minutes.
            Exhausted: this machine has had no room, memory or the like for it, for minutes.
            CalledOff: `called_off` was set first.
        """
        wanted = read_python_env(file)
        target = self._root / wanted.digest
        if not (target / _COMPLETE).exists():
            self._builds.run(wanted.digest, lambda abandoned: self._keep_building(wanted, target, abandoned), called_off)
        return target / "bin"

    def _keep_building(self, wanted: PythonEnv, target: Path, abandoned: threading.Event) -> None:
        keep_trying(lambda: self._build_apart(wanted, target, abandoned), abandoned, away=(IndexAway, Exhausted))

    def _build_apart(self, wanted: PythonEnv, target: Path, abandoned: threading.Event) -> None:
        """Build it while no other worker of this home does."""
        try:
            self._root.mkdir(parents=True, exist_ok=True)
            with locked(self._root / f"{wanted.digest}.lock", abandoned):
                # Another one may have been first.
                if not (target / _COMPLETE).exists():
                    self._build(wanted, target, abandoned)
        except OSError as error:
            # Whatever it is, these folders and processes are ours: the project has no part in it.
            raise Exhausted(f"The Python environment can't be built on this worker just now: {error}.") from error

    def _build(self, wanted: PythonEnv, target: Path, abandoned: threading.Event) -> None:
        # What an interrupted build left. Environments hold their own path, so one is built in place and marked at its end.
        if target.exists():
            shutil.rmtree(target)
        self._uv(abandoned, "venv", "--python", _interpreter(wanted.python, self._environ), "--no-project", str(target))
        if wanted.requirements:
            listing = target / "requirements.txt"
            listing.write_text("\n".join(wanted.requirements) + "\n", encoding="utf-8")
            self._uv(abandoned, "pip", "install", "--python", str(target / "bin" / "python"), "-r", str(listing))
        (target / _COMPLETE).touch()

    def _uv(self, abandoned: threading.Event, *arguments: str) -> None:
        command = [uv.find_uv_bin(), *arguments, "--no-progress", "--color", "never"]
        with tempfile.TemporaryFile() as said:
            process = subprocess.Popen(
                command,
                env=uv_environment(self._environ),
                # From a folder of ours, so that no project's own uv settings apply to an environment that others share.
                cwd=self._root,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=said,
                start_new_session=True,
            )
            try:
                status = _await(process, abandoned)
            except TimeoutError:
                raise EnvironmentBroken(f"uv {arguments[0]} took over {_BUILD_S} s.") from None
            said.seek(0)
            last = "\n".join(said.read().decode("utf-8", "replace").strip().splitlines()[-_DETAIL_LINES:])
        if status != 0:
            raise _error_of(arguments[0], status, last)


def _error_of(command: str, status: int, said: str) -> WorkerError:
    """Whose fault it is that uv has failed."""
    if status < 0:
        return Exhausted(f"uv {command} was ended by {signal_name(-status)} while it built the Python environment, as for want of memory.\n{said}".strip())
    problem = f"uv {command} could not build the Python environment:\n{said}"
    if _LACK.search(said):
        return Exhausted(problem)
    is_away = _AWAY.search(said) and "No solution found" not in said
    return IndexAway(problem) if is_away else EnvironmentBroken(problem)


def _await(process: subprocess.Popen[bytes], abandoned: threading.Event) -> int:
    """Wait for its exit status; end it, with all that it has started, when its time is over or nobody wants it any more.

    Raises:
        CalledOff: it was abandoned.
        TimeoutError: it took too long.
    """
    deadline = time.monotonic() + _BUILD_S
    while True:
        try:
            return process.wait(LOOK_S)
        except subprocess.TimeoutExpired:
            is_late = time.monotonic() > deadline
        if is_late or abandoned.is_set():
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            raise TimeoutError if is_late else CalledOff


def read_python_env(file: Path) -> PythonEnv:
    """Read a `python_env.yaml` and the requirement files that it names.

    Raises:
        EnvironmentBroken: it is missing or wrong.
    """
    content = _parse(file)
    unknown = set(content) - set(PYTHON_ENV_KEYS)
    if unknown:
        raise EnvironmentBroken(f"{file.name} has unknown keys: {', '.join(sorted(unknown))}.")
    # pip itself is not needed to build, nor in the result.
    lines = [line for line in _lines(content, "build_dependencies", file) if not re.match(r"pip\b(?!-)", line)]
    lines += _lines(content, "dependencies", file)
    return PythonEnv(
        python=_version(content.get("python"), file),
        requirements=tuple(resolved for line in lines for resolved in _resolve(line, file.parent)),
    )


def _parse(file: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise EnvironmentBroken(f"The project has no file {file.name}.") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise EnvironmentBroken(f"{file.name} is not valid YAML: {error}") from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise EnvironmentBroken(f"{file.name} must be a mapping with `python` and `dependencies`.")
    return content


def _lines(content: dict[str, Any], key: str, file: Path) -> list[str]:
    lines = content.get(key) or []
    if not isinstance(lines, list) or not all(isinstance(line, str) for line in lines):
        raise EnvironmentBroken(f"`{key}` in {file.name} must be a list of requirements.")
    return [line.strip() for line in lines]


def _version(value: object, file: Path) -> str:
    text = str(value) if value is not None else f"{sys.version_info.major}.{sys.version_info.minor}"
    if not _VERSION.fullmatch(text):
        raise EnvironmentBroken(f"`python: {text}` in {file.name} is not a version.", hint="Write it in quotes, as in `python: '3.11'`.")
    return text


def _resolve(line: str, folder: Path) -> Iterator[str]:
    """A requirement with its includes replaced by what they hold, so that the digest covers it."""
    for found in resolved(line, folder, folder):
        if isinstance(found, Unusable):
            place = f" ({found.file.name}:{found.line})" if found.file is not None else ""
            raise EnvironmentBroken(f"{found.message[0].upper()}{found.message[1:]}{place}.", hint=found.hint)
        yield found


def _interpreter(version: str, environ: Mapping[str, str]) -> str:
    """An interpreter of the minor version asked for; patch levels are as good as each other.

    The one that runs the worker if it fits, else one of pyenv's, which MLflow users have and uv finds only where pyenv has it on the
    PATH, else whatever uv finds or fetches.
    """
    minor = ".".join(version.split(".")[:2])
    if minor in {f"{sys.version_info.major}.{sys.version_info.minor}", str(sys.version_info.major)}:
        return sys.executable
    pyenv = Path(environ.get("PYENV_ROOT") or Path(environ.get("HOME", "/nonexistent"), ".pyenv"))
    found = sorted(pyenv.glob(f"versions/{minor}.*/bin/python"))
    return str(found[-1]) if found else minor


_PIP_TO_UV: Final = {
    "index-url": "UV_DEFAULT_INDEX",
    "extra-index-url": "UV_INDEX",
    "find-links": "UV_FIND_LINKS",
    "no-index": "UV_NO_INDEX",
    "trusted-host": "UV_INSECURE_HOST",
    "cert": "SSL_CERT_FILE",
}


def uv_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment that uv runs in: uv does not read pip's settings, so what this machine has set for pip is translated.

    uv's own variables stand where both speak. pip takes the best version of all its indexes, uv by default only the first index
    that knows a name: with further indexes taken from pip, pip's way is kept.
    """
    env = {name: value for name, value in environ.items() if name not in {"VIRTUAL_ENV", "PYTHONPATH", "PYTHONHOME"}}
    env.setdefault("UV_SYSTEM_CERTS", "true")
    for name, value in pip_settings(environ).items():
        target = _PIP_TO_UV.get(name)
        if target is None or env.get(target):
            continue
        # pip separates by white space; uv does so too, except for links.
        env[target] = ",".join(value.split()) if name == "find-links" else value
        if name == "extra-index-url":
            env.setdefault("UV_INDEX_STRATEGY", "unsafe-best-match")
    return env


def pip_settings(environ: Mapping[str, str]) -> dict[str, str]:
    """What this machine has set for pip: its files, later ones over earlier ones, and above them its variables.

    The order is pip's (https://pip.pypa.io/en/stable/topics/configuration/): global, user, the file in PIP_CONFIG_FILE; sections
    `global`, then `install`.
    """
    found: dict[str, str] = {}
    for path in _pip_files(environ):
        parser = configparser.RawConfigParser()
        try:
            parser.read(path, encoding="utf-8")
        except (configparser.Error, UnicodeDecodeError) as error:
            raise EnvironmentBroken(f"pip's settings in {path} can't be read: {error}") from error
        for section in ("global", "install"):
            if parser.has_section(section):
                found.update({name.replace("_", "-").lower(): value for name, value in parser.items(section)})
    for name, value in environ.items():
        if name.startswith("PIP_") and name != "PIP_CONFIG_FILE" and value:
            found[name.removeprefix("PIP_").replace("_", "-").lower()] = value
    return found


def _pip_files(environ: Mapping[str, str]) -> Iterator[str]:
    home = environ.get("HOME", "/nonexistent")
    only = environ.get("PIP_CONFIG_FILE")
    if only == os.devnull:
        return
    for folder in reversed(environ.get("XDG_CONFIG_DIRS", "/etc/xdg").split(os.pathsep)):
        yield f"{folder}/pip/pip.conf"
    yield "/etc/pip.conf"
    yield f"{home}/.pip/pip.conf"
    yield f"{environ.get('XDG_CONFIG_HOME') or home + '/.config'}/pip/pip.conf"
    if only:
        yield only
