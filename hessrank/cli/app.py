"""The group of commands. What is not a command is a model to rank."""

from __future__ import annotations

import difflib
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from hessrank.cli.check import check
from hessrank.cli.compare import compare
from hessrank.cli.export import export
from hessrank.cli.policy import policy
from hessrank.cli.processes import several
from hessrank.cli.rank import rank
from hessrank.cli.show import show
from hessrank.cli.study import study
from hessrank.cli.train import train
from hessrank.cli.verify import verify
from hessrank.errors import OptionError
from hessrank.terminal import say

_UsageError: Any = typer.BadParameter.__mro__[1]
USAGE_ERRORS: tuple[Any, ...] = (_UsageError.__mro__[1],)  # click's base class, wherever typer keeps it
ABORTS: tuple[Any, ...] = (typer.Abort,)


_IN_SEVERAL_PROCESSES = ("rank", "train", None)


class _RankByDefault(TyperGroup):
    """``hessrank MODEL …`` is ``hessrank rank MODEL …``; a misspelled command is not taken for a model."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        own_options = {"--help", "--version", "--install-completion", "--show-completion"}
        if args and args[0] not in self.commands and args[0] not in own_options:
            self._check_spelling(args[0])
            args = ["rank", *args]
        return super().parse_args(ctx, args)

    def _check_spelling(self, word: str) -> None:
        if word.startswith("-") or "." in word or "/" in word or Path(word).is_dir():
            return
        near = difflib.get_close_matches(word, self.commands, n=1, cutoff=0.6)
        if near:
            raise _UsageError(f"there is no command {word!r}; did you mean the command {near[0]!r}?")


app = typer.Typer(
    cls=_RankByDefault,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    help="Which layers of a network suffer most when you quantize them, and what to do about it.\n\n"
    "[bold]hessrank model.pth --out ranking.csv[/bold] ranks a model's layers; "
    "[bold]hessrank policy ranking.csv --out policy.yaml[/bold] gives them bits; "
    "[bold]hessrank train run.yaml[/bold] trains the quantized network; "
    "[bold]hessrank COMMAND --help[/bold] lists a command's options.",
    epilog="Exit codes: 0 done, 1 check found something, 2 a mistake or a failure that one line explains, "
    "130 interrupted. "
    "--debug shows the traceback.",
)


def _print_version(wanted: bool) -> None:
    if wanted:
        say(f"hessrank {version('hessrank')}")
        raise typer.Exit


@app.callback()
def group(
    context: typer.Context,
    show_version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Stand for the group's own options, and see that torchrun was not asked for in vain."""
    if several() and context.invoked_subcommand not in _IN_SEVERAL_PROCESSES:
        raise OptionError(f"hessrank {context.invoked_subcommand} works in one process: start it without torchrun")


app.command()(rank)
app.command()(show)
app.command()(policy)
app.command()(check)
app.command()(train)
app.command()(study)
app.command()(export)
app.command()(verify)
app.command()(compare)
