"""The search grammar: what MLflow's clients write, what is ours beyond it, and what is refused where."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracking import filters
from tracking.errors import InvalidFilter
from tracking.filters import (
    EVERYTHING,
    EXPERIMENTS,
    LOGGED_MODELS,
    RUNS,
    And,
    Comparison,
    Expression,
    Not,
    Or,
    OrderBy,
    Subject,
    comparisons,
    order_by_field,
    parse_filter,
    parse_order_by,
)

A = Comparison("metric", "a", ">", 1.0)
B = Comparison("param", "b", "=", "x")
C = Comparison("tag", "c", "!=", "y")
A_TEXT, B_TEXT, C_TEXT = "metrics.a > 1", "params.b = 'x'", "tags.c != 'y'"


@pytest.mark.parametrize(
    "text, expected",
    [
        ("metrics.loss < 0.1", Comparison("metric", "loss", "<", 0.1)),
        ("metric.m>=-1e-3", Comparison("metric", "m", ">=", -0.001)),
        ("metrics.`val/loss` > .5", Comparison("metric", "val/loss", ">", 0.5)),
        ("metrics.1a > 1", Comparison("metric", "1a", ">", 1.0)),
        ("metrics.ü_1 = 1.", Comparison("metric", "ü_1", "=", 1.0)),
        ("metrics.and != 1E400", Comparison("metric", "and", "!=", float("inf"))),
        ("params.a.b = 'x'", Comparison("param", "a.b", "=", "x")),
        ('parameter.`a b` != "x"', Comparison("param", "a b", "!=", "x")),
        ("parameters.'a b' = ''", Comparison("param", "a b", "=", "")),
        ("`params`.\"a b\" LIKE '%x_'", Comparison("param", "a b", "LIKE", "%x_")),
        ("`params`.a.b LIKE'%x_'", Comparison("param", "a.b", "LIKE", "%x_")),
        ("tags.mlflow.parentRunId = 'abc'", Comparison("tag", "mlflow.parentRunId", "=", "abc")),
        ("tag.k ilike 'Yes'", Comparison("tag", "k", "ILIKE", "Yes")),
        ("params.a = 'x AND y'", Comparison("param", "a", "=", "x AND y")),
        ("params.a = 'it''s'", Comparison("param", "a", "=", "it''s")),
        ("params.a = 'it\\'s'", Comparison("param", "a", "=", "it\\'s")),
        ('params.a = "it\'s"', Comparison("param", "a", "=", "it's")),
        ("params.a = 'x\\'", Comparison("param", "a", "=", "x\\")),
        ("params.a is null", Comparison("param", "a", "IS NULL", None)),
        ("tags.a IS NOT NULL", Comparison("tag", "a", "IS NOT NULL", None)),
        ("status = 'RUNNING'", Comparison("attribute", "status", "=", "RUNNING")),
        ("attributes.`Run Name` = 'x'", Comparison("attribute", "run_name", "=", "x")),
        ("`run name` = 'x'", Comparison("attribute", "run_name", "=", "x")),
        ("\"run_id\" = 'x'", Comparison("attribute", "run_id", "=", "x")),
        ("attr.created > 5", Comparison("attribute", "start_time", ">", 5)),
        ("run.end_time <= 1.5", Comparison("attribute", "end_time", "<=", 1.5)),
        ("run_id IN ('a', \"b\")", Comparison("attribute", "run_id", "IN", ("a", "b"))),
        ("run_id in('a',)", Comparison("attribute", "run_id", "IN", ("a",))),
        ("run_id NOT\nIN ('a')", Comparison("attribute", "run_id", "NOT IN", ("a",))),
        (r"run_id IN ('it\'s', 'it''s', 'a\d', 'a\\d')", Comparison("attribute", "run_id", "IN", ("it's", "its", r"a\d", r"a\d"))),
        ("dataset.name = 'x'", Comparison("dataset", "name", "=", "x")),
        ("datasets.context NOT IN ('train')", Comparison("dataset", "context", "NOT IN", ("train",))),
    ],
)
def test_filter_parses_a_comparison(text: str, expected: Comparison) -> None:
    """Every form of identifier, operator and value that MLflow's grammar has, and what MLflow takes quoted strings for."""
    assert parse_filter(text) == expected


@pytest.mark.parametrize(
    "text, expected",
    [
        ("params.lr < 0.1", Comparison("param", "lr", "<", 0.1)),
        ("params.n = 10", Comparison("param", "n", "=", 10.0)),
        ("params.m IN ('cnn', 'rnn')", Comparison("param", "m", "IN", ("cnn", "rnn"))),
        ("tags.t NOT IN ('a')", Comparison("tag", "t", "NOT IN", ("a",))),
        ("status IN ('RUNNING', 'FAILED')", Comparison("attribute", "status", "IN", ("RUNNING", "FAILED"))),
        (f"NOT {A_TEXT}", Not(A)),
        (f"not NOT {A_TEXT}", Not(Not(A))),
        (f"({A_TEXT})", A),
        (f"{A_TEXT} OR {B_TEXT}", Or((A, B))),
        (f"{A_TEXT} or {B_TEXT} AND {C_TEXT}", Or((A, And((B, C))))),
        (f"({A_TEXT} OR {B_TEXT}) AND NOT ({C_TEXT} OR {A_TEXT})", And((Or((A, B)), Not(Or((C, A)))))),
        (f"NOT {A_TEXT} AND {B_TEXT}", And((Not(A), B))),
    ],
)
def test_filter_parses_what_is_beyond_mlflow(text: str, expected: Expression) -> None:
    """OR binds less than AND, AND less than NOT; lists and numbers where MLflow has none."""
    assert parse_filter(text) == expected


@pytest.mark.parametrize(
    "text", [f"{A_TEXT} and {B_TEXT}", f"{A_TEXT} {B_TEXT}", f"AND {A_TEXT} AND AND {B_TEXT} AND", f"{A_TEXT}\n\t AND\r\n{B_TEXT}", f"{A_TEXT} {B_TEXT} AND"]
)
def test_filter_joins_comparisons_as_loosely_as_mlflow(text: str) -> None:
    """ANDs too many or too few mean what they do to MLflow."""
    assert parse_filter(text) == And((A, B))


def test_filter_joins_a_quoted_attribute_without_and() -> None:
    """Comparisons may begin with any kind of identifier."""
    assert comparisons(parse_filter(f"{A_TEXT} \"run_id\" = 'y' `params`.b = 'x' status = 'z'")) == [
        A,
        Comparison("attribute", "run_id", "=", "y"),
        B,
        Comparison("attribute", "status", "=", "z"),
    ]


def test_filter_value_of_a_time_is_whole_when_written_so() -> None:
    """Milliseconds stay exact integers."""
    asked = parse_filter("start_time = 9007199254740993")
    assert isinstance(asked, Comparison)
    assert asked.value == 9007199254740993
    assert isinstance(asked.value, int)


@pytest.mark.parametrize("text", ["", "  ", "\n", "AND", " and AND "])
def test_filter_takes_everything_when_it_asks_for_nothing(text: str) -> None:
    """Nothing asked matches everything."""
    assert parse_filter(text) == EVERYTHING


@pytest.mark.parametrize(
    "text, position, said",
    [
        ("foo.a = 'x'", 0, "'foo' is not one of"),
        ("METRICS.a > 1", 0, "'METRICS' is not one of"),
        ("`metrics.a` > 1", 0, "no attribute of a run"),
        ('"metrics".a > 1', 0, "no attribute of a run"),
        ("foo = 'x'", 0, "no attribute of a run"),
        ("'run_id' = 'x'", 0, "expected an identifier"),
        ("1 < metrics.a", 0, "expected an identifier"),
        ("metrics.a", 9, "expected an operator, found the end"),
        ("metrics.a > ", 12, "expected a number"),
        ("metrics.a > '1'", 12, "expected a number"),
        ("metrics.a > nan", 12, "expected a number"),
        ("metrics.a > metrics.b", 12, "expected a number"),
        ("metrics.a > +1", 12, "no meaning"),
        ("metrics.a > 1_000", 12, "expected a number"),
        ("metrics.a > 0x10", 12, "expected a number"),
        ("metrics.a > 1AND metrics.b > 2", 12, "expected a number"),
        ("metrics.a > 1-2", 13, "expected AND, OR or the end, found '-2'"),
        ("metrics.a > ٣", 12, "digits 0 to 9"),
        ("metrics.a > " + "1" * 401, 12, "at most 400"),
        ("metrics.a <> 1", 10, "expected an operator"),
        ("metrics.a == 1", 10, "expected an operator"),
        ("metrics.a LIKE 'x'", 0, "can't be used"),
        ("metrics.a IS NULL", 0, "can't be used"),
        ("metrics.a IN ('1')", 0, "can't be used"),
        ("metrics.val/loss > 1", 0, "back-ticks"),
        ("metrics.val-loss > 1", 0, "back-ticks"),
        ("metrics.1 > 1", 0, "back-ticks"),
        ("metrics.1e3 > 1", 0, "back-ticks"),
        ("metrics.in > 1", 0, "back-ticks"),
        ("metrics.a..b > 1", 0, "back-ticks"),
        ("metrics. a > 1", 9, "right after the dot"),
        ("metrics .a > 1", 0, "no attribute"),
        ("params.a > 'x'", 11, "expected a number"),
        ("params.a RLIKE 'x'", 9, "expected an operator"),
        ("params.a NOT LIKE 'x'", 13, "expected IN"),
        ("params.a IS 'x'", 12, "expected NULL"),
        ("params.a = x", 11, "expected a string in quotes"),
        ("params.a = `x`", 11, "expected a string in quotes"),
        ("params.a = 'x", 11, "not closed"),
        ("params.", 7, "expected a key"),
        ("params.a = 'x';", 14, "no meaning"),
        ("params.a = 'x' foo", 15, "expected AND, OR or the end, found 'foo'"),
        ("params.a = 'x' OR", 17, "expected an identifier"),
        ("params.a = 'x' OR AND params.a = 'x'", 18, "no attribute"),
        ("params.a = 'x' NOT params.b = 'y'", 15, "expected AND, OR or the end"),
        ("(params.a = 'x'", 15, "expected AND, OR or ')'"),
        ("(params.a = 'x' AND)", 19, "expected an identifier"),
        ("()", 1, "expected an identifier"),
        ("params.a = 'x')", 14, "expected AND, OR or the end, found ')'"),
        ("tags.a < 1", 0, "can't be used"),
        ("status IS NULL", 0, "can't be used"),
        ("status > 'x'", 0, "can't be used"),
        ("start_time = '5'", 13, "expected a number"),
        ("start_time IN ('5')", 0, "can't be used"),
        ("dataset.foo = 'x'", 0, "nothing of a dataset"),
        ("dataset.name IS NULL", 0, "can't be used"),
        ("run_id IN ()", 11, "expected a string"),
        ("run_id IN (1)", 11, "expected a string"),
        ("run_id IN 'a'", 10, "expected '('"),
        ("run_id IN ('a'", 14, "expected ',' or ')'"),
        ("run_id IN ('a',,)", 15, "expected a string"),
        (r"run_id IN ('\x')", 11, "an escape that is none"),
    ],
)
def test_filter_is_refused_with_its_position(text: str, position: int, said: str) -> None:
    """The message tells what is wrong, and where."""
    with pytest.raises(InvalidFilter) as refused:
        parse_filter(text)
    assert f"at position {position}," in refused.value.message
    assert said in refused.value.message
    assert (refused.value.text, refused.value.position) == (text, position)


def test_filter_is_shown_around_the_position_when_it_is_long() -> None:
    """A message stays readable, whatever was sent."""
    with pytest.raises(InvalidFilter) as refused:
        parse_filter(" AND ".join([B_TEXT] * 50) + " AND ! AND " + B_TEXT * 50)
    assert len(refused.value.message) < 300
    assert "' AND ! AND '"[1:-1] in refused.value.message


@pytest.mark.parametrize(
    "text, said",
    [
        ("(" * 10_000, "deeper than 50"),
        ("NOT " * 10_000 + A_TEXT, "deeper than 50"),
        ("NOT (" * 26 + A_TEXT + ")" * 26, "deeper than 50"),
        (" OR ".join([A_TEXT] * (filters.MAX_COMPARISONS + 1)), "more than 100 comparisons"),
        ("params.a = '" + "x" * 200_000 + "'", "at most 200,000 characters"),
    ],
)
def test_filter_is_refused_when_it_is_too_large(text: str, said: str) -> None:
    """Depth, number of comparisons and length are bounded: no filter brings the server down."""
    with pytest.raises(InvalidFilter, match=said):
        parse_filter(text)


def test_filter_may_reach_its_limits() -> None:
    """What is at the limit is taken."""
    assert len(comparisons(parse_filter(" OR ".join([A_TEXT] * filters.MAX_COMPARISONS)))) == filters.MAX_COMPARISONS
    assert parse_filter("(" * filters.MAX_DEPTH + A_TEXT + ")" * filters.MAX_DEPTH) == A
    many = ", ".join(f"'{number:032x}'" for number in range(4000))
    asked = parse_filter(f"run_id IN ({many})")
    assert isinstance(asked, Comparison)
    assert isinstance(asked.value, tuple)
    assert len(asked.value) == 4000


@pytest.mark.parametrize(
    "subject, text, expected",
    [
        (EXPERIMENTS, "name = 'x'", Comparison("attribute", "name", "=", "x")),
        (EXPERIMENTS, "attribute.name ILIKE '%x'", Comparison("attribute", "name", "ILIKE", "%x")),
        (EXPERIMENTS, "experiment_id = '7'", Comparison("attribute", "experiment_id", "=", 7)),
        (EXPERIMENTS, "experiment_id NOT IN ('1', '-2')", Comparison("attribute", "experiment_id", "NOT IN", (1, -2))),
        (EXPERIMENTS, "creation_time >= 5", Comparison("attribute", "creation_time", ">=", 5)),
        (EXPERIMENTS, "tags.a IS NULL", Comparison("tag", "a", "IS NULL", None)),
        (LOGGED_MODELS, "name = 'x'", Comparison("attribute", "name", "=", "x")),
        (LOGGED_MODELS, "name = foo-bar", Comparison("attribute", "name", "=", "foo-bar")),
        (LOGGED_MODELS, "params.lr = 0.01", Comparison("param", "lr", "=", "0.01")),
        (LOGGED_MODELS, "params.lr < 0.01", Comparison("param", "lr", "<", 0.01)),
        (LOGGED_MODELS, "params.m in ('a')", Comparison("param", "m", "IN", ("a",))),
        (LOGGED_MODELS, "metrics.`a b` < 1", Comparison("metric", "a b", "<", 1.0)),
        (LOGGED_MODELS, "attributes.creation_time < 1", Comparison("attribute", "creation_timestamp", "<", 1)),
    ],
)
def test_filter_of_another_subject_knows_its_attributes(subject: Subject, text: str, expected: Comparison) -> None:
    """Experiments and logged models have attributes and entities of their own."""
    assert parse_filter(text, subject) == expected


@pytest.mark.parametrize(
    "subject, text",
    [
        (EXPERIMENTS, "status = 'x'"),
        (EXPERIMENTS, "metrics.a > 1"),
        (EXPERIMENTS, "params.a = 'x'"),
        (EXPERIMENTS, "experiment_id = 'x'"),
        (EXPERIMENTS, "experiment_id = '" + "9" * 30 + "'"),
        (EXPERIMENTS, "experiment_id > '1'"),
        (EXPERIMENTS, "experiment_id = 1"),
        (LOGGED_MODELS, "run_id = 'x'"),
        (LOGGED_MODELS, "dataset.name = 'x'"),
        (LOGGED_MODELS, "metric.a > 1"),
        (LOGGED_MODELS, "metrics.a > x"),
    ],
)
def test_filter_of_another_subject_is_refused_what_it_has_not(subject: Subject, text: str) -> None:
    """What a run has an experiment may lack."""
    with pytest.raises(InvalidFilter):
        parse_filter(text, subject)


@pytest.mark.parametrize(
    "text, expected",
    [
        ("metrics.loss DESC", OrderBy("metric", "loss", descending=True)),
        ("metrics.`a b` desc", OrderBy("metric", "a b", descending=True)),
        ("metrics.desc", OrderBy("metric", "desc")),
        ("params.lr\nASC", OrderBy("param", "lr")),
        ("`metrics.val/loss` DESC", OrderBy("metric", "val/loss", descending=True)),
        ("tags.mlflow.user", OrderBy("tag", "mlflow.user")),
        ("start_time", OrderBy("attribute", "start_time")),
        ("attributes.Created DESC", OrderBy("attribute", "start_time", descending=True)),
    ],
)
def test_order_by_parses_a_key(text: str, expected: OrderBy) -> None:
    """Ascending unless it says otherwise."""
    assert parse_order_by([text]) == (expected,)


@pytest.mark.parametrize(
    "texts",
    [
        ["params.a", "param.a DESC"],
        ["start_time", "created"],
        ["metrics.a DOWN"],
        ["metrics.a DESC NULLS LAST"],
        ["metrics.a, metrics.b"],
        ["dataset.name"],
        ["metrics.a-b"],
        ["`metrics.a`"],
        ["`foo.a` DESC"],
        [""],
        [f"metrics.m{number}" for number in range(filters.MAX_ORDER_BY + 1)],
    ],
)
def test_order_by_is_refused_when_it_is_unclear(texts: list[str]) -> None:
    """One key twice, too many, or a text that is no key, has no meaning."""
    with pytest.raises(InvalidFilter):
        parse_order_by(texts)


def test_order_by_is_counted_before_it_is_read() -> None:
    """Hundreds of thousands of long texts are refused at once, also where the first is none."""
    with pytest.raises(InvalidFilter, match=f"at most {filters.MAX_ORDER_BY} keys; these are {filters.MAX_ORDER_BY + 1}"):
        parse_order_by(["("] * (filters.MAX_ORDER_BY + 1))


def test_order_by_of_experiments_takes_attributes_only() -> None:
    """MLflow sorts experiments by nothing else."""
    assert parse_order_by(["name DESC", "experiment_id"], EXPERIMENTS) == (OrderBy("attribute", "name", descending=True), OrderBy("attribute", "experiment_id"))
    with pytest.raises(InvalidFilter):
        parse_order_by(["tags.a"], EXPERIMENTS)


def test_order_by_field_takes_a_name_as_it_stands() -> None:
    """Logged models are sorted by fields whose names nothing quotes, a metric's perhaps on one dataset."""
    assert order_by_field("metrics.val/acc", descending=True, dataset=("d", None)) == OrderBy("metric", "val/acc", descending=True, dataset=("d", None))
    assert order_by_field("creation_time") == OrderBy("attribute", "creation_timestamp")
    for name in ("params.a", "nothing", "metric.a"):
        with pytest.raises(InvalidFilter):
            order_by_field(name)


WORDS = st.sampled_from(
    'metrics. params. tags. attributes. dataset. metrics.a params.`b c` "run_id" status start_time name > >= = != < LIKE ILIKE IN NOT AND OR IS NULL '
    "( ) , 'x' \"y\" '%z' 1 0.5 -1e3 ' \" ` \\ . ; -- é \0".split(" ")
)


@given(st.one_of(st.text(max_size=60), st.lists(WORDS, max_size=25).map(" ".join), st.lists(WORDS, max_size=25).map("".join)))
def test_filter_parses_or_refuses_any_text(text: str) -> None:
    """No text brings anything but a tree or an error for a person that points into the text."""
    for subject in (RUNS, EXPERIMENTS, LOGGED_MODELS):
        position = 0
        try:
            comparisons(parse_filter(text, subject))
        except InvalidFilter as refused:
            position = refused.position
        assert 0 <= position <= len(text)
        with contextlib.suppress(InvalidFilter):
            parse_order_by([text], subject)


@given(st.text(st.characters(exclude_characters='"`\\', codec="utf-8"), min_size=1), st.text(st.characters(exclude_characters="'\\")))
def test_filter_keeps_any_quoted_key_and_value(key: str, value: str) -> None:
    """Whatever stands in quotes is taken as it stands."""
    for quoted in (f'"{key}"', f"`{key}`"):
        assert parse_filter(f"params.{quoted} = '{value}'") == Comparison("param", key, "=", value)
    assert parse_filter(f"params.a NOT IN ('{value}', 'b')") == Comparison("param", "a", "NOT IN", (value, "b"))
