"""The sweep file: W&B's keys, and ours beside them, to a `SweepConfig`; every problem at once, each with its place.

A key that this version does not honour is refused by name, never ignored (`REFUSED` and its like); one that nobody knows is an error with
"did you mean". To serve another key: move it from the refused to the served ones, and read it.
"""

import json
import os
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path, PurePosixPath
from typing import Any, Final, cast

from msgspec import Struct
from msgspec.structs import replace

from sweeps.bounds import GPUS_MAX, PRIORITY_MAX, RETRIES_MAX, RETRY_ENDS, Fault, faults, why_no_end
from sweeps.command import Command, MacroCommand, read_command
from sweeps.errors import SpecError, SpecProblems
from sweeps.mlproject import Project, non_numbers, read_project
from sweeps.space import Parameter
from sweeps.spec_config import Limits, Method, Metric, Register, SweepConfig
from sweeps.spec_fields import Section
from sweeps.spec_parameters import read_parameters, value_place
from sweeps.spec_source import NOWHERE, Item, Place, Source, did_you_mean, from_python, kind_of, read_text, read_yaml
from tracking.records import Collect, Environment, NewSweep, Resources, Retry

SERVED: Final = tuple(
    "name description project program command method metric parameters run_cap "
    "code entry_point limits resources queue priority collect env strategy register retry tags".split()
)
REFUSED: Final[Mapping[str, str]] = {
    # W&B's
    "apiVersion": "",
    "kind": "",
    "controller": "",
    "job": "",
    "image_uri": "use 'resources: {image: ...}'",
    "entity": "",
    "metrics": "use 'metric'",
    "scheduler": "",
    "early_terminate": "submit with --no-pruning to run every trial to its end",
    # ours
    "constraints": "",
    "unique": "",
    "seeds": "",
    "points": "",
    "warm_start": "",
    "secrets": "",
    "compat": "",
    "notify": "",
}
METHODS: Final = ("grid", "random", "bayes")
STRATEGIES: Final = ("auto", "tpe")
REFUSED_STRATEGIES: Final = ("gp", "cmaes", "nsga2", "qmc")


class Overrides(Struct, frozen=True):
    """What the command line says in place of the file; None leaves the file's word.

    Attributes:
        trials: in place of `run_cap` and `limits.trials`.
        no_pruning: the user asked for `early_terminate` to be ignored.
    """

    name: str | None = None
    trials: int | None = None
    parallel: int | None = None
    queue: str | None = None
    no_pruning: bool = False

    def apply(self, config: SweepConfig) -> SweepConfig:
        """The config with these in place.

        Raises:
            SpecError: a number is not positive, or a name is empty or too long.
        """
        for option, number in (("--trials", self.trials), ("--parallel", self.parallel)):
            if number is not None and number < 1:
                raise SpecError(f"{option} is at least 1, not {number}.")
        for option, text in (("--name", self.name), ("--queue", self.queue)):
            if text is not None and not text.strip():
                raise SpecError(f"{option} is empty.")
        limits = config.limits
        limits = replace(limits, trials=limits.trials if self.trials is None else self.trials)
        limits = replace(limits, parallel=limits.parallel if self.parallel is None else self.parallel)
        changed = replace(config, name=self.name or config.name, queue=self.queue or config.queue, limits=limits)
        for fault in faults(changed):
            raise SpecError(f"{fault.message}.")
        return changed


class Submission(Struct, frozen=True):
    """A checked sweep, ready to be packed and sent.

    Attributes:
        source: the file's text, as it was written.
        folder: the project folder to pack.
    """

    config: SweepConfig
    source: str
    folder: Path

    def to_new_sweep(self, code_digest: str | None, user_name: str = "", submission_id: str = "") -> NewSweep:
        """For the record. A sweep whose file names no seed gets one here, so that whatever ran can be told again."""
        config = self.config
        if config.seed is None:
            config = replace(config, seed=int.from_bytes(os.urandom(4), "big") >> 1)
        metric = config.metric
        return NewSweep(
            name=config.name,
            experiment=config.experiment,
            config=config.to_builtins(),
            source=self.source,
            launch=config.launch(code_digest),
            metric_name=metric.name if metric else None,
            metric_goal=metric.goal if metric else "minimize",
            metric_from=metric.from_ if metric else "last",
            queue=config.queue,
            priority=config.priority,
            parallel=config.limits.parallel,
            retry=config.retry,
            description=config.description,
            user_name=user_name,
            tags=config.tags,
            submission_id=submission_id,
        )


def parse_sweep(text: str, filename: str, *, project_dir: Path | None, no_pruning: bool = False) -> SweepConfig:
    """Check the text of a sweep file.

    Args:
        text: the file's content.
        filename: as it is shown in messages.
        project_dir: the folder that the file lies in; `code:` is relative to it. None: no files are looked at, so the file must say
            `program:` or `command:` by itself.
        no_pruning: ignore `early_terminate`, because the user said so.

    Raises:
        SpecProblems: everything that is wrong with the file and its MLproject.
    """
    source = Source(filename)
    return _Reader(source, read_yaml(text, source), project_dir, Path(filename).stem, no_pruning=no_pruning).read()


def config_from_mapping(mapping: Mapping[str, Any], *, project_dir: Path | None = None, no_pruning: bool = False) -> SweepConfig:
    """The same checks for a sweep that was made in Python; problems name key paths.

    Raises:
        SpecProblems: everything that is wrong with it.
    """
    return _Reader(Source(""), from_python(mapping), project_dir, "sweep", no_pruning=no_pruning).read()


def load_sweep(path: Path, *, overrides: Overrides | None = None) -> Submission:
    """Read and check a sweep file and the project it stands in.

    Raises:
        SpecProblems: everything that is wrong with them.
        SpecError: an override can't be used.
    """
    overrides = overrides or Overrides()
    text = read_text(path)
    config = parse_sweep(text, str(path), project_dir=path.parent, no_pruning=overrides.no_pruning)
    return Submission(overrides.apply(config), text, path.parent / config.code)


def load_project(folder: Path, *, entry_point: str = "main", params: Mapping[str, str] | None = None, overrides: Overrides | None = None) -> Submission:
    """One run of a project folder without a sweep file, as `mlflow run` does it: a grid of one cell.

    Raises:
        SpecProblems: the MLproject is wrong, or parameters are missing.
        SpecError: an override can't be used.
    """
    if overrides is not None and (overrides.trials or 1) > 1:
        raise SpecError(
            f"--trials {overrides.trials}: a folder without a sweep file is one run, with nothing to search.",
            hint=f"`sweep init {folder}` writes a sweep file; run that.",
        )
    mapping = {"method": "grid", "entry_point": entry_point, "parameters": {key: {"value": value} for key, value in (params or {}).items()}}
    config = _Reader(Source(""), from_python(mapping), folder, "sweep", may_be_empty=True).read()
    return Submission((overrides or Overrides()).apply(config), json.dumps(mapping, indent=2), folder)


class _Reader:
    """Reads one sweep file. Sections in the order of the file's documentation; every method notes what is wrong and goes on."""

    def __init__(self, source: Source, root: Item | None, folder: Path | None, stem: str, *, no_pruning: bool = False, may_be_empty: bool = False) -> None:
        if root is not None and root.entries is None:
            source.add(root, f"a sweep file is a mapping of keys to values, not {kind_of(root.value)}")
        if root is None or root.entries is None:
            source.raise_problems()
        self._source = source
        self._root = root if root is not None else Item({})
        self._stem = stem
        self._base = folder
        self._may_be_empty = may_be_empty
        refused = {key: hint for key, hint in REFUSED.items() if not (no_pruning and key == "early_terminate")}
        self._top = Section(source, root, "", (*SERVED, *(REFUSED.keys() - refused.keys())), refused)

    def read(self) -> SweepConfig:
        top = self._top
        method, seed = self._method()
        parameters = self._parameters()
        limits, resources = self._limits(), self._resources()
        code, project = self._project(needs_environment=resources.image is None)
        command = self._command(project, parameters, has_image=resources.image is not None)
        environment = Environment("docker") if resources.image else project.environment if project else Environment()
        metric = self._metric(method)
        name, experiment = self._names(project)
        priority = top.integer("priority", minimum=0, maximum=PRIORITY_MAX)
        if method == "grid":
            self._check_grid(parameters)
        # Everything is read before anything is told.
        collect, register, retry = self._collect(), self._register(), self._retry()
        env, tags = top.text_mapping("env"), top.text_mapping("tags")
        description, queue = top.text("description") or "", top.text("queue") or "default"
        others = [project.source] if project else []
        # Stand-ins where a problem was noted already, so that everything else is looked at too.
        config = SweepConfig(
            name=name,
            experiment=experiment,
            method=method or "random",
            parameters=parameters,
            command=command or MacroCommand(("true",)),
            description=description,
            metric=metric,
            seed=seed,
            limits=limits,
            resources=resources,
            environment=environment,
            queue=queue,
            priority=50 if priority is None else priority,
            collect=collect,
            env=env,
            register=register,
            retry=retry,
            tags=tags,
            code=code,
        )
        self._check_bounds(config, is_broken=any(source.problems for source in (self._source, *others)))
        self._source.raise_problems(*others)
        if command is None or method is None:
            raise AssertionError("a problem was found and not noted")
        return config

    def _check_bounds(self, config: SweepConfig, *, is_broken: bool) -> None:
        """Note what is out of bounds, under keys that nothing was noted of before."""
        noted = {problem.path.partition(".")[0].partition("[")[0] for problem in self._source.problems}
        for fault in faults(config):
            where = self._place_of(fault)
            # What the file does not say follows from what it does: told only when nothing else is wrong.
            if fault.path[0] in noted or (where is None and (is_broken or self._source.problems)):
                continue
            self._source.add(where or self._root.place._replace(width=1), fault.message, path=".".join(fault.path))

    def _place_of(self, fault: Fault) -> Item | Place | None:
        """Where the file says what is at fault, as near as can be told; None if it does not."""
        item, *inner = self._root, *fault.path
        found: Item | Place | None = None
        for key in inner:
            entries = item.entries or {}
            if key not in entries:
                break
            found = item.keys.get(key, NOWHERE) if fault.at_key and key is inner[-1] else entries[key]
            item = entries[key]
        return found

    def _missing(self, message: str, suggestion: str = "") -> None:
        """Note that a key is not there: it has no place, so the file's beginning stands for it."""
        self._source.add(self._root.place._replace(width=1), message, suggestion=suggestion)

    def _section(self, key: str, served: str, refused: str = "") -> Section:
        return Section(self._source, self._top.entries.get(key), key, served.split(), dict.fromkeys(refused.split(), ""))

    def _names(self, project: Project | None) -> tuple[str, str]:
        """The sweep's and the experiment's; what the file does not name has the MLproject's name, or else the folder's."""
        folder = (project.name if project else "") or (self._base.resolve().name if self._base else "")
        name = self._top.text("name")
        default = folder if folder and self._stem.lower() in {"sweep", "sweeps", "config"} else self._stem
        return name or default or "sweep", self._top.text("project") or name or folder or default

    def _method(self) -> tuple[Method | None, int | None]:
        strategy = self._section("strategy", "name seed")
        seed = strategy.integer("seed", minimum=0)
        named = strategy.choice("name", STRATEGIES, REFUSED_STRATEGIES)
        if "method" in self._top:
            method = self._top.choice("method", METHODS)
            if "name" in strategy:
                strategy.add("name", "'strategy.name' stands beside 'method'", suggestion="give one of them")
            return cast(Method | None, method), seed
        if "name" not in strategy:
            self._missing("'method' is missing", "add 'method: bayes', 'random' or 'grid'")
        return "bayes" if named else None, seed

    def _metric(self, method: str | None) -> Metric | None:
        section = self._section("metric", "name goal from", "target impute impute_while_running")
        name, goal, from_ = section.text("name"), section.choice("goal", ("minimize", "maximize")), section.choice("from", ("last", "best"))
        if "metric" in self._top and self._top.entries["metric"].entries is not None and "name" not in section:
            self._top.add("metric", "'metric' has no 'name'")
        if "metric" not in self._top and method == "bayes":
            self._missing("'metric' is missing, and 'bayes' needs one", "add 'metric: {name: val_loss, goal: minimize}'")
        if name is None:
            return None
        return Metric(name, "maximize" if goal == "maximize" else "minimize", "best" if from_ == "best" else "last")

    def _parameters(self) -> tuple[Parameter, ...]:
        if "parameters" not in self._top:
            self._missing("'parameters' is missing")
            return ()
        item = self._top.entries["parameters"]
        if item.entries is not None and not item.entries and not self._may_be_empty:
            self._top.add("parameters", "'parameters' is empty")
        return read_parameters(self._source, item)

    def _check_grid(self, parameters: tuple[Parameter, ...]) -> None:
        item = self._top.entries["parameters"] if "parameters" in self._top else Item({})
        for parameter in parameters:
            if parameter.column() is None:
                kind = parameter.__struct_config__.tag
                message = f"a grid can't walk parameter '{parameter.name}': '{kind}' is continuous"
                self._source.add(item.keys.get(parameter.name, NOWHERE), message, suggestion="give 'values', or 'q_uniform' with a step 'q'", path=item.path)

    def _limits(self) -> Limits:
        section = self._section("limits", "trials parallel time trial_time failures", "patience gpu_hours cost")
        trials, cap = section.integer("trials", minimum=1), self._top.integer("run_cap", minimum=1)
        if trials is not None and cap is not None and trials != cap:
            section.add("trials", f"'limits.trials' is {trials}, but 'run_cap' is {cap}", suggestion="give one of them")
        return Limits(
            trials=cap if trials is None else trials,
            parallel=section.integer("parallel", minimum=1),
            time_s=section.duration_s("time"),
            trial_time_s=section.duration_s("trial_time"),
            failures=section.integer("failures", minimum=1),
        )

    def _resources(self) -> Resources:
        section = self._section("resources", "cpus memory gpus image", "shm disk")
        cpus, gpus = section.number("cpus"), section.integer("gpus", minimum=0, maximum=GPUS_MAX)
        return Resources(1.0 if cpus is None else cpus, section.size_bytes("memory"), gpus or 0, section.text("image"))

    def _collect(self) -> Collect:
        section = self._section("collect", "stdout keys")
        keys = section.texts("keys")
        if "stdout" not in section:
            return Collect(keys=keys)
        stdout = section.entries["stdout"].value
        if isinstance(stdout, bool):
            return Collect(stdout=stdout, keys=keys)
        return Collect(pattern=section.text("stdout"), keys=keys)

    def _register(self) -> Register | None:
        section = self._section("register", "model artifact alias", "require confirm_seeds")
        model, artifact, alias = section.text("model"), section.text("artifact"), section.text("alias")
        if "register" in self._top and self._top.entries["register"].entries is not None and "model" not in section:
            self._top.add("register", "'register' has no 'model'")
        return Register(model, artifact or "model", alias) if model else None

    def _retry(self) -> Retry:
        section = self._section("retry", "max on delay delay_max", "resume")
        n_max, on = section.integer("max", minimum=0, maximum=RETRIES_MAX), self._retry_on(section)
        delay_s, delay_max_s = section.duration_s("delay"), section.duration_s("delay_max")
        if "retry" not in self._top or self._top.entries["retry"].entries is None:
            return Retry()
        if "max" not in section:
            self._top.add("retry", "'retry' has no 'max'", suggestion="say how many more attempts, as in 'max: 2'")
        default = Retry()
        delay_s = default.delay_s if delay_s is None else delay_s
        return Retry(n_max or 0, on or default.on, delay_s, max(default.delay_max_s, delay_s) if delay_max_s is None else delay_max_s)

    def _retry_on(self, section: Section) -> tuple[str, ...]:
        item = section.entries.get("on")
        words: list[str] = []
        for each in (item.elements if item is not None else None) or ():
            word = each.text or ""
            if not isinstance(each.value, str):
                suggestion = f"write exit_{word}" if kind_of(each.value) == "a number" else ""
                self._source.add(each, f"'retry.on' takes names of ends, not {kind_of(each.value)}", suggestion=suggestion)
            elif what := why_no_end(word):
                suggestion = did_you_mean(word, RETRY_ENDS) or "use causes such as exit_status and out_of_memory, or exit_75"
                self._source.add(each, f"'retry.on' {what}", suggestion=suggestion)
            else:
                words.append(word)
        if item is not None and item.value is not None and not item.elements:
            section.add("on", "'retry.on' is a list of ends, such as [exit_status, exit_75]")
        return tuple(dict.fromkeys(words))

    def _project(self, *, needs_environment: bool) -> tuple[str, Project | None]:
        """`code:`, and what its folder holds."""
        code = self._top.text("code") or "."
        if "://" in code or code.startswith("git@"):
            self._top.add("code", "a git URL as 'code' is not served by this version", suggestion="name a folder")
            return code, None
        if self._base is None:
            return code, None
        folder = self._base / code
        if not folder.is_dir():
            self._top.add("code", f"there is no folder '{folder}'")
            return code, None
        try:
            return code, read_project(folder, needs_environment=needs_environment)
        except SpecProblems as error:
            self._source.problems.extend(error.problems)
            return code, None

    def _command(self, project: Project | None, parameters: tuple[Parameter, ...], *, has_image: bool) -> Command | None:
        program = self._top.text("program")
        if "program" in self._top or "command" in self._top:
            if "entry_point" in self._top:
                other = "program" if "program" in self._top else "command"
                self._top.add("entry_point", f"'entry_point' stands beside '{other}'", suggestion="give one of them")
            return self._macro_command(program, None if has_image else project)
        name = self._top.text("entry_point") or "main"
        if project is None:
            if not self._source.problems:
                self._missing("nothing says what to run", "add 'program: train.py'")
            return None
        entry = project.entry_point(name)
        if entry is None:
            self._no_entry_point(project, name)
            return None
        item = self._top.entries.get("parameters", Item({}))
        given = list(item.entries or {})
        if missing := entry.missing(given):
            names = ", ".join(f"'{one}'" for one in missing)
            where = self._top.place("parameters") if "parameters" in self._top else self._root.place._replace(width=1)
            message = f"entry point '{entry.name}' needs {names}, which 'parameters' does not give"
            self._source.add(where, message, suggestion=did_you_mean(missing[0], given), path="parameters")
        floats = {one.name for one in entry.parameters if one.type == "float"}
        for parameter in parameters:
            if parameter.name in floats and (wrong := non_numbers(parameter)):
                message = f"'{parameter.name}' is a float in the MLproject, and {wrong[0]!r} is no number"
                self._source.add(value_place(item, parameter.name), message, path=f"parameters.{parameter.name}")
        return entry.template(project.source, given)

    def _no_entry_point(self, project: Project, name: str) -> None:
        # Where the MLproject itself is broken, its own problems say enough.
        if project.source.problems:
            return
        message, suggestion = project.why_not(name)
        if "entry_point" in self._top:
            self._top.add("entry_point", message, suggestion=suggestion)
        else:
            self._missing(message, suggestion)

    def _macro_command(self, program: str | None, project: Project | None) -> MacroCommand | None:
        command: MacroCommand | None
        if "command" in self._top:
            command = read_command(self._source, self._top.entries["command"], program)
        else:
            command = MacroCommand(program=program) if program else None
        if command is not None and program is not None and project is not None:
            self._check_program(program, command.words, project.folder)
        return command

    def _check_program(self, program: str, words: tuple[str, ...], folder: Path) -> None:
        """A program that is a file of the project must be there; after `-m` it is a module, and elsewhere it is not ours to know."""
        runs = "${program}" in words and ("-m", "${program}") not in pairwise(words)
        path = PurePosixPath(program)
        if runs and (path.is_absolute() or PurePosixPath(os.path.normpath(path)).parts[0] == ".."):
            message = f"'{program}' lies outside the project folder, which is all that is sent"
            self._top.add("program", message, suggestion="let 'code' name the folder that holds it")
        elif runs and path.suffix and not (folder / path).is_file():
            parent = (folder / path).parent
            files = [str(PurePosixPath(path.parent) / one.name) for one in parent.iterdir() if one.is_file()] if parent.is_dir() else []
            self._top.add("program", f"there is no file '{program}' in the project folder", suggestion=did_you_mean(program, files))
