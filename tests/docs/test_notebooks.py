"""Every notebook runs, shows its pictures, and says what is stored in it."""

from __future__ import annotations

import re
from pathlib import Path

import nbformat
import pytest
from helpers.notebook_runs import NOTEBOOKS, difference, executed, pictures, texts

# Between processors, sums of floating-point numbers differ in their last digits, and roundings flip. Traces and
# increases then differ by a few parts in 10,000, medians of error bars by some percent. A training amplifies that
# step by step: between AVX2 and AVX-512 a last loss differed by a factor of 2, and another epoch was the best. What
# must be so, the notebook asserts itself; here a factor of 5 is a difference.
TOLERANCE = 0.2
TOLERANCE_OF_TRAINING = 0.8
MOST_BYTES = 300 * 1024
PLOTS = re.compile(r"^(?!def |from |import ).*(?:\bplot\w*\(|\bplt\.subplots\(|\bImage\(|\bsmall\()", re.MULTILINE)


def test_there_are_notebooks() -> None:
    assert len(NOTEBOOKS) >= 5


@pytest.mark.timeout(900)
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_shows_what_is_stored_in_it(path: Path) -> None:
    stored, now = nbformat.read(path, as_version=4), executed(path)
    tolerance = TOLERANCE_OF_TRAINING if "train" in path.stem else TOLERANCE
    found = []
    for number, (before, after) in enumerate(zip(stored.cells, now.cells, strict=True)):
        if before.cell_type == "code":
            assert before.execution_count == after.execution_count, number
            assert len(pictures(before)) == len(pictures(after)), number
            pairs = zip(texts(before), texts(after), strict=True)
            found += [(number, change) for pair in pairs if (change := difference(*pair, tolerance))]
    assert found == []


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_cell_that_plots_has_a_picture(path: Path) -> None:
    for number, cell in enumerate(nbformat.read(path, as_version=4).cells):
        if cell.cell_type == "code" and PLOTS.search(cell.source):
            assert len(pictures(cell)) == 1, number


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_small_and_knows_no_machine(path: Path) -> None:
    assert path.stat().st_size < MOST_BYTES
    assert not re.search(r"/(home|root|work|Users)/", path.read_text(encoding="utf-8"))
    for cell in nbformat.read(path, as_version=4).cells:
        assert all(output.get("name") != "stderr" for output in cell.get("outputs", []))


TABLE = "rank layer trace\n1 conv 2.00e+00 ± 3 %\n2 act 1.99e+00 ± 3 %"


@pytest.mark.parametrize(
    ("now", "found"),
    [
        (TABLE, None),
        ("rank layer trace\n1 act 2.01e+00 ± 3 %\n2 conv 2.01e+00 ± 3 %", None),  # a tie
        (TABLE.replace("conv", "other"), "stored"),
        (TABLE.replace("2.00e+00", "3.00e+00"), "stored"),
        (TABLE.replace("2.00e+00", "-2.00e+00"), "stored"),
        (TABLE + "\n3 more 1 2", "lines"),
    ],
)
def test_texts_are_compared_by_words_and_numbers(now: str, found: str | None) -> None:
    assert (found or "None") in str(difference(TABLE, now, TOLERANCE))
