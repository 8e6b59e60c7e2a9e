"""The command of an MLproject's entry point: one text, split into words by a shell's rules for quotes, and no shell.

Placeholders are found first, by the names of the parameters, whatever characters those have. The text is split next, and values are put
into the words afterwards, as plain text: a value with spaces, quotes or semicolons stays one argument, also where the author wrote quotes
around its placeholder. What only a shell can do (pipes, variables, several commands) is refused. Patterns such as `*.csv` reach the program
as they stand.
"""

import re
import string
from collections.abc import Collection, Sequence
from typing import Final

from sweeps.spec_source import did_you_mean

_NAME: Final = r"[A-Za-z_][\w-]*"
_FANCY_PLACEHOLDER: Final = rf"\{{\s*({_NAME})\s*(?:[.\[!:][^{{}}]*)?\}}"
_ASSIGNMENT: Final = r"[A-Za-z_]\w*="
# Stands for a placeholder while the text is split: no text of a YAML file holds a NUL.
_MARK: Final = "\0([0-9]+)\0"
_VARIABLE: Final = r"\$(?:\w+|\0[0-9]+\0|\{[^}]*\}?|\([^)]*\)?|[@*#?!$-])"
_OPERATORS: Final = "|&;<>()"


class TemplateError(Exception):
    """A command template that can't be an argument vector: which fragment, why, and what instead."""

    def __init__(self, fragment: str, message: str, suggestion: str = "") -> None:
        super().__init__(message)
        self.fragment = fragment
        self.message = message
        self.suggestion = suggestion


def read_template(text: str, known: Collection[str], left_out: Collection[str] = ()) -> tuple[tuple[str, ...], ...]:
    """The words of a command, each as text and parameter names, alternating; a word begins and ends with text.

    Args:
        text: the command.
        known: the names that a placeholder may have.
        left_out: those of optional parameters that are not given: the words that hold one are left out, each with the option before it.

    Raises:
        TemplateError: it can't be run without a shell, or a placeholder names no parameter.
    """
    if "\0" in text:
        raise TemplateError("", "the command holds a NUL character")
    names: list[str] = []
    marked = _mark(text, known, names)
    try:
        words = split_words(marked)
    except TemplateError as error:
        raise TemplateError(_unmark(error.fragment, names), _unmark(error.message, names), error.suggestion) from None
    pieces = [tuple(names[int(piece)] if place % 2 else piece for place, piece in enumerate(re.split(_MARK, word))) for word in words]
    return tuple(_without(pieces, left_out))


def _mark(text: str, known: Collection[str], names: list[str]) -> str:
    """The text with a mark in place of each placeholder, whose names are added to `names`."""
    is_escaped = _is_format(text, known)
    if not is_escaped:
        _refuse_fancy(text, known)
    # The longest first, so that no name hides another; a name that nobody declared comes last.
    options = [*(re.escape(name) for name in sorted(known, key=len, reverse=True) if name), _NAME]
    pattern = rf"\{{(?P<name>{'|'.join(options)})\}}"

    def replace(match: re.Match[str]) -> str:
        name = match["name"]
        if name is None:
            return match[0][0] if is_escaped else match[0][1:-1]
        if name not in known and text[match.start() - 1 : match.start()] == "$":
            return match[0]  # a variable, which the shell's rules decide about
        if name not in known:
            raise TemplateError(match[0], f"'{match[0]}' names no parameter", did_you_mean(name, known) or "declare it under 'parameters:'")
        names.append(name)
        return f"\0{len(names) - 1}\0"

    if is_escaped:
        return re.sub(rf"\{{\{{|\}}\}}|{pattern}", replace, text)
    # Braces mean themselves, but a name of none in two of them is no slip: its author knows the escape.
    declared = "|".join(re.escape(name) for name in known if name)
    escaped = rf"\{{\{{(?!(?:{declared})\}}\}}){_NAME}\}}\}}" if declared else rf"\{{\{{{_NAME}\}}\}}"
    return re.sub(rf"{escaped}|{pattern}", replace, text)


def _unmark(text: str, names: Sequence[str]) -> str:
    return re.sub(_MARK, lambda match: f"{{{names[int(match[1])]}}}", text)


def _is_format(text: str, known: Collection[str]) -> bool:
    """Whether MLflow's `str.format` would take the template: then `{{` and `}}` are its escapes. Otherwise braces mean themselves."""
    try:
        fields = [(name, spec, conversion) for _, name, spec, conversion in string.Formatter().parse(text) if name is not None]
    except ValueError:
        return False
    return all((name in known or re.fullmatch(_NAME, name)) and not spec and not conversion for name, spec, conversion in fields)


def _refuse_fancy(text: str, known: Collection[str]) -> None:
    """Refuse `{a.b}`, `{a:5}`, `{a!r}` and `{ a }`, which mean something else to MLflow or nothing at all."""
    for fancy in re.finditer(_FANCY_PLACEHOLDER, text):
        if fancy[1] in known and fancy[0][1:-1] not in known:
            raise TemplateError(fancy[0], f"only '{{{fancy[1]}}}' is understood as a placeholder, not '{fancy[0]}'")


def _without(words: Sequence[tuple[str, ...]], left_out: Collection[str]) -> list[tuple[str, ...]]:
    """The words but those that hold a name that is left out, and an option whose value such a word was."""
    kept: list[tuple[str, ...]] = []
    for word in words:
        absent = [name for name in word[1::2] if name in left_out]
        if not absent:
            kept.append(word)
            continue
        if not kept:
            raise TemplateError(f"{{{absent[0]}}}", f"the program can't be the optional '{absent[0]}'")
        is_value = not word[0].startswith("-") and len(kept) > 1 and re.fullmatch(r"--?[^-=][^=]*", kept[-1][0]) and len(kept[-1]) == 1
        if is_value:
            kept.pop()
    return kept


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
