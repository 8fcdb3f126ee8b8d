"""Finds the process that speaks and writes; without torch, which is slow."""

from __future__ import annotations

import os


def is_main_process() -> bool:
    """Return whether this process is the first of those that train together.

    The variables of their launcher tell.
    """
    ranks = [os.environ.get(name, "0") for name in ("RANK", "LOCAL_RANK", "NODE_RANK", "SLURM_PROCID")]
    return all(rank in {"0", ""} for rank in ranks)
