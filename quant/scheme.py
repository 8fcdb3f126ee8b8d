"""How one tensor is quantized, and how a policy writes it.

As ``10 per_channel_affine``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from hessrank.errors import OptionError, nearest_first

MIN_BITS, MAX_BITS = 2, 16
FLOAT_BITS = 32
STORED_BITS = (4, 8, 16, FLOAT_BITS)  # the widths of ONNX's integers and of its floats
WORDS = ("per_tensor_affine", "per_tensor_symmetric", "per_channel_affine", "per_channel_symmetric")


def stored_bits(bits: int) -> int:
    """Return how many bits a file stores a value of ``bits`` in.

    Those of the narrowest type that holds it.
    """
    return next(width for width in STORED_BITS if bits <= width)


@dataclass(frozen=True)
class Scheme:
    """Bits and grid of a quantized tensor.

    Attributes:
        bits: 2 to 16.
        per_channel: a scale for each output channel instead of one for the tensor.
        symmetric: the grid is the same on both sides of zero; or else affine, with a zero point.
        pot_scale: scales are powers of two.
    """

    bits: int
    per_channel: bool = False
    symmetric: bool = False
    pot_scale: bool = False

    def __post_init__(self) -> None:
        if not MIN_BITS <= self.bits <= MAX_BITS:
            raise OptionError(f"{self.bits} bits: bit-widths run from {MIN_BITS} to {MAX_BITS}")

    @property
    def quant_min(self) -> int:
        """Smallest integer: 0 on an affine grid, −(2^(bits−1) − 1) on a symmetric one."""
        return -self.quant_max if self.symmetric else 0

    @property
    def quant_max(self) -> int:
        """Largest integer of the grid.

        2^bits − 1 on an affine one, 2^(bits−1) − 1 on a symmetric one.
        """
        return (1 << (self.bits - 1)) - 1 if self.symmetric else (1 << self.bits) - 1

    @property
    def word(self) -> str:
        """The grid's name: ``per_channel_affine``."""
        return ("per_channel_" if self.per_channel else "per_tensor_") + ("symmetric" if self.symmetric else "affine")

    def __str__(self) -> str:
        return f"{self.bits} {self.word}"

    @classmethod
    def parse(cls, text: str | int, default: Scheme) -> Scheme:
        """Read ``10``, ``10 per_channel_affine`` or ``10 affine``.

        What is not said is as in ``default``.

        Raises:
            OptionError: bits out of 2 to 16, or no such grid; the nearest one is named.
        """
        match = re.fullmatch(r"\s*([+-]?\d+)(?:\s+(\S+))?\s*", str(text))
        if isinstance(text, bool) or match is None:
            raise OptionError(
                f"{text!r} is no bit-width: write bits and, if you like, a grid, as '10 {default.word}'"
            )
        bits, word = int(match[1]), match[2]
        if word is None:
            return replace(default, bits=bits)
        if word in ("affine", "symmetric"):
            return replace(default, bits=bits, symmetric=word == "symmetric")
        if word not in WORDS:
            known = nearest_first(word, WORDS)
            raise OptionError(f"no scheme named {word!r}; nearest is {known[0]!r}; others: {', '.join(known[1:])}")
        return replace(
            default, bits=bits, per_channel=word.startswith("per_channel"), symmetric=word.endswith("symmetric")
        )
