"""Lines of requirement files, as an environment that many attempts share may hold them: read alike where a project is checked and where it is built.

Includes are replaced by what they hold, so that all of it can be hashed; local folders and constraints can't be had.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

_INCLUDE: Final = re.compile(r"^(-r|-c|--requirement|--constraint)[ =]\s*(?P<path>.+)$")
_LOCAL: Final = re.compile(r"^(-e\b|--editable\b|\.|/|file:)|@\s*file:")


class Unusable(Struct, frozen=True):
    """A line that can't be part of an environment.

    Attributes:
        message: what is wrong, as the end of a sentence.
        hint: what to do instead, as a sentence.
        file: where the line stands; None for a line that was not in a requirement file.
        line: its number there, from 1.
        text: the line.
    """

    message: str
    hint: str = ""
    file: Path | None = None
    line: int = 0
    text: str = ""


def resolved(text: str, folder: Path, root: Path) -> Iterator[str | Unusable]:
    """A requirement, or what the file that it includes holds.

    Args:
        text: the requirement, `-r FILE` among others.
        folder: that included files are looked for in.
        root: the folder that they must lie in.
    """
    yield from _resolved(text, (), folder, root)


def _resolved(text: str, within: tuple[Path, ...], folder: Path, root: Path) -> Iterator[str | Unusable]:
    """The same, of a line that the last file of `within` holds, which the one before it includes, and so on."""
    text = re.sub(r"(^|\s)#.*$", "", text).strip()
    include = _INCLUDE.match(text)
    if include is None:
        if _LOCAL.search(text):
            hint = "Leave it out: the project's own folder is where the command runs, so its modules can be imported."
            yield Unusable(f"the dependency `{text}` is a local folder or file, and environments are shared between attempts", hint)
        elif text:
            yield text
        return
    name = include["path"].strip()
    path = (folder / name).resolve()
    if include[1] in {"-c", "--constraint"}:
        # Plain requirements and constraints can't be told apart once merged.
        yield Unusable(f"constraint files (`{text}`) are not supported", "Write the versions into the requirements.")
    elif not path.is_relative_to(root.resolve()):
        yield Unusable(f"the requirements file {name!r} lies outside {root.name!r}, the folder of the python_env file", "Move it there.")
    elif not path.is_file():
        yield Unusable(f"the project has no requirements file {name!r}")
    elif path in within:
        yield Unusable(f"the requirements file {name!r} includes itself", "Leave one of the includes out.")
    else:
        yield from _included(path, within, root)


def _included(path: Path, within: tuple[Path, ...], root: Path) -> Iterator[str | Unusable]:
    try:
        content = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        yield Unusable(f"the requirements file {path.name!r} can't be read: {error}")
        return
    begun = ""
    # The empty line ends one that the file leaves open.
    for number, line in enumerate([*content.splitlines(), ""], start=1):
        if line.endswith("\\"):
            begun += line[:-1] + " "
            continue
        for found in _resolved(begun + line, (*within, path), path.parent, root):
            # The innermost file is the one to look at.
            yield replace(found, file=path, line=number, text=line) if isinstance(found, Unusable) and found.file is None else found
        begun = ""
