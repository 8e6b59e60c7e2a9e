"""Stands in for `wandb` in trials whose sweep file says `compat: wandb`. Standard library only, Python 3.8 and newer.

A script written for W&B runs as it is: `wandb.config` holds the sweep's parameters, and what it logs goes to the trial through
`sweep_client`. What is not served says so once on standard error, or fails with a sentence that says what to do; nothing is sent to W&B.
"""

import importlib.abc
import os
import sys

from . import data_types, errors, plot, sdk, util
from ._artifact import Artifact
from ._config import Config, defaults, parse_config, read_file
from ._run import Run, _forget_hooks
from ._settings import Settings
from .data_types import Audio, Histogram, Html, Image, Molecule, Object3D, Plotly, Table, Video
from .errors import AuthenticationError, CommError, Error, UnsupportedError, UsageError, say, say_again
from .plot import plot_table

TYPE_CHECKING = False
if TYPE_CHECKING:
    from importlib.machinery import ModuleSpec
    from typing import Any, Callable, Optional, Sequence

    from tracking.client import sweep_client
else:
    import sweep_client

__version__ = "0.31.0"
"""Of the package whose documentation this follows: libraries ask."""

__all__ = [
    "AlertLevel",
    "Artifact",
    "Audio",
    "AuthenticationError",
    "CommError",
    "Config",
    "Error",
    "Histogram",
    "Html",
    "Image",
    "Molecule",
    "Object3D",
    "Plotly",
    "Run",
    "Settings",
    "Table",
    "UnsupportedError",
    "UsageError",
    "Video",
    "agent",
    "alert",
    "config",
    "data_types",
    "define_metric",
    "errors",
    "finish",
    "init",
    "link_model",
    "log",
    "log_artifact",
    "log_model",
    "login",
    "plot",
    "plot_table",
    "require",
    "restore",
    "run",
    "save",
    "sdk",
    "setup",
    "summary",
    "sweep",
    "teardown",
    "termerror",
    "termlog",
    "termwarn",
    "unwatch",
    "use_artifact",
    "use_model",
    "util",
    "watch",
]


class AlertLevel:
    """How much an alert matters."""

    INFO = "INFO"
    WARN = "WARN"
    ERROR = "ERROR"


class _BeforeInit:
    """`wandb.config` and `wandb.summary` while there is no run."""

    def __init__(self, name: str) -> None:
        object.__setattr__(self, "_name", name)

    def __getitem__(self, key: str) -> "Any":
        raise Error(f"You must call wandb.init() before {self._name}[{key!r}]")

    def __setitem__(self, key: str, value: "Any") -> None:
        raise Error(f"You must call wandb.init() before {self._name}[{key!r}]")

    def __getattr__(self, key: str) -> "Any":
        if key.startswith("_"):
            raise AttributeError(key)
        raise Error(f"You must call wandb.init() before {self._name}.{key}")

    def __setattr__(self, key: str, value: "Any") -> None:
        raise Error(f"You must call wandb.init() before {self._name}.{key}")


_UNSERVED_OPTIONS = {
    "tensorboard": "files of TensorBoard are not read, log with wandb.log",
    "sync_tensorboard": "files of TensorBoard are not read, log with wandb.log",
    "monitor_gym": "videos of gym are not looked for, log them as wandb.Video",
    "resume": "each attempt of a trial begins anew, whatever ran before",
    "resume_from": "a trial continues no other run",
    "fork_from": "a trial continues no other run",
}
"""Of `init`: what is taken and has no effect, and why."""
run: "Optional[Run]" = None
config: "Any" = _BeforeInit("wandb.config")
summary: "Any" = _BeforeInit("wandb.summary")
_n_runs = 0


def init(
    entity: "Optional[str]" = None,
    project: "Optional[str]" = None,
    dir: "Any" = None,
    id: "Optional[str]" = None,
    name: "Optional[str]" = None,
    notes: "Optional[str]" = None,
    tags: "Optional[Sequence[str]]" = None,
    config: "Any" = None,
    config_exclude_keys: "Any" = None,
    config_include_keys: "Any" = None,
    allow_val_change: "Optional[bool]" = None,
    group: "Optional[str]" = None,
    job_type: "Optional[str]" = None,
    mode: "Optional[str]" = None,
    reinit: "Any" = None,
    settings: "Any" = None,
    **options: "Any",
) -> Run:
    """The trial's run. The script's config comes first, the sweep's parameters win and stay."""
    given = {key: value for key, value in (settings if isinstance(settings, dict) else vars(settings) if settings else {}).items() if value is not None}
    told = {"entity": entity, "project": project, "name": name, "notes": notes, "group": group, "job_type": job_type, "tags": tags, "dir": dir, "mode": mode}
    wanted = dict(Settings(**given).for_init(), **{key: value for key, value in told.items() if value is not None})
    if run is not None:
        if reinit in (None, False, "default", "return_previous"):
            return _again(run, config)
        run.finish()
    is_disabled = (wanted.get("mode") or os.environ.get("WANDB_MODE") or "online") == "disabled"
    own = dict(defaults(), **parse_config(config, exclude=config_exclude_keys, include=config_include_keys))
    params = _sweep_params()
    made = Run(Settings(**dict(given, dir=wanted.get("dir"))), own, params, is_disabled)
    object.__setattr__(made.config, "_allow", bool(allow_val_change))
    _become(made)
    for what in ("name", "notes", "group", "job_type", "project", "entity"):
        made._name(what, wanted.get(what))
    if wanted.get("tags") or os.environ.get("WANDB_TAGS"):
        made.tags = wanted.get("tags") or os.environ["WANDB_TAGS"].split(",")
    _tell(made, params, id)
    for option, why in _UNSERVED_OPTIONS.items():
        if options.get(option) or given.get(option):
            made._no(f"init({option})", why)
    return made


def _sweep_params() -> "dict[str, Any]":
    """The trial's parameters: from our worker, or elsewhere from the file that W&B's agent writes."""
    path = os.environ.get("WANDB_SWEEP_PARAM_PATH")
    return read_file(path) if path and not sweep_client.run_id else sweep_client.params()


def _again(current: Run, config: "Any") -> Run:
    """A second `init` while a run is under way is that run, as it is."""
    ignored = ", and the config it was given is ignored: use wandb.config.update()" if config is not None else ""
    say(f"wandb.init() was called again: a trial is one run, and this is it{ignored}", "init")
    return current


def _become(made: Run) -> None:
    global run, config, summary, _n_runs  # noqa: PLW0603  W&B's own module has these three
    run, config, summary = made, made.config, made.summary
    _n_runs += 1


def _leave(ended: Run) -> None:
    global run, config, summary
    if run is ended:
        run, config, summary = None, _BeforeInit("wandb.config"), _BeforeInit("wandb.summary")


_forget_hooks.append(_leave)


def _tell(made: Run, params: "dict[str, Any]", wanted_id: "Optional[str]") -> None:
    if made.disabled:
        say("mode is 'disabled': nothing is recorded, and a sweep that asks for a metric will not get it")
        return
    say(f"run {made.id}, {len(params)} parameters of the sweep; nothing is sent to W&B", "begin")
    if _n_runs > 1:
        say("another wandb.init() after the run was finished: a trial is one run, and what follows is added to it", "another")
    if wanted_id and wanted_id != made.id:
        say(f"id={wanted_id!r} is ignored: this is the trial's run {made.id}", "id")


def _current(call: str) -> Run:
    if run is None:
        raise Error(f"You must call wandb.init() before wandb.{call}()")
    return run


def log(data: "Any", step: "Optional[int]" = None, commit: "Optional[bool]" = None, sync: "Optional[bool]" = None) -> None:
    """Log values of one step of the current run."""
    _current("log").log(data, step, commit, sync)


def define_metric(name: str, *arguments: "Any", **options: "Any") -> "Any":
    """Say in what a metric's steps are counted, and which of its values count."""
    return _current("define_metric").define_metric(name, *arguments, **options)


def save(glob_str: "Any" = None, base_path: "Any" = None, policy: str = "live", glob: bool = True) -> "list[str]":
    """Keep files as artifacts."""
    return _current("save").save(glob_str, base_path, policy, glob)


def log_artifact(*arguments: "Any", **options: "Any") -> Artifact:
    """Keep an artifact, a file or a folder."""
    return _current("log_artifact").log_artifact(*arguments, **options)


def log_model(*arguments: "Any", **options: "Any") -> Artifact:
    """Keep a model's files as an artifact."""
    return _current("log_model").log_model(*arguments, **options)


def link_model(*arguments: "Any", **options: "Any") -> Artifact:
    """Keep a model's files; registering is the sweep file's business."""
    return _current("link_model").link_model(*arguments, **options)


def use_artifact(*arguments: "Any", **options: "Any") -> Artifact:
    """An artifact that this run has logged."""
    return _current("use_artifact").use_artifact(*arguments, **options)


def use_model(name: str) -> str:
    """Where the files of a model lie that this run has logged."""
    return _current("use_model").use_model(name)


def restore(name: str, *arguments: "Any", **options: "Any") -> None:
    """Not served: it fails and says so."""
    _current("restore").restore(name, *arguments, **options)


def watch(*arguments: "Any", **options: "Any") -> None:
    """Not served; says so once."""
    _current("watch").watch(*arguments, **options)


def unwatch(*arguments: "Any", **options: "Any") -> None:
    """Nothing is watched."""
    _current("unwatch").unwatch(*arguments, **options)


def alert(*arguments: "Any", **options: "Any") -> None:
    """Told on standard error."""
    _current("alert").alert(*arguments, **options)


def log_code(*arguments: "Any", **options: "Any") -> None:
    """Not needed; says so once."""
    _current("log_code").log_code(*arguments, **options)


def mark_preempting() -> None:
    """Not needed; says so once."""
    _current("mark_preempting").mark_preempting()


def finish(exit_code: "Optional[int]" = None, quiet: "Optional[bool]" = None) -> None:
    """Send what waits; nothing to do while there is no run."""
    if run is not None:
        run.finish(exit_code, quiet)


def teardown(exit_code: "Optional[int]" = None) -> None:
    """Finish the current run."""
    finish(exit_code)


join = finish


def login(*_arguments: "Any", **_options: "Any") -> bool:
    """A trial has the right to write already."""
    say("wandb.login does nothing here: a trial has the right to write already", "login")
    return True


def setup(*_arguments: "Any", **_options: "Any") -> None:
    """Nothing to set up."""


def require(*_arguments: "Any", **_options: "Any") -> None:
    """There are no features to switch on."""


def ensure_configured() -> None:
    """Nothing to configure."""


def sweep(sweep: "Any" = None, *_arguments: "Any", **_options: "Any") -> str:
    """The sweep that this trial belongs to: a trial starts no other."""
    say("wandb.sweep starts nothing here: this process is a trial of a sweep already, and the sweep file says what is searched", "sweep")
    return os.environ.get("WANDB_SWEEP_ID", "")


def agent(sweep_id: str = "", function: "Optional[Callable[[], Any]]" = None, *_arguments: "Any", **_options: "Any") -> None:
    """Calls the function once: this process is one trial."""
    say("wandb.agent calls the function once here: this process is one trial, and `count` is the sweep file's business", "agent")
    if function is None:
        raise UsageError("wandb.agent without a function would start programs: that is done by the workers, submit the sweep file instead")
    function()


def controller(*_arguments: "Any", **_options: "Any") -> None:
    """Not served: it fails and says so."""
    raise UnsupportedError("wandb.controller is not served: the search runs in the scheduler")


def termlog(string: str = "", newline: bool = True, repeat: bool = True, **_options: "Any") -> None:
    """Tell something on standard error."""
    (say_again if repeat else say)(string)


termwarn = termerror = termlog


class _Absent(importlib.abc.MetaPathFinder):
    """Asked last, for modules of W&B's package that are not here."""

    def find_spec(self, fullname: str, path: "Any" = None, target: "Any" = None) -> "Optional[ModuleSpec]":
        if not fullname.startswith(__name__ + "."):
            return None
        raise ModuleNotFoundError(_why_absent(fullname), name=fullname)


def _why_absent(name: str) -> str:
    return (
        f"{name} is not served by the stand-in for wandb that `compat: wandb` puts on the path. Install wandb in the trial's environment and take "
        "`compat: wandb` out of the sweep file to use the real package, or log with wandb.log (docs: coming from W&B)"
    )


sys.meta_path.append(_Absent())


def __getattr__(name: str) -> "Any":
    if name.startswith("__"):
        raise AttributeError(name)
    raise AttributeError(_why_absent(f"wandb.{name}"))
