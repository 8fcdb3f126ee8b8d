"""The interface of a ranking that tables and plots read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import pandas as pd


class RankedLayers(Protocol):
    """A table of layers, most sensitive first, with a record, as a ranking has."""

    info: dict[str, Any]
    """What ``ranking.json`` holds."""

    @property
    def by(self) -> str:
        """The column that the layers are ranked by."""
        ...

    @property
    def warnings(self) -> list[str]:
        """What a reader should know before trusting the order, a sentence each."""
        ...

    def __len__(self) -> int: ...

    def to_frame(self) -> pd.DataFrame:
        """Return a copy of the table."""
        ...
