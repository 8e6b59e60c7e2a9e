"""Page tokens: where the next page of a search begins, for the one search that it came from."""

import base64
import json
from collections.abc import Callable, Sequence
from hashlib import sha256
from typing import Any

from tracking.errors import InvalidValue
from tracking.queries.search import Key, KeyValue, Query
from tracking.store.database import Transaction


def read_page(
    tx: Transaction, search: object, page_token: str, limit: int, compile_query: Callable[[int, Sequence[KeyValue] | None], Query]
) -> tuple[list[Any], str]:
    """One page of a search: its rows, each without the keys at its end, and the next page's token or ''.

    Args:
        search: all that was asked for but the page; what else differs makes a token another search's.
        limit: how many rows the page has at most.
        compile_query: of a limit, and of the keys of the row before the page.

    Raises:
        InvalidValue: the token is none of this search, or it takes too long.
    """
    after = decode_token(page_token, search)
    query = compile_query(limit + 1, None)
    if after is not None:
        if len(after) != len(query.keys) or not all(_fits(key, value) for key, value in zip(query.keys, after, strict=True)):
            raise _invalid()
        query = compile_query(limit + 1, after)
    rows = tx.rows_in_time(query.text, query.values)
    n_keys = len(query.keys)
    token = encode_token(search, rows[limit - 1][-n_keys:]) if len(rows) > limit else ""
    return [row[:-n_keys] for row in rows[:limit]], token


def encode_token(search: object, keys: Sequence[Any]) -> str:
    """A token for the page after the row with these keys."""
    # A time in milliseconds comes from Postgres as a Decimal.
    return base64.urlsafe_b64encode(json.dumps([_scope(search), *keys], default=int, separators=(",", ":")).encode()).decode()


def decode_token(token: str, search: object) -> list[Any] | None:
    """The keys of the row before a page; None for the first.

    Raises:
        InvalidValue: the token is none of this search.
    """
    if not token:
        return None
    try:
        found = json.loads(base64.b64decode(token.encode(), altchars=b"-_", validate=True))
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, list) or not found or not isinstance(found[0], str):
        raise _invalid()
    if found[0] != _scope(search):
        raise InvalidValue("Invalid page token: it came from a search with another filter, order, view or other experiments.")
    return found[1:]


def _scope(search: object) -> str:
    return sha256(repr(search).encode("utf-8", "surrogatepass")).hexdigest()[:16]


def _fits(key: Key, value: object) -> bool:
    if value is None:
        return key.is_nullable
    if key.kind == "text":
        return isinstance(value, str)
    return isinstance(value, float) or (isinstance(value, int) and not isinstance(value, bool) and -(2**63) <= value < 2**63)


def _invalid() -> InvalidValue:
    return InvalidValue("Invalid page token.")
