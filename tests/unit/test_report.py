"""A sweep as rows, CSV, JSON, data frames and as an Optuna study."""

import csv
import json
import math
import sqlite3
from collections.abc import Mapping, Sequence
from datetime import datetime
from io import StringIO
from pathlib import Path
from random import Random
from typing import Any

import optuna
import pandas as pd
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState

from sweeps.api.shapes import MetricValue
from sweeps.client import NoBest
from sweeps.report import optuna_sqlite
from sweeps.report.frames import metrics_frame, parquet_frame, trials_frame
from sweeps.report.reader import Reader
from sweeps.report.rows import csv_cell, csv_lines, json_text
from sweeps.report.study import build_study, column_of, write_study
from sweeps.spec import config_from_mapping
from tests.support.outcomes import AT, LATER, made_outcome, made_trial
from tracking.errors import AlreadyExists, InvalidValue

RANGES: dict[str, dict[str, Any]] = {
    "uniform": {"min": -1.5, "max": 2.0},
    "int_uniform": {"min": -3, "max": 9},
    "q_uniform": {"min": 0.0, "max": 1.0, "q": 0.1},
    "log_uniform": {"min": -3, "max": 2},
    "log_uniform_values": {"min": 1e-5, "max": 0.1},
    "q_log_uniform": {"min": 0, "max": 5, "q": 4},
    "q_log_uniform_values": {"min": 8, "max": 512, "q": 8},
    "inv_log_uniform": {"min": -3, "max": 2},
    "inv_log_uniform_values": {"min": 0.1, "max": 10},
    "normal": {"mu": 2, "sigma": 3},
    "q_normal": {"mu": 2, "sigma": 3, "q": 2},
    "log_normal": {"mu": 0, "sigma": 1},
    "q_log_normal": {"mu": 0, "sigma": 1, "q": 0.5},
    "beta": {"a": 2, "b": 5},
    "q_beta": {"a": 2, "b": 5, "q": 0.25},
}
X = {"x": {"min": 0.0, "max": 1.0}}


def parameter_of(**keys: Any) -> Any:
    """The parameter that a sweep file has by these keys."""
    return config_from_mapping({"program": "t.py", "method": "random", "parameters": {"p": keys}}).parameters[0]


@pytest.mark.parametrize("kind", RANGES)
def test_study_distribution_holds_whatever_is_drawn(kind: str) -> None:
    """Whatever a distribution yields, its ends included, is a value of the one that Optuna is told."""
    parameter = parameter_of(distribution=kind, **RANGES[kind])
    column, rng = column_of(parameter), Random(7)  # noqa: S311
    assert column is not None
    drawn = [parameter.draw(u) for u in (0.0, 1 - 2**-53, *(rng.random() for _ in range(500)))]
    assert [value for value in drawn if not column.distribution._contains(column.told(value))] == []
    assert {type(column.told(value)) for value in drawn} == {int if isinstance(column.distribution, IntDistribution) else float}


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({"min": 0.5, "max": 2.0}, FloatDistribution(0.5, 2.0)),
        ({"min": 1, "max": 9}, IntDistribution(1, 9)),
        ({"distribution": "log_uniform_values", "min": 0.001, "max": 1.0}, FloatDistribution(0.001, 1.0, log=True)),
        ({"distribution": "q_uniform", "min": 0, "max": 64, "q": 16}, IntDistribution(0, 64, step=16)),
        ({"distribution": "q_log_uniform_values", "min": 8, "max": 64, "q": 8}, IntDistribution(8, 64, log=True)),
        ({"values": ["sgd", None, 3, 0.5, True]}, CategoricalDistribution(("sgd", None, 3, 0.5, True))),
        ({"values": ["a", "b"], "probabilities": [0.3, 0.7]}, CategoricalDistribution(("a", "b"))),
    ],
)
def test_study_distribution_is_the_one_that_people_would_write(keys: dict[str, Any], expected: Any) -> None:
    """Ranges, scales, steps and categories are those of the sweep file."""
    column = column_of(parameter_of(**keys))
    assert column is not None
    assert column.distribution == expected


def test_study_tells_apart_what_optuna_would_mix_up() -> None:
    """Values that are equal in Python, and those that are no scalars, become JSON; doubles are one choice."""
    column = column_of(parameter_of(values=[1, 1.0, True, [1, 2], {"a": None}, 1]))
    assert column is not None
    assert column.distribution == CategoricalDistribution(("1", "1.0", "true", "[1, 2]", '{"a": null}'))
    assert [column.told(value) for value in (True, 1.0, [1, 2])] == ["true", "1.0", "[1, 2]"]


def test_study_has_no_parameter_for_a_constant() -> None:
    """Constants are told once, as an attribute of the study."""
    outcome = made_outcome({**X, "epochs": {"value": 5}}, [made_trial(0, {"x": 0.5, "epochs": 5}, 1.0)])
    study = build_study(outcome, {})
    assert study.trials[0].params == {"x": 0.5}
    assert study.user_attrs["constants"] == {"epochs": 5}


@pytest.mark.parametrize(
    ("state", "value", "expected"),
    [
        ("queued", None, TrialState.WAITING),
        ("placed", None, TrialState.WAITING),
        ("running", None, TrialState.RUNNING),
        ("finished", 0.5, TrialState.COMPLETE),
        ("finished", "-Infinity", TrialState.COMPLETE),
        ("finished", None, TrialState.FAIL),
        ("pruned", None, TrialState.PRUNED),
        ("failed", None, TrialState.FAIL),
        ("cancelled", None, TrialState.FAIL),
    ],
)
def test_study_has_each_state(state: str, value: Any, expected: TrialState) -> None:
    """A trial is in the state that Optuna has for it, with its value, times and what it was here."""
    trial = build_study(made_outcome(X, [made_trial(0, {"x": 0.5}, value, state)]), {}).trials[0]
    assert (trial.state, trial.value) == (expected, float(value) if expected is TrialState.COMPLETE else None)
    assert trial.user_attrs["state"] == state
    is_over = expected.is_finished()
    assert trial.datetime_complete == (datetime.fromisoformat(LATER).astimezone().replace(tzinfo=None) if is_over else None)
    assert trial.duration is None or trial.duration.total_seconds() == 2.5


def test_study_has_curves_attributes_and_the_metrics_name() -> None:
    """The metric's points are intermediate values, the last of a step counts; steps that Optuna can't hold are left out."""
    outcome = made_outcome(X, [made_trial(0, {"x": 0.5}, 0.25, cause="completed")], {0: {"loss": 0.25, "val/acc": "NaN"}})
    points = [(-1, 9.0), (0, 2.0), (1, "NaN"), (2, 1.0), (2, 0.25), (2**31, 3.0)]
    curve = [MetricValue(key="loss", value=value, step=step, time_ms=0) for step, value in points]
    study = build_study(outcome, {outcome.trials[0]["run_id"]: curve})
    assert (study.study_name, study.direction.name, study.metric_names) == ("brave-otter-7f3a", "MINIMIZE", ["loss"])
    trial = study.trials[0]
    assert {step: trial.intermediate_values[step] for step in (0, 2)} == {0: 2.0, 2: 0.25}
    assert trial.intermediate_values.keys() == {0, 1, 2}
    assert trial.user_attrs["metrics.loss"] == 0.25
    assert math.isnan(trial.user_attrs["metrics.val/acc"])


class PagedReader(Reader):
    """Answers a sweep's curves in two pages, one trial of which has too many points for them."""

    def __init__(self, run_ids: Sequence[str]) -> None:
        super().__init__("http://127.0.0.1:9")
        self.run_ids = run_ids
        self.asked: list[str] = []

    def _api(self, _method: str, path: str, *, query: Mapping[str, Any] | None = None, **_: Any) -> dict[str, Any]:
        self.asked.append(path.rpartition("/")[2])
        if path.endswith("/metrics"):
            return {"metrics": [MetricValue(key="loss", value=0.5, step=9, time_ms=0)], "next_page_token": ""}
        page = [(0, [(0, 0, 2.0), (4, 1, 1.0)]), (1, None)] if (query or {})["from_trial"] == 0 else [(3, [(0, 0, "NaN")])]
        curves = [{"number": number, "run_id": self.run_ids[number], "points": points} for number, points in page]
        return {"schema": 1, "curves": curves, "next_trial": 2 if (query or {})["from_trial"] == 0 else None}


def test_study_has_the_curves_of_all_trials() -> None:
    """Page by page; what is too long for a page is asked for by itself."""
    outcome = made_outcome(X, [made_trial(number, {"x": 0.5}, 1.0) for number in range(4)], {})
    reader = PagedReader([trial["run_id"] for trial in outcome.trials])
    points = reader.points(outcome, "loss")
    assert reader.asked == ["curves", "metrics", "curves"]
    study = build_study(outcome, points)
    values = [trial.intermediate_values for trial in study.trials]
    assert values[:3] == [{0: 2.0, 4: 1.0}, {9: 0.5}, {}]
    assert math.isnan(values[3][0])


def test_study_leaves_optunas_loudness_as_it_was() -> None:
    """Only our own lines are kept quiet."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.DEBUG)
    try:
        build_study(made_outcome(X, []), {})
        assert optuna.logging.get_verbosity() == optuna.logging.DEBUG
    finally:
        optuna.logging.set_verbosity(before)


def test_study_needs_a_metric() -> None:
    """Without an objective there is nothing to study, and the error says what to do."""
    outcome = made_outcome(X, [])
    outcome.sweep["metric"] = None
    with pytest.raises(NoBest) as caught:
        build_study(outcome, {})
    assert "has no metric" in caught.value.message
    assert "'metric'" in caught.value.hint


def every_kind_of_trial() -> Any:
    """An outcome with odd values of everything, and curves for it."""
    parameters = {"x": {"min": 0.0, "max": 1.0}, "odd näme [%s]": {"values": ["a", None, [1]]}, "n": {"min": 1, "max": 5}}
    states = ("finished", "finished", "finished", "failed", "pruned", "cancelled", "running", "queued")
    values: tuple[Any, ...] = (0.5, "Infinity", "-Infinity", None, None, None, None, None)
    choices = ("a", None, [1])
    trials = [
        made_trial(number, {"x": number / 8, "odd näme [%s]": choices[number % 3], "n": 1 + number % 5}, value, state)
        for number, (state, value) in enumerate(zip(states, values, strict=True))
    ]
    outcome = made_outcome(parameters, trials, {0: {"loss": 0.5, "ünï": "NaN"}, 3: {"loss": "Infinity"}})
    points: tuple[Any, ...] = (1.5, "NaN", "Infinity", "-Infinity", 0.25)
    curve = [MetricValue(key="loss", value=value, step=step, time_ms=0) for step, value in enumerate(points)]
    return outcome, {trial["run_id"]: curve for trial in outcome.trials[:5]}


def as_told(trial: FrozenTrial) -> str:
    """All of a trial but its id; NaN equals NaN."""
    maps: tuple[dict[Any, Any], ...] = (trial.params, trial.distributions, trial.user_attrs, trial.intermediate_values)
    return repr((trial.number, trial.state, trial.value, trial.datetime_start, trial.datetime_complete, *(sorted(each.items()) for each in maps)))


def test_study_in_a_file_is_the_one_in_memory(tmp_path: Path) -> None:
    """Optuna reads from our SQLite rows what it would have written itself, NaN and infinities included."""
    outcome, curves = every_kind_of_trial()
    write_study(outcome, curves, str(tmp_path / "a b.db"))
    written = optuna.load_study(study_name="brave-otter-7f3a", storage=f"sqlite:///{tmp_path / 'a b.db'}")
    built = build_study(outcome, curves)
    assert [as_told(trial) for trial in written.trials] == [as_told(trial) for trial in built.trials]
    assert (written.metric_names, written.user_attrs, written.direction) == (built.metric_names, built.user_attrs, built.direction)
    assert written.best_trial.number == built.best_trial.number


def test_study_in_a_file_is_the_one_that_optuna_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Row for row, the tables hold what Optuna's own way puts there."""
    outcome, curves = every_kind_of_trial()
    write_study(outcome, curves, str(tmp_path / "ours.db"))
    monkeypatch.setattr(optuna_sqlite, "knows", lambda _: False)
    write_study(outcome, curves, f"{tmp_path}/theirs.db")
    rows: list[dict[str, list[Any]]] = []
    for name in ("ours.db", "theirs.db"):
        database = sqlite3.connect(tmp_path / name)
        rows.append({table: sorted(database.execute(f"SELECT {columns} FROM {table}"), key=repr) for table, columns in optuna_sqlite._COLUMNS.items()})  # noqa: S608
        database.close()
    assert rows[0] == rows[1]
    assert all(rows[0].values())


def test_study_in_a_file_is_never_overwritten(tmp_path: Path) -> None:
    """The same study again is refused; another one finds room beside it."""
    outcome, curves = every_kind_of_trial()
    file = tmp_path / "x.db"
    write_study(outcome, curves, str(file))
    with pytest.raises(AlreadyExists, match="brave-otter-7f3a"):
        write_study(outcome, curves, str(file))
    outcome.sweep["short_id"] = "calm-fox-0001"
    write_study(outcome, curves, str(file))
    names = optuna.get_all_study_names(f"sqlite:///{file}")
    assert names == ["brave-otter-7f3a", "calm-fox-0001"]
    assert [len(optuna.load_study(study_name=name, storage=f"sqlite:///{file}").trials) for name in names] == [8, 8]


@pytest.mark.parametrize("content", [b"print('mine')\n", b""], ids=["text", "another database"])
def test_study_is_not_written_into_a_file_of_another_kind(tmp_path: Path, content: bytes) -> None:
    """A script, or a database that is not Optuna's, stays as it is."""
    file = tmp_path / "mine"
    if content:
        file.write_bytes(content)
    else:
        database = sqlite3.connect(file)
        database.execute("CREATE TABLE mine (x)").close()
        database.close()
    before = file.read_bytes()
    with pytest.raises(InvalidValue, match="no database of Optuna's"):
        write_study(made_outcome(X, []), {}, str(file))
    assert file.read_bytes() == before


def test_study_that_can_not_be_finished_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A new file is gone again; in a database that was there the study is."""
    outcome, curves = every_kind_of_trial()

    def fail(*_: object) -> None:
        raise sqlite3.OperationalError("disk full")

    file = tmp_path / "x.db"
    with monkeypatch.context() as patch:
        patch.setattr(optuna_sqlite, "insert", fail)
        with pytest.raises(InvalidValue, match="disk full"):
            write_study(outcome, curves, str(file))
    assert not file.exists()
    write_study(outcome, curves, str(file))
    outcome.sweep["short_id"] = "calm-fox-0001"
    monkeypatch.setattr(optuna_sqlite, "insert", fail)
    with pytest.raises(InvalidValue, match="disk full"):
        write_study(outcome, curves, str(file))
    assert optuna.get_all_study_names(f"sqlite:///{file}") == ["brave-otter-7f3a"]


def test_study_address_that_can_not_be_used_is_told() -> None:
    """No traceback of a driver."""
    with pytest.raises(InvalidValue, match="can't open"):
        write_study(made_outcome(X, []), {}, "nosuch://somewhere")


def test_study_file_with_a_question_mark_is_refused(tmp_path: Path) -> None:
    """In an address what follows it is no part of the name: another file would be written."""
    with pytest.raises(InvalidValue, match="'\\?'"):
        write_study(made_outcome(X, []), {}, str(tmp_path / "why?.db"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("value", "cell"),
    [
        (None, ""),
        (True, "true"),
        (3, "3"),
        (0.1, "0.1"),
        (float("nan"), "NaN"),
        (float("-inf"), "-Infinity"),
        ("sgd", "sgd"),
        ("-1e5", "-1e5"),
        ("=1+1", "'=1+1"),
        ("@SUM(A1)", "'@SUM(A1)"),
        ("+cmd", "'+cmd"),
        ("\t=1", "'\t=1"),
        ("a=b", "a=b"),
        ([1, "ü"], '[1, "ü"]'),
        ({"a": None}, '{"a": null}'),
    ],
)
def test_csv_cell_is_exact_and_no_formula(value: object, cell: str) -> None:
    """Values are written in full; only text that a spreadsheet would run gets an apostrophe."""
    assert csv_cell(value) == cell


def test_csv_and_frame_have_the_same_columns_whatever_happened() -> None:
    """Odd names, missing values, NaN and infinities: what pandas reads from the CSV is what the frame holds."""
    outcome, _ = every_kind_of_trial()
    text = "".join(csv_lines(outcome))
    frame = trials_frame(outcome)
    head, *rows = csv.reader(StringIO(text))
    assert head == list(frame.columns)
    assert len(rows) == 8
    read = pd.read_csv(StringIO(text))
    for name in ("number", "state", "value", "params.x", "params.n", "metrics.loss", "metrics.ünï", "duration_s"):
        pd.testing.assert_series_equal(read[name], frame[name], check_dtype=False)


def test_csv_keeps_lines_and_commas_within_a_cell() -> None:
    """A detail of several lines is one cell."""
    outcome = made_outcome(X, [made_trial(0, {"x": 0.5}, None, "failed", detail='Error: "a", b\nline two')])
    _, row = csv.DictReader(StringIO("".join(csv_lines(outcome)))), next(csv.DictReader(StringIO("".join(csv_lines(outcome)))))
    assert row["detail"] == 'Error: "a", b\nline two'


def test_json_export_is_one_object_with_all_trials() -> None:
    """What the API tells, whole, and strict JSON although there are NaN and infinities."""

    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is no JSON")

    outcome, _ = every_kind_of_trial()
    told = json.loads(json_text(outcome), parse_constant=refuse)
    assert (told["schema"], told["sweep"]["short_id"], len(told["trials"])) == (1, "brave-otter-7f3a", 8)
    assert told["trials"][1]["value"] == "Infinity"
    assert told["trials"][0]["metrics"] == {"loss": 0.5, "ünï": "NaN"}
    assert told["trials"][2]["params"] == {"x": 0.25, "odd näme [%s]": [1], "n": 3}


def test_export_of_no_trials_is_a_heading() -> None:
    """A sweep that has proposed nothing has its columns, and no rows."""
    outcome = made_outcome(X, [])
    assert len(list(csv_lines(outcome))) == 1
    assert json.loads(json_text(outcome))["trials"] == []
    frame = trials_frame(outcome)
    assert len(frame) == 0
    assert list(frame.columns[:3]) == ["number", "state", "value"]
    assert build_study(outcome, {}).trials == []


@pytest.mark.parametrize(
    ("values", "dtype"),
    [
        ([1, 2], "int64"),
        ([1, 2.5], "float64"),
        ([True, False], "bool"),
        (["a", "b"], "str"),
        ([1, "a"], "object"),
        ([2**70, 1], "object"),
        ([1, None], "Int64"),
        ([True, None], "boolean"),
        ([None, None], "object"),
        ([[1], [2]], "object"),
    ],
)
def test_frame_parameters_have_the_type_of_their_values(values: list[Any], dtype: str) -> None:
    """No number becomes text, and no whole number a float, because of another trial."""
    outcome = made_outcome({"p": {"value": 1}}, [made_trial(number, {"p": value}) for number, value in enumerate(values)])
    column = trials_frame(outcome)["params.p"]
    assert str(column.dtype) == dtype
    assert [None if value is pd.NA else value for value in column] == values


def test_frame_has_times_numbers_and_gaps() -> None:
    """Columns that are known have the same types whatever is in them."""
    outcome, _ = every_kind_of_trial()
    for frame in (trials_frame(outcome), trials_frame(made_outcome(X, []))):
        assert {str(frame[name].dtype) for name in ("number", "attempts", "generation")} == {"int64"}
        assert {str(frame[name].dtype) for name in ("value", "duration_s")} == {"float64"}
        assert all(isinstance(frame[name].dtype, pd.DatetimeTZDtype) for name in ("created_at", "started_at", "ended_at"))
    frame = trials_frame(outcome)
    assert list(frame["state"]) == ["finished"] * 3 + ["failed", "pruned", "cancelled", "running", "queued"]
    assert frame["started_at"][0] == pd.Timestamp(AT)
    assert pd.isna(frame["started_at"][7])
    assert frame["value"][1] == math.inf


def test_frame_for_parquet_survives_a_file(tmp_path: Path) -> None:
    """Columns of mixed values are JSON there; everything else is read back as it was."""
    outcome, _ = every_kind_of_trial()
    parquet_frame(outcome).to_parquet(tmp_path / "x.parquet", engine="pyarrow", index=False)
    read = pd.read_parquet(tmp_path / "x.parquet")
    whole = trials_frame(outcome)
    assert read["params.odd näme [%s]"].fillna("nothing").tolist()[:3] == ['"a"', "nothing", "[1]"]
    for name in ("number", "state", "value", "params.x", "metrics.ünï", "started_at"):
        pd.testing.assert_series_equal(read[name], whole[name])


def test_frame_of_metrics_has_a_row_for_each_point() -> None:
    """Curves of several trials, one below the other; none at all has the same columns."""
    points = [MetricValue(key="loss", value=value, step=step, time_ms=1_000 * step) for step, value in enumerate((2.0, "NaN"))]
    frame = metrics_frame([(3, "loss", points), (5, "acc", points[:1])])
    assert frame[["number", "key", "step"]].to_numpy().tolist() == [[3, "loss", 0], [3, "loss", 1], [5, "acc", 0]]
    assert math.isnan(frame["value"][1])
    assert frame["time"][1] == pd.Timestamp("1970-01-01T00:00:01Z")
    assert list(metrics_frame([]).dtypes.astype(str)) == list(frame.dtypes.astype(str))
