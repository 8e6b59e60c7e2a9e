"""Sweeps from Python: submit one, attach to one, look, wait, steer. What `import sweeps` gives; made for notebooks and scripts alike.

    import sweeps

    sweep = sweeps.submit("sweep.yaml")
    sweep.wait()
    sweep.best().params
    sweep.trials()                     # a pandas.DataFrame
    sweep.study()                      # an optuna.Study

It talks to the server that SWEEP_SERVER names, or else to the cluster of this machine, which is started if need be: as the command line does.
"""

import json
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, Self

from sweeps.address import server_url
from sweeps.api.shapes import Counts, MetricValue, SweepAnswer
from sweeps.client import NoBest, ServerError
from sweeps.errors import SpecError
from sweeps.looks import looks, waiting_notes
from sweeps.mlproject import find_mlproject
from sweeps.report.live import fitting_view, html
from sweeps.report.reader import Outcome, Reader, as_float
from sweeps.spec import Overrides, Submission, config_from_mapping, load_project, load_sweep
from sweeps.standing import FINAL_STATES, changes_nothing
from sweeps.submission import send
from sweeps.whereabouts import FILE_NAME, is_archive, why_no_place, why_no_project
from sweeps.wording import no_best_text
from tracking.errors import SweepError
from tracking.settings import Settings, load_settings

if TYPE_CHECKING:
    import pandas as pd

    from sweeps.report.study import Study

_LOG_PAGE_BYTES: Final = 1024 * 1024


@dataclass(frozen=True, slots=True)
class BestTrial:
    """The best trial of a sweep.

    Attributes:
        number: of the trial, from 0.
        value: of the sweep's metric.
        params: by name, with the values that the script got.
        run_id: of its run, for MLflow's client.
    """

    number: int
    value: float
    params: dict[str, Any]
    run_id: str


class Sweep:
    """A sweep on a server. Made by `submit` and `sweep`; holds no connection, so it may be kept and shared between threads.

    Every look asks the server anew. All methods raise `ServerAway` when it can't be reached, and `MissingOnServer` when the sweep is gone.

    Attributes:
        id: of the sweep, which is its parent run's for MLflow's client.
        short_id: two words and four characters, for people.
        name: as the file gives it.
    """

    def __init__(self, seen: SweepAnswer, url: str, token: str = "") -> None:
        self.id = seen["sweep_id"]
        self.short_id = seen["short_id"]
        self.name = seen["name"]
        self._url = url
        self._token = token

    def __repr__(self) -> str:
        return f"<Sweep {self.short_id} {self.name!r}>"

    def _repr_html_(self) -> str:
        try:
            return html(self._look())
        except SweepError as error:
            # A notebook draws what it shows again and again, also long after.
            return html_note(f"{self!r}: {error.message}")

    @property
    def state(self) -> str:
        """Now: `active`, `paused`, `stopping`, `finished`, `failed` or `cancelled`."""
        return self._look()["state"]

    @property
    def counts(self) -> Counts:
        """How many trials there are now, by state; `queued`, `placed` and `running` are the open ones."""
        return self._look()["counts"]

    def trials(self) -> "pd.DataFrame":
        """One row a trial, by number.

        Columns: `number`; `state` (`queued`, `placed`, `running`, `finished`, `pruned`, `failed`, `cancelled`); `value` of the sweep's metric;
        `params.NAME`; `metrics.NAME`, the latest value of each metric; `cause` and `detail` of its end; `attempts`; `generation`;
        `worker`; `duration_s` of the current attempt; `created_at`, `started_at`, `ended_at` (UTC); `run_id`.

        Parameters have the type that all their values share: int64, float64, bool, str, else object. Missing values are NaN, NaT and None.

        Raises:
            ModuleNotFoundError: pandas is not installed.
        """
        from sweeps.report.frames import require_pandas, trials_frame  # noqa: PLC0415 - an extra

        require_pandas()
        return trials_frame(self._outcome())

    def best(self) -> BestTrial:
        """The best finished trial.

        Raises:
            NoBest: none has finished with a value.
        """
        with self._reader() as reader:
            answer = reader.best(self.id)
        value = as_float(answer["value"])
        if answer["number"] is None or answer["run_id"] is None or value is None:
            raise NoBest(no_best_text(self.short_id, answer["metric"], is_over=answer["state"] in FINAL_STATES), hint="trials() shows what there is.")
        return BestTrial(answer["number"], value, answer["params"], answer["run_id"])

    def wait(self, timeout: float | None = None, *, progress: bool = True) -> Self:
        """Wait until the sweep has ended, however that is: `state` tells. Interrupted (Ctrl-C), it returns, and the sweep goes on.

        Args:
            timeout: in seconds; None waits for as long as it takes.
            progress: show how it goes, in a notebook as a picture that is redrawn in place, elsewhere as a line at each change.

        Returns:
            This sweep.

        Raises:
            TimeoutError: so many seconds have passed; the sweep goes on.
        """
        try:
            self._follow(_Deadline(self.short_id, timeout), progress=progress)
        except KeyboardInterrupt:
            print(f"Detached; the sweep goes on. sweeps.sweep({self.short_id!r}) finds it again.")  # noqa: T201 - for people
        return self

    def _follow(self, deadline: "_Deadline", *, progress: bool) -> None:
        view = fitting_view() if progress else None
        waits_since: float | None = None
        with self._reader() as reader:
            for seen in looks(partial(reader.sweep, self.id), tell=_tell, pause=deadline.pause):
                if view is not None:
                    now = time.monotonic()
                    waits_since = None if seen["counts"]["running"] else waits_since or now
                    view.show(seen, waiting_notes(reader, seen, now - (waits_since or now)))

    def study(self, *, intermediate_values: bool = True) -> "Study":
        """An Optuna study in memory with all trials as they stand: for `optuna.visualization`, `optuna.importance` and the like.

        A copy: what is done to it reaches no server. Cancelled trials are failed ones there; `trial.user_attrs` has the state, cause, run id and latest
        metrics, `study.user_attrs["constants"]` the parameters that have one value.

        Args:
            intermediate_values: with the curve of the sweep's metric.

        Raises:
            NoBest: the sweep has no metric.
        """
        from sweeps.report.study import build_study  # noqa: PLC0415 - brings Optuna

        with self._reader() as reader:
            outcome = reader.outcome(self.id)
            metric = outcome.sweep["metric"]
            return build_study(outcome, reader.points(outcome, metric) if intermediate_values and metric is not None else {})

    def logs(self, number: int, *, stream: Literal["stdout", "stderr"] = "stdout", attempt: int | None = None) -> str:
        """What a trial has printed so far.

        Args:
            number: of the trial.
            attempt: from 1; the latest unless given.

        Raises:
            MissingOnServer: there is no such trial or attempt.
        """
        texts: list[str] = []
        offset = 0
        with self._reader() as reader:
            while True:
                page = reader.logs(f"{self.id}/{number}", attempt=attempt, stream=stream, offset=offset, limit=_LOG_PAGE_BYTES)
                if not page["text"]:
                    return "".join(texts)
                texts.append(page["text"])
                # What is read first is kept to, although another attempt may begin meanwhile.
                attempt, offset = page["attempt"] or None, page["next_offset"]

    def metrics(self, number: int | None = None, key: str | None = None) -> "pd.DataFrame":
        """Every point that was logged, one row each: `number` of the trial, `key`, `step`, `value`, `time` (UTC).

        Args:
            number: of one trial; all of them unless given.
            key: one metric; all of them unless given.

        Raises:
            MissingOnServer: there is no such trial.
            ModuleNotFoundError: pandas is not installed.
        """
        from sweeps.report.frames import metrics_frame, require_pandas  # noqa: PLC0415 - an extra

        require_pandas()
        with self._reader() as reader:
            return metrics_frame(self._logged_by_all(reader, key) if number is None else self._logged_by(reader, number, key))

    def _logged_by_all(self, reader: Reader, key: str | None) -> list[tuple[int, str, list[MetricValue]]]:
        """Trial, metric and points, by the number of the trial."""
        outcome = reader.outcome(self.id)
        names = outcome.metric_names if key is None else [key]
        points = {name: reader.points(outcome, name) for name in names}
        return [(trial["number"], name, points[name][trial["run_id"]]) for trial in outcome.trials for name in names if trial["run_id"] in points[name]]

    def _logged_by(self, reader: Reader, number: int, key: str | None) -> list[tuple[int, str, list[MetricValue]]]:
        """The same, of one trial."""
        run = reader.run(f"{self.id}/{number}")
        names = [metric["key"] for metric in run["metrics"] if key in (None, metric["key"])]
        return [(number, name, reader.metrics(run["run_id"], key=name)["metrics"]) for name in names]

    def pause(self) -> Self:
        """Start no more trials until it is resumed; running ones go on. Of a paused one nothing is changed.

        Raises:
            ServerError: it is stopping, or has ended.
        """
        return self._steer("pause")

    def resume(self) -> Self:
        """Go on after a pause. Of one that is active nothing is changed.

        Raises:
            ServerError: it is stopping, or has ended.
        """
        return self._steer("resume")

    def stop(self) -> Self:
        """Start no more trials; running ones may end. Of one that has ended nothing is changed."""
        return self._steer("stop")

    def cancel(self) -> Self:
        """Start no more trials, and stop the running ones. It does not ask. Of one that has ended nothing is changed."""
        return self._steer("cancel")

    def extend(self, n_more: int) -> Self:
        """Let it have so many more trials; one that has finished goes on.

        Raises:
            InvalidRequest: a grid has not so many cells.
            ServerError: it can have no more.
        """
        with self._reader() as reader:
            reader.extend(self.id, n_more)
        return self

    def retry(self, *numbers: int, cancelled: bool = False) -> list[int]:
        """Run failed trials again, all of them or these, and cancelled ones if asked for; the numbers of those that do."""
        with self._reader() as reader:
            return reader.retry(self.id, numbers or None, cancelled=cancelled)["trials"]

    def _steer(self, move: str) -> Self:
        with self._reader() as reader:
            try:
                reader.steer(self.id, move)
            except ServerError as error:
                # Looked at afterwards: it may have ended just now.
                if error.http_status != HTTPStatus.CONFLICT or not changes_nothing(move, reader.sweep(self.id)["state"]):
                    raise
        return self

    def _look(self) -> SweepAnswer:
        with self._reader() as reader:
            return reader.sweep(self.id)

    def _outcome(self) -> Outcome:
        with self._reader() as reader:
            return reader.outcome(self.id)

    def _reader(self) -> Reader:
        return Reader(self._url, self._token)


def submit(
    file: str | Path | Mapping[str, Any],
    *,
    folder: str | Path | None = None,
    name: str | None = None,
    trials: int | None = None,
    parallel: int | None = None,
    queue: str | None = None,
    no_pruning: bool = False,
    params: Mapping[str, Any] | None = None,
    entry_point: str | None = None,
    server: str | None = None,
) -> Sweep:
    """Submit a sweep; returns at once.

    Args:
        file: a sweep file, a folder with a `sweep.yaml`, a folder with an MLproject (which is run once), or what a sweep file holds as a
            mapping. Numbers, arrays and ranges of numpy and pandas are taken in a mapping.
        folder: of the project, for a mapping; else the current one.
        name: of the sweep, in place of the file's; so `trials`, `parallel` and `queue`.
        no_pruning: accept `early_terminate`, and do not prune.
        params: values of a folder that has an MLproject only.
        entry_point: of such a folder; `main` unless given.
        server: its address; SWEEP_SERVER, or the cluster of this machine, unless given.

    Raises:
        SpecProblems: all that is wrong with the file, each with line and column; of a mapping, with its key's path.
        SpecError: arguments that do not go together.
        ServerAway, Refused, LocalError: the server can't be used.
    """
    for keyword, number in (("trials", trials), ("parallel", parallel)):
        if number is not None and number < 1:
            raise SpecError(f"'{keyword}' is at least 1, not {number}.")
    for keyword, text in (("name", name), ("queue", queue)):
        if text is not None and not text.strip():
            raise SpecError(f"'{keyword}' is empty.")
    overrides = Overrides(name=name, trials=trials, parallel=parallel, queue=queue, no_pruning=no_pruning)
    if isinstance(file, Mapping):
        if params is not None or entry_point is not None:
            raise SpecError("'params' and 'entry_point' belong to a folder with an MLproject; a mapping says both itself.")
        submission = _from_mapping(file, Path(folder or ".").expanduser(), overrides)
    else:
        if folder is not None:
            raise SpecError("'folder' belongs to a mapping; a file says itself where the project is, by 'code'.")
        submission = _from_path(Path(file).expanduser(), params, entry_point, overrides)
    settings, url = _server(server)
    with Reader(url, settings.token) as reader:
        return Sweep(send(reader, submission, settings, tell=_tell), url, settings.token)


def sweep(ref: str = "@latest", *, server: str | None = None) -> Sweep:
    """A sweep that is there already.

    Args:
        ref: its id, short id, name (the newest of that name), a unique prefix, or `@latest`.
        server: its address; SWEEP_SERVER, or the cluster of this machine, unless given.

    Raises:
        MissingOnServer: there is no such sweep.
    """
    settings, url = _server(server)
    with Reader(url, settings.token) as reader:
        return Sweep(reader.sweep(ref), url, settings.token)


def sweeps(*, state: str | None = None, limit: int = 50, server: str | None = None) -> "pd.DataFrame":
    """Sweeps, one row each, newest first.

    Args:
        state: only those in it.
        limit: at most so many, up to 1000.
        server: its address; SWEEP_SERVER, or the cluster of this machine, unless given.

    Raises:
        ModuleNotFoundError: pandas is not installed.
    """
    from sweeps.report.frames import require_pandas, sweeps_frame  # noqa: PLC0415 - an extra

    require_pandas()
    settings, url = _server(server)
    with Reader(url, settings.token) as reader:
        return sweeps_frame(reader.sweeps(state=state, limit=limit)["sweeps"])


def html_note(text: str) -> str:
    """A sentence as a piece of HTML."""
    from html import escape  # noqa: PLC0415 - the name is taken above

    return f"<div>{escape(text)}</div>"


def _server(server: str | None) -> tuple[Settings, str]:
    settings = load_settings()
    settings = settings if server is None else replace(settings, server=server)
    return settings, server_url(settings, _tell)


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)  # noqa: T201 - for people


def _from_mapping(mapping: Mapping[str, Any], folder: Path, overrides: Overrides) -> Submission:
    plain = plain_value(mapping)
    config = overrides.apply(config_from_mapping(plain, project_dir=folder, no_pruning=overrides.no_pruning))
    return Submission(config, json.dumps(plain, indent=2, ensure_ascii=False), folder / config.code)


def _from_path(path: Path, params: Mapping[str, Any] | None, entry_point: str | None, overrides: Overrides) -> Submission:
    if not path.exists() or (path.is_file() and is_archive(path)):
        raise why_no_place(path)
    file = path / FILE_NAME if path.is_dir() else path
    if not file.exists():
        if entry_point is None and find_mlproject(path) is None:
            raise why_no_project(path)
        texts = {key: str(value) for key, value in (params or {}).items()}
        return load_project(path, entry_point=entry_point or "main", params=texts, overrides=overrides)
    if params is not None or entry_point is not None:
        raise SpecError(f"'params' and 'entry_point' belong to a folder with an MLproject and no sweep file; {file} says both itself.")
    return load_sweep(file, overrides=overrides)


def plain_value(value: Any) -> Any:
    """A value as a sweep file could hold it: arrays and numbers of numpy and pandas, ranges and paths become lists, numbers and text."""
    if isinstance(value, Mapping):
        return {str(key): plain_value(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple | range):
        return [plain_value(inner) for inner in value]
    if hasattr(value, "tolist"):
        return plain_value(value.tolist())
    return str(value) if isinstance(value, Path) else value


class _Deadline:
    """Pauses until there is no more time."""

    def __init__(self, short_id: str, timeout_s: float | None) -> None:
        self._short_id = short_id
        self._timeout_s = timeout_s
        self._at = float("inf") if timeout_s is None else time.monotonic() + timeout_s

    def pause(self, pause_s: float) -> None:
        left_s = self._at - time.monotonic()
        if left_s <= 0:
            raise TimeoutError(f"Sweep {self._short_id} has not ended after {self._timeout_s:g} s; it goes on.")
        time.sleep(min(pause_s, left_s))
