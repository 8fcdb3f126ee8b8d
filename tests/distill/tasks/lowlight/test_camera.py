"""The simulated camera: round trip, mosaic, noise."""

from __future__ import annotations

import numpy as np
import pytest

from hessrank.distill.tasks.lowlight import Camera, demosaic_bilinear, load_photograph, mosaic
from hessrank.errors import DataError

CAMERA = Camera()


@pytest.mark.parametrize("name", ["astronaut", "chelsea", "coffee", "rocket", "china", "flower"])
def test_round_trip_of_photographs(name):
    rgb = load_photograph(name)
    error = np.abs(CAMERA.process(CAMERA.unprocess(rgb)) - rgb)
    assert error.mean() < 1e-4
    assert np.quantile(error, 0.999) < 0.02  # the rest: colors outside the camera's range


def test_round_trip_is_exact_for_dull_colors():
    rgb = np.random.default_rng(0).uniform(0.3, 0.6, (3, 32, 32))
    np.testing.assert_allclose(CAMERA.process(CAMERA.unprocess(rgb)), rgb, atol=1e-6)


def test_white_and_black_stay():
    for level in (0.0, 1.0):
        rgb = np.full((3, 2, 2), level)
        linear = CAMERA.unprocess(rgb)
        np.testing.assert_allclose(CAMERA.process(linear), rgb, atol=1e-6)
        np.testing.assert_allclose(CAMERA.monochrome(linear), rgb[:1], atol=1e-6)


def test_gray_is_the_same_in_mono():
    gray = np.linspace(0.05, 0.8, 64).reshape(1, 8, 8).repeat(3, axis=0)
    np.testing.assert_allclose(CAMERA.monochrome(CAMERA.unprocess(gray)), gray[:1], atol=1e-6)


def test_unprocessed_gray_has_the_gains_taken_off():
    linear = CAMERA.unprocess(np.full((3, 2, 2), 0.5))
    assert linear[1, 0, 0] == pytest.approx(0.5**2.2)
    assert linear[0, 0, 0] == pytest.approx(0.5**2.2 / 2.15)
    assert linear[2, 0, 0] == pytest.approx(0.5**2.2 / 1.7)


def test_read_noise_follows_the_paper():
    assert pytest.approx(np.exp(2.18 * np.log(1e-4) + 1.20) ** 0.5, rel=1e-2) == CAMERA.read_noise


def test_mosaic_is_rggb():
    channels = np.broadcast_to(np.arange(3.0).reshape(3, 1, 1), (3, 4, 6))
    expected = np.tile([[0.0, 1.0], [1.0, 2.0]], (2, 3))
    np.testing.assert_array_equal(mosaic(channels)[0], expected)


def test_mosaic_refuses_odd_sizes():
    with pytest.raises(DataError, match="5×4"):
        mosaic(np.zeros((3, 5, 4)))


def test_demosaicing_is_exact_for_a_plane_and_keeps_measured_pixels():
    flat = np.broadcast_to(np.array([0.2, 0.5, 0.7]).reshape(3, 1, 1), (3, 8, 10))
    np.testing.assert_allclose(demosaic_bilinear(mosaic(flat)), flat, atol=1e-12)
    rgb = np.random.default_rng(0).uniform(size=(3, 8, 10))
    np.testing.assert_allclose(mosaic(demosaic_bilinear(mosaic(rgb))), mosaic(rgb), atol=1e-12)


@pytest.mark.parametrize("ratio", [100.0, 300.0])
@pytest.mark.parametrize("level", [0.15, 0.4])
def test_noise_mean_and_variance(ratio, level):
    n = 200_000
    mosaic = np.full((1, 1, n), level)
    noisy = CAMERA.expose(mosaic, ratio, np.random.default_rng(1))
    variance = CAMERA.noise_variance(mosaic, ratio)[0, 0, 0]
    assert abs(noisy.mean() - level) < 5 * np.sqrt(variance / n)
    assert noisy.var() == pytest.approx(variance, rel=0.03)


def test_noise_is_clipped_like_sid():
    noisy = CAMERA.expose(np.array([[[0.0] * 5000 + [1.0] * 5000]]), 300.0, np.random.default_rng(0))
    assert noisy.min() == 0.0
    assert noisy.max() == 1.0
    steps = noisy[noisy < 1] * CAMERA.levels / 300
    np.testing.assert_allclose(steps, np.rint(steps), atol=1e-6)
