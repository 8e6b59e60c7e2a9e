"""Hyperparameter sweeps, from Python and notebooks.

    sweep = sweeps.submit("sweep.yaml")         # or its content as a dict
    sweep.wait().best()

`submit`, `sweep`, `sweeps`, `Sweep`, `BestTrial` are those of `sweeps.handle` (docs/python.md); `SweepError` is the root of all
errors. Below are the sweep file, its search space and strategies, the HTTP server, the command line.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sweeps.client import MissingOnServer, NoBest, ServerAway
    from sweeps.errors import SpecError, SpecProblems
    from sweeps.handle import BestTrial, Sweep, submit, sweep, sweeps
    from sweeps.local import LocalError
    from tracking.errors import SweepError
else:

    def __getattr__(name: str) -> object:
        """Load what is asked for when it is: the command line pays for nothing that it does not use."""
        from importlib import import_module  # noqa: PLC0415 - as above

        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(_ERRORS.get(name, "sweeps.handle")), name)


_ERRORS = {
    "SweepError": "tracking.errors",
    "SpecError": "sweeps.errors",
    "SpecProblems": "sweeps.errors",
    "MissingOnServer": "sweeps.client",
    "NoBest": "sweeps.client",
    "ServerAway": "sweeps.client",
    "LocalError": "sweeps.local",
}
__all__ = [
    "BestTrial",
    "LocalError",
    "MissingOnServer",
    "NoBest",
    "ServerAway",
    "SpecError",
    "SpecProblems",
    "Sweep",
    "SweepError",
    "submit",
    "sweep",
    "sweeps",
]


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
