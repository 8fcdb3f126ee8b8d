"""Data from a path or a name."""

from __future__ import annotations

from collections.abc import Sequence

from hessrank.analysis.data.source import Data


def load_data(
    spec: str,
    *,
    input_shape: Sequence[int] | None = None,
    num_samples: int | None = None,
    seed: int = 0,
    gain: float | None = None,
) -> Data:
    raise NotImplementedError
