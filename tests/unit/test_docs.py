"""The documentation is complete and current."""

import inspect
import re
from dataclasses import fields

import click
import pytest

import sweeps
from sweeps import bounds, cli
from sweeps.bounds import RETRY_ENDS
from sweeps.cli import follow
from sweeps.command import MACROS, WORKER_MACROS
from sweeps.errors import SpecProblems
from sweeps.spec import REFUSED, SECTIONS, SERVED, parse_sweep
from sweeps.spec_parameters import KEYS
from tests.support import command_page, error_page, file_page, generated_docs
from tests.support.pages import DOCS
from tracking import errors, states
from tracking.settings import Settings
from tracking.states import Cause
from worker import surroundings


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
    """Each error class has its row, with a cause and something to do; so has each error code of the server."""
    text = (DOCS / "errors.md").read_text(encoding="utf-8")
    kinds = [kind for kind in error_page.error_classes() if kind.__name__ not in {"SweepError", "RecordError", "WorkerError"}]
    assert len(kinds) > 10
    assert [kind.__name__ for kind in kinds if f"\n| `{kind.__name__}` |" not in text or not kind.__doc__ or not error_page.advice(kind)] == []
    assert sorted(set(error_page.ADVICE) - {kind.__name__ for kind in kinds}) == []
    answered = {(kind.error_code, kind.http_status) for kind in kinds if kind.__module__.startswith(("tracking", "sweeps.api"))}
    assert [(code, status) for code, status in answered if str(status) not in error_page.CODES[code][0]] == []


def test_docs_tell_every_variable_of_a_trial() -> None:
    """Each variable that the worker sets for a trial has its row, and each that a sweep file may not set is named."""
    text = (DOCS / "trial-environment.md").read_text(encoding="utf-8")
    names = re.findall(r'"([A-Z_]+)":', inspect.getsource(surroundings.trial_variables))
    assert len(names) > 10
    assert [name for name in names if not re.search(rf"^\|[^|]*`{name}`", text, re.MULTILINE)] == []
    assert [name for name in (*bounds._RESERVED, *(f"{prefix}*" for prefix in bounds._RESERVED_PREFIXES)) if f"`{name}`" not in text] == []


def test_docs_tell_what_to_do_about_every_cause_and_wait() -> None:
    """Each cause of an end, and each word that `sweep why` has for a wait, has its row on the page of errors; the waits on that of commands too."""
    text = (DOCS / "errors.md").read_text(encoding="utf-8")
    assert list(error_page.CAUSES) == list(Cause)
    assert sorted(error_page.WAITS) == sorted(error_page.wait_words())
    assert [word for word in (*error_page.CAUSES, *error_page.WAITS) if f"\n| `{word}` |" not in text] == []
    why = (DOCS / "commands.md").read_text(encoding="utf-8").partition("### why")[2].partition("\n## ")[0]
    assert sorted(re.findall(r"^\| `(\w+)` \|", why, re.MULTILINE)) == sorted(error_page.WAITS)


def test_docs_tree_of_errors_has_every_error() -> None:
    """The tree in `tracking.errors` shows each class below the one it derives from."""
    drawn = re.findall(r"^ {4}([│ ├└─]*)(\w+)(?=  |$)", errors.__doc__ or "", re.MULTILINE)
    path: list[str] = []
    parents: dict[str, str] = {}
    for branch, name in drawn:
        del path[len(branch) // 4 :]
        parents[name] = path[-1] if path else "Exception"
        path.append(name)
    assert parents == {kind.__name__: kind.__base__.__name__ for kind in error_page.error_classes() if kind.__base__ is not None}


def test_docs_tell_every_exit_status() -> None:
    """The table of exit statuses has each one that an error or a command ends with, and no other."""
    rows = re.findall(r"^\| (\d+) \|", (DOCS / "commands.md").read_text(encoding="utf-8").partition("## Exit status")[2].partition("\n## ")[0], re.MULTILINE)
    of_commands = {value for module in (cli, follow) for name, value in vars(module).items() if name.startswith("EXIT_")}
    assert sorted(map(int, rows)) == sorted({0, *of_commands, *(kind.exit_status for kind in error_page.error_classes())})


def test_docs_tell_every_command_and_option() -> None:
    """Each command of click's tree has its row by hand and its section, and each option of it its name there."""
    text = (DOCS / "commands.md").read_text(encoding="utf-8")
    told = dict(re.findall(r"^### (sweep .+)\n((?:(?!^#).*\n)*)", text.partition(command_page.BEGIN)[2], re.MULTILINE))
    tree = dict(command_page.all_commands())
    assert sorted(told) == sorted(tree)
    assert [verb for verb in cli.VERBS if not any(path.split()[1] == verb for path in told)] == []
    by_hand = text.partition(command_page.BEGIN)[0]
    assert [path for path in tree if not re.search(rf"^\| `{path}[ `]", by_hand.replace("[start]", "start"), re.MULTILINE)] == []
    shown = {path: set(re.findall(r"(?<![\w-])--?[A-Za-z][\w-]*", section)) for path, section in told.items()}
    missing = [
        (path, name)
        for path, command in tree.items()
        for option in command.params
        if isinstance(option, click.Option) and option.name not in command_page.EVERYWHERE
        for name in option.opts
        if name not in shown[path]
    ]
    assert missing == []


def test_docs_tell_the_fields_of_every_json_answer() -> None:
    """Each command that has `--json` has its row with what it prints, and no other has one."""
    table = (DOCS / "commands.md").read_text(encoding="utf-8").partition("## JSON")[2].partition(command_page.BEGIN)[0]
    told = {word.partition(" --")[0] for cell in re.findall(r"^\| (`[^|]+) \|", table, re.MULTILINE) for word in re.findall(r"`([^`]+)`", cell)}
    having = {path.removeprefix("sweep ") for path, command in command_page.all_commands() if any("--json" in each.opts for each in command.params)}
    assert sorted(told) == sorted(having)


def test_docs_tell_all_of_the_python_interface() -> None:
    """Each name of `sweeps` is on the page, and the table of a sweep has each of its attributes and methods, and no other."""
    text = (DOCS / "python.md").read_text(encoding="utf-8")
    assert [name for name in sweeps.__all__ if not re.search(rf"\b{name}\b", text)] == []
    assert [name for name in re.findall(r"`sweeps\.(\w+)", text) if name not in sweeps.__all__] == []
    rows = re.findall(r"^\| (`.*?`) \| ", text.partition("## A sweep")[2].partition("The columns of")[0], re.MULTILINE)
    told = {name for row in rows for name in re.findall(r"`(\w+)", row)}
    attributes = set(re.findall(r"^ {4}(\w+): ", inspect.getdoc(sweeps.Sweep) or "", re.MULTILINE))
    assert sorted(told) == sorted(attributes | {name for name in vars(sweeps.Sweep) if not name.startswith("_")})


SWEEP_FILE = (DOCS / "sweep-file.md").read_text(encoding="utf-8")


def test_docs_example_of_the_sweep_file_is_valid() -> None:
    """What the page shows is taken as it stands, and shows every key but those that exclude each other."""
    example = re.findall(r"```yaml\n(.*?)```", SWEEP_FILE, re.DOTALL)[0]
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


def test_docs_reference_of_the_sweep_file_has_every_key() -> None:
    """Each key that the reader takes has its row in its section, and is either W&B's or ours."""
    text = (DOCS / "sweep-file-reference.md").read_text(encoding="utf-8")
    assert sorted({*file_page.WANDBS, *file_page.OURS} - {"metric.from"}) == sorted({*SERVED, "early_terminate"})
    assert not file_page.WANDBS & file_page.OURS
    tables = {
        title: re.findall(r"^\| `(\w+)` \|", body, re.MULTILINE) for title, body in re.findall(r"^##+ (.+)\n((?:(?!^#).*\n)*)", "## top\n" + text, re.MULTILINE)
    }
    top = re.findall(r"^\| `(\w+)` \|", text.partition("\n## ")[0], re.MULTILINE)
    assert sorted(top) == sorted({*SERVED, "early_terminate"})
    assert {name: sorted(tables[name]) for name in SECTIONS} == {name: sorted(keys.split()) for name, keys in SECTIONS.items()}
    assert sorted(tables["parameters"]) == sorted({key for keys in KEYS.values() for key in keys} | {"distribution", "parameters"})
    assert sorted(tables["Distributions"]) == sorted(KEYS)


def test_docs_tell_every_distribution_and_macro() -> None:
    """Each distribution has its row with the keys that it takes, each macro its row."""
    rows = dict(re.findall(r"^\| `(\w+)` \| (`[^|]*`) \| ", SWEEP_FILE.partition("## parameters")[2].partition("## command")[0], re.MULTILINE))
    assert {name: tuple(re.findall(r"`(\w+)`", keys)) for name, keys in rows.items()} == KEYS
    macros = re.findall(r"^\| `\$\{(.*?)\}` \|", SWEEP_FILE, re.MULTILINE)
    assert sorted(macros) == sorted((*MACROS, *WORKER_MACROS))


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
