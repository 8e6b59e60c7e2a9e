"""The documentation is complete and current."""

import re
from dataclasses import fields

import pytest

from sweeps.bounds import RETRY_ENDS
from sweeps.command import MACROS, READ_MACROS
from sweeps.errors import SpecProblems
from sweeps.spec import REFUSED, SERVED, parse_sweep
from sweeps.spec_parameters import KEYS
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


SWEEP_FILE = (DOCS / "sweep-file.md").read_text(encoding="utf-8")


def test_docs_example_of_the_sweep_file_is_valid() -> None:
    """What the page shows is taken as it stands, and shows every key but those that exclude each other."""
    (example,) = re.findall(r"```yaml\n(.*?)```", SWEEP_FILE, re.DOTALL)
    config = parse_sweep(example, "sweep.yaml", project_dir=None)
    assert (config.retry.n_max, config.retry.on, config.retry.delay_s, config.retry.delay_max_s) == (2, ("out_of_memory", "exit_75"), 10.0, 300.0)


def test_docs_tell_every_key_of_the_sweep_file() -> None:
    """Each key that is served has its row, in the file's own words; each that is refused is named."""
    rows = re.findall(r"^\| `(\w+)` \|", SWEEP_FILE.partition("## parameters")[0], re.MULTILINE)
    assert sorted(rows) == sorted(SERVED)
    assert [key for key in REFUSED if f"`{key}`" not in SWEEP_FILE] == []
    retry = re.findall(r"^\| `(\w+)` \|", SWEEP_FILE.partition("## retry")[2], re.MULTILINE)
    assert retry == ["max", "on", "delay", "delay_max"]
    assert [end for end in RETRY_ENDS if f"`{end}`" not in SWEEP_FILE] == []


def test_docs_tell_every_distribution_and_macro() -> None:
    """Each distribution has its row with the keys that it takes, each macro its row."""
    rows = dict(re.findall(r"^\| `(\w+)` \| (`[^|]*`) \| ", SWEEP_FILE.partition("## parameters")[2].partition("## command")[0], re.MULTILINE))
    assert {name: tuple(re.findall(r"`(\w+)`", keys)) for name, keys in rows.items()} == KEYS
    macros = re.findall(r"^\| `\$\{(.*?)\}` \|", SWEEP_FILE, re.MULTILINE)
    assert sorted(macros) == sorted((*MACROS, *READ_MACROS))


def test_docs_errors_of_the_sweep_file_are_what_is_told() -> None:
    """The page's errors are printed by the line that they show, character for character."""
    (shown,) = re.findall(r"```\n(sweep.yaml:.*?)```", SWEEP_FILE, re.DOTALL)
    line = next(line.partition("| ")[2] for line in shown.splitlines() if " | retry" in line)
    with pytest.raises(SpecProblems) as caught:
        parse_sweep(f"program: t.py\nmethod: random\nparameters:\n  x: {{min: 0.0, max: 1.0}}\n{line}\n", "sweep.yaml", project_dir=None)
    assert str(caught.value) == shown.rstrip("\n")


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
