"""What can be trained: one sub-package per task."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hessrank.distill.tasks.base import TASKS, EndlessSamples, Task

__all__ = ["TASKS", "EndlessSamples", "Task"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'hessrank.distill.tasks' has no attribute {name!r}")
    from hessrank.distill.tasks import base  # noqa: PLC0415 - torchmetrics takes a second to import

    return getattr(base, name)
