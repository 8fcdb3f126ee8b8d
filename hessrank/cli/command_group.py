"""How the words of the command line become a command."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from hessrank.errors import OptionError
from hessrank.text import one_line

_UsageError: Any = typer.BadParameter.__mro__[1]
USAGE_ERRORS: tuple[Any, ...] = (_UsageError.__mro__[1],)  # click's base class, wherever typer keeps it
ABORTS: tuple[Any, ...] = (typer.Abort,)
COMPLETION_VARIABLE = "_HESSRANK_COMPLETE"  # a shell that asks for completions sets it

_GROUP_OPTIONS = {"--help", "--version", "--install-completion", "--show-completion"}


class _PlainFlags:
    """Shows flags in ``--help`` without a type: there is nothing to give."""

    def get_params(self, ctx: Any) -> list[Any]:
        """Return the options and arguments, with no word for the value of a flag."""
        parameters: list[Any] = super().get_params(ctx)  # type: ignore[misc]  # of the command that this is mixed into
        for parameter in parameters:
            if getattr(parameter, "is_flag", False):
                parameter.metavar = ""
        return parameters


class PlainFlagsCommand(_PlainFlags, TyperCommand):
    """A command of hessrank."""


class RankByDefault(_PlainFlags, TyperGroup):
    """Takes ``hessrank MODEL …`` as ``hessrank rank MODEL …``.

    A misspelled command is not taken for a model.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put ``rank`` before words that begin with no command.

        Raises:
            Exit: an option has been answered; typer itself would end the process.
            OptionError: the completion cannot be installed.
        """
        if args and args[0] not in self.commands and args[0] not in _GROUP_OPTIONS:
            if not ctx.resilient_parsing:  # a shell that completes is told of no mistakes
                self._check_spelling(args[0])
            args = ["rank", *args]
        try:
            return super().parse_args(ctx, args)
        except (SystemExit, typer.Exit) as end:  # 1, of a shell that typer does not know, is for findings of check
            code = end.code if isinstance(end, SystemExit) else end.exit_code
            raise typer.Exit(2 if code else 0) from end
        except OSError as error:
            raise OptionError(f"--install-completion: {one_line(error)}") from error

    def _check_spelling(self, word: str) -> None:
        """Refuse a word that is nearly a command, and cannot be a model.

        Raises:
            UsageError: naming the command.
        """
        if word.startswith("-") or "." in word or "/" in word or Path(word).is_dir():
            return
        near = difflib.get_close_matches(word, self.commands, n=1, cutoff=0.6)
        if near:
            raise _UsageError(f"there is no command {word!r}; did you mean the command {near[0]!r}?")
