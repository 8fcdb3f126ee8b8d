"""Figures that a notebook shows without pyplot, which keeps them in memory.

IPython looks for ``_repr_png_`` on what stands last in a cell; ``%matplotlib inline`` is not needed, and changes
nothing.
"""

from __future__ import annotations

from io import BytesIO

import numpy as np
from matplotlib import rcParams
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hessrank.text import visible

DPI = 150
_MOST_PIXELS = 2**16 - 1  # on a side, for matplotlib's renderer


class NotebookFigure(Figure):
    """A figure that a notebook shows as a picture, with ``rcParams["figure.dpi"]``."""

    def _repr_png_(self) -> bytes:
        buffer = BytesIO()
        self.savefig(buffer, format="png", dpi=min(rcParams["figure.dpi"], self.dpi))
        return buffer.getvalue()


class NotebookAxes(Axes):
    """Axes that a notebook shows as the picture of their figure."""

    def _repr_png_(self) -> bytes | None:
        figure = self.get_figure(root=True)
        return figure._repr_png_() if isinstance(figure, NotebookFigure) else None


def plain_label(text: str) -> str:
    """Return text that matplotlib shows as it is.

    It is no formula, and not hidden from a legend.
    """
    plain = visible(text).replace("\n", " ").replace("\t", " ").replace("$", r"\$")
    return f" {plain}" if plain.startswith("_") else plain


def with_limits(ax: Axes) -> None:
    """Set limits of axes on which nothing was drawn; a log scale needs them."""
    if not np.isfinite(ax.dataLim.get_points()).all():
        ax.set(xlim=(0.1, 10), ylim=(0.1, 10))


def new_figure(width: float, height: float) -> NotebookFigure:
    """Make an empty figure outside pyplot, with a layout of its own."""
    dpi = min(DPI, _MOST_PIXELS / max(width, height))
    return NotebookFigure(figsize=(width, height), layout="constrained", dpi=dpi)


def new_axes(width: float, height: float) -> Axes:
    """Make axes in a figure of their own, of a size in inches."""
    return new_figure(width, height).add_subplot(axes_class=NotebookAxes)
