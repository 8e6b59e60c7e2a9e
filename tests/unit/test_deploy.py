"""What lies in deploy/ and examples/ speaks of settings and files that exist."""

import re
from configparser import ConfigParser
from dataclasses import fields
from pathlib import Path

import pytest
import yaml

from tracking.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
COMPOSE = yaml.safe_load((ROOT / "deploy/compose.yaml").read_text(encoding="utf-8"))
EXAMPLES = sorted(path.parent for path in ROOT.glob("examples/*/sweep.yaml"))
VARIABLES = {f"SWEEP_{item.name.upper()}" for item in fields(Settings)}


def test_compose_has_a_service_for_each_role() -> None:
    """Four roles, the database, its migration and the broker."""
    assert set(COMPOSE["services"]) == {"postgres", "redis", "migrate", "server", "scheduler", "worker", "container-worker", "flower"}


@pytest.mark.parametrize("role", ["server", "scheduler", "worker", "container-worker"])
def test_compose_gives_roles_settings_that_exist(role: str) -> None:
    """A misspelt variable would be ignored without a word."""
    environment = COMPOSE["services"][role]["environment"]
    assert {"SWEEP_DATABASE_URL", "SWEEP_BROKER_URL"} <= set(environment) <= VARIABLES


def test_compose_gives_the_engine_to_one_worker_that_must_be_asked_for() -> None:
    """Its socket is the host: only the worker of the profile has it, and the group that may use it."""
    with_socket = {name for name, service in COMPOSE["services"].items() if "docker.sock" in str(service.get("volumes"))}
    assert with_socket == {"container-worker"}
    worker = COMPOSE["services"]["container-worker"]
    assert (worker["profiles"], worker["group_add"]) == (["containers"], ["${SWEEP_DOCKER_GID:-999}"])


def test_compose_mounts_the_container_workers_home_where_the_host_has_it() -> None:
    """The engine takes a bind's source for a path of the host, so inside and outside must be one path, and the home that the worker uses."""
    worker = COMPOSE["services"]["container-worker"]
    binds = [volume for volume in worker["volumes"] if isinstance(volume, dict)]
    assert [(bind["type"], bind["source"]) for bind in binds] == [("bind", worker["environment"]["SWEEP_HOME"])]
    assert binds[0]["target"] == binds[0]["source"]
    assert "--name" in worker["command"]


def test_compose_publishes_ports_on_loopback_unless_told_otherwise() -> None:
    """Without users, whoever reaches the server may do everything."""
    ports = [port for service in COMPOSE["services"].values() for port in service.get("ports", [])]
    assert ports
    assert all(port.startswith("${SWEEP_BIND:-127.0.0.1}:") for port in ports)


def test_systemd_unit_leaves_trials_running() -> None:
    """A service's processes are ended with it, all of them, unless its unit says otherwise; and it names settings and a command that exist."""
    unit = ConfigParser(interpolation=None, delimiters="=")
    unit.optionxform = str  # type: ignore[assignment, method-assign] -- names keep their capitals
    unit.read_string((ROOT / "deploy/sweep-worker.service").read_text(encoding="utf-8"))
    service = unit["Service"]
    assert (service["KillMode"], service["OOMPolicy"]) == ("process", "continue")
    assert service["Environment"].partition("=")[0] in VARIABLES
    assert service["ExecStart"].endswith("/sweep worker")


def test_compose_redis_evicts_nothing() -> None:
    """A broker that evicts forgets messages."""
    assert "noeviction" in COMPOSE["services"]["redis"]["command"]


@pytest.mark.parametrize("folder", EXAMPLES, ids=lambda folder: folder.name)
def test_examples_pin_what_they_install(folder: Path) -> None:
    """An example runs the same in a year: each dependency has an exact version."""
    environment = folder / "python_env.yaml"
    wanted = yaml.safe_load(environment.read_text(encoding="utf-8"))["dependencies"] if environment.exists() else []
    assert [line for line in wanted if not re.fullmatch(r"[a-z0-9-]+==[0-9.]+", line)] == []


def test_readme_links_to_files_that_exist() -> None:
    """No dead link on the first page."""
    links = re.findall(r"\]\(([^)#:]+)\)", (ROOT / "README.md").read_text(encoding="utf-8"))
    assert [link for link in links if not (ROOT / link).exists()] == []
