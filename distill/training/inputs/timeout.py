"""Waiting for data, but not for ever."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextvars import copy_context
from typing import Any, TypeVar

from hessrank.errors import DataError

T = TypeVar("T")


def within(seconds: float, what: str, work: Callable[[], T]) -> T:
    """Return what ``work`` returns, unless it takes longer than ``seconds``.

    It runs in a thread that nobody waits for: what hangs in a read that cannot be interrupted must not keep the
    process from ending.

    Args:
        seconds: how long to wait.
        what: what is waited for, for the message ("the training data").
        work: what to do.

    Raises:
        DataError: nothing came in time.
        BaseException: whatever ``work`` raised.
    """
    outcome: list[tuple[bool, Any]] = []

    def run() -> None:
        try:
            outcome.append((True, work()))
        except BaseException as error:
            outcome.append((False, error))

    thread = threading.Thread(target=copy_context().run, args=(run,), daemon=True, name=f"waiting for {what}")
    thread.start()
    thread.join(seconds)
    if not outcome:
        raise DataError(
            f"{what} gave nothing within {seconds:g} s: does a disk or a loading process hang? data_timeout sets how "
            "long to wait"
        )
    succeeded, result = outcome[0]
    if not succeeded:
        raise result
    found: T = result
    return found
