"""The right that each route needs (I9), stated where the route is defined; a route without one is refused at start.

There are no users yet, so a right only tells an attempt's token from everybody else: with such a token a caller may
read, may do what the token was made for, and nothing besides.
"""

from collections.abc import Awaitable, Callable
from enum import StrEnum

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.routing import BaseRoute

from tracking.errors import NotAllowed
from tracking.ids import parse_attempt_token
from tracking.store import Store


class Right(StrEnum):
    """What a caller must be allowed to do.

    READ: see the record. WRITE: change it as a person does. ATTEMPT: write to a run, as its attempt's token or, while
    there are no users, anybody may.
    """

    READ = "read"
    WRITE = "write"
    ATTEMPT = "attempt"


def right_of(route: BaseRoute) -> Right | None:
    """The right a route states through its endpoint's `right`, or None if it states none that is known."""
    stated = getattr(getattr(route, "endpoint", None), "right", None)
    return Right(stated) if stated in set(Right) else None


def bearer_token(request: Request) -> str:
    """The request's bearer token, or an empty string."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


def admit(right: Right) -> Callable[[Request], Awaitable[None]]:
    """A dependency that lets a request pass if its caller has `right`.

    Raises (from the dependency):
        Unauthenticated: the token is an attempt's, and dead.
        NotAllowed: the token is an attempt's, and the route is for people.
    """

    async def check(request: Request) -> None:
        token = bearer_token(request)
        if parse_attempt_token(token) is None:
            return
        if right is Right.WRITE:
            raise NotAllowed(
                "An attempt's token may write to its own run only.",
                hint="Call this from outside the trial, without the trial's environment.",
            )
        store: Store = request.app.state.services.store
        await run_in_threadpool(store.attempts.authenticate, token)

    return check
