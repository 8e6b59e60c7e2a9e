"""The count of what was broken on purpose: a pytest plugin that writes and prints a table of faults, times injected, invariants held."""

from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import pytest

_PROPERTY: Final = "fault"


class Faults:
    """What one test has injected."""

    def __init__(self, item: pytest.Item) -> None:
        self._item = item

    def record(self, name: str, times: int = 1) -> None:
        """Count a fault that was injected just now."""
        self._item.user_properties.append((_PROPERTY, (name, times)))


@dataclass
class _Row:
    n_times: int = 0
    held: set[str] = field(default_factory=set)
    broken: set[str] = field(default_factory=set)


class FaultTable:
    """Gathers what tests record, and how they end: a test that fails has seen an invariant broken.

    Attributes:
        notes: more to say below the table, in Markdown.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._rows: defaultdict[str, _Row] = defaultdict(_Row)
        self._failed: set[str] = set()
        self.notes: list[str] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """After the last phase of a test everything is known of it."""
        if report.failed:
            self._failed.add(report.nodeid)
        if report.when != "teardown":
            return
        for name, value in report.user_properties:
            if name == _PROPERTY and isinstance(value, tuple | list):
                row = self._rows[str(value[0])]
                row.n_times += int(value[1])
                (row.broken if report.nodeid in self._failed else row.held).add(report.nodeid)

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Print the table, and keep it."""
        if not self._rows:
            return
        self._file.parent.mkdir(exist_ok=True)
        self._file.write_text(self.text(), encoding="utf-8")
        terminalreporter.section("faults")
        terminalreporter.write_line(self.text())
        terminalreporter.write_line(f"Kept in {self._file}.")

    def text(self) -> str:
        """The table, in Markdown."""
        lines = ["| fault | times injected | tests | invariants held |", "|---|---:|---:|---|"]
        for name, row in sorted(self._rows.items()):
            n_tests = len(row.held | row.broken)
            lines.append(f"| {name} | {row.n_times} | {n_tests} | {f'NO, in {len(row.broken)}' if row.broken else 'yes'} |")
        return "\n".join([*lines, *(f"\n{note}" for note in self.notes)]) + "\n"
