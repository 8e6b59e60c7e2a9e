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
from sweeps.command import ENTRY_POINT, Command, EntryCommands, MacroCommand, TemplateCommand, read_command, with_nested
from sweeps.distributions import CategoricalWithProbabilities
from sweeps.errors import SpecError, SpecProblems
from sweeps.mlproject import EntryPoint, Project, read_project
from sweeps.space import why_no_grid
from sweeps.spec_config import Limits, Method, Metric, Register, SweepConfig
from sweeps.spec_fields import Section
from sweeps.spec_parameters import Read, read_parameters
from sweeps.spec_source import NOWHERE, Item, Place, Source, did_you_mean, from_python, kind_of, read_text, read_yaml
from tracking.records import Collect, Environment, NewSweep, Resources, Retry

METRIC_NAME_CHARS: Final = 250
"""What the record takes as a metric's name from a trial."""
SERVED: Final = tuple(
    "name description project program command method metric parameters run_cap "
    "entity controller scheduler apiVersion kind code entry_point limits resources queue priority collect env strategy register retry tags compat".split()
)
REFUSED: Final[Mapping[str, str]] = {
    # W&B's
    "metrics": "one metric is searched by: name it under 'metric', and log the others beside it",
    "early_terminate": "submit with --no-pruning to run every trial to its end",
    # ours
    "constraints": "let the script end a trial at once that it should not try",
    "unique": "'method: grid' tries each point once",
    "seeds": "give 'parameters' a 'seed' with its 'values'",
    "points": "try them first, in a sweep of their own with 'method: grid'",
    "warm_start": "leave it out: each sweep searches anew",
    "secrets": "set them in the environment of the workers, which trials inherit",
    "notify": "`sweep run` waits for the end, and its exit status tells it",
}
"""Keys that this version does not honour, each with what to do instead."""
LAUNCH_KEYS: Final = ("job", "image_uri")
"""They make a file one for W&B Launch, whose jobs and queues only W&B has."""
IGNORED: Final[Mapping[str, tuple[str, ...]]] = {"apiVersion": (), "kind": ("sweep",)}
"""W&B's keys that say nothing here: checked, and without effect. So are `controller` and `scheduler`."""
SECTIONS: Final[Mapping[str, str]] = {
    "strategy": "name seed",
    "metric": "name goal from target impute impute_while_running",
    "controller": "type",
    "scheduler": "engine",
    "early_terminate": "type min_iter max_iter s eta strict",
    "limits": "trials parallel time trial_time failures",
    "resources": "cpus memory gpus image",
    "collect": "stdout keys",
    "register": "model artifact alias",
    "retry": "max on delay delay_max",
}
"""The keys of each section that are served."""
REFUSED_INNER: Final[Mapping[str, Mapping[str, str]]] = {
    "limits": {
        "patience": "use 'metric.target', or `sweep stop` when it is good enough",
        "gpu_hours": "use 'limits.time' or 'limits.trials'",
        "cost": "use 'limits.time' or 'limits.trials'",
    },
    "resources": {"shm": "set it for the workers' container engine", "disk": "leave it out: nothing limits a trial's disk"},
    "register": {"require": "let the script write its model only if it is good enough", "confirm_seeds": "run the winner again with other seeds by hand"},
    "scheduler": dict.fromkeys(("source", "optimizer", "search_space"), "leave it out: code of your own does not search here"),
    "retry": {"resume": "let the script look for its own checkpoint, outside of its working folder"},
}
"""And those that are refused by name, in the same way."""
WORD_KEYS: Final[Mapping[str, str]] = {
    "metric": "name",
    "strategy": "name",
    "register": "model",
    "controller": "type",
    "scheduler": "engine",
    "early_terminate": "type",
    "limits": "trials",
    "retry": "max",
}
"""What one word in a section's place is meant for, to say how it is written."""
COMPATS: Final = ("wandb",)
LEVELS_ABOVE: Final = 3
"""How far up a program is looked for that is not in the project folder, for a hint."""
METHODS: Final = ("grid", "random", "bayes")
STRATEGIES: Final = ("auto", "tpe")
REFUSED_METHODS: Final = ("custom",)
REFUSED_ENGINES: Final = ("optuna", "ax")
"""Searches that run code of the user's own beside W&B."""
REFUSED_STOPPERS: Final = ("asha", "median", "percentile", "threshold", "patient", "wilcoxon")
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
    config = _Reader(Source(""), from_python(mapping), folder, "sweep", is_folder_run=True).read()
    return Submission((overrides or Overrides()).apply(config), json.dumps(mapping, indent=2), folder)


class _Reader:
    """Reads one sweep file. Sections in the order of the file's documentation; every method notes what is wrong and goes on."""

    def __init__(self, source: Source, root: Item | None, folder: Path | None, stem: str, *, no_pruning: bool = False, is_folder_run: bool = False) -> None:
        if root is not None and root.entries is None:
            source.add(root, f"a sweep file is a mapping of keys to values, not {kind_of(root.value)}")
        if root is None or root.entries is None:
            source.raise_problems()
        self._source = source
        self._root = root if root is not None else Item({})
        self._stem = stem
        self._base = folder
        self._is_folder_run = is_folder_run
        self._no_pruning = no_pruning
        # Read by methods of their own, which have more to say.
        own = ("early_terminate", *LAUNCH_KEYS)
        refused = {key: hint for key, hint in REFUSED.items() if key not in own}
        self._top = Section(source, root, "", (*SERVED, *own), refused)

    def read(self) -> SweepConfig:
        top = self._top
        self._launch_only()
        method, seed = self._method()
        read = self._parameters()
        limits, resources = self._limits(), self._resources()
        code, project = self._project(needs_environment=resources.image is None)
        env, tags = top.text_mapping("env"), self._tags()
        command = self._command(project, read, resources)
        environment = Environment("docker") if resources.image else project.environment if project else Environment()
        metric = self._metric(method)
        name, experiment = self._names(project)
        priority = top.integer("priority", minimum=0, maximum=PRIORITY_MAX)
        if method == "grid":
            self._check_grid(read)
        # Everything is read before anything is told.
        collect, register, retry = self._collect(), self._register(), self._retry()
        self._ignored()
        self._early_terminate(metric)
        compat = top.choice("compat", COMPATS)
        description, queue = top.text("description", may_be_empty=True) or "", top.text("queue") or "default"
        others = [project.source, project.environment_source] if project else []
        # Stand-ins where a problem was noted already, so that everything else is looked at too.
        config = SweepConfig(
            name=name,
            experiment=experiment,
            method=method or "random",
            parameters=read.parameters,
            command=with_nested(command or MacroCommand(("true",)), read.nested),
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
            compat="wandb" if compat else None,
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

    def _section(self, key: str) -> Section:
        return Section(self._source, self._top.entries.get(key), key, SECTIONS[key].split(), REFUSED_INNER.get(key, {}), WORD_KEYS.get(key, ""))

    def _names(self, project: Project | None) -> tuple[str, str]:
        """The sweep's and the experiment's; what the file does not name has the MLproject's name, or else the folder's."""
        folder = (project.name if project else "") or (self._base.resolve().name if self._base else "")
        name = self._top.text("name", may_be_empty=True)
        default = folder if folder and self._stem.lower() in {"sweep", "sweeps", "config"} else self._stem
        return name or default or "sweep", self._top.text("project", may_be_empty=True) or name or folder or default

    def _method(self) -> tuple[Method | None, int | None]:
        strategy = self._section("strategy")
        seed = strategy.integer("seed", minimum=0)
        named = strategy.choice("name", STRATEGIES, REFUSED_STRATEGIES)
        if "method" in self._top:
            method = self._top.choice(
                "method",
                METHODS,
                REFUSED_METHODS,
                instead="use 'bayes', 'random' or 'grid', or call `sweep run FOLDER -P NAME=VALUE` from a search of your own",
            )
            if "name" in strategy:
                strategy.add("name", "'strategy.name' stands beside 'method'", suggestion="give one of them")
            return cast(Method | None, method), seed
        if "name" not in strategy:
            self._missing("'method' is missing", "add 'method: bayes', 'random' or 'grid'")
        return "bayes" if named else None, seed

    def _metric(self, method: str | None) -> Metric | None:
        section = self._section("metric")
        name, goal, from_ = section.text("name"), section.choice("goal", ("minimize", "maximize")), section.choice("from", ("last", "best"))
        target = section.finite("target")
        impute = section.choice("impute", ("worst", "latest", "best"))
        instead = "use 'false' or 'worst': the search avoids the places where trials still run"
        section.choice("impute_while_running", ("false", "worst"), ("latest", "best"), instead=instead)
        if "metric" in self._top and self._top.entries["metric"].entries is not None and "name" not in section:
            self._top.add("metric", "'metric' has no 'name'")
        if "metric" not in self._top and method == "bayes":
            self._missing("'metric' is missing, and 'bayes' needs one", "add 'metric: {name: val_loss, goal: minimize}'")
        if name is None:
            return None
        if len(name) > METRIC_NAME_CHARS or not name.isprintable():
            section.add("name", f"'metric.name' can't be the name of a metric: up to {METRIC_NAME_CHARS} characters that can be printed")
        # The words were checked above.
        return Metric(name, cast(Any, goal or "minimize"), cast(Any, from_ or "last"), target, cast(Any, impute or "worst"))

    def _parameters(self) -> Read:
        if "parameters" not in self._top:
            if "parameters" in self._top.entries:
                self._top.add("parameters", "'parameters' is empty")
            else:
                self._missing("'parameters' is missing")
            return Read((), {}, {}, {})
        item = self._top.entries["parameters"]
        if item.entries is not None and not item.entries and not self._is_folder_run:
            self._top.add("parameters", "'parameters' is empty")
        return read_parameters(self._source, item)

    def _check_grid(self, read: Read) -> None:
        for parameter in read.parameters:
            if what := why_no_grid(parameter):
                is_weighed = isinstance(parameter, CategoricalWithProbabilities)
                suggestion = "leave 'probabilities' out" if is_weighed else "give 'values', or 'q_uniform' with a step 'q'"
                path = read.items[parameter.name].path.rpartition(".")[0]
                self._source.add(read.keys[parameter.name], f"a grid can't walk parameter '{parameter.name}': {what}", suggestion=suggestion, path=path)

    def _tags(self) -> dict[str, str]:
        """The file's own; W&B's `entity` is one of them."""
        tags, entity = self._top.text_mapping("tags"), self._top.text("entity", may_be_empty=True)
        return tags if entity is None else {"entity": entity, **tags}

    def _launch_only(self) -> None:
        """W&B Launch runs packaged jobs on queues of its own: one sentence, whatever else the file lacks for that."""
        found = [key for key in LAUNCH_KEYS if key in self._top]
        if found:
            message = f"this is a file for W&B Launch: '{found[0]}' names what only W&B can run"
            self._source.add(
                self._top.place(found[0]), message, suggestion="use 'program' or 'command', and 'resources: {image: ...}' for an image", path=found[0]
            )

    def _ignored(self) -> None:
        """Keys without effect are checked all the same: where W&B's search runs is of no meaning here."""
        for key, options in IGNORED.items():
            _ = self._top.choice(key, options) if options else self._top.text(key)
        controller = self._section("controller")
        controller.choice("type", ("local", "cloud"))
        if "controller" in self._top and self._top.entries["controller"].entries is not None and "type" not in controller:
            self._top.add("controller", "'controller' has no 'type'")
        # A file for Launch has a scheduler that is a job too; why it can't be run was said.
        if not any(key in self._top for key in LAUNCH_KEYS):
            self._scheduler()

    def _scheduler(self) -> None:
        """W&B's own engine is its search as ever; the others search by code of the user's, which is not run here."""
        section = self._section("scheduler")
        section.choice("engine", ("wandb",), REFUSED_ENGINES, instead="leave 'scheduler' out, and use 'method: bayes', which is Optuna's TPE")
        if "scheduler" in self._top and self._top.entries["scheduler"].entries is not None and "engine" not in section:
            self._top.add("scheduler", "'scheduler' has no 'engine'", suggestion="leave 'scheduler' out: 'method' says how to search")

    def _early_terminate(self, metric: Metric | None) -> None:
        """Checked in full, though nothing is pruned yet: the user is told so, and says --no-pruning."""
        if "early_terminate" not in self._top:
            return
        n_before = len(self._source.problems)
        section = self._section("early_terminate")
        if self._top.entries["early_terminate"].entries is not None:
            self._check_hyperband(section, n_before)
        if metric is None and "metric" not in self._top:
            self._source.add(self._top.place("early_terminate"), "'early_terminate' needs a 'metric' to judge by", path="early_terminate")
        if not self._no_pruning:
            message = "'early_terminate' is not served by this version"
            self._source.add(self._top.place("early_terminate"), message, suggestion=REFUSED["early_terminate"], path="early_terminate")

    def _check_hyperband(self, section: Section, n_before: int) -> None:
        kind = section.choice("type", ("hyperband",), REFUSED_STOPPERS)
        for key in ("min_iter", "max_iter"):
            section.integer(key, minimum=1)
        section.number("s")
        section.boolean("strict")
        eta = section.number("eta")
        if "type" not in section:
            self._top.add("early_terminate", "'early_terminate' has no 'type'", suggestion="add 'type: hyperband'")
        if eta is not None and eta <= 1:
            section.add("eta", f"'early_terminate.eta' is above 1, not {eta:g}")
        is_whole = len(self._source.problems) == n_before and kind == "hyperband"
        if is_whole and "min_iter" not in section and not ("max_iter" in section and "s" in section):
            self._top.add("early_terminate", "'early_terminate' needs 'min_iter', or 'max_iter' and 's'")

    def _limits(self) -> Limits:
        section = self._section("limits")
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
        section = self._section("resources")
        cpus, gpus = section.number("cpus"), section.integer("gpus", minimum=0, maximum=GPUS_MAX)
        return Resources(1.0 if cpus is None else cpus, section.size_bytes("memory"), gpus or 0, section.text("image"))

    def _collect(self) -> Collect:
        section = self._section("collect")
        keys = section.texts("keys")
        if "stdout" not in section:
            return Collect(keys=keys)
        stdout = section.entries["stdout"].value
        if isinstance(stdout, dict):
            if "keys" in section:
                section.add("keys", "'collect.keys' stands beside the names under 'collect.stdout'", suggestion="leave it out")
            if not stdout:
                section.add("stdout", "'collect.stdout' is empty", suggestion="write NAME: PATTERN for each metric")
            return Collect(patterns=section.text_mapping("stdout"))
        if isinstance(stdout, bool):
            return Collect(stdout=stdout, keys=keys)
        return Collect(pattern=section.text("stdout"), keys=keys)

    def _register(self) -> Register | None:
        section = self._section("register")
        model, artifact, alias = section.text("model"), section.text("artifact"), section.text("alias")
        if "register" in self._top and self._top.entries["register"].entries is not None and "model" not in section:
            self._top.add("register", "'register' has no 'model'")
        return Register(model, artifact or "model", alias) if model else None

    def _retry(self) -> Retry:
        section = self._section("retry")
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

    def _command(self, project: Project | None, read: Read, resources: Resources) -> Command | None:
        program = self._top.text("program")
        if "program" in self._top or "command" in self._top:
            if "entry_point" in self._top:
                other = "program" if "program" in self._top else "command"
                self._top.add("entry_point", f"'entry_point' stands beside '{other}'", suggestion="give one of them")
            command = self._macro_command(program)
            if command is not None and program is not None and project is not None and resources.image is None:
                self._check_program(program, command.words, project.folder)
            return command
        if project is None:
            if not self._source.problems:
                self._missing("nothing says what to run", "add 'program: train.py'")
            return None
        if (chosen := self._chosen_entry_points(project, read)) is not None:
            return self._entry_commands(project, chosen, read)
        name = self._top.text("entry_point") or "main"
        entry = project.entry_point(name)
        if entry is None:
            self._no_entry_point(project, name)
            return None
        return self._template(project, entry, read)

    def _template(self, project: Project, entry: EntryPoint, read: Read, *, is_chosen: bool = False) -> TemplateCommand | None:
        """The command of an entry point; None, with the reasons noted, if the sweep's parameters do not fit it."""
        # Of nested parameters, each by its name with dots, and all together by the outermost one.
        names = (*(self._top.entries.get("parameters", Item({})).entries or {}), *read.keys)
        given = [name for name in dict.fromkeys(names) if not is_chosen or name != ENTRY_POINT]
        if missing := entry.missing(given):
            self._add_missing(entry, missing, [name for name in given if not entry.declares(name)])
        told = {problem.message for problem in self._source.problems}
        for parameter in read.parameters:
            # Several entry points may say the same of a parameter.
            if (why := entry.misfit(parameter)) and why[0] not in told:
                self._source.add(read.value_place(parameter.name), why[0], suggestion=why[1], path=f"parameters.{parameter.name}")
        return entry.template(project.source, given)

    def _add_missing(self, entry: EntryPoint, missing: list[str], undeclared: list[str]) -> None:
        needed = ", ".join(f"'{one}'" for one in missing)
        if self._is_folder_run:
            message = f"entry point '{entry.name}' needs {needed}: give it with {' '.join(f'-P {one}=VALUE' for one in missing)}"
        else:
            message = f"entry point '{entry.name}' needs {needed}, which 'parameters' does not give"
        # A name that the entry point does not declare would be appended: near one that it lacks, it is meant for that.
        near = next(((name, hint) for name in undeclared if (hint := did_you_mean(name, missing))), None)
        where = self._top.place("parameters") if "parameters" in self._top else self._root.place._replace(width=1)
        self._source.add(where, message, suggestion=f"'{near[0]}' is given: {near[1]}" if near else "", path="parameters")

    def _chosen_entry_points(self, project: Project, read: Read) -> dict[str, Item] | None:
        """The entry points that a parameter `entry_point` lists, and where; None where that is a parameter like any other."""
        item = read.items.get(ENTRY_POINT)
        main = project.entry_point("main")
        if item is None or "entry_point" in self._top or (main is not None and any(one.name == ENTRY_POINT for one in main.parameters)):
            return None
        values = (item.entries or {}).get("values")
        listed = values.elements if values is not None else [one for key, one in (item.entries or {}).items() if key == "value"]
        for one in listed or ():
            if not isinstance(one.value, str):
                self._source.add(one, f"'{ENTRY_POINT}' lists names of entry points, not {kind_of(one.value)}")
        return {str(one.value): one for one in listed} if listed else None

    def _entry_commands(self, project: Project, chosen: Mapping[str, Item], read: Read) -> EntryCommands | None:
        points: dict[str, TemplateCommand] = {}
        for name, item in chosen.items():
            entry = project.entry_point(name)
            if entry is not None and isinstance(item.value, str):
                template = self._template(project, entry, read, is_chosen=True)
                points |= {name: template} if template else {}
            elif isinstance(item.value, str) and not project.source.problems:
                message, suggestion = project.why_not(name)
                self._source.add(item, message, suggestion=suggestion)
        return EntryCommands(points) if points.keys() == chosen.keys() else None

    def _no_entry_point(self, project: Project, name: str) -> None:
        # Where the MLproject itself is broken, its own problems say enough.
        if project.source.problems:
            return
        message, suggestion = project.why_not(name)
        if "entry_point" in self._top:
            self._top.add("entry_point", message, suggestion=suggestion)
        else:
            self._missing(message, suggestion)

    def _macro_command(self, program: str | None) -> MacroCommand | None:
        if "command" not in self._top:
            return MacroCommand(program=program) if program else None
        return read_command(self._source, self._top.entries["command"], program)

    def _check_program(self, program: str, words: tuple[str, ...], folder: Path) -> None:
        """A program that is a file of the project must be there; after `-m` it is a module, and elsewhere it is not ours to know."""
        runs = "${program}" in words and ("-m", "${program}") not in pairwise(words)
        path = PurePosixPath(program)
        if runs and (path.is_absolute() or PurePosixPath(os.path.normpath(path)).parts[:1] == ("..",)):
            target, top = Path(os.path.normpath(folder.resolve() / path)), folder.resolve()
            if target.is_relative_to(top):
                message, suggestion = f"'{program}' is not where the workers have the project", f"write '{target.relative_to(top)}'"
            else:
                message = f"'{program}' lies outside the project folder, which is all that is sent"
                suggestion = "let 'code' name the folder that holds it"
            self._top.add("program", message, suggestion=suggestion)
        elif runs and "${interpreter}" in words and (folder / path).is_dir() and not (folder / path / "__main__.py").is_file():
            self._top.add("program", f"'{program}' is a folder, not a script", suggestion="name a file, as in 'program: train.py'")
        elif runs and path.suffix and not (folder / path).is_file():
            parent = (folder / path).parent
            files = [str(PurePosixPath(path.parent) / one.name) for one in parent.iterdir() if one.is_file()] if parent.is_dir() else []
            suggestion = did_you_mean(program, files) or self._code_above(program, folder)
            self._top.add("program", f"there is no file '{program}' in the project folder", suggestion=suggestion)

    def _code_above(self, program: str, folder: Path) -> str:
        """Which `code` a program needs that is named from a folder above: W&B's agent looks for it where it is started, wherever the file lies."""
        above = next((parent for parent in list(folder.resolve().parents)[:LEVELS_ABOVE] if (parent / program).is_file()), None)
        return f"add 'code: {os.path.relpath(above, (self._base or folder).resolve())}'" if above is not None else ""
