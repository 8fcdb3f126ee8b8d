"""How much memory this process has in use, and had at most."""

from __future__ import annotations

import resource
from pathlib import Path


def resident() -> int:
    """Return the bytes in memory now; where the system can, also forget the peak so far."""
    reset = Path("/proc/self/clear_refs")
    if not reset.exists():
        return peak()
    reset.write_text("5")  # the peak starts from here
    return _status("VmRSS")


def peak() -> int:
    """Return the bytes at the peak; Linux's ru_maxrss would begin with the parent's memory, /proc does not."""
    if Path("/proc/self/status").exists():
        return _status("VmHWM")
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # bytes on macOS


def _status(field: str) -> int:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))
