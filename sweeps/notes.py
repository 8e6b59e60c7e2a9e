"""What a sweep file may well say, and probably does not mean: told, and no error."""

import math
from typing import Final

from sweeps.distributions import InvLogUniform, LogUniform, QLogUniform
from sweeps.spec_config import SweepConfig

_SLIP_MIN: Final = 0.1
_SLIP_RATIO: Final = 10.0
"""Exponents of e are seldom so small and so far apart at once; values that are to be walked on a log scale mostly are."""


def notes(config: SweepConfig) -> list[str]:
    """A sentence for each."""
    found: list[str] = []
    for parameter in config.parameters:
        if isinstance(parameter, (LogUniform, QLogUniform, InvLogUniform)) and 0 < parameter.min < _SLIP_MIN and parameter.max >= _SLIP_RATIO * parameter.min:
            low, high = (math.exp(exponent) for exponent in parameter.exponents)
            kind = parameter.__struct_config__.tag
            found.append(f"parameter '{parameter.name}': {kind}'s bounds are exponents of e: values from {low:.6g} to {high:.6g}; did you mean {kind}_values?")
    return found
