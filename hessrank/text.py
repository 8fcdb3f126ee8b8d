"""Text from anywhere as one line that is safe to show."""

from __future__ import annotations


def printable(text: str) -> str:
    """Return ``text`` as one line without control characters: names in a file may hold anything."""
    words = " ".join(text.split())
    return "".join(letter if letter.isprintable() else "�" for letter in words)


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
