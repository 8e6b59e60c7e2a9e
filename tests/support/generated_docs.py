"""The pages of docs/ that are written from the code: states, settings, errors. `make docs` writes them anew.

A test compares what lies in docs/ with what these functions render, so a page can't fall behind.
"""

import ast
import importlib
import inspect
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, Final, NamedTuple

from sweeps.bounds import RETRY_ENDS
from tracking import states
from tracking.errors import SweepError
from tracking.records import Retry
from tracking.settings import PREFIX, Settings
from tracking.states import Cause, Move

ROOT: Final = Path(__file__).resolve().parents[2]
PACKAGES: Final = ("tracking", "sweeps", "scheduler", "worker")

Row = tuple[str, ...]


class LifeCycle(NamedTuple):
    """One table of moves, and how its section reads."""

    title: str
    first: str
    moves: Mapping[Any, Move]
    final: Collection[str]
    note: str


_LIFE_CYCLES: Final = (
    LifeCycle("Sweep", "active", states.SWEEP_MOVES, states.FINAL_SWEEP_STATES, "A finished sweep becomes active again by `extend`."),
    LifeCycle("Trial", "open", states.TRIAL_MOVES, states.FINAL_TRIAL_STATES, "A retry by hand reopens a failed trial as a new generation, told anew."),
    LifeCycle(
        "Run (managed)",
        "queued",
        states.RUN_MOVES,
        states.FINAL_RUN_STATES,
        "Cancel and prune are requests in columns; a process that ended before its stop was sent keeps its true outcome. Final states never reopen.",
    ),
    LifeCycle("Attempt", "running", states.ATTEMPT_MOVES, states.FINAL_ATTEMPT_STATES, "One try at a run by one worker. Final states never reopen."),
)

_CAUSES: Final[Mapping[Cause, str]] = {
    Cause.COMPLETED: "It ended by itself, with exit status 0, and has its objective.",
    Cause.NO_OBJECTIVE: "It ended well, and never logged the metric that the sweep asks for, or only NaN.",
    Cause.PRUNED: "It was stopped early because it would not win.",
    Cause.CANCELLED: "Somebody asked for the stop.",
    Cause.EXIT_STATUS: "Its code ended with an exit status other than 0.",
    Cause.SIGNAL: "A signal that we did not send ended it.",
    Cause.OUT_OF_MEMORY: "It went over its memory limit.",
    Cause.TIMED_OUT: "It ran longer than `limits.trial_time`.",
    Cause.LOST: "Its worker fell silent for too long, or lost sight of it.",
    Cause.ENVIRONMENT: "Its Python environment could not be built, or nothing can be started with its variables, limits or patterns.",
    Cause.IMAGE: "Its container image is not there.",
    Cause.CODE: "Its code could not be fetched or unpacked.",
    Cause.LAUNCH: "The worker could not start it, or its disk was full.",
    Cause.OVER_BUDGET: "A limit of the sweep file was reached (`limits.time`, `limits.failures`).",
    Cause.STOPPED: "The sweep was stopped by hand; what ran could end.",
    Cause.SEARCH_FAILED: "The search itself could not go on; the sweep's detail says why.",
}


def render_states() -> str:
    """docs/states.md: a diagram and a table for each life cycle, and the causes of ends."""
    parts = [
        "# States\n",
        "Generated from `tracking/states.py` by `make docs`. Every move is one guarded `UPDATE` and appends one row to `events` in the same transaction.\n",
    ]
    for title, first, moves, final, note in _LIFE_CYCLES:
        parts += [f"## {title}\n", note + "\n", _diagram(first, moves, final), _moves_table(moves)]
    parts += ["## MLflow's status\n", _table(("state", "status"), [(f"`{state}`", f"`{status}`") for state, status in states.MLFLOW_STATUS.items()])]
    causes = [(f"`{cause}`", meaning, "the machinery" if cause.is_machinery else "", _tried_again(cause)) for cause, meaning in _CAUSES.items()]
    parts += [
        "## Causes\n",
        (
            "Why a run or attempt ended. What the machinery is to blame for never spends the user's retries, nor the other way round:"
            " see [retry](sweep-file.md#retry). `requeue` is the move to another attempt.\n"
        ),
        _table(("cause", "meaning", "to blame", "tried again"), causes),
    ]
    return "\n".join(parts)


def _tried_again(cause: Cause) -> str:
    """On whose budget an end gets another attempt, if it can."""
    if cause.is_machinery:
        return "`SWEEP_INFRA_RETRIES`"
    if cause in Retry().on:
        return "`retry.max`"
    return "`retry.max`, if `retry.on` names it" if cause in RETRY_ENDS else ""


def render_settings() -> str:
    """docs/settings.md: every setting with its variable, default and meaning."""
    meanings = _attribute_docs(Settings)
    rows = [(f"`{PREFIX}{item.name.upper()}`", _default_of(item.name), meanings[item.name]) for item in fields(Settings)]
    return "\n".join(
        [
            "# Settings\n",
            (
                "Generated from `tracking/settings.py` by `make docs`. Every setting is an environment variable, read once when a program starts."
                " Names that end in `_S` are seconds, in `_BYTES` bytes. An empty variable counts as unset.\n"
            ),
            _table(("variable", "default", "meaning"), rows),
        ]
    )


def render_errors() -> str:
    """docs/errors.md: every error a person may see."""
    rows = [
        (f"`{kind.__name__}`", f"`{kind.__module__}`", str(kind.exit_status), str(kind.http_status), f"`{kind.error_code}`", _first_sentence(kind), kind.hint)
        for kind in error_classes()
    ]
    return "\n".join(
        [
            "# Errors\n",
            (
                "Generated by `make docs`. The command line prints the message and the hint and exits with the status; the server answers the HTTP status with"
                " `error_code`. A traceback means a bug.\n"
            ),
            _table(("error", "module", "exit", "HTTP", "error_code", "meaning", "hint"), rows),
        ]
    )


PAGES: Final = {"states.md": render_states, "settings.md": render_settings, "errors.md": render_errors}


def error_classes() -> list[type[SweepError]]:
    """`SweepError` and every class that derives from it in the four packages, in order of the source."""
    defined: list[tuple[str, str, set[str]]] = []
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            module = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
            defined += [(module, name, bases) for name, bases in _classes_of(path)]
    known = {"SweepError"}
    while grown := {name for _, name, bases in defined if bases & known} - known:
        known |= grown
    found = [getattr(importlib.import_module(module), name, None) for module, name, _ in defined if name in known]
    return [kind for kind in found if isinstance(kind, type) and issubclass(kind, SweepError)]


def _classes_of(path: Path) -> Iterator[tuple[str, set[str]]]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ClassDef):
            yield node.name, {ast.unparse(base).rpartition(".")[2] for base in node.bases}


def _diagram(first: str, moves: Mapping[Any, Move], final: Collection[str]) -> str:
    lines = ["```mermaid", "stateDiagram-v2", f"    [*] --> {first}"]
    lines += [f"    {state} --> {move.to}: {event}" for event, move in moves.items() for state in sorted(move.from_)]
    lines += [f"    {state} --> [*]" for state in sorted(final)]
    return "\n".join([*lines, "```\n"])


def _moves_table(moves: Mapping[Any, Move]) -> str:
    rows = [(f"`{event}`", ", ".join(f"`{state}`" for state in sorted(move.from_)), f"`{move.to}`") for event, move in moves.items()]
    return _table(("event", "from", "to"), rows)


def _table(head: Row, rows: Sequence[Row]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    lines += ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def _attribute_docs(kind: type) -> dict[str, str]:
    """The `Attributes:` section of a Google-style docstring, by name."""
    section = (inspect.getdoc(kind) or "").partition("Attributes:")[2]
    return {name: " ".join(text.split()) for name, text in re.findall(r"^ {4}(\w+): (.+?)(?=^ {4}\w+: |\Z)", section, re.MULTILINE | re.DOTALL)}


def _default_of(name: str) -> str:
    if name == "home":
        return "`~/.sweep`"
    default = getattr(Settings(home=Path("/")), name)
    return f"`{default:g}`" if isinstance(default, float) else f"`{default}`" if default != "" else ""


def _first_sentence(kind: type) -> str:
    return (inspect.getdoc(kind) or "").partition("\n")[0]


def main() -> None:
    """Write every generated page."""
    for name, render in PAGES.items():
        (ROOT / "docs" / name).write_text(render(), encoding="utf-8")


if __name__ == "__main__":
    main()
