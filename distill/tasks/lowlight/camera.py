"""A simulated color camera: from a finished photograph back to the RAW of a dark night, and forth.

Brooks et al., "Unprocessing Images for Learned Raw Denoising", CVPR 2019 (https://arxiv.org/abs/1811.11127),
sections 3.1 to 3.6: the tone curve, the gamma, the color matrix and the white balance are undone in
that order, the mosaic is taken (:mod:`hessrank.distill.tasks.lowlight.data.pattern`), and shot and read noise
are added. Pictures are float arrays 3×H×W, mosaics 1×H×W.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.floating]

_XYZ_FROM_SRGB = np.array(  # IEC 61966-2-1, white D65
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
)
_CAMERA_FROM_XYZ = np.array(  # Sony α7S II, the camera of the SID data set, as LibRaw's table gives it
    [[0.5838, -0.1430, -0.0246], [-0.3497, 1.1477, 0.2297], [-0.0748, 0.1885, 0.5778]]
)
_GAMMA = 2.2


@dataclass(frozen=True)
class Camera:
    """One camera under one light; all gains and noise levels are relative to a full well of 1.

    Attributes:
        red_gain: white-balance gain of red against green (the middle of the paper's range, section 3.3).
        blue_gain: white-balance gain of blue.
        shot_noise: variance of the shot noise per unit of signal, i.e. one over the photons of a full well.
        read_noise: standard deviation of the read noise; the default follows the paper's section 3.1,
            log σ² = 2.18 · log(shot_noise) + 1.20.
        levels: steps of the converter between black and white (14 bits less a black level of 512).
    """

    red_gain: float = 2.15
    blue_gain: float = 1.7
    shot_noise: float = 1e-4
    read_noise: float = 7.95e-5
    levels: int = 15871

    @property
    def _gains(self) -> FloatArray:
        return np.array([self.red_gain, 1.0, self.blue_gain]).reshape(3, 1, 1)

    @property
    def _camera_from_srgb(self) -> FloatArray:
        """The 3×3 matrix from linear sRGB to white-balanced camera colors; its rows sum to 1."""
        matrix = _CAMERA_FROM_XYZ @ _XYZ_FROM_SRGB
        return np.asarray(matrix / matrix.sum(axis=1, keepdims=True))

    def unprocess(self, rgb: FloatArray) -> FloatArray:
        """Return what the sensor saw (3×H×W, linear, in [0, 1]) of a finished photograph (same shape, range).

        :meth:`process` inverts it but for colors outside the camera's range and blown highlights.
        """
        balanced = _apply(self._camera_from_srgb, _decode(rgb))
        return np.clip(_take_gains_off(balanced, 1.0 / self._gains), 0.0, 1.0)

    def process(self, linear: FloatArray) -> FloatArray:
        """Return the finished picture (3×H×W, in [0, 1]) of what the sensor saw (same shape and range)."""
        balanced = np.clip(linear * self._gains, 0.0, 1.0)
        return _encode(_apply(np.linalg.inv(self._camera_from_srgb), balanced))

    def monochrome(self, linear: FloatArray) -> FloatArray:
        """Return the picture (1×H×W, in [0, 1]) that the sensor would take without its color filters.

        Every pixel then collects what a Bayer cell's four collect together: (R + 2G + B)/4 of the
        white-balanced linear colors, so that white stays white, finished with the same gamma and tone.
        """
        balanced = np.clip(linear * self._gains, 0.0, 1.0)
        return _encode(np.tensordot([[0.25, 0.5, 0.25]], balanced, axes=1))

    def expose(self, mosaic: FloatArray, ratio: float, rng: np.random.Generator) -> FloatArray:
        """Take ``mosaic`` again with 1/``ratio`` of the light, and amplify it by ``ratio``.

        Poisson and normal noise (section 3.1), conversion to whole steps, black level taken off and
        clipped below, then amplified and clipped to 1 as the SID data set is prepared. Away from both
        clips the result has the mean ``mosaic`` and the variance given by :meth:`noise_variance`.

        Args:
            mosaic: the well-lit mosaic 1×H×W in [0, 1].
            ratio: exposure time of the long over the short exposure.
            rng: where the noise comes from.
        """
        electrons = rng.poisson(mosaic / (ratio * self.shot_noise))
        dark = electrons * self.shot_noise + rng.normal(0.0, self.read_noise, mosaic.shape)
        steps = np.maximum(np.rint(dark * self.levels), 0.0)
        return np.asarray(np.minimum(steps / self.levels * ratio, 1.0))

    def noise_variance(self, mosaic: FloatArray, ratio: float) -> FloatArray:
        """Return the variance of :meth:`expose`: ratio·shot·x + ratio²·(read² + step²/12)."""
        fixed = self.read_noise**2 + 1.0 / (12.0 * self.levels**2)
        return np.asarray(ratio * self.shot_noise * mosaic + ratio**2 * fixed)


def _apply(matrix: FloatArray, picture: FloatArray) -> FloatArray:
    return np.tensordot(matrix, picture, axes=1)


def _decode(encoded: FloatArray) -> FloatArray:
    """Undo the tone curve 3x² − 2x³ (section 3.5) and the gamma (section 3.4)."""
    toned = 0.5 - np.sin(np.arcsin(1.0 - 2.0 * np.clip(encoded, 0.0, 1.0)) / 3.0)
    return np.asarray(np.maximum(toned, 1e-8) ** _GAMMA)


def _encode(linear: FloatArray) -> FloatArray:
    encoded = np.clip(linear, 1e-8, 1.0) ** (1.0 / _GAMMA)
    return np.asarray(encoded**2 * (3.0 - 2.0 * encoded))


def _take_gains_off(balanced: FloatArray, inverse_gains: FloatArray) -> FloatArray:
    """Multiply by ``inverse_gains``, but leave white white (section 3.3, the highlight-preserving f)."""
    gray = balanced.mean(axis=0, keepdims=True)
    mask = (np.maximum(gray - 0.9, 0.0) / 0.1) ** 2
    return np.asarray(balanced * np.maximum(mask + (1.0 - mask) * inverse_gains, inverse_gains))
