"""What a user's own code raises, said in one line."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from hessrank.analysis.memory import is_out_of_memory
from hessrank.errors import HessrankError, LossError
from hessrank.text import one_line


@contextmanager
def told(what: str, kind: type[HessrankError] = LossError) -> Iterator[None]:
    """Say in one line what code of the user's raises; errors of ours and a lack of memory go through.

    Args:
        what: whose code it is, for the message ("the loss").
        kind: of the error.

    Raises:
        HessrankError: of this ``kind``, saying what ``what`` raised.
    """
    try:
        yield
    except Exception as error:  # it may raise anything
        if isinstance(error, HessrankError) or is_out_of_memory(error):
            raise
        raise kind(f"{what} raised {type(error).__name__}: {one_line(error)}") from error
