"""Pictures in a notebook: shown once, by themselves, and kept by nobody."""

from __future__ import annotations

import gc
import pickle
import weakref
from collections.abc import Callable
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from helpers.hand_graphs import TWO_STAGES, ranking_of
from IPython.core.formatters import DisplayFormatter
from IPython.core.pylabtools import select_figure_formats
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import hessrank
from hessrank.analysis.verify.verification import COLUMNS, Verification
from hessrank.distill.study.plots import plot_study
from hessrank.distill.training.outputs.curves import plot_curves
from hessrank.drawing.figures import new_axes
from hessrank.quant.bit_choice.allocation import plot_frontier
from hessrank.quant.plots import plot_bits, plot_increase

RANKING = ranking_of(TWO_STAGES, {"A.act": 1.0, "A.last": 0.5, "B.last": 0.8})
PNG = b"\x89PNG"


def verification() -> Verification:
    row = dict.fromkeys(COLUMNS, 1.0) | {"layer": "a", "kind": "Conv2d", "tensor": "weight", "bits": 4, "reason": "b"}
    return Verification(pd.DataFrame([row, row | {"predicted": 2.0}])[list(COLUMNS)], [])


PLOTS: dict[str, Callable[..., Any]] = {
    "ranking": RANKING.plot,
    "depth": RANKING.plot_depth,
    "compare": hessrank.compare(RANKING, RANKING).plot,
    "verify": verification().plot,
    "bits": lambda *ax: plot_bits(hessrank.make_policy(RANKING, base_bits=4), RANKING, *ax),
    "increases": lambda *ax: plot_increase(RANKING, *ax),
    "frontier": lambda *ax: plot_frontier(pd.DataFrame({"bops": [1.0, 2.0], "damage": [2.0, 1.0]}), *ax),
    "study": lambda *ax: plot_study(
        pd.DataFrame(
            {"experiment": ["a", "a"], "bops": 1.0, "size_mib": 1.0, "before_top1": 1.0, "last_top1": [2.0, 3.0]}
        ),
        None,
        *ax,
    ),
}
CURVES = pd.DataFrame({"epoch": [1, 2], "train/loss": [2.0, 1.0], "val/top1": [50.0, 60.0]})


@pytest.mark.parametrize("inline", [False, True], ids=["bare", "%matplotlib inline"])
@pytest.mark.parametrize("name", PLOTS)
def test_a_notebook_shows_it_as_one_picture(name: str, inline: bool) -> None:
    """What a plot returns, and its figure, have one picture each, and pyplot has none to show on its own."""
    from IPython.core.interactiveshell import InteractiveShell

    shell = InteractiveShell()
    if inline:
        select_figure_formats(shell, {"png"})
    assert isinstance(shell.display_formatter, DisplayFormatter)
    ax = PLOTS[name]()
    assert isinstance(ax, Axes)
    for value in (ax, ax.figure):
        shown, _ = shell.display_formatter.format(value)
        assert set(shown) == {"text/plain", "image/png"}
        picture = shown["image/png"]
        assert isinstance(picture, str) or picture.startswith(PNG)
    assert plt.get_fignums() == []


@pytest.mark.parametrize("name", PLOTS)
def test_ones_own_axes_are_drawn_on_and_stay_with_pyplot(name: str) -> None:
    figure, ax = plt.subplots()
    try:
        assert PLOTS[name](ax) is ax
        assert type(ax) is Axes
    finally:
        plt.close(figure)


def test_the_curves_of_a_training_are_shown_too() -> None:
    figure = plot_curves(CURVES)
    assert isinstance(figure, Figure)
    assert figure._repr_png_().startswith(PNG)  # type: ignore[attr-defined]


def test_hundreds_of_pictures_are_not_kept() -> None:
    figures = weakref.WeakSet(new_axes(2, 2).figure for _ in range(300))
    for _ in range(3):
        ax = RANKING.plot_depth()
        figures.add(ax.figure)
    del ax
    gc.collect()
    assert len(figures) == 0
    assert plt.get_fignums() == []


def test_a_picture_has_the_notebooks_resolution_and_fits_the_renderer() -> None:
    ax = new_axes(4, 2)
    with plt.rc_context({"figure.dpi": 50}):
        assert size(ax._repr_png_()) == (200, 100)  # type: ignore[attr-defined]
    tall = new_axes(2, 1000)
    assert tall.figure.get_size_inches()[1] * tall.figure.dpi < 2**16


def size(png: bytes) -> tuple[int, int]:
    width, height = np.frombuffer(png[16:24], ">u4")
    return int(width), int(height)


def test_axes_that_are_taken_out_of_their_figure_have_no_picture() -> None:
    ax = new_axes(2, 2)
    ax.remove()
    assert ax._repr_png_() is None  # type: ignore[attr-defined]


def test_a_picture_can_be_pickled() -> None:
    assert pickle.loads(pickle.dumps(new_axes(2, 2)))._repr_png_().startswith(PNG)
