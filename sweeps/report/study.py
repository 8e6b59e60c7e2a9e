"""A sweep as an Optuna study: for its plots, importances and dashboard. In memory, or written to one of Optuna's storages.

The study is a copy, of use to Optuna's tools and no part of the search: that has its own (`sweeps.strategies`), which sees positions on axes
where this one has the parameters as the script got them.
"""

import math
import sqlite3
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeAlias

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution, distribution_to_json
from optuna.storages import BaseStorage, RDBStorage
from optuna.trial import FrozenTrial, TrialState

from sweeps.api.shapes import MetricValue, TrialAnswer
from sweeps.client import NoBest
from sweeps.report import optuna_sqlite
from sweeps.report.reader import Outcome, as_float, as_json_text, shown_state
from sweeps.report.rows import METRICS
from sweeps.space import Categorical, CategoricalWithProbabilities, Choices, Constant, Parameter, exact_key
from sweeps.spec_config import SweepConfig
from sweeps.wording import no_best_text
from tracking.errors import AlreadyExists, InvalidValue

_STATES: Final[Mapping[str, TrialState]] = {
    "queued": TrialState.WAITING,
    "placed": TrialState.WAITING,
    "running": TrialState.RUNNING,
    "finished": TrialState.COMPLETE,
    "pruned": TrialState.PRUNED,
    "failed": TrialState.FAIL,
    "cancelled": TrialState.FAIL,
}
_ATTRS: Final = ("run_id", "cause", "detail", "attempts", "generation", "worker", "duration_s")
_MAX_STEP: Final = 2**31 - 1
"""Optuna's databases hold no greater step, and none below zero."""
_SCALARS: Final = (str, int, float, bool, type(None))

Curves = Mapping[str, Sequence[MetricValue]]
Study: TypeAlias = optuna.Study


class Column(NamedTuple):
    """One parameter of a study: what it may be, and how a trial's value is told to Optuna."""

    distribution: BaseDistribution
    told: Callable[[Any], Any]


def column_of(parameter: Parameter) -> Column | None:
    """A parameter as Optuna has it; None for a constant, which Optuna has no parameters for.

    Ranges become float or integer ranges, from the least to the greatest value that may come, on a log scale where the distribution has
    one. Categories become Optuna's, as JSON where Optuna could not hold them or tell them apart (1, 1.0 and true).
    """
    if isinstance(parameter, Constant):
        return None
    if isinstance(parameter, Categorical | CategoricalWithProbabilities):
        return _categories(parameter.values)
    axis = parameter.axis
    if isinstance(axis, Choices):
        raise TypeError(f"{parameter.name} has choices, and is no known kind of category")  # a fault of the program
    low, high = sorted((parameter.at(axis.low), parameter.at(axis.high)))
    is_log = low > 0 and "log" in str(parameter.__struct_config__.tag)
    if isinstance(low, int) and isinstance(high, int):
        return Column(IntDistribution(low, high, log=is_log, step=1 if is_log else int(getattr(parameter, "q", 1))), int)
    return Column(FloatDistribution(low, high, log=is_log), float)


def _categories(values: Sequence[Any]) -> Column:
    distinct = {exact_key(value): value for value in values}
    is_plain = all(isinstance(value, _SCALARS) for value in distinct.values()) and len(set(distinct.values())) == len(distinct)
    told = distinct if is_plain else {key: as_json_text(value) for key, value in distinct.items()}
    return Column(CategoricalDistribution(tuple(told.values())), lambda value: told[exact_key(value)])


def build_study(outcome: Outcome, curves: Curves, storage: BaseStorage | None = None) -> Study:
    """A study with all of a sweep's trials, named by the sweep's short id.

    Args:
        curves: the points of the sweep's metric by run, which become intermediate values; those it lacks have none.
        storage: where it is written; in memory if None.

    Raises:
        NoBest: the sweep has no metric, so there is nothing to study.
        DuplicatedStudyError: the storage has one of that name.
    """
    study = _empty_study(outcome, storage)
    study.add_trials(_trials(outcome, curves))
    return study


def _empty_study(outcome: Outcome, storage: BaseStorage | None) -> Study:
    sweep = outcome.sweep
    if sweep["metric"] is None:
        raise NoBest(no_best_text(sweep["short_id"], None, is_over=False), hint="A study needs an objective: name it under 'metric' in the sweep file.")
    with _quiet():
        study = optuna.create_study(storage=storage, study_name=sweep["short_id"], direction=sweep["goal"])
        study.set_metric_names([sweep["metric"]])
    constants = {parameter.name: parameter.value for parameter in _parameters(outcome) if isinstance(parameter, Constant)}
    for name, value in {"sweep": sweep["name"], "sweep_id": sweep["sweep_id"], "state": sweep["state"], "constants": constants}.items():
        study.set_user_attr(name, value)
    return study


def _parameters(outcome: Outcome) -> Sequence[Parameter]:
    return SweepConfig.from_builtins(outcome.sweep["config"]).parameters


def _trials(outcome: Outcome, curves: Curves) -> list[FrozenTrial]:
    columns = {parameter.name: column for parameter in _parameters(outcome) if (column := column_of(parameter)) is not None}
    return [frozen(trial, outcome.metrics_of(trial), columns, curves.get(trial["run_id"], ())) for trial in outcome.trials]


def frozen(trial: TrialAnswer, metrics: Mapping[str, MetricValue], columns: Mapping[str, Column], curve: Sequence[MetricValue]) -> FrozenTrial:
    """A trial as Optuna has it; what Optuna has no place for, and the latest metrics, are its user attributes."""
    state, value = _STATES[shown_state(trial)], as_float(trial["value"])
    if state is TrialState.COMPLETE and (value is None or math.isnan(value)):
        state = TrialState.FAIL
    every: Mapping[str, Any] = {**trial}
    attrs = {"state": shown_state(trial)} | {name: every[name] for name in _ATTRS if every[name] not in (None, "")}
    attrs |= {METRICS + name: as_float(point["value"]) for name, point in metrics.items()}
    ended = _local(trial["ended_at"] or trial["created_at"]) if state.is_finished() else None
    return FrozenTrial(
        number=trial["number"],
        trial_id=-1,
        state=state,
        value=value if state is TrialState.COMPLETE else None,
        datetime_start=None if state is TrialState.WAITING else _local(trial["started_at"]) or ended or _local(trial["created_at"]),
        datetime_complete=ended,
        params={name: column.told(trial["params"][name]) for name, column in columns.items()},
        distributions={name: column.distribution for name, column in columns.items()},
        user_attrs=attrs,
        system_attrs={},
        intermediate_values={point["step"]: _number(point) for point in curve if 0 <= point["step"] <= _MAX_STEP},
    )


def _number(point: MetricValue) -> float:
    return float(point["value"]) if point["value"] is not None else math.nan


def _local(at: str | None) -> datetime | None:
    """A time as Optuna keeps it: of this machine's clock on the wall, without a zone."""
    return None if at is None else datetime.fromisoformat(at).astimezone().replace(tzinfo=None)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without Optuna's line for each new study, and its warning that names of metrics are experimental."""
    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(max(level, optuna.logging.WARNING))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            yield
    finally:
        optuna.logging.set_verbosity(level)


def write_study(outcome: Outcome, curves: Curves, target: str) -> None:
    """Write a study to one of Optuna's databases; what was begun and can't be finished is taken back.

    Args:
        target: a file, which becomes an SQLite database or, if it is one of Optuna's, gets one study more; or an address as SQLAlchemy takes it.

    Raises:
        AlreadyExists: it has a study of that name; nothing is overwritten.
        InvalidValue: the file is something else, or the address can't be used.
        NoBest: the sweep has no metric.
    """
    name = outcome.sweep["short_id"]
    file = None if "://" in target else Path(target)
    is_new = file is not None and _is_new(file)
    storage = _opened(target if file is None else f"sqlite:///{file.absolute()}")
    try:
        study = _empty_study(outcome, storage)
        _fill(study, file, _trials(outcome, curves))
    except optuna.exceptions.DuplicatedStudyError:
        raise AlreadyExists(f"That storage has a study {name!r} already; nothing was written.", hint="Name another file, or delete that study.") from None
    except BaseException as error:
        _take_back(storage, name, file if is_new else None)
        if isinstance(error, sqlite3.Error):
            raise InvalidValue(f"{file} can't be written: {error}.") from error
        raise
    finally:
        storage.remove_session()
        storage.engine.dispose()


def _opened(address: str) -> RDBStorage:
    try:
        with _quiet():
            return RDBStorage(address)
    except Exception as error:
        # SQLAlchemy's and the drivers' errors are many, and all of them mean this.
        told = (str(error).splitlines() or [type(error).__name__])[0]
        raise InvalidValue(f"Optuna can't open that storage: {told}", hint="Name a file, or an address such as sqlite:///sweeps.db.") from error


def _fill(study: Study, file: Path | None, trials: Sequence[FrozenTrial]) -> None:
    if file is None or not optuna_sqlite.knows(file):
        study.add_trials(trials)
        return
    # One text for all trials: they share their distributions.
    texts = {name: distribution_to_json(distribution) for trial in trials[:1] for name, distribution in trial.distributions.items()}
    optuna_sqlite.insert(file, study.study_name, [_stored(trial, texts) for trial in trials])


def _stored(trial: FrozenTrial, texts: Mapping[str, str]) -> optuna_sqlite.StoredTrial:
    return optuna_sqlite.StoredTrial(
        number=trial.number,
        state=trial.state.name,
        value=trial.value,
        started_at=trial.datetime_start,
        ended_at=trial.datetime_complete,
        params={name: (trial.distributions[name].to_internal_repr(value), texts[name]) for name, value in trial.params.items()},
        user_attrs=trial.user_attrs,
        intermediate_values=trial.intermediate_values,
    )


def _is_new(file: Path) -> bool:
    """Whether there is no such file yet.

    Raises:
        InvalidValue: there is one, and it is no database of Optuna's; or its name can't be one's.
    """
    if "?" in str(file.absolute()):
        raise InvalidValue(f"{file}: Optuna takes no '?' in the name of a file.", hint="Name another file.")
    if not file.exists() or file.stat().st_size == 0:
        return True
    if not optuna_sqlite.is_optunas(file):
        raise InvalidValue(f"{file} is there already, and is no database of Optuna's.", hint="Name another file.")
    return False


def _take_back(storage: RDBStorage, name: str, file: Path | None) -> None:
    if file is not None:
        file.unlink(missing_ok=True)
        return
    with suppress(KeyError):  # it was not begun
        storage.delete_study(storage.get_study_id_from_name(name))
