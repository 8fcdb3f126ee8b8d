"""Ctrl-C during work of which a part is saved."""

from __future__ import annotations


class InterruptedWork(Exception):  # noqa: N818 - nothing went wrong
    """Says how to go on. It is no KeyboardInterrupt: of that, typer makes an exit code without a word."""
