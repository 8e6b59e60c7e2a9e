"""Identifiers: their shapes, and that tokens are parsed strictly."""

import hashlib
import re
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracking import ids


def test_ids_run_id_is_mlflows_shape() -> None:
    """32 hex digits, new each time, and accepted by our own pattern."""
    made = {ids.new_run_id() for _ in range(100)}
    assert len(made) == 100
    assert all(re.fullmatch(r"[0-9a-f]{32}", run_id) and ids.RUN_ID.match(run_id) for run_id in made)


def test_ids_uuid_is_canonical() -> None:
    """Claims, sessions and workers have UUID4s."""
    assert uuid.UUID(ids.new_uuid()).version == 4


def test_ids_short_id_reads_well() -> None:
    """`brave-otter-7f3a`: two words and four hex digits."""
    assert all(re.fullmatch(r"[a-z]+-[a-z]+-[0-9a-f]{4}", ids.new_short_id()) for _ in range(50))


def test_ids_random_name_is_like_mlflows() -> None:
    """`adjective-noun-123`."""
    assert all(re.fullmatch(r"[a-z]+-[a-z]+-\d{1,3}", ids.random_name()) for _ in range(50))


def test_ids_secret_has_32_random_bytes() -> None:
    """URL-safe, and never twice."""
    assert len({ids.new_secret() for _ in range(100)}) == 100
    assert re.fullmatch(r"[A-Za-z0-9_-]{43}", ids.new_secret())


def test_ids_token_hash_is_sha256_in_hex() -> None:
    """What is kept of a token can be checked with any tool."""
    assert ids.token_hash("secret") == hashlib.sha256(b"secret").hexdigest()


@given(
    run_id=st.from_regex(r"[a-zA-Z0-9][A-Za-z0-9_\-]{0,64}", fullmatch=True),
    attempt=st.integers(min_value=0, max_value=999_999_999),
    secret=st.text(st.characters(codec="ascii", exclude_categories=["C", "Z"])),
)
def test_ids_attempt_token_names_its_run_and_attempt(run_id: str, attempt: int, secret: str) -> None:
    """What is put into a token is read out of it, whatever the secret contains."""
    assert ids.parse_attempt_token(ids.attempt_token(run_id, attempt, secret)) == (run_id, attempt)


@pytest.mark.parametrize(
    "token",
    [
        "",
        "sat_",
        "abc",
        "sat_run.1",
        "sat_run.x.secret",
        "sat_run.-1.secret",
        "sat_run.1234567890.secret",
        "sat_../x.1.secret",
        "SAT_run.1.s",
        "sat_.1.s",
        "sat_run\n.1.s",
        "sat_run.\N{SUPERSCRIPT TWO}.s",
    ],
)
def test_ids_parse_attempt_token_refuses_what_is_none(token: str) -> None:
    """Any other bearer token is nobody's attempt."""
    assert ids.parse_attempt_token(token) is None
