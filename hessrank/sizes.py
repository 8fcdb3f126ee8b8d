"""Sizes as people read them."""

from __future__ import annotations

_UNITS = ((2**30, "GiB", 2), (2**20, "MiB", 2), (2**10, "KiB", 1))


def size_text(count: float) -> str:
    """Return a number of bytes with a unit that suits it.

    Example:
        >>> size_text(3_500_000), size_text(20_000), size_text(100)
        ('3.34 MiB', '19.5 KiB', '100 bytes')
    """
    for unit, name, digits in _UNITS:
        if count >= unit:
            return f"{count / unit:.{digits}f} {name}"
    return f"{count:.0f} bytes"
