"""Checks how large a number may be that a user gives, in any place."""

from __future__ import annotations

import math
import sys

from hessrank.errors import HessrankError, OptionError
from hessrank.text import brief

Refusal = type[HessrankError]
MOST_SEED = 2**63 - 1
"""Of what torch's generators take."""
MOST_COUNT = 2**31 - 1
"""Of samples, probes, epochs, layers, rows."""
MOST_WORKERS = 4096
"""Of threads, processes, devices, machines; an operating system starts no more."""
MOST_SECONDS = 1e9
"""Of waiting: thirty years."""
MOST_RATE = 1e6
"""Of learning rates, decays, coefficients; what is larger overflows in the first steps."""


def check_whole(
    name: str, value: object, *, least: int, most: int = MOST_COUNT, why: str = "", error: Refusal = OptionError
) -> int:
    """Return a whole number that lies between its bounds.

    Args:
        name: of the option.
        value: what was given for it.
        least: the smallest that there may be.
        most: the largest.
        why: what the smallest means, for the message.
        error: the class of the error to raise.

    Raises:
        HessrankError: (as ``error``) it is none, or lies outside.
    """
    if isinstance(value, int) and not isinstance(value, bool):
        if least <= value <= most:
            return value
        if value < least:
            raise error(f"{name} is {brief(value)}: it should be {least}{why} or more")
        raise error(f"{name} is {brief(value)}: it should be at most {most}")
    raise error(f"{name} is {brief(value)}: it should be a whole number, {least}{why} or more")


def check_number(
    name: str, value: object, *, least: float = -math.inf, above: float = -math.inf, error: Refusal = OptionError
) -> float:
    """Return a finite number that is at least ``least``, and above ``above``.

    Raises:
        HessrankError: (as ``error``) it is none, or too small.
    """
    if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max:
        if least <= value and value > above:
            return float(value)
        wanted = f"{least:g} or more" if least > -math.inf else f"more than {above:g}"
        raise error(f"{name} is {brief(value)}: it should be {wanted}")
    raise error(f"{name} is {brief(value)}: it should be a finite number")
