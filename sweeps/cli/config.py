"""`sweep config`: the settings that count, and where each comes from; no secret is shown."""

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields
from difflib import get_close_matches
from typing import Any, Final
from urllib.parse import urlsplit, urlunsplit

import click

from sweeps.api.shapes import SCHEMA
from sweeps.cli.terminal import is_terminal, json_option, print_json, print_table
from sweeps.wording import clean
from tracking.settings import PREFIX, Settings, load_settings

_HIDDEN: Final = "***"
_UNSET: Final[Mapping[str, str]] = {
    "server": "the cluster of this machine",
    "database_url": "the embedded Postgres under SWEEP_HOME",
    "broker_url": "a folder under SWEEP_HOME",
    "artifact_root": "artifacts under SWEEP_HOME",
}
"""What an empty setting stands for."""
_ALIKE: Final = 0.8
_OTHERS: Final = frozenset({"SWEEP_RUN_TOKEN", "SWEEP_SEED", "SWEEP_BROKEN"})
"""Variables of ours that are no settings, and read like one: a trial's, and the tests'."""


@click.command()
@json_option
def config(*, as_json: bool) -> int:
    """Print the settings that count, and where each comes from.

    A setting is an environment variable, or else its default; there is no settings file. Passwords and tokens are not
    shown. Starts nothing.
    """
    settings = load_settings()
    entries = list(entries_of(settings, os.environ))
    if as_json:
        print_json({"schema": SCHEMA, "settings": entries})
    else:
        # What an empty one stands for is for people.
        means = "means" if is_terminal() else "value"
        print_table(("SETTING", "VALUE", "SOURCE"), [(entry["name"], _text(entry["value"]) or entry[means], entry["source"]) for entry in entries])
    for name, meant in mistyped(os.environ, [entry["name"] for entry in entries]):
        # With --quiet too: it is set, and does nothing.
        click.echo(f"warning: {clean(name)} is no setting. Did you mean {meant}?", err=True)
    return 0


def _text(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def entries_of(settings: Settings, environ: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    """Each setting: its variable, value, source, and what it stands for where it is empty."""
    for item in fields(Settings):
        name = PREFIX + item.name.upper()
        value = getattr(settings, item.name)
        yield {
            "name": name,
            "value": value if isinstance(value, int | float) else without_secrets(item.name, str(value)),
            "source": "environment" if environ.get(name, "").strip() else "default",
            "means": _UNSET.get(item.name, "") if value == "" else "",
        }


def without_secrets(name: str, value: str) -> str:
    """A setting's value as it may be shown: a token not at all, a URL without its password."""
    if name == "token":
        return _HIDDEN if value else ""
    if "://" not in value:
        return value
    parts = urlsplit(value)
    user, at, host = parts.netloc.rpartition("@")
    user_name, colon, _ = user.partition(":")
    hidden = f"{user_name}:{_HIDDEN}@{host}" if colon else f"{user}{at}{host}"
    # Libpq and Redis take a password among the parameters as well.
    query = "&".join(_parameter(each) for each in parts.query.split("&")) if parts.query else ""
    return urlunsplit(parts._replace(netloc=hidden, query=query))


def _parameter(text: str) -> str:
    key, equals, _ = text.partition("=")
    return f"{key}={_HIDDEN}" if equals and "pass" in key.lower() else text


def mistyped(environ: Mapping[str, str], known: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Variables that look like settings and are none, each with the setting that was meant."""
    names = set(known)
    for name in sorted(set(environ) - names - _OTHERS):
        close = get_close_matches(name, names - set(environ), n=1, cutoff=_ALIKE) if name.startswith(PREFIX) else []
        if close:
            yield name, close[0]
