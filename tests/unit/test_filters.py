"""The search grammar: what MLflow's clients write, and what is refused where."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracking.errors import InvalidValue
from tracking.filters import Clause, OrderBy, parse_filter, parse_order_by


@pytest.mark.parametrize(
    "text, expected",
    [
        ("metrics.loss < 0.1", Clause("metric", "loss", "<", 0.1)),
        ("metric.m>=-1e-3", Clause("metric", "m", ">=", -0.001)),
        ("metrics.val/loss > .5", Clause("metric", "val/loss", ">", 0.5)),
        ("metrics.1e3 > 1", Clause("metric", "1e3", ">", 1.0)),
        ("params.a.b = 'x'", Clause("param", "a.b", "=", "x")),
        ('parameter.`a b` != "x"', Clause("param", "a b", "!=", "x")),
        ("`params`.\"a b\" LIKE '%x_'", Clause("param", "a b", "LIKE", "%x_")),
        ("tags.mlflow.parentRunId = 'abc'", Clause("tag", "mlflow.parentRunId", "=", "abc")),
        ("tag.k ilike 'Yes'", Clause("tag", "k", "ILIKE", "Yes")),
        ("params.a = 'it''s'", Clause("param", "a", "=", "it's")),
        ("params.a = 'x AND y'", Clause("param", "a", "=", "x AND y")),
        ("params.a <> 'x'", Clause("param", "a", "!=", "x")),
        ("status = 'RUNNING'", Clause("attribute", "status", "=", "RUNNING")),
        ("attributes.`Run Name` = 'x'", Clause("attribute", "run_name", "=", "x")),
        ("`run name` = 'x'", Clause("attribute", "run_name", "=", "x")),
        ("attr.created > 5", Clause("attribute", "start_time", ">", 5)),
        ("run.end_time <= 1.5", Clause("attribute", "end_time", "<=", 1.5)),
        ("run_id IN ('a', 'b')", Clause("attribute", "run_id", "IN", ("a", "b"))),
    ],
)
def test_filter_parses_a_comparison(text: str, expected: Clause) -> None:
    """Every form of identifier, operator and value that MLflow's grammar has."""
    assert parse_filter(text) == (expected,)


def test_filter_value_of_a_time_is_whole_when_written_so() -> None:
    """Milliseconds stay exact integers."""
    (clause,) = parse_filter("start_time = 9007199254740993")
    assert clause.value == 9007199254740993
    assert isinstance(clause.value, int)


def test_filter_joins_comparisons_by_and() -> None:
    """AND in any case, and nothing needed between operator and value."""
    assert parse_filter("metrics.a>1 and params.b='AND' AND tags.c != 'd'") == (
        Clause("metric", "a", ">", 1.0),
        Clause("param", "b", "=", "AND"),
        Clause("tag", "c", "!=", "d"),
    )


@pytest.mark.parametrize("text", ["", "  ", "\n"])
def test_filter_has_no_clauses_when_it_is_empty(text: str) -> None:
    """Nothing asked matches everything."""
    assert parse_filter(text) == ()


@pytest.mark.parametrize(
    "text, position, said",
    [
        ("metrics.a > 1 OR metrics.b > 2", 14, "OR is not supported"),
        ("NOT metrics.a > 1", 0, "no attribute"),
        ("(metrics.a > 1)", 0, "parentheses"),
        ("params.a IS NULL", 9, "IS is not supported"),
        ("run_id NOT IN ('a')", 7, "NOT is not supported"),
        ("dataset.name = 'x'", 0, "datasets"),
        ("foo.a = 'x'", 0, "'foo' is not one of"),
        ("foo = 'x'", 0, "no attribute of a run"),
        ("metrics.a", 9, "expected an operator, found the end"),
        ("metrics.a >", 11, "expected a number"),
        ("metrics.a > '1'", 12, "expected a number"),
        ("metrics.a > nan", 12, "expected a number"),
        ("metrics.a LIKE 'x'", 0, "can't be used"),
        ("params.a > 'x'", 0, "can't be used"),
        ("params.a IN ('x')", 0, "can't be used"),
        ("status IN ('RUNNING')", 0, "can't be used"),
        ("params.a = x", 11, "expected a string in quotes"),
        ("params.a = 'x", 11, "not closed"),
        ("params.", 7, "expected a key"),
        ("params.a = 'x' params.b = 'y'", 15, "expected AND or the end"),
        ("params.a = 'x' AND", 18, "expected an identifier"),
        ("params.a = 'x';", 14, "no meaning"),
        ("run_id IN ()", 11, "expected a string"),
        ("run_id IN ('a'", 14, "expected ',' or ')'"),
    ],
)
def test_filter_is_refused_with_its_position(text: str, position: int, said: str) -> None:
    """The message tells what is wrong, and where."""
    with pytest.raises(InvalidValue) as refused:
        parse_filter(text)
    assert f"at position {position}," in refused.value.message
    assert said in refused.value.message


@pytest.mark.parametrize(
    "text, expected",
    [
        ("metrics.loss DESC", OrderBy("metric", "loss", descending=True)),
        ("metrics.`a b` desc", OrderBy("metric", "a b", descending=True)),
        ("params.lr ASC", OrderBy("param", "lr")),
        ("tags.mlflow.user", OrderBy("tag", "mlflow.user")),
        ("start_time", OrderBy("attribute", "start_time")),
        ("attributes.Created DESC", OrderBy("attribute", "start_time", descending=True)),
    ],
)
def test_order_by_parses_a_key(text: str, expected: OrderBy) -> None:
    """Ascending unless it says otherwise."""
    assert parse_order_by([text]) == (expected,)


@pytest.mark.parametrize("texts", [["params.a", "param.a DESC"], ["start_time", "created"], ["metrics.a DOWN"], ["metrics.a, metrics.b"], [""]])
def test_order_by_is_refused_when_it_is_unclear(texts: list[str]) -> None:
    """One key twice, or a text that is no key, has no meaning."""
    with pytest.raises(InvalidValue):
        parse_order_by(texts)


@given(st.text(max_size=60))
def test_filter_parses_or_refuses_any_text(text: str) -> None:
    """No text brings anything but clauses or an error for a person."""
    with contextlib.suppress(InvalidValue):
        assert all(isinstance(clause, Clause) for clause in parse_filter(text))


@given(st.text(st.characters(blacklist_characters='"`', blacklist_categories=("Cs",)), min_size=1), st.text(st.characters(blacklist_categories=("Cs",))))
def test_filter_keeps_any_quoted_key_and_value(key: str, value: str) -> None:
    """Whatever stands in quotes is taken as it stands."""
    quoted = value.replace("'", "''")
    assert parse_filter(f"params.\"{key}\" = '{quoted}'") == (Clause("param", key, "=", value),)
