"""The pages of docs/ that are written from the code. `make docs` writes them anew; of commands.md, what stands below its mark.

A test compares what lies in docs/ with what these functions render, so a page can't fall behind.
"""

import inspect
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, Final, NamedTuple

from sweeps.bounds import RETRY_ENDS
from tests.support.command_page import render_commands
from tests.support.error_page import CAUSES, render_errors
from tests.support.file_page import render_file_reference
from tests.support.markdown import table
from tests.support.mlflow_differences import render as render_mlflow_differences
from tests.support.pages import DOCS
from tracking import states
from tracking.records import Retry
from tracking.settings import PREFIX, Settings
from tracking.states import Cause, Move

ROOT: Final = DOCS.parent


class LifeCycle(NamedTuple):
    """One table of moves, and how its section reads."""

    title: str
    first: str
    moves: Mapping[Any, Move]
    final: Collection[str]
    note: str


_LIFE_CYCLES: Final = (
    LifeCycle("Sweep", "active", states.SWEEP_MOVES, states.FINAL_SWEEP_STATES, "One that has ended becomes active again by `extend` or `retry`."),
    LifeCycle(
        "Trial",
        "open",
        states.TRIAL_MOVES,
        states.FINAL_TRIAL_STATES,
        "A retry by hand reopens a failed or cancelled trial as a new generation, told anew.",
    ),
    LifeCycle(
        "Run (managed)",
        "queued",
        states.RUN_MOVES,
        states.FINAL_RUN_STATES,
        "Cancel and prune are requests in columns; a process that ended before its stop was sent keeps its true outcome. Final states never reopen.",
    ),
    LifeCycle("Attempt", "running", states.ATTEMPT_MOVES, states.FINAL_ATTEMPT_STATES, "One try at a run by one worker. Final states never reopen."),
)


def render_states() -> str:
    """docs/states.md: a diagram and a table for each life cycle, and the causes of ends."""
    parts = [
        "# States\n",
        "Generated from `tracking/states.py` by `make docs`. Every move is one guarded `UPDATE` and appends one row to `events` in the same transaction.\n",
    ]
    for title, first, moves, final, note in _LIFE_CYCLES:
        parts += [f"## {title}\n", note + "\n", _diagram(first, moves, final), _moves_table(moves)]
    parts += ["## MLflow's status\n", table(("state", "status"), [(f"`{state}`", f"`{status}`") for state, status in states.MLFLOW_STATUS.items()])]
    causes = [(f"`{cause}`", meaning, "the machinery" if cause.is_machinery else "", _tried_again(cause)) for cause, (meaning, _) in CAUSES.items()]
    parts += [
        "## Causes\n",
        (
            "Why a run or attempt ended. What the machinery is to blame for never spends the user's retries, nor the other way round:"
            " see [retry](sweep-file.md#retry). `requeue` is the move to another attempt."
            " What to do about each: see [errors](errors.md#why-a-trial-or-sweep-ended).\n"
        ),
        table(("cause", "meaning", "to blame", "tried again"), causes),
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
            table(("variable", "default", "meaning"), rows),
        ]
    )


PAGES: Final[Mapping[str, Callable[[], str]]] = {
    "states.md": render_states,
    "settings.md": render_settings,
    "errors.md": render_errors,
    "sweep-file-reference.md": render_file_reference,
    "commands.md": render_commands,
    "mlflow-differences.md": render_mlflow_differences,
}


def _diagram(first: str, moves: Mapping[Any, Move], final: Collection[str]) -> str:
    lines = ["```mermaid", "stateDiagram-v2", f"    [*] --> {first}"]
    lines += [f"    {state} --> {move.to}: {event}" for event, move in moves.items() for state in sorted(move.from_)]
    lines += [f"    {state} --> [*]" for state in sorted(final)]
    return "\n".join([*lines, "```\n"])


def _moves_table(moves: Mapping[Any, Move]) -> str:
    rows = [(f"`{event}`", ", ".join(f"`{state}`" for state in sorted(move.from_)), f"`{move.to}`") for event, move in moves.items()]
    return table(("event", "from", "to"), rows)


def _attribute_docs(kind: type) -> dict[str, str]:
    """The `Attributes:` section of a Google-style docstring, by name."""
    section = (inspect.getdoc(kind) or "").partition("Attributes:")[2]
    return {name: " ".join(text.split()) for name, text in re.findall(r"^ {4}(\w+): (.+?)(?=^ {4}\w+: |\Z)", section, re.MULTILINE | re.DOTALL)}


def _default_of(name: str) -> str:
    if name == "home":
        return "`~/.sweep`"
    default = getattr(Settings(home=Path("/")), name)
    return f"`{default:g}`" if isinstance(default, float) else f"`{default}`" if default != "" else ""


def main() -> None:
    """Write every generated page."""
    for name, render in PAGES.items():
        (DOCS / name).write_text(render(), encoding="utf-8")


if __name__ == "__main__":
    main()
