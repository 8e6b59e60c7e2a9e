"""The MLproject file: entry points, typed parameters, and a command that becomes an argument vector without a shell.

MLflow formats the command as one text and gives it to `bash -c`, so a quoted placeholder can be broken out of. Here the template is split
into words first, by the shell's rules for quotes, and values are put into the words afterwards, as plain text: a value with spaces, quotes
or semicolons stays one argument. What only a shell can do (pipes, variables, several commands) is refused with its place. Patterns such as
`*.csv` reach the program as they stand.
"""

import math
import re
import string
from collections.abc import Collection
from pathlib import Path, PurePosixPath
from typing import Any, Final

from msgspec import Struct

from sweeps.command import TemplateCommand
from sweeps.space import Categorical, Constant, Parameter
from sweeps.spec_source import Item, Place, Source, did_you_mean, kind_of, read_text, read_yaml
from tracking.records import Environment

TYPES: Final = ("string", "float", "path", "uri", "int", "bool")
"""MLflow documents the first four; its files also say `int` and `bool`. Only `float` is checked."""

_KEYS: Final = ("name", "python_env", "conda_env", "docker_env", "entry_points", "databricks_spark_job")
_NAME: Final = r"[A-Za-z_][\w-]*"
_PLACEHOLDER: Final = rf"\{{({_NAME})\}}"
_ESCAPED_OR_PLACEHOLDER: Final = rf"\{{\{{|\}}\}}|\{{({_NAME})\}}"
_FANCY_PLACEHOLDER: Final = rf"\{{({_NAME})[.\[!:][^{{}}]*\}}"
_ASSIGNMENT: Final = r"[A-Za-z_]\w*="
_VARIABLE: Final = r"\$(?:\w+|\{[^}]*\}?|\([^)]*\)?|[@*#?!$-])"
_OPERATORS: Final = "|&;<>()"


class EntryParameter(Struct, frozen=True):
    """A declared parameter of an entry point; a `default` of None means that it is required."""

    name: str
    type: str = "string"
    default: Any = None


class EntryPoint(Struct, frozen=True):
    """A named command of an MLproject, or a script named in its place."""

    name: str
    command: Item
    parameters: tuple[EntryParameter, ...] = ()

    def missing(self, given: Collection[str]) -> list[str]:
        """The required parameters that are not among those given."""
        return [parameter.name for parameter in self.parameters if parameter.default is None and parameter.name not in given]

    def template(self, source: Source, given: Collection[str]) -> TemplateCommand | None:
        """The command, ready to be filled; None, with the reason noted, if it can't be run without a shell."""
        text = str(self.command.value)
        declared = [parameter.name for parameter in self.parameters]
        try:
            words = split_words(text)
            known = {*declared, *given}
            is_escaped = _is_format(text)
            pieces = tuple(_pieces(word, known, is_escaped=is_escaped) for word in words)
        except TemplateError as error:
            source.add(_find(source, self.command, error.fragment), error.message, suggestion=error.suggestion, path=self.command.path)
            return None
        defaults = {parameter.name: parameter.default for parameter in self.parameters if parameter.default is not None}
        # A parameter that the template uses is not appended, even if only the sweep names it.
        used = [piece for word in pieces for piece in word[1::2]]
        return TemplateCommand(pieces, defaults, tuple(dict.fromkeys([*declared, *used])))


class Project(Struct):
    """A folder with or without an MLproject.

    Attributes:
        source: of the MLproject, with what is wrong in it.
        has_file: whether there is an MLproject.
    """

    folder: Path
    source: Source
    has_file: bool = False
    name: str = ""
    environment: Environment = Environment()
    entry_points: dict[str, EntryPoint] = {}

    def entry_point(self, name: str) -> EntryPoint | None:
        """The entry point of that name, or the script of that name, as MLflow looks them up."""
        if name in self.entry_points:
            return self.entry_points[name]
        path = PurePosixPath(name)
        interpreter = {".py": "python", ".sh": "bash"}.get(path.suffix)
        if interpreter is None or path.is_absolute() or ".." in path.parts or not (self.folder / path).is_file():
            return None
        return EntryPoint(name, Item(f"{interpreter} {_quoted(name)}"))

    def why_not(self, name: str) -> tuple[str, str]:
        """Message and suggestion for an entry point that is not there."""
        if not self.has_file and name == "main":
            return "nothing says what to run", "add 'program: train.py', or an MLproject file beside your code"
        if name.endswith((".py", ".sh")):
            return f"there is no file {name!r} in the project folder", ""
        have = ", ".join(repr(known) for known in self.entry_points) or "none"
        return f"there is no entry point {name!r} (there are: {have})", did_you_mean(name, self.entry_points)


class TemplateError(Exception):
    """A command template that can't be an argument vector: which fragment, why, and what instead."""

    def __init__(self, fragment: str, message: str, suggestion: str = "") -> None:
        super().__init__(message)
        self.fragment = fragment
        self.message = message
        self.suggestion = suggestion


def find_mlproject(folder: Path) -> Path | None:
    """The MLproject file of a folder, in any case of its name."""
    try:
        names = sorted(path for path in folder.iterdir() if path.name.lower() == "mlproject" and path.is_file())
    except OSError:
        return None
    return names[0] if names else None


def read_project(folder: Path, *, needs_environment: bool = True) -> Project:
    """Read a project folder. What is wrong with its MLproject is noted in the result's `source`.

    Args:
        folder: the project's root.
        needs_environment: False where an image brings the environment.

    Raises:
        SpecProblems: the MLproject can't be read as text at all.
    """
    path = find_mlproject(folder)
    project = Project(folder, Source(str(path) if path else ""), has_file=path is not None)
    root = read_yaml(read_text(path), project.source) if path else None
    if root is not None and root.entries is None:
        project.source.add(root, f"an MLproject is a mapping, not {kind_of(root.value)}")
    entries = (root.entries if root else None) or {}
    for key in entries:
        if root is not None and key not in _KEYS:
            project.source.add(root.keys[key], f"unknown key '{key}'", suggestion=did_you_mean(key, _KEYS), path=key)
    if (name := entries.get("name")) is not None and name.value is not None:
        project.name = (name.text or "").strip()
    if needs_environment:
        project.environment = _read_environment(project, root)
    if (points := entries.get("entry_points")) is not None and points.value is not None:
        _read_entry_points(project, points)
    return project


def non_numbers(parameter: Parameter) -> list[Any]:
    """The values of a parameter that a `float` of an MLproject can't be."""
    values: tuple[Any, ...] = ()
    if isinstance(parameter, Constant):
        values = (parameter.value,)
    elif isinstance(parameter, Categorical):
        values = parameter.values
    return [value for value in values if not _reads_as_float(value)]


def split_words(text: str) -> list[str]:
    """Split a command into words by the shell's rules for spaces, quotes and backslashes.

    Raises:
        TemplateError: it needs a shell, or a quote is not closed.
    """
    words = _Splitter(text.strip()).split()
    if not words:
        raise TemplateError("", "the command is empty")
    if re.match(_ASSIGNMENT, words[0]):
        raise _needs_shell(words[0], "a variable before the command", "set it under 'env:' of the sweep file")
    return words


class _Splitter:
    """One pass over a command; `at` is the place of the next character."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._words: list[str] = []
        self._word: list[str] | None = None

    def split(self) -> list[str]:
        while self._at < len(self._text):
            self._step(self._text[self._at])
        self._end_word()
        return self._words

    def _step(self, char: str) -> None:
        if char == "'":
            self._quoted()
        elif char == '"':
            self._double_quoted()
        elif char == "\\":
            self._escaped()
        elif char in " \t":
            self._at += 1
            self._end_word()
        else:
            self._check(char)
            self._take(char)

    def _check(self, char: str) -> None:
        """Refuse what a shell would act on outside of quotes."""
        if char in "\r\n":
            raise _needs_shell("", "a second line", "join the lines with '>' in place of '|', or put them into a script")
        if char in _OPERATORS:
            operator = re.match(rf"[{re.escape(_OPERATORS)}]+", self._text[self._at :])
            raise _needs_shell(operator[0] if operator else char, f"'{operator[0] if operator else char}'")
        self._check_expansion(char)
        if self._word is None and char in "~#":
            raise _needs_shell(self._text[self._at :].split(maxsplit=1)[0], f"a word that begins with '{char}'", "write it in quotes, or in full")

    def _check_expansion(self, char: str) -> None:
        """Refuse what a shell would act on outside of single quotes."""
        if char == "`":
            raise _needs_shell("`", "a backtick")
        if char == "$" and (variable := re.match(_VARIABLE, self._text[self._at : self._at + 200])):
            raise _needs_shell(variable[0], f"'{variable[0]}'", "read it in the script, or write it in single quotes if it is meant as it stands")

    def _take(self, text: str, *, width: int | None = None) -> None:
        if self._word is None:
            self._word = []
        self._word.append(text)
        self._at += len(text) if width is None else width

    def _end_word(self) -> None:
        if self._word is not None:
            self._words.append("".join(self._word))
        self._word = None

    def _escaped(self) -> None:
        after = self._text[self._at + 1 : self._at + 2]
        if not after:
            raise TemplateError("\\", "the command ends in a backslash")
        if after == "\n":
            self._at += 2
        else:
            self._take(after, width=2)

    def _quoted(self) -> None:
        end = self._text.find("'", self._at + 1)
        if end < 0:
            raise TemplateError(self._text[self._at :], "a quote is not closed")
        self._take(self._text[self._at + 1 : end], width=end + 1 - self._at)

    def _double_quoted(self) -> None:
        start = self._at
        self._take("", width=1)
        while self._text[self._at : self._at + 1] != '"':
            char = self._text[self._at : self._at + 1]
            if not char:
                raise TemplateError(self._text[start:], "a quote is not closed")
            if char == "\\" and self._text[self._at + 1 : self._at + 2] in {'"', "\\", "$", "`"}:
                self._take(self._text[self._at + 1], width=2)
                continue
            self._check_expansion(char)
            self._take(char)
        self._at += 1


def _needs_shell(fragment: str, what: str, suggestion: str = "put it into a script and run that") -> TemplateError:
    return TemplateError(fragment, f"the command needs a shell for {what}; commands run without one", suggestion)


def _is_format(text: str) -> bool:
    """Whether MLflow's `str.format` would take the template: then `{{` and `}}` are its escapes. Otherwise braces mean themselves."""
    try:
        fields = [(name, spec, conversion) for _, name, spec, conversion in string.Formatter().parse(text) if name is not None]
    except ValueError:
        return False
    return all(re.fullmatch(_NAME, name) and not spec and not conversion for name, spec, conversion in fields)


def _pieces(word: str, known: Collection[str], *, is_escaped: bool) -> tuple[str, ...]:
    """Text and parameter names of a word, alternating; it begins and ends with text."""
    for fancy in re.finditer(_FANCY_PLACEHOLDER, word):
        if fancy[1] in known:
            raise TemplateError(fancy[0], f"only '{{{fancy[1]}}}' is understood as a placeholder, not '{fancy[0]}'")
    pieces = [""]
    at = 0
    for match in re.finditer(_ESCAPED_OR_PLACEHOLDER if is_escaped else _PLACEHOLDER, word):
        pieces[-1] += word[at : match.start()]
        at = match.end()
        if match[1] is None:
            pieces[-1] += match[0][0]
        elif match[1] in known:
            pieces += [match[1], ""]
        else:
            raise TemplateError(match[0], f"'{match[0]}' names no parameter", did_you_mean(match[1], known) or "declare it under 'parameters:'")
    pieces[-1] += word[at:]
    return tuple(pieces)


def _find(source: Source, item: Item, fragment: str) -> Place:
    """Where a fragment of a text stands in the file, or else where the text begins."""
    first = item.place.line - 1
    for number, line in enumerate(source.lines[first : first + 30] if fragment and first >= 0 else [], start=first):
        column = line.find(fragment, item.place.column - 1 if number == first else 0)
        if column >= 0:
            return Place(number + 1, column + 1, len(fragment))
    return item.place


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


def _reads_as_float(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return False
    try:
        return not math.isnan(float(value))
    except ValueError:
        return False


def _read_environment(project: Project, root: Item | None) -> Environment:
    entries = (root.entries if root else None) or {}
    for key, suggestion in (("conda_env", "use 'python_env'"), ("docker_env", "name the image in the sweep file, 'resources: {image: ...}'")):
        if root is not None and key in entries:
            project.source.add(root.keys[key], f"'{key}' is not served by this version", suggestion=suggestion, path=key)
    item = entries.get("python_env")
    if item is None or item.value is None:
        return Environment("python_env", "python_env.yaml") if (project.folder / "python_env.yaml").is_file() else Environment()
    path = PurePosixPath(str(item.value))
    if path.is_absolute() or ".." in path.parts:
        project.source.add(item, "'python_env' must lie within the project folder")
    elif not (project.folder / path).is_file():
        project.source.add(item, f"there is no file '{path}' in the project folder")
    return Environment("python_env", str(path))


def _read_entry_points(project: Project, points: Item) -> None:
    if points.entries is None:
        project.source.add(points, f"'entry_points' is a mapping of names to commands, not {kind_of(points.value)}")
        return
    for name, item in points.entries.items():
        if item.entries is None:
            place = item if item.value is not None else points.keys[name]
            project.source.add(place, f"entry point '{name}' is a mapping with a 'command'", path=item.path)
            continue
        for key in item.entries.keys() - {"parameters", "command"}:
            project.source.add(item.keys[key], f"unknown key '{key}'", suggestion=did_you_mean(key, ("parameters", "command")), path=item.path)
        command = item.entries.get("command")
        if command is None or not isinstance(command.value, str) or not command.value.strip():
            project.source.add(command if command is not None and command.value is not None else points.keys[name], f"entry point '{name}' has no command")
            continue
        project.entry_points[name] = EntryPoint(name, command, _read_parameters(project.source, item.entries.get("parameters")))


def _read_parameters(source: Source, item: Item | None) -> tuple[EntryParameter, ...]:
    if item is None or item.value is None:
        return ()
    if item.entries is None:
        source.add(item, f"'parameters' is a mapping of names to types, not {kind_of(item.value)}")
        return ()
    return tuple(_read_parameter(source, name, inner, item.keys[name]) for name, inner in item.entries.items())


def _read_parameter(source: Source, name: str, item: Item, place: Place) -> EntryParameter:
    entries = item.entries if item.entries is not None else {"type": item}
    keys = item.keys if item.entries is not None else {}
    for key in entries.keys() - {"type", "default"}:
        source.add(keys[key], f"unknown key '{key}'", suggestion=did_you_mean(key, ("type", "default")), path=item.path)
    kind = entries.get("type")
    if kind is not None and kind.value not in TYPES:
        where = place if kind.value is None else kind
        source.add(where, f"parameter '{name}' has no known type", suggestion=did_you_mean(str(kind.value), TYPES) or f"types are {', '.join(TYPES)}")
    default = entries.get("default")
    type_name = str(kind.value) if kind is not None else "string"
    if default is not None and default.value is not None and type_name == "float" and not _reads_as_float(default.value):
        source.add(default, f"the default of '{name}' is not a number")
    return EntryParameter(name, type_name, default.value if default is not None else None)
