"""Reads MCR frames: 1024×1280 bytes, RGGB, the exposure in the file's name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hessrank.data.raw.exposure import expose, parse_mcr
from hessrank.errors import DataError

ROWS, COLUMNS = 1024, 1280


@dataclass(frozen=True)
class McrFrame:
    """One frame; `read` gives ``raw / 255 · gain``, clipped to 1."""

    path: Path
    gain: float
    shape: tuple[int, int] = (ROWS, COLUMNS)

    def read(self) -> np.ndarray[Any, np.dtype[np.float32]]:
        """Return the exposed values H×W, in [0, 1]."""
        values = np.fromfile(self.path, dtype=np.uint8).reshape(self.shape)
        return expose(values, black=0.0, white=255.0, gain=self.gain)


def mcr_frames(
    paths: Sequence[Path], *, gain: float | None, num_samples: int | None = None
) -> tuple[list[McrFrame], list[str]]:
    """Return the input frames of a network, and sentences on what was done.

    Frames of the monochrome camera (``M…``) are left out: the network is to predict them.

    Args:
        paths: ``.raw`` files.
        gain: the amplification; None takes the ratio of the shutters from the name, 1 where it says none.
        num_samples: how many frames to take; None takes all.

    Raises:
        DataError: a file is not of MCR's size, or none is from the color camera.
    """
    names = {path: parse_mcr(path) for path in paths}
    color = [path for path, name in names.items() if name is None or name.color]
    if not color:
        raise DataError(f"{paths[0]}: only frames of the monochrome camera (M…); the network's input is a C… file")
    known = {path: 1.0 if name is None else name.gain for path, name in names.items()}
    frames = [McrFrame(path, known[path] if gain is None else gain) for path in color[:num_samples]]
    for frame in frames:
        check_frame_size(frame.path)
    notes = [f"raw / 255 · {'gt_shutter / shutter' if gain is None else f'{gain:g}'}, clipped to 1"]
    if len(color) < len(paths):
        notes.append(f"left out {len(paths) - len(color)} frames of the monochrome camera")
    unknown = [frame.path.name for frame in frames if gain is None and names[frame.path] is None]
    if unknown:
        notes.append(f"no shutter in the name of {', '.join(unknown[:4])}: gain 1 for {len(unknown)} of them")
    return frames, notes


def check_frame_size(path: Path) -> None:
    """Refuse a file that is not as long as an MCR frame.

    Raises:
        DataError: both lengths are named.
    """
    size = path.stat().st_size
    if size != ROWS * COLUMNS:
        raise DataError(
            f"{path}: {size} bytes, but an MCR frame has {ROWS}×{COLUMNS} = {ROWS * COLUMNS}; is it whole?"
        )
