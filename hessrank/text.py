"""Shows values in messages: names, lists, shapes, sizes, errors, as safe text."""

from __future__ import annotations

import reprlib
import unicodedata
from collections.abc import Iterable
from typing import Any, Protocol

_LAYOUT = "\n\t"
_BRIEF = 40  # characters of a value in a message
_UNITS = ((2**30, "GiB", 2), (2**20, "MiB", 2), (2**10, "KiB", 1))
AND_MORE, DOTS, IN_ALL = " and {left} more", ", …", ", … ({total} in all)"
"""How a list ends that does not name everything."""
_repr = reprlib.Repr()
_repr.maxlevel, _repr.maxstring, _repr.maxother = 2, 10 * _BRIEF, 10 * _BRIEF


def visible(text: str) -> str:
    """Return ``text`` without characters that a terminal obeys or hides.

    Its lines and tabs stay.

    Replaced are control characters, those that turn the direction or have no width, and halves of letters, which a
    file name that is no UTF-8 holds, and which cannot be printed.
    """
    if text.isprintable():
        return text
    return "".join(
        # Zs: spaces of all widths
        letter if letter.isprintable() or letter in _LAYOUT or unicodedata.category(letter) == "Zs" else "�"
        for letter in text.replace("\r\n", "\n")
    )


def printable(text: str) -> str:
    """Return ``text`` as one line without control characters.

    Names in a file may hold anything.
    """
    return visible(" ".join(text.split()))


def brief(value: object) -> str:
    """Return a value as a message shows it, whatever it is and however long."""
    try:
        text = printable(_repr.repr(value))
    except ValueError:  # Python writes no number of more than 4300 digits
        text = "a number of thousands of digits"
    return text if len(text) <= _BRIEF else text[:_BRIEF] + "…"


def message_of(problem: BaseException) -> str:
    """Return an exception's message; nothing where it has none that can be asked for."""
    try:
        return str(problem)
    except Exception:  # its own code, which may raise anything
        return ""


def one_line(problem: BaseException, *, at_most: int = 200) -> str:
    """Return an exception's message as one line; its type if it has none."""
    text = printable(message_of(problem)) or type(problem).__name__
    return text if len(text) <= at_most else text[: at_most - 1] + "…"


def first_line(problem: BaseException) -> str:
    """Return the first line of an exception's message; its type if it has none."""
    text = str(problem).strip()
    return text.splitlines()[0] if text else type(problem).__name__


def listed(names: Iterable[str], at_most: int = 5, rest: str = AND_MORE) -> str:
    """Return the first names, joined by commas, and an ending if there are more.

    Args:
        names: what to list.
        at_most: how many to name.
        rest: the ending; ``{left}`` in it is how many are not named, ``{total}`` how many there are.

    Example:
        >>> listed("abc", at_most=2), listed("abc", at_most=2, rest=IN_ALL), listed("ab")
        ('a, b and 1 more', 'a, b, … (3 in all)', 'a, b')
    """
    every = list(names)
    left = len(every) - at_most
    return ", ".join(every[:at_most]) + (rest.format(left=left, total=len(every)) if left > 0 else "")


def shape_text(shape: tuple[int, ...]) -> str:
    """Return a shape as people write it, ``3×224×224``; ``scalar`` for no dimension."""
    return "×".join(map(str, shape)) or "scalar"


class _Shaped(Protocol):
    """A tensor or an array; this module imports neither torch nor NumPy."""

    @property
    def shape(self) -> tuple[int, ...]: ...


def shapes_text(tensors: Iterable[_Shaped]) -> str:
    """Return the shapes of tensors, ``16×3, 16×8``; ``nothing`` without tensors."""
    return ", ".join(shape_text(t.shape) if len(t.shape) else "a scalar" for t in tensors) or "nothing"


def dtype_text(dtype: Any) -> str:
    """Return the name of a type of torch's without the library's, ``float32``."""
    return str(dtype).removeprefix("torch.")


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


def joined(names: Iterable[str]) -> str:
    """Return names as a choice: ``head, middle or tail``."""
    *others, last = names
    return f"{', '.join(others)} or {last}" if others else last
