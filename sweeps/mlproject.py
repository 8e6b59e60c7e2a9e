"""The MLproject file: its environment, its entry points, and the types of their parameters.

Read as MLflow reads it, but whatever it lets pass or answers with a traceback is a problem with its place: types are checked, sections may be
empty, `null` is no value. Commands become argument vectors in `sweeps.template`. One key is ours: `optional: true` on a parameter, whose
words are left out of the command when it is not given.
"""

import math
import os
import re
from collections.abc import Collection
from pathlib import Path, PurePosixPath
from typing import Any, Final

from msgspec import Struct, field

from sweeps.command import TemplateCommand
from sweeps.distributions import Integers, Parameter, listed_values
from sweeps.errors import Problem
from sweeps.spec_source import NOWHERE, Item, Place, Source, did_you_mean, kind_of, read_text, read_yaml
from sweeps.template import TemplateError, read_template
from tracking.records import PYTHON_ENV_KEYS, PYTHON_VERSION, Environment
from tracking.requirements import Unusable, resolved

TYPES: Final = ("string", "float", "path", "uri", "int", "bool")
"""MLflow documents the first four; its files also say `int` and `bool`."""

_OTHER_TYPES: Final = {"str": "string", "double": "float", "number": "float", "integer": "int", "boolean": "bool"}
"""What files say instead: MLflow takes any word for a type."""

INTERPRETERS: Final = {".py": "python", ".sh": "bash", ".R": "Rscript"}
"""What runs a script that is named in place of an entry point, by its suffix."""

_KEYS: Final = ("name", "python_env", "conda_env", "docker_env", "entry_points", "databricks_spark_job")
_POINT_KEYS: Final = ("parameters", "command")
_PARAMETER_KEYS: Final = ("type", "default", "optional")
_SCHEME: Final = r"[A-Za-z][\w+.-]+:/"
_BOOLS: Final = ("true", "false", "yes", "no", "on", "off", "0", "1")


class EntryParameter(Struct, frozen=True):
    """A declared parameter of an entry point.

    Attributes:
        type: one of `TYPES`.
        default: None where there is none.
        optional: whether the command does without it; else a parameter without default is required.
        place: of the default, in the MLproject.
    """

    name: str
    type: str = "string"
    default: Any = None
    optional: bool = False
    place: Place = NOWHERE


class EntryPoint(Struct, frozen=True):
    """A named command of an MLproject, or a script named in its place.

    Attributes:
        folder: the project's, which relative paths are looked for in.
    """

    name: str
    command: Item
    parameters: tuple[EntryParameter, ...] = ()
    folder: Path = Path()

    def missing(self, given: Collection[str]) -> list[str]:
        """The required parameters that are not among those given."""
        lacking = [parameter for parameter in self.parameters if parameter.default is None and not parameter.optional]
        return [parameter.name for parameter in lacking if parameter.name not in given]

    def declares(self, name: str) -> bool:
        """Whether it is one of the declared parameters."""
        return any(parameter.name == name for parameter in self.parameters)

    def misfit(self, parameter: Parameter) -> tuple[str, str] | None:
        """What is wrong with a sweep's parameter for the type that is declared for it, and what to write; None if nothing is."""
        declared = next((one for one in self.parameters if one.name == parameter.name), None)
        if declared is None or declared.type == "string":
            return None
        values = listed_values(parameter)
        if not values and declared.type != "float" and not (declared.type == "int" and isinstance(parameter.axis, Integers)):
            wanted = "whole numbers" if declared.type == "int" else "values"
            return f"'{parameter.name}' is {_a(declared.type)} in the MLproject, and its distribution yields other numbers", f"list {wanted} under 'values'"
        for value in values:
            if why := why_not_of_type(declared.type, value) or why_no_location(declared.type, value, self.folder):
                return f"'{parameter.name}' is {_a(declared.type)} in the MLproject, and {value!r} {why[0]}", why[1]
        return None

    def template(self, source: Source, given: Collection[str]) -> TemplateCommand | None:
        """The command, ready to be filled; None, with the reason noted, if it can't be run without a shell, or a default can't be used."""
        declared = [parameter.name for parameter in self.parameters]
        defaults = {parameter.name: parameter.default for parameter in self.parameters if parameter.default is not None}
        absent = {parameter.name for parameter in self.parameters if parameter.optional} - {*defaults, *given}
        n_before = len(source.problems)
        for parameter in self.parameters:
            # Looked at here, not when the file is read: only a default that is used has to be there.
            if parameter.name in defaults and parameter.name not in given and (why := why_no_location(parameter.type, parameter.default, self.folder)):
                source.add(parameter.place, f"the default of '{parameter.name}' {why[0]}", suggestion=why[1])
        try:
            words = read_template(str(self.command.value), {*declared, *given}, absent)
        except TemplateError as error:
            source.add(_find(source, self.command, error.fragment), error.message, suggestion=error.suggestion, path=self.command.path)
            return None
        # A parameter that the template uses is not appended, even if only the sweep names it.
        used = [piece for word in words for piece in word[1::2]]
        return TemplateCommand(words, defaults, tuple(dict.fromkeys([*declared, *used]))) if len(source.problems) == n_before else None


class Project(Struct):
    """A folder with or without an MLproject.

    Attributes:
        source: of the MLproject, with what is wrong in it.
        has_file: whether there is an MLproject.
        environment_source: of the file that its environment is built from, with what is wrong in it.
    """

    folder: Path
    source: Source
    has_file: bool = False
    name: str = ""
    environment: Environment = Environment()
    entry_points: dict[str, EntryPoint] = {}
    environment_source: Source = field(default_factory=lambda: Source(""))

    def entry_point(self, name: str) -> EntryPoint | None:
        """The entry point of that name, or the script of that name, as MLflow looks them up."""
        if name in self.entry_points:
            return self.entry_points[name]
        path = PurePosixPath(name)
        interpreter = INTERPRETERS.get(path.suffix)
        if interpreter is None or path.is_absolute() or ".." in path.parts or not (self.folder / path).is_file():
            return None
        return EntryPoint(name, Item(f"{interpreter} {_quoted(name)}"), folder=self.folder)

    def why_not(self, name: str) -> tuple[str, str]:
        """Message and suggestion for an entry point that is not there."""
        if not self.has_file and name == "main":
            return "nothing says what to run", "add 'program: train.py', or an MLproject file beside your code"
        if name.endswith(tuple(INTERPRETERS)):
            return f"there is no file {name!r} in the project folder", ""
        have = ", ".join(repr(known) for known in self.entry_points) or "none"
        return f"there is no entry point {name!r} (there are: {have})", did_you_mean(name, self.entry_points)


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
        if name.text is None:
            project.source.add(name, f"'name' is text, not {kind_of(name.value)}")
        project.name = (name.text or "").strip()
    if needs_environment:
        project.environment = _read_environment(project, root)
    if (points := entries.get("entry_points")) is not None and points.value is not None:
        _read_entry_points(project, points)
    return project


def why_not_of_type(type_name: str, value: Any) -> tuple[str, str] | None:
    """What is wrong with a value for a type ("is not a number"), and what to write instead; None if nothing is."""
    if isinstance(value, dict | list):
        return f"is {kind_of(value)}, not one value", "write it in quotes if it is meant as text"
    if type_name == "float" and not _reads_as(float, value):
        return "is not a number", ""
    if type_name == "int" and not _reads_as(int, value):
        return "is not a whole number", f"write {int(value)}" if isinstance(value, float) and value.is_integer() else ""
    if type_name == "bool" and str(value).lower() not in _BOOLS:
        return "is neither true nor false", ""
    return None


def why_no_location(type_name: str, value: Any, folder: Path) -> tuple[str, str] | None:
    """What is wrong with a value for a `path` or `uri`, and what to do; None if nothing is, or the type is another.

    Relative ones are of the project folder, which is where the command starts, on whatever machine; MLflow takes a path from the folder
    it is called in, and refuses a relative URI. Absolute paths and URIs are the worker's business.
    """
    text = str(value)
    if type_name not in {"path", "uri"} or text.startswith("/"):
        return None
    if re.match(_SCHEME, text):
        if type_name == "uri":
            return None
        how = "write the path itself" if text.startswith("file:") else "declare it as a 'uri' if the program reads it by itself"
        return "is a URI, and nothing is downloaded by this version", how
    path = PurePosixPath(os.path.normpath(text))
    if path.parts[:1] == ("..",):
        return "lies outside the project folder, which is all that is sent", "name a file of the project, or an absolute path that the workers have"
    if type_name == "path" and not (folder / path).exists():
        return f"names '{text}', which is not in the project folder", ""
    return None


def _find(source: Source, item: Item, fragment: str) -> Place:
    """Where a fragment of a text stands in the file, or else where the text begins."""
    first = item.place.line - 1
    for number, line in enumerate(source.lines[first : first + 30] if fragment and first >= 0 else [], start=first):
        column = line.find(fragment, item.place.column - 1 if number == first else 0)
        if column >= 0:
            return Place(number + 1, column + 1, len(fragment))
    return item.place


def _a(type_name: str) -> str:
    return f"{'an' if type_name == 'int' else 'a'} {type_name}"


def _quoted(text: str) -> str:
    """A text as one word of a template that means itself."""
    return "'" + text.replace("'", "'\\''").replace("{", "{{").replace("}", "}}") + "'"


def _reads_as(kind: type[int] | type[float], value: Any) -> bool:
    """Whether a program that asks for a number of this kind can read the value, once it is text. NaN is no number."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return False
    try:
        return not math.isnan(kind(str(value)))
    except (ValueError, OverflowError):
        return False


def _read_environment(project: Project, root: Item | None) -> Environment:
    entries = (root.entries if root else None) or {}
    for key, suggestion in (("conda_env", "use 'python_env'"), ("docker_env", "name the image in the sweep file, 'resources: {image: ...}'")):
        if root is not None and key in entries and entries[key].value is not None:
            project.source.add(root.keys[key], f"'{key}' is not served by this version", suggestion=suggestion, path=key)
    item = entries.get("python_env")
    if item is None or item.value is None:
        if not (project.folder / "python_env.yaml").is_file():
            return Environment()
        _check_python_env(project, PurePosixPath("python_env.yaml"))
        return Environment("python_env", "python_env.yaml")
    if item.text is None:
        project.source.add(item, f"'python_env' is the name of a file, not {kind_of(item.value)}")
        return Environment()
    path = PurePosixPath(item.text)
    if path.is_absolute() or ".." in path.parts:
        project.source.add(item, "'python_env' must lie within the project folder")
    elif not (project.folder / path).is_file():
        project.source.add(item, f"there is no file '{path}' in the project folder")
    else:
        _check_python_env(project, path)
    return Environment("python_env", str(path))


def _check_python_env(project: Project, path: PurePosixPath) -> None:
    """Note what is wrong with the file itself; a worker that builds the environment would find it only when a trial starts."""
    file = project.folder / path
    source = project.environment_source = Source(str(file))
    text = read_text(file)
    is_empty = not any(line.partition("#")[0].strip() for line in text.splitlines())
    root = None if is_empty else read_yaml(text, source)
    if root is None or root.is_nothing:
        return
    if root.entries is None:
        source.add(root, f"'{path}' is a mapping with 'python' and 'dependencies', not {kind_of(root.value)}")
        return
    _refuse_unknown(source, root, PYTHON_ENV_KEYS)
    version = root.entries.get("python")
    if version is not None and not version.is_nothing:
        _check_version(source, version)
    for key in ("build_dependencies", "dependencies"):
        item = root.entries.get(key)
        if item is None or item.is_nothing:
            continue
        if item.elements is None:
            source.add(item, f"'{key}' is a list of requirements, not {kind_of(item.value)}")
        for one in item.elements or ():
            if not isinstance(one.value, str):
                source.add(one, f"'{key}' lists requirements, not {kind_of(one.value)}")
            else:
                _check_requirement(source, one, file.parent)


def _check_requirement(source: Source, item: Item, folder: Path) -> None:
    """Note what a worker would refuse of a requirement, or of the files that it includes, each where it stands."""
    for found in resolved(str(item.value), folder, folder):
        if not isinstance(found, Unusable):
            continue
        suggestion = found.hint[:1].lower() + found.hint[1:].removesuffix(".")
        if found.file is None:
            source.add(item, found.message, suggestion=suggestion)
        else:
            source.problems.append(Problem(found.message, str(found.file), found.line, 1, len(found.text), found.text, suggestion))


def _check_version(source: Source, item: Item) -> None:
    if not re.fullmatch(PYTHON_VERSION, str(item.value)):
        source.add(item, f"'python' is a version, not {item.text or kind_of(item.value)!r}", suggestion="write it as in '3.11'")
    elif str(item.value) != item.text:
        source.add(item, f"'python: {item.text}' reads as {item.value}", suggestion=f'write "{item.text}"')


def _read_entry_points(project: Project, points: Item) -> None:
    if points.entries is None:
        project.source.add(points, f"'entry_points' is a mapping of names to commands, not {kind_of(points.value)}")
        return
    for name, item in points.entries.items():
        if item.entries is None:
            place = item if item.value is not None else points.keys[name]
            project.source.add(place, f"entry point '{name}' is a mapping with a 'command'", path=item.path)
            continue
        _refuse_unknown(project.source, item, _POINT_KEYS)
        parameters = _read_parameters(project.source, item.entries.get("parameters"))
        command = item.entries.get("command")
        if command is None or command.value is None or not str(command.value).strip():
            project.source.add(points.keys[name], f"entry point '{name}' has no command", path=item.path)
        elif not isinstance(command.value, str):
            project.source.add(command, f"the command of '{name}' is one text, not {kind_of(command.value)}")
        else:
            project.entry_points[name] = EntryPoint(name, command, parameters, project.folder)


def _refuse_unknown(source: Source, item: Item, known: Collection[str]) -> None:
    for key in item.entries or {}:
        if key not in known:
            source.add(item.keys[key], f"unknown key '{key}'", suggestion=did_you_mean(key, known), path=item.path)


def _read_parameters(source: Source, item: Item | None) -> tuple[EntryParameter, ...]:
    if item is None or item.value is None:
        return ()
    if item.entries is None:
        source.add(item, f"'parameters' is a mapping of names to types, not {kind_of(item.value)}")
        return ()
    return tuple(_read_parameter(source, name, inner, item.keys[name]) for name, inner in item.entries.items())


def _read_parameter(source: Source, name: str, item: Item, place: Place) -> EntryParameter:
    if not name.strip():
        source.add(place, "a parameter needs a name")
    if item.entries is not None:
        _refuse_unknown(source, item, _PARAMETER_KEYS)
    entries = item.entries if item.entries is not None else {"type": item}
    type_name = _read_type(source, name, entries.get("type"))
    default, optional = entries.get("default"), entries.get("optional")
    if optional is not None and not isinstance(optional.value, bool | None):
        source.add(optional, f"'optional' is true or false, not {kind_of(optional.value)}")
    is_optional = optional is not None and optional.value is True
    if default is None or default.value is None:
        return EntryParameter(name, type_name, optional=is_optional)
    if why := why_not_of_type(type_name, default.value):
        source.add(default, f"the default of '{name}' {why[0]}", suggestion=why[1])
    return EntryParameter(name, type_name, default.value, is_optional, default.place)


def _read_type(source: Source, name: str, item: Item | None) -> str:
    """The type that a parameter names; one that names none is text."""
    if item is None or item.is_nothing:
        return TYPES[0]
    word = _OTHER_TYPES.get(item.text or "", item.text or "")
    if word not in TYPES:
        source.add(item, f"parameter '{name}' has no known type", suggestion=did_you_mean(word, TYPES) or f"types are {', '.join(TYPES)}")
        return TYPES[0]
    return word
