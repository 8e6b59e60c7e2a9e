"""Every failed request, answered in one place and one form: `{"error_code", "message", "hint"}`."""

import errno
import logging
from collections.abc import Mapping
from typing import Any, Final

from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse

from sweeps.api.shapes import ErrorAnswer
from tracking.errors import ArtifactsAway, DatabaseAway, InvalidValue, NotNow, SweepError, TooLarge

_LOG = logging.getLogger("sweeps.server")

_LACKS: Final = frozenset({errno.EAGAIN, errno.EMFILE, errno.ENFILE, errno.ENOMEM})

_HTTP_CODES: Final[Mapping[int, tuple[str, str]]] = {
    404: ("ENDPOINT_NOT_FOUND", "There is no such endpoint."),
    405: ("ENDPOINT_NOT_FOUND", "This endpoint does not take this method."),
    413: (TooLarge.error_code, "The request's body is too large."),
}


class NoBestTrial(NotNow):
    """No trial of the sweep has finished with a value (yet)."""

    exit_status = 6
    error_code = "NO_BEST_TRIAL"
    hint = "`sweep status` tells whether trials still run, `sweep trials` how they ended."


def error_response(error: SweepError) -> JSONResponse:
    """The answer to a request that a `SweepError` ended."""
    answer = ErrorAnswer(error_code=error.error_code, message=error.message, hint=error.hint)
    headers = {"Retry-After": "1"} if isinstance(error, DatabaseAway | ArtifactsAway) else None
    return JSONResponse(answer, error.http_status, headers)


def internal_error_response(error: Exception) -> JSONResponse:
    """The answer to a request that something unforeseen ended; what happened is in the server's log, not in the answer."""
    if _is_lack(error):
        answer = ErrorAnswer(
            error_code=DatabaseAway.error_code,
            message="The server's machine is out of descriptors, threads or memory just now.",
            hint="The same call may succeed later; the server's log has the details.",
        )
        return JSONResponse(answer, 503, {"Retry-After": "1"})
    answer = ErrorAnswer(
        error_code="INTERNAL_ERROR",
        message="The server could not answer this request because of a fault in it.",
        hint="The server's log has the details.",
    )
    return JSONResponse(answer, 500)


def _is_lack(error: Exception) -> bool:
    """Whether the machine had nothing to give: that passes by itself, and is no bug."""
    if isinstance(error, OSError):
        return error.errno in _LACKS
    # The standard library has no class of its own for a thread that can't be had.
    return isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and "start new thread" in str(error))


async def answer_error(request: Request, error: Exception) -> JSONResponse:
    """Turn any expected exception of a route into its answer; the one handler of the whole app."""
    if isinstance(error, SweepError):
        return error_response(error)
    if isinstance(error, RequestValidationError):
        return error_response(InvalidValue(_first_complaint(error)))
    if isinstance(error, HTTPException):
        return _http_error_response(request, error)
    _LOG.error("unexpected error at %s %s", request.method, request.url.path, exc_info=error)
    return internal_error_response(error)


def _http_error_response(request: Request, error: HTTPException) -> JSONResponse:
    code, message = _HTTP_CODES.get(error.status_code, ("BAD_REQUEST", str(error.detail)))
    answer = ErrorAnswer(error_code=code, message=f"{message} ({request.method} {request.url.path})", hint="")
    return JSONResponse(answer, error.status_code, error.headers)


def _first_complaint(error: RequestValidationError) -> str:
    first: Mapping[str, Any] = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"][1:]) or "request"
    return f"{where}: {first['msg']}"


ERROR_HANDLERS: Final[Mapping[Any, Any]] = {
    SweepError: answer_error,
    RequestValidationError: answer_error,
    HTTPException: answer_error,
}
