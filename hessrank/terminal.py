"""Prints text to the terminal, which obeys nothing in it."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from hessrank.text import visible

_ASCII = str.maketrans("█·–×→", "#.-x>")  # of our tables, where the terminal has no more; all else gets its number


class _Terminal(Console):
    """A console that obeys no text: neither its control characters nor its brackets."""

    def render_str(self, text: str, **options: Any) -> Text:
        """Return a string as it is shown, so that it is measured by that."""
        return super().render_str(visible(text), **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Yield the pieces that the console writes; only its own hold control characters."""
        for piece in super().render(renderable, options):
            text = visible(piece.text)
            if self.options.ascii_only:
                text = text.translate(_ASCII)
            yield piece if piece.control else piece._replace(text=text)


def plain_text(text: str, style: str = "") -> Text:
    """Return text for a table: without markup, as wide as it is shown."""
    return Text(visible(text), style)


def terminal(*, err: bool = False, **options: Any) -> Console:
    """Return a console for tables and progress.

    Args:
        err: for standard error.
        options: of :class:`rich.console.Console`.
    """
    # given by name, the stream's encoding counts: an ASCII terminal has no lines of boxes
    options.setdefault("file", sys.stderr if err else sys.stdout)
    return _Terminal(markup=False, emoji=False, highlight=False, **options)


def say(text: str, *, err: bool = False) -> None:
    """Print lines on standard output, or on standard error, at once."""
    print(visible(text), file=sys.stderr if err else sys.stdout, flush=True)
