"""The names of the files that a run leaves in its folder."""

from __future__ import annotations

START, TEST = "start.json", "test.json"
"""What is written before the first step, and what a run that only judges writes."""
RESULT = "result.json"
METRICS, STEPS, RESULTS = "metrics.csv", "steps.csv", "results"
PICTURES, CURVES = "pictures", "curves.png"
ONNX = "model.onnx"
LAST, BEST = "last", "best"
"""The kinds of checkpoints."""


def checkpoint_name(kind: str, epoch: int) -> str:
    """Return the name of a checkpoint.

    Args:
        kind: ``last`` or ``best``.
        epoch: epochs that are trained, 0 before the first step.
    """
    return f"{kind}-epoch{epoch:04d}.ckpt"


def page_name(epoch: int) -> str:
    """Return the name of an epoch's page of metrics."""
    return f"{RESULTS}/epoch{epoch:04d}.txt"


def picture_name(epoch: int) -> str:
    """Return the name of an epoch's picture."""
    return f"{PICTURES}/epoch{epoch:04d}.png"
