"""One line for an error that no command expects."""

from __future__ import annotations

import errno

from hessrank.files.atomic_write import DISK_FULL
from hessrank.out_of_memory import is_out_of_memory
from hessrank.text import one_line

# what the machine lacks, not the program
_OF_THE_MACHINE = DISK_FULL | {errno.EIO, errno.EROFS, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN}


def explain(error: BaseException) -> str:
    """Return one line that explains an exception which is not hessrank's own."""
    if isinstance(error, SystemExit):
        return (
            f"the program was ended from within (SystemExit: {one_line(error)}): a network, data or a plug-in that "
            "hessrank runs must not call sys.exit"
        )
    if isinstance(error, OSError) and error.errno in _OF_THE_MACHINE:
        where = "" if error.filename is None else f"{error.filename}: "
        what = "no space left on the disk: make room" if error.errno in DISK_FULL else f"{error.strerror}"
        return f"{where}{what}, and start the command again"
    if is_out_of_memory(error):
        return f"out of memory ({one_line(error)}): smaller batches or inputs, or fewer samples, need less"
    if isinstance(error, RecursionError):
        return f"too deeply nested ({one_line(error)}): the network, a file or an argument goes on too far"
    return (
        f"{type(error).__name__}: {one_line(error)}: this is a bug of hessrank, or of code of yours that it runs: "
        "run it again with --debug, and report what that shows"
    )
