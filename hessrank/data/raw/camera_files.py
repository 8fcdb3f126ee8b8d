"""Reads RAW files of cameras (.ARW, .DNG, .NEF, …) by LibRaw through rawpy."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hessrank.data.raw.exposure import expose, parse_sid, sid_gain, without_references
from hessrank.errors import DataError
from hessrank.files.size_limits import check_claim
from hessrank.requirements import install_command
from hessrank.text import one_line

SID_SONY_LEVELS = (512.0, 16383.0)
"""Black and white level the SID benchmark uses for its Sony frames."""


@dataclass(frozen=True)
class CameraFrame:
    """One frame of a camera, read by its black and white level.

    `read` gives ``max(raw − black, 0) / (white − black) · gain``, clipped to 1.

    Attributes:
        path: the file.
        gain: the amplification.
        shape: height and width of the visible part.
        pattern: the four colors of the mosaic's corner, ``RGGB``.
    """

    path: Path
    gain: float
    shape: tuple[int, int]
    pattern: str

    def read(self) -> np.ndarray[Any, np.dtype[np.float32]]:
        """Return the exposed values H×W, in [0, 1]."""
        with open_raw(self.path) as raw:
            try:
                values = np.array(raw.raw_image_visible)
            except Exception as error:  # LibRaw's errors derive from Exception alone
                raise DataError(f"{self.path}: the RAW file is cut short or damaged: {one_line(error)}") from error
            black, white = _read_levels(self.path, raw)
        return expose(values, black=black, white=white, gain=self.gain)


def camera_frames(
    paths: Sequence[Path], *, gain: float | None, num_samples: int | None = None
) -> tuple[list[CameraFrame], list[str]]:
    """Return the input frames of a network, and sentences on what was done.

    A long exposure that is the reference of a short one among ``paths`` is a target, and left out.

    Args:
        paths: the files.
        gain: the amplification; None takes the ratio of the exposures from SID's names, 1 where there is none.
        num_samples: how many frames to take; None takes all.

    Raises:
        DataError: rawpy is not installed, or a file is damaged or has no Bayer mosaic.
    """
    inputs = without_references(paths)
    gains = {path: sid_gain(path) if gain is None else gain for path in inputs[:num_samples]}
    frames = [_read_frame(path, 1.0 if known is None else known) for path, known in gains.items()]
    factor = "min(long / short exposure, 300)" if gain is None else f"{gain:g}"
    notes = [f"max(raw − black, 0) / (white − black) · {factor}, clipped to 1", f"mosaic {frames[0].pattern}"]
    if len(inputs) < len(paths):
        notes.append(f"left out {len(paths) - len(inputs)} long exposures, which are targets")
    if unknown := [path.name for path, known in gains.items() if known is None]:
        notes.append(f"no exposure ratio known for {', '.join(unknown[:4])}: gain 1 for {len(unknown)} of them")
    return frames, notes


def _read_frame(path: Path, gain: float) -> CameraFrame:
    with open_raw(path) as raw:
        pattern = raw.raw_pattern
        if pattern is None or pattern.shape != (2, 2):
            raise DataError(f"{path}: this camera has no 2×2 Bayer mosaic; give its images as arrays instead")
        colors = "".join(chr(raw.color_desc[index]) for index in pattern.flatten())
        return CameraFrame(path, gain, (raw.sizes.height, raw.sizes.width), colors)


def _read_levels(path: Path, raw: Any) -> tuple[np.ndarray[Any, Any] | float, float]:
    """Return the black level, of each pixel, and the white level."""
    if parse_sid(path) and path.suffix.lower() == ".arw":
        return SID_SONY_LEVELS
    black = np.asarray(raw.black_level_per_channel, dtype=np.float32)[raw.raw_colors_visible]
    return black, float(raw.white_level)


@contextmanager
def open_raw(path: Path) -> Iterator[Any]:
    """Open a camera's RAW file with rawpy.

    Raises:
        DataError: rawpy is not installed, or LibRaw cannot read the file.
    """
    try:
        import rawpy  # noqa: PLC0415  # an extra, not needed for the other formats
    except ImportError as error:
        raise DataError(f"{path}: camera RAW files need rawpy: {install_command('rawpy')}") from error
    try:
        raw = rawpy.imread(str(path))
    except (rawpy.LibRawError, OSError) as error:
        said = error.args[0] if error.args else ""
        reason = said.decode(errors="replace") if isinstance(said, bytes) else one_line(error)
        raise DataError(f"{path}: LibRaw cannot read it: {reason}") from error
    with raw:
        pixels = raw.sizes.raw_height * raw.sizes.raw_width
        check_claim(path, pixels * np.dtype(np.float32).itemsize, "this RAW image", error=DataError)
        yield raw
