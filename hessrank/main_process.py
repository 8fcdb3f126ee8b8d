"""Which of the processes that train together speaks and writes; without torch, so that it can speak at once."""

from __future__ import annotations

import os


def is_main_process() -> bool:
    """Return whether this process is the first of all that train together, by what their launcher set."""
    ranks = [os.environ.get(name, "0") for name in ("RANK", "LOCAL_RANK", "NODE_RANK", "SLURM_PROCID")]
    return all(rank in {"0", ""} for rank in ranks)
