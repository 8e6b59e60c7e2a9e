"""Verbs of the registry: register, models."""

from functools import partial

import click

from sweeps.api.shapes import ModelAnswer, RegisterBody, VersionCreated
from sweeps.cli.completion import complete_models, complete_sweeps_and_runs
from sweeps.cli.connection import connected
from sweeps.cli.picture import version_line
from sweeps.cli.terminal import is_terminal, json_option, params_text, print_json, print_table, say
from sweeps.client import Client, MissingOnServer
from sweeps.wording import bytes_text, clean, names_trial, short


@click.command()
@click.argument("ref", metavar="SWEEP|RUN", default="@latest", shell_complete=complete_sweeps_and_runs)
@click.option("--model", required=True, metavar="NAME", shell_complete=complete_models, help="Name of the registered model; made if it is new.")
@click.option("--alias", metavar="ALIAS", help="Let this alias name the new version.")
@click.option("--artifact", default="model", show_default=True, metavar="PATH", help="What of the run's artifacts is the model.")
@click.option("--description", default="", help="A sentence about this version.")
@json_option
def register(ref: str, *, model: str, alias: str | None, artifact: str, description: str, as_json: bool) -> int:
    """Register a sweep's winner as a model version.

    Of a sweep, the best trial; of a run (its id, or SWEEP/NUMBER), that run. Exit status 6 if the sweep has no finished
    trial with a value.
    """
    with connected() as client:
        body = RegisterBody(model=model, artifact=artifact, alias=alias, description=description)
        version = client.register({**body, **_origin(client, ref)})
        twin = _twin(client, version)
    if twin is not None:
        say(f"Version {twin} of {clean(version['name'])} is of the same run and artifact; this made another one.")
    size = version["size_bytes"]
    if as_json:
        print_json(version)
    else:
        what = f", artifact {clean(artifact)} ({bytes_text(size)})" if size is not None else ""
        click.echo(f"Registered {version_line(version)}{what}")
    if size is None:
        # Said with --quiet too: whoever serves this version finds nothing to load.
        click.echo(f"warning: The run logged no artifact {clean(artifact)!r}: the version holds parameters and lineage only.", err=True)
    return 0


def _twin(client: Client, version: VersionCreated) -> int | None:
    """An earlier version of the same run and artifact, the newest of them."""
    if version["version"] == 1:
        return None
    others = client.model(version["name"])["versions"]
    same = [each["version"] for each in others if (each["run_id"], each["source"]) == (version["run_id"], version["source"])]
    return max((number for number in same if number < version["version"]), default=None)


def _origin(client: Client, ref: str) -> RegisterBody:
    """`ref` as a sweep, or as a run if no sweep is named so; SWEEP/NUMBER is a run first."""
    lookups = [partial(_as_sweep, client, ref), partial(_as_run, client, ref)]
    first, second = reversed(lookups) if names_trial(ref) else lookups
    try:
        return first()
    except MissingOnServer as error:
        try:
            return second()
        except MissingOnServer:
            raise error from None


def _as_sweep(client: Client, ref: str) -> RegisterBody:
    return {"sweep": client.sweep(ref)["sweep_id"]}  # type: ignore[typeddict-item]  # a part of the body


def _as_run(client: Client, ref: str) -> RegisterBody:
    return {"run": client.run(ref)["run_id"]}  # type: ignore[typeddict-item]  # a part of the body


@click.group()
def models() -> None:
    """List and show registered models."""


@models.command("ls")
@json_option
def list_models(*, as_json: bool) -> int:
    """List registered models."""
    with connected() as client:
        answer = client.models()
    if as_json:
        print_json(answer)
        return 0
    if not answer["models"]:
        say("No models yet: `sweep register SWEEP --model NAME`.")
        return 0
    rows = [
        (
            model["name"],
            f"v{model['versions'][0]['version']}" if model["versions"] else None,
            ", ".join(f"{alias}=v{version['version']}" for version in model["versions"] for alias in version["aliases"]) or None,
            model["description"] or None,
        )
        for model in answer["models"]
    ]
    print_table(("MODEL", "NEWEST", "ALIASES", "DESCRIPTION"), rows)
    return 0


@models.command("show")
@click.argument("name", shell_complete=complete_models)
@json_option
def show_model(name: str, *, as_json: bool) -> int:
    """Show a model's versions, newest first, and where they came from."""
    with connected() as client:
        answer = client.model(name)
    if as_json:
        print_json(answer)
    else:
        _print_model(answer)
    return 0


def _print_model(model: ModelAnswer) -> None:
    exact = not is_terminal()
    rows = [
        (
            f"v{version['version']}",
            ", ".join(version["aliases"]) or None,
            version["value"] if exact else short(version["value"]),
            version["trial_number"],
            version["sweep_id"],
            version["run_id"],
            version["source"] or None,
            bytes_text(version["size_bytes"]) if version["size_bytes"] is not None else "no artifact",
            params_text(version["params"], exact=exact) or None,
        )
        for version in model["versions"]
    ]
    print_table(("VERSION", "ALIASES", "VALUE", "TRIAL", "SWEEP", "RUN", "SOURCE", "SIZE", "PARAMS"), rows)
