"""``hessrank study study.yaml``: a table of experiments, several seeds each."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from hessrank.cli.option_groups import TrustPickle, TrustSize
from hessrank.cli.terminal.interrupted_work import keeping_epochs
from hessrank.errors import OutputError
from hessrank.terminal import say


def study(
    file: Annotated[Path, typer.Argument(help="YAML: what is shared, policies, experiments.", show_default=False)],
    only: Annotated[
        list[str] | None, typer.Option(help="Run this experiment only; again for more. The table shows all.")
    ] = None,
    trust_pickle: TrustPickle = False,
    trust_size: TrustSize = False,
) -> None:
    """Run every experiment of FILE with every seed; what is finished already is only read.

    Writes results.csv (one row a training), results.md (mean ± standard error) and results.png; the tables name the
    monitored metric, which decides which epoch is best.
    """
    from hessrank.main_process import is_main_process

    if is_main_process():
        say(f"reads {file}, loads torch and Lightning (some seconds)", err=True)

    from hessrank.distill.study import read_study

    read = read_study(file)

    from hessrank.distill.training import require_lightning

    require_lightning()

    from hessrank.cli.terminal.training_progress import training_reporter
    from hessrank.cli.write_outputs import save_plot
    from hessrank.distill.study.plots import plot_study
    from hessrank.distill.study.run import monitor_of, run_study, write_rows
    from hessrank.distill.study.table import markdown
    from hessrank.quant.policy.write import write_text

    written = [read.out / name for name in ("results.csv", "results.md", "results.png")]
    _refuse_foreign_tables(written)
    with keeping_epochs(read.out), training_reporter() as report:
        tell = partial(say, err=True)
        rows = run_study(read, only=only or (), say=tell, report=report, trust_pickle=trust_pickle)
    if not is_main_process() or rows.empty:
        return
    write_rows(rows, written[0])
    write_text(written[1], markdown(rows))
    save_plot(lambda: plot_study(rows, monitor_of(read)), written[2])
    say(markdown(rows).rstrip("\n"))
    say(f"wrote {', '.join(map(str, written))}", err=True)


def _refuse_foreign_tables(written: list[Path]) -> None:
    """Refuse a folder whose tables or picture no study has written.

    Raises:
        OutputError: naming the first of them.
    """
    there = [path for path in written if os.path.lexists(path)]
    if not there:
        return
    table, beginning = written[0], b"experiment,seed,"
    if table.is_file():
        with table.open("rb") as file:
            if file.read(len(beginning)) == beginning:
                return
    raise OutputError(f"{there[0]}: no study has written it, and it would be written over: write elsewhere (out)")
