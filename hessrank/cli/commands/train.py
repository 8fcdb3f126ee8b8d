"""``hessrank train run.yaml``: quantization-aware training with a teacher."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hessrank.cli.option_groups import TrustPickle, TrustSize
from hessrank.cli.terminal.interrupted_work import keeping_epochs
from hessrank.terminal import say

if TYPE_CHECKING:
    from hessrank.distill.run_file import RunFile


def train(
    run: Annotated[
        Path, typer.Argument(help="YAML: what to train on what, and a policy's keys.", show_default=False)
    ],
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the last checkpoint, to the same result as without a break.")
    ] = False,
    out: Annotated[Path | None, typer.Option(help="Folder to write to, instead of the file's.")] = None,
    epochs: Annotated[int | None, typer.Option(min=0, help="Instead of the file's.")] = None,
    trust_pickle: TrustPickle = False,
    devices: Annotated[int | None, typer.Option(min=1, help="Devices, or processes on the CPU.")] = None,
    num_nodes: Annotated[int | None, typer.Option(min=1, help="Machines.")] = None,
    trust_size: TrustSize = False,
) -> None:
    """Train a quantized network as RUN says, with a teacher for the layers that are to be distilled.

    Before the first step it judges the float, the quantized and the teacher network, and stops if a checkpoint was
    not loaded completely or no data come. Every epoch is saved.
    """
    from hessrank.main_process import is_main_process

    if is_main_process():
        say(f"reads {run}, loads torch and Lightning (some seconds)", err=True)

    from hessrank.distill.run_file import read_run

    read = _override_keys(read_run(run), epochs=epochs, devices=devices, num_nodes=num_nodes)

    from hessrank.distill.training import require_lightning

    require_lightning()

    from hessrank.cli.terminal.training_progress import training_reporter
    from hessrank.distill.training.from_run_file import start

    folder = read.out if out is None else out
    with open_debugger(read.keys.pdb_debug), keeping_epochs(folder), training_reporter() as report:
        tell = partial(say, err=True)
        result = start(read, resume=resume, say=tell, report=report, out=out, trust_pickle=trust_pickle)
    if is_main_process():
        say(str(result))
        say(f"wrote {result.folder}", err=True)


def _override_keys(run: RunFile, **given: Any) -> RunFile:
    """Return a run file with the keys that the command line gives."""
    from hessrank.distill.run_file import Settings

    changed = {name: value for name, value in given.items() if value is not None}
    Settings.of(changed)  # a copy does not check
    return replace(run, keys=run.keys.model_copy(update=changed))


@contextmanager
def open_debugger(wanted: bool) -> Iterator[None]:
    """Open the debugger where an exception was raised, if ``wanted``."""
    try:
        yield
    except Exception as error:
        if wanted:
            import pdb

            say(f"{type(error).__name__}: {error}", err=True)
            pdb.post_mortem(error.__traceback__)
        raise
