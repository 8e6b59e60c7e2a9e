"""Errors of the scheduler; the whole tree is drawn in tracking.errors."""

from tracking.errors import SweepError


class SchedulerError(SweepError):
    """A scheduler can't go on."""

    exit_status = 4
    http_status = 503
    error_code = "TEMPORARILY_UNAVAILABLE"
