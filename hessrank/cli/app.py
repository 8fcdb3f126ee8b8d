"""The group of commands."""

from __future__ import annotations

from importlib.metadata import version
from typing import Annotated

import typer

from hessrank.cli.command_group import PlainFlagsCommand, RankByDefault
from hessrank.cli.commands.check import check
from hessrank.cli.commands.compare import compare
from hessrank.cli.commands.export import export
from hessrank.cli.commands.policy import policy
from hessrank.cli.commands.rank import rank
from hessrank.cli.commands.show import show
from hessrank.cli.commands.study import study
from hessrank.cli.commands.train import train
from hessrank.cli.commands.verify import verify
from hessrank.cli.processes import has_other_processes
from hessrank.errors import OptionError
from hessrank.terminal import say

_IN_SEVERAL_PROCESSES = ("rank", "train", None)

app = typer.Typer(
    cls=RankByDefault,
    no_args_is_help=True,
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
def check_group(
    context: typer.Context,
    show_version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Refuse several processes for a command that works in one.

    Raises:
        OptionError: torchrun was asked for in vain.
    """
    if has_other_processes() and context.invoked_subcommand not in _IN_SEVERAL_PROCESSES:
        raise OptionError(f"hessrank {context.invoked_subcommand} works in one process: start it without torchrun")


for _command in (rank, show, policy, check, train, study, export, verify, compare):
    app.command(cls=PlainFlagsCommand)(_command)
