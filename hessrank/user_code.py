"""Runs the user's code: explains its errors, and undoes what it changes."""

from __future__ import annotations

import io
import os
import random
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any, TextIO

from hessrank.errors import HessrankError, LossError
from hessrank.out_of_memory import is_out_of_memory
from hessrank.signals import keep_handlers
from hessrank.text import message_of, one_line, printable

_STREAMS = (("stdin", 0), ("stdout", 1), ("stderr", 2))


@contextmanager
def explain_errors(what: str, kind: type[HessrankError] = LossError) -> Iterator[None]:
    """Turn an error of the user's code into one line.

    Errors of ours, an interrupt and a lack of memory go through.

    Args:
        what: whose code it is, for the message ("the loss").
        kind: of the error.

    Raises:
        HessrankError: of this ``kind``, saying what ``what`` raised.
    """
    try:
        yield
    except BaseException as error:  # it may raise anything, sys.exit() included
        if isinstance(error, BaseExceptionGroup) and error.subgroup(KeyboardInterrupt):
            raise KeyboardInterrupt from error
        if isinstance(error, HessrankError | KeyboardInterrupt | GeneratorExit) or is_out_of_memory(error):
            raise
        raise kind(f"{what} raised {describe_error(error)}") from error


@contextmanager
def user_code(what: str, kind: type[HessrankError]) -> Iterator[None]:
    """Run the user's code with its errors explained, and undo what it changes.

    It is for code that is imported or called once; errors are as :func:`explain_errors` has them. Restored are the
    current folder, the standard streams, signal handlers, filters of warnings, the limit of recursion, and the state
    of Python's, NumPy's and torch's random numbers; of torch also the default type and device, the number of threads,
    whether gradients are recorded and whether algorithms have to be deterministic. Outputs go where the user said,
    and every command computes what it computes without this code.

    Args:
        what: whose code it is, for the message ("--arch net.py:make").
        kind: of the error.

    Raises:
        HessrankError: of this ``kind``, saying what ``what`` raised.
    """
    with explain_errors(what, kind), keep_process_state():
        yield


@contextmanager
def keep_process_state() -> Iterator[None]:
    """Restore the state of the process that :func:`user_code` lists.

    Errors are left as they are.
    """
    with ExitStack() as stack:
        stack.enter_context(keep_handlers())
        stack.enter_context(warnings.catch_warnings())
        for restore in _make_restorers():
            stack.callback(restore)
        yield


def describe_error(error: BaseException) -> str:
    """Return an error's class and message as one line.

    It says where a syntax error is, and what the first of a group is.
    """
    name = type(error).__name__
    if isinstance(error, BaseExceptionGroup):
        return f"{name} of {describe_error(error.exceptions[0])}"
    if isinstance(error, SyntaxError) and error.filename:
        return f"{name}: {printable(error.filename)}:{error.lineno}: {printable(error.msg or '')}"
    return f"{name}: {one_line(error)}" if message_of(error) else name


def _make_restorers() -> Iterator[Callable[[], Any]]:
    """Yield what puts each part of the process's state back to what it is now."""
    yield _keep_streams()
    with suppress(OSError):  # the folder may be gone
        folder = os.getcwd()
        yield lambda: _enter_folder(folder)
    depth = sys.getrecursionlimit()
    yield lambda: sys.setrecursionlimit(depth)
    state = random.getstate()
    yield lambda: random.setstate(state)
    numpy: Any = sys.modules.get("numpy")
    if numpy is not None:
        drawn = numpy.random.get_state()
        yield lambda: numpy.random.set_state(drawn)
    torch: Any = sys.modules.get("torch")
    if torch is not None and hasattr(torch, "get_default_device"):
        yield from _make_torch_restorers(torch)


def _make_torch_restorers(torch: Any) -> Iterator[Callable[[], Any]]:
    dtype, device, threads = torch.get_default_dtype(), torch.get_default_device(), torch.get_num_threads()
    recorded, state = torch.is_grad_enabled(), torch.get_rng_state()
    deterministic = torch.are_deterministic_algorithms_enabled()
    warns_only = torch.is_deterministic_algorithms_warn_only_enabled()

    def restore() -> None:
        if torch.get_default_dtype() != dtype:
            torch.set_default_dtype(dtype)
        if torch.get_default_device() != device:
            torch.set_default_device(None if device.type == "cpu" else device)
        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)
        torch.set_grad_enabled(recorded)
        torch.use_deterministic_algorithms(deterministic, warn_only=warns_only)
        torch.set_rng_state(state)

    yield restore


def _enter_folder(folder: str) -> None:
    with suppress(OSError):
        os.chdir(folder)


def _keep_streams() -> Callable[[], None]:
    """Return what gives the standard streams back, also those that were closed."""
    kept: dict[str, tuple[TextIO | None, int, int | None]] = {}
    for name, number in _STREAMS:
        copy = None
        with suppress(OSError):  # it was closed before
            copy = os.dup(number)
        kept[name] = getattr(sys, name), number, copy

    def restore() -> None:
        for name, (stream, number, copy) in kept.items():
            if copy is not None:
                same = False
                with suppress(OSError):  # closed
                    same = os.path.sameopenfile(number, copy)
                if not same:
                    os.dup2(copy, number)
                os.close(copy)
            setattr(sys, name, _reopen(stream, number) if copy is not None else stream)

    return restore


def _reopen(stream: TextIO | None, number: int) -> TextIO | None:
    """Return the stream, or a new one if it is closed."""
    if stream is None or not stream.closed:
        return stream
    raw = io.FileIO(number, "r" if number == 0 else "w", closefd=False)
    buffered = io.BufferedReader(raw) if number == 0 else io.BufferedWriter(raw)
    return io.TextIOWrapper(buffered, encoding="utf-8", errors="backslashreplace", line_buffering=True)
