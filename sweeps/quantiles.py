"""Quantile functions of the normal and the beta distribution, without SciPy.

A sampler that knows uniform numbers only reaches any distribution by its quantile function. The normal one is the standard library's;
the beta one inverts the regularized incomplete beta function here.
"""

import math
from typing import Final

U_MIN: Final = 2.0**-53
"""Nearer to 0 and 1 than this no uniform number is looked at: there, the normal distribution has no end."""

BETA_MIN: Final = 0.001
BETA_MAX: Final = 1e6
"""What `a` and `b` of a beta distribution may be: beyond, floats hold the ends only, or the fraction converges too slowly."""

_TINY: Final = 1e-300
_STEPS: Final = 20_000
_CLOSE: Final = 1e-14


def within_unit(u: float) -> float:
    """`u`, at most as near to 0 and 1 as `U_MIN`."""
    return min(max(u, U_MIN), 1 - U_MIN)


def normal_quantile(u: float) -> float:
    """Of the standard normal distribution."""
    from statistics import NormalDist  # noqa: PLC0415 -- few sweeps need it, every verb of the command line would load it

    return NormalDist().inv_cdf(within_unit(u))


def beta_quantile(u: float, a: float, b: float) -> float:
    """The x in [0, 1] below which a share `u` of the beta distribution lies.

    Newton's method on the logarithm of the distribution function over t = log(x / (1 - x)). There, the density is log-concave, and so is
    the distribution function: from the left of the solution the steps approach it monotonously, and from the right the first one leads
    to its left. The upper half is the mirrored lower half, so the logarithm never saturates.

    Args:
        u: in [0, 1].
        a: from `BETA_MIN` to `BETA_MAX`.
        b: as `a`.
    """
    u = within_unit(u)
    return math.exp(-_softplus(_odds(1 - u, b, a) if u > 0.5 else -_odds(u, a, b)))


def _odds(u: float, a: float, b: float) -> float:
    """log(x / (1 - x)) of the quantile, for a `u` of at most a half."""
    log_norm = math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)
    wanted, t = math.log(u), math.log(a / b)
    for _ in range(200):
        log_x, log_y = -_softplus(-t), -_softplus(t)
        log_power = a * log_x + b * log_y - log_norm
        log_share = _log_share(a, b, log_x, log_y, log_power)
        # The density over t is x^a (1 - x)^b / B(a, b).
        step = (wanted - log_share) * math.exp(log_share - log_power)
        t += step
        if abs(step) <= _CLOSE * max(1.0, abs(t)):
            break
    return t


def _log_share(a: float, b: float, log_x: float, log_y: float, log_power: float) -> float:
    """The logarithm of the regularized incomplete beta function; the fraction is used on the side where it converges fast."""
    x = math.exp(log_x)
    if x < (a + 1) / (a + b + 2):
        return log_power + math.log(_fraction(a, b, x) / a)
    rest = math.exp(log_power) * _fraction(b, a, math.exp(log_y)) / b
    return math.log(max(1 - rest, _TINY))


def _fraction(a: float, b: float, x: float) -> float:
    """The continued fraction of the incomplete beta function (NIST DLMF 8.17.22), by the modified method of Lentz."""
    c, d = 1.0, 1 - (a + b) * x / (a + 1)
    d = 1 / (d if abs(d) > _TINY else _TINY)
    value = d
    for m in range(1, _STEPS):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        for term in (even, odd):
            d = 1 + term * d
            c = 1 + term / c
            d = 1 / (d if abs(d) > _TINY else _TINY)
            c = c if abs(c) > _TINY else _TINY
            value *= c * d
        if abs(c * d - 1) < _CLOSE:
            break
    return value


def _softplus(t: float) -> float:
    """log(1 + e^t), without overflow."""
    return t + math.log1p(math.exp(-t)) if t > 0 else math.log1p(math.exp(t))
