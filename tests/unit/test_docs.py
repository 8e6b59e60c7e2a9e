"""The documentation is complete and current."""

import re
from dataclasses import fields

import pytest

from tests.support import generated_docs
from tracking import errors, states
from tracking.settings import Settings
from tracking.states import Cause

DOCS = generated_docs.ROOT / "docs"


@pytest.mark.parametrize("page", generated_docs.PAGES)
def test_docs_generated_page_is_current(page: str) -> None:
    """What lies in docs/ is what the code says today."""
    assert (DOCS / page).read_text(encoding="utf-8") == generated_docs.PAGES[page](), f"docs/{page} is behind the code; run `make docs`"


@pytest.mark.parametrize("name", [item.name for item in fields(Settings)])
def test_docs_tell_every_setting(name: str) -> None:
    """Each setting has its row and a meaning."""
    rows = [line for line in (DOCS / "settings.md").read_text(encoding="utf-8").splitlines() if f"`SWEEP_{name.upper()}`" in line]
    assert len(rows) == 1
    assert len(rows[0].split("|")[3].split()) > 2


def test_docs_tell_every_state_and_cause() -> None:
    """Each state, event and cause appears on the page of states."""
    text = (DOCS / "states.md").read_text(encoding="utf-8")
    kinds = (states.SweepState, states.TrialState, states.RunState, states.AttemptState, states.SweepEvent, states.RunEvent, Cause)
    assert [str(word) for kind in kinds for word in kind if f"`{word}`" not in text] == []


def test_docs_tell_every_error() -> None:
    """Each error class has a row, and a sentence that says what it is."""
    text = (DOCS / "errors.md").read_text(encoding="utf-8")
    kinds = generated_docs.error_classes()
    assert len(kinds) > 10
    assert [kind.__name__ for kind in kinds if f"`{kind.__name__}`" not in text or not kind.__doc__] == []


def test_docs_tree_of_errors_has_every_error() -> None:
    """The tree in `tracking.errors` shows each class below the one it derives from."""
    drawn = re.findall(r"^ {4}([│ ├└─]*)(\w+)(?=  |$)", errors.__doc__ or "", re.MULTILINE)
    path: list[str] = []
    parents: dict[str, str] = {}
    for branch, name in drawn:
        del path[len(branch) // 4 :]
        parents[name] = path[-1] if path else "Exception"
        path.append(name)
    assert parents == {kind.__name__: kind.__base__.__name__ for kind in generated_docs.error_classes() if kind.__base__ is not None}


@pytest.mark.parametrize(
    "word",
    [
        "experiment",
        "run",
        "sweep",
        "trial",
        "generation",
        "managed run",
        "attempt",
        "place, claim",
        "lease",
        "queue",
        "strategy",
        "prune",
        "snapshot",
        "metric point",
    ],
)
def test_docs_glossary_defines_the_words(word: str) -> None:
    """Every noun of the product has one meaning, written down."""
    assert f"| {word} |" in (DOCS / "glossary.md").read_text(encoding="utf-8")
