"""What W&B's validator takes we take, and what it refuses we refuse, but for the differences that the docs list."""

import re
from collections.abc import Callable
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings

from sweeps.errors import SpecProblems
from sweeps.spec import parse_sweep
from tests.differential.sweep_files import broken_sweeps, whole_sweeps
from tests.support.wandb_differences import REFUSED, TAKEN, Refused, Taken, Violation, render, shown

Ask = Callable[..., dict[str, Any]]

EACH = settings(max_examples=250, derandomize=True, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much])


def ours(text: str) -> list[str]:
    """What we find wrong with a file."""
    try:
        parse_sweep(text, "sweep.yaml", project_dir=None, no_pruning=True)
    except SpecProblems as error:
        return [problem.message for problem in error.problems]
    return []


def theirs(ask: Ask, text: str) -> list[Violation]:
    """What W&B finds wrong with it; what its validator can't bear counts too."""
    told = ask("violations", text)
    return [Violation(*each) for each in told["answer"]] if "answer" in told else [Violation([], None, told["error"])]


def not_listed(ask: Ask, text: str) -> list[Any]:
    """What one of the two says of a file that the other takes, as far as no listed difference explains it."""
    found, told = ours(text), theirs(ask, text)
    if found and told:
        return []
    config = yaml.safe_load(text)
    unexplained: list[Any] = [message for message in found if not any(re.match(difference.messages, message) for difference in REFUSED)]
    return unexplained + [violation for violation in told if not any(difference.is_behind(violation, config) for difference in TAKEN)]


@EACH
@given(config=whole_sweeps())
def test_verdict_on_whole_file_is_wandbs(ask: Ask, config: dict[str, Any]) -> None:
    """Files that nobody has broken, of every method, with every key and distribution."""
    text = yaml.safe_dump(config, sort_keys=False, allow_unicode=True)
    assert not_listed(ask, text) == [], text


@EACH
@given(config=broken_sweeps())
def test_verdict_on_broken_file_is_wandbs(ask: Ask, config: dict[str, Any]) -> None:
    """Files of which a key was dropped, renamed, exchanged, added or given another value."""
    text = yaml.safe_dump(config, sort_keys=False, allow_unicode=True)
    assert not_listed(ask, text) == [], text


@pytest.mark.parametrize(("difference", "example"), [(one, example) for one in REFUSED for example in one.examples])
def test_verdict_differs_as_listed_where_wandb_takes_it(ask: Ask, difference: Refused, example: str) -> None:
    """Each listed difference is there, and nothing else is found in its example."""
    assert theirs(ask, example) == []
    found = ours(example)
    assert found
    assert [message for message in found if not re.match(difference.messages, message)] == []


@pytest.mark.parametrize(("difference", "example"), [(one, example) for one in TAKEN for example in one.examples])
def test_verdict_differs_as_listed_where_wandb_refuses_it(ask: Ask, difference: Taken, example: str) -> None:
    """The other way round."""
    assert ours(example) == []
    told = theirs(ask, example)
    assert told
    assert [violation for violation in told if not difference.is_behind(violation, yaml.safe_load(example))] == []


def test_docs_list_every_difference() -> None:
    """The table on the page is the one that these tests allow."""
    assert shown() == render(), "docs/coming-from-wandb.md is behind the list; run `make docs`"
