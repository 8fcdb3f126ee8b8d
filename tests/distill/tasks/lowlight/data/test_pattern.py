"""Color filter patterns: names, phases, mosaics and back, squares that keep the phase."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from hessrank.distill.tasks.lowlight import PATTERNS, align, bayer_crop, demosaic_bilinear, mosaic
from hessrank.distill.tasks.lowlight.data.pattern import checked_pattern, shifted
from hessrank.distill.tasks.lowlight.data.squares import draw_square
from hessrank.errors import UnknownNameError

FLIPS = list(product((False, True), repeat=2))
BAYER = ("RGGB", "GRBG", "GBRG", "BGGR")


def cells(pattern, rows=12, columns=14):
    """Which letter lies where, as numbers."""
    return np.tile(np.array([ord(letter) for letter in pattern]).reshape(2, 2), (rows // 2, columns // 2))


def test_the_usual_patterns_are_listed_once():
    assert PATTERNS[:4] == BAYER
    assert {"RYYB", "BYYR", "RCCB", "RWWB", "RGBW"} <= set(PATTERNS)
    assert len(set(PATTERNS)) == len(PATTERNS) == 20


@pytest.mark.parametrize("name", [*PATTERNS, "RCCC", "YYYY"])
def test_four_letters_are_a_pattern(name):
    assert checked_pattern(name) == name


@pytest.mark.parametrize(
    ("name", "nearest"), [("rggb", "RGGB"), ("RGGX", "RGGB"), ("RYB", "RYYB"), ("GBRGG", "GBRG"), ("", "RGGB")]
)
def test_other_names_are_refused(name, nearest):
    with pytest.raises(UnknownNameError, match=f"no color filter pattern named '{name}'; nearest is '{nearest}'"):
        mosaic(np.zeros((3, 2, 2)), name)


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("place", [(0, 0), (0, 1), (1, 0), (1, 1)])
def test_shifts_are_those_of_the_pixels(pattern, place):
    row, column = place
    cut = cells(pattern)[row:, column:]
    expected = "".join(chr(code) for code in cut[:2, :2].flat)
    assert shifted(pattern, row, column) == expected
    assert align(expected, pattern) is not None


@pytest.mark.parametrize(
    ("found", "wanted", "offset"),
    [
        ("RGGB", "RGGB", (0, 0)),
        ("GRBG", "RGGB", (0, 1)),
        ("GBRG", "RGGB", (1, 0)),
        ("BGGR", "RGGB", (1, 1)),
        ("RYYB", "RYYB", (0, 0)),
        ("BYYR", "RYYB", (1, 1)),
        ("RYYB", "RGGB", None),
        ("RGBG", "RGGB", None),
    ],
)
def test_alignment(found, wanted, offset):
    assert align(found, wanted) == offset


SEES = {
    "R": [1, 0, 0],
    "G": [0, 1, 0],
    "B": [0, 0, 1],
    "Y": [0.5, 0.5, 0],
    "W": [0.25, 0.5, 0.25],
    "C": [0.25, 0.5, 0.25],
}


@pytest.mark.parametrize("pattern", PATTERNS)
def test_mosaic_is_what_each_filter_passes(pattern):
    linear = np.random.default_rng(0).uniform(size=(3, 4, 6))
    seen = mosaic(linear, pattern)
    assert seen.shape == (1, 4, 6)
    for row, column in np.ndindex(4, 6):
        letter = pattern[row % 2 * 2 + column % 2]
        assert seen[0, row, column] == pytest.approx(np.dot(SEES[letter], linear[:, row, column]), abs=1e-15)


def test_mosaic_keeps_type_and_bits():
    linear = np.random.default_rng(0).uniform(size=(3, 4, 4)).astype(np.float32)
    seen = mosaic(linear, "BGGR")
    assert seen.dtype == np.float32
    np.testing.assert_array_equal(seen[0, 1::2, 1::2], linear[0, 1::2, 1::2])


@pytest.mark.parametrize("pattern", PATTERNS)
def test_demosaicing_is_exact_for_one_color(pattern):
    flat = np.broadcast_to(np.array([0.2, 0.5, 0.7]).reshape(3, 1, 1), (3, 8, 10))
    np.testing.assert_allclose(demosaic_bilinear(mosaic(flat, pattern), pattern), flat, atol=1e-12)


@pytest.mark.parametrize("pattern", BAYER)
def test_demosaicing_keeps_measured_pixels_and_averages_their_neighbors(pattern):
    rgb = np.random.default_rng(0).uniform(size=(3, 8, 10))
    seen = mosaic(rgb, pattern)
    developed = demosaic_bilinear(seen, pattern)
    np.testing.assert_allclose(mosaic(developed, pattern), seen, atol=1e-12)
    row, column = 2 + pattern.index("R") // 2, 2 + pattern.index("R") % 2  # a red pixel
    around = seen[0, row - 1 : row + 2, column - 1 : column + 2]
    assert developed[1, row, column] == pytest.approx(around[[0, 1, 1, 2], [1, 0, 2, 1]].mean())
    assert developed[2, row, column] == pytest.approx(around[::2, ::2].mean())


@pytest.mark.parametrize("flips", FLIPS)
@pytest.mark.parametrize("pattern", PATTERNS)
def test_squares_keep_the_phase(pattern, flips):
    for row, column in [(0, 0), (1, 0), (0, 1)]:
        square = bayer_crop(cells(pattern)[None], row, column, 8, flips)
        np.testing.assert_array_equal(square[0], cells(pattern, 8, 8))


def test_drawn_squares_fit_and_reach_everywhere():
    rng = np.random.default_rng(0)
    places = {draw_square((10, 12), 8, rng) for _ in range(300)}
    picture = np.arange(120).reshape(1, 10, 12)
    assert all(bayer_crop(picture, *place).shape == (1, 8, 8) for place in places)
    assert {place[:2] for place in places} == {(0, 0), (0, 1)}  # one room for a flip: cells 0; 0 and 1
    assert {place[3] for place in places} == set(FLIPS)


def test_a_side_without_room_is_not_flipped():
    rng = np.random.default_rng(0)
    places = {draw_square((8, 10), 8, rng) for _ in range(100)}
    assert places == {(0, 0, 8, (False, False)), (0, 0, 8, (False, True))}
