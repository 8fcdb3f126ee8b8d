"""The command line. It imports torch only when a command needs it."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence

from hessrank.cli.app import app
from hessrank.cli.command_group import ABORTS, COMPLETION_VARIABLE, USAGE_ERRORS
from hessrank.cli.processes import is_first_process
from hessrank.cli.terminal.interrupted_work import InterruptedWork
from hessrank.cli.terminal.streams import unfailing_streams
from hessrank.cli.unforeseen_errors import explain
from hessrank.errors import HessrankError
from hessrank.signals import stopping_signals
from hessrank.terminal import say
from hessrank.text import printable

MISTAKE, INTERRUPTED = 2, 130
_LET_THE_FIRST_SPEAK = 15.0  # seconds


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: the arguments; None takes those of the process.

    Returns:
        the exit code: 0 done, 1 ``check`` found something, 2 a mistake or a failure that one line on stderr explains,
        130 interrupted. With ``--debug`` among the arguments every error leaves its traceback.
    """
    arguments = list(sys.argv[1:] if argv is None else argv) or ["--help"]
    with unfailing_streams(whole_process=argv is None) as streams, stopping_signals():
        code = _run([a for a in arguments if a != "--debug"], debug="--debug" in arguments)
        return code if streams.all_shown(tell=code < MISTAKE) else max(code, MISTAKE)


def _run(arguments: list[str], *, debug: bool) -> int:
    try:
        code = app(args=arguments, prog_name="hessrank", standalone_mode=False)
    except InterruptedWork as stop:
        return _stopped(f"interrupted: {stop}", INTERRUPTED)
    except (KeyboardInterrupt, *ABORTS):
        code = INTERRUPTED
    except USAGE_ERRORS as error:
        return _stopped(f"error: {error.format_message()}", MISTAKE)
    except BaseException as error:  # of code of the user's too, which may end the program
        if isinstance(error, SystemExit) and COMPLETION_VARIABLE in os.environ:  # typer has answered a shell
            return int(error.code or 0)
        if debug:
            raise
        return _stopped(f"error: {error if isinstance(error, HessrankError) else explain(error)}", MISTAKE)
    if code == INTERRUPTED:  # typer may have turned a KeyboardInterrupt into this code
        return _stopped("interrupted: nothing was written", INTERRUPTED)
    return int(code or 0)


def _stopped(line: str, code: int) -> int:
    if (
        not is_first_process()
    ):  # of several processes one speaks, and its end is that of all; unless it knows of nothing
        time.sleep(_LET_THE_FIRST_SPEAK)
    say(printable(line), err=True)
    return code
