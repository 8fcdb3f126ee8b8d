"""What a data source is: samples by index, and a description that says how they were made."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Data:
    """Samples that were found under a name, and how they came to be.

    Attributes:
        dataset: a map-style data set, ``len()`` and ``[i]``, one sample of which is a tensor, a tuple or a dict of
            tensors without a batch dimension; a user's own loader may also be an iterable of batches.
        description: plain JSON values: ``kind``, ``path`` as it was given, and where they apply ``num_samples``,
            ``shapes``, ``processing`` (a list of sentences) and ``files``.
    """

    dataset: Any
    description: dict[str, Any]
