"""MLproject: what is read of it, and that its commands become argument vectors that nobody can break out of."""

import re
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sweeps.command import TemplateCommand, build_argv
from sweeps.errors import SpecProblems
from sweeps.mlproject import find_mlproject, read_project
from sweeps.spec import load_project, load_sweep
from sweeps.spec_source import Item, Source
from sweeps.template import TemplateError, read_template, split_words
from tracking.records import Environment


class Commanded:
    """Something with a command."""

    def __init__(self, command: TemplateCommand) -> None:
        self.command = command


def write(folder: Path, text: str, name: str = "MLproject") -> Path:
    """A project folder."""
    (folder / name).write_text(text)
    return folder


def template(folder: Path, command: str, given_names: tuple[str, ...] = (), parameters: str = "{a: string}") -> tuple[TemplateCommand | None, list[str]]:
    """The template of a command, and what is wrong with it."""
    quoted = command.replace("'", "''")
    project = read_project(write(folder, f"entry_points:\n  main:\n    parameters: {parameters}\n    command: '{quoted}'\n"))
    entry = project.entry_point("main")
    assert entry is not None
    found = entry.template(project.source, given_names)
    return found, [problem.render() for problem in project.source.problems]


def argv(folder: Path, command: str, params: dict[str, Any], parameters: str = "{a: string}") -> tuple[str, ...]:
    """What would be run."""
    found, problems = template(folder, command, tuple(params), parameters)
    assert problems == []
    assert found is not None
    return build_argv(Commanded(found), params)


@pytest.mark.parametrize("name", ["MLproject", "mlproject", "MLPROJECT"])
def test_mlproject_is_found_in_any_case(tmp_path: Path, name: str) -> None:
    """As MLflow finds it."""
    write(tmp_path, "name: x\n", name)
    assert find_mlproject(tmp_path) == tmp_path / name
    assert read_project(tmp_path).name == "x"


@pytest.mark.parametrize(
    ("command", "params", "expected"),
    [
        ("python train.py --a {a}", {"a": "x y"}, ["python", "train.py", "--a", "x y"]),
        ("run --a={a}:{a}", {"a": 1e-5}, ["run", "--a=1e-05:1e-05"]),
        ("run '{a}'", {"a": "a b; id #"}, ["run", "a b; id #"]),
        ('run "{a}"', {"a": '"; id; "$(id)`id`'}, ["run", '"; id; "$(id)`id`']),
        ("run {a}", {"a": ""}, ["run", ""]),
        ("run {a}", {"a": "{a}"}, ["run", "{a}"]),
        ('run \'{"lr": {a}, "b": {}}\'', {"a": 3}, ["run", '{"lr": 3, "b": {}}']),
        ("run '{{\"lr\": {a}}}'", {"a": 3}, ["run", '{"lr": 3}']),
        ("run {{a}}", {"a": 3}, ["run", "{a}"]),
        ("run {{{a}}}", {"a": 3}, ["run", "{3}"]),
        ("run {}", {"a": 3}, ["run", "{}"]),
        ("run a\\ b 'c d' e\"f g\"h ''", {"a": 3}, ["run", "a b", "c d", "ef gh", ""]),
        ("run '$HOME' '`x`' '&&' '*'", {"a": 3}, ["run", "$HOME", "`x`", "&&", "*"]),
        ('run "\\$HOME" \\| a$', {"a": 3}, ["run", "$HOME", "|", "a$"]),
        ("run {a}", {"a": 1, "x": [1, 2], "y z": "--q"}, ["run", "1", "--x", "[1, 2]", "--y z", "--q"]),
        ("run {x}", {"a": 1, "x": 2}, ["run", "2"]),
        ("run --lr {learning rate} {b;id}", {"a": 1, "learning rate": 2, "b;id": 3}, ["run", "--lr", "2", "3"]),
        ("run {model.lr} {a}{aa}", {"a": 1, "aa": 2, "model.lr": 3}, ["run", "3", "12"]),
        ("run '${b}' '${a}'", {"a": 1}, ["run", "${b}", "$1"]),
        ("run {a}", {"a": "\\'\"$(id)\n{a}"}, ["run", "\\'\"$(id)\n{a}"]),
    ],
)
def test_mlproject_command_becomes_words(tmp_path: Path, command: str, params: dict[str, Any], expected: list[str]) -> None:
    """Split first, filled afterwards: values stay where they are put, braces of JSON survive."""
    assert argv(tmp_path, command, params) == tuple(expected)


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_mlproject_value_is_always_one_argument(value: str) -> None:
    """No value, however hostile, becomes more or less than its argument, quoted or not."""
    pieces = (("run",), ("", "a", ""), ("--a=", "a", ""))
    assert build_argv(Commanded(TemplateCommand(pieces, {}, ("a",))), {"a": value}) == ("run", value, f"--a={value}")


@given(st.lists(st.text(st.characters(exclude_categories=["Cs", "Cc"]))).filter(lambda words: bool(words) and "=" not in words[0]))
def test_mlproject_single_quotes_keep_everything(words: list[str]) -> None:
    """What stands in single quotes is passed as it is, as in a shell."""
    text = " ".join("'" + word.replace("'", "'\\''") + "'" for word in words)
    assert split_words(text) == words


def test_mlproject_doubled_braces_are_an_escape_also_beside_braces_that_mean_themselves() -> None:
    """JSON and an escaped name in one command: each stays what its author wrote."""
    assert read_template("""run '{"a": {a}}' {{b}} {{a}}""", ["a"]) == (("run",), ('{"a": ', "a", "}"), ("{b}",), ("{", "a", "}"))


@pytest.mark.parametrize(
    ("command", "fragment"),
    [
        ("python a.py && python b.py", "&&"),
        ("python a.py | tee log", "|"),
        ("python a.py > log", ">"),
        ("python a.py; ls", ";"),
        ("python a.py &", "&"),
        ("python a.py $HOME", "$HOME"),
        ("python a.py ${HOME}", "${HOME}"),
        ('python "$(id)"', "$(id)"),
        ("python `id`", "`"),
        ("python ~/a.py", "~/a.py"),
        ("FOO=1 python a.py", "FOO=1"),
        ("(python a.py)", "("),
    ],
)
def test_mlproject_command_that_needs_a_shell_is_refused(tmp_path: Path, command: str, fragment: str) -> None:
    """Pipes, variables and their like are told with their place, never passed on as words."""
    found, problems = template(tmp_path, command)
    assert found is None
    column = len("    command: '") + command.index(fragment) + 1
    assert problems[0].startswith(f"{tmp_path}/MLproject:4:{column}: error: the command needs a shell")
    assert problems[0].splitlines()[2].count("^") == len(fragment)


def test_mlproject_second_line_is_refused_and_folded_lines_are_not(tmp_path: Path) -> None:
    """A shell would run a second line by itself; a folded block is one line."""
    text = "entry_points:\n  main:\n    command: {}\n      python a.py\n      --x 1\n"
    assert _words(write(tmp_path, text.format(">"))) == (("python",), ("a.py",), ("--x",), ("1",))
    assert _words(write(tmp_path, text.format("|"))) is None
    assert _words(write(tmp_path, text.format("|").replace("a.py", "a.py \\"))) == (("python",), ("a.py",), ("--x",), ("1",))


def _words(folder: Path) -> tuple[tuple[str, ...], ...] | None:
    project = read_project(folder)
    entry = project.entry_point("main")
    assert entry is not None
    found = entry.template(project.source, ())
    return found.words if found else None


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("run {b}", "'{b}' names no parameter"),
        ("run {a.__class__}", "only '{a}' is understood as a placeholder, not '{a.__class__}'"),
        ("run {a:5}", "only '{a}' is understood as a placeholder, not '{a:5}'"),
        ("run {a!r}", "only '{a}' is understood as a placeholder, not '{a!r}'"),
        ("run { a }", "only '{a}' is understood as a placeholder, not '{ a }'"),
        ("run ${a}", "the command needs a shell for '${a}'"),
        ("~{a}", "the command needs a shell for a word that begins with '~'"),
        ('run "x', "a quote is not closed"),
        ("run 'x", "a quote is not closed"),
        ("run \\", "the command ends in a backslash"),
    ],
)
def test_mlproject_template_mistake_is_told(tmp_path: Path, command: str, message: str) -> None:
    """Unknown placeholders and attribute access are errors, not tracebacks."""
    _, problems = template(tmp_path, command)
    assert message in problems[0]


def test_mlproject_empty_words_are_an_error() -> None:
    """A command of spaces is no command."""
    with pytest.raises(TemplateError, match="empty"):
        split_words(" \n ")


@pytest.mark.parametrize(
    ("text", "place", "message"),
    [
        ("[]", "1:1", "an MLproject is a mapping, not a list"),
        ("nam: x\n", "1:1", "unknown key 'nam'"),
        ("conda_env: c.yaml\n", "1:1", "'conda_env' is not served by this version"),
        ("docker_env: {image: x}\n", "1:1", "'docker_env' is not served by this version"),
        ("python_env: no.yaml\n", "1:13", "there is no file 'no.yaml' in the project folder"),
        ("python_env: ../e.yaml\n", "1:13", "'python_env' must lie within the project folder"),
        ("entry_points: [a]\n", "1:15", "'entry_points' is a mapping of names to commands, not a list"),
        ("entry_points:\n  main:\n", "2:3", "entry point 'main' is a mapping with a 'command'"),
        ("entry_points:\n  main: {parameters: {a: float}}\n", "2:3", "entry point 'main' has no command"),
        ("entry_points:\n  main: {command: x, comand: y}\n", "2:22", "unknown key 'comand'"),
        ("entry_points:\n  main: {command: x, parameters: [a]}\n", "2:34", "'parameters' is a mapping of names to types, not a list"),
        ("entry_points:\n  main: {command: x, parameters: {a: flaot}}\n", "2:38", "parameter 'a' has no known type"),
        ("entry_points:\n  main: {command: x, parameters: {a: {type: float, default: x}}}\n", "2:61", "the default of 'a' is not a number"),
        ("entry_points:\n  main: {command: x, parameters: {a: {type: float, defualt: 1}}}\n", "2:52", "unknown key 'defualt'"),
        ("entry_points:\n  main: {command: x, parameters: {a: {type: int, default: 0.5}}}\n", "2:59", "the default of 'a' is not a whole number"),
        ("entry_points:\n  main: {command: x, parameters: {a: {type: integer, default: '7x'}}}\n", "2:63", "the default of 'a' is not a whole number"),
        ("entry_points:\n  main: {command: x, parameters: {a: {type: bool, default: 2}}}\n", "2:60", "the default of 'a' is neither true nor false"),
        ("entry_points:\n  main: {command: x, parameters: {a: {default: [1]}}}\n", "2:48", "the default of 'a' is a list, not one value"),
        ("entry_points:\n  main: {command: x, parameters: {a: {optional: maybe}}}\n", "2:49", "'optional' is true or false, not text"),
        ("entry_points:\n  main: {command: x, parameters: {'': float}}\n", "2:35", "a parameter needs a name"),
        ("entry_points:\n  main: {command: [x, y]}\n", "2:19", "the command of 'main' is one text, not a list"),
        ("entry_points:\n  main: {command: 7}\n", "2:19", "the command of 'main' is one text, not a number"),
        ("name: [x]\n", "1:7", "'name' is text, not a list"),
        ("python_env: {python: 3}\n", "1:13", "'python_env' is the name of a file, not a mapping"),
    ],
)
def test_mlproject_mistake_is_told_with_its_place(tmp_path: Path, text: str, place: str, message: str) -> None:
    """Where MLflow shows a traceback or nothing, each mistake has a line and a column."""
    found = read_project(write(tmp_path, text)).source.problems
    assert [(problem.place, problem.message) for problem in found] == [(f"{tmp_path}/MLproject:{place}", message)]


@pytest.mark.parametrize(
    "text",
    [
        "name: x\nentry_points:\n",
        "name:\npython_env:\nconda_env: null\ndocker_env: ~\n",
        "entry_points:\n  main:\n    parameters:\n    command: x\n",
        "entry_points:\n  main:\n    parameters: {a: , b: null, c: {}, d: {type: }}\n    command: x {a} {b} {c} {d}\n",
    ],
)
def test_mlproject_may_leave_sections_empty(tmp_path: Path, text: str) -> None:
    """Keys without content are no mistakes, wherever MLflow shows a traceback; a parameter without a type is text."""
    project = read_project(write(tmp_path, text))
    assert project.source.problems == []
    assert {parameter.type for entry in project.entry_points.values() for parameter in entry.parameters} <= {"string"}


def test_mlproject_that_is_empty_is_told(tmp_path: Path) -> None:
    """An empty file is a problem, not a traceback."""
    assert read_project(write(tmp_path, "")).source.problems[0].message == "the file is empty"


def test_mlproject_that_is_no_text_is_told(tmp_path: Path) -> None:
    """Bytes that are not UTF-8 are named with their place."""
    (tmp_path / "MLproject").write_bytes(b"name: \xff")
    with pytest.raises(SpecProblems, match="1:7: error: the file is not UTF-8"):
        read_project(tmp_path)


def test_mlproject_defaults_and_required_parameters(tmp_path: Path) -> None:
    """`default: null` is required, the text `None` and an empty text are defaults."""
    parameters = "{a: float, b: {type: string, default: null}, c: {type: string, default: None}, d: {default: ''}}"
    project = read_project(write(tmp_path, f"entry_points:\n  main:\n    parameters: {parameters}\n    command: run {{a}} {{b}} {{c}} {{d}}\n"))
    entry = project.entry_point("main")
    assert entry is not None
    assert entry.missing(["b"]) == ["a"]
    found = entry.template(project.source, ())
    assert found is not None
    assert build_argv(Commanded(found), {"a": 1, "b": 2}) == ("run", "1", "2", "None", "")


@pytest.mark.parametrize(
    ("command", "params", "expected"),
    [
        ("run --a {a} --b={b} x", {}, ["run", "x"]),
        ("run --a {a} --b={b} x", {"a": 0}, ["run", "--a", "0", "x"]),
        ("run --a {a} --b={b} x", {"b": ""}, ["run", "--b=", "x"]),
        ("run -v -- {a} x", {}, ["run", "-v", "--", "x"]),
        ("run --range {a}:{b} -q", {"a": 1}, ["run", "-q"]),
        ("run --k=1 {a}", {}, ["run", "--k=1"]),
        ("run {a} {b}", {"c": 1}, ["run", "--c", "1"]),
    ],
)
def test_mlproject_optional_parameter_takes_its_words_with_it(tmp_path: Path, command: str, params: dict[str, Any], expected: list[str]) -> None:
    """Not given, it leaves out the word that holds it and the option before that; MLflow has no such parameters."""
    assert argv(tmp_path, command, params, "{a: {type: int, optional: true}, b: {optional: true}}") == tuple(expected)


def test_mlproject_optional_parameter_is_not_missing(tmp_path: Path) -> None:
    """It may be left out; and it can't be the program."""
    project = read_project(write(tmp_path, "entry_points:\n  main:\n    parameters: {a: {optional: true}, b: {optional: false}}\n    command: '{a} x'\n"))
    entry = project.entry_point("main")
    assert entry is not None
    assert entry.missing([]) == ["b"]
    assert entry.template(project.source, ["b"]) is None
    assert [(problem.line, problem.column, problem.message) for problem in project.source.problems] == [(4, 15, "the program can't be the optional 'a'")]


@pytest.mark.parametrize(
    ("kind", "default", "message"),
    [
        ("path", "data/x.csv", ""),
        ("path", "data", ""),
        ("path", "./data/../data/x.csv", ""),
        ("path", "/mnt/elsewhere", ""),
        ("path", "data/y.csv", "names 'data/y.csv', which is not in the project folder"),
        ("path", "../x.csv", "lies outside the project folder, which is all that is sent"),
        ("path", "s3://bucket/x", "is a URI, and nothing is downloaded by this version"),
        ("path", "file:///mnt/x", "is a URI, and nothing is downloaded by this version"),
        ("uri", "s3://bucket/x", ""),
        ("uri", "models:/m/1", ""),
        ("uri", "out/new", ""),
        ("uri", "../x", "lies outside the project folder, which is all that is sent"),
        ("string", "../x", ""),
    ],
)
def test_mlproject_location_is_of_the_project_folder(tmp_path: Path, kind: str, default: str, message: str) -> None:
    """A relative `path` or `uri` names a file of the project, where the command starts; it is looked at only where its default is used."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "x.csv").touch()
    text = f"entry_points:\n  main:\n    parameters:\n      a: {{type: {kind}, default: '{default}'}}\n    command: run {{a}}\n"
    project = read_project(write(tmp_path, text))
    entry = project.entry_point("main")
    assert entry is not None
    assert entry.template(project.source, ["a"]) is not None
    assert project.source.problems == []
    found = entry.template(project.source, [])
    assert [(problem.line, problem.message) for problem in project.source.problems] == ([(4, f"the default of 'a' {message}")] if message else [])
    assert (build_argv(Commanded(found), {}) if found else None) == (None if message else ("run", default))


@pytest.mark.parametrize(
    ("kind", "default"),
    [("float", "1e-5"), ("float", "inf"), ("double", "3"), ("int", "3"), ("integer", "'3'"), ("bool", "true"), ("boolean", "'no'"), ("str", "3")],
)
def test_mlproject_type_takes_what_programs_read(tmp_path: Path, kind: str, default: str) -> None:
    """Numbers in quotes are numbers, and types have the names that files give them."""
    text = f"entry_points:\n  main:\n    parameters: {{a: {{type: {kind}, default: {default}}}}}\n    command: run {{a}}\n"
    assert read_project(write(tmp_path, text)).source.problems == []


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, Environment()),
        ({"python_env.yaml": ""}, Environment("python_env", "python_env.yaml")),
        ({"python_env.yaml": "", "e/x.yaml": "", "MLproject": "python_env: e/x.yaml\n"}, Environment("python_env", "e/x.yaml")),
        ({"python_env.yaml": "", "MLproject": "name: x\n"}, Environment("python_env", "python_env.yaml")),
    ],
)
def test_mlproject_environment_is_named_found_or_the_systems(tmp_path: Path, files: dict[str, str], expected: Environment) -> None:
    """The MLproject's word, else a python_env.yaml in the root, else the worker's own."""
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert read_project(tmp_path).environment == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("train.py", ("python", "train.py", "--a", "1")),
        ("fit.R", ("Rscript", "fit.R", "--a", "1")),
        ("sub/it's {a}.sh", ("bash", "sub/it's {a}.sh", "--a", "1")),
        ("no.py", None),
        ("../x.py", None),
    ],
)
def test_mlproject_script_is_an_entry_point(tmp_path: Path, name: str, expected: tuple[str, ...] | None) -> None:
    """`.py`, `.sh` and `.R` files of the project can be named in place of an entry point, and nothing outside of it."""
    project = tmp_path / "project"
    (project / "sub").mkdir(parents=True)
    for path in (project / "train.py", project / "fit.R", project / "sub" / "it's {a}.sh", tmp_path / "x.py"):
        path.touch()
    entry = read_project(project).entry_point(name)
    command = entry.template(Source(""), ("a",)) if entry else None
    assert (build_argv(Commanded(command), {"a": 1}) if command else None) == expected


def test_mlproject_fragment_is_found_on_later_lines() -> None:
    """In a block, the caret goes to the line of the fragment."""
    source = Source("MLproject")
    source.lines = ["command: >", "  python a.py", "  --x {y}"]
    from sweeps.mlproject import EntryPoint
    from sweeps.spec_source import Place

    assert EntryPoint("main", Item("python a.py --x {y}", Place(1, 10, 1))).template(source, ()) is None
    assert (source.problems[0].line, source.problems[0].column, source.problems[0].width) == (3, 7, 3)


PAGE: Final = (Path(__file__).resolve().parents[2] / "docs" / "coming-from-mlflow-projects.md").read_text(encoding="utf-8")


@pytest.fixture
def shown(tmp_path: Path) -> Path:
    """The project of the page for those who come from MLflow Projects, file by file."""
    blocks = dict(re.findall(r"```yaml\n# (\S+)\n(.*?)```", PAGE, re.DOTALL))
    for name, text in {**blocks, "python_env.yaml": "", "train.py": "", "data/churn.csv": ""}.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def test_docs_mlflow_page_is_one_run_and_a_sweep(shown: Path) -> None:
    """What stands under "after" runs what stands under "before"."""
    one = load_project(shown, params={"depth": "4"})
    assert build_argv(one.config, {"depth": "4"}) == ("python", "train.py", "--data", "data/churn.csv", "--lr", "0.01", "--depth", "4")
    sweep = load_sweep(shown / "sweep.yaml").config
    assert (sweep.trials_max, sweep.environment) == (9, Environment("python_env", "python_env.yaml"))
    assert build_argv(sweep, sweep.space.cell(0))[-4:] == ("--lr", "0.1", "--depth", "2")


def test_docs_mlflow_page_runs_several_entry_points(shown: Path) -> None:
    """The file that chooses among them does, where the MLproject has them."""
    text = (shown / "MLproject").read_text()
    (shown / "MLproject").write_text(text + "  train_big:\n    command: python big.py\n")
    sweep = load_sweep(shown / "both.yaml").config
    commands = [build_argv(sweep, sweep.space.cell(index)) for index in range(sweep.trials_max or 0)]
    assert [command[1] for command in commands] == ["train.py", "train.py", "big.py", "big.py"]
    assert commands[-1] == ("python", "big.py", "--lr", "0.01", "--depth", "4")


def test_docs_mlflow_page_shows_the_error_that_is_told(shown: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Character for character."""
    monkeypatch.chdir(shown)
    (shown / "MLproject").write_text("entry_points:\n  main:\n    parameters:\n      lr: {type: float, default: low}\n    command: python train.py {lr}\n")
    (told,) = read_project(Path()).source.problems
    assert f"```\n{told.render()}\n```" in PAGE


def test_docs_mlflow_page_shows_how_a_parameter_is_optional(tmp_path: Path) -> None:
    """The block is an MLproject, and `--resume` goes with its value."""
    (block,) = [block for block in re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL) if "optional: true" in block]
    write(tmp_path, block)
    for more in ({}, {"resume": "a b"}):
        params = {"lr": "1", **more}
        rest = ("--resume", "a b") if more else ()
        assert build_argv(load_project(tmp_path, params=params).config, params) == ("python", "train.py", "--lr", "1", *rest)
