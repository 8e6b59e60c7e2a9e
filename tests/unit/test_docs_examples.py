"""What the pages tell people to write, type and follow: sweep files that are taken, commands that exist, links that lead somewhere."""

import inspect
import re
import shlex
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Final, NamedTuple

import click
import pytest
import yaml

from sweeps.cli import sweep
from sweeps.mlproject import read_project
from sweeps.spec import SERVED, parse_sweep
from tests.support.pages import DOCS, ROOT, Block, blocks, commands, pages
from tracking.settings import Settings
from worker import surroundings

PAGES: Final = pages()
BLOCKS: Final = [block for page in PAGES for block in blocks(page)]
YAML_BLOCKS: Final = [block for block in BLOCKS if block.language == "yaml"]
LINK: Final = r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)"
FOR_TESTS: Final = {"SWEEP_BENCH_FILTERED", "SWEEP_BENCH_RUNS", "SWEEP_BROKEN", "SWEEP_TEST_BROKEN", "SWEEP_TEST_SEED"}
# What a part of a sweep file needs beside it, to be a whole one.
WHOLE: Final = {"method": "random", "program": "train.py", "parameters": {"x": {"min": 0.0, "max": 1.0}}}


def place_of(path: Path) -> str:
    """`docs/page.md`."""
    return str(path.relative_to(ROOT))


class Typed(NamedTuple):
    """Words of a page that mean something to our programs."""

    place: str
    words: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.place} {' '.join(self.words)}"


# -- files -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("block", YAML_BLOCKS, ids=lambda block: block.place)
def test_docs_yaml_block_is_taken_by_our_readers(block: Block, tmp_path: Path) -> None:
    """A block of YAML is an MLproject, a sweep file, or a part of one that with a script and a parameter is a whole one."""
    content = yaml.safe_load(block.text)
    if "entry_points" in content:
        (tmp_path / "MLproject").write_text(block.text, encoding="utf-8")
        # A file that it names may be anywhere; that the text can be read is what counts here.
        problems = [
            problem for problem in read_project(tmp_path, needs_environment=False).source.problems if not re.search("no file|not there", problem.message)
        ]
        assert problems == []
        return
    beside_project = "program" not in content and any(each.filename == "MLproject" or "MLproject" in each.text for each in blocks(block.page))
    added = {key: value for key, value in WHOLE.items() if key not in content and not (key == "method" and "name" in content.get("strategy", {}))}
    if "entry_point" in content or beside_project or "command" in content:
        added.pop("program", None)
        named = {"main", "train", *content.get("parameters", {}).get("entry_point", {}).get("values", [])}
        (tmp_path / "MLproject").write_text(yaml.safe_dump({"entry_points": {name: {"command": "python t.py"} for name in named}}), encoding="utf-8")
    text = block.text + (yaml.safe_dump(added) if added else "")
    parse_sweep(text, block.place, project_dir=tmp_path if "program" not in (content | added) else None)


def inline_parts() -> list[Typed]:
    """Parts of sweep files within running text: `x: {min: 0.1, max: 2.5}` and `metric: {goal: maximize}`."""
    found = [
        (page, part) for page in PAGES if page.name.startswith("coming-from") for part in re.findall(r"`(\w+: \{[^`]+\})`", page.read_text(encoding="utf-8"))
    ]
    return [Typed(place_of(page), (part,)) for page, part in found if "..." not in part]


@pytest.mark.parametrize("part", inline_parts(), ids=str)
def test_docs_inline_part_of_a_sweep_file_is_taken(part: Typed) -> None:
    """A key with its value, shown in a sentence or a table, is a parameter or a key that is served."""
    text = part.words[0]
    ((key, value),) = yaml.safe_load(text).items()
    if key == "metric" and "name" not in value:
        text = text.replace("{", "{name: loss, ", 1)
    replaced = {"strategy": "method"}.get(key, key) if key in SERVED else "parameters"
    beside = {name: each for name, each in {**WHOLE, "metric": {"name": "loss"}}.items() if name not in (key, replaced)}
    parse_sweep(yaml.safe_dump(beside) + (text if key in SERVED else f"parameters: {{{text}}}"), part.place, project_dir=None)


def test_docs_have_sweep_files_to_check() -> None:
    """The test above has something to look at, on the pages that matter most."""
    found = {place_of(block.page) for block in YAML_BLOCKS}
    assert {"README.md", "docs/sweep-file.md", "docs/coming-from-wandb.md", "docs/coming-from-mlflow-projects.md"} <= found


# -- commands ----------------------------------------------------------------------------------------------------------


def simple_commands(line: str) -> Iterator[list[str]]:
    """The commands of a line of shell, as words: between `|`, `&&`, `;` and within `$(...)`."""
    for part in re.split(r"\$\(|\)|\|\||&&|[;|]", re.sub(r"(^|\s)#.*", "", line)):
        words = shlex.split(part.replace('"', " ").replace("'", " "))
        while words and re.fullmatch(r"[A-Z_][A-Z0-9_]*=.*|do|then", words[0]):
            words.pop(0)
        if words:
            yield words


def shell_lines() -> Iterator[tuple[str, str]]:
    """(place, line) of everything that a page shows as typed."""
    for block in BLOCKS:
        if block.language == "sh":
            yield from ((block.place, line) for line in block.text.replace("\\\n", " ").splitlines())
        elif block.language == "console":
            yield from ((block.place, command.line) for command in commands(block))
        else:
            yield from ((block.place, line[2:]) for line in block.text.splitlines() if line.startswith("$ "))


def inline_commands(page: Path) -> Iterator[str]:
    """`sweep ...` between backticks in running text; `A|B` stands for either, and is looked at as A."""
    text = re.sub(r"^( *)```.*?^\1```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    for found in re.findall(r"`((?:[\w./]+/)?sweep [^`\n]+)`", text):
        yield re.sub(r"[\[\]]", "", found.replace("\\|", "|"))


def typed() -> list[Typed]:
    """Every command of `sweep` and `make` on the pages."""
    found = [Typed(place, tuple(words)) for place, line in shell_lines() for words in simple_commands(line)]
    found += [Typed(place_of(page), tuple(re.sub(r"(?<=[A-Z\]])\|\S+", "", line).split())) for page in PAGES for line in inline_commands(page)]
    return [each for each in found if each.words[0].rpartition("/")[2] in {"sweep", "make"}]


def options(command: click.Command) -> set[str]:
    """What a command takes; `sweep worker` takes what `sweep worker start` does."""
    own = {name for parameter in command.params if isinstance(parameter, click.Option) for name in parameter.opts} | {"-h", "--help", "-q", "--quiet"}
    start = command.commands.get("start") if isinstance(command, click.Group) and command is not sweep else None
    return own | options(start) if start is not None else own


def why_not(words: tuple[str, ...]) -> str:
    """What is wrong with a command of ours; empty if nothing is."""
    if words[1:2] == ("help",):
        words = (words[0], *words[2:], "--help")
    command: click.Command = sweep
    context = click.Context(sweep, info_name="sweep")
    for word in words[1:]:
        name = word.partition("=")[0].rstrip(",.:")
        if word.startswith("-") and word != "-":
            if name not in options(command):
                return f"{command.name} has no {name}"
        elif isinstance(command, click.Group) and re.fullmatch(r"[a-z]+", word):
            inner = command.get_command(context, word)
            if inner is None and (command is sweep or not command.invoke_without_command):
                return f"{command.name} has no {word}"
            command = inner or command
    return ""


def test_docs_commands_exist_with_their_options() -> None:
    """Each `sweep ...` on a page, in a block or within a sentence, names a verb there is and options that it has."""
    ours = [each for each in typed() if each.words[0].endswith("sweep")]
    assert len(ours) > 100
    assert [f"{each}: {why}" for each in ours if (why := why_not(each.words))] == []


@pytest.mark.parametrize(
    ("line", "is_right"),
    [
        ("sweep run f.yaml", True),
        ("sweep worker drain w --undo", True),
        ("sweep help run", True),
        ("sweep help launch", False),
        ("sweep launch f.yaml", False),
        ("sweep run f --parralel 3", False),
        ("sweep db migrate", False),
    ],
)
def test_docs_command_check_tells_right_from_wrong(line: str, *, is_right: bool) -> None:
    """A verb, a verb below a verb, or an option that is not there is noticed."""
    assert (why_not(tuple(line.split())) == "") is is_right


def test_docs_options_in_the_tables_of_commands_are_those_of_their_command() -> None:
    """In the tables by hand, each option in a command's row is one that it has."""
    text = (DOCS / "commands.md").read_text(encoding="utf-8").partition("## JSON")[0]
    wrong = []
    for shown, meaning in re.findall(r"^\| `(sweep [^`]+)` \| (.+) \|$", text, re.MULTILINE):
        for option in re.findall(r"`(-{1,2}[a-z][\w-]*)(?![\w=-])", meaning.replace("`/`", "` `")):
            words = [word for word in re.sub(r"[\[\]]", "", shown.partition("\\|")[0]).split() if word != "start"]
            if why := why_not((*words, option)):
                wrong.append(why)
    assert wrong == []


def test_docs_targets_of_make_exist() -> None:
    """Each `make ...` on a page is a target of the Makefile."""
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    named = {(each.place, each.words[1]) for each in typed() if each.words[0] == "make"}
    named |= {(place_of(page), found) for page in PAGES for found in re.findall(r"`make ([a-z]+)", page.read_text(encoding="utf-8"))}
    assert len(named) > 5
    assert sorted((place, target) for place, target in named if target not in targets) == []


# -- names -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES, ids=place_of)
def test_docs_name_files_tests_and_settings_that_are_there(page: Path) -> None:
    """A file, a test or a variable that a page names between backticks exists under that name."""
    text = page.read_text(encoding="utf-8")
    files = re.findall(r"`((?:tracking|sweeps|scheduler|worker|tests|deploy|docs|examples)/[\w./-]+)`", text)
    tests = [(next((ROOT / "tests").rglob(file), page), name) for file, name in re.findall(r"`(test_\w+\.py)::(test_\w+)`", text)]
    ours = {f"SWEEP_{item.name.upper()}" for item in fields(Settings)} | set(re.findall(r'"(SWEEP_[A-Z_]+)":', inspect.getsource(surroundings)))
    variables = set(re.findall(r"`(SWEEP_[A-Z_]*[A-Z])\b", text)) - ours - FOR_TESTS
    assert [file for file in files if not (ROOT / file).exists()] == []
    assert [name for path, name in tests if f"def {name}(" not in path.read_text(encoding="utf-8")] == []
    assert sorted(variables) == []


@pytest.mark.parametrize("block", [block for block in BLOCKS if block.language == "python"], ids=lambda block: block.place)
def test_docs_python_block_is_python(block: Block) -> None:
    """What a page shows as a program can be compiled."""
    compile(block.text, block.place, "exec")


# -- links -------------------------------------------------------------------------------------------------------------


def anchors(page: Path) -> set[str]:
    """What may stand behind `#`: the headings, as they are turned into anchors when a page is shown."""
    text = re.sub(r"^( *)```.*?^\1```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    found: list[str] = []
    for heading in re.findall(r"^#+ (.+)$", text, re.MULTILINE):
        slug = re.sub(r"[^\w -]", "", re.sub(LINK, "", heading).strip().lower()).replace(" ", "-")
        found.append(f"{slug}-{found.count(slug)}" if slug in found else slug)
    return set(found)


@pytest.mark.parametrize("page", PAGES, ids=place_of)
def test_docs_links_lead_somewhere(page: Path) -> None:
    """Each relative link names a file or folder that is there, and an anchor that it has."""
    text = re.sub(r"^( *)```.*?^\1```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    dead = []
    for target in re.findall(LINK, text):
        path, _, anchor = target.partition("#")
        if re.match(r"[a-z]+:", target):
            continue
        goal = (page.parent / path).resolve() if path else page
        if not goal.exists() or (anchor and anchor not in anchors(goal)):
            dead.append(target)
    assert dead == []


def test_docs_index_has_every_page() -> None:
    """docs/README.md leads to every page, and the README to it."""
    linked = {(DOCS / target.partition("#")[0]).resolve() for target in re.findall(LINK, (DOCS / "README.md").read_text(encoding="utf-8"))}
    assert sorted(place_of(page) for page in DOCS.glob("*.md") if page.resolve() not in linked and page.name != "README.md") == []
    assert "(docs/README.md" in (ROOT / "README.md").read_text(encoding="utf-8")
