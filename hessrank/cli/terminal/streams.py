"""Standard streams that never fail: closed, full, broken, or of few letters.

What cannot be written is no reason to lose work: it is remembered, and told at the end.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO, cast

from hessrank.terminal import say
from hessrank.text import one_line


class Stream:
    """A standard stream whose writing never raises.

    Everything else is that of the stream itself.

    Attributes:
        problem: why not all of it was written; empty if it was.
    """

    def __init__(self, stream: TextIO | None) -> None:
        """Write to ``stream``; None is one that was closed when the process began."""
        self._stream, self.problem = stream, ""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    @property
    def encoding(self) -> str:
        """The encoding; of a letter that it lacks, the number is written."""
        return getattr(self._stream, "encoding", None) or "utf-8"

    def write(self, text: str) -> int:
        """Write ``text``, or remember why that failed."""
        if self._stream is None:
            self.problem = "it is closed" if text else self.problem
        elif not self.problem:
            try:
                self._stream.write(text.encode(self.encoding, "backslashreplace").decode(self.encoding))
            except (OSError, ValueError) as problem:
                self._remember(problem)
        return len(text)

    def writelines(self, lines: Iterator[str]) -> None:
        """Write each of ``lines``."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Write what was held back, or remember why that failed."""
        if self._stream is not None and not self.problem:
            try:
                self._stream.flush()
            except (OSError, ValueError) as problem:
                self._remember(problem)

    def isatty(self) -> bool:
        """Return whether there is a terminal."""
        return self._stream is not None and not self._stream.closed and self._stream.isatty()

    def fileno(self) -> int:
        """Return the descriptor.

        Raises:
            UnsupportedOperation: there is none.
        """
        if self._stream is None:
            raise io.UnsupportedOperation("fileno")
        return self._stream.fileno()

    def close(self) -> None:
        """Stay open: a standard stream is for nobody to close."""

    @property
    def closed(self) -> bool:
        """Never: what is written to a stream that was closed is remembered."""
        return False

    def give_up(self) -> None:
        """Drop what is still held back: Python would fail over it when it ends."""
        if self._stream is not None and self.problem:
            try:
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, self._stream.fileno())
                os.close(nowhere)
            except (OSError, ValueError):  # it has no descriptor, or is closed
                return

    def _remember(self, problem: OSError | ValueError) -> None:
        self.problem = (isinstance(problem, OSError) and problem.strerror) or one_line(problem)


class Streams:
    """The two streams of a command."""

    def __init__(self, out: Stream, err: Stream) -> None:
        """Watch both."""
        self._out, self._err = out, err

    def all_shown(self, *, tell: bool) -> bool:
        """Return whether everything was written.

        Args:
            tell: whether a line on standard error says if not, where that works.
        """
        self._out.flush()
        if tell and self._out.problem:
            say(
                f"error: standard output cannot be written to ({self._out.problem}): the work is done, and the files "
                "are written, but not everything was shown",
                err=True,
            )
        self._err.flush()
        return not (self._out.problem or self._err.problem)


@contextmanager
def unfailing_streams(*, whole_process: bool) -> Iterator[Streams]:
    """Replace the standard streams by such that never raise, in the block.

    Args:
        whole_process: whether the process ends afterwards.
    """
    _fill_descriptors()
    kept = sys.stdout, sys.stderr
    out, err = Stream(sys.stdout), Stream(sys.stderr)
    sys.stdout, sys.stderr = cast(TextIO, out), cast(TextIO, err)
    try:
        yield Streams(out, err)
    finally:
        sys.stdout, sys.stderr = kept
        if whole_process:
            out.give_up()
            err.give_up()


def _fill_descriptors() -> None:
    """Open the descriptors 0 to 2 if they are closed.

    A file of ours that got one of them would be printed into.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            nowhere = os.open(os.devnull, os.O_RDWR)
            if nowhere == descriptor:
                os.set_inheritable(nowhere, True)
            else:
                os.dup2(nowhere, descriptor)
                os.close(nowhere)
