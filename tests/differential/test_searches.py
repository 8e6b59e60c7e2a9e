"""Our search grammar beside MLflow's own parser: what it accepts means the same, what it refuses is taken only where ours is larger."""

import math
import re
from typing import Any, Final

from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from mlflow.exceptions import MlflowException
from mlflow.utils.search_utils import SearchUtils as UntypedSearchUtils

from tracking.errors import InvalidFilter
from tracking.filters import And, Comparison, Expression, parse_filter, parse_order_by

SearchUtils: Any = UntypedSearchUtils

_ENTITIES: Final = {"metric": "metric", "parameter": "param", "tag": "tag", "attribute": "attribute", "dataset": "dataset"}
_LOOSE: Final = re.compile(r"[)\w'\"`]\s*(?:[\"`]|\w+\.)[^,]*\b(IN|IS)\b", re.IGNORECASE)

_KEYS: Final = """
metrics.a  metric.`a b`  metrics.1a  metrics.in  metrics.1  metrics.a-b  params.b  params."x y"  parameters.'q r'  tags.c.d  `tags`.k  tags.mlflow.user
"run_id"  run_id  status  attr.status  start_time  Created  run.end_time  user_id  attributes.artifact_uri  dataset.name  datasets.context  dataset.x
foo.a  experiment_id  METRICS.a  'run_id'  `metrics.a`  `Run name`  "run name"  `run`.`Run Name`
""".replace("  ", "\n").strip()
_OPERATORS: Final = ">  >=  =  !=  <  <=  <>  ==  LIKE  ilike  Like  RLIKE  IN  in  IS  NOT IN  not\tin  IS NULL  is not null  NOT LIKE"
_VALUES: Final = r"""
'x'  "y"  '%z'  'it''s'  'a\'b'  ''  1  -5  0.5  .5  5.  -1e3  2E-1  1E+3  .5e3  1e400  +1  0x1  1_0  nan  x  `x`
('a')  ('a','b')  ("c",)  ()  (1)  ('it\'s','d''e')  ('a\d' , 'b')  'x' AND y
""".replace("  ", "\n").strip()

KEYS = st.sampled_from(_KEYS.split("\n"))
OPERATORS = st.sampled_from(_OPERATORS.split("  "))
VALUES = st.sampled_from(["", *_VALUES.split("\n")])
SPACES = st.sampled_from([" ", " ", " ", "", "\n", "  ", "\t"])
JOINTS = st.sampled_from([" AND ", " AND ", " and ", "\nAnd\n", " AND AND ", " ", " OR "])


@st.composite
def filters(draw: st.DrawFn) -> str:
    """Texts that are filters, or nearly."""
    clauses = [f"{draw(KEYS)}{draw(SPACES)}{draw(OPERATORS)}{draw(SPACES)}{draw(VALUES)}" for _ in range(draw(st.integers(1, 3)))]
    text = clauses[0]
    for clause in clauses[1:]:
        text += draw(JOINTS) + clause
    return text


def meant_by_mlflow(text: str) -> list[Comparison] | None:
    """What MLflow's server makes of a filter, None if it refuses."""
    try:
        return [_comparison(each) for each in SearchUtils.parse_search_filter(text)]
    except (MlflowException, ValueError):
        # A ValueError is an internal error there: no meaning either.
        return None


def _comparison(found: dict[str, Any]) -> Comparison:
    entity, op, key = found["type"], found["comparator"].upper(), SearchUtils.translate_key_alias(found["key"])
    # Each refuses operators that its entity does not have.
    _ = (
        SearchUtils.is_metric(entity, op)
        or SearchUtils.is_param(entity, op)
        or SearchUtils.is_tag(entity, op)
        or SearchUtils.is_attribute(entity, key, op)
        or SearchUtils.is_dataset(entity, op)
    )
    value = float(found["value"]) if entity == "metric" else found["value"]
    return Comparison(_ENTITIES[entity], key if entity == "attribute" else found["key"], op, value)  # type: ignore[arg-type]


def meant_by_us(text: str) -> list[Expression] | None:
    """What we make of it, None if we refuse."""
    try:
        return flat(parse_filter(text))
    except InvalidFilter:
        return None


def flat(expression: Expression) -> list[Expression]:
    """The terms that AND joins."""
    return list(expression.terms) if isinstance(expression, And) else [expression]


def is_ours_alone(term: Expression) -> bool:
    """Whether MLflow's grammar has no such term."""
    if not isinstance(term, Comparison):
        return True
    if term.op in ("IN", "NOT IN"):
        return (term.entity, term.key) != ("attribute", "run_id") and term.entity != "dataset"
    return term.entity == "param" and isinstance(term.value, float)


@settings(max_examples=1500, deadline=None)
@given(filters())
@example("params.a = 'x' params.b = 'y'")
@example("AND metrics.a > 1e400 AND")
def test_filter_means_what_it_means_to_mlflow(text: str) -> None:
    """Accepted there: the same comparisons here. Refused there: refused here, but for what is ours."""
    # A list behind any other operator than IN, which MLflow's parser lets through and its database does not.
    assume(not re.search(r"([<>=!]|LIKE)\s*\(", text, re.IGNORECASE))
    # Without an AND before them MLflow's parser takes IN and IS, and what stands before, for something else.
    assume(not _LOOSE.search(re.sub(r"\bAND\b|\bOR\b", "&", text, flags=re.IGNORECASE)))
    theirs = meant_by_mlflow(text)
    ours = meant_by_us(text)
    if theirs is None:
        assert ours is None or any(is_ours_alone(term) for term in ours)
    else:
        assert ours == theirs


@settings(max_examples=500, deadline=None)
@given(KEYS, st.sampled_from(["", " ASC", " desc", "\nDESC", " down", " DESC NULLS LAST", ", metrics.b"]))
def test_order_by_means_what_it_means_to_mlflow(key: str, direction: str) -> None:
    """The same keys in the same direction; what MLflow's database would not sort by is refused too."""
    # Of the aliases MLflow sorts by those of times only; and a number it takes for a key, but only before a direction.
    assume("run name" not in key.lower() and key != "metrics.1")
    text = key + direction
    try:
        entity, name, is_ascending = SearchUtils.parse_order_by_for_search_runs(text)
    except (MlflowException, ValueError):
        theirs = None
    else:
        theirs = None if entity == "dataset" else (_ENTITIES[entity], SearchUtils.translate_key_alias(name), not is_ascending)
    try:
        ours = [(found.entity, found.key, found.descending) for found in parse_order_by([text])]
    except InvalidFilter:
        ours = []
    assert ours == ([] if theirs is None else [theirs])


def test_filter_reads_numbers_as_mlflow_does() -> None:
    """Infinity by a number too large, and the sign of zero."""
    (large,) = flat(parse_filter("metrics.a < -1e999"))
    assert isinstance(large, Comparison)
    assert large.value == -math.inf
    (zero,) = flat(parse_filter("metrics.a = -0.0"))
    assert isinstance(zero, Comparison)
    assert isinstance(zero.value, float)
    assert math.copysign(1, zero.value) == -1
