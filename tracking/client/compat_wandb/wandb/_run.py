"""A run as W&B's scripts see it, of which everything goes to the trial that this process is."""

import atexit
import glob as globbing
import math
import os
import tempfile
import time

from ._artifact import Artifact, made_elsewhere
from ._config import Config
from ._metrics import Definitions, Kept, Metric
from ._plain import flat, is_number, leaves, number_of, plain
from ._summary import Summary
from ._uploads import Uploads
from .data_types import Media, Table, media_of
from .errors import UsageError, say, say_again

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Optional, Self

    from tracking.client import sweep_client

    from ._settings import Settings
else:
    import sweep_client

DRAIN_S = 300.0
FLUSH_S = 60.0
TEXT_MAX = 6000

_reached: "dict[str, int]" = {}
"""The highest step of each metric that this trial has sent, by whichever of its runs."""


class Run:
    """One run. All that it is told goes out through `sweep_client`: at once, and without waiting."""

    def __init__(self, settings: "Settings", config: "dict[str, Any]", params: "dict[str, Any]", is_disabled: bool = False) -> None:
        self._settings = settings
        self._is_disabled = is_disabled
        self._is_finished = False
        self._pid = os.getpid()
        self._step = 0
        self._row: "dict[str, Any]" = {}
        self._paths: "dict[str, tuple[str, ...]]" = {}
        self._sent: "dict[str, str]" = {}
        self._last: "dict[str, Any]" = {}
        self._kept: "dict[str, Kept]" = {}
        self._definitions = Definitions()
        # A run after another one counts from 0 again, and is the same trial: its steps follow those of the earlier one.
        self._begins = {key: step + 1 for key, step in _reached.items()}
        # By a step metric of its own: the highest step of each metric, and the metrics that had to be counted.
        self._by_own: "dict[str, int]" = {}
        self._counted: "set[str]" = set()
        self._values: "dict[str, Any]" = {}
        self._texts: "dict[str, str]" = {}
        self._unserved: "list[str]" = []
        self._uploads = Uploads()
        self._saved: "dict[str, tuple[str, float, int]]" = {}
        self._artifacts: "dict[str, Artifact]" = {}
        self._logged_params: "dict[str, str]" = {}
        self._tags: "tuple[str, ...]" = ()
        self.summary = Summary(self._values, self._on_summary)
        self._params = {*flat(params), *params}
        self._start_time = time.time()
        base = os.path.abspath(settings.dir or os.environ.get("WANDB_DIR") or ".")
        self._folder = os.path.join(base, "wandb", f"run-{self.id}")
        try:
            os.makedirs(self.dir, exist_ok=True)
        except OSError:  # as W&B does where the working folder can't be written
            self._folder = tempfile.mkdtemp(prefix="wandb-")
            os.makedirs(self.dir)
        # Makes the client, whose own end, which waits, must come after ours.
        self._set_tags({"wandb": "stand-in"})
        atexit.register(self._end)
        self.config = Config(self._on_config)
        self.config._set(config, is_change_allowed=True)
        self.config._lock(params)

    # What it is called

    @property
    def id(self) -> str:
        """The trial's run, as our own commands know it."""
        return sweep_client.run_id or os.environ.get("WANDB_RUN_ID") or "none"

    @property
    def name(self) -> "Optional[str]":
        """What the script called it."""
        return self._texts.get("name") or os.environ.get("WANDB_NAME") or self.id

    @name.setter
    def name(self, text: str) -> None:
        self._name("name", text)

    @property
    def notes(self) -> "Optional[str]":
        """What the script says of it."""
        return self._texts.get("notes")

    @notes.setter
    def notes(self, text: str) -> None:
        self._name("notes", text)

    @property
    def tags(self) -> "tuple[str, ...]":
        """W&B's tags: words."""
        return self._tags

    @tags.setter
    def tags(self, words: "Any") -> None:
        self._tags = tuple(str(word) for word in words)
        self._set_tags({"wandb.tags": ",".join(self._tags)})

    @property
    def dir(self) -> str:
        """What is written into this folder is kept as artifacts when the run finishes."""
        return os.path.join(self._folder, "files")

    @property
    def sweep_id(self) -> "Optional[str]":
        """The sweep."""
        return os.environ.get("WANDB_SWEEP_ID") or None

    @property
    def project(self) -> str:
        """What the script called it: its experiment is the sweep file's business."""
        return self._texts.get("project") or os.environ.get("WANDB_PROJECT") or "uncategorized"

    @property
    def entity(self) -> str:
        """What the script called it."""
        return self._texts.get("entity") or os.environ.get("WANDB_ENTITY") or ""

    @property
    def group(self) -> "Optional[str]":
        """What the script called it."""
        return self._texts.get("group") or os.environ.get("WANDB_RUN_GROUP")

    @property
    def job_type(self) -> "Optional[str]":
        """What the script called it."""
        return self._texts.get("job_type") or os.environ.get("WANDB_JOB_TYPE")

    @property
    def path(self) -> str:
        """As W&B writes it."""
        return "/".join(part for part in (self.entity, self.project, self.id) if part)

    @property
    def url(self) -> "Optional[str]":
        """There is no page of W&B's."""
        return None

    project_url = sweep_url = url

    @property
    def step(self) -> int:
        """The step that is being filled."""
        return self._step

    @property
    def start_time(self) -> float:
        """When it began, in seconds."""
        return self._start_time

    @property
    def settings(self) -> "Settings":
        """What it was given."""
        return self._settings

    @property
    def config_static(self) -> "dict[str, Any]":
        """A copy of the config."""
        return self.config.as_dict()

    @property
    def disabled(self) -> bool:
        """Whether nothing is kept: `mode="disabled"`."""
        return self._is_disabled

    offline = resumed = False
    starting_step = 0

    # What it is told

    def log(self, data: "Any", step: "Optional[int]" = None, commit: "Optional[bool]" = None, sync: "Optional[bool]" = None) -> None:
        """Log values of one step. Without `step` each call is the next; `commit=False` stays on the same."""
        if not self._is_live("log"):
            return
        if not hasattr(data, "keys"):
            raise TypeError("wandb.log must be passed a dictionary")
        if any(not isinstance(key, str) for key in data):
            raise TypeError("Key values passed to `wandb.log` must be strings.")
        if step is not None:
            at = int(step)
            if at < self._step:
                say(f"what was logged for step {at} is ignored: step {self._step} is under way, and steps only grow (define_metric takes others)", "step")
                return
            if at > self._step:
                self._commit()
                self._step = at
        for path, value in leaves({key: data[key] for key in data.keys()}):  # noqa: SIM118  a mapping by duck's measure
            key = ".".join(path)
            self._row[key] = value
            self._paths[key] = path
        if commit or (step is None and commit is None):
            self._commit()
            self._step += 1
        else:
            self._deliver(is_complete=False)

    def define_metric(
        self,
        name: str,
        step_metric: "Any" = None,
        step_sync: "Any" = None,
        hidden: "Any" = None,
        summary: "Optional[str]" = None,
        goal: "Optional[str]" = None,
        overwrite: "Any" = None,
        **_options: "Any",
    ) -> Metric:
        """Say in what a metric's steps are counted, and which of its values count."""
        return self._definitions.add(name, step_metric, summary, goal)

    def finish(self, exit_code: "Optional[int]" = None, quiet: "Any" = None) -> None:
        """Send what waits, and wait for it. The trial itself ends with its process; with an `exit_code` it has failed, as at W&B."""
        self._finish(f"{exit_code} the script called wandb.finish(exit_code={exit_code})" if exit_code else "")

    def _finish(self, failure: str) -> None:
        if self._end(failure):
            sweep_client.flush(FLUSH_S)

    def _end(self, failure: str = "") -> bool:
        """Hand over everything that waits; whether there was anything to do.

        `failure` is an exit code and why, for the worker; empty: it went well, whatever a run before this one said.
        """
        if self._is_finished:
            return False
        self._is_finished = True
        _forget(self)
        if self._is_disabled or self._pid != os.getpid():
            return False
        self._commit()
        self._deliver_ends()
        self._save_again()
        _tell_worker(failure)
        n_missing = self._uploads.drain(DRAIN_S)
        if n_missing:
            say(f"{n_missing} media files could not be sent before the end")
        return True

    # Files

    def log_artifact(
        self, artifact_or_path: "Any", name: "Optional[str]" = None, type: "Optional[str]" = None, aliases: "Any" = None, tags: "Any" = None
    ) -> Artifact:
        """Keep an artifact, a file or a folder, under its name; wait for it."""
        artifact = artifact_or_path
        if not isinstance(artifact, Artifact):
            path = os.fspath(artifact_or_path)
            artifact = Artifact(name or f"run-{self.id}-{os.path.basename(os.path.abspath(path))}", type or "unspecified")
            if os.path.isdir(path):
                artifact.add_dir(path)
            else:
                artifact.add_file(path)
        if self._is_live("log_artifact"):
            folder = artifact._finished(aliases)
            self._artifacts[artifact.name] = artifact
            sweep_client.log_artifacts(folder, artifact.name)
        return artifact

    upsert_artifact = finish_artifact = log_artifact

    def log_model(self, path: "Any", name: "Optional[str]" = None, aliases: "Any" = None) -> Artifact:
        """Keep a model's files as an artifact."""
        return self.log_artifact(path, name=name, type="model", aliases=aliases)

    def use_artifact(self, artifact_or_name: "Any", type: "Optional[str]" = None, aliases: "Any" = None, use_as: "Any" = None) -> Artifact:
        """An artifact that this run has logged.

        Raises:
            CommError: it is of another run.
        """
        if isinstance(artifact_or_name, Artifact):
            return artifact_or_name
        name = str(artifact_or_name).rpartition("/")[2].partition(":")[0]
        if name not in self._artifacts:
            raise made_elsewhere(str(artifact_or_name))
        return self._artifacts[name]

    def use_model(self, name: str) -> str:
        """Where the files of a model lie that this run has logged."""
        artifact = self.use_artifact(name)
        paths = artifact.files()
        return paths[0] if len(paths) == 1 else artifact.download()

    def link_model(self, path: "Any", registered_model_name: str, name: "Optional[str]" = None, aliases: "Any" = None) -> Artifact:
        """Keep a model's files; registering is the sweep file's business."""
        self._no("link_model", f"{registered_model_name!r} is not registered: name it under 'register:' in the sweep file")
        return self.log_model(path, name, aliases)

    def link_artifact(self, artifact: Artifact, target_path: str, aliases: "Any" = None) -> Artifact:
        """Keep an artifact; registering is the sweep file's business."""
        self._no("link_artifact", f"{target_path!r} is not registered: name it under 'register:' in the sweep file")
        return self.log_artifact(artifact, aliases=aliases)

    def save(self, glob_str: "Any" = None, base_path: "Any" = None, policy: str = "live", glob: bool = True) -> "list[str]":
        """Keep files as artifacts, now, and again at the end if they have changed by then."""
        if not self._is_live("save"):
            return []
        if glob_str is None:
            return []
        if policy not in ("live", "end", "now"):
            raise ValueError('Only "live", "end" and "now" policies are currently supported.')
        pattern = glob_str.decode() if isinstance(glob_str, bytes) else os.fspath(glob_str)
        if pattern.startswith(("gs://", "s3://")):
            say(f"{pattern} is a cloud storage url, can't save file")
            return []
        whole = os.path.abspath(pattern)
        base = os.path.abspath(base_path) if base_path is not None else os.path.dirname(os.path.dirname(whole)) if os.path.isabs(pattern) else os.getcwd()
        paths = sorted(globbing.glob(whole)) if glob else [whole] if os.path.exists(whole) else []
        if whole.startswith(self.dir + os.sep):
            base = self.dir
        if os.path.relpath(whole, base).startswith(".."):
            raise ValueError(f"{pattern!r} is not below {base!r}: give another base_path")
        saved = []
        for path in paths:
            below = [path] if os.path.isfile(path) else [os.path.join(parent, name) for parent, _, names in os.walk(path) for name in sorted(names)]
            saved += [self._keep(one, base, is_again=policy != "now") for one in below]
        if not paths:
            say(f"save: there is no file {pattern}")
        return saved

    # What is not served

    def watch(self, models: "Any" = None, *_arguments: "Any", **_options: "Any") -> None:
        """Not served."""
        self._no("watch", "gradients and parameters of models are not recorded")

    def unwatch(self, *_arguments: "Any", **_options: "Any") -> None:
        """Nothing is watched."""

    def alert(self, title: str, text: str = "", level: "Any" = None, wait_duration: "Any" = None) -> None:
        """Told on standard error, which is kept with the trial; nobody is written to."""
        self._no("alert", "alerts go to the trial's standard error only")
        say_again(f"ALERT {title}: {text}")
        self._set_tags({"wandb.alert": f"{title}: {text}"[:TEXT_MAX]})

    def log_code(self, *_arguments: "Any", **_options: "Any") -> None:
        """The sweep's snapshot already holds the code."""
        self._no("log_code", "the code is kept with the sweep already")

    def mark_preempting(self) -> None:
        """Not served: a lost attempt is tried again without it."""
        self._no("mark_preempting", "an attempt whose worker goes away is tried again by itself")

    def restore(self, name: str, *_arguments: "Any", **_options: "Any") -> None:
        """Not served."""
        raise made_elsewhere(name)

    def status(self) -> None:
        """Not served."""
        self._no("status", "ask `sweep show`")

    def display(self, *_arguments: "Any", **_options: "Any") -> bool:
        """Nothing to show."""
        return False

    def to_html(self, *_arguments: "Any", **_options: "Any") -> str:
        """Nothing to show."""
        return ""

    def _label(self, *_arguments: "Any", **_options: "Any") -> None:
        """Libraries tell W&B who they are."""

    def _no(self, name: str, why: str) -> None:
        """Say once that something is not served, and keep that with the run."""
        if name not in self._unserved:
            self._unserved.append(name)
            say(f"wandb.{name} does nothing here: {why}")
            self._set_tags({"wandb.unserved": ",".join(self._unserved)})

    # Inside

    def _is_live(self, call: str) -> bool:
        if self._is_finished:
            raise UsageError(f"Run ({self.id}) is finished. The call to `{call}` will be ignored. Please make sure that you are using an active run.")
        return not self._is_disabled

    def _commit(self) -> None:
        self._deliver(is_complete=True)
        self._last.update((key, value) for key, value in self._row.items() if is_number(value))
        self._row = {}
        self._sent = {}

    def _deliver(self, *, is_complete: bool) -> None:
        """Send what is new in this row. A value that replaces another, and one whose own steps are not known yet, wait until the row is complete."""
        points: "dict[int, dict[str, float]]" = {}
        for key, value in self._row.items():
            number = number_of(value)
            text = str(id(value)) if number is None else repr(value)
            if self._sent.get(key) == text:
                continue
            definition = self._definitions.of(key)
            if key in self._sent and not is_complete:
                if number is not None and not (definition and definition.ops):
                    self._summarize(key, number, definition)
                continue
            by = definition.step_metric if definition else None
            if by and by not in self._row and not is_complete:
                continue
            self._sent[key] = text
            if number is not None:
                at = self._step_of(key, by)
                points.setdefault(at, {})[key] = number
                points[at].update(self._summarize(key, number, definition))
            else:
                self._take_other(key, value)
        for at, values in points.items():
            self._send(values, at)

    def _send(self, values: "dict[str, float]", at: int) -> None:
        """Log points of one step of this run."""
        points: "dict[int, dict[str, float]]" = {}
        for key, value in values.items():
            step = at + self._begins.get(key, 0)
            _reached[key] = max(step, _reached.get(key, step))
            points.setdefault(step, {})[key] = value
        for step, part in points.items():
            sweep_client.log(part, step=step)

    def _step_of(self, key: str, by: "Optional[str]") -> int:
        """A point's step: by its step metric where that is whole. Otherwise it is counted, and from then on each step goes forward."""
        if not by or by == key:
            return self._step
        value = self._row.get(by, self._last.get(by))
        if value is None:
            return self._step
        number, following = number_of(value), self._by_own.get(key, -1) + 1
        if number is None or not math.isfinite(number) or number != int(number):
            say(f"{by} = {value} is no whole number, so the steps of what is defined by it are counted", "step " + by)
            self._counted.add(key)
            at = following
        else:
            at = max(int(number), following) if key in self._counted else int(number)
        self._by_own[key] = max(at, following - 1)
        return at

    def _summarize(self, key: str, number: float, definition: "Optional[Metric]") -> "dict[str, float]":
        """Keep it in the summary; what its definition adds to the record, as metrics `key.min` and the like."""
        ops = [op for op in definition.ops if op not in ("copy", "none", "last")] if definition else []
        if definition and "none" in definition.ops:
            return {}
        if not ops:
            self._put(key, self._row[key] if isinstance(self._row[key], (bool, int)) else number)
            return {}
        changed = self._kept.setdefault(key, Kept()).take(number) if not math.isnan(number) else {}
        entry = self._put(key, {}, is_kept=True)
        if definition and "last" in definition.ops:
            entry["last"] = number
        entry.update((op, value) for op, value in changed.items() if op in ops)
        return {f"{key}.{op}": value for op, value in changed.items() if op in ops and op != "mean"}

    def _take_other(self, key: str, value: "Any") -> None:
        """Media become artifacts, the rest is kept in the summary."""
        many = list(value) if isinstance(value, (list, tuple)) and any(isinstance(one, Media) for one in value) else [value]
        media = [media_of(one) for one in many]
        for place, one in enumerate(media):
            if one is not None:
                self._keep_media(key if len(media) == 1 else f"{key}_{place}", one)
        found = [one._facts() for one in media if one is not None]
        if value is not None:
            self._put(key, plain(value) if not found else found[0] if len(many) == 1 else found)

    def _put(self, key: str, value: "Any", *, is_kept: bool = False) -> "Any":
        """Set a value of the summary, nested as it was logged; with `is_kept` a mapping that is there stays. Returns what is there now."""
        *outer, last = self._paths.get(key, (key,))
        target = self._values
        for part in outer:
            target = target.setdefault(part, {}) if isinstance(target.get(part, {}), dict) else {}
        if not (is_kept and isinstance(target.get(last), dict)):
            target[last] = value
        return target[last]

    def _keep_media(self, key: str, media: Media) -> None:
        folder = os.path.join(self._folder, "staging")
        if isinstance(media, Table):
            for place, inner in enumerate(media._inner()):
                self._uploads.add(*inner._write(folder, f"{key}_cell", self._step, f"_{place}"))
        caption = getattr(media, "caption", None)
        path, artifact_path = media._write(folder, key, self._step)
        if caption:
            self._set_tags({f"wandb.caption.{artifact_path}/{os.path.basename(path)}"[:250]: str(caption)})
        self._uploads.add(path, artifact_path)

    def _on_summary(self, values: "dict[str, Any]") -> None:
        """A summary set by hand counts as the latest value: a sweep may ask for it."""
        if not self._is_live("summary"):
            return
        # Flat and plain, as metrics are; the summary itself keeps what it was given.
        told = flat({key: plain(value) if isinstance(value, dict) else value for key, value in values.items()})
        numbers = {key: number for key, number in ((key, number_of(value)) for key, value in told.items()) if number is not None}
        self._send(numbers, self._step)
        self._set_tags({f"wandb.summary.{key}": str(value)[:TEXT_MAX] for key, value in told.items() if isinstance(value, str)})

    def _on_config(self, values: "dict[str, Any]") -> None:
        """The script's own settings become parameters; a sweep's are recorded already, and those that change later are tags."""
        if self._is_disabled:
            return
        told = {key: str(value)[:TEXT_MAX] for key, value in flat(values).items() if key not in self._params}
        fresh = {key: text for key, text in told.items() if key not in self._logged_params}
        self._logged_params.update(fresh)
        sweep_client.log_params(fresh)
        self._set_tags({f"wandb.config.{key}": text for key, text in told.items() if self._logged_params[key] != text})

    def _deliver_ends(self) -> None:
        """What only the end knows: means, and text that was logged."""
        means = {f"{key}.mean": kept.values["mean"] for key, kept in self._kept.items() if "mean" in getattr(self._definitions.of(key), "ops", ()) and kept.n}
        self._send(means, max(self._step - 1, 0))
        self._set_tags({f"wandb.summary.{key}": value[:TEXT_MAX] for key, value in flat(self._values).items() if isinstance(value, str)})

    def _keep(self, path: str, base: str, *, is_again: bool) -> str:
        target = os.path.dirname(os.path.relpath(path, base)).replace(os.sep, "/")
        status = os.stat(path)
        if is_again:
            self._saved[path] = (target, status.st_mtime, status.st_size)
        sweep_client.log_artifact(path, target)
        return path

    def _save_again(self) -> None:
        """Files that were saved and have changed, and whatever lies in the run's own folder."""
        for path, (target, changed_at, n_bytes) in list(self._saved.items()):
            if os.path.exists(path) and (os.stat(path).st_mtime, os.stat(path).st_size) != (changed_at, n_bytes):
                sweep_client.log_artifact(path, target)
        for parent, _, names in os.walk(self.dir):
            for name in sorted(names):
                if os.path.join(parent, name) not in self._saved:
                    self._keep(os.path.join(parent, name), self.dir, is_again=False)

    def _name(self, what: str, text: "Any") -> None:
        if text is not None:
            self._texts[what] = str(text)
            self._set_tags({f"wandb.{what}": str(text)[:TEXT_MAX]})

    def _set_tags(self, values: "dict[str, str]") -> None:
        if values and not self._is_disabled:
            sweep_client.set_tags(values)

    def __deepcopy__(self, _memo: "Any") -> "Self":
        """Itself, as at W&B: there is one run."""
        return self

    def __enter__(self) -> "Self":
        return self

    def __exit__(self, kind: "Optional[type[BaseException]]" = None, *_error: object) -> None:
        # W&B takes any exception for a failure; what exits on purpose has an exit status, which the worker sees.
        self._finish(f"1 {kind.__name__} left the script's wandb run" if kind and not issubclass(kind, SystemExit) else "")

    def __getattr__(self, name: str) -> "Any":
        if name.startswith("__"):
            raise AttributeError(name)
        raise AttributeError(f"wandb.Run.{name} is not served by this stand-in (docs: coming from W&B)")


def _tell_worker(failure: str) -> None:
    path = os.environ.get("SWEEP_WANDB_EXIT_FILE")
    if not path:
        return
    try:
        if failure:
            with open(path, "w", encoding="utf-8") as file:
                file.write(failure)
            say(f"{failure.partition(' ')[2]}: this trial counts as failed, unless another run of it ends well")
        elif os.path.exists(path):
            os.remove(path)
    except OSError as error:
        say(f"that a run has failed could not be told: {error}")


_forget_hooks: "list[Any]" = []


def _forget(run: Run) -> None:
    """Tell the module that its current run has ended."""
    for hook in _forget_hooks:
        hook(run)
