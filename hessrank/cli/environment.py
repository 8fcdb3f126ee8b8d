"""Settings that come from environment variables."""

from __future__ import annotations

import os

from hessrank.errors import OptionError


def read_seconds(name: str, default: float) -> float:
    """Return the seconds that an environment variable holds.

    Args:
        name: of the variable.
        default: what to return if it is not set, or empty.

    Raises:
        OptionError: it holds something else than a number from 0 up.
    """
    text = os.environ.get(name, "").strip()
    try:
        seconds = float(text) if text else default
    except ValueError:
        seconds = -1.0
    if not seconds >= 0:  # also of "nan"
        raise OptionError(
            f"environment variable {name}={text!r}: give seconds, a number from 0 up: {name}={default:g}"
        )
    return seconds
