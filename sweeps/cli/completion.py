"""`sweep completion`: words for the shell's Tab key, ids and names among them.

Those come from the server, within 300 ms or not at all: no cluster is started, nothing is asked twice, and whatever goes
wrong gives no words and no message, for that would be drawn over the line that is being typed.
"""

import os
import re
from collections.abc import Callable, Iterable, Sequence
from contextlib import redirect_stderr, suppress
from threading import Thread
from typing import Final

import click
from click.shell_completion import BashComplete, CompletionItem, ShellComplete, get_completion_class

from sweeps.cli import COMPLETE_VARIABLE
from sweeps.client import Client
from tracking.errors import SweepError
from tracking.settings import Settings, load_settings

LIMIT_S: Final = 0.3
_SHOWN: Final = 200
_NAME: Final = "sweep"
_PLAIN: Final = re.compile(r"[\w@./-]+", re.ASCII)
"""Words that no shell needs quoted."""

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
    kind = _kind(shell)
    assert kind is not None  # noqa: S101 - there is one for each choice
    click.echo(kind(ctx.find_root().command, {}, _NAME, COMPLETE_VARIABLE).source())
    return 0


class _Bash(BashComplete):
    """Bash takes `@` for a word of its own, and so `@latest` for two."""

    def get_completion_args(self) -> tuple[list[str], str]:
        """The words before the cursor, and what there is of the one it is in."""
        args, incomplete = super().get_completion_args()
        words = "\0".join([*args, incomplete]).replace("\0@\0", "\0@").split("\0")
        return words[:-1], words[-1]


def _kind(shell: str) -> type[ShellComplete] | None:
    return _Bash if shell == "bash" else get_completion_class(shell)


def answer_shell(command: click.Command, instruction: str) -> int:
    """Print the words that fit what is typed; `instruction` is `bash_complete` and the like."""
    shell, _, task = instruction.partition("_")
    kind = _kind(shell)
    if kind is None or task != "complete":
        return 1
    # A word that is no verb has nothing to go on with; a shell has no use for the reason.
    with open(os.devnull, "w", encoding="utf-8") as nowhere, redirect_stderr(nowhere), suppress(click.UsageError):  # noqa: PTH123 - a device
        click.echo(kind(command, {}, _NAME, COMPLETE_VARIABLE).complete())
    return 0


def complete_sweeps(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Short ids and names of sweeps, and `@latest`."""
    del ctx, parameter
    return _items(_within_limit(_sweeps), incomplete)


def complete_runs(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Trials as `SWEEP/NUMBER`, once it is clear which sweep; until then sweeps."""
    del ctx, parameter
    return _items(_within_limit(lambda client: _runs(client, incomplete)), incomplete)


def complete_sweeps_and_runs(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Sweeps; behind a slash, trials."""
    return complete_runs(ctx, parameter, incomplete) if "/" in incomplete else complete_sweeps(ctx, parameter, incomplete)


def complete_workers(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Names of workers that are here."""
    del ctx, parameter
    return _items(_within_limit(lambda client: [(each["name"], each["state"]) for each in client.workers()["workers"]]), incomplete)


def complete_models(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
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


def _items(words: Iterable[Word], incomplete: str) -> list[CompletionItem]:
    return [CompletionItem(word, help=told or None) for word, told in words if word.startswith(incomplete) and _PLAIN.fullmatch(word)]


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
        url = settings.server or _local_url(settings)
        if url is not None:
            with _Hasty(url, settings.token, timeout_s=LIMIT_S) as client:
                found += ask(client)
    except SweepError:
        return  # no words: see the top


class _Hasty(Client):
    retry_waits_s = ()


def _local_url(settings: Settings) -> str | None:
    from sweeps.local import cluster_status

    status = cluster_status(settings)
    return status.url if status.is_running else None
