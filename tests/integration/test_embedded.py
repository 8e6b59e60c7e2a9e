"""The embedded Postgres, started, killed, moved and misused for real."""

import ctypes
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any, Final

import psycopg2
import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.pool import NullPool

from tracking import embedded
from tracking.errors import EmbeddedError
from tracking.migrations.fresh import bring_up
from tracking.store.database import Database, plain_url
from tracking.store.listener import Listener

ENSURE: Final = """
import sys
from pathlib import Path
from tracking.embedded import EmbeddedError, ensure_running
try:
    print(ensure_running(Path(sys.argv[1])))
except EmbeddedError as error:
    print(error.hint)
"""


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    """A home without a server, and without one afterwards."""
    path = tmp_path / "home"
    yield path
    lease = path / "pg/lease.json"
    if lease.exists() and embedded.status(path).open_elsewhere:
        lease.unlink()
    embedded.stop(path)


@pytest.fixture(scope="module")
def running() -> Iterator[Path]:
    """A home with a server, for tests that only look."""
    with tempfile.TemporaryDirectory(prefix="sweep-test-") as folder:
        home = Path(folder) / "home"
        embedded.ensure_running(home)
        yield home
        embedded.stop(home)


def ask(url: str, sql: str) -> Any:
    """The first value of the first row that a statement returns; what it wrote is committed."""
    engine = create_engine(url, poolclass=NullPool)
    with engine.begin() as connection:
        result = connection.execute(text(sql))
        return result.scalar() if result.returns_rows else None


def postmaster(home: Path) -> int:
    """Process id of the running server."""
    pid = embedded.status(home).pid
    assert pid is not None
    return pid


def wait_until_gone(pid: int) -> None:
    """Until process `pid` has ended; it is not our child, so there is nothing to wait on."""
    assert embedded._wait_for(lambda: not embedded.process_start(pid), 30), f"process {pid} still runs"


def edit_lease(home: Path, **changes: object) -> None:
    """Change the lease: names of its host, or fields of its own."""
    path = home / "pg/lease.json"
    lease = json.loads(path.read_text())
    for name, value in changes.items():
        (lease["host"] if name in lease["host"] else lease)[name] = value
    path.write_text(json.dumps(lease))


def crash(home: Path) -> int:
    """Kill the postmaster as the kernel would, and wait until its children have noticed; returns its process id."""
    pid = postmaster(home)
    os.kill(pid, signal.SIGKILL)
    assert embedded._wait_for(lambda: not embedded._is_held(home / "pg/alive.lock"), 30)
    return pid


class TestRunning:
    """A server that runs."""

    @pytest.mark.parametrize(
        ("setting", "value"),
        [
            ("listen_addresses", ""),
            ("fsync", "on"),
            ("synchronous_commit", "on"),
            ("full_page_writes", "on"),
            ("data_checksums", "on"),
            ("server_encoding", "UTF8"),
            ("TimeZone", "UTC"),
            ("max_connections", "60"),
        ],
    )
    def test_server_has_the_setting_that_durability_and_safety_need(self, running: Path, setting: str, value: str) -> None:
        """Nothing is traded for speed, and there is no port."""
        assert ask(embedded.ensure_running(running), f"SELECT current_setting('{setting}')") == value

    def test_server_sorts_by_code_point_and_knows_letters_beyond_ascii(self, running: Path) -> None:
        """The same order on every system, and ILIKE that works."""
        url = embedded.ensure_running(running)
        assert ask(url, "SELECT string_agg(x, '' ORDER BY x) FROM unnest(ARRAY['b', 'B', 'a', 'é']) x") == "Babé"
        assert ask(url, "SELECT 'Ä' ILIKE 'ä'") is True

    def test_ensure_running_answers_the_same_when_it_runs(self, running: Path) -> None:
        """A second call starts nothing."""
        before = postmaster(running)
        assert embedded.ensure_running(running) == embedded.ensure_running(running)
        assert postmaster(running) == before

    def test_status_tells_what_runs(self, running: Path) -> None:
        """Process, address, version and log."""
        told = embedded.status(running)
        assert told.is_initialised
        assert told.is_running
        assert told.url == embedded.ensure_running(running)
        assert told.version in {"16", "18"}
        assert "ready to accept connections" in told.log_file.read_text()
        assert told.open_elsewhere == ""

    def test_connections_take_nothing_from_a_shell_that_is_set_up_for_another_server(self, running: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """None of libpq's variables, a service least of all; trials get them all the same."""
        shell = {"PGSERVICE": "another", "PGOPTIONS": "-c nonsense=1", "PGGSSENCMODE": "require", "PGTARGETSESSIONATTRS": "standby", "PGREQUIREAUTH": "md5"}
        for name, value in shell.items():
            monkeypatch.setenv(name, value)
        url = embedded.ensure_running(running)
        assert bring_up(plain_url(url))
        for name, value in shell.items():
            monkeypatch.setenv(name, value)
        with closing(Database(url)) as database, database.transaction() as transaction:
            assert transaction.scalar("SELECT 1") == 1
        for name, value in shell.items():
            monkeypatch.setenv(name, value)
        with closing(Listener(url)) as listener:
            assert listener.wait(0) is False
            assert listener._connection is not None
        assert shell.items() <= os.environ.items()

    def test_connections_to_a_server_that_the_user_named_take_the_shell_s_word(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A password, a certificate: what the URL need not hold."""
        monkeypatch.setenv("PGAPPNAME", "theirs")
        for url in ("postgresql://ada@db.example/postgres", "postgresql+psycopg2://sweep@/postgres?host=/var/run/postgresql", "service=mine"):
            embedded.keep_to(url)
        assert subprocess.run(["/usr/bin/env"], capture_output=True, text=True, check=True).stdout.count("PGAPPNAME=theirs") == 1

    def test_folders_let_nobody_else_in(self, running: Path) -> None:
        """The only way to the server is a socket in a private folder."""
        (socket_folder,) = (running / "pg").glob("socket-*")
        for folder in (running, running / "pg", socket_folder, running / "pg/data"):
            assert folder.stat().st_mode & 0o077 == 0, folder
        assert (socket_folder / ".s.PGSQL.5432").is_socket()


class TestLife:
    """Starting, stopping and what lies between."""

    def test_status_tells_that_nothing_is_there_and_makes_nothing(self, home: Path) -> None:
        """Looking leaves no trace."""
        told = embedded.status(home)
        assert (told.is_initialised, told.is_running, told.pid, told.url, told.version) == (False, False, None, "", "")
        assert embedded.stop(home) is False
        assert not home.exists()

    def test_data_survives_stop_and_start(self, home: Path) -> None:
        """What was committed is there again, at the same address."""
        url = embedded.ensure_running(home)
        ask(url, "CREATE TABLE t AS SELECT 42 AS x")
        assert embedded.stop(home) is True
        assert embedded.status(home).is_running is False
        assert embedded.stop(home) is False
        assert embedded.ensure_running(home) == url
        assert ask(url, "SELECT x FROM t") == 42

    def test_stop_ends_open_sessions(self, home: Path) -> None:
        """A forgotten connection holds nothing up."""
        url = embedded.ensure_running(home)
        engine = create_engine(url)
        with engine.connect() as connection:
            connection.execute(text("SELECT 1"))
            assert embedded.stop(home) is True
            connection.invalidate()
        engine.dispose()
        assert not (home / "pg/data/postmaster.pid").exists()

    def test_server_outlives_the_process_that_started_it(self, home: Path) -> None:
        """Command lines come and go."""
        ended = subprocess.run([sys.executable, "-c", ENSURE, home], capture_output=True, text=True, check=True)
        assert ask(ended.stdout.strip(), "SELECT 1") == 1
        assert os.getsid(postmaster(home)) not in {os.getsid(0), 0}

    def test_ensure_running_starts_one_server_when_four_processes_call_it(self, home: Path) -> None:
        """All get the same address of one server, also on the very first start."""

        def start(_: int) -> str:
            return subprocess.run([sys.executable, "-c", ENSURE, home], capture_output=True, text=True, check=True).stdout

        with ThreadPoolExecutor(4) as pool:
            urls = set(pool.map(start, range(4)))
        assert len(urls) == 1
        assert ask(urls.pop().strip(), "SELECT 1") == 1
        assert embedded.status(home).log_file.read_text().count("starting PostgreSQL") == 1

    def test_socket_lies_in_a_private_folder_elsewhere_when_the_path_is_too_long(self, tmp_path: Path) -> None:
        """A socket's path has a limit; the folder goes when the server does."""
        home = tmp_path / ("long" * 40)
        url = embedded.ensure_running(home)
        try:
            folder = Path(json.loads((home / "pg/lease.json").read_text())["socket_folder"])
            assert folder.parent == Path("/tmp")
            assert folder.stat().st_mode & 0o077 == 0
            assert folder.stat().st_uid == (home / "pg").stat().st_uid
            assert ask(url, "SELECT 1") == 1
            crash(home)
            assert embedded.ensure_running(home) == url
        finally:
            embedded.stop(home)
        assert not folder.exists()

    @pytest.mark.parametrize("name", ["with space", "quote'\"quote", "comma,comma", "per%cent&?", "ünï"])
    def test_home_may_have_any_name(self, tmp_path: Path, name: str) -> None:
        """Settings and URLs are quoted."""
        home = tmp_path / name
        try:
            assert ask(embedded.ensure_running(home), "SELECT 1") == 1
        finally:
            embedded.stop(home)

    def test_log_is_put_aside_when_it_is_long(self, home: Path) -> None:
        """It does not grow for ever."""
        embedded.ensure_running(home)
        embedded.stop(home)
        log = home / "pg/server.log"
        with log.open("ab") as file:
            file.truncate(embedded.LOG_KEPT_BYTES + 1)
        embedded.ensure_running(home)
        assert log.stat().st_size < embedded.LOG_KEPT_BYTES
        assert (home / "pg/server.log.1").stat().st_size == embedded.LOG_KEPT_BYTES + 1


class TestCrash:
    """What was killed, and what its files say afterwards."""

    def test_ensure_running_recovers_when_the_postmaster_was_killed(self, home: Path) -> None:
        """Committed rows are there, uncommitted ones are not, the address stays."""
        url = embedded.ensure_running(home)
        ask(url, "CREATE TABLE t (x int)")
        ask(url, "INSERT INTO t VALUES (1)")
        engine = create_engine(url)
        with engine.connect() as connection:
            connection.execute(text("INSERT INTO t VALUES (2)"))
            killed = crash(home)
            connection.invalidate()
        engine.dispose()
        assert embedded.status(home).is_running is False
        assert embedded.ensure_running(home) == url
        assert postmaster(home) != killed
        assert ask(url, "SELECT array_agg(x) FROM t") == [1]

    def test_stop_tidies_up_when_the_postmaster_was_killed(self, home: Path) -> None:
        """There was nothing to stop any more, and another host may have the data now."""
        embedded.ensure_running(home)
        crash(home)
        assert embedded.stop(home) is False
        assert not (home / "pg/lease.json").exists()

    def test_ensure_running_starts_when_a_stranger_has_the_process_id(self, home: Path) -> None:
        """After a crash or reboot the old process id may be anybody's: the start time tells."""
        embedded.ensure_running(home)
        crash(home)
        stranger = os.getpid()
        edit_lease(home, pid=stranger)
        for path in (home / "pg/data/postmaster.pid", *(home / "pg").glob("socket-*/.s.PGSQL.5432.lock")):
            path.write_text("\n".join([str(stranger), *path.read_text().splitlines()[1:]]) + "\n")
        assert embedded.status(home).is_running is False
        assert ask(embedded.ensure_running(home), "SELECT 1") == 1

    def test_ensure_running_leaves_a_server_alone_that_was_started_by_hand(self, home: Path) -> None:
        """Its process lives and began when its file says so."""
        embedded.ensure_running(home)
        embedded.stop(home)
        with subprocess.Popen(["sleep", "60"]) as by_hand:
            (home / "pg/data/postmaster.pid").write_text(f"{by_hand.pid}\n{home}/pg/data\n{int(time.time())}\n5432\n\n\n\nready\n")
            with pytest.raises(EmbeddedError, match=f"process {by_hand.pid}.*started by hand"):
                embedded.ensure_running(home)
            by_hand.kill()
        assert (home / "pg/data/postmaster.pid").exists()

    def test_ensure_running_begins_anew_when_the_first_start_was_cut_short(self, home: Path) -> None:
        """Half a data folder has another name."""
        embedded.ensure_running(home)
        embedded.stop(home)
        (home / "pg/data").rename(home / "pg/data.unfinished")
        (home / "pg/data.unfinished/PG_VERSION").unlink()
        assert ask(embedded.ensure_running(home), "SELECT 1") == 1
        assert not (home / "pg/data.unfinished").exists()

    def test_ensure_running_makes_a_new_server_when_the_home_was_deleted_under_the_old(self, home: Path) -> None:
        """The old one removes its own socket when it notices, not its successor's."""
        old_url = embedded.ensure_running(home)
        old = postmaster(home)
        (home / "pg").rename(home / "deleted")
        url = embedded.ensure_running(home)
        assert url != old_url
        os.kill(old, signal.SIGINT)
        wait_until_gone(old)
        assert ask(url, "SELECT 1") == 1


class TestHosts:
    """One data folder, several hosts that can see it."""

    def test_ensure_running_refuses_data_that_another_host_has_open(self, home: Path) -> None:
        """However old its lease is: a wrong guess costs the data. The hint tells the way out."""
        embedded.ensure_running(home)
        crash(home)
        edit_lease(home, hostname="other", machine_id="0" * 32, boot_id="b")
        assert embedded.status(home).open_elsewhere == "other"
        with pytest.raises(EmbeddedError, match="opened by host other") as refused:
            embedded.ensure_running(home)
        with pytest.raises(EmbeddedError, match="opened by host other"):
            embedded.stop(home)
        assert str(home / "pg/lease.json") in refused.value.hint
        (home / "pg/lease.json").unlink()
        assert ask(embedded.ensure_running(home), "SELECT 1") == 1

    def test_ensure_running_starts_when_this_host_was_restarted(self, home: Path) -> None:
        """The boot is another one, so the server is gone, whoever has its process id now."""
        embedded.ensure_running(home)
        crash(home)
        edit_lease(home, boot_id="before", pid=os.getpid(), process_start=embedded.process_start(os.getpid()))
        assert ask(embedded.ensure_running(home), "SELECT 1") == 1

    def test_ensure_running_refuses_data_that_another_container_has_open(self, home: Path) -> None:
        """The kernel's lock tells, where process ids mean something else."""
        embedded.ensure_running(home)
        edit_lease(home, hostname="box", process_namespace="pid:[1]")
        with pytest.raises(EmbeddedError, match="opened by host box"):
            embedded.ensure_running(home)
        edit_lease(home, process_namespace=embedded.incarnation().process_namespace)
        assert embedded.stop(home) is True

    def test_ensure_running_starts_when_the_other_container_is_gone(self, home: Path) -> None:
        """On the same kernel a crash leaves no doubt."""
        embedded.ensure_running(home)
        crash(home)
        edit_lease(home, hostname="box", process_namespace="pid:[1]")
        assert ask(embedded.ensure_running(home), "SELECT 1") == 1

    def test_ensure_running_refuses_a_lease_it_can_not_read(self, home: Path) -> None:
        """It might be a newer release's, on another host."""
        embedded.ensure_running(home)
        crash(home)
        lease = (home / "pg/lease.json").read_text()
        (home / "pg/lease.json").write_text("{}")
        with pytest.raises(EmbeddedError, match="can't be understood"):
            embedded.ensure_running(home)
        (home / "pg/lease.json").write_text(lease)


class TestRefusals:
    """Errors that a person can act on."""

    def test_error_shows_the_end_of_the_log_when_the_data_is_damaged(self, home: Path) -> None:
        """What the server said, and where the rest is."""
        embedded.ensure_running(home)
        embedded.stop(home)
        (home / "pg/data/global/pg_control").unlink()
        with pytest.raises(EmbeddedError, match="pg_control") as refused:
            embedded.ensure_running(home)
        assert str(home / "pg/server.log") in refused.value.hint
        assert embedded.status(home).is_running is False

    def test_error_tells_when_no_installed_postgres_can_open_the_data(self, home: Path) -> None:
        """The data of a release long gone."""
        embedded.ensure_running(home)
        embedded.stop(home)
        (home / "pg/data/PG_VERSION").write_text("11\n")
        with pytest.raises(EmbeddedError, match="of Postgres 11; the installed wheel has"):
            embedded.ensure_running(home)

    def test_ensure_running_follows_no_link(self, home: Path, tmp_path: Path) -> None:
        """Somebody else may have put it there."""
        home.mkdir()
        (home / "pg").symlink_to(tmp_path)
        with pytest.raises(EmbeddedError, match="is not a folder"):
            embedded.ensure_running(home)
        (home / "pg").unlink()

    @pytest.mark.parametrize(
        ("said", "hint"),
        [
            ('FATAL:  could not write to file "base/4/2608": No space left on device', "Free some space"),
            ("FATAL:  database files are incompatible with server", "another SWEEP_HOME"),
            ("FATAL:  could not map anonymous shared memory: Cannot allocate memory", "memory"),
            ("initdb: could not look up effective user ID 1234: user does not exist", "/etc/passwd"),
            ("[Errno 1] Operation not permitted", "DAC_READ_SEARCH"),
            ("something new", "server.log has the whole story"),
        ],
    )
    def test_error_has_the_hint_that_fits_what_was_said(self, tmp_path: Path, said: str, hint: str) -> None:
        """The common causes are known by their sentence."""
        error = embedded._start_error(embedded._Folder(tmp_path), "It does not start.", f"noise\n{said}\n")
        assert hint in error.hint
        assert error.message.splitlines()[0] == "It does not start."
        assert said in error.message


@pytest.mark.skipif(os.geteuid() != 0, reason="is about root; this is not")
class TestRoot:
    """Postgres refuses root; what is done instead."""

    def test_server_runs_as_a_user_of_its_own_where_only_root_may_enter(self, tmp_path: Path) -> None:
        """Parent folders keep their rights; the server has one capability and no other."""
        closed = tmp_path / "closed"
        closed.mkdir(mode=0o700)
        home = closed / "home"
        try:
            assert ask(embedded.ensure_running(home), "SELECT 1") == 1
            identity = Path(f"/proc/{postmaster(home)}/status").read_text()
        finally:
            embedded.stop(home)
        uid = (home / "pg").stat().st_uid
        assert uid in embedded.RESERVED_UIDS
        assert f"Uid:\t{uid}\t{uid}\t{uid}\t{uid}" in identity
        assert "Groups:\t \n" in identity
        assert "CapPrm:\t0000000000000004" in identity
        for folder in (closed, home):
            assert (folder.stat().st_uid, folder.stat().st_mode & 0o777) == (0, 0o700)

    def test_server_runs_as_the_owner_without_any_capability_when_the_folder_is_a_users(self) -> None:
        """What root may read is not handed to a user who could ask the server for it."""
        with tempfile.TemporaryDirectory(prefix="sweep-test-") as folder:
            Path(folder).chmod(0o755)
            pg = Path(folder) / "pg"
            pg.mkdir(mode=0o700)
            user = embedded._named_user()
            os.chown(pg, user.uid, user.gid)
            try:
                assert ask(embedded.ensure_running(Path(folder)), "SELECT 1") == 1
                identity = Path(f"/proc/{postmaster(Path(folder))}/status").read_text()
            finally:
                embedded.stop(Path(folder))
        assert f"Uid:\t{user.uid}\t{user.uid}" in identity
        assert "CapPrm:\t0000000000000000" in identity

    @pytest.mark.parametrize(("dropped", "works"), [((2,), True), ((1, 2), False)], ids=["as in a container", "without any"])
    def test_ensure_running_needs_a_capability_to_pass_parent_folders(self, tmp_path: Path, dropped: tuple[int, ...], works: bool) -> None:
        """DAC_READ_SEARCH (2), or else DAC_OVERRIDE (1), which containers have; without either a clear error."""

        def drop() -> None:
            libc = ctypes.CDLL(None)
            for capability in dropped:
                libc.prctl(24, capability, 0, 0, 0)  # PR_CAPBSET_DROP: the exec that follows loses them

        home = tmp_path / "home"
        try:
            # A preexec_fn is the one way to lose a capability before the interpreter starts; this process has one thread.
            ended = subprocess.run([sys.executable, "-c", ENSURE, home], capture_output=True, text=True, check=True, preexec_fn=drop)
        finally:
            embedded.stop(home)
        assert ended.stdout.startswith("postgresql+psycopg2://" if works else "As root this needs the capabilities DAC_READ_SEARCH")


def test_psycopg2_connects_by_the_socket_folder_alone(running: Path) -> None:
    """No password, no port: who may enter the folder may connect."""
    (folder,) = (running / "pg").glob("socket-*")
    connection = psycopg2.connect(host=str(folder), user=embedded.SUPERUSER, dbname=embedded.DATABASE)
    assert connection.server_version >= 160000
    connection.close()
