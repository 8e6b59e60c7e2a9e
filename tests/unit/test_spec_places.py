"""Where a problem of a file is: anchors, line ends, long lines, what is not closed, and files that are none."""

import time
from pathlib import Path

import pytest

from sweeps.errors import SHOWN_WIDTH, SpecProblems
from sweeps.spec import load_sweep, parse_sweep

HEAD = "program: t.py\nmethod: random\n"
PARAMETERS = "parameters: {x: {value: 1}}\n"


def told(text: str) -> list[tuple[str, str]]:
    """(line:column, message) of everything that is wrong with a text."""
    with pytest.raises(SpecProblems) as caught:
        parse_sweep(text, "s.yaml", project_dir=None)
    return [(problem.place.removeprefix("s.yaml:"), problem.message) for problem in caught.value.problems]


@pytest.mark.parametrize(
    ("text", "place", "message"),
    [
        # Tabs, wherever they indent.
        (HEAD + "\tparameters: {}\n", "3:1", "a tab can't indent YAML"),
        (HEAD + "parameters:\n  x:\n  \tvalue: 1\n", "5:3", "a tab can't indent YAML"),
        # What is not closed.
        (HEAD + "parameters: {x: {value: 1}\n", "3:13", "not valid YAML: did not find expected ',' or '}' (while parsing a flow mapping)"),
        (
            HEAD + "parameters: {x: {value: 1}\nrun_cap: 3\n",
            "4:1",
            "not valid YAML: did not find expected ',' or '}' (while parsing a flow mapping that begins at 3:13)",
        ),
        (HEAD + "parameters:\n  x: {value: 'a}\n", "4:14", "not valid YAML: found unexpected end of stream (while scanning a quoted scalar)"),
        (HEAD + "parameters:\n  x: *nope\n", "4:6", "not valid YAML: found undefined alias"),
        # Documents.
        (HEAD + PARAMETERS + "---\nname: b\n", "4:1", "a second YAML document begins here; one file is one document"),
        ("---\n" + HEAD + PARAMETERS + "...\n---\nname: b\n", "6:1", "a second YAML document begins here; one file is one document"),
        # A byte order mark is no column, and a line ends as its editor ends it.
        ("\ufeffmetod: x\n" + HEAD + PARAMETERS, "1:1", "unknown key 'metod'"),
        ((HEAD + PARAMETERS + "metod: x\n").replace("\n", "\r\n"), "4:1", "unknown key 'metod'"),
        ((HEAD + PARAMETERS + "metod: x\n").replace("\n", "\r"), "4:1", "unknown key 'metod'"),
        # Keys that stand twice.
        (HEAD + PARAMETERS + "method: grid\n", "4:1", "'method' stands twice (first on line 2)"),
        (HEAD + "parameters:\n  x: {min: 0, max: 1, min: 0}\n", "4:23", "'min' stands twice (first on line 4)"),
    ],
)
def test_spec_place_is_where_the_editor_has_it(text: str, place: str, message: str) -> None:
    """Line and column count as an editor counts them."""
    assert told(text) == [(place, message)]


@pytest.mark.parametrize("text", ["---\n" + HEAD + PARAMETERS + "...\n", "\ufeff" + HEAD + PARAMETERS, (HEAD + PARAMETERS).replace("\n", "\r\n")])
def test_spec_file_may_have_marks_of_its_editor(text: str) -> None:
    """A document's ends, a byte order mark, and Windows line ends change nothing."""
    assert parse_sweep(text, "s.yaml", project_dir=None) == parse_sweep(HEAD + PARAMETERS, "s.yaml", project_dir=None)


def test_spec_place_of_what_an_anchor_brings_is_the_anchors() -> None:
    """A slip behind an anchor is told once, however often it is used; what is added beside it has its own line."""
    text = HEAD + "parameters:\n  x: &b\n    min: 0\n    max: 99999999999999999999\n  y: *b\n  z:\n    <<: *b\n    mx: 2\n"
    assert told(text) == [("6:10", "99999999999999999999 is too large for an integer (64 bits)"), ("10:5", "unknown key 'mx' in parameter 'z'")]


def test_spec_merged_keys_are_overridden_by_ones_own() -> None:
    """`<<` brings in what is not said beside it; of a list the first mapping wins."""
    text = HEAD + "parameters:\n  x: &b {min: 0, max: 1}\n  y: {<<: [*b, {max: 3, min: 2}], max: 2}\n"
    (_, parameter) = parse_sweep(text, "s.yaml", project_dir=None).parameters
    assert (parameter.name, parameter.axis) == ("y", (0, 2))


@pytest.mark.parametrize("text", [HEAD + "parameters: " + "[" * 3000 + "]" * 3000, HEAD + "parameters: " + "[" * 3000])
def test_spec_nested_brackets_are_pointed_at(text: str) -> None:
    """The caret is under the bracket that is too deep, in a window whose cut ends are marked."""
    with pytest.raises(SpecProblems) as caught:
        parse_sweep(text, "s.yaml", project_dir=None)
    head, line, caret = caught.value.problems[0].render().split("\n")
    assert head == "s.yaml:3:76: error: nested over 64 levels"
    shown = line.partition("| ")[2]
    assert (shown[0], shown[-1], len(shown)) == ("\u2026", "\u2026", SHOWN_WIDTH)
    assert line[caret.index("^")] == "["


def test_spec_window_of_a_long_line_holds_what_is_wrong() -> None:
    """Far to the right of a line, the caret is under the word all the same."""
    many = ", ".join(f"p{i}: {{value: 日本}}" for i in range(200))
    with pytest.raises(SpecProblems) as caught:
        parse_sweep(HEAD + f"parameters: {{{many}, bad: {{vale: 1}}}}\n", "s.yaml", project_dir=None)
    _, line, caret = caught.value.problems[0].render().split("\n")
    before = line[: line.index("vale")]
    assert caret.index("^") == sum(2 if char in "日本" else 1 for char in before)
    assert line.endswith("vale: 1}}")


def test_spec_file_of_another_kind_is_refused_at_once(tmp_path: Path) -> None:
    """50 MB are not read to say that they are too many; neither are bytes that are no text."""
    path = tmp_path / "weights.yaml"
    with path.open("wb") as file:
        file.truncate(50_000_000)
    began = time.monotonic()
    with pytest.raises(SpecProblems, match="the file is over 1 MB"):
        load_sweep(path)
    with pytest.raises(SpecProblems, match="the file is over 1 MB"):
        parse_sweep("x" * 50_000_000, "s.yaml", project_dir=None)
    assert time.monotonic() - began < 1
    path.write_text(HEAD, encoding="utf-16")
    with pytest.raises(SpecProblems, match=r"1:1: error: the file is not UTF-8"):
        load_sweep(path)
