"""Text from anywhere as text that is safe to show."""

from __future__ import annotations

import reprlib
import unicodedata
from collections.abc import Iterable

_LAYOUT = "\n\t"
_BRIEF = 40  # characters of a value in a message
_repr = reprlib.Repr()
_repr.maxlevel, _repr.maxstring, _repr.maxother = 2, 10 * _BRIEF, 10 * _BRIEF


def visible(text: str) -> str:
    """Return ``text`` without what a terminal would obey or hide; its lines and tabs stay.

    Replaced are control characters, those that turn the direction or have no width, and halves of letters, which a
    file name that is no UTF-8 holds, and which cannot be printed.
    """
    if text.isprintable():
        return text
    lines = text.replace("\r\n", "\n")
    return "".join(letter if _is_plain(letter) else "�" for letter in lines)


def _is_plain(letter: str) -> bool:
    return letter.isprintable() or letter in _LAYOUT or unicodedata.category(letter) == "Zs"  # spaces of all widths


def printable(text: str) -> str:
    """Return ``text`` as one line without control characters: names in a file may hold anything."""
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
    """Return an exception's message as one line of at most so many characters; else its type."""
    text = printable(message_of(problem)) or type(problem).__name__
    return text if len(text) <= at_most else text[: at_most - 1] + "…"


def shape_text(shape: tuple[int, ...]) -> str:
    """Return a shape as people write it, ``3×224×224``; ``scalar`` for no dimension."""
    return "×".join(map(str, shape)) or "scalar"


def joined(names: Iterable[str]) -> str:
    """Return names as a choice: ``head, middle or tail``."""
    *others, last = names
    return f"{', '.join(others)} or {last}" if others else last
