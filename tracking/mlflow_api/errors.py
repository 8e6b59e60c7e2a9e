"""How an error is answered: MLflow's status, and a body with `error_code` and `message`.

Clients retry 408, 429, 500, 502, 503 and 504 for about four minutes, so those statuses are kept for what a retry can mend.
"""

import logging

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from tracking.errors import ArtifactsAway, DatabaseAway, SweepError, Unauthenticated

_LOG = logging.getLogger("sweeps.server")


class EndpointNotFound(SweepError):
    """This part of the protocol is not served."""

    http_status = 404
    error_code = "ENDPOINT_NOT_FOUND"


class NotSupported(SweepError):
    """The place of artifacts does not offer that."""

    http_status = 501
    error_code = "NOT_IMPLEMENTED"


class ErrorBody(msgspec.Struct, frozen=True):
    """The body of every error."""

    error_code: str
    message: str


def error_response(error: Exception, request: Request) -> Response:
    """The answer for an exception; one that nobody foresaw is logged, and told to the client without details."""
    if not isinstance(error, SweepError):
        _LOG.error("unexpected error at %s %s", request.method, request.url.path, exc_info=error)
        return _response(500, "INTERNAL_ERROR", "The server could not answer this request because of a fault in it; its log has the details.")
    response = _response(error.http_status, error.error_code, " ".join(part for part in (error.message, error.hint) if part))
    if isinstance(error, DatabaseAway | ArtifactsAway):
        response.headers["Retry-After"] = "1"
    if isinstance(error, Unauthenticated):
        response.headers["WWW-Authenticate"] = 'Basic realm="mlflow"'
    return response


def _response(status: int, code: str, message: str) -> Response:
    return Response(msgspec.json.encode(ErrorBody(code, message)), status, media_type="application/json")
