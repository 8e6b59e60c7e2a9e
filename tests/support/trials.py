"""Sweeps whose trial 0 misbehaves, beside others that do not: submitted, watched by the marks that it leaves, and checked once they have ended."""

import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from sqlalchemy.engine import Row

from tests.faults.invariants import check
from tests.support.faults import STRETCH, FaultCluster
from tests.support.ledger import ledger_file
from tests.support.projects import write_project
from tests.support.services import process_state, wait_until
from tracking.store import Store, open_store

_BAD: Final = """
if number == "0":
    import resource, shutil, signal, subprocess
    outside = {outside!r}
    def mark(name, text=""):
        with open(f"{{outside}}/{{name}}.part", "w") as file:
            file.write(str(text))
        os.rename(f"{{outside}}/{{name}}.part", f"{{outside}}/{{name}}")
    def wait_for(name):
        while not os.path.exists(f"{{outside}}/{{name}}"):
            time.sleep(0.02)
    def end(status=0):
        note("end")
        os._exit(status)
{code}
"""


@dataclass(frozen=True)
class Trials:
    """A sweep under way.

    Attributes:
        ledger: of trials that keep one.
        outside: where trial 0 leaves its marks, beside its own folder.
    """

    cluster: FaultCluster
    store: Store
    sweep_id: str
    n_trials: int
    ledger: Path | None
    outside: Path

    @property
    def run_id(self) -> str:
        """The run of trial 0."""
        return self.store.trials.get(self.sweep_id, 0).run_id

    def await_mark(self, name: str) -> str:
        """Wait until trial 0 has left a mark; what it wrote there."""
        wait_until((self.outside / name).exists, f"the trial leaves the mark {name!r}", deadline_s=60 * STRETCH)
        return (self.outside / name).read_text()

    def allow(self, name: str) -> None:
        """Let trial 0 go on, which waits for this mark."""
        (self.outside / name).touch()

    def cancel(self) -> None:
        """Cancel the run of trial 0."""
        assert self.store.queue.request_cancel(self.run_id)

    def end(self, state: str, cause: str, *, n_attempts: int = 1) -> Row[Any]:
        """Wait for the end and check it; the last attempt of trial 0."""
        return self.settle(state, cause, n_attempts=n_attempts)[-1]

    def settle(self, state: str, cause: str, *, n_attempts: int | None = None) -> Sequence[Row[Any]]:
        """Wait for the end; check every invariant, state and cause of trial 0, and that the others finished. Its attempts, oldest first."""
        trials = self.cluster.wait_for_end(self.sweep_id)
        check(self.cluster, self.sweep_id, n_trials=self.n_trials, ledger=self.ledger)
        assert (trials[0]["state"], trials[0]["cause"]) == (state, cause), trials[0]
        assert [trial["state"] for trial in trials[1:]] == ["finished"] * (self.n_trials - 1)
        attempts = self.attempts()
        assert n_attempts is None or len(attempts) == n_attempts, attempts
        return attempts

    def attempts(self) -> Sequence[Row[Any]]:
        """Those of trial 0, oldest first."""
        return self.cluster.query("SELECT * FROM audit_attempts WHERE run_id = %(id)s ORDER BY attempt", id=self.run_id)

    def output(self, stream: str = "stdout") -> bytes:
        """What the record holds of trial 0's current attempt."""
        data, offset = bytearray(), 0
        while True:
            page = self.store.logs.read(self.run_id, stream=stream, offset=offset)
            if page.next_offset == offset:
                return bytes(data)
            data += page.data
            offset = page.next_offset


@dataclass(frozen=True)
class Site:
    """A cluster, its record, and a folder for marks."""

    cluster: FaultCluster
    store: Store
    outside: Path

    def submit(self, code: str, *, n_trials: int = 2, **keys: Any) -> Trials:
        """Submit trials that keep a ledger, of which number 0 runs `code` between its two entries.

        Args:
            code: Python, with `mark(name)`, `wait_for(name)`, `end(status)` and the ledger's own names at hand.
            keys: of the sweep file.
        """
        extra = _BAD.format(outside=str(self.outside), code=textwrap.indent(textwrap.dedent(code).strip(), "    "))
        project = self.cluster.ledger_project(n_trials=n_trials, extra=extra, **keys)
        return Trials(self.cluster, self.store, self.cluster.submit(project), n_trials, ledger_file(project), self.outside)

    def submit_program(self, text: str | None, *, n_trials: int = 1, files: tuple[tuple[str, str], ...] = (), **keys: Any) -> Trials:
        """Submit trials of a program or a `command` that keep no ledger, with executable files beside it."""
        sweep = write_project(self.outside / "project", text, limits={"trials": n_trials}, **keys)
        for name, content in files:
            (sweep.parent / name).write_text(content)
            (sweep.parent / name).chmod(0o755)
        return Trials(self.cluster, self.store, self.cluster.submit(sweep), n_trials, None, self.outside)


@contextmanager
def site_on(cluster: FaultCluster, outside: Path) -> Iterator[Site]:
    """A site on a cluster that runs; its store is closed in the end."""
    store = open_store(cluster.postgres.url)
    try:
        yield Site(cluster, store, outside)
    finally:
        store.close()


def is_alive(pid: str | int) -> bool:
    """Whether a process still runs."""
    state = process_state(int(pid))
    return state is not None and state[0] != "Z"
