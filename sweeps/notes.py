"""What a sweep file may well say, and probably does not mean: told, and no error."""

import math
from difflib import get_close_matches
from typing import Final

from sweeps.command import EntryCommands, TemplateCommand
from sweeps.distributions import InvLogUniform, LogUniform, QLogUniform
from sweeps.spec_config import SweepConfig

_SLIP_MIN: Final = 0.1
_SLIP_RATIO: Final = 10.0
"""Exponents of e are seldom so small and so far apart at once; values that are to be walked on a log scale mostly are."""
_NEAR: Final = 0.75
"""How alike a name that is appended and a declared one are for the one to be meant for the other; 1 is the same."""


def notes(config: SweepConfig) -> list[str]:
    """A sentence for each."""
    return [*_exponents(config), *_appended(config)]


def _exponents(config: SweepConfig) -> list[str]:
    found: list[str] = []
    for parameter in config.parameters:
        if isinstance(parameter, (LogUniform, QLogUniform, InvLogUniform)) and 0 < parameter.min < _SLIP_MIN and parameter.max >= _SLIP_RATIO * parameter.min:
            low, high = (math.exp(exponent) for exponent in parameter.exponents)
            kind = parameter.__struct_config__.tag
            found.append(f"parameter '{parameter.name}': {kind}'s bounds are exponents of e: values from {low:.6g} to {high:.6g}; did you mean {kind}_values?")
    return found


def _appended(config: SweepConfig) -> list[str]:
    """Parameters that no entry point declares, as MLflow takes them, each near a declared one that keeps its default."""
    command = config.command
    if isinstance(command, EntryCommands):
        points = list(command.points.values())
    elif isinstance(command, TemplateCommand):
        points = [command]
    else:
        return []
    outermost = {name: outer for outer, names in command.nested.items() for name in names}
    given = dict.fromkeys(outermost.get(parameter.name, parameter.name) for parameter in config.parameters)
    declared = {name for point in points for name in point.declared}
    defaults = {name: value for point in points for name, value in point.defaults.items() if name not in given}
    found: list[str] = []
    for name in given:
        near = get_close_matches(name.lower(), defaults, n=1, cutoff=_NEAR) if name not in declared else []
        if near:
            kept = f"'{near[0]}' was probably meant, which keeps its default, {defaults[near[0]]}"
            found.append(f"parameter '{name}' is not in the entry point, and is appended to the command as --{name}; {kept}")
    return found
