"""`sweep completion`: words for the shell's Tab key, ids and names among them.

Those come from the server, within 300 ms or not at all: no cluster is started, nothing is asked twice, and whatever goes
wrong gives no words and no message, for that would be drawn over the line that is being typed.
"""

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import redirect_stderr, suppress
from dataclasses import dataclass, field
from threading import Thread
from typing import Any, Final, Self

import click
from click.shell_completion import CompletionItem, ShellComplete

from sweeps.address import running_url
from sweeps.cli import COMPLETE_VARIABLE
from sweeps.client import Client
from tracking.errors import SweepError
from tracking.settings import load_settings

LIMIT_S: Final = 0.3
_SHOWN: Final = 200
_NAME: Final = "sweep"
_LINE_VARIABLE: Final = "_SWEEP_LINE"
_BREAKS_VARIABLE: Final = "_SWEEP_BREAKS"

_INSTALL: Final = """\
Print what makes the Tab key complete `sweep`.

\b
bash   echo 'eval "$(sweep completion bash)"' >> ~/.bashrc
zsh    echo 'eval "$(sweep completion zsh)"' >> ~/.zshrc
fish   sweep completion fish > ~/.config/fish/completions/sweep.fish

Then open a new shell. Verbs, options and files are completed, and from the server sweeps, trials behind SWEEP/,
workers and models; if it does not answer within 300 ms, those are not.
"""


@click.command(help=_INSTALL)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> int:  # noqa: D103 - its help is above
    click.echo(_SHELLS[shell](ctx.find_root().command, {}, _NAME, COMPLETE_VARIABLE).source(), nl=False)
    return 0


@dataclass(slots=True)
class _Typed:
    """A line up to the cursor, as a shell reads it.

    Attributes:
        words: those before the one that the cursor is in.
        word: what there is of that one, without its quotes.
        quote: the one that is open at its end.
        kept: what of the word readline leaves in the line: all up to its last break, or to its last opening quote.
    """

    words: list[str] = field(default_factory=list)
    word: str | None = None
    quote: str = ""
    kept: str = ""

    @classmethod
    def read(cls, line: str, breaks: str) -> Self:
        """Read it; `breaks` are the characters that readline breaks words at."""
        typed, chars = cls(), iter(line)
        for char in chars:
            if typed.quote:
                typed._quoted(char, chars)
            elif not char.isspace():
                typed._plain(char, chars, breaks)
            elif typed.word is not None:
                typed.words.append(typed.word)
                typed.word, typed.kept = None, ""
        return typed

    def _quoted(self, char: str, following: Iterator[str]) -> None:
        if char == self.quote:
            self.quote = ""
            return
        if char == "\\" and self.quote == '"':
            escaped = next(following, "")
            char = escaped if escaped in '"\\$`' else char + escaped
        self.word = (self.word or "") + char

    def _plain(self, char: str, following: Iterator[str], breaks: str) -> None:
        before = self.word or ""
        if char in "\"'":
            self.quote, self.kept, self.word = char, before, before
        elif char == "\\":
            self.word = before + next(following, "")
        else:
            self.word = before + char
            if char in breaks:
                # These two stay part of what is replaced: readline's `rl_special_prefixes`, as bash sets them.
                self.kept = before if char in "$@" else self.word


class _Shell(ShellComplete):
    """What the three have in common: they hand over the line up to the cursor, as it was typed, and get a line for each word, its type before it.

    Click's own scripts hand over the shell's words, which bash breaks at colons, and cut what they get at commas.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._typed = _Typed.read(os.environ.get(_LINE_VARIABLE, ""), os.environ.get(_BREAKS_VARIABLE, ""))

    def source(self) -> str:
        """The shell's script."""
        return self.source_template

    def get_completion_args(self) -> tuple[list[str], str]:
        """The words before the cursor, and what there is of the one it is in."""
        return self._typed.words[1:], self._typed.word or ""

    def get_completions(self, args: list[str], incomplete: str) -> list[CompletionItem[str]]:
        """The words that fit, those behind `--option=` with that before them: it belongs to the word whose place they take."""
        option, sign, _ = incomplete.partition("=")
        before = option + sign if option.startswith("--") and sign else ""
        found = super().get_completions(args, incomplete)
        return [CompletionItem(before + item.value, item.type, item.help) for item in found if item.value.isprintable()]


class _Bash(_Shell):
    """Bash puts words into the line as they are, in place of what follows the last of its break characters: so they are quoted and cut here."""

    name = "bash"
    source_template = """\
_sweep_completion() {
    local line
    COMPREPLY=()
    while IFS= read -r line; do
        case ${line%%,*} in
            dir) compopt -o dirnames ;;
            file) compopt -o default ;;
            plain) COMPREPLY+=("${line#*,}") ;;
        esac
    done < <(_SWEEP_LINE="${COMP_LINE:0:COMP_POINT}" _SWEEP_BREAKS="$COMP_WORDBREAKS" _SWEEP_COMPLETE=bash_complete "$1")
}
complete -o nosort -F _sweep_completion sweep
"""

    def format_completion(self, item: CompletionItem[str]) -> str:
        """What is left of the word, quoted as fits what was typed."""
        left = item.value.removeprefix(self._typed.kept) if item.type == "plain" else item.value
        if self._typed.quote == "'":
            left = left.replace("'", "'\\''")
        elif self._typed.quote:
            left = re.sub(r'["\\$`]', r"\\\g<0>", left).replace("!", '"\\!"')
        elif item.type == "plain":
            left = re.sub(r"[^\w@%+=:,./-]", r"\\\g<0>", left)
        # Readline closes the quote, but not where the word ends with one.
        closing = self._typed.quote if self._typed.quote and left.endswith(self._typed.quote) else ""
        return f"{item.type},{left}{closing}"


class _Zsh(_Shell):
    """Zsh quotes by itself. Words that are told of go through `_describe`, for which a colon ends the word."""

    name = "zsh"
    source_template = """\
#compdef sweep
_sweep_completion() {
    local -a told plain
    local line
    (( $+commands[sweep] )) || return 1
    for line in "${(@f)$(_SWEEP_LINE="${(j: :)words[1,CURRENT]}" _SWEEP_COMPLETE=zsh_complete sweep)}"; do
        case ${line%%,*} in
            dir) _path_files -/ ;;
            file) _path_files -f ;;
            told) told+=("${line#*,}") ;;
            plain) plain+=("${line#*,}") ;;
        esac
    done
    (( $#told )) && _describe -V unsorted told -U
    (( $#plain )) && compadd -U -V unsorted -a plain
}
if [[ $zsh_eval_context[-1] == loadautofunc ]]; then
    _sweep_completion "$@"
else
    compdef _sweep_completion sweep
fi
"""

    def format_completion(self, item: CompletionItem[str]) -> str:
        """The word, and what is told of it."""
        if not item.help:
            return f"{item.type},{item.value}"
        value = re.sub(r"[:\\]", r"\\\g<0>", item.value)
        return f"told,{value}:{item.help}"


class _Fish(_Shell):
    """Fish quotes by itself; what is told of a word stands behind a tab."""

    name = "fish"
    source_template = """\
function _sweep_completion
    for line in (_SWEEP_LINE=(commandline -cp) _SWEEP_COMPLETE=fish_complete sweep)
        set -l item (string split -m 1 , -- $line)
        switch $item[1]
            case dir
                __fish_complete_directories $item[2]
            case file
                __fish_complete_path $item[2]
            case plain
                echo $item[2]
        end
    end
end
complete --no-files --keep-order --command sweep --arguments "(_sweep_completion)"
"""

    def format_completion(self, item: CompletionItem[str]) -> str:
        """The word, and what is told of it."""
        return f"{item.type},{item.value}" + (f"\t{item.help}" if item.help else "")


_SHELLS: Final[Mapping[str, type[_Shell]]] = {kind.name: kind for kind in (_Bash, _Zsh, _Fish)}


def answer_shell(command: click.Command, instruction: str) -> int:
    """Print the words that fit what is typed; `instruction` is `bash_complete` and the like."""
    shell, _, task = instruction.partition("_")
    kind = _SHELLS.get(shell)
    if kind is None or task != "complete":
        return 1
    # A word that is no verb has nothing to go on with; a shell has no use for the reason.
    with open(os.devnull, "w", encoding="utf-8") as nowhere, redirect_stderr(nowhere), suppress(click.UsageError):  # noqa: PTH123 - a device
        click.echo(kind(command, {}, _NAME, COMPLETE_VARIABLE).complete())
    return 0


def complete_sweeps(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem[str]]:
    """Short ids and names of sweeps, and `@latest`."""
    del ctx, parameter
    return _items(_within_limit(_sweeps), incomplete)


def complete_runs(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem[str]]:
    """Trials as `SWEEP/NUMBER`, once it is clear which sweep; until then sweeps."""
    del ctx, parameter
    return _items(_within_limit(lambda client: _runs(client, incomplete)), incomplete)


def complete_sweeps_and_runs(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem[str]]:
    """Sweeps; behind a slash, trials."""
    return complete_runs(ctx, parameter, incomplete) if "/" in incomplete else complete_sweeps(ctx, parameter, incomplete)


def complete_workers(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem[str]]:
    """Names of workers that are here."""
    del ctx, parameter
    return _items(_within_limit(lambda client: [(each["name"], each["state"]) for each in client.workers()["workers"]]), incomplete)


def complete_models(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem[str]]:
    """Names of registered models."""
    del ctx, parameter
    return _items(_within_limit(lambda client: [(each["name"], "") for each in client.models()["models"]]), incomplete)


Word = tuple[str, str]
"""A word, and what is told of it where the shell shows that."""


def _sweeps(client: Client) -> list[Word]:
    found = client.sweeps(limit=_SHOWN)["sweeps"]
    ids = [(each["short_id"], f"{each['name']}, {each['state']}") for each in found]
    return [*ids, *dict.fromkeys((each["name"], "the newest of that name") for each in found), *([("@latest", "the newest")] if found else [])]


def _trials(client: Client, ref: str) -> list[Word]:
    found = client.trials(ref, limit=_SHOWN)["trials"]
    return [(f"{ref}/{each['number']}", each["run_state"]) for each in found]


def _runs(client: Client, incomplete: str) -> list[Word]:
    named, slash, _ = incomplete.rpartition("/")
    if slash:
        return _trials(client, named)
    found = [word for word in _sweeps(client) if word[0].startswith(incomplete)]
    if len(found) == 1 and (trials := _trials(client, found[0][0])):
        return trials
    return [(f"{ref}/", told) for ref, told in found]


def _items(words: Iterable[Word], incomplete: str) -> list[CompletionItem[str]]:
    return [CompletionItem(word, help=told or None) for word, told in words if word.startswith(incomplete)]


def _within_limit(ask: Callable[[Client], Sequence[Word]]) -> Sequence[Word]:
    """What the server says, if it does so in time.

    In a thread that is left behind: the look-up of a host's name, say, can't be told to hurry.
    """
    found: list[Word] = []
    thread = Thread(target=_ask, args=(ask, found), daemon=True)
    thread.start()
    thread.join(LIMIT_S)
    return list(found)


def _ask(ask: Callable[[Client], Sequence[Word]], found: list[Word]) -> None:
    try:
        settings = load_settings()
        url = running_url(settings)
        if url is not None:
            with _Hasty(url, settings.token, timeout_s=LIMIT_S) as client:
                found += ask(client)
    except SweepError:
        return  # no words: see the top


class _Hasty(Client):
    retry_waits_s = ()
