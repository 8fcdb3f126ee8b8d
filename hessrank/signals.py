"""Signals that stop the work: Ctrl-C, SIGTERM and SIGHUP act alike."""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

STOPPING = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
_TOGETHER = 0.2  # seconds: timeout(1) sends its signal twice, a closing terminal sends two of them


class Stop:
    """The handler of a signal that stops the work."""

    def __init__(self, act: Callable[[], None]) -> None:
        """Call ``act`` when a signal comes; once for those that come together."""
        self._act, self._last = act, -math.inf

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """Act, unless a signal came just before."""
        before, self._last = self._last, time.monotonic()
        if self._last - before > _TOGETHER:
            self._act()


def is_stopping(handler: Any) -> bool:
    """Return whether a handler stops the work: Python's of Ctrl-C, or ours."""
    return handler is signal.default_int_handler or isinstance(handler, Stop)


@contextmanager
def keep_handlers() -> Iterator[bool]:
    """Restore the handlers of :data:`STOPPING` at the end of the block.

    It gives whether this thread may change them.
    """
    if threading.current_thread() is not threading.main_thread():
        yield False
        return
    before = {number: signal.getsignal(number) for number in STOPPING}
    try:
        yield True
    finally:
        for number, handler in before.items():
            if handler is not None:  # None: set by C code, out of reach
                signal.signal(number, handler)


@contextmanager
def stopping_signals() -> Iterator[None]:
    """Let SIGTERM and SIGHUP raise KeyboardInterrupt inside the block.

    Who has ignored them, as nohup does, or has a handler of his own, keeps it.
    """

    def interrupt() -> None:
        raise KeyboardInterrupt

    with keep_handlers() as may_change:
        stop = Stop(interrupt)
        for number in STOPPING if may_change else ():
            if signal.getsignal(number) is signal.SIG_DFL:
                signal.signal(number, stop)
        yield
