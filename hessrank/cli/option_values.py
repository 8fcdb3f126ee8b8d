"""What the words of an option mean: a shape, bit-widths, a JSON object."""

from __future__ import annotations

import json
import math
from typing import Any

from hessrank.errors import OptionError
from hessrank.json_keys import unique_keys
from hessrank.text import one_line, printable

_SHOWN = 80  # letters of an argument in a message


def read_shape(text: str | None) -> tuple[int, ...] | None:
    """Read ``3,224,224`` as the shape of one sample; None for None.

    Raises:
        OptionError: it is something else.
    """
    if text is None:
        return None
    try:
        shape = tuple(int(part) for part in text.replace("x", ",").replace("×", ",").split(","))
    except ValueError:
        shape = (0,)
    if min(shape) < 1:
        raise OptionError(f"--input-shape {text!r}: write the shape of one sample, as 3,224,224")
    return shape


def read_bits(text: str | None) -> tuple[int, ...]:
    """Read ``4,8`` as bit-widths; none for None.

    Raises:
        OptionError: it is something else.
    """
    try:
        return tuple(int(part) for part in text.split(",")) if text else ()
    except ValueError as error:
        raise OptionError(f"--bits {text!r}: write bit-widths from 2 to 16, as 4,8") from error


def read_arch_args(text: str | None) -> dict[str, Any] | None:
    """Read the JSON object of ``--arch-args``; None for None.

    Raises:
        OptionError: it is something else.
    """
    if text is None:
        return None
    label = f"--arch-args {printable(text)[:_SHOWN]!r}"
    try:
        value = _parse_json(text)
    except (ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else one_line(error)
        raise OptionError(f"{label}: not JSON ({reason}); write '{{\"width\": 8}}'") from error
    if not isinstance(value, dict):
        raise OptionError(f"{label}: write a JSON object, as '{{\"width\": 8}}'")
    return value


def _parse_json(text: str) -> Any:
    """Parse JSON, and refuse NaN, infinity and a key that is there twice."""

    def parse_finite(word: str) -> float:
        if not math.isfinite(number := float(word)):
            raise ValueError(f"{word} is no number in JSON")
        return number

    return json.loads(text, parse_constant=parse_finite, parse_float=parse_finite, object_pairs_hook=unique_keys)
