"""Photographs, squares that keep the Bayer phase, and seeds."""

from __future__ import annotations

import importlib
import subprocess
import sys
from collections import Counter
from itertools import product

import numpy as np
import pytest
import torch

from hessrank.distill.tasks.lowlight import (
    Camera,
    NightPhotographs,
    bayer_crop,
    held_out,
    load_photograph,
    mosaic,
    psnr_8bit,
)
from hessrank.errors import DataError, OptionError, UnknownNameError

FLIPS = list(product((False, True), repeat=2))
BRIGHT = Camera(shot_noise=1e-12, read_noise=0.0, levels=10**9)  # as good as no noise


@pytest.mark.parametrize("flips", FLIPS)
@pytest.mark.parametrize(("row", "column"), [(0, 0), (3, 5), (1, 2)])
def test_square_keeps_the_bayer_phase(flips, row, column):
    # channel 0: which filter covers the pixel; 1 and 2: where the pixel was
    filters = np.tile([[0, 1], [2, 3]], (10, 12))  # R, G beside red, G beside blue, B
    rows, columns = np.indices(filters.shape)
    square = bayer_crop(np.stack((filters, rows, columns)), row, column, 8, flips)
    np.testing.assert_array_equal(square[0], np.tile([[0, 1], [2, 3]], (4, 4)))
    assert (np.diff(square[1], axis=0) == (-1 if flips[0] else 1)).all()
    assert (np.diff(square[2], axis=1) == (-1 if flips[1] else 1)).all()


@pytest.mark.parametrize(("row", "column", "size"), [(0, 0, 7), (-1, 0, 8), (7, 0, 8), (0, 5, 8)])
def test_square_that_does_not_fit(row, column, size):
    with pytest.raises(OptionError, match="no even square"):
        bayer_crop(np.zeros((1, 16, 16)), row, column, size, (False, True))


def test_items_are_the_mosaic_of_their_own_target():
    data = NightPhotographs(24, size=32, camera=BRIGHT)
    for raw, (mono, rgb) in (data[i] for i in range(len(data))):
        linear = BRIGHT.unprocess(rgb.numpy().astype(np.float64))
        np.testing.assert_allclose(raw, mosaic(linear), atol=1e-4)
        np.testing.assert_allclose(mono, BRIGHT.monochrome(linear), atol=1e-5)


def test_items_shapes_and_ranges():
    raw, (mono, rgb) = NightPhotographs(1, size=64)[0]
    assert (raw.shape, mono.shape, rgb.shape) == ((1, 64, 64), (1, 64, 64), (3, 64, 64))
    for picture in (raw, mono, rgb):
        assert picture.dtype == torch.float32
        assert 0 <= picture.min() <= picture.max() <= 1


def test_items_depend_on_seed_and_index_alone():
    one, same, other = (NightPhotographs(8, size=32, seed=seed) for seed in (5, 5, 6))
    backward = {i: same[i] for i in reversed(range(8))}
    for i in range(8):
        assert torch.equal(one[i][0], backward[i][0])
        assert torch.equal(one[i][1][1], backward[i][1][1])
        assert not torch.equal(one[i][0], other[i][0])
    assert not torch.equal(one[0][0], one[1][0])


def test_every_photograph_color_order_and_flip_is_drawn(monkeypatch):
    module = importlib.import_module("hessrank.distill.tasks.lowlight.data.photographs")
    drawn, flips = Counter(), set()

    def day(_, photograph, order):
        drawn[photograph, order] += 1
        return np.zeros((5, 64, 64), np.float32)

    monkeypatch.setattr(NightPhotographs, "_day", day)
    monkeypatch.setattr(module, "bayer_crop", lambda *a: flips.add(a[4]) or bayer_crop(*a))
    data = NightPhotographs(600, size=32)
    for i in range(len(data)):
        data[i]
    assert set(drawn) == set(product(range(4), range(6)))
    assert flips == set(FLIPS)
    own_colors = sum(count for (_, order), count in drawn.items() if order == 0)
    assert 0.4 < own_colors / len(data) < 0.6


@pytest.mark.parametrize("arguments", [{"size": 48}, {"size": 0}, {"names": ()}, {"size": 448}])
def test_wrong_options(arguments):
    with pytest.raises(OptionError, match="squares of"):
        NightPhotographs(1, **arguments)


def test_items_go_on_beyond_the_length():
    short, long = NightPhotographs(2, size=32), NightPhotographs(10, size=32)
    assert short.endless is True
    assert len(short) == 2
    assert torch.equal(short[7][0], long[7][0])
    assert not torch.equal(short[7][0], short[1][0])
    with pytest.raises(IndexError):
        short[-1]


def test_items_of_another_pattern():
    data = NightPhotographs(4, size=32, camera=BRIGHT, pattern="BYYR")
    for raw, (_, rgb) in (data[i] for i in range(4)):
        linear = BRIGHT.unprocess(rgb.numpy().astype(np.float64))
        np.testing.assert_allclose(raw, mosaic(linear, "BYYR"), atol=1e-4)
    with pytest.raises(UnknownNameError, match="nearest is 'RYYB'"):
        NightPhotographs(1, size=32, pattern="RYYX")


@pytest.mark.parametrize("pattern", ["GBRG", "RYYB"])
def test_held_out_nights_of_another_pattern(pattern):
    for night in held_out(ratio=1.0, camera=BRIGHT, pattern=pattern):
        linear = BRIGHT.unprocess(night.rgb.numpy().astype(np.float64))
        np.testing.assert_allclose(night.raw, mosaic(linear, pattern), atol=1e-4)
        assert psnr_8bit(night.naive_rgb, night.rgb) > 22


def test_held_out_nights():
    nights, again, other = held_out(), held_out(), held_out(seed=1)
    assert [night.name for night in nights] == ["coffee", "chelsea"]
    for night, same, different in zip(nights, again, other, strict=True):
        assert night.raw.shape[1] % 32 == night.raw.shape[2] % 32 == 0
        assert night.mono.shape == night.raw.shape
        assert night.rgb.shape[1:] == night.raw.shape[1:]
        assert torch.equal(night.raw, same.raw)
        assert not torch.equal(night.raw, different.raw)
        assert torch.equal(night.rgb, different.rgb)


def test_naive_development_is_good_by_day():
    for night in held_out(ratio=1.0, camera=BRIGHT):
        assert psnr_8bit(night.naive_rgb, night.rgb) > 25  # what bilinear demosaicing costs
        assert psnr_8bit(night.naive_mono, night.mono) > 28


def test_unknown_photograph():
    with pytest.raises(UnknownNameError, match="nearest is 'coffee'"):
        load_photograph("cofee")


@pytest.mark.parametrize(
    ("name", "package", "wheel"), [("coffee", "skimage", "scikit-image"), ("china", "sklearn", "scikit-learn")]
)
def test_missing_package_is_named(monkeypatch, name, package, wheel):
    real = importlib.import_module

    def without(module, *rest):
        if module.startswith(package):
            raise ModuleNotFoundError(name=package)
        return real(module, *rest)

    monkeypatch.setattr(importlib, "import_module", without)
    with pytest.raises(DataError, match=rf"inside {wheel}: .*pip install '{wheel}>="):
        load_photograph(name)


def test_importing_needs_no_extra():
    program = """if True:
        import sys, hessrank.distill.tasks.lowlight
        print({"skimage", "sklearn"} & set(sys.modules))"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_psnr():
    a = torch.zeros(1, 4, 4)
    assert psnr_8bit(a, a) == float("inf")
    assert psnr_8bit(a + 10 / 255, a) == pytest.approx(20 * np.log10(25.5))
    assert psnr_8bit(a + 1.5, a + 1) == float("inf")  # clipped
    with pytest.raises(DataError, match="do not compare"):
        psnr_8bit(a, torch.zeros(3, 4, 4))
