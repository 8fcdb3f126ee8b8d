"""The command line. Nothing here imports torch until a command needs it: ``hessrank --help`` answers at once."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence

from hessrank.cli.app import ABORTS, USAGE_ERRORS, app
from hessrank.cli.interrupted import InterruptedWork
from hessrank.cli.processes import first
from hessrank.errors import HessrankError
from hessrank.memory import is_out_of_memory

MISTAKE, INTERRUPTED = 2, 130
_LET_THE_FIRST_SPEAK = 15.0  # seconds


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: the arguments; None takes those of the process.

    Returns:
        the exit code: 0 done, 2 a mistake that one line on stderr explains, 130 interrupted. A bug of ours
        leaves its traceback. With ``--debug`` among the arguments every error does.
    """
    arguments = list(sys.argv[1:] if argv is None else argv) or ["--help"]
    debug = "--debug" in arguments
    try:
        code = app(args=[a for a in arguments if a != "--debug"], prog_name="hessrank", standalone_mode=False)
    except InterruptedWork as stop:
        return _stopped(f"interrupted: {stop}", INTERRUPTED)
    except (KeyboardInterrupt, *ABORTS):
        code = INTERRUPTED
    except HessrankError as error:
        if debug:
            raise
        return _stopped(f"error: {error}", MISTAKE)
    except USAGE_ERRORS as error:
        return _stopped(f"error: {error.format_message()}", MISTAKE)
    except Exception as error:
        if debug or not is_out_of_memory(error):
            raise
        return _stopped("error: out of memory: use smaller samples or batches, or another machine", MISTAKE)
    if code == INTERRUPTED:  # typer may have turned a KeyboardInterrupt into this code
        return _stopped("interrupted: nothing was written", INTERRUPTED)
    return int(code or 0)


def _stopped(line: str, code: int) -> int:
    if not first():  # of several processes one speaks, and its end is that of all; unless it knows of nothing
        time.sleep(_LET_THE_FIRST_SPEAK)
    print(" ".join(line.split()), file=sys.stderr)  # noqa: T201 - this is the command line
    return code
