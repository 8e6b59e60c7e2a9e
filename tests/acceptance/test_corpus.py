"""Sweep files, scripts and MLprojects as people bring them: all submitted at once to one cluster of real processes, each held to what stands beside it.

The files are under `tests/corpus`; what each comes to is in `wandb.yaml` and `mlprojects.yaml` there.
"""

import json
import re
import shutil
import sys
import sysconfig
from collections import Counter
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest
import yaml
from msgspec import Struct

from sweeps.api.shapes import RunAnswer, TrialAnswer
from sweeps.client import Client
from sweeps.command import MACROS, WORKER_MACROS
from sweeps.spec import Overrides, Submission, load_project, load_sweep
from sweeps.spec_schema import FILE as SCHEMA_FILE
from sweeps.submission import send
from tests.support.cluster import Cluster, stopped_afterwards
from tracking.settings import Settings

CORPUS: Final = Path(__file__).resolve().parents[1] / "corpus"
FILES: Final = sorted(path.relative_to(CORPUS / "wandb").as_posix() for path in (CORPUS / "wandb").rglob("*.yaml"))
PROJECTS: Final = sorted(path.name for path in (CORPUS / "mlprojects").iterdir() if path.is_dir())
OURS: Final = frozenset("code entry_point limits resources queue priority collect env strategy register retry tags compat".split())
"""Keys of the sweep file that W&B's files do not have."""

pytestmark = pytest.mark.timeout(240)


class Range(Struct, frozen=True, forbid_unknown_fields=True):
    """Where a drawn value must lie: a type and bounds, multiples of a step, or a list."""

    type: str = ""
    min: float = 0.0
    max: float = 0.0
    step: float | None = None
    of: list[Any] | None = None

    def holds(self, value: Any) -> bool:
        """Whether it may have been drawn."""
        if self.of is not None:
            return any(type(value) is type(one) and value == one for one in self.of)
        is_step = self.step is None or value / self.step == round(value / self.step)
        return type(value).__name__ == self.type and self.min <= value <= self.max and is_step


class Expected(Struct, frozen=True, forbid_unknown_fields=True):
    """What one sweep comes to; `wandb.yaml` describes the fields.

    Attributes:
        given, entry_point: of a run of a project folder.
        sweep: the file in the project folder that is taken instead.
        needs: a package without which there is nothing to run.
        prints: a line of standard output.
    """

    trials: int = 1
    compat: bool = True
    code: str = ""
    options: Overrides = Overrides()
    given: dict[str, str] = {}
    entry_point: str = "main"
    sweep: str = ""
    needs: str = ""
    states: dict[str, int] | None = None
    causes: list[str] = []
    details: list[str] = []
    params: list[dict[str, Any]] | None = None
    draws: dict[str, Range] | None = None
    saw: Any = msgspec.UNSET
    saws: list[Any] = []
    prints: str = ""
    logged: dict[str, str] = {}
    values: list[float | None] = []
    best: int | None = None
    metrics: dict[str, list[tuple[int, float | str]]] = {}
    artifacts: list[str] | None = None
    sizes: dict[str, int] = {}
    tags: dict[str, str] = {}
    says: list[str] = []
    name: str = ""
    experiment: str = ""
    description: str = ""
    sweep_tags: dict[str, str] = {}


WANDB: Final = msgspec.convert(yaml.safe_load((CORPUS / "wandb.yaml").read_text(encoding="utf-8")), dict[str, Expected])
RUNS: Final = msgspec.convert(yaml.safe_load((CORPUS / "mlprojects.yaml").read_text(encoding="utf-8")), dict[str, list[Expected]])


def with_lines(text: str, lines: dict[str, str]) -> str:
    """A sweep file with lines of ours at its top, as its owner would write them there."""
    if text.startswith("{"):
        return text.replace("{", "{" + "".join(f'"{key}": "{value}", ' for key, value in lines.items()), 1)
    added = "".join(f"{key}: {value}\n" for key, value in lines.items())
    return text.replace("---\n", f"---\n{added}", 1) if text.startswith("---\n") else added + text


class Site:
    """One cluster, and all that was submitted to it."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self._sweep_ids: dict[tuple[str, int], str] = {}

    def submit_all(self) -> None:
        """Copy the corpus, add what it needs here, and submit every sweep and run."""
        folder = self.cluster.folder / "corpus"
        shutil.copytree(CORPUS, folder, ignore=shutil.ignore_patterns("__pycache__"))
        for name, expected in WANDB.items():
            lines = ({"compat": "wandb"} if expected.compat else {}) | ({"code": expected.code} if expected.code else {})
            file = folder / "wandb" / name
            file.write_text(with_lines(file.read_text(encoding="utf-8"), lines), encoding="utf-8")
        # The project as it stands, for a machine where the client is installed: here it is in the environment of the tests.
        churn = folder / "mlprojects/churn/sweep.yaml"
        churn.write_text(churn.read_text(encoding="utf-8") + f"env: {{PYTHONPATH: '{sysconfig.get_path('purelib')}'}}\n", encoding="utf-8")
        with self.cluster.client() as client:
            for name, expected in WANDB.items():
                self._submit(client, (name, 0), load_sweep(folder / "wandb" / name, overrides=expected.options))
            for name, runs in RUNS.items():
                for number, expected in enumerate(runs):
                    project = folder / "mlprojects" / name
                    if expected.sweep:
                        self._submit(client, (name, number), load_sweep(project / expected.sweep))
                    else:
                        self._submit(client, (name, number), load_project(project, entry_point=expected.entry_point, params=expected.given))

    def _submit(self, client: Client, key: tuple[str, int], submission: Submission) -> None:
        self._sweep_ids[key] = send(client, submission, Settings(home=self.cluster.folder / "home-cli"), tell=print)["sweep_id"]

    def check(self, name: str, number: int, expected: Expected) -> None:
        """Wait for the end of a sweep, and hold it to what is expected of it."""
        sweep_id = self._sweep_ids[name, number]
        trials = self.cluster.wait_for_end(sweep_id)
        with self.cluster.client() as client:
            check_trials(expected, trials, [client.logs(trial["run_id"], stream="stderr")["text"] for trial in trials])
            check_output(expected, trials, [client.logs(trial["run_id"])["text"] for trial in trials])
            check_first_run(expected, client, client.run(trials[0]["run_id"]))
            check_sweep(expected, client, sweep_id)
        self._check_artifacts(expected, trials[0]["run_id"])

    def _check_artifacts(self, expected: Expected, run_id: str) -> None:
        root = next((self.cluster.folder / "artifacts").rglob(run_id), Path("nowhere")) / "artifacts"
        sizes = {path.relative_to(root).as_posix(): path.stat().st_size for path in root.rglob("*") if path.is_file()}
        if expected.artifacts is not None:
            assert len(sizes) == len(expected.artifacts), sorted(sizes)
            missing = [pattern for pattern in expected.artifacts if not any(fnmatchcase(path, pattern) for path in sizes)]
            assert not missing, sorted(sizes)
        assert {path: sizes.get(path) for path in expected.sizes} == expected.sizes


def check_trials(expected: Expected, trials: Sequence[TrialAnswer], errors: Sequence[str]) -> None:
    """Their number, states, causes, parameters and values, and what they say of themselves."""
    said = "\n".join(f"{trial['number']}: {trial['detail']}\n{text}" for trial, text in zip(trials, errors, strict=True))
    assert len(trials) == expected.trials, said
    if expected.states != {}:
        assert Counter(trial["state"] for trial in trials) == (expected.states or {"finished": len(trials)}), said
    if expected.causes:
        assert [trial["cause"] for trial in trials] == expected.causes
    if expected.details:
        assert [trial["detail"] or "" for trial in trials[: len(expected.details)]] == expected.details
    if expected.params is not None or expected.given:
        wanted = expected.params if expected.params is not None else [expected.given]
        # As JSON: 1, 1.0 and true are equal, and not the same.
        assert [json.dumps(trial["params"]) for trial in trials] == [json.dumps(params) for params in wanted]
    if expected.draws is not None:
        for trial in trials:
            assert trial["params"].keys() == expected.draws.keys()
            strays = {name: value for name, value in trial["params"].items() if not expected.draws[name].holds(value)}
            assert not strays
    assert not [text for text in expected.says if text not in said], said
    if expected.values:
        assert [trial["value"] for trial in trials] == [None if value is None else pytest.approx(value) for value in expected.values]


def check_output(expected: Expected, trials: Sequence[TrialAnswer], outputs: Sequence[str]) -> None:
    """What the scripts say they were given."""
    for place, (trial, output) in enumerate(zip(trials, outputs, strict=True)):
        lines = output.splitlines()
        if expected.saw is not msgspec.UNSET or expected.saws:
            template = expected.saws[place] if expected.saws else expected.saw
            saw = [json.loads(line.removeprefix("saw ")) for line in lines if line.startswith("saw ")]
            assert saw == [filled(template, trial["params"])], output
        assert not expected.prints or expected.prints in lines


def filled(template: Any, params: dict[str, Any]) -> Any:
    """A template with a trial's parameters: the value itself where `<name>` is all, else its text."""
    if isinstance(template, dict):
        return {key: filled(value, params) for key, value in template.items()}
    if isinstance(template, list):
        whole = [filled(value, params) for value in template]
        return [str(value) if isinstance(value, float) and isinstance(one, str) else value for one, value in zip(template, whole, strict=True)]
    if not isinstance(template, str):
        return template
    if (match := re.fullmatch(r"<([^>]+)>", template)) is not None:
        return params[match[1]]
    return re.sub(r"<([^>]+)>", lambda match: str(params[match[1]]), template)


def check_first_run(expected: Expected, client: Client, run: RunAnswer) -> None:
    """What the first run has recorded."""
    assert {key: run["params"].get(key) for key in expected.logged} == expected.logged
    assert {key: run["tags"].get(key) for key in expected.tags} == expected.tags
    for key, points in expected.metrics.items():
        found = [(point["step"], point["value"]) for point in client.metrics(run["run_id"], key=key)["metrics"]]
        wanted = [(step, value if isinstance(value, str) else pytest.approx(value)) for step, value in points]
        assert found == wanted, key


def check_sweep(expected: Expected, client: Client, sweep_id: str) -> None:
    """The sweep's own: its best trial, its name, and what else its file says of it."""
    sweep = client.sweep(sweep_id)
    values = [trial["value"] for trial in client.trials(sweep_id)["trials"]]
    numbers = [float(value) for value in values if isinstance(value, (int, float))]
    if sweep["metric"] and numbers:
        assert sweep["best"] is not None
        assert sweep["best"]["value"] == (max if sweep["goal"] == "maximize" else min)(numbers)
    if expected.best is not None:
        assert sweep["best"] is not None
        assert sweep["best"]["number"] == expected.best
    config = sweep["config"]
    told = {
        "name": sweep["name"],
        "experiment": config["experiment"],
        "description": config.get("description", "").strip(),
        "sweep_tags": config.get("tags", {}),
    }
    assert told | {key: getattr(expected, key) for key in told if getattr(expected, key)} == told


@pytest.fixture(scope="module")
def site(module_database_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A worker with four slots, without a broker; its trials find this Python's own installation first, and a variable of its own."""
    environ = {"PATH": f"{sys.base_prefix}/bin:/usr/local/bin:/usr/bin:/bin", "DATA_DIR": "/srv/data"}
    with stopped_afterwards(Cluster(tmp_path_factory.mktemp("corpus"), module_database_url, "none", environ)) as cluster:
        made = Site(cluster.start(worker_arguments=("--slots", "4")))
        made.submit_all()
        yield made


@pytest.mark.parametrize("name", FILES)
def test_corpus_wandb_file_runs_as_it_stands(site: Site, name: str) -> None:
    """A sweep file in W&B's words, its script, and at most `compat: wandb` besides: each trial is what W&B would have made of it."""
    site.check(name, 0, WANDB[name])


@pytest.mark.parametrize(("name", "number"), [(name, number) for name in PROJECTS for number in range(len(RUNS[name]))])
def test_corpus_mlproject_runs_as_it_stands(site: Site, name: str, number: int) -> None:
    """A project folder as `mlflow run` takes it, with the parameters of one run, or with a sweep file beside it."""
    expected = RUNS[name][number]
    if expected.needs and find_spec(expected.needs) is None:
        pytest.skip(f"{expected.needs} is in the test extra: make install")
    site.check(name, number, expected)


def parts_of(node: Any, path: str = "") -> Iterator[str]:
    """What a sweep file uses, as `parts_of_schema` names it."""
    if path == "parameters" and isinstance(node, dict):
        for inner in node.values():
            yield from (f"parameters.{key}" for key in inner)
            if "distribution" in inner:
                yield from (f"{inner['distribution']}: {key}" for key in inner)
            yield from parts_of(inner.get("parameters"), "parameters")
    elif isinstance(node, dict):
        for key, inner in node.items():
            yield (where := f"{path}.{key}".removeprefix("."))
            yield from parts_of(inner, where)
    elif isinstance(node, str):
        yield f"{path} = {node}"
    elif isinstance(node, list) and path == "command":
        yield from (macro for word in node for macro in re.findall(r"\$\{(\w+)", str(word)))


def parts_of_schema(schema: Any) -> Iterator[str]:
    """Every key and every fixed word of the sweep file's schema; each distribution with each key it takes."""
    for key, inner in schema["properties"].items():
        for name, value in ((key, inner), *((f"{key}.{one}", value) for one, value in inner.get("properties", {}).items())):
            yield name
            yield from (f"{name} = {word}" for word in value.get("enum", ()) if isinstance(word, str))
    for kind in schema["definitions"]["parameter"]["anyOf"]:
        yield from (f"parameters.{key}" for key in kind["properties"])
        yield from (f"{name}: {key}" for name in kind["properties"].get("distribution", {}).get("enum", ()) for key in kind["properties"])


def test_corpus_has_a_file_for_everything_of_wandb() -> None:
    """Every key of the sweep file but our own, each distribution with each of its keys, every fixed word and every macro occurs in some file."""
    used = {part for name in FILES for part in parts_of(yaml.safe_load((CORPUS / "wandb" / name).read_text(encoding="utf-8")))}
    schema = json.loads(SCHEMA_FILE.read_text(encoding="utf-8"))
    keys = {part for part in parts_of_schema(schema) if re.split(r"[. ]", part)[0] not in OURS} - {"metric.from", "metric.from = last", "metric.from = best"}
    macros = {re.split(r"\W", macro)[0] for macro in (*MACROS, *WORKER_MACROS)}
    assert not sorted((keys | macros) - used)


def test_corpus_expects_something_of_every_file() -> None:
    """No file without an expectation, no expectation without its file; thirty and eight are the fewest there may be."""
    assert sorted(WANDB) == FILES
    assert sorted(RUNS) == PROJECTS
    assert len(FILES) >= 30
    assert len(PROJECTS) >= 8
    unheld = [name for name, expected in WANDB.items() if expected.params is None and expected.draws is None]
    assert not unheld, "each says at least which parameters its trials have"
