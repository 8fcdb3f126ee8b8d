"""What tables and pictures read of a ranking; the class itself uses them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import pandas as pd


class RankedLayers(Protocol):
    """A table of layers, most sensitive first, and its record: :class:`hessrank.Ranking`, for one."""

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
